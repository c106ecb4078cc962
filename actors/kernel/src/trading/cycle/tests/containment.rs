//! Failures and budgets: what a stage that fails, hangs or answers late does to its cycle, and what not.

use super::*;
use crate::trading::journal::CycleError;

fn failing(stage: &'static str) -> CycleScript {
    CycleScript { answers: vec![(stage, vec![(1, Err(provider_error()))])], ..CycleScript::default() }
}

/// Specification 001 §7, "Failure containment", row by row.
#[test]
fn each_stages_failure_is_contained_as_the_specification_says() {
    for (stage, status, line) in [
        ("ING", CycleStatus::Failed, "ING- =failed"),
        ("SIG", CycleStatus::Failed, "ING FEAT SIG- =failed"),
        ("RISK", CycleStatus::Failed, "ING FEAT SIG RISK- =failed"),
        ("PORT", CycleStatus::Failed, "ING FEAT SIG RISK !d-a !d-b EXEC PORT- GOV =failed"),
        ("ANA", CycleStatus::Degraded, "ING FEAT SIG RISK !d-a !d-b EXEC PORT ANA- GOV =degraded"),
        ("GOV", CycleStatus::Failed, "ING FEAT SIG RISK !d-a !d-b EXEC PORT ANA GOV- =failed"),
    ] {
        let (ended, told) = walked(canonical_pipeline(), failing(stage));

        assert_eq!((ended.status, told.as_str()), (status, line));
        assert_eq!(ended.errors[0].code, CycleErrorCode::StageFailed);
        assert_eq!(ended.audit_failed, stage == "GOV");
    }
}

/// EXEC fails: the cycle fails, what was executed is settled, analytics are not begun.
#[test]
fn exec_out_of_its_budget_fails_the_cycle_and_what_was_executed_is_settled() {
    let mut pipeline = canonical_pipeline();
    pipeline.stages[4].budget = Duration::from_millis(5);
    let mut walk = CycleWalk::new(started(pipeline), CycleScript::default());
    while !walk.line().ends_with("!d-a") {
        assert!(walk.step());
    }
    walk.now_ms += 5;

    let ended = walk.walk();

    assert_eq!(without_open_gates(&walk.line()), "ING FEAT SIG RISK !d-a EXEC- PORT GOV =failed");
    assert_eq!(ended.errors[0].code, CycleErrorCode::Timeout);
    assert_eq!(ended.counts.intents, 1);
}

#[test]
fn a_missing_disabled_or_late_risk_blocks_before_sig() {
    let mut missing = canonical_pipeline();
    missing.stages.remove(3);
    let mut disabled = canonical_pipeline();
    disabled.stages[3].enabled = false;
    let mut late = canonical_pipeline();
    late.stages.swap(3, 4);
    for pipeline in [missing, disabled, late] {
        let (ended, line) = walked(pipeline, CycleScript::default());

        assert_eq!(line, "ING FEAT ?SIG- =blocked");
        assert!(ended.reason.to_line().starts_with("risk_missing"));
    }
}

#[test]
fn a_failed_audit_degrades_only_when_it_may_fail_open() {
    let mut pipeline = canonical_pipeline();
    pipeline.fail_closed_on_audit = false;

    let (ended, line) = walked(pipeline, failing("GOV"));

    assert_eq!(line, "ING FEAT SIG RISK !d-a !d-b EXEC PORT ANA GOV- =degraded");
    assert!(!ended.audit_failed);
}

#[test]
fn analytics_that_failed_stop_trading_only_when_that_is_configured() {
    let mut pipeline = canonical_pipeline();
    // A user's pipeline with analytics first.
    let ana = pipeline.stages.remove(6);
    pipeline.stages.insert(0, ana);

    assert_eq!(
        walked(pipeline.clone(), failing("ANA")).1,
        "ANA- ING FEAT SIG RISK !d-a !d-b EXEC PORT GOV =degraded"
    );
    pipeline.degraded_allow_exec = false;
    assert_eq!(walked(pipeline, failing("ANA")).1, "ANA- ING FEAT ?SIG- =blocked");

    let mut after_degraded = canonical_pipeline();
    after_degraded.degraded_allow_exec = false;
    let (ended, line) =
        walked(after_degraded, from_record(0, |readings| readings.last_cycle_degraded = true));
    assert_eq!(line, "ING FEAT ?SIG- =blocked");
    assert!(ended.reason.to_line().starts_with("degraded"));
}

/// A provider that dies and does not come back within the budget: the record says of what it died.
#[test]
fn a_timeout_behind_a_failed_attempt_tells_what_failed_before() {
    let died = StageError::new(StageErrorKind::Unavailable, "the worker exited with status 3");
    let late = StageError::new(StageErrorKind::Timeout, "no decision within the stage's budget");
    for (second, said) in [
        ((10_000, Ok(StageOutput::default())), "no result after "),
        ((1, Err(late)), "no decision within the stage's budget"),
    ] {
        let answers = vec![("SIG", vec![(1, Err(died.clone())), second])];

        let (ended, line) = walked(canonical_pipeline(), CycleScript { answers, ..CycleScript::default() });

        assert_eq!(line, "ING FEAT SIG- =failed");
        let CycleError { code, detail, .. } = &ended.errors[0];
        assert_eq!(*code, CycleErrorCode::Timeout);
        assert!(detail.starts_with(said), "{detail}");
        assert!(detail.ends_with("; the attempt before: the worker exited with status 3"), "{detail}");
    }
}

#[test]
fn a_stage_whose_failure_blocks_ends_the_cycle_at_once() {
    let mut pipeline = canonical_pipeline();
    pipeline.stages[5].on_failure = crate::trading::stage::OnStageFailure::Block;

    let (ended, line) = walked(pipeline, failing("PORT"));

    assert_eq!(line, "ING FEAT SIG RISK !d-a !d-b EXEC PORT- =blocked");
    assert_eq!(ended.errors[1].code, CycleErrorCode::Blocked);
}

/// T8: a stage answers after its budget: E_ORCH_TIMEOUT, and nothing of the answer counts.
#[test]
fn a_late_answer_is_thrown_away_and_its_stage_has_timed_out() {
    for late_by in [0, 1, 10_000] {
        let answers = vec![("SIG", vec![(1000 + late_by, Ok(good_answer(StageRole::Signal)))])];
        let mut walk =
            CycleWalk::new(started(canonical_pipeline()), CycleScript { answers, ..CycleScript::default() });

        let ended = walk.walk();

        assert_eq!(without_open_gates(&walk.line()), "ING FEAT SIG- =failed");
        assert_eq!(ended.errors[0].code, CycleErrorCode::Timeout);
        assert_eq!((ended.counts.decisions, walk.run.state().decisions().len()), (0, 0));
    }
    let answers = vec![("SIG", vec![(999, Ok(good_answer(StageRole::Signal)))])];
    let (ended, _) = walked(canonical_pipeline(), CycleScript { answers, ..CycleScript::default() });
    assert_eq!(ended.status, CycleStatus::Ok, "one millisecond earlier it counts");
    let ms = Duration::from_millis;
    let call = StageCall { stage: 2, attempt: 1, deadline: ms(1000) };
    for (now, until) in [(0, 950), (900, 990), (995, 990)] {
        assert_eq!(call.collect_until(ms(now)), ms(until), "what came until then counts");
    }
}

#[test]
fn an_answer_of_another_attempt_or_after_the_end_of_its_stage_changes_nothing() {
    let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
    while !matches!(walk.run.next_step(walk.now()), CycleStep::CallStage(_)) {
        walk.step();
    }
    let CycleStep::CallStage(call) = walk.run.next_step(walk.now()) else { panic!("a call") };
    let now = walk.now().elapsed;
    let good = || Ok(good_answer(StageRole::Ingest));
    assert_eq!(walk.run.take_answer(call, good(), now), AnswerFate::Late, "before it was called");
    walk.run.note_called(call, now);

    let other = StageCall { attempt: 2, ..call };
    assert_eq!(walk.run.take_answer(other, good(), now), AnswerFate::Late);
    assert_eq!(walk.run.take_answer(call, good(), now), AnswerFate::Taken);
    assert_eq!(walk.run.take_answer(call, Err(provider_error()), now), AnswerFate::Late, "the second one");
    let before = walk.run.next_step(walk.now());
    assert!(matches!(&before, CycleStep::Append(JournalFact::StageEnded(ended))
        if matches!(ended.outcome, StageOutcome::Done(_))));
}

/// Stage budgets sum up to more than the cycle's: here each stage takes nearly its own.
#[test]
fn out_of_time_nothing_that_trades_is_begun_and_what_was_executed_is_settled() {
    let slow = |stage: &'static str, ms: u64| (stage, vec![(ms, Ok(StageOutput::default()))]);
    let mut before_exec = canonical_pipeline();
    before_exec.budget = Duration::from_millis(900);
    let script = CycleScript { answers: vec![slow("ING", 450), slow("FEAT", 450)], ..CycleScript::default() };
    let (ended, line) = walked(before_exec, script);
    // The last answer comes at the deadline that the cycle's budget leaves, so it is late.
    assert_eq!(line, "ING FEAT- =failed");
    assert_eq!(ended.errors[0].code, CycleErrorCode::Timeout);

    let mut at_boundary = canonical_pipeline();
    at_boundary.budget = Duration::from_millis(900);
    let mut walk = CycleWalk::new(started(at_boundary), CycleScript::default());
    while !walk.line().ends_with("RISK RISK") {
        assert!(walk.step());
    }
    walk.now_ms = 900;
    let ended = walk.walk();
    assert_eq!(without_open_gates(&walk.line()), "ING FEAT SIG RISK =failed");
    assert_eq!(
        (ended.reason.clone(), ended.errors[0].code),
        (CycleEndReason::OutOfTime, CycleErrorCode::Timeout)
    );

    let mut after_exec = canonical_pipeline();
    after_exec.budget = Duration::from_millis(900);
    let mut walk = CycleWalk::new(started(after_exec), CycleScript::default());
    while !walk.line().ends_with("PORT PORT") {
        assert!(walk.step());
    }
    walk.now_ms = 900;
    let ended = walk.walk();
    let line = without_open_gates(&walk.line());
    assert_eq!(line, "ING FEAT SIG RISK !d-a !d-b EXEC PORT GOV =degraded", "ANA is not critical");
    assert_eq!(ended.errors[0].code, CycleErrorCode::Timeout);
}

#[test]
fn only_idempotent_stages_are_tried_again_and_within_their_own_budget() {
    let failed_once =
        |stage: &'static str, role| (stage, vec![(1, Err(provider_error())), (1, Ok(good_answer(role)))]);
    let script =
        || CycleScript { answers: vec![failed_once("SIG", StageRole::Signal)], ..CycleScript::default() };
    let mut walk = CycleWalk::new(started(canonical_pipeline()), script());
    assert_eq!(walk.walk().status, CycleStatus::Ok);
    let attempts = walk.run.state().ended_stages().find(|(at, _)| *at == 2).map(|(_, ended)| ended.attempts);
    assert_eq!(attempts, Some(2));

    let mut once = canonical_pipeline();
    once.stages[2].idempotent = false;
    once.stages[2].attempts_max = 2;
    assert_eq!(walked(once, script()).1, "ING FEAT SIG- =failed", "not idempotent");

    let mut no_time = canonical_pipeline();
    no_time.stages[2].budget = Duration::from_millis(10);
    let (ended, line) = walked(no_time, script());
    assert_eq!(line, "ING FEAT SIG- =failed", "the delay is at least 10 ms");
    assert_eq!(ended.errors[0].code, CycleErrorCode::StageFailed, "its own error, not a timeout");

    let always =
        CycleScript { answers: vec![("SIG", vec![(1, Err(provider_error()))])], ..CycleScript::default() };
    let mut walk = CycleWalk::new(started(canonical_pipeline()), always);
    walk.walk();
    let attempts = walk.run.state().ended_stages().find(|(at, _)| *at == 2).map(|(_, ended)| ended.attempts);
    assert_eq!(attempts, Some(2), "ORCH_RETRY_MAX 1");
}

/// T8: garbage and 100 MB. One change of a good answer a case.
#[test]
fn an_answer_that_such_a_stage_cannot_give_fails_it_and_nothing_of_it_counts() {
    type Change = fn(&mut StageOutput);
    let cases: [(&'static str, Change); 12] = [
        ("SIG", |output| output.data = "x".repeat(StageProvider::BuiltIn.data_bytes_max() + 1)),
        ("SIG", |output| output.decisions.push(output.decisions[0].clone())),
        ("SIG", |output| output.decisions[0].strategy = strategy_name("other")),
        ("SIG", |output| output.verdicts = good_answer(StageRole::Risk).verdicts),
        ("SIG", |output| {
            output.decisions = (0..1001).map(|n| decision(&format!("d{n}"), "a", "AAPL", "1")).collect();
        }),
        ("SIG", |output| {
            output.failures =
                vec![StrategyFailure { strategy: strategy_name("other"), error: provider_error() }];
        }),
        ("SIG", |output| {
            let failure = |name| StrategyFailure { strategy: strategy_name(name), error: provider_error() };
            output.failures = vec![failure("a"), failure("b")];
        }),
        ("ING", |output| output.decisions = good_answer(StageRole::Signal).decisions),
        ("RISK", |output| output.verdicts.push(output.verdicts[0].clone())),
        ("RISK", |output| output.verdicts[0].decision_id = decision_id("never")),
        ("RISK", |output| output.verdicts[0] = crate::trading::testkit::allowed("d-a", "10.5")),
        ("RISK", |output| output.verdicts[0] = crate::trading::testkit::allowed("d-a", "11")),
    ];
    for (at, (stage, change)) in cases.into_iter().enumerate() {
        let mut bad = good_answer(StageRole::of_stage(&stage_name(stage)));
        change(&mut bad);
        let script = CycleScript { answers: vec![(stage, vec![(1, Ok(bad))])], ..CycleScript::default() };

        let (ended, line) = walked(canonical_pipeline(), script);

        assert!(line.ends_with(&format!("{stage}- =failed")), "case {at}: {line}");
        assert_eq!((ended.errors[0].code, ended.counts.intents), (CycleErrorCode::StageFailed, 0));
    }
}

#[test]
fn a_cancelled_cycle_ends_before_its_next_step_and_takes_no_answer() {
    let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
    while !matches!(walk.run.next_step(walk.now()), CycleStep::CallStage(_)) {
        walk.step();
    }
    let CycleStep::CallStage(call) = walk.run.next_step(walk.now()) else { panic!("a call") };
    walk.run.note_called(call, walk.now().elapsed);
    walk.run.cancel_cycle("overlap: cancel");
    walk.run.cancel_cycle("a second reason");

    assert_eq!(walk.run.take_answer(call, Ok(StageOutput::default()), walk.now().elapsed), AnswerFate::Late);
    let ended = walk.walk();
    assert_eq!(walk.line(), "?ING =blocked");
    assert_eq!(ended.reason.to_line(), "cancelled: overlap: cancel");
    assert_eq!(ended.errors[0].code, CycleErrorCode::Blocked);
}
