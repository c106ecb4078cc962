//! What the tree saves beside the logs, for tools that look at it while no tree runs.

use orchestrator_kernel::engine::outbox::PublishProgress;
use orchestrator_kernel::engine::retention::{BASE, RetentionBase};
use orchestrator_kernel::engine::run::RunIndex;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError};
use orchestrator_runtime::checkpoint::{self, decode_checkpoint};

use crate::publisher;
use crate::recovery::{BufferCheckpoint, RECEIPTS_CHECKPOINT, RUNS_CHECKPOINT};

/// Tails of the logs that the checkpoint of the buffer knows: a log that ends before has lost records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointTails {
    /// The last record of the receipt log.
    pub receipts: Seq,
    /// The last record of the quarantine.
    pub quarantine: Seq,
}

/// How far publishing had come when it was saved, which may lag; nothing when none was saved.
///
/// # Errors
///
/// [`LoadError`].
pub async fn load_progress(store: &dyn CheckpointStore) -> Result<Option<PublishProgress>, LoadError> {
    checkpoint::load_saved(store, publisher::messages::CURSOR, publisher::messages::decode_progress).await
}

/// What the checkpoint of the buffer knows.
///
/// # Errors
///
/// [`LoadError`].
pub async fn load_known_tails(store: &dyn CheckpointStore) -> Result<Option<CheckpointTails>, LoadError> {
    let saved =
        checkpoint::load_saved(store, RECEIPTS_CHECKPOINT, decode_checkpoint::<BufferCheckpoint>).await?;
    Ok(saved.map(|saved| CheckpointTails {
        receipts: saved.book.into_book().tail().into(),
        quarantine: saved.quarantine_tail,
    }))
}

/// The last record that the checkpoint of the run log knows.
///
/// # Errors
///
/// [`LoadError`].
pub async fn load_known_run_tail(store: &dyn CheckpointStore) -> Result<Option<Seq>, LoadError> {
    let saved = checkpoint::load_saved(store, RUNS_CHECKPOINT, decode_checkpoint::<RunIndex>).await?;
    Ok(saved.map(|index| index.tail().into()))
}

/// Whether the base, if one was saved, can be used.
///
/// # Errors
///
/// [`LoadError`].
pub async fn base_is_sound(store: &dyn CheckpointStore) -> Result<(), LoadError> {
    checkpoint::load_saved(store, BASE, |bytes| RetentionBase::decode(bytes).ok()).await.map(drop)
}
