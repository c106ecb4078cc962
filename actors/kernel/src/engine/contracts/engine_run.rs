//! EngineRunRecord v1: the run log. It is the authority on what was decided, and the outbox of what is published.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::DecodeError;
use crate::engine::run_id::RunId;
use crate::error::ErrorKind;
use crate::ids::{CutKind, EngineMode, EventType, IngestSeq, Symbol, TsMs};
use crate::ports::engine::{EngineAnswer, EngineIdentity};

const VERSION: u8 = 1;

/// The receipts of a run: a range of *global* sequence numbers; the slice is the symbol's receipts within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CutRange {
    /// What triggered it.
    pub kind: CutKind,
    /// First sequence, inclusive; `end + 1` when nothing arrived since the last cut.
    pub start: IngestSeq,
    /// Last sequence, inclusive.
    pub end: IngestSeq,
}

/// Facts of a run that each of its records repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The run.
    pub run_id: RunId,
    /// Its symbol.
    pub symbol: Symbol,
    /// The timestamp that the engine gets.
    pub engine_timestamp_ms: TsMs,
    /// Which engine entry point.
    pub engine_mode: EngineMode,
    /// Its receipts.
    pub cut: CutRange,
    /// When the scheduler meant it to happen.
    pub planned_ts_ms: TsMs,
    /// When this attempt series started (operational).
    pub started_ts_ms: TsMs,
    /// The selected SnapshotInputs, if the cut has one.
    pub snapshot_seq: Option<IngestSeq>,
    /// Receipts of the slice by type (informational).
    pub counts_by_event_type: BTreeMap<EventType, u64>,
    /// Number of the run's first output among the symbol's outputs: 1, 2, 3 … without gap.
    pub symbol_seq: u64,
}

/// Progress of a run: started, completed or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunStatus {
    /// About to call the engine. Durable before the call (RUN-1).
    Started {
        /// Total attempts made, this one included: more than 1 when a crash interrupted earlier ones (RUN-4).
        attempts: u32,
    },
    /// The engine answered.
    Completed {
        /// Total attempts made.
        attempts: u32,
        /// Attempts that got an answer or an error; what a crash interrupted is not among them, so it is the same with
        /// and without crashes and may be published.
        answered: u32,
        /// When (operational).
        completed_ts_ms: TsMs,
        /// The answer.
        answer: EngineAnswer,
        /// Who answered.
        engine: EngineIdentity,
    },
    /// The run ended without an answer.
    Failed {
        /// Total attempts made; 0 when the engine was not called.
        attempts: u32,
        /// As in `Completed`.
        answered: u32,
        /// When (operational).
        completed_ts_ms: TsMs,
        /// The category.
        error_kind: ErrorKind,
        /// One line without secrets.
        error_detail: String,
    },
}

/// One record of the run log.
///
/// Source: specification 000, "EngineRunRecord (v1)".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// What is known from the start.
    pub facts: RunFacts,
    /// What has happened.
    pub status: RunStatus,
}

impl RunRecord {
    /// Whether the run has ended.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        match self.status {
            RunStatus::Started { .. } => false,
            RunStatus::Completed { .. } | RunStatus::Failed { .. } => true,
        }
    }

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

    /// The export form: compact JSON, keys sorted, the fields of specification 000, absent ones null.
    #[must_use]
    pub fn to_wire(&self) -> String {
        let facts = &self.facts;
        let (status, attempts, completed, error) = match &self.status {
            RunStatus::Started { attempts } => ("started", *attempts, None, None),
            RunStatus::Completed { attempts, completed_ts_ms, .. } => {
                ("completed", *attempts, Some(*completed_ts_ms), None)
            }
            RunStatus::Failed { attempts, completed_ts_ms, error_kind, error_detail, .. } => {
                ("failed", *attempts, Some(*completed_ts_ms), Some((error_kind, error_detail)))
            }
        };
        json!({
            "attempts": attempts,
            "completed_ts_ms": completed,
            "cut_end_ingest_seq": facts.cut.end,
            "cut_kind": facts.cut.kind,
            "cut_start_ingest_seq": facts.cut.start,
            "engine_mode": facts.engine_mode,
            "engine_timestamp_ms": facts.engine_timestamp_ms,
            "error_detail": error.map(|(_, detail)| detail),
            "error_kind": error.map(|(kind, _)| kind),
            "planned_ts_ms": facts.planned_ts_ms,
            "run_id": facts.run_id.to_string(),
            "started_ts_ms": facts.started_ts_ms,
            "status": status,
            "symbol": facts.symbol,
        })
        .to_string()
    }
}
