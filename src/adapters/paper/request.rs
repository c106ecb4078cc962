//! Requests to the paper services: which route they ask for, and what their bodies say.

use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::trading::order::id::{ClientOrderId, UtcDate};
use orchestrator_kernel::trading::order::{OrderContent, OrderSide, OrderType, TimeInForce, quantise_price};
use orchestrator_kernel::trading::wire_values::{AMOUNT_MAX, decimal_of_json, moment_of_text, read_object};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::answers::FieldProblem;
use super::auth::SignedHeaders;
use super::faults::PaperRoute;

/// The two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaperRole {
    /// The Signal Service.
    Signals,
    /// The Execution Gateway.
    Gateway,
}

/// A request whose body was read.
#[derive(Clone, Debug)]
pub struct PaperRequest {
    /// The service that it came to.
    pub role: PaperRole,
    /// Its method.
    pub method: String,
    /// Its path, from the first slash.
    pub path: String,
    /// Its query without the question mark.
    pub query: String,
    /// What is signed of its headers.
    pub headers: SignedHeaders,
    /// Its body.
    pub body: bytes::Bytes,
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PaperTarget {
    /// One of the contracts' routes; with the id of its order as it was written.
    Service(PaperRoute, Option<String>),
    /// `GET /`.
    Root,
    /// `GET /api/v1/market_prices`.
    MarketPrices,
    /// `GET /paper/quotes/{symbol}`.
    Quote(String),
    /// `POST /paper/quotes`: sets a price.
    SetQuote,
    /// `POST /paper/positions`: sets a position by the back door.
    SetPosition,
    /// `POST /paper/clock`: shifts the clock.
    SetClock,
    /// `GET /paper/faults`.
    ListFaults,
    /// `POST /paper/faults`.
    SetFault,
    /// `DELETE /paper/faults`.
    ClearFaults,
    /// `DELETE /paper/faults/{id}`.
    RemoveFault(String),
    /// `GET /ledger`.
    Ledger,
    /// Where redirects lead.
    Redirected,
    /// The path exists, with another method.
    MethodNotAllowed,
    /// Nothing is there.
    NotFound,
}

impl PaperTarget {
    /// The target of a request to the service `role`.
    #[must_use]
    pub fn of_request(role: PaperRole, method: &str, path: &str) -> Self {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if let Some(target) = Self::of_control(method, &parts) {
            return target;
        }
        let service = |route| Self::Service(route, None);
        let of_order = |route, id: &str| Self::Service(route, Some(id.to_owned()));
        let (expected, target) = match (role, parts.as_slice()) {
            (_, [""]) => ("GET", Self::Root),
            (PaperRole::Signals, ["ready" | "health"]) | (PaperRole::Gateway, ["health"]) => {
                ("GET", service(PaperRoute::Health))
            }
            (PaperRole::Signals, ["api", "v1", "signals", "generate"]) => {
                ("POST", service(PaperRoute::Signals))
            }
            (PaperRole::Gateway, ["api", "v1", "orders"]) => ("POST", service(PaperRoute::Submit)),
            (PaperRole::Gateway, ["api", "v1", "orders", id]) => ("GET", of_order(PaperRoute::Read, id)),
            (PaperRole::Gateway, ["api", "v1", "orders", id, "cancel"]) => {
                ("POST", of_order(PaperRoute::Cancel, id))
            }
            (PaperRole::Gateway, ["api", "v1", "positions"]) => ("GET", service(PaperRoute::Positions)),
            (PaperRole::Gateway, ["api", "v1", "config"]) => ("GET", service(PaperRoute::Config)),
            (PaperRole::Gateway, ["api", "v1", "market_prices"]) => ("GET", Self::MarketPrices),
            (PaperRole::Signals | PaperRole::Gateway, _) => return Self::NotFound,
        };
        if method == expected { target } else { Self::MethodNotAllowed }
    }

    /// The routes that the real services do not have; the same on both.
    fn of_control(method: &str, parts: &[&str]) -> Option<Self> {
        let target = match (method, parts) {
            ("GET", ["ledger"]) => Self::Ledger,
            (_, ["paper", "redirected"]) => Self::Redirected,
            ("GET", ["paper", "faults"]) => Self::ListFaults,
            ("POST", ["paper", "faults"]) => Self::SetFault,
            ("DELETE", ["paper", "faults"]) => Self::ClearFaults,
            ("DELETE", ["paper", "faults", id]) => Self::RemoveFault((*id).to_owned()),
            ("GET", ["paper", "quotes", symbol]) => Self::Quote((*symbol).to_owned()),
            ("POST", ["paper", "quotes"]) => Self::SetQuote,
            ("POST", ["paper", "positions"]) => Self::SetPosition,
            ("POST", ["paper", "clock"]) => Self::SetClock,
            (_, ["ledger"] | ["paper", "faults" | "quotes" | "positions" | "clock"]) => {
                Self::MethodNotAllowed
            }
            _ => return None,
        };
        Some(target)
    }
}

/// Reads the body of `POST /api/v1/orders`. The id that it may have is ignored; prices are quantised.
///
/// # Errors
///
/// Every field that cannot be read.
pub(super) fn read_order(body: &[u8]) -> Result<OrderContent, Vec<FieldProblem>> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow)]
        symbol: Option<&'a RawValue>,
        #[serde(borrow)]
        side: Option<&'a RawValue>,
        #[serde(borrow)]
        qty: Option<&'a RawValue>,
        #[serde(borrow)]
        order_type: Option<&'a RawValue>,
        #[serde(borrow)]
        limit_price: Option<&'a RawValue>,
        #[serde(borrow)]
        stop_price: Option<&'a RawValue>,
        #[serde(borrow)]
        time_in_force: Option<&'a RawValue>,
    }
    let fields: Fields<'_> =
        read_object(body).map_err(|error| vec![FieldProblem::of("", "json_invalid", error.to_string())])?;
    let mut problems = Vec::new();
    let required = |field: &str, value: Option<&RawValue>, problems: &mut Vec<FieldProblem>| {
        if value.is_none() {
            problems.push(FieldProblem::of(field, "missing", "Field required"));
        }
    };
    required("symbol", fields.symbol, &mut problems);
    required("side", fields.side, &mut problems);
    required("qty", fields.qty, &mut problems);
    let symbol: Option<String> = word("symbol", fields.symbol, "a text", &mut problems);
    let side: Option<OrderSide> = word("side", fields.side, "'buy' or 'sell'", &mut problems);
    let types = "'market', 'limit', 'stop' or 'stop_limit'";
    let order_type: Option<OrderType> = word("order_type", fields.order_type, types, &mut problems);
    let lifetimes = "'day', 'gtc', 'ioc' or 'fok'";
    let time_in_force: Option<TimeInForce> =
        word("time_in_force", fields.time_in_force, lifetimes, &mut problems);
    let qty = fields.qty.and_then(|qty| shares(qty, &mut problems));
    let limit_price = price("limit_price", fields.limit_price, &mut problems);
    let stop_price = price("stop_price", fields.stop_price, &mut problems);
    match (symbol, side, qty) {
        (Some(symbol), Some(side), Some(qty)) if problems.is_empty() => Ok(OrderContent {
            symbol: Symbol::from(symbol.as_str()),
            side,
            qty,
            order_type: order_type.unwrap_or(OrderType::Market),
            limit_price,
            stop_price,
            time_in_force: time_in_force.unwrap_or(TimeInForce::Day),
        }),
        _ => Err(problems),
    }
}

fn word<T: DeserializeOwned>(
    field: &str,
    value: Option<&RawValue>,
    expected: &str,
    problems: &mut Vec<FieldProblem>,
) -> Option<T> {
    let read = serde_json::from_str(value?.get());
    if read.is_err() {
        problems.push(FieldProblem::of(field, "literal_error", format!("Input should be {expected}")));
    }
    read.ok()
}

fn shares(value: &RawValue, problems: &mut Vec<FieldProblem>) -> Option<u64> {
    let mut refuse = |kind, msg| {
        problems.push(FieldProblem::of("qty", kind, msg));
        None
    };
    match decimal_of_json(value) {
        Ok(qty) if qty <= Decimal::ZERO => refuse("greater_than", "Input should be greater than 0"),
        Ok(qty) if qty.fract().is_zero() && qty <= AMOUNT_MAX => qty.to_u64(),
        Ok(_) | Err(_) => refuse("int_parsing", "Input should be a valid integer"),
    }
}

fn price(field: &str, value: Option<&RawValue>, problems: &mut Vec<FieldProblem>) -> Option<Decimal> {
    match decimal_of_json(value?) {
        Ok(price) if price.abs() <= AMOUNT_MAX => Some(quantise_price(price)),
        Ok(_) | Err(_) => {
            problems.push(FieldProblem::of(field, "decimal_parsing", "Input should be a valid decimal"));
            None
        }
    }
}

/// The body of `POST /api/v1/signals/generate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SignalsBody {
    /// Symbols, at least one.
    pub symbols: Vec<String>,
    /// The date; today without one.
    pub as_of_date: Option<UtcDate>,
    /// Longs.
    pub top_n: Option<usize>,
    /// Shorts.
    pub bottom_n: Option<usize>,
}

/// Reads the body of a request for signals.
///
/// # Errors
///
/// The field that cannot be read.
pub(super) fn read_signals_body(body: &[u8]) -> Result<SignalsBody, Vec<FieldProblem>> {
    #[derive(Deserialize)]
    struct Fields {
        symbols: Vec<String>,
        as_of_date: Option<String>,
        top_n: Option<usize>,
        bottom_n: Option<usize>,
    }
    let fields: Fields =
        read_object(body).map_err(|error| vec![FieldProblem::of("", "invalid", error.to_string())])?;
    if fields.symbols.is_empty() {
        let msg = "List should have at least 1 item after validation, not 0";
        return Err(vec![FieldProblem::of("symbols", "too_short", msg)]);
    }
    let as_of_date = fields.as_of_date.as_deref().map(|text| {
        date_of_text(text).ok_or_else(|| {
            let msg = format!("Value error, Invalid date format: {text}. Use YYYY-MM-DD.");
            vec![FieldProblem::of("as_of_date", "value_error", msg)]
        })
    });
    let as_of_date = as_of_date.transpose()?;
    Ok(SignalsBody { symbols: fields.symbols, as_of_date, top_n: fields.top_n, bottom_n: fields.bottom_n })
}

/// The date that `YYYY-MM-DD` writes.
fn date_of_text(text: &str) -> Option<UtcDate> {
    let has_form = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    has_form.then(|| moment_of_text(&format!("{text}T00:00:00Z"))).flatten().map(UtcDate::at_moment)
}

/// The id of an order as it is written in a path.
#[must_use]
pub(super) fn order_id_of(text: Option<&str>) -> Option<ClientOrderId> {
    text.and_then(ClientOrderId::from_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(body: &str) -> Vec<String> {
        let found = read_order(body.as_bytes()).expect_err(body);
        let value = serde_json::to_value(found).unwrap();
        value.as_array().unwrap().iter().map(|problem| problem["loc"].to_string()).collect()
    }

    #[test]
    fn an_order_is_read_from_text_with_its_defaults() {
        let read = |body: &str| read_order(body.as_bytes()).unwrap();

        let market = OrderContent::market_order(Symbol::from("AAPL"), OrderSide::Buy, 133);
        assert_eq!(read(r#"{"symbol":"AAPL","side":"buy","qty":133,"client_order_id":"x"}"#), market);
        assert_eq!(read(r#"{"symbol":"AAPL","side":"buy","qty":"133","limit_price":null}"#), market);
        for price in ["300.505", "\"300.505\"", "300.51"] {
            let body = format!(
                r#"{{"symbol":"M","side":"sell","qty":5,"order_type":"limit","limit_price":{price}}}"#
            );
            assert_eq!(read(&body).limit_price, Some("300.51".parse().unwrap()), "{price}");
        }
    }

    #[test]
    fn each_field_that_cannot_be_read_is_named() {
        assert_eq!(problems("{}"), [r#"["body","symbol"]"#, r#"["body","side"]"#, r#"["body","qty"]"#]);
        for (field, value) in [
            ("symbol", "7"),
            ("side", "\"hold\""),
            ("qty", "0"),
            ("qty", "-1"),
            ("qty", "1.5"),
            ("qty", "1e300"),
            ("order_type", "\"iceberg\""),
            ("limit_price", "\"NaN\""),
            ("stop_price", "[]"),
            ("time_in_force", "\"week\""),
        ] {
            let mut body: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(r#"{"symbol":"AAPL","side":"buy","qty":1}"#).unwrap();
            body.remove(field);
            let rest = serde_json::to_string(&body).unwrap();
            let body = format!(r#"{{"{field}":{value},{}"#, &rest[1..]);
            assert_eq!(problems(&body), [format!(r#"["body","{field}"]"#)], "{body}");
        }
        assert_eq!(problems("[1]"), [r#"["body"]"#]);
    }

    #[test]
    fn a_request_for_signals_has_symbols_and_a_date() {
        let read = |body: &str| read_signals_body(body.as_bytes());

        let body = read(r#"{"symbols":["AAPL"],"as_of_date":"2025-01-02","top_n":1}"#).unwrap();
        assert_eq!((body.as_of_date, body.top_n, body.bottom_n), (Some(UtcDate(20_090)), Some(1), None));
        for wrong in [
            r#"{"symbols":[]}"#,
            r#"{"symbols":["AAPL"],"as_of_date":"bad"}"#,
            r#"{"symbols":["AAPL"],"as_of_date":"2025-02-30"}"#,
            r#"{"symbols":["AAPL"],"top_n":-1}"#,
            r#"{"symbols":"AAPL"}"#,
            "{}",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_service_has_its_routes_and_both_have_the_control() {
        use PaperRole::{Gateway, Signals};
        let of = PaperTarget::of_request;
        let id = || Some("x".to_owned());

        assert_eq!(of(Gateway, "POST", "/api/v1/orders"), PaperTarget::Service(PaperRoute::Submit, None));
        assert_eq!(of(Gateway, "GET", "/api/v1/orders/x"), PaperTarget::Service(PaperRoute::Read, id()));
        assert_eq!(
            of(Gateway, "POST", "/api/v1/orders/x/cancel"),
            PaperTarget::Service(PaperRoute::Cancel, id())
        );
        assert_eq!(of(Gateway, "GET", "/api/v1/orders"), PaperTarget::MethodNotAllowed);
        assert_eq!(of(Gateway, "POST", "/api/v1/signals/generate"), PaperTarget::NotFound);
        assert_eq!(of(Signals, "POST", "/api/v1/orders"), PaperTarget::NotFound);
        for role in [Signals, Gateway] {
            assert_eq!(of(role, "GET", "/ledger"), PaperTarget::Ledger);
            assert_eq!(of(role, "PUT", "/paper/faults"), PaperTarget::MethodNotAllowed);
            assert_eq!(of(role, "DELETE", "/paper/faults/3"), PaperTarget::RemoveFault("3".to_owned()));
        }
    }
}
