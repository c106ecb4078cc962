//! One subscriber's way through the run log.
//!
//! The subscriber pulls: the next chunk is made when its connection has room. A slow one holds no more than a batch of
//! records, a chunk and the buffer of its connection (together under 512 KiB), and slows nobody (ISO-2).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_engine_plane::run_log::messages::Committed;
use orchestrator_kernel::engine::contracts::DecodeError;
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::orchestrator_event::{BadAnswer, events};
use orchestrator_kernel::ids::{LogIdentity, RunSeq, Seq, TsMs};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit, RecordBatch};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::position::{EventId, Position};
use super::sse;

/// One read of the run log.
const READ: ReadLimit = ReadLimit { records: 256, bytes: 256 << 10 };
/// A chunk is given out when it has this many bytes, or when the batch is used up.
const CHUNK_BYTES: usize = 64 << 10;

/// Filter for the outputs that a subscriber wants. Empty means all.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// The symbols.
    pub(super) symbols: BTreeSet<String>,
    /// The `event_type` values.
    pub(super) event_types: BTreeSet<&'static str>,
}

impl Filter {
    fn wants_symbol(&self, symbol: &str) -> bool {
        self.symbols.is_empty() || self.symbols.contains(symbol)
    }

    fn wants_type(&self, event_type: &str) -> bool {
        self.event_types.is_empty() || self.event_types.contains(event_type)
    }
}

/// Ports that a stream reads from.
pub(super) struct Outputs {
    /// The run log.
    pub(super) runs: Arc<dyn Log>,
    /// Announces what becomes durable there.
    pub(super) committed: watch::Receiver<Committed>,
    /// Gives `published_ts_ms`.
    pub(super) clock: Arc<dyn Clock>,
    /// Ends the stream.
    pub(super) shutdown: CancellationToken,
}

/// A stream of outputs in chunks of the wire form.
pub(super) struct EventStream {
    outputs: Outputs,
    /// Part of each id.
    log: Option<LogIdentity>,
    filter: Filter,
    /// The record to go on with.
    next: RunSeq,
    /// How many of its outputs the subscriber has.
    seen: u64,
    /// Records that were read but not used yet.
    held: Option<Arc<RecordBatch>>,
    heartbeat: Duration,
    heartbeat_at: Instant,
    state: State,
    _place: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Beginning,
    Open,
    Ended,
}

/// Reason for which a stream cannot go on. Its subscriber may connect again.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("run record {0} cannot be decoded")]
    Decode(RunSeq, #[source] DecodeError),
    #[error(transparent)]
    Answer(#[from] BadAnswer),
    #[error("run record {0} was announced but is not there")]
    Missing(RunSeq),
}

enum Woke {
    Committed,
    Silent,
    Ended,
}

impl EventStream {
    /// A stream of the outputs behind `from`. `place` is held as long as it lives.
    pub(super) fn new(
        outputs: Outputs,
        from: Position,
        filter: Filter,
        heartbeat: Duration,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let (next, seen) = from.next_record();
        let next = RunSeq::from(next);
        let heartbeat_at = Instant::now() + heartbeat;
        let state = State::Beginning;
        let log = outputs.runs.identity();
        Self { outputs, log, filter, next, seen, held: None, heartbeat, heartbeat_at, state, _place: place }
    }

    /// The next bytes for the subscriber; `None` at the end.
    pub(super) async fn next_chunk(&mut self) -> Option<Bytes> {
        let chunk = match self.state {
            State::Ended => return None,
            State::Beginning => {
                self.state = State::Open;
                sse::greeting_bytes(self.reached_event_id())
            }
            State::Open => self.outputs_or_heartbeat().await?,
        };
        self.heartbeat_at = Instant::now() + self.heartbeat;
        Some(chunk.into())
    }

    async fn outputs_or_heartbeat(&mut self) -> Option<Vec<u8>> {
        loop {
            if self.outputs.shutdown.is_cancelled() {
                return None;
            }
            let tail = self.outputs.committed.borrow_and_update().tail;
            if tail < self.next {
                match self.wait_for_outputs().await {
                    Woke::Committed => continue,
                    Woke::Silent => return Some(sse::heartbeat_bytes(self.reached_event_id())),
                    Woke::Ended => return None,
                }
            }
            match self.fill_chunk().await {
                Ok(chunk) if !chunk.is_empty() => return Some(chunk),
                // Nothing in this batch passed the filter.
                Ok(_) if self.heartbeat_at <= Instant::now() => {
                    return Some(sse::heartbeat_bytes(self.reached_event_id()));
                }
                Ok(_) => tokio::task::yield_now().await,
                Err(broken) => return Some(self.end_with_farewell(&broken)),
            }
        }
    }

    async fn wait_for_outputs(&mut self) -> Woke {
        tokio::select! {
            biased;
            () = self.outputs.shutdown.cancelled() => Woke::Ended,
            changed = self.outputs.committed.changed() => match changed {
                Ok(()) => Woke::Committed,
                // The run log has ended: there will be nothing more.
                Err(_) => Woke::Ended,
            },
            () = sleep_until(self.heartbeat_at) => Woke::Silent,
        }
    }

    /// The outputs of the next records, as many as make a chunk. What is wrong with a record shows when nothing stands
    /// before it any more.
    async fn fill_chunk(&mut self) -> Result<Vec<u8>, Broken> {
        let batch = self.next_batch().await?;
        let clock = &self.outputs.clock;
        let published = if clock.is_driven() { None } else { clock.now() };
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES {
            let Some(payload) = record_at(&batch, self.next) else { break };
            match self.render_record(payload, published, &mut chunk) {
                Ok(()) => (self.next, self.seen) = (self.next.next(), 0),
                Err(broken) if chunk.is_empty() => return Err(broken),
                Err(_) => break,
            }
        }
        self.held = record_at(&batch, self.next).is_some().then_some(batch);
        Ok(chunk)
    }

    /// Adds the outputs of the next record that the subscriber wants and does not have.
    fn render_record(
        &self,
        payload: &[u8],
        published: Option<TsMs>,
        chunk: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let record = RunRecord::decode(payload).map_err(|error| Broken::Decode(self.next, error))?;
        if !self.filter.wants_symbol(record.facts.symbol.as_str()) {
            return Ok(());
        }
        for message in events(self.next, &record, published)? {
            if self.seen <= u64::from(message.index) && self.filter.wants_type(message.event_type) {
                sse::write_output(self.log, &message, chunk);
            }
        }
        Ok(())
    }

    /// Records from the next one on: what is left of the last batch, or the last commit, or else read from the log.
    async fn next_batch(&mut self) -> Result<Arc<RecordBatch>, Broken> {
        if let Some(held) = self.held.take() {
            return Ok(held);
        }
        let newest = Arc::clone(&self.outputs.committed.borrow().batch);
        if record_at(&newest, self.next).is_some() {
            return Ok(newest);
        }
        let read = self.outputs.runs.read(self.next.into(), READ).await?;
        if read.is_empty() { Err(Broken::Missing(self.next)) } else { Ok(Arc::new(read)) }
    }

    /// Where the subscriber stands.
    const fn reached_event_id(&self) -> EventId {
        let position = match self.seen.checked_sub(1) {
            // An index has 32 bits, and what was seen of a record is one more than an index.
            Some(index) => Position::AfterEvent(Seq(self.next.0), index as u32),
            None => Position::After(Seq(self.next.0.saturating_sub(1))),
        };
        EventId { log: self.log, position }
    }

    fn end_with_farewell(&mut self, broken: &Broken) -> Vec<u8> {
        self.state = State::Ended;
        match broken {
            Broken::Read(ReadError::Trimmed { wanted, start }) => {
                sse::farewell_bytes(&format!("position {wanted} was removed, the first one there is {start}"))
            }
            Broken::Read(ReadError::Corrupt { .. } | ReadError::Io(_))
            | Broken::Decode(..)
            | Broken::Answer(_)
            | Broken::Missing(_) => {
                let error: &dyn std::error::Error = broken;
                tracing::error!(error = %orchestrator_runtime::fatal::Chain(error), "event stream cannot go on");
                sse::farewell_bytes("the service cannot read on; connect again later")
            }
        }
    }
}

fn record_at(batch: &RecordBatch, run_seq: RunSeq) -> Option<&[u8]> {
    let index = run_seq.0.checked_sub(batch.first_seq().0)?;
    batch.get(usize::try_from(index).ok()?)
}
