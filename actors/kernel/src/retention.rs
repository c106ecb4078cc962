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

mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contracts::engine_run::{RunRecord, RunStatus};
use crate::contracts::quarantine::QuarantineRecord;
use crate::contracts::receipt::ReceiptRecord;
use crate::contracts::{self, DecodeError};
use crate::cut::{BookCheckpoint, CutBook};
use crate::ids::{IngestSeq, RunSeq, Seq, Symbol, TsMs};
use crate::run::{RunIndex, RunViolation, SymbolRuns};

pub use policy::{FirstYoung, Policy};

/// The name under which the base is kept among the checkpoints.
pub const BASE: &str = "base";
const VERSION: u8 = 1;

/// What is known of the records that were let go: the state that the rest continues from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    receipts: BookCheckpoint,
    runs: RunIndex,
    /// Of each symbol whose run is open in `runs`: its engine time before that run, if there was one.
    before_open: BTreeMap<Symbol, TsMs>,
    quarantine: Seq,
}

impl Base {
    /// The stored form: a version byte, then postcard.
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
        contracts::decode(VERSION, bytes)
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

    /// What the run log said up to there.
    #[must_use]
    pub const fn runs(&self) -> &RunIndex {
        &self.runs
    }

    /// The book up to [`receipts_from`](Self::receipts_from); its symbols have no slices.
    #[must_use]
    pub fn book(&self) -> CutBook {
        self.receipts.clone().into_book()
    }

    /// Where the first cut after the base starts, and the engine time before it. A run that is open in the base takes
    /// its cut again.
    #[must_use]
    pub fn resume(&self, symbol: &Symbol, runs: &SymbolRuns) -> (Option<IngestSeq>, Option<TsMs>) {
        match &runs.open {
            Some((facts, _)) => (Some(facts.cut.start), self.before_open.get(symbol).copied()),
            None => (runs.next_start(), runs.last_engine_ts),
        }
    }
}

/// What a retention asks to let go. Positions are the first ones to stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Receipts before this one; runs leave with the receipts of their cut.
    pub receipts_below: IngestSeq,
    /// Run records before this one.
    pub runs_below: RunSeq,
    /// Run records planned before this time.
    pub runs_older_than: Option<TsMs>,
    /// The last run record whose outputs are all published: no later one goes.
    pub published: RunSeq,
}

/// Who still needs what.
#[derive(Clone, Copy)]
pub struct Holders<'a> {
    /// Whether the symbol is to be run from now on, as far as it is configured.
    pub is_scheduled: &'a (dyn Fn(&Symbol) -> bool + Sync),
    /// The engine time of each symbol's last run in the whole log.
    pub last_runs: &'a BTreeMap<Symbol, TsMs>,
}

impl Holders<'_> {
    /// Whether receipts of the symbol are needed after a base in which it stands like this.
    fn need(&self, symbol: &Symbol, runs: Option<&SymbolRuns>) -> bool {
        let last = self.last_runs.get(symbol).copied();
        let known = runs.and_then(|runs| runs.last_engine_ts);
        (self.is_scheduled)(symbol) || known < last || runs.is_some_and(|runs| runs.open.is_some())
    }
}

/// What keeps receipts from being let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing: as much goes as was asked.
    No,
    /// The next cut of this symbol, or the cut of one of its runs that stay, starts there.
    BySymbol(Symbol, IngestSeq),
}

/// The step from one base to the next: shown the run records that may go, then the receipts.
///
/// It can be ended after any record; the base is then as far as it was brought.
pub struct Advance<'a> {
    asked: Asked,
    holders: Holders<'a>,
    book: CutBook,
    base: Base,
}

impl<'a> Advance<'a> {
    /// Begins at `base`; the default one for logs that were never trimmed.
    #[must_use]
    pub fn new(base: Base, asked: Asked, holders: Holders<'a>) -> Self {
        Self { asked, holders, book: base.book(), base }
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
    pub fn run(&mut self, record: &RunRecord) -> Result<bool, RunViolation> {
        let (seq, facts) = (self.next_run(), &record.facts);
        let asked = seq < self.asked.runs_below
            || self.asked.runs_older_than.is_some_and(|time| facts.planned_ts_ms < time)
            || facts.cut.start < self.asked.receipts_below;
        if !asked || self.asked.published < seq {
            return Ok(false);
        }
        let before = self.base.runs.symbol(&facts.symbol);
        self.base.runs.admit(record)?;
        match record.status {
            RunStatus::Started { .. } if before.open.is_none() => {
                if let Some(last) = before.last_engine_ts {
                    self.base.before_open.insert(facts.symbol.clone(), last);
                }
            }
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
    pub fn limit(&self) -> (IngestSeq, Held) {
        let needed = self.base.runs.symbols().filter(|(symbol, runs)| self.holders.need(symbol, Some(runs)));
        let starts = needed.filter_map(|(symbol, runs)| Some((self.base.resume(symbol, runs).0?, symbol)));
        match starts.min() {
            Some((start, symbol)) if start < self.asked.receipts_below => {
                (start, Held::BySymbol(symbol.clone(), start))
            }
            Some(_) | None => (self.asked.receipts_below, Held::No),
        }
    }

    /// Takes the next receipt, before the [`limit`](Self::limit), if it may go. If not: it is the first one of a symbol
    /// that is still to have its first run, which is what holds.
    pub fn receipt(&mut self, record: &ReceiptRecord<'_>) -> Held {
        let symbol = Symbol::from(record.symbol);
        if !self.base.runs.knows(&symbol) && self.holders.need(&symbol, None) {
            return Held::BySymbol(symbol, record.ingest_seq);
        }
        self.book.observe(record);
        Held::No
    }

    /// Counts the next quarantined item; it may go from then on.
    pub fn quarantined(&mut self, record: &QuarantineRecord) {
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
    pub fn finish(mut self) -> Base {
        let from = self.next_receipt();
        let gone: Vec<Symbol> = self
            .base
            .runs
            .symbols()
            .filter(|(symbol, runs)| {
                !self.holders.need(symbol, Some(runs)) && runs.next_start().is_some_and(|start| start < from)
            })
            .map(|(symbol, _)| symbol.clone())
            .collect();
        for symbol in gone {
            // Nobody runs it any more. Should it come back, it goes on with what is still there.
            self.base.runs.resume_at(&symbol, from);
        }
        self.base.receipts = self.book.to_base(|symbol| self.base.runs.knows(symbol));
        self.base
    }
}
