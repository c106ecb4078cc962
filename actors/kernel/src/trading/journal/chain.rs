//! The chain: each record's hash covers the one before, so that a record altered, removed or moved is seen.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::JournalEntry;
use crate::engine::contracts::DecodeError;
use crate::engine::run_id::hex_digit;
use crate::mutant;

/// Bytes of a hash.
pub const CHAIN_HASH_BYTES: usize = 32;

/// Hash of a record and of everything before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainHash([u8; CHAIN_HASH_BYTES]);

/// Lower-case hexadecimal digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 0xf)]).map(char::from).collect()
}

impl ChainHash {
    /// What stands before the first record.
    pub const START: Self = Self([0; CHAIN_HASH_BYTES]);

    /// The hash of the record with these stored bytes that comes after the one with this hash.
    ///
    /// Source: issue "Details decided": previous hash ‖ stored bytes without the hash.
    #[must_use]
    pub fn hash_of_next(self, body: &[u8]) -> Self {
        Self(Sha256::new().chain_update(self.0).chain_update(body).finalize().into())
    }

    /// Reads what [`Display`](fmt::Display) writes: 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let text =
            Some(text).filter(|text| text.len() == 2 * CHAIN_HASH_BYTES && text.bytes().all(is_hex))?;
        let mut bytes = [0; CHAIN_HASH_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            let digits = std::str::from_utf8(pair).ok()?;
            *byte = u8::from_str_radix(digits, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; CHAIN_HASH_BYTES] {
        &self.0
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Stored bytes that do not continue the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainBreak {
    /// They are no record.
    #[error(transparent)]
    Undecodable(#[from] DecodeError),
    /// The record was altered, or the one before it is another one than when it was written.
    #[error("the record carries hash {stored}, what stands before it gives {computed}")]
    Hash {
        /// The hash that it carries.
        stored: ChainHash,
        /// The hash that follows from its bytes and the record before.
        computed: ChainHash,
    },
}

/// A record as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedEntry {
    /// The record.
    pub entry: JournalEntry,
    /// Its hash.
    pub hash: ChainHash,
}

impl SealedEntry {
    /// Reads stored bytes without looking at what stands before them.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: another version, or bytes that are no record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (body, hash) = split_hash(bytes)?;
        Ok(Self { entry: JournalEntry::decode(body)?, hash })
    }

    /// Reads stored bytes that come after the record with hash `previous`.
    ///
    /// # Errors
    ///
    /// [`ChainBreak`]: they are no record, or not the next one.
    pub fn decode_after(previous: ChainHash, bytes: &[u8]) -> Result<Self, ChainBreak> {
        let (body, stored) = split_hash(bytes)?;
        let computed = previous.hash_of_next(body);
        if stored != computed {
            return Err(ChainBreak::Hash { stored, computed });
        }
        Ok(Self { entry: JournalEntry::decode(body)?, hash: stored })
    }
}

fn split_hash(bytes: &[u8]) -> Result<(&[u8], ChainHash), DecodeError> {
    let (body, hash) = bytes
        .split_last_chunk::<CHAIN_HASH_BYTES>()
        .ok_or_else(|| DecodeError::Malformed { detail: format!("{} bytes hold no hash", bytes.len()) })?;
    Ok((body, ChainHash(*hash)))
}

/// Appends the stored form of `entry` to `out` and returns its hash, which is `previous` for the next one.
pub fn seal_entry(previous: ChainHash, entry: &JournalEntry, out: &mut Vec<u8>) -> ChainHash {
    let mut body = Vec::new();
    entry.encode_to(&mut body);
    let previous = if mutant!(ChainNotLinked) { ChainHash::START } else { previous };
    let hash = previous.hash_of_next(&body);
    out.append(&mut body);
    out.extend_from_slice(hash.as_bytes());
    hash
}
