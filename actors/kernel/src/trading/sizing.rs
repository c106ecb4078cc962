//! Signals to sizes: how many shares each signal is worth, or why it is skipped.
//!
//! ```text
//! qty = floor(min(|target_weight| × capital, max_position_size) / price)
//! ```
//!
//! Source: CONTRACTS §5, "Sizing"; ADR-0006 "Signal-to-Order Mapping".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::order::OrderSide;
use super::price::PriceUnavailable;
use super::wire_values::{decimal_of_text, is_within_bounds, read_object};
use crate::error::bounded_detail;
use crate::ids::Symbol;
use crate::json::describe_mistake;

/// A signal of the Signal Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TradeSignal {
    /// The instrument, one of those that were asked for.
    pub symbol: Symbol,
    /// The return that the model expects.
    #[serde(with = "rust_decimal::serde::str")]
    pub predicted_return: Decimal,
    /// Its place among the signals.
    pub rank: i64,
    /// Share of the capital; more than zero is long, less is short.
    #[serde(with = "rust_decimal::serde::str")]
    pub target_weight: Decimal,
}

/// Reason for which a signal became no order. Shown as `skip_reason`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignalSkip {
    /// A weight of zero.
    ZeroWeight,
    /// No price that may be traded on.
    PriceUnavailable(String),
    /// Less than one share.
    QtyLessThanOneShare,
    /// A field that is missing, null, not finite or of another type.
    InvalidSignal(String),
    /// The symbol occurs more than once: nobody knows which one is meant, so none is.
    DuplicateSignal,
    /// Another run's order of today is the same order.
    DuplicateOrder(String),
    /// The risk stage denied it.
    RiskDenied(String),
    /// The ledger has no room.
    NoBuyingPower,
    /// The kill switch is engaged.
    KillSwitchEngaged,
    /// The order could not be placed.
    SubmissionFailed(String),
}

impl fmt::Display for SignalSkip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroWeight => f.write_str("zero_weight"),
            Self::PriceUnavailable(why) => write!(f, "price_unavailable: {why}"),
            Self::QtyLessThanOneShare => f.write_str("qty_less_than_one_share"),
            Self::InvalidSignal(field) => write!(f, "invalid_signal: {field}"),
            Self::DuplicateSignal => f.write_str("duplicate_signal"),
            Self::DuplicateOrder(run_id) => write!(f, "duplicate_order: {run_id}"),
            Self::RiskDenied(why) => write!(f, "risk_denied: {why}"),
            Self::NoBuyingPower => f.write_str("no_buying_power"),
            Self::KillSwitchEngaged => f.write_str("kill_switch_engaged"),
            Self::SubmissionFailed(why) => write!(f, "submission_failed: {why}"),
        }
    }
}

/// A signal as it was read: good, or skipped with the symbol that it names, if it names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalRead {
    /// Good.
    Signal(TradeSignal),
    /// Skipped.
    Skipped {
        /// Its symbol as it stands there; empty when there is none.
        symbol: String,
        /// The reason, in words.
        skip: SignalSkip,
    },
}

/// A body that holds no signals that could be read: the request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signals cannot be read: {0}")]
pub struct SignalsUnreadable(String);

/// One signal, each field as its text.
#[derive(Deserialize)]
struct SignalFields {
    symbol: Option<Box<RawValue>>,
    predicted_return: Option<Box<RawValue>>,
    rank: Option<Box<RawValue>>,
    target_weight: Option<Box<RawValue>>,
}

impl SignalFields {
    fn symbol_text(&self) -> Option<String> {
        self.symbol.as_ref().and_then(|symbol| serde_json::from_str(symbol.get()).ok())
    }

    /// The signal, or the first field that is not what it should be.
    fn read_signal(&self, requested: &BTreeSet<Symbol>) -> Result<TradeSignal, &'static str> {
        let symbol = self.symbol_text().map(|symbol| Symbol::from(symbol.as_str()));
        let number = |field: &Option<Box<RawValue>>| {
            let field = field.as_ref()?;
            decimal_of_text(field.get()).ok().filter(|number| is_within_bounds(*number))
        };
        let integer = |number: Decimal| number.is_integer().then(|| number.to_i64()).flatten();
        Ok(TradeSignal {
            symbol: symbol.filter(|symbol| requested.contains(symbol)).ok_or("symbol")?,
            predicted_return: number(&self.predicted_return).ok_or("predicted_return")?,
            rank: number(&self.rank).and_then(integer).ok_or("rank")?,
            target_weight: number(&self.target_weight).ok_or("target_weight")?,
        })
    }
}

/// Reads the signals of an answer, in its order. Numbers are taken from their digits; a number as text is none.
///
/// # Errors
///
/// [`SignalsUnreadable`]: no JSON (bare `NaN` and `Infinity` are none), or no list `signals`.
pub fn read_signals(body: &[u8], requested: &BTreeSet<Symbol>) -> Result<Vec<SignalRead>, SignalsUnreadable> {
    #[derive(Deserialize)]
    struct Body {
        signals: Vec<Box<RawValue>>,
    }
    let body: Body = read_object(body).map_err(|error| SignalsUnreadable(describe_mistake(&error)))?;
    let fields: Vec<Option<SignalFields>> =
        body.signals.iter().map(|signal| read_object(signal.get().as_bytes()).ok()).collect();
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for symbol in fields.iter().flatten().filter_map(SignalFields::symbol_text) {
        *times.entry(symbol).or_default() += 1;
    }
    let read = |fields: Option<SignalFields>| {
        let symbol = fields.as_ref().and_then(SignalFields::symbol_text).unwrap_or_default();
        let is_doubled = times.get(&symbol).is_some_and(|times| 1 < *times);
        let skip = match fields.map(|fields| fields.read_signal(requested)) {
            Some(_) if is_doubled => SignalSkip::DuplicateSignal,
            Some(Ok(signal)) => return SignalRead::Signal(signal),
            Some(Err(field)) => SignalSkip::InvalidSignal(field.to_owned()),
            None => SignalSkip::InvalidSignal("shape".to_owned()),
        };
        SignalRead::Skipped { symbol: bounded_detail(&symbol), skip }
    };
    Ok(fields.into_iter().map(read).collect())
}

/// Limits of a position's cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizingLimits {
    /// All that there is to trade with.
    pub capital: Decimal,
    /// The most that one position may cost.
    pub max_position_size: Decimal,
}

/// Side and shares of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderSize {
    /// Buy for a long signal, sell for a short one.
    pub side: OrderSide,
    /// Shares, at least 1.
    pub qty: u64,
}

/// Returns what a signal of `target_weight` is worth at `price`.
///
/// # Errors
///
/// [`SignalSkip`]: zero weight, no price, or less than one share.
pub fn size_signal(
    target_weight: Decimal,
    limits: &SizingLimits,
    price: Result<Decimal, PriceUnavailable>,
) -> Result<OrderSize, SignalSkip> {
    if target_weight.is_zero() {
        return Err(SignalSkip::ZeroWeight);
    }
    let price = price.map_err(|why| SignalSkip::PriceUnavailable(why.to_string()))?;
    let wanted = target_weight.abs().checked_mul(limits.capital);
    // What overflows is more than any limit.
    let amount = wanted.map_or(limits.max_position_size, |wanted| wanted.min(limits.max_position_size));
    let shares = amount.checked_div(price).map(|shares| shares.floor()).and_then(|shares| shares.to_u64());
    let side = if target_weight.is_sign_positive() { OrderSide::Buy } else { OrderSide::Sell };
    match shares {
        Some(qty) if 1 <= qty => Ok(OrderSize { side, qty }),
        Some(_) | None => Err(SignalSkip::QtyLessThanOneShare),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn limits() -> SizingLimits {
        SizingLimits { capital: decimal("100000"), max_position_size: decimal("20000") }
    }

    fn size(weight: &str, price: &str) -> Result<(OrderSide, u64), String> {
        let size = size_signal(decimal(weight), &limits(), Ok(decimal(price)));
        size.map(|size| (size.side, size.qty)).map_err(|skip| skip.to_string())
    }

    #[test]
    fn sizes_match_the_recorded_vectors() {
        assert_eq!(size("0.5", "150"), Ok((OrderSide::Buy, 133)));
        assert_eq!(size("-0.333", "400.25"), Ok((OrderSide::Sell, 49)));
    }

    #[test]
    fn the_edges_of_a_share_are_exact() {
        assert_eq!(size("0.0000001", "0.01"), Ok((OrderSide::Buy, 1)));
        assert_eq!(size("0.1", "0.1"), Ok((OrderSide::Buy, 100_000)));
        assert_eq!(size("0.03", "1000"), Ok((OrderSide::Buy, 3)));
        assert_eq!(size("0.2", "20000"), Ok((OrderSide::Buy, 1)));
        assert_eq!(size("1", "20000.01"), Err("qty_less_than_one_share".to_owned()));
        assert_eq!(size("0.0014999", "150"), Err("qty_less_than_one_share".to_owned()));
        assert_eq!(size("0", "150"), Err("zero_weight".to_owned()));
        assert_eq!(size("-0.00", "150"), Err("zero_weight".to_owned()));
    }

    #[test]
    fn no_price_skips_with_the_reason_and_nothing_stands_in_for_it() {
        let skip = size_signal(decimal("0.5"), &limits(), Err(PriceUnavailable::TooOld { age_ms: 30_001 }));

        assert_eq!(skip.unwrap_err().to_string(), "price_unavailable: 30001 ms old");
    }

    fn read(signals: &str) -> Vec<String> {
        let requested = ["AAPL", "MSFT", "TSLA"].map(Symbol::from).into();
        let read =
            read_signals(format!("{{\"signals\":{signals},\"metadata\":{{}}}}").as_bytes(), &requested);
        let line = |read: SignalRead| match read {
            SignalRead::Signal(signal) => {
                format!("{} {} {}", signal.symbol, signal.rank, signal.target_weight)
            }
            SignalRead::Skipped { symbol, skip } => format!("{symbol} {skip}"),
        };
        read.unwrap().into_iter().map(line).collect()
    }

    fn signal(symbol: &str, changed: &str, value: &str) -> String {
        let fields = [
            ("symbol", format!("\"{symbol}\"")),
            ("predicted_return", "0.02".to_owned()),
            ("rank", "1".to_owned()),
            ("target_weight", "0.10000000000000000001".to_owned()),
        ];
        let field = |(name, text): &(&str, String)| match *name == changed {
            true if value.is_empty() => None,
            true => Some(format!("\"{name}\":{value}")),
            false => Some(format!("\"{name}\":{text}")),
        };
        format!("{{{}}}", fields.iter().filter_map(field).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn numbers_are_taken_from_their_digits() {
        assert_eq!(read(&format!("[{}]", signal("AAPL", "", ""))), ["AAPL 1 0.10000000000000000001"]);
        assert_eq!(read(&format!("[{}]", signal("AAPL", "target_weight", "-5e-1"))), ["AAPL 1 -0.5"]);
        assert_eq!(read("[]"), Vec::<String>::new());
    }

    #[test]
    fn a_field_that_is_not_what_it_should_be_is_named() {
        for field in ["predicted_return", "rank", "target_weight"] {
            for value in ["", "null", "\"NaN\"", "\"Infinity\"", "\"0.5\"", "true", "[1]", "1e300"] {
                let read = read(&format!("[{}]", signal("AAPL", field, value)));
                assert_eq!(read, [format!("AAPL invalid_signal: {field}")], "{value}");
            }
        }
        assert_eq!(read(&format!("[{}]", signal("AAPL", "rank", "1.5"))), ["AAPL invalid_signal: rank"]);
        for (value, symbol) in [("", ""), ("null", ""), ("7", ""), ("\"GOOG\"", "GOOG"), ("\"\"", "")] {
            let read = read(&format!("[{}]", signal("AAPL", "symbol", value)));
            assert_eq!(read, [format!("{symbol} invalid_signal: symbol")], "{value}");
        }
        assert_eq!(read("[3]"), [" invalid_signal: shape"]);
        assert_eq!(read("[[\"AAPL\",0.02,1,0.5]]"), [" invalid_signal: shape"]);
    }

    #[test]
    fn a_doubled_symbol_is_skipped_each_time() {
        let body = ["AAPL", "MSFT", "AAPL"].map(|symbol| signal(symbol, "", "")).join(",");

        assert_eq!(
            read(&format!("[{body}]")),
            ["AAPL duplicate_signal", "MSFT 1 0.10000000000000000001", "AAPL duplicate_signal"]
        );
    }

    #[test]
    fn a_body_that_is_no_json_fails_as_a_whole() {
        let requested = BTreeSet::new();
        for body in [
            "",
            "[]",
            "{}",
            "{\"signals\":null}",
            "{\"signals\":[{\"symbol\":\"AAPL\",\"target_weight\":NaN}]}",
            "{\"signals\":[{\"symbol\":\"AAPL\",\"target_weight\":-Infinity}]}",
            "{\"signals\":[",
        ] {
            assert!(read_signals(body.as_bytes(), &requested).is_err(), "{body}");
        }
    }

    #[test]
    fn skip_reasons_are_the_recorded_words() {
        let why = || "x".to_owned();
        let words: Vec<String> = [
            SignalSkip::ZeroWeight,
            SignalSkip::PriceUnavailable(why()),
            SignalSkip::QtyLessThanOneShare,
            SignalSkip::InvalidSignal(why()),
            SignalSkip::DuplicateSignal,
            SignalSkip::DuplicateOrder(why()),
            SignalSkip::RiskDenied(why()),
            SignalSkip::NoBuyingPower,
            SignalSkip::KillSwitchEngaged,
            SignalSkip::SubmissionFailed(why()),
        ]
        .iter()
        .map(SignalSkip::to_string)
        .collect();

        assert_eq!(
            words,
            [
                "zero_weight",
                "price_unavailable: x",
                "qty_less_than_one_share",
                "invalid_signal: x",
                "duplicate_signal",
                "duplicate_order: x",
                "risk_denied: x",
                "no_buying_power",
                "kill_switch_engaged",
                "submission_failed: x"
            ]
        );
    }

    proptest! {
        /// The shares cost no more than both limits allow, and one more would.
        #[test]
        fn a_size_is_the_largest_that_fits(
            weight in -2_000_000..2_000_000i64, price in 1..10_000_000i64, capital in 0..10_000_000i64,
            max_position_size in 0..10_000_000i64,
        ) {
            let (weight, price) = (Decimal::new(weight, 6), Decimal::new(price, 2));
            let limits = SizingLimits { capital: capital.into(), max_position_size: max_position_size.into() };
            let amount = (weight.abs() * limits.capital).min(limits.max_position_size);

            match size_signal(weight, &limits, Ok(price)) {
                Ok(OrderSize { side, qty }) => {
                    prop_assert!(Decimal::from(qty) * price <= amount && amount < Decimal::from(qty + 1) * price);
                    prop_assert_eq!(side == OrderSide::Buy, Decimal::ZERO < weight);
                }
                Err(SignalSkip::ZeroWeight) => prop_assert!(weight.is_zero()),
                Err(SignalSkip::QtyLessThanOneShare) => prop_assert!(amount < price),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }

        #[test]
        fn no_amount_makes_it_panic(
            parts in any::<[[u32; 3]; 3]>(), scales in any::<[u32; 3]>(),
        ) {
            let [weight, capital, price] = [0, 1, 2].map(|at| {
                let [low, mid, high] = parts[at];
                Decimal::from_parts(low, mid, high, false, scales[at] % 29)
            });
            let limits = SizingLimits { capital, max_position_size: Decimal::MAX };
            let _ignored = size_signal(weight, &limits, Ok(price)).is_ok();
        }
    }
}
