//! Backtests: those that are kept, and one more.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use orchestrator_kernel::trading::backtest::{BacktestJob, BacktestRequest};
use orchestrator_kernel::trading::ids::CommandId;
use orchestrator_trading_plane::command::{CommandAnswer, TradingCommand};
use serde_json::{Value, json};

use super::Control;
use super::refusal::{ControlError, SchemaObjection};

/// `POST /api/v1/backtests`: a backtest, in its turn.
///
/// Source: specification 001 §4, `run_backtest`.
pub(super) async fn post_backtest(
    State(control): State<Arc<Control>>,
    request: Request,
) -> Result<Response, ControlError> {
    let (head, mut body) = control.read_command(request).await?;
    let config = body.require_object("config");
    body.finish()?;
    let request = BacktestRequest::parse(&config).map_err(ControlError::bad_value)?;
    match control.execute_command(head, TradingCommand::RunBacktest(request)).await? {
        answer @ CommandAnswer::BacktestQueued { job } => {
            let place = format!("/api/v1/backtests/{job}");
            Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(answer.to_wire())).into_response())
        }
        answer => Ok(Json(answer.to_wire()).into_response()),
    }
}

/// `GET /api/v1/backtests`: those that are kept, newest first.
pub(super) async fn list_backtests(State(control): State<Arc<Control>>) -> Result<Json<Value>, ControlError> {
    let jobs = control.plane()?.backtests.list_jobs();
    let jobs: Vec<Value> = jobs.iter().map(BacktestJob::to_wire).collect();
    Ok(Json(json!({ "backtests": jobs })))
}

/// `GET /api/v1/backtests/:jobId`: where one is, and what came out.
pub(super) async fn get_backtest(
    State(control): State<Arc<Control>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ControlError> {
    let text = path.map(|Path(text)| text).unwrap_or_default();
    let Some(id) = CommandId::parse(&text) else {
        let msg = "Input should be a valid UUID".to_owned();
        let field = vec!["jobId".into()];
        let objection = SchemaObjection { place: "path", field, kind: "uuid_parsing", msg };
        return Err(ControlError::of_schema(&[objection]));
    };
    let found = control.plane()?.backtests.find_job(id);
    let job = found.ok_or_else(|| ControlError::not_found(format!("Backtest not found: {id}")))?;
    Ok(Json(job.to_wire()))
}
