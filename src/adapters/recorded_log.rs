//! Receipts from a recorded receipt log: what a service took in, handed over once more.
//!
//! The items are the receipts' own bytes in the order of the log. Positions are those of the log, counted from its
//! first record that is still there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{Origin, Seq, TsMs};
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit};
use orchestrator_kernel::ports::source::{
    RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};
use orchestrator_kernel::ports::unsettled::{Turn, Unsettled};

/// Batches that may be unsettled at once.
const UNSETTLED_BATCHES_MAX: usize = 8;
/// What is read of the log at once.
const READ: ReadLimit = ReadLimit { records: 512, bytes: 1 << 20 };

/// Choice of the time that a repeated receipt has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamps {
    /// The receipt's own `recv_ts_ms`: when its producer had it.
    #[default]
    Receive,
    /// The recorded `ingest_ts_ms`: when the service had it. The cuts are then those of that service.
    Ingest,
}

/// Opens a recorded receipt log, after a restart behind the receipts that are in the new one.
#[derive(Clone)]
pub struct RecordedLogFactory {
    name: String,
    log: Arc<dyn Log>,
    stamps: Stamps,
    records_read: Arc<AtomicU64>,
}

impl RecordedLogFactory {
    /// A factory for the source `name` over `log`.
    #[must_use]
    pub fn new(name: impl Into<String>, log: Arc<dyn Log>, stamps: Stamps) -> Self {
        Self { name: name.into(), log, stamps, records_read: Arc::default() }
    }

    /// How many records were handed over.
    #[must_use]
    pub fn records_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.records_read)
    }
}

#[async_trait]
impl SourceFactory for RecordedLogFactory {
    fn name(&self) -> &str {
        &self.name
    }

    async fn open_source(&self, resume: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(RecordedLog {
            before_first: self.log.stat().start.0.saturating_sub(1),
            at: resume.position,
            log: Arc::clone(&self.log),
            stamps: self.stamps,
            unsettled: Unsettled::new(Origin::from(self.name.as_str()), UNSETTLED_BATCHES_MAX),
            times: VecDeque::new(),
            settled: resume.position,
            ends: VecDeque::new(),
            records_read: Arc::clone(&self.records_read),
        }))
    }
}

/// An opened recorded log.
struct RecordedLog {
    log: Arc<dyn Log>,
    stamps: Stamps,
    /// What is added to a position to have the record's sequence number.
    before_first: u64,
    /// The last position that was handed over for the first time.
    at: u64,
    unsettled: Unsettled,
    /// The recorded times of the positions from `settled + 1` on.
    times: VecDeque<TsMs>,
    settled: u64,
    /// The ends of the batches in flight.
    ends: VecDeque<BatchEnd>,
    records_read: Arc<AtomicU64>,
}

/// Last position of a batch.
struct BatchEnd {
    /// The batch.
    id: u64,
    /// Its last position.
    last: u64,
}

impl RecordedLog {
    /// The next receipts; none at the end. Cancel safe: nothing is changed before the read is done.
    async fn next_fresh_items(&mut self) -> Result<Vec<RawItem>, SourceError> {
        let batch = self.log.read(Seq(self.before_first + self.at + 1), READ).await.map_err(source_error)?;
        let mut items = Vec::with_capacity(batch.len());
        for ((seq, payload), position) in batch.iter().zip(self.at + 1..) {
            let record = ReceiptRecord::decode(payload)
                .map_err(|error| source_error(ReadError::Corrupt { at: seq, detail: error.to_string() }))?;
            self.times.push_back(record.ingest_ts_ms);
            let bytes = Bytes::copy_from_slice(record.event);
            items.push(RawItem { position: Some(position), bytes, oversized: None, topic: None });
        }
        self.at += items.len() as u64;
        self.records_read.store(self.at, Ordering::Relaxed);
        Ok(items)
    }

    fn in_flight(&mut self, batch: SourceBatch) -> SourceBatch {
        let last = batch.items.last().and_then(|item| item.position).unwrap_or(self.settled);
        self.ends.push_back(BatchEnd { id: batch.id, last });
        batch
    }
}

#[async_trait]
impl Source for RecordedLog {
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        match self.unsettled.next_turn() {
            Turn::Again(batch) => return Ok(Some(self.in_flight(batch))),
            // A settlement needs `self` too, so it always comes after this future was dropped.
            Turn::Wait => return std::future::pending().await,
            Turn::Fresh => {}
        }
        let items = self.next_fresh_items().await?;
        if !items.is_empty() {
            let batch = self.unsettled.hand_over(items);
            return Ok(Some(self.in_flight(batch)));
        }
        if self.unsettled.is_empty() { Ok(None) } else { std::future::pending().await }
    }

    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError> {
        self.unsettled.settle_oldest(id, &settlement)?;
        let end = self.ends.pop_front().filter(|end| end.id == id);
        if let (Settlement::Durable(_), Some(BatchEnd { last, .. })) = (&settlement, end) {
            let gone = usize::try_from(last.saturating_sub(self.settled)).unwrap_or(usize::MAX);
            self.times.drain(..gone.min(self.times.len()));
            self.settled = self.settled.max(last);
        }
        Ok(())
    }

    fn taken_at(&self, position: u64) -> Option<TsMs> {
        match self.stamps {
            Stamps::Receive => None,
            Stamps::Ingest => {
                let index = position.checked_sub(self.settled + 1)?;
                self.times.get(usize::try_from(index).ok()?).copied()
            }
        }
    }
}

/// A server that does not answer may come back; a log that is damaged does not.
fn source_error(error: ReadError) -> SourceError {
    let detail = format!("the recorded receipt log cannot be read: {error}");
    match error {
        ReadError::Io(source) => SourceError::Lost { detail: format!("{detail}: {source}") },
        ReadError::Corrupt { .. } | ReadError::Trimmed { .. } => SourceError::Fatal { detail },
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ports::log::RecordBatch;
    use orchestrator_kernel::ports::log_memory::MemoryLog;
    use orchestrator_kernel::ports::source_conformance::{self, Repeats, SourceProvider};

    use super::*;

    /// A log of `count` receipts, ingested at 1000, 1001, ….
    async fn recorded(count: u64) -> Arc<MemoryLog> {
        let log = Arc::new(MemoryLog::default());
        let acquired = log.acquire().await.unwrap();
        let mut batch = RecordBatch::starting_at(Seq(1));
        for seq in 1..=count {
            let event = format!("event {seq}");
            let record = ReceiptRecord {
                ingest_seq: Seq(seq).into(),
                ingest_ts_ms: TsMs(999 + i64::try_from(seq).unwrap()),
                origin: "live",
                position: seq + 70,
                symbol: "A",
                event_type: "T",
                snapshot_ts_ms: None,
                event: event.as_bytes(),
            };
            batch.push_with(|out| record.encode_to(out));
        }
        log.append(acquired.epoch, &batch).await.unwrap();
        log
    }

    struct Recorded;

    #[async_trait]
    impl SourceProvider for Recorded {
        async fn fresh(&self) -> Arc<dyn SourceFactory> {
            Arc::new(RecordedLogFactory::new("capture", recorded(1300).await, Stamps::Ingest))
        }

        fn repeats(&self) -> Repeats {
            Repeats::Source
        }
    }

    #[tokio::test]
    async fn recorded_log_conforms() {
        source_conformance::run(&Recorded).await;
    }

    fn durable() -> Settlement {
        Settlement::Durable(Vec::new())
    }

    #[tokio::test]
    async fn every_receipt_comes_once_in_order_with_its_bytes_and_its_recorded_time() {
        let log = recorded(1300).await;
        let factory = RecordedLogFactory::new("capture", log, Stamps::Ingest);
        let mut source = factory.open_source(ResumeAt::default()).await.unwrap();

        let mut seen = 0;
        while let Some(batch) = source.next_batch().await.unwrap() {
            for item in &batch.items {
                seen += 1;
                assert_eq!(item.position, Some(seen));
                assert_eq!(item.bytes, format!("event {seen}").as_bytes());
                assert_eq!(source.taken_at(seen), Some(TsMs(999 + i64::try_from(seen).unwrap())));
            }
            source.settle_batch(batch.id, durable()).await.unwrap();
            assert_eq!(source.taken_at(seen), None, "what is settled is forgotten");
        }

        assert_eq!(seen, 1300);
        assert_eq!(factory.records_read().load(Ordering::Relaxed), 1300);
    }

    #[tokio::test]
    async fn a_refused_batch_comes_again_with_the_same_times() {
        let factory = RecordedLogFactory::new("capture", recorded(600).await, Stamps::Ingest);
        let mut source = factory.open_source(ResumeAt::default()).await.unwrap();
        let first = source.next_batch().await.unwrap().unwrap();
        let second = source.next_batch().await.unwrap().unwrap();

        let refused = Settlement::Refused { reason: "full".to_owned(), retry_after_ms: 0 };
        source.settle_batch(first.id, refused.clone()).await.unwrap();
        source.settle_batch(second.id, refused).await.unwrap();

        let again = source.next_batch().await.unwrap().unwrap();
        assert_eq!(again.items, first.items);
        assert_eq!(source.taken_at(1), Some(TsMs(1000)));
        assert_eq!(source.taken_at(600), Some(TsMs(1599)));
        source.settle_batch(again.id, durable()).await.unwrap();
        let rest = source.next_batch().await.unwrap().unwrap();
        assert_eq!(rest.items, second.items);
        assert_eq!(source.taken_at(600), Some(TsMs(1599)));
    }

    #[tokio::test]
    async fn after_a_restart_it_goes_on_and_by_default_receipts_keep_their_own_time() {
        let factory = RecordedLogFactory::new("capture", recorded(600).await, Stamps::Receive);
        let mut source = factory.open_source(ResumeAt { position: 598, ingest_ts_ms: None }).await.unwrap();

        let batch = source.next_batch().await.unwrap().unwrap();

        assert_eq!(batch.items.len(), 2);
        assert_eq!(batch.items[0].bytes, "event 599".as_bytes());
        assert_eq!(source.taken_at(599), None);
    }
}
