//! Orchestration runs, read from the history: the pages of specification 004. Errors are `{"detail": …}`, as recorded.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use orchestrator_kernel::ports::history::{HistoryError, HistoryStore};
use orchestrator_kernel::trading::history::{ORCHESTRATION_PAGE_MAX, OrchestrationPageQuery};
use orchestrator_kernel::trading::ids::CycleId;
use serde_json::Value;
use tokio::time::timeout;

use super::Control;
use super::query::PageParameters;
use super::refusal::{ControlError, SchemaObjection};

/// Runs on a page that does not say how many.
const LIMIT_DEFAULT: u32 = 50;

/// `GET /api/v1/orchestration/runs`: the last runs, newest first, and how many match.
pub(super) async fn list_runs(
    State(control): State<Arc<Control>>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Response {
    answer_page(async {
        let query = read_query(query)?;
        let history = control.history()?;
        let page = control.ask_history(history.list_orchestration_runs(&query)).await?;
        Ok(page.to_wire(&query))
    })
    .await
}

/// `GET /api/v1/orchestration/runs/{run_id}`: a run with its signals and what became of them.
pub(super) async fn get_run(
    State(control): State<Arc<Control>>,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    answer_page(async {
        let text = path.map(|Path(text)| text).unwrap_or_default();
        let id = CycleId::parse(&text).ok_or_else(|| {
            let msg = "Input should be a valid UUID".to_owned();
            let field = vec!["run_id".into()];
            ControlError::of_schema(&[SchemaObjection { place: "path", field, kind: "uuid_parsing", msg }])
        })?;
        let history = control.history()?;
        let found = control.ask_history(history.find_orchestration_run(id)).await?;
        found.map(|run| run.to_wire()).ok_or_else(|| ControlError::not_found(format!("Run not found: {id}")))
    })
    .await
}

async fn answer_page(body: impl Future<Output = Result<Value, ControlError>>) -> Response {
    match body.await {
        Ok(body) => Json(body).into_response(),
        Err(refused) => refused.into_detail(),
    }
}

fn read_query(
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<OrchestrationPageQuery, ControlError> {
    let Query(pairs) = query.map_err(|rejected| ControlError::bad_value(rejected.body_text()))?;
    let mut parameters = PageParameters::of_pairs(pairs);
    let query = OrchestrationPageQuery {
        limit: parameters.take_count("limit", LIMIT_DEFAULT, ORCHESTRATION_PAGE_MAX),
        offset: parameters.take_offset("offset"),
        strategy_id: parameters.take_text("strategy_id"),
        status: parameters.take_text("status"),
    };
    parameters.finish()?;
    Ok(query)
}

impl Control {
    fn history(&self) -> Result<Arc<dyn HistoryStore>, ControlError> {
        let history = self.plane()?.history.as_ref().map(Arc::clone);
        history
            .ok_or_else(|| ControlError::unavailable("no history is kept: trading.history.enabled is false"))
    }

    async fn ask_history<T>(
        &self,
        answer: impl Future<Output = Result<T, HistoryError>>,
    ) -> Result<T, ControlError> {
        match timeout(self.shared.state.limits.request_timeout, answer).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(ControlError::unavailable(error.to_string())),
            Err(_) => Err(ControlError::unavailable("the history does not answer now")),
        }
    }
}
