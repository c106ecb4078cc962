//! What the plane is made of: its settings, decided by the configuration, and its ports to the outside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::backtests::BacktestRunner;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::kill_switch::KillGate;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::market::MarketView;
use orchestrator_kernel::ports::observer::Observer;
use orchestrator_kernel::ports::stage::{HookBackend, StageBackend};
use orchestrator_kernel::trading::calendar::{ExtendedHours, MarketCalendar};
use orchestrator_kernel::trading::ids::{PipelineName, ScheduleName, StrategyName};
use orchestrator_kernel::trading::journal::{ConfigurationSnapshot, TradingMode};
use orchestrator_kernel::trading::pipeline::Pipeline;
use orchestrator_kernel::trading::schedule::CycleSchedule;
use orchestrator_kernel::trading::strategy::{StrategyDefinition, StrategyStatus, check_cycle_symbols};
use orchestrator_runtime::status::StatusBoard;

use crate::history::HistoryPorts;
use crate::journal::JournalSettings;
use crate::outbox::EventPorts;
use crate::retention::JournalRetentionPorts;
use crate::view::TradingView;

/// Ports of the trading plane to the outside.
#[derive(Clone)]
pub struct TradingPorts {
    /// The journal's log.
    pub journal: Arc<dyn Log>,
    /// Where checkpoints are saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// The process's clock.
    pub clock: Arc<dyn Clock>,
    /// What effects ask. The engine plane's tree owns the kill switch's reader; this is its gate.
    pub kill_gate: Arc<dyn KillGate>,
    /// What is known of the market.
    pub market: Arc<dyn MarketView>,
    /// Who does the stages' work, each by its provider.
    pub stages: Arc<dyn StageBackend>,
    /// Who answers for hooks.
    pub hooks: Arc<dyn HookBackend>,
    /// The database of the history; nothing where none is kept.
    pub history: Option<HistoryPorts>,
    /// How the journal is trimmed; nothing where all of it is kept.
    pub retention: Option<JournalRetentionPorts>,
    /// The bus that events are published to; nothing where none is.
    pub events: Option<EventPorts>,
    /// Who runs backtests that are asked for.
    pub backtests: Arc<dyn BacktestRunner>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Where conditions are shown: the service's board.
    pub board: StatusBoard,
    /// The read model. It is made by whoever wires the plane, because built-in stages look at it too.
    pub view: TradingView,
}

/// Hours in which gated cycles may trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TradingHours {
    /// At any time.
    Any,
    /// While the calendar's market has its session.
    Session,
    /// The same, and before and after it.
    Extended(ExtendedHours),
}

/// A schedule, with what it begins.
#[derive(Clone, Debug)]
pub struct ScheduleSettings {
    /// Its name.
    pub name: ScheduleName,
    /// When it fires, and what becomes of fires that are late or find a cycle running.
    pub schedule: CycleSchedule,
    /// What its cycles do.
    pub pipeline: PipelineName,
    /// The strategies that its cycles work for, those of them that are active. None for a pipeline that only looks.
    pub strategies: Vec<StrategyName>,
    /// Topics whose events make it fire, with `*` for one word and `#` for any number of words.
    pub topics: Vec<String>,
    /// Whether outputs of the engine plane make it fire.
    pub on_outputs: bool,
}

/// Settings of the plane.
#[derive(Clone, Debug)]
pub struct TradingSettings {
    /// How the journal is written.
    pub journal: JournalSettings,
    /// Records that may be on their way to the journal.
    pub journal_queue_max: u32,
    /// What decides, for the record; its hash names the configuration in each cycle.
    pub configuration: ConfigurationSnapshot,
    /// The pipelines by name.
    pub pipelines: BTreeMap<PipelineName, Pipeline>,
    /// The schedules.
    pub schedules: Vec<ScheduleSettings>,
    /// The strategies of the configuration, each with the status in which it begins when it is new.
    pub strategies: Vec<(StrategyDefinition, StrategyStatus)>,
    /// The calendars by name.
    pub calendars: BTreeMap<String, Arc<MarketCalendar>>,
    /// The calendar of cycles that have no strategy.
    pub default_calendar: String,
    /// When gated cycles may trade.
    pub hours: TradingHours,
    /// The money and the market that cycles work with.
    pub mode: TradingMode,
    /// Whether intents end as `dry_run`.
    pub dry_run: bool,
    /// Cycles that may run at a time.
    pub cycles_running_max: u32,
    /// Days before a calendar's end from which on that is said.
    pub calendar_warning_days: u32,
    /// How long a cycle that a stop found running may go on, as part of the grace in per cent.
    pub finish_share_percent: u32,
    /// How often what failed for a defect of one cycle is tried again before the cycle is cancelled.
    pub cycle_defects_max: u32,
    /// How long a schedule waits before it asks again whether the journal takes records.
    pub journal_retry: Duration,
}

impl TradingSettings {
    /// Everything that makes these no settings to start with, each with its place. A configuration refuses all of it at
    /// once.
    #[must_use]
    pub fn find_violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, pipeline) in &self.pipelines {
            found.extend(pipeline.find_violations().iter().map(|it| format!("pipelines.{name}: {it}")));
        }
        for (definition, _) in &self.strategies {
            let place = format!("strategies.{}", definition.name);
            found.extend(definition.find_violations().iter().map(|it| format!("{place}.{it}")));
            if !self.pipelines.contains_key(&definition.pipeline) {
                found.push(format!("{place}.pipeline: there is no pipeline {}", definition.pipeline));
            }
            if !self.calendars.contains_key(&definition.calendar) {
                found.push(format!("{place}.calendar: there is no calendar {}", definition.calendar));
            }
        }
        let mut names = BTreeSet::new();
        for schedule in &self.schedules {
            let place = format!("schedules.{}", schedule.name);
            if !names.insert(&schedule.name) {
                found.push(format!("{place}: the name stands there twice"));
            }
            found.extend(schedule.schedule.find_faults().iter().map(|it| format!("{place}.{it}")));
            if !self.pipelines.contains_key(&schedule.pipeline) {
                found.push(format!("{place}.pipeline: there is no pipeline {}", schedule.pipeline));
            }
            let is_known =
                |name: &StrategyName| self.strategies.iter().any(|(definition, _)| definition.name == *name);
            if let Some(unknown) = schedule.strategies.iter().find(|name| !is_known(name)) {
                found.push(format!("{place}.strategies: there is no strategy {unknown}"));
            }
            let works_on_symbols =
                self.pipelines.get(&schedule.pipeline).is_some_and(Pipeline::works_on_symbols);
            let named = self.strategies.iter().map(|(definition, _)| definition);
            let named = named.filter(|definition| schedule.strategies.contains(&definition.name));
            if let Some(exceeded) = check_cycle_symbols(named).err().filter(|_| works_on_symbols) {
                found.push(format!("{place}.strategies: {exceeded}"));
            }
        }
        if !self.calendars.contains_key(&self.default_calendar) {
            found.push(format!("default_calendar: there is no calendar {}", self.default_calendar));
        }
        if self.cycles_running_max == 0 {
            found.push("cycles_running_max: it must be at least 1".to_owned());
        }
        found
    }
}
