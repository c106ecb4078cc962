//! Doors to the stored forms, for the fuzz targets, and to the questions of the preflight.

use bytes::Bytes;
use orchestrator_kernel::ids::Seq;

use super::entry::{self, LogId};
use super::replay::ReplayedCommands;
use super::{checkpoints, high_water};

/// The payload of a stored entry.
///
/// # Errors
///
/// Why it cannot be trusted.
pub fn open_entry(log: u64, seq: u64, stored: &[u8]) -> Result<&[u8], String> {
    entry::open_entry(LogId(log), Seq(seq), stored)
}

/// Commands of which the preflight asks whether a restart of the server replays them.
#[must_use]
pub fn replayed_by_store(namespace: &str) -> Vec<Vec<String>> {
    ReplayedCommands::of_store(namespace, false).into_commands()
}

/// The stored form of an entry.
pub fn write_entry(log: u64, seq: u64, payload: &[u8]) -> Vec<u8> {
    let mut stored = Vec::new();
    entry::write_entry(LogId(log), Seq(seq), payload, &mut stored);
    stored
}

/// A log's identity, written again.
pub fn log_id_again(text: &str) -> Option<String> {
    LogId::from_hex(text).map(|id| id.to_string())
}

/// A stored checkpoint, written again.
///
/// # Errors
///
/// Why it is refused.
pub fn checkpoint_again(stored: &Bytes) -> Result<Vec<u8>, &'static str> {
    checkpoints::decode_checkpoint(stored).map(|value| checkpoints::encode_checkpoint(&value))
}

/// A slot of the high-water mark, written again; `None` when it is refused or too short.
pub fn mark_again(stored: &[u8]) -> Option<Vec<u8>> {
    let (writes, mark) = high_water::decode_slot(stored.first_chunk()?)?;
    Some(high_water::encode_slot(&mark, writes).to_vec())
}
