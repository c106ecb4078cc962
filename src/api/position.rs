//! Positions in the stream of outputs: the ids of server-sent events.

use std::fmt;
use std::str::FromStr;

use orchestrator_kernel::ids::RunSeq;

/// A place between two outputs. Everything up to it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// `{run_seq}`: after all outputs of this run record. 0 is before the first.
    After(RunSeq),
    /// `{run_seq}.{index}`: after this output, the id of an event.
    AfterOutput(RunSeq, u32),
}

impl Position {
    /// The run record, seen as a whole or in part.
    pub(super) const fn run_seq(self) -> RunSeq {
        match self {
            Self::After(run_seq) | Self::AfterOutput(run_seq, _) => run_seq,
        }
    }

    /// The record to go on with, and how many of its outputs were seen.
    pub(super) const fn next(self) -> (RunSeq, u64) {
        match self {
            Self::After(run_seq) => (RunSeq(run_seq.0.saturating_add(1)), 0),
            Self::AfterOutput(run_seq, index) => (run_seq, index as u64 + 1),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(run_seq) => write!(f, "{run_seq}"),
            Self::AfterOutput(run_seq, index) => write!(f, "{run_seq}.{index}"),
        }
    }
}

/// Not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (run_seq, index) = match text.split_once('.') {
            Some((run_seq, index)) => (run_seq, Some(digits(index)?)),
            None => (text, None),
        };
        let run_seq = RunSeq(digits(run_seq)?);
        match index {
            // There is no record 0, so there is nothing of it to go on with.
            Some(index) if run_seq.0 > 0 => {
                Ok(Self::AfterOutput(run_seq, u32::try_from(index).map_err(|_| NotAPosition)?))
            }
            Some(_) | None => Ok(Self::After(run_seq)),
        }
    }
}

/// A number without a sign.
fn digits(text: &str) -> Result<u64, NotAPosition> {
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
        assert_eq!("0.0".parse(), Ok(Position::After(RunSeq(0))));
        for text in ["", ".", "7.", ".7", "+7", "-1", "7.-1", "7.+1", "7.0.0", " 7", "1e3", "7.4294967296"] {
            assert_eq!(text.parse::<Position>(), Err(NotAPosition), "{text}");
        }
    }

    #[test]
    fn the_next_output_is_the_one_right_behind() {
        assert_eq!(Position::After(RunSeq(7)).next(), (RunSeq(8), 0));
        assert_eq!(Position::AfterOutput(RunSeq(7), 1).next(), (RunSeq(7), 2));
    }
}
