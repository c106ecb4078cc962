//! What the tree saves beside the logs, for tools that look at it while no tree runs.

use std::io;

use orchestrator_kernel::ids::{RunSeq, Seq};
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::run::RunIndex;

use crate::recovery::{self, BufferCheckpoint};

/// How far publishing had come when it was saved: it may lag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The last run record whose outputs were all confirmed.
    pub run_seq: RunSeq,
    /// Outputs up to there.
    pub outputs: u64,
}

/// How far the checkpoints of derived state know the logs: a log that ends before has lost records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Of the receipt log.
    pub receipts: Option<Seq>,
    /// Of the quarantine.
    pub quarantine: Option<Seq>,
    /// Of the run log: all that the checkpoint says about it.
    pub runs: Option<RunIndex>,
}

/// The publish cursor; nothing when none was saved, or none that can be trusted.
///
/// # Errors
///
/// The storage failed.
pub async fn published(store: &dyn CheckpointStore) -> io::Result<Option<Published>> {
    let saved = store.load(crate::publisher::CURSOR).await?;
    Ok(saved
        .and_then(|bytes| crate::publisher::Cursor::from_bytes(&bytes))
        .map(|cursor| Published { run_seq: cursor.run_seq, outputs: cursor.outputs }))
}

/// What the checkpoints know.
///
/// # Errors
///
/// The storage failed.
pub async fn known(store: &dyn CheckpointStore) -> io::Result<Known> {
    let buffer = store.load(crate::buffer::CHECKPOINT).await?;
    let buffer: Option<BufferCheckpoint> = buffer.and_then(|bytes| recovery::decode_checkpoint(&bytes));
    let runs = store.load(crate::run_log::CHECKPOINT).await?;
    let quarantine = buffer.as_ref().map(|buffer| buffer.quarantine_tail);
    Ok(Known {
        quarantine,
        receipts: buffer.map(|buffer| buffer.book.into_book().tail().into()),
        runs: runs.and_then(|bytes| recovery::decode_checkpoint(&bytes)),
    })
}
