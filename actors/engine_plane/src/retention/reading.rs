//! Reading a log for retention: pages, records, and where a limit of age lies.

use orchestrator_kernel::engine::contracts::DecodeError;
use orchestrator_kernel::engine::retention::FirstYoung;
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::log::{Log, LogName, ReadLimit, RecordBatch, read_one};

use super::error::RetentionError;

/// A log to be read.
#[derive(Clone, Copy)]
pub struct Readable<'a> {
    /// What errors call it.
    pub name: LogName,
    /// The log.
    pub log: &'a dyn Log,
}

impl Readable<'_> {
    /// Some records from `from` on; none at the tail.
    pub(super) async fn read_page(self, from: Seq) -> Result<RecordBatch, RetentionError> {
        let read = self.log.read(from, ReadLimit::default()).await;
        read.map_err(|source| RetentionError::Read { log: self.name, source })
    }

    /// The record at `seq`, if it could be decoded.
    pub(super) fn decoded_record<T>(
        self,
        seq: Seq,
        record: Result<T, DecodeError>,
    ) -> Result<T, RetentionError> {
        record.map_err(|source| RetentionError::Record { log: self.name, seq: seq.0, source })
    }

    /// The first of the records `from` … `tail` that is not older than `time`; the one after them when all are.
    ///
    /// # Errors
    ///
    /// [`RetentionError::Read`], [`RetentionError::Record`].
    pub async fn first_young(
        self,
        from: Seq,
        tail: Seq,
        time: TsMs,
        time_of: impl Fn(&[u8]) -> Result<TsMs, DecodeError>,
    ) -> Result<Seq, RetentionError> {
        let mut search = FirstYoung::new(from, tail);
        while let Some(at) = search.record_to_ask() {
            let stored = read_one(self.log, at).await;
            let stored = stored.map_err(|source| RetentionError::Read { log: self.name, source })?;
            let found = self.decoded_record(at, time_of(&stored.unwrap_or_default()))?;
            search.tell_age(at, found < time);
        }
        Ok(search.first_to_stay())
    }
}
