//! Moments as people and other systems write them: RFC 3339.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

use crate::ids::TsMs;

/// Length of 400 years: after them the calendar repeats itself, weekdays included.
const CALENDAR_CYCLE_MS: i64 = 146_097 * 86_400_000;
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// The moment as `2026-01-01T00:00:00+00:00`, with `.123` before the offset when it is no whole second.
///
/// Years beyond four digits are written with as many as they need; nothing here makes such a moment.
#[must_use]
pub fn to_rfc3339(at: TsMs) -> String {
    // The library's calendar ends with the year 9999; a number that came from elsewhere is shown all the same.
    let (cycle, of_cycle) = (at.0.div_euclid(CALENDAR_CYCLE_MS), at.0.rem_euclid(CALENDAR_CYCLE_MS));
    let local = Offset::UTC.to_datetime(Timestamp::from_millisecond(of_cycle).unwrap_or_default());
    let year = cycle * 400 + i64::from(local.year());
    let (month, day) = (local.month(), local.day());
    let (hour, minute, second) = (local.hour(), local.minute(), local.second());
    let fraction = match local.millisecond() {
        0 => String::new(),
        ms => format!(".{ms:03}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00")
}

/// Reads a moment as people type it: RFC 3339 from 1970 on, also without an offset (then it is UTC), and with a space
/// for the T. What is finer than a millisecond is cut off; a second 60 is the one before it.
///
/// `None` for any other text: a date alone, or a time without seconds, is more often a mistake than a midnight.
#[must_use]
pub fn moment_of_people(text: &str) -> Option<TsMs> {
    if !has_all_digits(text) || text < "1970" {
        return None;
    }
    let pieces = Pieces::parse(text).ok().filter(|pieces| pieces.time_zone_annotation().is_none())?;
    // Not as a timestamp, which ends a day before the year 9999 does: people write its end for "for ever".
    let local = pieces.date().to_datetime(pieces.time()?).duration_since(EPOCH);
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    Some(TsMs(i64::try_from(local.as_millis()).ok()?).plus_ms(-1000 * i64::from(offset.seconds())))
}

/// Tells whether the text begins with a date and a time that leave nothing out.
fn has_all_digits(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let fits = |(form, byte): (&u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b' '),
        other => byte == other,
    };
    FORM.len() <= text.len() && FORM.iter().zip(text.as_bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same text by arithmetic alone.
    ///
    /// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    fn calculated_text(at: i64) -> String {
        let shifted = at.div_euclid(86_400_000) + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let ms = at.rem_euclid(86_400_000);
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        let fraction = if ms % 1000 == 0 { String::new() } else { format!(".{:03}", ms % 1000) };
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00")
    }

    #[test]
    fn moments_are_written_as_others_write_them() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00+00:00"),
            (-1, "1969-12-31T23:59:59.999+00:00"),
            (1_767_225_600_000, "2026-01-01T00:00:00+00:00"),
            (1_709_210_096_007, "2024-02-29T12:34:56.007+00:00"),
            (1_709_210_096_120, "2024-02-29T12:34:56.120+00:00"),
            (951_782_399_000, "2000-02-28T23:59:59+00:00"),
            (951_782_400_000, "2000-02-29T00:00:00+00:00"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999+00:00"),
            (253_402_300_800_000, "10000-01-01T00:00:00+00:00"),
            (-62_198_755_200_000, "-001-01-01T00:00:00+00:00"),
            (i64::MAX, "292278994-08-17T07:12:55.807+00:00"),
            (i64::MIN, "-292275055-05-16T16:47:04.192+00:00"),
        ] {
            assert_eq!(to_rfc3339(TsMs(at)), text);
        }
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        for (text, ms) in [
            ("2024-08-08T23:54:15Z", 1_723_161_255_000),
            ("2024-08-08T23:54:15z", 1_723_161_255_000),
            ("2024-08-08T23:54:15.030999+00:00", 1_723_161_255_030),
            ("2024-08-09T01:54:15+02:00", 1_723_161_255_000),
            ("2024-08-08T18:24:15-05:30", 1_723_161_255_000),
            ("2024-08-08 23:54:15", 1_723_161_255_000),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
            ("1970-01-01T00:00:00+05:00", -18_000_000),
            ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ] {
            assert_eq!(moment_of_people(text), Some(TsMs(ms)), "{text}");
        }
    }

    #[test]
    fn what_leaves_something_out_or_says_too_much_is_no_moment() {
        for text in [
            "",
            "noon",
            "2024-08-08",
            "2024-08-08T23:54",
            "2024-08-08T23",
            "20240808T235415Z",
            "2024-8-8T23:54:15Z",
            "2024-08-08t23:54:15Z",
            "1969-12-31T23:59:59Z",
            "2024-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-08-08T24:00:00Z",
            "2024-08-08T23:54:15.",
            "2024-08-08T23:54:15ZZ",
            "2024-08-08T23:54:15+ab:cd",
            "2024-08-08T23:54:15+99:00",
            "2024-08-08T23:54:15+-1:00",
            "2024-08-08T23:54:15+02:00[Europe/Paris]",
            "2024-08-08T23:54:1é",
        ] {
            assert_eq!(moment_of_people(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_is_written_as_the_arithmetic_has_it(at in any::<i64>(), near in -5_000_000_000_000..300_000_000_000_000i64) {
            prop_assert_eq!(to_rfc3339(TsMs(at)), calculated_text(at));
            prop_assert_eq!(to_rfc3339(TsMs(near)), calculated_text(near));
        }

        #[test]
        fn what_is_written_is_read_again_at_any_offset(at in 100_000_000..253_402_200_000_000i64, minutes in -1439..1440i64) {
            let written = to_rfc3339(TsMs(at + minutes * 60_000));
            let (sign, ahead) = (if minutes < 0 { '-' } else { '+' }, minutes.abs());
            let moved = written.replace("+00:00", &format!("{sign}{:02}:{:02}", ahead / 60, ahead % 60));

            prop_assert_eq!(moment_of_people(&moved), Some(TsMs(at)), "{}", moved);
            prop_assert_eq!(moment_of_people(&to_rfc3339(TsMs(at)).replace('T', " ").replace("+00:00", "")), Some(TsMs(at)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9TZ:. é]{0,40}") {
            let _ignored = moment_of_people(&text).is_some();
        }
    }
}
