//! Any order at any gateway: a model gateway that may have it, loses answers, and fills when it likes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Behaviour of the gateway towards one request.
#[derive(Clone, Copy, Debug)]
enum Whim {
    AcceptAndAnswer,
    AcceptInSilence,
    /// It arrives only after this many seconds.
    ArriveLate(i64),
    Lose,
    Gate,
    Limit,
    Reject,
}

fn whim() -> impl Strategy<Value = Whim> {
    prop_oneof![
        1 => Just(Whim::AcceptAndAnswer),
        2 => Just(Whim::AcceptInSilence),
        2 => (0..120i64).prop_map(Whim::ArriveLate),
        3 => Just(Whim::Lose),
        2 => Just(Whim::Gate),
        1 => Just(Whim::Limit),
        1 => Just(Whim::Reject),
    ]
}

/// A gateway that derives ids from its own clock and places each id once.
struct ModelGateway {
    content: OrderContent,
    /// Its clock minus ours.
    skew_ms: i64,
    /// Time and filled shares of each order.
    placed: BTreeMap<ClientOrderId, (TsMs, u32)>,
    on_the_way: Vec<TsMs>,
    requests: u32,
    is_canceled: bool,
    /// Cancels that it lost.
    cancels_lost: u32,
    /// Shares that are filled after the cancel.
    late: u32,
}

/// Cancels that a gateway loses one after the other.
const CANCELS_LOST_MAX: u32 = 20;

impl ModelGateway {
    fn place(&mut self, at: TsMs) -> ClientOrderId {
        let date = UtcDate::at_moment(at.plus_ms(self.skew_ms));
        let id = ClientOrderId::derive(&self.content, "alpha_baseline", date);
        self.placed.entry(id).or_insert((at, 0));
        id
    }

    /// Requests that were on their way arrive.
    fn pass_to(&mut self, now: TsMs) {
        let (arrived, waiting): (Vec<_>, _) = self.on_the_way.drain(..).partition(|at| *at <= now);
        self.on_the_way = waiting;
        for at in arrived {
            self.place(at);
        }
    }

    fn answer(&mut self, order: &mut PlayedOrder, whim: Whim) {
        self.requests += 1;
        match whim {
            Whim::AcceptAndAnswer => {
                let id = self.place(order.now);
                order.answer(OrderOutcome::Known {
                    id,
                    status: OrderStatus::Accepted,
                    broker_order_id: None,
                });
            }
            Whim::AcceptInSilence => {
                self.place(order.now);
                order.silence();
            }
            Whim::ArriveLate(seconds) => {
                self.on_the_way.push(order.now.plus_ms(seconds * 1000));
                order.silence();
            }
            Whim::Gate => {
                order.answer(gate());
            }
            Whim::Limit => {
                let until = order.now.plus_ms(60_000);
                order.answer(limited(until));
            }
            // A gateway that has an order answers a repeat with it, and does not reject what it has.
            Whim::Reject if self.placed.is_empty() && self.on_the_way.is_empty() => {
                order.answer(rejected());
            }
            Whim::Reject | Whim::Lose => {
                order.silence();
            }
        }
    }

    /// A cancel that is answered as done although the broker may still fill, or one that is lost.
    fn cancel(&mut self, order: &mut PlayedOrder, is_lost: bool) {
        // A gateway that loses every cancel for ever leaves an order open for ever, which is true.
        let is_lost = is_lost && self.cancels_lost < CANCELS_LOST_MAX;
        self.cancels_lost += u32::from(is_lost);
        self.is_canceled |= !is_lost;
        let answer = match is_lost {
            true => CancelAnswer::Unknown { why: "timeout".to_owned() },
            false => CancelAnswer::Requested,
        };
        order.apply(&OrderEvent::CancelAnswered { at: order.now, answer });
    }

    fn read(&mut self, order: &mut PlayedOrder, ids: &[ClientOrderId], fills: bool) {
        let position = match self.placed.is_empty() {
            true => PositionCheck::Unmoved,
            false => PositionCheck::Moved,
        };
        let reading = match ids.iter().find(|id| self.placed.contains_key(id)) {
            None => OrderReading::Absent,
            Some(id) => OrderReading::Found(self.view(order, *id, fills)),
        };
        order.read(reading, position);
    }

    fn view(&mut self, order: &PlayedOrder, id: ClientOrderId, fills: bool) -> OrderView {
        let (created_at, filled) = self.placed.get_mut(&id).unwrap();
        let before = *filled;
        let more = if self.is_canceled { std::mem::take(&mut self.late) } else { u32::from(fills) * 4 };
        *filled = (before + more).min(QTY);
        let spans = if *filled == before { vec![] } else { vec![(*filled, *filled - before)] };
        let status = match (*filled == QTY, self.is_canceled) {
            (true, false) => OrderStatus::Filled,
            // The late fill does not change the status.
            (_, true) => OrderStatus::Canceled,
            (false, false) => OrderStatus::PartiallyFilled,
        };
        OrderView { id, created_at: *created_at, ..order.view(status, &spans) }
    }
}

/// Does what the order says, until nothing is left to do or a human is asked. Returns its end.
fn play(
    order: &mut PlayedOrder,
    gateway: &mut ModelGateway,
    mut whim: impl FnMut() -> Whim,
    mut fills: impl FnMut() -> bool,
    cancel_at: Option<TsMs>,
) -> Option<OrderEnd> {
    let mut end = None;
    for _ in 0..4000 {
        gateway.pass_to(order.now);
        if cancel_at.is_some_and(|at| at <= order.now) && !order.life.cancel_wanted {
            order.apply(&OrderEvent::CancelWanted { at: order.now, why: "no longer".to_owned() });
        }
        match order.next() {
            OrderNext::Send => {
                order.send();
                gateway.answer(order, whim());
            }
            OrderNext::GiveUpAnswer => {
                order.silence();
            }
            OrderNext::Read(ids) => gateway.read(order, &ids, fills()),
            OrderNext::Cancel(_) => gateway.cancel(order, fills()),
            OrderNext::SettleAbsent => drop(order.apply(&OrderEvent::SettledAbsent { at: order.now })),
            OrderNext::WaitUntil(until) => {
                assert!(order.now < until, "waits for the past");
                order.now = until;
            }
            OrderNext::End(found) => {
                assert_eq!(end, None, "ends twice");
                order.apply(&OrderEvent::Ended { at: order.now, end: found.clone() });
                end = Some(found);
            }
            OrderNext::AskOperator(_) | OrderNext::Nothing => return end,
        }
    }
    panic!("an order goes on for ever: {:?}", order.life)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// ORD-1, ORD-2, ORD-3: whatever the gateway does, and whenever somebody wants it canceled, there is at most one
    /// order of an intent, an order that is there is never called rejected or not placed, and what was filled is what
    /// was counted, also after the cancel.
    #[test]
    fn one_intent_is_at_most_one_order_and_ends_as_it_is(
        whims in prop::collection::vec(whim(), 1..12), to_midnight in 0..1200i64,
        skew_ms in -150_000..150_000i64, fills in prop::collection::vec(any::<bool>(), 1..8),
        cancel_after_s in prop::option::of(0..900i64), late in 0..4u32,
    ) {
        let mut order = PlayedOrder::at(MIDNIGHT.plus_ms(-to_midnight * 1000));
        let content = order.life.intent().content.clone();
        let (placed, on_the_way) = (BTreeMap::new(), Vec::new());
        let mut gateway =
            ModelGateway { content, skew_ms, placed, on_the_way, requests: 0, is_canceled: false,
            cancels_lost: 0, late };
        let (mut whims, mut fills) = (whims.iter().cycle(), fills.iter().chain([&true, &false]).cycle());
        let cancel_at = cancel_after_s.map(|seconds| order.now.plus_ms(seconds * 1000));

        let (whim, fill) = (|| *whims.next().unwrap(), || *fills.next().unwrap());
        let end = play(&mut order, &mut gateway, whim, fill, cancel_at);

        gateway.pass_to(order.now.plus_ms(1_000_000));
        prop_assert!(gateway.placed.len() <= 1, "{} orders of one intent", gateway.placed.len());
        prop_assert!(gateway.requests <= 40);
        let filled: u32 = gateway.placed.values().map(|(_, filled)| *filled).sum();
        match end {
            Some(OrderEnd::Rejected { .. } | OrderEnd::NotPlaced { .. }) => {
                prop_assert!(gateway.placed.is_empty());
            }
            Some(OrderEnd::Status(_)) => prop_assert_eq!(order.life.fills().filled_qty(), Decimal::from(filled)),
            other => prop_assert!(other.is_none(), "{other:?}"),
        }
        let stored = postcard::to_stdvec(&order.life).unwrap();
        prop_assert_eq!(postcard::from_bytes::<OrderLife>(&stored).unwrap(), order.life);
    }
}
