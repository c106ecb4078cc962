//! Receipts that were let go while nobody ran their symbol: no cut has them, and the symbol's next cut begins behind
//! them.
//!
//! ```text
//!  receipts    1 ········ 6 7 ················ 19 20 ········· 31 32 …
//!  cuts of X   [1 ······ 6]   not listed: 7 … 19  [20 ······· 31] [32 …      listed again
//!                             may go              └ begins anew
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{IngestSeq, RunSeq, Symbol};

/// A part of the receipt log that was trimmed without a cut of one symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrimmedRange {
    /// Where the symbol's next cut would have started; `None` for its first one, at its first receipt.
    pub from: Option<IngestSeq>,
    /// The first receipt behind it.
    pub to: IngestSeq,
    /// The first record of the run whose cut begins anew; `None` while there is none.
    pub begun: Option<RunSeq>,
}

/// Of each symbol, the stretches that were trimmed without it, oldest first. Only the last one can still be open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrimmedCuts {
    stretches: BTreeMap<Symbol, Vec<TrimmedRange>>,
}

impl TrimmedCuts {
    /// The stretches of a symbol.
    #[must_use]
    pub fn ranges_of(&self, symbol: &Symbol) -> &[TrimmedRange] {
        self.stretches.get(symbol).map_or(&[], Vec::as_slice)
    }

    /// The receipts before `to` go, and the next cut of `symbol` would have started at `from`.
    pub(super) fn extend_range(&mut self, symbol: &Symbol, from: IngestSeq, to: IngestSeq) {
        let stretches = self.stretches.entry(symbol.clone()).or_default();
        match stretches.last_mut().filter(|last| last.begun.is_none()) {
            Some(open) => open.to = to,
            None => stretches.push(TrimmedRange { from: Some(from), to, begun: None }),
        }
    }

    /// A symbol that ran before begins its next run with the record `at`.
    pub(super) fn end_range(&mut self, symbol: &Symbol, at: RunSeq) {
        let last = self.stretches.get_mut(symbol).and_then(|stretches| stretches.last_mut());
        if let Some(open) = last.filter(|last| last.begun.is_none()) {
            open.begun = Some(at);
        }
    }

    /// A symbol begins its first run with the record `at`, and the receipts before `gone` were let go before.
    pub(super) fn begin_first(&mut self, symbol: &Symbol, at: RunSeq, gone: IngestSeq) {
        if IngestSeq(1) < gone {
            let first = TrimmedRange { from: None, to: gone, begun: Some(at) };
            self.stretches.entry(symbol.clone()).or_default().push(first);
        }
    }
}
