//! Crashes at every record, and any world: a cycle ends once, keeps its id, and intends nothing twice.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::trading::testkit::Scripted;

fn intents(facts: &[JournalFact]) -> Vec<String> {
    let intents = facts.iter().filter_map(|fact| match fact {
        JournalFact::OrderIntended(intent) => Some(intent.intent_id.to_string()),
        _ => None,
    });
    intents.collect()
}

/// T6. Method: cut the records of a whole cycle at each one, resume, and walk to the end; once more while it resumes.
#[test]
fn a_cycle_interrupted_at_any_record_keeps_its_id_ends_once_and_intends_nothing_twice() {
    let mut whole = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
    whole.walk();
    let expected = intents(&whole.facts);
    for durable in 1..whole.facts.len() {
        for again in durable..whole.facts.len() {
            let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
            walk.facts = whole.facts.clone();
            walk.crash(durable);
            while walk.facts.len() < again {
                assert!(walk.step());
            }
            walk.crash(again);

            let ended = walk.walk();

            assert_eq!(
                (ended.cycle_id, ended.status),
                (walk.run.state().started().cycle_id, CycleStatus::Ok)
            );
            assert_eq!(intents(&walk.facts), expected, "cut at {durable} and {again}");
            let ends = walk.facts.iter().filter(|fact| matches!(fact, JournalFact::CycleEnded(_))).count();
            assert_eq!(ends, 1);
        }
    }
}

#[test]
fn a_stage_that_may_have_been_called_before_a_crash_is_not_called_again_unless_idempotent() {
    let mut pipeline = canonical_pipeline();
    pipeline.stages[5].idempotent = false;
    pipeline.stages[5].attempts_max = 1;
    let mut walk = CycleWalk::new(started(pipeline), CycleScript::default());
    while !walk.line().ends_with("?PORT") {
        assert!(walk.step());
    }
    walk.crash(walk.facts.len());

    let ended = walk.walk();

    assert!(walk.line().ends_with("PORT- ?GOV GOV =failed"), "{}", walk.line());
    assert!(ended.errors[0].detail.contains("a crash may have interrupted it"));
}

#[test]
fn a_resumed_cycle_has_what_its_stages_left_of_the_budget() {
    let slow = vec![("ING", vec![(400, Ok(StageOutput::default()))])];
    let mut pipeline = canonical_pipeline();
    pipeline.budget = Duration::from_millis(500);
    let mut walk = CycleWalk::new(started(pipeline), CycleScript { answers: slow, ..CycleScript::default() });
    while !walk.line().ends_with(" ING") {
        assert!(walk.step());
    }
    walk.crash(walk.facts.len());
    walk.now_ms += 100;

    assert_eq!(walk.walk().reason, CycleEndReason::OutOfTime);
}

/// T10. Method: an hour passes between the crash and the restart: behind its inputs, and in the middle of its intents.
#[test]
fn an_absence_counts_in_the_budget_so_that_nothing_of_before_it_is_traded_on() {
    for (crash_behind, then) in [(" SIG", "=failed"), ("!d-a", "PORT GOV =failed")] {
        let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
        while !walk.line().ends_with(crash_behind) {
            assert!(walk.step());
        }
        let durable = walk.line();
        walk.now_ms += 3_600_000;
        walk.crash(walk.facts.len());

        let ended = walk.walk();

        let since = walk.line().split_off(durable.len() + 1);
        assert_eq!(without_open_gates(&since), then);
        assert_eq!(ended.reason, CycleEndReason::OutOfTime);
        assert_eq!(ended.errors[0].code, CycleErrorCode::Timeout);
    }
}

#[test]
fn a_record_that_cannot_come_is_refused_and_changes_nothing() {
    let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
    walk.walk();
    let facts = walk.facts.clone();
    let mut state = CycleState::new(walk.run.state().started().clone());

    let intent = facts.iter().find(|fact| matches!(fact, JournalFact::OrderIntended(_))).unwrap();
    assert!(state.apply_fact(intent).is_err(), "no RISK yet");
    for fact in &facts[1..] {
        assert_eq!(state.apply_fact(fact), Ok(()));
        if !matches!(fact, JournalFact::GateDecided(_)) {
            assert!(state.apply_fact(fact).is_err(), "{} twice", fact.kind_word());
        }
    }
    for fact in &facts {
        assert!(state.apply_fact(fact).is_err(), "{} after the end", fact.kind_word());
    }
}

fn any_answer(role: StageRole) -> impl Strategy<Value = Scripted> {
    let error = prop_oneof![
        Just(StageErrorKind::Provider),
        Just(StageErrorKind::Unavailable),
        Just(StageErrorKind::Garbage)
    ];
    let answer = prop_oneof![
        6 => Just(Ok(good_answer(role))),
        1 => Just(Ok(StageOutput::default())),
        1 => error.prop_map(|kind| Err(StageError::new(kind, "bad"))),
    ];
    (prop_oneof![6 => 0..30u64, 1 => 0..3000u64], answer)
}

const STAGES: [&str; 7] = ["ING", "FEAT", "SIG", "RISK", "PORT", "ANA", "GOV"];

fn any_answers() -> impl Strategy<Value = Vec<(&'static str, Vec<Scripted>)>> {
    STAGES
        .map(|stage| {
            let role = StageRole::of_stage(&stage_name(stage));
            prop::collection::vec(any_answer(role), 1..3).prop_map(move |attempts| (stage, attempts))
        })
        .into_iter()
        .collect::<Vec<_>>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_world_ends_a_cycle_once_with_every_intent_allowed_and_gated(
        answers in any_answers(),
        flip in 0..40usize,
        crashes in prop::collection::vec((0..30usize, 0..30usize), 0..3),
        cancel_at in 0..60usize,
        budget_ms in 1..6000u64,
        disabled in 0..16usize,
    ) {
        let mut pipeline = canonical_pipeline();
        pipeline.budget = Duration::from_millis(budget_ms);
        if let Some(stage) = pipeline.stages.get_mut(disabled) {
            stage.enabled = false;
        }
        let script = CycleScript { answers, ..from_record(flip, halted) };
        let mut walk = CycleWalk::new(started(pipeline), script);
        let mut steps = 0;
        let mut crashes = crashes.into_iter();
        let mut crash = crashes.next();
        while walk.step() {
            steps += 1;
            prop_assert!(steps < 1000, "{}", walk.line());
            if let Some((_, lost)) = crash.filter(|(at, _)| *at <= walk.facts.len()) {
                walk.crash(walk.facts.len().saturating_sub(lost % 4));
                crash = crashes.next();
            }
            if steps == cancel_at {
                walk.run.cancel_cycle("overlap");
            }
        }
        let ends = walk.facts.iter().filter(|fact| matches!(fact, JournalFact::CycleEnded(_))).count();
        prop_assert_eq!(ends, 1);
        let made = intents(&walk.facts);
        prop_assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), made.len());
        for (at, fact) in walk.facts.iter().enumerate() {
            if let JournalFact::OrderIntended(intent) = fact {
                let before = &walk.facts[..at];
                let risk = before.iter().any(|fact| matches!(fact, JournalFact::StageEnded(ended)
                    if ended.name.as_str() == "RISK" && matches!(ended.outcome, StageOutcome::Done(_))));
                let gated = matches!(before.last(), Some(JournalFact::GateDecided(decided))
                    if decided.first_denial().is_none()
                        && decided.place == GatePlace::BeforeIntent(intent.decision_id.clone()));
                prop_assert!(risk && gated, "{}", walk.line());
            }
        }
    }
}
