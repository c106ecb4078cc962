//! RUN-2, RUN-3, RUN-4, CUT-1: what the run log refuses, and that its index is a function of its records.

use proptest::prelude::*;

use super::*;
use crate::engine::tests::model::{Live, history};
use crate::ids::CutKind;

fn started(symbol: &str, engine_ts: i64, start: u64, end: u64) -> RunRecord {
    let symbol = Symbol::from(symbol);
    let facts = RunFacts {
        run_id: RunId::derive(&symbol, TsMs(engine_ts), IngestSeq(end), EngineMode::Truth),
        symbol,
        engine_timestamp_ms: TsMs(engine_ts),
        engine_mode: EngineMode::Truth,
        cut: CutRange { kind: CutKind::Boundary, start: IngestSeq(start), end: IngestSeq(end) },
        planned_ts_ms: TsMs(engine_ts + 7),
        started_ts_ms: TsMs(0),
        snapshot_seq: Some(IngestSeq(end)),
        counts_by_event_type: BTreeMap::new(),
        symbol_seq: 1,
    };
    Attempts::first_attempt(facts).started_record()
}

fn completed(started: &RunRecord) -> RunRecord {
    let answer = EngineAnswer::Truth { regime_output: "{}".to_owned() };
    Attempts::new(started.facts.clone(), 1).completed_record(answer, EngineIdentity::default(), TsMs(9))
}

fn failed(started: &RunRecord) -> RunRecord {
    Attempts::new(started.facts.clone(), 1).failed_record(&missing_snapshot(&started.facts), TsMs(9))
}

fn admitted(records: &[RunRecord]) -> RunIndex {
    let mut index = RunIndex::default();
    records.iter().for_each(|record| index.admit_record(record).unwrap());
    index
}

fn check_refused(index: &RunIndex, record: &RunRecord) -> RunViolation {
    let mut after = index.clone();
    let violation = after.admit_record(record).unwrap_err();
    assert_eq!(*index, after, "a refused record changes nothing");
    violation
}

#[test]
fn a_run_ends_once_and_only_when_it_is_open() {
    let first = started("A", 100, 1, 5);
    let other = started("A", 200, 6, 9);

    assert!(matches!(check_refused(&RunIndex::default(), &completed(&first)), RunViolation::NotOpen { .. }));
    let open = admitted(std::slice::from_ref(&first));
    assert!(matches!(check_refused(&open, &completed(&other)), RunViolation::NotOpen { .. }));
    let ended = admitted(&[first.clone(), completed(&first)]);
    assert!(matches!(check_refused(&ended, &completed(&first)), RunViolation::NotOpen { .. }));
    assert!(matches!(check_refused(&ended, &failed(&first)), RunViolation::NotOpen { .. }));
}

#[test]
fn a_run_starts_only_when_the_one_before_it_has_ended() {
    let first = started("A", 100, 1, 5);
    let open = admitted(std::slice::from_ref(&first));

    let violation = check_refused(&open, &started("A", 200, 6, 9));

    assert!(matches!(violation, RunViolation::StillOpen { open, .. } if open == first.facts.run_id));
    assert_eq!(open.check_record(&started("B", 100, 1, 5)), Ok(()), "another symbol's");
    assert_eq!(open.check_record(&first), Ok(()), "its next attempt");
}

#[test]
fn engine_time_increases_and_cuts_tile() {
    let first = started("A", 100, 1, 5);
    let index = admitted(&[first.clone(), failed(&first)]);

    for engine_ts in [99, 100] {
        let violation = check_refused(&index, &started("A", engine_ts, 6, 9));
        assert!(matches!(violation, RunViolation::NotIncreasing { last: TsMs(100), .. }));
    }
    for start in [5, 7] {
        let violation = check_refused(&index, &started("A", 101, start, 9));
        assert!(matches!(violation, RunViolation::NotTiled { last_end: IngestSeq(5), .. }));
    }
    assert_eq!(index.check_record(&started("A", 101, 6, 9)), Ok(()));
    assert_eq!(index.check_record(&started("A", 101, 6, 5)), Ok(()), "an empty cut");
}

/// Otherwise the next cut would start at receipts that earlier ones have.
#[test]
fn a_cut_that_ends_before_it_starts_is_refused() {
    let first = started("A", 100, 1, 5);
    let index = admitted(&[first.clone(), failed(&first)]);

    let violation = check_refused(&index, &started("A", 200, 6, 3));

    assert!(matches!(violation, RunViolation::Backwards { .. }));
    assert!(matches!(
        check_refused(&RunIndex::default(), &started("A", 200, 6, 3)),
        RunViolation::Backwards { .. }
    ));
}

/// What the records so far allow, by looking at all of them.
fn oracle(history: &[RunRecord], record: &RunRecord) -> Result<(), &'static str> {
    let of_symbol = || history.iter().filter(|earlier| earlier.facts.symbol == record.facts.symbol);
    let last = of_symbol().next_back();
    let open = last.filter(|last| !last.is_terminal()).map(|last| last.facts.run_id);
    let (facts, cut) = (&record.facts, record.facts.cut);
    match (record.is_terminal(), open) {
        (true, open) if open == Some(facts.run_id) => Ok(()),
        (true, _) => Err("not open"),
        (false, Some(open)) if open == facts.run_id => Ok(()),
        (false, Some(_)) => Err("still open"),
        (false, None) if cut.end.0 + 1 < cut.start.0 => Err("backwards"),
        (false, None) if of_symbol().any(|r| facts.engine_timestamp_ms <= r.facts.engine_timestamp_ms) => {
            Err("not increasing")
        }
        (false, None) if last.is_some_and(|last| cut.start.0 != last.facts.cut.end.0 + 1) => Err("not tiled"),
        (false, None) => Ok(()),
    }
}

fn word(violation: &RunViolation) -> &'static str {
    match violation {
        RunViolation::NotOpen { .. } => "not open",
        RunViolation::StillOpen { .. } => "still open",
        RunViolation::Backwards { .. } => "backwards",
        RunViolation::NotIncreasing { .. } => "not increasing",
        RunViolation::NotTiled { .. } => "not tiled",
    }
}

proptest! {
    /// Method: random records from a small world; each against a look at everything admitted before.
    #[test]
    fn the_index_admits_what_its_whole_history_allows(
        world in prop::collection::vec((0..2usize, 1..6i64, 0..6u64, 0..4u64, 0..3u8, any::<bool>()), 1..120)
    ) {
        let (mut index, mut history) = (RunIndex::default(), Vec::<RunRecord>::new());
        for (symbol, later, start, length, what, fitting) in world {
            let symbol = ["A", "B"][symbol];
            let last = history.iter().rev().find(|record| record.facts.symbol.as_str() == symbol);
            let fresh = match last.map(|last| &last.facts).filter(|_| fitting) {
                Some(last) => {
                    let start = last.cut.end.0 + 1;
                    started(symbol, last.engine_timestamp_ms.0 + later, start, start + length - 1)
                }
                None => started(symbol, later, start, (start + length).saturating_sub(2)),
            };
            let subject = if fitting { last.unwrap_or(&fresh) } else { &fresh };
            let record = match what {
                0 => fresh,
                1 => completed(subject),
                _ => failed(subject),
            };
            let verdict = oracle(&history, &record);
            prop_assert_eq!(index.check_record(&record).map_err(|violation| word(&violation)), verdict);
            prop_assert_eq!(index.admit_record(&record).map_err(|violation| word(&violation)), verdict);
            if verdict.is_ok() {
                history.push(record);
            }
        }
        let terminals = |id| history.iter().filter(|r| r.is_terminal() && r.facts.run_id == id).count();
        prop_assert!(history.iter().all(|record| terminals(record.facts.run_id) <= 1));
    }

    /// Method: a random history of the live system; its index against one built from the records alone, and against
    /// one restored from a checkpoint somewhere in the middle.
    #[test]
    fn the_index_is_a_function_of_the_records(history in history(), at in any::<prop::sample::Index>()) {
        let live = Live::after(history);
        let mut rebuilt = RunIndex::default();
        for (position, record) in live.runs.iter().enumerate() {
            if position == at.index(live.runs.len()) {
                rebuilt = postcard::from_bytes(&postcard::to_stdvec(&rebuilt).unwrap()).unwrap();
            }
            rebuilt.admit_record(record).unwrap();
        }

        prop_assert_eq!(&rebuilt, &live.index);
        prop_assert_eq!(rebuilt.tail(), RunSeq(live.runs.len() as u64));
        let RunTotals { started, completed, failed } = rebuilt.run_counts();
        let ids: std::collections::BTreeSet<_> = live.runs.iter().map(|record| record.facts.run_id).collect();
        let ended = |record: &&RunRecord| record.is_terminal();
        prop_assert_eq!(started, ids.len() as u64);
        prop_assert_eq!(completed + failed, live.runs.iter().filter(ended).count() as u64);
        prop_assert_eq!(rebuilt.output_count(), live.runs.iter().map(outputs_of).sum::<u64>());
        prop_assert_eq!(rebuilt.last_planned_ts(), live.runs.iter().map(|r| r.facts.planned_ts_ms).max());
    }

    /// Method: a random history; the crashes in it leave a `started` record alone for a while.
    #[test]
    fn an_interrupted_run_ends_under_its_id_with_one_more_attempt(history in history()) {
        let live = Live::after(history);
        let mut open: BTreeMap<RunId, u32> = BTreeMap::new();
        for record in &live.runs {
            let id = record.facts.run_id;
            match record.status {
                RunStatus::Started { attempts } => {
                    let expected = open.insert(id, attempts).map_or(
                        u32::from(record.facts.snapshot_seq.is_some()),
                        |before| before + 1,
                    );
                    prop_assert_eq!(attempts, expected);
                }
                RunStatus::Completed { attempts, answered, .. } => {
                    let begun = open.remove(&id).unwrap();
                    prop_assert_eq!(attempts - begun, answered - 1, "what a crash interrupted was not answered");
                }
                RunStatus::Failed { attempts, answered, error_kind, .. } => {
                    prop_assert!(open.remove(&id).unwrap() <= attempts.max(1));
                    prop_assert_eq!(answered == 0, error_kind == ErrorKind::MissingSnapshotInputs);
                    prop_assert_eq!(attempts == 0, error_kind == ErrorKind::MissingSnapshotInputs);
                }
            }
        }
    }
}
