//! A log that fails as it is told, in every way that the port's contract names.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use orchestrator_kernel::ports::log_memory::MemoryLog;
use orchestrator_kernel::random::Rng;
use tokio::sync::watch;

use super::crash::CrashPoint;

/// What one append does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAppend {
    /// Works.
    Work,
    /// Works after this time.
    WorkAfter(Duration),
    /// Is not answered; the records are there or not.
    Unknown {
        /// Whether they are there.
        done: bool,
    },
    /// Has no room.
    Full,
    /// The storage broke.
    Poisoned,
    /// Never answers.
    Hang,
}

#[derive(Debug)]
struct Script {
    next: VecDeque<OnAppend>,
    corrupt: BTreeSet<u64>,
    away: u32,
    trims_fail: bool,
    crash: CrashPoint,
    yields: Option<(Rng, u64)>,
    /// First position and length of each append that reached the log, and its answer.
    trace: Vec<(u64, usize, bool)>,
}

/// The log of one test; it lives across restarts, and its content with it.
#[derive(Debug)]
pub struct FaultyLog {
    inner: MemoryLog,
    /// What every append does when nothing else is told.
    always: watch::Sender<OnAppend>,
    script: Mutex<Script>,
    waiting: AtomicU64,
}

impl Default for FaultyLog {
    fn default() -> Self {
        let script = Script {
            next: VecDeque::new(),
            corrupt: BTreeSet::new(),
            away: 0,
            trims_fail: false,
            crash: CrashPoint::never(),
            yields: None,
            trace: Vec::new(),
        };
        Self {
            inner: MemoryLog::default(),
            always: watch::Sender::new(OnAppend::Work),
            script: Mutex::new(script),
            waiting: AtomicU64::new(0),
        }
    }
}

impl FaultyLog {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next appends do this.
    pub fn next(&self, acts: impl IntoIterator<Item = OnAppend>) {
        self.script().next.extend(acts);
    }

    /// Lets every further append do this; one that hangs goes on when it is changed back.
    pub fn always(&self, act: OnAppend) {
        self.always.send_replace(act);
    }

    /// Lets reads of this position fail.
    pub fn corrupt(&self, at: u64) {
        self.script().corrupt.insert(at);
    }

    /// Lets this many reads fail, as those of a server that is away do.
    pub fn away_for(&self, reads: u32) {
        self.script().away = reads;
    }

    /// From now on the steps of this point count.
    pub fn set_crash(&self, crash: &CrashPoint) {
        self.script().crash = crash.clone();
    }

    /// Whether trimming fails from now on.
    pub fn fail_trims(&self, fail: bool) {
        self.script().trims_fail = fail;
    }

    /// Gives way up to `most` times around each append, as the seed says.
    pub fn set_yields(&self, seed: u64, most: u64) {
        self.script().yields = Some((Rng::new(seed), most));
    }

    /// Appends that hang now.
    #[must_use]
    pub fn hanging(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// First position, length and success of each append.
    #[must_use]
    pub fn trace(&self) -> Vec<(u64, usize, bool)> {
        self.script().trace.clone()
    }

    /// Everything in the log.
    pub async fn records(&self) -> Vec<Vec<u8>> {
        let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX };
        let batch = self.inner.read(self.inner.stat().start, limit).await.expect("the log in memory");
        batch.iter().map(|(_, payload)| payload.to_vec()).collect()
    }

    async fn give_way(&self) {
        let times = self.script().yields.as_mut().map_or(0, |(rng, most)| rng.next_below(*most + 1));
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
    }

    async fn hang(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let changed = self.always.subscribe().wait_for(|act| *act != OnAppend::Hang).await.is_ok();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        assert!(changed, "the log owns the sender");
    }

    async fn act(&self, act: OnAppend, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        let lost = || std::io::Error::other("as told");
        match act {
            OnAppend::Work => self.inner.append(epoch, batch).await,
            OnAppend::WorkAfter(time) => {
                tokio::time::sleep(time).await;
                self.inner.append(epoch, batch).await
            }
            OnAppend::Unknown { done } => {
                if done {
                    self.inner.append(epoch, batch).await?;
                }
                Err(AppendError::Unknown { source: lost() })
            }
            OnAppend::Full => Err(AppendError::Full { detail: "as told".to_owned() }),
            OnAppend::Poisoned => Err(AppendError::Poisoned { source: lost() }),
            OnAppend::Hang => {
                self.hang().await;
                self.inner.append(epoch, batch).await
            }
        }
    }
}

#[async_trait]
impl Log for FaultyLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.inner.acquire().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        let (act, crash) = {
            let mut script = self.script();
            let act = script.next.pop_front().unwrap_or(*self.always.borrow());
            (act, script.crash.clone())
        };
        crash.step().await;
        self.give_way().await;
        let result = self.act(act, epoch, batch).await;
        self.script().trace.push((batch.first_seq().0, batch.len(), result.is_ok()));
        self.give_way().await;
        crash.step().await;
        result
    }

    /// Does what every append does: what is scripted for the next appends is for those.
    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        let act = *self.always.borrow();
        let lost = || std::io::Error::other("as told");
        match act {
            OnAppend::Work => {}
            OnAppend::WorkAfter(time) => tokio::time::sleep(time).await,
            OnAppend::Unknown { .. } => return Err(AppendError::Unknown { source: lost() }),
            OnAppend::Full => return Err(AppendError::Full { detail: "as told".to_owned() }),
            OnAppend::Poisoned => return Err(AppendError::Poisoned { source: lost() }),
            OnAppend::Hang => self.hang().await,
        }
        self.inner.prove_room(epoch, size).await
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        let away = self.script().away;
        if away > 0 {
            self.script().away = away - 1;
            return Err(std::io::Error::other("as told").into());
        }
        let batch = self.inner.read(from, limit).await?;
        let bad = self.script().corrupt.iter().copied().find(|at| (from.0..=batch.last_seq().0).contains(at));
        match bad {
            Some(at) => Err(ReadError::Corrupt { at: Seq(at), detail: "as told".to_owned() }),
            None => Ok(batch),
        }
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        let crash = self.script().crash.clone();
        crash.step().await;
        self.give_way().await;
        let trimmed = match self.script().trims_fail {
            true => Err(std::io::Error::other("as told").into()),
            false => Ok(()),
        };
        let trimmed = match trimmed {
            Ok(()) => self.inner.trim(epoch, below).await,
            Err(error) => Err(error),
        };
        self.give_way().await;
        crash.step().await;
        trimmed
    }

    fn stat(&self) -> LogStat {
        self.inner.stat()
    }
}

/// Takes the log over, as a second process would.
pub async fn fence(log: &Arc<FaultyLog>) {
    log.inner.acquire().await.expect("the log in memory");
}

/// The run records.
pub async fn runs_of(log: &Arc<FaultyLog>) -> Vec<RunRecord> {
    log.records().await.iter().map(|bytes| RunRecord::decode(bytes).expect("a run record")).collect()
}
