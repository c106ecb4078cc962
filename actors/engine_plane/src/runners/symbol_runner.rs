//! SymbolRunner: one per symbol, runs the engine on one cut after the other. Failure domain: engine, one symbol's.
//!
//! `started` is durable before the engine is called and the terminal record before the next run begins (RUN-1, RUN-3).
//! Each attempt starts from the hysteresis state that the run log holds, so a restarted runner needs nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_kernel::engine::contracts::engine_run::{RunFacts, RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::outputs_of;
use orchestrator_kernel::engine::contracts::raw_market_event::normalized;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::run::{self, Attempts, SymbolHistory};
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{EngineMode, IngestSeq, Symbol, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError};
use orchestrator_kernel::ports::log::{Log, LogName, read_one};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::restart::RestartPolicy;
use orchestrator_kernel::retry::RetrySchedule;
use orchestrator_runtime::address::{Address, send_reply};
use orchestrator_runtime::fatal::{self, Fatal};
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::messages::{Run, RunnerMsg};
use crate::run_log::messages::{RecordRefused, RunLogMsg};
use crate::scheduler::messages::SchedulerMsg;

/// Settings of the runners, the same for every symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunnerSettings {
    /// Which engine entry point.
    pub mode: EngineMode,
    /// How often and when the engine is called again.
    pub retry: RetrySchedule,
    /// How long one call may take. The provider keeps it too; this one holds if the provider does not.
    pub deadline: Duration,
    /// How a failing runner is started again.
    pub restart: RestartPolicy,
}

/// Settings and ports of a runner, but for its symbol; cloned for each start of each one.
#[derive(Clone)]
pub struct RunnerArgs {
    /// How it is done.
    pub settings: RunnerSettings,
    /// How long it waits before it offers a record again for which the run log had no room.
    pub offer_again: Duration,
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// Where snapshots are read from.
    pub receipts: Arc<dyn Log>,
    /// Where runs are recorded.
    pub run_log: Address<RunLogMsg>,
    /// Who hands out runs.
    pub scheduler: Address<SchedulerMsg>,
    /// The process's clock.
    pub clock: Arc<dyn Clock>,
    /// Set when the service stops: begin no further run.
    pub stop: CancellationToken,
    /// Set when the service stops and the time for finishing runs is over.
    pub give_up: CancellationToken,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
}

/// Runner state between two messages, rebuilt from the run log by `pre_start`.
pub struct RunnerState {
    symbol: Symbol,
    id: ActorId,
    args: RunnerArgs,
    runs: SymbolHistory,
}

/// The actor.
pub struct SymbolRunner;

impl Actor for SymbolRunner {
    type Msg = RunnerMsg;
    type State = RunnerState;
    type Arguments = (Symbol, RunnerArgs);

    async fn pre_start(
        &self,
        me: ActorRef<RunnerMsg>,
        (symbol, args): (Symbol, RunnerArgs),
    ) -> Result<RunnerState, ActorProcessingErr> {
        let asked = symbol.clone();
        let mut runs = args.run_log.call(|reply| RunLogMsg::Symbol(asked, reply)).await?;
        runs.hysteresis_state = runs.hysteresis_state.filter(|_| !mutant!(StateNotRestored));
        Ok(RunnerState { symbol, id: me.get_id(), args, runs })
    }

    /// Finishes what a crash interrupted, before the first message, which may be a run.
    async fn post_start(
        &self,
        _me: ActorRef<RunnerMsg>,
        state: &mut RunnerState,
    ) -> Result<(), ActorProcessingErr> {
        state.finish_interrupted_run().await?;
        state.report_to_scheduler();
        Ok(())
    }

    async fn handle(
        &self,
        _me: ActorRef<RunnerMsg>,
        message: RunnerMsg,
        state: &mut RunnerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RunnerMsg::Run(run) => state.make_run(*run).await?,
            RunnerMsg::Announce => state.report_to_scheduler(),
            RunnerMsg::Drain(reply) => send_reply(reply, ()),
        }
        Ok(())
    }
}

impl RunnerState {
    fn clock_now(&self) -> TsMs {
        self.args.clock.now().unwrap_or_default()
    }

    fn report_to_scheduler(&self) {
        let (next_start, floor) = (self.runs.next_start(), self.runs.last_engine_ts);
        let (symbol, runner) = (self.symbol.clone(), self.id);
        self.tell_scheduler(SchedulerMsg::RunnerUp { symbol, runner, next_start, floor });
    }

    fn tell_scheduler(&self, message: SchedulerMsg) {
        if self.args.scheduler.cast(message).is_err() {
            tracing::debug!(symbol = %self.symbol, "the scheduler is down; it asks when it starts");
        }
    }

    /// Finishes the run that has a `started` record and no terminal one: same id, next attempt (RUN-4).
    async fn finish_interrupted_run(&mut self) -> Result<(), ActorProcessingErr> {
        let open = self.runs.open.take().filter(|_| !mutant!(OpenRunIsForgotten));
        let Some((facts, attempts)) = open else { return Ok(()) };
        tracing::info!(run_id = %facts.run_id, symbol = %facts.symbol, attempts, "finishing an interrupted run");
        let mut again = Attempts::new(facts, attempts);
        if again.facts().snapshot_seq.is_some() {
            again.note_retry();
            self.record_durably(again.started_record()).await?;
        }
        self.finish_run(again, None).await
    }

    async fn make_run(&mut self, run: Run) -> Result<(), ActorProcessingErr> {
        let planned = run.tick.planned_ts_ms;
        if run.runner != self.id {
            return Ok(());
        }
        if self.args.stop.is_cancelled() {
            // Not begun, so the next start takes the same cut again. Nobody has to wait for our records.
            self.args.run_log.cast(RunLogMsg::Withdraw(self.symbol.clone()))?;
            return Ok(());
        }
        if self.runs.last_engine_ts.is_some_and(|last| run.tick.engine_timestamp_ms <= last) {
            self.tell_scheduler(SchedulerMsg::RunEnded { symbol: self.symbol.clone(), planned });
            return Ok(());
        }
        if self.runs.next_start().is_some_and(|start| start != run.cut.start) {
            // Handed over before the scheduler knew of this runner's restart: it takes the cut again from here on.
            self.report_to_scheduler();
            return Ok(());
        }
        let event = run.cut.snapshot.as_ref().and_then(|snapshot| snapshot.event.clone());
        let started = run::first_started_record(
            run.tick,
            run.cut,
            self.args.settings.mode,
            self.clock_now(),
            self.runs.outputs + 1,
        );
        let facts = started.facts.clone();
        let attempts = Attempts::first_attempt(facts.clone());
        let span = tracing::info_span!(
            "run",
            run_id = %facts.run_id,
            symbol = %facts.symbol,
            engine_timestamp_ms = facts.engine_timestamp_ms.0,
            cut_start_ingest_seq = facts.cut.start.0,
            cut_end_ingest_seq = facts.cut.end.0,
            engine_mode = facts.engine_mode.as_str(),
        );
        async {
            self.record_durably(started).await?;
            self.finish_run(attempts, event).await
        }
        .instrument(span)
        .await?;
        self.tell_scheduler(SchedulerMsg::RunEnded { symbol: self.symbol.clone(), planned });
        Ok(())
    }

    /// From a durable `started` record to a durable terminal one.
    async fn finish_run(
        &mut self,
        mut attempts: Attempts,
        event: Option<Bytes>,
    ) -> Result<(), ActorProcessingErr> {
        let terminal = match self.engine_inputs(attempts.facts(), event).await? {
            Err(error) => attempts.failed_record(&error, self.clock_now()),
            Ok(inputs) => match self.call_until_answered(&mut attempts, inputs).await {
                Ok(answer) => {
                    attempts.completed_record(answer, self.args.engine.identity(), self.clock_now())
                }
                Err(error) => attempts.failed_record(&error, self.clock_now()),
            },
        };
        log_end(&terminal);
        self.record_durably(terminal).await
    }

    /// The engine's inputs: the `normalized` object of the selected snapshot, byte for byte.
    async fn engine_inputs(
        &self,
        facts: &RunFacts,
        event: Option<Bytes>,
    ) -> Result<Result<String, EngineError>, ActorProcessingErr> {
        let Some(seq) = facts.snapshot_seq else { return Ok(Err(run::missing_snapshot(facts))) };
        let event = match event {
            Some(event) => event,
            None => self.read_event(seq).await?,
        };
        Ok(normalized(&event).map(str::to_owned).ok_or_else(|| run::unusable_snapshot(seq)))
    }

    async fn read_event(&self, seq: IngestSeq) -> Result<Bytes, ActorProcessingErr> {
        let stored = read_one(self.args.receipts.as_ref(), seq.into())
            .await
            .map_err(|error| fatal::fatal_unless_io(LogName::Receipts, error))?
            .unwrap_or_default();
        let record = ReceiptRecord::decode(&stored)
            .map_err(|error| Fatal::undecodable_record(LogName::Receipts, seq.0, error))?;
        Ok(stored.slice_ref(record.event))
    }

    async fn call_until_answered(
        &self,
        attempts: &mut Attempts,
        inputs: String,
    ) -> Result<EngineAnswer, EngineError> {
        let facts = attempts.facts();
        let call = EngineCall {
            symbol: facts.symbol.clone(),
            engine_timestamp_ms: facts.engine_timestamp_ms,
            mode: facts.engine_mode,
            inputs,
            state: self.runs.hysteresis_state.clone().filter(|_| facts.engine_mode == EngineMode::Hysteresis),
        };
        loop {
            let error = match self.call_engine(&call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.kind == ErrorKind::Shutdown {
                return Err(error);
            }
            attempts.note_error();
            // Counted by answers: an attempt that a crash interrupted takes none away, so the run ends as without it.
            let delay = self
                .args
                .settings
                .retry
                .delay_after(attempts.answered())
                .filter(|_| error.kind.is_retryable());
            let Some(delay) = delay else { return Err(error) };
            tracing::warn!(
                attempt = attempts.attempts(), error_kind = %error.kind, error_detail = %error.detail,
                domain = "engine", "engine call failed, trying again"
            );
            tokio::select! {
                biased;
                () = self.args.give_up.cancelled() => return Err(stopped_error()),
                () = tokio::time::sleep(delay) => attempts.note_retry(),
            }
        }
    }

    async fn call_engine(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
        let since = Instant::now();
        let result = tokio::select! {
            biased;
            () = self.args.give_up.cancelled() => Err(stopped_error()),
            answered = tokio::time::timeout(self.args.settings.deadline, self.args.engine.call(call)) => {
                answered.unwrap_or_else(|_| {
                    let detail = format!("no answer within {:?}", self.args.settings.deadline);
                    Err(EngineError::no_answer(ErrorKind::EngineTimeout, detail))
                })
            }
        };
        let error = result.as_ref().err().map(|error| error.kind);
        let seconds = since.elapsed().as_secs_f64();
        self.args.observer.observe(&Observation::EngineCalled { error, seconds });
        result
    }

    /// Makes a record durable. When the run log has no room it is offered again: a run is never dropped.
    async fn record_durably(&mut self, record: RunRecord) -> Result<(), ActorProcessingErr> {
        let record = Arc::new(record);
        loop {
            let offered = Arc::clone(&record);
            let recorded =
                self.args.run_log.call(|reply| RunLogMsg::Record { record: offered, reply }).await?;
            match recorded {
                Ok(_) => break,
                Err(RecordRefused::Full(_)) => tokio::time::sleep(self.args.offer_again).await,
                Err(RecordRefused::Violation(violation)) => return Err(Box::new(violation)),
            }
        }
        self.note_recorded(&record);
        Ok(())
    }

    fn note_recorded(&mut self, record: &RunRecord) {
        let facts = &record.facts;
        self.runs.last_cut_end = Some(facts.cut.end);
        self.runs.last_engine_ts = Some(facts.engine_timestamp_ms);
        self.runs.outputs += outputs_of(record);
        if let RunStatus::Completed { answer: EngineAnswer::Hysteresis { state, .. }, .. } = &record.status {
            self.runs.hysteresis_state = Some(state.clone());
        }
    }
}

fn stopped_error() -> EngineError {
    EngineError::no_answer(ErrorKind::Shutdown, "the service stopped before the engine answered")
}

fn log_end(record: &RunRecord) {
    match &record.status {
        RunStatus::Completed { attempts, .. } => tracing::debug!(attempt = attempts, "run completed"),
        RunStatus::Failed { attempts, error_kind, error_detail, .. } => tracing::warn!(
            attempt = attempts, %error_kind, error_detail, domain = error_kind.domain().as_str(), "run failed"
        ),
        RunStatus::Started { .. } => {}
    }
}
