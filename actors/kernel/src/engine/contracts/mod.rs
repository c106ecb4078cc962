//! The records and wire forms, one file each.

pub mod engine_run;
pub mod manifest;
pub mod orchestrator_event;
pub mod quarantine;
pub mod raw_market_event;
pub mod receipt;

use serde::{Deserialize, Serialize};

/// Reason for which stored bytes are no record that this binary can read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A version that this binary does not know.
    #[error("record has format version {found}, this binary knows version {known}")]
    Version {
        /// The version byte found.
        found: u8,
        /// The version that this binary writes.
        known: u8,
    },
    /// Not a record.
    #[error("record cannot be decoded: {detail}")]
    Malformed {
        /// What the codec says.
        detail: String,
    },
}

/// The stored form of every record: a version byte, then postcard.
pub(crate) fn encode_to<T: Serialize>(version: u8, record: &T, out: &mut Vec<u8>) {
    out.push(version);
    // Into a growing vector, of types whose lengths are known: the codec has no way to fail.
    #[expect(clippy::expect_used, reason = "no failing path exists for these types")]
    postcard::to_io(record, out).expect("postcard into a vector");
}

pub(crate) fn decode_versioned<'a, T: Deserialize<'a>>(known: u8, bytes: &'a [u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Malformed { detail: "empty".to_owned() }),
        Some((version, _)) if *version != known => Err(DecodeError::Version { found: *version, known }),
        Some((_, body)) => match postcard::take_from_bytes(body) {
            Ok((record, [])) => Ok(record),
            Ok((_, rest)) => Err(DecodeError::Malformed { detail: format!("{} bytes too many", rest.len()) }),
            Err(error) => Err(DecodeError::Malformed { detail: error.to_string() }),
        },
    }
}

#[cfg(test)]
mod tests;
