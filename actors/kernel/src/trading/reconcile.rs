//! Differences between what we hold and intend and what the gateway has: shown, stopped, never repaired by a trade.
//!
//! Nothing trades before the first reconciliation (REC-1). A difference stops new orders of its symbol until a
//! comparison finds none; an operator can take over what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::order::id::ClientOrderId;
use super::wire_values::{decimal_of_json, read_object};
use crate::ids::{Symbol, TsMs};
use crate::json::describe_mistake;

/// Positions by symbol: no entry is zero shares. Negative when short.
pub type PositionsBySymbol = BTreeMap<Symbol, Decimal>;

/// An answer to `GET /api/v1/positions` that cannot be compared with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("positions cannot be read: {0}")]
pub struct PositionsUnreadable(String);

/// Reads the gateway's positions. One that cannot be read makes all of them unreadable: half an answer says nothing
/// about the other half.
///
/// # Errors
///
/// [`PositionsUnreadable`]: no JSON of the recorded shape, a quantity that is no amount, or a symbol twice.
pub fn read_positions(body: &[u8]) -> Result<PositionsBySymbol, PositionsUnreadable> {
    #[derive(Deserialize)]
    struct Body {
        positions: Vec<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct PositionFields {
        symbol: String,
        qty: Box<RawValue>,
    }
    let unreadable = |error: serde_json::Error| PositionsUnreadable(describe_mistake(&error));
    let body: Body = read_object(body).map_err(unreadable)?;
    let mut positions = PositionsBySymbol::new();
    for position in body.positions {
        let position: PositionFields = read_object(position.get().as_bytes()).map_err(unreadable)?;
        let PositionFields { symbol, qty } = position;
        let qty = decimal_of_json(&qty)
            .map_err(|error| PositionsUnreadable(format!("qty of {symbol} is {error}")))?;
        if positions.insert(Symbol::from(symbol.as_str()), qty).is_some() {
            return Err(PositionsUnreadable(format!("{symbol} stands there twice")));
        }
    }
    Ok(positions)
}

/// One of our orders that is open or unknown, and what the gateway says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedOrder {
    /// Its id.
    pub id: ClientOrderId,
    /// Its symbol.
    pub symbol: Symbol,
    /// Result of the comparison.
    pub found: OrderComparison,
}

/// Comparison of one of our orders with the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderComparison {
    /// It is there as we know it, after its fills were taken.
    Agrees,
    /// It is not there.
    Missing,
    /// It is unknown what became of it, or it waits for a human.
    Unsettled,
    /// It could not be read.
    Unread,
}

/// An order at the gateway that nobody here intended, as events tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignOrder {
    /// Its id as it was told.
    pub id: String,
    /// Its symbol.
    pub symbol: Symbol,
}

/// Both sides at one moment. Fills of our orders are taken before the positions are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BothSides {
    /// Positions that our fills made.
    pub ours: PositionsBySymbol,
    /// Positions of the gateway.
    pub theirs: PositionsBySymbol,
    /// Our open and unknown orders.
    pub orders: Vec<ComparedOrder>,
    /// Orders that events told of and that no intent has.
    pub foreign: Vec<ForeignOrder>,
}

/// One difference. Shown to people; stops its symbol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ReconcileDifference {
    /// The position is not what our fills made of it.
    Position {
        /// The instrument.
        symbol: Symbol,
        /// Shares by our fills.
        #[serde(with = "rust_decimal::serde::str")]
        ours: Decimal,
        /// Shares at the gateway.
        #[serde(with = "rust_decimal::serde::str")]
        theirs: Decimal,
    },
    /// The gateway does not have an order that we believe to be there.
    MissingOrder {
        /// The instrument.
        symbol: Symbol,
        /// The order.
        id: ClientOrderId,
    },
    /// Nobody knows what became of an order.
    UnsettledOrder {
        /// The instrument.
        symbol: Symbol,
        /// The order.
        id: ClientOrderId,
    },
    /// The gateway has an order that nobody here intended.
    ForeignOrder {
        /// The instrument.
        symbol: Symbol,
        /// The order as it was told.
        id: String,
    },
}

impl ReconcileDifference {
    /// The instrument that it stops.
    #[must_use]
    pub const fn symbol(&self) -> &Symbol {
        match self {
            Self::Position { symbol, .. }
            | Self::MissingOrder { symbol, .. }
            | Self::UnsettledOrder { symbol, .. }
            | Self::ForeignOrder { symbol, .. } => symbol,
        }
    }
}

impl fmt::Display for ReconcileDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position { symbol, ours, theirs } => {
                write!(f, "position of {symbol}: {ours} by our fills, {theirs} at the gateway")
            }
            Self::MissingOrder { symbol, id } => write!(f, "order {id} of {symbol} is not at the gateway"),
            Self::UnsettledOrder { symbol, id } => write!(f, "order {id} of {symbol} is not settled"),
            Self::ForeignOrder { symbol, id } => write!(f, "order {id} of {symbol} was not intended here"),
        }
    }
}

/// Returns every difference over the union of both sides, sorted: equal sides give equal records.
#[must_use]
pub fn find_differences(sides: &BothSides) -> Vec<ReconcileDifference> {
    let symbols: BTreeSet<&Symbol> = sides.ours.keys().chain(sides.theirs.keys()).collect();
    let qty = |of: &PositionsBySymbol, symbol: &Symbol| of.get(symbol).copied().unwrap_or_default();
    let positions = symbols.into_iter().filter_map(|symbol| {
        let (ours, theirs) = (qty(&sides.ours, symbol), qty(&sides.theirs, symbol));
        (ours != theirs).then(|| ReconcileDifference::Position { symbol: symbol.clone(), ours, theirs })
    });
    let orders = sides.orders.iter().filter_map(|order| {
        let (symbol, id) = (order.symbol.clone(), order.id);
        match order.found {
            OrderComparison::Agrees => None,
            OrderComparison::Missing => Some(ReconcileDifference::MissingOrder { symbol, id }),
            // What could not be read is not known to agree.
            OrderComparison::Unsettled | OrderComparison::Unread => {
                Some(ReconcileDifference::UnsettledOrder { symbol, id })
            }
        }
    });
    let foreign = sides.foreign.iter().map(|order| ReconcileDifference::ForeignOrder {
        symbol: order.symbol.clone(),
        id: order.id.clone(),
    });
    let mut found: Vec<ReconcileDifference> = positions.chain(orders).chain(foreign).collect();
    found.sort();
    found.dedup();
    found
}

/// One record of reconciliation. Versioned: the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReconcileRecord {
    /// The first version.
    V1(ReconcileEvent),
}

/// A comparison, or an operator's decision about one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReconcileEvent {
    /// Both sides were compared.
    Compared {
        /// Moment of it.
        at: TsMs,
        /// The differences.
        differences: Vec<ReconcileDifference>,
    },
    /// An operator took over the position that the gateway has.
    PositionAdopted {
        /// Moment of it.
        at: TsMs,
        /// The operator.
        by: String,
        /// The instrument.
        symbol: Symbol,
        /// The whole position.
        #[serde(with = "rust_decimal::serde::str")]
        qty: Decimal,
        /// The reason, in words.
        reason: String,
    },
    /// An operator took over an order that nobody here intended: it is shown no longer.
    OrderAdopted {
        /// Moment of it.
        at: TsMs,
        /// The operator.
        by: String,
        /// The order as it was told.
        id: String,
        /// The reason, in words.
        reason: String,
    },
}

/// Reason for which no order of a symbol may be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReconciled {
    /// REC-1: nothing was compared since the start.
    #[error("nothing trades before the first reconciliation")]
    NotYet,
    /// The symbol differs.
    #[error("{0}")]
    Differs(ReconcileDifference),
}

/// Result of the last comparison. New at every start: the records before it permit nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReconcileState {
    differences: Option<Vec<ReconcileDifference>>,
    adopted_orders: BTreeSet<String>,
}

impl ReconcileState {
    /// Takes the next record.
    pub fn apply_event(&mut self, event: &ReconcileEvent) {
        match event {
            ReconcileEvent::Compared { differences, .. } => self.differences = Some(differences.clone()),
            // Only a comparison that finds both sides equal frees the symbol.
            ReconcileEvent::PositionAdopted { .. } => {}
            ReconcileEvent::OrderAdopted { id, .. } => {
                self.adopted_orders.insert(id.clone());
            }
        }
    }

    /// Tells whether an order that nobody intended was taken over by an operator.
    #[must_use]
    pub fn is_adopted(&self, id: &str) -> bool {
        self.adopted_orders.contains(id)
    }

    /// The differences now; nothing before the first comparison.
    #[must_use]
    pub fn current_differences(&self) -> &[ReconcileDifference] {
        self.differences.as_deref().unwrap_or_default()
    }

    /// Permits an order of `symbol`, as far as reconciliation is asked.
    ///
    /// # Errors
    ///
    /// [`NotReconciled`]: not yet, or the difference that stops it.
    pub fn may_trade(&self, symbol: &Symbol) -> Result<(), NotReconciled> {
        let differences = self.differences.as_ref().ok_or(NotReconciled::NotYet)?;
        match differences.iter().find(|difference| difference.symbol() == symbol) {
            Some(difference) => Err(NotReconciled::Differs(difference.clone())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
