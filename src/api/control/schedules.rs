//! The schedules: when each fires next.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use orchestrator_kernel::rfc3339::to_rfc3339;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Control;
use super::refusal::ControlError;

/// `GET /api/v1/schedules`: the schedules that are enabled, by name. One without a next fire waits for events, or its
/// calendar's data end.
pub(super) async fn list_schedules(State(control): State<Arc<Control>>) -> Result<Json<Value>, ControlError> {
    let plane = control.plane()?;
    match timeout(control.shared.state.limits.request_timeout, plane.list_next_fires()).await {
        Ok(Ok(fires)) => {
            let fires = fires
                .iter()
                .map(|fire| json!({ "name": fire.schedule, "nextFireAt": fire.at.map(to_rfc3339) }));
            Ok(Json(json!({ "schedules": fires.collect::<Vec<_>>() })))
        }
        Ok(Err(down)) => Err(control.unavailable(down.to_string())),
        Err(_) => Err(control.unavailable("the schedules do not answer now")),
    }
}
