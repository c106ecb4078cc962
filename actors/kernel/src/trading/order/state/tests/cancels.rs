//! Cancels and late fills: a cancel that is answered is requested, not done.

use super::*;

fn open() -> PlayedOrder {
    let mut order = PlayedOrder::new();
    order.send().answer(known(OrderStatus::Accepted));
    order.found(OrderStatus::Accepted);
    order
}

fn want_cancel(order: &mut PlayedOrder) {
    order.apply(&OrderEvent::CancelWanted { at: order.now, why: "not filled in time".to_owned() });
}

fn answer_cancel(order: &mut PlayedOrder, answer: CancelAnswer) {
    assert!(matches!(order.next(), OrderNext::Cancel(_)), "{:?}", order.next());
    order.apply(&OrderEvent::CancelAnswered { at: order.now, answer });
}

/// T19, T20: partly filled, canceled, and a fill after that.
#[test]
fn a_cancel_is_read_until_it_is_terminal_and_its_late_fill_is_a_correction() {
    let mut order = open();
    want_cancel(&mut order);
    answer_cancel(&mut order, CancelAnswer::Requested);
    order.found(OrderStatus::PendingCancel);
    assert!(matches!(order.next(), OrderNext::WaitUntil(_)));
    order.wait();
    let view = order.view(OrderStatus::Canceled, &[(3, 3)]);
    let fills = order.read(OrderReading::Found(view), PositionCheck::Unread);
    assert_eq!((fills[0].qty, fills[0].moment), (3.into(), FillMoment::AfterCancel));
    let end = OrderEnd::Status(OrderStatus::Canceled);
    assert_eq!(order.next(), OrderNext::End(end.clone()));
    order.apply(&OrderEvent::Ended { at: order.now, end });

    order.wait();
    let view = order.view(OrderStatus::Canceled, &[(3, 3), (5, 2)]);
    let late = order.read(OrderReading::Found(view), PositionCheck::Unread);

    assert_eq!((late.len(), late[0].qty, late[0].moment), (1, 2.into(), FillMoment::AfterEnd));
    assert_eq!(order.life.fills().filled_qty(), 5.into());
}

#[test]
fn an_ended_order_is_read_for_late_fills_ever_more_rarely_until_the_watch_is_over() {
    let mut order = open();
    let end = OrderEnd::Status(OrderStatus::Canceled);
    order.apply(&OrderEvent::Ended { at: order.now, end });
    let ended = order.now;

    let mut reads = 0;
    while let OrderNext::Read(_) = order.wait() {
        order.found(OrderStatus::Canceled);
        reads += 1;
    }

    assert_eq!(order.next(), OrderNext::Nothing);
    assert!(ended.plus_ms(300_000) <= order.now);
    assert!((6..12).contains(&reads), "{reads} reads");
}

/// T21: a cancel of an order that is gone, and one that is lost.
#[test]
fn a_lost_cancel_is_asked_for_again() {
    let mut order = open();
    want_cancel(&mut order);
    answer_cancel(&mut order, CancelAnswer::Unknown { why: "timeout".to_owned() });
    let lost_at = order.now;

    let next = loop {
        match order.wait() {
            OrderNext::Read(_) => drop(order.found(OrderStatus::Accepted)),
            next => break next,
        }
    };

    assert!(matches!(next, OrderNext::Cancel(_)));
    assert_eq!(order.now, lost_at.plus_ms(10_000));
}

#[test]
fn a_cancel_that_is_rate_limited_waits() {
    let mut order = open();
    want_cancel(&mut order);
    let until = order.now.plus_ms(60_000);
    answer_cancel(&mut order, CancelAnswer::NotBefore(until));

    let next = loop {
        match order.wait() {
            OrderNext::Read(_) => drop(order.found(OrderStatus::Accepted)),
            next => break next,
        }
    };

    assert!(matches!(next, OrderNext::Cancel(_)));
    assert_eq!(order.now, until);
}

#[test]
fn a_cancel_of_an_order_that_has_ended_ends_by_reading() {
    let mut order = open();
    want_cancel(&mut order);
    answer_cancel(&mut order, CancelAnswer::AlreadyEnded);
    let view = order.view(OrderStatus::Filled, &[(10, 10)]);
    order.read(OrderReading::Found(view), PositionCheck::Unread);

    assert_eq!(order.next(), OrderNext::End(OrderEnd::Status(OrderStatus::Filled)));
}

/// T22: a partly filled order vanishes at the gateway.
#[test]
fn an_order_that_vanishes_is_canceled_with_its_part_or_left_to_a_human() {
    for (position, is_settled) in [(PositionCheck::Unmoved, true), (PositionCheck::Moved, false)] {
        let mut order = open();
        order.wait();
        let view = order.view(OrderStatus::PartiallyFilled, &[(3, 3)]);
        order.read(OrderReading::Found(view), PositionCheck::Unread);
        let gone_at = order.now;
        let next = loop {
            match order.wait() {
                OrderNext::Read(_) => drop(order.read(OrderReading::Absent, position)),
                next => break next,
            }
        };

        assert!(gone_at.plus_ms(300_000) <= order.now);
        match is_settled {
            true => assert_eq!(next, OrderNext::End(OrderEnd::Vanished)),
            false => assert!(matches!(next, OrderNext::AskOperator(_))),
        }
        assert_eq!(order.life.fills().filled_qty(), 3.into());
    }
}

#[test]
fn an_order_that_is_filled_without_its_fills_is_left_to_a_human() {
    let mut order = open();
    let next = loop {
        match order.wait() {
            OrderNext::Read(_) => drop(order.found(OrderStatus::Filled)),
            next => break next,
        }
    };

    assert!(matches!(&next, OrderNext::AskOperator(why) if why.contains("0 of its shares")), "{next:?}");
}

#[test]
fn an_order_that_the_gateway_does_not_know_itself_is_canceled_too() {
    let mut order = PlayedOrder::new();
    order.send().answer(OrderOutcome::Unknown(UnknownOutcome::Status(OrderStatus::SubmittedUnconfirmed)));
    want_cancel(&mut order);
    // Nobody has seen it yet: it is read first.
    order.found(OrderStatus::SubmittedUnconfirmed);

    answer_cancel(&mut order, CancelAnswer::Requested);
    order.found(OrderStatus::Canceled);

    assert_eq!(order.next(), OrderNext::End(OrderEnd::Status(OrderStatus::Canceled)));
}

#[test]
fn a_rejected_order_with_a_fill_is_not_called_rejected() {
    let mut order = open();
    order.wait();
    let view = order.view(OrderStatus::Rejected, &[(3, 3)]);
    order.read(OrderReading::Found(view), PositionCheck::Unread);

    assert!(matches!(order.next(), OrderNext::WaitUntil(_)));
}

#[test]
fn an_order_that_was_not_sent_is_withdrawn() {
    let mut order = PlayedOrder::new();
    want_cancel(&mut order);

    assert_eq!(not_placed(&order.next()), "withdrawn before it was sent");
}
