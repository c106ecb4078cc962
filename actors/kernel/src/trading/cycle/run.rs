//! A cycle in progress: the state on record, and what a restart may lose: budgets and attempts.

use std::time::Duration;

use super::backoff::retry_delay;
use super::gates::HookReply;
use super::state::{CycleNow, CycleOutOfOrder, CycleState};
use crate::mutant;
use crate::trading::gate::{GateDecided, GatePlace, GateReadings, whole_ms};
use crate::trading::journal::{
    CycleStarted, JournalFact, StageEnded, StageError, StageErrorKind, StageOutcome, StageOutput,
};
use crate::trading::stage::{StageRole, StageSpec};

/// One attempt of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageCall {
    /// Index of the stage.
    pub stage: usize,
    /// Number of the attempt, from 1 on.
    pub attempt: u32,
    /// When its answer comes too late, in the time of [`CycleNow::elapsed`].
    pub deadline: Duration,
}

/// Least time that an answer put together of several needs before its deadline.
const COLLECT_MARGIN_MIN: Duration = Duration::from_millis(10);
/// It has one part in so many of the time that there is: a busy machine hears late of what came, and then one part that
/// hangs would cost all others.
const COLLECT_MARGIN_PARTS: u32 = 20;

impl StageCall {
    /// Until when the parts of an answer are collected by a call that is made at `now`, both in the time of
    /// [`CycleNow::elapsed`]: a little before the deadline, so that what came counts.
    #[must_use]
    pub fn collect_until(self, now: Duration) -> Duration {
        let time_left = self.deadline.saturating_sub(now);
        self.deadline.saturating_sub((time_left / COLLECT_MARGIN_PARTS).max(COLLECT_MARGIN_MIN))
    }
}

/// Next step of a cycle, for its driver to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CycleStep {
    /// Read what gates look at, ask the place's hooks, then append and apply what [`CycleRun::decide_gates`] makes of
    /// it.
    AskGates(GatePlace),
    /// Call the stage's provider and tell so by [`CycleRun::note_called`].
    CallStage(StageCall),
    /// Nothing, until an answer comes or this moment.
    Wait {
        /// In the time of [`CycleNow::elapsed`].
        until: Duration,
    },
    /// Append this record and apply it.
    Append(JournalFact),
    /// Nothing any more.
    Ended,
}

/// Fate of a stage's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFate {
    /// It ends its stage.
    Taken,
    /// It was an error, or is as good as one, and the stage is tried again at this moment.
    TriedAgain {
        /// In the time of [`CycleNow::elapsed`].
        at: Duration,
    },
    /// It came after its deadline, or for an attempt that is over: thrown away, nothing of it counts.
    Late,
}

/// A stage between its beginning and its end.
#[derive(Clone, Debug)]
struct StageInProgress {
    stage: usize,
    began: Duration,
    deadline: Duration,
    attempts: u32,
    /// Why the attempt before failed.
    last_error: Option<StageError>,
    doing: Doing,
}

impl StageInProgress {
    /// An error that says no more than that time ran out, with what the attempt before failed of: a provider that died
    /// and did not come back is more than late.
    fn explain_timeout(&self, error: StageError) -> StageError {
        match (error.kind, &self.last_error) {
            (StageErrorKind::Timeout, Some(before)) => {
                let detail = format!("{}; the attempt before: {}", error.detail, before.detail);
                StageError::new(StageErrorKind::Timeout, &detail)
            }
            (_, _) => error,
        }
    }
}

#[derive(Clone, Debug)]
enum Doing {
    /// Intents, one by one.
    Execute,
    AwaitAnswer,
    AwaitRetry {
        at: Duration,
    },
    Settled(StageOutcome),
}

/// A cycle in progress.
#[derive(Clone, Debug)]
pub struct CycleRun {
    state: CycleState,
    /// What the budget counts from.
    began: Duration,
    /// What had been spent before that, by the records and the wall clock.
    spent_before: Duration,
    current: Option<StageInProgress>,
    /// A crash may have interrupted the next stage.
    interrupted: bool,
    cancelled: Option<String>,
}

impl CycleRun {
    /// The cycle whose start was just appended.
    #[must_use]
    pub fn begin_cycle(started: CycleStarted, now: Duration) -> Self {
        Self {
            state: CycleState::new(started),
            began: now,
            spent_before: Duration::ZERO,
            current: None,
            interrupted: false,
            cancelled: None,
        }
    }

    /// The cycle that a crash interrupted, from its records: the same id, each stage's result and each intent once. Its
    /// budget ran on meanwhile: what it fetched and decided is as old as the wall clock says.
    #[must_use]
    pub fn resume_cycle(mut state: CycleState, now: CycleNow) -> Self {
        state.forget_clearances();
        let by_stages: u64 =
            state.ended_stages().map(|(_, ended)| ended.took_ms).fold(0, u64::saturating_add);
        // No monotonic time reaches over a crash. A wall clock that was put back takes nothing off what stages took.
        let by_wall = now.wall.0.saturating_sub(state.started().started_at.0);
        let spent_ms = by_stages.max(u64::try_from(by_wall).unwrap_or(0));
        Self {
            state,
            began: now.elapsed,
            spent_before: Duration::from_millis(spent_ms),
            current: None,
            interrupted: true,
            cancelled: None,
        }
    }

    /// Trading was stopped between the permit for an order and its record: gates are asked for it again.
    pub fn withdraw_permit(&mut self) {
        self.state.forget_permit();
    }

    /// What is on record.
    #[must_use]
    pub const fn state(&self) -> &CycleState {
        &self.state
    }

    /// Ends the cycle before its next step; what is still answered comes too late. The first reason stays.
    pub fn cancel_cycle(&mut self, why: &str) {
        self.cancelled.get_or_insert_with(|| why.to_owned());
    }

    /// What the gates at `place` decide, for the record.
    #[must_use]
    pub fn decide_gates(
        &self,
        place: GatePlace,
        readings: &GateReadings,
        replies: &[HookReply],
    ) -> GateDecided {
        self.state.decide_gates(place, readings, replies)
    }

    /// The next step. It changes nothing: asked again, it says the same.
    #[must_use]
    pub fn next_step(&self, now: CycleNow) -> CycleStep {
        if self.state.ended().is_some() && !mutant!(EndsTwice) {
            return CycleStep::Ended;
        }
        if let Some(why) = &self.cancelled {
            return self.end_cycle(now, Some(why));
        }
        if let Some(stage) = self.state.hooks_due() {
            return CycleStep::AskGates(GatePlace::After(stage_index(stage)));
        }
        let out_of_time = self.is_out_of_time(now.elapsed);
        let at_hand = match &self.current {
            Some(current) => Some(current.stage),
            None => self.state.next_stage(out_of_time),
        };
        let Some((stage, spec)) = at_hand.and_then(|stage| Some((stage, self.state.stage_spec(stage)?)))
        else {
            return self.end_cycle(now, None);
        };
        if self.needs_gates(stage) && !self.state.is_cleared(stage) && !mutant!(GateSkipped) {
            return CycleStep::AskGates(GatePlace::Before(stage_index(stage)));
        }
        match &self.current {
            Some(current) => self.go_on_with(current, spec, now.elapsed),
            None if spec.role() == StageRole::Execute => {
                // Entered by the gates that allowed it; only a pipeline without gates gets here, and it has no EXEC.
                self.end_cycle(now, Some("orders cannot be executed without gates"))
            }
            None if self.interrupted && !spec.idempotent && !mutant!(StageCalledAgain) => {
                let error = StageError::new(
                    StageErrorKind::Interrupted,
                    "a crash may have interrupted it, and it is not idempotent",
                );
                self.stage_ended(stage, spec, 0, Duration::ZERO, StageOutcome::Failed(error))
            }
            None => CycleStep::CallStage(StageCall {
                stage,
                attempt: 1,
                deadline: self.stage_deadline(spec, now.elapsed),
            }),
        }
    }

    fn go_on_with(&self, current: &StageInProgress, spec: &StageSpec, now: Duration) -> CycleStep {
        let &StageInProgress { stage, began, deadline, attempts, .. } = current;
        let ended = |outcome| self.stage_ended(stage, spec, attempts, now.saturating_sub(began), outcome);
        match &current.doing {
            Doing::Settled(outcome) => ended(outcome.clone()),
            Doing::Execute | Doing::AwaitAnswer | Doing::AwaitRetry { .. } if deadline <= now => {
                let detail = format!("no result after {} ms", now.saturating_sub(began).as_millis());
                let error = StageError::new(StageErrorKind::Timeout, &detail);
                ended(StageOutcome::Failed(current.explain_timeout(error)))
            }
            Doing::Execute => {
                self.execute_next().unwrap_or_else(|| ended(StageOutcome::Done(StageOutput::default())))
            }
            Doing::AwaitAnswer => CycleStep::Wait { until: deadline },
            Doing::AwaitRetry { at } if now < *at => CycleStep::Wait { until: *at },
            Doing::AwaitRetry { .. } => {
                CycleStep::CallStage(StageCall { stage, attempt: attempts.saturating_add(1), deadline })
            }
        }
    }

    /// The next step of EXEC: each allowed decision has its gates, then its intent.
    fn execute_next(&self) -> Option<CycleStep> {
        let decision = self.state.next_to_execute()?;
        if !self.state.is_intent_cleared(&decision.decision_id) && !mutant!(IntentBeforePermit) {
            return Some(CycleStep::AskGates(GatePlace::BeforeIntent(decision.decision_id.clone())));
        }
        let intent = self.state.intent_of(decision)?;
        Some(CycleStep::Append(JournalFact::OrderIntended(Box::new(intent))))
    }

    fn needs_gates(&self, stage: usize) -> bool {
        let place = GatePlace::Before(stage_index(stage));
        self.state.started().pipeline.first_gated().is_some() || !self.state.hooks_at(&place).is_empty()
    }

    fn end_cycle(&self, now: CycleNow, cancelled: Option<&str>) -> CycleStep {
        let spent = CycleNow { elapsed: self.time_spent(now.elapsed), ..now };
        let ended = self.state.end_record(spent, self.is_out_of_time(now.elapsed), cancelled);
        CycleStep::Append(JournalFact::CycleEnded(Box::new(ended)))
    }

    fn stage_ended(
        &self,
        stage: usize,
        spec: &StageSpec,
        attempts: u32,
        took: Duration,
        outcome: StageOutcome,
    ) -> CycleStep {
        CycleStep::Append(JournalFact::StageEnded(Box::new(StageEnded {
            cycle_id: self.state.started().cycle_id,
            stage: stage_index(stage),
            name: spec.name.clone(),
            attempts,
            took_ms: whole_ms(took),
            outcome,
        })))
    }

    fn time_spent(&self, now: Duration) -> Duration {
        self.spent_before.saturating_add(now.saturating_sub(self.began))
    }

    fn is_out_of_time(&self, now: Duration) -> bool {
        self.state.started().pipeline.budget <= self.time_spent(now)
    }

    /// A stage's own budget, and the cycle's unless that is exceeded: then the stage only settles what was executed.
    fn stage_deadline(&self, spec: &StageSpec, now: Duration) -> Duration {
        let left = self.state.started().pipeline.budget.saturating_sub(self.time_spent(now));
        let budget = if left.is_zero() { spec.budget } else { spec.budget.min(left) };
        now.saturating_add(if mutant!(BudgetNotRead) { budget * 1000 } else { budget })
    }

    /// Notes that an attempt was begun.
    pub fn note_called(&mut self, call: StageCall, now: Duration) {
        let (began, last_error) = match self.current.take() {
            Some(current) => (current.began, current.last_error),
            None => (now, None),
        };
        self.current = Some(StageInProgress {
            stage: call.stage,
            began,
            deadline: call.deadline,
            attempts: call.attempt,
            last_error,
            doing: Doing::AwaitAnswer,
        });
    }

    /// Takes the answer of an attempt.
    pub fn take_answer(
        &mut self,
        call: StageCall,
        answer: Result<StageOutput, StageError>,
        now: Duration,
    ) -> AnswerFate {
        let is_cancelled = self.cancelled.is_some() || self.state.ended().is_some();
        let Some(current) = self.current.as_mut().filter(|current| {
            let is_awaited = matches!(current.doing, Doing::AwaitAnswer);
            is_awaited
                && (current.stage, current.attempts) == (call.stage, call.attempt)
                && (now < current.deadline || mutant!(LateAnswerCounts))
        }) else {
            return AnswerFate::Late;
        };
        let Some(spec) = self.state.stage_spec(current.stage).filter(|_| !is_cancelled) else {
            return AnswerFate::Late;
        };
        let checked = answer.and_then(|output| {
            self.state.check_answer(spec, &output)?;
            Ok(self.state.limit_answer(output))
        });
        match checked {
            Ok(output) => current.doing = Doing::Settled(StageOutcome::Done(output)),
            Err(error) => {
                let cycle = self.state.started().cycle_id;
                let delay = retry_delay(spec.backoff, cycle, stage_index(current.stage), current.attempts);
                let at = now.saturating_add(delay);
                let is_tried_again =
                    spec.idempotent && current.attempts < spec.attempts_max && at < current.deadline;
                if is_tried_again {
                    current.last_error = Some(error);
                    current.doing = Doing::AwaitRetry { at };
                    return AnswerFate::TriedAgain { at };
                }
                let error = current.explain_timeout(error);
                current.doing = Doing::Settled(StageOutcome::Failed(error));
            }
        }
        AnswerFate::Taken
    }

    /// Takes a record of this cycle that was appended.
    ///
    /// # Errors
    ///
    /// [`CycleOutOfOrder`]: it cannot come now; nothing changed.
    pub fn apply_fact(&mut self, fact: &JournalFact, now: Duration) -> Result<(), CycleOutOfOrder> {
        self.state.apply_fact(fact)?;
        if let JournalFact::StageEnded(_) = fact {
            self.current = None;
            self.interrupted = false;
        }
        if let JournalFact::GateDecided(decided) = fact {
            match &decided.place {
                GatePlace::Before(stage) if decided.first_denial().is_none() => {
                    self.enter_execute(usize::from(*stage), now);
                }
                // Denied before one intent: EXEC goes on with the next, unless the whole cycle is stopped.
                GatePlace::Before(_) | GatePlace::After(_) | GatePlace::BeforeIntent(_) => {
                    self.current = self.current.take().filter(|_| !self.state.is_halted());
                }
            }
        }
        Ok(())
    }

    fn enter_execute(&mut self, stage: usize, now: Duration) {
        let Some(spec) = self.state.stage_spec(stage) else { return };
        if spec.role() == StageRole::Execute && self.current.is_none() {
            let deadline = self.stage_deadline(spec, now);
            let doing = Doing::Execute;
            let last_error = None;
            self.current =
                Some(StageInProgress { stage, began: now, deadline, attempts: 1, last_error, doing });
        }
    }
}

/// A pipeline has at most 64 stages.
fn stage_index(stage: usize) -> u16 {
    u16::try_from(stage).unwrap_or(u16::MAX)
}
