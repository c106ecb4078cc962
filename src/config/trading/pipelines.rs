//! `[trading.pipelines.<name>]`: what cycles do. The shipped four are there anyhow; a user changes them or adds others.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator_kernel::trading::ids::{PipelineName, StageName};
use orchestrator_kernel::trading::pipeline::{
    PIPELINE_STAGES_MAX, Pipeline, analysis_pipeline, canonical_pipeline, default_stage, heartbeat_pipeline,
    rebalance_pipeline,
};
use orchestrator_kernel::trading::stage::{
    HookMode, HookMoment, HookSpec, OnStageFailure, StageProvider, StageRole, StageSpec,
};

use super::TradingDefaults;
use super::forms::{NAME_ALLOWED, NAME_REFUSAL, STAGE_BUDGET, TRADING_NAME, is_name, names_form};
use super::providers::{BUILT_IN, ReadProviders};
use crate::config::reader::forms::{Count, DurationForm, Flag, OneOf};
use crate::config::reader::section::Section;
use crate::config::retry;

/// A pipeline, with who does its stages' work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineConfig {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Names of providers by stage, for the stages of others.
    pub stage_providers: BTreeMap<StageName, String>,
    /// Names of providers by hook.
    pub hook_providers: BTreeMap<StageName, String>,
}

/// The pipelines by name.
pub type TradingPipelines = BTreeMap<PipelineName, PipelineConfig>;

/// Names of the shipped pipelines.
const SHIPPED: [&str; 4] = ["canonical", "analysis", "heartbeat", "rebalance"];
/// Shipped pipelines whose time is one of specification 001 and therefore that of every cycle; the other two have a
/// longer one of specification 002.
const OF_CYCLE_BUDGET: [&str; 2] = ["canonical", "heartbeat"];

/// Time of a stage that neither it nor `trading.stage_budgets` gives one.
const STAGE_BUDGET_DEFAULT: Duration = Duration::from_secs(1);
/// Time of a hook's answer that gives none.
///
/// Source: CONTRACTS, section 7.
const HOOK_BUDGET_DEFAULT: Duration = Duration::from_millis(50);
/// Age of inputs, of a pipeline that is not shipped: three intervals of `analysis`.
const STALE_AFTER_DEFAULT: Duration = Duration::from_secs(180);

/// The shipped pipeline of this name.
fn shipped_pipeline(name: &str) -> Option<Pipeline> {
    match name {
        "canonical" => Some(canonical_pipeline()),
        "analysis" => Some(analysis_pipeline()),
        "heartbeat" => Some(heartbeat_pipeline()),
        "rebalance" => Some(rebalance_pipeline()),
        _ => None,
    }
}

/// The shipped pipelines, as the settings for all pipelines make them.
pub(super) fn default_pipelines(defaults: &TradingDefaults) -> TradingPipelines {
    let shipped = SHIPPED.iter().filter_map(|name| shipped_pipeline(name));
    let configured = shipped.map(|pipeline| PipelineConfig {
        pipeline: defaults.apply_to_shipped(pipeline),
        stage_providers: BTreeMap::new(),
        hook_providers: BTreeMap::new(),
    });
    configured.map(|config| (config.pipeline.name.clone(), config)).collect()
}

impl TradingDefaults {
    fn apply_to_shipped(&self, shipped: Pipeline) -> Pipeline {
        let is_of_cycle_budget = OF_CYCLE_BUDGET.contains(&shipped.name.as_str());
        let Pipeline { name, stages, hooks, budget, stale_after, .. } = shipped;
        let stages = stages.into_iter().map(|stage| {
            let budget = self.stage_budgets.get(&stage.name).copied().unwrap_or(stage.budget);
            StageSpec { budget, attempts_max: self.attempts_of(stage.idempotent), ..stage }
        });
        Pipeline {
            name,
            stages: stages.collect(),
            hooks,
            budget: if is_of_cycle_budget { self.cycle_budget } else { budget },
            stale_after,
            degraded_allow_exec: self.degraded_allow_exec,
            fail_closed_on_audit: self.fail_closed_on_audit,
        }
    }

    fn new_pipeline(&self, name: PipelineName) -> Pipeline {
        Pipeline {
            name,
            stages: Vec::new(),
            hooks: Vec::new(),
            budget: self.cycle_budget,
            stale_after: Some(STALE_AFTER_DEFAULT),
            degraded_allow_exec: self.degraded_allow_exec,
            fail_closed_on_audit: self.fail_closed_on_audit,
        }
    }

    /// A stage that nothing more is said of.
    fn new_stage(&self, name: StageName, budget: Duration) -> StageSpec {
        let stage = default_stage(name, budget);
        StageSpec { attempts_max: self.attempts_of(stage.idempotent), ..stage }
    }

    /// `retry_max` counts the attempts after the first one, of what may be tried again.
    fn attempts_of(&self, is_idempotent: bool) -> u32 {
        if is_idempotent { self.retry_max.saturating_add(1) } else { 1 }
    }

    fn budget_of(&self, stage: &StageName) -> Duration {
        self.stage_budgets.get(stage).copied().unwrap_or(STAGE_BUDGET_DEFAULT)
    }
}

/// Reads the pipelines. The shipped ones are read, and so shown, when `shows_shipped`; else only where a layer names
/// them.
pub(super) fn read_pipelines(
    section: &mut Section<'_>,
    shows_shipped: bool,
    defaults: &TradingDefaults,
    providers: &ReadProviders,
) -> TradingPipelines {
    let mut pipelines = default_pipelines(defaults);
    let always: &[&str] = if shows_shipped { &SHIPPED } else { &[] };
    let given = section.given_keys().into_iter().filter(|name| is_name(name) && !always.contains(name));
    let names: Vec<&str> = always.iter().copied().chain(given).collect();
    section.read_sections(&names, (NAME_REFUSAL, NAME_ALLOWED), |name, section| {
        let Some(name) = PipelineName::new(name) else { return };
        let shipped = pipelines.get(&name).map(|config| config.pipeline.clone());
        let read = PipelineReader { defaults, providers }.read_pipeline(&name, shipped, section);
        pipelines.insert(name, read);
    });
    pipelines
}

/// Words of a failure's effect.
const ON_FAILURE: OneOf<OnStageFailure> = OneOf(&[
    ("fail", OnStageFailure::Fail),
    ("degrade", OnStageFailure::Degrade),
    ("block", OnStageFailure::Block),
]);
/// Words of a hook's moment.
const MOMENTS: OneOf<HookMoment> = OneOf(&[("before", HookMoment::Before), ("after", HookMoment::After)]);
/// Words of a hook's weight.
const MODES: OneOf<HookMode> = OneOf(&[("HARD", HookMode::Hard), ("SOFT", HookMode::Soft)]);
/// Age of the newest input; 0s for any.
const STALE_AFTER: DurationForm = DurationForm(Duration::ZERO..=Duration::from_secs(7 * 86_400));

/// What reading a pipeline needs to know besides its section.
struct PipelineReader<'a> {
    defaults: &'a TradingDefaults,
    providers: &'a ReadProviders,
}

impl PipelineReader<'_> {
    fn read_pipeline(
        &self,
        name: &PipelineName,
        shipped: Option<Pipeline>,
        section: &mut Section<'_>,
    ) -> PipelineConfig {
        let stage_names = |pipeline: &Pipeline| -> Vec<String> {
            pipeline.stages.iter().map(|it| it.name.to_string()).collect()
        };
        let named = shipped.as_ref().map(stage_names);
        let mut pipeline = shipped.unwrap_or_else(|| self.defaults.new_pipeline(name.clone()));
        let stages = section.read_defaulted(
            "stages",
            named,
            "it says what a cycle does, in this order",
            &names_form(PIPELINE_STAGES_MAX),
        );
        section.read_value("budget", &mut pipeline.budget, &STAGE_BUDGET);
        let mut stale_after = pipeline.stale_after.unwrap_or_default();
        section.read_value("stale_after", &mut stale_after, &STALE_AFTER);
        pipeline.stale_after = Some(stale_after).filter(|age| !age.is_zero());
        section.read_value("degraded_allow_exec", &mut pipeline.degraded_allow_exec, &Flag);
        section.read_value("fail_closed_on_audit", &mut pipeline.fail_closed_on_audit, &Flag);

        let mut config =
            PipelineConfig { pipeline, stage_providers: BTreeMap::new(), hook_providers: BTreeMap::new() };
        self.read_stages(&mut config, stages.unwrap_or_default(), section);
        section.read_section("hook", |section| self.read_hooks(&mut config, section));
        config
    }

    /// Reads the stages of this list, each with the section that may say more of it.
    fn read_stages(&self, config: &mut PipelineConfig, stages: Vec<String>, section: &mut Section<'_>) {
        let known = std::mem::take(&mut config.pipeline.stages);
        let names: Vec<&str> = stages.iter().map(String::as_str).collect();
        section.read_section("stage", |section| {
            let allowed = "one of the pipeline's stages";
            section.read_sections(&names, ("is none of the pipeline's stages", allowed), |name, section| {
                let Some(name) = StageName::new(name) else { return };
                let shipped = known.iter().find(|stage| stage.name == name).cloned();
                let (stage, provider) = self.read_stage(name, shipped, section);
                config.stage_providers.extend(provider.map(|provider| (stage.name.clone(), provider)));
                config.pipeline.stages.push(stage);
            });
        });
    }

    fn read_stage(
        &self,
        name: StageName,
        shipped: Option<StageSpec>,
        section: &mut Section<'_>,
    ) -> (StageSpec, Option<String>) {
        let mut stage = shipped.unwrap_or_else(|| {
            let budget = self.defaults.budget_of(&name);
            self.defaults.new_stage(name, budget)
        });
        let default = is_built_in(&stage).then(|| BUILT_IN.to_owned());
        let provider = self.read_provider(default, section);
        section.read_value("budget", &mut stage.budget, &STAGE_BUDGET);
        section.read_value("idempotent", &mut stage.idempotent, &Flag);
        stage.attempts_max = self.defaults.attempts_of(stage.idempotent);
        section.read_value("attempts_max", &mut stage.attempts_max, &Count(1..=10));
        section.read_value("backoff_min", &mut stage.backoff.min, &retry::DELAY);
        section.read_value("backoff_max", &mut stage.backoff.max, &retry::DELAY);
        section.read_value("critical", &mut stage.critical, &Flag);
        section.read_value("on_failure", &mut stage.on_failure, &ON_FAILURE);
        section.read_value("enabled", &mut stage.enabled, &Flag);
        let (kind, named) = provider.unwrap_or((StageProvider::BuiltIn, None));
        stage.provider = kind;
        (stage, named)
    }

    fn read_hooks(&self, config: &mut PipelineConfig, section: &mut Section<'_>) {
        let names: Vec<&str> = section.given_keys().into_iter().filter(|name| is_name(name)).collect();
        section.read_sections(&names, (NAME_REFUSAL, NAME_ALLOWED), |name, section| {
            let Some(name) = StageName::new(name) else { return };
            let stage = section.read_required("stage", "it says at which stage it is asked", &TRADING_NAME);
            let mut moment = HookMoment::Before;
            section.read_value("moment", &mut moment, &MOMENTS);
            let mode = section.read_required("mode", "it says what a denial is worth", &MODES);
            let provider = self.read_provider(None, section);
            let mut budget = HOOK_BUDGET_DEFAULT;
            section.read_value("budget", &mut budget, &STAGE_BUDGET);
            let (Some(stage), Some(mode), Some((kind, named))) = (stage, mode, provider) else { return };
            let Some(stage) = StageName::new(&stage) else { return };
            config.hook_providers.extend(named.map(|named| (name.clone(), named)));
            config.pipeline.hooks.push(HookSpec { name, stage, moment, mode, provider: kind, budget });
        });
    }

    /// Reads who does the work: the kind, and the name of one of others.
    fn read_provider(
        &self,
        default: Option<String>,
        section: &mut Section<'_>,
    ) -> Option<(StageProvider, Option<String>)> {
        let why = "it says who does the work";
        let word = section.read_defaulted("provider", default, why, &TRADING_NAME)?;
        let Some(kind) = self.providers.find_kind(&word) else {
            let allowed = self.providers.list_words();
            section.refuse_key("provider", format!("{word:?} is no provider"), &allowed);
            return None;
        };
        let is_of_others = match kind {
            StageProvider::Http | StageProvider::Worker | StageProvider::Fixed => true,
            StageProvider::BuiltIn | StageProvider::Event => false,
        };
        Some((kind, Some(word).filter(|_| is_of_others)))
    }
}

/// Stages that this service knows although they play no part of their own.
const BUILT_IN_OTHERS: [&str; 3] = ["check_service_health", "sync_positions", "update_status"];

/// Whether this service can do the work of a stage of this name.
fn is_built_in(stage: &StageSpec) -> bool {
    stage.role() != StageRole::Other || BUILT_IN_OTHERS.contains(&stage.name.as_str())
}
