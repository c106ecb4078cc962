//! The records of a saga, in the form that the journal keeps.

use serde::{Deserialize, Serialize};

use super::definition::SagaKind;
use crate::ids::TsMs;

/// One record of a saga. Versioned: the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SagaRecord {
    /// The first version.
    V1(SagaEvent),
}

/// One step by its words: a saga keeps the steps that it was created with, whatever a later binary knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaStepWords {
    /// What it does.
    pub action: String,
    /// What undoes it.
    pub compensation: String,
}

impl SagaStepWords {
    /// The steps of a kind.
    #[must_use]
    pub fn of(kind: SagaKind) -> Vec<Self> {
        let words = |step: &super::definition::SagaStepDefinition| Self {
            action: step.action.as_str().to_owned(),
            compensation: step.compensation.as_str().to_owned(),
        };
        kind.steps().iter().map(words).collect()
    }
}

/// How an action failed, by what may have happened and what may be done next.
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

/// How a saga ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SagaEnd {
    /// Every step is done.
    Completed,
    /// Every step that may have had an effect is undone.
    Failed {
        /// Why it did not go on.
        why: String,
    },
}

/// What happened to a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SagaEvent {
    /// It was created.
    Created {
        /// When.
        at: TsMs,
        /// Its kind, for example `trade_execution`.
        kind: String,
        /// Its steps, in order.
        steps: Vec<SagaStepWords>,
    },
    /// An attempt of a step begins. Durable before its effect.
    ActionBegun {
        /// When.
        at: TsMs,
        /// Which step, from 0.
        step: u16,
    },
    /// The step is done.
    ActionDone {
        /// When.
        at: TsMs,
        /// Which step.
        step: u16,
    },
    /// The attempt failed.
    ActionFailed {
        /// When.
        at: TsMs,
        /// Which step.
        step: u16,
        /// How.
        failure: SagaFailure,
        /// Why.
        why: String,
    },
    /// It does not go on: what may have had an effect is undone, the last step first.
    GivenUp {
        /// When.
        at: TsMs,
        /// Why.
        why: String,
    },
    /// An attempt of a compensation begins.
    CompensationBegun {
        /// When.
        at: TsMs,
        /// Of which step.
        step: u16,
    },
    /// The step is undone.
    CompensationDone {
        /// When.
        at: TsMs,
        /// Which step.
        step: u16,
    },
    /// The attempt failed. It is tried again, then a human is asked.
    CompensationFailed {
        /// When.
        at: TsMs,
        /// Of which step.
        step: u16,
        /// Why.
        why: String,
    },
    /// MANUAL_REQUIRED.
    OperatorAsked {
        /// When.
        at: TsMs,
        /// The step that cannot be undone.
        step: u16,
        /// Why.
        why: String,
    },
    /// An operator wants the compensation tried again.
    OperatorRetried {
        /// When.
        at: TsMs,
        /// Who.
        by: String,
    },
    /// An operator undid the step by other means: it counts as undone, and the ones before it are undone next.
    OperatorResolved {
        /// When.
        at: TsMs,
        /// Who.
        by: String,
        /// How.
        reason: String,
    },
    /// An operator takes over what the step has done: it counts as done, and the saga goes on from there.
    OperatorAdopted {
        /// When.
        at: TsMs,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// It ended.
    Ended {
        /// When.
        at: TsMs,
        /// How.
        end: SagaEnd,
    },
}
