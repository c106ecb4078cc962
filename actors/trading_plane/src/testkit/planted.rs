//! Planted defects that are ports: each breaks its contract in one way, around a port that keeps it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::mutants::{self, Mutant};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use orchestrator_kernel::trading::journal::{JournalFact, SealedEntry};
use tokio::sync::Mutex;

use crate::settings::TradingPorts;

/// The ports, with the defect that is planted on this thread if it is one of a port.
#[must_use]
pub fn plant_in_ports(ports: TradingPorts) -> TradingPorts {
    match mutants::current() {
        Some(Mutant::AnswersEarly) => {
            let journal = Arc::new(EarlyJournal { inner: Arc::clone(&ports.journal), turn: Arc::default() });
            TradingPorts { journal, ..ports }
        }
        // The others are lines of the product.
        Some(_) | None => ports,
    }
}

/// How late a batch is that was confirmed early: everything that is ready goes before.
const LATE: Duration = Duration::from_millis(1);

/// A journal that confirms the result of a command before it is durable.
struct EarlyJournal {
    inner: Arc<dyn Log>,
    /// Held by the append that was confirmed and is still on its way: the next one comes behind it.
    turn: Arc<Mutex<()>>,
}

#[async_trait]
impl Log for EarlyJournal {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.inner.acquire().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if !batch.iter().any(|(_, payload)| is_result(payload)) {
            return self.inner.append(epoch, batch).await;
        }
        let (log, batch) = (Arc::clone(&self.inner), batch.clone());
        tokio::spawn(async move {
            let _turn = turn;
            loop {
                tokio::time::sleep(LATE).await;
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

fn is_result(payload: &[u8]) -> bool {
    let entry = SealedEntry::decode(payload);
    entry.is_ok_and(|sealed| matches!(sealed.entry.fact, JournalFact::CommandEnded(_)))
}
