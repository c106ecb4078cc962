//! Publisher: takes outputs from the run log to the fan-outs, in order. Failure domain: publish.
//!
//! The run log is the outbox. The cursor moves only behind what every fan-out has confirmed (OUT-2); whatever fails is
//! offered again from there, so a completed output cannot be lost. Blocked publishing pauses the schedule, never drops.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_kernel::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::contracts::orchestrator_event::{event_type, events};
use orchestrator_kernel::ids::{RunSeq, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError, SaveError};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError};
use orchestrator_kernel::ports::log::{Log, ReadLimit, RecordBatch};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::retry::RetrySchedule;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::address::answer;
use crate::fatal::{self, Fatal, FatalKind, NoAnswer};
use crate::flow::OutputFlow;
use crate::recovery;
use crate::run_log::Committed;
use crate::status::{Condition, StatusBoard};

/// What the publisher can be told.
pub enum PublisherMsg {
    /// There may be something to publish. Sent by its watcher of the run log, and by itself after each batch.
    Wake,
    /// Look whether a fan-out is held back, also when there is nothing to publish. Sent by itself.
    Look,
    /// The back-off is over. Sent by itself, once for each failure: a commit meanwhile does not cut it short.
    Retry,
    /// Publish what is committed, save the cursor, report. The reply comes when nothing waits any more.
    Drain(RpcReplyPort<()>),
}

/// The fan-outs, shared with the next incarnation of the publisher.
pub type FanOuts = Arc<Mutex<Vec<Box<dyn FanOut>>>>;

/// How far publishing has come in this process, for the next incarnation of the publisher: the saved cursor lags. Also
/// for the retention: what the publisher has not published yet, it has to read.
#[derive(Clone, Debug, Default)]
pub struct Reached(Arc<std::sync::Mutex<Cursor>>);

impl Reached {
    /// The last run record whose outputs are all published; none before the publisher's first start.
    pub(crate) fn run_seq(&self) -> RunSeq {
        self.cursor().run_seq
    }

    fn cursor(&self) -> std::sync::MutexGuard<'_, Cursor> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What the publisher needs; cloned for each start.
#[derive(Clone)]
pub struct PublisherArgs {
    /// The run log.
    pub runs: Arc<dyn Log>,
    /// Announces commits.
    pub committed: watch::Receiver<Committed>,
    /// Where outputs go, in this order.
    pub fan_outs: FanOuts,
    /// Where the cursor is saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Where an earlier incarnation ended.
    pub reached: Reached,
    /// Run records that are published together, at most.
    pub batch_max: usize,
    /// How failed publishing is tried again; when it is exhausted the service is degraded and keeps trying at `max`.
    pub retry: RetrySchedule,
    /// How long one attempt may take.
    pub attempt_max: Duration,
    /// Gives `published_ts_ms`; a driven clock gives none.
    pub clock: Arc<dyn Clock>,
    /// Counts outputs.
    pub flow: OutputFlow,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

/// How far publishing has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    /// The last run record whose outputs are all confirmed.
    pub(crate) run_seq: RunSeq,
    /// Outputs up to there.
    pub(crate) outputs: u64,
}

impl Cursor {
    fn to_bytes(self) -> Bytes {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend_from_slice(&self.run_seq.0.to_le_bytes());
        bytes.extend_from_slice(&self.outputs.to_le_bytes());
        bytes.into()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (run_seq, outputs) = bytes.split_first_chunk::<8>()?;
        let outputs = <[u8; 8]>::try_from(outputs).ok()?;
        Some(Self { run_seq: RunSeq(u64::from_le_bytes(*run_seq)), outputs: u64::from_le_bytes(outputs) })
    }
}

/// What the publisher remembers between messages. Rebuilt from the saved cursor and the run log by `pre_start`.
pub struct PublisherState {
    args: PublisherArgs,
    cursor: Cursor,
    /// Nothing when what is saved cannot be used.
    saved: Option<Cursor>,
    saved_at: Instant,
    attempts: u32,
    /// Per fan-out, how many messages after the cursor it has confirmed while another one has not.
    prefixes: Vec<usize>,
    /// Messages offered at a time: all of a batch, unless a fan-out did not confirm so many in time.
    part_max: usize,
    waiting: bool,
    blocked_seen: Instant,
    drain: Option<RpcReplyPort<()>>,
    _watcher: Watcher,
}

/// Turns commits into wake-ups; ends with its owner.
struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The actor.
pub struct Publisher;

pub(crate) const CURSOR: &str = "published";
/// How often the cursor is saved while publishing goes on. A crash repeats at most what was published since.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether a fan-out is held back.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Actor for Publisher {
    type Msg = PublisherMsg;
    type State = PublisherState;
    type Arguments = PublisherArgs;

    async fn pre_start(
        &self,
        me: ActorRef<PublisherMsg>,
        args: PublisherArgs,
    ) -> Result<PublisherState, ActorProcessingErr> {
        // Nothing goes before it is published.
        let base = recovery::base_or_again(args.checkpoints.as_ref()).await?;
        let gone = Cursor { run_seq: base.runs().tail(), outputs: base.runs().outputs() };
        let known = gone.max(*args.reached.cursor());
        let saved = match saved_cursor(args.checkpoints.as_ref()).await {
            Ok(saved) => Some(saved),
            // Published again is better than not published (OUT-1), and better than not started.
            Err(error @ LoadError::Damaged { .. }) => {
                let from = known.run_seq.next();
                tracing::warn!(
                    domain = "publish", %error, %from,
                    "the publish cursor is damaged: all outputs from this run record on are published again"
                );
                args.observer.observe(&Observation::CheckpointDamaged { name: CURSOR });
                None
            }
            Err(LoadError::Io(source)) => {
                return Err(NoAnswer { what: "cannot read the publish cursor", source }.into());
            }
        };
        let cursor = saved.unwrap_or_default().max(known);
        let tail = args.committed.borrow().tail;
        if tail < cursor.run_seq {
            let what = format!(
                "outputs up to run record {} were published, but the log of runs ends at {tail}: LOG_REGRESSED; restore the log",
                cursor.run_seq
            );
            return Err(Fatal::new(FatalKind::Corrupt, what).into());
        }
        *args.reached.cursor() = cursor;
        args.flow.set_published(cursor.outputs);
        args.observer.observe(&Observation::PublishBacklog { outputs: args.flow.backlog() });
        me.send_after(LOOK_EVERY, || PublisherMsg::Look);
        let mut committed = args.committed.clone();
        committed.mark_changed();
        let watcher = Watcher(tokio::spawn(async move {
            while committed.changed().await.is_ok() && me.cast(PublisherMsg::Wake).is_ok() {
                // Only the newest commit matters; what was skipped is read from the log.
                tokio::task::yield_now().await;
            }
        }));
        let now = Instant::now();
        Ok(PublisherState {
            args,
            cursor,
            saved,
            saved_at: now,
            attempts: 0,
            prefixes: Vec::new(),
            part_max: usize::MAX,
            waiting: false,
            blocked_seen: now,
            drain: None,
            _watcher: watcher,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<PublisherMsg>,
        message: PublisherMsg,
        state: &mut PublisherState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PublisherMsg::Wake => {}
            PublisherMsg::Look => {
                me.send_after(LOOK_EVERY, || PublisherMsg::Look);
            }
            PublisherMsg::Retry => state.waiting = false,
            PublisherMsg::Drain(reply) => state.drain = Some(reply),
        }
        state.go_on(&me).await
    }
}

impl PublisherState {
    /// Publishes one batch; comes back for the next by a message, so that a drain can come between.
    async fn go_on(&mut self, me: &ActorRef<PublisherMsg>) -> Result<(), ActorProcessingErr> {
        if self.is_held_back().await {
            self.observe_blocked();
            return Ok(());
        }
        if self.waiting {
            return Ok(());
        }
        let tail = self.args.committed.borrow().tail;
        if tail <= self.cursor.run_seq {
            return self.idle().await;
        }
        let batch = self.next_batch(tail).await?;
        let (messages, ended) = self.messages(&batch)?;
        let published = self.publish(&messages).await;
        let published = if mutant!(CursorOverAHole) { Ok(()) } else { published };
        match published {
            Ok(()) => {
                self.confirmed(&messages, batch.last().into(), ended);
                self.save_when_due().await?;
                me.cast(PublisherMsg::Wake)?;
            }
            // The broker began to block while these were on their way: nothing failed, and it is looked at again soon.
            Err(_) if self.is_held_back().await => self.observe_blocked(),
            Err(error) => self.failed(me, &error),
        }
        Ok(())
    }

    async fn idle(&mut self) -> Result<(), ActorProcessingErr> {
        if self.drain.is_some() || SAVE_EVERY <= self.saved_at.elapsed() {
            self.save().await?;
        }
        if let Some(reply) = self.drain.take() {
            answer(reply, ());
        }
        Ok(())
    }

    /// The records after the cursor: the last commit if it follows directly, otherwise read from the log. Never beyond
    /// the committed `tail`: a record can be in the log before its append was answered.
    async fn next_batch(&self, tail: RunSeq) -> Result<Arc<RecordBatch>, ActorProcessingErr> {
        let next = self.cursor.run_seq.next().into();
        let newest = Arc::clone(&self.args.committed.borrow().batch);
        if newest.first() == next && newest.len() <= self.args.batch_max {
            return Ok(newest);
        }
        let committed = usize::try_from(tail.0.saturating_sub(self.cursor.run_seq.0)).unwrap_or(usize::MAX);
        let limit = ReadLimit { records: self.args.batch_max.min(committed), ..ReadLimit::default() };
        let batch =
            self.args.runs.read(next, limit).await.map_err(|error| fatal::unless_passing("runs", error))?;
        Ok(Arc::new(batch))
    }

    /// The outputs of a batch of records, and when the last of their runs ended.
    fn messages(&self, batch: &RecordBatch) -> Result<(Vec<OutputMessage>, Option<TsMs>), Fatal> {
        let published = if self.args.clock.is_driven() { None } else { self.args.clock.now() };
        let mut messages = Vec::new();
        let mut latest: Option<TsMs> = None;
        for (seq, payload) in batch.iter() {
            let record =
                RunRecord::decode(payload).map_err(|error| Fatal::undecodable("runs", seq.0, error))?;
            let made = events(seq.into(), &record, published)
                .map_err(|error| Fatal::undecodable("runs", seq.0, error))?;
            messages.extend(made);
            latest = latest.max(ended_at(&record));
        }
        Ok((messages, latest))
    }

    /// Offers each fan-out what it has not confirmed yet of these messages.
    async fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError> {
        if messages.is_empty() {
            return Ok(());
        }
        let mut fan_outs = self.args.fan_outs.lock().await;
        self.prefixes.resize(fan_outs.len(), 0);
        for (fan_out, prefix) in fan_outs.iter_mut().zip(&mut self.prefixes) {
            while let Some(rest) = messages.get(*prefix..).filter(|rest| !rest.is_empty()) {
                let part = rest.get(..self.part_max).unwrap_or(rest);
                match tokio::time::timeout(self.args.attempt_max, fan_out.publish(part)).await {
                    Ok(Ok(())) => *prefix += part.len(),
                    Ok(Err(error)) => {
                        *prefix += error.confirmed + usize::from(mutant!(SkipsAnOutputOnError));
                        return Err(error);
                    }
                    Err(_) => {
                        // What it has confirmed of this is not known: with less at a time the cursor moves at all.
                        self.part_max = (part.len() / 2).max(1);
                        return Err(PublishError {
                            fan_out: fan_out.name().to_owned(),
                            detail: format!("not confirmed within {:?}", self.args.attempt_max),
                            confirmed: 0,
                        });
                    }
                }
            }
        }
        self.part_max = self.part_max.saturating_mul(2);
        self.prefixes.iter_mut().for_each(|prefix| *prefix = prefix.saturating_sub(messages.len()));
        Ok(())
    }

    /// Whether a fan-out says that it takes nothing now. Asking it to would only run into its time limit.
    async fn is_held_back(&self) -> bool {
        let fan_outs = self.args.fan_outs.lock().await;
        let reason = fan_outs.iter().find_map(|fan_out| fan_out.held_back());
        let board = &self.args.board;
        match reason {
            Some(reason) => {
                if board.raise(Condition::FanOutBlocked, reason.clone()) {
                    tracing::warn!(domain = "publish", reason, "publishing waits");
                }
                true
            }
            None => {
                if board.clear(&Condition::FanOutBlocked) {
                    tracing::info!(domain = "publish", "publishing goes on");
                }
                false
            }
        }
    }

    fn confirmed(&mut self, messages: &[OutputMessage], reached: RunSeq, ended: Option<TsMs>) {
        if let (Some(ended), Some(now)) =
            (ended, self.args.clock.now().filter(|_| !self.args.clock.is_driven()))
        {
            let seconds = (now.0 - ended.0).max(0) as f64 / 1e3;
            self.args.observer.observe(&Observation::PublishLatency { seconds });
        }
        self.cursor = Cursor { run_seq: reached, outputs: self.cursor.outputs + messages.len() as u64 };
        *self.args.reached.cursor() = self.cursor;
        self.args.flow.set_published(self.cursor.outputs);
        self.attempts = 0;
        if self.args.board.clear(&Condition::PublishDegraded) {
            tracing::info!(domain = "publish", "publishing works again");
        }
        let observer = &self.args.observer;
        for kind in event_type::ALL {
            let count = messages.iter().filter(|message| message.event_type == kind).count() as u64;
            if count > 0 {
                observer.observe(&Observation::OutputsPublished { event_type: kind, count });
            }
        }
        observer.observe(&Observation::PublishBacklog { outputs: self.args.flow.backlog() });
    }

    fn failed(&mut self, me: &ActorRef<PublisherMsg>, error: &PublishError) {
        self.attempts = self.attempts.saturating_add(1);
        self.observe_blocked();
        let exhausted = self.args.retry.delay_after(self.attempts).is_none();
        if exhausted && self.args.board.raise(Condition::PublishDegraded, error.to_string()) {
            tracing::error!(
                domain = "publish", error_kind = "publish_degraded", error_detail = %error, attempt = self.attempts,
                "publishing failed as often as configured; outputs are kept and tried on"
            );
        } else {
            tracing::warn!(domain = "publish", error_detail = %error, attempt = self.attempts, "publishing failed");
        }
        self.waiting = true;
        let delay = self.args.retry.unbounded_delay_after(self.attempts);
        me.send_after(delay, || PublisherMsg::Retry);
    }

    /// Reports what waits, and the time without progress since it was last reported.
    fn observe_blocked(&mut self) {
        let (flow, observer) = (&self.args.flow, &self.args.observer);
        let seconds = flow.blocked_for().min(self.blocked_seen.elapsed()).as_secs_f64();
        observer.observe(&Observation::PublishBlocked { seconds });
        observer.observe(&Observation::PublishBacklog { outputs: flow.backlog() });
        self.blocked_seen = Instant::now();
    }

    async fn save_when_due(&mut self) -> Result<(), Fatal> {
        if SAVE_EVERY <= self.saved_at.elapsed() { self.save().await } else { Ok(()) }
    }

    async fn save(&mut self) -> Result<(), Fatal> {
        self.saved_at = Instant::now();
        if self.saved == Some(self.cursor) {
            return Ok(());
        }
        let epoch = self.args.committed.borrow().epoch;
        match self.args.checkpoints.save(CURSOR, epoch, self.cursor.to_bytes()).await {
            Ok(()) => self.saved = Some(self.cursor),
            Err(fenced @ SaveError::Fenced { .. }) => {
                return Err(Fatal::new(
                    FatalKind::Fenced,
                    format!("cannot save the publish cursor: {fenced}"),
                ));
            }
            Err(SaveError::Io(error)) => {
                tracing::warn!(%error, "publish cursor not saved; a restart will publish again from the old one");
            }
        }
        Ok(())
    }
}

async fn saved_cursor(store: &dyn CheckpointStore) -> Result<Cursor, LoadError> {
    Ok(recovery::load(store, CURSOR, Cursor::from_bytes).await?.unwrap_or_default())
}

/// The last run record whose outputs are known to be all published.
pub(crate) async fn published(store: &dyn CheckpointStore) -> Result<RunSeq, LoadError> {
    Ok(saved_cursor(store).await?.run_seq)
}

fn ended_at(record: &RunRecord) -> Option<TsMs> {
    match &record.status {
        RunStatus::Started { .. } => None,
        RunStatus::Completed { completed_ts_ms, .. } | RunStatus::Failed { completed_ts_ms, .. } => {
            Some(*completed_ts_ms)
        }
    }
}
