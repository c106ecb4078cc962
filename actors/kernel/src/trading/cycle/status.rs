//! How a cycle ends, inside and in the words of each specification.

use serde::{Deserialize, Serialize};

use crate::trading::gate::GateKind;
use crate::trading::ids::StageName;

/// Status of a cycle at its end; a later one is worse.
///
/// Source: specification 001, `CycleResult`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CycleStatus {
    /// Everything was done.
    #[default]
    Ok,
    /// Something that is not critical was not done.
    Degraded,
    /// It was stopped: by a gate, by somebody, by a stage.
    Blocked,
    /// Something critical was not done.
    Failed,
}

impl CycleStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Degraded, Self::Blocked, Self::Failed];

    /// The word inside, in metrics, and in specification 001.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Blocked => "blocked",
            Self::Failed => "failed",
        }
    }

    /// The word of `GET /api/v1/cycles` in specification 002. A cycle that runs is `started`.
    #[must_use]
    pub const fn cycle_word(self) -> &'static str {
        match self {
            Self::Ok | Self::Degraded => "completed",
            Self::Blocked => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The word of `orchestrator.cycle.completed`.
    #[must_use]
    pub const fn event_word(self) -> &'static str {
        match self {
            Self::Ok => "success",
            Self::Degraded => "partial",
            Self::Blocked | Self::Failed => "failed",
        }
    }
}

/// The published codes of specification 001.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CycleErrorCode {
    /// A stage failed.
    #[serde(rename = "E_ORCH_STAGE_FAILED")]
    StageFailed,
    /// A gate, or somebody, stopped the cycle.
    #[serde(rename = "E_ORCH_BLOCKED")]
    Blocked,
    /// A budget was exceeded.
    #[serde(rename = "E_ORCH_TIMEOUT")]
    Timeout,
}

impl CycleErrorCode {
    /// Every code.
    pub const ALL: [Self; 3] = [Self::StageFailed, Self::Blocked, Self::Timeout];

    /// The code on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StageFailed => "E_ORCH_STAGE_FAILED",
            Self::Blocked => "E_ORCH_BLOCKED",
            Self::Timeout => "E_ORCH_TIMEOUT",
        }
    }

    /// The error's `retryable`.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Timeout => true,
            Self::StageFailed | Self::Blocked => false,
        }
    }
}

/// Reason for a cycle's status at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CycleEndReason {
    /// Every stage was done.
    Done,
    /// This stage failed, for all strategies or for some: by its rule that fails, blocks or degrades.
    Stage(StageName),
    /// The cycle's budget was exceeded.
    OutOfTime,
    /// This gate denied.
    Gate {
        /// The gate.
        gate: GateKind,
        /// Who and why.
        why: String,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// Who and why.
        why: String,
    },
}

impl CycleEndReason {
    /// The reason as one line.
    #[must_use]
    pub fn to_line(&self) -> String {
        match self {
            Self::Done => "done".to_owned(),
            Self::Stage(name) => format!("stage {name}"),
            Self::OutOfTime => "out of time".to_owned(),
            Self::Gate { gate: GateKind::Hook(name), why } => format!("hook {name}: {why}"),
            Self::Gate { gate, why } => format!("{}: {why}", gate.gate_word()),
            Self::Cancelled { why } => format!("cancelled: {why}"),
        }
    }
}
