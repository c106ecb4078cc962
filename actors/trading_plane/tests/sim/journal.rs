//! The journal's log of a simulated process: it fails as the seed says, and a crash may cut a batch between any two of
//! its records.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use orchestrator_kernel::ports::log_memory::MemoryLog;
use orchestrator_kernel::trading::journal::JournalFact;
use orchestrator_runtime::fatal::FatalKind;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::world::World;

/// A process that ends after so many steps of its ports: from then on no port does or answers anything.
#[derive(Debug)]
pub(crate) struct Process {
    left: AtomicI64,
    /// Whether ports hang afterwards; otherwise they go on, as the tasks of a killed plane do.
    hangs: bool,
    is_gone: AtomicBool,
    ended: Notify,
}

impl Process {
    /// Ends at this step; or only tells of it, and whoever is told kills the plane in a process that goes on.
    pub(crate) fn ending_at(step: i64, hangs: bool) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicI64::new(step),
            hangs,
            is_gone: AtomicBool::new(false),
            ended: Notify::new(),
        })
    }

    /// Ends when nobody asks.
    pub(crate) fn endless() -> Arc<Self> {
        Self::ending_at(i64::MAX, true)
    }

    /// One step of a port: whether the process ends at it.
    fn ends_here(&self) -> bool {
        self.left.fetch_sub(1, Ordering::Relaxed) == 0
    }

    fn end(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        self.ended.notify_one();
    }

    /// Returns unless the process is gone, or ends here.
    pub(crate) async fn step(&self) {
        if self.ends_here() {
            self.end();
        }
        if self.hangs && self.is_gone.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for its end; also when somebody has waited for that before.
    pub(crate) async fn wait_ended(&self) {
        if !self.is_gone.load(Ordering::Relaxed) {
            self.ended.notified().await;
        }
    }
}

/// What one append does.
#[derive(Clone, Copy, Debug)]
enum OnAppend {
    Work,
    After(Duration),
    AnswerAfter(Duration),
    Unknown { done: bool },
    Full,
    Break,
}

/// The journal's log; it lives across processes.
pub(crate) struct SimJournal {
    world: Arc<World>,
    log: MemoryLog,
    process: Mutex<Arc<Process>>,
    epoch: AtomicU64,
    /// Appends that find no room from now on.
    full: AtomicI64,
    /// Acknowledged appends until one is dropped: the canary. Never when negative.
    drops_after: AtomicI64,
}

impl SimJournal {
    pub(crate) fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            log: MemoryLog::default(),
            process: Mutex::new(Process::endless()),
            epoch: AtomicU64::new(0),
            full: AtomicI64::new(0),
            drops_after: AtomicI64::new(-1),
        })
    }

    fn lock_process(&self) -> MutexGuard<'_, Arc<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_process(&self, process: &Arc<Process>) {
        *self.lock_process() = Arc::clone(process);
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
        let seen = self.world.audit(|audit| Ok(audit.seen()));
        let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX };
        let landed = self.log.read(Seq(seen + 1), limit).await.expect("the log in memory");
        for (seq, payload) in landed.iter() {
            let wall = self.world.lowest_wall();
            let entry = self.world.audit(|audit| audit.landed(payload, wall).map(Some));
            let Some(fact) = entry.map(|entry| entry.fact) else { return };
            self.world.note(format_args!("{seq} {}", line_of(&fact)));
            self.note_coverage(&fact);
        }
    }

    fn note_coverage(&self, fact: &JournalFact) {
        match fact {
            JournalFact::OrderIntended(_) => self.world.saw("an order is intended"),
            JournalFact::ScheduleSkipped(skipped) => self.world.saw(match skipped.reason.as_str() {
                "misfire" => "fires skipped: misfire",
                "overlap" => "fires skipped: overlap",
                "too_late" => "fires skipped: too late",
                "agent_not_running" => "fires skipped: agent not running",
                "already_fired" => "fires skipped: already fired",
                _ => "fires skipped: another reason",
            }),
            JournalFact::CycleEnded(ended) => self.world.saw(match ended.status.as_str() {
                "ok" => "cycle ends: ok",
                "degraded" => "cycle ends: degraded",
                "blocked" => "cycle ends: blocked",
                _ => "cycle ends: failed",
            }),
            JournalFact::AgentChanged(changed) => self.world.saw(match changed.state.status.as_str() {
                "running" => "agent runs",
                "paused" => "agent pauses",
                "error" => "agent in error",
                _ => "agent stops",
            }),
            _ => {}
        }
    }

    fn draw(&self) -> OnAppend {
        let world = &self.world;
        let ms = |bound| Duration::from_millis(1 + world.below(bound));
        if self.full.fetch_sub(1, Ordering::Relaxed) > 0 {
            world.saw("append without room");
            return OnAppend::Full;
        }
        if !world.happens(world.weather().journal) {
            return OnAppend::Work;
        }
        let (what, act) = match world.below(16) {
            0..=2 => ("append unknown, done", OnAppend::Unknown { done: true }),
            3..=5 => ("append unknown, not done", OnAppend::Unknown { done: false }),
            6..=8 => ("append slow", OnAppend::After(ms(80))),
            9..=10 => ("append hangs, then works", OnAppend::After(ms(3000))),
            11..=12 => ("append answered late", OnAppend::AnswerAfter(ms(500))),
            13..=14 => {
                self.fill(world.below(4) as i64);
                ("append without room", OnAppend::Full)
            }
            _ => {
                world.may_end_as(FatalKind::Storage);
                ("append breaks the storage", OnAppend::Break)
            }
        };
        world.saw(what);
        act
    }

    /// The canary's lie: says that it is done and drops it.
    fn lies(&self, batch: &RecordBatch) -> bool {
        !batch.is_empty()
            && self.drops_after.load(Ordering::Relaxed) >= 0
            && self.drops_after.fetch_sub(1, Ordering::Relaxed) == 0
    }

    /// The process ends in the middle of an append: the first records of the batch are there, or none, or all.
    async fn cut(&self, process: &Process, epoch: Epoch, batch: &RecordBatch) {
        let kept = self.world.below(batch.len() as u64 + 1) as usize;
        let mut part = RecordBatch::starting_at(batch.first_seq());
        batch.iter().take(kept).for_each(|(_, payload)| part.push(payload));
        let landed = self.log.append(epoch, &part).await.is_ok();
        if landed && 0 < kept && kept < batch.len() {
            self.world.saw("crash between two records of a batch");
        }
        self.world.note(format_args!("the process ends with {kept} of {} records", batch.len()));
        self.look().await;
        process.end();
        std::future::pending::<()>().await;
    }

    async fn act(&self, act: OnAppend, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        let lost = || std::io::Error::other("as told");
        match act {
            OnAppend::Work => self.log.append(epoch, batch).await,
            OnAppend::After(time) => {
                sleep(time).await;
                self.log.append(epoch, batch).await
            }
            OnAppend::AnswerAfter(time) => {
                let result = self.log.append(epoch, batch).await;
                self.look().await;
                sleep(time).await;
                result
            }
            OnAppend::Unknown { done } => {
                if done {
                    self.log.append(epoch, batch).await?;
                }
                Err(AppendError::Unknown { source: lost() })
            }
            OnAppend::Full => Err(AppendError::Full { detail: "as told".to_owned() }),
            OnAppend::Break => Err(AppendError::Poisoned { source: lost() }),
        }
    }
}

#[async_trait]
impl Log for SimJournal {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.world.called().await;
        let process = self.lock_process().clone();
        process.step().await;
        self.look().await;
        let acquired = self.log.acquire().await?;
        self.epoch.store(acquired.epoch.0, Ordering::Relaxed);
        self.world.note(format_args!("taken over at {}", acquired.tail));
        Ok(acquired)
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        self.world.called().await;
        let process = self.lock_process().clone();
        if process.hangs && process.ends_here() {
            self.cut(&process, epoch, batch).await;
        }
        process.step().await;
        if self.lies(batch) {
            return Ok(());
        }
        let act = self.draw();
        if !matches!(act, OnAppend::Work) {
            self.world.note_journal_busy();
        }
        let is_older = epoch.0 < self.epoch.load(Ordering::Relaxed);
        let result = self.act(act, epoch, batch).await;
        if !matches!(act, OnAppend::Work) {
            self.world.note_journal_busy();
        }
        if result.is_ok() && !batch.is_empty() && is_older {
            self.world.violated("LOG-3: the journal took an append of a writer that was superseded");
        }
        let (first, count) = (batch.first_seq(), batch.len());
        self.world.note(format_args!("append {first}+{count}: {act:?} gives {result:?}"));
        self.look().await;
        process.step().await;
        result
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        self.world.called().await;
        self.world.note_journal_busy();
        if self.full.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Err(AppendError::Full { detail: "as told".to_owned() });
        }
        self.log.prove_room(epoch, size).await
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        self.world.called().await;
        let process = self.lock_process().clone();
        process.step().await;
        self.log.read(from, limit).await
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        self.log.trim(epoch, below).await
    }

    fn stat(&self) -> LogStat {
        self.log.stat()
    }
}

/// One line of the trace.
fn line_of(fact: &JournalFact) -> String {
    let mut line = format!("{} {fact:?}", fact.kind_word());
    if let JournalFact::CycleStarted(started) = fact {
        line = format!("cycle_started {} {:?} {:?}", started.cycle_id, started.cause, started.strategies);
    }
    line.chars().take(600).collect()
}
