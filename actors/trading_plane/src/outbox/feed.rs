//! Feed: the journal's events for whoever listens to this service itself, as server-sent events do.
//!
//! It reads what is durable, from any position on, and waits for nobody: neither the bus nor other listeners.

use std::sync::Arc;

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit};
use orchestrator_kernel::trading::event::{EventBreak, EventCursor, TradingEvent};
use orchestrator_kernel::trading::ids::JournalSeq;
use tokio::sync::watch;

use crate::journal::messages::JournalCommitted;
use crate::view::TradingView;

/// One reading of the journal: what a slow listener holds.
const FEED_READ: ReadLimit = ReadLimit { records: 256, bytes: 256 << 10 };
/// Shown cycles that a feed looks at, to name what began before its position.
const NAMED_CYCLES_MAX: usize = 1000;

/// Position of an event: its record, and which of the record's events it is, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPosition {
    /// The record.
    pub seq: JournalSeq,
    /// Which of its events.
    pub index: u32,
}

/// Reason for which a feed has ended.
#[derive(Debug, thiserror::Error)]
pub enum EventFeedError {
    /// Records from the asked position on are no longer in the journal.
    #[error("events from record {asked} on are no longer kept, the first one is {start}")]
    Trimmed {
        /// The first record that was asked for.
        asked: JournalSeq,
        /// The first one that there is.
        start: JournalSeq,
    },
    /// The journal could not be read.
    #[error("events cannot be read from the journal")]
    Journal(#[from] ReadError),
    /// The journal's records do not continue each other.
    #[error(transparent)]
    Broken(#[from] EventBreak),
    /// The trading plane has ended.
    #[error("the trading plane has ended")]
    Ended,
}

/// Events of the journal from a position on, as they become durable.
pub struct EventFeed {
    journal: Arc<dyn Log>,
    committed: watch::Receiver<JournalCommitted>,
    cursor: EventCursor,
    /// Events before this one are not wanted.
    from: Option<EventPosition>,
}

impl EventFeed {
    /// The events from `from` on; without it, those that become durable from now on.
    pub(crate) fn open(
        journal: Arc<dyn Log>,
        committed: watch::Receiver<JournalCommitted>,
        view: &TradingView,
        from: Option<EventPosition>,
    ) -> Self {
        let first = match from {
            Some(position) => position.seq.max(JournalSeq(1)),
            None => committed.borrow().tail.next(),
        };
        let mut cursor = EventCursor::begin_at(first);
        for shown in view.last_cycles(NAMED_CYCLES_MAX, |cycle| cycle.first_seq.is_none_or(|seq| seq < first))
        {
            cursor.name_cycle(shown.state.started());
        }
        if committed.borrow().tail < first {
            // Strategies are then as they are shown.
            for known in view.list_strategies() {
                cursor.name_strategy(&known.definition.name, known.status);
            }
        }
        Self { journal, committed, cursor, from }
    }

    /// The last record whose events were told, or that had none.
    #[must_use]
    pub const fn reached_record(&self) -> JournalSeq {
        self.cursor.position()
    }

    /// The next events, at least one, each with its position. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`EventFeedError`]: there are no more.
    pub async fn next_events(&mut self) -> Result<Vec<(EventPosition, TradingEvent)>, EventFeedError> {
        loop {
            let tail = self.committed.borrow_and_update().tail;
            if tail <= self.cursor.position() {
                self.committed.changed().await.map_err(|_| EventFeedError::Ended)?;
                continue;
            }
            let events = self.read_events(tail).await?;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    async fn read_events(
        &mut self,
        tail: JournalSeq,
    ) -> Result<Vec<(EventPosition, TradingEvent)>, EventFeedError> {
        let first = self.cursor.position().next();
        let start = JournalSeq::from(self.journal.stat().start.max(Seq(1)));
        if first < start {
            return Err(EventFeedError::Trimmed { asked: first, start });
        }
        let wanted = usize::try_from(tail.0.saturating_sub(first.0).saturating_add(1)).unwrap_or(usize::MAX);
        let limit = ReadLimit { records: FEED_READ.records.min(wanted), ..FEED_READ };
        let batch = self.journal.read(first.into(), limit).await?;
        let (mut told, mut of_record) = (Vec::new(), Vec::new());
        for (seq, bytes) in batch.iter() {
            let seq = JournalSeq::from(seq);
            self.cursor.take_record(seq, bytes, &mut of_record)?;
            let positions = (0..).map(|index| EventPosition { seq, index });
            told.extend(positions.zip(of_record.drain(..)).filter(|(at, _)| self.from <= Some(*at)));
        }
        Ok(told)
    }
}
