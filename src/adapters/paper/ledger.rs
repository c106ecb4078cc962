//! The ledger: what really happened to each order, counted where it happened. Tests check "exactly once" against it.

use std::collections::BTreeMap;

use orchestrator_kernel::trading::order::OrderContent;
use orchestrator_kernel::trading::order::id::ClientOrderId;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Value, json};

use super::broker::{BrokerEffect, PaperBroker};

/// Counts of one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct OrderCounts {
    /// Requests to place it that arrived, with those that were swallowed at the door.
    pub requests: u64,
    /// Requests that were taken as the first one.
    pub accepted: u64,
    /// Requests that found it on record.
    pub repeats: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Times that the broker placed it. More than one is a defect of the paper broker.
    pub effects: u64,
    /// Fills at the broker.
    pub fills: u64,
    /// Shares of them.
    pub filled_qty: u64,
    /// Requests to cancel it.
    pub cancels: u64,
    /// Requests to read it.
    pub reads: u64,
}

/// A counter of an order.
pub(super) type Counter = fn(&mut OrderCounts) -> &mut u64;

/// Counts of everything, by order.
#[derive(Debug)]
pub(super) struct PaperLedger {
    orders: BTreeMap<ClientOrderId, OrderCounts>,
    orders_max: usize,
    totals: OrderCounts,
    /// Requests about orders beyond `orders_max`, counted in the totals only.
    not_told_apart: u64,
    /// Requests that were not let in.
    pub unauthorized: u64,
    /// Requests that 429 was the answer to.
    pub rate_limited: u64,
    /// Requests that followed a redirect.
    pub redirects_followed: u64,
    /// Requests for signals.
    pub signals: u64,
}

impl PaperLedger {
    /// Nothing has happened. At most `orders_max` orders are told apart.
    #[must_use]
    pub(super) fn new(orders_max: usize) -> Self {
        Self {
            orders: BTreeMap::new(),
            orders_max,
            totals: OrderCounts::default(),
            not_told_apart: 0,
            unauthorized: 0,
            rate_limited: 0,
            redirects_followed: 0,
            signals: 0,
        }
    }

    /// Counts one more of something of an order.
    pub(super) fn count(&mut self, id: ClientOrderId, counter: Counter) {
        self.add(id, counter, 1);
    }

    /// Counts what the broker did.
    pub(super) fn count_effects(&mut self, effects: &[BrokerEffect]) {
        for effect in effects {
            match effect {
                BrokerEffect::Placed(id) => self.add(*id, |counts| &mut counts.effects, 1),
                BrokerEffect::Filled(id, fill) => {
                    self.add(*id, |counts| &mut counts.fills, 1);
                    self.add(*id, |counts| &mut counts.filled_qty, fill.qty);
                }
                BrokerEffect::Ended(_) => {}
            }
        }
    }

    fn add(&mut self, id: ClientOrderId, counter: Counter, count: u64) {
        *counter(&mut self.totals) += count;
        if self.orders.len() < self.orders_max || self.orders.contains_key(&id) {
            *counter(self.orders.entry(id).or_default()) += count;
        } else {
            self.not_told_apart += 1;
        }
    }

    /// The counts of one order.
    #[cfg(test)]
    #[must_use]
    pub(super) fn counts(&self, id: ClientOrderId) -> OrderCounts {
        self.orders.get(&id).copied().unwrap_or_default()
    }

    /// The ledger as JSON: per order, per content over all dates (an intent), and in all.
    #[must_use]
    pub(super) fn to_json(&self, broker: &PaperBroker) -> Value {
        let mut orders = serde_json::Map::new();
        let mut intents: BTreeMap<String, (OrderCounts, Vec<String>)> = BTreeMap::new();
        for (id, counts) in &self.orders {
            let order = broker.order(*id);
            let mut line = serde_json::to_value(counts).unwrap_or_default();
            if let (Some(order), Value::Object(line)) = (order, &mut line) {
                line.insert("symbol".to_owned(), order.content.symbol.as_str().into());
                line.insert("side".to_owned(), order.content.side.as_str().into());
                line.insert("qty".to_owned(), order.content.qty.into());
                line.insert("status".to_owned(), order.status.as_str().into());
                line.insert("told_qty".to_owned(), order.told_qty.into());
            }
            orders.insert(id.to_string(), line);
            if let Some(order) = order {
                let (sum, ids) = intents.entry(intent_key(&order.content)).or_default();
                sum.effects += counts.effects;
                sum.filled_qty += counts.filled_qty;
                sum.requests += counts.requests;
                ids.push(id.to_string());
            }
        }
        let intents: Vec<Value> = intents
            .into_iter()
            .map(|(content, (sum, ids))| {
                json!({
                    "content": content, "client_order_ids": ids, "requests": sum.requests,
                    "effects": sum.effects, "filled_qty": sum.filled_qty,
                })
            })
            .collect();
        let positions: serde_json::Map<String, Value> = broker
            .positions()
            .iter()
            .map(|(symbol, position)| (symbol.clone(), plain(position.qty).into()))
            .collect();
        json!({
            "paper": true, "orders": orders, "intents": intents, "positions": positions, "totals": self.totals,
            "orders_not_told_apart": self.not_told_apart, "unauthorized": self.unauthorized,
            "rate_limited": self.rate_limited, "redirects_followed": self.redirects_followed,
            "signals": self.signals,
        })
    }
}

/// The text of an amount without trailing zeros.
#[must_use]
pub(super) fn plain(amount: Decimal) -> String {
    amount.normalize().to_string()
}

fn intent_key(content: &OrderContent) -> String {
    let price = |price: Option<Decimal>| price.map_or_else(|| "None".to_owned(), |price| price.to_string());
    format!(
        "{}|{}|{}|{}|{}|{}|{}",
        content.symbol,
        content.side.as_str(),
        content.qty,
        price(content.limit_price),
        price(content.stop_price),
        content.order_type.as_str(),
        content.time_in_force.as_str()
    )
}
