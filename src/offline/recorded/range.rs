//! Ranges and times as the command line writes them, the same for every command.

use std::str::FromStr;
use std::time::UNIX_EPOCH;

use orchestrator_kernel::ids::TsMs;

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
        false => Bound::At(parse_timestamp(text).ok_or_else(refused)?),
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
        parse_timestamp(text).map(Self).ok_or_else(|| {
            format!("{text} is no time; expected 2026-01-02T09:30:00Z or milliseconds since 1970")
        })
    }
}

/// A time in the form of RFC 3339; also without an offset (then it is UTC), and with a space for the T.
fn parse_timestamp(text: &str) -> Option<TsMs> {
    let (local, offset_ms) = split_offset(text)?;
    let at = humantime::parse_rfc3339_weak(local).ok()?;
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    Some(TsMs(i64::try_from(since.as_millis()).ok()?).plus_ms(-offset_ms))
}

/// Splits a time into what stands before the offset, and the offset in milliseconds; without one it is UTC.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(local) = text.strip_suffix(['Z', 'z']) {
        return Some((local, 0));
    }
    let at = text.len().checked_sub("+00:00".len());
    let Some((local, offset)) = at.and_then(|at| text.split_at_checked(at)) else { return Some((text, 0)) };
    let sign = match offset.as_bytes() {
        [b'+', _, _, b':', _, _] => 1,
        // The last six characters of a date alone look like an offset, too: 2026-01-02 ends with "-01-02", not "-01:02".
        [b'-', _, _, b':', _, _] => -1,
        _ => return Some((text, 0)),
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    Some((local, sign * (hours * 60 + minutes) * 60_000))
}

#[cfg(test)]
mod tests {
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
    fn moments_are_read_as_people_write_them() {
        for (text, ms) in [
            ("1723161255000", 1_723_161_255_000),
            ("-5", -5),
            ("2024-08-08T23:54:15Z", 1_723_161_255_000),
            ("2024-08-08T23:54:15.030+00:00", 1_723_161_255_030),
            ("2024-08-09T01:54:15+02:00", 1_723_161_255_000),
            ("2024-08-08T18:24:15-05:30", 1_723_161_255_000),
            ("2024-08-08 23:54:15", 1_723_161_255_000),
        ] {
            assert_eq!(text.parse(), Ok(Moment(TsMs(ms))), "{text}");
        }
        for text in ["", "noon", "2024-13-01T00:00:00Z", "2024-08-08T23:54:15+ab:cd"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
