//! Requests as text. Members stand in the order of their names, so that the text is canonical as it is written.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::{HOOK_OP, STAGE_OP, STAGE_SCHEMA_VERSION};
use crate::json::canonical;
use crate::ports::stage::{HookRequest, StageRequest};
use crate::rfc3339::to_rfc3339;
use crate::trading::decision::TradeDecision;
use crate::trading::gate::whole_ms;
use crate::trading::ids::{CycleId, PipelineName, StageName, StrategyName};
use crate::trading::journal::{ConfigHash, StageOutput, StrategyFailure, TradingMode};
use crate::trading::risk::{RiskOutcome, RiskVerdict};
use crate::trading::stage::HookMoment;

/// What is asked of a stage. The fields stand in the order of their names.
#[derive(Serialize)]
struct StageBody<'a> {
    as_of_date: &'a str,
    attempt: u32,
    budget_ms: u64,
    config: ConfigHash,
    correlation_id: CycleId,
    cycle_id: CycleId,
    decisions: Vec<Value>,
    dry_run: bool,
    idempotency_key: String,
    mode: TradingMode,
    op: &'static str,
    outputs: Vec<OutputBody<'a>>,
    pipeline: &'a PipelineName,
    schema_version: &'static str,
    stage: &'a StageName,
    started_at: String,
    strategies: &'a [StrategyName],
    strategy: Option<&'a StrategyName>,
}

/// Output of an earlier stage. Its decisions are among the cycle's.
#[derive(Serialize)]
struct OutputBody<'a> {
    data: Box<RawValue>,
    failures: Vec<Value>,
    stage: &'a StageName,
    verdicts: Vec<Value>,
}

/// What a hook is asked. The fields stand in the order of their names.
#[derive(Serialize)]
struct HookBody<'a> {
    action: HookMoment,
    as_of_date: &'a str,
    budget_ms: u64,
    component_id: &'a StageName,
    config: ConfigHash,
    correlation_id: CycleId,
    cycle_id: CycleId,
    decisions: Vec<Value>,
    dry_run: bool,
    hook: &'a StageName,
    idempotency_key: String,
    mode: TradingMode,
    op: &'static str,
    pipeline: &'a PipelineName,
    schema_version: &'static str,
    started_at: String,
    strategies: &'a [StrategyName],
}

/// Returns what is asked of a stage's provider, in canonical form. `time_left` of the request is its `budget_ms`.
#[must_use]
pub fn stage_request_json(request: &StageRequest) -> String {
    let started = request.started.as_ref();
    to_text(&StageBody {
        as_of_date: &started.as_of_date,
        attempt: request.attempt,
        budget_ms: budget_ms(request.time_left),
        config: started.config,
        correlation_id: started.cycle_id,
        cycle_id: started.cycle_id,
        decisions: decision_bodies(&request.decisions),
        dry_run: started.dry_run,
        idempotency_key: request.question_key(),
        mode: started.mode,
        op: STAGE_OP,
        outputs: request.outputs.iter().map(|(stage, output)| OutputBody::new(stage, output)).collect(),
        pipeline: &started.pipeline.name,
        schema_version: STAGE_SCHEMA_VERSION,
        stage: &request.stage.name,
        started_at: to_rfc3339(started.started_at),
        strategies: &started.strategies,
        strategy: request.strategy.as_ref(),
    })
}

/// Returns what a hook's provider is asked, in canonical form.
///
/// Source: CONTRACTS §7, hook context: `component_id`, `action`, `correlation_id`.
#[must_use]
pub fn hook_request_json(request: &HookRequest) -> String {
    let started = request.started.as_ref();
    to_text(&HookBody {
        action: request.hook.moment,
        as_of_date: &started.as_of_date,
        budget_ms: budget_ms(request.hook.budget),
        component_id: &request.hook.stage,
        config: started.config,
        correlation_id: started.cycle_id,
        cycle_id: started.cycle_id,
        decisions: decision_bodies(&request.decisions),
        dry_run: started.dry_run,
        hook: &request.hook.name,
        idempotency_key: request.question_key(),
        mode: started.mode,
        op: HOOK_OP,
        pipeline: &started.pipeline.name,
        schema_version: STAGE_SCHEMA_VERSION,
        started_at: to_rfc3339(started.started_at),
        strategies: &started.strategies,
    })
}

impl<'a> OutputBody<'a> {
    fn new(stage: &'a StageName, output: &StageOutput) -> Self {
        Self {
            data: data_body(&output.data),
            failures: output.failures.iter().map(failure_body).collect(),
            stage,
            verdicts: output.verdicts.iter().map(verdict_body).collect(),
        }
    }
}

/// A stage's data; null where it has none, and a text where it is no JSON.
fn data_body(data: &str) -> Box<RawValue> {
    let canonical = canonical(data).ok().and_then(|text| RawValue::from_string(text).ok());
    let text = || if data.is_empty() { None } else { to_raw_value(data).ok() };
    canonical.or_else(text).unwrap_or_else(|| RawValue::NULL.to_owned())
}

fn failure_body(failure: &StrategyFailure) -> Value {
    json!({
        "code": failure.error.error_code().as_str(),
        "detail": failure.error.detail,
        "strategyId": failure.strategy,
    })
}

fn verdict_body(verdict: &RiskVerdict) -> Value {
    let decision = &verdict.decision_id;
    match &verdict.outcome {
        RiskOutcome::Allowed { quantity, price, lowered_by } => json!({
            "decisionId": decision,
            "loweredBy": lowered_by.iter().map(|rule| rule.as_str()).collect::<Vec<_>>(),
            "outcome": "allowed",
            "price": price.to_string(),
            "quantity": quantity.to_string(),
        }),
        RiskOutcome::Held => json!({ "decisionId": decision, "outcome": "held" }),
        RiskOutcome::Denied(rule) => {
            json!({ "decisionId": decision, "outcome": "denied", "rule": rule.as_str() })
        }
    }
}

fn decision_bodies(decisions: &[TradeDecision]) -> Vec<Value> {
    decisions.iter().map(TradeDecision::to_json).collect()
}

/// Whole milliseconds, at least one: a provider that is told 0 would not begin.
fn budget_ms(time: Duration) -> u64 {
    whole_ms(time).max(1)
}

/// `body` as compact JSON. What is written here has only keys of text.
fn to_text<T: Serialize>(body: &T) -> String {
    serde_json::to_string(body).unwrap_or_default()
}
