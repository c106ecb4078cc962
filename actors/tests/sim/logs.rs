//! The logs of a simulated process, and what they see of the invariants.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_actors::testkit::{CrashPoint, FaultyLog, OnAppend};
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use orchestrator_runtime::fatal::FatalKind;

use crate::audit::Role;
use crate::ports::Process;
use crate::retention::OnTrim;
use crate::world::World;

/// One of the three logs.
pub(crate) struct SimLog {
    role: Role,
    world: Arc<World>,
    log: Arc<FaultyLog>,
    process: Process,
    /// The newest writer's epoch.
    epoch: AtomicU64,
    /// Appends that find no room from now on.
    full: AtomicI64,
    /// Acknowledged appends until one is dropped: the canary. Never when negative.
    drops_after: AtomicI64,
    /// Most records that one append may bring: all that may be in flight (MEM-1).
    records_max: usize,
    /// Records that are trimmed together.
    unit: u64,
    /// The storage broke at a trim.
    broken: AtomicBool,
}

impl SimLog {
    pub(crate) fn new(role: Role, world: &Arc<World>, records_max: usize, unit: u64) -> Arc<Self> {
        Arc::new(Self {
            role,
            world: Arc::clone(world),
            log: Arc::default(),
            process: Process::default(),
            epoch: AtomicU64::new(0),
            full: AtomicI64::new(0),
            drops_after: AtomicI64::new(-1),
            records_max,
            unit,
            broken: AtomicBool::new(false),
        })
    }

    pub(crate) fn set_process(&self, crash: &CrashPoint) {
        self.process.set(crash);
        self.log.set_crash(crash);
        self.broken.store(false, Ordering::Relaxed);
    }

    /// Has no room for so many appends.
    pub(crate) fn fill(&self, appends: i64) {
        self.full.store(appends, Ordering::Relaxed);
    }

    pub(crate) fn drop_one_after(&self, appends: i64) {
        self.drops_after.store(appends, Ordering::Relaxed);
    }

    /// Takes the log over, as a second process would.
    pub(crate) async fn take_over(&self) {
        let acquired = self.log.acquire().await.expect("the log in memory");
        self.epoch.store(acquired.epoch.0, Ordering::Relaxed);
    }

    /// Shows the audit what landed since it looked last.
    pub(crate) async fn look(&self) {
        let seen = self.world.audit(|audit| Ok(audit.seen(self.role)));
        let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX };
        let landed = self.log.read(Seq(seen as u64 + 1), limit).await.expect("the log in memory");
        for (seq, payload) in landed.iter() {
            self.world.note(format_args!("{:?} {seq} is durable, {} bytes", self.role, payload.len()));
            self.world.audit(|audit| audit.landed(self.role, payload));
        }
        let start = self.log.stat().start;
        if self.world.audit(|audit| audit.trimmed(self.role, start)) > 0 {
            self.world.note(format_args!("{:?} begin at {start}", self.role));
            self.world.saw(match self.role {
                Role::Receipts => "receipts trimmed",
                Role::Quarantine => "quarantine trimmed",
                Role::Runs => "runs trimmed",
            });
        }
    }

    /// Everything in the log, and where it begins.
    pub(crate) async fn records(&self) -> (u64, Vec<Vec<u8>>) {
        (self.log.stat().start.0, self.log.records().await)
    }

    fn draw(&self) -> (OnAppend, Option<Duration>) {
        let world = &self.world;
        let ms = |bound| Duration::from_millis(1 + world.below(bound));
        if self.broken.swap(false, Ordering::Relaxed) {
            world.may_end_as(FatalKind::Storage);
            world.saw("append breaks the storage");
            return (OnAppend::Poisoned, None);
        }
        if self.full.fetch_sub(1, Ordering::Relaxed) > 0 {
            world.saw("append without room");
            return (OnAppend::Full, None);
        }
        if !world.happens(world.weather().log) {
            return (OnAppend::Work, None);
        }
        let (what, act, late) = match world.below(16) {
            0..=2 => ("append unknown, done", OnAppend::Unknown { done: true }, None),
            3..=5 => ("append unknown, not done", OnAppend::Unknown { done: false }, None),
            6..=8 => ("append slow", OnAppend::WorkAfter(ms(80)), None),
            9..=10 => ("append hangs, then works", OnAppend::WorkAfter(ms(3000)), None),
            11..=12 => ("append answered late", OnAppend::Work, Some(ms(500))),
            13..=14 => {
                self.fill(1 + world.below(4) as i64);
                ("append without room", OnAppend::Full, None)
            }
            _ => {
                world.may_end_as(FatalKind::Storage);
                ("append breaks the storage", OnAppend::Poisoned, None)
            }
        };
        world.saw(what);
        (act, late)
    }

    /// The canary's lie: says that it is done and drops it.
    fn lies(&self, batch: &RecordBatch) -> bool {
        !batch.is_empty()
            && self.drops_after.load(Ordering::Relaxed) >= 0
            && self.drops_after.fetch_sub(1, Ordering::Relaxed) == 0
    }
}

#[async_trait]
impl Log for SimLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.world.called().await;
        self.process.now().step().await;
        self.look().await;
        let acquired = self.log.acquire().await?;
        if self.role == Role::Runs {
            self.world.audit(|audit| {
                audit.runs_acquired();
                Ok(())
            });
        }
        self.epoch.store(acquired.epoch.0, Ordering::Relaxed);
        self.world.note(format_args!("{:?} taken over at {}", self.role, acquired.tail));
        self.process.now().step().await;
        Ok(acquired)
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        self.world.called().await;
        if self.records_max < batch.len() {
            self.world.violated(format!(
                "MEM-1: {} records in flight, {} are allowed",
                batch.len(),
                self.records_max
            ));
        }
        if self.lies(batch) {
            return Ok(());
        }
        let (act, late) = self.draw();
        self.log.next([act]);
        let result = self.log.append(epoch, batch).await;
        if result.is_ok() && !batch.is_empty() && epoch.0 < self.epoch.load(Ordering::Relaxed) {
            self.world
                .violated(format!("LOG-3: {:?} took an append of a writer that was superseded", self.role));
        }
        let (first, count) = (batch.first_seq(), batch.len());
        self.world.note(format_args!("append {:?} {first}+{count}: {act:?} gives {result:?}", self.role));
        self.look().await;
        if let Some(late) = late {
            tokio::time::sleep(late).await;
        }
        result
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        self.world.called().await;
        if self.full.fetch_sub(1, Ordering::Relaxed) > 0 {
            self.world.saw("room asked for in vain");
            return Err(AppendError::Full { detail: "as told".to_owned() });
        }
        self.log.prove_room(epoch, size).await
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        self.world.called().await;
        self.process.now().step().await;
        if self.world.happens(self.world.weather().log / 4) {
            self.world.saw("read fails");
            self.world.may_end_as(FatalKind::Storage);
            ["publisher", "symbol_runner"].into_iter().for_each(|kind| self.world.caused(kind));
            return Err(std::io::Error::other("as told").into());
        }
        self.log.read(from, limit).await
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        self.world.called().await;
        self.look().await;
        let act = OnTrim::draw(&self.world);
        if let OnTrim::WorkAfter(time) = act {
            tokio::time::sleep(time).await;
        }
        let (start, lost) = (self.log.stat().start.0, || std::io::Error::other("as told"));
        let below = match act {
            OnTrim::Part => (start + below.0) / 2,
            _ => below.0,
        };
        let whole = Seq((below - 1) / self.unit * self.unit + 1);
        let result = match act {
            OnTrim::Unknown { done: false } | OnTrim::Panic { done: false } | OnTrim::Break => {
                Err(lost().into())
            }
            _ => self.log.trim(epoch, whole).await,
        };
        if result.is_ok() && epoch.0 < self.epoch.load(Ordering::Relaxed) {
            self.world
                .violated(format!("LOG-3: {:?} are trimmed by a writer that was superseded", self.role));
        }
        if let Err(TrimError::Fenced { .. }) = result {
            self.world.saw("trim fenced");
        }
        self.world.note(format_args!("trim {:?} below {whole}: {act:?} gives {result:?}", self.role));
        self.look().await;
        match act {
            OnTrim::Work | OnTrim::WorkAfter(_) => result,
            OnTrim::AnswerAfter(time) => {
                tokio::time::sleep(time).await;
                result
            }
            OnTrim::Unknown { .. } | OnTrim::Part => Err(lost().into()),
            OnTrim::Break => {
                self.broken.store(true, Ordering::Relaxed);
                Err(lost().into())
            }
            OnTrim::Panic { .. } => panic!("the log panics, as told"),
        }
    }

    fn stat(&self) -> LogStat {
        self.log.stat()
    }
}
