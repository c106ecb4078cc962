//! The journal of a service as configured, with a count of what is appended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use orchestrator::config::ClockMode;
use orchestrator::service::wiring::{StartOptions, Wired, wire_service};
use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::ids::{Epoch, LogIdentity, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use orchestrator_kernel::ports::observer::{Observation, Observer};

use super::engine_bed::{config, each_record};
use super::medium::{Medium, Rig};
use super::support::Outcome;

/// A journal, and what it stands on.
pub(crate) struct Journal {
    pub(crate) log: Arc<CountedLog>,
    pub(crate) rig: Rig,
    /// The rest of the service, which is not started, and holds the data directory.
    _rest: Wired,
}

impl Journal {
    /// Opens the journal of a service in `dir`, on files or on a server of its own.
    pub(crate) async fn open(medium: Medium, dir: &Path) -> Outcome<Self> {
        let rig = Rig::start(medium, false);
        let cadence = Cadence::Boundary { interval_ms: 60_000, delay_ms: 0 };
        let mut config = config(&dir.join("data"), cadence, ClockMode::Wall);
        config.sources.clear();
        config.trading.enabled = true;
        rig.apply(&mut config);
        let mut rest =
            wire_service(&config, StartOptions::default(), |_| Arc::new(Unheard) as Arc<dyn Observer>)
                .await?;
        let parts = rest.trading.take().ok_or("the wiring made no trading plane")?;
        let log = CountedLog {
            inner: parts.journal_log(),
            bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            appends: AtomicU64::new(0),
        };
        Ok(Self { log: Arc::new(log), rig, _rest: rest })
    }

    /// Every record.
    pub(crate) async fn records(&self) -> Outcome<Vec<Vec<u8>>> {
        let mut records = Vec::new();
        each_record(self.log.as_ref(), |_, payload| {
            records.push(payload.to_vec());
            Ok(())
        })
        .await?;
        Ok(records)
    }
}

struct Unheard;

impl Observer for Unheard {
    fn observe(&self, _: &Observation<'_>) {}
}

/// What was appended to a journal so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) appends: u64,
}

/// A log that counts.
pub(crate) struct CountedLog {
    inner: Arc<dyn Log>,
    bytes: AtomicU64,
    records: AtomicU64,
    appends: AtomicU64,
}

impl CountedLog {
    /// What was appended so far.
    pub(crate) fn appended(&self) -> Appended {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Appended { bytes: of(&self.bytes), records: of(&self.records), appends: of(&self.appends) }
    }

    /// What was appended since then.
    pub(crate) fn appended_since(&self, before: Appended) -> Appended {
        let now = self.appended();
        Appended {
            bytes: now.bytes - before.bytes,
            records: now.records - before.records,
            appends: now.appends - before.appends,
        }
    }
}

#[async_trait]
impl Log for CountedLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.inner.acquire().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        self.bytes.fetch_add(batch.payload_bytes() as u64, Ordering::Relaxed);
        self.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.appends.fetch_add(1, Ordering::Relaxed);
        self.inner.append(epoch, batch).await
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        self.inner.prove_room(epoch, size).await
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        self.inner.read(from, limit).await
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        self.inner.trim(epoch, below).await
    }

    fn stat(&self) -> LogStat {
        self.inner.stat()
    }

    fn identity(&self) -> Option<LogIdentity> {
        self.inner.identity()
    }
}
