//! Orders of which nobody knows: read back, sent again only where that is no second order, never called rejected.

use super::*;

/// T13: accepted, then no answer.
#[test]
fn an_order_that_is_found_after_silence_is_known() {
    let mut order = PlayedOrder::new();
    order.send().silence();
    assert_eq!(order.life.phase(), &OrderPhase::Unknown);
    order.found(OrderStatus::Accepted);

    assert_eq!(order.life.phase(), &OrderPhase::Open);
    assert_eq!(order.life.attempts().sent_count(), 1);
}

/// Reads on while nothing is found, and returns what else there is to do.
fn read_absent(order: &mut PlayedOrder, position: PositionCheck) -> OrderNext {
    loop {
        match order.wait() {
            OrderNext::Read(_) => drop(order.read(OrderReading::Absent, position)),
            next => return next,
        }
    }
}

/// T15: not arrived, twice.
#[test]
fn an_absent_order_is_sent_again_the_same_day_after_4_and_8_seconds() {
    let mut order = PlayedOrder::new();
    order.send().silence();
    // A read that found nothing has to come first.
    assert!(matches!(order.next(), OrderNext::Read(_)));
    for delay in [4, 8] {
        let silent_at = order.now;
        assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::Send);
        assert_eq!(order.now, silent_at.plus_ms(delay * 1000));
        order.send().silence();
    }
    order.found(OrderStatus::Accepted);

    assert_eq!(order.life.phase(), &OrderPhase::Open);
    assert_eq!(order.life.attempts().sent_count(), 3);
}

/// T16: a 404 is no proof.
#[test]
fn an_order_that_appears_after_it_was_absent_is_one_order() {
    let mut order = PlayedOrder::new();
    order.send().silence();
    order.absent();
    order.pass(1).absent();
    order.pass(2).found(OrderStatus::Accepted);

    assert_eq!(order.life.phase(), &OrderPhase::Open);
    assert_eq!(order.life.attempts().sent_count(), 1);
}

#[test]
fn absent_for_the_whole_quarantine_with_unmoved_positions_is_not_accepted() {
    let mut order = PlayedOrder::new();
    order.policy.retry.max_attempts = 1;
    order.send().silence();
    let sent_at = order.now;

    assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::SettleAbsent);

    assert!(sent_at.plus_ms(300_000) <= order.now);
    order.apply(&OrderEvent::SettledAbsent { at: order.now });
    assert_eq!(order.life.phase(), &OrderPhase::Waiting);
    assert_eq!(order.life.attempts().last_refusal(), Some(&NotAccepted::Absent));
    // Queued: 5 minutes later it is still fresh and of the same day.
    assert_eq!(order.wait(), OrderNext::Send);
}

#[test]
fn a_moved_position_leaves_it_to_a_human_and_an_unread_one_settles_nothing() {
    let mut order = PlayedOrder::new();
    order.policy.retry.max_attempts = 1;
    order.send().silence();
    let moved = read_absent(&mut order, PositionCheck::Moved);
    assert!(matches!(&moved, OrderNext::AskOperator(why) if why.contains("position moved")));

    let mut order = PlayedOrder::new();
    order.policy.retry.max_attempts = 1;
    order.send().silence();
    for _ in 0..200 {
        assert!(matches!(order.wait(), OrderNext::Read(_)));
        order.read(OrderReading::Absent, PositionCheck::Unread);
    }
}

#[test]
fn an_unknown_order_is_sent_again_three_times_whatever_the_attempts_come_to() {
    let mut order = PlayedOrder::new();
    order.send().silence();
    for _ in 0..3 {
        assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::Send);
        order.send().answer(gate());
    }

    assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::SettleAbsent);
    assert_eq!(order.life.attempts().sent_count(), 4);
}

#[test]
fn a_gateway_that_is_away_is_asked_for_as_long_as_it_takes() {
    let mut order = PlayedOrder::new();
    order.send().silence();

    for _ in 0..1000 {
        assert!(matches!(order.wait(), OrderNext::Read(_)));
        order.read(OrderReading::Unread { why: "timeout".to_owned() }, PositionCheck::Unread);
    }
    order.wait();
    order.found(OrderStatus::Accepted);
    assert_eq!(order.life.phase(), &OrderPhase::Open);
}

#[test]
fn near_midnight_it_is_read_under_both_dates_and_not_sent_again() {
    for offset in [-290, -1, 1, 290] {
        let mut order = PlayedOrder::at(MIDNIGHT.plus_ms(offset * 1000));
        order.send().silence();

        let OrderNext::Read(ids) = order.next() else { panic!("not read") };
        assert_eq!(ids.len(), 2, "{offset}");
        assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::SettleAbsent, "{offset}");
    }
}

#[test]
fn an_order_that_was_answered_is_read_under_the_id_of_the_answer() {
    let mut order = PlayedOrder::at(MIDNIGHT.plus_ms(-1000));
    let id =
        ClientOrderId::derive(&order.life.intent().content, "alpha_baseline", UtcDate::at_moment(MIDNIGHT));
    order.send().answer(OrderOutcome::Known { id, status: OrderStatus::Accepted, broker_order_id: None });

    assert_ne!(id, order.life.intent().id);
    assert_eq!(order.next(), OrderNext::Read(vec![id]));
}

#[test]
fn a_resend_that_did_not_leave_is_counted_once() {
    let mut order = PlayedOrder::new();
    order.send().silence();
    // Refused a connection, or out of lease between its record and its first byte.
    for was_recorded in [false, true, false] {
        assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::Send);
        if was_recorded {
            order.send();
        }
        let at = order.now;
        order.apply(&OrderEvent::NotSent { at, why: "no connection".to_owned() });
    }

    assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::SettleAbsent);
}

#[test]
fn an_unknown_order_is_not_sent_on_the_next_date() {
    let mut order = PlayedOrder::at(MIDNIGHT.plus_ms(-301_000));
    order.send().silence();
    order.absent();
    let sending = OrderEvent::Sending { at: MIDNIGHT, permit_age_ms: 0 };
    assert_eq!(order.life.apply_event(&sending), Err(OrderViolation::SentOnAnotherDate));

    assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::SettleAbsent);
    assert_eq!(order.life.attempts().sent_count(), 1);
}

#[test]
fn an_unknown_order_that_is_no_longer_fresh_or_wanted_is_not_sent_again() {
    let mut order = PlayedOrder::new();
    order.life.intent.fresh_until = START.plus_ms(3000);
    order.send().silence();
    assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::SettleAbsent);

    let mut order = PlayedOrder::new();
    order.send().silence();
    order.apply(&OrderEvent::CancelWanted { at: START, why: "saga".to_owned() });
    assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::SettleAbsent);
    order.apply(&OrderEvent::SettledAbsent { at: order.now });
    assert_eq!(not_placed(&order.next()), "withdrawn before it was sent");
}

/// A refusal speaks of its own attempt: the one before it may have arrived, and be why it was refused.
#[test]
fn a_refusal_of_a_second_attempt_does_not_settle_the_first() {
    for (outcome, end) in [
        (rejected(), Some(OrderEnd::Rejected { reason: "Position limit exceeded".to_owned() })),
        (wrong_setting(), None),
    ] {
        let mut order = PlayedOrder::new();
        order.send().silence();
        assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::Send);
        order.send().answer(outcome);

        assert_eq!(order.life.phase(), &OrderPhase::Unknown);
        // Never sent again; absent for the whole quarantine it is what the second attempt was told.
        assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::SettleAbsent);
        order.apply(&OrderEvent::SettledAbsent { at: order.now });
        match end {
            Some(end) => assert_eq!(order.next(), OrderNext::End(end)),
            None => assert!(not_placed(&order.next()).contains("secret")),
        }
    }
}

/// F22: the gateway calls it rejected for ever while the broker fills it.
#[test]
fn an_id_that_the_broker_has_is_never_called_rejected() {
    let mut order = PlayedOrder::new();
    order.send().answer(OrderOutcome::Unknown(UnknownOutcome::MustBeUnique));
    let started = order.now;

    let next = loop {
        match order.wait() {
            OrderNext::Read(_) => drop(order.found(OrderStatus::Rejected)),
            next => break next,
        }
    };

    assert!(matches!(&next, OrderNext::AskOperator(why) if why.contains("rejected")), "{next:?}");
    assert!(started.plus_ms(300_000) <= order.now);
    order.apply(&OrderEvent::NeedsOperator { at: order.now, why: "doubt".to_owned() });
    // It is read on; its fills settle it.
    order.wait();
    let view = order.view(OrderStatus::Rejected, &[(10, 10)]);
    assert_eq!(order.read(OrderReading::Found(view), PositionCheck::Unread).len(), 1);
    assert_eq!(order.next(), OrderNext::End(OrderEnd::Status(OrderStatus::Filled)));
}

#[test]
fn an_id_that_the_broker_has_is_not_absent_because_the_gateway_lacks_it() {
    let mut order = PlayedOrder::new();
    order.send().answer(OrderOutcome::Unknown(UnknownOutcome::MustBeUnique));

    let next = read_absent(&mut order, PositionCheck::Unmoved);

    assert!(matches!(&next, OrderNext::AskOperator(why) if why.contains("told of")), "{next:?}");
}

#[test]
fn the_end_of_an_order_that_is_older_than_our_first_attempt_is_not_ours() {
    for status in [OrderStatus::Rejected, OrderStatus::Canceled, OrderStatus::Failed] {
        let mut order = PlayedOrder::new();
        order.send().answer(OrderOutcome::Unknown(UnknownOutcome::DoubtfulRepeat(status)));
        let older = OrderView { created_at: START.plus_ms(-1), ..order.view(status, &[]) };
        order.read(OrderReading::Found(older), PositionCheck::Unread);
        assert_eq!(order.life.phase(), &OrderPhase::Unknown, "{status}");
    }
    let mut order = PlayedOrder::new();
    order.send().answer(OrderOutcome::Unknown(UnknownOutcome::DoubtfulRepeat(OrderStatus::Canceled)));
    order.found(OrderStatus::Canceled);
    assert_eq!(order.next(), OrderNext::End(OrderEnd::Status(OrderStatus::Canceled)));
}

/// T14: the event says that it is there while a retry is planned.
#[test]
fn an_order_that_an_event_tells_of_is_not_sent_again() {
    let mut order = PlayedOrder::new();
    order.send().answer(gate());
    assert!(matches!(order.next(), OrderNext::WaitUntil(_)));

    let id = order.life.intent().id;
    order.apply(&OrderEvent::Reported { at: order.now, id, total: None });

    assert_eq!(order.next(), OrderNext::Read(vec![id]));
    let next = read_absent(&mut order, PositionCheck::Unmoved);
    assert!(matches!(next, OrderNext::AskOperator(_)), "{next:?}");
}

#[test]
fn an_operator_reads_again_or_settles() {
    let mut order = PlayedOrder::new();
    order.policy.retry.max_attempts = 1;
    order.send().silence();
    read_absent(&mut order, PositionCheck::Moved);
    order.apply(&OrderEvent::NeedsOperator { at: order.now, why: "moved".to_owned() });
    let mut resolved = order.life.clone();

    order.apply(&OrderEvent::OperatorRetried { at: order.now, by: "ops".to_owned() });
    assert!(matches!(order.next(), OrderNext::Read(_)));
    assert_eq!(read_absent(&mut order, PositionCheck::Unmoved), OrderNext::SettleAbsent);

    let (by, reason) = ("ops".to_owned(), "asked the broker".to_owned());
    assert_eq!(
        resolved.apply_event(&OrderEvent::OperatorResolved { at: order.now, by, reason }),
        Ok(Vec::new())
    );
    assert!(matches!(resolved.phase(), OrderPhase::Ended { end: OrderEnd::Resolved { .. }, .. }));
}
