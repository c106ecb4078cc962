//! The cycles: those that run, those that ended, and one now.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use orchestrator_kernel::trading::history::{
    CYCLES_PAGE_MAX, CycleDetails, CyclePageQuery, CyclePageStatus, CycleRow,
};
use orchestrator_kernel::trading::ids::{CycleId, PipelineName};
use orchestrator_trading_plane::command::{CommandAnswer, TradingCommand};
use orchestrator_trading_plane::plane::TradingHandle;
use orchestrator_trading_plane::view::CycleView;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::Control;
use super::query::PageParameters;
use super::refusal::{ControlError, SchemaObjection, quote_start};

/// Cycles on a page that does not say how many.
const LIMIT_DEFAULT: u32 = 20;
/// Time from the end of a cycle's budget to the record of its end.
const END_RECORDED_WITHIN: Duration = Duration::from_secs(1);

/// `GET /api/v1/cycles`: the last ones, newest first. What is no longer in memory comes from the history.
pub(super) async fn list_cycles(
    State(control): State<Arc<Control>>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Value>, ControlError> {
    let query = read_query(query)?;
    let plane = control.plane()?;
    let wanted = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let status_word = query.status.map(CyclePageStatus::as_str);
    let is_wanted = |shown: &CycleView| {
        let ended = shown.state.ended().map(|ended| ended.status.cycle_word());
        status_word.is_none() || status_word == ended
    };
    let shown = plane.view.last_cycles(wanted, is_wanted);
    let mut rows: Vec<CycleRow> = shown.iter().map(|cycle| cycle.to_page().to_row()).collect();
    let mut body = Map::new();
    if let Some(history) = plane.history.as_ref().filter(|_| rows.len() < wanted) {
        match timeout(control.shared.state.limits.request_timeout, history.list_cycles(query)).await {
            Ok(Ok(older)) => rows = merge_newest_first(rows, older, wanted),
            // What is in memory is told all the same, and that it is not everything.
            Ok(Err(error)) => drop(body.insert("incomplete".to_owned(), error.to_string().into())),
            Err(_) => drop(body.insert("incomplete".to_owned(), no_answer().into())),
        }
    }
    body.insert("cycles".to_owned(), rows.iter().map(CycleRow::to_wire).collect());
    Ok(Json(Value::Object(body)))
}

fn read_query(
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<CyclePageQuery, ControlError> {
    let Query(pairs) = query.map_err(|rejected| ControlError::bad_value(rejected.body_text()))?;
    let mut parameters = PageParameters::of_pairs(pairs);
    let limit = parameters.take_count("limit", LIMIT_DEFAULT, CYCLES_PAGE_MAX);
    let words = "'completed', 'failed' or 'cancelled'";
    let status = parameters.take_word("status", words, CyclePageStatus::of_word);
    parameters.finish()?;
    Ok(CyclePageQuery { limit, status })
}

/// Both lists as one. A cycle in both is as memory has it, which is never behind.
fn merge_newest_first(mut rows: Vec<CycleRow>, older: Vec<CycleRow>, limit: usize) -> Vec<CycleRow> {
    let known: BTreeSet<CycleId> = rows.iter().map(|row| row.id).collect();
    rows.extend(older.into_iter().filter(|row| !known.contains(&row.id)));
    rows.sort_by_key(|row| std::cmp::Reverse(row.started_at));
    rows.truncate(limit);
    rows
}

fn no_answer() -> String {
    "the history does not answer now".to_owned()
}

/// `GET /api/v1/cycles/:cycleId`: the cycle with its decisions, orders and log.
pub(super) async fn get_cycle(
    State(control): State<Arc<Control>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ControlError> {
    let text = path.map(|Path(text)| text).unwrap_or_default();
    let Some(id) = CycleId::parse(&text) else {
        let msg = "Input should be a valid UUID".to_owned();
        let field = vec!["cycleId".into()];
        return Err(ControlError::of_schema(&[SchemaObjection {
            place: "path",
            field,
            kind: "uuid_parsing",
            msg,
        }]));
    };
    let plane = control.plane()?;
    let shown = plane.view.cycle(&id);
    // Of a cycle that a crash interrupted memory does not know when its first records were made; the tables do.
    let is_whole = shown.as_ref().is_some_and(|shown| shown.first_seq.is_some());
    let stored = if is_whole { None } else { control.find_stored(&plane, id).await.transpose() };
    match (shown, stored) {
        (Some(shown), Some(Ok(details)))
            if shown.state.ended().is_some() && details.cycle.completed_at.is_some() =>
        {
            Ok(Json(details.to_wire()))
        }
        (Some(shown), _) => Ok(Json(shown.to_page().to_details_wire())),
        (None, Some(Ok(details))) => Ok(Json(details.to_wire())),
        (None, Some(Err(error))) => Err(error),
        (None, None) => Err(ControlError::not_found(format!("Cycle not found: {id}"))),
    }
}

/// `POST /api/v1/cycles`: begins a cycle and waits for its result.
///
/// Source: specification 001 §4, `run_cycle`.
pub(super) async fn post_cycle(
    State(control): State<Arc<Control>>,
    request: Request,
) -> Result<Response, ControlError> {
    let (head, mut body) = control.read_command(request).await?;
    let pipeline = body.require_text("pipeline");
    let named = body.take_texts("strategies");
    let trigger_event = body.take_object("trigger_event");
    body.finish()?;
    let Some(pipeline) = PipelineName::new(&pipeline) else {
        let quoted = quote_start(&pipeline);
        return Err(ControlError::bad_value(format!("pipeline: {quoted} is no name of a pipeline")));
    };
    let strategies = match named {
        Some(names) => control.find_strategies(&names)?,
        None => {
            let all = control.plane()?.view.list_strategies();
            all.into_iter().map(|known| known.definition.name).collect()
        }
    };
    let command = TradingCommand::RunCycle { pipeline, strategies, trigger_event };
    match control.execute_command(head, command).await? {
        CommandAnswer::CycleBegun { cycle_id } => control.answer_cycle(cycle_id).await,
        answer => Ok(Json(answer.to_wire()).into_response()),
    }
}

impl Control {
    /// The result of a cycle that a command began: once it has ended, or, where that is beyond its budget or no longer
    /// in memory, where it can be looked at.
    async fn answer_cycle(&self, id: CycleId) -> Result<Response, ControlError> {
        let plane = self.plane()?;
        let begun = plane.view.cycle(&id);
        let budget = begun.map_or(Duration::ZERO, |begun| begun.state.started().pipeline.budget);
        let ended = tokio::select! {
            ended = timeout(budget + END_RECORDED_WITHIN, plane.wait_for_cycle(id)) => ended.ok().flatten(),
            () = self.shared.state.shutdown.cancelled() => None,
        };
        if let Some(result) = ended.and_then(|ended| ended.state.result()) {
            let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            return Ok((kind, result.to_wire(&self.faces.code)).into_response());
        }
        let place = format!("/api/v1/cycles/{id}");
        let stored = match plane.view.cycle(&id) {
            Some(_) => None,
            None => self.find_stored(&plane, id).await?,
        };
        let status = stored.map_or_else(|| "started".to_owned(), |details| details.cycle.status);
        let body = Json(json!({ "cycleId": id.to_string(), "status": status }));
        Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], body).into_response())
    }

    /// What the history has of a cycle.
    async fn find_stored(
        &self,
        plane: &TradingHandle,
        id: CycleId,
    ) -> Result<Option<CycleDetails>, ControlError> {
        let Some(history) = &plane.history else { return Ok(None) };
        match timeout(self.shared.state.limits.request_timeout, history.find_cycle(id)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(ControlError::unavailable(error.to_string())),
            Err(_) => Err(ControlError::unavailable(no_answer())),
        }
    }
}
