//! The task that runs one cycle: it does what the kernel's run says next, until the cycle's end is durable.
//!
//! ```text
//! next_step ─▶ AskGates ─▶ readings, hooks ─▶ record     Append ─▶ record ─▶ apply
//!          ─▶ CallStage ─▶ a task of its own ─▶ answer, or its deadline, or a cancellation
//! ```

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::stage::HookRequest;
use orchestrator_kernel::trading::cycle::{
    AnswerFate, CycleNow, CycleOutOfOrder, CycleRun, CycleStep, HookReply, StageCall,
};
use orchestrator_kernel::trading::gate::{GateDecided, GateKind, GatePlace, HookError};
use orchestrator_kernel::trading::journal::{
    CycleEnded, JournalAuthor, JournalEntry, JournalFact, StageError, StageErrorKind, StageOutput,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument as _;

use super::CyclesArgs;
use super::work::StageAttempt;
use crate::journal::messages::{JournalRefused, JournalWriter};

/// Share of the machine's time that counts for the budgets of a cycle on a recording. Recorded time stands still while
/// a cycle works, and how busy the machine is must not decide what it does (REP-2); a stage that hangs still ends.
const RECORDED_TIME_DIVISOR: u32 = 100;
/// How often a cycle looks whether a journal that takes nothing takes something again.
const JOURNAL_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Answer of an attempt, as its task sends it.
type StageAnswer = (StageCall, Result<StageOutput, StageError>);

/// Failure of the task itself. The cycle goes on from what is durable.
#[derive(Debug, thiserror::Error)]
pub(super) enum TaskFailure {
    #[error(transparent)]
    Journal(#[from] JournalRefused),
    #[error(transparent)]
    OutOfOrder(#[from] CycleOutOfOrder),
}

/// A cycle on its way.
pub(super) struct CycleTask {
    args: CyclesArgs,
    writer: JournalWriter,
    run: CycleRun,
    planned: Option<TsMs>,
    /// Zero of the time that budgets are measured in.
    origin: Instant,
    /// Time of the machine that is one of the budgets'.
    pace: u32,
    /// Time of the budgets that nobody waited for.
    skipped: Duration,
    cancelled: watch::Receiver<Option<String>>,
    answers: mpsc::Receiver<StageAnswer>,
    answer_to: mpsc::Sender<StageAnswer>,
    in_flight: Option<EndedWithOwner<()>>,
}

impl CycleTask {
    pub(super) fn new(
        args: CyclesArgs,
        writer: JournalWriter,
        run: CycleRun,
        planned: Option<TsMs>,
        origin: Instant,
        cancelled: watch::Receiver<Option<String>>,
    ) -> Self {
        // One attempt is in flight at a time, and one that is late may still be sending.
        let (answer_to, answers) = mpsc::channel(2);
        let pace = if args.ports.clock.is_driven() { RECORDED_TIME_DIVISOR } else { 1 };
        let skipped = Duration::ZERO;
        let in_flight = None;
        Self { args, writer, run, planned, origin, pace, skipped, cancelled, answers, answer_to, in_flight }
    }

    /// Runs the cycle to its end, in a span of its own.
    pub(super) async fn run_to_end(self) -> Result<CycleEnded, TaskFailure> {
        let started = self.run.state().started();
        let span =
            tracing::info_span!("orch.cycle", cycle = %started.cycle_id, pipeline = %started.pipeline.name);
        self.take_steps().instrument(span).await
    }

    async fn take_steps(mut self) -> Result<CycleEnded, TaskFailure> {
        loop {
            if let Some(why) = self.cancelled.borrow().as_deref() {
                self.run.cancel_cycle(why);
            }
            match self.run.next_step(self.now()) {
                CycleStep::Ended => {
                    let ended = self.run.state().ended().cloned();
                    let cycle = self.run.state().started().cycle_id;
                    return Ok(ended.ok_or(CycleOutOfOrder { cycle, what: "end" })?);
                }
                CycleStep::Append(fact) => self.record_step(fact).await?,
                // While the journal takes nothing, or the history that is required is behind, nothing is begun; the
                // budget runs on.
                CycleStep::AskGates(_) | CycleStep::CallStage(_) if self.writer.holds_cycles() => {
                    self.writer.check_term()?;
                    self.wait_until(Instant::now() + JOURNAL_LOOK_EVERY).await;
                }
                CycleStep::AskGates(place) => self.ask_gates(place).await?,
                CycleStep::CallStage(call) => self.call_stage(call).await?,
                // The pause before another attempt: on a recording nobody gains anything by it.
                CycleStep::Wait { until } if self.in_flight.is_none() && 1 < self.pace => {
                    self.skipped += until.saturating_sub(self.elapsed());
                }
                CycleStep::Wait { until } => self.wait_until(self.moment_of(until)).await,
            }
        }
    }

    fn now(&self) -> CycleNow {
        let wall = self.args.ports.clock.now().unwrap_or(self.run.state().started().started_at);
        CycleNow { elapsed: self.elapsed(), wall }
    }

    /// Time of the cycle's budgets that has passed.
    fn elapsed(&self) -> Duration {
        self.origin.elapsed() / self.pace + self.skipped
    }

    /// When so much time of the budgets has passed.
    fn moment_of(&self, elapsed: Duration) -> Instant {
        self.origin + elapsed.saturating_sub(self.skipped).saturating_mul(self.pace)
    }

    /// Puts a fact on record, waits until it is durable if it has an effect, and applies it.
    async fn record_fact(&mut self, fact: JournalFact) -> Result<(), TaskFailure> {
        let cycle = self.run.state().started().cycle_id;
        let fact = if self.args.ports.clock.is_driven() { fact.without_measured_time() } else { fact };
        let entry = JournalEntry {
            who: JournalAuthor::Actor("cycle".to_owned()),
            planned_ts_ms: self.planned,
            at_ms: self.now().wall,
            correlation: cycle.correlation_id(),
            fact: fact.clone(),
        };
        if fact.has_effect() {
            self.writer.commit_entries(vec![entry]).await?;
        } else {
            self.writer.push_entries(vec![entry]).await?;
        }
        Ok(self.run.apply_fact(&fact, self.elapsed())?)
    }

    async fn ask_gates(&mut self, place: GatePlace) -> Result<(), TaskFailure> {
        let before_hooks = self.decide_gates(&place, &[]).await;
        let own_denial =
            before_hooks.first_denial().is_some_and(|(gate, _)| !matches!(gate, GateKind::Hook(_)));
        let decided = if own_denial || self.run.state().hooks_at(&place).is_empty() {
            before_hooks
        } else {
            let replies = self.ask_hooks(&place).await;
            // Looked at again: what flipped while hooks were asked counts.
            self.decide_gates(&place, &replies).await
        };
        self.record_step(JournalFact::GateDecided(Box::new(decided))).await
    }

    /// Puts a step on record, unless trading was stopped since it was decided: then gates look again, and see that once
    /// it is durable.
    async fn record_step(&mut self, fact: JournalFact) -> Result<(), TaskFailure> {
        match self.record_fact(fact).await {
            Err(TaskFailure::Journal(JournalRefused::Flipped(_))) => {
                self.run.withdraw_permit();
                self.wait_until(Instant::now() + JOURNAL_LOOK_EVERY).await;
                Ok(())
            }
            recorded => recorded,
        }
    }

    async fn decide_gates(&self, place: &GatePlace, replies: &[HookReply]) -> GateDecided {
        let started = self.run.state().started();
        let is_effect_near = match place {
            GatePlace::Before(stage) => {
                started.pipeline.first_gated().is_some_and(|first| first <= usize::from(*stage))
            }
            GatePlace::After(_) => false,
            GatePlace::BeforeIntent(_) => true,
        };
        let kill = self.args.read_kill_switch(is_effect_near).await;
        let readings = self.args.read_gates(&started.strategies, kill, self.now().wall);
        self.run.decide_gates(place.clone(), &readings, replies)
    }

    async fn ask_hooks(&self, place: &GatePlace) -> Vec<HookReply> {
        let state = self.run.state();
        let hooks = state.hooks_at(place);
        if hooks.is_empty() {
            return Vec::new();
        }
        let (started, decisions) = (Arc::new(state.started().clone()), Arc::new(state.decisions().to_vec()));
        let mut replies = Vec::new();
        for hook in hooks {
            let request = HookRequest {
                started: Arc::clone(&started),
                hook: hook.clone(),
                place: place.clone(),
                decisions: Arc::clone(&decisions),
            };
            let budget = hook.budget.saturating_mul(self.pace);
            let answer = timeout(budget, self.args.ports.hooks.ask_hook(request)).await;
            replies.push(HookReply { hook: hook.name, answer: answer.unwrap_or(Err(HookError::TimedOut)) });
        }
        replies
    }

    async fn call_stage(&mut self, call: StageCall) -> Result<(), TaskFailure> {
        let stage = self.run.state().started().pipeline.stages.get(call.stage).cloned();
        let Some(stage) = stage else { return Ok(()) };
        if !stage.idempotent {
            // A crash must find the cycle on record, else its fire begins it anew and the stage is called twice.
            self.writer.wait_durable().await?;
        }
        let now = self.elapsed();
        let time_left = call.deadline.saturating_sub(now).saturating_mul(self.pace);
        let collect_until = self.moment_of(call.collect_until(now));
        self.run.note_called(call, now);
        // Names of spans are fixed; exporters of OpenTelemetry take this field for the name.
        let name = format!("orch.stage.{}", stage.name);
        let span =
            tracing::info_span!("orch.stage", otel.name = name, stage = %stage.name, attempt = call.attempt);
        let attempt = StageAttempt::new(self.run.state(), stage, call.attempt, time_left, collect_until);
        let work = attempt.make(Arc::clone(&self.args.ports.stages), self.writer.clone());
        let work = tokio::spawn(work.instrument(span));
        let answer_to = self.answer_to.clone();
        self.in_flight = Some(EndedWithOwner(tokio::spawn(async move {
            let mut work = EndedWithOwner(work);
            let answer = (&mut work.0).await.unwrap_or_else(|ended| {
                Err(StageError::new(StageErrorKind::Unavailable, &format!("its provider broke: {ended}")))
            });
            if answer_to.send((call, answer)).await.is_err() {
                tracing::debug!("a stage answered a cycle that is over");
            }
        })));
        Ok(())
    }

    /// Waits for an answer, a cancellation, or `until`.
    async fn wait_until(&mut self, until: Instant) {
        tokio::select! {
            biased;
            // Who cancels is heard by the loop; a closed channel says that the plane goes down, and so does this task.
            changed = self.cancelled.changed() => if changed.is_err() { sleep_until(until).await },
            Some((call, answer)) = self.answers.recv() => self.take_answer(call, answer),
            () = sleep_until(until) => {}
        }
    }

    fn take_answer(&mut self, call: StageCall, answer: Result<StageOutput, StageError>) {
        match self.run.take_answer(call, answer, self.elapsed()) {
            AnswerFate::Taken | AnswerFate::TriedAgain { .. } => self.in_flight = None,
            AnswerFate::Late => {
                let cycle = self.run.state().started().cycle_id;
                tracing::warn!(%cycle, stage = call.stage, "a stage answered after its time: thrown away");
            }
        }
    }
}

/// Ends its task when it goes: what nobody may take any more is not waited for.
struct EndedWithOwner<T>(JoinHandle<T>);

impl<T> Drop for EndedWithOwner<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
