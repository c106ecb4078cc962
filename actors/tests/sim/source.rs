//! A producer with its own memory: it keeps what was not acknowledged, and offers it again.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_actors::testkit::{CrashPoint, item};
use orchestrator_kernel::ids::Origin;
use orchestrator_kernel::ports::source::{
    ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ports::Process;
use crate::world::World;

#[derive(Debug, Default)]
struct Inner {
    /// Everything that the producer has, in order.
    items: Vec<Bytes>,
    /// Where the next batch begins.
    at: usize,
    /// Items that were acknowledged.
    acknowledged: BTreeSet<usize>,
    /// Up to where everything was acknowledged.
    settled: usize,
    /// Batches that were offered and not settled: id, first item, items.
    offered: VecDeque<(u64, usize, usize)>,
    next_id: u64,
    /// Raised by each opening: what an earlier connection says no longer counts.
    connection: u64,
}

impl Inner {
    fn settle(&mut self) {
        while self.acknowledged.remove(&self.settled) {
            self.settled += 1;
        }
    }
}

/// A producer.
pub(crate) struct SimSource {
    name: &'static str,
    /// Whether it numbers its items; a queue does not, and its redeliveries are receipts again.
    numbered: bool,
    /// Items in a batch, at most.
    batch_max: usize,
    world: Arc<World>,
    inner: Arc<Mutex<Inner>>,
    more: Arc<Notify>,
    process: Process,
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimSource {
    pub(crate) fn new(name: &'static str, numbered: bool, batch_max: usize, world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            name,
            numbered,
            batch_max,
            world: Arc::clone(world),
            inner: Arc::default(),
            more: Arc::default(),
            process: Process::default(),
        })
    }

    pub(crate) fn set_process(&self, crash: &CrashPoint) {
        self.process.set(crash);
    }

    pub(crate) fn push(&self, items: impl IntoIterator<Item = Bytes>) {
        lock(&self.inner).items.extend(items);
        self.more.notify_one();
    }

    /// Goes back by this many items, as a producer that did not see the acknowledgement.
    pub(crate) fn repeat(&self, items: usize) {
        let mut inner = lock(&self.inner);
        inner.at = inner.at.saturating_sub(items);
        drop(inner);
        self.more.notify_one();
    }

    /// Goes on after this many further items, as a producer that forgot some; of no effect without numbers.
    pub(crate) fn leave_out(&self, items: usize) {
        if self.numbered {
            let mut inner = lock(&self.inner);
            inner.at = (inner.at + items).min(inner.items.len());
        }
    }

    /// Items that are not acknowledged.
    pub(crate) fn unsettled(&self) -> usize {
        let inner = lock(&self.inner);
        inner.items.len() - inner.settled
    }

    /// A producer that forgot items remembers them: it goes back to the first one that was never acknowledged.
    pub(crate) fn remember(&self) {
        let mut inner = lock(&self.inner);
        inner.at = inner.at.min(inner.settled);
        drop(inner);
        self.more.notify_one();
    }

    /// Everything is stored: with numbers once, without them at least once.
    pub(crate) fn check_stored(&self) -> Result<(), String> {
        let inner = lock(&self.inner);
        for (item, index) in inner.items.iter().zip(1..) {
            let times = self.world.audit(|audit| Ok(audit.stored(item)));
            if times == 0 || (self.numbered && times > 1) {
                return Err(format!("item {index} of {} is stored {times} times", self.name));
            }
        }
        Ok(())
    }
}

/// A producer, as one process opens it.
pub(crate) struct OfProcess {
    /// Which process. One that was overtaken does not know what its successor stored.
    pub(crate) life: u64,
    pub(crate) source: Arc<SimSource>,
}

#[async_trait]
impl SourceFactory for OfProcess {
    fn name(&self) -> &str {
        self.source.name
    }

    async fn open_source(&self, resume: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        let resume = Some(resume.position).filter(|_| self.source.world.life() == self.life);
        self.source.open(resume).await
    }
}

impl SimSource {
    /// Opens a connection. `resume` is how far the log has come, as the process that asks must know it.
    async fn open(&self, resume: Option<u64>) -> Result<Box<dyn Source>, SourceError> {
        self.world.called().await;
        let crash = self.process.now();
        crash.step().await;
        if self.world.happens(self.world.weather().source) {
            self.world.saw("source cannot be opened");
            self.world.caused("ingest");
            return Err(SourceError::Lost { detail: "as told".to_owned() });
        }
        let mut inner = lock(&self.inner);
        inner.at = inner.settled;
        inner.offered.clear();
        inner.connection += 1;
        let connection = inner.connection;
        self.more.notify_waiters();
        self.world.note(format_args!("open {} behind {}, log at {resume:?}", self.name, inner.settled));
        if self.numbered && resume.is_some_and(|position| (position as usize) < inner.settled) {
            self.world.violated(format!(
                "LOG-2: {} resumes at {resume:?}, but {} were acknowledged",
                self.name, inner.settled
            ));
        }
        Ok(Box::new(Open {
            name: self.name,
            numbered: self.numbered,
            batch_max: self.batch_max,
            connection,
            world: Arc::clone(&self.world),
            inner: Arc::clone(&self.inner),
            more: Arc::clone(&self.more),
            crash,
            not_before: Instant::now(),
        }))
    }
}

struct Open {
    name: &'static str,
    numbered: bool,
    batch_max: usize,
    connection: u64,
    world: Arc<World>,
    inner: Arc<Mutex<Inner>>,
    more: Arc<Notify>,
    crash: CrashPoint,
    /// The end of the time that a refusal asked for.
    not_before: Instant,
}

impl Open {
    fn offer(&self) -> Option<SourceBatch> {
        let mut inner = lock(&self.inner);
        let left = inner.items.len().saturating_sub(inner.at);
        if left == 0 {
            return None;
        }
        let count = (1 + self.world.below(self.batch_max as u64) as usize).min(left);
        let first = inner.at;
        let items = inner.items[first..first + count].iter().zip(first as u64 + 1..);
        let items = items
            .map(|(bytes, position)| item(if self.numbered { position } else { 0 }, bytes.clone()))
            .collect();
        if first < inner.settled {
            self.world.saw("items offered again");
        }
        inner.at += count;
        inner.next_id += 1;
        let id = inner.next_id;
        inner.offered.push_back((id, first, count));
        self.world.note(format_args!("{} offers {}+{count}", self.name, first + 1));
        Some(SourceBatch { id, origin: Origin::from(self.name), items })
    }

    fn loses(&self, what: &'static str) -> Result<(), SourceError> {
        if !self.world.happens(self.world.weather().source / 2) {
            return Ok(());
        }
        self.world.saw(what);
        self.world.caused("ingest");
        if self.world.below(4) == 0 {
            panic!("{} panics, as told", self.name);
        }
        Err(SourceError::Lost { detail: "as told".to_owned() })
    }

    /// Takes the settlement in.
    fn take(&mut self, id: u64, settlement: &Settlement) {
        let mut inner = lock(&self.inner);
        if inner.connection != self.connection {
            return;
        }
        let Some((offered, first, count)) = inner.offered.pop_front().filter(|(offered, ..)| *offered == id)
        else {
            self.world.violated(format!("batch {id} of {} is settled out of order", self.name));
            return;
        };
        self.world.note(format_args!(
            "{} batch {offered} at {}+{count}: {settlement:?}",
            self.name,
            first + 1
        ));
        match settlement {
            Settlement::Durable(fates) => {
                if fates.len() != count {
                    self.world.violated(format!("{} fates for {count} items", fates.len()));
                }
                let items = inner.items[first..first + count].iter().map(Bytes::as_ref);
                self.world.audit(|audit| audit.settled(items, fates));
                inner.acknowledged.extend(first..first + count);
                inner.settle();
            }
            Settlement::Gap { expected } => {
                self.world.saw("gap refused");
                // No acknowledgement of what is before it: that may be on its way still, or half of a batch that was
                // refused. So the producer goes back to the first item that it has no answer for.
                inner.at = inner.at.min(*expected as usize - 1).min(inner.settled);
            }
            Settlement::Denied { reason } => {
                self.world.violated(format!("{} is a source of its own and is denied: {reason}", self.name));
            }
            Settlement::Refused { retry_after_ms, .. } => {
                self.world.saw("batch refused");
                inner.at = inner.at.min(first);
                self.not_before = Instant::now() + Duration::from_millis(*retry_after_ms);
            }
        }
    }
}

#[async_trait]
impl Source for Open {
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        if Instant::now() < self.not_before {
            self.world
                .violated(format!("{} is asked for a batch before a refusal's time is over", self.name));
        }
        self.world.called().await;
        self.crash.step().await;
        loop {
            let more = self.more.notified();
            if lock(&self.inner).connection != self.connection {
                self.world.caused("ingest");
                return Err(SourceError::Lost {
                    detail: "another connection took its place, as told".to_owned(),
                });
            }
            if let Some(batch) = self.offer() {
                self.loses("source lost with a batch offered")?;
                return Ok(Some(batch));
            }
            more.await;
        }
    }

    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError> {
        self.world.called().await;
        self.crash.step().await;
        self.loses("acknowledgement lost")?;
        self.take(id, &settlement);
        self.crash.step().await;
        Ok(())
    }
}
