//! Identifiers and quantities: one newtype each, so that a timestamp can never be passed for a position.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in milliseconds since the Unix epoch. Whose clock it is, the field's name says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TsMs(pub i64);

impl TsMs {
    /// The moment `ms` milliseconds later, saturating.
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl fmt::Display for TsMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! sequence {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The position right after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

sequence! {
    /// Position in some append-only log: 1, 2, 3 … without gap; 0 means "before the first".
    Seq
}
sequence! {
    /// Position in the receipt log (LOG-1). 0 means "before the first".
    IngestSeq
}
sequence! {
    /// Position in the run log. 0 means "before the first".
    RunSeq
}
sequence! {
    /// Generation of a log's writer; a larger one fences every smaller one (LOG-3).
    Epoch
}

/// Identity of a log: random, made up when the log is. Two logs have the same positions and not the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity(pub u64);

impl LogIdentity {
    /// Reads what [`Display`](fmt::Display) writes: exactly sixteen lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let digits = Some(text).filter(|text| text.len() == 16 && text.bytes().all(is_hex))?;
        u64::from_str_radix(digits, 16).ok().map(Self)
    }
}

impl fmt::Display for LogIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<IngestSeq> for Seq {
    fn from(value: IngestSeq) -> Self {
        Self(value.0)
    }
}
impl From<RunSeq> for Seq {
    fn from(value: RunSeq) -> Self {
        Self(value.0)
    }
}
impl From<Seq> for IngestSeq {
    fn from(value: Seq) -> Self {
        Self(value.0)
    }
}
impl From<Seq> for RunSeq {
    fn from(value: Seq) -> Self {
        Self(value.0)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                Self(Arc::from(value))
            }
        }

        impl From<Arc<str>> for $name {
            fn from(value: Arc<str>) -> Self {
                Self(value)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|name| Self(Arc::from(name)))
            }
        }
    };
}

name! {
    /// An instrument, as the receipts name it. 1 to 128 bytes, no control characters.
    Symbol
}
name! {
    /// The `event_type` of a receipt. Any string: unknown types are stored like known ones.
    EventType
}
name! {
    /// The `source_id` of a receipt: the system that observed it.
    SourceId
}
name! {
    /// One ordered channel into the receipt log: a configured source, or one producer of the HTTP source.
    ///
    /// Positions are per origin; they are what makes a retransmission recognisable.
    Origin
}

/// Bytes that a symbol may have.
pub const SYMBOL_BYTES_MAX: usize = 128;

impl Symbol {
    /// Tells whether `name` can be a symbol: 1 to 128 bytes without control characters.
    #[must_use]
    pub fn is_valid(name: &str) -> bool {
        !name.is_empty() && name.len() <= SYMBOL_BYTES_MAX && !name.chars().any(char::is_control)
    }
}

/// Entry point of the engine that a run uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineMode {
    /// `run(snapshot)`.
    #[default]
    Truth,
    /// `run_with_hysteresis(snapshot, state, config)`.
    Hysteresis,
}

impl EngineMode {
    /// The word on the wire and in `run_id`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Truth => "truth",
            Self::Hysteresis => "hysteresis",
        }
    }
}

/// Trigger of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutKind {
    /// A tick of the timer cadence.
    Timer,
    /// A boundary of the boundary cadence.
    Boundary,
}

impl CutKind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::Boundary => "boundary",
        }
    }
}
