//! The broker's promises, by example and over random histories.

use proptest::prelude::*;

use super::*;
use orchestrator_kernel::ids::Symbol;

/// 2025-01-02T15:00:00Z, a Thursday.
const NOW: TsMs = TsMs(1_735_830_000_000);
const SOON: i64 = 20;

fn market(symbol: &str, side: OrderSide, qty: u64) -> OrderContent {
    OrderContent::market_order(Symbol::from(symbol), side, qty)
}

fn limit(side: OrderSide, qty: u64, price: &str, time_in_force: TimeInForce) -> OrderContent {
    OrderContent {
        order_type: OrderType::Limit,
        limit_price: Some(price.parse().unwrap()),
        time_in_force,
        ..market("AAPL", side, qty)
    }
}

fn id_of(content: &OrderContent) -> ClientOrderId {
    ClientOrderId::derive(content, "alpha_baseline", UtcDate::at_moment(NOW))
}

/// Places an order; its id.
fn place(
    broker: &mut PaperBroker,
    content: &OrderContent,
    change: impl FnOnce(&mut BrokerPlan),
) -> ClientOrderId {
    let mut plan = BrokerPlan::undisturbed(SOON);
    change(&mut plan);
    let id = id_of(content);
    assert_eq!(broker.place_order(id, content.clone(), plan, NOW), Ok(vec![BrokerEffect::Placed(id)]));
    id
}

fn told(broker: &PaperBroker, id: ClientOrderId) -> (&'static str, u64, u64) {
    let order = broker.order(id).unwrap();
    (order.status.as_str(), order.told_qty, order.filled_qty())
}

fn held(broker: &PaperBroker, symbol: &str) -> i64 {
    broker.positions().get(symbol).map_or(0, |position| position.qty.try_into().unwrap())
}

#[test]
fn a_market_order_is_filled_after_its_time_and_not_before() {
    let mut broker = PaperBroker::new(7);
    let id = place(&mut broker, &market("AAPL", OrderSide::Buy, 133), |_| {});

    assert_eq!(broker.advance_to(NOW.plus_ms(SOON - 1)), []);
    assert_eq!(told(&broker, id), ("pending_new", 0, 0));

    let effects = broker.advance_to(NOW.plus_ms(SOON));
    assert_eq!(effects.len(), 2, "{effects:?}");
    assert_eq!(told(&broker, id), ("filled", 133, 133));
    assert_eq!(held(&broker, "AAPL"), 133);
    let price = broker.quote("AAPL", NOW);
    assert_eq!(broker.order(id).unwrap().told_price, Some(price.normalize()));
}

#[test]
fn an_id_is_placed_once_whatever_became_of_it() {
    let mut broker = PaperBroker::new(7);
    let content = market("AAPL", OrderSide::Buy, 1);
    let id = place(&mut broker, &content, |plan| plan.vanishes_after_ms = Some(1));

    broker.advance_to(NOW.plus_ms(1_000));

    assert_eq!(broker.visible_order(id, NOW.plus_ms(1_000)), None);
    let again = broker.place_order(id, content, BrokerPlan::undisturbed(0), NOW);
    assert_eq!(again, Err(MustBeUnique));
}

#[test]
fn parts_add_up_and_each_is_a_cent_worse() {
    let mut broker = PaperBroker::new(7);
    let id = place(&mut broker, &market("AAPL", OrderSide::Sell, 10), |plan| {
        plan.fills = FillPlan::Parts { parts: 3, every_ms: 5 };
    });

    broker.advance_to(NOW.plus_ms(SOON + 5));
    assert_eq!(told(&broker, id), ("partially_filled", 7, 7));
    broker.advance_to(NOW.plus_ms(SOON + 10));

    let order = broker.order(id).unwrap();
    let parts: Vec<(u64, u64)> = order.fills.iter().map(|fill| (fill.qty, fill.cumulative)).collect();
    assert_eq!(parts, [(4, 4), (3, 7), (3, 10)]);
    assert_eq!(order.fills[0].price - order.fills[2].price, Decimal::new(2, 2));
    assert_eq!((told(&broker, id), held(&broker, "AAPL")), (("filled", 10, 10), -10));
}

#[test]
fn a_fill_that_overtakes_its_cancel_stands_in_the_fills_alone() {
    let mut broker = PaperBroker::new(7);
    let id = place(&mut broker, &market("AAPL", OrderSide::Buy, 10), |plan| {
        plan.fills = FillPlan::Only { qty: 5 };
        plan.cancel = CancelPlan::Overtaken { after_ms: 30, qty: None };
    });
    broker.advance_to(NOW.plus_ms(SOON));

    let (reply, effects) = broker.cancel_order(id, NOW.plus_ms(SOON));
    assert_eq!((reply, effects), (CancelReply::Requested(OrderStatus::Canceled), Vec::new()));
    broker.advance_to(NOW.plus_ms(SOON + 30));

    // As measured on the real one: canceled, filled_qty 5, position 10.
    assert_eq!((told(&broker, id), held(&broker, "AAPL")), (("canceled", 5, 10), 10));
    let again = broker.cancel_order(id, NOW.plus_ms(SOON + 31)).0;
    assert_eq!(again, CancelReply::AlreadyTerminal(OrderStatus::Canceled));
}

#[test]
fn a_lost_cancel_changes_nothing_and_a_late_one_leaves_time_for_fills() {
    let mut broker = PaperBroker::new(7);
    let parts = FillPlan::Parts { parts: 4, every_ms: 10 };
    let lost = place(&mut broker, &market("AAPL", OrderSide::Buy, 4), |plan| {
        (plan.fills, plan.cancel) = (parts, CancelPlan::Lost);
    });
    let late = place(&mut broker, &market("MSFT", OrderSide::Buy, 4), |plan| {
        (plan.fills, plan.cancel) = (parts, CancelPlan::Late { after_ms: 11 });
    });
    broker.advance_to(NOW.plus_ms(SOON));
    for id in [lost, late] {
        broker.cancel_order(id, NOW.plus_ms(SOON));
    }

    assert_eq!(told(&broker, lost), ("partially_filled", 1, 1));
    broker.advance_to(NOW.plus_ms(1_000));
    assert_eq!(told(&broker, lost), ("filled", 4, 4));
    assert_eq!(told(&broker, late), ("canceled", 1, 2));
}

#[test]
fn a_resting_order_is_filled_when_the_quote_comes_to_it_or_expires() {
    let mut broker = PaperBroker::new(7);
    broker.set_quote("AAPL", Decimal::from(150), NOW);
    let day = place(&mut broker, &limit(OrderSide::Buy, 5, "140.00", TimeInForce::Day), |_| {});
    let gtc = place(&mut broker, &limit(OrderSide::Buy, 6, "145.00", TimeInForce::Gtc), |_| {});
    let ioc = place(&mut broker, &limit(OrderSide::Buy, 7, "140.00", TimeInForce::Ioc), |_| {});

    broker.advance_to(NOW.plus_ms(SOON));
    assert_eq!([day, gtc, ioc].map(|id| told(&broker, id).0), ["new", "new", "canceled"]);

    broker.set_quote("AAPL", Decimal::from(144), NOW.plus_ms(100));
    broker.advance_to(NOW.plus_ms(100));
    assert_eq!(told(&broker, gtc), ("filled", 6, 6));
    assert_eq!(broker.order(gtc).unwrap().fills[0].price, Decimal::from(144));

    broker.advance_to(next_midnight(NOW));
    assert_eq!(told(&broker, day), ("expired", 0, 0));
}

#[test]
fn a_frozen_record_tells_nothing_of_its_fills() {
    let mut broker = PaperBroker::new(7);
    let id = place(&mut broker, &market("AAPL", OrderSide::Buy, 10), |_| {});
    broker.freeze_record(id, OrderStatus::Rejected, None);

    broker.advance_to(NOW.plus_ms(SOON));

    assert_eq!((told(&broker, id), held(&broker, "AAPL")), (("rejected", 0, 10), 10));
}

#[test]
fn an_order_is_hidden_for_its_time() {
    let mut broker = PaperBroker::new(7);
    let id = place(&mut broker, &market("AAPL", OrderSide::Buy, 1), |plan| plan.hidden_ms = 50);

    assert!(broker.visible_order(id, NOW.plus_ms(49)).is_none());
    assert!(broker.visible_order(id, NOW.plus_ms(50)).is_some());
}

fn any_plan() -> impl Strategy<Value = BrokerPlan> {
    let fills = prop_oneof![
        Just(FillPlan::Whole),
        (1..9u64, 0..40i64).prop_map(|(parts, every_ms)| FillPlan::Parts { parts, every_ms }),
        (0..40u64).prop_map(|qty| FillPlan::Only { qty }),
        Just(FillPlan::Never),
    ];
    let cancel = prop_oneof![
        Just(CancelPlan::AtOnce),
        (0..60i64).prop_map(|after_ms| CancelPlan::Late { after_ms }),
        Just(CancelPlan::Lost),
        (0..60i64, proptest::option::of(0..40u64))
            .prop_map(|(after_ms, qty)| CancelPlan::Overtaken { after_ms, qty }),
    ];
    (0..50i64, fills, cancel, proptest::option::weighted(0.1, 0..100i64)).prop_map(
        |(fill_after_ms, fills, cancel, vanishes_after_ms)| BrokerPlan {
            fills,
            cancel,
            vanishes_after_ms,
            ..BrokerPlan::undisturbed(fill_after_ms)
        },
    )
}

#[derive(Clone, Debug)]
enum Act {
    Place { symbol: usize, side: OrderSide, qty: u64, limit: Option<u32>, tif: TimeInForce, plan: BrokerPlan },
    Cancel { order: usize },
    Quote { symbol: usize, price: u32 },
    Wait { ms: i64 },
}

fn any_act() -> impl Strategy<Value = Act> {
    let side = prop_oneof![Just(OrderSide::Buy), Just(OrderSide::Sell)];
    let tif = prop_oneof![
        Just(TimeInForce::Day),
        Just(TimeInForce::Gtc),
        Just(TimeInForce::Ioc),
        Just(TimeInForce::Fok)
    ];
    let limit = proptest::option::of(90..110u32);
    prop_oneof![
        4 => (0..3usize, side, 1..40u64, limit, tif, any_plan()).prop_map(|(symbol, side, qty, limit, tif, plan)| {
            Act::Place { symbol, side, qty, limit, tif, plan }
        }),
        2 => (0..20usize).prop_map(|order| Act::Cancel { order }),
        1 => (0..3usize, 90..110u32).prop_map(|(symbol, price)| Act::Quote { symbol, price }),
        4 => prop_oneof![9 => 0..60i64, 1 => Just(DAY_MS)].prop_map(|ms| Act::Wait { ms }),
    ]
}

/// A history of acts: the effects, and the broker at its end.
fn play(acts: &[Act]) -> (Vec<BrokerEffect>, PaperBroker) {
    let symbols = ["AAPL", "MSFT", "TSLA"];
    let mut broker = PaperBroker::new(3);
    let (mut effects, mut placed, mut now) = (Vec::new(), Vec::new(), NOW);
    for symbol in symbols {
        broker.set_quote(symbol, Decimal::from(100), now);
    }
    for act in acts {
        effects.extend(broker.advance_to(now));
        match act {
            Act::Place { symbol, side, qty, limit, tif, plan } => {
                let mut content = market(symbols[*symbol], *side, *qty);
                content.time_in_force = *tif;
                if let Some(limit) = limit {
                    (content.order_type, content.limit_price) = (OrderType::Limit, Some((*limit).into()));
                }
                let id = ClientOrderId::derive(&content, "alpha_baseline", UtcDate::at_moment(now));
                if let Ok(more) = broker.place_order(id, content, *plan, now) {
                    effects.extend(more);
                    placed.push(id);
                }
            }
            Act::Cancel { order } => {
                if let Some(id) = placed.get(*order) {
                    effects.extend(broker.cancel_order(*id, now).1);
                }
            }
            Act::Quote { symbol, price } => broker.set_quote(symbols[*symbol], (*price).into(), now),
            Act::Wait { ms } => now = now.plus_ms(*ms),
        }
    }
    effects.extend(broker.advance_to(now.plus_ms(40 * DAY_MS)));
    (effects, broker)
}

proptest! {
    /// Whatever is sent, canceled and quoted: never more than ordered, fills cumulative, each id placed once, the
    /// positions exactly what the fills made of them, and no order both ended and filled afterwards.
    #[test]
    fn every_history_keeps_the_books(acts in proptest::collection::vec(any_act(), 1..40)) {
        let (effects, broker) = play(&acts);
        let mut placed = std::collections::BTreeSet::new();
        let mut ended = std::collections::BTreeSet::new();
        let mut shares: BTreeMap<&str, Decimal> = BTreeMap::new();
        for effect in &effects {
            match effect {
                BrokerEffect::Placed(id) => prop_assert!(placed.insert(*id), "{} was placed twice", id),
                BrokerEffect::Filled(id, fill) => {
                    prop_assert!(placed.contains(id) && !ended.contains(id), "{id} is filled and does not work");
                    let content = &broker.order(*id).unwrap().content;
                    *shares.entry(content.symbol.as_str()).or_default() += content.side.signed_qty(fill.qty.into());
                }
                BrokerEffect::Ended(id) => prop_assert!(ended.insert(*id), "{id} ended twice"),
            }
        }
        for id in &placed {
            let order = broker.order(*id).unwrap();
            let mut before = 0;
            for fill in &order.fills {
                prop_assert!(0 < fill.qty && fill.cumulative == before + fill.qty);
                before = fill.cumulative;
            }
            prop_assert!(before <= order.content.qty && order.told_qty <= before);
            if order.status == OrderStatus::Filled {
                prop_assert_eq!(order.told_qty, order.content.qty);
            }
            if let Some(limit) = order.content.limit_price {
                let is_worse = |fill: &PaperFill| match order.content.side {
                    OrderSide::Buy => limit < fill.price,
                    OrderSide::Sell => fill.price < limit,
                };
                prop_assert!(!order.fills.iter().any(is_worse), "{order:?}");
            }
        }
        let mut open: BTreeMap<(&str, OrderSide), u64> = BTreeMap::new();
        for order in placed.iter().map(|id| broker.order(*id).unwrap()) {
            if order.broker == BrokerSide::Working {
                *open.entry((order.content.symbol.as_str(), order.content.side)).or_default() += order.remaining_qty();
            }
        }
        for ((symbol, side), working) in &broker.working {
            prop_assert_eq!(open.get(&(symbol.as_str(), *side)).copied().unwrap_or(0), *working);
        }
        for (symbol, qty) in shares {
            prop_assert_eq!(broker.positions()[symbol].qty, qty);
        }
    }

    /// The same history gives the same effects, however often the time is brought in between.
    #[test]
    fn effects_follow_from_the_history_alone(acts in proptest::collection::vec(any_act(), 1..20)) {
        let slower: Vec<Act> = acts
            .iter()
            .flat_map(|act| match act {
                Act::Wait { ms } => vec![Act::Wait { ms: ms / 2 }, Act::Wait { ms: ms - ms / 2 }],
                other => vec![other.clone()],
            })
            .collect();

        prop_assert_eq!(play(&acts).0, play(&slower).0);
    }
}
