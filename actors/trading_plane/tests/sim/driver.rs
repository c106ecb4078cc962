//! One simulation: what happens to the plane, life after life, until everything has come to rest.

mod rest;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::ports::backtests::NoBacktests;
use orchestrator_kernel::ports::market::{MarketPrice, MemoryMarket};
use orchestrator_kernel::ports::observer::Unobserved;
use orchestrator_kernel::random::Rng;
use orchestrator_kernel::trading::agent::AgentStatus;
use orchestrator_kernel::trading::journal::audit::JournalRule;
use orchestrator_runtime::fatal::{Fatal, FatalKind};
use orchestrator_runtime::kill_switch::{Gate, KillSwitch, KillSwitchArgs, KillSwitchSettings};
use orchestrator_runtime::status::StatusBoard;
use orchestrator_runtime::testkit::{ManualClock, TestKillSwitch};
use orchestrator_trading_plane::cadence::messages::ScheduleEvent;
use orchestrator_trading_plane::command::TradingCommand;
use orchestrator_trading_plane::plane::{TradingPlane, start_trading_plane};
use orchestrator_trading_plane::settings::{TradingPorts, TradingSettings};
use orchestrator_trading_plane::testkit::WALL;
use orchestrator_trading_plane::view::TradingView;
use ractor::Actor;
use rust_decimal::Decimal;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::audit::promise_of;
use crate::journal::{Process, SimJournal};
use crate::plan;
use crate::ports::{LEASE, SimCheckpoints, SimClock, SimHooks, SimStages};
use crate::untold;
use crate::world::{Coverage, World};

/// A defect of a port that the simulation must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    DropsABatch,
}

/// What a simulation came to.
pub(crate) struct Outcome {
    pub(crate) failure: Option<String>,
    pub(crate) digest: u64,
    pub(crate) coverage: Coverage,
}

/// Virtual time that everything may take to come to rest once nothing fails any more.
const REST_MAX: Duration = Duration::from_secs(60);
/// Virtual time that a start may take, whatever the journal does.
const START_MAX: Duration = Duration::from_secs(300);
const MS: Duration = Duration::from_millis(1);

/// How one life of the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The process is gone.
    Crashed,
    /// The plane was killed; what its tasks had begun goes on.
    Killed,
    /// It ended by itself, or was stopped.
    Stopped,
    /// Everything was done, and is at rest.
    Done,
}

/// Everything outside the plane, and what is still to happen.
pub(crate) struct Sim {
    world: Arc<World>,
    dice: Rng,
    settings: TradingSettings,
    journal: Arc<SimJournal>,
    checkpoints: Arc<SimCheckpoints>,
    kill_switch: Arc<TestKillSwitch>,
    market: Arc<MemoryMarket>,
    clock: Arc<ManualClock>,
    /// Commands that were sent, by their keys.
    commands: Vec<(String, TradingCommand)>,
    events: Vec<ScheduleEvent>,
    /// Outputs of the engine plane so far.
    outputs: Arc<AtomicU64>,
    steps_left: u64,
    crashes_left: u64,
    lives: u64,
    /// The last life ended in a crash, so the next one may end during its recovery.
    crashed: bool,
}

/// Simulates one seed.
pub(crate) fn simulate(seed: u64, flaw: Flaw, verbose: bool) -> Outcome {
    let world = World::new(seed, verbose);
    let told = untold::listen();
    let ran = catch_unwind(AssertUnwindSafe(|| live_through(&world, seed, flaw)));
    let panicked = told.first_untold();
    let failure = match ran {
        Ok(()) => world.violation().or(panicked.map(|what| format!("a panic that nobody told: {what}"))),
        Err(_) => Some(world.violation().unwrap_or_else(|| panicked.unwrap_or_default())),
    };
    Outcome { failure, digest: world.digest(), coverage: world.coverage() }
}

fn process() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

fn live_through(world: &Arc<World>, seed: u64, flaw: Flaw) {
    let mut sim = Sim::new(world, seed);
    if flaw == Flaw::DropsABatch {
        sim.journal.drop_one_after(3);
    }
    let mut runtime = process();
    loop {
        let ended = runtime.block_on(sim.life());
        world.note(format_args!("life {} ended: {ended:?}", sim.lives));
        match ended {
            Ended::Done => return,
            _ if world.violation().is_some() => return,
            Ended::Crashed | Ended::Stopped => runtime = process(),
            Ended::Killed => {}
        }
        sim.be_away();
    }
}

impl Sim {
    fn new(world: &Arc<World>, seed: u64) -> Self {
        let mut dice = Rng::new(seed);
        let settings = plan::settings(&mut dice);
        world.audit(|audit| {
            audit.expect(&settings.schedules);
            Ok(())
        });
        world.set_weather(plan::weather(&mut dice));
        let market = Arc::new(MemoryMarket::default());
        for symbol in ["AAPL", "MSFT"] {
            let price = MarketPrice { price: Decimal::from(150), at: TsMs(i64::MAX) };
            market.push_price(&Symbol::from(symbol), price);
        }
        Self {
            journal: SimJournal::new(world),
            checkpoints: SimCheckpoints::new(world),
            kill_switch: Arc::new(TestKillSwitch::trading()),
            market,
            clock: ManualClock::at(WALL),
            commands: Vec::new(),
            events: Vec::new(),
            outputs: Arc::default(),
            steps_left: 15 + dice.next_below(25),
            crashes_left: 1 + dice.next_below(4),
            lives: 0,
            crashed: false,
            world: Arc::clone(world),
            settings,
            dice,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.dice.next_below(bound)
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// When this life's process ends, if it does.
    fn next_crash(&mut self) -> (Arc<Process>, bool) {
        if self.steps_left == 0 || self.crashes_left == 0 || self.one_in(4) {
            return (Process::endless(), false);
        }
        self.crashes_left -= 1;
        let soon = self.crashed && self.one_in(2);
        let step = if soon { self.below(14) } else { self.below(300) };
        let killed = self.one_in(3);
        self.world.note(format_args!("crash at step {step}, killed in the same process: {killed}"));
        if soon {
            self.world.saw("crash during recovery");
        }
        (Process::ending_at(i64::try_from(step).unwrap(), !killed), killed)
    }

    /// Time passes while no process runs.
    fn be_away(&mut self) {
        let seconds = match self.below(6) {
            0 => 60 + self.below(4000),
            1 | 2 => self.below(30),
            _ => 0,
        };
        self.clock.set(self.clock.ms() + 1000 * i64::try_from(seconds).unwrap());
    }

    async fn ports(&mut self, process: &Arc<Process>, view: TradingView) -> TradingPorts {
        self.journal.set_process(process);
        self.checkpoints.set_process(process);
        let settings = KillSwitchSettings { poll: MS * 500, read_timeout: MS * 100, lease: LEASE };
        let board = StatusBoard::default();
        let gate = Gate::new(self.kill_switch.clone(), settings, Arc::new(Unobserved), board.clone());
        let args = KillSwitchArgs { gate: gate.clone(), poll: settings.poll };
        KillSwitch::spawn(None, KillSwitch, args).await.expect("it reads a store in memory");
        let world = &self.world;
        let ports = TradingPorts {
            journal: self.journal.clone(),
            checkpoints: self.checkpoints.clone(),
            clock: Arc::new(SimClock { world: Arc::clone(world), clock: Arc::clone(&self.clock) }),
            kill_gate: Arc::new(gate),
            market: self.market.clone(),
            stages: Arc::new(SimStages {
                life: world.life(),
                world: Arc::clone(world),
                process: Arc::clone(process),
            }),
            hooks: Arc::new(SimHooks { world: Arc::clone(world), process: Arc::clone(process) }),
            history: None,
            retention: None,
            events: None,
            backtests: Arc::new(NoBacktests),
            observer: Arc::new(Unobserved),
            board,
            view,
        };
        #[cfg(feature = "mutants")]
        let ports = orchestrator_trading_plane::testkit::plant_in_ports(ports);
        ports
    }

    async fn life(&mut self) -> Ended {
        self.lives += 1;
        self.journal.look().await;
        let view = self.world.begin_life(self.clock.ms());
        if self.lives > 10 {
            // Something ends each life early: without a last calm one the seed would never end.
            self.steps_left = 0;
            self.heal();
        }
        self.note_what_is_found();
        let (process, killed) = self.next_crash();
        let ports = self.ports(&process, view).await;
        let world = Arc::clone(&self.world);
        let started = tokio::select! {
            biased;
            () = wait_hung(&process) => None,
            () = world.alarm.notified() => None,
            () = sleep(START_MAX) => {
                world.violated(format!("CYC-3: a start is not done after {START_MAX:?}"));
                None
            }
            started = start_trading_plane(ports, self.settings.clone()) => Some(started),
        };
        let plane = match started {
            None => return self.was_crashed(),
            Some(Err(Fatal { kind, what, source })) => {
                let cause = source.map_or_else(String::new, |cause| cause.to_string());
                return self.failed(kind, &format!("{what}: {cause}"));
            }
            Some(Ok(plane)) => plane,
        };
        self.world.note_started();
        self.check_pause(&plane);
        self.read_outputs(&plane);
        let mut plane = Some(plane);
        let ended = tokio::select! {
            biased;
            () = process.wait_ended() => None,
            () = world.alarm.notified() => Some(Ended::Crashed),
            ended = self.act_out(&mut plane) => Some(ended),
        };
        match (ended, plane) {
            (Some(ended), _) => ended,
            (None, Some(plane)) if killed => {
                self.world.saw("plane killed in its process");
                self.crashed = true;
                plane.kill().await;
                Ended::Killed
            }
            (None, _) => self.was_crashed(),
        }
    }

    fn note_what_is_found(&self) {
        let (open, agent) = self.world.audit(|audit| Ok((audit.open_cycles().len(), Some(audit.agent()))));
        if open > 0 {
            self.world.saw("start finds open cycles");
        }
        if let Some((AgentStatus::Paused, Some(resume_at))) = agent
            && resume_at.0 <= self.clock.ms()
        {
            self.world.saw("pause ended while the service was down");
        }
    }

    /// AGT-1: a pause that ended while the service was down is over.
    fn check_pause(&self, plane: &TradingPlane) {
        let agent = plane.handle().view.agent().state;
        if agent.status == AgentStatus::Paused
            && agent.resume_at.is_some_and(|resume_at| resume_at.0 <= self.clock.ms())
        {
            self.world.violated(format!("AGT-1: a pause until {:?} is not over", agent.resume_at));
        }
    }

    fn was_crashed(&mut self) -> Ended {
        self.world.saw("crash");
        self.crashed = true;
        Ended::Crashed
    }

    fn failed(&mut self, kind: FatalKind, what: &str) -> Ended {
        self.world.note(format_args!("the plane ended: {kind:?} {what}"));
        match kind {
            FatalKind::Storage => self.world.saw("plane ended: storage"),
            FatalKind::Fenced => self.world.saw("plane ended: fenced"),
            FatalKind::Away | FatalKind::Corrupt | FatalKind::Internal => {}
        }
        if !self.world.may_end(kind) {
            let broken =
                JournalRule::ALL.iter().find(|rule| what.contains(&format!("breaks {}", rule.as_str())));
            let promise = broken.map_or("no promise", |rule| promise_of(*rule));
            self.world.violated(format!("{promise}: the plane ended for no reason: {kind:?} {what}"));
        }
        Ended::Stopped
    }

    /// Steps until none are left, then the way to rest.
    async fn act_out(&mut self, plane: &mut Option<TradingPlane>) -> Ended {
        while self.steps_left > 0 {
            self.steps_left -= 1;
            if let Some(ended) = self.step(plane).await {
                return ended;
            }
            self.crashed = false;
        }
        self.come_to_rest(plane).await
    }

    /// Lets time pass in the process; `Some` when the plane ended meanwhile.
    async fn wait(&mut self, plane: &mut Option<TradingPlane>, ms: u64) -> Option<Ended> {
        let running = plane.as_mut().expect("stopped last");
        let failed = tokio::select! {
            biased;
            failed = running.wait_for_failure() => Some(failed),
            () = sleep(MS * u32::try_from(ms).unwrap()) => None,
        };
        self.world.time_passed();
        let failed = failed?;
        *plane = None;
        Some(self.failed(failed.kind, &failed.what))
    }

    /// The same, and on the wall.
    async fn pass(&mut self, plane: &mut Option<TradingPlane>, ms: u64) -> Option<Ended> {
        if let Some(ended) = self.wait(plane, ms).await {
            return Some(ended);
        }
        self.set_clock(self.clock.ms() + i64::try_from(ms).unwrap());
        tokio::task::yield_now().await;
        None
    }

    fn set_clock(&mut self, now: i64) {
        self.clock.set(now);
        self.world.note_wall(now);
        self.world.note(format_args!("wall clock {now}"));
    }
}

/// A start that meets the crash never returns.
async fn wait_hung(process: &Process) {
    process.wait_ended().await;
    sleep(Duration::from_secs(1)).await;
}
