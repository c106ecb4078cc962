//! Reads that wait for a log which is away for a while.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, LogName, ReadError, ReadLimit, RecordBatch};
use tokio::time::Instant;

use crate::fatal::{Fatal, FatalKind};

/// How long a read waits for a log on a server. Longer than a server takes to start again; a start that waits longer
/// had better fail, so that whoever started the process sees it.
pub const REMOTE: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A log as its recovering owner reads it: without what it says, the owner cannot go on.
#[derive(Clone)]
pub struct PatientLog {
    log: Arc<dyn Log>,
    name: LogName,
    patience: Duration,
}

impl PatientLog {
    /// `probed` says that the log can go away and come back; the embedded one cannot.
    pub fn new(log: Arc<dyn Log>, name: LogName, probed: Option<Duration>) -> Self {
        Self { log, name, patience: if probed.is_some() { REMOTE } else { Duration::ZERO } }
    }

    /// As [`Log::read`].
    pub async fn read_records(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, Fatal> {
        self.try_read(from, limit).await.map_err(|error| Fatal::on_read(self.name, error))
    }

    /// As [`read_records`](Self::read_records), for a reader that retention may overtake.
    pub async fn try_read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        let since = Instant::now();
        loop {
            match self.log.read(from, limit).await {
                Err(ReadError::Io(error)) if since.elapsed() < self.patience => {
                    tracing::warn!(log = self.name.as_str(), %from, %error, "log not readable, trying again");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                read => return read,
            }
        }
    }

    /// Shows every record in `from..=to` to `take`.
    pub async fn scan_records(
        &self,
        from: Seq,
        to: Seq,
        mut take: impl FnMut(Seq, &[u8]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let mut at = from;
        while at <= to {
            let batch = self.read_records(at, ReadLimit::default()).await?;
            if batch.is_empty() {
                let what = format!("the log of {} ends before record {at} of {to}", self.name);
                return Err(Fatal::new(FatalKind::Corrupt, what));
            }
            for (seq, payload) in batch.iter().take_while(|(seq, _)| *seq <= to) {
                take(seq, payload)?;
            }
            at = batch.last_seq().next();
        }
        Ok(())
    }

    /// The first position still there.
    pub fn start_seq(&self) -> Seq {
        self.log.stat().start
    }
}
