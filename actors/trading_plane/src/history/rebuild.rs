//! Rebuilding: the tables are emptied and made again from the journal.

use std::sync::Arc;

use orchestrator_kernel::ports::history::{HistoryError, HistoryStore};
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::trading::ids::JournalSeq;

use super::projector::{HistoryProjector, HistoryStep, HistoryTrouble};

/// Result of a rebuild.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuiltHistory {
    /// The last record taken in.
    pub projected: JournalSeq,
    /// Records whose rows the database cannot hold, each with what it said.
    pub skipped: Vec<(JournalSeq, String)>,
}

/// Empties the tables and takes the whole journal in, up to its durable `tail`; `note` is told how far it is.
///
/// A service may run meanwhile: whichever of the two finds the mark moved goes on from where it stands.
///
/// # Errors
///
/// [`HistoryTrouble`]. Begun again, it goes on where it was; the service does so too.
pub async fn rebuild_history(
    store: Arc<dyn HistoryStore>,
    journal: Arc<dyn Log>,
    tail: JournalSeq,
    records_max: usize,
    mut note: impl FnMut(JournalSeq),
) -> Result<RebuiltHistory, HistoryTrouble> {
    store.clear_history().await?;
    let mut projector = HistoryProjector::new(store, journal, records_max);
    let mut rebuilt = RebuiltHistory::default();
    loop {
        match projector.project_next(tail).await {
            Ok(HistoryStep::UpToDate) => return Ok(rebuilt),
            Ok(HistoryStep::Written) => {}
            Ok(HistoryStep::Skipped { seq, detail }) => rebuilt.skipped.push((seq, detail)),
            Err(HistoryTrouble::Store(HistoryError::Moved { .. })) => {
                tracing::debug!("another writer of the history went on meanwhile");
            }
            Err(trouble) => return Err(trouble),
        }
        if let Some(progress) = projector.progress() {
            rebuilt.projected = progress.projected;
            note(progress.projected);
        }
    }
}
