//! Ranges and times as the command line writes them, the same for every command.

use std::str::FromStr;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::moment_of_people;

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A position in a log; the command says in which.
    Position(u64),
    /// A time; the command says whose.
    At(TsMs),
}

/// Reason for which a text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    /// It has no two dots.
    #[error(
        "expected FIRST..LAST: positions (10..20), or times (2026-01-01T00:00:00Z..); either end may be left out"
    )]
    Form,
    /// An end is neither a position nor a time.
    #[error("{0:?} is neither a position nor a time like 2026-01-01T00:00:00Z")]
    End(String),
    /// One end is a position, the other a time.
    #[error("both ends must be positions, or both times")]
    Mixed,
}

/// Reads `FIRST..LAST`. An end that is left out is nothing.
///
/// # Errors
///
/// [`BadRange::Form`], [`BadRange::End`].
pub fn parse_bounds(text: &str) -> Result<(Option<Bound>, Option<Bound>), BadRange> {
    let (first, last) = text.split_once("..").ok_or(BadRange::Form)?;
    Ok((parse_bound(first)?, parse_bound(last)?))
}

fn parse_bound(text: &str) -> Result<Option<Bound>, BadRange> {
    let refused = || BadRange::End(text.to_owned());
    if text.is_empty() {
        return Ok(None);
    }
    let bound = match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Bound::Position(text.parse().map_err(|_| refused())?),
        false => Bound::At(moment_of_people(text).ok_or_else(refused)?),
    };
    Ok(Some(bound))
}

/// A moment on the command line: RFC 3339, or milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub TsMs);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ms) = text.parse() {
            return Ok(Self(TsMs(ms)));
        }
        moment_of_people(text).map(Self).ok_or_else(|| {
            format!("{text} is no time; expected 2026-01-02T09:30:00Z or milliseconds since 1970")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ends_are_positions_or_times_or_left_out() {
        let (position, at) = (|at| Some(Bound::Position(at)), |ms| Some(Bound::At(TsMs(ms))));
        for (text, first, last) in [
            ("..", None, None),
            ("3..09", position(3), position(9)),
            ("3..2024-08-08T23:54:15Z", position(3), at(1_723_161_255_000)),
            ("2024-08-09T01:54:15+02:00..", at(1_723_161_255_000), None),
        ] {
            assert_eq!(parse_bounds(text), Ok((first, last)), "{text}");
        }
        assert_eq!(parse_bounds("7"), Err(BadRange::Form));
        for text in ["x..", "+7..", "-5..", "99999999999999999999..", "2024-13-01T00:00:00Z.."] {
            let end = text.trim_end_matches("..").to_owned();
            assert_eq!(parse_bounds(text), Err(BadRange::End(end)), "{text}");
        }
    }

    #[test]
    fn moments_are_numbers_or_dates() {
        for (text, ms) in [
            ("1723161255000", 1_723_161_255_000),
            ("-5", -5),
            ("2024-08-08T23:54:15.030+00:00", 1_723_161_255_030),
            ("2024-08-08 23:54:15", 1_723_161_255_000),
        ] {
            assert_eq!(text.parse(), Ok(Moment(TsMs(ms))), "{text}");
        }
        for text in ["", "noon", "2024-13-01T00:00:00Z"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }

    proptest! {
        /// Method: the reader of durations can read dates in UTC, too, by arithmetic of its own.
        #[test]
        fn dates_are_read_as_another_reader_reads_them(
            day in (1960..=9999u32, 0..=13u32, 0..=32u32),
            time in (0..=24u32, 0..=60u32, 0..=61u32),
            t in "[T ]",
            fraction in r"(\.[0-9]{1,9})?",
            zone in "(Z|\\+00:00)?",
        ) {
            let ((y, mo, d), (h, mi, s)) = (day, time);
            let text = format!("{y:04}-{mo:02}-{d:02}{t}{h:02}:{mi:02}:{s:02}{fraction}{zone}");
            let other = humantime::parse_rfc3339_weak(&text).ok();
            let other = other.map(|at| at.duration_since(UNIX_EPOCH).unwrap().as_millis());

            prop_assert_eq!(moment_of_people(&text).map(|at| u128::try_from(at.0).unwrap()), other, "{}", text);
        }
    }
}
