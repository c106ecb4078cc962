//! The published categories of failure: closed, stable, each with its domain and a runbook of the same name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Part of the system that fails as a whole. A failure in one leaves the others running (ISO-1).
///
/// Source: specification 000, "Failure isolation domains".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureDomain {
    /// Subscribing to receipts.
    Ingest,
    /// Making receipts durable.
    Buffer,
    /// Building the snapshot and calling the engine.
    Engine,
    /// Emitting outputs.
    Publish,
}

impl FailureDomain {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Buffer => "buffer",
            Self::Engine => "engine",
            Self::Publish => "publish",
        }
    }
}

/// Category of a run's failure, as consumers see it in `payload.error_kind`.
///
/// The numbers are part of the run log's format: never reorder, only add at the end.
///
/// Source: CONTRACTS §2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The cut holds no SnapshotInputs for the run's timestamp. The engine was not called.
    MissingSnapshotInputs,
    /// The snapshot was found but the engine's side could not build its input from it.
    SnapshotBuildFailure,
    /// The engine answered with an error, or with something that is not an answer.
    EngineFailure,
    /// The engine did not answer before its deadline.
    EngineTimeout,
    /// No engine could be reached or started.
    EngineUnavailable,
    /// The hysteresis state refuses this timestamp: it is not after the last one.
    HysteresisMonotonicityViolation,
    /// The service stopped before the run could finish.
    Shutdown,
}

impl ErrorKind {
    /// Every kind, in the order of the format.
    pub const ALL: [Self; 7] = [
        Self::MissingSnapshotInputs,
        Self::SnapshotBuildFailure,
        Self::EngineFailure,
        Self::EngineTimeout,
        Self::EngineUnavailable,
        Self::HysteresisMonotonicityViolation,
        Self::Shutdown,
    ];

    /// The stable word on the wire; the runbook has this name too.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MissingSnapshotInputs => "missing_snapshot_inputs",
            Self::SnapshotBuildFailure => "snapshot_build_failure",
            Self::EngineFailure => "engine_failure",
            Self::EngineTimeout => "engine_timeout",
            Self::EngineUnavailable => "engine_unavailable",
            Self::HysteresisMonotonicityViolation => "hysteresis_monotonicity_violation",
            Self::Shutdown => "shutdown",
        }
    }

    /// The domain that a failure of this kind belongs to.
    #[must_use]
    pub const fn domain(self) -> FailureDomain {
        match self {
            Self::MissingSnapshotInputs
            | Self::SnapshotBuildFailure
            | Self::EngineFailure
            | Self::EngineTimeout
            | Self::EngineUnavailable
            | Self::HysteresisMonotonicityViolation
            | Self::Shutdown => FailureDomain::Engine,
        }
    }

    /// Whether calling the engine again with the same input can help.
    ///
    /// A snapshot that cannot be built, and a timestamp that the state refuses, stay so: the input is fixed by the cut.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::EngineFailure | Self::EngineTimeout | Self::EngineUnavailable => true,
            Self::MissingSnapshotInputs
            | Self::SnapshotBuildFailure
            | Self::HysteresisMonotonicityViolation
            | Self::Shutdown => false,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Longest `error_detail` that is stored and published, in bytes.
pub const ERROR_DETAIL_BYTES_MAX: usize = 500;

/// Shortens `detail` to one printable line of at most [`ERROR_DETAIL_BYTES_MAX`] bytes.
#[must_use]
pub fn bounded_detail(detail: &str) -> String {
    bounded_detail_of(detail, ERROR_DETAIL_BYTES_MAX)
}

/// As [`bounded_detail`], of at most `bytes_max` bytes; at least 3.
pub(crate) fn bounded_detail_of(detail: &str, bytes_max: usize) -> String {
    let mut line: String = detail.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > bytes_max {
        let cut = (0..=bytes_max.saturating_sub(3)).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(cut);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_is_one_bounded_line() {
        let detail = bounded_detail(&format!("first\nsecond {}", "é".repeat(600)));

        assert!(detail.len() <= ERROR_DETAIL_BYTES_MAX);
        assert!(detail.starts_with("first second é"));
        assert!(detail.ends_with('…'));
    }

    #[test]
    fn kind_words_agree_with_their_serialised_form() {
        for kind in ErrorKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
        }
    }
}
