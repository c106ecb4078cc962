//! The next step of a saga at a given time.

use std::time::Duration;

use super::definition::{SagaAction, SagaCompensation, SagaPolicy};
use super::progress::{SagaProgress, SagaStatus, SagaViolation};
use super::records::{SagaEnd, SagaEvent};
use crate::ids::TsMs;

/// The next thing to do with a saga of which nothing is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SagaNext {
    /// Record that the step begins, then do it.
    Act {
        /// Which step, from 0.
        step: u16,
        /// Its action.
        action: SagaAction,
        /// Time for this attempt.
        within: Duration,
    },
    /// Record that it does not go on.
    GiveUp {
        /// The reason, in words.
        why: String,
    },
    /// Record that the compensation begins, then do it.
    Undo {
        /// Of which step.
        step: u16,
        /// Its compensation.
        compensation: SagaCompensation,
    },
    /// Record that a human is asked.
    AskOperator {
        /// About which step.
        step: u16,
        /// The reason, in words.
        why: String,
    },
    /// Record its end.
    End(SagaEnd),
    /// Nothing before then.
    WaitUntil(TsMs),
    /// Nothing, until an operator says something or for ever.
    Nothing,
}

/// Returns the next step of the saga with these records, the first of which creates it.
///
/// # Errors
///
/// [`SagaViolation`]: records that must not follow each other.
pub fn next_step(records: &[SagaEvent], policy: &SagaPolicy, now: TsMs) -> Result<SagaNext, SagaViolation> {
    let (first, rest) = records.split_first().ok_or(SagaViolation::Created)?;
    let mut progress = SagaProgress::from_creation(first)?;
    for record in rest {
        progress.apply_event(record)?;
    }
    Ok(progress.decide_next(policy, now))
}

impl SagaProgress {
    /// The next thing to do at `now`. An attempt without a result counts as one that a crash interrupted: ask only when
    /// nothing is under way.
    #[must_use]
    pub fn decide_next(&self, policy: &SagaPolicy, now: TsMs) -> SagaNext {
        match self.status() {
            SagaStatus::Pending | SagaStatus::Running => self.next_action(policy, now),
            SagaStatus::Compensating => self.next_compensation(policy, now),
            SagaStatus::ManualRequired | SagaStatus::Completed | SagaStatus::Failed => SagaNext::Nothing,
        }
    }

    fn next_action(&self, policy: &SagaPolicy, now: TsMs) -> SagaNext {
        let Some(at) = self.next_to_do() else { return SagaNext::End(SagaEnd::Completed) };
        let deadline = moment_later(self.since, policy.timeout);
        let (Some(state), Some(words)) = (self.steps.get(at), self.words.get(at)) else {
            return SagaNext::Nothing;
        };
        let name = &words.action;
        let give_up = |why: String| SagaNext::GiveUp { why };
        let Some(action) = SagaAction::from_word(name) else {
            return give_up(format!("step {name} is not known"));
        };
        if deadline <= now {
            return give_up(format!("out of time at {name}"));
        }
        if state.failure.is_some_and(|failure| !failure.may_be_retried()) {
            return give_up(format!("{name} failed"));
        }
        if policy.retries < state.attempts {
            return give_up(format!("{name} failed {} times", state.attempts));
        }
        let due = state.ended_at.map_or(now, |ended| moment_later(ended, policy.retry_delay));
        if now < due {
            return SagaNext::WaitUntil(due.min(deadline));
        }
        let left = Duration::from_millis(deadline.0.saturating_sub(now.0).unsigned_abs());
        let within = if action == SagaAction::WaitForFill { policy.fill_timeout.min(left) } else { left };
        SagaNext::Act { step: step_number(at), action, within }
    }

    fn next_compensation(&self, policy: &SagaPolicy, now: TsMs) -> SagaNext {
        let Some(at) = self.next_to_undo() else {
            let why = self.given_up.clone().unwrap_or_default();
            return SagaNext::End(SagaEnd::Failed { why });
        };
        let (Some(state), Some(words)) = (self.steps.get(at), self.words.get(at)) else {
            return SagaNext::Nothing;
        };
        let step = step_number(at);
        let name = &words.compensation;
        // What nobody knows how to undo is never called undone.
        let Some(compensation) = SagaCompensation::from_word(name) else {
            return SagaNext::AskOperator { step, why: format!("compensation {name} is not known") };
        };
        if state.compensations == 0 {
            return SagaNext::Undo { step, compensation };
        }
        let Some(delay) = policy.compensation.delay_after(state.compensations.into()) else {
            return SagaNext::AskOperator {
                step,
                why: format!("{name} failed {} times", state.compensations),
            };
        };
        let due = state.ended_at.map_or(now, |ended| moment_later(ended, delay));
        if now < due { SagaNext::WaitUntil(due) } else { SagaNext::Undo { step, compensation } }
    }
}

fn moment_later(at: TsMs, duration: Duration) -> TsMs {
    at.plus_ms(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn step_number(step: usize) -> u16 {
    u16::try_from(step).unwrap_or(u16::MAX)
}
