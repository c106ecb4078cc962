//! RunLog: the only writer of the run log. Failure domain: engine; its death is the tree's.
//!
//! Runners ask it to record what they do and wait until that is durable (RUN-1). It refuses what would break the
//! order of runs, and tells the publisher what was committed. One batch is in flight; what comes meanwhile is the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::outputs_of;
use orchestrator_kernel::engine::lockstep_order::{Last, Round};
use orchestrator_kernel::engine::run::{RunIndex, SymbolRuns};
use orchestrator_kernel::ids::{RunSeq, Seq, Symbol, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::{AppendError, BatchSize, Log, RecordBatch};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_runtime::address::answer;
use orchestrator_runtime::checkpoint;
use orchestrator_runtime::fatal::Fatal;
use orchestrator_runtime::group_commit::{BatchLimits, GroupCommit, Landed, Unanswered};
use orchestrator_runtime::log_health::{LogHealth, Trouble};
use orchestrator_runtime::patient_log::PatientLog;
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;

use crate::flow::OutputFlow;
use crate::recovery;

pub mod messages;

use messages::{Committed, Overview, RecordRefused, RunLogMsg, Waiting};

/// Settings and ports of the run log; cloned for each start.
#[derive(Clone)]
pub struct RunLogArgs {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where the index is saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Records between two checkpoints.
    pub checkpoint_every: u64,
    /// Bounds of a batch.
    pub limits: BatchLimits,
    /// How long after an unanswered attempt a batch is sent again.
    pub resend_after: Duration,
    /// How often an idle log is asked whether it is still there and ours; `None` for a log that cannot go away.
    pub probe_every: Option<Duration>,
    /// How long after a refusal for want of room the log is asked whether there is some.
    pub reopen_after: Duration,
    /// Where commits are announced.
    pub committed: Arc<watch::Sender<Committed>>,
    /// Counts outputs.
    pub flow: OutputFlow,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

/// Run log state between two messages, rebuilt from the log by `pre_start`.
pub struct RunLogState {
    args: RunLogArgs,
    index: RunIndex,
    commit: GroupCommit<Waiting>,
    health: LogHealth,
    round: Round<Waiting>,
    /// Records on their way to the log, by symbol.
    under_way: BTreeMap<Symbol, u32>,
    /// Runners that wait until nothing of their symbol is under way.
    asked: Vec<(Symbol, RpcReplyPort<SymbolRuns>)>,
    flush_queued: bool,
    /// The next sequence when it was last looked whether more records are coming, and how often it was looked.
    collected: Seq,
    looks: u32,
    probe_queued: bool,
    saved_at: RunSeq,
    drain: Option<RpcReplyPort<()>>,
}

/// The actor.
pub struct RunLog;

impl Actor for RunLog {
    type Msg = RunLogMsg;
    type State = RunLogState;
    type Arguments = RunLogArgs;

    async fn pre_start(
        &self,
        me: ActorRef<RunLogMsg>,
        args: RunLogArgs,
    ) -> Result<RunLogState, ActorProcessingErr> {
        let acquired = args.log.acquire().await.map_err(|error| Fatal::acquire(LOG, error))?;
        let readable = PatientLog::new(Arc::clone(&args.log), LOG, args.probe_every);
        let saved = checkpoint::Saved { store: args.checkpoints.as_ref(), observer: args.observer.as_ref() };
        let index = recovery::run_index(&readable, saved, acquired.tail).await?;
        let health = LogHealth::new(Condition::RunLogFailing, args.board.clone(), Arc::clone(&args.observer));
        let told = health.clone();
        let unanswered: Unanswered =
            Arc::new(move |error| told.failed(LOG, Trouble::NoAnswer, &error.to_string()));
        let log = Arc::clone(&args.log);
        let commit = GroupCommit::new(log, acquired, args.limits, args.resend_after, unanswered);
        args.flow.set_made(index.outputs());
        args.committed.send_replace(Committed {
            tail: index.tail(),
            batch: Arc::default(),
            epoch: acquired.epoch,
        });
        let saved_at = index.tail();
        let mut state = RunLogState {
            args,
            index,
            commit,
            health,
            round: Round::default(),
            under_way: BTreeMap::new(),
            asked: Vec::new(),
            flush_queued: false,
            collected: Seq(0),
            looks: 0,
            probe_queued: false,
            saved_at,
            drain: None,
        };
        state.probe_later(&me);
        Ok(state)
    }

    async fn handle(
        &self,
        me: ActorRef<RunLogMsg>,
        message: RunLogMsg,
        state: &mut RunLogState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RunLogMsg::Record { record, reply } => state.record(&me, Waiting { record, reply }),
            RunLogMsg::OpenRound(members) => {
                let released = state.round.open(members);
                state.push(&me, released);
            }
            RunLogMsg::Withdraw(symbol) => {
                let released = state.round.withdraw(&symbol);
                state.push(&me, released);
            }
            RunLogMsg::Symbol(symbol, reply) => {
                state.asked.push((symbol, reply));
                state.answer_asked();
            }
            RunLogMsg::Overview(reply) => answer(reply, state.overview()),
            RunLogMsg::Flush => state.collect(&me).await,
            RunLogMsg::Flushed(landed) => state.flushed(&me, landed)?,
            RunLogMsg::Probe => state.probe(&me),
            RunLogMsg::Drain(reply) => state.drain = Some(reply),
        }
        if state.commit.is_idle() {
            state.finish_drain().await;
        }
        Ok(())
    }
}

/// How often at most it is looked whether more records are coming before a commit begins. Each look costs about a
/// microsecond, a commit a hundred and more.
const LOOKS_MAX: u32 = 4;
/// The log's name in errors and metrics.
const LOG: &str = "runs";
/// The checkpoint's name.
pub(crate) const CHECKPOINT: &str = "runs";

impl RunLogState {
    fn record(&mut self, me: &ActorRef<RunLogMsg>, waiting: Waiting) {
        if let Err(violation) = self.index.check(&waiting.record) {
            return answer(waiting.reply, Err(violation.into()));
        }
        let waiting = if mutant!(CallsBeforeStarted) { answered_early(waiting) } else { waiting };
        let last = if waiting.record.is_terminal() { Last::Yes } else { Last::No };
        let symbol = waiting.record.facts.symbol.clone();
        *self.under_way.entry(symbol.clone()).or_default() += 1;
        let released = self.round.submit(&symbol, waiting, last);
        self.push(me, released);
    }

    fn push(&mut self, me: &ActorRef<RunLogMsg>, released: Vec<Waiting>) {
        for waiting in released {
            if mutant!(PublishesBeforeDurable) {
                self.announce_early(&waiting.record);
            }
            self.commit.push(|bytes| waiting.record.encode_to(bytes));
            self.commit.wait(waiting);
        }
        if !self.commit.is_idle() && !self.flush_queued {
            self.flush_queued = me.cast(RunLogMsg::Flush).is_ok();
        }
    }

    /// Appends what has been collected, once no more is coming: in a burst of all symbols at one instant the first
    /// record would otherwise have a commit of its own, and all others would wait for it.
    async fn collect(&mut self, me: &ActorRef<RunLogMsg>) {
        if self.collected != self.commit.next() && self.looks < LOOKS_MAX {
            self.collected = self.commit.next();
            self.looks += 1;
            // Lets the runners that are ready go first; their records are then before us in the mailbox.
            tokio::task::yield_now().await;
            self.flush_queued = me.cast(RunLogMsg::Flush).is_ok();
            return;
        }
        self.flush_queued = false;
        self.looks = 0;
        self.flush(me);
    }

    /// What a mutant does: tells the publisher of a record that is not in the log yet.
    fn announce_early(&self, record: &RunRecord) {
        let mut batch = RecordBatch::starting_at(self.commit.next());
        batch.push_with(|bytes| record.encode_to(bytes));
        let tail = batch.last().into();
        self.args.committed.send_replace(Committed {
            tail,
            batch: Arc::new(batch),
            epoch: self.commit.epoch(),
        });
    }

    fn flush(&mut self, me: &ActorRef<RunLogMsg>) {
        if let Some(append) = self.commit.begin() {
            let me = me.clone();
            tokio::spawn(async move {
                let landed = append.await;
                if me.cast(RunLogMsg::Flushed(landed)).is_err() {
                    tracing::debug!("run log ended before its last batch landed");
                }
            });
        }
    }

    /// Sees to it that a probe comes, when the log can go away or has no room; one is on its way at a time.
    fn probe_later(&mut self, me: &ActorRef<RunLogMsg>) {
        let wanted_after = (!self.commit.has_room()).then_some(self.args.reopen_after);
        if let Some(after) = self.args.probe_every.or(wanted_after)
            && !self.probe_queued
        {
            self.probe_queued = true;
            me.send_after(after, || RunLogMsg::Probe);
        }
    }

    fn probe(&mut self, me: &ActorRef<RunLogMsg>) {
        self.probe_queued = false;
        if self.args.probe_every.is_some() || !self.commit.has_room() {
            self.commit.probe();
            self.flush(me);
        }
        self.probe_later(me);
    }

    fn flushed(&mut self, me: &ActorRef<RunLogMsg>, landed: Landed<Waiting>) -> Result<(), Fatal> {
        let size = landed.size();
        match landed.result {
            Ok(()) if landed.batch.is_empty() => {
                self.commit.landed(true, landed.batch.last(), size);
                self.health.answered(LOG, self.commit.has_room());
            }
            Ok(()) => self.committed(&landed.batch, landed.waiters)?,
            Err(AppendError::Full { detail }) => {
                match landed.proved {
                    None => {
                        self.health.failed(LOG, Trouble::NoRoom, &detail);
                        self.no_room(landed.waiters, size, &detail);
                    }
                    Some(_) => {
                        self.health.note(LOG, Trouble::NoRoom, &detail);
                        self.commit.not_proved();
                    }
                }
                self.probe_later(me);
            }
            Err(error) => {
                self.health.failed(LOG, Trouble::NoRoom, &error.to_string());
                return Err(Fatal::append(LOG, error));
            }
        }
        self.flush(me);
        Ok(())
    }

    fn committed(&mut self, batch: &Arc<RecordBatch>, waiters: Vec<Waiting>) -> Result<(), Fatal> {
        self.commit.landed(true, batch.last(), BatchSize::of(batch));
        for waiting in &waiters {
            let seq = self.index.tail().next().0;
            self.index.admit(&waiting.record).map_err(|error| Fatal::undecodable(LOG, seq, error))?;
        }
        // Told before the publisher knows of them: outputs are never confirmed before they are due.
        waiters.iter().for_each(|waiting| self.observe_recorded(&waiting.record));
        self.args.flow.set_made(self.index.outputs());
        self.args.committed.send_replace(Committed {
            tail: self.index.tail(),
            batch: Arc::clone(batch),
            epoch: self.commit.epoch(),
        });
        self.health.answered(LOG, self.commit.has_room());
        for (waiting, seq) in waiters.into_iter().zip(batch.first().0..) {
            self.arrived(&waiting.record.facts.symbol);
            answer(waiting.reply, Ok(RunSeq(seq)));
        }
        self.answer_asked();
        self.save_when_due();
        Ok(())
    }

    fn observe_recorded(&self, record: &RunRecord) {
        let observation = match &record.status {
            RunStatus::Started { attempts } if *attempts <= 1 => Observation::RunStarted,
            RunStatus::Started { .. } => return,
            RunStatus::Completed { completed_ts_ms, .. } => Observation::RunEnded {
                error: None,
                seconds: seconds_between(record.facts.started_ts_ms, *completed_ts_ms),
                outputs: outputs_of(record),
            },
            RunStatus::Failed { completed_ts_ms, error_kind, .. } => Observation::RunEnded {
                error: Some(*error_kind),
                seconds: seconds_between(record.facts.started_ts_ms, *completed_ts_ms),
                outputs: outputs_of(record),
            },
        };
        self.args.observer.observe(&observation);
    }

    fn no_room(&mut self, waiters: Vec<Waiting>, size: BatchSize, detail: &str) {
        let given_up = self.commit.landed(false, self.index.tail().into(), size);
        for waiting in waiters.into_iter().chain(given_up) {
            self.arrived(&waiting.record.facts.symbol);
            answer(waiting.reply, Err(RecordRefused::Full(detail.to_owned())));
        }
        self.answer_asked();
    }

    /// A record of this symbol is no longer under way.
    fn arrived(&mut self, symbol: &Symbol) {
        match self.under_way.get_mut(symbol) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(self.under_way.remove(symbol)),
        }
    }

    fn answer_asked(&mut self) {
        for (symbol, reply) in std::mem::take(&mut self.asked) {
            if self.under_way.contains_key(&symbol) && !mutant!(EndsARunTwice) {
                self.asked.push((symbol, reply));
            } else {
                answer(reply, self.index.symbol(&symbol));
            }
        }
    }

    fn overview(&self) -> Overview {
        let symbols = self
            .index
            .symbols()
            .filter_map(|(symbol, runs)| Some((symbol.clone(), runs.last_cut_end?, runs.last_engine_ts?)));
        let open =
            self.index.symbols().filter(|(_, runs)| runs.open.is_some()).map(|(symbol, _)| symbol.clone());
        Overview {
            symbols: symbols.collect(),
            last_planned_ts: self.index.last_planned_ts(),
            open: open.collect(),
        }
    }

    fn checkpoint(&self) -> Bytes {
        checkpoint::encode_checkpoint(&self.index)
    }

    fn save_when_due(&mut self) {
        if self.index.tail().0 - self.saved_at.0 < self.args.checkpoint_every {
            return;
        }
        self.saved_at = self.index.tail();
        let (store, value) = (Arc::clone(&self.args.checkpoints), self.checkpoint());
        let epoch = self.commit.epoch();
        tokio::spawn(
            async move { checkpoint::save_checkpoint(store.as_ref(), CHECKPOINT, epoch, value).await },
        );
    }

    async fn finish_drain(&mut self) {
        let Some(reply) = self.drain.take() else { return };
        checkpoint::save_checkpoint(
            self.args.checkpoints.as_ref(),
            CHECKPOINT,
            self.commit.epoch(),
            self.checkpoint(),
        )
        .await;
        answer(reply, ());
    }
}

/// What a mutant does: lets the runner go on before its record is durable.
fn answered_early(waiting: Waiting) -> Waiting {
    let (unheard, _) = ractor::concurrency::oneshot();
    answer(waiting.reply, Ok(RunSeq(0)));
    Waiting { record: waiting.record, reply: unheard.into() }
}

fn seconds_between(start: TsMs, end: TsMs) -> f64 {
    Duration::from_millis((end.0 - start.0).max(0).unsigned_abs()).as_secs_f64()
}
