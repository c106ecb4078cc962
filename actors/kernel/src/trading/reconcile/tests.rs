//! Differences over both sides, what they stop, and what is read of the gateway.

use super::*;
use crate::trading::order::id::UtcDate;
use crate::trading::order::{OrderContent, OrderSide};

fn positions(of: &[(&str, i64)]) -> PositionsBySymbol {
    of.iter().map(|(symbol, qty)| (Symbol::from(*symbol), Decimal::from(*qty))).collect()
}

fn sides(ours: &[(&str, i64)], theirs: &[(&str, i64)]) -> BothSides {
    BothSides { ours: positions(ours), theirs: positions(theirs), orders: vec![], foreign: vec![] }
}

fn id() -> ClientOrderId {
    let content = OrderContent::market_order(Symbol::from("A"), OrderSide::Buy, 1);
    ClientOrderId::derive(&content, "s", UtcDate(0))
}

fn lines(sides: &BothSides) -> Vec<String> {
    find_differences(sides).iter().map(ReconcileDifference::to_string).collect()
}

/// T24: the broker has a position that we do not know, and the reverse.
#[test]
fn positions_are_compared_over_the_union_of_both_sides() {
    assert_eq!(lines(&sides(&[("A", 5), ("B", 0)], &[("A", 5), ("C", 0)])), Vec::<String>::new());
    assert_eq!(
        lines(&sides(&[("A", 5), ("B", 3), ("D", 1)], &[("A", 5), ("C", -2), ("D", -1)])),
        [
            "position of B: 3 by our fills, 0 at the gateway",
            "position of C: 0 by our fills, -2 at the gateway",
            "position of D: 1 by our fills, -1 at the gateway",
        ]
    );
}

#[test]
fn orders_that_are_missing_unsettled_or_foreign_are_shown() {
    let order = |symbol: &str, found| ComparedOrder { id: id(), symbol: Symbol::from(symbol), found };
    let found = BothSides {
        orders: vec![
            order("A", OrderComparison::Agrees),
            order("B", OrderComparison::Missing),
            order("C", OrderComparison::Unsettled),
            order("D", OrderComparison::Unread),
        ],
        foreign: vec![ForeignOrder { id: "x".to_owned(), symbol: Symbol::from("E") }],
        ..sides(&[], &[])
    };

    let id = id();
    assert_eq!(
        lines(&found),
        [
            format!("order {id} of B is not at the gateway"),
            format!("order {id} of C is not settled"),
            format!("order {id} of D is not settled"),
            "order x of E was not intended here".to_owned(),
        ]
    );
}

#[test]
fn nothing_trades_before_the_first_comparison_and_then_all_but_what_differs() {
    let mut state = ReconcileState::default();
    let (a, b) = (Symbol::from("A"), Symbol::from("B"));
    assert_eq!(state.may_trade(&a), Err(NotReconciled::NotYet));

    let compare =
        |sides: &BothSides| ReconcileEvent::Compared { at: TsMs(1), differences: find_differences(sides) };
    state.apply_event(&compare(&sides(&[("A", 5)], &[("A", 4)])));
    assert!(matches!(state.may_trade(&a), Err(NotReconciled::Differs(_))));
    assert_eq!(state.may_trade(&b), Ok(()));

    // That an operator took it over frees nothing yet: the next comparison does.
    state.apply_event(&ReconcileEvent::PositionAdopted {
        at: TsMs(2),
        by: "ops".to_owned(),
        symbol: a.clone(),
        qty: 4.into(),
        reason: "bought by hand".to_owned(),
    });
    assert!(state.may_trade(&a).is_err());
    state.apply_event(&compare(&sides(&[("A", 4)], &[("A", 4)])));
    assert_eq!(state.may_trade(&a), Ok(()));
}

#[test]
fn an_adopted_order_is_known_from_then_on() {
    let mut state = ReconcileState::default();
    assert!(!state.is_adopted("x"));

    let (by, reason) = ("ops".to_owned(), "placed by hand".to_owned());
    state.apply_event(&ReconcileEvent::OrderAdopted { at: TsMs(1), by, id: "x".to_owned(), reason });

    assert!(state.is_adopted("x"));
    assert!(state.current_differences().is_empty());
}

#[test]
fn the_gateways_positions_are_read_whole_or_not_at_all() {
    let read = |body: &str| read_positions(body.as_bytes()).map_err(|error| error.to_string());
    let one = r#"{"symbol":"A","qty":"21","avg_entry_price":"1.5","current_price":null}"#;

    assert_eq!(
        read(&format!(r#"{{"positions":[{one},{{"symbol":"B","qty":-3}}],"total_positions":2}}"#)),
        Ok(positions(&[("A", 21), ("B", -3)]))
    );
    assert_eq!(read(r#"{"positions":[]}"#), Ok(PositionsBySymbol::new()));
    for body in [
        "",
        "[]",
        "{}",
        r#"{"positions":null}"#,
        r#"{"positions":[{"symbol":"A"}]}"#,
        r#"{"positions":[{"symbol":"A","qty":"NaN"}]}"#,
        &format!(r#"{{"positions":[{one},{one}]}}"#),
    ] {
        assert!(read(body).is_err(), "{body}");
    }
}
