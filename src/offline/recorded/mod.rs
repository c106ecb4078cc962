//! Going through recorded logs from front to back, one batch in memory at a time.

mod range;
mod select;

use std::ops::RangeInclusive;

use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{IngestSeq, RunSeq, Seq, TsMs};
use orchestrator_kernel::ports::log::{Log, LogName, ReadError, ReadLimit, RecordBatch, read_one};

use crate::process::exit::ProcessExit;

pub use range::{BadRange, Bound, Moment, parse_bounds};
pub use select::{Selection, SelectionRange};

/// A log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log of {}", contents_word(*log))]
pub struct LogError {
    /// Which log.
    pub log: LogName,
    /// Why.
    #[source]
    pub source: ReadError,
}

impl LogError {
    /// How the process ends because of it.
    #[must_use]
    pub fn to_exit(&self) -> ProcessExit {
        match &self.source {
            ReadError::Corrupt { .. } | ReadError::Trimmed { .. } => ProcessExit::Data,
            ReadError::Io(error) => ProcessExit::of_storage(error),
        }
    }

    pub(crate) fn corrupt_record(log: LogName, at: Seq, detail: &dyn std::fmt::Display) -> Self {
        Self { log, source: ReadError::Corrupt { at, detail: detail.to_string() } }
    }
}

/// What people call a log's records.
const fn contents_word(log: LogName) -> &'static str {
    match log {
        LogName::Quarantine => "refused items",
        LogName::Receipts | LogName::Runs | LogName::Manifests | LogName::Journal => log.as_str(),
    }
}

/// The records of a log in order, from one position to another.
pub struct LogCursor<'a> {
    log: &'a dyn Log,
    name: LogName,
    batch: RecordBatch,
    index: usize,
    last: Seq,
}

impl<'a> LogCursor<'a> {
    /// The records of `log` in `range`. What was trimmed is left out, so is what does not exist yet.
    #[must_use]
    pub fn over_range(log: &'a dyn Log, name: LogName, range: &RangeInclusive<Seq>) -> Self {
        let stat = log.stat();
        let first = (*range.start()).max(stat.start).max(Seq(1));
        let last = (*range.end()).min(stat.tail);
        Self { log, name, batch: RecordBatch::starting_at(first), index: 0, last }
    }

    /// All records of `log`.
    #[must_use]
    pub fn over_all(log: &'a dyn Log, name: LogName) -> Self {
        Self::over_range(log, name, &(Seq(1)..=Seq(u64::MAX)))
    }

    /// The next record with its position.
    ///
    /// # Errors
    ///
    /// [`LogError`]; a record that cannot be read is never skipped.
    pub async fn next(&mut self) -> Result<Option<(Seq, &[u8])>, LogError> {
        let mut at = Seq(self.batch.first_seq().0 + self.index as u64);
        if self.last < at {
            return Ok(None);
        }
        if self.batch.len() <= self.index {
            let read = self.log.read(at, ReadLimit::default()).await;
            self.batch = read.map_err(|source| LogError { log: self.name, source })?;
            self.index = 0;
            at = self.batch.first_seq();
        }
        self.index += 1;
        Ok(self.batch.get(self.index - 1).map(|payload| (at, payload)))
    }
}

/// The receipts of a receipt log.
pub struct ReceiptCursor<'a>(LogCursor<'a>);

impl<'a> ReceiptCursor<'a> {
    /// Those of `range`.
    #[must_use]
    pub fn over_range(log: &'a dyn Log, range: &RangeInclusive<IngestSeq>) -> Self {
        let range = Seq::from(*range.start())..=Seq::from(*range.end());
        Self(LogCursor::over_range(log, LogName::Receipts, &range))
    }

    /// The next one.
    ///
    /// # Errors
    ///
    /// As [`LogCursor::next`].
    pub async fn next(&mut self) -> Result<Option<ReceiptRecord<'_>>, LogError> {
        match self.0.next().await? {
            None => Ok(None),
            Some((seq, payload)) => decode_receipt(seq, payload).map(Some),
        }
    }
}

/// The records of a run log.
pub struct RunCursor<'a>(LogCursor<'a>);

impl<'a> RunCursor<'a> {
    /// All of them.
    #[must_use]
    pub fn over_all(log: &'a dyn Log) -> Self {
        Self(LogCursor::over_all(log, LogName::Runs))
    }

    /// The next one.
    ///
    /// # Errors
    ///
    /// As [`LogCursor::next`].
    pub async fn next(&mut self) -> Result<Option<(RunSeq, RunRecord)>, LogError> {
        match self.0.next().await? {
            None => Ok(None),
            Some((seq, payload)) => RunRecord::decode(payload)
                .map(|record| Some((seq.into(), record)))
                .map_err(|error| LogError::corrupt_record(LogName::Runs, seq, &error)),
        }
    }
}

/// Reads a stored receipt.
///
/// # Errors
///
/// [`LogError`] with the position.
pub fn decode_receipt(seq: Seq, payload: &[u8]) -> Result<ReceiptRecord<'_>, LogError> {
    ReceiptRecord::decode(payload).map_err(|error| LogError::corrupt_record(LogName::Receipts, seq, &error))
}

/// The first receipt that was taken in after `at`, or the position behind the last one. Receipts never go back in time
/// (LOG-5), so this is a binary search.
///
/// # Errors
///
/// [`LogError`].
pub async fn first_after(receipts: &dyn Log, at: TsMs) -> Result<IngestSeq, LogError> {
    let stat = receipts.stat();
    let (mut low, mut high) = (stat.start.0.max(1), stat.tail.0 + 1);
    while low < high {
        let middle = Seq(low + (high - low) / 2);
        let stored = read_one(receipts, middle).await;
        let stored = stored.map_err(|source| LogError { log: LogName::Receipts, source })?;
        let Some(stored) = stored else { break };
        match decode_receipt(middle, &stored)?.ingest_ts_ms <= at {
            true => low = middle.0 + 1,
            false => high = middle.0,
        }
    }
    Ok(IngestSeq(low))
}

#[cfg(test)]
mod tests;
