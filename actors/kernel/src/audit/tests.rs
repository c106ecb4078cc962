//! REP-1: replay = live. What the two logs hold gives the published events again, byte for byte; and whatever is changed
//! in them is named.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::contracts::engine_run::Cut;
use crate::contracts::orchestrator_event::events;
use crate::ids::EventType;
use crate::model::{Live, Stored, engine, history, records};
use crate::ports::fan_out::OutputMessage;

/// What an audit gives.
#[derive(Debug, PartialEq)]
struct Audited {
    found: Vec<Divergence>,
    /// The replayed terminal records with their positions.
    replayed: Vec<(RunSeq, RunRecord)>,
    unfinished: usize,
}

impl Audited {
    fn has(&self, check: Check, field: &str) -> bool {
        self.found.iter().any(|found| found.check == check && found.field == field)
    }
}

fn outline(runs: &[RunRecord]) -> Outline {
    let mut outline = Outline::default();
    runs.iter().for_each(|record| outline.note(record));
    outline
}

/// Audits logs that begin behind `base`, showing as few receipts as the audit asks for.
fn audit_from<'a>(
    receipts: impl Iterator<Item = ReceiptRecord<'a>>,
    runs: &[RunRecord],
    state_from: StateFrom,
    base: Base,
) -> Audited {
    let (first_run, mut at) = (base.runs.tail().next(), base.receipts);
    let mut audit = Audit::new(outline(runs), state_from, base);
    let (mut receipts, mut found, mut replayed) = (receipts, Vec::new(), Vec::new());
    for (record, seq) in runs.iter().zip((first_run.0..).map(RunSeq)) {
        while audit.wants_receipts_for(record) {
            match receipts.next() {
                Some(receipt) => {
                    at = at.next();
                    audit.receipt(at.into(), &receipt, &mut found);
                }
                None => audit.receipts_ended(),
            }
        }
        match audit.run(seq, record, &mut found) {
            Step::Nothing => {}
            Step::Settled(settled) => replayed.push((seq, *settled)),
            Step::Call(call) => {
                replayed.push((seq, audit.finish(seq, record, Ok(engine(&call)), &mut found)));
            }
        }
    }
    for receipt in receipts {
        at = at.next();
        audit.receipt(at.into(), &receipt, &mut found);
    }
    let unfinished = audit.unfinished().count();
    Audited { found, replayed, unfinished }
}

fn audit(log: &[Stored], runs: &[RunRecord]) -> Audited {
    audit_from(records(log), runs, StateFrom::Record, Base::default())
}

fn published<'a>(terminals: impl Iterator<Item = (RunSeq, &'a RunRecord)>) -> Vec<OutputMessage> {
    terminals.flat_map(|(run_seq, record)| events(run_seq, record, None).unwrap()).collect()
}

fn live_events(runs: &[RunRecord]) -> Vec<OutputMessage> {
    published((1..).map(RunSeq).zip(runs))
}

fn replayed_events(audited: &Audited) -> Vec<OutputMessage> {
    published(audited.replayed.iter().map(|(seq, record)| (*seq, record)))
}

/// A change of one fact in all records of a run, and what must name it.
type FactFlip = (Check, &'static str, fn(&mut RunFacts));

fn rename(facts: &mut RunFacts) {
    facts.run_id = RunId::derive(&facts.symbol, facts.engine_timestamp_ms, facts.cut.end, facts.engine_mode);
}

/// Facts that follow from the receipts, or from the records before.
fn fact_flips() -> impl Strategy<Value = FactFlip> {
    let flips: Vec<FactFlip> = vec![
        (Check::Identity, "run_id", |facts: &mut RunFacts| {
            facts.run_id = RunId::derive(&Symbol::from("?"), TsMs(0), IngestSeq(0), EngineMode::Truth);
        }),
        (Check::Identity, "run_id", |facts: &mut RunFacts| {
            facts.engine_timestamp_ms = facts.engine_timestamp_ms.plus(1)
        }),
        (Check::Identity, "run_id", |facts: &mut RunFacts| {
            facts.cut = Cut { end: facts.cut.end.next(), ..facts.cut }
        }),
        (Check::Identity, "run_id", |facts: &mut RunFacts| {
            facts.engine_mode = match facts.engine_mode {
                EngineMode::Truth => EngineMode::Hysteresis,
                EngineMode::Hysteresis => EngineMode::Truth,
            };
        }),
        (Check::Cuts, "cut_end_ingest_seq", |facts: &mut RunFacts| {
            facts.cut = Cut { end: facts.cut.end.next(), ..facts.cut };
            rename(facts);
        }),
        (Check::Cuts, "cut_end_ingest_seq", |facts: &mut RunFacts| {
            facts.cut = Cut { end: IngestSeq(facts.cut.end.0.wrapping_sub(1).min(1 << 40)), ..facts.cut };
            rename(facts);
        }),
        (Check::Cuts, "cut_start_ingest_seq", |facts: &mut RunFacts| {
            facts.cut = Cut { start: facts.cut.start.next(), ..facts.cut };
        }),
        (Check::Cuts, "snapshot_seq", |facts: &mut RunFacts| {
            facts.snapshot_seq = match facts.snapshot_seq {
                Some(_) => None,
                None => Some(facts.cut.end),
            };
        }),
        (Check::Cuts, "snapshot_seq", |facts: &mut RunFacts| {
            facts.snapshot_seq = Some(facts.snapshot_seq.unwrap_or_default().next());
        }),
        (Check::Cuts, "counts_by_event_type", |facts: &mut RunFacts| {
            *facts.counts_by_event_type.entry(EventType::from("Candle")).or_default() += 1;
        }),
        (Check::Numbering, "symbol_seq", |facts: &mut RunFacts| facts.symbol_seq += 1),
    ];
    prop::sample::select(flips)
}

/// A change of one fact in a terminal record, and the field that must be named.
type TerminalFlip = (&'static str, fn(&mut RunFacts));

/// Facts of a terminal record that its started record says otherwise.
fn terminal_flips() -> impl Strategy<Value = TerminalFlip> {
    let flips: Vec<TerminalFlip> = vec![
        ("order", |facts: &mut RunFacts| facts.symbol = Symbol::from("?")),
        ("engine_timestamp_ms", |facts: &mut RunFacts| {
            facts.engine_timestamp_ms = facts.engine_timestamp_ms.plus(1)
        }),
        ("engine_mode", |facts: &mut RunFacts| {
            facts.engine_mode = match facts.engine_mode {
                EngineMode::Truth => EngineMode::Hysteresis,
                EngineMode::Hysteresis => EngineMode::Truth,
            };
        }),
        ("cut_kind", |facts: &mut RunFacts| facts.cut.kind = crate::ids::CutKind::Timer),
        ("cut_start_ingest_seq", |facts: &mut RunFacts| facts.cut.start = facts.cut.start.next()),
        ("cut_end_ingest_seq", |facts: &mut RunFacts| facts.cut.end = facts.cut.end.next()),
        ("planned_ts_ms", |facts: &mut RunFacts| facts.planned_ts_ms = facts.planned_ts_ms.plus(1)),
        ("started_ts_ms", |facts: &mut RunFacts| facts.started_ts_ms = facts.started_ts_ms.plus(1)),
        ("snapshot_seq", |facts: &mut RunFacts| facts.snapshot_seq = Some(IngestSeq(u64::MAX))),
        ("counts_by_event_type", |facts: &mut RunFacts| {
            *facts.counts_by_event_type.entry(EventType::from("Candle")).or_default() += 1;
        }),
        ("symbol_seq", |facts: &mut RunFacts| facts.symbol_seq += 1),
    ];
    prop::sample::select(flips)
}

/// A change of what a terminal record says beside its facts; `None` when it does not fit the record.
type StatusFlip = fn(&mut RunStatus) -> Option<(Check, &'static str)>;

fn status_flips() -> impl Strategy<Value = StatusFlip> {
    let flips: Vec<StatusFlip> = vec![
        |status: &mut RunStatus| match status {
            RunStatus::Completed { attempts, .. } | RunStatus::Started { attempts } => {
                *attempts += 1;
                Some((Check::Attempts, "attempts"))
            }
            RunStatus::Failed { attempts, .. } => {
                *attempts += 2;
                Some((Check::Attempts, "attempts"))
            }
        },
        |status: &mut RunStatus| match status {
            RunStatus::Completed { answered, .. } => {
                *answered = 0;
                Some((Check::Attempts, "answered"))
            }
            RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
        },
        |status: &mut RunStatus| match status {
            RunStatus::Completed { answer: EngineAnswer::Truth { regime_output }, .. } => {
                *regime_output = "{}".to_owned();
                Some((Check::Answers, "regime_output"))
            }
            RunStatus::Completed { answer: EngineAnswer::Hysteresis { decision, .. }, .. } => {
                *decision = r#"{"selected_output":{}}"#.to_owned();
                Some((Check::Answers, "hysteresis_decision"))
            }
            RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
        },
        |status: &mut RunStatus| match status {
            RunStatus::Completed { answer: EngineAnswer::Hysteresis { state, .. }, .. } => {
                state.push(' ');
                Some((Check::Answers, "hysteresis_state"))
            }
            RunStatus::Completed { .. } | RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
        },
        |status: &mut RunStatus| match status {
            RunStatus::Failed { error_kind: ErrorKind::MissingSnapshotInputs, error_detail, .. } => {
                error_detail.push('.');
                Some((Check::Failures, "error_detail"))
            }
            RunStatus::Failed { error_kind, .. } => {
                *error_kind = ErrorKind::MissingSnapshotInputs;
                Some((Check::Failures, "error_kind"))
            }
            RunStatus::Started { .. } | RunStatus::Completed { .. } => None,
        },
        |status: &mut RunStatus| match status {
            RunStatus::Failed { error_kind: kind @ ErrorKind::MissingSnapshotInputs, .. } => {
                *kind = ErrorKind::EngineFailure;
                Some((Check::Failures, "error_kind"))
            }
            RunStatus::Failed { .. } | RunStatus::Started { .. } | RunStatus::Completed { .. } => None,
        },
    ];
    prop::sample::select(flips)
}

/// A change of the receipt log, at a receipt that some run has counted; returns what must name it.
type LogFlip = fn(&mut Vec<Stored>, usize) -> Option<(Check, &'static str)>;

fn log_flips() -> impl Strategy<Value = LogFlip> {
    let flips: Vec<LogFlip> = vec![
        |log: &mut Vec<Stored>, at| {
            log[at].event_type = "Forged";
            Some((Check::Cuts, "counts_by_event_type"))
        },
        |log: &mut Vec<Stored>, at| {
            log[at].symbol = "forged";
            Some((Check::Cuts, "counts_by_event_type"))
        },
        // Everything after it moves down, and no longer is where it says.
        |log: &mut Vec<Stored>, at| {
            log.remove(at);
            (at < log.len()).then_some((Check::Receipts, "ingest_seq"))
        },
        |log: &mut Vec<Stored>, at| {
            log[at].ingest_ts_ms = TsMs(0);
            (0 < at).then_some((Check::Order, "ingest_ts_ms"))
        },
        // As if it had come much later: the cuts before would have ended earlier.
        |log: &mut Vec<Stored>, at| {
            log[at].ingest_ts_ms = TsMs(i64::MAX / 2);
            Some((Check::Cuts, "cut_end_ingest_seq"))
        },
    ];
    prop::sample::select(flips)
}

/// The record numbers of the runs that have ended, each with all its records.
fn ended_runs(runs: &[RunRecord]) -> Vec<Vec<usize>> {
    let terminals = runs.iter().filter(|record| record.is_terminal());
    let of = |run_id| (0..runs.len()).filter(|at| runs[*at].facts.run_id == run_id).collect();
    terminals.map(|terminal| of(terminal.facts.run_id)).collect()
}

/// Whether any run has counted this receipt.
fn is_counted(receipt: &ReceiptRecord<'_>, runs: &[RunRecord]) -> bool {
    runs.iter()
        .any(|run| run.facts.symbol.as_str() == receipt.symbol && receipt.ingest_seq <= run.facts.cut.end)
}

proptest! {
    #[test]
    fn replay_gives_the_live_events_byte_for_byte(history in history()) {
        let live = Live::after(history);

        let audited = audit(&live.log, &live.runs);

        prop_assert_eq!(&audited.found, &[]);
        prop_assert_eq!(replayed_events(&audited), live_events(&live.runs));
        let ended: Vec<_> =
            (1..).map(RunSeq).zip(live.runs.clone()).filter(|(_, record)| record.is_terminal()).collect();
        prop_assert_eq!(&audited.replayed, &ended);
        let open = live.index.symbols().filter(|(_, runs)| runs.open.is_some()).count();
        prop_assert_eq!(audited.unfinished, open);
    }

    /// The state recomputed from the start, and the state that the log recorded before each run, give the same.
    #[test]
    fn recomputed_states_agree_with_the_recorded_ones(history in history()) {
        let live = Live::after(history);

        let recomputed = audit_from(records(&live.log), &live.runs, StateFrom::Replay, Base::default());

        prop_assert_eq!(recomputed, audit(&live.log, &live.runs));
    }

    /// Outputs are numbered per symbol without gap, and come in the order of engine time (OUT-1).
    #[test]
    fn outputs_of_a_symbol_are_numbered_without_gap(history in history()) {
        let live = Live::after(history);

        let mut by_symbol: BTreeMap<Symbol, Vec<u64>> = BTreeMap::new();
        for output in live_events(&live.runs) {
            by_symbol.entry(output.symbol).or_default().push(output.symbol_seq);
        }
        for (symbol, numbers) in by_symbol {
            prop_assert_eq!(&numbers, &(1..=numbers.len() as u64).collect::<Vec<_>>());
            prop_assert_eq!(live.index.symbol(&symbol).outputs, numbers.len() as u64);
        }
    }

    /// Method: change one fact in every record of a run, so that they agree with each other.
    #[test]
    fn a_fact_that_does_not_follow_from_the_records_before_is_named(
        history in history(), at in any::<prop::sample::Index>(), (check, field, flip) in fact_flips(),
    ) {
        let mut live = Live::after(history);
        let ended = ended_runs(&live.runs);
        if ended.is_empty() {
            return Ok(());
        }
        for record in &ended[at.index(ended.len())] {
            flip(&mut live.runs[*record].facts);
        }

        let audited = audit(&live.log, &live.runs);

        prop_assert!(audited.has(check, field), "{:?}", audited.found);
    }

    /// Method: change one fact in the terminal record only.
    #[test]
    fn a_terminal_record_with_other_facts_than_its_started_one_is_named(
        history in history(), at in any::<prop::sample::Index>(), (field, flip) in terminal_flips(),
    ) {
        let mut live = Live::after(history);
        let ended = ended_runs(&live.runs);
        if ended.is_empty() {
            return Ok(());
        }
        let terminal = *ended[at.index(ended.len())].last().unwrap();
        let honest = live.runs[terminal].facts.clone();
        flip(&mut live.runs[terminal].facts);
        prop_assume!(live.runs[terminal].facts != honest);

        let audited = audit(&live.log, &live.runs);

        prop_assert!(audited.has(Check::Runs, field), "{:?}", audited.found);
    }

    #[test]
    fn a_status_that_does_not_follow_is_named_and_no_answer_is_trusted(
        history in history(), at in any::<prop::sample::Index>(), flip in status_flips(),
    ) {
        let mut live = Live::after(history);
        if live.runs.is_empty() {
            return Ok(());
        }
        let index = at.index(live.runs.len());
        let honest = live_events(&live.runs);
        let Some((check, field)) = flip(&mut live.runs[index].status) else { return Ok(()) };

        let audited = audit(&live.log, &live.runs);

        let place = Place::run(RunSeq(index as u64 + 1), &live.runs[index].facts);
        let named = audited.found.iter().any(|found| (found.check, found.field) == (check, field) && found.place == place);
        prop_assert!(named, "{:?}", audited.found);
        if check == Check::Answers {
            // A recorded state is given to the next call; one that was computed is not touched by what is recorded.
            let recomputed = audit_from(records(&live.log), &live.runs, StateFrom::Replay, Base::default());
            prop_assert_eq!(replayed_events(&recomputed), honest);
        }
    }

    /// RUN-2, RUN-3. Method: leave a record out, or repeat one.
    #[test]
    fn a_record_that_is_missing_or_comes_twice_is_named(
        history in history(), at in any::<prop::sample::Index>(), twice in any::<bool>(),
    ) {
        let mut live = Live::after(history);
        if live.runs.is_empty() {
            return Ok(());
        }
        let index = at.index(live.runs.len());
        let record = if twice { live.runs[index].clone() } else { live.runs.remove(index) };
        let later = live.runs[index..].iter().any(|later| later.facts.symbol == record.facts.symbol);
        if twice {
            live.runs.insert(index, record);
        } else if !later {
            return Ok(());
        }

        prop_assert!(!audit(&live.log, &live.runs).found.is_empty());
    }

    /// Method: change one receipt that some run counted, without a trace in the run log.
    #[test]
    fn a_receipt_that_was_changed_or_dropped_is_noticed(
        history in history(), at in any::<prop::sample::Index>(), flip in log_flips(),
    ) {
        let mut live = Live::after(history);
        let counted: Vec<usize> = records(&live.log)
            .filter(|receipt| is_counted(receipt, &live.runs))
            .map(|receipt| usize::try_from(receipt.ingest_seq.0).unwrap() - 1)
            .collect();
        if counted.is_empty() {
            return Ok(());
        }
        let index = counted[at.index(counted.len())];
        let numbered: Vec<u64> = (1..=live.log.len() as u64).collect();
        let mut numbers = numbered.clone();
        let honest_len = live.log.len();
        let Some((check, field)) = flip(&mut live.log, index) else { return Ok(()) };
        if live.log.len() < honest_len {
            numbers.remove(index);
        }
        let renumbered =
            records(&live.log).zip(numbers).map(|(record, seq)| ReceiptRecord { ingest_seq: IngestSeq(seq), position: seq, ..record });

        let audited = audit_from(renumbered, &live.runs, StateFrom::Record, Base::default());

        prop_assert!(audited.has(check, field), "{:?}", audited.found);
    }

    #[test]
    fn an_item_that_was_stored_twice_is_named(history in history(), at in any::<prop::sample::Index>()) {
        let live = Live::after(history);
        if live.log.len() < 2 {
            return Ok(());
        }
        let index = at.index(live.log.len() - 1) + 1;
        let repeated = records(&live.log).enumerate().map(|(number, record)| ReceiptRecord {
            position: if number == index { record.position - 1 } else { record.position },
            ..record
        });

        let audited = audit_from(repeated, &live.runs, StateFrom::Record, Base::default());

        let place = Place::Receipt(IngestSeq(index as u64 + 1));
        prop_assert!(audited.found.iter().any(|found| found.check == Check::Positions && found.place == place));
        prop_assert_eq!(audited.found.len(), 1);
    }

    /// Method: trim both logs where nothing is open, and go on from what stood before.
    #[test]
    fn an_audit_of_trimmed_logs_goes_on_from_their_base(history in history(), at in any::<prop::sample::Index>()) {
        let live = Live::after(history);
        let trimmed = at.index(live.runs.len() + 1);
        let mut runs = RunIndex::default();
        live.runs[..trimmed].iter().for_each(|record| runs.admit(record).unwrap());
        let is_known = |record: &RunRecord| runs.get(&record.facts.symbol).is_some();
        if runs.symbols().any(|(_, runs)| runs.open.is_some()) || !live.runs[trimmed..].iter().all(is_known) {
            return Ok(());
        }
        let receipts = runs.symbols().filter_map(|(_, runs)| runs.last_cut_end).min().unwrap_or_default();
        let rest = records(&live.log).filter(|record| receipts < record.ingest_seq);
        let whole = audit(&live.log, &live.runs);

        let audited = audit_from(rest, &live.runs[trimmed..], StateFrom::Replay, Base { receipts, runs, ..Base::default() });

        prop_assert_eq!(&audited.found, &[]);
        let expected: Vec<_> = whole.replayed.into_iter().filter(|(seq, _)| trimmed < seq.0 as usize).collect();
        prop_assert_eq!(audited.replayed, expected);
    }
}

#[test]
fn a_completed_run_without_a_snapshot_and_an_engine_that_fails_now_diverge() {
    let tick = crate::cadence::Cadence::Boundary { interval_ms: 100, delay_ms: 0 }.first(TsMs(0));
    let cut = |snapshot| crate::cut::CutSlice {
        symbol: Symbol::from("A"),
        start: IngestSeq(if snapshot { 1 } else { 2 }),
        end: IngestSeq(1),
        counts: if snapshot {
            BTreeMap::from([(EventType::from("SnapshotInputs"), 1)])
        } else {
            BTreeMap::new()
        },
        snapshot: snapshot.then_some(crate::cut::Snapshot { seq: IngestSeq(1), event: None }),
    };
    let completed = |snapshot| {
        let started = crate::run::start(tick, cut(snapshot), EngineMode::Truth, TsMs(0), 1);
        let answer = EngineAnswer::Truth { regime_output: "{}".to_owned() };
        let completed =
            Attempts::first(started.facts.clone()).completed(answer, EngineIdentity::default(), TsMs(1));
        [started, completed]
    };

    let without = completed(false);
    let mut audit = Audit::new(outline(&without), StateFrom::Record, Base::default());
    let mut found = Vec::new();
    audit.receipts_ended();
    without.iter().for_each(|record| drop(audit.run(RunSeq(1), record, &mut found)));
    let status = found.iter().find(|found| found.field == "status").unwrap();
    assert!(status.replayed.starts_with("failed (missing_snapshot_inputs"), "{status}");

    let log = [Stored {
        ingest_ts_ms: TsMs(50),
        symbol: "A",
        event_type: "SnapshotInputs",
        snapshot_ts_ms: Some(TsMs(100)),
        event: r#"{"normalized":{}}"#.to_owned(),
    }];
    let with = completed(true);
    let mut audit = Audit::new(outline(&with), StateFrom::Record, Base::default());
    let mut found = Vec::new();
    records(&log).for_each(|record| audit.receipt(record.ingest_seq.into(), &record, &mut found));
    audit.receipts_ended();
    assert_eq!(audit.run(RunSeq(1), &with[0], &mut found), Step::Nothing);
    assert!(matches!(audit.run(RunSeq(2), &with[1], &mut found), Step::Call(_)));
    assert_eq!(found, []);
    let error = EngineError::said(ErrorKind::EngineFailure, "boom");
    audit.finish(RunSeq(2), &with[1], Err(error), &mut found);
    assert_eq!((found[0].field, found[0].replayed.as_str()), ("status", "failed (engine_failure: boom)"));
}

/// Method: a snapshot that holds no object to give to the engine; the failure is derived, not believed.
#[test]
fn a_snapshot_that_cannot_be_given_to_the_engine_is_a_derived_failure() {
    let log = [Stored {
        ingest_ts_ms: TsMs(50),
        symbol: "A",
        event_type: "SnapshotInputs",
        snapshot_ts_ms: Some(TsMs(100)),
        event: r#"{"no":"normalized"}"#.to_owned(),
    }];
    let tick = crate::cadence::Cadence::Boundary { interval_ms: 100, delay_ms: 0 }.first(TsMs(0));
    let cut = crate::cut::CutSlice {
        symbol: Symbol::from("A"),
        start: IngestSeq(1),
        end: IngestSeq(1),
        counts: BTreeMap::from([(EventType::from("SnapshotInputs"), 1)]),
        snapshot: Some(crate::cut::Snapshot { seq: IngestSeq(1), event: None }),
    };
    let started = crate::run::start(tick, cut, EngineMode::Truth, TsMs(0), 1);
    let failed =
        Attempts::first(started.facts.clone()).failed(&crate::run::unusable_snapshot(IngestSeq(1)), TsMs(1));

    let honest = audit(&log, &[started.clone(), failed.clone()]);
    let mut forged = failed.clone();
    if let RunStatus::Failed { error_detail, .. } = &mut forged.status {
        error_detail.push('!');
    }

    assert_eq!((honest.found.as_slice(), honest.replayed), ([].as_slice(), vec![(RunSeq(2), failed)]));
    assert!(audit(&log, &[started, forged]).has(Check::Failures, "error_detail"));
}
