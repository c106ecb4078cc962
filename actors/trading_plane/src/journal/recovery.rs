//! Reading the journal at a start: from the checkpoint or the base, whichever is further, and every record behind it,
//! audited.

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::trading::journal::JournalEntry;
use orchestrator_runtime::checkpoint::load_saved;
use orchestrator_runtime::fatal::{Fatal, FatalKind};
use orchestrator_runtime::patient_log::PatientLog;

use super::LOG;
use crate::saved::{JOURNAL_BASE, JOURNAL_CHECKPOINT, JournalFold};
use crate::view::TradingView;

/// Takes the next stored record into the fold, shows it to readers, and gives it back.
pub(super) fn take_shown_record(
    fold: &mut JournalFold,
    seq: Seq,
    bytes: &[u8],
    view: &TradingView,
) -> Result<JournalEntry, Fatal> {
    let entry =
        fold.take_record(seq, bytes).map_err(|broken| Fatal::undecodable_record(LOG, seq.0, broken))?;
    view.take_entry(seq.into(), &entry, &fold.index);
    Ok(entry)
}

/// Reads the journal up to `tail`.
///
/// # Errors
///
/// [`Fatal`]: the chain is broken, a record breaks a rule, records are missing, or the storage does not answer.
pub(super) async fn fold_journal(
    log: &PatientLog,
    saved: SavedFolds<'_>,
    tail: Seq,
    view: &TradingView,
) -> Result<JournalFold, Fatal> {
    let checkpoint = saved.load_fold(JOURNAL_CHECKPOINT).await;
    let base = saved.load_fold(JOURNAL_BASE).await;
    // What was trimmed since the last checkpoint is in the base alone.
    let furthest = checkpoint.into_iter().chain(base).max_by_key(JournalFold::tail);
    let mut fold = furthest.unwrap_or_default();
    let known = Seq::from(fold.tail());
    if tail < known {
        let what = format!(
            "the log of {LOG} ends at {tail}, but record {known} was there: LOG_REGRESSED; restore the log"
        );
        return Err(Fatal::new(FatalKind::Corrupt, what));
    }
    let start = log.start_seq();
    if known.next() < start {
        let what = format!(
            "the log of {LOG} starts at {start}, and nothing is known of what stood before: restore the checkpoints \
             \"{JOURNAL_CHECKPOINT}\" and \"{JOURNAL_BASE}\", or the log's beginning from the archive"
        );
        return Err(Fatal::new(FatalKind::Corrupt, what));
    }
    view.show_index(&fold.index);
    let take = |seq: Seq, payload: &[u8]| take_shown_record(&mut fold, seq, payload, view).map(drop);
    log.scan_records(known.next(), tail, take).await?;
    Ok(fold)
}

/// Reader of the saved folds at a start; it tells the observer when one of them is damaged.
#[derive(Clone, Copy)]
pub(super) struct SavedFolds<'a> {
    pub(super) store: &'a dyn CheckpointStore,
    pub(super) observer: &'a dyn Observer,
}

impl SavedFolds<'_> {
    /// A fold that cannot be used is as good as none: whether the start can do without shows by where the log begins.
    async fn load_fold(self, name: &'static str) -> Option<JournalFold> {
        match load_saved(self.store, name, JournalFold::of_saved).await {
            Ok(saved) => saved,
            Err(error @ LoadError::Damaged { .. }) => {
                tracing::warn!(name, %error, "checkpoint is damaged, reading more of the journal instead");
                self.observer.observe(&Observation::CheckpointDamaged { name });
                None
            }
            Err(LoadError::Io(error)) => {
                tracing::warn!(name, %error, "checkpoint not readable, reading more of the journal instead");
                None
            }
        }
    }
}
