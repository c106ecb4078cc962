//! Doors to the stored forms of derived state, for the fuzz targets.

use bytes::Bytes;
use orchestrator_kernel::engine::cut::BookCheckpoint;
use orchestrator_kernel::engine::run::RunIndex;
use orchestrator_runtime::checkpoint::{decode_checkpoint, encode_checkpoint};

/// The stored form of the book that a checkpoint gives; `None` when the bytes are none.
#[must_use]
pub fn book_again(stored: &[u8]) -> Option<Bytes> {
    let checkpoint: BookCheckpoint = decode_checkpoint(stored)?;
    Some(encode_checkpoint(&checkpoint.into_book().to_checkpoint()))
}

/// The stored form of the run index that a checkpoint gives; `None` when the bytes are none.
#[must_use]
pub fn run_index_again(stored: &[u8]) -> Option<Bytes> {
    decode_checkpoint::<RunIndex>(stored).map(|index| encode_checkpoint(&index))
}
