//! Reading the journal at a start: from a checkpoint if there is one, and every record behind it, audited.

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::audit::JournalAudit;
use orchestrator_kernel::trading::journal::{JournalEntry, JournalIndex};
use orchestrator_runtime::checkpoint::CheckpointReader;
use orchestrator_runtime::fatal::{Fatal, FatalKind};
use orchestrator_runtime::patient_log::PatientLog;

use super::LOG;
use crate::view::TradingView;

/// Name of the journal's checkpoint.
pub(super) const JOURNAL_CHECKPOINT: &str = "journal";

/// The records of the journal, folded: whether they are in order, and what they add up to.
#[derive(Clone, Debug, Default)]
pub(super) struct JournalFold {
    pub(super) audit: JournalAudit,
    pub(super) index: JournalIndex,
}

impl JournalFold {
    /// The last record taken in.
    pub(super) const fn tail(&self) -> JournalSeq {
        self.audit.tail()
    }

    /// Takes the next stored record, shows it to readers, and gives it back.
    pub(super) fn take_record(
        &mut self,
        seq: Seq,
        bytes: &[u8],
        view: &TradingView,
    ) -> Result<JournalEntry, Fatal> {
        let seq = JournalSeq::from(seq);
        let entry = self
            .audit
            .take_record(seq, bytes)
            .map_err(|broken| Fatal::undecodable_record(LOG, seq.0, broken))?;
        self.index.take_entry(seq, &entry);
        view.take_entry(seq, &entry, &self.index);
        Ok(entry)
    }

    /// The checkpoint's form.
    pub(super) fn to_saved(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut audit, mut index) = (Vec::new(), Vec::new());
        self.audit.encode_to(&mut audit);
        self.index.encode_to(&mut index);
        (audit, index)
    }

    fn of_saved((audit, index): &(Vec<u8>, Vec<u8>)) -> Option<Self> {
        let fold =
            Self { audit: JournalAudit::decode(audit).ok()?, index: JournalIndex::decode(index).ok()? };
        (fold.audit.tail() == fold.index.tail()).then_some(fold)
    }
}

/// Reads the journal up to `tail`.
///
/// # Errors
///
/// [`Fatal`]: the chain is broken, a record breaks a rule, records are missing, or the storage does not answer.
pub(super) async fn fold_journal(
    log: &PatientLog,
    saved: CheckpointReader<'_>,
    tail: Seq,
    view: &TradingView,
) -> Result<JournalFold, Fatal> {
    let saved: Option<(Vec<u8>, Vec<u8>)> = saved.load_checkpoint(JOURNAL_CHECKPOINT).await;
    let mut fold = saved.as_ref().and_then(JournalFold::of_saved).unwrap_or_default();
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
            "the log of {LOG} starts at {start}, and nothing is known of what stood before: restore the checkpoint \
             \"{JOURNAL_CHECKPOINT}\", or the log's beginning from the archive"
        );
        return Err(Fatal::new(FatalKind::Corrupt, what));
    }
    view.show_index(&fold.index);
    log.scan_records(known.next(), tail, |seq, payload| fold.take_record(seq, payload, view).map(drop))
        .await?;
    Ok(fold)
}
