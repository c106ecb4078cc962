//! Planted defects that are ports: each breaks its contract in one way, around a port that keeps it.
//!
//! So a reader of the product meets the right program only, and the simulation is shown to see what it has to see.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::retention::BASE;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::mutants::{self, Mutant};
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError, SaveError};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use orchestrator_runtime::testkit::{EARLY_LOG_LATE, EarlyLog};

use crate::tree::Ports;

/// The ports, with the defect that is planted on this thread if it is one of a port.
#[must_use]
pub fn plant_in_ports(ports: Ports) -> Ports {
    match mutants::current() {
        Some(Mutant::NewPositionsAfterUnknown) => in_every_log(ports, LogDefect::AppendsBehindTheTail),
        Some(Mutant::FencedGoesOn) => in_every_log(ports, LogDefect::HidesItsSuccessor),
        Some(Mutant::AcknowledgesBeforeAppend) => {
            let receipts = EarlyLog::around(&ports.receipts, |_| true);
            Ports { receipts, ..ports }
        }
        Some(Mutant::CallsBeforeStarted) => {
            let runs = EarlyLog::around(&ports.runs, has_started_record);
            Ports { runs, ..ports }
        }
        Some(Mutant::PublishesBeforeDurable) => {
            let runs = EarlyLog::around(&ports.runs, has_terminal_record);
            Ports { runs, ..ports }
        }
        Some(Mutant::TrimsBeforeBase) => {
            let inner = Arc::clone(&ports.checkpoints);
            Ports { checkpoints: Arc::new(LateBase { inner }), ..ports }
        }
        // The others are lines of the product.
        Some(_) | None => ports,
    }
}

fn in_every_log(ports: Ports, defect: LogDefect) -> Ports {
    Ports {
        receipts: DefectiveLog::around(&ports.receipts, defect),
        quarantine: DefectiveLog::around(&ports.quarantine, defect),
        runs: DefectiveLog::around(&ports.runs, defect),
        ..ports
    }
}

/// Breach of a log's contract.
#[derive(Clone, Copy)]
enum LogDefect {
    /// A batch that was not answered is sent again behind the tail instead of at its positions.
    AppendsBehindTheTail,
    /// A writer that was superseded is not told, but asked to come again.
    HidesItsSuccessor,
}

/// A log with a defect in its appends.
struct DefectiveLog {
    inner: Arc<dyn Log>,
    defect: LogDefect,
}

impl DefectiveLog {
    fn around(log: &Arc<dyn Log>, defect: LogDefect) -> Arc<dyn Log> {
        Arc::new(Self { inner: Arc::clone(log), defect })
    }
}

#[async_trait]
impl Log for DefectiveLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.inner.acquire().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        match self.defect {
            LogDefect::AppendsBehindTheTail => match self.inner.append(epoch, batch).await {
                Err(AppendError::Unknown { .. }) => {
                    let mut moved = RecordBatch::starting_at(self.inner.stat().tail.next());
                    batch.iter().for_each(|(_, payload)| moved.push(payload));
                    self.inner.append(epoch, &moved).await
                }
                known => known,
            },
            LogDefect::HidesItsSuccessor => match self.inner.append(epoch, batch).await {
                Err(AppendError::Fenced { .. }) => {
                    Err(AppendError::Unknown { source: std::io::Error::other("come again") })
                }
                known => known,
            },
        }
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
}

fn has_started_record(batch: &RecordBatch) -> bool {
    batch.iter().filter_map(|(_, payload)| RunRecord::decode(payload).ok()).any(|run| !run.is_terminal())
}

fn has_terminal_record(batch: &RecordBatch) -> bool {
    batch.iter().filter_map(|(_, payload)| RunRecord::decode(payload).ok()).any(|run| run.is_terminal())
}

/// Checkpoints of which the base is confirmed before it is saved.
struct LateBase {
    inner: Arc<dyn CheckpointStore>,
}

#[async_trait]
impl CheckpointStore for LateBase {
    async fn load(&self, name: &str) -> Result<Option<Bytes>, LoadError> {
        self.inner.load(name).await
    }

    async fn save(&self, name: &str, epoch: Epoch, value: Bytes) -> Result<(), SaveError> {
        if name != BASE {
            return self.inner.save(name, epoch, value).await;
        }
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            tokio::time::sleep(EARLY_LOG_LATE).await;
            inner.save(BASE, epoch, value).await
        });
        Ok(())
    }
}
