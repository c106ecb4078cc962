//! Orchestration runs: the rows of signals that became orders, the pages of them, and their bodies on the wire.
//!
//! A run is the cycle of its `run_id`. What a body has beside the columns follows from them: orders, submissions and
//! executions are the mappings that came so far.
//!
//! Source: specification 003, "Database Schema"; specification 004; CONTRACTS §6, recorded.

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use crate::ids::TsMs;
use crate::rfc3339::to_rfc3339;
use crate::trading::ids::CycleId;

/// Runs on one page, at most.
pub const ORCHESTRATION_PAGE_MAX: u32 = 100;
/// Mappings of one run that are shown; of more the first ones.
pub const MAPPINGS_SHOWN_MAX: u32 = 10_000;

/// Row of `orchestration_runs`.
#[derive(Clone, Debug, PartialEq)]
pub struct OrchestrationRunRow {
    /// The run, and the cycle that it is.
    pub run_id: CycleId,
    /// The strategy.
    pub strategy_id: String,
    /// Day that the signals are of, `YYYY-MM-DD`: see [`fit_date`](super::fit_date).
    pub as_of_date: String,
    /// `running`, `completed`, `failed` or `partial`.
    pub status: String,
    /// Symbols that were asked for, in their order.
    pub symbols: Vec<String>,
    /// Capital that was to be invested.
    pub capital: Decimal,
    /// Most that one position may be worth.
    pub max_position_size: Decimal,
    /// Signals that came.
    pub num_signals: i32,
    /// Orders that were sent.
    pub num_orders_submitted: i32,
    /// Of them the gateway took.
    pub num_orders_accepted: i32,
    /// Of them nobody took.
    pub num_orders_rejected: i32,
    /// Of them are filled, where it is known.
    pub num_orders_filled: Option<i32>,
    /// When it began.
    pub started_at: TsMs,
    /// When it ended.
    pub completed_at: Option<TsMs>,
    /// Seconds that it took.
    pub duration_seconds: Option<Decimal>,
    /// Reason for which it failed.
    pub error_message: Option<String>,
    /// Version of the model behind the signals.
    pub model_version: Option<String>,
    /// What the signal service answered: `signals` and `metadata`.
    pub signal_service_response: Option<Value>,
    /// What the gateway answered, a list.
    pub execution_gateway_responses: Option<Value>,
    /// When its first record was made.
    pub created_at: TsMs,
    /// When the row changed.
    pub updated_at: TsMs,
}

/// Row of `signal_order_mappings`: a signal, and the order that it became or the reason for which there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalOrderRow {
    /// The run.
    pub run_id: CycleId,
    /// Its place among the run's signals, from 0: a symbol may come twice.
    pub position: i32,
    /// The symbol.
    pub symbol: String,
    /// The signal's forecast, where it could be read.
    pub predicted_return: Option<Decimal>,
    /// Its rank.
    pub rank: Option<i32>,
    /// Share of the capital.
    pub target_weight: Option<Decimal>,
    /// The order.
    pub client_order_id: Option<String>,
    /// Shares.
    pub order_qty: Option<i32>,
    /// `buy` or `sell`.
    pub order_side: Option<String>,
    /// The order as the broker names it.
    pub broker_order_id: Option<String>,
    /// Status as the gateway names it.
    pub order_status: Option<String>,
    /// Shares filled.
    pub filled_qty: Option<Decimal>,
    /// Price that they were filled at, on average.
    pub filled_avg_price: Option<Decimal>,
    /// Reason for which there is no order.
    pub skip_reason: Option<String>,
    /// When its first record was made.
    pub created_at: TsMs,
    /// When the row changed.
    pub updated_at: TsMs,
}

/// Question for the last runs, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrchestrationPageQuery {
    /// Runs at most, 1 to [`ORCHESTRATION_PAGE_MAX`].
    pub limit: u32,
    /// Runs that are passed over.
    pub offset: u32,
    /// Only of this strategy.
    pub strategy_id: Option<String>,
    /// Only of this status.
    pub status: Option<String>,
}

/// Page of runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OrchestrationPage {
    /// The runs.
    pub runs: Vec<OrchestrationRunRow>,
    /// All that match, on whatever page.
    pub total: u64,
}

/// A run with its mappings.
#[derive(Clone, Debug, PartialEq)]
pub struct OrchestrationDetails {
    /// The run.
    pub run: OrchestrationRunRow,
    /// Its mappings in their order, at most [`MAPPINGS_SHOWN_MAX`].
    pub mappings: Vec<SignalOrderRow>,
}

/// An amount as text, without zeros that say nothing.
fn amount(value: Decimal) -> String {
    value.normalize().to_string()
}

/// A number as JSON has it. It is shown; nothing is computed from it.
fn number(value: Option<Decimal>) -> Value {
    value.and_then(|value| amount(value).parse::<f64>().ok()).map_or(Value::Null, Value::from)
}

impl OrchestrationPage {
    /// The body of `GET /api/v1/orchestration/runs`.
    #[must_use]
    pub fn to_wire(&self, query: &OrchestrationPageQuery) -> Value {
        json!({
            "runs": self.runs.iter().map(|run| Value::Object(run.to_summary())).collect::<Vec<_>>(),
            "total": self.total,
            "limit": query.limit,
            "offset": query.offset,
        })
    }
}

impl OrchestrationRunRow {
    /// One line of a page.
    fn to_summary(&self) -> Map<String, Value> {
        let members = [
            ("run_id", self.run_id.to_string().into()),
            ("status", self.status.clone().into()),
            ("strategy_id", self.strategy_id.clone().into()),
            ("as_of_date", self.as_of_date.clone().into()),
            ("num_signals", self.num_signals.into()),
            ("num_orders_submitted", self.num_orders_submitted.into()),
            ("num_orders_accepted", self.num_orders_accepted.into()),
            ("num_orders_rejected", self.num_orders_rejected.into()),
            ("started_at", to_rfc3339(self.started_at).into()),
            ("completed_at", self.completed_at.map(to_rfc3339).into()),
            ("duration_seconds", self.duration_seconds.map(amount).into()),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// A part of what the signal service answered.
    fn answered(&self, part: &str) -> Value {
        self.signal_service_response.as_ref().map_or(Value::Null, |answer| answer[part].clone())
    }
}

impl OrchestrationDetails {
    /// The body of `GET /api/v1/orchestration/runs/{run_id}`: OrchestrationResult, with what 003 has beside it.
    #[must_use]
    pub fn to_wire(&self) -> Value {
        let Self { run, mappings } = self;
        let signals = match run.answered("signals") {
            signals @ Value::Array(_) => signals,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                json!([])
            }
        };
        let parts = |part: fn(&SignalOrderRow) -> Option<Value>| mappings.iter().filter_map(part).collect();
        let mut body = run.to_summary();
        let members: [(&str, Value); 11] = [
            ("symbols", run.symbols.clone().into()),
            ("capital", amount(run.capital).into()),
            ("max_position_size", amount(run.max_position_size).into()),
            ("signal_metadata", run.answered("metadata")),
            ("num_orders_filled", run.num_orders_filled.into()),
            ("error_message", run.error_message.clone().into()),
            ("mappings", mappings.iter().map(SignalOrderRow::to_wire).collect()),
            ("signals", signals),
            ("orders", parts(SignalOrderRow::to_order)),
            ("submissions", parts(SignalOrderRow::to_submission)),
            ("executions", parts(SignalOrderRow::to_execution)),
        ];
        body.extend(members.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Value::Object(body)
    }
}

impl SignalOrderRow {
    fn to_wire(&self) -> Value {
        json!({
            "symbol": self.symbol,
            "predicted_return": number(self.predicted_return),
            "rank": self.rank,
            "target_weight": number(self.target_weight),
            "client_order_id": self.client_order_id,
            "order_qty": self.order_qty,
            "order_side": self.order_side,
            "broker_order_id": self.broker_order_id,
            "order_status": self.order_status,
            "filled_qty": self.filled_qty.map(amount),
            "filled_avg_price": self.filled_avg_price.map(amount),
            "skip_reason": self.skip_reason,
        })
    }

    /// The order, where one was made of it.
    fn to_order(&self) -> Option<Value> {
        let (qty, side) = (self.order_qty?, self.order_side.as_ref()?);
        Some(json!({
            "symbol": self.symbol,
            "side": side,
            "qty": qty,
            "order_type": "market",
            "time_in_force": "day",
            "client_order_id": self.client_order_id,
        }))
    }

    /// What became of the order at the gateway, where that is known.
    fn to_submission(&self) -> Option<Value> {
        Some(json!({
            "symbol": self.symbol,
            "client_order_id": self.client_order_id.as_ref()?,
            "status": self.order_status.as_ref()?,
            "broker_order_id": self.broker_order_id,
        }))
    }

    /// What was filled of it.
    fn to_execution(&self) -> Option<Value> {
        let filled = self.filled_qty.filter(|filled| !filled.is_zero())?;
        Some(json!({
            "symbol": self.symbol,
            "client_order_id": self.client_order_id,
            "filled_qty": amount(filled),
            "filled_avg_price": self.filled_avg_price.map(amount),
        }))
    }
}
