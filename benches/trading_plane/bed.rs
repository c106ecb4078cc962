//! A plane with many strategies, stages that do nothing, and the journal of a service.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orchestrator_kernel::ports::stage::{StageBackend, StageRequest};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::audit::JournalAudit;
use orchestrator_kernel::trading::journal::{StageError, StageOutput};
use orchestrator_kernel::trading::schedule::{MisfirePolicy, ScheduleTrigger};
use orchestrator_kernel::trading::strategy::StrategyStatus;
use orchestrator_runtime::testkit::ManualClock;
use orchestrator_trading_plane::plane::{TradingPlane, TradingStop, start_trading_plane};
use orchestrator_trading_plane::settings::TradingSettings;
use orchestrator_trading_plane::testkit::{
    PlaneRig, WALL, every_minute, start_agent, strategy, strategy_name, trading_settings,
};

use super::journal::{CountedLog, Journal};
use super::medium::Medium;
use super::support::{Outcome, ensure, until};

/// Time between two fires of every schedule.
pub(crate) const MINUTE: i64 = 60_000;

/// Stages that do nothing; of the first one it is noted when it was called.
#[derive(Default)]
pub(crate) struct NoOpStages {
    pub(crate) first_called: Mutex<Vec<Instant>>,
}

#[async_trait]
impl StageBackend for NoOpStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        if request.stage.name.as_str() == "ING" {
            self.first_called.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        }
        Ok(StageOutput { data: "{}".to_owned(), ..StageOutput::default() })
    }
}

/// A plane that runs.
pub(crate) struct Bed {
    pub(crate) plane: TradingPlane,
    pub(crate) journal: Journal,
    pub(crate) stages: Arc<NoOpStages>,
    pub(crate) clock: Arc<ManualClock>,
    ticks: i64,
    strategies: u64,
}

/// One schedule a strategy, all due at the same moments; the canonical pipeline of eight stages.
fn settings(strategies: u64) -> TradingSettings {
    let mut settings = trading_settings();
    let names: Vec<String> = (0..strategies).map(|number| format!("s{number}")).collect();
    settings.strategies =
        names.iter().map(|name| (strategy(name, "canonical"), StrategyStatus::Active)).collect();
    settings.schedules = names
        .iter()
        .map(|name| {
            let mut schedule = every_minute(&format!("every-{name}"), "canonical");
            schedule.schedule.trigger = ScheduleTrigger::Interval { every_ms: 60_000 };
            schedule.schedule.misfire = MisfirePolicy::All;
            schedule.strategies = vec![strategy_name(name)];
            schedule
        })
        .collect();
    settings.cycles_running_max = 10_000;
    settings.journal_queue_max = 10_000;
    settings
}

impl Bed {
    pub(crate) async fn start(medium: Medium, dir: &Path, strategies: u64) -> Outcome<Self> {
        Self::on(Journal::open(medium, dir).await?, strategies).await
    }

    /// The same on a journal that is open.
    pub(crate) async fn on(journal: Journal, strategies: u64) -> Outcome<Self> {
        let stages = Arc::new(NoOpStages::default());
        let rig = PlaneRig::new(settings(strategies));
        let mut ports = rig.ports().await;
        ports.journal = journal.log.clone();
        ports.stages = stages.clone();
        let plane = start_trading_plane(ports, rig.settings.clone()).await?;
        start_agent(plane.handle(), "start").await?;
        Ok(Self { plane, journal, stages, clock: rig.clock.clone(), ticks: 0, strategies })
    }

    /// The journal's log.
    pub(crate) fn log(&self) -> &CountedLog {
        &self.journal.log
    }

    /// Lets every schedule fire once and waits until each cycle's end is durable; returns when the fires were due.
    pub(crate) async fn tick(&mut self) -> Outcome<Instant> {
        // An end is on record before its schedule knows: a fire in between would be an overlap.
        self.plane.handle().wait_settled().await?;
        self.ticks += 1;
        let view = &self.plane.handle().view;
        let wanted = view.agent().tally.cycles + self.strategies;
        let mut committed = self.plane.handle().committed.clone();
        let due = Instant::now();
        self.clock.set(WALL - WALL.rem_euclid(MINUTE) + self.ticks * MINUTE);
        while view.agent().tally.cycles < wanted {
            ensure(due.elapsed() < Duration::from_secs(120), || "cycles do not end".to_owned())?;
            tokio::time::timeout(Duration::from_secs(120), committed.changed()).await??;
        }
        Ok(due)
    }

    /// Stops, audits the journal and says how many cycles ended as they should.
    pub(crate) async fn finish(self, cycles: u64) -> Outcome<Vec<Vec<u8>>> {
        let tally = self.plane.handle().view.agent().tally;
        ensure((tally.cycles, tally.errors) == (cycles, 0), || {
            format!("{cycles} cycles were due: {tally:?}")
        })?;
        let stopped = self.plane.stop(Duration::from_secs(20)).await;
        ensure(stopped == TradingStop::Clean, || format!("{stopped:?}"))?;
        let records = self.journal.records().await?;
        let mut audit = JournalAudit::default();
        for (bytes, seq) in records.iter().zip(1..) {
            audit.take_record(JournalSeq(seq), bytes)?;
        }
        Ok(records)
    }

    /// Waits until nothing lingers.
    pub(crate) async fn rest(&self) -> Outcome<()> {
        let board = self.plane.handle().committed.clone();
        let tail = board.borrow().tail;
        until("nothing lingers", Duration::from_secs(5), || board.borrow().tail == tail).await
    }
}
