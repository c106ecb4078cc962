//! Why retention fails.

use orchestrator_kernel::engine::contracts::DecodeError;
use orchestrator_kernel::engine::run::RunViolation;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::checkpoint::{LoadError, SaveError};
use orchestrator_kernel::ports::log::{AcquireError, AppendError, LogName, ReadError, TrimError};
use orchestrator_runtime::address::Down;
use orchestrator_runtime::fatal::Fatal;

/// Reason for which a round was not done, or not to its end. Whatever it was: the base that is saved fits the logs.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// An actor that has to be asked is down.
    #[error(transparent)]
    Down(#[from] Down),
    /// A log cannot be read.
    #[error("cannot read the log of {log}")]
    Read {
        /// Which log.
        log: LogName,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// A stored record is none.
    #[error("record {seq} of the log of {log} cannot be used")]
    Record {
        /// Which log.
        log: LogName,
        /// Which record.
        seq: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The run log contradicts itself.
    #[error(transparent)]
    Runs(#[from] RunViolation),
    /// The publish cursor is not known, so no run may be trimmed.
    #[error("cannot read the publish cursor")]
    Cursor(#[source] LoadError),
    /// The base is not saved, so nothing may be trimmed.
    #[error("cannot save the base")]
    Base(#[source] SaveError),
    /// The archive cannot be opened.
    #[error("cannot take over an archive")]
    Archive(#[source] AcquireError),
    /// The archive does not take the records, so they may not go.
    #[error("cannot write the archive of {log}")]
    Copy {
        /// Which log.
        log: LogName,
        /// Why.
        #[source]
        source: AppendError,
    },
    /// Between the archive and the log records are missing: they were trimmed while nothing was archived.
    #[error(
        "the archive of {log} ends at {archived}, the log starts at {start}: records between them are missing; move that \
         archive away to begin a new one"
    )]
    Hole {
        /// Which log.
        log: LogName,
        /// The last archived record.
        archived: Seq,
        /// The first record in the log.
        start: Seq,
    },
    /// The log is not trimmed.
    #[error("cannot trim the log of {log}")]
    Trim {
        /// Which log.
        log: LogName,
        /// Why.
        #[source]
        source: TrimError,
    },
    /// What the logs are continued from.
    #[error(transparent)]
    Standing(#[from] Fatal),
}
