//! Payloads of events that are consumed, each with its type. Unknown keys are ignored.

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::incoming::{IncomingMisfit, foreign_text};
use crate::error::bounded_detail;
use crate::ids::Symbol;
use crate::trading::backtest::BacktestRequest;
use crate::trading::decision::TradeDecision;
use crate::trading::wire_values::{decimal_of_json, read_object};

/// Topics of events from which something follows without a schedule that waits for them; and those of the market, that
/// schedules usually wait for.
pub const INCOMING_TOPICS: [&str; 10] = [
    "system.heartbeat",
    "system.error.occurred",
    "market.session.changed",
    "trade.order.*",
    "ai.decision.generated",
    "ai.decision.validated",
    "ordinis.ops.run.backtest.requested",
    "ordinis.ops.kill.activate.requested",
    "ordinis.ops.kill.deactivate.requested",
    "ordinis.market.*",
];

/// Payload of an event, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncomingPayload {
    /// `system.heartbeat`: a service lives.
    Heartbeat(ForeignHeartbeat),
    /// `system.error.occurred`: a service has an error.
    Error(ForeignError),
    /// `market.session.changed`: the market opened, or closed.
    Session(SessionNews),
    /// `trade.order.*`: something happened to an order.
    Order(OrderNews),
    /// `ai.decision.generated`: a decision.
    Decision(TradeDecision),
    /// `ai.decision.validated`: somebody judged a decision.
    DecisionJudged(DecisionJudged),
    /// `ordinis.ops.run.backtest.requested`: somebody wants a backtest.
    Backtest(BacktestRequest),
    /// `ordinis.ops.kill.activate.requested`: stop trading.
    KillActivate(KillAsked),
    /// `ordinis.ops.kill.deactivate.requested`: allow it again.
    KillDeactivate(KillAsked),
    /// Any other name, as `ordinis.market.*`: schedules may wait for it.
    Other,
}

/// A heartbeat of another service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignHeartbeat {
    /// Its name.
    pub service: String,
    /// How it says it is.
    pub status: String,
}

/// An error of another service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignError {
    /// Its name.
    pub service: String,
    /// Its code.
    pub code: String,
    /// What happened, as one bounded line.
    pub message: String,
    /// How bad it is, as it says itself.
    pub severity: Option<String>,
}

impl ForeignError {
    /// The error as one line.
    #[must_use]
    pub fn to_line(&self) -> String {
        bounded_detail(&format!("{}: {}: {}", self.service, self.code, self.message))
    }
}

/// Part of the market's day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionWord {
    /// Before the session.
    Pre,
    /// The session.
    Regular,
    /// After it.
    Post,
    /// No trading.
    Closed,
}

/// A change of the market's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionNews {
    /// The market.
    pub market: String,
    /// What it is in now.
    pub current: SessionWord,
}

/// Kind of an order's news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderNewsKind {
    /// It is at the broker.
    Submitted,
    /// Some of it, or all, was executed.
    Filled,
    /// The broker does not take it.
    Rejected,
    /// It is cancelled; also spelled `canceled`.
    Cancelled,
    /// Any other last word.
    Other,
}

/// News of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderNews {
    /// What happened.
    pub kind: OrderNewsKind,
    /// The order.
    pub order_id: String,
    /// Its instrument.
    pub symbol: Symbol,
    /// Shares that it is about: submitted, filled, rejected, cancelled.
    pub quantity: Option<Decimal>,
    /// Price of a fill.
    pub price: Option<Decimal>,
}

/// A judgement of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionJudged {
    /// The decision.
    pub decision_id: String,
    /// Its instrument.
    pub symbol: Symbol,
    /// What was found.
    pub approved: bool,
}

/// A wish about the kill switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillAsked {
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct HeartbeatBody {
    service: String,
    #[serde(default)]
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
struct ErrorBody {
    service: String,
    #[serde(default)]
    error_code: Option<String>,
    message: String,
    #[serde(default)]
    severity: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
struct SessionBody {
    current_session: SessionWord,
    #[serde(default)]
    market: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
struct OrderBody<'a> {
    order_id: String,
    symbol: String,
    #[serde(borrow, default)]
    quantity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    filled_quantity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cancelled_quantity: Option<&'a RawValue>,
    #[serde(borrow, default)]
    fill_price: Option<&'a RawValue>,
    #[serde(borrow, default)]
    average_price: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
struct JudgedBody {
    decision_id: String,
    symbol: String,
    approved: bool,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct KillBody {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct AnyBody {}

impl IncomingPayload {
    /// Reads the payload of an event of this name.
    ///
    /// # Errors
    ///
    /// [`IncomingMisfit`], naming the key.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, IncomingMisfit> {
        match name {
            "system.heartbeat" => read_heartbeat(text).map(Self::Heartbeat),
            "system.error.occurred" => read_error(text).map(Self::Error),
            "market.session.changed" => read_session(text).map(Self::Session),
            "ai.decision.generated" => read_decision(text).map(Self::Decision),
            "ai.decision.validated" => read_judged(text).map(Self::DecisionJudged),
            "ordinis.ops.run.backtest.requested" => {
                read_body::<AnyBody>(text)?;
                let request = BacktestRequest::parse(text);
                request.map(Self::Backtest).map_err(|why| IncomingMisfit::of_field("payload", why))
            }
            "ordinis.ops.kill.activate.requested" => read_kill(text).map(Self::KillActivate),
            "ordinis.ops.kill.deactivate.requested" => read_kill(text).map(Self::KillDeactivate),
            name => match name.strip_prefix("trade.order.") {
                Some(last) => read_order(last, text).map(Self::Order),
                None => read_body::<AnyBody>(text).map(|AnyBody {}| Self::Other),
            },
        }
    }
}

fn read_body<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, IncomingMisfit> {
    read_object(text.as_bytes()).map_err(|error| IncomingMisfit::of_field("payload", error.to_string()))
}

fn read_heartbeat(text: &str) -> Result<ForeignHeartbeat, IncomingMisfit> {
    let body: HeartbeatBody = read_body(text)?;
    Ok(ForeignHeartbeat {
        service: foreign_text("payload.service", body.service)?,
        status: foreign_text("payload.status", body.status.unwrap_or_else(|| "healthy".to_owned()))?,
    })
}

fn read_error(text: &str) -> Result<ForeignError, IncomingMisfit> {
    let body: ErrorBody = read_body(text)?;
    Ok(ForeignError {
        service: foreign_text("payload.service", body.service)?,
        code: foreign_text("payload.errorCode", body.error_code.unwrap_or_else(|| "unknown".to_owned()))?,
        message: bounded_detail(&body.message),
        severity: body.severity.map(|severity| bounded_detail(&severity)),
    })
}

fn read_session(text: &str) -> Result<SessionNews, IncomingMisfit> {
    let body: SessionBody = read_body(text)?;
    let market = body.market.unwrap_or_else(|| "default".to_owned());
    Ok(SessionNews { market: foreign_text("payload.market", market)?, current: body.current_session })
}

fn read_decision(text: &str) -> Result<TradeDecision, IncomingMisfit> {
    // A decision's own reader does not know arrays from objects.
    read_body::<AnyBody>(text)?;
    TradeDecision::from_json(text).map_err(|refused| IncomingMisfit::of_field("payload", refused.to_string()))
}

fn read_judged(text: &str) -> Result<DecisionJudged, IncomingMisfit> {
    let body: JudgedBody = read_body(text)?;
    Ok(DecisionJudged {
        decision_id: foreign_text("payload.decisionId", body.decision_id)?,
        symbol: read_symbol(&body.symbol)?,
        approved: body.approved,
    })
}

fn read_kill(text: &str) -> Result<KillAsked, IncomingMisfit> {
    let body: KillBody = read_body(text)?;
    Ok(KillAsked { reason: bounded_detail(body.reason.as_deref().unwrap_or("no reason given")) })
}

fn read_order(last_words: &str, text: &str) -> Result<OrderNews, IncomingMisfit> {
    let body: OrderBody<'_> = read_body(text)?;
    let kind = match last_words {
        "submitted" => OrderNewsKind::Submitted,
        "filled" => OrderNewsKind::Filled,
        "rejected" => OrderNewsKind::Rejected,
        "cancelled" | "canceled" => OrderNewsKind::Cancelled,
        _ => OrderNewsKind::Other,
    };
    let (field, quantity) = match kind {
        OrderNewsKind::Filled => ("payload.filledQuantity", body.filled_quantity),
        OrderNewsKind::Cancelled => ("payload.cancelledQuantity", body.cancelled_quantity),
        OrderNewsKind::Submitted | OrderNewsKind::Rejected | OrderNewsKind::Other => {
            ("payload.quantity", body.quantity)
        }
    };
    Ok(OrderNews {
        kind,
        order_id: foreign_text("payload.orderId", body.order_id)?,
        symbol: read_symbol(&body.symbol)?,
        quantity: read_amount(field, quantity)?,
        price: read_amount("payload.fillPrice", body.fill_price.or(body.average_price))?,
    })
}

fn read_symbol(text: &str) -> Result<Symbol, IncomingMisfit> {
    let symbol = Some(text).filter(|text| Symbol::is_valid(text)).map(Symbol::from);
    symbol.ok_or_else(|| {
        IncomingMisfit::of_field("payload.symbol", "1 to 128 bytes without control characters")
    })
}

/// An amount that is not negative, as the exact decimal that was written; `null` is none.
fn read_amount(field: &'static str, raw: Option<&RawValue>) -> Result<Option<Decimal>, IncomingMisfit> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    let amount = decimal_of_json(raw).map_err(|error| IncomingMisfit::of_field(field, error.to_string()))?;
    match amount.is_sign_negative() && !amount.is_zero() {
        true => Err(IncomingMisfit::of_field(field, "less than 0")),
        false => Ok(Some(amount)),
    }
}
