//! LEDG-1 at every record of any history, and the decided formulas by hand.

use proptest::prelude::*;

use super::*;
use crate::trading::order::OrderContent;
use crate::trading::order::id::UtcDate;

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn id(number: u64) -> ClientOrderId {
    let content = OrderContent::market_order(Symbol::from("X"), OrderSide::Buy, number + 1);
    ClientOrderId::derive(&content, "s", UtcDate(0))
}

fn entry(order: u64, symbol: &str, signed_qty: i64, price: &str) -> LedgerEntry {
    LedgerEntry {
        order: id(order),
        symbol: Symbol::from(symbol),
        side: if signed_qty < 0 { OrderSide::Sell } else { OrderSide::Buy },
        qty: signed_qty.abs().into(),
        price: decimal(price),
    }
}

/// A ledger of 1000 × 2 × 1.05 = 2100.
fn ledger() -> BuyingPower {
    BuyingPower::new(&LedgerRules::for_capital(1000.into())).unwrap()
}

fn reserve(ledger: &mut BuyingPower, order: u64, qty: i64, price: &str) -> Result<(), LedgerRefused> {
    ledger.apply_event(&LedgerEvent::Reserved(entry(order, "A", qty, price)))
}

fn fill(ledger: &mut BuyingPower, order: u64, qty: i64, price: &str) {
    ledger.apply_event(&LedgerEvent::Filled(entry(order, "A", qty, price))).unwrap();
}

fn release(ledger: &mut BuyingPower, order: u64) {
    ledger.apply_event(&LedgerEvent::Released { order: id(order) }).unwrap();
}

#[track_caller]
fn check_sums(ledger: &BuyingPower, reserved: &str, used: &str, free: &str) {
    let found = (ledger.reserved_amount(), ledger.used_amount(), ledger.free_amount());
    assert_eq!(found, (decimal(reserved), decimal(used), decimal(free)));
    assert!(ledger.is_balanced());
}

#[test]
fn an_opening_order_reserves_with_its_margin_and_a_fill_uses_its_price() {
    let mut ledger = ledger();
    assert_eq!(ledger.total_limit(), decimal("2100"));

    reserve(&mut ledger, 1, 10, "100").unwrap();
    check_sums(&ledger, "1050", "0", "1050");
    fill(&mut ledger, 1, 4, "102");
    check_sums(&ledger, "630", "408", "1062");
    fill(&mut ledger, 1, 6, "100");
    check_sums(&ledger, "0", "1008", "1092");
    release(&mut ledger, 1);
    check_sums(&ledger, "0", "1008", "1092");
    assert_eq!(ledger.position_of(&Symbol::from("A")), 10.into());
}

#[test]
fn a_closing_order_reserves_nothing_and_frees_at_the_entry_price() {
    let mut ledger = ledger();
    reserve(&mut ledger, 1, 10, "100").unwrap();
    fill(&mut ledger, 1, 10, "100");

    reserve(&mut ledger, 2, -10, "500").unwrap();
    check_sums(&ledger, "0", "1000", "1100");
    // The profit of 400 a share does not move the limit.
    fill(&mut ledger, 2, -5, "500");
    check_sums(&ledger, "0", "500", "1600");
    fill(&mut ledger, 2, -5, "1");
    check_sums(&ledger, "0", "0", "2100");
    assert_eq!(ledger.positions().count(), 0);
}

#[test]
fn an_order_that_turns_a_position_reserves_what_it_opens() {
    let mut ledger = ledger();
    reserve(&mut ledger, 1, 5, "100").unwrap();
    fill(&mut ledger, 1, 5, "100");

    reserve(&mut ledger, 2, -8, "100").unwrap();
    check_sums(&ledger, "315", "500", "1285");
    // Of two orders that could close the same shares only the first one does.
    reserve(&mut ledger, 3, -5, "100").unwrap();
    check_sums(&ledger, "840", "500", "760");
    fill(&mut ledger, 2, -8, "90");
    check_sums(&ledger, "525", "270", "1305");
    assert_eq!(ledger.position_of(&Symbol::from("A")), (-3).into());
}

#[test]
fn an_order_for_which_there_is_no_room_changes_nothing() {
    let mut ledger = ledger();
    reserve(&mut ledger, 1, 10, "100").unwrap();
    let before = ledger.clone();

    let refused = reserve(&mut ledger, 2, 11, "100").unwrap_err();

    assert_eq!(refused, LedgerRefused::NoBuyingPower { needed: decimal("1155"), free: decimal("1050") });
    assert_eq!(ledger, before);
    reserve(&mut ledger, 2, 10, "100").unwrap();
    check_sums(&ledger, "2100", "0", "0");
}

#[test]
fn a_step_that_is_done_twice_is_done_once() {
    let mut ledger = ledger();
    for _ in 0..2 {
        reserve(&mut ledger, 1, 10, "100").unwrap();
        check_sums(&ledger, "1050", "0", "1050");
    }
    for _ in 0..2 {
        release(&mut ledger, 1);
        check_sums(&ledger, "0", "0", "2100");
    }
}

#[test]
fn a_fill_after_the_release_is_used_and_may_be_a_breach() {
    let mut ledger = ledger();
    reserve(&mut ledger, 1, 10, "100").unwrap();
    release(&mut ledger, 1);

    fill(&mut ledger, 1, 10, "300");

    check_sums(&ledger, "0", "3000", "-900");
    // A breach stops what opens and not what closes.
    assert!(reserve(&mut ledger, 2, 1, "1").is_err());
    reserve(&mut ledger, 3, -10, "300").unwrap();
}

#[test]
fn an_adopted_position_is_used_at_its_entry_price() {
    let mut ledger = ledger();
    let adopt =
        |qty: i64| LedgerEvent::Adopted { symbol: Symbol::from("A"), qty: qty.into(), price: decimal("50") };

    ledger.apply_event(&adopt(-20)).unwrap();
    check_sums(&ledger, "0", "1000", "1100");
    ledger.apply_event(&adopt(4)).unwrap();
    check_sums(&ledger, "0", "200", "1900");
    ledger.apply_event(&adopt(0)).unwrap();
    check_sums(&ledger, "0", "0", "2100");
}

#[test]
fn what_is_no_amount_is_refused() {
    let mut ledger = ledger();
    for (qty, price) in [(0, "1"), (1, "0"), (1, "-1"), (1, "1000000000001")] {
        assert_eq!(reserve(&mut ledger, 1, qty, price), Err(LedgerRefused::NotAnAmount));
    }
    assert_eq!(reserve(&mut ledger, 1, 1_000_000, "1000000000"), Err(LedgerRefused::NotAnAmount));
    let negative = BuyingPower::new(&LedgerRules::for_capital((-1).into()));
    assert_eq!(negative.unwrap_err(), LedgerRefused::NotAnAmount);
    assert_eq!(
        BuyingPower::new(&LedgerRules::for_capital(Decimal::MAX)).unwrap_err(),
        LedgerRefused::NotAnAmount
    );
}

fn any_event() -> impl Strategy<Value = LedgerEvent> {
    let entry = (0..6u64, 0..3usize, -50..50i64, 1..100_000i64, 0..5u32).prop_map(
        |(order, symbol, qty, price, scale)| LedgerEntry {
            price: Decimal::new(price, scale),
            ..entry(order, ["A", "B", "C"][symbol], qty, "1")
        },
    );
    prop_oneof![
        3 => entry.clone().prop_map(LedgerEvent::Reserved),
        4 => entry.prop_map(LedgerEvent::Filled),
        2 => (0..6u64).prop_map(|order| LedgerEvent::Released { order: id(order) }),
        1 => (0..3usize, -50..50i64, 1..1000i64).prop_map(|(symbol, qty, price)| LedgerEvent::Adopted {
            symbol: Symbol::from(["A", "B", "C"][symbol]), qty: qty.into(), price: price.into(),
        }),
    ]
}

proptest! {
    /// LEDG-1 after every record of any history, also of one that makes no sense.
    #[test]
    fn reserved_and_used_and_free_are_the_limit_at_every_record(
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let mut ledger = BuyingPower::new(&LedgerRules::for_capital(100_000.into())).unwrap();
        let mut positions: BTreeMap<Symbol, Decimal> = BTreeMap::new();
        for event in &events {
            let before = ledger.clone();
            match (ledger.apply_event(event), event) {
                (Err(_), _) => prop_assert_eq!(&ledger, &before),
                (Ok(()), LedgerEvent::Filled(entry)) => {
                    *positions.entry(entry.symbol.clone()).or_default() += entry.side.signed_qty(entry.qty);
                }
                (Ok(()), LedgerEvent::Adopted { symbol, qty, .. }) => {
                    positions.insert(symbol.clone(), *qty);
                }
                (Ok(()), LedgerEvent::Reserved(_) | LedgerEvent::Released { .. }) => {}
            }
            prop_assert!(ledger.is_balanced(), "{event:?}");
            prop_assert!(Decimal::ZERO <= ledger.reserved_amount() && Decimal::ZERO <= ledger.used_amount());
        }
        for (symbol, qty) in positions {
            prop_assert_eq!(ledger.position_of(&symbol), qty);
        }
        for order in 0..6 {
            release(&mut ledger, order);
        }
        prop_assert_eq!(ledger.reserved_amount(), Decimal::ZERO);
        let stored = postcard::to_stdvec(&ledger).unwrap();
        prop_assert_eq!(postcard::from_bytes::<BuyingPower>(&stored).unwrap(), ledger);
    }
}
