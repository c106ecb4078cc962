//! CycleResult: what a cycle tells the outside when it has ended.

use serde_json::{Value, json};

use super::state::CycleState;
use crate::rfc3339::to_rfc3339;
use crate::trading::ids::StageName;
use crate::trading::journal::{CycleEnded, CycleError, CycleStarted, StageOutcome};
use crate::trading::stage::StageRole;

/// Version of the artifact's form.
pub const CYCLE_RESULT_SCHEMA_VERSION: &str = "1.0.0";

/// One stage of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSummary {
    /// Its name.
    pub name: String,
    /// `done`, `failed`, `stopped` in the middle of its intents, `not_begun` or `disabled`.
    pub status: &'static str,
    /// Attempts made.
    pub attempts: u32,
    /// Milliseconds that it took.
    pub took_ms: u64,
    /// Its error's published code, if it failed.
    pub error_code: Option<&'static str>,
    /// Its error, if it failed.
    pub error: Option<String>,
    /// Its data, as JSON text.
    pub data: Option<String>,
}

/// The result of a cycle.
///
/// Source: specification 001 §4, `CycleResult`; §13, partial completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CycleResult {
    started: CycleStarted,
    ended: CycleEnded,
    stages: Vec<StageSummary>,
}

impl CycleState {
    /// The result, once the cycle has ended.
    #[must_use]
    pub fn result(&self) -> Option<CycleResult> {
        let ended = self.ended()?.clone();
        let stages = self.started().pipeline.stages.iter().enumerate();
        let stages =
            stages.map(|(index, spec)| self.stage_summary(index, &spec.name, spec.enabled)).collect();
        Some(CycleResult { started: self.started().clone(), ended, stages })
    }

    fn stage_summary(&self, index: usize, name: &StageName, enabled: bool) -> StageSummary {
        let mut summary = StageSummary {
            name: name.to_string(),
            status: match (enabled, StageRole::of_stage(name)) {
                (false, _) => "disabled",
                (true, StageRole::Execute) if self.has_intents() => "stopped",
                (true, _) => "not_begun",
            },
            attempts: 0,
            took_ms: 0,
            error_code: None,
            error: None,
            data: None,
        };
        let Some((_, ended)) = self.ended_stages().find(|(at, _)| *at == index) else { return summary };
        summary.attempts = ended.attempts;
        summary.took_ms = ended.took_ms;
        match &ended.outcome {
            StageOutcome::Done(output) => {
                summary.status = "done";
                summary.data = Some(output.data.clone()).filter(|data| !data.is_empty());
            }
            StageOutcome::Failed(error) => {
                summary.status = "failed";
                summary.error_code = Some(error.error_code().as_str());
                summary.error = Some(error.detail.clone());
            }
        }
        summary
    }
}

impl CycleResult {
    /// How it ended.
    #[must_use]
    pub const fn ended(&self) -> &CycleEnded {
        &self.ended
    }

    /// Its stages, each of the pipeline.
    #[must_use]
    pub fn stages(&self) -> &[StageSummary] {
        &self.stages
    }

    /// The artifact: compact JSON, keys sorted. `code` is the version and commit of the program.
    #[must_use]
    pub fn to_wire(&self, code: &str) -> String {
        let (started, ended) = (&self.started, &self.ended);
        let stages: serde_json::Map<String, Value> =
            self.stages.iter().map(|stage| (stage.name.clone(), stage_wire(stage))).collect();
        let counts = &ended.counts;
        json!({
            "as_of_date": started.as_of_date,
            "code": code,
            "correlation_id": started.cycle_id.to_string(),
            "decisions_generated": counts.decisions,
            "dry_run": started.dry_run,
            "duration_ms": ended.spent_ms,
            "errors": ended.errors.iter().map(error_wire).collect::<Vec<_>>(),
            "finished_at": to_rfc3339(ended.finished_at),
            "mode": started.mode,
            "order_intents": counts.intents,
            "partial": ended.status.event_word() == "partial",
            "pipeline": started.pipeline.name,
            "reason": ended.reason.to_line(),
            "schema_version": CYCLE_RESULT_SCHEMA_VERSION,
            "stage_results": stages,
            "started_at": to_rfc3339(started.started_at),
            "status": ended.status,
            "strategies": started.strategies,
            "strategies_processed": counts.strategies_processed,
        })
        .to_string()
    }
}

fn stage_wire(stage: &StageSummary) -> Value {
    // A provider's data is JSON by contract; what is not is told as text.
    let data = stage.data.as_ref();
    let data = data.map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str())));
    json!({
        "attempts": stage.attempts,
        "data": data,
        "duration_ms": stage.took_ms,
        "error": stage.error,
        "error_code": stage.error_code,
        "status": stage.status,
    })
}

/// One line of `errors`, here and in events.
pub(in crate::trading) fn error_wire(error: &CycleError) -> Value {
    json!({
        "code": error.code,
        "detail": error.detail,
        "retryable": error.code.is_retryable(),
        "stage": error.stage,
        "strategy": error.strategy,
    })
}
