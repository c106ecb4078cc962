//! Retention in the model: what goes, and what the next start knows of it.

use std::collections::BTreeMap;

use super::{Live, Stored, records};
use crate::engine::contracts::engine_run::RunRecord;
use crate::engine::cut::{BookCheckpoint, CutBook};
use crate::engine::retention::{
    BaseAdvance, RetainedFor, RetentionBase, RunsAfterBase, Scheduled, TrimBlocker, TrimRequest,
};
use crate::ids::{IngestSeq, RunSeq, Symbol};

impl Live {
    /// The saved base.
    pub(crate) fn base(&self) -> RetentionBase {
        self.bases.last().cloned().unwrap_or_default()
    }

    pub(super) fn discovers(&self) -> bool {
        match self.scheduled {
            Scheduled::Listed(_) => false,
            Scheduled::Discovered { .. } => true,
        }
    }

    /// As the actor's check; the base as it is stored.
    pub(super) fn let_go(&mut self, receipts: u8, runs: u8) {
        let part = |of: usize, part: u8| of as u64 * u64::from(part) / 255;
        let asked = TrimRequest {
            // The last receipt always stays.
            receipts_below: IngestSeq(part(self.log.len(), receipts)),
            receipts_stop: None,
            runs_below: RunSeq(1 + part(self.runs.len(), runs)),
            runs_older_than: None,
            published: RunSeq(self.runs.len() as u64),
        };
        let (base, _) = advance(&self.log, &self.runs, self.base(), asked, &self.scheduled);
        self.bases.push(RetentionBase::decode(&base.encode()).unwrap());
    }

    /// As `recovery::cut_book`.
    pub(super) fn recovered_book(&self, uses_checkpoint: bool) -> CutBook {
        let (base, first) = (self.base(), self.base().receipts_from());
        let saved = self.checkpoint.as_ref().filter(|_| uses_checkpoint);
        let saved: Option<BookCheckpoint> = saved.map(|bytes| postcard::from_bytes(bytes).unwrap());
        let saved = saved.filter(|saved| first <= saved.tail().next());
        let mut book = saved.map_or_else(|| base.cut_book(), BookCheckpoint::into_book);
        let forgotten = book.forget_before(first, |symbol| self.index.get(symbol).is_some());
        let mut missing: BTreeMap<Symbol, IngestSeq> =
            forgotten.into_iter().map(|symbol| (symbol, first)).collect();
        for (symbol, runs) in self.index.symbols() {
            let start = runs.next_start().unwrap();
            if book.track_symbol(symbol, start, runs.last_engine_ts) {
                missing.insert(symbol.clone(), start);
            }
        }
        let saved_tail = book.tail();
        let from = missing.values().min().copied().unwrap_or(saved_tail.next());
        assert!(first <= from, "receipts from {from} are wanted, those before {first} are gone");
        for record in records(&self.log).filter(|record| from <= record.ingest_seq) {
            if saved_tail < record.ingest_seq {
                book.observe_receipt(&record);
            } else if missing.contains_key(record.symbol) {
                book.backfill_receipt(&record);
            }
        }
        book
    }
}

/// What the run log says after a base.
pub(crate) fn later(base: &RetentionBase, runs: &[RunRecord]) -> RunsAfterBase {
    let mut later = RunsAfterBase::after_base(base);
    runs.iter()
        .zip(1..)
        .filter(|(_, seq)| base.runs_from().0 <= *seq)
        .for_each(|(r, _)| later.note_record(r));
    later
}

/// One round of retention; also what held, if anything did.
pub(crate) fn advance(
    log: &[Stored],
    runs: &[RunRecord],
    base: RetentionBase,
    asked: TrimRequest,
    scheduled: &Scheduled,
) -> (RetentionBase, TrimBlocker) {
    let later = later(&base, runs);
    let mut advance = BaseAdvance::new(base, asked, RetainedFor { scheduled, later: &later });
    let next = |seq: u64| usize::try_from(seq).unwrap() - 1;
    while let Some(record) = runs.get(next(advance.next_run().0)) {
        if !advance.take_run_record(record).unwrap() {
            break;
        }
    }
    let (limit, mut held) = advance.receipt_limit();
    let from = advance.next_receipt();
    for record in records(log).filter(|record| from <= record.ingest_seq && record.ingest_seq < limit) {
        held = match advance.take_receipt(&record) {
            TrimBlocker::No => continue,
            held => held,
        };
        break;
    }
    (advance.into_base(), held)
}
