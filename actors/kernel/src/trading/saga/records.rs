//! The records of a saga, in the form that the journal keeps.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::definition::{SagaKind, SagaStepDefinition};
use crate::ids::TsMs;

/// Id of a saga: a UUID of version 8 that follows from its kind and what it is about, so that a crash keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SagaId([u8; 16]);

impl SagaId {
    /// Derives the id of the saga of `kind` about `subject`, for example the id of the order that it executes: the
    /// first 16 bytes of the SHA-256 of `saga|{kind}|{subject}`, marked as version 8, variant 10 (RFC 9562).
    #[must_use]
    pub fn derive(kind: SagaKind, subject: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(format!("saga|{}|{subject}", kind.as_str())).into();
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// One record of a saga. Versioned: the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SagaRecord {
    /// The first version.
    V1 {
        /// The saga.
        saga: SagaId,
        /// The event.
        event: SagaEvent,
    },
}

/// One step by its words: a saga keeps the steps that it was created with, whatever a later binary knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaStepWords {
    /// Its action.
    pub action: String,
    /// Its compensation.
    pub compensation: String,
}

impl SagaStepWords {
    /// The steps of a kind.
    #[must_use]
    pub fn of_kind(kind: SagaKind) -> Vec<Self> {
        let words = |step: &SagaStepDefinition| Self {
            action: step.action.as_str().to_owned(),
            compensation: step.compensation.as_str().to_owned(),
        };
        kind.steps().iter().map(words).collect()
    }
}

/// Failure of an action, by what may have happened and what may be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SagaFailure {
    /// Refused for good, without effect: no order, no room.
    Refused,
    /// Not done, without effect: it may be tried again.
    Unavailable,
    /// Nobody knows: it may be tried again, and is undone if it is not done in the end.
    Doubtful,
    /// Done in part, or out of time: it is undone and not tried again.
    Partial,
}

impl SagaFailure {
    /// Tells whether something may have happened.
    #[must_use]
    pub const fn may_have_effect(self) -> bool {
        matches!(self, Self::Doubtful | Self::Partial)
    }

    /// Tells whether another attempt can help.
    #[must_use]
    pub const fn may_be_retried(self) -> bool {
        matches!(self, Self::Unavailable | Self::Doubtful)
    }
}

/// End of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SagaEnd {
    /// Every step is done.
    Completed,
    /// Every step that may have had an effect is undone.
    Failed {
        /// The reason for which it was given up.
        why: String,
    },
}

/// An event in the life of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SagaEvent {
    /// It was created.
    Created {
        /// Moment of it.
        at: TsMs,
        /// Its kind, for example `trade_execution`.
        kind: String,
        /// Its steps, in order.
        steps: Vec<SagaStepWords>,
    },
    /// An attempt of a step begins. Durable before its effect.
    ActionBegun {
        /// Moment of it.
        at: TsMs,
        /// Which step, from 0.
        step: u16,
    },
    /// The step is done.
    ActionDone {
        /// Moment of it.
        at: TsMs,
        /// Which step.
        step: u16,
    },
    /// The attempt failed.
    ActionFailed {
        /// Moment of it.
        at: TsMs,
        /// Which step.
        step: u16,
        /// The way it ended.
        failure: SagaFailure,
        /// The reason, in words.
        why: String,
    },
    /// It does not go on: what may have had an effect is undone, the last step first.
    GivenUp {
        /// Moment of it.
        at: TsMs,
        /// The reason, in words.
        why: String,
    },
    /// An attempt of a compensation begins.
    CompensationBegun {
        /// Moment of it.
        at: TsMs,
        /// Of which step.
        step: u16,
    },
    /// The step is undone.
    CompensationDone {
        /// Moment of it.
        at: TsMs,
        /// Which step.
        step: u16,
    },
    /// The attempt failed. It is tried again, then a human is asked.
    CompensationFailed {
        /// Moment of it.
        at: TsMs,
        /// Of which step.
        step: u16,
        /// The reason, in words.
        why: String,
    },
    /// MANUAL_REQUIRED.
    OperatorAsked {
        /// Moment of it.
        at: TsMs,
        /// The step that cannot be undone.
        step: u16,
        /// The reason, in words.
        why: String,
    },
    /// An operator wants the compensation tried again.
    OperatorRetried {
        /// Moment of it.
        at: TsMs,
        /// The operator.
        by: String,
    },
    /// An operator undid the step by other means: it counts as undone, and the ones before it are undone next.
    OperatorResolved {
        /// Moment of it.
        at: TsMs,
        /// The operator.
        by: String,
        /// The way it ended.
        reason: String,
    },
    /// An operator takes over what the step has done: it counts as done, and the saga goes on from there.
    OperatorAdopted {
        /// Moment of it.
        at: TsMs,
        /// The operator.
        by: String,
        /// The reason, in words.
        reason: String,
    },
    /// It ended.
    Ended {
        /// Moment of it.
        at: TsMs,
        /// The way it ended.
        end: SagaEnd,
    },
}
