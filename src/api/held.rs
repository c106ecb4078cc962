//! Outputs that a fan-out refuses for good: what waits, and what an operator decides about it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use orchestrator_engine_plane::publisher::messages::{HeldError, HeldRequest, PublisherMsg};
use orchestrator_kernel::engine::contracts::manifest::OperatorRecord;
use orchestrator_kernel::engine::outbox::{HeldChoice, Holds};
use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::rfc3339::to_rfc3339;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::problem::{Problem, ProblemKind};
use super::{Shared, body};

/// `GET /api/v1/outputs/held`: every symbol of which an output is refused for good.
pub(super) async fn list_held(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "held": held_json(&shared.state.reached.current_holds()) }))
}

/// What is held, for people and programs.
#[must_use]
pub fn held_json(holds: &Holds) -> Vec<Value> {
    let shown = holds.iter().map(|(symbol, fan_out, hold)| {
        json!({
            "symbol": symbol.as_str(),
            "fan_out": fan_out,
            "first_symbol_seq": hold.first,
            "first_run_seq": hold.from.0,
            "waiting": hold.waiting_outputs(),
            "since": hold.since.map(to_rfc3339),
            "reason": hold.reason,
            "retrying": hold.is_retried,
        })
    });
    shown.collect()
}

/// Request of an operator about the held outputs of a symbol.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    symbol: String,
    action: Action,
    operator: String,
    reason: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Retry,
    Skip,
    SkipAll,
}

/// `POST /api/v1/outputs/held`: offers what waits of a symbol again, or lets outputs go. Answered once it is recorded.
pub(super) async fn decide_held(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    // A page of a browser cannot send this type to another site without asking first, which is refused.
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind.as_bytes() != b"application/json") {
        return Err(Problem::new(ProblemKind::UnsupportedContentType, "send application/json"));
    }
    let deadline = Instant::now() + shared.state.limits.request_timeout;
    let held = body::read_body(&shared, &headers, body, deadline).await?;
    let asked: Asked = serde_json::from_slice(&held.bytes).map_err(|error| {
        Problem::new(ProblemKind::BadParameter, format!("the body is not understood: {error}"))
    })?;
    if let Some(objection) = OperatorRecord::find_objection(&asked.operator, &asked.reason) {
        return Err(Problem::new(ProblemKind::BadParameter, objection));
    }
    let request = HeldRequest {
        symbol: Symbol::from(asked.symbol.as_str()),
        choice: match asked.action {
            Action::Retry => HeldChoice::Retry,
            Action::Skip => HeldChoice::SkipFirst,
            Action::SkipAll => HeldChoice::SkipAll,
        },
        operator: asked.operator,
        reason: asked.reason,
        at_ms: (shared.state.wall_now)(),
    };
    let decided = shared.state.publisher.call(|reply| PublisherMsg::Decide(request, reply));
    match timeout_at(deadline, decided).await {
        Ok(Ok(Ok(acts))) => {
            let acts: Vec<String> = acts.iter().map(ToString::to_string).collect();
            Ok(Json(json!({ "recorded": acts })))
        }
        Ok(Ok(Err(error))) => Err(held_problem(&error)),
        Ok(Err(_)) => Err(Problem::new(ProblemKind::Unavailable, "the publisher is being started again")
            .retry_after(Duration::from_secs(1))),
        Err(_) => Err(in_doubt("the publisher did not answer in time".to_owned())),
    }
}

fn held_problem(error: &HeldError) -> Problem {
    match error {
        HeldError::NotHeld { .. } => {
            Problem::new(ProblemKind::NotHeld, format!("{error}; GET this path lists what is"))
        }
        HeldError::NotRecorded(source) => {
            Problem::new(ProblemKind::Unavailable, format!("{error}: {source}"))
                .retry_after(Duration::from_secs(1))
        }
        HeldError::InDoubt(source) => in_doubt(format!("{error}: {source}")),
    }
}

fn in_doubt(detail: String) -> Problem {
    Problem::new(ProblemKind::OutcomeUnknown, detail).retry_after(Duration::from_secs(1))
}
