//! The rules that a pipeline keeps. All violations at once, each with its path.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::Pipeline;
use crate::trading::stage::{HookSpec, OnStageFailure, StageProvider, StageRole, StageSpec};

/// Stages that a pipeline may have.
pub const PIPELINE_STAGES_MAX: usize = 64;
/// Hooks that a pipeline may have.
pub const PIPELINE_HOOKS_MAX: usize = 64;
const BUDGET_MAX: Duration = Duration::from_secs(60 * 60);
const ATTEMPTS_MAX: u32 = 10;

/// A rule that a pipeline breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineViolation {
    /// Where: as `stages.EXEC.provider`.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for PipelineViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// Violations as they are found.
struct Findings(Vec<PipelineViolation>);

impl Findings {
    fn check_holds(&mut self, holds: bool, path: impl Into<String>, problem: impl Into<String>) {
        if !holds {
            self.0.push(PipelineViolation { path: path.into(), problem: problem.into() });
        }
    }
}

pub(super) fn find_violations(pipeline: &Pipeline) -> Vec<PipelineViolation> {
    let mut found = Findings(Vec::new());
    let (stages, hooks) = (pipeline.stages.len(), pipeline.hooks.len());
    let limit = format!("1 to {PIPELINE_STAGES_MAX} stages, there are {stages}");
    found.check_holds((1..=PIPELINE_STAGES_MAX).contains(&stages), "stages", limit);
    found.check_holds(
        hooks <= PIPELINE_HOOKS_MAX,
        "hooks",
        format!("at most {PIPELINE_HOOKS_MAX}, there are {hooks}"),
    );
    check_budget(&mut found, "budget", pipeline.budget);
    found.check_holds(pipeline.stale_after != Some(Duration::ZERO), "stale_after", "more than zero");
    let executes = pipeline.stages.iter().filter(|stage| stage.role() == StageRole::Execute).count();
    found.check_holds(executes <= 1, "stages", "at most one stage executes orders");
    let mut names = BTreeSet::new();
    for stage in &pipeline.stages {
        let path = format!("stages.{}", stage.name);
        found.check_holds(names.insert(&stage.name), &path, "the name is used twice");
        check_stage(&mut found, &path, stage);
    }
    let mut hook_names = BTreeSet::new();
    for hook in &pipeline.hooks {
        let path = format!("hooks.{}", hook.name);
        found.check_holds(hook_names.insert(&hook.name), &path, "the name is used twice");
        check_hook(&mut found, &path, hook, pipeline);
    }
    found.0
}

fn check_stage(found: &mut Findings, path: &str, stage: &StageSpec) {
    check_budget(found, &format!("{path}.budget"), stage.budget);
    let attempts = (1..=ATTEMPTS_MAX).contains(&stage.attempts_max);
    found.check_holds(attempts, format!("{path}.attempts_max"), format!("1 to {ATTEMPTS_MAX}"));
    let once = stage.idempotent || stage.attempts_max <= 1;
    found.check_holds(once, format!("{path}.attempts_max"), "only an idempotent stage is tried again");
    let StageSpec { backoff, .. } = stage;
    found.check_holds(backoff.min <= backoff.max, format!("{path}.backoff"), "min is at most max");
    if stage.role() == StageRole::Execute {
        // Another EXEC would send what no intent stands for.
        let built_in = stage.provider == StageProvider::BuiltIn;
        found.check_holds(built_in, format!("{path}.provider"), "only the built-in one executes orders");
        found.check_holds(
            !stage.idempotent,
            format!("{path}.idempotent"),
            "executing orders is never idempotent",
        );
    }
    if matches!(stage.role(), StageRole::Risk | StageRole::Execute) {
        let stops = stage.on_failure != OnStageFailure::Degrade;
        found.check_holds(
            stops,
            format!("{path}.on_failure"),
            "trading does not go on without it: fail or block",
        );
        found.check_holds(stage.critical, format!("{path}.critical"), "it is critical");
    }
}

fn check_hook(found: &mut Findings, path: &str, hook: &HookSpec, pipeline: &Pipeline) {
    check_budget(found, &format!("{path}.budget"), hook.budget);
    let known = pipeline.stages.iter().any(|stage| stage.name == hook.stage);
    found.check_holds(known, format!("{path}.stage"), format!("there is no stage {}", hook.stage));
    let asked = matches!(hook.provider, StageProvider::Http | StageProvider::Worker);
    found.check_holds(asked, format!("{path}.provider"), "http or worker");
}

fn check_budget(found: &mut Findings, path: &str, budget: Duration) {
    let within = Duration::ZERO < budget && budget <= BUDGET_MAX;
    found.check_holds(within, path, format!("more than zero and at most {} s", BUDGET_MAX.as_secs()));
}
