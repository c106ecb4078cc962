//! One log in two tiers: the newest records in a hot log, all older ones in a cold archive.
//!
//! ```text
//! cold archive   [start ……………………………… tail]
//! hot log                          [start ………………………………… tail] ◀── append
//!                                   └ seam ┘
//! read(from)     from the archive ──▶│◀── from the hot log
//! ```
//!
//! An archiver copies the oldest hot records to the archive and removes them from the hot log once they are durable
//! there, so the hot log stays within its limit however long the whole is. Whoever reads finds every record, wherever
//! it is. The **seam** is what both hold: at least one record once anything was archived, by which a start recognises
//! that the two belong together. See the decision record `0010-archive-is-a-second-tier`.

mod archiver;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::{Epoch, LogIdentity, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError, read_one,
};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use archiver::Archiver;

/// Settings of a tiered log: how much is kept where, and how it is moved.
#[derive(Clone, Debug)]
pub struct TieredOptions {
    /// Name for messages: `receipts`, `runs`, `quarantine`.
    pub name: String,
    /// Bytes of the hot log above which its oldest records are archived.
    pub hot_bytes_max: u64,
    /// Bytes of the hot log down to which they are archived then; less than `hot_bytes_max`. The last step may go
    /// below it by up to one `step`.
    pub hot_bytes_keep: u64,
    /// How much is copied at a time.
    pub step: ReadLimit,
    /// First pause after a failure of the archiver; doubled up to `backoff_max`.
    pub backoff_min: Duration,
    /// Longest pause after a failure of the archiver.
    pub backoff_max: Duration,
}

impl TieredOptions {
    /// Steps of at most 4096 records and 4 MiB, pauses of 100 ms to 30 s.
    #[must_use]
    pub fn new(name: &str, hot_bytes_max: u64, hot_bytes_keep: u64) -> Self {
        Self {
            name: name.to_owned(),
            hot_bytes_max,
            hot_bytes_keep,
            step: ReadLimit { records: 4096, bytes: 4 << 20 },
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
        }
    }
}

/// State that the log and its archiver share.
struct Tiers {
    hot: Arc<dyn Log>,
    cold: Arc<dyn Log>,
    options: TieredOptions,
    /// Wakes the archiver.
    wake: Notify,
    /// Why archiving does not go on, while it does not.
    trouble: Mutex<Option<String>>,
    /// Who writes.
    writer: Mutex<Option<TierEpochs>>,
}

/// Epochs of one writer.
#[derive(Clone, Copy)]
struct TierEpochs {
    /// Of the hot log, which is that of the whole.
    hot: Epoch,
    /// Of the archive.
    cold: Epoch,
}

/// A hot log and its archive as one log.
///
/// The archiver runs from [`Log::acquire`] on, for this writer and no other; it ends with the handle, or before with
/// [`stop_archiving`](Self::stop_archiving). A log that is only read, never acquired, archives nothing.
pub struct TieredLog {
    tiers: Arc<Tiers>,
    archiver: tokio::sync::Mutex<Option<AbortOnDropHandle<()>>>,
}

impl TieredLog {
    /// Puts `hot` and `cold` together. Both must have been used by nobody, or only with each other.
    #[must_use]
    pub fn new(hot: Arc<dyn Log>, cold: Arc<dyn Log>, options: TieredOptions) -> Self {
        let tiers = Tiers {
            hot,
            cold,
            options,
            wake: Notify::new(),
            trouble: Mutex::default(),
            writer: Mutex::default(),
        };
        Self { tiers: Arc::new(tiers), archiver: tokio::sync::Mutex::default() }
    }

    /// Ends the archiver and waits until it has let go of both logs. It is safe at any moment; dropping the handle does
    /// the same without waiting.
    pub async fn stop_archiving(&self) {
        let Some(running) = self.archiver.lock().await.take() else { return };
        running.abort();
        if let Err(error) = running.await
            && error.is_panic()
        {
            tracing::error!(log = self.tiers.options.name, "archiver panicked");
        }
    }

    /// A hot log without room wakes the archiver, and says why that does not make any, if it is known.
    fn explain_full(&self, result: Result<(), AppendError>) -> Result<(), AppendError> {
        let Err(AppendError::Full { detail }) = result else { return result };
        self.tiers.wake.notify_one();
        let detail = match self.tiers.archive_trouble() {
            Some(trouble) => format!("{detail}, and {trouble}"),
            None => detail,
        };
        Err(AppendError::Full { detail })
    }

    /// Becomes the writer of both logs; the archiver is ready but does not run.
    async fn take_over(&self) -> Result<(Acquired, Archiver), AcquireError> {
        let tiers = &self.tiers;
        let cold = tiers.cold.acquire().await?;
        // Before the hot log is taken over, so that a process without the archive does not fence the one that has it.
        tiers.check_seam(cold.tail).await?;
        let hot = tiers.hot.acquire().await?;
        // Once more: until now the writer before could archive.
        tiers.check_seam(cold.tail).await?;
        tiers.set_trouble(None);
        *tiers.writer.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(TierEpochs { hot: hot.epoch, cold: cold.epoch });
        let archiver = Archiver { tiers: Arc::clone(tiers), hot_epoch: hot.epoch, cold_epoch: cold.epoch };
        Ok((hot, archiver))
    }
}

impl Tiers {
    /// Checks that the archive reaches up to the hot log and that they belong together.
    async fn check_seam(&self, cold_tail: Seq) -> Result<(), AcquireError> {
        let corrupt = |detail: String| AcquireError::Corrupt {
            log: self.options.name.clone(),
            place: "the seam of its archive and its hot log".to_owned(),
            detail,
        };
        let failed = |error: ReadError| match error {
            ReadError::Io(source) => AcquireError::Io { log: self.options.name.clone(), source },
            error @ (ReadError::Corrupt { .. } | ReadError::Trimmed { .. }) => corrupt(error.to_string()),
        };
        // An empty archive has no last record to compare; then the hot log must go back to the first one.
        let hot = match read_one(&*self.hot, Seq(cold_tail.0.max(1))).await {
            Ok(_) if cold_tail == Seq(0) => return Ok(()),
            Ok(Some(hot)) => hot,
            Ok(None) => {
                return Err(corrupt(format!(
                    "the archive ends at {cold_tail} but the hot log ends before it, so it lost records; restore the \
                     hot log"
                )));
            }
            // Exactly joined, without a common record.
            Err(ReadError::Trimmed { start, .. }) if start == cold_tail.next() => return Ok(()),
            Err(ReadError::Trimmed { start, .. }) => {
                return Err(corrupt(format!(
                    "the archive ends at {cold_tail} but the hot log starts at {start}; restore the archive"
                )));
            }
            Err(error) => return Err(failed(error)),
        };
        match read_one(&*self.cold, cold_tail).await {
            Ok(cold) if cold.as_ref() == Some(&hot) => Ok(()),
            Ok(_) => Err(corrupt(format!(
                "record {cold_tail} is not the same in both, so they belong to different logs; put the archive of \
                 this log in place"
            ))),
            Err(error) => Err(failed(error)),
        }
    }

    async fn read_across(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        if self.hot.stat().start <= from {
            match self.hot.read(from, limit).await {
                // Archived between the look and the read, or before anybody here could know.
                Err(ReadError::Trimmed { .. }) => {}
                read => return read,
            }
        }
        let page = self.cold.read(from, limit).await?;
        match page.is_empty() {
            // To the reader an empty page would be the tail.
            true => Err(ReadError::Corrupt {
                at: from,
                detail: format!(
                    "neither in the archive, which ends at {}, nor in the hot log any more",
                    self.cold.stat().tail
                ),
            }),
            false => Ok(page),
        }
    }

    /// Decides about a batch that the hot log cannot compare, because its positions are archived.
    async fn compare_archived(&self, batch: &RecordBatch, gap: AppendError) -> Result<(), AppendError> {
        let mut next = batch.first_seq();
        while next <= batch.last_seq() {
            let limit = ReadLimit { records: batch.len(), bytes: batch.payload_bytes() };
            let stored = match self.read_across(next, limit).await {
                Ok(stored) if !stored.is_empty() => stored,
                Ok(_) | Err(ReadError::Trimmed { .. }) => return Err(gap),
                Err(ReadError::Io(source)) => return Err(AppendError::Unknown { source }),
                Err(error @ ReadError::Corrupt { .. }) => {
                    return Err(AppendError::Poisoned { source: io::Error::other(error) });
                }
            };
            for (at, payload) in stored.iter().take_while(|(at, _)| *at <= batch.last_seq()) {
                let index = usize::try_from(at.0 - batch.first_seq().0).unwrap_or(usize::MAX);
                if batch.get(index) != Some(payload) {
                    return Err(AppendError::Conflict { at });
                }
            }
            next = stored.last_seq().next();
        }
        Ok(())
    }

    fn is_above_limit(&self) -> bool {
        self.options.hot_bytes_max < self.hot.stat().bytes
    }

    fn archive_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

#[async_trait]
impl Log for TieredLog {
    /// Checks the seam, takes both logs over, and starts the archiver. Must be called on a tokio runtime.
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        // Held all the while, so that the archiver of the latest epoch is the one that stays.
        let mut running = self.archiver.lock().await;
        let (acquired, archiver) = self.take_over().await?;
        // The one before is fenced by both logs now, and ends with its handle.
        *running = Some(AbortOnDropHandle::new(tokio::spawn(archiver.run_archiver())));
        Ok(acquired)
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        let appended = match self.tiers.hot.append(epoch, batch).await {
            Err(gap @ AppendError::Gap { tail, .. }) if !batch.is_empty() && batch.last_seq() <= tail => {
                self.tiers.compare_archived(batch, gap).await
            }
            appended => self.explain_full(appended),
        };
        if self.tiers.is_above_limit() {
            self.tiers.wake.notify_one();
        }
        appended
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        self.explain_full(self.tiers.hot.prove_room(epoch, size).await)
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        self.tiers.read_across(from, limit).await
    }

    /// Trims the archive up to where the hot log starts: what is hot stays until it is archived.
    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        // Removes nothing, but tells whether the log is still this writer's, and where the hot part starts.
        let hot_start = self.tiers.hot.trim(epoch, Seq(0)).await?;
        let writer = *self.tiers.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer {
            Some(ours) if ours.hot == epoch => self.tiers.cold.trim(ours.cold, below.min(hot_start)).await,
            Some(ours) => Err(TrimError::Fenced { mine: epoch, current: ours.hot }),
            None => Err(TrimError::Fenced { mine: epoch, current: epoch }),
        }
    }

    fn stat(&self) -> LogStat {
        let (hot, cold) = (self.tiers.hot.stat(), self.tiers.cold.stat());
        LogStat { start: cold.start, tail: hot.tail, bytes: hot.bytes + cold.bytes }
    }

    fn identity(&self) -> Option<LogIdentity> {
        self.tiers.hot.identity()
    }
}
