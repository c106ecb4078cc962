//! Buying power: what orders have reserved, what positions use, and what is free (LEDG-1).
//!
//! ```text
//! limit = capital × gross_max × (1 + margin)
//! │ reserved                        │ used                      │ free                       │
//! │ opening orders:                 │ open positions:           │ may be negative: a breach  │
//! │ qty × price × (1 + margin)      │ at their entry price      │                            │
//! ```
//!
//! A fill turns its reservation into use at the fill price. A closing order reserves nothing; its fill frees at the
//! entry price: realised profit does not move the limit. The gateway shows its account to people only, so this ledger
//! is ours alone.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::order::OrderSide;
use super::order::id::ClientOrderId;
use super::wire_values::is_within_bounds;
use crate::ids::Symbol;

/// Decimal places of every amount in the ledger: sums of such amounts are exact.
const PLACES: u32 = 8;

/// Parts of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerRules {
    /// All that there is to trade with, at most a million millions.
    pub capital: Decimal,
    /// Multiple of the capital that may be used, long and short together. Default 2.
    pub gross_max: Decimal,
    /// Reserve above the price of an order, as a share of it. Default 0.05.
    pub margin: Decimal,
}

impl LedgerRules {
    /// The rules of the default settings for `capital`.
    #[must_use]
    pub fn for_capital(capital: Decimal) -> Self {
        Self { capital, gross_max: Decimal::TWO, margin: Decimal::new(5, 2) }
    }
}

/// One record of the ledger. Versioned: the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerRecord {
    /// The first version.
    V1(LedgerEvent),
}

/// An event that moves buying power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LedgerEvent {
    /// An order reserves what it opens.
    Reserved(LedgerEntry),
    /// Shares of an order were filled, each counted once before it comes here.
    Filled(LedgerEntry),
    /// An order ended: what it still reserves is free.
    Released {
        /// The order.
        order: ClientOrderId,
    },
    /// An operator took a position over that nobody here intended.
    Adopted {
        /// The instrument.
        symbol: Symbol,
        /// The whole position, negative when short.
        #[serde(with = "rust_decimal::serde::str")]
        qty: Decimal,
        /// Its mean entry price.
        #[serde(with = "rust_decimal::serde::str")]
        price: Decimal,
    },
}

/// Shares of an order at a price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The order.
    pub order: ClientOrderId,
    /// Its instrument.
    pub symbol: Symbol,
    /// Its side.
    pub side: OrderSide,
    /// Shares, more than zero.
    #[serde(with = "rust_decimal::serde::str")]
    pub qty: Decimal,
    /// Price of each, more than zero.
    #[serde(with = "rust_decimal::serde::str")]
    pub price: Decimal,
}

/// An event that the ledger does not take. Nothing is changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerRefused {
    /// The order would reserve more than is free. Shown as `no_buying_power`.
    #[error("no buying power: {needed} needed, {free} free")]
    NoBuyingPower {
        /// Its reserve.
        needed: Decimal,
        /// The free part.
        free: Decimal,
    },
    /// A quantity or price that is not more than zero, or out of all bounds.
    #[error("not an amount that the ledger takes")]
    NotAnAmount,
}

/// Remaining reservation of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Reservation {
    symbol: Symbol,
    side: OrderSide,
    /// Shares that close a position: they come first and reserve nothing.
    #[serde(with = "rust_decimal::serde::str")]
    closing: Decimal,
    /// Shares that open one.
    #[serde(with = "rust_decimal::serde::str")]
    opening: Decimal,
    /// Reserve of the opening shares.
    #[serde(with = "rust_decimal::serde::str")]
    amount: Decimal,
}

/// A position at its entry price.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Holding {
    /// Negative when short.
    #[serde(with = "rust_decimal::serde::str")]
    qty: Decimal,
    /// Cost of its shares when they were opened, never negative.
    #[serde(with = "rust_decimal::serde::str")]
    cost: Decimal,
}

/// The ledger of buying power, from its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuyingPower {
    #[serde(with = "rust_decimal::serde::str")]
    margin: Decimal,
    #[serde(with = "rust_decimal::serde::str")]
    limit: Decimal,
    #[serde(with = "rust_decimal::serde::str")]
    reserved: Decimal,
    #[serde(with = "rust_decimal::serde::str")]
    used: Decimal,
    #[serde(with = "rust_decimal::serde::str")]
    free: Decimal,
    reservations: BTreeMap<ClientOrderId, Reservation>,
    holdings: BTreeMap<Symbol, Holding>,
}

impl BuyingPower {
    /// Everything is free.
    ///
    /// # Errors
    ///
    /// [`LedgerRefused::NotAnAmount`]: rules that are negative or out of all bounds.
    pub fn new(rules: &LedgerRules) -> Result<Self, LedgerRefused> {
        let all = [rules.capital, rules.gross_max, rules.margin];
        if all.iter().any(|amount| *amount < Decimal::ZERO || !is_within_bounds(*amount)) {
            return Err(LedgerRefused::NotAnAmount);
        }
        let limit =
            ledger_product(ledger_product(rules.capital, rules.gross_max)?, Decimal::ONE + rules.margin)?;
        Ok(Self {
            margin: rules.margin,
            limit,
            reserved: Decimal::ZERO,
            used: Decimal::ZERO,
            free: limit,
            reservations: BTreeMap::new(),
            holdings: BTreeMap::new(),
        })
    }

    /// All that may be reserved and used.
    #[must_use]
    pub const fn total_limit(&self) -> Decimal {
        self.limit
    }

    /// Reserve of all orders.
    #[must_use]
    pub const fn reserved_amount(&self) -> Decimal {
        self.reserved
    }

    /// Use by all positions.
    #[must_use]
    pub const fn used_amount(&self) -> Decimal {
        self.used
    }

    /// The rest. Negative after fills above what was reserved: a breach.
    #[must_use]
    pub const fn free_amount(&self) -> Decimal {
        self.free
    }

    /// The position that the fills made, negative when short.
    #[must_use]
    pub fn position_of(&self, symbol: &Symbol) -> Decimal {
        self.holdings.get(symbol).map_or(Decimal::ZERO, |holding| holding.qty)
    }

    /// Every position that is not zero.
    pub fn positions(&self) -> impl Iterator<Item = (&Symbol, Decimal)> {
        self.holdings.iter().map(|(symbol, holding)| (symbol, holding.qty))
    }

    /// Tells whether LEDG-1 holds: reserved + used + free = limit, and the sums are those of their parts.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let reserved: Decimal = self.reservations.values().map(|reservation| reservation.amount).sum();
        let used: Decimal = self.holdings.values().map(|holding| holding.cost).sum();
        self.reserved + self.used + self.free == self.limit && self.reserved == reserved && self.used == used
    }

    /// Takes the next event. Reserving again for the same order changes nothing, nor does releasing one that reserves
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`LedgerRefused`]: no buying power, or no amount. Nothing is changed then.
    pub fn apply_event(&mut self, event: &LedgerEvent) -> Result<(), LedgerRefused> {
        match event {
            LedgerEvent::Reserved(entry) => self.reserve_order(entry),
            LedgerEvent::Filled(entry) => self.book_fill(entry),
            LedgerEvent::Released { order } => {
                self.release_order(*order);
                Ok(())
            }
            LedgerEvent::Adopted { symbol, qty, price } => self.adopt_position(symbol, *qty, *price),
        }
    }

    fn reserve_order(&mut self, entry: &LedgerEntry) -> Result<(), LedgerRefused> {
        check_amounts(entry.qty, entry.price)?;
        if self.reservations.contains_key(&entry.order) {
            return Ok(());
        }
        let closing = entry.qty.min(self.closable_qty(&entry.symbol, entry.side));
        let opening = entry.qty - closing;
        let amount = ledger_product(ledger_product(opening, entry.price)?, Decimal::ONE + self.margin)?;
        // A closing order needs no room, not even when there is a breach.
        if self.free < amount && !amount.is_zero() {
            return Err(LedgerRefused::NoBuyingPower { needed: amount, free: self.free });
        }
        let (symbol, side) = (entry.symbol.clone(), entry.side);
        self.reservations.insert(entry.order, Reservation { symbol, side, closing, opening, amount });
        self.reserved += amount;
        self.free -= amount;
        Ok(())
    }

    /// Shares on `side` that would close the position and that no other order closes already.
    fn closable_qty(&self, symbol: &Symbol, side: OrderSide) -> Decimal {
        let position = self.position_of(symbol);
        let of_order = side.signed_qty(Decimal::ONE);
        if position.is_zero() || position.is_sign_negative() == of_order.is_sign_negative() {
            return Decimal::ZERO;
        }
        let same = |reservation: &&Reservation| reservation.symbol == *symbol && reservation.side == side;
        let closing: Decimal = self.reservations.values().filter(same).map(|other| other.closing).sum();
        (position.abs() - closing).max(Decimal::ZERO)
    }

    fn book_fill(&mut self, entry: &LedgerEntry) -> Result<(), LedgerRefused> {
        check_amounts(entry.qty, entry.price)?;
        let change = entry.side.signed_qty(entry.qty);
        let holding = self.holdings.get(&entry.symbol).cloned().unwrap_or_default();
        let moved = move_holding(&holding, change, entry.price)?;
        self.take_reservation(entry)?;
        self.use_instead(&entry.symbol, &holding, moved);
        Ok(())
    }

    /// The filled shares no longer reserve: closing ones first, then their share of the amount; the last one all of it.
    fn take_reservation(&mut self, entry: &LedgerEntry) -> Result<(), LedgerRefused> {
        let Some(reservation) = self.reservations.get_mut(&entry.order) else { return Ok(()) };
        let closing = entry.qty.min(reservation.closing);
        let opening = (entry.qty - closing).min(reservation.opening);
        let amount = share_of_amount(reservation.amount, opening, reservation.opening)?;
        reservation.closing -= closing;
        reservation.opening -= opening;
        reservation.amount -= amount;
        self.reserved -= amount;
        self.free += amount;
        Ok(())
    }

    fn use_instead(&mut self, symbol: &Symbol, before: &Holding, after: Holding) {
        let change = after.cost - before.cost;
        self.used += change;
        self.free -= change;
        if after.qty.is_zero() {
            self.holdings.remove(symbol);
        } else {
            self.holdings.insert(symbol.clone(), after);
        }
    }

    fn release_order(&mut self, order: ClientOrderId) {
        if let Some(reservation) = self.reservations.remove(&order) {
            self.reserved -= reservation.amount;
            self.free += reservation.amount;
        }
    }

    fn adopt_position(&mut self, symbol: &Symbol, qty: Decimal, price: Decimal) -> Result<(), LedgerRefused> {
        let holding = if qty.is_zero() {
            Holding::default()
        } else {
            check_amounts(qty.abs(), price)?;
            Holding { qty, cost: ledger_product(qty.abs(), price)? }
        };
        let before = self.holdings.get(symbol).cloned().unwrap_or_default();
        self.use_instead(symbol, &before, holding);
        Ok(())
    }
}

/// The holding after `change` shares at `price`: what closes frees at the entry price, what opens costs the fill price.
fn move_holding(before: &Holding, change: Decimal, price: Decimal) -> Result<Holding, LedgerRefused> {
    let is_closing = !before.qty.is_zero() && before.qty.is_sign_negative() != change.is_sign_negative();
    let closing = if is_closing { change.abs().min(before.qty.abs()) } else { Decimal::ZERO };
    let freed = share_of_amount(before.cost, closing, before.qty.abs())?;
    let opened = ledger_product(change.abs() - closing, price)?;
    let (qty, cost) = (before.qty + change, before.cost - freed + opened);
    let is_possible = is_within_bounds(qty) && is_within_bounds(cost);
    is_possible.then_some(Holding { qty, cost }).ok_or(LedgerRefused::NotAnAmount)
}

/// The share of `amount` that `qty` of `whole` shares have, all of it for all shares.
fn share_of_amount(amount: Decimal, qty: Decimal, whole: Decimal) -> Result<Decimal, LedgerRefused> {
    if qty == whole {
        return Ok(amount);
    }
    let share = qty.checked_div(whole).and_then(|share| amount.checked_mul(share));
    share.map(|share| share.round_dp(PLACES).min(amount)).ok_or(LedgerRefused::NotAnAmount)
}

/// `a` × `b` to the places of the ledger.
fn ledger_product(a: Decimal, b: Decimal) -> Result<Decimal, LedgerRefused> {
    let product = a.checked_mul(b).map(|product| product.round_dp(PLACES));
    // Sums of many amounts keep their eight places only far from the largest decimal.
    product.filter(|product| is_within_bounds(*product)).ok_or(LedgerRefused::NotAnAmount)
}

fn check_amounts(qty: Decimal, price: Decimal) -> Result<(), LedgerRefused> {
    let is_amount = |amount: Decimal| Decimal::ZERO < amount && is_within_bounds(amount);
    if is_amount(qty) && is_amount(price) { Ok(()) } else { Err(LedgerRefused::NotAnAmount) }
}

#[cfg(test)]
mod tests;
