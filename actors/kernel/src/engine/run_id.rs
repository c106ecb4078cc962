//! The deterministic name of a run.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{EngineMode, IngestSeq, Symbol, TsMs};

/// SHA-256 of `{symbol}|{engine_timestamp_ms}|{cut_end_ingest_seq}|{engine_mode}`; shown as lowercase hex.
///
/// Source: specification 000, "Unit of work"; CONTRACTS §2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId([u8; 32]);

impl RunId {
    /// Derives the id. The same four facts give the same id on every machine, so a replay names its runs alike.
    #[must_use]
    pub fn derive(symbol: &Symbol, engine_ts: TsMs, cut_end: IngestSeq, mode: EngineMode) -> Self {
        let text = format!("{symbol}|{engine_ts}|{cut_end}|{}", mode.as_str());
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not formatted byte by byte: a run's id is written several times a run, and that took 4 % of a saturated core.
        let mut text = [0; 64];
        for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(self.0) {
            *pair = [hex_digit(byte >> 4), hex_digit(byte & 0xf)];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

pub(crate) const fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_id_matches_the_recorded_vectors() {
        let id = |ts, end| {
            RunId::derive(&Symbol::from("BTCUSDT"), TsMs(ts), IngestSeq(end), EngineMode::Truth).to_string()
        };

        assert_eq!(
            id(1_768_002_660_000, 218),
            "358bd5f742d23c0da60a487a8241cc0ba801a42e1c2d5bb8e467842206a4848f"
        );
        assert_eq!(
            id(1_768_002_840_000, 927),
            "0a9c77ab45db94d17a48cd7bea5dda9d186ddb6cc87495f02aca2c5aaba231a6"
        );
    }
}
