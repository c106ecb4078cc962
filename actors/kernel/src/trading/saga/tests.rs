//! Every saga through the suite, on a world that counts and on one with orders, fills and the ledger.

use std::collections::BTreeSet;

use proptest::prelude::*;

use self::worlds::{CountingWorld, TradeWorld};
use super::definition::{SagaKind, SagaPolicy};
use super::next::{SagaNext, next_step};
use super::progress::{SagaProgress, SagaStatus, SagaViolation};
use super::records::{SagaEnd, SagaEvent, SagaFailure, SagaId, SagaStepWords};
use super::suite::{SagaDrive, SagaFault, SagaMoment, SagaWorld as _, check_saga};
use crate::ids::TsMs;

mod worlds;

#[test]
fn every_saga_ends_under_every_fault_with_its_effects_once() {
    for kind in SagaKind::ALL {
        let runs = check_saga(*kind, || CountingWorld::new(*kind));
        assert!(100 < runs, "{runs} runs");
    }
}

/// SAGA-1, LEDG-1, ORD-3: filled whole, in part, not at all, and while the cancel is on its way.
#[test]
fn a_trade_ends_under_every_fault_with_its_fills_booked_and_nothing_reserved() {
    for kind in [SagaKind::TradeExecution, SagaKind::PositionClose] {
        for fills in [(10, 0), (4, 0), (0, 0), (0, 3), (4, 2), (4, 6)] {
            check_saga(kind, || TradeWorld::new(fills.0, fills.1));
        }
    }
}

#[test]
fn steps_and_compensations_are_those_of_the_specification() {
    let words: Vec<String> = SagaStepWords::of_kind(SagaKind::TradeExecution)
        .into_iter()
        .map(|step| format!("{}/{}", step.action, step.compensation))
        .collect();

    assert_eq!(
        words,
        [
            "reserve_buying_power/release_buying_power",
            "submit_order/cancel_order",
            "wait_for_fill/handle_partial_fill",
            "update_position/rollback_position",
            "record_trade/void_trade",
        ]
    );
    let policy = SagaPolicy::default();
    assert_eq!((policy.timeout.as_secs(), policy.fill_timeout.as_secs()), (60, 30));
    assert_eq!((policy.retries, policy.retry_delay.as_secs()), (3, 1));
}

#[test]
fn a_sagas_id_follows_from_its_kind_and_subject() {
    let id = |kind, subject: &str| SagaId::derive(kind, subject).to_string();

    let trade = id(SagaKind::TradeExecution, "479131535213089960f7eebb");
    assert_eq!(trade, "2f01fee7-64f5-857a-8c8b-07ee586cf8f1");
    assert_ne!(trade, id(SagaKind::PositionClose, "479131535213089960f7eebb"));
    assert_ne!(trade, id(SagaKind::TradeExecution, "dbc1c3abf98c0cb5561d131a"));
}

/// The faults of a saga whose step `failing` fails in part and whose compensation of step `undone` fails for good.
fn stuck(failing: u16, undone: u16) -> impl FnMut(SagaMoment) -> SagaFault {
    move |moment| match moment {
        SagaMoment::Action(step) if step == failing => SagaFault::Fail(SagaFailure::Partial),
        SagaMoment::Compensation(step) if step == undone => SagaFault::Fail(SagaFailure::Doubtful),
        SagaMoment::Action(_) | SagaMoment::Compensation(_) => SagaFault::None,
    }
}

fn run_stuck() -> (SagaDrive, CountingWorld) {
    let (mut drive, mut world) =
        (SagaDrive::new(SagaKind::TradeExecution), CountingWorld::new(SagaKind::TradeExecution));
    let status = drive.run_saga(&mut world, &mut stuck(2, 1));
    assert_eq!(status, SagaStatus::ManualRequired);
    (drive, world)
}

fn none(_: SagaMoment) -> SagaFault {
    SagaFault::None
}

/// T25: undo fails for good.
#[test]
fn a_compensation_that_fails_for_good_asks_a_human_once() {
    let (drive, world) = run_stuck();

    let begun =
        drive.records.iter().filter(|record| matches!(record, SagaEvent::CompensationBegun { step: 1, .. }));
    assert_eq!(begun.count(), 10);
    let progress = drive.saga_progress();
    assert_eq!(progress.stuck_step(), Some(&(1, "cancel_order failed 10 times".to_owned())));
    assert_eq!(world.standing, BTreeSet::from([0, 1]));
    assert_eq!(
        progress.decide_next(&SagaPolicy::default(), drive.now.plus_ms(86_400_000)),
        SagaNext::Nothing
    );
}

#[test]
fn an_operator_retries_resolves_or_adopts() {
    let by = || "ops".to_owned();
    let reason = || "looked at the broker".to_owned();
    let at = TsMs(1_735_900_000_000);

    let (mut drive, mut world) = run_stuck();
    drive.add_record(SagaEvent::OperatorRetried { at, by: by() });
    assert_eq!(drive.run_saga(&mut world, &mut none), SagaStatus::Failed);
    assert_eq!(world.check_status(SagaStatus::Failed), Ok(()));
    assert_eq!(drive.saga_progress().steps_done(), (0, 5));

    let (mut drive, mut world) = run_stuck();
    world.standing.remove(&1);
    drive.add_record(SagaEvent::OperatorResolved { at, by: by(), reason: reason() });
    assert_eq!(drive.run_saga(&mut world, &mut none), SagaStatus::Failed);
    assert_eq!(world.check_status(SagaStatus::Failed), Ok(()));

    // What the order has done is taken over: the saga goes on behind it, with its whole time before it.
    let (mut drive, mut world) = run_stuck();
    drive.now = at;
    drive.add_record(SagaEvent::OperatorAdopted { at, by: by(), reason: reason() });
    assert_eq!(drive.run_saga(&mut world, &mut none), SagaStatus::Completed);
    assert_eq!(world.check_status(SagaStatus::Completed), Ok(()));
}

/// T25: undo of an unknown kind, and a step of an unknown kind, as a later version may have left them.
#[test]
fn what_is_not_known_is_never_called_done_or_undone() {
    let mut steps = SagaStepWords::of_kind(SagaKind::TradeExecution);
    steps[1].compensation = "cancel_order_v2".to_owned();
    let (mut drive, mut world) =
        (SagaDrive::of_steps("trade_execution", steps), CountingWorld::new(SagaKind::TradeExecution));
    assert_eq!(drive.run_saga(&mut world, &mut stuck(2, 99)), SagaStatus::ManualRequired);
    let stuck_at = (1, "compensation cancel_order_v2 is not known".to_owned());
    assert_eq!(drive.saga_progress().stuck_step(), Some(&stuck_at));
    // An operator's retry asks again, and does not loop.
    drive.add_record(SagaEvent::OperatorRetried { at: drive.now, by: "ops".to_owned() });
    assert_eq!(drive.run_saga(&mut world, &mut none), SagaStatus::ManualRequired);

    let mut steps = SagaStepWords::of_kind(SagaKind::TradeExecution);
    steps[2].action = "wait_for_fill_v2".to_owned();
    let (mut drive, mut world) =
        (SagaDrive::of_steps("trade_execution", steps), CountingWorld::new(SagaKind::TradeExecution));
    assert_eq!(drive.run_saga(&mut world, &mut none), SagaStatus::Failed);
    assert_eq!(world.check_status(SagaStatus::Failed), Ok(()));
}

fn next_after(records: &[SagaEvent], ms: i64) -> SagaNext {
    next_step(records, &SagaPolicy::default(), TsMs(ms)).unwrap()
}

fn created() -> SagaEvent {
    let (kind, steps) = ("trade_execution".to_owned(), SagaStepWords::of_kind(SagaKind::TradeExecution));
    SagaEvent::Created { at: TsMs(0), kind, steps }
}

fn begun(at: i64, step: u16) -> SagaEvent {
    SagaEvent::ActionBegun { at: TsMs(at), step }
}

fn done(at: i64, step: u16) -> SagaEvent {
    SagaEvent::ActionDone { at: TsMs(at), step }
}

fn failed(at: i64, step: u16, failure: SagaFailure) -> SagaEvent {
    SagaEvent::ActionFailed { at: TsMs(at), step, failure, why: "x".to_owned() }
}

#[test]
fn a_step_is_tried_again_three_times_after_a_second_each() {
    let mut records = vec![created()];
    for at in [0, 1000, 2000] {
        records.extend([begun(at, 0), failed(at, 0, SagaFailure::Unavailable)]);
        assert_eq!(next_after(&records, at + 1), SagaNext::WaitUntil(TsMs(at + 1000)));
        assert!(matches!(next_after(&records, at + 1000), SagaNext::Act { step: 0, .. }));
    }
    records.extend([begun(3000, 0), failed(3000, 0, SagaFailure::Unavailable)]);

    let given_up = SagaNext::GiveUp { why: "reserve_buying_power failed 4 times".to_owned() };
    assert_eq!(next_after(&records, 4000), given_up);
}

#[test]
fn a_saga_out_of_time_is_unwound_and_waits_for_its_fill_half_of_it_at_most() {
    let records = [created(), begun(0, 0), done(0, 0), begun(0, 1), done(5000, 1)];

    let within = |ms| match next_after(&records, ms) {
        SagaNext::Act { step: 2, within, .. } => within.as_millis(),
        other => panic!("{other:?}"),
    };
    assert_eq!(within(10_000), 30_000);
    assert_eq!(within(50_000), 10_000);
    let given_up = SagaNext::GiveUp { why: "out of time at wait_for_fill".to_owned() };
    assert_eq!(next_after(&records, 60_000), given_up);
    assert_eq!(
        next_after(&[created()], 60_000),
        SagaNext::GiveUp { why: "out of time at reserve_buying_power".to_owned() }
    );
}

#[test]
fn a_step_without_effect_is_not_undone_and_one_in_doubt_is() {
    let undone = |last: &[SagaEvent]| {
        let mut records = vec![created(), begun(0, 0), done(0, 0)];
        records.extend(last.iter().cloned());
        records.push(SagaEvent::GivenUp { at: TsMs(9), why: "x".to_owned() });
        match next_after(&records, 10) {
            SagaNext::Undo { step, .. } => step,
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(undone(&[begun(1, 1), failed(2, 1, SagaFailure::Refused)]), 0);
    assert_eq!(undone(&[begun(1, 1), failed(2, 1, SagaFailure::Unavailable)]), 0);
    assert_eq!(undone(&[begun(1, 1), failed(2, 1, SagaFailure::Doubtful)]), 1);
    assert_eq!(undone(&[begun(1, 1), failed(2, 1, SagaFailure::Partial)]), 1);
    // A crash took the result.
    assert_eq!(undone(&[begun(1, 1)]), 1);
    assert_eq!(undone(&[begun(1, 1), begun(2, 1), failed(3, 1, SagaFailure::Refused)]), 1);
    let doubt = failed(2, 1, SagaFailure::Doubtful);
    assert_eq!(undone(&[begun(1, 1), doubt, begun(3, 1), failed(4, 1, SagaFailure::Refused)]), 1);
}

#[test]
fn records_that_must_not_follow_each_other_are_refused() {
    let check = |records: &[SagaEvent], violation: SagaViolation| {
        let mut all = vec![created()];
        all.extend(records.iter().cloned());
        assert_eq!(next_step(&all, &SagaPolicy::default(), TsMs(0)), Err(violation), "{records:?}");
    };
    let give_up = || SagaEvent::GivenUp { at: TsMs(0), why: "x".to_owned() };
    let undo = |step| SagaEvent::CompensationBegun { at: TsMs(0), step };
    let undone = |step| SagaEvent::CompensationDone { at: TsMs(0), step };
    let end = |end| SagaEvent::Ended { at: TsMs(0), end };
    let fail = || end(SagaEnd::Failed { why: "x".to_owned() });
    let retry = || SagaEvent::OperatorRetried { at: TsMs(0), by: "ops".to_owned() };

    check(&[created()], SagaViolation::Created);
    check(&[begun(0, 1)], SagaViolation::Order(1));
    check(&[begun(0, 0), done(0, 0), begun(0, 0)], SagaViolation::Order(0));
    check(&[begun(0, 0), done(0, 0), done(0, 0)], SagaViolation::NotBegun(0));
    check(&[begun(0, 0), done(0, 9)], SagaViolation::Order(9));
    check(&[undo(0)], SagaViolation::Status(SagaStatus::Pending));
    check(&[end(SagaEnd::Completed)], SagaViolation::Status(SagaStatus::Pending));
    check(&[begun(0, 0), done(0, 0), end(SagaEnd::Completed)], SagaViolation::End);
    check(&[begun(0, 0), give_up(), fail()], SagaViolation::End);
    check(&[begun(0, 0), give_up(), undone(0)], SagaViolation::NotBegun(0));
    check(&[begun(0, 0), done(0, 0), begun(0, 1), give_up(), undo(0)], SagaViolation::Order(0));
    check(&[begun(0, 0), give_up(), begun(0, 0)], SagaViolation::Status(SagaStatus::Compensating));
    check(&[give_up(), fail(), fail()], SagaViolation::Status(SagaStatus::Failed));
    check(&[retry()], SagaViolation::Status(SagaStatus::Pending));
    assert_eq!(next_step(&[], &SagaPolicy::default(), TsMs(0)), Err(SagaViolation::Created));
    let empty = SagaEvent::Created { at: TsMs(0), kind: "x".to_owned(), steps: vec![] };
    assert_eq!(SagaProgress::from_creation(&empty), Err(SagaViolation::Created));
}

fn any_fault() -> impl Strategy<Value = SagaFault> {
    prop_oneof![
        4 => Just(SagaFault::None),
        1 => Just(SagaFault::Twice),
        1 => prop::sample::select(vec![
            SagaFailure::Refused, SagaFailure::Unavailable, SagaFailure::Doubtful, SagaFailure::Partial,
        ]).prop_map(SagaFault::Fail),
        1 => Just(SagaFault::FailAfterEffect),
        1 => Just(SagaFault::CrashBefore),
        1 => Just(SagaFault::CrashAfter),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// SAGA-1: any faults at all, then an operator who retries until it ends.
    #[test]
    fn any_saga_ends_under_any_faults(
        faults in prop::collection::vec(any_fault(), 0..60), fills in (0..=10u32, 0..=10u32),
        kind in prop::sample::select(vec![SagaKind::TradeExecution, SagaKind::PositionClose]),
    ) {
        let (mut drive, mut world) = (SagaDrive::new(kind), TradeWorld::new(fills.0, fills.1));
        let mut planted = faults.into_iter();
        let mut next_fault = |_| planted.next().unwrap_or(SagaFault::None);
        let mut status = drive.run_saga(&mut world, &mut next_fault);
        while status == SagaStatus::ManualRequired {
            prop_assert_eq!(world.check_status(status), Ok(()));
            drive.add_record(SagaEvent::OperatorRetried { at: drive.now, by: "ops".to_owned() });
            status = drive.run_saga(&mut world, &mut next_fault);
        }
        prop_assert_eq!(world.check_status(status), Ok(()));
        prop_assert!(status.is_terminal());
    }
}
