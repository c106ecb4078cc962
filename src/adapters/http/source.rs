//! Receipts that come over HTTP: the bounded queue between the request handlers and ingest.
//!
//! ```text
//! handler ──submit──▶ queue ──next──▶ in flight ──settle──▶ the handler's answer
//!    429 ◀──Busy── (full)               │ source dropped
//!                                       └──▶ Refused
//! ```
//!
//! The queue outlives the source: when ingest restarts, batches in flight are refused (the client repeats them) and
//! queued ones are taken over by the next source.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::Origin;
use orchestrator_kernel::ports::source::{
    Intake, RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory, TurnedAway,
};
use tokio::sync::{Notify, oneshot};

/// The bounds of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpIntakeOptions {
    /// Batches that wait at most. At least 1.
    pub queue_batches_max: usize,
    /// Bytes of items that wait at most; a single larger batch is taken when nothing else waits.
    pub queue_bytes_max: usize,
    /// Batches that ingest may hold unsettled. At least 1.
    pub unsettled_batches_max: usize,
    /// When a client should come again after it was turned away.
    pub retry_after: Duration,
}

impl Default for HttpIntakeOptions {
    /// 256 batches, 32 MiB, 8 unsettled, one second.
    fn default() -> Self {
        Self {
            queue_batches_max: 256,
            queue_bytes_max: 32 << 20,
            unsettled_batches_max: 8,
            retry_after: Duration::from_secs(1),
        }
    }
}

/// The handlers' end of the queue. Clones share it.
#[derive(Clone, Debug)]
pub struct HttpIntake {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: Origin,
    options: HttpIntakeOptions,
    queue: Mutex<Queue>,
    /// A batch came, or the intake was closed. One source waits for it at a time.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Waiting {
    origin: Origin,
    items: Vec<RawItem>,
    bytes: usize,
    answer: oneshot::Sender<Settlement>,
}

impl HttpIntake {
    /// An empty queue for the source `name`: the handlers' end and ingest's end.
    #[must_use]
    pub fn new(name: &str, options: HttpIntakeOptions) -> (Self, HttpSourceFactory) {
        let shared = Arc::new(Shared {
            name: Origin::from(name),
            options,
            queue: Mutex::default(),
            changed: Notify::new(),
        });
        (Self { shared: Arc::clone(&shared) }, HttpSourceFactory { shared })
    }

    /// Queues a batch. Never waits.
    ///
    /// When the [`Submitted`] is dropped before ingest took the batch, nothing of it is stored; afterwards it may be.
    ///
    /// # Errors
    ///
    /// [`TurnedAway`]: the queue is full (status 429), or closed because the service stops (503).
    pub fn submit_batch(&self, origin: Origin, items: Vec<RawItem>) -> Result<Submitted, TurnedAway> {
        let HttpIntakeOptions { queue_batches_max, queue_bytes_max, retry_after, .. } = self.shared.options;
        let bytes = items.iter().map(|item| item.bytes.len()).sum::<usize>();
        let (answer, settled) = oneshot::channel();
        {
            let mut queue = self.shared.lock_queue();
            if queue.is_closed {
                return Err(TurnedAway::Closed { retry_after });
            }
            let has_room = |queue: &Queue| {
                queue.waiting.is_empty()
                    || (queue.waiting.len() < queue_batches_max
                        && queue.bytes.saturating_add(bytes) <= queue_bytes_max)
            };
            if !has_room(&queue) {
                queue.forget_abandoned();
            }
            if !has_room(&queue) {
                return Err(TurnedAway::Busy { retry_after });
            }
            queue.bytes += bytes;
            queue.waiting.push_back(Waiting { origin, items, bytes, answer });
        }
        self.shared.changed.notify_one();
        Ok(Submitted { settled, retry_after })
    }

    /// Closes the intake for good, when the service stops: queued batches are refused, later ones are turned away, and
    /// the source ends after what is in flight.
    pub fn close_intake(&self) {
        {
            let mut queue = self.shared.lock_queue();
            queue.is_closed = true;
            queue.bytes = 0;
            // A dropped answer is a refusal.
            queue.waiting.clear();
        }
        self.shared.changed.notify_one();
    }
}

#[async_trait]
impl Intake for HttpIntake {
    /// The origin of a producer that numbers its items: `http:<producer>`. Without a producer: the source's name, for
    /// items without a position.
    fn origin_of_producer(&self, producer: Option<&str>) -> Origin {
        match producer {
            Some(producer) => Origin::from(format!("http:{producer}").as_str()),
            None => self.shared.name.clone(),
        }
    }

    async fn submit_items(&self, origin: Origin, items: Vec<RawItem>) -> Result<Settlement, TurnedAway> {
        Ok(self.submit_batch(origin, items)?.await)
    }
}

impl Shared {
    fn lock_queue(&self) -> MutexGuard<'_, Queue> {
        // Every change under the lock is complete before it can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Forgets the batches whose answer nobody waits for any more.
    fn forget_abandoned(&mut self) {
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        self.bytes = self.waiting.iter().map(|waiting| waiting.bytes).sum();
    }

    /// The oldest batch whose answer somebody waits for.
    fn pop_wanted(&mut self) -> Option<Waiting> {
        while let Some(waiting) = self.waiting.pop_front() {
            self.bytes -= waiting.bytes;
            if !waiting.answer.is_closed() {
                return Some(waiting);
            }
        }
        None
    }
}

/// Settlement of a submitted batch, to be waited for. It always comes: a source that goes away refuses.
#[derive(Debug)]
pub struct Submitted {
    settled: oneshot::Receiver<Settlement>,
    retry_after: Duration,
}

impl Future for Submitted {
    type Output = Settlement;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Settlement> {
        let retry_after = self.retry_after;
        Pin::new(&mut self.settled).poll(context).map(|settled| match settled {
            Ok(settlement) => settlement,
            Err(_) => Settlement::Refused {
                reason: "ingest stopped before it answered; the items may or may not be stored".to_owned(),
                retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
            },
        })
    }
}

/// Ingest's end of the queue.
#[derive(Clone, Debug)]
pub struct HttpSourceFactory {
    shared: Arc<Shared>,
}

#[async_trait]
impl SourceFactory for HttpSourceFactory {
    fn name(&self) -> &str {
        self.shared.name.as_str()
    }

    /// Takes over the queue. Where to resume is the producers' business.
    async fn open_source(&self, _: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(HttpSource { shared: Arc::clone(&self.shared), in_flight: VecDeque::new(), next_id: 1 }))
    }
}

/// The queue as a source. Dropping it refuses what is in flight.
struct HttpSource {
    shared: Arc<Shared>,
    in_flight: VecDeque<(u64, oneshot::Sender<Settlement>)>,
    next_id: u64,
}

/// Answer of the queue to the source.
enum Taken {
    Batch(Waiting),
    Nothing,
    Closed,
}

impl HttpSource {
    fn take_batch(&self) -> Taken {
        let mut queue = self.shared.lock_queue();
        match queue.pop_wanted() {
            Some(waiting) => Taken::Batch(waiting),
            None if queue.is_closed => Taken::Closed,
            None => Taken::Nothing,
        }
    }
}

#[async_trait]
impl Source for HttpSource {
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        if self.in_flight.len() >= self.shared.options.unsettled_batches_max.max(1) {
            // A settlement needs `self` too, so it always comes after this future was dropped.
            return std::future::pending().await;
        }
        loop {
            match self.take_batch() {
                Taken::Batch(Waiting { origin, items, answer, .. }) => {
                    let id = self.next_id;
                    self.next_id += 1;
                    self.in_flight.push_back((id, answer));
                    return Ok(Some(SourceBatch { id, origin, items }));
                }
                Taken::Closed if self.in_flight.is_empty() => return Ok(None),
                Taken::Closed => return std::future::pending().await,
                // A batch that comes after the look leaves a permit: nothing is missed.
                Taken::Nothing => self.shared.changed.notified().await,
            }
        }
    }

    /// Passes every settlement on to the client, a refusal too: it repeats by itself.
    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError> {
        match self.in_flight.front() {
            Some((oldest, _)) if *oldest == id => {}
            oldest => {
                let oldest = oldest.map(|(id, _)| *id);
                let detail = format!("batch {id} was settled, but the oldest in flight is {oldest:?}");
                return Err(SourceError::Lost { detail });
            }
        }
        if let Some((_, answer)) = self.in_flight.pop_front()
            && answer.send(settlement).is_err()
        {
            tracing::debug!(batch = id, "client left before its batch was settled");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
