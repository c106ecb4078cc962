//! Pipelines: what a cycle does, as data.
//!
//! ```text
//!  ING ─ FEAT ─┃─ SIG ─ RISK ─ EXEC ─┃─ PORT ─ ANA ─ GOV
//!   gates look │  gates have to      │  settle what was executed
//!   for flips  │  allow each stage   │
//! ```

mod shipped;
mod validate;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::PipelineName;
use super::stage::{HookMoment, HookSpec, OnStageFailure, StageRole, StageSpec};

pub use shipped::{
    DefaultCadence, analysis_pipeline, canonical_pipeline, default_cadence, default_stage,
    heartbeat_pipeline, rebalance_pipeline,
};
pub use validate::{PIPELINE_HOOKS_MAX, PIPELINE_STAGES_MAX, PipelineViolation};

/// An ordered list of stages with what holds for all of them.
///
/// Source: specification 001 §7 and §8; specification 002, "Cycle types".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Its name, which is the type of its cycles.
    pub name: PipelineName,
    /// The stages, in the order in which they are begun.
    pub stages: Vec<StageSpec>,
    /// Gates of others.
    pub hooks: Vec<HookSpec>,
    /// Time for a whole cycle (`ORCH_CYCLE_BUDGET_MS`). More than zero.
    pub budget: Duration,
    /// Age at which the newest input is too old. Nothing: inputs are never too old.
    pub stale_after: Option<Duration>,
    /// Whether trading goes on when analytics failed (`ORCH_DEGRADED_ALLOW_EXEC`).
    pub degraded_allow_exec: bool,
    /// Whether a failed audit fails the cycle (`ORCH_FAIL_CLOSED_ON_AUDIT`).
    pub fail_closed_on_audit: bool,
}

impl Pipeline {
    /// The first enabled stage that can lead to an effect: gates have to allow it and every later one. Nothing for a
    /// pipeline that only looks, which no gate concerns.
    #[must_use]
    pub fn first_gated(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.enabled && stage.role().leads_to_effects())
    }

    /// Whether an enabled stage works on the symbols of the cycle's strategies.
    #[must_use]
    pub fn works_on_symbols(&self) -> bool {
        let works = |role| match role {
            StageRole::Ingest | StageRole::Feature | StageRole::Signal | StageRole::Risk => true,
            StageRole::Execute
            | StageRole::Portfolio
            | StageRole::Analytics
            | StageRole::Audit
            | StageRole::Other => false,
        };
        self.stages.iter().any(|stage| stage.enabled && works(stage.role()))
    }

    /// The enabled RISK: where a cycle begins whose decision came by event.
    #[must_use]
    pub fn first_risk(&self) -> Option<usize> {
        self.stages.iter().position(|stage| stage.enabled && stage.role() == StageRole::Risk)
    }

    /// Whether an enabled EXEC lacks an enabled RISK in front of it, from the stage at `from` on.
    #[must_use]
    pub fn lacks_risk(&self, from: usize) -> bool {
        let mut roles = self.stages.iter().skip(from).filter(|stage| stage.enabled).map(StageSpec::role);
        roles.find(|role| matches!(role, StageRole::Risk | StageRole::Execute)) == Some(StageRole::Execute)
    }

    /// What the failure of `stage` does to the cycle.
    #[must_use]
    pub fn on_failure(&self, stage: &StageSpec) -> OnStageFailure {
        match (stage.role(), self.fail_closed_on_audit) {
            (StageRole::Audit, true) => OnStageFailure::Fail,
            (StageRole::Audit, false) => OnStageFailure::Degrade,
            (
                StageRole::Ingest
                | StageRole::Feature
                | StageRole::Signal
                | StageRole::Risk
                | StageRole::Execute
                | StageRole::Portfolio
                | StageRole::Analytics
                | StageRole::Other,
                _,
            ) => stage.on_failure,
        }
    }

    /// The hooks of this stage at this moment, in the order in which they are asked.
    pub fn hooks_at(&self, stage: usize, moment: HookMoment) -> impl Iterator<Item = &HookSpec> {
        let name = self.stages.get(stage).map(|stage| &stage.name);
        self.hooks.iter().filter(move |hook| Some(&hook.stage) == name && hook.moment == moment)
    }

    /// Everything that makes this no pipeline that can be run.
    #[must_use]
    pub fn find_violations(&self) -> Vec<PipelineViolation> {
        validate::find_violations(self)
    }
}

#[cfg(test)]
mod tests;
