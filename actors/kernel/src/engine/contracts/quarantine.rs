//! What was no receipt, kept with the reason: one record in the quarantine log.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::DecodeError;
use crate::engine::run_id::hex_digit;
use crate::ids::TsMs;

const VERSION: u8 = 1;

/// Bytes of a refused item that are kept: the largest receipt that can be configured. Of a larger one its beginning,
/// and what tells the whole again: its size and digest, see [`describe_cut`].
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// Says what is not kept of an item of `size` bytes, of which `bytes` came here; nothing when all of it is kept.
#[must_use]
pub fn describe_cut(bytes: &[u8], size: u64) -> Option<String> {
    let kept = bytes.len().min(KEPT_BYTES_MAX);
    if kept as u64 == size {
        return None;
    }
    let beginning = format!("the first {kept} of {size} bytes are kept");
    Some(match bytes.len() as u64 == size {
        true => format!("{beginning}, the SHA-256 of all is {}", to_hex(&Sha256::digest(bytes))),
        false => format!("{beginning}, the rest is where it came from"),
    })
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push(char::from(hex_digit(byte >> 4)));
        text.push(char::from(hex_digit(byte & 0xf)));
        text
    })
}

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
        super::decode_versioned(VERSION, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_said_with_what_tells_it_again() {
        assert_eq!(describe_cut(b"abc", 3), None);
        assert_eq!(
            describe_cut(b"abc", 9).as_deref(),
            Some("the first 3 of 9 bytes are kept, the rest is where it came from")
        );

        let whole = vec![b'x'; KEPT_BYTES_MAX + 1];
        let said = describe_cut(&whole, whole.len() as u64).unwrap();

        let digest =
            said.strip_prefix("the first 67108864 of 67108865 bytes are kept, the SHA-256 of all is ");
        assert_eq!(digest.map(str::len), Some(64), "{said}");
    }
}
