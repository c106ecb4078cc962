//! The configuration in the words of the trading plane, and of the records that say what decided.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_kernel::trading::history::{HistorySchedule, HistoryTrigger};
use orchestrator_kernel::trading::ids::{PipelineName, ScheduleName, StageName};
use orchestrator_kernel::trading::journal::ConfigurationSnapshot;
use orchestrator_kernel::trading::schedule::ScheduleTrigger;
use orchestrator_kernel::trading::zone::ZONE_RULES_VERSION;
use orchestrator_trading_plane::builtin::BuiltInSettings;
use orchestrator_trading_plane::settings::{ScheduleSettings, TradingSettings};

use super::{
    CalendarConfig, CycleScheduleConfig, CycleTriggerConfig, FirePolicies, JournalTiming, PipelineConfig,
    StageProviderConfig, StrategyConfig, TradingConfig,
};

impl TradingConfig {
    /// The settings of the plane. `code` is version and commit of the program, for the record; `timing` is what the
    /// journal's storage needs. Schedules that are not enabled are not among them.
    #[must_use]
    pub fn plane_settings(&self, code: &str, timing: JournalTiming) -> TradingSettings {
        let pipelines = self.pipelines.iter();
        let calendars = self.used_calendars().into_iter();
        let enabled = self.schedules.iter().filter(|(_, schedule)| schedule.enabled);
        TradingSettings {
            journal: self.journal.journal_settings(timing),
            journal_queue_max: self.journal.queue_max,
            configuration: ConfigurationSnapshot {
                settings: self.deciding_settings(),
                tz_database: ZONE_RULES_VERSION.to_owned(),
                code: code.to_owned(),
            },
            pipelines: pipelines.map(|(name, config)| (name.clone(), config.pipeline.clone())).collect(),
            schedules: enabled.map(|(name, schedule)| self.schedule_settings(name, schedule)).collect(),
            strategies: self.strategies.values().map(|it| (it.definition.clone(), it.status)).collect(),
            calendars: calendars.map(|(name, config)| (name.clone(), Arc::clone(&config.market))).collect(),
            default_calendar: self.calendar.clone(),
            hours: self.hours.trading_hours(),
            mode: self.mode,
            dry_run: self.dry_run,
            cycles_running_max: self.cycles_running_max,
            calendar_warning_days: self.calendar_warning_days,
            finish_share_percent: self.finish_share_percent,
            cycle_defects_max: self.cycle_defects_max,
            journal_retry: self.journal.retry_after,
        }
    }

    /// The settings of the stages that are built in.
    #[must_use]
    pub fn built_in_settings(&self) -> BuiltInSettings {
        let with_targets = self.strategies.iter().filter(|(_, strategy)| !strategy.targets.is_empty());
        self.risk.built_in_settings(
            with_targets.map(|(name, strategy)| (name.clone(), strategy.targets.clone())).collect(),
        )
    }

    /// The calendars that something names: of others nobody needs to hear that they end.
    fn used_calendars(&self) -> BTreeMap<&String, &CalendarConfig> {
        let of_strategies = self.strategies.values().map(|strategy| &strategy.definition.calendar);
        let enabled = self.schedules.values().filter(|schedule| schedule.enabled);
        let named = of_strategies.chain(enabled.map(|schedule| &schedule.policies.calendar));
        named.chain([&self.calendar]).filter_map(|name| self.calendars.get_key_value(name)).collect()
    }

    /// A schedule with the strategies that name it, by name.
    pub(super) fn schedule_settings(
        &self,
        name: &ScheduleName,
        schedule: &CycleScheduleConfig,
    ) -> ScheduleSettings {
        let definitions = self.strategies.values().map(|strategy| &strategy.definition);
        let named = definitions.filter(|definition| definition.schedules.contains(name));
        ScheduleSettings {
            name: name.clone(),
            schedule: schedule.cycle_schedule(&self.hours, &self.calendars),
            pipeline: schedule.pipeline.clone(),
            strategies: named.map(|definition| definition.name.clone()).collect(),
            topics: schedule.trigger.topics.clone(),
            on_outputs: schedule.trigger.on_outputs,
        }
    }

    /// Finds who does the work of a stage that is not this service's.
    #[must_use]
    pub fn find_stage_provider(
        &self,
        pipeline: &PipelineName,
        stage: &StageName,
    ) -> Option<&StageProviderConfig> {
        self.providers.get(self.pipelines.get(pipeline)?.stage_providers.get(stage)?)
    }

    /// Finds who answers for a hook.
    #[must_use]
    pub fn find_hook_provider(
        &self,
        pipeline: &PipelineName,
        hook: &StageName,
    ) -> Option<&StageProviderConfig> {
        self.providers.get(self.pipelines.get(pipeline)?.hook_providers.get(hook)?)
    }

    /// The settings that decide what cycles do, by path, for the journal and the manifest. Addresses, speed and limits
    /// of memory are not among them, and no secret is.
    #[must_use]
    pub fn deciding_settings(&self) -> BTreeMap<String, String> {
        let (hours, risk) = (&self.hours, &self.risk);
        let times =
            [&hours.pre_market_start, &hours.regular_start, &hours.regular_end, &hours.after_hours_end];
        let times: Vec<&str> = times.into_iter().map(String::as_str).collect();
        let single = [
            ("environment", self.environment.as_str().to_owned()),
            ("mode", to_json(&self.mode).trim_matches('"').to_owned()),
            ("dry_run", self.dry_run.to_string()),
            ("calendar", self.calendar.clone()),
            ("cycles_running_max", self.cycles_running_max.to_string()),
            ("hours.market_hours_only", hours.market_hours_only.to_string()),
            ("hours.extended", hours.extended.to_string()),
            ("hours.times", times.join(" ")),
            ("risk.capital", risk.capital.normalize().to_string()),
            ("risk.max_position_size", risk.max_position_size.normalize().to_string()),
            ("risk.confidence_min", risk.confidence_min.get().to_string()),
            ("risk.prices_max", risk.prices_max.to_string()),
            ("events.on_foreign_error", self.events.on_foreign_error.as_str().to_owned()),
            ("events.consume", self.events.consume.join(" ")),
            ("history.required", self.history.required.to_string()),
        ];
        let calendars = self.used_calendars().into_iter();
        let calendars = calendars.map(|(name, it)| (format!("calendars.{name}"), it.digest.clone()));
        let providers =
            self.providers.iter().map(|(name, it)| (format!("providers.{name}"), it.describe_provider()));
        let pipelines = self.pipelines.iter().map(|(name, it)| (format!("pipelines.{name}"), it.to_text()));
        let schedules = self.schedules.iter().filter(|(_, schedule)| schedule.enabled);
        let schedules = schedules.map(|(name, it)| (format!("schedules.{name}"), it.to_text()));
        let strategies = self.strategies.iter();
        let strategies = strategies.map(|(name, it)| (format!("strategies.{name}"), it.to_text()));
        single
            .into_iter()
            .map(|(path, value)| (path.to_owned(), value))
            .chain(calendars)
            .chain(providers)
            .chain(pipelines)
            .chain(schedules)
            .chain(strategies)
            .map(|(path, value)| (format!("trading.{path}"), value))
            .chain(self.history_settings())
            .collect()
    }

    /// The schedules as the tables of the history show them: what they are made from has to be on record.
    fn history_settings(&self) -> impl Iterator<Item = (String, String)> {
        let enabled = self.schedules.iter().filter(|(_, schedule)| schedule.enabled);
        enabled.map(|(name, schedule)| {
            let strategies = self.schedule_settings(name, schedule).strategies;
            let trigger = schedule.trigger.history_trigger();
            HistorySchedule { trigger, strategies: strategies.into_iter().collect() }.to_setting(name)
        })
    }
}

impl CycleTriggerConfig {
    fn history_trigger(&self) -> HistoryTrigger {
        match &self.trigger {
            ScheduleTrigger::Interval { every_ms } => HistoryTrigger::Interval(*every_ms),
            ScheduleTrigger::Cron(cron) => {
                HistoryTrigger::Cron(self.written.clone(), cron.zone().to_string())
            }
            ScheduleTrigger::Session { .. } => HistoryTrigger::Calendar(self.written.clone()),
            ScheduleTrigger::OnDemand => HistoryTrigger::Event(self.written.clone()),
        }
    }
}

impl PipelineConfig {
    /// The pipeline as one line, with the names of its providers.
    fn to_text(&self) -> String {
        let Self { pipeline, stage_providers, hook_providers } = self;
        to_json(&(pipeline, stage_providers, hook_providers))
    }
}

impl StrategyConfig {
    /// The strategy as one line. How it begins decides nothing later.
    fn to_text(&self) -> String {
        let targets = self.targets.iter().map(|(symbol, weight)| format!("{symbol}={}", weight.normalize()));
        format!("{} {}", to_json(&self.definition), targets.collect::<Vec<_>>().join(","))
    }
}

impl CycleScheduleConfig {
    /// The schedule as one line.
    fn to_text(&self) -> String {
        let Self { enabled: _, pipeline, trigger, policies } = self;
        let CycleTriggerConfig { trigger: times, written, .. } = trigger;
        let FirePolicies { overlap, misfire, .. } = policies;
        let figures = [
            ("misfire_after", policies.misfire_after.as_millis().to_string()),
            ("lateness_max", policies.lateness_max.as_millis().to_string()),
            ("concurrent_max", policies.concurrent_max.to_string()),
            ("rate_max", policies.rate_max.to_string()),
            ("rate_period", policies.rate_period.as_millis().to_string()),
            ("priority", policies.priority.to_string()),
        ];
        let figures: Vec<String> = figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!(
            "{pipeline} {written} ({times:?}) calendar={} hours={} overlap={} misfire={} {}",
            policies.calendar,
            policies.hours.as_str(),
            to_json(overlap),
            to_json(misfire),
            figures.join(" ")
        )
    }
}

/// `value` as compact JSON. What is written here has only keys of text.
fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
