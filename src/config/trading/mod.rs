//! `[trading]`: the trading plane. Until `trading.enabled` is true nothing of it has an effect; what is wrong with it
//! is told all the same, so that switching it on later brings no surprise.
//!
//! ```text
//! hours ─┐
//! calendars ─┴─▶ schedules ─┐
//! providers ──▶ pipelines ──┴─▶ strategies       each may name only what is read before it
//! ```
//!
//! Pipelines, schedules and strategies that are shipped are there without being named. `config show` shows them while
//! the plane is on, or where a layer changes them.

mod backtests;
mod calendars;
mod events;
mod forms;
mod history;
mod hours;
mod journal;
mod pipelines;
mod plane;
mod providers;
mod risk;
mod rules;
mod schedules;
mod strategies;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrator_kernel::trading::ids::{ScheduleName, StageName};
use orchestrator_kernel::trading::journal::TradingMode;
use orchestrator_kernel::trading::pipeline::canonical_pipeline;

pub use backtests::TradingBacktestsConfig;
pub use calendars::{CalendarConfig, TradingCalendars};
pub use events::{ForeignErrorPolicy, TradingEventsConfig};
pub use history::{HistoryPlace, TradingHistoryConfig};
pub use hours::{FireHours, TradingHoursConfig};
pub use journal::{JournalTiming, TradingJournalConfig};
pub use pipelines::{PipelineConfig, TradingPipelines};
pub use providers::StageProviderConfig;
pub use risk::TradingRiskConfig;
pub use schedules::{CycleScheduleConfig, CycleTriggerConfig, FirePolicies, TradingSchedules};
pub use strategies::{StrategyConfig, TradingStrategies};

pub(super) use rules::check_trading;

use super::ConfigBase;
use super::reader::forms::{Count, Flag, OneOf};
use super::reader::section::Section;
use calendars::DEFAULT_CALENDAR;
use forms::{STAGE_BUDGET, StageBudgets, StageBudgetsForm, TRADING_NAME};
use pipelines::{default_pipelines, read_pipelines};
use providers::ReadProviders;
use schedules::{ScheduleReader, default_schedules, refuse_unknown_calendar};
use strategies::{StrategyReader, default_strategies};

/// What `orchestrator demo --trading` runs.
const DEMO_TRADING_TOML: &str = include_str!("../../../config/demo_trading.toml");

/// The base of the configuration of `orchestrator demo --trading`: the made-up market, and two strategies on it.
#[must_use]
pub const fn trading_demo_base() -> ConfigBase {
    ConfigBase::BuiltIn { name: "config/demo_trading.toml", toml: DEMO_TRADING_TOML }
}

/// Surroundings of the service: whether a mistake costs money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TradingEnvironment {
    /// To try things.
    #[default]
    Dev,
    /// In earnest. An audit that fails has to fail the cycle.
    Prod,
}

impl TradingEnvironment {
    /// The word in the configuration, and the tag `env` of events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Prod => "prod",
        }
    }
}

/// Settings for all pipelines that do not say otherwise.
///
/// Source: specification 001, section 8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradingDefaults {
    /// Time for a whole cycle, 1ms to 1h (`ORCH_CYCLE_BUDGET_MS`). `analysis` and `rebalance` have their own.
    pub cycle_budget: Duration,
    /// Time of stages by their names, 1ms to 1h each (`ORCH_STAGE_BUDGET_MS`).
    pub stage_budgets: StageBudgets,
    /// Attempts after the first one, of idempotent stages, 0 to 9 (`ORCH_RETRY_MAX`).
    pub retry_max: u32,
    /// Whether trading goes on when analytics failed (`ORCH_DEGRADED_ALLOW_EXEC`).
    pub degraded_allow_exec: bool,
    /// Whether a failed audit fails the cycle (`ORCH_FAIL_CLOSED_ON_AUDIT`).
    pub fail_closed_on_audit: bool,
}

impl Default for TradingDefaults {
    fn default() -> Self {
        let canonical = canonical_pipeline();
        Self {
            cycle_budget: canonical.budget,
            stage_budgets: canonical.stages.into_iter().map(|stage| (stage.name, stage.budget)).collect(),
            retry_max: 1,
            degraded_allow_exec: canonical.degraded_allow_exec,
            fail_closed_on_audit: canonical.fail_closed_on_audit,
        }
    }
}

/// `[trading]` with everything below it.
#[derive(Clone, Debug, PartialEq)]
pub struct TradingConfig {
    /// Whether the trading plane runs.
    pub enabled: bool,
    /// What a mistake costs.
    pub environment: TradingEnvironment,
    /// The money and the market that cycles work with.
    pub mode: TradingMode,
    /// Whether order intents end as `dry_run`.
    pub dry_run: bool,
    /// What holds for pipelines that do not say otherwise.
    pub defaults: TradingDefaults,
    /// Cycles that may run at a time, 1 to 10000.
    pub cycles_running_max: u32,
    /// How often what failed for a defect of one cycle is tried again before the cycle is cancelled, 0 to 100.
    pub cycle_defects_max: u32,
    /// How long a cycle that a stop found running may go on, in per cent of the grace, 0 to 80.
    pub finish_share_percent: u32,
    /// Calendar of strategies and schedules that name none.
    pub calendar: String,
    /// Days before a calendar's end from which on that is said, 0 to 3650.
    pub calendar_warning_days: u32,
    /// When gated cycles may trade.
    pub hours: TradingHoursConfig,
    /// Limits.
    pub risk: TradingRiskConfig,
    /// The journal.
    pub journal: TradingJournalConfig,
    /// The event bus.
    pub events: TradingEventsConfig,
    /// The projection for people.
    pub history: TradingHistoryConfig,
    /// Backtests that are asked for.
    pub backtests: TradingBacktestsConfig,
    /// The calendars, the shipped ones too.
    pub calendars: TradingCalendars,
    /// Who does the work of stages besides this service.
    pub providers: BTreeMap<String, StageProviderConfig>,
    /// The pipelines, the shipped ones too.
    pub pipelines: TradingPipelines,
    /// The schedules, the shipped ones too.
    pub schedules: TradingSchedules,
    /// The strategies, the shipped ones too.
    pub strategies: TradingStrategies,
}

impl Default for TradingConfig {
    fn default() -> Self {
        let (hours, defaults) = (TradingHoursConfig::default(), TradingDefaults::default());
        Self {
            enabled: false,
            environment: TradingEnvironment::default(),
            mode: TradingMode::Paper,
            dry_run: true,
            cycles_running_max: 100,
            cycle_defects_max: 2,
            finish_share_percent: 50,
            calendar: DEFAULT_CALENDAR.to_owned(),
            calendar_warning_days: 60,
            risk: TradingRiskConfig::default(),
            journal: TradingJournalConfig::default(),
            events: TradingEventsConfig::default(),
            history: TradingHistoryConfig::default(),
            backtests: TradingBacktestsConfig::default(),
            calendars: calendars::shipped_calendars(),
            providers: BTreeMap::new(),
            pipelines: default_pipelines(&defaults),
            schedules: default_schedules(&hours, DEFAULT_CALENDAR),
            strategies: default_strategies(DEFAULT_CALENDAR),
            hours,
            defaults,
        }
    }
}

const ENVIRONMENTS: OneOf<TradingEnvironment> =
    OneOf(&[("dev", TradingEnvironment::Dev), ("prod", TradingEnvironment::Prod)]);
const MODES: OneOf<TradingMode> =
    OneOf(&[("live", TradingMode::Live), ("paper", TradingMode::Paper), ("backtest", TradingMode::Backtest)]);

impl TradingConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        config.read_keys(section);
        config.read_static_sections(section);
        config.read_named_sections(section);
        config
    }

    fn read_keys(&mut self, section: &mut Section<'_>) {
        section.read_value("enabled", &mut self.enabled, &Flag);
        section.read_value("environment", &mut self.environment, &ENVIRONMENTS);
        section.read_value("mode", &mut self.mode, &MODES);
        section.read_value("dry_run", &mut self.dry_run, &Flag);
        let defaults = &mut self.defaults;
        section.read_value("cycle_budget", &mut defaults.cycle_budget, &STAGE_BUDGET);
        let budgets = StageBudgetsForm { unnamed: defaults.stage_budgets.clone() };
        section.read_value("stage_budgets", &mut defaults.stage_budgets, &budgets);
        section.read_value("retry_max", &mut defaults.retry_max, &Count(0..=9));
        section.read_value("degraded_allow_exec", &mut defaults.degraded_allow_exec, &Flag);
        section.read_value("fail_closed_on_audit", &mut defaults.fail_closed_on_audit, &Flag);
        section.read_value("cycles_running_max", &mut self.cycles_running_max, &Count(1..=10_000));
        section.read_value("cycle_defects_max", &mut self.cycle_defects_max, &Count(0..=100));
        section.read_value("finish_share_percent", &mut self.finish_share_percent, &Count(0..=80));
        section.read_value("calendar", &mut self.calendar, &TRADING_NAME);
        section.read_value("calendar_warning_days", &mut self.calendar_warning_days, &Count(0..=3650));
    }

    fn read_static_sections(&mut self, section: &mut Section<'_>) {
        self.hours = section.read_section("hours", TradingHoursConfig::from_section);
        self.risk = section.read_section("risk", TradingRiskConfig::from_section);
        self.journal = section.read_section("journal", TradingJournalConfig::from_section);
        self.events = section.read_section("events", TradingEventsConfig::from_section);
        self.history = section.read_section("history", TradingHistoryConfig::from_section);
        self.backtests = section.read_section("backtests", TradingBacktestsConfig::from_section);
    }

    /// Reads the sections whose names users choose. Each kind may name only what was read before it.
    fn read_named_sections(&mut self, section: &mut Section<'_>) {
        let shows_shipped = self.enabled;
        self.calendars = section.read_section("calendars", calendars::read_calendars);
        refuse_unknown_calendar(section, &self.calendars, &self.calendar);
        // One that there is not is told once, and not again of everything that would have it.
        let default_calendar = match self.calendars.contains_key(&self.calendar) {
            true => self.calendar.as_str(),
            false => DEFAULT_CALENDAR,
        };
        let providers: ReadProviders = section.read_section("providers", providers::read_providers);
        let defaults = &self.defaults;
        self.pipelines = section.read_section("pipelines", |section| {
            read_pipelines(section, shows_shipped, defaults, &providers)
        });
        refuse_unknown_stages(section, &self.defaults.stage_budgets, &self.pipelines);
        let schedules = ScheduleReader {
            hours: &self.hours,
            calendars: &self.calendars,
            default_calendar,
            pipelines: &self.pipelines,
        };
        let (schedules, refused) = section.read_section("schedules", |section| {
            let named: Vec<String> = section.given_keys().into_iter().map(str::to_owned).collect();
            let read = schedules.read_schedules(section, shows_shipped);
            let is_read =
                |name: &String| ScheduleName::new(name).is_some_and(|name| read.contains_key(&name));
            let refused = named.into_iter().filter(|name| !is_read(name)).collect::<BTreeSet<_>>();
            (read, refused)
        });
        let strategies = StrategyReader {
            calendars: &self.calendars,
            default_calendar,
            pipelines: &self.pipelines,
            schedules: &schedules,
            refused_schedules: &refused,
        };
        self.strategies =
            section.read_section("strategies", |section| strategies.read_strategies(section, shows_shipped));
        self.schedules = schedules;
        self.providers = providers.accepted;
    }
}

/// Stages of specification 001 that no shipped pipeline has; users append them.
const OPTIONAL_STAGES: [&str; 2] = ["LEARN", "OPT"];

/// A budget of a stage that there is not is a misspelt name: the budget that was meant would not be in force.
fn refuse_unknown_stages(section: &mut Section<'_>, budgets: &StageBudgets, pipelines: &TradingPipelines) {
    let shipped = TradingDefaults::default().stage_budgets;
    let configured = pipelines.values().flat_map(|config| &config.pipeline.stages).map(|stage| &stage.name);
    let known: BTreeSet<&str> =
        configured.chain(shipped.keys()).map(StageName::as_str).chain(OPTIONAL_STAGES).collect();
    let unknown = budgets.keys().map(StageName::as_str).filter(|name| !known.contains(name));
    let unknown: Vec<String> = unknown.map(|name| format!("{name:?}")).collect();
    if !unknown.is_empty() {
        let what = format!("names {}, which is no stage of any pipeline", unknown.join(" and "));
        let names: Vec<&str> = known.into_iter().collect();
        section.refuse_key("stage_budgets", what, &names.join(", "));
    }
}
