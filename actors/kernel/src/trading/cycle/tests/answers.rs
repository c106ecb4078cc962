//! Answers of several strategies, joined: what is wrong with one is its own failure.

use proptest::prelude::*;

use super::*;
use crate::trading::decision::TradeDecision;
use crate::trading::ids::DecisionId;
use crate::trading::journal::STAGE_DATA_BYTES_MAX;
use crate::trading::testkit::allowed;

/// An answer with these decisions of `strategy`.
fn answer_of(strategy: &str, ids: &[&str]) -> StageOutput {
    let decisions = ids.iter().map(|id| decision(id, strategy, "AAPL", "1")).collect();
    StageOutput { data: "1".to_owned(), decisions, ..StageOutput::default() }
}

fn many(strategy: &str, count: usize) -> Vec<TradeDecision> {
    (0..count).map(|number| decision(&format!("{strategy}-{number}"), strategy, "AAPL", "1")).collect()
}

fn names_failed(output: &StageOutput) -> Vec<String> {
    output.failures.iter().map(|failure| failure.strategy.to_string()).collect()
}

#[test]
fn a_bad_answer_of_one_strategy_is_its_failure_and_stops_no_other() {
    let good = || answer_of("b", &["y"]);
    let stranger = StageOutput { decisions: vec![decision("x", "b", "AAPL", "1")], ..answer_of("a", &[]) };
    let blames = StageOutput {
        failures: vec![StrategyFailure { strategy: strategy_name("b"), error: provider_error() }],
        ..answer_of("a", &["x"])
    };
    for (bad, kind, said) in [
        (answer_of("a", &["x", "x"]), StageErrorKind::Garbage, "decision x comes twice"),
        (stranger, StageErrorKind::Garbage, "decision x is of strategy b"),
        (blames, StageErrorKind::Garbage, "it says that strategy b failed"),
        (
            StageOutput { verdicts: vec![allowed("x", "1")], ..answer_of("a", &["x"]) },
            StageErrorKind::Garbage,
            "verdicts come from RISK only",
        ),
        (
            StageOutput { decisions: many("a", CYCLE_DECISIONS_MAX + 1), ..answer_of("a", &[]) },
            StageErrorKind::TooLarge,
            "1001 decisions; all strategies together have 1002, 999 are allowed",
        ),
        (
            StageOutput { data: "1".repeat(STAGE_DATA_BYTES_MAX + 1), ..answer_of("a", &["x"]) },
            StageErrorKind::TooLarge,
            "bytes of data; all strategies together have",
        ),
        (answer_of("a", &["known"]), StageErrorKind::Garbage, "decision known comes twice"),
    ] {
        let known = [decision("known", "b", "AAPL", "1")];
        for answers in [
            vec![(strategy_name("a"), Ok(bad.clone())), (strategy_name("b"), Ok(good()))],
            vec![(strategy_name("b"), Ok(good())), (strategy_name("a"), Ok(bad.clone()))],
        ] {
            let merged = merge_strategy_answers(StageProvider::Http, &known, answers).unwrap();

            assert_eq!(merged.decisions, good().decisions, "{said}");
            assert_eq!((merged.data.as_str(), names_failed(&merged)), (r#"{"b":1}"#, vec!["a".to_owned()]));
            let StrategyFailure { error, .. } = &merged.failures[0];
            assert!(error.kind == kind && error.detail.contains(said), "{said}: {error:?}");
        }
    }
}

#[test]
fn of_too_much_in_all_the_largest_answers_fail_and_of_one_decision_twice_the_later() {
    let of =
        |strategy: &str, count| StageOutput { decisions: many(strategy, count), ..answer_of(strategy, &[]) };
    let answers = |counts: [usize; 3]| {
        let named = ["a", "b", "c"].into_iter().zip(counts);
        named.map(|(name, count)| (strategy_name(name), Ok(of(name, count)))).collect::<Vec<_>>()
    };
    for (counts, failed) in [
        ([500, 500, 0], vec![]),
        ([500, 501, 499], vec!["b"]),
        ([400, 400, 400], vec!["c"]),
        ([1, 999, 998], vec!["b"]),
    ] {
        assert_eq!(
            names_failed(&merge_strategy_answers(StageProvider::Http, &[], answers(counts)).unwrap()),
            failed,
            "{counts:?}"
        );
    }

    let twice = vec![
        (strategy_name("b"), Ok(answer_of("b", &["x"]))),
        (strategy_name("a"), Ok(answer_of("a", &["w", "x"]))),
    ];
    let merged = merge_strategy_answers(StageProvider::Http, &[], twice).unwrap();
    assert_eq!((names_failed(&merged), merged.decisions.len()), (vec!["a".to_owned()], 1));

    let all_bad = vec![(strategy_name("a"), Ok(answer_of("a", &["x", "x"])))];
    assert_eq!(
        merge_strategy_answers(StageProvider::Http, &[], all_bad).unwrap_err().kind,
        StageErrorKind::Garbage
    );
}

/// One strategy's answer: identifiers of a few, so that they meet, of both strategies; sizes around the limits.
fn any_strategy_answer(strategy: &'static str) -> impl Strategy<Value = StageOutput> {
    let few = prop::collection::vec((0_u8..6, prop::sample::select(vec!["a", "b"])), 0..4);
    let sizes = prop::sample::select(vec![0_usize, 1, 499, 500, 501, 1000, 1001]);
    let data = prop::sample::select(vec![0_usize, 1, STAGE_DATA_BYTES_MAX / 2, STAGE_DATA_BYTES_MAX]);
    let blames = prop::option::weighted(0.2, prop::sample::select(vec!["a", "b"]));
    (few, sizes, data, blames).prop_map(move |(few, count, data, blames)| {
        let few = few.iter().map(|(id, of)| decision(&format!("d{id}"), of, "AAPL", "1"));
        let blamed =
            blames.map(|name| StrategyFailure { strategy: strategy_name(name), error: provider_error() });
        StageOutput {
            data: "1".repeat(data),
            decisions: few.chain(many(strategy, count)).collect(),
            verdicts: Vec::new(),
            failures: blamed.into_iter().collect(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever strategies answer, what is joined is an answer that the cycle takes whole.
    #[test]
    fn a_joined_answer_is_always_one_that_the_cycle_takes(
        a in any_strategy_answer("a"),
        b in any_strategy_answer("b"),
    ) {
        let mut pipeline = canonical_pipeline();
        let signals = &mut pipeline.stages[2];
        signals.provider = StageProvider::Http;
        let signals = signals.clone();
        let state = CycleState::new(started(pipeline));
        let answers = vec![(strategy_name("a"), Ok(a)), (strategy_name("b"), Ok(b))];

        if let Ok(merged) = merge_strategy_answers(signals.provider, state.decisions(), answers) {
            let both_say_so = merged.failures.len() == 2;
            let checked = state.check_answer(&signals, &merged);
            prop_assert!(checked.is_ok() || both_say_so, "{checked:?}");
            let ids: std::collections::BTreeSet<&DecisionId> =
                merged.decisions.iter().map(|decision| &decision.decision_id).collect();
            prop_assert_eq!(ids.len(), merged.decisions.len());
        }
    }
}
