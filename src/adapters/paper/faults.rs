//! Faults that are switched on while the paper services run: typed, scoped to some orders, counted.
//!
//! A request collects what every rule that matches it adds; of two rules that want the same thing the earlier one wins.

use std::collections::BTreeMap;

use orchestrator_kernel::json::describe_mistake;
use orchestrator_kernel::trading::order::OrderSide;
use orchestrator_kernel::trading::order::id::ClientOrderId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bars::{hash_of, mix};
use super::broker::BrokerPlan;

mod kinds;

pub(super) use kinds::{
    AnswerFault, ArrivalFault, ErrorBody, PaperFault, RefusalFault, RejectedAs, RetryAfterForm,
    SafetyGateName, SignalsFault, WrongField,
};

/// Most rules at a time.
pub(super) const RULES_MAX: usize = 1_000;
/// Orders that one rule tells apart. It matches no further ones.
const ORDERS_TOLD_APART_MAX: usize = 100_000;

/// Routes on which faults are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaperRoute {
    /// `POST /api/v1/orders`.
    #[default]
    Submit,
    /// `GET /api/v1/orders/{client_order_id}`.
    Read,
    /// `POST /api/v1/orders/{client_order_id}/cancel`.
    Cancel,
    /// `GET /api/v1/positions`.
    Positions,
    /// `GET /api/v1/config`.
    Config,
    /// `GET /health` of the gateway, `GET /ready` of the Signal Service.
    Health,
    /// `POST /api/v1/signals/generate`.
    Signals,
}

/// The requests that a rule is about: all of its route when nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FaultScope {
    /// The route.
    pub on: PaperRoute,
    /// Orders in this symbol only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// Orders on this side only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<OrderSide>,
    /// This order only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_order_id: Option<String>,
    /// The order, or the request where there are no orders, of this number since the rule was set. From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// Requests that it takes, in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
    /// Requests that it takes of each order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_per_order: Option<u64>,
    /// Share of the orders in percent, chosen by the seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
}

/// The keys of a scope in the flat JSON of a rule.
const SCOPE_KEYS: [&str; 8] =
    ["on", "symbol", "side", "client_order_id", "nth", "times", "times_per_order", "percent"];

/// A rule that is refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultRefused {
    /// It cannot be read: an unknown fault, field or value.
    #[error("{0}")]
    Unreadable(String),
    /// The fault does not exist on that route.
    #[error("fault {fault} does not exist on route {route}")]
    OtherRoute {
        /// Its name.
        fault: String,
        /// The route.
        route: String,
    },
    /// A value that cannot be.
    #[error("{field} {problem}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Enough rules.
    #[error("{RULES_MAX} faults are on; remove one first")]
    TooMany,
}

/// A fault, the requests that it is about, and how often it struck.
#[derive(Clone, Debug)]
pub(super) struct FaultRule {
    id: u64,
    fault: PaperFault,
    scope: FaultScope,
    hits: u64,
    /// The number of each order that matched, from 1, and how often the rule struck it.
    orders: BTreeMap<ClientOrderId, (u64, u64)>,
    requests: u64,
}

/// The request that is being looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct FaultedRequest<'a> {
    /// Its route.
    pub route: PaperRoute,
    /// Its order's id.
    pub id: Option<ClientOrderId>,
    /// Its order's symbol.
    pub symbol: Option<&'a str>,
    /// Its order's side.
    pub side: Option<OrderSide>,
}

/// What happens to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPlan {
    /// Wait before it is looked at.
    pub before_ms: u64,
    /// Wait after it was done, before it is answered.
    pub after_ms: u64,
    /// It gets no further than the door.
    pub arrival: Option<ArrivalFault>,
    /// It is refused instead of done.
    pub refusal: Option<RefusalFault>,
    /// It is done, and the answer is not what it should be.
    pub answer: Option<AnswerFault>,
    /// The signals are wrong.
    pub signals: Option<SignalsFault>,
    /// The service says that it is not ready.
    pub is_not_ready: bool,
    /// What the broker does with the order.
    pub broker: BrokerPlan,
}

/// The rules that are on, in the order in which they were set.
#[derive(Debug)]
pub(super) struct PaperFaults {
    seed: u64,
    rules: Vec<FaultRule>,
    last_id: u64,
}

impl PaperFaults {
    /// No faults. `seed` chooses the orders of a rule with `percent`.
    #[must_use]
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed, rules: Vec::new(), last_id: 0 }
    }

    /// Switches a fault on; the rule as it is listed.
    ///
    /// # Errors
    ///
    /// [`FaultRefused`]: it cannot be read, does not exist on that route, or there are too many.
    pub(super) fn set_fault(&mut self, json: &[u8]) -> Result<Value, FaultRefused> {
        if RULES_MAX <= self.rules.len() {
            return Err(FaultRefused::TooMany);
        }
        let unreadable = |error: serde_json::Error| FaultRefused::Unreadable(describe_mistake(&error));
        let mut fields: Map<String, Value> = serde_json::from_slice(json).map_err(unreadable)?;
        let mut scope = Map::new();
        for key in SCOPE_KEYS {
            if let Some(value) = fields.remove(key) {
                scope.insert(key.to_owned(), value);
            }
        }
        let scope: FaultScope = serde_json::from_value(Value::Object(scope)).map_err(unreadable)?;
        let fault: PaperFault = serde_json::from_value(Value::Object(fields)).map_err(unreadable)?;
        check_scope(&scope)?;
        fault.check_values()?;
        if !fault.exists_on(scope.on) {
            let word = |value: Result<Value, serde_json::Error>| {
                value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
            };
            let named = serde_json::to_value(&fault).map(|fault| fault["fault"].clone());
            let route = word(serde_json::to_value(scope.on));
            return Err(FaultRefused::OtherRoute { fault: word(named), route });
        }
        self.last_id += 1;
        let id = self.last_id;
        let rule = FaultRule { id, fault, scope, hits: 0, orders: BTreeMap::new(), requests: 0 };
        let listed = rule.to_json();
        self.rules.push(rule);
        Ok(listed)
    }

    /// Every rule that is on.
    #[must_use]
    pub(super) fn list_faults(&self) -> Vec<Value> {
        self.rules.iter().map(FaultRule::to_json).collect()
    }

    /// Switches one off; tells whether it was on.
    pub(super) fn remove_fault(&mut self, id: u64) -> bool {
        let before = self.rules.len();
        self.rules.retain(|rule| rule.id != id);
        self.rules.len() < before
    }

    /// Switches all off; how many there were.
    pub(super) fn clear_faults(&mut self) -> usize {
        std::mem::take(&mut self.rules).len()
    }

    /// Collects what happens to `request`. `undisturbed` is what the broker does without a fault.
    pub(super) fn plan_request(
        &mut self,
        request: FaultedRequest<'_>,
        undisturbed: BrokerPlan,
    ) -> RequestPlan {
        let mut plan = RequestPlan {
            before_ms: 0,
            after_ms: 0,
            arrival: None,
            refusal: None,
            answer: None,
            signals: None,
            is_not_ready: false,
            broker: undisturbed,
        };
        for rule in &mut self.rules {
            if rule.matches(self.seed, request) && rule.fault.add_to(&mut plan, undisturbed) {
                rule.count_hit(request);
            }
        }
        plan
    }
}

fn check_scope(scope: &FaultScope) -> Result<(), FaultRefused> {
    let refused = |field, problem| Err(FaultRefused::Value { field, problem });
    for (field, value) in
        [("nth", scope.nth), ("times", scope.times), ("times_per_order", scope.times_per_order)]
    {
        if value == Some(0) {
            return refused(field, "counts from 1");
        }
    }
    if scope.percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
        return refused("percent", "is from 1 to 100");
    }
    if scope.client_order_id.as_deref().is_some_and(|id| ClientOrderId::from_hex(id).is_none()) {
        return refused("client_order_id", "has 24 lower-case hexadecimal digits");
    }
    let has_orders = matches!(scope.on, PaperRoute::Submit | PaperRoute::Read | PaperRoute::Cancel);
    let names_orders = scope.symbol.is_some() || scope.side.is_some() || scope.client_order_id.is_some();
    if !has_orders && names_orders {
        return refused("on", "is a route without orders, and symbol, side or client_order_id is given");
    }
    Ok(())
}

impl FaultRule {
    fn to_json(&self) -> Value {
        let mut listed = Map::new();
        listed.insert("id".to_owned(), self.id.into());
        for part in [serde_json::to_value(&self.fault), serde_json::to_value(&self.scope)] {
            if let Ok(Value::Object(fields)) = part {
                listed.extend(fields);
            }
        }
        listed.insert("hits".to_owned(), self.hits.into());
        Value::Object(listed)
    }

    /// Tells whether it strikes `request`, and numbers the request's order.
    fn matches(&mut self, seed: u64, request: FaultedRequest<'_>) -> bool {
        let FaultScope { on, symbol, side, client_order_id, nth, times, times_per_order, percent } =
            &self.scope;
        let named = client_order_id.as_deref().map(ClientOrderId::from_hex);
        let is_meant = *on == request.route
            && symbol.as_deref().is_none_or(|symbol| request.symbol == Some(symbol))
            && side.is_none_or(|side| request.side == Some(side))
            && named.is_none_or(|id| id == request.id);
        if !is_meant {
            return false;
        }
        let (number, struck) = match request.id {
            Some(id) => {
                let next = self.orders.len() as u64 + 1;
                if ORDERS_TOLD_APART_MAX <= self.orders.len() && !self.orders.contains_key(&id) {
                    return false;
                }
                *self.orders.entry(id).or_insert((next, 0))
            }
            None => {
                self.requests += 1;
                (self.requests, 0)
            }
        };
        let key = request.id.map_or_else(|| number.to_string(), |id| id.to_string());
        let dice = mix(seed ^ self.id.rotate_left(32) ^ hash_of(&key)) % 100;
        nth.is_none_or(|nth| nth == number)
            && times.is_none_or(|times| self.hits < times)
            && times_per_order.is_none_or(|times| struck < times)
            && percent.is_none_or(|percent| dice < percent)
    }

    fn count_hit(&mut self, request: FaultedRequest<'_>) {
        self.hits += 1;
        if let Some((_, struck)) = request.id.and_then(|id| self.orders.get_mut(&id)) {
            *struck += 1;
        }
    }
}

#[cfg(test)]
mod tests;
