//! One simulation: what happens to the tree, life after life, until everything has come to rest.

mod refusals;
mod rest;
mod steps;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use orchestrator_actors::testkit::{CrashPoint, Ledger, ManualClock, TestEngine, TestKillSwitch};
use orchestrator_actors::tree::{Ports, Settings, Tree};
use orchestrator_engine_plane::retention::Archives;
use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::ports::fan_out::FanOut;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::log_memory::MemoryLog;
use orchestrator_kernel::ports::source::SourceFactory;
use orchestrator_kernel::random::Rng;
use orchestrator_runtime::act_log::ActLog;
use orchestrator_runtime::fatal::{Fatal, FatalKind};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::audit::{Role, Stage};
use crate::logs::SimLog;
use crate::plan::{self, START};
use crate::ports::{Broker, SimCheckpoints, SimClock, SimEngine, SimFanOut};
use crate::retention::{self, Keeping, SimArchive};
use crate::source::{OfProcess, SimSource};
use crate::untold;
use crate::world::{Coverage, World};

/// A defect of a port that the simulation must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    DropsAReceiptBatch,
    DropsARunBatch,
}

/// What a simulation came to.
pub(crate) struct Outcome {
    pub(crate) failure: Option<String>,
    pub(crate) digest: u64,
    pub(crate) coverage: Coverage,
}

/// Virtual time that everything may take to come to rest once nothing fails any more.
const REST_MAX: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);
const ROLES: [Role; 3] = [Role::Receipts, Role::Quarantine, Role::Runs];

/// How one life of the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The process is gone.
    Crashed,
    /// The tree was killed; what its tasks had begun goes on.
    Killed,
    /// It goes on, and another one begins beside it.
    Overtaken,
    /// It ended by itself, or was stopped.
    Stopped,
    /// Everything was done, and is at rest.
    Done,
}

/// Everything outside the tree, and what is still to happen.
pub(crate) struct Sim {
    world: Arc<World>,
    dice: Rng,
    settings: Settings,
    symbols: Vec<&'static str>,
    receipts: Arc<SimLog>,
    quarantine: Arc<SimLog>,
    runs: Arc<SimLog>,
    /// Where records go before they go from their logs.
    archives: Option<[Arc<SimArchive>; 3]>,
    keeping: Option<Keeping>,
    /// The dice of seeds whose broker refuses symbols for good.
    refusals: Option<Rng>,
    checkpoints: Arc<SimCheckpoints>,
    /// Operators' acts.
    manifests: Arc<MemoryLog>,
    engine: Arc<TestEngine>,
    broker: Arc<Broker>,
    sources: Vec<Arc<SimSource>>,
    kill_switch: Arc<TestKillSwitch>,
    /// One a process: who sleeps on the same clock would be woken in an order by chance.
    clock: Arc<ManualClock>,
    zombies_clock: Option<Arc<ManualClock>>,
    ledger: Arc<Ledger>,
    /// The latest wall time that was shown: what a mended clock shows.
    latest: i64,
    items: u64,
    steps_left: u64,
    crashes_left: u64,
    lives: u64,
    /// A tree that was overtaken by another one of the same process, and has to find that out (LOG-3).
    zombie: Option<Tree>,
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
    match flaw {
        Flaw::None => {}
        Flaw::DropsAReceiptBatch => sim.receipts.drop_one_after(3),
        Flaw::DropsARunBatch => sim.runs.drop_one_after(3),
    }
    let mut runtime = process();
    loop {
        let ended = runtime.block_on(sim.life());
        world.note(format_args!("life {} ended: {ended:?}", sim.lives));
        match ended {
            Ended::Done => return,
            _ if world.violation().is_some() => return,
            Ended::Crashed | Ended::Stopped => {
                (sim.zombie, sim.zombies_clock) = (None, None);
                runtime = process();
            }
            Ended::Killed | Ended::Overtaken => {}
        }
    }
}

impl Sim {
    fn new(world: &Arc<World>, seed: u64) -> Self {
        let mut dice = Rng::new(seed);
        let symbols = plan::symbols(&mut dice);
        let mut settings = plan::settings(&mut dice, &symbols);
        let keeping = retention::keeping(seed, settings.log_writer.probe_every.is_some());
        settings.engine_plane.retention = keeping.map(|keeping| keeping.settings);
        let archived = keeping.is_some_and(|keeping| keeping.archived);
        let scheduled = symbols.iter().map(|symbol| Symbol::from(*symbol)).collect();
        world.audit(|audit| {
            audit.expect(scheduled, archived);
            Ok(())
        });
        let manifests: Arc<MemoryLog> = Arc::default();
        world.audit(|audit| {
            audit.set_manifests(Arc::clone(&manifests));
            Ok(())
        });
        let unit = keeping.map_or(1, |keeping| keeping.unit);
        let in_flight = settings.engine_plane.ingest.in_flight_receipts_max as usize;
        let log = |role, max| SimLog::new(role, world, max, unit);
        let source = |name, numbered| SimSource::new(name, numbered, plan::ITEMS_MAX, world);
        world.set_weather(plan::weather(&mut dice));
        Self {
            receipts: log(Role::Receipts, in_flight),
            quarantine: log(Role::Quarantine, usize::MAX),
            runs: log(Role::Runs, usize::MAX),
            archives: archived.then(|| ROLES.map(|role| SimArchive::new(role, world))),
            keeping,
            refusals: refusals::dice(seed),
            checkpoints: SimCheckpoints::new(world),
            manifests: manifests.clone(),
            engine: Arc::default(),
            broker: Arc::default(),
            sources: vec![source("numbered", true), source("queue", false)],
            kill_switch: Arc::new(TestKillSwitch::trading()),
            clock: ManualClock::at(START),
            zombies_clock: None,
            ledger: Arc::default(),
            latest: START,
            items: 0,
            steps_left: 12 + dice.next_below(20),
            crashes_left: 1 + dice.next_below(4),
            lives: 0,
            zombie: None,
            crashed: false,
            world: Arc::clone(world),
            settings,
            symbols,
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
    fn crash(&mut self) -> (CrashPoint, bool) {
        if self.steps_left == 0 || self.crashes_left == 0 || self.one_in(4) {
            return (CrashPoint::never(), false);
        }
        self.crashes_left -= 1;
        let soon = self.crashed && self.one_in(2);
        let step = if soon { self.below(14) } else { self.below(260) };
        let killed = self.one_in(3);
        self.world.note(format_args!("crash at step {step}, killed in the same process: {killed}"));
        if soon {
            self.world.saw("crash during recovery");
        }
        let step = step as i64;
        (if killed { CrashPoint::told_at(step) } else { CrashPoint::after(step) }, killed)
    }

    fn ports(&mut self, crash: &CrashPoint) -> Ports {
        for log in [&self.receipts, &self.quarantine, &self.runs] {
            log.set_process(crash);
        }
        self.archives.iter().flatten().for_each(|archive| archive.set_process(crash));
        self.engine.set_crash(crash);
        self.broker.set_process(crash);
        self.checkpoints.set_process(crash);
        self.sources.iter().for_each(|source| source.set_process(crash));
        let ledger = Arc::new(Ledger::default());
        self.ledger = Arc::clone(&ledger);
        let life = self.lives;
        let of_process = |source: &Arc<SimSource>| {
            Arc::new(OfProcess { life, source: Arc::clone(source) }) as Arc<dyn SourceFactory>
        };
        let manifests = Arc::clone(&self.manifests) as Arc<dyn Log>;
        let acquired = manifests.acquire().now_or_never();
        let acquired = acquired.and_then(Result::ok).expect("in memory");
        let fan_out = SimFanOut { world: Arc::clone(&self.world), broker: Arc::clone(&self.broker) };
        Ports {
            act_log: ActLog::new(manifests, acquired),
            receipts: Arc::clone(&self.receipts) as _,
            quarantine: Arc::clone(&self.quarantine) as _,
            runs: Arc::clone(&self.runs) as _,
            checkpoints: Arc::clone(&self.checkpoints) as _,
            archives: self.archives.as_ref().map(|[receipts, quarantine, runs]| Archives {
                receipts: Arc::clone(receipts) as _,
                quarantine: Arc::clone(quarantine) as _,
                runs: Arc::clone(runs) as _,
            }),
            clock: Arc::new(SimClock { world: Arc::clone(&self.world), clock: Arc::clone(&self.clock) }),
            engine: Arc::new(SimEngine {
                life: self.lives,
                world: Arc::clone(&self.world),
                engine: Arc::clone(&self.engine),
            }),
            fan_outs: Arc::new(tokio::sync::Mutex::new(vec![Box::new(fan_out) as Box<dyn FanOut>])),
            sources: self.sources.iter().map(of_process).collect(),
            kill_switch: Arc::clone(&self.kill_switch) as _,
            observer: ledger,
        }
    }

    async fn life(&mut self) -> Ended {
        self.lives += 1;
        for log in [&self.receipts, &self.quarantine, &self.runs] {
            log.look().await;
        }
        for archive in self.archives.iter().flatten() {
            archive.look().await;
        }
        self.world.begin_life();
        if self.lives > 12 {
            // Something ends each life early: without a last calm one the seed would never end.
            self.steps_left = 0;
            self.heal();
        }
        let (crash, killed) = self.crash();
        let world = Arc::clone(&self.world);
        let ports = self.ports(&crash);
        #[cfg(feature = "mutants")]
        let ports = orchestrator_actors::testkit::plant_in_ports(ports);
        let settings = self.settings.clone();
        let started = tokio::select! {
            biased;
            () = hung(&crash) => None,
            () = world.alarm.notified() => None,
            started = Tree::start(ports, &settings) => Some(started),
        };
        let tree = match started {
            None => return self.was_crashed(),
            Some(Err(Fatal { kind, what, .. })) => return self.failed(kind, &what),
            Some(Ok(tree)) => tree,
        };
        self.world.note_started();
        let (is_trimmed, must_refuse) =
            self.world.audit(|audit| Ok((audit.is_trimmed(), audit.must_refuse())));
        if is_trimmed {
            self.world.saw("start from a base");
        }
        if must_refuse {
            self.world.violated("REP-1: a start without the base that the logs need");
        }
        let mut tree = Some(tree);
        let ended = tokio::select! {
            biased;
            () = crash.crashed() => None,
            () = world.alarm.notified() => Some(Ended::Crashed),
            ended = self.act_out(&mut tree) => Some(ended),
        };
        match (ended, tree) {
            (Some(ended), _) => ended,
            (None, Some(tree)) if killed => {
                self.world.saw("tree killed in its process");
                self.crashed = true;
                tree.kill().await;
                Ended::Killed
            }
            (None, _) => self.was_crashed(),
        }
    }

    fn was_crashed(&mut self) -> Ended {
        if self.crashed {
            self.world.saw("two crashes in a row");
        }
        self.world.saw("crash");
        match self.world.audit(|audit| Ok(audit.stage())) {
            Stage::Idle => {}
            Stage::BaseSaved => self.world.saw("crash between base and trim"),
            Stage::Copied => self.world.saw("crash between copy and trim"),
        }
        self.crashed = true;
        Ended::Crashed
    }

    fn failed(&mut self, kind: FatalKind, what: &str) -> Ended {
        self.world.note(format_args!("the tree ended: {kind:?} {what}"));
        self.world.saw(match kind {
            FatalKind::Storage => "tree ended: storage",
            FatalKind::Away => "tree ended: a server away",
            FatalKind::Fenced => "tree ended: fenced",
            FatalKind::Corrupt => "start refused: the base is not there",
            FatalKind::Internal => "tree ended: internal",
        });
        if !self.world.may_end(kind) {
            self.world.violated(format!("the tree ended for no reason: {kind:?} {what}"));
        } else if kind == FatalKind::Corrupt && !what.contains("the base, from which") {
            self.world.violated(format!("a start without a base is refused for another reason: {what}"));
        }
        Ended::Stopped
    }

    /// Steps until none are left, then the way to rest.
    async fn act_out(&mut self, tree: &mut Option<Tree>) -> Ended {
        while self.steps_left > 0 {
            self.steps_left -= 1;
            if let Some(ended) = self.step(tree).await {
                return ended;
            }
            self.crashed = false;
        }
        self.come_to_rest(tree).await
    }

    /// Lets time pass in the process and on the wall; `Some` when the tree ended meanwhile.
    async fn pass(&mut self, tree: &mut Option<Tree>, ms: u64) -> Option<Ended> {
        let running = tree.as_mut().expect("stopped last");
        let failed = tokio::select! {
            biased;
            failed = running.wait_for_failure() => Some(failed),
            () = sleep(MS * u32::try_from(ms).unwrap()) => None,
        };
        if let Some((kind, what)) = failed {
            *tree = None;
            return Some(self.failed(kind, &what));
        }
        self.set_clock(self.clock.ms() + ms as i64);
        tokio::task::yield_now().await;
        self.check_exits();
        None
    }

    fn set_clock(&mut self, now: i64) {
        self.latest = self.latest.max(now);
        if let Some(clock) = &self.zombies_clock {
            clock.set(now);
        }
        self.clock.set(now);
        self.world.note(format_args!("wall clock {now}"));
    }
}

/// A start that meets the crash never returns.
async fn hung(crash: &CrashPoint) {
    crash.crashed().await;
    sleep(Duration::from_secs(1)).await;
}
