//! What was no receipt, kept with the reason: one record in the quarantine log.

use serde::{Deserialize, Serialize};

use super::DecodeError;
use crate::ids::TsMs;

const VERSION: u8 = 1;

/// Bytes of a refused item that are kept; of a larger one its beginning, with its size in `size`.
pub const KEPT_BYTES_MAX: usize = 256 * 1024;

/// One refused item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// When it was refused.
    pub at_ms: TsMs,
    /// The ordered channel that it came through.
    pub origin: String,
    /// Its position there; 0 when the origin does not number its items.
    pub position: u64,
    /// The stable word, see [`NotAReceipt::reason`](super::raw_market_event::NotAReceipt::reason).
    pub reason: String,
    /// What exactly is wrong.
    pub detail: String,
    /// Size of the item in bytes.
    pub size: u64,
    /// The item, or its first [`KEPT_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
}

impl QuarantineRecord {
    /// Appends the stored form to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        super::encode_to(VERSION, self, out);
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: another version, or bytes that are no record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        super::decode(VERSION, bytes)
    }
}
