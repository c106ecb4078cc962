//! Retention: how much of the logs may go, and what is kept of it so that the rest can be replayed and gone on with.
//!
//! ```text
//!  run log      1 ········ B | B+1 ······················ tail      everything up to B is in the base, as an index
//!  receipts     1 ······ F-1 | F ························ tail      everything before F is in the base, as a book
//!                              └ every cut of a run after B, and every next cut, starts at F or later
//! ```
//!
//! The **base** is what recovery and replay start from instead of the first record. It is durable before anything is
//! trimmed. See the decision record `0014-retention-and-the-base`.

mod let_go;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::engine::contracts::engine_run::{RunRecord, RunStatus};
use crate::engine::contracts::quarantine::QuarantineRecord;
use crate::engine::contracts::receipt::ReceiptRecord;
use crate::engine::contracts::{self, DecodeError};
use crate::engine::cut::{BookCheckpoint, CutBook};
use crate::engine::run::{RunIndex, RunViolation, SymbolHistory};
use crate::ids::{IngestSeq, RunSeq, Seq, Symbol, TsMs};
use crate::mutant;

pub use let_go::{TrimmedCuts, TrimmedRange};
pub use policy::{FirstYoung, Policy};

/// The name under which the base is kept among the checkpoints.
pub const BASE: &str = "base";
const VERSION: u8 = 2;

/// Base: the state after the trimmed records, from which the retained ones continue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionBase {
    receipts: BookCheckpoint,
    runs: RunIndex,
    /// Of each symbol whose run is open in `runs`: its engine time before that run, if there was one.
    before_open: BTreeMap<Symbol, TsMs>,
    quarantine: Seq,
    let_go: TrimmedCuts,
}

/// Version 1 did not remember what was let go without a run.
#[derive(Deserialize)]
struct BaseV1 {
    receipts: BookCheckpoint,
    runs: RunIndex,
    before_open: BTreeMap<Symbol, TsMs>,
    quarantine: Seq,
}

impl RetentionBase {
    /// The stored form: a version byte, then postcard. Versions up to this one are read.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        contracts::encode_to(VERSION, self, &mut bytes);
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.first() != Some(&1) {
            return contracts::decode_versioned(VERSION, bytes);
        }
        let BaseV1 { receipts, runs, before_open, quarantine } = contracts::decode_versioned(1, bytes)?;
        Ok(Self { receipts, runs, before_open, quarantine, let_go: TrimmedCuts::default() })
    }

    /// The first receipt that is still needed.
    #[must_use]
    pub const fn receipts_from(&self) -> IngestSeq {
        self.receipts.tail().next()
    }

    /// The first run record that is still needed.
    #[must_use]
    pub const fn runs_from(&self) -> RunSeq {
        self.runs.tail().next()
    }

    /// The first quarantined item that the positions do not count yet.
    #[must_use]
    pub const fn quarantine_from(&self) -> Seq {
        self.quarantine.next()
    }

    /// Of each symbol whose run is open in [`run_index`](Self::run_index): its engine time before that run.
    #[must_use]
    pub const fn before_open(&self) -> &BTreeMap<Symbol, TsMs> {
        &self.before_open
    }

    /// What went without a run of its symbol, of the symbols that have runs up to there.
    #[must_use]
    pub const fn let_go(&self) -> &TrimmedCuts {
        &self.let_go
    }

    /// What the run log said up to there.
    #[must_use]
    pub const fn run_index(&self) -> &RunIndex {
        &self.runs
    }

    /// The book up to [`receipts_from`](Self::receipts_from); its symbols have no slices.
    #[must_use]
    pub fn cut_book(&self) -> CutBook {
        self.receipts.clone().into_book()
    }

    /// Where the first cut after the base starts, and the engine time before it. A run that is open in the base takes
    /// its cut again.
    fn resume_point(&self, symbol: &Symbol, runs: &SymbolHistory) -> (Option<IngestSeq>, Option<TsMs>) {
        match &runs.open {
            Some((facts, _)) => (Some(facts.cut.start), self.before_open.get(symbol).copied()),
            None => (runs.next_start(), runs.last_engine_ts),
        }
    }
}

/// Positions up to which a retention asks to trim: each is the first one to be retained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrimRequest {
    /// Receipts before this one; runs leave with the receipts of their cut.
    pub receipts_below: IngestSeq,
    /// No receipt from this one on goes this time. Runs are not held by it: one whose cut starts later can stand before
    /// one of a symbol that lags, which would then never leave, and its receipts would not either.
    pub receipts_stop: Option<IngestSeq>,
    /// Run records before this one.
    pub runs_below: RunSeq,
    /// Run records planned before this time.
    pub runs_older_than: Option<TsMs>,
    /// The last run record whose outputs are all published: no later one goes.
    pub published: RunSeq,
}

/// Runs of each symbol after a base: which symbols are still run, and where their first cuts start. Grows with the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunsAfterBase {
    seen: RunSeq,
    symbols: BTreeMap<Symbol, LaterRuns>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct LaterRuns {
    first_start: IngestSeq,
    last_engine_ts: TsMs,
}

impl RunsAfterBase {
    /// Nothing seen yet of the run log after `base`.
    #[must_use]
    pub fn after_base(base: &RetentionBase) -> Self {
        Self { seen: base.runs.tail(), symbols: BTreeMap::new() }
    }

    /// The record to be noted next.
    #[must_use]
    pub const fn next_record(&self) -> RunSeq {
        self.seen.next()
    }

    /// Goes on behind `base`, which may hold records that came after the last one noted: those may be gone.
    pub fn skip_to(&mut self, base: &RetentionBase) {
        self.seen = self.seen.max(base.runs.tail());
    }

    /// Takes the next record of the run log.
    pub fn note_record(&mut self, record: &RunRecord) {
        self.seen = self.seen.next();
        let (start, time) = (record.facts.cut.start, record.facts.engine_timestamp_ms);
        match self.symbols.get_mut(&record.facts.symbol) {
            Some(known) => known.last_engine_ts = known.last_engine_ts.max(time),
            None => {
                let runs = LaterRuns { first_start: start, last_engine_ts: time };
                self.symbols.insert(record.facts.symbol.clone(), runs);
            }
        }
    }
}

/// Symbols that are run from now on, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheduled {
    /// These, with receipts or without.
    Listed(BTreeSet<Symbol>),
    /// Each that ever had a receipt, up to a limit.
    Discovered {
        /// Symbols at most.
        limit: usize,
    },
}

/// Symbols for which receipts are retained: those that are still run or are to be.
#[derive(Clone, Copy)]
pub struct RetainedFor<'a> {
    /// Who is run from now on.
    pub scheduled: &'a Scheduled,
    /// What the run log says after the base.
    pub later: &'a RunsAfterBase,
}

impl RetainedFor<'_> {
    /// Whether receipts of a symbol are needed after a base that says this of it.
    fn needs_receipts(&self, symbol: &Symbol, runs: &SymbolHistory) -> bool {
        let later = self.later.symbols.get(symbol).map(|later| later.last_engine_ts);
        let is_scheduled = match self.scheduled {
            Scheduled::Listed(symbols) => symbols.contains(symbol),
            // Those that ran before come first.
            Scheduled::Discovered { .. } => true,
        };
        is_scheduled || runs.last_engine_ts < later || runs.open.is_some()
    }

    /// Whether the first receipt of a symbol that never ran is needed. A listed one holds everything, see `limit`.
    fn need_first(&self, ran: usize) -> bool {
        match self.scheduled {
            Scheduled::Listed(_) => false,
            Scheduled::Discovered { limit } => ran < *limit,
        }
    }
}

/// Obstacle that keeps receipts from being trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrimBlocker {
    /// Nothing: as much goes as was asked.
    No,
    /// The next cut of this symbol, or the cut of one of its runs that stay, starts there.
    BySymbol(Symbol, IngestSeq),
}

/// The step from one base to the next: shown the run records that may go, then the receipts.
///
/// It can be ended after any record; the base is then as far as it was brought.
pub struct BaseAdvance<'a> {
    asked: TrimRequest,
    holders: RetainedFor<'a>,
    need_first: bool,
    book: CutBook,
    base: RetentionBase,
}

impl<'a> BaseAdvance<'a> {
    /// Begins at `base`; the default one for logs that were never trimmed.
    #[must_use]
    pub fn new(base: RetentionBase, asked: TrimRequest, holders: RetainedFor<'a>) -> Self {
        let later = holders.later.symbols.keys().filter(|symbol| base.runs.get(symbol).is_none());
        let need_first = holders.need_first(base.runs.symbols().count() + later.count());
        Self { asked, holders, need_first, book: base.cut_book(), base }
    }

    /// The run record to be shown next.
    #[must_use]
    pub const fn next_run(&self) -> RunSeq {
        self.base.runs_from()
    }

    /// Takes the next run record if it may go; says whether it did. Once one may not, the receipts are next.
    ///
    /// # Errors
    ///
    /// [`RunViolation`]: the run log contradicts itself.
    pub fn take_run_record(&mut self, record: &RunRecord) -> Result<bool, RunViolation> {
        let (seq, facts) = (self.next_run(), &record.facts);
        let asked = seq < self.asked.runs_below
            || self.asked.runs_older_than.is_some_and(|time| facts.planned_ts_ms < time)
            || facts.cut.start < self.asked.receipts_below;
        let is_published = seq <= self.asked.published || mutant!(TrimsBeforePublished);
        if !asked || !is_published {
            return Ok(false);
        }
        let before = self.base.runs.symbol_runs(&facts.symbol);
        self.base.runs.admit_record(record)?;
        match record.status {
            RunStatus::Started { .. } if before.open.is_none() => match before.last_engine_ts {
                Some(last) => {
                    self.base.before_open.insert(facts.symbol.clone(), last);
                    self.base.let_go.end_range(&facts.symbol, seq);
                }
                None => {
                    let gone = self.base.receipts_from();
                    self.base.let_go.begin_first(&facts.symbol, seq, gone);
                }
            },
            RunStatus::Started { .. } => {}
            RunStatus::Completed { .. } | RunStatus::Failed { .. } => {
                self.base.before_open.remove(&facts.symbol);
            }
        }
        Ok(true)
    }

    /// The receipt to be shown next.
    #[must_use]
    pub const fn next_receipt(&self) -> IngestSeq {
        self.book.tail().next()
    }

    /// The first receipt that stays whatever the receipts are, and why.
    #[must_use]
    pub fn receipt_limit(&self) -> (IngestSeq, TrimBlocker) {
        let (runs, later) = (&self.base.runs, &self.holders.later.symbols);
        let needed = runs.symbols().filter(|(symbol, runs)| self.holders.needs_receipts(symbol, runs));
        let next =
            needed.filter_map(|(symbol, runs)| Some((self.base.resume_point(symbol, runs).0?, symbol)));
        let new = later.iter().filter(|(symbol, _)| runs.get(symbol).is_none());
        let new = new.map(|(symbol, later)| (later.first_start, symbol));
        let never_run = match self.holders.scheduled {
            Scheduled::Listed(symbols) => {
                symbols.iter().find(|symbol| runs.get(symbol).is_none() && !later.contains_key(*symbol))
            }
            Scheduled::Discovered { .. } => None,
        };
        // Its first cut may be on its way, and starts where its tick is, with receipts or without.
        let never_run = never_run.map(|symbol| (self.base.receipts_from(), symbol));
        let below = self.asked.receipts_below;
        let below = self.asked.receipts_stop.map_or(below, |stop| below.min(stop));
        match next.chain(new).chain(never_run).min() {
            Some((start, symbol)) if start < below && !mutant!(TrimsWhatACutNeeds) => {
                (start, TrimBlocker::BySymbol(symbol.clone(), start))
            }
            Some(_) | None => (below, TrimBlocker::No),
        }
    }

    /// Takes the next receipt, before the [`receipt_limit`](Self::receipt_limit), if it may go. If not: it is the first
    /// one of a symbol that is still to have its first run, which is what holds.
    pub fn take_receipt(&mut self, record: &ReceiptRecord<'_>) -> TrimBlocker {
        if self.need_first {
            let symbol = Symbol::from(record.symbol);
            let has_run =
                self.base.runs.get(&symbol).is_some() || self.holders.later.symbols.contains_key(&symbol);
            if !has_run {
                return TrimBlocker::BySymbol(symbol, record.ingest_seq);
            }
        }
        let position = if mutant!(BaseWithoutPositions) { 0 } else { record.position };
        self.book.observe_receipt(&ReceiptRecord { position, ..*record });
        TrimBlocker::No
    }

    /// Counts the next quarantined item; it may go from then on.
    pub fn count_quarantined(&mut self, record: &QuarantineRecord) {
        self.book.note_quarantined(&record.origin, record.position);
        self.base.quarantine = self.base.quarantine.next();
    }

    /// The next quarantined item to be counted.
    #[must_use]
    pub const fn next_quarantined(&self) -> Seq {
        self.base.quarantine_from()
    }

    /// The base as far as it was brought.
    #[must_use]
    pub fn into_base(mut self) -> RetentionBase {
        let from = self.next_receipt();
        let unneeded =
            self.base.runs.symbols().filter(|(symbol, runs)| !self.holders.needs_receipts(symbol, runs));
        let gone: Vec<(Symbol, IngestSeq)> = unneeded
            .filter_map(|(symbol, runs)| Some((symbol.clone(), runs.next_start()?)))
            .filter(|(_, start)| *start < from)
            .collect();
        for (symbol, start) in gone {
            // Nobody runs it any more. Should it come back, it begins anew with what is still there.
            self.base.let_go.extend_range(&symbol, start, from);
            self.base.runs.resume_at(&symbol, from);
        }
        self.base.receipts = self.book.to_base(|symbol| self.base.runs.get(symbol).is_some());
        self.base
    }
}
