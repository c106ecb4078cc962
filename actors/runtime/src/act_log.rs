//! The manifest log as operators' acts are written to it: an act takes effect once its record is durable.

use std::sync::Arc;

use orchestrator_kernel::engine::contracts::manifest::{ManifestEntry, OperatorRecord};
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{Acquired, AppendError, Log, ReadError, ReadLimit, RecordBatch};
use tokio::sync::Mutex;

/// Records of operators' acts. Cheap to clone.
#[derive(Clone)]
pub struct ActLog {
    log: Arc<dyn Log>,
    writer: Arc<Mutex<Writer>>,
}

struct Writer {
    epoch: Epoch,
    next: Seq,
    /// A batch of which it is not known whether it was written: nothing else may come at its position.
    in_doubt: Option<RecordBatch>,
}

impl ActLog {
    /// Goes on behind what the log's writer has acquired.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, Acquired { epoch, tail }: Acquired) -> Self {
        Self { log, writer: Arc::new(Mutex::new(Writer { epoch, next: tail.next(), in_doubt: None })) }
    }

    /// Every act so far, oldest first.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub async fn read_acts(&self) -> Result<Vec<OperatorRecord>, ReadError> {
        let mut acts = Vec::new();
        let mut next = self.log.stat().start.max(Seq(1));
        loop {
            let batch = self.log.read(next, ReadLimit::default()).await?;
            if batch.is_empty() {
                return Ok(acts);
            }
            for (at, payload) in batch.iter() {
                match ManifestEntry::decode(payload) {
                    Ok(ManifestEntry::Operator(record)) => acts.push(record),
                    Ok(ManifestEntry::Start(_)) => {}
                    Err(error) => return Err(ReadError::Corrupt { at, detail: error.to_string() }),
                }
            }
            next = batch.last_seq().next();
        }
    }

    /// Makes an act durable.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; after [`AppendError::Unknown`] it may be durable all the same, which
    /// [`read_acts`](Self::read_acts) will say.
    pub async fn record_act(&self, record: &OperatorRecord) -> Result<(), AppendError> {
        let mut writer = self.writer.lock().await;
        if let Some(batch) = &writer.in_doubt {
            self.log.append(writer.epoch, batch).await?;
            writer.next = batch.last_seq().next();
            writer.in_doubt = None;
        }
        let mut batch = RecordBatch::starting_at(writer.next);
        batch.push_with(|bytes| ManifestEntry::Operator(record.clone()).encode_to(bytes));
        match self.log.append(writer.epoch, &batch).await {
            Ok(()) => {
                writer.next = writer.next.next();
                Ok(())
            }
            Err(unknown @ AppendError::Unknown { .. }) => {
                writer.in_doubt = Some(batch);
                Err(unknown)
            }
            Err(refused) => Err(refused),
        }
    }
}
