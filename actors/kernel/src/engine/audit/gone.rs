//! What retention let go without a run, for logs that still have it: in an archive, or since whole segments go.
//!
//! The service never read those receipts again, so the symbol's next cut did not begin where its last one ended. The
//! base remembers where it begins instead; nothing is taken from the run that is audited.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use crate::engine::replay::Gap;
use crate::engine::retention::{self, TrimmedCuts};
use crate::ids::{IngestSeq, RunSeq, Symbol};

/// Receipts that were trimmed without a run, as the last saved base knows them. The default knows of none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedTrims {
    let_go: TrimmedCuts,
    /// The symbols that have runs up to the base.
    ran: BTreeSet<Symbol>,
    runs: RunSeq,
    receipts_from: IngestSeq,
}

impl From<&retention::RetentionBase> for SavedTrims {
    fn from(base: &retention::RetentionBase) -> Self {
        Self {
            let_go: base.let_go().clone(),
            ran: base.run_index().symbols().map(|(symbol, _)| symbol.clone()).collect(),
            runs: base.run_index().tail(),
            receipts_from: base.receipts_from(),
        }
    }
}

impl SavedTrims {
    /// The gaps between the cuts of a symbol whose first cut is recorded to start at `first_start`.
    pub(super) fn gaps_of_symbol(&self, symbol: &Symbol, first_start: IngestSeq) -> VecDeque<Gap> {
        let after = self.runs.next()..=RunSeq(u64::MAX);
        let stretches = self.let_go.ranges_of(symbol).iter();
        let known = stretches.map(|stretch| Gap {
            from: stretch.from,
            to: stretch.to,
            run: stretch.begun.map_or(after.clone(), |at| at..=at),
            receipts: 0,
        });
        // What went before its first run is in none, whenever that comes.
        let never_ran = Gap { from: None, to: self.receipts_from, run: after.clone(), receipts: 0 };
        let never_ran = Some(never_ran).filter(|_| !self.ran.contains(symbol));
        // A first cut that has receipts which a base let go was taken by a process that still knew them.
        known.chain(never_ran).filter(|gap| gap.from.is_some() || gap.to <= first_start).collect()
    }
}

/// A cut that does not continue the symbol's last one: what lies between was trimmed while nobody ran the symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumedAfterTrim {
    /// The symbol.
    pub symbol: Symbol,
    /// The run's first record.
    pub at: RunSeq,
    /// Its cut has no receipt before this one.
    pub before: IngestSeq,
    /// Receipts of the symbol that are in no cut because of it.
    pub receipts: u64,
}

impl fmt::Display for ResumedAfterTrim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { symbol, at, before, receipts } = self;
        write!(
            f,
            "symbol {symbol} was let go by retention and began anew at run record {at}: {receipts} of its receipts before \
             {before} are in no run"
        )
    }
}
