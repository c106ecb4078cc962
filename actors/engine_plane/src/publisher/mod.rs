//! Publisher: takes outputs from the run log to the fan-outs, in order. Failure domain: publish.
//!
//! The run log is the outbox. The cursor moves only behind what every fan-out has confirmed (OUT-2); whatever fails is
//! offered again from there, so a completed output cannot be lost. Blocked publishing pauses the schedule, never drops.
//!
//! An output that a fan-out refuses for good holds its symbol there, and nothing else: `offer.rs` passes over what is
//! held, `held.rs` offers it again from the run log when it is told to.

mod acts;
mod held;
pub mod messages;
mod offer;
mod progress;

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::{event_type, events};
use orchestrator_kernel::engine::outbox::{Holds, PublishCursor, PublishProgress, Skips};
use orchestrator_kernel::ids::{RunSeq, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, SaveError};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError, Remedy};
use orchestrator_kernel::ports::log::{Log, LogName, ReadLimit, RecordBatch};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::retry::RetrySchedule;
use orchestrator_runtime::act_log::ActLog;
use orchestrator_runtime::address::send_reply;
use orchestrator_runtime::fatal::{self, Fatal, FatalKind};
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::flow::OutputFlow;
use crate::run_log::messages::Committed;
use offer::Offers;

use messages::{CURSOR, PublishedUpTo, PublisherMsg};

/// The fan-outs, shared with the next incarnation of the publisher.
pub type FanOuts = Arc<Mutex<Vec<Box<dyn FanOut>>>>;

/// Settings of the publisher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublisherSettings {
    /// Run records that are published together, at most.
    pub batch_max: usize,
    /// How failed publishing is tried again; when it is exhausted the service is degraded and keeps trying at `max`.
    pub retry: RetrySchedule,
    /// How long one attempt may take.
    pub attempt_max: Duration,
    /// Symbols that may be held because an output of theirs is refused for good; beyond it publishing waits.
    pub held_symbols_max: usize,
}

/// Settings and ports of the publisher; cloned for each start.
#[derive(Clone)]
pub struct PublisherArgs {
    /// How it is done.
    pub settings: PublisherSettings,
    /// The run log.
    pub runs: Arc<dyn Log>,
    /// Announces commits.
    pub committed: watch::Receiver<Committed>,
    /// Where outputs go, in this order.
    pub fan_outs: FanOuts,
    /// Where the cursor is saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Where operators' acts are recorded.
    pub act_log: ActLog,
    /// Where an earlier incarnation ended.
    pub reached: PublishedUpTo,
    /// Gives `published_ts_ms`; a driven clock gives none.
    pub clock: Arc<dyn Clock>,
    /// Counts outputs.
    pub flow: OutputFlow,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

/// Publisher state between two messages, rebuilt from the saved cursor and the run log by `pre_start`.
pub struct PublisherState {
    args: PublisherArgs,
    progress: PublishProgress,
    /// What an operator skipped.
    skips: Skips,
    /// Nothing when what is saved cannot be used.
    saved: Option<PublishProgress>,
    saved_at: Instant,
    attempts: u32,
    offers: Offers,
    /// The fan-out that failed last and has taken nothing since: only that it takes something ends the failure.
    failing: Option<String>,
    /// As many symbols are held as may be, and the batch in hand needs one place more.
    wants_room: bool,
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

impl Watcher {
    /// Wakes `me` at each commit, and once now: something may have been committed before.
    fn start_watching(me: ActorRef<PublisherMsg>, mut committed: watch::Receiver<Committed>) -> Self {
        committed.mark_changed();
        Self(tokio::spawn(async move {
            while committed.changed().await.is_ok() && me.cast(PublisherMsg::Wake).is_ok() {
                // Only the newest commit matters; what was skipped is read from the log.
                tokio::task::yield_now().await;
            }
        }))
    }
}

/// The actor.
pub struct Publisher;

/// How often the cursor is saved while publishing goes on. A crash repeats at most what was published since.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long a fan-out that does not answer may hold up a start; it is tried on afterwards.
const PREPARE_MAX: Duration = Duration::from_secs(5);
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
        let mut state = PublisherState::recover(&me, args).await?;
        me.send_after(LOOK_EVERY, || PublisherMsg::Look);
        state.forget_skipped();
        state.note_progress();
        state.show_held();
        // Before the service is ready: whoever sees it ready can bind.
        state.make_ready(&me, PREPARE_MAX).await;
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<PublisherMsg>,
        message: PublisherMsg,
        state: &mut PublisherState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PublisherMsg::Wake => state.publish_next(&me).await,
            PublisherMsg::Look => {
                me.send_after(LOOK_EVERY, || PublisherMsg::Look);
                state.show_held();
                state.publish_next(&me).await?;
                state.make_ready(&me, state.args.settings.attempt_max).await;
                Ok(())
            }
            PublisherMsg::Retry => {
                state.waiting = false;
                state.publish_next(&me).await
            }
            PublisherMsg::Decide(request, reply) => {
                send_reply(reply, state.carry_out_decision(&request).await);
                state.publish_next(&me).await
            }
            PublisherMsg::Drain(reply) => {
                state.drain = Some(reply);
                state.publish_next(&me).await
            }
        }
    }
}

impl PublisherState {
    /// Goes on from what is saved, and from what an earlier incarnation knew.
    async fn recover(me: &ActorRef<PublisherMsg>, args: PublisherArgs) -> Result<Self, ActorProcessingErr> {
        let (progress, saved) = progress::recover_progress(&args).await?;
        check_runs_reach(args.committed.borrow().tail, progress.cursor.run_seq)?;
        args.flow.set_published(progress.cursor.outputs);
        observe_held(args.observer.as_ref(), &progress.holds);
        args.observer.observe(&Observation::PublishBacklog { outputs: args.flow.waiting_outputs() });
        let offers = Offers::for_fan_outs(&args.fan_outs).await;
        let skips = acts::read_skips(&args.act_log).await;
        let skips = skips.map_err(|error| fatal::fatal_unless_io(LogName::Manifests, error))?;
        let now = Instant::now();
        Ok(Self {
            _watcher: Watcher::start_watching(me.clone(), args.committed.clone()),
            args,
            progress,
            skips,
            saved,
            saved_at: now,
            attempts: 0,
            offers,
            failing: None,
            wants_room: false,
            waiting: false,
            blocked_seen: now,
            drain: None,
        })
    }

    /// Publishes one batch, and one page of what waits and is offered again; comes back for the next by a message, so
    /// that a drain can come between.
    async fn publish_next(&mut self, me: &ActorRef<PublisherMsg>) -> Result<(), ActorProcessingErr> {
        if self.is_held_back().await {
            self.observe_blocked();
            return Ok(());
        }
        if self.waiting {
            return Ok(());
        }
        let is_behind = self.is_behind() && !self.makes_room();
        let mut published = if is_behind { self.publish_batch().await? } else { Ok(()) };
        let mut offered_again = false;
        // What is offered again is left to the next start when the service stops.
        if published.is_ok() && self.drain.is_none() {
            match self.offer_held_page().await? {
                None => {}
                Some(offered) => (offered_again, published) = (true, offered),
            }
        }
        match published {
            Ok(()) if is_behind || offered_again => {
                self.save_when_due().await?;
                me.cast(PublisherMsg::Wake)?;
            }
            Ok(()) => self.finish_idle().await?,
            // The broker began to block while these were on their way: nothing failed, and it is looked at again soon.
            Err(_) if self.is_held_back().await => self.observe_blocked(),
            Err(error) => self.note_failure(me, &error),
        }
        Ok(())
    }

    /// Whether outputs were not offered yet.
    fn is_behind(&self) -> bool {
        self.progress.cursor.run_seq < self.args.committed.borrow().tail
    }

    async fn publish_batch(&mut self) -> Result<Result<(), PublishError>, ActorProcessingErr> {
        let tail = self.args.committed.borrow().tail;
        let batch = self.next_batch(tail).await?;
        let (messages, ended) = self.messages_of_batch(&batch, |_| true)?;
        let published = self.offer_messages(&messages).await;
        let published = if mutant!(CursorOverAHole) { Ok(()) } else { published };
        if published.is_ok() {
            self.take_confirmed(&messages, batch.last_seq().into(), ended);
        }
        Ok(published)
    }

    async fn finish_idle(&mut self) -> Result<(), ActorProcessingErr> {
        if self.drain.is_some() || SAVE_EVERY <= self.saved_at.elapsed() {
            self.save_progress().await?;
        }
        if let Some(reply) = self.drain.take() {
            send_reply(reply, ());
        }
        Ok(())
    }

    /// Lets each fan-out make ready while nothing is to be published: subscribers can bind before the first output, and
    /// what stands in the way there is told before it holds anything up.
    async fn make_ready(&mut self, me: &ActorRef<PublisherMsg>, limit: Duration) {
        if self.waiting || self.drain.is_some() || self.is_held_back().await {
            return;
        }
        match self.prepare_fan_outs(limit).await {
            Ok(()) if self.is_behind() => {}
            Ok(()) => {
                self.failing = None;
                self.note_working();
            }
            Err(error) => self.note_failure(me, &error),
        }
    }

    /// The records after the cursor: the last commit if it follows directly, otherwise read from the log. Never beyond
    /// the committed `tail`: a record can be in the log before its append was answered.
    async fn next_batch(&self, tail: RunSeq) -> Result<Arc<RecordBatch>, ActorProcessingErr> {
        let next = self.progress.cursor.run_seq.next();
        let newest = Arc::clone(&self.args.committed.borrow().batch);
        if newest.first_seq() == next.into() && newest.len() <= self.args.settings.batch_max {
            return Ok(newest);
        }
        Ok(Arc::new(self.read_runs(next, tail).await?))
    }

    /// Run records from `first` on, as many as are published together, and not beyond `last`.
    async fn read_runs(&self, first: RunSeq, last: RunSeq) -> Result<RecordBatch, ActorProcessingErr> {
        let count = usize::try_from((last.0 + 1).saturating_sub(first.0)).unwrap_or(usize::MAX);
        let limit = ReadLimit { records: self.args.settings.batch_max.min(count), ..ReadLimit::default() };
        self.args
            .runs
            .read(first.into(), limit)
            .await
            .map_err(|error| fatal::fatal_unless_io(LogName::Runs, error))
    }

    /// The outputs of the wanted records of a batch, and when the last of their runs ended.
    fn messages_of_batch(
        &self,
        batch: &RecordBatch,
        is_wanted: impl Fn(&RunRecord) -> bool,
    ) -> Result<(Vec<OutputMessage>, Option<TsMs>), Fatal> {
        let published = if self.args.clock.is_driven() { None } else { self.args.clock.now() };
        let mut messages = Vec::new();
        let mut latest: Option<TsMs> = None;
        for (seq, payload) in batch.iter() {
            let record = RunRecord::decode(payload)
                .map_err(|error| Fatal::undecodable_record(LogName::Runs, seq.0, error))?;
            if !is_wanted(&record) {
                continue;
            }
            let made = events(seq.into(), &record, published)
                .map_err(|error| Fatal::undecodable_record(LogName::Runs, seq.0, error))?;
            messages.extend(made);
            latest = latest.max(ended_at(&record));
        }
        Ok((messages, latest))
    }

    /// Whether a fan-out says that it takes nothing now. Asking it to would only run into its time limit.
    async fn is_held_back(&self) -> bool {
        let fan_outs = self.args.fan_outs.lock().await;
        let reason = fan_outs.iter().find_map(|fan_out| fan_out.held_back());
        let board = &self.args.board;
        match reason {
            Some(reason) => {
                if board.raise_condition(Condition::FanOutBlocked, reason.clone()) {
                    tracing::warn!(domain = "publish", reason, "publishing waits");
                }
                true
            }
            // It is asked, and what it confirms is the proof.
            None if fan_outs.iter().any(|fan_out| fan_out.is_in_doubt()) => false,
            None => {
                if board.clear_condition(&Condition::FanOutBlocked) {
                    tracing::info!(domain = "publish", "publishing goes on");
                }
                false
            }
        }
    }

    fn take_confirmed(&mut self, messages: &[OutputMessage], reached: RunSeq, ended: Option<TsMs>) {
        if let (Some(ended), Some(now)) =
            (ended, self.args.clock.now().filter(|_| !self.args.clock.is_driven()))
        {
            let seconds = (now.0 - ended.0).max(0) as f64 / 1e3;
            self.args.observer.observe(&Observation::PublishLatency { seconds });
        }
        let outputs = self.progress.cursor.outputs + messages.len() as u64;
        self.progress.cursor = PublishCursor { run_seq: reached, outputs };
        messages.iter().for_each(|message| self.progress.holds.pass_output(message));
        self.note_progress();
        self.note_working();
        self.args.flow.set_published(outputs);
        self.count_outputs(messages);
        self.args
            .observer
            .observe(&Observation::PublishBacklog { outputs: self.args.flow.waiting_outputs() });
    }

    /// Counts outputs that were dealt with: those that wait are counted as held, not here.
    fn count_outputs(&self, messages: &[OutputMessage]) {
        let (observer, holds) = (&self.args.observer, &self.progress.holds);
        // First: what was held until now is for a moment behind, never gone twice.
        observe_held(observer.as_ref(), holds);
        let done = |message: &&OutputMessage| !holds.holds_back(message);
        let is_skipped = |message: &&OutputMessage| {
            !self.skips.is_empty() && self.skips.covers_anywhere(&message.symbol, message.symbol_seq)
        };
        for kind in event_type::ALL {
            let published = messages.iter().filter(|message| message.event_type == kind).filter(done);
            let count = published.filter(|message| !is_skipped(message)).count() as u64;
            if count > 0 {
                observer.observe(&Observation::OutputsPublished { event_type: kind, count });
            }
        }
        let skipped = messages.iter().filter(done).filter(is_skipped).count() as u64;
        if skipped > 0 {
            observer.observe(&Observation::OutputsSkipped { count: skipped });
        }
    }

    /// Publishing works again, once the fan-out that failed has taken something.
    fn note_working(&mut self) {
        if self.failing.is_some() {
            return;
        }
        self.attempts = 0;
        if self.args.board.clear_condition(&Condition::PublishDegraded) {
            tracing::info!(domain = "publish", "publishing works again");
        }
    }

    fn note_failure(&mut self, me: &ActorRef<PublisherMsg>, error: &PublishError) {
        self.attempts = self.attempts.saturating_add(1);
        self.failing = Some(error.fan_out.clone());
        self.observe_blocked();
        let exhausted =
            self.args.settings.retry.delay_after(self.attempts).is_none() || error.remedy == Remedy::Operator;
        if exhausted && self.args.board.raise_condition(Condition::PublishDegraded, error.to_string()) {
            tracing::error!(
                domain = "publish", error_kind = "publish_degraded", error_detail = %error, attempt = self.attempts,
                "publishing failed for a reason that an operator has to mend, or as often as configured; outputs are kept \
                 and tried on"
            );
        } else {
            tracing::warn!(domain = "publish", error_detail = %error, attempt = self.attempts, "publishing failed");
        }
        self.waiting = true;
        let delay = self.args.settings.retry.unbounded_delay_after(self.attempts);
        me.send_after(delay, || PublisherMsg::Retry);
    }

    /// Reports what waits, and the time without progress since it was last reported.
    fn observe_blocked(&mut self) {
        let (flow, observer) = (&self.args.flow, &self.args.observer);
        let seconds = flow.blocked_for().min(self.blocked_seen.elapsed()).as_secs_f64();
        observer.observe(&Observation::PublishBlocked { seconds });
        observer.observe(&Observation::PublishBacklog { outputs: flow.waiting_outputs() });
        self.blocked_seen = Instant::now();
    }

    async fn save_when_due(&mut self) -> Result<(), Fatal> {
        if SAVE_EVERY <= self.saved_at.elapsed() { self.save_progress().await } else { Ok(()) }
    }

    async fn save_progress(&mut self) -> Result<(), Fatal> {
        self.saved_at = Instant::now();
        if self.saved.as_ref() == Some(&self.progress) {
            return Ok(());
        }
        let epoch = self.args.committed.borrow().epoch;
        match self.args.checkpoints.save(CURSOR, epoch, self.progress.encode().into()).await {
            Ok(()) => self.saved = Some(self.progress.clone()),
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

/// A run log that ends before what was published from it has lost records.
fn check_runs_reach(tail: RunSeq, published: RunSeq) -> Result<(), Fatal> {
    if published <= tail {
        return Ok(());
    }
    let what = format!(
        "outputs up to run record {published} were published, but the log of runs ends at {tail}: LOG_REGRESSED; restore \
         the log"
    );
    Err(Fatal::new(FatalKind::Corrupt, what))
}

fn observe_held(observer: &dyn Observer, holds: &Holds) {
    let (outputs, symbols) = (holds.waiting_outputs(), holds.symbol_count() as u64);
    observer.observe(&Observation::OutputsHeld { outputs, symbols });
}

fn ended_at(record: &RunRecord) -> Option<TsMs> {
    match &record.status {
        RunStatus::Started { .. } => None,
        RunStatus::Completed { completed_ts_ms, .. } | RunStatus::Failed { completed_ts_ms, .. } => {
            Some(*completed_ts_ms)
        }
    }
}
