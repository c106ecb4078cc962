//! Moments as people and other systems write them: RFC 3339 in UTC.

use crate::ids::TsMs;

const DAY_MS: i64 = 86_400_000;

/// The moment as `2026-01-01T00:00:00+00:00`, with `.123` before the offset when it is no whole second.
///
/// Years beyond four digits are written with as many as they need; nothing here makes such a moment.
#[must_use]
pub fn to_rfc3339(at: TsMs) -> String {
    let (year, month, day) = civil_date(at.0.div_euclid(DAY_MS));
    let ms = at.0.rem_euclid(DAY_MS);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let fraction = match ms % 1000 {
        0 => String::new(),
        fraction => format!(".{fraction:03}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00")
}

/// The day of the proleptic Gregorian calendar that is `days` after 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_written_as_others_write_them() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (-1, "1969-12-31T23:59:59.999+00:00"),
            (1_767_225_600_000, "2026-01-01T00:00:00+00:00"),
            (1_709_210_096_007, "2024-02-29T12:34:56.007+00:00"),
            (951_782_399_000, "2000-02-28T23:59:59+00:00"),
            (951_782_400_000, "2000-02-29T00:00:00+00:00"),
        ] {
            assert_eq!(to_rfc3339(TsMs(at)), text);
        }
    }

    proptest! {
        /// Method: the next day is the next of the month, or the first of the next month.
        #[test]
        fn days_follow_each_other(day in -700_000..700_000i64) {
            let (y, m, d) = civil_date(day);
            let next = civil_date(day + 1);
            prop_assert!(
                next == (y, m, d + 1) || (next == (y, m + 1, 1) && d >= 28) || (next == (y + 1, 1, 1) && (m, d) == (12, 31)),
                "{:?} then {:?}", (y, m, d), next
            );
        }
    }
}
