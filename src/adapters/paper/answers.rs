//! Answers of the paper services: their bodies, and the words of every refusal.

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_kernel::trading::order::quantise_price;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Value, json};

use super::broker::{FillTelling, PaperFill, PaperOrder};
use super::faults::{ErrorBody, RejectedAs, SafetyGateName, WrongField};
use super::ledger::plain;

/// An answer before it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaperAnswer {
    /// Status code.
    pub status: u16,
    /// `application/json`, or plain text.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Vec<u8>,
}

impl PaperAnswer {
    /// JSON with the fields in their order.
    #[must_use]
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        // Structs of strings and maps with text keys are always JSON.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { status, content_type: "application/json", headers: Vec::new(), body }
    }

    /// An error as FastAPI writes it.
    #[must_use]
    pub fn detail(status: u16, detail: impl Into<Value>) -> Self {
        Self::json(status, &json!({ "detail": detail.into() }))
    }

    /// Plain text.
    #[must_use]
    pub fn text(status: u16, text: &str) -> Self {
        let body = text.as_bytes().to_vec();
        Self { status, content_type: "text/plain; charset=utf-8", headers: Vec::new(), body }
    }

    /// With one more header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// A moment as pydantic writes it.
#[must_use]
pub(super) fn utc_text(at: TsMs) -> String {
    to_rfc3339(at).replace("+00:00", "Z")
}

fn price_text(price: Option<Decimal>) -> Option<String> {
    price.map(|price| format!("{:.2}", quantise_price(price)))
}

/// `OrderResponse`.
#[derive(Serialize)]
struct OrderBody<'a> {
    client_order_id: String,
    status: &'static str,
    broker_order_id: Option<&'a str>,
    symbol: &'a str,
    side: &'static str,
    qty: u64,
    order_type: &'static str,
    limit_price: Option<String>,
    created_at: String,
    message: &'a str,
}

/// The answer to a request to place `order`.
#[must_use]
pub(super) fn order_answer(order: &PaperOrder, message: &str) -> PaperAnswer {
    PaperAnswer::json(
        200,
        &OrderBody {
            client_order_id: order.id.to_string(),
            status: order.status.as_str(),
            broker_order_id: order.broker_order_id.as_deref(),
            symbol: order.content.symbol.as_str(),
            side: order.content.side.as_str(),
            qty: order.content.qty,
            order_type: order.content.order_type.as_str(),
            limit_price: price_text(order.content.limit_price),
            created_at: utc_text(order.created_at),
            message,
        },
    )
}

/// `OrderDetail`.
#[derive(Serialize)]
struct OrderDetailBody<'a> {
    client_order_id: String,
    strategy_id: &'a str,
    symbol: &'a str,
    side: &'static str,
    qty: u64,
    order_type: &'static str,
    limit_price: Option<String>,
    stop_price: Option<String>,
    time_in_force: &'static str,
    status: &'static str,
    broker_order_id: Option<&'a str>,
    error_message: Option<&'a str>,
    retry_count: u64,
    created_at: String,
    updated_at: String,
    submitted_at: Option<String>,
    filled_at: Option<String>,
    filled_qty: String,
    filled_avg_price: Option<String>,
    parent_order_id: Option<String>,
    slice_num: Option<u64>,
    total_slices: Option<u64>,
    scheduled_time: Option<String>,
    metadata: MetadataBody,
}

#[derive(Serialize)]
struct MetadataBody {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fills: Vec<FillBody>,
}

#[derive(Clone, Serialize)]
struct FillBody {
    fill_id: String,
    fill_qty: u64,
    fill_price: String,
    realized_pl: String,
    timestamp: String,
}

/// The answer to a read of `order`.
#[must_use]
pub(super) fn order_detail_answer(order: &PaperOrder, strategy_id: &str) -> PaperAnswer {
    let is_filled = order.told_qty == order.content.qty;
    let filled_at = order.fills.last().filter(|_| is_filled).map(|fill| utc_text(fill.at));
    PaperAnswer::json(
        200,
        &OrderDetailBody {
            client_order_id: order.id.to_string(),
            strategy_id,
            symbol: order.content.symbol.as_str(),
            side: order.content.side.as_str(),
            qty: order.content.qty,
            order_type: order.content.order_type.as_str(),
            limit_price: price_text(order.content.limit_price),
            stop_price: price_text(order.content.stop_price),
            time_in_force: order.content.time_in_force.as_str(),
            status: order.status.as_str(),
            broker_order_id: order.broker_order_id.as_deref(),
            error_message: order.error_message.as_deref(),
            retry_count: 0,
            created_at: utc_text(order.created_at),
            updated_at: utc_text(order.updated_at),
            submitted_at: order.broker_order_id.as_ref().map(|_| utc_text(order.created_at)),
            filled_at,
            filled_qty: order.told_qty.to_string(),
            filled_avg_price: order.told_price.map(plain),
            parent_order_id: None,
            slice_num: None,
            total_slices: None,
            scheduled_time: None,
            metadata: MetadataBody { fills: told_fills(order) },
        },
    )
}

fn told_fills(order: &PaperOrder) -> Vec<FillBody> {
    let body = |fill: &PaperFill| FillBody {
        fill_id: format!("{}_{}", order.id, fill.cumulative),
        fill_qty: fill.qty,
        fill_price: plain(fill.price),
        realized_pl: plain(fill.realized_pl),
        timestamp: utc_text(fill.at),
    };
    let plain_fills = order.fills.iter().map(body);
    match order.plan().telling {
        FillTelling::Plain => plain_fills.collect(),
        FillTelling::Twice => plain_fills.flat_map(|fill| [fill.clone(), fill]).collect(),
        FillTelling::Reversed => plain_fills.rev().collect(),
    }
}

/// The 503 of a safety gate.
#[must_use]
pub(super) fn gate_answer(gate: SafetyGateName, symbol: &str) -> PaperAnswer {
    let object = |error: &str, message: &str| json!({ "error": error, "message": message });
    let detail = match gate {
        SafetyGateName::KillSwitchUnavailable => json!({
            "error": "Kill-switch unavailable", "message": "Kill-switch state unknown (fail-closed for safety)",
            "fail_closed": true,
        }),
        SafetyGateName::CircuitBreakerUnavailable => {
            "Circuit-breaker state unavailable (fail-closed for safety)".into()
        }
        SafetyGateName::ReservationUnavailable => {
            "Position-reservation state unavailable (fail-closed for safety)".into()
        }
        SafetyGateName::KillSwitchEngaged => "Kill-switch engaged - new orders blocked".into(),
        SafetyGateName::CircuitBreakerTripped => "Circuit breaker tripped - trading paused".into(),
        SafetyGateName::QuarantineUnavailable => object(
            "Quarantine check unavailable",
            "Redis unavailable for quarantine enforcement (fail-closed).",
        ),
        SafetyGateName::SymbolQuarantined => json!({
            "error": "Symbol quarantined",
            "message": format!("Trading blocked for {symbol} due to orphan order quarantine"), "symbol": symbol,
        }),
        SafetyGateName::ReconciliationInProgress => object(
            "Reconciliation in progress",
            "Position-increasing orders blocked until startup reconciliation completes. \
             Reduce-only orders are allowed.",
        ),
        SafetyGateName::BrokerUnavailableDuringReconciliation => object(
            "Broker unavailable during reconciliation",
            "Cannot verify position for reduce-only check; order blocked (fail-closed)",
        ),
        SafetyGateName::PositionLookupUnavailable => {
            "Position lookup unavailable for reservation (fail-closed)".into()
        }
        SafetyGateName::DatabaseUnavailable => "Database unavailable during idempotency check".into(),
        SafetyGateName::ClientNotInitialized => "Alpaca client not initialized. Check credentials.".into(),
    };
    PaperAnswer::detail(503, detail)
}

/// The words of a rejection for good. `limit` is the position limit.
#[must_use]
pub(super) fn rejection_answer(rejected: RejectedAs, symbol: &str, limit: u64) -> PaperAnswer {
    match rejected {
        RejectedAs::Validation => {
            PaperAnswer::detail(400, "Order validation failed: rejected by a paper fault")
        }
        RejectedAs::FatFinger => PaperAnswer::detail(400, "Order rejected by fat-finger checks: notional"),
        RejectedAs::Schema => {
            let problem = FieldProblem::of("qty", "greater_than", "Input should be greater than 0");
            schema_answer(&[problem])
        }
        RejectedAs::PositionLimit => position_limit_answer(symbol, limit, "rejected by a paper fault"),
        RejectedAs::Broker => PaperAnswer::detail(422, "Order rejected by broker: rejected by a paper fault"),
    }
}

/// 422 of the position limit.
#[must_use]
pub(super) fn position_limit_answer(symbol: &str, limit: u64, why: &str) -> PaperAnswer {
    PaperAnswer::detail(
        422,
        json!({
            "error": "Position limit exceeded", "message": format!("Position limit exceeded: {why}"),
            "symbol": symbol, "max_position_size": limit,
        }),
    )
}

/// A field of a request that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FieldProblem {
    #[serde(rename = "type")]
    kind: &'static str,
    loc: Vec<String>,
    msg: String,
}

impl FieldProblem {
    /// A problem of a field of the body; of the body as a whole when `field` is empty.
    #[must_use]
    pub(super) fn of(field: &str, kind: &'static str, msg: impl Into<String>) -> Self {
        let loc =
            ["body", field].iter().filter(|part| !part.is_empty()).map(|part| (*part).to_owned()).collect();
        Self { kind, loc, msg: msg.into() }
    }
}

/// 422 with a list.
#[must_use]
pub(super) fn schema_answer(problems: &[FieldProblem]) -> PaperAnswer {
    PaperAnswer::detail(422, serde_json::to_value(problems).unwrap_or_default())
}

/// A 5xx.
#[must_use]
pub(super) fn error_answer(status: u16, body: ErrorBody) -> PaperAnswer {
    match (status, body) {
        (503, ErrorBody::Json) => PaperAnswer::detail(503, "Broker connection error: connection aborted"),
        (_, ErrorBody::Json) => {
            PaperAnswer::detail(status, "Unexpected error during order submission: APIError")
        }
        (502, ErrorBody::Plain) => PaperAnswer::text(status, "Bad Gateway"),
        (503, ErrorBody::Plain) => PaperAnswer::text(status, "Service Unavailable"),
        (504, ErrorBody::Plain) => PaperAnswer::text(status, "Gateway Timeout"),
        (_, ErrorBody::Plain) => PaperAnswer::text(status, "Internal Server Error"),
    }
}

/// The same answer about another order.
#[must_use]
pub(super) fn wrong_answer(answer: &PaperAnswer, field: WrongField) -> PaperAnswer {
    let Ok(mut body) = serde_json::from_slice::<Value>(&answer.body) else { return answer.clone() };
    let (key, value) = match field {
        WrongField::ClientOrderId => ("client_order_id", Value::from("000000000000000000000000")),
        WrongField::Qty => ("qty", Value::from(body["qty"].as_u64().unwrap_or_default() + 1)),
        WrongField::Side => ("side", Value::from(if body["side"] == "buy" { "sell" } else { "buy" })),
        WrongField::Symbol => ("symbol", Value::from("OTHER")),
    };
    if let Some(place) = body.get_mut(key) {
        *place = value;
    }
    PaperAnswer { body: body.to_string().into_bytes(), ..answer.clone() }
}
