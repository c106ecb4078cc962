//! Cycles walked through their steps: order, gates, budgets, containment, crashes.

mod answers;
mod containment;
mod properties;

use std::time::Duration;

use super::*;
use crate::ids::TsMs;
use crate::trading::agent::AgentStatus;
use crate::trading::gate::{
    GateKind, GatePlace, GateReadings, HookAnswer, HookError, HookVote, KillReading, Narrowing,
};
use crate::trading::journal::{
    CycleEnded, JournalFact, StageError, StageErrorKind, StageOutcome, StageOutput, StrategyFailure,
};
use crate::trading::pipeline::{
    Pipeline, analysis_pipeline, canonical_pipeline, heartbeat_pipeline, rebalance_pipeline,
};
use crate::trading::stage::{HookMode, HookMoment, StageProvider, StageRole};
use crate::trading::strategy::StrategyStatus;
use crate::trading::testkit::{
    CycleScript, CycleWalk, dec, decision, decision_id, good_answer, hook, stage_name, started,
    strategy_name, without_open_gates,
};

/// Walks a cycle of `pipeline` through `script`: how it ended, and its line without the gates that allowed.
fn walked(pipeline: Pipeline, script: CycleScript) -> (CycleEnded, String) {
    let mut walk = CycleWalk::new(started(pipeline), script);
    let ended = walk.walk();
    (ended, without_open_gates(&walk.line()))
}

fn provider_error() -> StageError {
    StageError::new(StageErrorKind::Provider, "it said no")
}

/// Readings that change from the record with this number on.
fn from_record(at: usize, change: impl Fn(&mut GateReadings) + 'static) -> CycleScript {
    let readings = move |_: &GatePlace, records: usize, readings: &mut GateReadings| {
        if at <= records {
            change(readings);
        }
    };
    CycleScript { readings: Box::new(readings), ..CycleScript::default() }
}

fn halted(readings: &mut GateReadings) {
    readings.kill = KillReading::Refused("halted by ops: odd".to_owned());
}

#[test]
fn stages_run_in_their_order_with_gates_before_each_and_before_each_intent() {
    let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());

    let ended = walk.walk();

    assert_eq!(
        walk.line(),
        "?ING ING ?FEAT FEAT ?SIG SIG ?RISK RISK ?EXEC ?d-a !d-a ?d-b !d-b EXEC ?PORT PORT ?ANA ANA ?GOV GOV =ok"
    );
    assert_eq!(
        (ended.status, &ended.reason, ended.errors.len()),
        (CycleStatus::Ok, &CycleEndReason::Done, 0)
    );
    let counts = ended.counts;
    assert_eq!((counts.strategies_processed, counts.decisions, counts.intents), (2, 2, 2));
    assert_eq!(walk.run.state().progress_percent(), 100);
}

#[test]
fn every_shipped_pipeline_comes_to_its_end() {
    for (pipeline, line) in [
        (
            analysis_pipeline(),
            "fetch_market_data evaluate_positions generate_decisions validate_decisions !d-a !d-b execute_orders \
             update_state =ok",
        ),
        (heartbeat_pipeline(), "check_service_health sync_positions update_status =ok"),
    ] {
        assert_eq!(walked(pipeline, CycleScript::default()).1, line);
    }
    let mut orders = good_answer(StageRole::Signal);
    orders.verdicts = good_answer(StageRole::Risk).verdicts;
    let nothing = || StageOutput::default();
    let script = CycleScript {
        answers: vec![
            ("calculate_target_weights", vec![(1, Ok(nothing()))]),
            ("compare_current_weights", vec![(1, Ok(nothing()))]),
            ("generate_rebalance_orders", vec![(1, Ok(orders))]),
        ],
        ..CycleScript::default()
    };
    assert_eq!(
        walked(rebalance_pipeline(), script).1,
        "calculate_target_weights compare_current_weights generate_rebalance_orders !d-a !d-b execute_orders =ok"
    );
}

/// `ai.decision.generated` without a request of ours starts a cycle of its strategy at RISK.
#[test]
fn a_cycle_of_a_decision_begins_at_risk_with_its_gates() {
    let mut cycle = started(canonical_pipeline());
    cycle.begin_at = u16::try_from(cycle.pipeline.first_risk().unwrap()).unwrap();
    cycle.decisions = good_answer(StageRole::Signal).decisions;
    let mut walk = CycleWalk::new(cycle.clone(), CycleScript::default());

    let ended = walk.walk();

    assert_eq!(without_open_gates(&walk.line()), "RISK !d-a !d-b EXEC PORT ANA GOV =ok");
    assert_eq!(ended.counts.decisions, 2);
    let mut walk = CycleWalk::new(cycle, from_record(0, halted));
    walk.walk();
    assert_eq!(walk.line(), "?RISK- =blocked");
}

#[test]
fn a_heartbeat_goes_on_whatever_gates_would_say() {
    let (ended, _) = walked(heartbeat_pipeline(), from_record(0, halted));

    assert_eq!(ended.status, CycleStatus::Ok);
}

/// Each gate, closed from the start: inputs are fetched, and the cycle is blocked before SIG.
#[test]
fn a_gate_that_is_closed_short_circuits_before_sig_with_its_reason() {
    type Close = fn(&mut GateReadings);
    let cases: [(GateKind, Close); 6] = [
        (GateKind::KillSwitch, halted),
        (GateKind::Agent, |readings| readings.agent.status = AgentStatus::Stopped),
        (GateKind::Agent, |readings| readings.agent.catching_up = true),
        (GateKind::Strategy, |readings| {
            readings.strategies.iter_mut().for_each(|(_, status)| *status = StrategyStatus::Paused);
        }),
        (GateKind::Session, |readings| readings.session.calendar_allows = false),
        (GateKind::Staleness, |readings| readings.newest_input = Some(TsMs(0))),
    ];
    for (gate, close) in cases {
        let (ended, line) = walked(canonical_pipeline(), from_record(0, close));

        assert_eq!(line, "ING FEAT ?SIG- =blocked", "{gate:?}");
        assert!(matches!(&ended.reason, CycleEndReason::Gate { gate: denied, .. } if *denied == gate));
        assert_eq!(ended.errors[0].code, CycleErrorCode::Blocked);
        assert!(ended.errors[0].detail.starts_with(gate.gate_word()), "{:?}", ended.errors);
    }
}

#[test]
fn data_that_was_stale_at_the_start_may_be_fresh_before_sig() {
    let readings = |place: &GatePlace, _: usize, readings: &mut GateReadings| {
        if matches!(place, GatePlace::Before(0 | 1)) {
            readings.newest_input = None;
        }
    };
    let script = CycleScript { readings: Box::new(readings), ..CycleScript::default() };

    assert_eq!(walked(canonical_pipeline(), script).0.status, CycleStatus::Ok);
}

/// Method: the switch flips at each record of an undisturbed cycle; nothing but the end may follow the next gate.
#[test]
fn a_flip_between_any_two_stages_blocks_before_the_next_with_who_and_why() {
    let whole = {
        let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
        walk.walk();
        walk.facts.len()
    };
    // The start is the first record; the flip comes when that many are there, up to the last gate.
    for at in 1..whole - 2 {
        let mut walk = CycleWalk::new(started(canonical_pipeline()), from_record(at, halted));
        let ended = walk.walk();

        assert_eq!(ended.status, CycleStatus::Blocked, "flip at {at}: {}", walk.line());
        let gates =
            walk.facts[at..].iter().position(|fact| matches!(fact, JournalFact::GateDecided(_))).unwrap();
        assert_eq!(walk.facts.len(), at + gates + 2, "the denial and the end: {}", walk.line());
        assert!(ended.reason.to_line().contains("halted by ops: odd"));
    }
}

#[test]
fn a_strategy_paused_meanwhile_loses_its_own_intents_only() {
    let readings = |place: &GatePlace, _: usize, readings: &mut GateReadings| {
        if matches!(place, GatePlace::BeforeIntent(_)) {
            readings.strategies[0].1 = StrategyStatus::Paused;
        }
    };
    let script = CycleScript { readings: Box::new(readings), ..CycleScript::default() };

    let (ended, line) = walked(canonical_pipeline(), script);

    assert_eq!(line, "ING FEAT SIG RISK ?d-a- !d-b EXEC PORT ANA GOV =degraded");
    assert_eq!(ended.counts.intents, 1);
    assert_eq!(ended.reason.to_line(), "strategy: strategy a is not active");
}

/// T12: a HARD gate hangs, denies, fails, or widens by its patch, before or after any stage: denied each time.
#[test]
fn a_hard_hook_that_does_not_allow_blocks_at_its_stage() {
    let reply = |answer| HookReply { hook: stage_name("gov"), answer };
    let vote = |vote, patch: Vec<Narrowing>| Ok(HookAnswer { vote, reasons: vec!["no".to_owned()], patch });
    let widens = Narrowing::Limit { decision_id: decision_id("d-a"), quantity: dec("11") };
    let replies = [
        vec![],
        vec![reply(Err(HookError::TimedOut))],
        vec![reply(Err(HookError::Failed("garbage".to_owned())))],
        vec![reply(vote(HookVote::Deny, vec![]))],
        vec![reply(vote(HookVote::Modify, vec![widens]))],
    ];
    type Shipped = fn() -> Pipeline;
    let pipelines: [(Shipped, &str, HookMoment, &str); 4] = [
        (canonical_pipeline, "EXEC", HookMoment::Before, "ING FEAT SIG RISK ?EXEC- =blocked"),
        (canonical_pipeline, "SIG", HookMoment::After, "ING FEAT SIG ?after-SIG- =blocked"),
        (
            canonical_pipeline,
            "GOV",
            HookMoment::After,
            "ING FEAT SIG RISK !d-a !d-b EXEC PORT ANA GOV ?after-GOV- =blocked",
        ),
        (
            heartbeat_pipeline,
            "sync_positions",
            HookMoment::Before,
            "check_service_health ?sync_positions- =blocked",
        ),
    ];
    for replies in replies {
        for (pipeline, stage, moment, expected) in pipelines {
            let mut pipeline = pipeline();
            pipeline.hooks = vec![hook("gov", stage, moment, HookMode::Hard)];
            let script = CycleScript { replies: replies.clone(), ..CycleScript::default() };
            assert_eq!(walked(pipeline, script).1, expected, "{stage} {replies:?}");
        }
    }
}

#[test]
fn a_soft_hook_is_noted_and_a_patch_narrows_what_is_intended() {
    let mut pipeline = canonical_pipeline();
    pipeline.hooks = vec![
        hook("soft", "SIG", HookMoment::Before, HookMode::Soft),
        hook("gov", "SIG", HookMoment::After, HookMode::Hard),
    ];
    let patch = vec![
        Narrowing::Limit { decision_id: decision_id("d-a"), quantity: dec("3.5") },
        Narrowing::Drop(decision_id("d-b")),
    ];
    let answer = Ok(HookAnswer { vote: HookVote::Modify, reasons: vec![], patch });
    let replies = vec![HookReply { hook: stage_name("gov"), answer }];
    let mut walk = CycleWalk::new(started(pipeline), CycleScript { replies, ..CycleScript::default() });

    let ended = walk.walk();

    assert_eq!(without_open_gates(&walk.line()), "ING FEAT SIG RISK !d-a EXEC PORT ANA GOV =ok");
    assert_eq!(ended.counts.intents, 1);
    let quantity = walk.facts.iter().find_map(|fact| match fact {
        JournalFact::OrderIntended(intent) => Some(intent.quantity),
        _ => None,
    });
    assert_eq!(quantity, Some(dec("3")));
}

#[test]
fn one_strategys_failure_stops_no_other_and_stands_in_the_errors() {
    let mut signals = good_answer(StageRole::Signal);
    signals.decisions.remove(0);
    signals.failures = vec![StrategyFailure { strategy: strategy_name("a"), error: provider_error() }];
    let mut risk = good_answer(StageRole::Risk);
    risk.verdicts.remove(0);
    let script = CycleScript {
        answers: vec![("SIG", vec![(1, Ok(signals))]), ("RISK", vec![(1, Ok(risk))])],
        ..CycleScript::default()
    };

    let (ended, line) = walked(canonical_pipeline(), script);

    assert_eq!(line, "ING FEAT SIG RISK !d-b EXEC PORT ANA GOV =degraded");
    assert_eq!((ended.counts.strategies_processed, ended.reason.to_line().as_str()), (1, "stage SIG"));
    assert_eq!(ended.errors[0].strategy, Some(strategy_name("a")));
    assert_eq!(ended.errors[0].stage, Some(stage_name("SIG")));
}

#[test]
fn answers_of_strategies_are_joined_and_only_a_failure_of_all_fails_the_stage() {
    let (a, b) = (strategy_name("a"), strategy_name("b"));
    let of = |id: &str, strategy: &str| StageOutput {
        data: "1".to_owned(),
        decisions: vec![decision(id, strategy, "AAPL", "1")],
        ..StageOutput::default()
    };

    let merge = |answers| merge_strategy_answers(StageProvider::Http, &[], answers);
    let both = merge(vec![
        (a.clone(), Ok(of("x", "a"))),
        (b.clone(), Ok(StageOutput { data: String::new(), ..of("y", "b") })),
    ])
    .unwrap();
    assert_eq!(
        (both.data.as_str(), both.decisions.len(), both.failures.len()),
        (r#"{"a":1,"b":null}"#, 2, 0)
    );

    let one = merge(vec![(a.clone(), Err(provider_error())), (b.clone(), Ok(of("y", "b")))]);
    let one = one.unwrap();
    assert_eq!((one.data.as_str(), one.failures[0].strategy.clone()), (r#"{"b":1}"#, a.clone()));

    let none = merge(vec![(a, Err(provider_error())), (b, Err(provider_error()))]);
    assert_eq!(none, Err(provider_error()));
    assert_eq!(merge(vec![]).unwrap().data, "{}");
}

/// One status, four words: inside, `GET /api/v1/cycles`, `cycle.completed`.
#[test]
fn statuses_are_translated_for_each_face() {
    for (status, inside, cycles, event) in [
        (CycleStatus::Ok, "ok", "completed", "success"),
        (CycleStatus::Degraded, "degraded", "completed", "partial"),
        (CycleStatus::Failed, "failed", "failed", "failed"),
        (CycleStatus::Blocked, "blocked", "cancelled", "failed"),
    ] {
        assert_eq!((status.as_str(), status.cycle_word(), status.event_word()), (inside, cycles, event));
        assert_eq!(serde_json::to_string(&status).unwrap(), format!("{inside:?}"));
    }
    for code in CycleErrorCode::ALL {
        assert_eq!(serde_json::to_string(&code).unwrap(), format!("{:?}", code.as_str()));
        assert_eq!(code.is_retryable(), code == CycleErrorCode::Timeout);
    }
    assert_eq!(CycleStatus::ALL.into_iter().max(), Some(CycleStatus::Failed));
}

#[test]
fn the_result_tells_each_stage_and_why_it_ended_so() {
    let script =
        CycleScript { answers: vec![("ANA", vec![(1, Err(provider_error()))])], ..CycleScript::default() };
    let mut pipeline = canonical_pipeline();
    pipeline.stages[1].enabled = false;
    let mut walk = CycleWalk::new(started(pipeline), script);
    assert!(walk.run.state().result().is_none(), "not before it has ended");
    walk.walk();

    let result = walk.run.state().result().unwrap();

    let told: serde_json::Value = serde_json::from_str(&result.to_wire("1.0.0+abc")).unwrap();
    assert_eq!(told["status"], "degraded");
    assert_eq!(told["partial"], true);
    assert_eq!(told["correlation_id"], walk.run.state().started().cycle_id.to_string());
    assert_eq!(told["stage_results"]["ANA"]["error_code"], "E_ORCH_STAGE_FAILED");
    assert_eq!(told["stage_results"]["ANA"]["attempts"], 2);
    assert_eq!(told["stage_results"]["FEAT"]["status"], "disabled");
    assert_eq!(told["stage_results"]["SIG"]["data"], serde_json::json!({}));
    assert_eq!(told["started_at"], "2026-01-09T23:51:00+00:00");
    assert_eq!((told["schema_version"].as_str(), told["code"].as_str()), (Some("1.0.0"), Some("1.0.0+abc")));
    assert_eq!(told["errors"][0]["retryable"], false);
    assert_eq!((&told["strategies_processed"], &told["order_intents"]), (&2.into(), &2.into()));
    assert_eq!(result.stages().len(), 8);
    let golden = include_str!("../../../../../tests/golden/cycle_result_v1.json");
    assert_eq!(result.to_wire("1.0.0+abc"), golden.trim_end());
}
