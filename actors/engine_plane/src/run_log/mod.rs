//! RunLog: the only writer of the run log. Failure domain: engine; its death is the tree's.
//!
//! Runners ask it to record what they do and wait until that is durable (RUN-1). It refuses what would break the
//! order of runs, and tells the publisher what was committed. One batch is in flight; what comes meanwhile is the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::outputs_of;
use orchestrator_kernel::engine::lockstep_order::{Last, Round};
use orchestrator_kernel::engine::run::{RunIndex, SymbolHistory};
use orchestrator_kernel::ids::{RunSeq, Seq, Symbol, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::{Log, LogName, RecordBatch};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_runtime::address::send_reply;
use orchestrator_runtime::checkpoint::{self, CheckpointSaver};
use orchestrator_runtime::fatal::Fatal;
use orchestrator_runtime::group_commit::Landed;
use orchestrator_runtime::log_health::LogHealth;
use orchestrator_runtime::log_writer::{Landing, LogWriter, LogWriterSettings};
use orchestrator_runtime::patient_log::PatientLog;
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;

use crate::flow::OutputFlow;
use crate::recovery;

pub mod messages;

use messages::{Committed, Overview, RecordRefused, RecordWaiter, RunLogMsg};

/// Settings of the run log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLogSettings {
    /// Records between two checkpoints.
    pub checkpoint_every: u64,
}

/// Settings and ports of the run log; cloned for each start.
#[derive(Clone)]
pub struct RunLogArgs {
    /// How it is done.
    pub settings: RunLogSettings,
    /// How the log is written.
    pub writer: LogWriterSettings,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where the index is saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
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
    writer: LogWriter<RecordWaiter>,
    checkpoints: CheckpointSaver,
    round: Round<RecordWaiter>,
    /// Records on their way to the log, by symbol.
    under_way: BTreeMap<Symbol, u32>,
    /// Runners that wait until nothing of their symbol is under way.
    asked: Vec<(Symbol, RpcReplyPort<SymbolHistory>)>,
    flush_queued: bool,
    /// The next sequence when it was last looked whether more records are coming, and how often it was looked.
    collected: Seq,
    looks: u32,
    probe_queued: bool,
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
        let acquired = args.log.acquire().await.map_err(|error| Fatal::on_acquire(LOG, error))?;
        let readable = PatientLog::new(Arc::clone(&args.log), LOG, args.writer.probe_every);
        let saved = checkpoint::CheckpointReader {
            store: args.checkpoints.as_ref(),
            observer: args.observer.as_ref(),
        };
        let index = recovery::run_index(&readable, saved, acquired.tail).await?;
        let health = LogHealth::new(Condition::RunLogFailing, args.board.clone(), Arc::clone(&args.observer));
        let writer = LogWriter::new(LOG, Arc::clone(&args.log), acquired, args.writer, health);
        let store = Arc::clone(&args.checkpoints);
        let checkpoints = CheckpointSaver::new(
            recovery::RUNS_CHECKPOINT,
            store,
            args.settings.checkpoint_every,
            index.tail().into(),
        );
        args.flow.set_made(index.output_count());
        args.committed.send_replace(Committed {
            tail: index.tail(),
            batch: Arc::default(),
            epoch: acquired.epoch,
        });
        let mut state = RunLogState {
            args,
            index,
            writer,
            checkpoints,
            round: Round::default(),
            under_way: BTreeMap::new(),
            asked: Vec::new(),
            flush_queued: false,
            collected: Seq(0),
            looks: 0,
            probe_queued: false,
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
            RunLogMsg::Record { record, reply } => state.submit_record(&me, RecordWaiter { record, reply }),
            RunLogMsg::OpenRound(members) => {
                let released = state.round.open_round(members);
                state.push_released(&me, released);
            }
            RunLogMsg::Withdraw(symbol) => {
                let released = state.round.withdraw_member(&symbol);
                state.push_released(&me, released);
            }
            RunLogMsg::Symbol(symbol, reply) => {
                state.asked.push((symbol, reply));
                state.answer_asked();
            }
            RunLogMsg::Overview(reply) => send_reply(reply, state.symbols_overview()),
            RunLogMsg::Flush => state.gather_burst(&me).await,
            RunLogMsg::Flushed(landed) => state.settle_landed_batch(&me, landed)?,
            RunLogMsg::Probe => state.probe_log(&me),
            RunLogMsg::Drain(reply) => state.drain = Some(reply),
        }
        if state.writer.is_idle() {
            state.finish_drain().await;
        }
        Ok(())
    }
}

/// How often at most it is looked whether more records are coming before a commit begins. Each look costs about a
/// microsecond, a commit a hundred and more.
const LOOKS_MAX: u32 = 4;
/// The log that is written.
const LOG: LogName = LogName::Runs;

impl RunLogState {
    fn submit_record(&mut self, me: &ActorRef<RunLogMsg>, waiting: RecordWaiter) {
        if let Err(violation) = self.index.check_record(&waiting.record) {
            return send_reply(waiting.reply, Err(violation.into()));
        }
        let last = if waiting.record.is_terminal() { Last::Yes } else { Last::No };
        let symbol = waiting.record.facts.symbol.clone();
        *self.under_way.entry(symbol.clone()).or_default() += 1;
        let released = self.round.submit_item(&symbol, waiting, last);
        self.push_released(me, released);
    }

    fn push_released(&mut self, me: &ActorRef<RunLogMsg>, released: Vec<RecordWaiter>) {
        for waiting in released {
            self.writer.push_record(|bytes| waiting.record.encode_to(bytes));
            self.writer.wait_for_pushed(waiting);
        }
        if !self.writer.is_idle() && !self.flush_queued {
            self.flush_queued = me.cast(RunLogMsg::Flush).is_ok();
        }
    }

    /// Appends what has been collected, once no more is coming: in a burst of all symbols at one instant the first
    /// record would otherwise have a commit of its own, and all others would wait for it.
    async fn gather_burst(&mut self, me: &ActorRef<RunLogMsg>) {
        if self.collected != self.writer.next_seq() && self.looks < LOOKS_MAX {
            self.collected = self.writer.next_seq();
            self.looks += 1;
            // Lets the runners that are ready go first; their records are then before us in the mailbox.
            tokio::task::yield_now().await;
            self.flush_queued = me.cast(RunLogMsg::Flush).is_ok();
            return;
        }
        self.flush_queued = false;
        self.looks = 0;
        self.begin_append(me);
    }

    fn begin_append(&mut self, me: &ActorRef<RunLogMsg>) {
        if let Some(append) = self.writer.begin_append() {
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
        if let Some(after) = self.writer.probe_after()
            && !self.probe_queued
        {
            self.probe_queued = true;
            me.send_after(after, || RunLogMsg::Probe);
        }
    }

    fn probe_log(&mut self, me: &ActorRef<RunLogMsg>) {
        self.probe_queued = false;
        self.writer.queue_probe();
        self.begin_append(me);
        self.probe_later(me);
    }

    fn settle_landed_batch(
        &mut self,
        me: &ActorRef<RunLogMsg>,
        landed: Landed<RecordWaiter>,
    ) -> Result<(), Fatal> {
        match self.writer.land_batch(landed, self.index.tail().into())? {
            Landing::Durable { batch, .. } if batch.is_empty() => {}
            Landing::Durable { batch, waiters, .. } => self.take_committed(&batch, waiters)?,
            Landing::Refused { waiters, detail } => {
                self.no_room(waiters, &detail);
                self.probe_later(me);
            }
            Landing::StillFull => self.probe_later(me),
        }
        self.begin_append(me);
        Ok(())
    }

    fn take_committed(&mut self, batch: &Arc<RecordBatch>, waiters: Vec<RecordWaiter>) -> Result<(), Fatal> {
        for waiting in &waiters {
            let seq = self.index.tail().next().0;
            self.index
                .admit_record(&waiting.record)
                .map_err(|error| Fatal::undecodable_record(LOG, seq, error))?;
        }
        // Told before the publisher knows of them: outputs are never confirmed before they are due.
        waiters.iter().for_each(|waiting| self.observe_recorded(&waiting.record));
        self.args.flow.set_made(self.index.output_count());
        self.args.committed.send_replace(Committed {
            tail: self.index.tail(),
            batch: Arc::clone(batch),
            epoch: self.writer.epoch(),
        });
        for (waiting, seq) in waiters.into_iter().zip(batch.first_seq().0..) {
            self.note_landed(&waiting.record.facts.symbol);
            send_reply(waiting.reply, Ok(RunSeq(seq)));
        }
        self.answer_asked();
        let (tail, epoch, index) = (self.index.tail().into(), self.writer.epoch(), &self.index);
        self.checkpoints.save_when_due(tail, epoch, || checkpoint::encode_checkpoint(index));
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

    fn no_room(&mut self, waiters: Vec<RecordWaiter>, detail: &str) {
        for waiting in waiters {
            self.note_landed(&waiting.record.facts.symbol);
            send_reply(waiting.reply, Err(RecordRefused::Full(detail.to_owned())));
        }
        self.answer_asked();
    }

    /// A record of this symbol is no longer under way.
    fn note_landed(&mut self, symbol: &Symbol) {
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
                send_reply(reply, self.index.symbol_runs(&symbol));
            }
        }
    }

    fn symbols_overview(&self) -> Overview {
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

    async fn finish_drain(&mut self) {
        let Some(reply) = self.drain.take() else { return };
        self.checkpoints.save_now(self.writer.epoch(), checkpoint::encode_checkpoint(&self.index)).await;
        send_reply(reply, ());
    }
}

fn seconds_between(start: TsMs, end: TsMs) -> f64 {
    Duration::from_millis((end.0 - start.0).max(0).unsigned_abs()).as_secs_f64()
}
