//! Why the journal's retention fails.

use orchestrator_kernel::engine::contracts::DecodeError;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::checkpoint::{LoadError, SaveError};
use orchestrator_kernel::ports::log::{AcquireError, ReadError, TrimError};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::audit::BrokenRule;
use orchestrator_runtime::log_copy::CopyError;

/// Reason for which the journal was not trimmed, or not as far as it might be. Whatever it was: the base that is saved
/// fits the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalRetentionError {
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Read(#[from] ReadError),
    /// A stored record is none.
    #[error("record {seq} of the journal cannot be used")]
    Record {
        /// Which record.
        seq: JournalSeq,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The journal contradicts itself.
    #[error("the journal cannot be trimmed")]
    Broken(#[from] BrokenRule),
    /// The base cannot be used.
    #[error("cannot read the base of the journal")]
    BaseUnusable(#[source] LoadError),
    /// How far events are published is not known.
    #[error("cannot read how far the journal's events are published")]
    CursorUnusable(#[source] LoadError),
    /// The journal was trimmed, and its base is gone or an older one.
    #[error("the journal starts at {start}, its base ends at {base}: restore the checkpoint journal_base")]
    BaseLost {
        /// The first record that is there.
        start: Seq,
        /// The last record that the base knows; 0 without one.
        base: JournalSeq,
    },
    /// The base is not saved, so nothing may be trimmed.
    #[error("cannot save the base of the journal")]
    BaseUnsaved(#[source] SaveError),
    /// The archive cannot be opened.
    #[error("cannot take over the archive of the journal")]
    Archive(#[source] AcquireError),
    /// The archive does not take the records, so they may not go.
    #[error("cannot archive the journal")]
    Copy(#[from] CopyError),
    /// The journal is not trimmed.
    #[error("cannot trim the journal")]
    Trim(#[from] TrimError),
}
