//! What a stored value means.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::error::bounded_detail;

/// Longest value that is looked at, in bytes. A longer one is nobody's kill switch.
pub const VALUE_BYTES_MAX: usize = 64 << 10;

/// Content of the store, as a read found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Nothing, or nothing in it.
    Missing,
    /// A value of at most [`VALUE_BYTES_MAX`] bytes.
    Value(Bytes),
    /// A value beyond [`VALUE_BYTES_MAX`]. It was not read.
    TooLong,
    /// Something that is no text at all, such as a list or a directory.
    NotText,
}

/// Failure of a read of the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KillSwitchReadError {
    /// The store answered that it does not tell: no permission, still loading. That blocks at once.
    #[error("the store refuses to tell: {0}")]
    Refused(String),
    /// No answer: too late, or no connection. What was read before counts until its lease ends.
    #[error("no answer from the store: {0}")]
    NoAnswer(String),
}

/// State of trading: what a stored value means, and what holds as long as the lease of its reading lasts. Effects are
/// allowed in the first one only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TradingState {
    /// Effects are allowed.
    Trading,
    /// An operator stopped all effects.
    Halted(Halt),
    /// Nobody knows. Blocks like Halted.
    Unknown(UnknownReason),
}

/// Author, reason and time of a stop, as far as the value says. Each text is one bounded line, times as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Halt {
    /// The operator.
    pub by: Option<String>,
    /// Their reason.
    pub reason: Option<String>,
    /// When, RFC 3339.
    pub at: Option<String>,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "halted by {}", self.by.as_deref().unwrap_or("an unnamed operator"))?;
        if let Some(at) = &self.at {
            write!(f, " at {at}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        Ok(())
    }
}

/// Reason for which the state is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownReason {
    /// No read has been answered yet.
    #[error("not read yet")]
    NotReadYet,
    /// Nothing is stored: never set up, or lost.
    #[error("nothing is stored; an operator sets it up with `orchestrator kill-switch init`")]
    Missing,
    /// The value is none of those that mean something.
    #[error("the stored value means nothing: {shown}")]
    NotAState {
        /// Its beginning, as one line.
        shown: String,
    },
    /// The value is too long to be looked at.
    #[error("the stored value is longer than {VALUE_BYTES_MAX} bytes")]
    TooLong,
    /// What is stored is no text.
    #[error("what is stored is no text")]
    NotText,
    /// The store answered that it does not tell.
    #[error("the store refuses to tell: {0}")]
    Refused(String),
    /// The last answer is older than its lease.
    #[error("no good read since the last lease ended ({0})")]
    Stale(String),
}

/// The value that [`decide`](super::decide) writes, as far as it decides something. Fields that it does not know are
/// ignored; a field that comes twice is refused, because nobody can say which one counts.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Record {
    pub(super) state: String,
    #[serde(default)]
    pub(super) engaged_at: Value,
    #[serde(default)]
    pub(super) engaged_by: Value,
    #[serde(default)]
    pub(super) engagement_reason: Value,
    #[serde(default)]
    pub(super) engagement_details: Value,
    #[serde(default)]
    pub(super) engagement_count_today: Value,
}

impl Record {
    /// The record in `stored`, if it is one.
    pub(super) fn from_stored(stored: &Stored) -> Option<Self> {
        match stored {
            // Text first: in members that it does not know, serde_json looks at no character.
            Stored::Value(value) if value.trim_ascii_start().starts_with(b"{") => {
                std::str::from_utf8(value).ok().and_then(|text| serde_json::from_str(text).ok())
            }
            Stored::Value(_) | Stored::Missing | Stored::TooLong | Stored::NotText => None,
        }
    }

    fn to_halt(&self) -> Halt {
        let line = |value: &Value| value.as_str().map(bounded_detail);
        Halt { by: line(&self.engaged_by), reason: line(&self.engagement_reason), at: line(&self.engaged_at) }
    }
}

impl TradingState {
    /// Translates a stored value.
    ///
    /// | stored | means |
    /// |---|---|
    /// | JSON object, `state` = `"ENGAGED"`; or exactly `engaged`, `1`, `true`, `on` | Halted |
    /// | JSON object, `state` = `"ACTIVE"`; or exactly `disengaged`, `0`, `false`, `off` | Trading |
    /// | anything else, a bare `ACTIVE` too; nothing; too long; no text | Unknown |
    ///
    /// Source: CONTRACTS §4.
    #[must_use]
    pub fn of_stored(stored: &Stored) -> Self {
        match stored {
            Stored::Missing => Self::Unknown(UnknownReason::Missing),
            Stored::TooLong => Self::Unknown(UnknownReason::TooLong),
            Stored::NotText => Self::Unknown(UnknownReason::NotText),
            Stored::Value(value) => Self::of_value(stored, value),
        }
    }

    /// The word in logs, metrics and answers: `trading`, `halted` or `unknown`.
    #[must_use]
    pub const fn state_word(&self) -> &'static str {
        match self {
            Self::Trading => "trading",
            Self::Halted(_) => "halted",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Why effects are blocked; nothing while they are not.
    #[must_use]
    pub fn block_reason(&self) -> Option<String> {
        match self {
            Self::Trading => None,
            Self::Halted(halt) => Some(halt.to_string()),
            Self::Unknown(why) => Some(why.to_string()),
        }
    }

    fn of_value(stored: &Stored, value: &[u8]) -> Self {
        match value {
            b"engaged" | b"1" | b"true" | b"on" => return Self::Halted(Halt::default()),
            b"disengaged" | b"0" | b"false" | b"off" => return Self::Trading,
            // Bytes of others: every further text means nothing, unless it is a record.
            _ => {}
        }
        match Record::from_stored(stored) {
            Some(record) if record.state == ENGAGED => Self::Halted(record.to_halt()),
            Some(record) if record.state == ACTIVE => Self::Trading,
            Some(_) | None => Self::Unknown(UnknownReason::NotAState { shown: quote_value(value) }),
        }
    }
}

/// The `state` of a record that blocks.
pub(super) const ENGAGED: &str = "ENGAGED";
/// The `state` of a record that allows trading.
pub(super) const ACTIVE: &str = "ACTIVE";

/// Bytes of a meaningless value that a message quotes.
const SHOWN_BYTES_MAX: usize = 60;

fn quote_value(value: &[u8]) -> String {
    let head = value.get(..SHOWN_BYTES_MAX).unwrap_or(value);
    let more = if head.len() < value.len() { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(head))
}
