//! Stages that do as they are told, and a small plane with everything around it, for tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test support: a broken test must stop loudly")]

#[cfg(feature = "mutants")]
mod planted;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::{Seq, Symbol, TsMs};
use orchestrator_kernel::ports::backtests::{BacktestRunner, NoBacktests};
use orchestrator_kernel::ports::checkpoint::MemoryCheckpoints;
use orchestrator_kernel::ports::event_bus::EventBus;
use orchestrator_kernel::ports::history::HistoryStore;
use orchestrator_kernel::ports::log::{Log, RecordBatch};
use orchestrator_kernel::ports::market::{MarketPrice, MemoryMarket};
use orchestrator_kernel::ports::observer::Unobserved;
use orchestrator_kernel::ports::stage::{HookBackend, HookRequest, StageBackend, StageRequest};
use orchestrator_kernel::retry::RetrySchedule;
use orchestrator_kernel::trading::agent::AgentCommand;
use orchestrator_kernel::trading::calendar::MarketCalendar;
use orchestrator_kernel::trading::decision::{Confidence, DecisionAction, TradeDecision};
use orchestrator_kernel::trading::event::EventStyle;
use orchestrator_kernel::trading::gate::{HookAnswer, HookError, HookVote};
use orchestrator_kernel::trading::ids::{
    CommandId, DecisionId, JournalSeq, PipelineName, ScheduleName, StageName, StrategyName,
};
use orchestrator_kernel::trading::journal::audit::JournalAudit;
use orchestrator_kernel::trading::journal::{
    ConfigurationSnapshot, JournalEntry, JournalFact, SealedEntry, StageError, StageErrorKind, StageOutput,
    TradingMode,
};
use orchestrator_kernel::trading::pipeline::{
    Pipeline, analysis_pipeline, canonical_pipeline, heartbeat_pipeline,
};
use orchestrator_kernel::trading::risk::{RiskMode, RiskOutcome, RiskVerdict};
use orchestrator_kernel::trading::schedule::{
    CycleSchedule, MisfirePolicy, OverlapPolicy, ScheduleHours, ScheduleTrigger,
};
use orchestrator_kernel::trading::stage::{StageProvider, StageRole};
use orchestrator_kernel::trading::strategy::{StrategyDefinition, StrategyStatus};
use orchestrator_runtime::fatal::Fatal;
use orchestrator_runtime::group_commit::BatchLimits;
use orchestrator_runtime::kill_switch::{Gate, KillSwitch, KillSwitchArgs, KillSwitchSettings};
use orchestrator_runtime::log_writer::LogWriterSettings;
use orchestrator_runtime::status::StatusBoard;
use orchestrator_runtime::testkit::{FaultyLog, ManualClock, TestKillSwitch};
use ractor::Actor;
use rust_decimal::Decimal;
use tokio::sync::watch;

use crate::builtin::RoutedStages;
use crate::command::{CommandAnswer, CommandOrigin, CommandRefused, TradingCommand};
use crate::history::{HistoryPorts, HistorySettings};
use crate::journal::JournalSettings;
use crate::outbox::{EventPorts, OutboxSettings, PublishFrom};
use crate::plane::{TradingHandle, TradingPlane, start_trading_plane};
use crate::retention::JournalRetentionPorts;
use crate::settings::{ScheduleSettings, TradingHours, TradingPorts, TradingSettings};
use crate::view::TradingView;

#[cfg(feature = "mutants")]
pub use planted::plant_in_ports;

/// The wall clock's moment zero: a Friday, in the session of New York.
pub const WALL: i64 = 1_768_002_660_000;

/// Behaviour of an attempt of a stage.
#[derive(Clone, Debug)]
pub enum OnStage {
    /// Answers as a good stage of its role does.
    Work,
    /// Answers so after this time.
    WorkAfter(Duration),
    /// Answers this.
    Answer(Result<StageOutput, StageError>),
    /// Never answers.
    Hang,
    /// Panics.
    Panic,
    /// Waits until it is let go, see [`TestStages::release`].
    Hold,
}

#[derive(Debug, Default)]
struct StagesScript {
    always: BTreeMap<String, OnStage>,
    next: BTreeMap<String, VecDeque<OnStage>>,
    calls: Vec<String>,
}

/// Stages that do as they are told.
#[derive(Debug, Default)]
pub struct TestStages {
    script: Mutex<StagesScript>,
    released: watch::Sender<u64>,
}

impl TestStages {
    /// Lets every further attempt of `stage` do this. A strategy's own part is named `SIG/name`.
    pub fn always(&self, stage: &str, act: OnStage) {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.always.insert(stage.to_owned(), act);
    }

    /// Lets the next attempts of `stage` do this.
    pub fn next(&self, stage: &str, acts: impl IntoIterator<Item = OnStage>) {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.next.entry(stage.to_owned()).or_default().extend(acts);
    }

    /// Lets everything go that is held.
    pub fn release(&self) {
        self.released.send_modify(|count| *count += 1);
    }

    /// Calls so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).calls.clone()
    }

    /// How often a stage was called.
    #[must_use]
    pub fn count_calls(&self, stage: &str) -> usize {
        self.calls().iter().filter(|called| *called == stage).count()
    }

    fn choose_act(&self, request: &StageRequest) -> OnStage {
        let stage = request.stage.name.to_string();
        let part = request.strategy.as_ref().map_or_else(|| stage.clone(), |name| format!("{stage}/{name}"));
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.calls.push(part.clone());
        for key in [&part, &stage] {
            if let Some(act) = script.next.get_mut(key).and_then(VecDeque::pop_front) {
                return act;
            }
        }
        script.always.get(&part).or_else(|| script.always.get(&stage)).cloned().unwrap_or(OnStage::Work)
    }
}

#[async_trait]
impl StageBackend for TestStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        match self.choose_act(&request) {
            OnStage::Work => Ok(good_output(&request)),
            OnStage::WorkAfter(time) => {
                tokio::time::sleep(time).await;
                Ok(good_output(&request))
            }
            OnStage::Answer(answer) => answer,
            OnStage::Hang => std::future::pending().await,
            OnStage::Panic => panic!("the stage panics, as told"),
            OnStage::Hold => {
                let mut released = self.released.subscribe();
                let seen = *released.borrow_and_update();
                released.wait_for(|count| seen < *count).await.expect("the stages own the sender");
                Ok(good_output(&request))
            }
        }
    }
}

/// Hooks that answer what they are told; else they allow.
#[derive(Debug, Default)]
pub struct TestHooks {
    told: Mutex<BTreeMap<String, Option<Result<HookAnswer, HookError>>>>,
    asked: AtomicU64,
}

impl TestHooks {
    /// Lets a hook answer so; nothing: it never answers.
    pub fn always(&self, hook: &str, answer: Option<Result<HookAnswer, HookError>>) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(hook.to_owned(), answer);
    }

    /// Questions so far.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl HookBackend for TestHooks {
    async fn ask_hook(&self, request: HookRequest) -> Result<HookAnswer, HookError> {
        let told = {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let answers = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            answers.get(request.hook.name.as_str()).cloned()
        };
        match told {
            None => Ok(HookAnswer { vote: HookVote::Allow, reasons: vec![], patch: vec![] }),
            Some(Some(answer)) => answer,
            Some(None) => std::future::pending().await,
        }
    }
}

/// A BUY of ten by each strategy, allowed by RISK at 150.
#[must_use]
pub fn good_output(request: &StageRequest) -> StageOutput {
    let mut output = StageOutput { data: "{}".to_owned(), ..StageOutput::default() };
    match (request.stage.role(), &request.strategy) {
        (StageRole::Signal, Some(strategy)) => output.decisions = vec![decision_of(strategy)],
        (StageRole::Risk, _) => {
            output.verdicts = request.decisions.iter().map(allowed_verdict).collect();
        }
        _ => {}
    }
    output
}

/// The decision of a strategy: `d-name`.
#[must_use]
pub fn decision_of(strategy: &StrategyName) -> TradeDecision {
    TradeDecision {
        decision_id: DecisionId::new(&format!("d-{strategy}")).unwrap(),
        symbol: Symbol::from("AAPL"),
        strategy: strategy.clone(),
        action: DecisionAction::Buy,
        confidence: Confidence::new(0.7).unwrap(),
        reasoning: "up".to_owned(),
        suggested_quantity: Some(Decimal::TEN),
        suggested_price: None,
    }
}

fn allowed_verdict(decision: &TradeDecision) -> RiskVerdict {
    RiskVerdict {
        decision_id: decision.decision_id.clone(),
        outcome: RiskOutcome::Allowed {
            quantity: decision.suggested_quantity.unwrap_or(Decimal::ONE),
            price: Decimal::from(150),
            lowered_by: vec![],
        },
    }
}

/// A failure of a stage by its own words.
#[must_use]
pub fn stage_failure(detail: &str) -> OnStage {
    OnStage::Answer(Err(StageError::new(StageErrorKind::Provider, detail)))
}

/// A name.
#[must_use]
pub fn strategy_name(name: &str) -> StrategyName {
    StrategyName::new(name).unwrap()
}

/// A name.
#[must_use]
pub fn schedule_name(name: &str) -> ScheduleName {
    ScheduleName::new(name).unwrap()
}

/// A name.
#[must_use]
pub fn pipeline_name(name: &str) -> PipelineName {
    PipelineName::new(name).unwrap()
}

/// A strategy of AAPL and MSFT on a market that never closes.
#[must_use]
pub fn strategy(name: &str, pipeline: &str) -> StrategyDefinition {
    StrategyDefinition {
        name: strategy_name(name),
        kind: StageName::new("momentum").unwrap(),
        symbols: vec![Symbol::from("AAPL"), Symbol::from("MSFT")],
        risk_mode: RiskMode::Normal,
        pipeline: pipeline_name(pipeline),
        schedules: vec![],
        calendar: "24-7".to_owned(),
    }
}

/// The market that never closes.
#[must_use]
pub fn always_open() -> MarketCalendar {
    MarketCalendar::parse(include_bytes!("../../../config/calendars/24-7.json")).unwrap()
}

/// A schedule that fires every minute, of strategies `a` and `b`.
#[must_use]
pub fn every_minute(name: &str, pipeline: &str) -> ScheduleSettings {
    ScheduleSettings {
        name: schedule_name(name),
        schedule: CycleSchedule {
            trigger: ScheduleTrigger::Interval { every_ms: 60_000 },
            calendar: None,
            hours: ScheduleHours::Any,
            overlap: OverlapPolicy::Skip,
            misfire: MisfirePolicy::Skip,
            misfire_after_ms: 1000,
            lateness_max_ms: 24 * 60 * 60 * 1000,
            concurrent_max: 1,
            rate_limit: None,
            priority: 0,
        },
        pipeline: pipeline_name(pipeline),
        strategies: vec![strategy_name("a"), strategy_name("b")],
        topics: vec![],
        on_outputs: false,
    }
}

/// Budgets that no busy machine exceeds: a test that is about one sets it.
fn without_haste(mut pipeline: Pipeline) -> Pipeline {
    pipeline.budget = Duration::from_secs(600);
    pipeline.stages.iter_mut().for_each(|stage| stage.budget = Duration::from_secs(120));
    pipeline
}

/// Settings of a small plane: strategies `a` and `b`, one schedule `minutely` of the canonical pipeline.
#[must_use]
pub fn trading_settings() -> TradingSettings {
    let pipelines = [canonical_pipeline(), analysis_pipeline(), heartbeat_pipeline()].map(without_haste);
    TradingSettings {
        journal: JournalSettings {
            writer: LogWriterSettings {
                limits: BatchLimits { records: 1024, bytes: 1 << 20 },
                resend_after: Duration::from_millis(5),
                probe_every: None,
                reopen_after: Duration::from_millis(5),
            },
            linger: Duration::from_millis(50),
            slow_after: Duration::from_millis(500),
            checkpoint_every: 1 << 20,
        },
        journal_queue_max: 1000,
        configuration: ConfigurationSnapshot {
            settings: BTreeMap::new(),
            tz_database: "2026a".to_owned(),
            code: "test".to_owned(),
        },
        pipelines: pipelines.into_iter().map(|pipeline| (pipeline.name.clone(), pipeline)).collect(),
        schedules: vec![every_minute("minutely", "canonical")],
        strategies: ["a", "b"]
            .map(|name| (strategy(name, "canonical"), StrategyStatus::Active))
            .into_iter()
            .collect(),
        calendars: [("24-7".to_owned(), Arc::new(always_open()))].into(),
        default_calendar: "24-7".to_owned(),
        hours: TradingHours::Any,
        mode: TradingMode::Paper,
        dry_run: true,
        cycles_running_max: 100,
        calendar_warning_days: 60,
        finish_share_percent: 50,
        cycle_defects_max: 2,
        journal_retry: Duration::from_millis(10),
    }
}

/// A plane's world: it lives across the plane's restarts.
pub struct PlaneRig {
    /// The journal's log.
    pub log: Arc<FaultyLog>,
    /// Saved values.
    pub checkpoints: Arc<MemoryCheckpoints>,
    /// The wall clock.
    pub clock: Arc<ManualClock>,
    /// The kill switch's store.
    pub kill_switch: Arc<TestKillSwitch>,
    /// The stages.
    pub stages: Arc<TestStages>,
    /// The hooks.
    pub hooks: Arc<TestHooks>,
    /// Real backends for the next start, instead of these stages and hooks.
    pub backends: Option<(Arc<dyn StageBackend>, Arc<dyn HookBackend>)>,
    /// The market.
    pub market: Arc<MemoryMarket>,
    /// The history of the next start, if one is kept.
    pub history: Option<HistoryPorts>,
    /// How the journal of the next start is trimmed.
    pub retention: Option<JournalRetentionPorts>,
    /// The event bus of the next start, if there is one.
    pub events: Option<EventPorts>,
    /// The read model of the next start, and who does the work of stages of the event provider, if anybody does.
    pub asks_bus: Option<(TradingView, Arc<dyn StageBackend>)>,
    /// Who runs backtests.
    pub backtests: Arc<dyn BacktestRunner>,
    /// Conditions.
    pub board: StatusBoard,
    /// Whether somebody reads the kill switch besides those who ask for a permit.
    pub reads_kill_switch: bool,
    /// Settings of the next start.
    pub settings: TradingSettings,
}

impl PlaneRig {
    /// A world in which everything allows.
    #[must_use]
    pub fn new(settings: TradingSettings) -> Self {
        let market = Arc::new(MemoryMarket::default());
        for symbol in ["AAPL", "MSFT"] {
            let price = MarketPrice { price: Decimal::from(150), at: TsMs(i64::MAX) };
            market.push_price(&Symbol::from(symbol), price);
        }
        Self {
            log: Arc::default(),
            checkpoints: Arc::default(),
            clock: ManualClock::at(WALL),
            kill_switch: Arc::new(TestKillSwitch::trading()),
            stages: Arc::default(),
            hooks: Arc::default(),
            backends: None,
            market,
            history: None,
            retention: None,
            events: None,
            asks_bus: None,
            backtests: Arc::new(NoBacktests),
            board: StatusBoard::default(),
            reads_kill_switch: true,
            settings,
        }
    }

    /// The ports of the next start.
    pub async fn ports(&self) -> TradingPorts {
        let poll = Duration::from_millis(20);
        let settings = KillSwitchSettings {
            poll,
            read_timeout: Duration::from_millis(100),
            lease: Duration::from_secs(2),
        };
        let gate = Gate::new(self.kill_switch.clone(), settings, Arc::new(Unobserved), self.board.clone());
        if self.reads_kill_switch {
            let args = KillSwitchArgs { gate: gate.clone(), poll };
            KillSwitch::spawn(None, KillSwitch, args).await.unwrap();
        }
        let (stages, hooks) =
            self.backends.clone().unwrap_or_else(|| (self.stages.clone(), self.hooks.clone()));
        let (view, stages) = match self.asks_bus.clone() {
            None => (TradingView::default(), stages),
            Some((view, asked)) => {
                let routes = vec![(StageProvider::BuiltIn, stages), (StageProvider::Event, asked)];
                (view, Arc::new(RoutedStages::new(routes)) as Arc<dyn StageBackend>)
            }
        };
        TradingPorts {
            journal: self.log.clone(),
            checkpoints: self.checkpoints.clone(),
            clock: self.clock.clone(),
            kill_gate: Arc::new(gate),
            market: self.market.clone(),
            stages,
            hooks,
            history: self.history.clone(),
            retention: self.retention.clone(),
            events: self.events.clone(),
            backtests: Arc::clone(&self.backtests),
            observer: Arc::new(Unobserved),
            board: self.board.clone(),
            view,
        }
    }

    /// Starts the plane.
    ///
    /// # Errors
    ///
    /// As the plane's start.
    pub async fn try_start(&self) -> Result<TradingPlane, Fatal> {
        start_trading_plane(self.ports().await, self.settings.clone()).await
    }

    /// Starts the plane; it has to start.
    pub async fn start(&self) -> TradingPlane {
        self.try_start().await.expect("the plane starts")
    }

    /// The pipeline of this name, to be changed before a start.
    pub fn pipeline(&mut self, name: &str) -> &mut Pipeline {
        self.settings.pipelines.get_mut(&pipeline_name(name)).expect("a pipeline")
    }

    /// Makes these records the journal: what a crash left.
    pub async fn take_journal(&self, records: &[Vec<u8>]) {
        let mut batch = RecordBatch::starting_at(Seq(1));
        records.iter().for_each(|record| batch.push(record));
        let acquired = self.log.acquire().await.expect("the log in memory");
        self.log.append(acquired.epoch, &batch).await.expect("an empty log");
    }

    /// Everything durable, audited.
    pub async fn audited(&self) -> Vec<JournalEntry> {
        let mut audit = JournalAudit::default();
        let records = self.log.records().await;
        for (bytes, seq) in records.iter().zip(1..) {
            audit.take_record(JournalSeq(seq), bytes).expect("the journal keeps its rules");
        }
        records.iter().map(|bytes| SealedEntry::decode(bytes).expect("a record").entry).collect()
    }

    /// The kinds of the durable records that `is_wanted`.
    pub async fn facts(&self, is_wanted: impl Fn(&JournalFact) -> bool) -> Vec<JournalFact> {
        self.audited().await.into_iter().map(|entry| entry.fact).filter(is_wanted).collect()
    }
}

/// A history in this database that tries again at once and takes a few records a transaction.
#[must_use]
pub fn history_ports(store: Arc<dyn HistoryStore>, required: bool) -> HistoryPorts {
    let retry = RetrySchedule {
        min: Duration::from_millis(1),
        max: Duration::from_millis(5),
        max_attempts: u32::MAX,
        max_elapsed: Duration::MAX,
    };
    let settings = HistorySettings {
        required,
        records_max: 5,
        behind_after: Duration::from_secs(60),
        retry,
        retention: None,
    };
    HistoryPorts { store, settings }
}

/// This bus, that is tried again at once and takes the events of a few records at a time.
#[must_use]
pub fn event_ports(bus: Arc<dyn EventBus>) -> EventPorts {
    let retry = RetrySchedule {
        min: Duration::from_millis(1),
        max: Duration::from_millis(5),
        max_attempts: u32::MAX,
        max_elapsed: Duration::MAX,
    };
    let settings = OutboxSettings {
        style: EventStyle { source: "orchestrator".to_owned(), ..EventStyle::default() },
        from: PublishFrom::Earliest,
        records_max: 5,
        behind_after: Duration::from_secs(60),
        save_every: Duration::from_millis(20),
        retry,
    };
    EventPorts { bus, settings }
}

/// A command of a test, by its key.
#[must_use]
pub fn origin(key: &str) -> CommandOrigin {
    CommandOrigin { id: CommandId::derive(key), operator: "tester".to_owned(), from: "test".to_owned() }
}

/// Starts the agent.
///
/// # Errors
///
/// As the command.
pub async fn start_agent(handle: &TradingHandle, key: &str) -> Result<CommandAnswer, CommandRefused> {
    let start = TradingCommand::Agent(AgentCommand::Start { strategies: None, mode: None });
    handle.execute_command(start, origin(key)).await
}
