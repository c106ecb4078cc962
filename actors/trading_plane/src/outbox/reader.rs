//! Reader: makes events of the journal's records, from a saved cursor on.
//!
//! ```text
//! saved cursor ─── is it this journal's? ─┬─ yes ─▶ goes on behind it
//!                                         └─ no, damaged, or none ─▶ from the journal's beginning, once more
//! ```
//!
//! An event that comes once more has the identifier that it had, so that consumers recognise it; one that was never
//! published has another. So a doubt is settled by publishing again.

use std::sync::Arc;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError};
use orchestrator_kernel::ports::event_bus::{EventMessage, EventsNotTaken};
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit, RecordBatch};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::trading::event::{EventBreak, EventCursor, EventStyle};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::SealedEntry;
use orchestrator_runtime::checkpoint::load_saved;

use super::PublishFrom;
use crate::journal::messages::JournalCommitted;

/// The cursor's name among the saved values.
pub const EVENT_CURSOR: &str = "trading_events";

/// Reason for which the outbox does not go on now.
#[derive(Debug, thiserror::Error)]
pub enum OutboxTrouble {
    /// The bus did not take events.
    #[error(transparent)]
    Bus(#[from] EventsNotTaken),
    /// Its cursor could not be read.
    #[error("the outbox cannot read how far it has published")]
    Cursor(#[from] LoadError),
    /// A cursor that is new could not be saved: a crash would make the next start begin elsewhere.
    #[error("the outbox cannot save where it begins to publish")]
    NotSaved,
    /// The journal could not be read.
    #[error("the outbox cannot read the journal")]
    Journal(#[from] ReadError),
    /// The journal has no record where there has to be one.
    #[error("the journal ends before record {0}, which is durable")]
    NoRecord(JournalSeq),
    /// The journal's records do not continue each other.
    #[error(transparent)]
    Broken(#[from] EventBreak),
}

/// Events of records that were read, as far as the bus has not confirmed them.
pub(super) struct PendingEvents {
    pub(super) events: Vec<EventMessage>,
    /// How many of them are confirmed, from the first.
    pub(super) confirmed: usize,
    /// The cursor once all of them are.
    pub(super) behind: EventCursor,
}

/// The outbox's way to the journal and to its cursor.
#[derive(Clone)]
pub(super) struct OutboxReader {
    pub(super) journal: Arc<dyn Log>,
    pub(super) checkpoints: Arc<dyn CheckpointStore>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) style: EventStyle,
    pub(super) from: PublishFrom,
    /// Records that are read at once, at least one.
    pub(super) records_max: usize,
}

impl OutboxReader {
    /// The events of the next records behind `cursor`; nothing when there is none that is durable.
    pub(super) async fn read_next(
        &self,
        cursor: &EventCursor,
        committed: &JournalCommitted,
    ) -> Result<Option<PendingEvents>, OutboxTrouble> {
        if committed.tail <= cursor.position() {
            return Ok(None);
        }
        let next = Seq::from(cursor.position().next());
        let newest = &committed.batch;
        // The last commit, if it comes next, need not be read back.
        let is_at_hand = newest.first_seq() == next && (1..=self.records_max.max(1)).contains(&newest.len());
        let read;
        let records = match is_at_hand {
            true => newest.as_ref(),
            false => {
                read = self.read_journal(next, committed.tail).await?;
                &read
            }
        };
        let (mut behind, mut events) = (cursor.clone(), Vec::new());
        for (seq, bytes) in records.iter() {
            behind.take_record(seq.into(), bytes, &mut events)?;
        }
        let events = events.iter().map(|event| event.to_message(&self.style)).collect();
        Ok(Some(PendingEvents { events, confirmed: 0, behind }))
    }

    async fn read_journal(&self, first: Seq, last: JournalSeq) -> Result<RecordBatch, OutboxTrouble> {
        let count = usize::try_from(last.0.saturating_sub(first.0).saturating_add(1)).unwrap_or(usize::MAX);
        let limit = ReadLimit { records: self.records_max.max(1).min(count), ..ReadLimit::default() };
        let batch = self.journal.read(first, limit).await?;
        if batch.is_empty() { Err(OutboxTrouble::NoRecord(first.into())) } else { Ok(batch) }
    }

    /// The cursor from which to go on, and whether it has to be saved first. One that is damaged, or of another
    /// journal, is replaced by one before the first record: something was published, and nobody knows how much.
    pub(super) async fn open_cursor(
        &self,
        committed: &JournalCommitted,
    ) -> Result<(EventCursor, bool), OutboxTrouble> {
        let decode = |bytes: &[u8]| EventCursor::decode(bytes).ok();
        let begin = EventCursor::begin_at(JournalSeq::from(self.journal.stat().start.max(Seq(1))));
        let saved = match load_saved(self.checkpoints.as_ref(), EVENT_CURSOR, decode).await {
            Ok(saved) => saved,
            Err(error @ LoadError::Damaged { .. }) => {
                tracing::warn!(%error, "the cursor of events is damaged: they are published from the beginning");
                self.observer.observe(&Observation::CheckpointDamaged { name: EVENT_CURSOR });
                return Ok((begin, false));
            }
            Err(error @ LoadError::Io(_)) => return Err(error.into()),
        };
        let Some(cursor) = saved else {
            // Another start would begin elsewhere.
            let has_to_be_saved = self.from == PublishFrom::Latest;
            return Ok((self.first_cursor(begin, committed), has_to_be_saved));
        };
        let tail = committed.tail;
        match self.find_difference(&cursor, tail).await? {
            None => Ok((cursor, false)),
            Some(difference) => {
                tracing::warn!(
                    position = cursor.position().0,
                    tail = tail.0,
                    difference,
                    "the journal is not the one that events were published from: all that it has is published"
                );
                Ok((begin, false))
            }
        }
    }

    /// The cursor of a bus to which nothing was published before.
    fn first_cursor(&self, begin: EventCursor, committed: &JournalCommitted) -> EventCursor {
        match self.from {
            PublishFrom::Earliest => begin,
            PublishFrom::Latest => {
                let opened = committed.opened.as_ref();
                tracing::info!(
                    behind = opened.position().0,
                    "nothing was published before: events from this start on are, what is older is not"
                );
                opened.clone()
            }
        }
    }

    /// Why the cursor is not this journal's; nothing when it is.
    async fn find_difference(
        &self,
        cursor: &EventCursor,
        tail: JournalSeq,
    ) -> Result<Option<&'static str>, OutboxTrouble> {
        let (position, start) = (cursor.position(), JournalSeq::from(self.journal.stat().start));
        let Some(hash) = cursor.chain_hash() else {
            let is_before = position.next() < start;
            return Ok(is_before.then_some("records that were not published are gone"));
        };
        if tail < position {
            return Ok(Some(
                "it ends before what was published: it was restored from an older copy, or is new",
            ));
        }
        if position.next() < start {
            return Ok(Some("records that were not published are gone"));
        }
        if position < start {
            // The record itself is gone; the next one's hash tells.
            return Ok(None);
        }
        let batch = self.read_journal(position.into(), position).await?;
        let found = batch.iter().next().and_then(|(_, bytes)| SealedEntry::decode(bytes).ok());
        let is_same = found.is_some_and(|sealed| sealed.hash == hash);
        Ok((!is_same).then_some("its record at that position is another one"))
    }

    /// Saves a cursor. One that could not be saved only makes the next start publish more again.
    pub(super) async fn save_cursor(&self, cursor: &EventCursor, epoch: Epoch) -> bool {
        let mut bytes = Vec::new();
        cursor.encode_to(&mut bytes);
        match self.checkpoints.save(EVENT_CURSOR, epoch, bytes.into()).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the cursor of events is not saved; a crash would publish more again");
                false
            }
        }
    }
}
