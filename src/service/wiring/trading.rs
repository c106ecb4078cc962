//! The trading plane as configured: what it is made of before the tree runs, and its ports once it does.

pub mod events;
pub mod stages;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_actors::tree::Tree;
use orchestrator_engine_plane::run_log::messages::Committed;
use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::ports::backtests::{BacktestRunner, NoBacktests};
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::kill_switch::KillGate;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::observer::Observer;
use orchestrator_kernel::ports::stage::{HookBackend, StageBackend};
use orchestrator_trading_plane::builtin::BuiltInStages;
use orchestrator_trading_plane::command::{CommandOrigin, TradingCommand};
use orchestrator_trading_plane::history::HistoryPorts;
use orchestrator_trading_plane::intake::AnalysisRequests;
use orchestrator_trading_plane::outbox::EventPorts;
use orchestrator_trading_plane::retention::JournalRetentionPorts;
use orchestrator_trading_plane::settings::{TradingPorts, TradingSettings};
use orchestrator_trading_plane::view::TradingView;
use tokio::sync::watch;

use self::events::IntakePlan;
use super::WiringError;
use super::history::history_ports;
use super::journal::JournalStorage;
use super::settings::{REOPEN_AFTER, RESEND_AFTER};
use crate::adapters::clock::RecordedFollower;
use crate::adapters::process::backtests::{ProcessBacktests, ProcessBacktestsOptions};
use crate::adapters::process::guard;
use crate::adapters::standing_permit::StandingPermit;
use crate::config::Config;
use crate::config::trading::JournalTiming;
use crate::process::version::code_identity;
use stages::{StageBackends, StageWorkers, stage_backends};

pub use crate::adapters::recorded_market::RecordedMarket;

/// Directory of backtests that are asked for, in the data directory.
const BACKTESTS_DIR: &str = "backtests";

/// Everything of the trading plane that does not need a running tree.
pub struct TradingParts {
    journal: Arc<dyn Log>,
    retention: Option<JournalRetentionPorts>,
    checkpoints: Arc<dyn CheckpointStore>,
    clock: Arc<dyn Clock>,
    follower: Option<RecordedFollower>,
    /// Instead of the tree's gate.
    kill_gate: Option<Arc<dyn KillGate>>,
    opening: Option<OpeningCommand>,
    observer: Arc<dyn Observer>,
    market: Arc<RecordedMarket>,
    stages: Arc<dyn StageBackend>,
    hooks: Arc<dyn HookBackend>,
    history: Option<HistoryPorts>,
    events: Option<EventPorts>,
    backtests: Arc<dyn BacktestRunner>,
    intake: Option<IntakePlan>,
    view: TradingView,
    settings: TradingSettings,
    receipts: Arc<dyn Log>,
    runs: Arc<dyn Log>,
}

/// Logs that the market is read from.
pub struct MarketFeed {
    /// The market that is fed.
    pub market: Arc<RecordedMarket>,
    /// The receipt log.
    pub receipts: Arc<dyn Log>,
    /// The run log.
    pub runs: Arc<dyn Log>,
    /// Announces what becomes durable in the run log.
    pub committed: watch::Receiver<Committed>,
}

/// Command that is carried out before anything else.
pub type OpeningCommand = (TradingCommand, CommandOrigin);

/// Step of the trading plane with a recording: time moves on when nothing is due.
pub struct RecordedStep {
    /// Its place on the clock.
    pub follower: RecordedFollower,
    /// What begins it.
    pub opening: Option<OpeningCommand>,
}

/// The trading plane, ready to be started.
pub struct TradingStart {
    /// Its ports.
    pub ports: TradingPorts,
    /// Its settings.
    pub settings: TradingSettings,
    /// What it knows the market from.
    pub feed: MarketFeed,
    /// What it takes from the event bus, if anything.
    pub intake: Option<IntakePlan>,
    /// How it keeps step with a recording; nothing under the wall clock.
    pub step: Option<RecordedStep>,
}

/// The engine plane's storage and clock, as far as the trading plane has a part in them.
pub(super) struct EngineParts {
    pub(super) receipts: Arc<dyn Log>,
    pub(super) runs: Arc<dyn Log>,
    pub(super) checkpoints: Arc<dyn CheckpointStore>,
    pub(super) clock: Arc<dyn Clock>,
    /// The plane's place on a clock that receipts drive.
    pub(super) follower: Option<RecordedFollower>,
    pub(super) observer: Arc<dyn Observer>,
    /// How often idle logs are asked whether they are still there.
    pub(super) probe_every: Option<Duration>,
    /// Arguments that give another process this configuration.
    pub(super) config_args: Vec<String>,
}

/// Puts the trading plane together, and returns the workers that have to be ended after it. Nothing is asked of its
/// database or of providers behind HTTP.
pub(super) fn wire_trading(
    config: &Config,
    journal: &JournalStorage,
    engine: EngineParts,
) -> Result<(TradingParts, StageWorkers), WiringError> {
    let EngineParts { receipts, runs, checkpoints, clock, follower, observer, probe_every, config_args } =
        engine;
    let timing = JournalTiming { resend_after: RESEND_AFTER, probe_every, reopen_after: REOPEN_AFTER };
    let settings = config.trading.plane_settings(&code_identity(), timing);
    let view = TradingView::default();
    let market = Arc::new(RecordedMarket::new(strategy_symbols(&settings), config.trading.risk.prices_max));
    let built_in = BuiltInStages::new(config.trading.built_in_settings(), market.clone(), view.clone());
    let events = events::event_ports(config)?;
    let requests = events.as_ref().map(|EventPorts { bus, settings }| {
        let (bus, style) = (Arc::clone(bus), settings.style.clone());
        Arc::new(AnalysisRequests::new(bus, style, Arc::clone(&clock), view.clone()))
    });
    let asked = requests.clone().map(|asked| asked as Arc<dyn StageBackend>);
    let StageBackends { stages, hooks, workers } =
        stage_backends(&config.trading, Arc::new(built_in), asked)?;
    let intake = events::plan_intake(config, &settings, requests, Arc::clone(&observer))?;
    let parts = TradingParts {
        journal: Arc::clone(&journal.log),
        retention: journal.retention_ports(config, Vec::new()),
        checkpoints,
        clock,
        follower,
        kill_gate: None,
        opening: None,
        observer,
        market,
        stages,
        hooks,
        history: history_ports(config)?,
        events,
        backtests: open_backtests(config, config_args),
        intake,
        view,
        settings,
        receipts,
        runs,
    };
    Ok((parts, workers))
}

/// Who runs backtests that are asked for; nobody where no recordings are named.
fn open_backtests(config: &Config, config_args: Vec<String>) -> Arc<dyn BacktestRunner> {
    let backtests = &config.trading.backtests;
    let Some(captures) = backtests.captures_dir(&config.service.data_dir) else {
        return Arc::new(NoBacktests);
    };
    Arc::new(ProcessBacktests::start(ProcessBacktestsOptions {
        program: guard::this_program(),
        guard: Some(guard::this_program()),
        config_args,
        captures,
        jobs: config.service.data_dir.join(BACKTESTS_DIR),
        queue_max: backtests.queue_max,
        kept_max: backtests.kept_max,
        time_max: backtests.time_max,
    }))
}

/// The symbols that any strategy trades.
fn strategy_symbols(settings: &TradingSettings) -> BTreeSet<Symbol> {
    settings.strategies.iter().flat_map(|(definition, _)| definition.symbols.iter().cloned()).collect()
}

impl TradingParts {
    /// The same for a recording that is run again: `opening` is carried out first, and no kill switch stops what has no
    /// effect.
    #[must_use]
    pub(super) fn for_backtest(self, opening: OpeningCommand) -> Self {
        Self { kill_gate: Some(Arc::new(StandingPermit::default())), opening: Some(opening), ..self }
    }

    /// The journal, for reading.
    #[must_use]
    pub fn journal_log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.journal)
    }

    /// Joins the parts with the tree, which has the kill switch's gate, the board and the run log's end.
    #[must_use]
    pub fn join_tree(self, tree: &Tree) -> TradingStart {
        let feed = MarketFeed {
            market: Arc::clone(&self.market),
            receipts: self.receipts,
            runs: self.runs,
            committed: tree.committed.clone(),
        };
        let ports = TradingPorts {
            journal: self.journal,
            checkpoints: self.checkpoints,
            clock: self.clock,
            kill_gate: self.kill_gate.unwrap_or_else(|| Arc::new(tree.gate.clone())),
            market: self.market,
            stages: self.stages,
            hooks: self.hooks,
            history: self.history,
            retention: self.retention,
            events: self.events,
            backtests: self.backtests,
            observer: self.observer,
            board: tree.board.clone(),
            view: self.view,
        };
        let opening = self.opening;
        let step = self.follower.map(|follower| RecordedStep { follower, opening });
        TradingStart { ports, settings: self.settings, feed, intake: self.intake, step }
    }
}
