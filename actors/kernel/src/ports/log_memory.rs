//! The reference log: records in memory, with the promises of the port and none of its speed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use crate::ids::{Epoch, Seq};
use crate::mutant;

/// A log in memory. Its content lives as long as the value, so a test "restarts" by acquiring it again.
#[derive(Debug, Default)]
pub struct MemoryLog {
    inner: Mutex<Inner>,
    capacity_records: Option<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    epoch: Epoch,
    trimmed: u64,
    records: Vec<Vec<u8>>,
    bytes: u64,
}

impl MemoryLog {
    /// A log that answers [`AppendError::Full`] beyond `records` records.
    #[must_use]
    pub fn with_capacity(records: usize) -> Self {
        Self { inner: Mutex::default(), capacity_records: Some(records) }
    }

    fn check_room(&self, inner: &Inner, records: usize) -> Result<(), AppendError> {
        match self.capacity_records {
            Some(max) if max < inner.records.len() + records => {
                Err(AppendError::Full { detail: "capacity of the memory log".to_owned() })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        // Every change below is a single step on valid data, so the content stays usable after a caller's panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tail(&self) -> Seq {
        Seq(self.trimmed + self.records.len() as u64)
    }

    fn get(&self, at: Seq) -> Option<&[u8]> {
        let index = at.0.checked_sub(self.trimmed + 1)?;
        self.records.get(usize::try_from(index).ok()?).map(Vec::as_slice)
    }

    /// An append whose positions are all taken: equal is a repeated success, different a conflict.
    fn compare_taken(&self, batch: &RecordBatch) -> Result<(), AppendError> {
        match batch.iter().find(|(seq, payload)| self.get(*seq) != Some(*payload)) {
            None => Ok(()),
            Some((at, _)) => Err(AppendError::Conflict { at }),
        }
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        let mut inner = self.lock_inner();
        inner.epoch = inner.epoch.next();
        Ok(Acquired { epoch: inner.epoch, tail: inner.tail() })
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        let mut inner = self.lock_inner();
        if epoch != inner.epoch && !mutant!(NoEpochCheck) {
            return Err(AppendError::Fenced { mine: epoch, current: inner.epoch });
        }
        if batch.is_empty() {
            return Ok(());
        }
        let tail = inner.tail();
        if batch.first_seq() != tail.next() {
            return if batch.last_seq() <= tail && batch.first_seq().0 > inner.trimmed {
                inner.compare_taken(batch)
            } else {
                Err(AppendError::Gap { first: batch.first_seq(), tail })
            };
        }
        self.check_room(&inner, batch.len())?;
        inner.bytes += batch.payload_bytes() as u64;
        inner.records.extend(batch.iter().map(|(_, payload)| payload.to_vec()));
        Ok(())
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        let inner = self.lock_inner();
        if epoch != inner.epoch {
            return Err(AppendError::Fenced { mine: epoch, current: inner.epoch });
        }
        self.check_room(&inner, size.records)
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        let inner = self.lock_inner();
        if from.0 <= inner.trimmed {
            return Err(ReadError::Trimmed { wanted: from, start: Seq(inner.trimmed + 1) });
        }
        let mut batch = RecordBatch::starting_at(from);
        let mut at = from;
        while let Some(payload) = inner.get(at) {
            let full = batch.len() >= limit.records || batch.payload_bytes() + payload.len() > limit.bytes;
            if full && !batch.is_empty() {
                break;
            }
            batch.push(payload);
            at = at.next();
        }
        Ok(batch)
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        let mut inner = self.lock_inner();
        if epoch != inner.epoch || epoch == Epoch(0) {
            return Err(TrimError::Fenced { mine: epoch, current: inner.epoch });
        }
        let keep_from = below.0.min(inner.tail().0 + 1).max(inner.trimmed + 1);
        let count = usize::try_from(keep_from - inner.trimmed - 1).unwrap_or(usize::MAX);
        let freed: usize = inner.records.drain(..count).map(|record| record.len()).sum();
        inner.bytes -= freed as u64;
        inner.trimmed = keep_from - 1;
        Ok(Seq(keep_from))
    }

    fn stat(&self) -> LogStat {
        let inner = self.lock_inner();
        LogStat { start: Seq(inner.trimmed + 1), tail: inner.tail(), bytes: inner.bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::log_conformance::{self, LogProvider};
    use super::*;

    struct Memory;

    #[async_trait]
    impl LogProvider for Memory {
        async fn fresh(&self) -> Arc<dyn Log> {
            Arc::new(MemoryLog::default())
        }

        async fn reopen(&self, log: Arc<dyn Log>) -> Arc<dyn Log> {
            log
        }
    }

    #[test]
    fn memory_log_conforms() {
        pollster::block_on(log_conformance::run(&Memory));
    }
}
