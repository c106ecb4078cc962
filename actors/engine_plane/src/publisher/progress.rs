//! How far publishing has come: what is saved, what this process knows, and what a start goes on from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrator_kernel::engine::outbox::{Holds, PublishCursor, PublishProgress};
use orchestrator_kernel::ids::RunSeq;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError};
use orchestrator_kernel::ports::observer::Observation;
use orchestrator_runtime::checkpoint;
use orchestrator_runtime::fatal::NoAnswer;
use ractor::ActorProcessingErr;

use super::{PublisherArgs, PublisherState};
use crate::recovery;

/// The name under which progress is kept among the checkpoints.
pub(crate) const CURSOR: &str = "published";

/// Progress of publishing in this process, for the next incarnation of the publisher: the saved progress lags. Also for
/// the retention: what the publisher has not published yet, it has to read.
#[derive(Clone, Debug, Default)]
pub struct PublishedUpTo(Arc<Mutex<Option<PublishProgress>>>);

impl PublishedUpTo {
    /// The last run record that publishing needs no more; none before the publisher's first start.
    pub(crate) fn run_seq(&self) -> RunSeq {
        self.lock_progress().as_ref().map(PublishProgress::last_released).unwrap_or_default()
    }

    /// What waits because it is refused for good.
    #[must_use]
    pub fn current_holds(&self) -> Holds {
        self.lock_progress().as_ref().map(|progress| progress.holds.clone()).unwrap_or_default()
    }

    fn lock_progress(&self) -> MutexGuard<'_, Option<PublishProgress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PublisherState {
    /// Tells the next incarnation and the retention how far it came.
    pub(super) fn note_progress(&self) {
        *self.args.reached.lock_progress() = Some(self.progress.clone());
    }
}

/// What a start goes on from, and what is saved; nothing is saved when it cannot be used.
pub(super) async fn recover_progress(
    args: &PublisherArgs,
) -> Result<(PublishProgress, Option<PublishProgress>), ActorProcessingErr> {
    // Nothing goes before it is published.
    let base = recovery::base_or_again(args.checkpoints.as_ref()).await?;
    let gone = PublishCursor { run_seq: base.run_index().tail(), outputs: base.run_index().output_count() };
    let known = args.reached.lock_progress().clone();
    let saved = match load_progress(args.checkpoints.as_ref()).await {
        Ok(saved) => Some(saved.unwrap_or_default()),
        // Published again is better than not published (OUT-1), and better than not started.
        Err(error @ LoadError::Damaged { .. }) => {
            let from = known.as_ref().map_or(gone, |known| known.cursor.max(gone)).run_seq.next();
            tracing::warn!(
                domain = "publish", %error, %from,
                "the publish cursor is damaged: all outputs from this run record on are published again"
            );
            args.observer.observe(&Observation::CheckpointDamaged { name: CURSOR });
            None
        }
        Err(LoadError::Io(source)) => {
            return Err(NoAnswer { what: "cannot read the publish cursor", source }.into());
        }
    };
    let is_first = known.is_none();
    let known = known.unwrap_or_default();
    let mut progress = match &saved {
        Some(saved) if is_first || known.cursor < saved.cursor => saved.clone(),
        Some(_) | None => known,
    };
    if progress.cursor < gone {
        // What is saved is older than what retention trimmed. Everything from there on is offered, so nothing is held.
        progress = PublishProgress { cursor: gone, holds: Holds::default() };
    }
    progress.holds.release_trimmed(gone.run_seq, |symbol| base.run_index().symbol_runs(symbol).outputs);
    if is_first {
        // Whoever started the service may have mended what was refused.
        progress.holds.retry_all();
    }
    Ok((progress, saved))
}

/// Reads the stored form of progress; one that is not known is as good as damaged.
pub(crate) fn decode_progress(bytes: &[u8]) -> Option<PublishProgress> {
    PublishProgress::decode(bytes).ok()
}

async fn load_progress(store: &dyn CheckpointStore) -> Result<Option<PublishProgress>, LoadError> {
    checkpoint::load_saved(store, CURSOR, decode_progress).await
}

/// The last run record that publishing needs no more, as it was saved.
pub(crate) async fn load_released(store: &dyn CheckpointStore) -> Result<RunSeq, LoadError> {
    Ok(load_progress(store).await?.unwrap_or_default().last_released())
}
