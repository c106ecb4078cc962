//! A log that confirms appends before they are durable: a defect for simulations to see.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use tokio::sync::Mutex;

/// How late a batch is that was confirmed early: everything that is ready goes before.
pub const EARLY_LOG_LATE: Duration = Duration::from_millis(1);

/// A log that confirms some batches early, around one that keeps its contract.
pub struct EarlyLog {
    inner: Arc<dyn Log>,
    is_early: fn(&RecordBatch) -> bool,
    /// Held by the append that was confirmed and is still on its way: the next one comes behind it.
    turn: Arc<Mutex<()>>,
}

impl EarlyLog {
    /// `log`, whose batches are confirmed early where `is_early` says so. Empty ones never are.
    #[must_use]
    pub fn around(log: &Arc<dyn Log>, is_early: fn(&RecordBatch) -> bool) -> Arc<dyn Log> {
        Arc::new(Self { inner: Arc::clone(log), is_early, turn: Arc::default() })
    }
}

#[async_trait]
impl Log for EarlyLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.inner.acquire().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if batch.is_empty() || !(self.is_early)(batch) {
            return self.inner.append(epoch, batch).await;
        }
        let (log, batch) = (Arc::clone(&self.inner), batch.clone());
        tokio::spawn(async move {
            let _turn = turn;
            loop {
                tokio::time::sleep(EARLY_LOG_LATE).await;
                match log.append(epoch, &batch).await {
                    Err(AppendError::Unknown { .. }) => {}
                    Ok(()) | Err(_) => return,
                }
            }
        });
        Ok(())
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
