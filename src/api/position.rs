//! Positions in a stream of events: the ids of server-sent events, `{log}-{record}.{index}`.
//!
//! A record of the run log gives outputs, one of the journal the trading plane's events.
//!
//! A number alone says how far, not of what: an id of another log would begin in the middle of this one as soon as this
//! one is as long. An id without a log is taken for this one's: it was written by hand, or saved before ids had one.

use std::fmt;
use std::str::FromStr;

use orchestrator_kernel::ids::{LogIdentity, Seq};

/// A place between two events. Everything up to it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// `{record}`: after all events of this record. 0 is before the first.
    After(Seq),
    /// `{record}.{index}`: after this event, whose id it is.
    AfterEvent(Seq, u32),
}

impl Position {
    /// The record, seen as a whole or in part.
    pub(super) const fn record(self) -> Seq {
        match self {
            Self::After(seq) | Self::AfterEvent(seq, _) => seq,
        }
    }

    /// The record to go on with, and how many of its events were seen.
    pub(super) const fn next_record(self) -> (Seq, u64) {
        match self {
            Self::After(seq) => (Seq(seq.0.saturating_add(1)), 0),
            Self::AfterEvent(seq, index) => (seq, index as u64 + 1),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(seq) => write!(f, "{seq}"),
            Self::AfterEvent(seq, index) => write!(f, "{seq}.{index}"),
        }
    }
}

/// A position, and the log that it is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventId {
    /// The log; `None` when it was not said.
    pub(super) log: Option<LogIdentity>,
    /// Where in it.
    pub(super) position: Position,
}

impl EventId {
    /// Whether it is known to be one of another log than `own`.
    pub(super) fn is_of_another_log(&self, own: Option<LogIdentity>) -> bool {
        matches!((self.log, own), (Some(log), Some(own)) if log != own)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.log {
            Some(log) => write!(f, "{log}-{}", self.position),
            None => self.position.fmt(f),
        }
    }
}

impl FromStr for EventId {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (log, position) = match text.split_once('-') {
            Some((log, position)) => (Some(LogIdentity::from_hex(log).ok_or(NotAPosition)?), position),
            None => (None, text),
        };
        Ok(Self { log, position: position.parse()? })
    }
}

/// Not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (seq, index) = match text.split_once('.') {
            Some((seq, index)) => (seq, Some(parse_digits(index)?)),
            None => (text, None),
        };
        let seq = Seq(parse_digits(seq)?);
        match index {
            // There is no record 0, so there is nothing of it to go on with.
            Some(index) if seq.0 > 0 => {
                Ok(Self::AfterEvent(seq, u32::try_from(index).map_err(|_| NotAPosition)?))
            }
            Some(_) | None => Ok(Self::After(seq)),
        }
    }
}

/// A number without a sign.
fn parse_digits(text: &str) -> Result<u64, NotAPosition> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| NotAPosition)
    } else {
        Err(NotAPosition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for text in ["0", "7", "7.0", "18446744073709551615.4294967295"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
        assert_eq!("0.0".parse(), Ok(Position::After(Seq(0))));
        for text in ["", ".", "7.", ".7", "+7", "-1", "7.-1", "7.+1", "7.0.0", " 7", "1e3", "7.4294967296"] {
            assert_eq!(text.parse::<Position>(), Err(NotAPosition), "{text}");
        }
    }

    #[test]
    fn an_id_says_of_which_log_it_is_and_an_old_one_does_not() {
        let (log, other) = (LogIdentity(0x1f), LogIdentity(u64::MAX));
        for text in ["000000000000001f-7.1", "ffffffffffffffff-0", "7.1"] {
            assert_eq!(text.parse::<EventId>().unwrap().to_string(), text);
        }
        for text in [
            "-7.1",
            "1f-7.1",
            "000000000000001F-7.1",
            "+00000000000001f-7",
            "000000000000001f-",
            "000000000000001f-7-1",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(NotAPosition), "{text}");
        }
        let id = |text: &str| text.parse::<EventId>().unwrap();
        assert!(!id("000000000000001f-7").is_of_another_log(Some(log)));
        assert!(id("000000000000001f-7").is_of_another_log(Some(other)));
        assert!(!id("7").is_of_another_log(Some(other)));
    }

    #[test]
    fn the_next_output_is_the_one_right_behind() {
        assert_eq!(Position::After(Seq(7)).next_record(), (Seq(8), 0));
        assert_eq!(Position::AfterEvent(Seq(7), 1).next_record(), (Seq(7), 2));
    }
}
