//! Which part of recorded logs a command works on: some symbols, a range of receipts.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use clap::Args;
use orchestrator_kernel::ids::{IngestSeq, TsMs};
use orchestrator_kernel::ports::log::Log;

use super::{LogError, first_after};

/// The part that is meant; without any option: everything.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these symbols, separated by commas.
    #[arg(long, value_name = "SYMBOL,…", value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Only these receipts, FROM..TO with both ends included, each an ingest_seq or a time like 2026-01-02T09:30:00Z; an
    /// end may be left out. A run belongs to the range when its cut ends there.
    #[arg(long, value_name = "FROM..TO")]
    pub range: Option<Range>,
}

impl Selection {
    /// Whether nothing is left out.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.symbols.is_empty() && self.range.is_none()
    }

    /// The symbols, or nothing for all of them.
    #[must_use]
    pub fn symbols(&self) -> Option<BTreeSet<&str>> {
        (!self.symbols.is_empty()).then(|| self.symbols.iter().map(String::as_str).collect())
    }

    /// The range as positions of this receipt log.
    ///
    /// # Errors
    ///
    /// [`LogError`].
    pub async fn positions(&self, receipts: &dyn Log) -> Result<(IngestSeq, IngestSeq), LogError> {
        let range = self.range.unwrap_or_default();
        let first = match range.from {
            None => IngestSeq(1),
            Some(Bound::Seq(seq)) => seq,
            // Everything at that time belongs to it.
            Some(Bound::At(at)) => first_after(receipts, at.plus(-1)).await?,
        };
        let last = match range.to {
            None => IngestSeq(u64::MAX),
            Some(Bound::Seq(seq)) => seq,
            Some(Bound::At(at)) => IngestSeq(first_after(receipts, at).await?.0.saturating_sub(1)),
        };
        Ok((first, last))
    }
}

/// A range of receipts; both ends belong to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first; the first one there is when left out.
    pub from: Option<Bound>,
    /// The last; the last one there is when left out.
    pub to: Option<Bound>,
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A receipt.
    Seq(IngestSeq),
    /// The time at which receipts were taken in.
    At(TsMs),
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (from, to) = text.split_once("..").ok_or("expected FROM..TO")?;
        let bound = |text: &str| -> Result<Option<Bound>, String> {
            match text {
                "" => Ok(None),
                _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                    let seq = text.parse().map_err(|error| format!("{text}: {error}"))?;
                    Ok(Some(Bound::Seq(IngestSeq(seq))))
                }
                _ => Ok(Some(Bound::At(text.parse::<Moment>()?.0))),
            }
        };
        Ok(Self { from: bound(from)?, to: bound(to)? })
    }
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
        let refused =
            || format!("{text} is no time; expected 2026-01-02T09:30:00Z or milliseconds since 1970");
        let (local, offset_ms) = offset(text).ok_or_else(refused)?;
        let at = humantime::parse_rfc3339_weak(local).map_err(|_| refused())?;
        let since = at.duration_since(UNIX_EPOCH).map_err(|_| refused())?;
        let ms = i64::try_from(since.as_millis()).map_err(|_| refused())?;
        Ok(Self(TsMs(ms).plus(-offset_ms)))
    }
}

/// Splits a time into what stands before the offset, and the offset in milliseconds; without one it is UTC.
fn offset(text: &str) -> Option<(&str, i64)> {
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

    #[test]
    fn ranges_have_two_ends_that_may_be_open() {
        let seq = |seq| Some(Bound::Seq(IngestSeq(seq)));
        let at = Some(Bound::At(TsMs(1_723_161_255_000)));
        for (text, from, to) in [
            ("3..9", seq(3), seq(9)),
            ("3..", seq(3), None),
            ("..2024-08-08T23:54:15Z", None, at),
            ("..", None, None),
        ] {
            assert_eq!(text.parse(), Ok(Range { from, to }), "{text}");
        }
        for text in ["3", "a..b", "99999999999999999999.."] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }
}
