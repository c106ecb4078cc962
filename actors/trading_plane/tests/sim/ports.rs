//! The other ports of a simulated process: stages, hooks, the clock, checkpoints.

use std::future::Future as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_kernel::ids::{Epoch, TsMs};
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError, MemoryCheckpoints, SaveError};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::stage::{HookBackend, HookRequest, StageBackend, StageRequest};
use orchestrator_kernel::trading::gate::{HookAnswer, HookError, HookVote, Narrowing};
use orchestrator_kernel::trading::ids::DecisionId;
use orchestrator_kernel::trading::journal::{
    BUILT_IN_DATA_BYTES_MAX, StageError, StageErrorKind, StageOutput,
};
use orchestrator_kernel::trading::stage::StageRole;
use orchestrator_runtime::testkit::ManualClock;
use orchestrator_trading_plane::testkit::good_output;
use rust_decimal::Decimal;
use tokio::time::{Instant, sleep};

use crate::journal::Process;
use crate::world::World;

/// Lease of the kill switch in simulations.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// The driver's clock, as the plane sees it.
pub(crate) struct SimClock {
    pub(crate) world: Arc<World>,
    pub(crate) clock: Arc<ManualClock>,
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> Option<TsMs> {
        self.world.read_the_clock();
        self.clock.now()
    }

    async fn wait_started(&self) -> TsMs {
        self.clock.wait_started().await
    }

    async fn sleep_until(&self, deadline: TsMs) {
        self.clock.sleep_until(deadline).await;
    }

    fn armed_deadline(&self) -> Option<TsMs> {
        None
    }

    fn is_driven(&self) -> bool {
        false
    }

    async fn advance(&self, _at: TsMs) {}
}

/// How long before a deadline a process stands still, at most.
const STANDS_STILL: Duration = Duration::from_millis(20);

/// What one attempt of a stage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnStage {
    Work,
    After(Duration),
    /// The process stands still over the deadline while the answer comes: it is there before a timer has fired.
    StandStill {
        before: Duration,
        over: Duration,
    },
    Hang,
    Fail,
    Panic,
    Garbage,
    TooLarge,
}

/// The stages, as one process calls them.
pub(crate) struct SimStages {
    /// Which process: calls of one that is gone harm nobody.
    pub(crate) life: u64,
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
}

impl SimStages {
    fn draw(&self, time_left: Duration) -> OnStage {
        let world = &self.world;
        if !world.happens(world.weather().stages) {
            return match world.below(8) {
                0 => OnStage::After(Duration::from_millis(1 + world.below(40))),
                _ => OnStage::Work,
            };
        }
        let ms = |bound| Duration::from_millis(1 + world.below(bound));
        let (what, act) = match world.below(16) {
            0..=3 => ("stage slow", OnStage::After(ms(400))),
            4 => ("stage answers at its deadline", OnStage::After(time_left)),
            5 => ("stage answers late", OnStage::After(time_left + ms(2000))),
            6 => {
                let before = time_left.saturating_sub(STANDS_STILL);
                let over = time_left.saturating_sub(before) + ms(30);
                ("stage answers late as the process goes on", OnStage::StandStill { before, over })
            }
            7 => ("stage hangs", OnStage::Hang),
            8..=12 => ("stage fails", OnStage::Fail),
            13 => ("stage panics", OnStage::Panic),
            14 => ("stage answers garbage", OnStage::Garbage),
            _ => ("stage answers too much", OnStage::TooLarge),
        };
        world.saw(what);
        act
    }

    /// What must hold when a stage is called at all.
    fn check_call(&self, request: &StageRequest) {
        let (world, stage) = (&self.world, request.stage.name.as_str());
        let cycle = request.started.cycle_id;
        if world.life() != self.life {
            return;
        }
        let role = request.stage.role();
        if role.leads_to_effects() && world.view().is_catching_up() {
            world.violated(format!("AGT-1: {stage} of {cycle} is called before open work is known"));
        }
        let stopped = world.stopped_for().filter(|_| role.leads_to_effects());
        if let Some(stopped) = stopped.filter(|stopped| LEASE + Duration::from_secs(1) < *stopped) {
            world.violated(format!("KILL-1: {stage} of {cycle} is called {stopped:?} after a stop"));
        }
        if !request.stage.idempotent {
            world.audit(|audit| audit.called_once(cycle, stage, request.strategy.as_ref()));
        }
        let (since, again) = world
            .audit(|audit| Ok(Some((audit.cycle_began(cycle), audit.was_interrupted(&cycle)))))
            .expect("told");
        let budget = request.started.pipeline.budget + Duration::from_millis(500);
        let settles = role.settles_effects();
        if !settles && !again && world.was_fair() && budget < since.elapsed() {
            world.violated(format!("CYC-4: {stage} of {cycle} begins {:?} after it", since.elapsed()));
        }
    }
}

#[async_trait]
impl StageBackend for SimStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        self.world.called().await;
        self.process.step().await;
        self.check_call(&request);
        let called = Instant::now();
        let act = self.draw(request.time_left);
        let (cycle, stage) = (request.started.cycle_id, request.stage.name.as_str());
        self.world.note(format_args!("call {stage} {:?} of {cycle}: {act:?}", request.strategy));
        match act {
            OnStage::Work => {}
            OnStage::After(time) => sleep(time).await,
            OnStage::StandStill { before, over } => {
                sleep(before).await;
                stand_still(over);
            }
            OnStage::Hang => std::future::pending().await,
            OnStage::Fail => return Err(StageError::new(StageErrorKind::Provider, "as told")),
            OnStage::Panic => panic!("the stage panics, as told"),
            OnStage::Garbage | OnStage::TooLarge => {}
        }
        let is_late = request.time_left <= called.elapsed();
        let answer = self.world.audit(|audit| Ok(audit.give_answer(cycle, stage, is_late)));
        let mut output = good_output(&request);
        output.data = format!("{{\"answer\":{answer}}}");
        match act {
            OnStage::TooLarge => output.data = "x".repeat(BUILT_IN_DATA_BYTES_MAX + 1),
            OnStage::Garbage if request.stage.role() == StageRole::Risk => {
                output.verdicts.extend(output.verdicts.clone());
                output.decisions.extend(request.decisions.iter().cloned());
            }
            OnStage::Garbage => output.verdicts = good_verdicts(&request),
            OnStage::Work
            | OnStage::After(_)
            | OnStage::StandStill { .. }
            | OnStage::Hang
            | OnStage::Fail
            | OnStage::Panic => {}
        }
        Ok(output)
    }
}

/// Lets time pass for everybody at once, as for a process that was stopped and goes on: no timer has fired yet when the
/// next line runs.
fn stand_still(time: Duration) {
    let mut passing = pin!(tokio::time::advance(time));
    // The clock moves at the first poll; the rest of it would only give way to others.
    let polled = passing.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "time passes otherwise than it did");
}

/// Verdicts of a stage that is not to judge.
fn good_verdicts(request: &StageRequest) -> Vec<orchestrator_kernel::trading::risk::RiskVerdict> {
    let nobody = DecisionId::new("nobody").expect("an id");
    let outcome = orchestrator_kernel::trading::risk::RiskOutcome::Allowed {
        quantity: Decimal::ONE,
        price: Decimal::ONE,
        lowered_by: vec![],
    };
    let decided = request.decisions.first().map_or(nobody, |decision| decision.decision_id.clone());
    vec![orchestrator_kernel::trading::risk::RiskVerdict { decision_id: decided, outcome }]
}

/// The hooks, as one process asks them.
pub(crate) struct SimHooks {
    pub(crate) world: Arc<World>,
    pub(crate) process: Arc<Process>,
}

#[async_trait]
impl HookBackend for SimHooks {
    async fn ask_hook(&self, request: HookRequest) -> Result<HookAnswer, HookError> {
        let world = &self.world;
        world.called().await;
        self.process.step().await;
        let (cycle, name) = (request.started.cycle_id, request.hook.name.as_str());
        let told = |objects| {
            world.audit(|audit| {
                audit.hook_asked(cycle, &request.place, name, objects);
                Ok(())
            });
        };
        let answer = |vote, patch| HookAnswer { vote, reasons: vec!["as told".to_owned()], patch };
        let drawn = if world.happens(world.weather().hooks) { world.below(7) } else { 99 };
        world.note(format_args!("hook {name} at {:?} of {cycle}: {drawn}", request.place));
        match drawn {
            0 => {
                world.saw("hook hangs");
                told(true);
                std::future::pending().await
            }
            1 => {
                world.saw("hook denies");
                told(true);
                Ok(answer(HookVote::Deny, vec![]))
            }
            2 => {
                world.saw("hook fails");
                told(true);
                Err(HookError::Failed("as told".to_owned()))
            }
            3 => {
                world.saw("hook widens by a decision of nobody");
                told(true);
                let nobody = DecisionId::new("nobody").expect("an id");
                Ok(answer(HookVote::Modify, vec![Narrowing::Drop(nobody)]))
            }
            4 if !request.decisions.is_empty() => {
                world.saw("hook widens an order");
                told(true);
                let decision_id = request.decisions[0].decision_id.clone();
                let quantity = Decimal::from(1000);
                Ok(answer(HookVote::Modify, vec![Narrowing::Limit { decision_id, quantity }]))
            }
            5 if !request.decisions.is_empty() => {
                world.saw("hook narrows");
                told(false);
                let decision_id = request.decisions[0].decision_id.clone();
                let narrowing = match world.below(2) {
                    0 => Narrowing::Drop(decision_id),
                    _ => Narrowing::Limit { decision_id, quantity: Decimal::ZERO },
                };
                Ok(answer(HookVote::Modify, vec![narrowing]))
            }
            6 => {
                world.saw("hook takes its time");
                let is_late = world.below(2) == 0;
                let budget = request.hook.budget;
                told(is_late);
                sleep(if is_late { budget * 3 } else { budget / 3 }).await;
                Ok(answer(HookVote::Allow, vec![]))
            }
            _ => {
                told(false);
                Ok(answer(HookVote::Allow, vec![]))
            }
        }
    }
}

/// Checkpoints that are lost, stale, or not saved.
pub(crate) struct SimCheckpoints {
    world: Arc<World>,
    inner: MemoryCheckpoints,
    old: Mutex<Option<Bytes>>,
    process: Mutex<Arc<Process>>,
}

impl SimCheckpoints {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            inner: MemoryCheckpoints::default(),
            old: Mutex::default(),
            process: Mutex::new(Process::endless()),
        })
    }

    pub(crate) fn set_process(&self, process: &Arc<Process>) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(process);
    }

    fn process(&self) -> Arc<Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl CheckpointStore for SimCheckpoints {
    async fn load(&self, name: &str) -> Result<Option<Bytes>, LoadError> {
        self.world.called().await;
        self.process().step().await;
        let loaded = self.inner.load(name).await?;
        if loaded.is_none() || !self.world.happens(self.world.weather().checkpoints) {
            return Ok(loaded);
        }
        match self.world.below(3) {
            0 => {
                self.world.saw("checkpoint lost");
                Ok(None)
            }
            1 => {
                self.world.saw("checkpoint damaged");
                Ok(Some(Bytes::from_static(b"damaged")))
            }
            _ => {
                self.world.saw("checkpoint stale");
                Ok(self.old.lock().unwrap_or_else(PoisonError::into_inner).clone())
            }
        }
    }

    async fn save(&self, name: &str, epoch: Epoch, value: Bytes) -> Result<(), SaveError> {
        self.world.called().await;
        self.process().step().await;
        if self.world.happens(self.world.weather().checkpoints) {
            self.world.saw("checkpoint not saved");
            return Err(SaveError::Io(std::io::Error::other("as told")));
        }
        let before = self.inner.load(name).await.ok().flatten();
        *self.old.lock().unwrap_or_else(PoisonError::into_inner) = before;
        self.inner.save(name, epoch, value).await
    }
}
