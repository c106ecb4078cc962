//! Stages: one step of a pipeline, as data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::StageName;
use super::journal::{BUILT_IN_DATA_BYTES_MAX, STAGE_DATA_BYTES_MAX};

/// The part that a stage plays. Its name says it: there is no stage RISK that does not judge risk.
///
/// Source: specification 001 §7, "Canonical stage ordering"; specification 002, "Cycle types".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StageRole {
    /// Makes inputs available.
    Ingest,
    /// Computes what signals need.
    Feature,
    /// Makes decisions. From here on gates have to allow.
    Signal,
    /// Judges decisions; without it nothing is executed.
    Risk,
    /// Turns allowed decisions into order intents.
    Execute,
    /// Books what was done.
    Portfolio,
    /// Computes figures.
    Analytics,
    /// Checks that everything is on record.
    Audit,
    /// Anything else.
    Other,
}

impl StageRole {
    /// The role of the stage of this name.
    #[must_use]
    pub fn of_stage(name: &StageName) -> Self {
        match name.as_str() {
            "ING" | "fetch_market_data" => Self::Ingest,
            "FEAT" | "evaluate_positions" => Self::Feature,
            "SIG" | "generate_decisions" | "calculate_target_weights" | "compare_current_weights" => {
                Self::Signal
            }
            // A rebalance has no stage of its own for it: its orders are judged where they are made.
            "RISK" | "validate_decisions" | "generate_rebalance_orders" => Self::Risk,
            "EXEC" | "execute_orders" => Self::Execute,
            "PORT" | "update_state" => Self::Portfolio,
            "ANA" => Self::Analytics,
            "GOV" => Self::Audit,
            _ => Self::Other,
        }
    }

    /// Tells whether a stage of this role can lead to an effect, so that gates have to allow it.
    #[must_use]
    pub const fn leads_to_effects(self) -> bool {
        match self {
            Self::Signal | Self::Risk | Self::Execute => true,
            Self::Ingest | Self::Feature | Self::Portfolio | Self::Analytics | Self::Audit | Self::Other => {
                false
            }
        }
    }

    /// Tells whether a stage of this role settles what was executed, so that it is begun after a failure too.
    #[must_use]
    pub const fn settles_effects(self) -> bool {
        match self {
            Self::Portfolio | Self::Audit => true,
            Self::Ingest
            | Self::Feature
            | Self::Signal
            | Self::Risk
            | Self::Execute
            | Self::Analytics
            | Self::Other => false,
        }
    }
}

/// Provider that does a stage's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageProvider {
    /// This service.
    BuiltIn,
    /// A service behind HTTP.
    Http,
    /// A worker process that speaks the engines' protocol.
    Worker,
    /// A fixed answer.
    Fixed,
    /// Whoever answers `analysis.requested` on the event bus.
    Event,
}

impl StageProvider {
    /// Bytes of data that its answers to one stage may have, all strategies together. What is built in says something
    /// about each symbol; what comes from others is kept small, because the last cycles are kept in memory.
    #[must_use]
    pub const fn data_bytes_max(self) -> usize {
        match self {
            Self::BuiltIn => BUILT_IN_DATA_BYTES_MAX,
            Self::Http | Self::Worker | Self::Fixed | Self::Event => STAGE_DATA_BYTES_MAX,
        }
    }
}

/// Effect of a stage's failure on its cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStageFailure {
    /// The cycle fails.
    Fail,
    /// The cycle goes on, degraded.
    Degrade,
    /// The cycle is blocked.
    Block,
}

/// Delays between the attempts of one stage: doubled from `min` up to `max`, of which a seeded part of a half is taken
/// off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageBackoff {
    /// Delay before the second attempt.
    pub min: Duration,
    /// Longest delay, ≥ `min`.
    pub max: Duration,
}

/// One stage of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSpec {
    /// Its name, unique in the pipeline; it decides the [role](StageRole::of_stage).
    pub name: StageName,
    /// Who does its work.
    pub provider: StageProvider,
    /// Time for all its attempts and the delays between them. More than zero.
    pub budget: Duration,
    /// Whether calling it twice does the same as calling it once. Only then is it tried again.
    pub idempotent: bool,
    /// Attempts in all, the first included, ≥ 1.
    pub attempts_max: u32,
    /// Delays between them.
    pub backoff: StageBackoff,
    /// Whether the cycle needs its work: a cycle in which it was not begun has failed.
    pub critical: bool,
    /// What its failure does to the cycle.
    pub on_failure: OnStageFailure,
    /// A stage that is not enabled is as good as missing.
    pub enabled: bool,
}

impl StageSpec {
    /// The part that it plays.
    #[must_use]
    pub fn role(&self) -> StageRole {
        StageRole::of_stage(&self.name)
    }
}

/// Moment at which a hook is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookMoment {
    /// Before its stage.
    Before,
    /// After its stage has done its work.
    After,
}

/// Weight of a hook's denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HookMode {
    /// A denial, an error, a timeout or a patch that widens blocks the cycle.
    Hard,
    /// They are recorded and the cycle goes on; a patch that widens is not applied.
    Soft,
}

/// A HOOK/GOV gate of others, attached to one stage.
///
/// Source: CONTRACTS §7, "Gates at stage boundaries".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookSpec {
    /// Its name, unique in the pipeline.
    pub name: StageName,
    /// The stage.
    pub stage: StageName,
    /// When.
    pub moment: HookMoment,
    /// What its denial is worth.
    pub mode: HookMode,
    /// Who answers: HTTP or a worker.
    pub provider: StageProvider,
    /// Time for its answer. More than zero, 50 ms by default.
    pub budget: Duration,
}
