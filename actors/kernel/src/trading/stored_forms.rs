//! Stored forms of version 1, byte for byte: a journal that was written before is still read.

use std::fmt::Debug;

use rust_decimal::Decimal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ledger::{LedgerEntry, LedgerEvent, LedgerRecord};
use super::order::fills::{FillReport, FillTotal};
use super::order::id::{ClientOrderId, UtcDate};
use super::order::outcome::{NotAccepted, OrderOutcome, UnknownOutcome};
use super::order::read_back::{CancelAnswer, OrderReading, OrderView};
use super::order::records::{OrderEnd, OrderEvent, OrderIntent, OrderRecord, PositionCheck};
use super::order::status::OrderStatus;
use super::order::{OrderContent, OrderSide, OrderType, TimeInForce};
use super::reconcile::{ReconcileDifference, ReconcileEvent, ReconcileRecord};
use super::saga::definition::SagaKind;
use super::saga::records::{SagaEnd, SagaEvent, SagaFailure, SagaId, SagaRecord, SagaStepWords};
use crate::ids::{Symbol, TsMs};

const AT: TsMs = TsMs(1_735_830_000_000);

fn decimal_of(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn example_content() -> OrderContent {
    OrderContent {
        order_type: OrderType::Limit,
        limit_price: Some(decimal_of("300.50")),
        time_in_force: TimeInForce::Gtc,
        ..OrderContent::market_order(Symbol::from("MSFT"), OrderSide::Sell, 5)
    }
}

fn example_id() -> ClientOrderId {
    ClientOrderId::derive(&example_content(), "alpha_baseline", UtcDate(20_090))
}

/// The stored forms are the lines of `golden`, are read as the same records, and every shorter one is refused.
fn check_stored_forms<T: Serialize + DeserializeOwned + PartialEq + Debug>(records: Vec<T>, golden: &str) {
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let stored = |record: &T| postcard::to_stdvec(record).unwrap();
    let lines: Vec<String> = records.iter().map(|record| hex(stored(record))).collect();
    assert_eq!(lines, golden.lines().collect::<Vec<_>>());
    for record in &records {
        let bytes = stored(record);
        assert_eq!(postcard::from_bytes::<T>(&bytes).as_ref(), Ok(record));
        for length in 0..bytes.len() {
            assert!(postcard::from_bytes::<T>(&bytes[..length]).is_err(), "{record:?} cut at {length}");
        }
    }
}

fn order_events() -> Vec<OrderEvent> {
    let at = AT;
    let answered = |outcome| OrderEvent::Answered { at, outcome };
    let text = || "x".to_owned();
    let fill = FillReport { cumulative: decimal_of("5"), qty: decimal_of("5"), price: decimal_of("300.50") };
    let total = FillTotal { filled_qty: decimal_of("5"), average_price: Some(decimal_of("300.5")) };
    let view = OrderView {
        id: example_id(),
        status: OrderStatus::PartiallyFilled,
        broker_order_id: Some(text()),
        created_at: at,
        is_at_broker_already: false,
        total,
        fills: vec![fill],
    };
    let intent = OrderIntent {
        id: example_id(),
        content: example_content(),
        gateway_strategy: "alpha_baseline".to_owned(),
        run_id: "run-1".to_owned(),
        intended_at: at,
        fresh_until: at.plus_ms(900_000),
    };
    let known =
        OrderOutcome::Known { id: example_id(), status: OrderStatus::Accepted, broker_order_id: None };
    let read = |reading, position| OrderEvent::Read { at, reading, position };
    vec![
        OrderEvent::Intended(intent),
        OrderEvent::NotSent { at, why: text() },
        OrderEvent::Sending { at, permit_age_ms: 3 },
        answered(known),
        answered(OrderOutcome::Rejected { reason: text() }),
        answered(OrderOutcome::NotAccepted(NotAccepted::RateLimited { until: at })),
        answered(OrderOutcome::Unknown(UnknownOutcome::Interrupted)),
        read(OrderReading::Found(view), PositionCheck::Unread),
        read(OrderReading::Absent, PositionCheck::Moved),
        OrderEvent::Reported { at, id: example_id(), total: Some(total) },
        OrderEvent::SettledAbsent { at },
        OrderEvent::CancelWanted { at, why: text() },
        OrderEvent::CancelAnswered { at, answer: CancelAnswer::NotBefore(at) },
        OrderEvent::Ended { at, end: OrderEnd::Status(OrderStatus::Filled) },
        OrderEvent::NeedsOperator { at, why: text() },
        OrderEvent::OperatorRetried { at, by: text() },
        OrderEvent::OperatorResolved { at, by: text(), reason: text() },
    ]
}

#[test]
fn order_records_keep_their_bytes() {
    let record = |event| OrderRecord::V1 { order: example_id(), event };
    let records = order_events().into_iter().map(record).collect();
    check_stored_forms(records, include_str!("../../../../tests/golden/order_records_v1.hex"));
}

#[test]
fn saga_records_keep_their_bytes() {
    let at = AT;
    let text = || "x".to_owned();
    let steps = SagaStepWords::of_kind(SagaKind::Rebalance);
    let events = [
        SagaEvent::Created { at, kind: "rebalance".to_owned(), steps },
        SagaEvent::ActionBegun { at, step: 1 },
        SagaEvent::ActionDone { at, step: 1 },
        SagaEvent::ActionFailed { at, step: 1, failure: SagaFailure::Partial, why: text() },
        SagaEvent::GivenUp { at, why: text() },
        SagaEvent::CompensationBegun { at, step: 1 },
        SagaEvent::CompensationDone { at, step: 1 },
        SagaEvent::CompensationFailed { at, step: 1, why: text() },
        SagaEvent::OperatorAsked { at, step: 1, why: text() },
        SagaEvent::OperatorRetried { at, by: text() },
        SagaEvent::OperatorResolved { at, by: text(), reason: text() },
        SagaEvent::OperatorAdopted { at, by: text(), reason: text() },
        SagaEvent::Ended { at, end: SagaEnd::Failed { why: text() } },
    ];
    let saga = SagaId::derive(SagaKind::Rebalance, "run-1");
    let records = events.map(|event| SagaRecord::V1 { saga, event }).into();
    check_stored_forms(records, include_str!("../../../../tests/golden/saga_records_v1.hex"));
}

#[test]
fn ledger_records_keep_their_bytes() {
    let entry = || LedgerEntry {
        order: example_id(),
        symbol: Symbol::from("MSFT"),
        side: OrderSide::Sell,
        qty: decimal_of("5"),
        price: decimal_of("300.50"),
    };
    let adopted =
        LedgerEvent::Adopted { symbol: Symbol::from("A"), qty: decimal_of("-2"), price: decimal_of("1") };
    let events = [
        LedgerEvent::Reserved(entry()),
        LedgerEvent::Filled(entry()),
        LedgerEvent::Released { order: example_id() },
        adopted,
    ];
    let records = events.map(LedgerRecord::V1).into();
    check_stored_forms(records, include_str!("../../../../tests/golden/ledger_records_v1.hex"));
}

#[test]
fn reconcile_records_keep_their_bytes() {
    let symbol = || Symbol::from("A");
    let differences = vec![
        ReconcileDifference::Position { symbol: symbol(), ours: decimal_of("1"), theirs: decimal_of("-2") },
        ReconcileDifference::MissingOrder { symbol: symbol(), id: example_id() },
        ReconcileDifference::UnsettledOrder { symbol: symbol(), id: example_id() },
        ReconcileDifference::ForeignOrder { symbol: symbol(), id: "x".to_owned() },
    ];
    let (by, reason) = (|| "ops".to_owned(), || "x".to_owned());
    let qty = decimal_of("4");
    let events = [
        ReconcileEvent::Compared { at: AT, differences },
        ReconcileEvent::PositionAdopted { at: AT, by: by(), symbol: symbol(), qty, reason: reason() },
        ReconcileEvent::OrderAdopted { at: AT, by: by(), id: "x".to_owned(), reason: reason() },
    ];
    let records = events.map(ReconcileRecord::V1).into();
    check_stored_forms(records, include_str!("../../../../tests/golden/reconcile_records_v1.hex"));
}
