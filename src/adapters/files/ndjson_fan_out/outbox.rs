//! The run log as what the outputs file is derived from: where the file's last line stands in it, and what follows.

use std::sync::Arc;

use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::orchestrator_event::{events, outputs_of};
use orchestrator_kernel::ids::{RunSeq, Seq, TsMs};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::fan_out::OutputMessage;
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit, RecordBatch};
use orchestrator_kernel::ports::log_backwards::Backwards;

/// Run records whose outputs are made at a time.
const PAGE: ReadLimit = ReadLimit { records: 256, bytes: 4 << 20 };

/// The run log, from which outputs that the file lacks are written again.
#[derive(Clone)]
pub struct Outbox {
    /// The run log.
    pub runs: Arc<dyn Log>,
    /// Gives `published_ts_ms`; a driven clock gives none.
    pub clock: Arc<dyn Clock>,
    /// The last run record whose outputs were all confirmed when the service started.
    pub published: RunSeq,
}

/// Outputs of consecutive run records.
pub(super) struct Page {
    pub(super) messages: Vec<OutputMessage>,
    /// The record after them.
    pub(super) next: RunSeq,
}

impl Outbox {
    /// The record whose outputs belong to this run; the newest is looked at first.
    pub(super) async fn find_run(&self, run_id: &str) -> Result<Option<RunSeq>, ReadError> {
        let mut backwards = Backwards::from_tail(self.runs.as_ref());
        while let Some(stretch) = backwards.next_stretch().await? {
            for (seq, payload) in stretch.iter().flat_map(RecordBatch::iter) {
                let record = decode_record(seq, payload)?;
                if 0 < outputs_of(&record) && record.facts.run_id.to_string() == run_id {
                    return Ok(Some(seq.into()));
                }
            }
        }
        Ok(None)
    }

    /// The message ids of the newest run that has ended; none when none has, or not lately.
    pub(super) async fn newest_message_ids(&self) -> Result<Vec<String>, ReadError> {
        let Some(stretch) = Backwards::from_tail(self.runs.as_ref()).next_stretch().await? else {
            return Ok(Vec::new());
        };
        let mut newest = Vec::new();
        for (seq, payload) in stretch.iter().flat_map(RecordBatch::iter) {
            let made = outputs_at(seq, payload, None)?;
            if !made.is_empty() {
                newest = made.iter().map(OutputMessage::message_id).collect();
            }
        }
        Ok(newest)
    }

    /// Whether every record that there ever was is still in the log.
    pub(super) fn is_whole(&self) -> bool {
        self.runs.stat().start <= Seq(1)
    }

    /// The outputs of the records from `from` on, up to and with `last`; nothing when there are no more.
    pub(super) async fn outputs_page(&self, from: RunSeq, last: RunSeq) -> Result<Option<Page>, ReadError> {
        if last < from {
            return Ok(None);
        }
        let published = if self.clock.is_driven() { None } else { self.clock.now() };
        let batch = self.runs.read(from.into(), PAGE).await?;
        let mut messages = Vec::new();
        for (seq, payload) in batch.iter().filter(|(seq, _)| RunSeq::from(*seq) <= last) {
            messages.extend(outputs_at(seq, payload, published)?);
        }
        Ok((!batch.is_empty()).then(|| Page { messages, next: RunSeq::from(batch.last_seq()).next() }))
    }
}

fn outputs_at(at: Seq, payload: &[u8], published: Option<TsMs>) -> Result<Vec<OutputMessage>, ReadError> {
    let made = events(at.into(), &decode_record(at, payload)?, published);
    made.map_err(|error| ReadError::Corrupt { at, detail: error.to_string() })
}

fn decode_record(at: Seq, payload: &[u8]) -> Result<RunRecord, ReadError> {
    RunRecord::decode(payload).map_err(|error| ReadError::Corrupt { at, detail: error.to_string() })
}
