//! The progress of a saga: a fold of its records that refuses what must not be there.

use serde::{Deserialize, Serialize};

use super::records::{SagaEnd, SagaEvent, SagaFailure, SagaStepWords};
use crate::ids::TsMs;

/// Status of a saga, as specification 002 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SagaStatus {
    /// Created; nothing was done.
    Pending,
    /// Its steps are done one by one.
    Running,
    /// Its steps are undone one by one.
    Compensating,
    /// All is done.
    Completed,
    /// All is undone.
    Failed,
    /// A human has to look.
    ManualRequired,
}

impl SagaStatus {
    /// Tells whether nothing happens to it any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }
}

/// A record that a saga must not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SagaViolation {
    /// Created twice, or without steps.
    #[error("a saga is created twice, or without steps")]
    Created,
    /// A record that its status does not allow.
    #[error("a saga in status {0:?} gets a record of another one")]
    Status(SagaStatus),
    /// A step out of order: forward every step follows the one before, backward every one precedes the one behind.
    #[error("step {0} is out of order")]
    Order(u16),
    /// A result without an attempt that begun.
    #[error("step {0} has a result without an attempt")]
    NotBegun(u16),
    /// Ended otherwise than its steps say.
    #[error("a saga ends otherwise than its steps say")]
    End,
}

/// State of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SagaStepState {
    /// Attempts of its action.
    pub(super) attempts: u16,
    /// An attempt begun and has no result: it is under way, or a crash took its result.
    pub(super) is_open: bool,
    pub(super) is_done: bool,
    /// An attempt that ended may have had an effect that stands.
    pub(super) may_stand: bool,
    /// Failure of the last attempt.
    pub(super) failure: Option<SagaFailure>,
    /// Attempts of its compensation, since an operator asked for it the last time.
    pub(super) compensations: u16,
    /// End of the last attempt of either.
    pub(super) ended_at: Option<TsMs>,
}

/// A saga, from its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaProgress {
    pub(super) words: Vec<SagaStepWords>,
    pub(super) steps: Vec<SagaStepState>,
    pub(super) status: SagaStatus,
    /// The time that its timeout counts from.
    pub(super) since: TsMs,
    /// Reason for which it was given up.
    pub(super) given_up: Option<String>,
    /// The step that a human was asked about, and why.
    stuck: Option<(u16, String)>,
}

impl SagaProgress {
    /// Begins with the record of its creation.
    ///
    /// # Errors
    ///
    /// [`SagaViolation::Created`]: another record, or no steps.
    pub fn from_creation(event: &SagaEvent) -> Result<Self, SagaViolation> {
        match event {
            SagaEvent::Created { at, steps, .. } if !steps.is_empty() => Ok(Self {
                words: steps.clone(),
                steps: vec![SagaStepState::default(); steps.len()],
                status: SagaStatus::Pending,
                since: *at,
                given_up: None,
                stuck: None,
            }),
            _ => Err(SagaViolation::Created),
        }
    }

    /// Its status.
    #[must_use]
    pub const fn status(&self) -> SagaStatus {
        self.status
    }

    /// Progress forward: steps done, of all.
    #[must_use]
    pub fn steps_done(&self) -> (usize, usize) {
        (self.steps.iter().filter(|step| step.is_done).count(), self.steps.len())
    }

    /// The step that a human was asked about, and why; nothing in another status.
    #[must_use]
    pub const fn stuck_step(&self) -> Option<&(u16, String)> {
        self.stuck.as_ref()
    }

    /// Takes the next record.
    ///
    /// # Errors
    ///
    /// [`SagaViolation`]: a record that must not be there. Nothing is changed then.
    pub fn apply_event(&mut self, event: &SagaEvent) -> Result<(), SagaViolation> {
        use SagaStatus::{Compensating, ManualRequired, Pending, Running};
        match event {
            SagaEvent::Created { .. } => Err(SagaViolation::Created),
            SagaEvent::ActionBegun { step, .. } => {
                self.in_status(&[Pending, Running])?;
                self.begin_action(*step)
            }
            SagaEvent::ActionDone { at, step } => {
                self.in_status(&[Running])?;
                let state = self.end_attempt(*at, *step)?;
                (state.is_done, state.may_stand) = (true, true);
                Ok(())
            }
            SagaEvent::ActionFailed { at, step, failure, .. } => {
                self.in_status(&[Running])?;
                let state = self.end_attempt(*at, *step)?;
                // That this attempt had no effect says nothing about one before it.
                state.may_stand |= failure.may_have_effect();
                state.failure = Some(*failure);
                Ok(())
            }
            SagaEvent::GivenUp { why, .. } => {
                self.in_status(&[Pending, Running])?;
                self.status = Compensating;
                self.given_up = Some(why.clone());
                Ok(())
            }
            SagaEvent::CompensationBegun { step, .. } => {
                self.in_status(&[Compensating])?;
                self.begin_compensation(*step)
            }
            SagaEvent::CompensationDone { at, step } => {
                self.in_status(&[Compensating])?;
                let state = self.begun_undo(*step)?;
                (state.may_stand, state.is_open, state.ended_at) = (false, false, Some(*at));
                Ok(())
            }
            SagaEvent::CompensationFailed { at, step, .. } => {
                self.in_status(&[Compensating])?;
                self.begun_undo(*step)?.ended_at = Some(*at);
                Ok(())
            }
            SagaEvent::OperatorAsked { step, why, .. } => {
                self.in_status(&[Compensating])?;
                self.undoable_step(*step)?;
                self.status = ManualRequired;
                self.stuck = Some((*step, why.clone()));
                Ok(())
            }
            SagaEvent::OperatorRetried { .. } => self.unstick_step(|state| state.compensations = 0),
            SagaEvent::OperatorResolved { .. } => {
                self.unstick_step(|state| (state.may_stand, state.is_open) = (false, false))
            }
            SagaEvent::OperatorAdopted { at, .. } => self.adopt_stuck_step(*at),
            SagaEvent::Ended { end, .. } => self.end_saga(end),
        }
    }

    fn in_status(&self, allowed: &[SagaStatus]) -> Result<(), SagaViolation> {
        if allowed.contains(&self.status) { Ok(()) } else { Err(SagaViolation::Status(self.status)) }
    }

    fn step_state(&mut self, step: u16) -> Result<&mut SagaStepState, SagaViolation> {
        self.steps.get_mut(usize::from(step)).ok_or(SagaViolation::Order(step))
    }

    /// The step whose attempt ends.
    fn end_attempt(&mut self, at: TsMs, step: u16) -> Result<&mut SagaStepState, SagaViolation> {
        let state = self.step_state(step)?;
        if !state.is_open {
            return Err(SagaViolation::NotBegun(step));
        }
        (state.is_open, state.ended_at) = (false, Some(at));
        Ok(state)
    }

    /// The next step to be done is the first that is not.
    pub(super) fn next_to_do(&self) -> Option<usize> {
        self.steps.iter().position(|step| !step.is_done)
    }

    /// The next step to be undone is the last of which something may stand.
    pub(super) fn next_to_undo(&self) -> Option<usize> {
        self.steps.iter().rposition(|step| step.may_stand || step.is_open)
    }

    fn begin_action(&mut self, step: u16) -> Result<(), SagaViolation> {
        if self.next_to_do() != Some(usize::from(step)) {
            return Err(SagaViolation::Order(step));
        }
        self.status = SagaStatus::Running;
        let state = self.step_state(step)?;
        state.attempts = state.attempts.saturating_add(1);
        // A crash took the result of the attempt before: something of it may stand.
        state.may_stand |= state.is_open;
        state.is_open = true;
        Ok(())
    }

    /// Only the last step of which something may stand is undone.
    fn undoable_step(&mut self, step: u16) -> Result<&mut SagaStepState, SagaViolation> {
        if self.next_to_undo() != Some(usize::from(step)) {
            return Err(SagaViolation::Order(step));
        }
        self.step_state(step)
    }

    fn begin_compensation(&mut self, step: u16) -> Result<(), SagaViolation> {
        let state = self.undoable_step(step)?;
        state.compensations = state.compensations.saturating_add(1);
        state.is_done = false;
        Ok(())
    }

    fn begun_undo(&mut self, step: u16) -> Result<&mut SagaStepState, SagaViolation> {
        let state = self.undoable_step(step)?;
        if state.compensations == 0 { Err(SagaViolation::NotBegun(step)) } else { Ok(state) }
    }

    fn unstick_step(&mut self, change: impl FnOnce(&mut SagaStepState)) -> Result<(), SagaViolation> {
        self.in_status(&[SagaStatus::ManualRequired])?;
        if let Some((step, _)) = self.stuck.take() {
            change(self.step_state(step)?);
        }
        self.status = SagaStatus::Compensating;
        Ok(())
    }

    /// Forward again: the stuck step is done, the ones behind it were undone or never begun.
    fn adopt_stuck_step(&mut self, at: TsMs) -> Result<(), SagaViolation> {
        self.in_status(&[SagaStatus::ManualRequired])?;
        let Some((step, _)) = self.stuck.take() else { return Err(SagaViolation::Status(self.status)) };
        *self.step_state(step)? =
            SagaStepState { is_done: true, may_stand: true, ..SagaStepState::default() };
        for behind in self.steps.iter_mut().skip(usize::from(step) + 1) {
            *behind = SagaStepState::default();
        }
        (self.status, self.since, self.given_up) = (SagaStatus::Running, at, None);
        Ok(())
    }

    fn end_saga(&mut self, end: &SagaEnd) -> Result<(), SagaViolation> {
        let (status, holds) = match end {
            SagaEnd::Completed => {
                self.in_status(&[SagaStatus::Running])?;
                (SagaStatus::Completed, self.next_to_do().is_none())
            }
            SagaEnd::Failed { .. } => {
                self.in_status(&[SagaStatus::Compensating])?;
                (SagaStatus::Failed, self.next_to_undo().is_none())
            }
        };
        if !holds {
            return Err(SagaViolation::End);
        }
        self.status = status;
        Ok(())
    }
}
