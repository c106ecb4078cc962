//! The ports of a simulated process: the testkit's, which fail as they are told, told by the chance of the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_actors::testkit::{Act, CrashPoint, ManualClock, TestEngine};
use orchestrator_kernel::engine::retention::BASE;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{Epoch, TsMs};
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError, MemoryCheckpoints, SaveError};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError, Remedy};
use orchestrator_runtime::fatal::FatalKind;

use crate::retention::OnSave;
use crate::world::World;

/// The crash point of the process that uses a port now.
#[derive(Debug)]
pub(crate) struct Process(Mutex<CrashPoint>);

impl Default for Process {
    fn default() -> Self {
        Self(Mutex::new(CrashPoint::never()))
    }
}

impl Process {
    pub(crate) fn set(&self, crash: &CrashPoint) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = crash.clone();
    }

    pub(crate) fn now(&self) -> CrashPoint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The driver's clock, as the tree sees it. It is read so often that it notices actors that run in circles.
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

/// The engine, as one process calls it.
pub(crate) struct SimEngine {
    /// Which process. One that was overtaken may ask for a run that its successor has ended: that harms nobody.
    pub(crate) life: u64,
    pub(crate) world: Arc<World>,
    pub(crate) engine: Arc<TestEngine>,
}

#[async_trait]
impl Engine for SimEngine {
    fn identity(&self) -> EngineIdentity {
        self.engine.identity()
    }

    async fn call(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
        let world = &self.world;
        world.called().await;
        if world.life() == self.life {
            world.audit(|audit| audit.called(call));
        }
        let ms = |from, bound| Duration::from_millis(from + world.below(bound));
        let act = if world.happens(world.weather().engine) {
            let (what, act) = match world.below(10) {
                0..=2 => ("engine slow", Act::AnswerAfter(ms(1, 400))),
                3..=4 => ("engine answers after its deadline", Act::AnswerAfter(ms(501, 2000))),
                5 => ("engine never answers", Act::Hang),
                6..=8 => ("engine fails", Act::Fail(ErrorKind::EngineFailure)),
                _ => {
                    world.caused("symbol_runner");
                    ("engine panics", Act::Panic)
                }
            };
            world.saw(what);
            act
        } else {
            Act::Answer
        };
        world.note(format_args!("call {} at {}: {act:?}", call.symbol, call.engine_timestamp_ms));
        self.engine.call_as(call, Some(act)).await
    }
}

/// What the subscribers' broker does, across processes.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    pub(crate) blocked: Mutex<bool>,
    /// Symbols of which it takes nothing, whenever it is offered.
    refused: Mutex<BTreeSet<String>>,
    process: Process,
}

impl Broker {
    pub(crate) fn block(&self, blocked: bool) {
        *self.blocked.lock().unwrap_or_else(PoisonError::into_inner) = blocked;
    }

    /// Refuses a symbol for good, or takes it.
    pub(crate) fn refuse(&self, symbol: &str, is_refused: bool) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let _was = if is_refused { refused.insert(symbol.to_owned()) } else { refused.remove(symbol) };
    }

    fn refuses(&self, message: &OutputMessage) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).contains(message.symbol.as_str())
    }

    pub(crate) fn set_process(&self, crash: &CrashPoint) {
        self.process.set(crash);
    }
}

/// The fan-out of one process.
pub(crate) struct SimFanOut {
    pub(crate) world: Arc<World>,
    pub(crate) broker: Arc<Broker>,
}

/// What one attempt to publish does.
#[derive(Clone, Copy, Debug)]
enum Publish {
    Work,
    /// Takes and confirms so many, then fails.
    Part(usize),
    /// Takes so many, of which fewer are confirmed, then fails.
    Unconfirmed(usize, usize),
    /// Takes all and never answers.
    Silent,
    /// Works, but slowly.
    Slow(Duration),
    Panic,
}

impl SimFanOut {
    fn draw(&self, messages: usize) -> Publish {
        let world = &self.world;
        if !world.happens(world.weather().fan_out) {
            return Publish::Work;
        }
        let some = |most: usize| world.below(most as u64 + 1) as usize;
        let (what, act) = match world.below(10) {
            0..=2 => ("publish confirmed in part", Publish::Part(some(messages))),
            3..=5 => {
                let taken = some(messages);
                ("publish taken, confirmation lost", Publish::Unconfirmed(taken, some(taken)))
            }
            6 => ("publish never answered", Publish::Silent),
            7..=8 => ("publish slow", Publish::Slow(Duration::from_millis(1 + world.below(700)))),
            _ => {
                world.caused("publisher");
                ("fan-out panics", Publish::Panic)
            }
        };
        world.saw(what);
        act
    }

    fn take(&self, messages: &[OutputMessage]) {
        for message in messages {
            self.world.note(format_args!("subscribers get {} {}", message.symbol, message.stream_id()));
            self.world.audit(|audit| audit.published(message));
        }
    }
}

#[async_trait]
impl FanOut for SimFanOut {
    fn name(&self) -> &str {
        "simulated"
    }

    fn held_back(&self) -> Option<String> {
        let blocked = *self.broker.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        if blocked {
            self.world.saw("publisher finds the broker blocked");
        }
        blocked.then(|| "as told".to_owned())
    }

    async fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError> {
        self.world.called().await;
        let crash = self.broker.process.now();
        crash.step().await;
        let offered =
            messages.iter().position(|message| self.broker.refuses(message)).unwrap_or(messages.len());
        let is_refused = offered < messages.len();
        let messages = &messages[..offered];
        let act = self.draw(messages.len());
        let all = messages.len();
        let (taken, confirmed) = match act {
            Publish::Work | Publish::Slow(_) => (all, all),
            Publish::Part(count) => (count, count),
            Publish::Unconfirmed(taken, confirmed) => (taken, confirmed),
            Publish::Silent => (all, 0),
            Publish::Panic => panic!("the fan-out panics, as told"),
        };
        self.take(&messages[..taken]);
        crash.step().await;
        match act {
            Publish::Silent => std::future::pending::<()>().await,
            Publish::Slow(time) => tokio::time::sleep(time).await,
            Publish::Work | Publish::Part(_) | Publish::Unconfirmed(..) | Publish::Panic => {}
        }
        self.world.audit(|audit| {
            audit.confirmed(&messages[..confirmed]);
            Ok(())
        });
        self.world.note(format_args!("publish {all}: {act:?}"));
        match act {
            Publish::Work | Publish::Slow(_) if is_refused => {
                self.world.saw("output refused for good");
                let (fan_out, detail) = ("simulated".to_owned(), "not this symbol".to_owned());
                Err(PublishError { fan_out, detail, confirmed, remedy: Remedy::NoneForThisOutput })
            }
            Publish::Work | Publish::Slow(_) => Ok(()),
            Publish::Part(_) | Publish::Unconfirmed(..) | Publish::Silent | Publish::Panic => {
                let (fan_out, detail) = ("simulated".to_owned(), "as told".to_owned());
                Err(PublishError { fan_out, detail, confirmed, remedy: Remedy::Time })
            }
        }
    }
}

/// Checkpoints that are lost or set back between two processes, as the port's contract allows.
pub(crate) struct SimCheckpoints {
    world: Arc<World>,
    store: MemoryCheckpoints,
    process: Process,
    inner: Mutex<Saved>,
}

#[derive(Debug, Default)]
struct Saved {
    /// Every value, oldest first.
    history: BTreeMap<String, Vec<Bytes>>,
    /// What this process finds instead of the newest value, until it saves one.
    instead: BTreeMap<String, Option<Bytes>>,
}

impl SimCheckpoints {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            store: MemoryCheckpoints::default(),
            process: Process::default(),
            inner: Mutex::default(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Saved> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new process begins, and finds what it finds.
    pub(crate) fn set_process(&self, crash: &CrashPoint) {
        self.process.set(crash);
        let mut saved = self.inner();
        let Saved { history, instead } = &mut *saved;
        instead.clear();
        for (name, values) in history.iter() {
            // A base is lost by nothing less than a backup that is too old.
            let rarer = if name == BASE { 8 } else { 1 };
            if !self.world.happens(self.world.weather().checkpoint / rarer) {
                continue;
            }
            let older = self.world.below(2 * values.len() as u64) as usize;
            let found = values.get(older).cloned();
            self.world.saw(match (name == BASE, found.is_some()) {
                (true, true) => "base stale",
                (true, false) => "base lost",
                (false, true) => "checkpoint stale",
                (false, false) => "checkpoint lost",
            });
            instead.insert(name.clone(), found);
        }
        let newest = history.get(BASE).and_then(|values| values.last());
        let base = instead.get(BASE).map_or(newest, Option::as_ref);
        self.world.audit(|audit| audit.base_found(base.map(|value| &value[..])));
        if self.world.audit(|audit| Ok(audit.must_refuse())) {
            self.world.may_end_as(FatalKind::Corrupt);
        }
    }
}

impl SimCheckpoints {
    /// The storage does not answer: a start fails for it, an actor that is started again tries once more.
    fn not_readable(&self) -> std::io::Error {
        self.world.saw("base or cursor not readable");
        if !self.world.has_started() {
            self.world.may_end_as(FatalKind::Storage);
        }
        ["publisher", "retention"].into_iter().for_each(|kind| self.world.caused(kind));
        std::io::Error::other("as told")
    }
}

/// The publisher's.
const CURSOR: &str = "published";

#[async_trait]
impl CheckpointStore for SimCheckpoints {
    async fn load(&self, name: &str) -> Result<Option<Bytes>, LoadError> {
        self.world.called().await;
        self.process.now().step().await;
        // Only where there is a base: other seeds are what they were.
        let may_fail = [BASE, CURSOR].contains(&name) && self.inner().history.contains_key(BASE);
        if may_fail && self.world.happens(self.world.weather().checkpoint / 16) {
            return Err(self.not_readable().into());
        }
        let instead = self.inner().instead.get(name).cloned();
        let value = match instead {
            Some(instead) => instead,
            None => self.store.load(name).await?,
        };
        self.world.note(format_args!("load {name}: {:?} bytes", value.as_ref().map(Bytes::len)));
        if name == CURSOR {
            self.world.audit(|audit| {
                audit.cursor_loaded(value.as_deref());
                Ok(())
            });
        }
        if name == BASE {
            self.world.audit(|audit| audit.base_loaded(value.as_deref()));
        }
        Ok(value)
    }

    async fn save(&self, name: &str, epoch: Epoch, value: Bytes) -> Result<(), SaveError> {
        self.world.called().await;
        self.process.now().step().await;
        if self.world.happens(self.world.weather().checkpoint / 2) {
            self.world.saw("checkpoint not saved");
            return Err(std::io::Error::other("as told").into());
        }
        if name == CURSOR {
            self.world.audit(|audit| audit.cursor_saved(&value));
        }
        self.world.note(format_args!("save {name}: {} bytes", value.len()));
        let act = if name == BASE { OnSave::draw(&self.world) } else { OnSave::Work };
        if act == (OnSave::Panic { done: false }) {
            panic!("the base is not saved, as told");
        }
        self.store.save(name, epoch, value.clone()).await?;
        {
            let mut saved = self.inner();
            saved.instead.remove(name);
            saved.history.entry(name.to_owned()).or_default().push(value.clone());
        }
        if name == BASE {
            self.world.audit(|audit| audit.base_saved(&value));
            self.process.now().step().await;
        }
        match act {
            OnSave::Work => Ok(()),
            OnSave::AnswerLost => Err(std::io::Error::other("as told").into()),
            OnSave::Panic { .. } => panic!("the base is saved, as told"),
        }
    }
}
