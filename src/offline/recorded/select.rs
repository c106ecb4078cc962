//! Which part of recorded logs a command works on: some symbols, a range of receipts.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::Args;
use orchestrator_kernel::ids::IngestSeq;
use orchestrator_kernel::ports::log::Log;

use super::{BadRange, Bound, LogError, first_after, parse_bounds};

/// The part that is meant; without any option: everything.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these symbols, separated by commas.
    #[arg(long, value_name = "SYMBOL,…", value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Only these receipts, both ends included: by ingest_seq (10..20), or by the time when they were taken in
    /// (2026-01-01T00:00:00Z..2026-01-02T00:00:00Z). An end may be left out. A run belongs to the range when its cut
    /// ends there.
    #[arg(long, value_name = "FIRST..LAST RECEIPT")]
    pub range: Option<SelectionRange>,
}

impl Selection {
    /// Whether nothing is left out.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.symbols.is_empty() && self.range.is_none()
    }

    /// The symbols, or nothing for all of them.
    #[must_use]
    pub fn symbol_set(&self) -> Option<BTreeSet<&str>> {
        (!self.symbols.is_empty()).then(|| self.symbols.iter().map(String::as_str).collect())
    }

    /// The range as positions of this receipt log.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    pub async fn resolve_positions(&self, receipts: &dyn Log) -> Result<RangeInclusive<IngestSeq>, LogError> {
        let range = self.range.unwrap_or_default();
        let first = match range.from {
            None => IngestSeq(1),
            Some(Bound::Position(seq)) => IngestSeq(seq),
            // Everything at that time belongs to it.
            Some(Bound::At(at)) => first_after(receipts, at.plus_ms(-1)).await?,
        };
        let last = match range.to {
            None => IngestSeq(u64::MAX),
            Some(Bound::Position(seq)) => IngestSeq(seq),
            Some(Bound::At(at)) => IngestSeq(first_after(receipts, at).await?.0.saturating_sub(1)),
        };
        Ok(first..=last)
    }
}

/// A range of receipts, by position or by the time when they were taken in; both ends belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelectionRange {
    /// The first; the first one there is when left out.
    pub from: Option<Bound>,
    /// The last; the last one there is when left out.
    pub to: Option<Bound>,
}

impl FromStr for SelectionRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let (from, to) = parse_bounds(text)?;
        Ok(Self { from, to })
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ids::TsMs;

    use super::*;

    #[test]
    fn ranges_have_two_ends_that_may_be_open() {
        let seq = |seq| Some(Bound::Position(seq));
        let at = Some(Bound::At(TsMs(1_723_161_255_000)));
        for (text, from, to) in [
            ("3..9", seq(3), seq(9)),
            ("3..", seq(3), None),
            ("..2024-08-08T23:54:15Z", None, at),
            ("..", None, None),
        ] {
            assert_eq!(text.parse(), Ok(SelectionRange { from, to }), "{text}");
        }
        for text in ["3", "a..b", "99999999999999999999.."] {
            assert!(text.parse::<SelectionRange>().is_err(), "{text}");
        }
    }
}
