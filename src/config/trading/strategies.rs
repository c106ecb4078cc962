//! `[trading.strategies.<name>]`: what is traded, how carefully, and when.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::trading::ids::{PipelineName, ScheduleName, StageName, StrategyName};
use orchestrator_kernel::trading::risk::RiskMode;
use orchestrator_kernel::trading::stage::{StageProvider, StageRole, StageSpec};
use orchestrator_kernel::trading::strategy::{
    STRATEGY_SCHEDULES_MAX, STRATEGY_SYMBOLS_MAX, StrategyDefinition, StrategyStatus,
};
use orchestrator_trading_plane::builtin::BUILT_IN_KINDS;

use super::calendars::TradingCalendars;
use super::forms::{NAME_ALLOWED, NAME_REFUSAL, TRADING_NAME, TargetWeights, Weights, is_name, names_form};
use super::pipelines::TradingPipelines;
use super::schedules::{TradingSchedules, refuse_unknown_calendar, refuse_unknown_pipeline};
use crate::config::reader::forms::{OneOf, TextForm, Texts};
use crate::config::reader::section::Section;
use crate::config::reader::violation::nearest_key;

/// A strategy, with the status in which it begins when the journal does not know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrategyConfig {
    /// What it is.
    pub definition: StrategyDefinition,
    /// How it begins. Later its status is what the journal says.
    pub status: StrategyStatus,
    /// What `rebalance` brings its positions to, −1 to 1 of the capital each. Without one the last signals say it.
    pub targets: TargetWeights,
}

/// The strategies by name.
pub type TradingStrategies = BTreeMap<StrategyName, StrategyConfig>;

/// Names of the shipped strategies, each also its kind.
const SHIPPED: [&str; 2] = BUILT_IN_KINDS;
/// Symbols of the shipped strategies.
const SHIPPED_SYMBOLS: [&str; 2] = ["AAPL", "MSFT"];
/// Schedule of the shipped strategies.
const SHIPPED_SCHEDULE: &str = "analysis";
/// Pipeline of a strategy that names none.
const DEFAULT_PIPELINE: &str = "canonical";

const RISK_MODES: OneOf<RiskMode> = OneOf(&[
    ("conservative", RiskMode::Conservative),
    ("normal", RiskMode::Normal),
    ("aggressive", RiskMode::Aggressive),
]);
const STATUSES: OneOf<StrategyStatus> = OneOf(&[
    ("active", StrategyStatus::Active),
    ("paused", StrategyStatus::Paused),
    ("stopped", StrategyStatus::Stopped),
]);
const SYMBOLS: Texts = Texts {
    item: TextForm { accepts: Symbol::is_valid, allowed: "1 to 128 bytes without control characters" },
    items_max: STRATEGY_SYMBOLS_MAX,
};

/// The shipped strategy of this name. It does not trade before it is activated.
fn shipped_strategy(name: &str, calendar: &str) -> Option<StrategyConfig> {
    let name = Some(name).filter(|name| SHIPPED.contains(name))?;
    let definition = StrategyDefinition {
        name: StrategyName::new(name)?,
        kind: StageName::new(name)?,
        symbols: SHIPPED_SYMBOLS.map(Symbol::from).into(),
        risk_mode: RiskMode::default(),
        pipeline: PipelineName::new(DEFAULT_PIPELINE)?,
        schedules: vec![ScheduleName::new(SHIPPED_SCHEDULE)?],
        calendar: calendar.to_owned(),
    };
    Some(StrategyConfig { definition, status: StrategyStatus::Stopped, targets: TargetWeights::new() })
}

/// The shipped strategies.
pub(super) fn default_strategies(calendar: &str) -> TradingStrategies {
    let shipped = SHIPPED.iter().filter_map(|name| shipped_strategy(name, calendar));
    shipped.map(|strategy| (strategy.definition.name.clone(), strategy)).collect()
}

/// What reading a strategy needs to know besides its section.
pub(super) struct StrategyReader<'a> {
    pub(super) calendars: &'a TradingCalendars,
    pub(super) default_calendar: &'a str,
    pub(super) pipelines: &'a TradingPipelines,
    pub(super) schedules: &'a TradingSchedules,
    /// Schedules that are not there because they were refused, which is told already.
    pub(super) refused_schedules: &'a BTreeSet<String>,
}

impl StrategyReader<'_> {
    /// Reads the strategies, the shipped ones as [`read_pipelines`](super::pipelines::read_pipelines) does.
    pub(super) fn read_strategies(
        &self,
        section: &mut Section<'_>,
        shows_shipped: bool,
    ) -> TradingStrategies {
        let mut strategies = default_strategies(self.default_calendar);
        let always: &[&str] = if shows_shipped { &SHIPPED } else { &[] };
        let given = section.given_keys().into_iter().filter(|name| is_name(name) && !always.contains(name));
        let names: Vec<&str> = always.iter().copied().chain(given).collect();
        section.read_sections(&names, (NAME_REFUSAL, NAME_ALLOWED), |name, section| {
            let Some(name) = StrategyName::new(name) else { return };
            let shipped = strategies.get(&name).cloned();
            if let Some(read) = self.read_strategy(&name, shipped, section) {
                strategies.insert(name, read);
            }
        });
        strategies
    }

    fn read_strategy(
        &self,
        name: &StrategyName,
        shipped: Option<StrategyConfig>,
        section: &mut Section<'_>,
    ) -> Option<StrategyConfig> {
        let definition = shipped.as_ref().map(|shipped| &shipped.definition);
        let kind = section.read_defaulted(
            "kind",
            definition.map(|definition| definition.kind.to_string()),
            "it says how signals are made: momentum, regime, or a kind that a stage of yours knows",
            &TRADING_NAME,
        );
        let texts = |symbols: &[Symbol]| symbols.iter().map(Symbol::to_string).collect::<Vec<_>>();
        let symbols = section.read_defaulted(
            "symbols",
            definition.map(|definition| texts(&definition.symbols)),
            "it says what is traded",
            &SYMBOLS,
        );
        let mut risk_mode = RiskMode::default();
        section.read_value("risk_mode", &mut risk_mode, &RISK_MODES);
        let mut pipeline = DEFAULT_PIPELINE.to_owned();
        section.read_value("pipeline", &mut pipeline, &TRADING_NAME);
        refuse_unknown_pipeline(section, self.pipelines, Some(&pipeline));
        let mut schedules: Vec<String> = definition
            .map(|definition| definition.schedules.iter().map(ScheduleName::to_string).collect())
            .unwrap_or_default();
        section.read_value("schedules", &mut schedules, &names_form(STRATEGY_SCHEDULES_MAX));
        self.refuse_unknown_schedule(&schedules, section);
        let mut calendar = self.default_calendar.to_owned();
        section.read_value("calendar", &mut calendar, &TRADING_NAME);
        refuse_unknown_calendar(section, self.calendars, &calendar);
        let mut status = StrategyStatus::Stopped;
        section.read_value("status", &mut status, &STATUSES);
        let mut targets = TargetWeights::new();
        section.read_value("targets", &mut targets, &Weights);
        let definition = StrategyDefinition {
            name: name.clone(),
            kind: StageName::new(&kind?)?,
            symbols: symbols?.iter().map(|symbol| Symbol::from(symbol.as_str())).collect(),
            risk_mode,
            pipeline: PipelineName::new(&pipeline)?,
            schedules: schedules.iter().filter_map(|name| ScheduleName::new(name)).collect(),
            calendar,
        };
        let is_traded = |symbol: &&Symbol| definition.symbols.contains(symbol);
        if let Some(strange) = targets.keys().find(|symbol| !is_traded(symbol)) {
            let what = format!("names {:?}, which is none of the strategy's symbols", strange.as_str());
            section.refuse_key("targets", what, "the symbols of the strategy");
        }
        self.refuse_unknown_kind(&definition, targets.is_empty(), section);
        Some(StrategyConfig { definition, status, targets })
    }

    /// Reports a kind that a stage of this service is asked for and does not know: each cycle would fail. What only the
    /// own pipeline would ask for counts where it looks like a misspelt one: cycles of others may run it by hand.
    fn refuse_unknown_kind(
        &self,
        definition: &StrategyDefinition,
        goes_by_signals: bool,
        section: &mut Section<'_>,
    ) {
        let kind = definition.kind.as_str();
        if BUILT_IN_KINDS.contains(&kind) || !section.is_accepted("kind") {
            return;
        }
        let meant = nearest_key(kind, BUILT_IN_KINDS);
        let schedules = definition.schedules.iter().filter_map(|name| self.schedules.get(name));
        let scheduled = schedules.filter(|schedule| schedule.enabled).map(|schedule| &schedule.pipeline);
        let own = meant.is_some().then_some(&definition.pipeline);
        let asked = scheduled.chain(own).find_map(|name| {
            let stages = &self.pipelines.get(name)?.pipeline.stages;
            let stage = stages.iter().find(|stage| asks_for_kind(stage, goes_by_signals))?;
            Some(format!("stage {} of pipeline {name}", stage.name))
        });
        let Some(asked) = asked else { return };
        let hint = meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
        let what = format!("{kind:?} is no kind that {asked} knows, which this service does itself{hint}");
        let known = BUILT_IN_KINDS.join(" or ");
        section.refuse_key("kind", what, &format!("{known}, or a provider of yours for that stage"));
    }

    fn refuse_unknown_schedule(&self, schedules: &[String], section: &mut Section<'_>) {
        let is_known = |name: &String| {
            self.refused_schedules.contains(name)
                || ScheduleName::new(name).is_some_and(|name| self.schedules.contains_key(&name))
        };
        let Some(unknown) = schedules.iter().find(|name| !is_known(name)) else { return };
        let known: Vec<&str> = self.schedules.keys().take(8).map(ScheduleName::as_str).collect();
        section.refuse_key("schedules", format!("there is no schedule {unknown:?}"), &known.join(", "));
    }
}

/// Whether a built-in stage makes signals by the kind of its strategies. One that compares weights knows none, and one
/// that sets them only where the configuration does not.
fn asks_for_kind(stage: &StageSpec, goes_by_signals: bool) -> bool {
    let is_own =
        stage.enabled && stage.provider == StageProvider::BuiltIn && stage.role() == StageRole::Signal;
    is_own
        && match stage.name.as_str() {
            "compare_current_weights" => false,
            "calculate_target_weights" => goes_by_signals,
            _ => true,
        }
}
