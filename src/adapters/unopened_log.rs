//! A log that could not be opened, in the place of the one that was meant: whoever takes it over is told why.
//!
//! The journal is opened beside the engine plane's logs, and one that cannot be used stops the trading plane alone. So
//! its error is kept until the plane asks for the log, and the start of everything else goes on.

use std::io;

use async_trait::async_trait;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};

/// The place of a log that could not be opened.
#[derive(Debug)]
pub struct UnopenedLog {
    error: AcquireError,
}

impl UnopenedLog {
    /// The place of a log for which opening gave this error.
    #[must_use]
    pub const fn new(error: AcquireError) -> Self {
        Self { error }
    }

    /// The error once more, for each who asks.
    fn repeat_error(&self) -> AcquireError {
        match &self.error {
            AcquireError::Held { log, holder } => {
                AcquireError::Held { log: log.clone(), holder: holder.clone() }
            }
            AcquireError::Corrupt { log, place, detail } => {
                AcquireError::Corrupt { log: log.clone(), place: place.clone(), detail: detail.clone() }
            }
            AcquireError::UnknownVersion { log, found, known } => {
                AcquireError::UnknownVersion { log: log.clone(), found: *found, known: *known }
            }
            AcquireError::Io { log, source } => {
                let source = io::Error::new(source.kind(), source.to_string());
                AcquireError::Io { log: log.clone(), source }
            }
        }
    }

    fn repeat_as_io(&self) -> io::Error {
        io::Error::other(self.repeat_error())
    }
}

#[async_trait]
impl Log for UnopenedLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        Err(self.repeat_error())
    }

    async fn append(&self, _: Epoch, _: &RecordBatch) -> Result<(), AppendError> {
        Err(AppendError::Poisoned { source: self.repeat_as_io() })
    }

    async fn prove_room(&self, _: Epoch, _: BatchSize) -> Result<(), AppendError> {
        Err(AppendError::Poisoned { source: self.repeat_as_io() })
    }

    async fn read(&self, _: Seq, _: ReadLimit) -> Result<RecordBatch, ReadError> {
        Err(ReadError::Io(self.repeat_as_io()))
    }

    async fn trim(&self, _: Epoch, _: Seq) -> Result<Seq, TrimError> {
        Err(TrimError::Io(self.repeat_as_io()))
    }

    fn stat(&self) -> LogStat {
        LogStat { start: Seq(1), ..LogStat::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_who_asks_is_told_why_and_nothing_is_done() {
        let corrupt = || AcquireError::Corrupt {
            log: "journal".to_owned(),
            place: "1.seg byte 3".to_owned(),
            detail: "bad".to_owned(),
        };
        let log = UnopenedLog::new(corrupt());
        let said = corrupt().to_string();

        for _ in 0..2 {
            assert_eq!(log.acquire().await.unwrap_err().to_string(), said);
        }
        let read = log.read(Seq(1), ReadLimit::default()).await.unwrap_err();
        let appended = log.append(Epoch(1), &RecordBatch::starting_at(Seq(1))).await.unwrap_err();
        assert!(matches!(read, ReadError::Io(error) if error.to_string() == said));
        assert!(matches!(appended, AppendError::Poisoned { source } if source.to_string() == said));
        assert_eq!(log.stat().tail, Seq(0));
    }
}
