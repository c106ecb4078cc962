//! The paper broker and the gateway's record of its orders, as a pure state machine: orders, cancels, quotes and the
//! time go in; effects come out.
//!
//! ```text
//!            the broker's side                     the gateway's record (what is told)
//! accept ──▶ working ──fills──▶ ended              pending_new ─▶ new ─▶ partially_filled ─▶ filled
//!               │ cancel, midnight                 │ a frozen record changes no more: later fills
//!               └──────────────▶ ended             └ stand in `metadata.fills` and in the positions alone
//! ```
//!
//! Nothing here reads a clock: what is due happens in its order when the time is brought.

use std::collections::BTreeMap;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::order::id::{ClientOrderId, UtcDate};
use orchestrator_kernel::trading::order::status::{OrderStatus, StatusClass};
use orchestrator_kernel::trading::order::{OrderContent, OrderSide, OrderType, TimeInForce};
use rust_decimal::Decimal;

use super::bars::PaperBars;
use super::positions::PaperPosition;

mod record;

pub(super) use record::{BrokerSide, PaperFill, PaperOrder};

const DAY_MS: i64 = 86_400_000;
/// Most parts in which an order is filled.
pub(super) const PARTS_MAX: u64 = 100;

/// Fills that an order gets once its price is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillPlan {
    /// All at once, the usual time after the acceptance.
    Whole,
    /// In so many parts, with so much time between them.
    Parts {
        /// Parts; fewer when there are fewer shares.
        parts: u64,
        /// Time from one to the next.
        every_ms: i64,
    },
    /// So many shares and then nothing.
    Only {
        /// The shares.
        qty: u64,
    },
    /// None.
    Never,
}

/// What a cancel does at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelPlan {
    /// Ends the order at once.
    AtOnce,
    /// Ends it later: what is due before is still filled, although the gateway says canceled.
    Late {
        /// Time until the broker has done it.
        after_ms: i64,
    },
    /// Is answered and does nothing.
    Lost,
    /// Comes too late: shares are filled after the gateway has said canceled.
    Overtaken {
        /// Time until the fill.
        after_ms: i64,
        /// Shares of it; all that are left without.
        qty: Option<u64>,
    },
}

/// How `metadata.fills` tells the fills of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillTelling {
    /// Each once, in order.
    Plain,
    /// Each twice.
    Twice,
    /// The newest first.
    Reversed,
}

/// All that is decided about an order when it is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerPlan {
    /// Time from the acceptance to the first fill, or to `new` without one.
    pub fill_after_ms: i64,
    /// Its fills.
    pub fills: FillPlan,
    /// What a cancel does.
    pub cancel: CancelPlan,
    /// How its fills are told.
    pub telling: FillTelling,
    /// Time for which reads do not find it.
    pub hidden_ms: i64,
    /// Time after which it is gone from the gateway, and ends at the broker with what it has.
    pub vanishes_after_ms: Option<i64>,
}

impl BrokerPlan {
    /// No fault: filled as a whole `fill_after_ms` after the acceptance.
    #[must_use]
    pub const fn undisturbed(fill_after_ms: i64) -> Self {
        Self {
            fill_after_ms,
            fills: FillPlan::Whole,
            cancel: CancelPlan::AtOnce,
            telling: FillTelling::Plain,
            hidden_ms: 0,
            vanishes_after_ms: None,
        }
    }
}

/// Change that the broker made: what the ledger counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BrokerEffect {
    /// An order was placed.
    Placed(ClientOrderId),
    /// Shares of it were filled.
    Filled(ClientOrderId, PaperFill),
    /// It ended with what it had.
    Ended(ClientOrderId),
}

/// The broker has an order of this id: it never takes a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client_order_id must be unique")]
pub(super) struct MustBeUnique;

/// Answer to a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CancelReply {
    /// The gateway has no such order.
    NotFound,
    /// It had ended before.
    AlreadyTerminal(OrderStatus),
    /// Asked for.
    Requested(OrderStatus),
}

/// Something that happens to an order at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DueStep {
    Acknowledge,
    Fill { qty: u64, price: Decimal },
    EndAtBroker,
    Midnight,
    Vanish,
}

/// Orders, positions and what is due, in memory.
#[derive(Debug)]
pub(super) struct PaperBroker {
    seed: u64,
    bars: PaperBars,
    /// Quotes that an operator set, over the market's.
    quotes: BTreeMap<String, Decimal>,
    orders: BTreeMap<ClientOrderId, PaperOrder>,
    positions: BTreeMap<String, PaperPosition>,
    /// Shares that working orders may still buy or sell.
    working: BTreeMap<(String, OrderSide), u64>,
    /// By moment, and among equal ones in the order in which they were planned.
    due: BTreeMap<(TsMs, u64), (ClientOrderId, DueStep)>,
    planned: u64,
}

impl PaperBroker {
    /// A broker without orders in the market of `seed`.
    #[must_use]
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            seed,
            bars: PaperBars::new(seed),
            quotes: BTreeMap::new(),
            orders: BTreeMap::new(),
            positions: BTreeMap::new(),
            working: BTreeMap::new(),
            due: BTreeMap::new(),
            planned: 0,
        }
    }

    /// Orders on record, those included that were refused.
    #[must_use]
    pub(super) fn orders_count(&self) -> usize {
        self.orders.len()
    }

    /// The order, whether reads find it or not.
    #[must_use]
    pub(super) fn order(&self, id: ClientOrderId) -> Option<&PaperOrder> {
        self.orders.get(&id)
    }

    /// The order as a read at `now` finds it.
    #[must_use]
    pub(super) fn visible_order(&self, id: ClientOrderId, now: TsMs) -> Option<&PaperOrder> {
        self.orders.get(&id).filter(|order| !order.is_gone && order.hidden_until <= now)
    }

    /// Positions that are or were held, by symbol.
    #[must_use]
    pub(super) const fn positions(&self) -> &BTreeMap<String, PaperPosition> {
        &self.positions
    }

    /// The price of `symbol` at `now`.
    #[must_use]
    pub(super) fn quote(&self, symbol: &str, now: TsMs) -> Decimal {
        match self.quotes.get(symbol) {
            Some(quote) => *quote,
            None => self.bars.price_on(symbol, UtcDate::at_moment(now)),
        }
    }

    /// Shares of `symbol` if every working order on `side`, and `qty` more, were filled.
    #[must_use]
    pub(super) fn projected_qty(&self, symbol: &str, side: OrderSide, qty: u64) -> Decimal {
        let held = self.positions.get(symbol).map_or(Decimal::ZERO, |position| position.qty);
        let open = self.working.get(&(symbol.to_owned(), side)).copied().unwrap_or(0);
        held + side.signed_qty(Decimal::from(open) + Decimal::from(qty))
    }

    /// Places an order at the broker and on record, as `pending_new`.
    ///
    /// # Errors
    ///
    /// [`MustBeUnique`]: the broker has this id. Nothing was placed.
    pub(super) fn place_order(
        &mut self,
        id: ClientOrderId,
        content: OrderContent,
        plan: BrokerPlan,
        now: TsMs,
    ) -> Result<Vec<BrokerEffect>, MustBeUnique> {
        if self.orders.get(&id).is_some_and(|order| order.broker != BrokerSide::Never) {
            return Err(MustBeUnique);
        }
        let mut order = PaperOrder::on_record(id, content, OrderStatus::PendingNew, now);
        order.broker = BrokerSide::Working;
        let open = (order.content.symbol.as_str().to_owned(), order.content.side);
        *self.working.entry(open).or_default() += order.content.qty;
        order.broker_order_id = Some(record::broker_order_id(self.seed, id));
        order.plan = plan;
        order.hidden_until = now.plus_ms(plan.hidden_ms);
        self.orders.insert(id, order);
        let first = now.plus_ms(plan.fill_after_ms);
        self.plan_step(first, id, DueStep::Acknowledge);
        if let Some(after_ms) = plan.vanishes_after_ms {
            self.plan_step(now.plus_ms(after_ms), id, DueStep::Vanish);
        }
        self.plan_step(next_midnight(now), id, DueStep::Midnight);
        self.match_order(id, first, now);
        Ok(vec![BrokerEffect::Placed(id)])
    }

    /// Puts an order on record that never got to the broker: refused, or logged in dry run. An order that is there
    /// stays as it is.
    pub(super) fn record_order(
        &mut self,
        id: ClientOrderId,
        content: OrderContent,
        status: OrderStatus,
        error_message: Option<String>,
        now: TsMs,
    ) {
        self.orders.entry(id).or_insert_with(|| {
            let mut order = PaperOrder::on_record(id, content, status, now);
            order.error_message = error_message;
            order
        });
    }

    /// Freezes the record of an order in a status that the broker knows nothing of.
    pub(super) fn freeze_record(
        &mut self,
        id: ClientOrderId,
        status: OrderStatus,
        error_message: Option<String>,
    ) {
        if let Some(order) = self.orders.get_mut(&id) {
            order.status = status;
            order.is_frozen = true;
            order.error_message = error_message;
            order.broker_order_id = None;
        }
    }

    /// Lets happen what is due until `now`.
    pub(super) fn advance_to(&mut self, now: TsMs) -> Vec<BrokerEffect> {
        let mut effects = Vec::new();
        while let Some(entry) = self.due.first_entry() {
            let (at, _) = *entry.key();
            if now < at {
                break;
            }
            let (id, step) = entry.remove();
            self.take_step(id, step, at, &mut effects);
        }
        effects
    }

    /// Asks for a cancel. Call [`advance_to`](Self::advance_to) first: what was due before is not undone.
    pub(super) fn cancel_order(&mut self, id: ClientOrderId, now: TsMs) -> (CancelReply, Vec<BrokerEffect>) {
        let Some(order) = self.orders.get_mut(&id).filter(|order| !order.is_gone) else {
            return (CancelReply::NotFound, Vec::new());
        };
        if order.is_frozen || order.status.class() != StatusClass::Open {
            return (CancelReply::AlreadyTerminal(order.status), Vec::new());
        }
        let mut effects = Vec::new();
        let (plan, left, content) = (order.plan.cancel, order.remaining_qty(), order.content.clone());
        if plan != CancelPlan::Lost {
            // The gateway says so at once, before the broker has confirmed it.
            order.status = OrderStatus::Canceled;
            order.is_frozen = true;
            order.updated_at = now;
        }
        match plan {
            CancelPlan::AtOnce => self.end_at_broker(id, now, &mut effects),
            CancelPlan::Late { after_ms } => self.plan_step(now.plus_ms(after_ms), id, DueStep::EndAtBroker),
            CancelPlan::Lost => {}
            CancelPlan::Overtaken { after_ms, qty } => {
                let qty = qty.unwrap_or(left).min(left);
                let price = part_price(&content, self.quote(content.symbol.as_str(), now), 0);
                self.due.retain(|_, (owner, step)| *owner != id || !matches!(step, DueStep::Fill { .. }));
                let at = now.plus_ms(after_ms);
                self.plan_step(at, id, DueStep::Fill { qty, price });
                self.plan_step(at, id, DueStep::EndAtBroker);
            }
        }
        (CancelReply::Requested(OrderStatus::Canceled), effects)
    }

    /// Sets the price of a symbol from now on; resting orders whose price it is are matched.
    pub(super) fn set_quote(&mut self, symbol: &str, price: Decimal, now: TsMs) {
        self.quotes.insert(symbol.to_owned(), price);
        self.match_resting(symbol, now);
    }

    /// Sets a position by the back door: shares that no order of ours bought or sold.
    pub(super) fn set_position(&mut self, symbol: &str, qty: Decimal, avg_entry_price: Decimal, now: TsMs) {
        let position = self.positions.entry(symbol.to_owned()).or_default();
        (position.qty, position.avg_entry_price, position.updated_at) = (qty, avg_entry_price, now);
    }

    fn take_step(&mut self, id: ClientOrderId, step: DueStep, at: TsMs, effects: &mut Vec<BrokerEffect>) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        // Also an order that has ended is lost from the record.
        order.is_gone |= step == DueStep::Vanish;
        if order.broker != BrokerSide::Working {
            return;
        }
        match step {
            DueStep::Acknowledge => {
                order.acknowledge(at);
                let is_immediate = matches!(order.content.time_in_force, TimeInForce::Ioc | TimeInForce::Fok);
                if is_immediate && !order.is_matched {
                    order.tell_end(OrderStatus::Canceled, at);
                    self.end_at_broker(id, at, effects);
                }
            }
            DueStep::Fill { qty, price } => {
                let Some(mut fill) = order.next_fill(qty, price, at) else { return };
                let shares = order.content.side.signed_qty(fill.qty.into());
                let position = self.positions.entry(order.content.symbol.as_str().to_owned()).or_default();
                fill.realized_pl = position.book_fill(shares, price, at);
                order.book_fill(fill.clone());
                let is_whole = order.remaining_qty() == 0;
                self.release_working(id, fill.qty);
                effects.push(BrokerEffect::Filled(id, fill));
                if is_whole {
                    self.end_at_broker(id, at, effects);
                }
            }
            DueStep::EndAtBroker => {
                order.tell_end(OrderStatus::Canceled, at);
                self.end_at_broker(id, at, effects);
            }
            DueStep::Midnight if order.content.time_in_force == TimeInForce::Gtc => {
                let is_matched = order.is_matched;
                self.plan_step(next_midnight(at), id, DueStep::Midnight);
                if !is_matched {
                    self.match_order(id, at, at);
                }
            }
            DueStep::Midnight => {
                order.tell_end(OrderStatus::Expired, at);
                self.end_at_broker(id, at, effects);
            }
            DueStep::Vanish => self.end_at_broker(id, at, effects),
        }
    }

    fn end_at_broker(&mut self, id: ClientOrderId, at: TsMs, effects: &mut Vec<BrokerEffect>) {
        let Some(order) = self.orders.get_mut(&id) else { return };
        order.broker = BrokerSide::Ended;
        order.updated_at = order.updated_at.max(at);
        let remaining = order.remaining_qty();
        self.release_working(id, remaining);
        effects.push(BrokerEffect::Ended(id));
    }

    /// Shares of an order that it will not buy or sell any more, because it has or because it ended.
    fn release_working(&mut self, id: ClientOrderId, qty: u64) {
        let Some(order) = self.orders.get(&id) else { return };
        let open = (order.content.symbol.as_str().to_owned(), order.content.side);
        if let Some(working) = self.working.get_mut(&open) {
            *working = working.saturating_sub(qty);
        }
    }

    fn match_resting(&mut self, symbol: &str, now: TsMs) {
        let is_resting = |order: &&PaperOrder| {
            order.broker == BrokerSide::Working
                && !order.is_matched
                && order.content.symbol.as_str() == symbol
        };
        let resting: Vec<ClientOrderId> =
            self.orders.values().filter(is_resting).map(|order| order.id).collect();
        for id in resting {
            self.match_order(id, now, now);
        }
    }

    /// Plans the fills of an order from `first` on, if the price at `now` is one of its own.
    fn match_order(&mut self, id: ClientOrderId, first: TsMs, now: TsMs) {
        let Some(order) = self.orders.get(&id) else { return };
        let (content, plan) = (order.content.clone(), order.plan);
        let quote = self.quote(content.symbol.as_str(), now);
        if !is_marketable(&content, quote) {
            return;
        }
        let parts = parts_of(&content, plan.fills);
        if parts.is_empty() {
            return;
        }
        let mut at = first;
        for (qty, number) in parts.iter().zip(0..) {
            self.plan_step(at, id, DueStep::Fill { qty: *qty, price: part_price(&content, quote, number) });
            if let FillPlan::Parts { every_ms, .. } = plan.fills {
                at = at.plus_ms(every_ms);
            }
        }
        if content.time_in_force == TimeInForce::Ioc {
            self.plan_step(at, id, DueStep::EndAtBroker);
        }
        if let Some(order) = self.orders.get_mut(&id) {
            order.is_matched = true;
        }
    }

    fn plan_step(&mut self, at: TsMs, id: ClientOrderId, step: DueStep) {
        self.planned += 1;
        self.due.insert((at, self.planned), (id, step));
    }
}

fn next_midnight(now: TsMs) -> TsMs {
    TsMs((UtcDate::at_moment(now).0 + 1).saturating_mul(DAY_MS))
}

/// Tells whether an order would be filled at `quote`. A stop is triggered and limited by the same quote.
fn is_marketable(content: &OrderContent, quote: Decimal) -> bool {
    let is_within = |limit: Decimal| match content.side {
        OrderSide::Buy => quote <= limit,
        OrderSide::Sell => limit <= quote,
    };
    let is_triggered = |stop: Decimal| match content.side {
        OrderSide::Buy => stop <= quote,
        OrderSide::Sell => quote <= stop,
    };
    match content.order_type {
        OrderType::Market => true,
        OrderType::Limit => content.limit_price.is_some_and(is_within),
        OrderType::Stop => content.stop_price.is_some_and(is_triggered),
        OrderType::StopLimit => {
            content.stop_price.is_some_and(is_triggered) && content.limit_price.is_some_and(is_within)
        }
    }
}

/// Shares of each part. An order that is filled whole or never is filled whole.
fn parts_of(content: &OrderContent, plan: FillPlan) -> Vec<u64> {
    let whole = content.qty;
    match plan {
        FillPlan::Never => Vec::new(),
        FillPlan::Parts { parts, .. } if content.time_in_force != TimeInForce::Fok => {
            let parts = parts.clamp(1, whole.min(PARTS_MAX));
            (0..parts).map(|part| whole / parts + u64::from(part < whole % parts)).collect()
        }
        FillPlan::Only { qty } if content.time_in_force != TimeInForce::Fok => vec![qty.min(whole)],
        FillPlan::Whole | FillPlan::Parts { .. } | FillPlan::Only { .. } => vec![whole],
    }
}

/// Price of the part of this number: a cent worse for each part before it, never beyond the limit.
fn part_price(content: &OrderContent, quote: Decimal, number: i64) -> Decimal {
    let slip = Decimal::new(number, 2);
    match content.side {
        OrderSide::Buy => content.limit_price.map_or(quote + slip, |limit| (quote + slip).min(limit)),
        OrderSide::Sell => {
            let price = (quote - slip).max(Decimal::new(1, 2));
            content.limit_price.map_or(price, |limit| price.max(limit))
        }
    }
}

#[cfg(test)]
mod tests;
