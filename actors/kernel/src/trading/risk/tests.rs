//! The built-in RISK by its rules, one figure each.

use proptest::prelude::*;

use super::*;
use crate::trading::testkit::{dec, decision};

const LIMITS: RiskLimits = RiskLimits {
    max_position_size: Decimal::from_parts(20_000, 0, 0, false, 0),
    capital: Decimal::from_parts(100_000, 0, 0, false, 0),
    confidence_min: Confidence::ZERO,
};

fn judged(change: impl Fn(&mut TradeDecision, &mut RiskInput<'_>, &mut RiskLimits)) -> RiskOutcome {
    let symbols = [Symbol::from("AAPL")];
    let mut decision = decision("d", "momentum", "AAPL", "100");
    let mut input = RiskInput {
        quantity: decision.suggested_quantity,
        price: Some(dec("150")),
        symbols: &symbols,
        mode: RiskMode::Normal,
        order_unknown: false,
    };
    let mut limits = LIMITS;
    change(&mut decision, &mut input, &mut limits);
    BuiltInRisk::new(limits).judge_decision(&decision, input).outcome
}

fn allowed(quantity: &str, lowered_by: &[RiskRule]) -> RiskOutcome {
    RiskOutcome::Allowed { quantity: dec(quantity), price: dec("150"), lowered_by: lowered_by.to_vec() }
}

#[test]
fn each_rule_lowers_or_denies_by_its_own_figure() {
    use RiskOutcome::{Denied, Held};
    use RiskRule::*;
    type Case = (fn(&mut TradeDecision, &mut RiskInput<'_>, &mut RiskLimits), RiskOutcome);
    let cases: [Case; 17] = [
        (|_, _, _| (), allowed("100", &[])),
        (|d, _, _| d.action = DecisionAction::Hold, Held),
        (|_, i, _| i.price = None, Denied(PriceUnavailable)),
        (|_, i, _| i.price = Some(Decimal::ZERO), Denied(PriceUnavailable)),
        (|d, _, _| d.symbol = Symbol::from("MSFT"), Denied(SymbolNotInStrategy)),
        (|_, _, l| l.confidence_min = Confidence::new(0.71).unwrap(), Denied(ConfidenceTooLow)),
        (|_, _, l| l.confidence_min = Confidence::new(0.7).unwrap(), allowed("100", &[])),
        (|_, i, _| i.order_unknown = true, Denied(OrderUnknown)),
        (|_, i, _| i.quantity = None, Denied(QuantityMissing)),
        (|_, i, _| i.mode = RiskMode::Conservative, allowed("50", &[Mode])),
        (|_, i, _| i.mode = RiskMode::Aggressive, allowed("100", &[])),
        (
            |d, i, _| (d.confidence, i.mode) = (Confidence::new(0.59).unwrap(), RiskMode::Conservative),
            Denied(ConfidenceTooLow),
        ),
        (|_, i, _| i.quantity = Some(dec("200")), allowed("133", &[MaxPositionSize])),
        (|_, _, l| l.capital = dec("3000"), allowed("20", &[Capital])),
        (
            |_, i, l| {
                (i.quantity, i.mode, l.capital) = (Some(dec("400")), RiskMode::Conservative, dec("149"))
            },
            Denied(QtyLessThanOneShare),
        ),
        (|_, i, _| i.quantity = Some(dec("0.99")), Denied(QtyLessThanOneShare)),
        (|_, i, _| i.quantity = Some(dec("1.99")), allowed("1", &[])),
    ];
    for (at, (change, expected)) in cases.into_iter().enumerate() {
        assert_eq!(judged(change), expected, "case {at}");
    }
}

#[test]
fn the_buys_of_a_cycle_share_its_capital_and_a_sale_does_not() {
    let limits = RiskLimits { capital: dec("1000"), ..LIMITS };
    let symbols = [Symbol::from("AAPL")];
    let mut risk = BuiltInRisk::new(limits);
    let mut judge = |action, quantity: &str| {
        let mut decision = decision("d", "momentum", "AAPL", quantity);
        decision.action = action;
        let input = RiskInput {
            quantity: decision.suggested_quantity,
            price: Some(dec("150")),
            symbols: &symbols,
            mode: RiskMode::Normal,
            order_unknown: false,
        };
        risk.judge_decision(&decision, input).outcome
    };

    assert_eq!(judge(DecisionAction::Buy, "4"), allowed("4", &[]));
    assert_eq!(judge(DecisionAction::Buy, "4"), allowed("2", &[RiskRule::Capital]));
    assert_eq!(judge(DecisionAction::Sell, "9"), allowed("6", &[RiskRule::Capital]));
    assert_eq!(judge(DecisionAction::Buy, "4"), RiskOutcome::Denied(RiskRule::QtyLessThanOneShare));
}

/// What another RISK took from a decision does not count against the next one, and its own word stays on record.
#[test]
fn a_risk_of_others_lowers_or_denies_and_the_own_rules_hold_behind_it() {
    use RiskOutcome::{Denied, Held};
    let limits = RiskLimits { capital: dec("1000"), max_position_size: dec("900"), ..LIMITS };
    let symbols = [Symbol::from("AAPL")];
    let mut risk = BuiltInRisk::new(limits);
    let mut judge = |symbol: &str, quantity: &str, theirs: RiskOutcome| {
        let decision = decision("d", "momentum", symbol, quantity);
        let input = RiskInput {
            quantity: decision.suggested_quantity,
            price: Some(dec("150")),
            symbols: &symbols,
            mode: RiskMode::Normal,
            order_unknown: false,
        };
        risk.judge_behind(&decision, input, &theirs).outcome
    };

    assert_eq!(judge("AAPL", "5", Denied(RiskRule::Capital)), Denied(RiskRule::Capital), "its own word");
    assert_eq!(judge("AAPL", "5", Held), Held);
    assert_eq!(judge("MSFT", "5", allowed("5", &[])), Denied(RiskRule::SymbolNotInStrategy));
    assert_eq!(
        judge("AAPL", "5", allowed("2", &[RiskRule::Mode])),
        allowed("2", &[RiskRule::Mode, RiskRule::Provider])
    );
    let cheap = RiskOutcome::Allowed { quantity: dec("100"), price: dec("0.01"), lowered_by: vec![] };
    assert_eq!(judge("AAPL", "100", cheap), allowed("4", &[RiskRule::MaxPositionSize, RiskRule::Capital]));
    assert_eq!(judge("AAPL", "5", allowed("5", &[])), Denied(RiskRule::QtyLessThanOneShare));
}

#[test]
fn a_verdict_keeps_to_what_was_suggested() {
    let verdict = |quantity: &str, price: &str| RiskVerdict {
        decision_id: DecisionId::new("d").unwrap(),
        outcome: RiskOutcome::Allowed { quantity: dec(quantity), price: dec(price), lowered_by: vec![] },
    };
    for (quantity, price, suggested, keeps) in [
        ("5", "1", Some("5"), true),
        ("5", "1", None, true),
        ("6", "1", Some("5"), false),
        ("0", "1", None, false),
        ("1.5", "1", None, false),
        ("-1", "1", None, false),
        ("1", "0", None, false),
    ] {
        assert_eq!(verdict(quantity, price).keeps_to(suggested.map(dec)), keeps, "{quantity} at {price}");
    }
}

#[test]
fn the_stricter_mode_holds() {
    use RiskMode::*;
    for (a, b, stricter) in [
        (Normal, Conservative, Conservative),
        (Aggressive, Conservative, Conservative),
        (Aggressive, Normal, Normal),
        (Aggressive, Aggressive, Aggressive),
    ] {
        assert_eq!((a.stricter_mode(b), b.stricter_mode(a)), (stricter, stricter));
    }
}

fn any_outcome() -> impl Strategy<Value = RiskOutcome> {
    prop_oneof![
        (0..500i64).prop_map(|q| RiskOutcome::Allowed {
            quantity: Decimal::from(q),
            price: dec("150"),
            lowered_by: vec![],
        }),
        Just(RiskOutcome::Held),
        Just(RiskOutcome::Denied(RiskRule::Provider)),
    ]
}

const fn shares(outcome: &RiskOutcome) -> Decimal {
    match outcome {
        RiskOutcome::Allowed { quantity, .. } => *quantity,
        RiskOutcome::Held | RiskOutcome::Denied(_) => Decimal::ZERO,
    }
}

proptest! {
    #[test]
    fn no_verdict_is_above_what_was_asked(
        quantity in 0..100_000u32,
        cents in 1..100_000u32,
        capital in 0..200_000u32,
        cap in 0..50_000u32,
        mode in 0..3usize,
    ) {
        let mode = [RiskMode::Conservative, RiskMode::Normal, RiskMode::Aggressive][mode];
        let outcome = judged(|_, input, limits| {
            input.quantity = Some(Decimal::new(quantity.into(), 1));
            input.price = Some(Decimal::new(cents.into(), 2));
            input.mode = mode;
            limits.capital = capital.into();
            limits.max_position_size = cap.into();
        });
        let got = shares(&outcome);

        prop_assert!(got <= Decimal::new(quantity.into(), 1));
        prop_assert!(got * Decimal::new(cents.into(), 2) <= Decimal::from(capital.min(cap)));
        prop_assert_eq!(got, got.floor());
    }

    #[test]
    fn another_risk_only_narrows(ours in any_outcome(), theirs in any_outcome()) {
        let decision_id = DecisionId::new("d").unwrap();
        let narrowed = RiskVerdict { decision_id, outcome: ours.clone() }.narrowed_by(&theirs).outcome;

        prop_assert!(shares(&narrowed) <= shares(&ours) && shares(&narrowed) <= shares(&theirs));
    }
}
