//! What operators and their tools ask: is it alive, is it ready, how is it, what does it count.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrator_kernel::ports::log::{Log, LogStat};
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_runtime::status::{Condition, Lifecycle, Status};
use serde::Serialize;
use serde_json::{Value, json};

use super::control::{TradingHealth, trading_health};
use super::kill_switch::KillSwitchView;
use super::service_info::SERVICE;
use super::{ApiState, Shared};

/// Conditions named in one answer.
const CONDITIONS_MAX: usize = 100;

/// `GET /livez`: 200 while the process serves.
pub(super) async fn get_livez() -> &'static str {
    "alive\n"
}

/// Something that is wrong now.
#[derive(Debug, Serialize)]
struct Reason {
    /// The stable word; the runbook has this name too.
    condition: &'static str,
    /// The symbol or source, if it is about one.
    subject: Option<String>,
    detail: String,
}

impl Reason {
    fn from_condition((condition, detail): (&Condition, &String)) -> Self {
        Self {
            condition: condition.runbook_word(),
            subject: condition_subject(condition),
            detail: detail.clone(),
        }
    }
}

fn condition_subject(condition: &Condition) -> Option<String> {
    match condition {
        Condition::SourceDown(name)
        | Condition::SourceUnsettled(name)
        | Condition::SymbolHalted(name)
        | Condition::OutputHeld(name)
        | Condition::ServiceUnhealthy(name)
        | Condition::CalendarEnding(name) => Some(name.clone()),
        Condition::BufferFailing
        | Condition::RunLogFailing
        | Condition::PublishBlocked
        | Condition::PublishDegraded
        | Condition::FanOutBlocked
        | Condition::SymbolLimit
        | Condition::ClockBehind
        | Condition::RetentionFailing
        | Condition::MarkStale
        | Condition::ProducerLimit
        | Condition::KillSwitchEngaged
        | Condition::KillSwitchUnknown
        | Condition::JournalFailing
        | Condition::TradingStopped
        | Condition::TradingCatchingUp
        | Condition::CyclesFailing
        | Condition::AgentError
        | Condition::JournalRetentionFailing
        | Condition::HistoryBehind
        | Condition::EventsBehind
        | Condition::EventIntakeDown => None,
    }
}

#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// What makes a receipt count as durable.
    durability: &'static str,
    reasons: Vec<Reason>,
    /// It blocks effects, not the engine plane: never a reason not to be ready.
    kill_switch: KillSwitchView,
}

/// `GET /readyz`: 200 when it takes and schedules work, else 503 with what is in the way.
pub(super) async fn get_readyz(State(shared): State<Arc<Shared>>) -> Response {
    let kill_switch = KillSwitchView::from_gate(&shared.state.gate, (shared.state.wall_now)());
    let status = shared.state.board.current_status();
    let code = if status.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let ready = Ready {
        ready: status.ready,
        durability: shared.state.durability,
        reasons: in_the_way(&status),
        kill_switch,
    };
    (code, Json(ready)).into_response()
}

fn in_the_way(status: &Status) -> Vec<Reason> {
    let life = match status.lifecycle {
        Lifecycle::Running | Lifecycle::Degraded => None,
        Lifecycle::Init | Lifecycle::Drained | Lifecycle::Stopped => Some(Reason {
            condition: "not_running",
            subject: None,
            detail: format!("the service is in state {}", status.lifecycle.as_str()),
        }),
    };
    let conditions = status.conditions.iter().filter(|(condition, _)| condition.blocks_readiness());
    life.into_iter().chain(conditions.map(Reason::from_condition)).take(CONDITIONS_MAX).collect()
}

/// A service that is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalledService {
    /// Where it is, without credentials; empty where none is configured.
    pub url: String,
    /// Whether it said that it is well when it was asked last.
    pub is_healthy: bool,
}

/// The services that turn signals into orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CalledServices {
    /// The signal service.
    pub signals: CalledService,
    /// The execution gateway.
    pub gateway: CalledService,
}

/// Fields that specification 004 has in `/health`; ours are beside them.
#[derive(Debug, Serialize)]
struct HealthSummary {
    /// `healthy`, `degraded`, or `unhealthy` when the service is not ready.
    status: &'static str,
    service: &'static str,
    timestamp: String,
    signal_service_url: String,
    execution_gateway_url: String,
    signal_service_healthy: bool,
    execution_gateway_healthy: bool,
    /// The history's database.
    database_connected: bool,
    details: Value,
}

#[derive(Debug, Serialize)]
struct Health {
    #[serde(flatten)]
    summary: HealthSummary,
    lifecycle: &'static str,
    ready: bool,
    version: &'static str,
    durability: &'static str,
    /// At most [`CONDITIONS_MAX`] of them.
    conditions: Vec<Reason>,
    conditions_total: usize,
    kill_switch: KillSwitchView,
    logs: Logs,
    outputs: OutputCounts,
    /// Event streams that are open.
    subscribers: usize,
    /// While trading is on.
    #[serde(flatten)]
    trading: Option<TradingHealth>,
}

#[derive(Debug, Serialize)]
struct Logs {
    receipts: LogCounts,
    quarantine: LogCounts,
    runs: LogCounts,
}

#[derive(Debug, Serialize)]
struct LogCounts {
    /// First record still there.
    first: u64,
    /// Last durable record; 0 when there was never one.
    tail: u64,
    /// Bytes on the medium.
    bytes: u64,
}

impl LogCounts {
    fn from_log(log: &dyn Log) -> Self {
        let LogStat { start, tail, bytes } = log.stat();
        Self { first: start.0, tail: tail.0, bytes }
    }
}

#[derive(Debug, Serialize)]
struct OutputCounts {
    /// Outputs that wait for the fan-outs.
    backlog: u64,
    /// How long none was confirmed although some wait.
    blocked_seconds: f64,
    /// Outputs that wait because one of their symbol is refused for good.
    held: u64,
    /// Of how many symbols; `GET /api/v1/outputs/held` names them.
    held_symbols: usize,
}

/// `GET /health`: how the service is, in numbers. Always 200: it informs, `/readyz` judges.
pub(super) async fn get_health(State(shared): State<Arc<Shared>>) -> Response {
    let state = &shared.state;
    // First: looking at it puts an ended lease on the board.
    let kill_switch = KillSwitchView::from_gate(&state.gate, (state.wall_now)());
    let status = state.board.current_status();
    let holds = state.reached.current_holds();
    let now = state.clock.now().unwrap_or_else(|| (state.wall_now)());
    let trading = state.trading.as_ref().map(|faces| trading_health(faces, &status, now));
    let health = Health {
        summary: summarize_health(state, &status, &kill_switch, trading.as_ref()),
        lifecycle: status.lifecycle.as_str(),
        ready: status.ready,
        version: state.version,
        durability: state.durability,
        conditions: status.conditions.iter().take(CONDITIONS_MAX).map(Reason::from_condition).collect(),
        conditions_total: status.conditions.len(),
        kill_switch,
        logs: Logs {
            receipts: LogCounts::from_log(state.receipts.as_ref()),
            quarantine: LogCounts::from_log(state.quarantine.as_ref()),
            runs: LogCounts::from_log(state.runs.as_ref()),
        },
        outputs: OutputCounts {
            backlog: state.flow.waiting_outputs(),
            blocked_seconds: state.flow.blocked_for().as_secs_f64(),
            held: holds.waiting_outputs(),
            held_symbols: holds.symbol_count(),
        },
        subscribers: state.limits.subscribers_max.saturating_sub(shared.subscribers.available_permits()),
        trading,
    };
    Json(health).into_response()
}

/// Fields of specification 004. It is degraded by what the trading plane needs, while that is on.
fn summarize_health(
    state: &ApiState,
    status: &Status,
    kill_switch: &KillSwitchView,
    trading: Option<&TradingHealth>,
) -> HealthSummary {
    let CalledServices { signals, gateway } = (state.called_services)();
    let is_lost = |called: &CalledService| !called.url.is_empty() && !called.is_healthy;
    let is_degraded = status.lifecycle == Lifecycle::Degraded
        || trading.is_some_and(|trading| {
            trading.is_degraded() || kill_switch.is_unknown() || is_lost(&signals) || is_lost(&gateway)
        });
    HealthSummary {
        status: match (status.ready, is_degraded) {
            (false, _) => "unhealthy",
            (true, true) => "degraded",
            (true, false) => "healthy",
        },
        service: SERVICE,
        timestamp: to_rfc3339((state.wall_now)()),
        signal_service_healthy: signals.is_healthy,
        execution_gateway_healthy: gateway.is_healthy,
        signal_service_url: signals.url,
        execution_gateway_url: gateway.url,
        database_connected: trading.is_some_and(TradingHealth::is_database_connected),
        details: json!({ "kill_switch": kill_switch.effects(), "ready": status.ready }),
    }
}

/// `GET /metrics`: for Prometheus.
pub(super) async fn get_metrics(State(shared): State<Arc<Shared>>) -> Response {
    let metrics = &shared.state.metrics;
    ([(header::CONTENT_TYPE, metrics.content_type)], (metrics.render)()).into_response()
}
