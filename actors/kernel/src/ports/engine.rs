//! The port of the engine: what it is asked, what it may answer, how it may fail.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::ids::{EngineMode, Symbol, TsMs};

/// Identity of the engine that answered. Recorded with every run, so that a replay with another engine is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineIdentity {
    /// Name of the engine.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// Hash of its code, as it says itself.
    pub code_hash: String,
}

/// One call. All JSON is opaque text that passes unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineCall {
    /// The run's symbol; providers use it for affinity.
    pub symbol: Symbol,
    /// The timestamp of the snapshot.
    pub engine_timestamp_ms: TsMs,
    /// Which entry point.
    pub mode: EngineMode,
    /// The `normalized` object of the selected SnapshotInputs, byte for byte.
    pub inputs: String,
    /// The symbol's hysteresis state after its last run; `None` before the first, and in truth mode.
    pub state: Option<String>,
}

/// Answer of an engine. JSON text in canonical form (compact, keys sorted).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineAnswer {
    /// Answer of `run`.
    Truth {
        /// The RegimeOutput.
        regime_output: String,
    },
    /// Answer of `run_with_hysteresis`.
    Hysteresis {
        /// The HysteresisDecision.
        decision: String,
        /// The state to give with the symbol's next call.
        state: String,
    },
}

/// Failure of a call: the engine gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct EngineError {
    /// The published category.
    pub kind: ErrorKind,
    /// One line without secrets, see [`bounded_detail`](crate::error::bounded_detail).
    pub detail: String,
    /// Whether the engine itself said so, in an answer of its protocol. Otherwise nobody knows what it would have
    /// answered: it was not reached, it died, or what came was no answer to this call. Neither recorded nor published.
    pub said: bool,
}

impl EngineError {
    /// The engine's own words, or an answer that lacks what it must hold.
    #[must_use]
    pub fn from_engine(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), said: true }
    }

    /// The engine did not answer; `detail` says what happened instead.
    #[must_use]
    pub fn no_answer(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), said: false }
    }
}

/// A pure function of its call, somewhere: in process, in a worker process, behind HTTP.
///
/// The caller keeps the deadline: a call that is dropped must leave the engine usable for the next one.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Who answers; known once the first call was answered, empty before.
    fn identity(&self) -> EngineIdentity;

    /// Calls the engine once. No retries inside: the run counts its attempts.
    ///
    /// # Errors
    ///
    /// [`EngineError`] with the category to publish.
    async fn call(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError>;
}
