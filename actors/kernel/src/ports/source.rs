//! The port of a source of raw receipts.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::{Origin, TsMs};

/// Something that claims to be a receipt, exactly as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawItem {
    /// Position in its origin: 1, 2, 3 …, never reused. `None` when the origin cannot number its items (a producer that
    /// did not ask for it): then a retransmission is a new receipt.
    pub position: Option<u64>,
    /// The bytes.
    pub bytes: Bytes,
    /// How many bytes it had when the source did not hold the whole; `bytes` is then its beginning. Only for an item
    /// that stays where it came from: what is acknowledged is kept by nobody else.
    pub oversized: Option<u64>,
    /// The topic that it came by, of a source that was asked to tell it.
    pub topic: Option<Box<str>>,
}

/// Positions in one origin that a batch stands for, those of refused items included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionSpan {
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

impl PositionSpan {
    /// The span of `items`; nothing when they have no positions.
    #[must_use]
    pub fn of_items(items: &[RawItem]) -> Option<Self> {
        Some(Self { first: items.first()?.position?, last: items.last()?.position? })
    }

    /// The part up to `upto`, and what is left behind it.
    #[must_use]
    pub const fn split_after(self, upto: u64) -> (Self, Option<Self>) {
        let left = if upto < self.last { Some(Self { first: upto + 1, last: self.last }) } else { None };
        (Self { first: self.first, last: upto }, left)
    }
}

/// Items that are acknowledged together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceBatch {
    /// Names the batch in [`Source::settle_batch`]; unique within the source's life.
    pub id: u64,
    /// Where the items come from.
    pub origin: Origin,
    /// The items in order.
    pub items: Vec<RawItem>,
}

/// Fate of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemFate {
    /// Durable in the receipt log.
    Appended,
    /// Already there from an earlier transmission: same origin, same position.
    Duplicate,
    /// Not a receipt. Durable in the quarantine, with this reason.
    Quarantined(String),
}

/// Outcome of a batch, told to its source: durable, or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Everything is durable: acknowledge upstream (LOG-2). One fate an item, in order.
    Durable(Vec<ItemFate>),
    /// The items skip positions of their origin: nothing was stored. The producer must go on from `expected`.
    Gap {
        /// The next position that the log takes from this origin.
        expected: u64,
    },
    /// Not stored, and asking again cannot help until somebody acts. Only for a batch whose origin is not the source's
    /// own.
    Denied {
        /// What stands in the way, and what to do.
        reason: String,
    },
    /// Not stored, or not known to be: do not acknowledge. A pull source offers the same items again.
    Refused {
        /// What stands in the way, for people.
        reason: String,
        /// Whether it is a lack of room or time that passes by itself.
        retry_after_ms: u64,
    },
}

/// Something that a source can show to be missing or odd where it reads from. It is told and counted; what it concerns
/// is never half taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceOddity {
    /// Items were removed before they were read.
    Missing {
        /// How many; nothing when that cannot be known.
        count: Option<u64>,
        /// Where, and how it is known.
        detail: String,
    },
    /// An item holds more than the receipt that was taken from it.
    Extra {
        /// What else it holds.
        detail: String,
    },
    /// What it reads from is of another kind than was asked for.
    OtherKind {
        /// How it is, and what does not hold because of it.
        detail: String,
    },
}

impl SourceOddity {
    /// Every word.
    pub const WORDS: [&'static str; 3] = ["missing", "extra", "other_kind"];

    /// The stable word, a label of the metric.
    #[must_use]
    pub const fn oddity_word(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Extra { .. } => "extra",
            Self::OtherKind { .. } => "other_kind",
        }
    }

    /// How many items it concerns; at least one.
    #[must_use]
    pub fn item_count(&self) -> u64 {
        match self {
            Self::Missing { count, .. } => count.unwrap_or(1).max(1),
            Self::Extra { .. } | Self::OtherKind { .. } => 1,
        }
    }

    /// What exactly.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Missing { detail, .. } | Self::Extra { detail } | Self::OtherKind { detail } => detail,
        }
    }
}

/// Reason for which a source has no next batch.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The connection or file failed; opening it again may help.
    #[error("source failed: {detail}")]
    Lost {
        /// What happened, without secrets.
        detail: String,
    },
    /// Opening it again cannot help.
    #[error("source cannot be read: {detail}")]
    Fatal {
        /// What happened and what to do.
        detail: String,
    },
}

/// Position from which a source goes on after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResumeAt {
    /// The last position of this origin that is in the receipt log; 0 when none.
    pub position: u64,
    /// The largest `ingest_ts_ms` of the log, if any.
    pub ingest_ts_ms: Option<TsMs>,
}

/// A stream of items with acknowledgement.
#[async_trait]
pub trait Source: Send {
    /// The next batch; `None` when the source has ended for good. Must be cancel safe: nothing is lost when the future
    /// is dropped before it is ready.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError>;

    /// Reports what became of a batch, in the order in which the batches came.
    ///
    /// After [`Settlement::Refused`] ingest asks for no further batch until `retry_after_ms` have passed, so a source
    /// need not wait itself; what it has given must come again, before anything new.
    ///
    /// # Errors
    ///
    /// [`SourceError`] when the acknowledgement could not be given; the items may then come again.
    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError>;

    /// What was found missing or odd since the last call. Asked for after each batch, and when the source was opened.
    fn take_oddities(&mut self) -> Vec<SourceOddity> {
        Vec::new()
    }

    /// The time at which a driven clock takes the unsettled item at `position`. `None`, which is the rule: that of the
    /// receipt itself, its `recv_ts_ms`. A source that repeats recorded receipts may know when they were recorded.
    fn taken_at(&self, _position: u64) -> Option<TsMs> {
        None
    }
}

/// The producers' end of a source that is sent its items: the way of posted receipts to ingest.
#[async_trait]
pub trait Intake: Send + Sync {
    /// The ordered channel of a producer that numbers its receipts; without a producer, the channel of those that do
    /// not.
    fn origin_of_producer(&self, producer: Option<&str>) -> Origin;

    /// Offers items and waits for what becomes of them. They have positions either all or none.
    ///
    /// When the future is dropped the items may or may not be stored.
    ///
    /// # Errors
    ///
    /// [`TurnedAway`] at once, with nothing stored, when they cannot even wait.
    async fn submit_items(&self, origin: Origin, items: Vec<RawItem>) -> Result<Settlement, TurnedAway>;
}

/// Reason for which items were not taken. Nothing of them is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// As many wait as may wait.
    #[error("as many receipts wait for ingestion as may wait")]
    Busy {
        /// When to come again.
        retry_after: Duration,
    },
    /// The service stops.
    #[error("the service is stopping")]
    Closed {
        /// When to come again.
        retry_after: Duration,
    },
}

/// Opens a source, again after each restart of its ingest actor.
#[async_trait]
pub trait SourceFactory: Send + Sync {
    /// Name from the configuration; also the origin of a source that numbers its items itself.
    fn name(&self) -> &str;

    /// Opens the source after `resume`.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    async fn open_source(&self, resume: ResumeAt) -> Result<Box<dyn Source>, SourceError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_split_into_what_is_taken_and_what_is_left() {
        let item = |position| RawItem { position, bytes: Bytes::new(), oversized: None, topic: None };
        let span = PositionSpan::of_items(&[item(Some(3)), item(Some(4)), item(Some(5))]).unwrap();

        assert_eq!(span, PositionSpan { first: 3, last: 5 });
        let (taken, left) = span.split_after(4);
        assert_eq!(
            (taken, left),
            (PositionSpan { first: 3, last: 4 }, Some(PositionSpan { first: 5, last: 5 }))
        );
        assert_eq!(span.split_after(5), (span, None));
        assert_eq!((PositionSpan::of_items(&[item(None)]), PositionSpan::of_items(&[])), (None, None));
    }
}
