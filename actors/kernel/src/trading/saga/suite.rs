//! The suite that every saga gets for nothing: each fault at each step, and what has to hold at the end.
//!
//! A world does the actions and the compensations and can say whether it is in order. The suite fails at every step,
//! does every action and every compensation twice, and crashes before and after every effect; whatever it does, the
//! saga ends COMPLETED, FAILED or MANUAL_REQUIRED, and the world is in order.

use super::definition::{SagaAction, SagaCompensation, SagaKind, SagaPolicy};
use super::next::{SagaNext, next_step};
use super::progress::{SagaProgress, SagaStatus};
use super::records::{SagaEvent, SagaFailure, SagaStepWords};
use crate::ids::TsMs;

/// The world that a saga acts on. Acting or undoing twice is doing it once.
pub trait SagaWorld {
    /// Does a step.
    ///
    /// # Errors
    ///
    /// The failure that is part of the world, not one that the suite plants.
    fn do_step(&mut self, step: u16, action: SagaAction) -> Result<(), SagaFailure>;

    /// Undoes a step.
    fn undo_step(&mut self, step: u16, compensation: SagaCompensation);

    /// Says what is not in order, now that the saga has this status.
    ///
    /// # Errors
    ///
    /// The first thing that is not in order, in words.
    fn check_status(&self, status: SagaStatus) -> Result<(), String>;
}

/// A place at which the suite can plant a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SagaMoment {
    /// The action of a step.
    Action(u16),
    /// The compensation of a step.
    Compensation(u16),
}

/// A fault that the suite plants at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SagaFault {
    /// Nothing.
    None,
    /// It is done twice.
    Twice,
    /// It fails without effect, in this way; a compensation just fails.
    Fail(SagaFailure),
    /// It has its effect, and fails in doubt all the same.
    FailAfterEffect,
    /// The process ends before the effect.
    CrashBefore,
    /// The process ends after the effect and before its record.
    CrashAfter,
}

/// Bound on the steps of one saga of the suite: more would be a loop.
const TURNS_MAX: usize = 2000;

/// A saga as the suite drives it.
#[derive(Debug)]
pub struct SagaDrive {
    /// Its records so far.
    pub records: Vec<SagaEvent>,
    /// The time.
    pub now: TsMs,
    policy: SagaPolicy,
}

impl SagaDrive {
    /// Creates a saga of these steps.
    #[must_use]
    pub fn of_steps(kind: &str, steps: Vec<SagaStepWords>) -> Self {
        let now = TsMs(1_735_830_000_000);
        let created = SagaEvent::Created { at: now, kind: kind.to_owned(), steps };
        Self { records: vec![created], now, policy: SagaPolicy::default() }
    }

    /// Creates a saga of this kind.
    #[must_use]
    pub fn new(kind: SagaKind) -> Self {
        Self::of_steps(kind.as_str(), SagaStepWords::of_kind(kind))
    }

    /// Its progress, from its records.
    #[must_use]
    pub fn saga_progress(&self) -> SagaProgress {
        let mut records = self.records.iter();
        let mut progress = records.next().map(SagaProgress::from_creation);
        for record in records {
            if let Some(Ok(progress)) = &mut progress {
                assert_eq!(progress.apply_event(record), Ok(()), "{record:?}");
            }
        }
        #[expect(clippy::expect_used, reason = "a suite of tests")]
        progress.and_then(Result::ok).expect("a saga begins with its creation")
    }

    /// Adds a record, which has to be allowed.
    pub fn add_record(&mut self, event: SagaEvent) {
        self.records.push(event);
        let next = next_step(&self.records, &self.policy, self.now);
        assert!(next.is_ok(), "{next:?} after {:?}", self.records);
    }

    /// Runs until there is nothing more to do. Every step is decided from the records alone, so that it makes no
    /// difference after which of them the process ended.
    pub fn run_saga(
        &mut self,
        world: &mut dyn SagaWorld,
        faults: &mut dyn FnMut(SagaMoment) -> SagaFault,
    ) -> SagaStatus {
        for _ in 0..TURNS_MAX {
            let next = next_step(&self.records, &self.policy, self.now);
            let at = self.now;
            match next {
                Ok(SagaNext::Act { step, action, .. }) => self.attempt_step(world, step, action, faults),
                Ok(SagaNext::Undo { step, compensation }) => {
                    self.compensate_step(world, step, compensation, faults)
                }
                Ok(SagaNext::GiveUp { why }) => self.add_record(SagaEvent::GivenUp { at, why }),
                Ok(SagaNext::AskOperator { step, why }) => {
                    self.add_record(SagaEvent::OperatorAsked { at, step, why });
                }
                Ok(SagaNext::End(end)) => self.add_record(SagaEvent::Ended { at, end }),
                Ok(SagaNext::WaitUntil(until)) => {
                    assert!(self.now < until, "waits for the past");
                    self.now = until;
                }
                Ok(SagaNext::Nothing) => return self.saga_progress().status(),
                Err(violation) => panic!("{violation}: {:?}", self.records),
            }
        }
        panic!("a saga goes on for ever: {:?}", self.records)
    }

    fn attempt_step(
        &mut self,
        world: &mut dyn SagaWorld,
        step: u16,
        action: SagaAction,
        faults: &mut dyn FnMut(SagaMoment) -> SagaFault,
    ) {
        self.add_record(SagaEvent::ActionBegun { at: self.now, step });
        self.now = self.now.plus_ms(10);
        let fault = faults(SagaMoment::Action(step));
        let result = match fault {
            SagaFault::Fail(failure) => Err(failure),
            SagaFault::CrashBefore => return,
            SagaFault::CrashAfter => {
                let _lost = world.do_step(step, action).is_ok();
                return;
            }
            SagaFault::FailAfterEffect => world.do_step(step, action).and(Err(SagaFailure::Doubtful)),
            SagaFault::Twice => world.do_step(step, action).and_then(|()| world.do_step(step, action)),
            SagaFault::None => world.do_step(step, action),
        };
        let at = self.now;
        self.add_record(match result {
            Ok(()) => SagaEvent::ActionDone { at, step },
            Err(failure) => SagaEvent::ActionFailed { at, step, failure, why: "planted".to_owned() },
        });
    }

    fn compensate_step(
        &mut self,
        world: &mut dyn SagaWorld,
        step: u16,
        compensation: SagaCompensation,
        faults: &mut dyn FnMut(SagaMoment) -> SagaFault,
    ) {
        self.add_record(SagaEvent::CompensationBegun { at: self.now, step });
        self.now = self.now.plus_ms(10);
        let fault = faults(SagaMoment::Compensation(step));
        let times = match fault {
            SagaFault::Fail(_) | SagaFault::CrashBefore => 0,
            SagaFault::None | SagaFault::FailAfterEffect | SagaFault::CrashAfter => 1,
            SagaFault::Twice => 2,
        };
        (0..times).for_each(|_| world.undo_step(step, compensation));
        let at = self.now;
        match fault {
            SagaFault::CrashBefore | SagaFault::CrashAfter => {}
            SagaFault::Fail(_) | SagaFault::FailAfterEffect => {
                self.add_record(SagaEvent::CompensationFailed { at, step, why: "planted".to_owned() });
            }
            SagaFault::None | SagaFault::Twice => self.add_record(SagaEvent::CompensationDone { at, step }),
        }
    }
}

/// Every fault that an action can meet.
const ACTION_FAULTS: [SagaFault; 8] = [
    SagaFault::Twice,
    SagaFault::Fail(SagaFailure::Refused),
    SagaFault::Fail(SagaFailure::Unavailable),
    SagaFault::Fail(SagaFailure::Doubtful),
    SagaFault::Fail(SagaFailure::Partial),
    SagaFault::FailAfterEffect,
    SagaFault::CrashBefore,
    SagaFault::CrashAfter,
];

/// Every fault that a compensation can meet.
const COMPENSATION_FAULTS: [SagaFault; 5] = [
    SagaFault::Twice,
    SagaFault::Fail(SagaFailure::Doubtful),
    SagaFault::FailAfterEffect,
    SagaFault::CrashBefore,
    SagaFault::CrashAfter,
];

/// Runs the suite for sagas of `kind`: `world` makes a new world for each run. Returns how many runs it made.
///
/// # Panics
///
/// A saga does not end as it should, or its world is not in order; the message names the faults.
pub fn check_saga<W: SagaWorld>(kind: SagaKind, world: impl Fn() -> W) -> usize {
    let check = |name: &str, faults: &mut dyn FnMut(SagaMoment) -> SagaFault, may_be_stuck: bool| {
        let (mut drive, mut world) = (SagaDrive::new(kind), world());
        let status = drive.run_saga(&mut world, faults);
        assert!(may_be_stuck || status.is_terminal(), "{} ends {status:?}: {name}", kind.as_str());
        if let Err(wrong) = world.check_status(status) {
            panic!("{} is {status:?}, and {wrong}: {name}\n{:#?}", kind.as_str(), drive.records);
        }
    };
    let steps = u16::try_from(kind.steps().len()).unwrap_or(u16::MAX);
    check("everything twice", &mut |_| SagaFault::Twice, false);
    for failing in 0..steps {
        let mut undone_never = |moment| match moment {
            SagaMoment::Action(step) if step == failing => SagaFault::Fail(SagaFailure::Partial),
            SagaMoment::Action(_) => SagaFault::None,
            SagaMoment::Compensation(_) => SagaFault::Fail(SagaFailure::Doubtful),
        };
        check(&format!("step {failing} fails, and every compensation for good"), &mut undone_never, true);
    }
    let plans = fault_plans(steps);
    for plan in &plans {
        let mut planted = plan.clone();
        let mut faults = |moment| {
            let mut met = planted.iter_mut().map(|planted| planted.meet_moment(moment));
            met.find(|fault| *fault != SagaFault::None).unwrap_or(SagaFault::None)
        };
        check(&format!("{plan:?}"), &mut faults, false);
    }
    plans.len() + usize::from(steps) + 1
}

/// A fault at one place: once, or every time.
#[derive(Clone, Debug)]
struct Planted {
    at: SagaMoment,
    fault: SagaFault,
    is_lasting: bool,
    met: bool,
}

impl Planted {
    const fn once_at(at: SagaMoment, fault: SagaFault) -> Self {
        Self { at, fault, is_lasting: false, met: false }
    }

    const fn always_at(at: SagaMoment, fault: SagaFault) -> Self {
        Self { at, fault, is_lasting: true, met: false }
    }

    fn meet_moment(&mut self, moment: SagaMoment) -> SagaFault {
        if moment != self.at || (self.met && !self.is_lasting) {
            return SagaFault::None;
        }
        self.met = true;
        self.fault
    }
}

/// Every fault at every step; behind it every other one at every further attempt, or every fault of every compensation
/// that follows.
fn fault_plans(steps: u16) -> Vec<Vec<Planted>> {
    let mut plans = vec![vec![]];
    for (step, fault) in (0..steps).flat_map(|step| ACTION_FAULTS.map(|fault| (step, fault))) {
        let at = SagaMoment::Action(step);
        plans.push(vec![Planted::once_at(at, fault)]);
        // What the first attempt left behind is undone, whatever the others come to.
        plans.extend(
            ACTION_FAULTS.map(|then| vec![Planted::once_at(at, fault), Planted::always_at(at, then)]),
        );
        for (undone, undoing) in
            (0..=step).flat_map(|undone| COMPENSATION_FAULTS.map(|fault| (undone, fault)))
        {
            let compensation = Planted::once_at(SagaMoment::Compensation(undone), undoing);
            plans.push(vec![Planted::always_at(at, fault), compensation]);
        }
    }
    plans
}
