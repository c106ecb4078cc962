//! The latch: trading stopped by what is on record here, whatever the kill switch's store says.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use orchestrator_kernel::engine::contracts::manifest::OperatorRecord;
use orchestrator_trading_plane::command::TradingCommand;
use serde_json::Value;

use super::Control;
use super::refusal::ControlError;

type Answer = Result<Json<Value>, ControlError>;

/// `POST /api/v1/kill-switch/latch`.
pub(super) async fn post_latch(State(control): State<Arc<Control>>, request: Request) -> Answer {
    change_latch(&control, request, |reason| TradingCommand::LatchKill { reason }).await
}

/// `POST /api/v1/kill-switch/release`. The kill switch itself stays as it is.
pub(super) async fn post_release(State(control): State<Arc<Control>>, request: Request) -> Answer {
    change_latch(&control, request, |reason| TradingCommand::ReleaseLatch { reason }).await
}

async fn change_latch(
    control: &Control,
    request: Request,
    command: impl FnOnce(String) -> TradingCommand,
) -> Answer {
    let (mut head, mut body) = control.read_command(request).await?;
    let (operator, reason) = (body.require_text("operator"), body.require_text("reason"));
    body.finish()?;
    if let Some(objection) = OperatorRecord::find_objection(&operator, &reason) {
        return Err(ControlError::bad_value(objection));
    }
    head.origin.operator = operator;
    Ok(Json(control.execute_command(head, command(reason)).await?.to_wire()))
}

/// A text for a record.
///
/// # Errors
///
/// 400: empty, too long, or with control characters.
pub(super) fn check_line(name: &str, text: &str, bytes_max: usize) -> Result<(), ControlError> {
    let fits = !text.trim().is_empty() && text.len() <= bytes_max && !text.contains(char::is_control);
    let rule = || format!("{name} must be 1 to {bytes_max} bytes without control characters");
    if fits { Ok(()) } else { Err(ControlError::bad_value(rule())) }
}
