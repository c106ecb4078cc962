//! The kill switch as the interface shows it. Changing it over HTTP needs callers that say who they are.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{TradingState as KillState, TradingStateView};
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_runtime::kill_switch::{Gate, Past};
use serde::Serialize;

use super::Shared;

/// State of the kill switch as it is known now.
#[derive(Debug, Serialize)]
pub(super) struct KillSwitchView {
    /// `trading`, `halted` or `unknown`; effects are allowed in the first only.
    state: &'static str,
    reason: Option<String>,
    /// Milliseconds since the read was sent that was answered last.
    age_ms: Option<u64>,
    /// When it became so, by the clock of this machine.
    since: String,
}

impl KillSwitchView {
    pub(super) fn from_gate(gate: &Gate, now: TsMs) -> Self {
        let TradingStateView { state, age, lasted } = gate.current_view();
        Self {
            state: state.state_word(),
            reason: state.block_reason(),
            age_ms: age.map(to_millis),
            since: moment_before(now, lasted),
        }
    }
}

#[derive(Debug, Serialize)]
struct Change {
    at: String,
    from: &'static str,
    to: &'static str,
    reason: Option<String>,
    engaged_by: Option<String>,
}

impl Change {
    fn from_past(past: Past, now: TsMs) -> Self {
        let to = past.transition.to;
        let engaged_by = match &to {
            KillState::Halted(halt) => halt.by.clone(),
            KillState::Trading | KillState::Unknown(_) => None,
        };
        Self {
            at: moment_before(now, past.ago),
            from: past.transition.from,
            to: to.state_word(),
            reason: to.block_reason(),
            engaged_by,
        }
    }
}

#[derive(Debug, Serialize)]
struct Status {
    #[serde(flatten)]
    now: KillSwitchView,
    /// Where the value is stored.
    place: String,
    /// What this process has seen, oldest first.
    transitions: Vec<Change>,
}

/// `GET /api/v1/kill-switch/status`: the state, and what it was before.
pub(super) async fn get_status(axum::extract::State(shared): State<Arc<Shared>>) -> Response {
    let (gate, now) = (&shared.state.gate, (shared.state.wall_now)());
    let transitions = gate.recent_changes().into_iter().map(|past| Change::from_past(past, now)).collect();
    Json(Status { now: KillSwitchView::from_gate(gate, now), place: gate.place_text(), transitions })
        .into_response()
}

fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The moment `ago` before `now`.
fn moment_before(now: TsMs, ago: Duration) -> String {
    to_rfc3339(TsMs(now.0.saturating_sub_unsigned(to_millis(ago))))
}
