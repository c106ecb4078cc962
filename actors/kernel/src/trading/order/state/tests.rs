//! The life of an order: each rule, and any sequence of answers against a gateway that may have it.

use std::time::Duration;

use rust_decimal::Decimal;

use super::*;
use crate::ids::Symbol;
use crate::trading::order::attempts::OrderPolicy;
use crate::trading::order::fills::FillReport;
use crate::trading::order::next::OrderNext;
use crate::trading::order::outcome::{NotAccepted, UnknownOutcome};
use crate::trading::order::{OrderContent, OrderSide};

mod cancels;
mod properties;
mod unknown;

/// 2025-01-02T15:00:00Z.
pub(super) const START: TsMs = TsMs(1_735_830_000_000);
/// 2025-01-03T00:00:00Z.
pub(super) const MIDNIGHT: TsMs = TsMs(1_735_862_400_000);
const QTY: u32 = 10;

pub(super) fn intent_at(at: TsMs) -> OrderIntent {
    let content = OrderContent::market_order(Symbol::from("AAPL"), OrderSide::Buy, QTY.into());
    OrderIntent {
        id: ClientOrderId::derive(&content, "alpha_baseline", UtcDate::at_moment(at)),
        content,
        gateway_strategy: "alpha_baseline".to_owned(),
        run_id: "run-1".to_owned(),
        intended_at: at,
        fresh_until: at.plus_ms(900_000),
    }
}

/// An order that tests play with: each step asserts nothing but that the record is allowed.
pub(super) struct PlayedOrder {
    pub(super) life: OrderLife,
    pub(super) policy: OrderPolicy,
    pub(super) now: TsMs,
}

impl PlayedOrder {
    pub(super) fn at(now: TsMs) -> Self {
        Self { life: OrderLife::new(intent_at(now)), policy: OrderPolicy::default(), now }
    }

    pub(super) fn new() -> Self {
        Self::at(START)
    }

    pub(super) fn next(&self) -> OrderNext {
        self.life.next_step(&self.policy, self.now)
    }

    pub(super) fn pass(&mut self, seconds: i64) -> &mut Self {
        self.now = self.now.plus_ms(seconds * 1000);
        self
    }

    /// Waits as long as it is told to, and returns what to do then.
    pub(super) fn wait(&mut self) -> OrderNext {
        match self.next() {
            OrderNext::WaitUntil(until) => {
                assert!(self.now < until, "waits for the past");
                self.now = until;
                self.next()
            }
            other => other,
        }
    }

    pub(super) fn apply(&mut self, event: &OrderEvent) -> Vec<FillTaken> {
        self.life.apply_event(event).unwrap()
    }

    pub(super) fn send(&mut self) -> &mut Self {
        assert_eq!(self.next(), OrderNext::Send);
        self.apply(&OrderEvent::Sending { at: self.now, permit_age_ms: 3 });
        self
    }

    pub(super) fn answer(&mut self, outcome: OrderOutcome) -> &mut Self {
        self.apply(&OrderEvent::Answered { at: self.now, outcome });
        self
    }

    pub(super) fn silence(&mut self) -> &mut Self {
        self.answer(OrderOutcome::Unknown(UnknownOutcome::Silence("timeout".to_owned())))
    }

    pub(super) fn read(&mut self, reading: OrderReading, position: PositionCheck) -> Vec<FillTaken> {
        assert!(matches!(self.next(), OrderNext::Read(_)), "{:?}", self.next());
        self.apply(&OrderEvent::Read { at: self.now, reading, position })
    }

    pub(super) fn absent(&mut self) -> &mut Self {
        self.read(OrderReading::Absent, PositionCheck::Unmoved);
        self
    }

    pub(super) fn found(&mut self, status: OrderStatus) -> Vec<FillTaken> {
        let view = self.view(status, &[]);
        self.read(OrderReading::Found(view), PositionCheck::Unread)
    }

    pub(super) fn view(&self, status: OrderStatus, fills: &[(u32, u32)]) -> OrderView {
        OrderView {
            id: self.life.intent().id,
            status,
            broker_order_id: None,
            created_at: START,
            is_at_broker_already: false,
            total: FillTotal { filled_qty: 0.into(), average_price: None },
            fills: fills.iter().map(|(cumulative, qty)| fill(*cumulative, *qty)).collect(),
        }
    }
}

pub(super) fn fill(cumulative: u32, qty: u32) -> FillReport {
    FillReport { cumulative: cumulative.into(), qty: qty.into(), price: 100.into() }
}

pub(super) fn known(status: OrderStatus) -> OrderOutcome {
    OrderOutcome::Known { id: intent_at(START).id, status, broker_order_id: None }
}

fn gate() -> OrderOutcome {
    OrderOutcome::NotAccepted(NotAccepted::SafetyGate { gate: "Reconciliation in progress".to_owned() })
}

fn limited(until: TsMs) -> OrderOutcome {
    OrderOutcome::NotAccepted(NotAccepted::RateLimited { until })
}

fn wrong_setting() -> OrderOutcome {
    OrderOutcome::NotAccepted(NotAccepted::SettingWrong { code: 401, detail: "invalid".to_owned() })
}

fn rejected() -> OrderOutcome {
    OrderOutcome::Rejected { reason: "Position limit exceeded".to_owned() }
}

fn not_placed(next: &OrderNext) -> &str {
    match next {
        OrderNext::End(OrderEnd::NotPlaced { why }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_order_is_sent_read_until_it_is_filled_and_ends_once() {
    let mut order = PlayedOrder::new();

    order.send().answer(known(OrderStatus::PendingNew));
    order.found(OrderStatus::Accepted);
    assert!(matches!(order.next(), OrderNext::WaitUntil(_)));
    order.pass(1);
    let view = order.view(OrderStatus::Filled, &[(4, 4), (10, 6)]);
    let fills = order.read(OrderReading::Found(view), PositionCheck::Unread);
    assert_eq!(fills.iter().map(|fill| fill.qty).collect::<Vec<_>>(), [4.into(), 6.into()]);

    let end = OrderEnd::Status(OrderStatus::Filled);
    assert_eq!(order.next(), OrderNext::End(end.clone()));
    order.apply(&OrderEvent::Ended { at: order.now, end: end.clone() });
    assert_eq!(order.next(), OrderNext::Nothing);
    let again = order.life.apply_event(&OrderEvent::Ended { at: order.now, end });
    assert_eq!(again, Err(OrderViolation::HasEnded));
}

#[test]
fn an_order_that_was_not_accepted_is_sent_again_after_4_8_16_seconds_then_queued() {
    let mut order = PlayedOrder::new();
    order.life.intent.fresh_until = START.plus_ms(36_000_000);
    let mut delays = Vec::new();

    let why = loop {
        order.send().answer(gate());
        let before = order.now;
        match order.wait() {
            OrderNext::Send => delays.push((order.now.0 - before.0) / 1000),
            next => break next,
        }
    };

    assert_eq!(delays, [4, 8, 16, 300, 600, 1200]);
    assert_eq!(not_placed(&why), "given up: safety gate: Reconciliation in progress");
}

#[test]
fn an_order_without_connection_or_permit_waits_like_one_that_was_not_accepted() {
    let mut order = PlayedOrder::new();

    order.apply(&OrderEvent::NotSent { at: order.now, why: "connection refused".to_owned() });
    assert_eq!(order.next(), OrderNext::WaitUntil(START.plus_ms(4000)));
    // The permit ran out between its record and the first byte.
    order.pass(4).send();
    order.apply(&OrderEvent::NotSent { at: order.now, why: "the lease ended".to_owned() });
    assert_eq!(order.next(), OrderNext::WaitUntil(order.now.plus_ms(8000)));
    assert_eq!(order.life.phase(), &OrderPhase::Waiting);
}

/// T17: waiting for its turn does not count towards giving up.
#[test]
fn after_429_nothing_is_sent_before_retry_after() {
    let mut order = PlayedOrder::new();
    for _ in 0..10 {
        let until = order.now.plus_ms(60_000);
        order.send().answer(limited(until));
        assert_eq!(order.wait(), OrderNext::Send);
        assert_eq!(order.now, until);
    }

    // Answers that ask for no delay do not make it knock without end.
    let mut order = PlayedOrder::new();
    let delays = [4, 8, 16, 32, 60, 60].map(|_| {
        let before = order.now;
        order.send().answer(limited(before));
        assert_eq!(order.wait(), OrderNext::Send);
        (order.now.0 - before.0) / 1000
    });
    assert_eq!(delays, [4, 8, 16, 32, 60, 60]);
}

#[test]
fn a_wrong_setting_or_a_rejection_is_never_tried_again() {
    let mut order = PlayedOrder::new();
    order.send().answer(wrong_setting());
    assert!(not_placed(&order.next()).contains("secret"));

    let mut order = PlayedOrder::new();
    order.send().answer(rejected());
    let end = OrderEnd::Rejected { reason: "Position limit exceeded".to_owned() };
    assert_eq!(order.next(), OrderNext::End(end));
    let sending = OrderEvent::Sending { at: order.now, permit_age_ms: 0 };
    assert_eq!(order.life.apply_event(&sending), Err(OrderViolation::SentAgain));
}

#[test]
fn what_is_no_longer_fresh_or_of_another_day_is_not_sent() {
    let mut order = PlayedOrder::new();
    order.pass(901);
    assert_eq!(not_placed(&order.next()), "its signals are no longer fresh");

    let mut order = PlayedOrder::at(MIDNIGHT.plus_ms(-2000));
    order.send().answer(gate());
    assert_eq!(not_placed(&order.next()), "its day is over: safety gate: Reconciliation in progress");
}

#[test]
fn an_order_in_dry_run_ends_at_once() {
    let mut order = PlayedOrder::new();
    order.send().answer(known(OrderStatus::DryRun));

    assert_eq!(order.next(), OrderNext::End(OrderEnd::Status(OrderStatus::DryRun)));
}

#[test]
fn an_answer_that_is_overdue_is_given_up_as_unknown() {
    let mut order = PlayedOrder::new();
    order.send();
    assert_eq!(order.next(), OrderNext::WaitUntil(START.plus_ms(30_000)));
    order.pass(30);
    assert_eq!(order.next(), OrderNext::GiveUpAnswer);
    order.silence();
    assert_eq!(order.next(), OrderNext::Read(vec![order.life.intent().id]));
}

/// T18: an event and the reading tell the same parts, an old one last.
#[test]
fn fills_of_events_and_readings_are_counted_once() {
    let mut order = PlayedOrder::new();
    order.send().answer(known(OrderStatus::Accepted));
    let id = order.life.intent().id;
    let report = |filled_qty: u32| {
        let total = FillTotal { filled_qty: filled_qty.into(), average_price: Some(100.into()) };
        OrderEvent::Reported { at: START, id, total: Some(total) }
    };

    let mut counted = Vec::new();
    for event in [report(4), report(4), report(7), report(4)] {
        counted.extend(order.apply(&event));
    }
    let view = order.view(OrderStatus::PartiallyFilled, &[(4, 4), (7, 3)]);
    counted.extend(order.read(OrderReading::Found(view), PositionCheck::Unread));

    assert_eq!(counted.iter().map(|fill| fill.qty).collect::<Vec<_>>(), [4.into(), 3.into()]);
    assert_eq!(order.life.fills().filled_qty(), 7.into());
}

#[test]
fn only_readings_that_say_something_new_are_recorded() {
    let mut order = PlayedOrder::new();
    order.send().silence();
    let read = |reading| OrderEvent::Read { at: START, reading, position: PositionCheck::Unread };
    let unread = read(OrderReading::Unread { why: "timeout".to_owned() });

    assert!(!order.life.is_news(&unread));
    assert!(order.life.is_news(&read(OrderReading::Absent)));
    order.absent();
    assert!(!order.life.is_news(&read(OrderReading::Absent)));
    let found = read(OrderReading::Found(order.view(OrderStatus::Accepted, &[])));
    assert!(order.life.is_news(&found));
    order.pass(1).found(OrderStatus::Accepted);
    assert!(!order.life.is_news(&found));
    assert!(order.life.is_news(&read(OrderReading::Found(order.view(OrderStatus::Accepted, &[(1, 1)])))));
}

#[test]
fn records_that_must_not_be_there_are_refused_and_change_nothing() {
    let mut order = PlayedOrder::new();
    order.send();
    let before = order.life.clone();

    let sending = OrderEvent::Sending { at: START, permit_age_ms: 0 };
    assert_eq!(order.life.apply_event(&sending), Err(OrderViolation::SentAgain));
    assert_eq!(
        order.life.apply_event(&OrderEvent::SettledAbsent { at: START }),
        Err(OrderViolation::NotUnknown)
    );
    assert_eq!(
        order.life.apply_event(&OrderEvent::Intended(intent_at(START))),
        Err(OrderViolation::IntendedTwice)
    );
    let asked = OrderEvent::NeedsOperator { at: START, why: "x".to_owned() };
    assert_eq!(order.life.apply_event(&asked), Err(OrderViolation::StillInFlight));
    let retried = OrderEvent::OperatorRetried { at: START, by: "ops".to_owned() };
    assert_eq!(order.life.apply_event(&retried), Err(OrderViolation::NobodyAsked));
    assert_eq!(order.life, before);
    let mut idle = OrderLife::new(intent_at(START));
    let answered = OrderEvent::Answered { at: START, outcome: rejected() };
    assert_eq!(idle.apply_event(&answered), Err(OrderViolation::NothingInFlight));
}

#[test]
fn polls_are_1_to_10_seconds_apart() {
    let policy = OrderPolicy::default();
    let delays: Vec<u64> = (1..7).map(|reads| policy.poll_delay(reads).as_secs()).collect();

    assert_eq!(delays, [1, 2, 4, 8, 10, 10]);
    assert_eq!(policy.poll_delay(u32::MAX), Duration::from_secs(10));
}
