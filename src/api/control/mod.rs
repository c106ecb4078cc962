//! The trading plane's face over HTTP: the paths of specifications 002 and 004, and of 001's `run_cycle`.
//!
//! ```text
//! guard ─▶ headers, body ─▶ TradingCommand ─▶ agent (one execution path, journalled) ─▶ answer, once it is durable
//!          pages ◀── read model, or the history where something is no longer shown
//! ```
//!
//! It decides nothing. Errors on these paths are `{"detail": …, "retryable": …}`, on those of 004 `{"detail": …}`; the
//! engine plane's keep theirs.

mod agent;
mod backtests;
mod command;
mod cycles;
mod events;
mod fields;
mod guard;
mod health;
mod kill_switch;
mod latch;
mod orchestration;
mod query;
mod refusal;
mod schedules;
mod strategies;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::agent::AgentStatus;
use orchestrator_kernel::trading::event::EventStyle;
use orchestrator_runtime::status::Condition;
use orchestrator_trading_plane::plane::TradingHandle;
use tokio::sync::{Semaphore, watch};

use super::Shared;
use refusal::ControlError;

pub(super) use command::PeerAddress;
pub(super) use health::{TradingHealth, trading_health};
pub(super) use kill_switch::{post_disengage, post_engage};

/// The trading plane as the interface needs it.
#[derive(Clone)]
pub struct TradingFaces {
    /// Where the plane is reached: nothing while it starts, and when it has stopped.
    pub door: watch::Receiver<Option<TradingHandle>>,
    /// Version and commit of the program, which results name.
    pub code: String,
    /// The form of events.
    pub event_style: Arc<EventStyle>,
    /// Looks at what the plane works with. Must not block.
    pub neighbours: Arc<dyn Fn() -> TradingNeighbours + Send + Sync>,
}

impl TradingFaces {
    fn plane(&self) -> Option<TradingHandle> {
        self.door.borrow().clone()
    }
}

/// State of what the trading plane works with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TradingNeighbours {
    /// Whether the event bus is connected; nothing where none is configured.
    pub event_bus: Option<bool>,
    /// Services that send heartbeats, and whether each is healthy.
    pub services: BTreeMap<String, bool>,
}

/// Commands that are being carried out at a time, also those whose client has gone away.
const COMMANDS_IN_FLIGHT_MAX: usize = 64;

/// What the handlers share.
struct Control {
    shared: Arc<Shared>,
    faces: TradingFaces,
    in_flight: Arc<Semaphore>,
}

impl Control {
    /// The plane.
    ///
    /// # Errors
    ///
    /// 503: it has not started, or it stopped.
    fn plane(&self) -> Result<TradingHandle, ControlError> {
        self.faces.plane().ok_or_else(|| self.unavailable("the trading plane is starting"))
    }

    /// 503 for this reason, unless the plane stopped for good: then nothing is different a moment later.
    fn unavailable(&self, detail: impl Into<String>) -> ControlError {
        match self.is_stopped() {
            true => ControlError::unavailable_for_good(
                "the trading plane stopped for good, until the service is started again; /health says why",
            ),
            false => ControlError::unavailable(detail),
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.state.board.holds_condition(&Condition::TradingStopped)
    }

    fn agent_status(&self) -> AgentStatus {
        agent_status(&self.faces, self.is_stopped())
    }

    /// The time by the process's clock, which the plane's records have too.
    fn now(&self) -> TsMs {
        let state = &self.shared.state;
        state.clock.now().unwrap_or_else(|| (state.wall_now)())
    }
}

/// The agent's status, of a plane that runs or not: one that stopped for good trades nothing, whatever it said last.
fn agent_status(faces: &TradingFaces, is_stopped: bool) -> AgentStatus {
    match faces.plane() {
        _ if is_stopped => AgentStatus::Error,
        Some(plane) => plane.view.agent_reading().status,
        None => AgentStatus::Stopped,
    }
}

/// Paths below which everything is the trading plane's.
const PREFIXES: [&str; 9] = [
    "/api/v1/agent",
    "/api/v1/backtests",
    "/api/v1/strategies",
    "/api/v1/cycles",
    "/api/v1/schedules",
    "/api/v1/orchestration",
    "/api/v1/trading",
    "/api/v1/kill-switch/latch",
    "/api/v1/kill-switch/release",
];

/// Whether errors at this path are in the trading plane's form.
pub(super) fn is_trading_path(path: &str) -> bool {
    let is_below = |prefix: &&str| {
        path.strip_prefix(*prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    PREFIXES.iter().any(is_below)
}

/// The answer at a path of the trading plane's where nothing is.
pub(super) fn nothing_there() -> Response {
    ControlError::not_found("Not Found").into_response()
}

/// The routes. Their state is in them.
pub(super) fn control_routes(shared: &Arc<Shared>, faces: TradingFaces) -> Router<Arc<Shared>> {
    let in_flight = Arc::new(Semaphore::new(COMMANDS_IN_FLIGHT_MAX));
    let control = Arc::new(Control { shared: Arc::clone(shared), faces, in_flight });
    Router::new()
        .route("/api/v1/agent/start", post(agent::post_start))
        .route("/api/v1/agent/stop", post(agent::post_stop))
        .route("/api/v1/agent/pause", post(agent::post_pause))
        .route("/api/v1/agent/resume", post(agent::post_resume))
        .route("/api/v1/agent/status", get(agent::get_status))
        .route("/api/v1/strategies", get(strategies::list_strategies))
        .route("/api/v1/strategies/{id}/activate", post(strategies::post_activate))
        .route("/api/v1/strategies/{id}/deactivate", post(strategies::post_deactivate))
        .route("/api/v1/strategies/{id}/analyze", post(strategies::post_analyze))
        .route("/api/v1/cycles", get(cycles::list_cycles).post(cycles::post_cycle))
        .route("/api/v1/cycles/{id}", get(cycles::get_cycle))
        .route("/api/v1/backtests", get(backtests::list_backtests).post(backtests::post_backtest))
        .route("/api/v1/backtests/{id}", get(backtests::get_backtest))
        .route("/api/v1/schedules", get(schedules::list_schedules))
        .route("/api/v1/orchestration/runs", get(orchestration::list_runs))
        .route("/api/v1/orchestration/runs/{run_id}", get(orchestration::get_run))
        .route("/api/v1/trading/events", get(events::get_events))
        .route("/api/v1/kill-switch/latch", post(latch::post_latch))
        .route("/api/v1/kill-switch/release", post(latch::post_release))
        .method_not_allowed_fallback(async || ControlError::method_not_allowed())
        .with_state(control)
}
