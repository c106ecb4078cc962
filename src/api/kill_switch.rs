//! The kill switch as the interface shows it. Operators change it by [`control`](super::control).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{
    Stored, TradingState as KillState, TradingStateView, recorded_fields,
};
use orchestrator_kernel::ports::kill_switch::KillSwitchStore;
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_runtime::kill_switch::{Gate, Past};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::Shared;

/// Operators' commands that are being carried out at a time.
const COMMANDS_MAX: usize = 8;
/// Notes of them that may wait for the journal.
const NOTES_MAX: usize = 64;

/// Desk at which operators change the kill switch over HTTP, with a login that the service has for nothing else.
#[derive(Clone)]
pub struct OperatorDesk {
    pub(super) access: OperatorAccess,
    /// One for each command that may be under way.
    pub(super) turns: Arc<Semaphore>,
    /// One for each note that may wait for the journal.
    pub(super) notes: Arc<Semaphore>,
}

/// Way of operators to the kill switch's store.
#[derive(Clone)]
pub(super) enum OperatorAccess {
    /// Their own store.
    Open(Arc<dyn KillSwitchStore>),
    /// None here: what has to be set first.
    Closed(&'static str),
}

impl OperatorDesk {
    /// A desk at which commands are carried out by `store`.
    #[must_use]
    pub fn open(store: Arc<dyn KillSwitchStore>) -> Self {
        Self::with_access(OperatorAccess::Open(store))
    }

    /// A desk that is closed. `why` names the setting.
    #[must_use]
    pub fn closed(why: &'static str) -> Self {
        Self::with_access(OperatorAccess::Closed(why))
    }

    fn with_access(access: OperatorAccess) -> Self {
        let [turns, notes] = [COMMANDS_MAX, NOTES_MAX].map(|most| Arc::new(Semaphore::new(most)));
        Self { access, turns, notes }
    }
}

/// State of the kill switch as it is known now.
#[derive(Debug, Serialize)]
pub(super) struct KillSwitchView {
    /// `trading`, `halted` or `unknown`; they are allowed in the first only.
    effects: &'static str,
    reason: Option<String>,
    /// Milliseconds since the read was sent that was answered last.
    age_ms: Option<u64>,
    /// When it became so, by the clock of this machine.
    since: String,
    #[serde(skip)]
    is_unknown: bool,
}

impl KillSwitchView {
    pub(super) fn from_gate(gate: &Gate, now: TsMs) -> Self {
        Self::of_view(gate.current_view(), now)
    }

    fn of_view(view: TradingStateView, now: TsMs) -> Self {
        let TradingStateView { state, age, lasted } = view;
        Self {
            effects: state.state_word(),
            reason: state.block_reason(),
            age_ms: age.map(to_millis),
            since: moment_before(now, lasted),
            is_unknown: matches!(state, KillState::Unknown(_)),
        }
    }

    /// Whether nobody knows.
    pub(super) const fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// The word: `trading`, `halted` or `unknown`.
    pub(super) const fn effects(&self) -> &'static str {
        self.effects
    }
}

/// One change of the past.
fn change_wire(past: Past, now: TsMs) -> Value {
    let to = past.transition.to;
    let engaged_by = match &to {
        KillState::Halted(halt) => halt.by.clone(),
        KillState::Trading | KillState::Unknown(_) => None,
    };
    json!({
        "at": moment_before(now, past.ago),
        "from": past.transition.from,
        "to": to.state_word(),
        "reason": to.block_reason(),
        "engaged_by": engaged_by,
    })
}

/// Body of the status that is being put together: fields of the stored record, and ours beside them.
pub(super) struct StatusBody(Map<String, Value>);

impl StatusBody {
    /// The fields of `record`, and what this process knows by `view`: where both name one, it is ours.
    pub(super) fn new(record: Map<String, Value>, view: TradingStateView, gate: &Gate, now: TsMs) -> Self {
        let mut body = record;
        let KillSwitchView { effects, reason, age_ms, since, .. } = KillSwitchView::of_view(view, now);
        let changes = gate.recent_changes().into_iter().map(|past| change_wire(past, now));
        body.extend([
            ("effects".to_owned(), effects.into()),
            ("reason".to_owned(), reason.into()),
            ("age_ms".to_owned(), age_ms.into()),
            ("since".to_owned(), since.into()),
            ("place".to_owned(), gate.place_text().into()),
            // What this process has seen, oldest first.
            ("transitions".to_owned(), changes.collect()),
        ]);
        Self(body)
    }

    /// With one more member.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// With the body that callers know for a switch of which nobody knows the state.
    ///
    /// Source: CONTRACTS §4, recorded.
    pub(super) fn with_unavailable(self) -> Self {
        let detail = json!({
            "error": "Kill-switch unavailable",
            "message": "All trading blocked - kill-switch state unknown (Redis unavailable)",
            "fail_closed": true,
        });
        self.with("detail", detail)
    }

    pub(super) fn into_answer(self, status: StatusCode) -> Response {
        (status, Json(Value::Object(self.0))).into_response()
    }
}

/// `GET /api/v1/kill-switch/status`: what is stored, what that means here, and what it was before.
pub(super) async fn get_status(State(shared): State<Arc<Shared>>) -> Response {
    let (gate, now) = (&shared.state.gate, (shared.state.wall_now)());
    let (view, stored) = gate.current_value();
    match known_fields(&view, stored.as_ref()) {
        Some(record) => StatusBody::new(record, view, gate, now).into_answer(StatusCode::OK),
        None => StatusBody::new(Map::new(), view, gate, now)
            .with_unavailable()
            .into_answer(StatusCode::SERVICE_UNAVAILABLE),
    }
}

/// The fields of the stored value, while it counts.
fn known_fields(view: &TradingStateView, stored: Option<&Stored>) -> Option<Map<String, Value>> {
    match view.state {
        KillState::Trading | KillState::Halted(_) => stored.and_then(recorded_fields),
        KillState::Unknown(_) => None,
    }
}

fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The moment `ago` before `now`.
fn moment_before(now: TsMs, ago: Duration) -> String {
    to_rfc3339(TsMs(now.0.saturating_sub_unsigned(to_millis(ago))))
}
