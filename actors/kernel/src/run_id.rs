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
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
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
