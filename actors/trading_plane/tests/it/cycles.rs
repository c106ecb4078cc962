//! Cycles: one wait for the disk, one end, nothing past a gate that denies, and nothing of what comes too late.

use std::time::Duration;

use orchestrator_kernel::trading::agent::{AgentCommand, AgentStatus};
use orchestrator_kernel::trading::cycle::{CycleEndReason, CycleErrorCode, CycleStatus};
use orchestrator_kernel::trading::gate::GateKind;
use orchestrator_kernel::trading::ids::{CycleId, StageName};
use orchestrator_kernel::trading::journal::{
    BUILT_IN_DATA_BYTES_MAX, CycleEnded, JournalFact, StageOutcome, StageOutput,
};
use orchestrator_kernel::trading::strategy::{StrategyChanged, StrategyCommand};
use orchestrator_runtime::testkit::OnAppend;
use orchestrator_trading_plane::command::{CommandAnswer, TradingCommand};
use orchestrator_trading_plane::plane::TradingPlane;
use orchestrator_trading_plane::testkit::{
    OnStage, PlaneRig, origin, pipeline_name, stage_failure, start_agent, strategy_name, trading_settings,
};

use crate::common::eventually;

/// A world without a schedule: cycles begin by command.
fn by_hand() -> PlaneRig {
    let mut settings = trading_settings();
    settings.schedules.clear();
    PlaneRig::new(settings)
}

pub(crate) async fn run_cycle(plane: &TradingPlane, key: &str, pipeline: &str) -> CycleId {
    let command = TradingCommand::RunCycle {
        pipeline: pipeline_name(pipeline),
        strategies: vec![strategy_name("a"), strategy_name("b")],
        trigger_event: None,
    };
    match plane.handle().execute_command(command, origin(key)).await {
        Ok(CommandAnswer::CycleBegun { cycle_id }) => cycle_id,
        other => panic!("no cycle begins: {other:?}"),
    }
}

pub(crate) async fn ended(plane: &TradingPlane, cycle: CycleId) -> CycleEnded {
    let waited = tokio::time::timeout(Duration::from_secs(60), plane.handle().wait_for_cycle(cycle)).await;
    let shown = waited.expect("the cycle does not end").expect("the cycle is shown");
    shown.state.ended().expect("its end").clone()
}

async fn one_cycle(rig: &PlaneRig) -> CycleEnded {
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    let ended = ended(&plane, cycle).await;
    plane.kill().await;
    rig.audited().await;
    ended
}

fn stages_of(facts: &[JournalFact]) -> Vec<String> {
    let ended = facts.iter().filter_map(|fact| match fact {
        JournalFact::StageEnded(ended) => Some(match &ended.outcome {
            StageOutcome::Done(_) => ended.name.to_string(),
            StageOutcome::Failed(error) => format!("{}-{}", ended.name, error.error_code().as_str()),
        }),
        _ => None,
    });
    ended.collect()
}

#[tokio::test]
async fn a_cycle_decides_judges_intends_and_ends_once() {
    let rig = by_hand();

    let ended = one_cycle(&rig).await;

    assert_eq!((ended.status, ended.counts.decisions, ended.counts.intents), (CycleStatus::Ok, 2, 2));
    let facts = rig.facts(|_| true).await;
    assert_eq!(stages_of(&facts), ["ING", "FEAT", "SIG", "RISK", "EXEC", "PORT", "ANA", "GOV"]);
    let ends = facts.iter().filter(|fact| matches!(fact, JournalFact::CycleEnded(_))).count();
    assert_eq!(ends, 1);
}

/// Durable before: what a dry run does has no effect, so that nothing of it waits but its end.
#[tokio::test]
async fn a_cycle_without_effects_costs_one_wait_for_the_disk() {
    let mut rig = by_hand();
    rig.settings.journal.linger = Duration::from_secs(600);
    rig.stages.next("ING", [OnStage::Hold]);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    eventually("the cycle waits", || rig.stages.count_calls("ING") == 1).await;
    let before = rig.log.trace().len();

    rig.stages.release();
    ended(&plane, cycle).await;

    assert_eq!(rig.log.trace().len(), before + 1, "{:?}", rig.log.trace());
    let (_, records, _) = *rig.log.trace().last().unwrap();
    assert!(20 <= records, "gates, stages, intents and the end are one append: {records}");
}

/// T7: a missing RISK blocks before anything can be decided.
#[tokio::test]
async fn a_missing_risk_blocks() {
    let mut rig = by_hand();
    let risk = rig.pipeline("canonical").stages.iter_mut().find(|stage| stage.name.as_str() == "RISK");
    risk.unwrap().enabled = false;

    let ended = one_cycle(&rig).await;

    assert_eq!(ended.status, CycleStatus::Blocked);
    assert!(matches!(&ended.reason, CycleEndReason::Gate { gate: GateKind::RiskMissing, .. }), "{ended:?}");
    assert_eq!(ended.counts.intents, 0);
    assert_eq!(rig.stages.count_calls("SIG/a"), 0);
}

/// T7: analytics that fail after orders degrade, and trading goes on.
#[tokio::test]
async fn failing_analytics_degrade() {
    let rig = by_hand();
    rig.stages.always("ANA", stage_failure("no figures"));

    let ended = one_cycle(&rig).await;

    assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Degraded, 2));
    assert_eq!(ended.reason, CycleEndReason::Stage(StageName::new("ANA").unwrap()));
}

/// T7: a failed audit fails closed: the agent is in error, and nothing trades until an operator starts it.
#[tokio::test]
async fn a_failed_audit_fails_closed() {
    let rig = by_hand();
    rig.stages.always("GOV", stage_failure("a record is missing"));
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    let ended = ended(&plane, cycle).await;
    assert!(ended.audit_failed && ended.status == CycleStatus::Failed);

    let view = plane.handle().view.clone();
    eventually("the agent is in error", || view.agent().state.status.as_str() == "error").await;
    let command = TradingCommand::RunCycle {
        pipeline: pipeline_name("canonical"),
        strategies: vec![strategy_name("a")],
        trigger_event: None,
    };
    let refused = plane.handle().execute_command(command, origin("again")).await.unwrap_err();
    assert_eq!((refused.http_status(), refused.to_string().contains("agent_not_running")), (409, true));
    assert!(start_agent(plane.handle(), "start again").await.is_ok());
    rig.audited().await;
}

/// T8: what a stage answers after its budget counts for nothing, and the cycle says E_ORCH_TIMEOUT.
#[tokio::test]
async fn a_stage_that_answers_too_late_has_failed_and_nothing_of_it_counts() {
    let mut rig = by_hand();
    let features = &mut rig.pipeline("canonical").stages[1];
    features.budget = Duration::from_millis(200);
    features.attempts_max = 1;
    rig.stages.always("FEAT", OnStage::WorkAfter(Duration::from_millis(300)));

    let ended = one_cycle(&rig).await;

    assert_eq!(ended.status, CycleStatus::Failed);
    assert_eq!(ended.errors[0].code, CycleErrorCode::Timeout);
    assert_eq!(stages_of(&rig.facts(|_| true).await), ["ING", "FEAT-E_ORCH_TIMEOUT"]);
}

/// T8: a provider that dies, answers garbage, or answers far too much.
#[tokio::test]
async fn what_is_no_answer_fails_its_stage() {
    let too_much = StageOutput { data: "x".repeat(BUILT_IN_DATA_BYTES_MAX + 1), ..StageOutput::default() };
    let made_up = StageOutput {
        decisions: vec![orchestrator_trading_plane::testkit::decision_of(&strategy_name("stranger"))],
        ..StageOutput::default()
    };
    for act in [OnStage::Panic, OnStage::Answer(Ok(too_much)), OnStage::Answer(Ok(made_up))] {
        let rig = by_hand();
        rig.stages.always("FEAT", act);

        let ended = one_cycle(&rig).await;

        assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Failed, 0));
        assert_eq!(ended.errors[0].code, CycleErrorCode::StageFailed);
        assert_eq!(rig.stages.count_calls("FEAT"), 2, "idempotent, so tried again");
        assert_eq!(rig.stages.count_calls("SIG/a"), 0);
    }
}

#[tokio::test]
async fn a_strategy_that_hangs_stops_no_other() {
    let mut rig = by_hand();
    let signal = rig.pipeline("canonical").stages.iter_mut().find(|stage| stage.name.as_str() == "SIG");
    signal.unwrap().budget = Duration::from_secs(1);
    rig.stages.always("SIG/a", OnStage::Hang);

    let ended = one_cycle(&rig).await;

    assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Degraded, 1));
    assert_eq!(ended.counts.strategies_processed, 1);
    assert!(ended.errors.iter().any(|error| error.strategy == Some(strategy_name("a"))), "{ended:?}");
}

/// T9: the switch flips between two stages, in each of its ways; what comes next is blocked, with who and why.
#[tokio::test]
async fn a_switch_that_flips_between_two_stages_blocks_the_next_one() {
    let engaged = br#"{"state":"ENGAGED","engaged_by":"ops_team","engagement_reason":"anomaly"}"#;
    for (value, said) in
        [(Some(&engaged[..]), "ops_team"), (None, "nothing is stored"), (Some(&b"garbage"[..]), "unknown")]
    {
        let rig = by_hand();
        rig.stages.next("SIG/a", [OnStage::Hold]);
        let plane = rig.start().await;
        start_agent(plane.handle(), "start").await.unwrap();
        let cycle = run_cycle(&plane, "run", "canonical").await;
        eventually("SIG is asked", || rig.stages.count_calls("SIG/a") == 1).await;

        rig.kill_switch.memory.put_value(value);
        rig.stages.release();

        let ended = ended(&plane, cycle).await;
        assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Blocked, 0));
        let line = ended.reason.to_line();
        assert!(line.starts_with("kill_switch: ") && line.contains(said), "{line}");
        assert_eq!(rig.stages.count_calls("RISK"), 0);
        rig.audited().await;
    }
}

/// T9: nobody else reads the switch and its lease lasts, and still the next gate sees the flip.
#[tokio::test]
async fn gates_from_signals_on_read_the_switch_itself() {
    let mut rig = by_hand();
    rig.reads_kill_switch = false;
    rig.stages.next("SIG/a", [OnStage::Hold]);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    eventually("SIG is asked", || rig.stages.count_calls("SIG/a") == 1).await;

    rig.kill_switch.memory.put_value(Some(b"on"));
    rig.stages.release();

    assert_eq!(ended(&plane, cycle).await.status, CycleStatus::Blocked);
    assert_eq!(rig.stages.count_calls("RISK"), 0);
}

#[tokio::test]
async fn a_latch_that_comes_while_gates_pass_lets_nothing_through() {
    let rig = by_hand();
    rig.stages.next("SIG/a", [OnStage::Hold]);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    eventually("SIG is asked", || rig.stages.count_calls("SIG/a") == 1).await;

    let latch = TradingCommand::LatchKill { reason: "asked by event".to_owned() };
    plane.handle().execute_command(latch, origin("latch")).await.unwrap();
    rig.stages.release();

    let ended = ended(&plane, cycle).await;
    assert_eq!(ended.status, CycleStatus::Blocked);
    assert!(ended.reason.to_line().contains("latched: asked by event"), "{}", ended.reason.to_line());
    rig.audited().await;
}

/// AGT-1. Method: the stop is accepted and its append hangs, so gates that look at what is durable see the agent run.
#[tokio::test]
async fn a_stop_that_comes_while_gates_pass_lets_nothing_through() {
    for stop in [
        TradingCommand::Agent(AgentCommand::Stop { reason: None, cancel_open_orders: false }),
        TradingCommand::Strategy(strategy_name("a"), StrategyCommand::Pause),
    ] {
        let mut rig = by_hand();
        rig.reads_kill_switch = false;
        rig.stages.next("RISK", [OnStage::Hold]);
        let plane = rig.start().await;
        start_agent(plane.handle(), "start").await.unwrap();
        let cycle = run_cycle(&plane, "run", "canonical").await;
        eventually("RISK is asked", || rig.stages.count_calls("RISK") == 1).await;

        rig.log.always(OnAppend::Hang);
        let handle = plane.handle().clone();
        let stopping = tokio::spawn(async move { handle.execute_command(stop, origin("stop")).await });
        eventually("the stop is on its way", || 0 < rig.log.hanging()).await;
        // Nobody else reads the switch: gates look before EXEC and before an intent, or twice before EXEC.
        let read_before = rig.kill_switch.reads();
        rig.stages.release();
        eventually("gates look", || read_before + 2 <= rig.kill_switch.reads()).await;
        rig.log.always(OnAppend::Work);
        stopping.await.unwrap().unwrap();

        ended(&plane, cycle).await;
        let facts = rig.facts(|_| true).await;
        let stopped = facts.iter().position(|fact| {
            matches!(fact, JournalFact::StrategyChanged(StrategyChanged::Moved { .. }))
                || matches!(fact, JournalFact::AgentChanged(changed) if changed.state.status == AgentStatus::Stopped)
        });
        let behind = facts.iter().skip(stopped.unwrap()).filter(|fact| match fact {
            JournalFact::OrderIntended(intent) => intent.strategy == strategy_name("a"),
            _ => false,
        });
        assert_eq!(behind.count(), 0, "an order behind the record that stopped it");
    }
}

/// T12: a HARD hook that hangs or denies blocks.
#[tokio::test]
async fn a_hard_hook_that_hangs_or_denies_blocks() {
    use orchestrator_kernel::trading::gate::{HookAnswer, HookVote};
    use orchestrator_kernel::trading::stage::{HookMode, HookMoment, HookSpec, StageProvider};
    let denies = HookAnswer { vote: HookVote::Deny, reasons: vec!["not today".to_owned()], patch: vec![] };
    for (answer, said) in [(None, "E_HOOK_TIMEOUT"), (Some(Ok(denies)), "not today")] {
        let mut rig = by_hand();
        rig.pipeline("canonical").hooks.push(HookSpec {
            name: StageName::new("compliance").unwrap(),
            stage: StageName::new("RISK").unwrap(),
            moment: HookMoment::Before,
            mode: HookMode::Hard,
            provider: StageProvider::Http,
            budget: Duration::from_millis(50),
        });
        rig.hooks.always("compliance", answer);

        let ended = one_cycle(&rig).await;

        assert_eq!((ended.status, ended.counts.intents), (CycleStatus::Blocked, 0));
        assert!(ended.reason.to_line().contains(said), "{}", ended.reason.to_line());
    }
}

/// What flips while a hook is asked counts: gates look again behind it.
#[tokio::test]
async fn a_switch_that_flips_while_a_hook_is_asked_blocks() {
    use orchestrator_kernel::trading::stage::{HookMode, HookMoment, HookSpec, StageProvider};
    let mut rig = by_hand();
    rig.pipeline("canonical").hooks.push(HookSpec {
        name: StageName::new("slow").unwrap(),
        stage: StageName::new("RISK").unwrap(),
        moment: HookMoment::Before,
        mode: HookMode::Soft,
        provider: StageProvider::Http,
        budget: Duration::from_millis(500),
    });
    rig.hooks.always("slow", None);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    eventually("the hook is asked", || rig.hooks.asked() == 1).await;

    rig.kill_switch.memory.put_value(Some(b"on"));

    assert_eq!(ended(&plane, cycle).await.status, CycleStatus::Blocked);
    assert_eq!(rig.stages.count_calls("RISK"), 0);
}

/// T7, cut by a crash: the audit's failure is on record, what follows from it is not.
#[tokio::test]
async fn a_failed_audit_that_a_crash_cuts_still_stops_the_agent() {
    let whole = by_hand();
    whole.stages.always("GOV", stage_failure("a record is missing"));
    assert!(one_cycle(&whole).await.audit_failed);
    let end = whole.audited().await.iter().position(|entry| matches!(entry.fact, JournalFact::CycleEnded(_)));
    let rig = by_hand();
    rig.take_journal(&whole.log.records().await[..=end.unwrap()]).await;

    let plane = rig.start().await;

    assert_eq!(plane.handle().view.agent().state.status.as_str(), "error");
    assert_eq!(rig.facts(|fact| matches!(fact, JournalFact::AgentChanged(_))).await.len(), 2);
}

/// T6. Method: a whole cycle is recorded; its journal is cut behind each record, the plane starts on what is left, and
/// the cycle goes on.
#[tokio::test]
async fn a_cycle_that_a_crash_cuts_at_any_record_keeps_its_id_and_ends_once() {
    let whole = by_hand();
    one_cycle(&whole).await;
    let records = whole.log.records().await;
    let first =
        whole.audited().await.iter().position(|entry| matches!(entry.fact, JournalFact::CycleStarted(_)));

    for cut in first.unwrap() + 1..=records.len() {
        let rig = by_hand();
        rig.take_journal(&records[..cut]).await;

        let plane = rig.start().await;
        let cycle = CycleId::of_command(origin("run").id);
        let ended = ended(&plane, cycle).await;

        assert_eq!(ended.cycle_id, cycle);
        let facts = rig.facts(|fact| fact.cycle_id().is_some()).await;
        let count = |is: fn(&JournalFact) -> bool| facts.iter().filter(|fact| is(fact)).count();
        assert_eq!(count(|fact| matches!(fact, JournalFact::CycleStarted(_))), 1, "cut behind {cut}");
        assert_eq!(count(|fact| matches!(fact, JournalFact::CycleEnded(_))), 1, "cut behind {cut}");
        assert_eq!(count(|fact| matches!(fact, JournalFact::OrderIntended(_))), 2, "cut behind {cut}");
        assert_eq!(ended.status, CycleStatus::Ok, "cut behind {cut}: {ended:?}");
        plane.kill().await;
    }
}
