//! The archiver: moves the oldest records of the hot log to the archive, a bounded step at a time.
//!
//! Each step either trims what the archive already holds or copies what comes next, and is derived from nothing but
//! the two logs. So it can end anywhere, and the next archiver, of this process or another one, goes on from there.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{AppendError, ReadError, TrimError};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use super::Tiers;

/// How often the size of the hot log is looked at without an append that asks for it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reason for which a step was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ArchiveError {
    /// A later writer archives now.
    #[error("a later writer took the log over")]
    Superseded,
    #[error(
        "the hot log does not give record {wanted}, with which the archive goes on, although it has later ones"
    )]
    Skipped { wanted: Seq },
    #[error("cannot read the hot log")]
    Read(#[source] ReadError),
    #[error("cannot write the archive")]
    Write(#[source] AppendError),
    #[error("cannot trim the hot log")]
    Trim(#[source] TrimError),
}

impl ArchiveError {
    /// Whether a later step of this process may succeed.
    fn is_passing(&self) -> bool {
        match self {
            Self::Superseded
            | Self::Skipped { .. }
            | Self::Read(ReadError::Corrupt { .. } | ReadError::Trimmed { .. }) => false,
            Self::Read(ReadError::Io(_)) | Self::Trim(_) => true,
            Self::Write(error) => match error {
                AppendError::Full { .. } | AppendError::Unknown { .. } => true,
                AppendError::Fenced { .. }
                | AppendError::Conflict { .. }
                | AppendError::Gap { .. }
                | AppendError::Poisoned { .. } => false,
            },
        }
    }
}

/// Outcome of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArchiveStep {
    /// Copied this many records.
    Copied(usize),
    /// Removed from the hot log what the archive holds.
    Trimmed,
    /// There is nothing to do.
    Idle,
}

/// Archives for one writer.
pub(super) struct Archiver {
    pub(super) tiers: Arc<Tiers>,
    pub(super) hot_epoch: Epoch,
    pub(super) cold_epoch: Epoch,
}

impl Archiver {
    /// Archives whenever the hot log is above its limit, until a later writer takes over or only a person can help.
    pub(super) async fn run_archiver(self) {
        let options = &self.tiers.options;
        let log = &options.name;
        let mut pause = options.backoff_min;
        loop {
            let failure = match self.archive_down_to_keep().await {
                Ok(moved) => {
                    pause = options.backoff_min;
                    self.tiers.set_trouble(None);
                    self.wait_for_work(moved).await;
                    continue;
                }
                Err(ArchiveError::Superseded) => {
                    info!(log, "archiving ends: a later writer took the log over");
                    return;
                }
                Err(failure) => failure,
            };
            let why = error_chain(&failure);
            self.tiers.set_trouble(Some(format!("its oldest records cannot be archived: {why}")));
            if !failure.is_passing() {
                error!(
                    log,
                    error = why,
                    "archiving ends until the process is started again; the hot log fills up"
                );
                return;
            }
            warn!(log, error = why, next_try_in = ?pause, "archiving failed; the hot log keeps its records meanwhile");
            sleep(pause).await;
            pause = (pause * 2).min(options.backoff_max);
        }
    }

    /// Waits until there may be something to archive.
    async fn wait_for_work(&self, moved: bool) {
        if !moved && self.tiers.is_above_limit() {
            // Nothing more can go; appends would only wake it for nothing.
            return sleep(LOOK_EVERY).await;
        }
        // Out of time is as good a reason to look as being woken.
        timeout(LOOK_EVERY, self.tiers.wake.notified()).await.ok();
    }

    /// Brings a hot log that is above its limit down to what is to be kept; says whether anything went.
    pub(super) async fn archive_down_to_keep(&self) -> Result<bool, ArchiveError> {
        if !self.tiers.is_above_limit() {
            return Ok(false);
        }
        let mut records = 0;
        let before = self.tiers.hot.stat().start;
        while self.tiers.options.hot_bytes_keep < self.tiers.hot.stat().bytes {
            match self.do_next_step().await? {
                ArchiveStep::Copied(count) => records += count,
                ArchiveStep::Trimmed => {}
                ArchiveStep::Idle => break,
            }
        }
        let (hot, cold) = (self.tiers.hot.stat(), self.tiers.cold.stat());
        if before < hot.start {
            info!(
                log = self.tiers.options.name, records, hot_start = %hot.start, hot_bytes = hot.bytes,
                archive_tail = %cold.tail, archive_bytes = cold.bytes, "moved the oldest records to the archive"
            );
        }
        Ok(before < hot.start)
    }

    /// Does the next thing that brings the hot log's size down.
    pub(super) async fn do_next_step(&self) -> Result<ArchiveStep, ArchiveError> {
        if self.trim_archived().await? {
            return Ok(ArchiveStep::Trimmed);
        }
        Ok(match self.copy_next_records().await? {
            0 => ArchiveStep::Idle,
            count => ArchiveStep::Copied(count),
        })
    }

    /// Removes from the hot log what the archive holds but for the last of it, the seam; says whether anything went.
    async fn trim_archived(&self) -> Result<bool, ArchiveError> {
        let seam = self.tiers.cold.stat().tail;
        let start = self.tiers.hot.stat().start;
        if seam <= start {
            return Ok(false);
        }
        // Fenced: a process that was superseded while it slept must not trim what its successor's archive does not hold.
        let now = match self.tiers.hot.trim(self.hot_epoch, seam).await {
            Ok(now) => now,
            Err(TrimError::Fenced { .. }) => return Err(ArchiveError::Superseded),
            Err(error) => return Err(ArchiveError::Trim(error)),
        };
        debug!(log = self.tiers.options.name, %start, %now, "trimmed the hot log");
        Ok(start < now)
    }

    /// Makes the next records durable in the archive; says how many.
    pub(super) async fn copy_next_records(&self) -> Result<usize, ArchiveError> {
        let wanted = self.tiers.cold.stat().tail.next();
        if self.tiers.hot.stat().tail < wanted {
            return Ok(0);
        }
        let page = self.tiers.hot.read(wanted, self.tiers.options.step).await.map_err(ArchiveError::Read)?;
        if page.is_empty() || page.first_seq() != wanted {
            return Err(ArchiveError::Skipped { wanted });
        }
        match self.tiers.cold.append(self.cold_epoch, &page).await {
            Ok(()) => Ok(page.len()),
            Err(AppendError::Fenced { .. }) => Err(ArchiveError::Superseded),
            Err(error) => Err(ArchiveError::Write(error)),
        }
    }
}

/// The error with its causes.
fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
