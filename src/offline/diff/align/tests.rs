//! Pairs of runs: which belong together, and what their differences come to.

use std::collections::BTreeMap;

use orchestrator_kernel::engine::contracts::engine_run::{CutRange, RunFacts};
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{CutKind, EngineMode, IngestSeq};
use orchestrator_kernel::ports::engine::{EngineAnswer, EngineIdentity};
use proptest::prelude::*;

use super::*;

fn with(symbol: &str, ts: i64, status: RunStatus) -> RunRecord {
    let symbol = Symbol::from(symbol);
    let end = IngestSeq(ts.unsigned_abs());
    RunRecord {
        facts: RunFacts {
            run_id: RunId::derive(&symbol, TsMs(ts), end, EngineMode::Truth),
            symbol,
            engine_timestamp_ms: TsMs(ts),
            engine_mode: EngineMode::Truth,
            cut: CutRange { kind: CutKind::Boundary, start: IngestSeq(1), end },
            planned_ts_ms: TsMs(ts),
            started_ts_ms: TsMs(ts),
            snapshot_seq: None,
            counts_by_event_type: BTreeMap::new(),
            symbol_seq: 1,
        },
        status,
    }
}

fn completed(symbol: &str, ts: i64, regime_output: &str) -> RunRecord {
    let status = RunStatus::Completed {
        attempts: 1,
        answered: 1,
        completed_ts_ms: TsMs(ts),
        answer: EngineAnswer::Truth { regime_output: regime_output.to_owned() },
        engine: EngineIdentity::default(),
    };
    with(symbol, ts, status)
}

fn failed(symbol: &str, ts: i64) -> RunRecord {
    let status = RunStatus::Failed {
        attempts: 1,
        answered: 1,
        completed_ts_ms: TsMs(ts),
        error_kind: ErrorKind::EngineTimeout,
        error_detail: "late".to_owned(),
    };
    with(symbol, ts, status)
}

fn check_diff(a: &[RunRecord], b: &[RunRecord]) -> Differences {
    let mut align = Align::new("a", "b");
    let (mut a, mut b) = (a.iter(), b.iter());
    while let Some(side) = align.side_behind() {
        let next = match side {
            Side::A => a.next(),
            Side::B => b.next(),
        };
        match next {
            Some(record) => align.take_record(side, record.clone()),
            None => align.end_side(side),
        }
    }
    align.into_differences()
}

#[test]
fn equal_runs_are_equal_whatever_the_order_between_symbols() {
    let a = [completed("A", 1, "{}"), failed("B", 1), completed("A", 2, "{}"), failed("B", 2)];
    let b = [failed("B", 1), completed("A", 1, "{}"), completed("A", 2, "{}"), failed("B", 2)];

    let found = check_diff(&a, &b);

    assert_eq!((found.verdict, found.equal), (DiffVerdict::Equal, 4));
}

#[test]
fn operational_facts_and_the_engines_name_are_no_difference() {
    let mut other = completed("A", 1, "{}");
    if let RunStatus::Completed { attempts, completed_ts_ms, engine, .. } = &mut other.status {
        (*attempts, *completed_ts_ms, engine.version) = (3, TsMs(99), "2".to_owned());
    }
    other.facts.started_ts_ms = TsMs(7);

    let found = check_diff(&[completed("A", 1, "{}")], &[other]);

    assert_eq!(found.verdict, DiffVerdict::Equal);
    assert_eq!(found.b.engines[0].version, "2");
}

#[test]
fn runs_of_one_side_are_named_and_nothing_in_common_is_no_answer() {
    let a = [completed("A", 1, "{}"), completed("A", 2, "{}")];
    let b = [completed("A", 2, "{}"), completed("A", 3, "{}"), completed("Z", 1, "{}")];

    let found = check_diff(&a, &b);

    assert_eq!((found.verdict, found.equal), (DiffVerdict::Different, 1));
    let first = |missing: &super::super::Missing| {
        let first = missing.first.clone().unwrap();
        (missing.count, first.symbol, first.engine_timestamp_ms.0)
    };
    assert_eq!(first(&found.only_in_a), (1, "A".to_owned(), 1));
    assert_eq!(first(&found.only_in_b), (2, "Z".to_owned(), 1));
    assert_eq!(check_diff(&a, &[]).verdict, DiffVerdict::CannotTell);
    assert_eq!(check_diff(&[], &[]).verdict, DiffVerdict::CannotTell);
}

#[test]
fn regimes_numbers_and_other_values_are_told_apart() {
    let a = [
        completed("A", 1, r#"{"confidence":0.5,"drivers":["x"],"regime":"CALM"}"#),
        completed("A", 2, r#"{"confidence":0.50,"drivers":["x"],"regime":"CALM"}"#),
        completed("A", 3, r#"{"confidence":1.0,"drivers":["x"],"regime":"CALM"}"#),
        failed("A", 4),
    ];
    let b = [
        completed("A", 1, r#"{"confidence":0.4,"drivers":["x"],"regime":"WILD"}"#),
        completed("A", 2, r#"{"confidence":0.8,"drivers":["y"],"regime":"WILD"}"#),
        completed("A", 3, r#"{"confidence":1.00,"drivers":["x"],"regime":"CALM"}"#),
        completed("A", 4, r#"{"regime":"CALM"}"#),
    ];

    let found = check_diff(&a, &b);

    assert_eq!((found.verdict, found.equal, found.different), (DiffVerdict::Different, 0, 4));
    let regimes: Vec<_> = found
        .regime_changes
        .iter()
        .map(|change| {
            (change.from.as_str(), change.to.as_str(), change.count, change.first.engine_timestamp_ms.0)
        })
        .collect();
    assert_eq!(regimes, [("CALM", "WILD", 2, 1), ("(engine_timeout)", "CALM", 1, 4)]);
    let [drift] = found.drift.as_slice() else { panic!("{:?}", found.drift) };
    assert_eq!((drift.path.as_str(), drift.count), ("regime_output.confidence", 2));
    assert!((drift.max_abs - 0.3).abs() < 1e-12, "{drift:?}");
    assert!((drift.max_rel - 0.375).abs() < 1e-12, "{drift:?}");
    assert!((drift.mean - 0.1).abs() < 1e-12, "{drift:?}");
    let changed: Vec<_> = found.changed.iter().map(|changed| changed.path.as_str()).collect();
    for path in ["regime_output.drivers[0]", "(how a number is written)", "status", "error_kind"] {
        assert!(changed.contains(&path), "{path} is missing in {changed:?}");
    }
    assert!(!changed.contains(&"regime_output.regime"), "it has its own table");
    let driver = found.changed.iter().find(|changed| changed.path.contains("drivers")).unwrap();
    assert_eq!((driver.a.as_str(), driver.b.as_str()), ("\"x\"", "\"y\""));
}

#[test]
fn another_cut_is_a_difference_but_no_drift() {
    let mut other = completed("A", 9, "{}");
    other.facts.cut.end = IngestSeq(5);

    let found = check_diff(&[completed("A", 9, "{}")], &[other]);

    assert_eq!(found.verdict, DiffVerdict::Different);
    assert!(found.drift.is_empty());
    assert_eq!(found.changed[0].path, "cut_end_ingest_seq");
}

#[test]
fn in_hysteresis_the_decision_and_the_state_are_compared() {
    let step = |regime: &str, count: u32| {
        let decision = format!(
            r#"{{"selected_output":{{"regime":"{regime}"}},"transition":{{"flipped":{}}}}}"#,
            count == 0
        );
        let state = format!(r#"{{"candidate_count":{count}}}"#);
        let status = RunStatus::Completed {
            attempts: 1,
            answered: 1,
            completed_ts_ms: TsMs(1),
            answer: EngineAnswer::Hysteresis { decision, state },
            engine: EngineIdentity::default(),
        };
        with("A", 1, status)
    };

    let found = check_diff(&[step("CALM", 2)], &[step("WILD", 0)]);

    assert_eq!(
        (found.regime_changes[0].from.as_str(), found.regime_changes[0].to.as_str()),
        ("CALM", "WILD")
    );
    assert_eq!(found.drift[0].path, "state.candidate_count");
    assert_eq!(found.changed[0].path, "decision.transition.flipped");
    let truth = check_diff(&[step("CALM", 2)], &[completed("A", 1, r#"{"regime":"CALM"}"#)]);
    assert_eq!((truth.regime_changes.len(), truth.verdict), (0, DiffVerdict::Different));
}

#[test]
fn the_page_says_what_was_found() {
    let a = [completed("A", 1, r#"{"confidence":0.5,"regime":"CALM"}"#), completed("A", 2, "{}")];
    let b = [completed("A", 1, r#"{"confidence":0.25,"regime":"WILD"}"#)];

    let page = super::super::render_differences(&check_diff(&a, &b));

    for part in [
        "different: 1 of 1 runs",
        "only in A: 1 runs, the first A 1970-01-01T00:00:00.002+00:00",
        "CALM  WILD",
        "regime_output.confidence  2.500e-1  5.000e-1  -2.500e-1",
    ] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
}

proptest! {
    /// Method: two logs with arbitrary symbols, times and answers; the reference pairs them by a map.
    #[test]
    fn pairs_are_those_of_a_map(
        a in prop::collection::btree_map((0..4i64, 0..3usize), 0..2u8, 0..20),
        b in prop::collection::btree_map((0..4i64, 0..3usize), 0..2u8, 0..20),
    ) {
        let log = |runs: &BTreeMap<(i64, usize), u8>| -> Vec<RunRecord> {
            let record = |((ts, symbol), answer): (&(i64, usize), &u8)| {
                completed(["A", "B", "C"][*symbol], *ts, &answer.to_string())
            };
            runs.iter().map(record).collect()
        };

        let found = check_diff(&log(&a), &log(&b));

        let both = a.iter().filter_map(|(key, answer)| Some((answer, b.get(key)?))).collect::<Vec<_>>();
        let equal = both.iter().filter(|(a, b)| a == b).count();
        prop_assert_eq!((found.equal, found.different), (equal as u64, (both.len() - equal) as u64));
        prop_assert_eq!(found.only_in_a.count, (a.len() - both.len()) as u64);
        prop_assert_eq!(found.only_in_b.count, (b.len() - both.len()) as u64);
    }
}
