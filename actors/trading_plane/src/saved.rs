//! What the journal saves beside its log: the checkpoint that shortens a start, and the base that a trimmed journal
//! continues from. Both have one form, the fold of all records up to a position.
//!
//! ```text
//! journal_base   up to B, saved before anything up to B is trimmed; never beyond what is still needed
//! journal        up to some record between B and the tail, saved now and then; without it a start begins at B
//! ```

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::audit::{BrokenRule, JournalAudit};
use orchestrator_kernel::trading::journal::{JournalEntry, JournalIndex};
use orchestrator_runtime::checkpoint::{decode_checkpoint, load_saved};

/// Name of the journal's checkpoint.
pub const JOURNAL_CHECKPOINT: &str = "journal";
/// Name of the journal's base.
pub const JOURNAL_BASE: &str = "journal_base";

/// The records of the journal, folded: whether they are in order, and what they add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalFold {
    /// The chain, and the rules that the next record has to keep.
    pub audit: JournalAudit,
    /// The state of the plane.
    pub index: JournalIndex,
}

impl JournalFold {
    /// The last record taken in.
    #[must_use]
    pub const fn tail(&self) -> JournalSeq {
        self.audit.tail()
    }

    /// Takes the next stored record.
    ///
    /// # Errors
    ///
    /// [`BrokenRule`]: what the fold says means nothing then.
    pub fn take_record(&mut self, seq: Seq, bytes: &[u8]) -> Result<JournalEntry, BrokenRule> {
        let entry = self.audit.take_record(seq.into(), bytes)?;
        self.index.take_entry(seq.into(), &entry);
        Ok(entry)
    }

    /// What is saved of it, to be encoded as every checkpoint.
    #[must_use]
    pub fn to_saved(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut audit, mut index) = (Vec::new(), Vec::new());
        self.audit.encode_to(&mut audit);
        self.index.encode_to(&mut index);
        (audit, index)
    }

    /// Reads the encoded form; nothing when the bytes are none of this version.
    #[must_use]
    pub fn of_saved(bytes: &[u8]) -> Option<Self> {
        let (audit, index): (Vec<u8>, Vec<u8>) = decode_checkpoint(bytes)?;
        let fold =
            Self { audit: JournalAudit::decode(&audit).ok()?, index: JournalIndex::decode(&index).ok()? };
        (fold.audit.tail() == fold.index.tail()).then_some(fold)
    }
}

/// The checkpoint of the journal, if one was saved.
///
/// # Errors
///
/// [`LoadError`].
pub async fn load_journal_checkpoint(store: &dyn CheckpointStore) -> Result<Option<JournalFold>, LoadError> {
    load_saved(store, JOURNAL_CHECKPOINT, JournalFold::of_saved).await
}

/// The base of the journal, if one was saved.
///
/// # Errors
///
/// [`LoadError`].
pub async fn load_journal_base(store: &dyn CheckpointStore) -> Result<Option<JournalFold>, LoadError> {
    load_saved(store, JOURNAL_BASE, JournalFold::of_saved).await
}
