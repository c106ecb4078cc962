//! How much is to be kept: limits of age, count and bytes, and finding where a limit of age lies.

use crate::ids::{Seq, TsMs};
use crate::ports::log::LogStat;

/// Limits of one log; whichever is met lets the oldest records go. No limit keeps everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Milliseconds that a record is kept.
    pub age_ms_max: Option<u64>,
    /// Records that are kept.
    pub records_max: Option<u64>,
    /// Bytes that are kept, as the log counts them.
    pub bytes_max: Option<u64>,
}

impl Policy {
    /// Whether everything is kept.
    #[must_use]
    pub const fn keeps_all(&self) -> bool {
        self.age_ms_max.is_none() && self.records_max.is_none() && self.bytes_max.is_none()
    }

    /// The time before which records are to go.
    #[must_use]
    pub fn older_than(&self, now: TsMs) -> Option<TsMs> {
        let age = i64::try_from(self.age_ms_max?).unwrap_or(i64::MAX);
        Some(TsMs(now.0.saturating_sub(age)))
    }

    /// The first record to stay by count and bytes. Bytes are taken to be the same for each record, so that the limit
    /// is met over several rounds, from above.
    #[must_use]
    pub fn trim_point(&self, stat: LogStat) -> Seq {
        let records = (stat.tail.0 + 1).saturating_sub(stat.start.0);
        let by_count = self.records_max.map_or(0, |max| records.saturating_sub(max));
        let by_bytes = self.bytes_max.filter(|max| *max < stat.bytes).map_or(0, |max| {
            let part = u128::from(records) * u128::from(stat.bytes - max) / u128::from(stat.bytes);
            u64::try_from(part).unwrap_or(records)
        });
        Seq(stat.start.0 + by_count.max(by_bytes))
    }
}

/// Finds the first record that is not too old, where time never decreases along the log (LOG-5).
///
/// Goes forward from the beginning in steps that double, since a retention that runs often finds it near there.
#[derive(Clone, Copy, Debug)]
pub struct FirstYoung {
    low: u64,
    high: u64,
    step: u64,
}

impl FirstYoung {
    /// Among the records `from` … `tail`.
    #[must_use]
    pub fn new(from: Seq, tail: Seq) -> Self {
        Self { low: from.0, high: (tail.0 + 1).max(from.0), step: 1 }
    }

    /// The record whose time is to be [told](Self::tell_age); nothing once it is found.
    #[must_use]
    pub const fn record_to_ask(&self) -> Option<Seq> {
        let rest = self.high - self.low;
        if rest == 0 {
            return None;
        }
        let ahead = if self.step <= rest { self.step - 1 } else { rest / 2 };
        Some(Seq(self.low + ahead))
    }

    /// Says whether the record at `at`, which was asked for, is too old.
    pub const fn tell_age(&mut self, at: Seq, is_old: bool) {
        if is_old {
            self.low = at.0 + 1;
            self.step = self.step.saturating_mul(2);
        } else {
            self.high = at.0;
            // From now on by bisection.
            self.step = u64::MAX;
        }
    }

    /// The first record to stay, as far as it is known.
    #[must_use]
    pub const fn first_to_stay(&self) -> Seq {
        Seq(self.low)
    }
}
