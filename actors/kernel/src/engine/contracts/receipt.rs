//! RawInputBufferRecord v1: one receipt in the receipt log.
//!
//! A version byte, then postcard. The event's own JSON bytes stand untouched beside a small header, so that a scan
//! needs no JSON at all.

use serde::{Deserialize, Serialize};

use super::DecodeError;
use crate::ids::{IngestSeq, TsMs};

const VERSION: u8 = 1;

/// A stored receipt, borrowed from the log's bytes.
///
/// Source: specification 000, "RawInputBufferRecord (v1)"; the wire form is [`ReceiptRecord::to_wire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptRecord<'a> {
    /// Position in the log; equal to the position that the log itself counts.
    pub ingest_seq: IngestSeq,
    /// When it was buffered; never decreases along the log (LOG-5).
    pub ingest_ts_ms: TsMs,
    /// The ordered channel that it came through.
    pub origin: &'a str,
    /// Its position there; 0 when the origin does not number its items.
    pub position: u64,
    /// `symbol` of the event.
    pub symbol: &'a str,
    /// `event_type` of the event.
    pub event_type: &'a str,
    /// `normalized.timestamp_ms` when the event is a SnapshotInputs.
    pub snapshot_ts_ms: Option<TsMs>,
    /// The event, byte for byte (LOG-4).
    #[serde(with = "as_bytes")]
    pub event: &'a [u8],
}

/// Encodes as a byte string, decodes without copying.
mod as_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        <&[u8]>::deserialize(deserializer)
    }
}

impl<'a> ReceiptRecord<'a> {
    /// Appends the stored form to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        super::encode_to(VERSION, self, out);
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: another version, or bytes that are no record.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        super::decode_versioned(VERSION, bytes)
    }

    /// The export form: one compact JSON object `{"event":…,"ingest_seq":…,"ingest_ts_ms":…}`; the event is inserted
    /// byte for byte.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.event.len() + 64);
        wire.extend_from_slice(b"{\"event\":");
        wire.extend_from_slice(self.event);
        wire.extend_from_slice(
            format!(",\"ingest_seq\":{},\"ingest_ts_ms\":{}}}", self.ingest_seq, self.ingest_ts_ms)
                .as_bytes(),
        );
        wire
    }
}
