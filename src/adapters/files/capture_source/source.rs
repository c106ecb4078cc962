//! The source: hands over what the reading thread found, at the wanted pace, and offers again what was refused.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use orchestrator_kernel::ids::{Origin, TsMs};
use orchestrator_kernel::ports::source::{RawItem, Settlement, Source, SourceBatch, SourceError};
use orchestrator_kernel::ports::unsettled::{Turn, Unsettled};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::pace::Pace;
use super::reader::{self, Message, ReadingThread};
use super::{CaptureOptions, CaptureSpeed, Resume, fatal_error, lost_error};

/// Batches that may be unsettled at once.
pub(super) const UNSETTLED_BATCHES_MAX: usize = 8;

/// One opened capture file.
pub(super) struct CaptureSource {
    messages: mpsc::Receiver<Message>,
    unsettled: Unsettled,
    pace: Option<Pace>,
    /// Read, but not yet due.
    held: VecDeque<(RawItem, Option<TsMs>)>,
    end: Option<End>,
}

/// End of the reading: everything was read, or it failed.
enum End {
    Ended,
    Lost(String),
    Fatal(String),
}

impl CaptureSource {
    /// Opens the file of `options` behind its first `resume.position` items.
    ///
    /// # Errors
    ///
    /// See [`CaptureFactory::open`](super::CaptureFactory).
    pub(super) async fn open(
        options: &CaptureOptions,
        resume: Resume,
        bytes_read: Arc<AtomicU64>,
    ) -> Result<Self, SourceError> {
        let ReadingThread { opened, messages } = reader::start_thread(options, resume, bytes_read)?;
        opened.await.map_err(|_| thread_died())??;
        let pace = match options.speed {
            CaptureSpeed::Max => None,
            CaptureSpeed::Times(times) => Some(Pace::new(times)),
        };
        let unsettled = Unsettled::new(Origin::from(options.name.as_str()), UNSETTLED_BATCHES_MAX);
        Ok(Self { messages, unsettled, pace, held: VecDeque::new(), end: None })
    }

    /// The next items to hand over for the first time; `None` at the end.
    ///
    /// Cancel safe: what was received is in `held` or returned, with no wait between.
    async fn next_fresh_items(&mut self) -> Option<Vec<RawItem>> {
        loop {
            if self.end.is_some() {
                return None;
            }
            if let Some(pace) = &mut self.pace
                && !self.held.is_empty()
            {
                return Some(take_due(pace, &mut self.held).await);
            }
            match self.messages.recv().await {
                Some(Message::Chunk(chunk)) if self.pace.is_some() => {
                    self.held.extend(chunk.items.into_iter().zip(chunk.recorded));
                }
                Some(Message::Chunk(chunk)) => return Some(chunk.items),
                Some(Message::Ended) => self.end = Some(End::Ended),
                Some(Message::Failed(SourceError::Lost { detail })) => self.end = Some(End::Lost(detail)),
                Some(Message::Failed(SourceError::Fatal { detail })) => self.end = Some(End::Fatal(detail)),
                None => self.end = Some(End::Lost(thread_died().to_string())),
            }
        }
    }
}

/// Waits until the first held item is due and takes it with all that are due by then.
async fn take_due(pace: &mut Pace, held: &mut VecDeque<(RawItem, Option<TsMs>)>) -> Vec<RawItem> {
    if let Some((_, recorded)) = held.front() {
        let due = pace.due_time(*recorded, Instant::now());
        pace.tell_long_wait(due, Instant::now());
        tokio::time::sleep_until(due).await;
        pace.note_taken(due, Instant::now());
    }
    let now = Instant::now();
    let mut items = Vec::new();
    while let Some((item, recorded)) = held.pop_front() {
        // The first one is due: it was waited for.
        if !items.is_empty() && pace.due_time(recorded, now) > now {
            held.push_front((item, recorded));
            break;
        }
        items.push(item);
    }
    items
}

#[async_trait]
impl Source for CaptureSource {
    /// At the end, and at an error, it answers only once every batch is settled: until then a refused one may still
    /// have to come again.
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        match self.unsettled.next_turn() {
            Turn::Again(batch) => return Ok(Some(batch)),
            // A settlement needs `self` too, so it always comes after this future was dropped.
            Turn::Wait => return std::future::pending().await,
            Turn::Fresh => {}
        }
        match self.next_fresh_items().await {
            Some(items) => return Ok(Some(self.unsettled.hand_over(items))),
            None if !self.unsettled.is_empty() => return std::future::pending().await,
            None => {}
        }
        match &self.end {
            Some(End::Lost(detail)) => Err(lost_error(detail.clone())),
            Some(End::Fatal(detail)) => Err(fatal_error(detail.clone())),
            Some(End::Ended) | None => Ok(None),
        }
    }

    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError> {
        self.unsettled.settle_oldest(id, &settlement)
    }
}

fn thread_died() -> SourceError {
    lost_error("the reading thread ended without a word; see the log for its panic".to_owned())
}
