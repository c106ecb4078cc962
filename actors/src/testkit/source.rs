//! A source that offers what the test gives it, and again what was not settled.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_kernel::ids::Origin;
use orchestrator_kernel::ports::source::{
    RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};
use orchestrator_runtime::testkit::CrashPoint;
use tokio::sync::Notify;

/// What one call of the source does instead of working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceAct {
    /// The connection is lost.
    Lose,
    /// It panics.
    Panic,
}

#[derive(Debug)]
struct Inner {
    /// Everything that the producer has, in order.
    items: Vec<Bytes>,
    /// Items of the batches to come; then all that is there, at most 8.
    batches: VecDeque<usize>,
    /// Where the next batch begins.
    at: usize,
    /// Up to where everything was acknowledged.
    settled: usize,
    /// Batches that were offered and not settled: id, first item, items.
    offered: VecDeque<(u64, usize, usize)>,
    settlements: Vec<Settlement>,
    opened: Vec<ResumeAt>,
    on_open: VecDeque<SourceAct>,
    on_next: VecDeque<SourceAct>,
    always_next: Option<SourceAct>,
    next_id: u64,
    ends: bool,
    numbered: bool,
    offered_max: usize,
}

/// A producer with its own memory: it keeps what was not acknowledged, as a broker or a file does.
#[derive(Debug)]
pub struct TestSource {
    name: String,
    inner: Arc<Mutex<Inner>>,
    more: Arc<Notify>,
    crash: Mutex<CrashPoint>,
}

impl TestSource {
    /// A source that numbers its items and stays open.
    #[must_use]
    pub fn named(name: &str) -> Arc<Self> {
        let inner = Inner {
            items: Vec::new(),
            batches: VecDeque::new(),
            at: 0,
            settled: 0,
            offered: VecDeque::new(),
            settlements: Vec::new(),
            opened: Vec::new(),
            on_open: VecDeque::new(),
            on_next: VecDeque::new(),
            always_next: None,
            next_id: 0,
            ends: false,
            numbered: true,
            offered_max: 0,
        };
        Arc::new(Self {
            name: name.to_owned(),
            inner: Arc::new(Mutex::new(inner)),
            more: Arc::default(),
            crash: Mutex::new(CrashPoint::never()),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Adds items to be offered as one batch.
    pub fn push(&self, items: impl IntoIterator<Item = Bytes>) {
        let items: Vec<Bytes> = items.into_iter().collect();
        let mut inner = self.inner();
        inner.batches.push_back(items.len());
        inner.items.extend(items);
        drop(inner);
        self.more.notify_one();
    }

    /// Offers what is left in batches of so many items first.
    pub fn batches(&self, items: impl IntoIterator<Item = usize>) {
        self.inner().batches = items.into_iter().collect();
    }

    /// Ends when everything was offered.
    pub fn end(&self) {
        self.inner().ends = true;
        self.more.notify_one();
    }

    /// From now on items have no positions.
    pub fn without_positions(&self) {
        self.inner().numbered = false;
    }

    /// Goes back by this many items, as a producer that did not see the acknowledgement.
    pub fn repeat(&self, items: usize) {
        let mut inner = self.inner();
        inner.at = inner.at.saturating_sub(items);
        inner.batches.push_back(items);
        drop(inner);
        self.more.notify_one();
    }

    /// Goes on after this many further items, as a producer that forgot some.
    pub fn leave_out(&self, items: usize) {
        self.inner().at += items;
    }

    /// Lets the next openings fail.
    pub fn on_open(&self, acts: impl IntoIterator<Item = SourceAct>) {
        self.inner().on_open.extend(acts);
    }

    /// Lets the next batches fail.
    pub fn on_next(&self, acts: impl IntoIterator<Item = SourceAct>) {
        self.inner().on_next.extend(acts);
        self.more.notify_one();
    }

    /// Lets every further batch fail; `None`: work.
    pub fn always_next(&self, act: Option<SourceAct>) {
        self.inner().always_next = act;
        self.more.notify_one();
    }

    /// From now on the steps of this point count.
    pub fn set_crash(&self, crash: &CrashPoint) {
        *self.crash.lock().unwrap_or_else(PoisonError::into_inner) = crash.clone();
    }

    /// Every settlement so far.
    #[must_use]
    pub fn settlements(&self) -> Vec<Settlement> {
        self.inner().settlements.clone()
    }

    /// Items acknowledged, from the first on.
    #[must_use]
    pub fn settled(&self) -> usize {
        self.inner().settled
    }

    /// Where it was opened, each time.
    #[must_use]
    pub fn opened(&self) -> Vec<ResumeAt> {
        self.inner().opened.clone()
    }

    /// Most items that were offered and not settled at one time.
    #[must_use]
    pub fn offered_max(&self) -> usize {
        self.inner().offered_max
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl SourceFactory for TestSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn open_source(&self, resume: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        let mut inner = self.inner();
        inner.opened.push(resume);
        match inner.on_open.pop_front() {
            None => {}
            Some(SourceAct::Lose) => return Err(SourceError::Lost { detail: "as told".to_owned() }),
            Some(SourceAct::Panic) => panic!("the source panics at its opening, as told"),
        }
        // What was offered and not acknowledged comes again, and is known by its positions.
        inner.at = inner.settled;
        inner.offered.clear();
        drop(inner);
        let crash = self.crash.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (inner, more) = (Arc::clone(&self.inner), Arc::clone(&self.more));
        Ok(Box::new(Open { origin: Origin::from(self.name.as_str()), inner, more, crash }))
    }
}

struct Open {
    origin: Origin,
    inner: Arc<Mutex<Inner>>,
    more: Arc<Notify>,
    crash: CrashPoint,
}

impl Open {
    /// The next batch; `None` when there is nothing to offer now.
    fn offer(&self) -> Result<Option<Option<SourceBatch>>, SourceError> {
        let mut inner = lock(&self.inner);
        match inner.on_next.pop_front().or(inner.always_next) {
            None => {}
            Some(SourceAct::Lose) => return Err(SourceError::Lost { detail: "as told".to_owned() }),
            Some(SourceAct::Panic) => {
                drop(inner);
                panic!("the source panics, as told");
            }
        }
        let left = inner.items.len().saturating_sub(inner.at);
        if left == 0 {
            return Ok(inner.ends.then_some(None));
        }
        let count = inner.batches.pop_front().unwrap_or(8).clamp(1, left);
        let first = inner.at;
        let numbered = inner.numbered;
        let items: Vec<RawItem> = inner.items[first..first + count]
            .iter()
            .zip(first as u64 + 1..)
            .map(|(bytes, position)| super::item(if numbered { position } else { 0 }, bytes.clone()))
            .collect();
        inner.at += count;
        inner.next_id += 1;
        let id = inner.next_id;
        inner.offered.push_back((id, first, count));
        let offered = inner.offered.iter().map(|(_, _, count)| count).sum();
        inner.offered_max = inner.offered_max.max(offered);
        Ok(Some(Some(SourceBatch { id, origin: self.origin.clone(), items })))
    }
}

#[async_trait]
impl Source for Open {
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        self.crash.step().await;
        loop {
            let more = self.more.notified();
            match self.offer()? {
                Some(batch) => return Ok(batch),
                None => more.await,
            }
        }
    }

    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError> {
        self.crash.step().await;
        {
            let mut inner = lock(&self.inner);
            inner.settlements.push(settlement.clone());
            let (offered, first, count) = inner.offered.pop_front().expect("settled what was not offered");
            assert_eq!(offered, id, "settled out of order");
            match settlement {
                Settlement::Durable(fates) => {
                    assert_eq!(fates.len(), count, "one fate an item");
                    inner.settled = inner.settled.max(first + count);
                }
                Settlement::Gap { expected } => {
                    inner.at = inner.at.min(usize::try_from(expected).expect("small") - 1);
                }
                Settlement::Refused { .. } | Settlement::Denied { .. } => inner.at = inner.at.min(first),
            }
        }
        self.crash.step().await;
        Ok(())
    }
}
