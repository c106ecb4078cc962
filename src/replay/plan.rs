//! Which runs are replayed, and how.

use std::collections::BTreeSet;
use std::str::FromStr;

use orchestrator_kernel::audit::{Base, StateFrom};
use orchestrator_kernel::contracts::engine_run::RunRecord;
use orchestrator_kernel::ids::{RunSeq, Symbol, TsMs};

/// Which runs are replayed, and how. Everything before and beside them is read all the same: what it says decides
/// where their cuts begin.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Only these symbols; `None`: all.
    pub symbols: Option<BTreeSet<Symbol>>,
    /// Only runs in this range.
    pub range: Range,
    /// Where the hysteresis state of a call comes from.
    pub state_from: StateFrom,
    /// Engine calls beside each other.
    pub calls_max: usize,
    /// Whether receipts behind the last cut are read too.
    pub to_the_end: bool,
    /// What stood before logs that were trimmed.
    pub base: Base,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            symbols: None,
            range: Range::All,
            state_from: StateFrom::Record,
            calls_max: 1,
            to_the_end: true,
            base: Base::default(),
        }
    }
}

impl Plan {
    /// Whether this run is replayed.
    #[must_use]
    pub fn includes(&self, at: RunSeq, record: &RunRecord) -> bool {
        let wanted = self.symbols.as_ref().is_none_or(|symbols| symbols.contains(&record.facts.symbol));
        wanted && self.range.includes(at, record.facts.engine_timestamp_ms)
    }
}

/// A range of runs, both ends inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// Every run.
    #[default]
    All,
    /// By position in the run log.
    Runs {
        /// First position.
        from: RunSeq,
        /// Last position.
        to: RunSeq,
    },
    /// By engine timestamp.
    Time {
        /// Earliest.
        from: TsMs,
        /// Latest.
        to: TsMs,
    },
}

impl Range {
    /// Whether a run of this position and engine timestamp is in it.
    #[must_use]
    pub fn includes(self, at: RunSeq, engine_ts: TsMs) -> bool {
        match self {
            Self::All => true,
            Self::Runs { from, to } => from <= at && at <= to,
            Self::Time { from, to } => from <= engine_ts && engine_ts <= to,
        }
    }
}

/// Why a range is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    /// It has no two dots.
    #[error(
        "expected FROM..TO: positions in the run log (10..20), or times (2026-01-01T00:00:00Z..); either end may be left out"
    )]
    Form,
    /// An end is neither a position nor a time.
    #[error("{0:?} is neither a position in the run log nor a time like 2026-01-01T00:00:00Z")]
    End(String),
    /// One end is a position, the other a time.
    #[error("both ends must be positions, or both times")]
    Mixed,
}

/// One end of a range.
#[derive(Clone, Copy)]
enum End {
    Run(RunSeq),
    Time(TsMs),
}

impl FromStr for Range {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let (from, to) = text.split_once("..").ok_or(BadRange::Form)?;
        Ok(match (end(from)?, end(to)?) {
            (None, None) => Self::All,
            (Some(End::Run(from)), Some(End::Run(to))) => Self::Runs { from, to },
            (Some(End::Run(from)), None) => Self::Runs { from, to: RunSeq(u64::MAX) },
            (None, Some(End::Run(to))) => Self::Runs { from: RunSeq(0), to },
            (Some(End::Time(from)), Some(End::Time(to))) => Self::Time { from, to },
            (Some(End::Time(from)), None) => Self::Time { from, to: TsMs(i64::MAX) },
            (None, Some(End::Time(to))) => Self::Time { from: TsMs(i64::MIN), to },
            (Some(End::Run(_)), Some(End::Time(_))) | (Some(End::Time(_)), Some(End::Run(_))) => {
                return Err(BadRange::Mixed);
            }
        })
    }
}

fn end(text: &str) -> Result<Option<End>, BadRange> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(position) = text.parse() {
        return Ok(Some(End::Run(RunSeq(position))));
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| BadRange::End(text.to_owned()))?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| BadRange::End(text.to_owned()))?;
    let ms = i64::try_from(since.as_millis()).map_err(|_| BadRange::End(text.to_owned()))?;
    Ok(Some(End::Time(TsMs(ms))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_range(text: &str, expected: Result<Range, BadRange>) {
        assert_eq!(text.parse::<Range>(), expected, "{text}");
    }

    #[test]
    fn a_range_is_of_positions_or_of_times_and_open_where_an_end_is_left_out() {
        check_range("..", Ok(Range::All));
        check_range("10..20", Ok(Range::Runs { from: RunSeq(10), to: RunSeq(20) }));
        check_range("10..", Ok(Range::Runs { from: RunSeq(10), to: RunSeq(u64::MAX) }));
        check_range("..20", Ok(Range::Runs { from: RunSeq(0), to: RunSeq(20) }));
        check_range(
            "1970-01-01T00:00:01Z..1970-01-01 00:00:02",
            Ok(Range::Time { from: TsMs(1000), to: TsMs(2000) }),
        );
        check_range("1970-01-01T00:00:01Z..", Ok(Range::Time { from: TsMs(1000), to: TsMs(i64::MAX) }));
        check_range("7", Err(BadRange::Form));
        check_range("7..x", Err(BadRange::End("x".to_owned())));
        check_range("7..1970-01-01T00:00:01Z", Err(BadRange::Mixed));
    }

    #[test]
    fn both_ends_of_a_range_are_in_it() {
        let runs = Range::Runs { from: RunSeq(2), to: RunSeq(3) };
        let time = Range::Time { from: TsMs(2), to: TsMs(3) };

        let included: Vec<u64> = (1..=4).filter(|at| runs.includes(RunSeq(*at), TsMs(0))).collect();
        let timely: Vec<i64> = (1..=4).filter(|at| time.includes(RunSeq(0), TsMs(*at))).collect();

        assert_eq!((included, timely), (vec![2, 3], vec![2, 3]));
    }
}
