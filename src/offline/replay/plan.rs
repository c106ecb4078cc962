//! Which runs are replayed, and how.

use std::collections::BTreeSet;
use std::str::FromStr;

use orchestrator_kernel::engine::audit::{ReplayStart, StateFrom};
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::ids::{RunSeq, Symbol, TsMs};

use crate::offline::recorded::{BadRange, Bound, parse_bounds};

/// Plan of a replay: its runs, and the way in which they are replayed. Everything before and beside them is read all
/// the same: what it says decides where their cuts begin.
#[derive(Clone, Debug)]
pub struct ReplayPlan {
    /// Only these symbols; `None`: all.
    pub symbols: Option<BTreeSet<Symbol>>,
    /// Only runs in this range.
    pub range: ReplayRange,
    /// Where the hysteresis state of a call comes from.
    pub state_from: StateFrom,
    /// Engine calls beside each other.
    pub calls_max: usize,
    /// Whether receipts behind the last cut are read too.
    pub to_the_end: bool,
    /// What stood before logs that were trimmed.
    pub base: ReplayStart,
}

impl Default for ReplayPlan {
    fn default() -> Self {
        Self {
            symbols: None,
            range: ReplayRange::All,
            state_from: StateFrom::Record,
            calls_max: 1,
            to_the_end: true,
            base: ReplayStart::default(),
        }
    }
}

impl ReplayPlan {
    /// Whether this run is replayed.
    #[must_use]
    pub fn includes_run(&self, at: RunSeq, record: &RunRecord) -> bool {
        let wanted = self.symbols.as_ref().is_none_or(|symbols| symbols.contains(&record.facts.symbol));
        wanted && self.range.includes_position(at, record.facts.engine_timestamp_ms)
    }
}

/// A range of runs, both ends inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayRange {
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

impl ReplayRange {
    /// Whether a run of this position and engine timestamp is in it.
    #[must_use]
    pub fn includes_position(self, at: RunSeq, engine_ts: TsMs) -> bool {
        match self {
            Self::All => true,
            Self::Runs { from, to } => from <= at && at <= to,
            Self::Time { from, to } => from <= engine_ts && engine_ts <= to,
        }
    }
}

impl FromStr for ReplayRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        use Bound::{At, Position};
        Ok(match parse_bounds(text)? {
            (None, None) => Self::All,
            (Some(Position(from)), Some(Position(to))) => Self::Runs { from: RunSeq(from), to: RunSeq(to) },
            (Some(Position(from)), None) => Self::Runs { from: RunSeq(from), to: RunSeq(u64::MAX) },
            (None, Some(Position(to))) => Self::Runs { from: RunSeq(0), to: RunSeq(to) },
            (Some(At(from)), Some(At(to))) => Self::Time { from, to },
            (Some(At(from)), None) => Self::Time { from, to: TsMs(i64::MAX) },
            (None, Some(At(to))) => Self::Time { from: TsMs(i64::MIN), to },
            (Some(Position(_)), Some(At(_))) | (Some(At(_)), Some(Position(_))) => {
                return Err(BadRange::Mixed);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_range(text: &str, expected: Result<ReplayRange, BadRange>) {
        assert_eq!(text.parse::<ReplayRange>(), expected, "{text}");
    }

    #[test]
    fn a_range_is_of_positions_or_of_times_and_open_where_an_end_is_left_out() {
        check_range("..", Ok(ReplayRange::All));
        check_range("10..20", Ok(ReplayRange::Runs { from: RunSeq(10), to: RunSeq(20) }));
        check_range("10..", Ok(ReplayRange::Runs { from: RunSeq(10), to: RunSeq(u64::MAX) }));
        check_range("..20", Ok(ReplayRange::Runs { from: RunSeq(0), to: RunSeq(20) }));
        check_range(
            "1970-01-01T00:00:01Z..1970-01-01 00:00:02",
            Ok(ReplayRange::Time { from: TsMs(1000), to: TsMs(2000) }),
        );
        check_range("1970-01-01T00:00:01Z..", Ok(ReplayRange::Time { from: TsMs(1000), to: TsMs(i64::MAX) }));
        check_range(
            "..1970-01-01T02:00:02+02:00",
            Ok(ReplayRange::Time { from: TsMs(i64::MIN), to: TsMs(2000) }),
        );
        check_range("7", Err(BadRange::Form));
        check_range("7..x", Err(BadRange::End("x".to_owned())));
        check_range("7..1970-01-01T00:00:01Z", Err(BadRange::Mixed));
    }

    #[test]
    fn both_ends_of_a_range_are_in_it() {
        let runs = ReplayRange::Runs { from: RunSeq(2), to: RunSeq(3) };
        let time = ReplayRange::Time { from: TsMs(2), to: TsMs(3) };

        let included: Vec<u64> = (1..=4).filter(|at| runs.includes_position(RunSeq(*at), TsMs(0))).collect();
        let timely: Vec<i64> = (1..=4).filter(|at| time.includes_position(RunSeq(0), TsMs(*at))).collect();

        assert_eq!((included, timely), (vec![2, 3], vec![2, 3]));
    }
}
