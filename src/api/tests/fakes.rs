//! The neighbours of the interface: an intake, a buffer, a clock, and a run log that counts its reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_engine_plane::buffer::messages::BufferMsg;
use orchestrator_engine_plane::run_log::messages::Committed;
use orchestrator_kernel::engine::contracts::engine_run::{CutRange, RunFacts, RunRecord, RunStatus};
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{
    CutKind, EngineMode, Epoch, IngestSeq, LogIdentity, Origin, RunSeq, Seq, Symbol, TsMs,
};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::engine::{EngineAnswer, EngineIdentity};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use orchestrator_kernel::ports::log_memory::MemoryLog;
use orchestrator_kernel::ports::source::{Intake, ItemFate, RawItem, ResumeAt, Settlement, TurnedAway};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    #[default]
    Works,
    Refuses,
    IsBusy,
    IsClosed,
    Hangs,
}

/// The largest receipt that the fake takes for one.
const RECEIPT_BYTES_MAX: usize = 60;

/// Keeps what it gets, and numbers like the real log: what is known is a duplicate, what skips is a gap.
#[derive(Default)]
pub(super) struct FakeIntake {
    pub(super) mood: Mutex<Mood>,
    stored: Mutex<Vec<(Origin, RawItem)>>,
    settled: Mutex<BTreeMap<Origin, u64>>,
    waiting: AtomicUsize,
}

impl FakeIntake {
    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(super) fn stored(&self) -> Vec<(Origin, RawItem)> {
        self.stored.lock().unwrap().clone()
    }

    pub(super) fn bytes(&self) -> Vec<Bytes> {
        self.stored().into_iter().map(|(_, item)| item.bytes).collect()
    }

    /// Batches that hang.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn settled(&self, origin: &Origin) -> u64 {
        self.settled.lock().unwrap().get(origin).copied().unwrap_or(0)
    }

    fn take(&self, origin: Origin, items: Vec<RawItem>) -> Settlement {
        let settled = self.settled(&origin);
        if items.first().and_then(|item| item.position).is_some_and(|first| settled + 1 < first) {
            return Settlement::Gap { expected: settled + 1 };
        }
        let fates = items.into_iter().map(|item| match item.position {
            Some(position) if position <= settled => ItemFate::Duplicate,
            position => {
                if let Some(position) = position {
                    self.settled.lock().unwrap().insert(origin.clone(), position);
                }
                let fate = match (item.bytes.len(), item.bytes.first()) {
                    (bytes, _) if RECEIPT_BYTES_MAX < bytes => {
                        ItemFate::Quarantined(format!("{bytes} bytes"))
                    }
                    (_, Some(b'{')) => ItemFate::Appended,
                    (_, _) => ItemFate::Quarantined("no object".to_owned()),
                };
                self.stored.lock().unwrap().push((origin.clone(), item));
                fate
            }
        });
        Settlement::Durable(fates.collect())
    }
}

#[async_trait]
impl Intake for FakeIntake {
    fn origin_of_producer(&self, producer: Option<&str>) -> Origin {
        Origin::from(producer.map_or("http".to_owned(), |producer| format!("http:{producer}")).as_str())
    }

    async fn submit_items(&self, origin: Origin, items: Vec<RawItem>) -> Result<Settlement, TurnedAway> {
        let retry_after = Duration::from_millis(1500);
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Works => Ok(self.take(origin, items)),
            Mood::Refuses => Ok(Settlement::Refused { reason: "log is full".to_owned(), retry_after_ms: 0 }),
            Mood::IsBusy => Err(TurnedAway::Busy { retry_after }),
            Mood::IsClosed => Err(TurnedAway::Closed { retry_after }),
            Mood::Hangs => {
                self.waiting.fetch_add(1, Ordering::Relaxed);
                std::future::pending().await
            }
        }
    }
}

/// Answers `Resume` with what the intake has settled.
pub(super) struct FakeBuffer;

impl FakeBuffer {
    pub(super) async fn spawn(intake: Arc<FakeIntake>) -> ActorRef<BufferMsg> {
        Actor::spawn(None, Self, intake).await.unwrap().0
    }
}

impl Actor for FakeBuffer {
    type Msg = BufferMsg;
    type State = Arc<FakeIntake>;
    type Arguments = Arc<FakeIntake>;

    async fn pre_start(
        &self,
        _: ActorRef<BufferMsg>,
        intake: Arc<FakeIntake>,
    ) -> Result<Arc<FakeIntake>, ActorProcessingErr> {
        Ok(intake)
    }

    async fn handle(
        &self,
        _: ActorRef<BufferMsg>,
        message: BufferMsg,
        intake: &mut Arc<FakeIntake>,
    ) -> Result<(), ActorProcessingErr> {
        if let BufferMsg::Resume(origin, reply) = message {
            reply.send(ResumeAt { position: intake.settled(&origin), ingest_ts_ms: None })?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
pub(super) struct FakeClock {
    pub(super) now: TsMs,
    pub(super) is_driven: bool,
}

#[async_trait]
impl Clock for FakeClock {
    fn now(&self) -> Option<TsMs> {
        Some(self.now)
    }

    async fn wait_started(&self) -> TsMs {
        self.now
    }

    async fn sleep_until(&self, _: TsMs) {
        std::future::pending().await
    }

    fn armed_deadline(&self) -> Option<TsMs> {
        None
    }

    fn is_driven(&self) -> bool {
        self.is_driven
    }

    async fn advance(&self, _: TsMs) {}
}

/// A run log in memory that announces its commits and counts its reads.
pub(super) struct Runs {
    log: MemoryLog,
    epoch: Epoch,
    pub(super) committed: watch::Sender<Committed>,
    pub(super) reads: AtomicUsize,
    /// Which log it is; none at first.
    pub(super) identity: Mutex<Option<LogIdentity>>,
}

impl Runs {
    pub(super) async fn new() -> Self {
        let log = MemoryLog::default();
        let epoch = log.acquire().await.unwrap().epoch;
        let (committed, reads) = (watch::Sender::default(), AtomicUsize::new(0));
        Self { log, epoch, committed, reads, identity: Mutex::new(None) }
    }

    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// Commits records together.
    pub(super) async fn commit(&self, records: &[RunRecord]) {
        let mut batch = RecordBatch::starting_at(self.log.stat().tail.next());
        for record in records {
            batch.push_with(|bytes| record.encode_to(bytes));
        }
        self.commit_batch(batch).await;
    }

    pub(super) async fn commit_batch(&self, batch: RecordBatch) {
        self.log.append(self.epoch, &batch).await.unwrap();
        let tail = RunSeq(batch.last_seq().0);
        self.committed.send_replace(Committed { tail, batch: Arc::new(batch), epoch: self.epoch });
    }

    /// Removes what is below `below`.
    pub(super) async fn trim(&self, below: u64) {
        self.log.trim(self.epoch, Seq(below)).await.unwrap();
    }

    /// Commits a run of two records and two or three outputs.
    pub(super) async fn run(&self, symbol: &str, end: End) {
        self.commit(&[record(symbol, End::Not), record(symbol, end)]).await;
    }
}

#[async_trait]
impl Log for Runs {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.log.acquire().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        self.log.append(epoch, batch).await
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        self.log.prove_room(epoch, size).await
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.log.read(from, limit).await
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        self.log.trim(epoch, below).await
    }

    fn stat(&self) -> LogStat {
        self.log.stat()
    }

    fn identity(&self) -> Option<LogIdentity> {
        *self.identity.lock().unwrap()
    }
}

/// How a run of the tests ends.
#[derive(Clone, Copy)]
pub(super) enum End {
    Not,
    Truth,
    /// A truth whose output has this many bytes.
    Large(usize),
    Hysteresis,
    Failed,
}

pub(super) fn record(symbol: &str, end: End) -> RunRecord {
    let (attempts, answered, completed_ts_ms) = (1, 1, TsMs(2));
    let completed = |answer| RunStatus::Completed {
        attempts,
        answered,
        completed_ts_ms,
        answer,
        engine: EngineIdentity::default(),
    };
    let status = match end {
        End::Not => RunStatus::Started { attempts },
        End::Truth => completed(EngineAnswer::Truth { regime_output: "{\"regime\":\n1}".to_owned() }),
        End::Large(bytes) => {
            completed(EngineAnswer::Truth { regime_output: format!("\"{}\"", "x".repeat(bytes)) })
        }
        End::Hysteresis => completed(EngineAnswer::Hysteresis {
            decision: "{\"selected_output\":{\"regime\":2}}".to_owned(),
            state: "{}".to_owned(),
        }),
        End::Failed => RunStatus::Failed {
            attempts,
            answered,
            completed_ts_ms,
            error_kind: ErrorKind::EngineFailure,
            error_detail: "broken".to_owned(),
        },
    };
    let symbol = Symbol::from(symbol);
    let run_id = RunId::derive(&symbol, TsMs(1), IngestSeq(1), EngineMode::Truth);
    RunRecord {
        facts: RunFacts {
            run_id,
            symbol,
            engine_timestamp_ms: TsMs(1),
            engine_mode: EngineMode::Truth,
            cut: CutRange { kind: CutKind::Timer, start: IngestSeq(1), end: IngestSeq(1) },
            planned_ts_ms: TsMs(1),
            started_ts_ms: TsMs(1),
            snapshot_seq: None,
            counts_by_event_type: BTreeMap::new(),
            symbol_seq: 1,
        },
        status,
    }
}
