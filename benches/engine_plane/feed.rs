//! A source in memory: batches made by a function, so that its cost is not that of the system.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator::adapters::clock::WallClock;
use orchestrator_kernel::ids::{Origin, TsMs};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::source::{
    ItemFate, RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};

/// Makes batch 0, 1, 2 …; `None` ends the source.
type Make = Arc<dyn Fn(u64) -> Option<Vec<Bytes>> + Send + Sync>;

/// The source and what became of its items.
#[derive(Clone)]
pub(crate) struct Feed {
    make: Make,
    /// When a batch is due by the wall clock.
    due: Option<Arc<dyn Fn(u64) -> TsMs + Send + Sync>>,
    progress: Arc<Progress>,
}

/// What the feed has seen.
#[derive(Default)]
struct Progress {
    appended: AtomicU64,
    other: AtomicU64,
    span: Mutex<Option<(Instant, Instant)>>,
}

impl Feed {
    /// Hands over each batch as soon as it is asked for.
    pub(crate) fn new(make: impl Fn(u64) -> Option<Vec<Bytes>> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), due: None, progress: Arc::default() }
    }

    /// Hands over batch `i` at the time `due(i)`.
    pub(crate) fn paced(self, due: impl Fn(u64) -> TsMs + Send + Sync + 'static) -> Self {
        Self { due: Some(Arc::new(due)), ..self }
    }

    /// Items that became durable receipts.
    pub(crate) fn appended(&self) -> u64 {
        self.progress.appended.load(Ordering::Relaxed)
    }

    /// Items with any other fate.
    pub(crate) fn other(&self) -> u64 {
        self.progress.other.load(Ordering::Relaxed)
    }

    /// When the first batch was asked for and the last one was settled.
    pub(crate) fn span(&self) -> Option<(Instant, Instant)> {
        *self.progress.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, now: Instant) {
        let mut span = self.progress.span.lock().unwrap_or_else(PoisonError::into_inner);
        *span = Some((span.map_or(now, |(first, _)| first), now));
    }
}

#[async_trait]
impl SourceFactory for Feed {
    fn name(&self) -> &str {
        "bench"
    }

    async fn open_source(&self, resume: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Opened { feed: self.clone(), batch: 0, position: resume.position }))
    }
}

struct Opened {
    feed: Feed,
    batch: u64,
    position: u64,
}

#[async_trait]
impl Source for Opened {
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        if let Some(due) = &self.feed.due {
            WallClock.sleep_until(due(self.batch)).await;
        }
        if self.batch == 0 {
            self.feed.note(Instant::now());
        }
        let Some(events) = (self.feed.make)(self.batch) else { return Ok(None) };
        let first = self.position + 1;
        self.position += events.len() as u64;
        let items = (first..)
            .zip(events)
            .map(|(position, bytes)| RawItem {
                position: Some(position),
                bytes,
                oversized: None,
                topic: None,
            })
            .collect();
        let batch = SourceBatch { id: self.batch, origin: Origin::from("bench"), items };
        self.batch += 1;
        Ok(Some(batch))
    }

    async fn settle_batch(&mut self, _: u64, settlement: Settlement) -> Result<(), SourceError> {
        let (appended, other) = match settlement {
            Settlement::Durable(fates) => {
                let appended = fates.iter().filter(|fate| **fate == ItemFate::Appended).count() as u64;
                (appended, fates.len() as u64 - appended)
            }
            Settlement::Gap { .. } | Settlement::Denied { .. } | Settlement::Refused { .. } => (0, 1),
        };
        self.feed.progress.appended.fetch_add(appended, Ordering::Relaxed);
        self.feed.progress.other.fetch_add(other, Ordering::Relaxed);
        self.feed.note(Instant::now());
        Ok(())
    }
}

/// The name of symbol `index`.
pub(crate) fn symbol(index: u64) -> String {
    format!("SYM{index:05}")
}

/// Bytes of an event that [`trade`] and [`snapshot`] make.
pub(crate) const EVENT_BYTES: usize = 400;

/// A TradeTick of 400 bytes.
pub(crate) fn trade(symbol: &str, recv_ts_ms: i64, number: u64) -> Bytes {
    let normalized = format!(r#"{{"price":{},"quantity":1.5,"side":"buy"}}"#, 100 + number % 50);
    event("TradeTick", symbol, recv_ts_ms, &normalized)
}

/// A SnapshotInputs of 400 bytes for the engine time `engine_ts_ms`.
pub(crate) fn snapshot(symbol: &str, recv_ts_ms: i64, engine_ts_ms: i64) -> Bytes {
    let price = 100 + (engine_ts_ms / 10) % 7;
    let normalized = format!(
        r#"{{"timestamp_ms":{engine_ts_ms},"market":{{"price":{price}.5,"vwap":103.0,"atr":2.0}},"flow":{{"cvd":5.0,"cvd_slope":{price}.0}}}}"#
    );
    event("SnapshotInputs", symbol, recv_ts_ms, &normalized)
}

fn event(kind: &str, symbol: &str, recv_ts_ms: i64, normalized: &str) -> Bytes {
    let head = format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"{kind}","source_id":"bench","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":{recv_ts_ms},"raw_payload":""#
    );
    let tail = format!(r#"","normalized":{normalized}}}"#);
    let padding = EVENT_BYTES.saturating_sub(head.len() + tail.len());
    Bytes::from([head.as_str(), &"x".repeat(padding), &tail].concat())
}
