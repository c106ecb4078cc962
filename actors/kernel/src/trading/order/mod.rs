//! Orders: what is sent, its id, what an answer means, and the life of an order from its records.

pub mod answer;
pub mod attempts;
pub mod claims;
pub mod fills;
pub mod id;
pub mod next;
pub mod outcome;
pub mod read_back;
pub mod records;
pub mod route;
pub mod state;
pub mod status;
pub mod tally;

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

use crate::ids::Symbol;
use id::ClientOrderId;

/// Side of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderSide {
    /// Buys shares.
    Buy,
    /// Sells shares.
    Sell,
}

impl OrderSide {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }

    /// The change of a position by `qty` shares on this side.
    #[must_use]
    pub fn signed_qty(self, qty: Decimal) -> Decimal {
        match self {
            Self::Buy => qty,
            Self::Sell => -qty,
        }
    }
}

/// Kind of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderType {
    /// At any price.
    Market,
    /// At the limit price or better.
    Limit,
    /// At any price once the stop price is reached.
    Stop,
    /// At the limit price or better once the stop price is reached.
    StopLimit,
}

impl OrderType {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Limit => "limit",
            Self::Stop => "stop",
            Self::StopLimit => "stop_limit",
        }
    }

    const fn has_limit(self) -> bool {
        matches!(self, Self::Limit | Self::StopLimit)
    }

    const fn has_stop(self) -> bool {
        matches!(self, Self::Stop | Self::StopLimit)
    }
}

/// Lifetime of an order at the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeInForce {
    /// Until the end of the trading day.
    Day,
    /// Until it is canceled.
    Gtc,
    /// At once or never, also in part.
    Ioc,
    /// At once and whole, or never.
    Fok,
}

impl TimeInForce {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Gtc => "gtc",
            Self::Ioc => "ioc",
            Self::Fok => "fok",
        }
    }
}

/// An order that the gateway would refuse as malformed: it is never sent, and never tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrder {
    /// Less than one share.
    #[error("qty is zero")]
    ZeroQty,
    /// A price that the kind of order needs is missing, or one that it does not have is given.
    #[error("a {order_type} order has {wrong}")]
    WrongPrices {
        /// Kind of the order.
        order_type: &'static str,
        /// The wrong price: `no limit_price`, `a stop_price`.
        wrong: &'static str,
    },
    /// A price that is not more than zero once it is quantised.
    #[error("{field} is not more than zero")]
    PriceNotPositive {
        /// `limit_price` or `stop_price`.
        field: &'static str,
    },
}

/// Content of an order: the part of a request that is the same on every attempt (ORD-2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderContent {
    /// The instrument.
    pub symbol: Symbol,
    /// Buy or sell.
    pub side: OrderSide,
    /// Shares, at least 1.
    pub qty: u64,
    /// Kind of the order.
    pub order_type: OrderType,
    /// Price of a limit or stop-limit order.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub limit_price: Option<Decimal>,
    /// Price that triggers a stop or stop-limit order.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub stop_price: Option<Decimal>,
    /// Its lifetime.
    pub time_in_force: TimeInForce,
}

impl OrderContent {
    /// A market order for the day, as sizing makes them.
    #[must_use]
    pub const fn market_order(symbol: Symbol, side: OrderSide, qty: u64) -> Self {
        Self {
            symbol,
            side,
            qty,
            order_type: OrderType::Market,
            limit_price: None,
            stop_price: None,
            time_in_force: TimeInForce::Day,
        }
    }

    /// Checks what the gateway checks of an order alone.
    ///
    /// # Errors
    ///
    /// [`InvalidOrder`]: no shares, or prices that do not fit the kind of order.
    pub fn validate(&self) -> Result<(), InvalidOrder> {
        if self.qty == 0 {
            return Err(InvalidOrder::ZeroQty);
        }
        let order_type = self.order_type.as_str();
        let check = |price: Option<Decimal>, expected: bool, field, missing, given| match price {
            None if expected => Err(InvalidOrder::WrongPrices { order_type, wrong: missing }),
            Some(_) if !expected => Err(InvalidOrder::WrongPrices { order_type, wrong: given }),
            Some(price) if quantise_price(price) <= Decimal::ZERO => {
                Err(InvalidOrder::PriceNotPositive { field })
            }
            Some(_) | None => Ok(()),
        };
        let (limit, stop) = (self.order_type.has_limit(), self.order_type.has_stop());
        check(self.limit_price, limit, "limit_price", "no limit_price", "a limit_price")?;
        check(self.stop_price, stop, "stop_price", "no stop_price", "a stop_price")
    }

    /// The body of `POST /api/v1/orders`: compact, keys sorted, prices as strings.
    ///
    /// `id` is the intent's, also on an attempt of a later date: the bytes are equal on every attempt. The gateway
    /// derives its own id and ignores this one.
    #[must_use]
    pub fn to_body(&self, id: ClientOrderId) -> String {
        let mut body = serde_json::Map::new();
        body.insert("client_order_id".to_owned(), id.to_string().into());
        let mut price = |key: &str, price: Option<Decimal>| {
            if let Some(price) = price {
                body.insert(key.to_owned(), price.to_string().into());
            }
        };
        price("limit_price", self.limit_price);
        price("stop_price", self.stop_price);
        body.insert("order_type".to_owned(), self.order_type.as_str().into());
        body.insert("qty".to_owned(), self.qty.into());
        body.insert("side".to_owned(), self.side.as_str().into());
        body.insert("symbol".to_owned(), self.symbol.as_str().into());
        body.insert("time_in_force".to_owned(), self.time_in_force.as_str().into());
        serde_json::Value::Object(body).to_string()
    }
}

/// A price as the gateway keeps it: two decimals, half up.
#[must_use]
pub fn quantise_price(price: Decimal) -> Decimal {
    price.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(order_type: OrderType, limit_price: Option<&str>, stop_price: Option<&str>) -> OrderContent {
        let price = |text: &str| text.parse().unwrap();
        OrderContent {
            order_type,
            limit_price: limit_price.map(price),
            stop_price: stop_price.map(price),
            ..OrderContent::market_order(Symbol::from("AAPL"), OrderSide::Buy, 133)
        }
    }

    #[test]
    fn an_order_has_the_prices_of_its_kind_and_no_other() {
        use OrderType::{Limit, Market, Stop, StopLimit};
        let one = Some("1.00");
        for (order, problem) in [
            (limit(Market, None, None), None),
            (limit(Limit, one, None), None),
            (limit(Stop, None, one), None),
            (limit(StopLimit, one, one), None),
            (limit(Market, one, None), Some("a market order has a limit_price")),
            (limit(Market, None, one), Some("a market order has a stop_price")),
            (limit(Limit, None, None), Some("a limit order has no limit_price")),
            (limit(Limit, one, one), Some("a limit order has a stop_price")),
            (limit(Stop, None, None), Some("a stop order has no stop_price")),
            (limit(StopLimit, one, None), Some("a stop_limit order has no stop_price")),
            (limit(Limit, Some("0.004"), None), Some("limit_price is not more than zero")),
            (limit(Stop, None, Some("-1")), Some("stop_price is not more than zero")),
            (OrderContent { qty: 0, ..limit(Market, None, None) }, Some("qty is zero")),
        ] {
            let found = order.validate().err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), problem, "{order:?}");
        }
    }

    #[test]
    fn a_body_is_compact_and_sorted_and_has_prices_as_strings() {
        let id = ClientOrderId::from_hex("479131535213089960f7eebb").unwrap();

        assert_eq!(
            limit(OrderType::StopLimit, Some("300.505"), Some("299.90")).to_body(id),
            concat!(
                r#"{"client_order_id":"479131535213089960f7eebb","limit_price":"300.505","order_type":"stop_limit","#,
                r#""qty":133,"side":"buy","stop_price":"299.90","symbol":"AAPL","time_in_force":"day"}"#,
            )
        );
    }
}
