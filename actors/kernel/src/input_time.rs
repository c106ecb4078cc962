//! Which times a recording's receipts can have: under a driven clock they *are* the time, so a wrong one must not drive
//! it.
//!
//! ```text
//!        1990            latest       latest + gap_max            2100
//!  ───────┼─────────────────┼────────────────┼──────────────────────┼───────▶ a receipt's time
//!  outside│ late: taken with│  moves the     │  too far ahead:      │outside: quarantined
//!         │ the latest time │  clock         │  quarantined         │
//! ```

use std::fmt;

use crate::ids::TsMs;
use crate::rfc3339::to_rfc3339;

/// Times that a recorded clock takes from receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputTimes {
    /// Earlier ones are refused.
    pub earliest: TsMs,
    /// This and later ones are refused.
    pub end: TsMs,
    /// How far one receipt may be ahead of all before it, in milliseconds.
    pub gap_max_ms: i64,
}

/// 1990-01-01, before which no exchange had a clock on a network.
const EARLIEST: TsMs = TsMs(631_152_000_000);
/// 2100-01-01.
const END: TsMs = TsMs(4_102_444_800_000);

impl InputTimes {
    /// The times that an exchange's clock can have, from 1990 to the end of 2099: milliseconds read as another unit, or
    /// another unit read as milliseconds, are never among them.
    pub const PLAUSIBLE: Self = Self { earliest: EARLIEST, end: END, gap_max_ms: i64::MAX };
    /// Every time.
    pub const ANY: Self = Self { earliest: TsMs(i64::MIN), end: TsMs(i64::MAX), gap_max_ms: i64::MAX };

    /// Checks the time `at` of the next receipt, where `latest` is the largest one before it.
    ///
    /// # Errors
    ///
    /// [`Implausible`]: the time must not drive the clock.
    pub fn check_time(&self, at: TsMs, latest: Option<TsMs>) -> Result<(), Implausible> {
        if at < self.earliest || self.end <= at {
            return Err(Implausible::Outside { at });
        }
        match latest {
            Some(latest) if self.gap_max_ms < at.0.saturating_sub(latest.0) => {
                Err(Implausible::Ahead { at, latest, gap_max_ms: self.gap_max_ms })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A time that cannot drive the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Implausible {
    /// No exchange's clock shows it.
    #[error("{}", describe_implausible(i128::from(at.0), TimeUnit::Milliseconds))]
    Outside {
        /// The time.
        at: TsMs,
    },
    /// Too far ahead of everything before it.
    #[error(
        "recv_ts_ms {} is {}, {} days after the receipts before it; if the recording has such a gap, set \
         clock.gap_max to more than that",
        at.0, to_rfc3339(*at), (at.0 - latest.0) / 86_400_000
    )]
    Ahead {
        /// The time.
        at: TsMs,
        /// The largest one before it.
        latest: TsMs,
        /// How far ahead it may be.
        gap_max_ms: i64,
    },
}

/// Unit of a number that is a time, counted since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// 10 digits today.
    Seconds,
    /// 13 digits today.
    Milliseconds,
    /// 16 digits today.
    Microseconds,
    /// 19 digits today.
    Nanoseconds,
}

impl TimeUnit {
    const ALL: [Self; 4] = [Self::Seconds, Self::Milliseconds, Self::Microseconds, Self::Nanoseconds];

    /// How many of it a second has.
    #[must_use]
    pub const fn per_second(self) -> i128 {
        match self {
            Self::Seconds => 1,
            Self::Milliseconds => 1_000,
            Self::Microseconds => 1_000_000,
            Self::Nanoseconds => 1_000_000_000,
        }
    }

    const fn to_milliseconds(self, number: i128) -> i128 {
        number.saturating_mul(1_000).div_euclid(self.per_second())
    }

    /// The only unit in which `number` is a [plausible](InputTimes::PLAUSIBLE) time, if there is one.
    #[must_use]
    pub fn guess_unit(number: i128) -> Option<Self> {
        let plausible = i128::from(EARLIEST.0)..i128::from(END.0);
        Self::ALL.into_iter().find(|unit| plausible.contains(&unit.to_milliseconds(number)))
    }
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
        })
    }
}

/// What is wrong with `number`, read in `unit`, for people: where in time it is, and what it more likely counts.
#[must_use]
pub fn describe_implausible(number: i128, unit: TimeUnit) -> String {
    /// Largest time that is written as a date; years beyond 9999 say less than their number.
    const DATES_END: i128 = 253_402_300_800_000;
    let ms = unit.to_milliseconds(number);
    let when = match i64::try_from(ms) {
        Ok(at) if (0..DATES_END).contains(&ms) => to_rfc3339(TsMs(at)),
        Ok(_) | Err(_) => format!("in the year {}", 1970 + ms.div_euclid(31_556_952_000)),
    };
    let hint = match TimeUnit::guess_unit(number) {
        Some(likely) => format!("; it looks like {likely}"),
        None => String::new(),
    };
    format!("time {number} in {unit} is {when}, which no exchange's clock shows (1990 to 2099){hint}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T: i64 = 1_768_002_660_000;
    const DAY: i64 = 86_400_000;

    #[test]
    fn a_time_in_another_unit_is_outside_and_its_unit_is_named() {
        for (at, hint) in [
            (0, "1970-01-01T00:00:00+00:00, which no exchange's clock shows (1990 to 2099)"),
            (T / 1000, "it looks like seconds"),
            (
                T * 1000,
                "in the year 57995, which no exchange's clock shows (1990 to 2099); it looks like microseconds",
            ),
            (T * 1_000_000, "it looks like nanoseconds"),
            (-1, "in the year 1969"),
            (i64::MAX, "in the year 292278994"),
            (i64::MIN, "in the year -292275055"),
        ] {
            let said = InputTimes::PLAUSIBLE.check_time(TsMs(at), None).unwrap_err().to_string();
            assert!(said.contains(hint), "{said}\nexpected {hint}");
        }
    }

    #[test]
    fn a_receipt_far_ahead_is_refused_and_one_far_behind_is_not() {
        let times = InputTimes { gap_max_ms: 400 * DAY, ..InputTimes::PLAUSIBLE };

        assert_eq!(times.check_time(TsMs(T + 400 * DAY), Some(TsMs(T))), Ok(()));
        let said = times.check_time(TsMs(T + 400 * DAY + 1), Some(TsMs(T))).unwrap_err().to_string();
        assert!(said.contains("400 days after") && said.contains("clock.gap_max"), "{said}");
        assert_eq!(times.check_time(TsMs(T), Some(TsMs(T + 4000 * DAY))), Ok(()), "late, not ahead");
        assert_eq!(InputTimes::ANY.check_time(TsMs(i64::MAX - 1), Some(TsMs(i64::MIN))), Ok(()));
    }

    proptest! {
        #[test]
        fn a_plausible_time_has_one_unit_only(ms in EARLIEST.0..END.0, unit in 0..4_usize) {
            let unit = TimeUnit::ALL[unit];
            let number = i128::from(ms) * unit.per_second() / 1_000;
            let others = TimeUnit::ALL.into_iter().filter(|other| *other != unit);
            let is_plausible = |unit: TimeUnit| {
                let ms = unit.to_milliseconds(number);
                (i128::from(EARLIEST.0)..i128::from(END.0)).contains(&ms)
            };
            prop_assert_eq!(others.filter(|other| is_plausible(*other)).count(), 0);
        }

        #[test]
        fn nothing_overflows(at in any::<i64>(), latest in any::<Option<i64>>(), gap_max_ms in 0..i64::MAX) {
            let times = InputTimes { gap_max_ms, ..InputTimes::PLAUSIBLE };
            if let Err(implausible) = times.check_time(TsMs(at), latest.map(TsMs)) {
                prop_assert!(implausible.to_string().len() < 300);
            }
        }
    }
}
