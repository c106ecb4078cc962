//! REP-1: replay = live. What the two logs hold gives the published events again, byte for byte; and whatever is
//! changed in them is named.

mod failures;
mod let_go;
mod receipts;
mod records;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::engine::contracts::orchestrator_event::events;
use crate::engine::divergence::DivergencePlace;
use crate::engine::tests::model::{Live, Stored, engine, history, records};
use crate::ports::fan_out::OutputMessage;

/// Result of an audit.
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

fn outline(runs: &[RunRecord]) -> RunLogOutline {
    let mut outline = RunLogOutline::default();
    runs.iter().for_each(|record| outline.note_record(record));
    outline
}

/// Audits logs that begin behind `base`, showing as few receipts as the audit asks for.
fn audit_from<'a>(
    receipts: impl Iterator<Item = ReceiptRecord<'a>>,
    runs: &[RunRecord],
    state_from: StateFrom,
    base: ReplayStart,
) -> Audited {
    let first = (base.receipts, base.runs.tail().next());
    let mut audit = Audit::new(outline(runs), state_from, base);
    audit_with(&mut audit, receipts, runs, first)
}

/// Shows it the receipts after the first position, and the runs from the second one on.
fn audit_with<'a>(
    audit: &mut Audit,
    receipts: impl Iterator<Item = ReceiptRecord<'a>>,
    runs: &[RunRecord],
    (mut at, first_run): (IngestSeq, RunSeq),
) -> Audited {
    let (mut receipts, mut found, mut replayed) = (receipts, Vec::new(), Vec::new());
    for (record, seq) in runs.iter().zip((first_run.0..).map(RunSeq)) {
        while audit.wants_receipts_for(record) {
            match receipts.next() {
                Some(receipt) => {
                    at = at.next();
                    audit.take_receipt(at.into(), &receipt, &mut found);
                }
                None => audit.receipts_ended(),
            }
        }
        match audit.take_run_record(seq, record, &mut found) {
            AuditStep::Nothing => {}
            AuditStep::Settled(settled) => replayed.push((seq, *settled)),
            AuditStep::Call(call) => {
                replayed.push((seq, audit.compare_answer(seq, record, Ok(engine(&call)), &mut found)));
            }
        }
    }
    for receipt in receipts {
        at = at.next();
        audit.take_receipt(at.into(), &receipt, &mut found);
    }
    let unfinished = audit.unfinished_runs().count();
    Audited { found, replayed, unfinished }
}

fn audit(log: &[Stored], runs: &[RunRecord]) -> Audited {
    audit_from(records(log), runs, StateFrom::Record, ReplayStart::default())
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

/// The record numbers of the runs that have ended, each with all its records.
fn ended_runs(runs: &[RunRecord]) -> Vec<Vec<usize>> {
    let terminals = runs.iter().filter(|record| record.is_terminal());
    let of = |run_id| (0..runs.len()).filter(|at| runs[*at].facts.run_id == run_id).collect();
    terminals.map(|terminal| of(terminal.facts.run_id)).collect()
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

        let recomputed = audit_from(records(&live.log), &live.runs, StateFrom::Replay, ReplayStart::default());

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
            prop_assert_eq!(live.index.symbol_runs(&symbol).outputs, numbers.len() as u64);
        }
    }

    /// Method: trim both logs where nothing is open, and go on from what stood before.
    #[test]
    fn an_audit_of_trimmed_logs_goes_on_from_their_base(history in history(), at in any::<prop::sample::Index>()) {
        let live = Live::after(history);
        let trimmed = at.index(live.runs.len() + 1);
        let mut runs = RunIndex::default();
        live.runs[..trimmed].iter().for_each(|record| runs.admit_record(record).unwrap());
        let is_known = |record: &RunRecord| runs.get(&record.facts.symbol).is_some();
        if runs.symbols().any(|(_, runs)| runs.open.is_some()) || !live.runs[trimmed..].iter().all(is_known) {
            return Ok(());
        }
        let receipts = runs.symbols().filter_map(|(_, runs)| runs.last_cut_end).min().unwrap_or_default();
        let rest = records(&live.log).filter(|record| receipts < record.ingest_seq);
        let whole = audit(&live.log, &live.runs);

        let audited = audit_from(rest, &live.runs[trimmed..], StateFrom::Replay, ReplayStart { receipts, runs, ..ReplayStart::default() });

        prop_assert_eq!(&audited.found, &[]);
        let expected: Vec<_> = whole.replayed.into_iter().filter(|(seq, _)| trimmed < seq.0 as usize).collect();
        prop_assert_eq!(audited.replayed, expected);
    }
}
