//! What half of the seeds let go of their logs, and how trims, copies and the base fail.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_actors::testkit::{CrashPoint, FaultyLog, OnAppend};
use orchestrator_engine_plane::retention::{Limits, RetentionSettings};
use orchestrator_kernel::engine::retention::Policy;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use orchestrator_kernel::random::Rng;

use crate::audit::Role;
use crate::world::World;

/// Retention has dice of its own: a seed without it does what it did before there was any. With this salt, so do the
/// seeds that were recorded until then.
const SALT: u64 = 0x7e7e_0356;
const KEEP: Policy = Policy { age_ms_max: None, records_max: None, bytes_max: None };

/// What a seed lets go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    pub(crate) settings: RetentionSettings,
    /// Whether what goes is copied before. Only logs that cannot be overtaken are: those on a server have another way.
    pub(crate) archived: bool,
    /// Records that go together: a log lets whole units go.
    pub(crate) unit: u64,
    /// Whether there are receipts of a symbol that is not run.
    pub(crate) strangers: bool,
}

/// What this seed lets go, if anything.
pub(crate) fn keeping(seed: u64, is_remote: bool) -> Option<Keeping> {
    let mut dice = Rng::new(seed ^ SALT);
    if dice.next_below(2) == 1 {
        return None;
    }
    let mut policy = |records: u64| match dice.next_below(8) {
        0 => KEEP,
        1 => Policy { age_ms_max: Some(200 + dice.next_below(4000)), ..KEEP },
        2 => Policy { bytes_max: Some(300 + dice.next_below(4000)), ..KEEP },
        3 => Policy {
            age_ms_max: Some(dice.next_below(2000)),
            records_max: Some(dice.next_below(records)),
            ..KEEP
        },
        _ => Policy { records_max: Some(dice.next_below(records)), ..KEEP },
    };
    let limits =
        Limits { receipts: policy(20), runs: policy(12), quarantine: policy(3), receipts_below: None };
    let check_every = Duration::from_millis([60, 200, 500, 1200][dice.next_below(4) as usize]);
    Some(Keeping {
        settings: RetentionSettings { limits, check_every, step: 1 + dice.next_below(30) },
        archived: dice.next_below(2) == 0 && !is_remote,
        unit: [1, 1, 1, 4][dice.next_below(4) as usize],
        strangers: dice.next_below(4) == 0,
    })
}

/// What one trim does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OnTrim {
    Work,
    /// Works after this time.
    WorkAfter(Duration),
    /// Works, and answers after this time.
    AnswerAfter(Duration),
    /// Is not answered; it is done, or not.
    Unknown {
        done: bool,
    },
    /// Is half done, then fails.
    Part,
    /// Fails because the storage broke, as the next append finds too.
    Break,
    /// Ends the retention: before or after it is done.
    Panic {
        done: bool,
    },
}

impl OnTrim {
    pub(crate) fn draw(world: &World) -> Self {
        if !world.happens(2 * world.weather().log) {
            return Self::Work;
        }
        // Long enough at times for runs to be made and published meanwhile.
        let late = || Duration::from_millis(1 + world.below([100, 400, 2500][world.below(3) as usize]));
        let (what, act) = match world.below(12) {
            0..=1 => ("trim slow", Self::WorkAfter(late())),
            2..=3 => ("trim answered late", Self::AnswerAfter(late())),
            4..=5 => ("trim unknown, done", Self::Unknown { done: true }),
            6..=7 => ("trim unknown, not done", Self::Unknown { done: false }),
            8 => ("trim done in part", Self::Part),
            9 => ("trim breaks the storage", Self::Break),
            10 => ("retention ends before a trim", Self::Panic { done: false }),
            _ => ("retention ends after a trim", Self::Panic { done: true }),
        };
        if let Self::Panic { .. } = act {
            world.caused("retention");
        }
        world.saw(what);
        act
    }
}

/// What one save of the base does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnSave {
    Work,
    /// Saves, and says that it could not.
    AnswerLost,
    /// Ends the retention: before or after it is saved.
    Panic {
        done: bool,
    },
}

impl OnSave {
    pub(crate) fn draw(world: &World) -> Self {
        if !world.happens(world.weather().checkpoint / 4) {
            return Self::Work;
        }
        let (what, act) = match world.below(4) {
            0..=1 => ("base saved, answer lost", Self::AnswerLost),
            2 => ("retention ends before the base is saved", Self::Panic { done: false }),
            _ => ("retention ends after the base is saved", Self::Panic { done: true }),
        };
        if let Self::Panic { .. } = act {
            world.caused("retention");
        }
        world.saw(what);
        act
    }
}

/// Where the records of one log go.
pub(crate) struct SimArchive {
    role: Role,
    world: Arc<World>,
    log: Arc<FaultyLog>,
}

impl SimArchive {
    pub(crate) fn new(role: Role, world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self { role, world: Arc::clone(world), log: Arc::default() })
    }

    pub(crate) fn set_process(&self, crash: &CrashPoint) {
        self.log.set_crash(crash);
    }

    pub(crate) async fn records(&self) -> Vec<Vec<u8>> {
        self.log.records().await
    }

    /// Shows the audit what was copied since it looked last.
    pub(crate) async fn look(&self) {
        let seen = self.world.audit(|audit| Ok(audit.archived(self.role)));
        let limit = ReadLimit { records: usize::MAX, bytes: usize::MAX };
        let copied = self.log.read(Seq(seen + 1), limit).await.expect("the archive in memory");
        for (seq, payload) in copied.iter() {
            self.world.note(format_args!("{:?} {seq} is in the archive", self.role));
            self.world.audit(|audit| audit.copied(self.role, payload));
        }
    }

    fn draw(&self) -> OnAppend {
        let world = &self.world;
        if !world.happens(2 * world.weather().log) {
            return OnAppend::Work;
        }
        let (what, act) = match world.below(8) {
            0..=1 => ("archive slow", OnAppend::WorkAfter(Duration::from_millis(1 + world.below(300)))),
            2..=3 => ("archive without room", OnAppend::Full),
            4..=5 => ("copy unknown, done", OnAppend::Unknown { done: true }),
            6 => ("copy unknown, not done", OnAppend::Unknown { done: false }),
            _ => ("archive breaks", OnAppend::Poisoned),
        };
        world.saw(what);
        act
    }
}

#[async_trait]
impl Log for SimArchive {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.world.called().await;
        self.log.acquire().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        self.world.called().await;
        let act = self.draw();
        self.log.next([act]);
        let result = self.log.append(epoch, batch).await;
        let (first, count) = (batch.first_seq(), batch.len());
        self.world.note(format_args!("copy {:?} {first}+{count}: {act:?} gives {result:?}", self.role));
        self.look().await;
        result
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        self.log.prove_room(epoch, size).await
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        self.log.read(from, limit).await
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        self.world.violated(format!("the archive of {:?} is trimmed", self.role));
        self.log.trim(epoch, below).await
    }

    fn stat(&self) -> LogStat {
        self.log.stat()
    }
}
