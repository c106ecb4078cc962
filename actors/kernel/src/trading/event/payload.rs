//! Payloads of published events: the keys of specification 002 beside those of CONTRACTS §7.
//!
//! Where the two disagree the specification wins. What is not known is null, never left out.

use serde_json::{Value, json};

use super::outgoing::NamedCycle;
use crate::ids::TsMs;
use crate::rfc3339::to_rfc3339;
use crate::trading::agent::{AgentCause, AgentChanged, AgentCommand};
use crate::trading::cycle::{CycleStatus, error_wire};
use crate::trading::gate::{GateDecided, GatePlace};
use crate::trading::ids::{StageName, StrategyName, StrategyUuid};
use crate::trading::journal::{
    AlertCleared, AlertRaised, CycleEnded, CycleError, CycleStarted, JournalAuthor, KillLatched,
    OrderIntended, StageEnded, StageError,
};
use crate::trading::strategy::StrategyStatus;

/// `cycle.started`. `type` is specification 002's word for `cycleType`.
pub(super) fn cycle_started(started: &CycleStarted, planned: Option<TsMs>, triggered_by: &str) -> Value {
    let pipeline = &started.pipeline.name;
    json!({
        "cycleId": started.cycle_id.to_string(),
        "type": pipeline,
        "cycleType": pipeline,
        "strategies": started.strategies,
        "scheduledAt": planned.map(to_rfc3339),
        "triggeredBy": triggered_by,
        "startedAt": to_rfc3339(started.started_at),
        "asOfDate": started.as_of_date,
        "mode": started.mode,
        "dryRun": started.dry_run,
    })
}

/// `cycle.completed`. `decisions`, `orders` and `error` are specification 002's.
pub(super) fn cycle_completed(ended: &CycleEnded, named: Option<&NamedCycle>) -> Value {
    let counts = &ended.counts;
    let has_failed = matches!(ended.status, CycleStatus::Failed | CycleStatus::Blocked);
    let first = ended.errors.first().map(|error| error.detail.clone());
    json!({
        "cycleId": ended.cycle_id.to_string(),
        "type": cycle_type(named),
        "cycleType": cycle_type(named),
        "status": ended.status.event_word(),
        "cycleStatus": ended.status,
        "reason": ended.reason.to_line(),
        "durationMs": ended.spent_ms,
        "decisions": counts.decisions,
        "decisionsGenerated": counts.decisions,
        "orders": counts.intents,
        "ordersSubmitted": counts.intents,
        "strategiesProcessed": counts.strategies_processed,
        "error": has_failed.then(|| first.unwrap_or_else(|| ended.reason.to_line())),
        "errors": ended.errors.iter().map(error_wire).collect::<Vec<_>>(),
        "dryRun": named.map(|cycle| cycle.dry_run),
    })
}

fn cycle_type(named: Option<&NamedCycle>) -> Option<&str> {
    named.map(|cycle| cycle.pipeline.as_str())
}

/// `stage.failed` of a stage that failed.
pub(super) fn stage_failed(ended: &StageEnded, error: &StageError, named: Option<&NamedCycle>) -> Value {
    let code = error.error_code();
    json!({
        "cycleId": ended.cycle_id.to_string(),
        "cycleType": cycle_type(named),
        "stage": ended.name,
        "errorCode": code,
        "error": error.detail,
        "retryable": code.is_retryable(),
        "attempts": ended.attempts,
        "durationMs": ended.took_ms,
    })
}

/// `stage.failed` of the first stage that was not begun because its cycle was out of time.
pub(super) fn stage_not_begun(
    ended: &CycleEnded,
    error: &CycleError,
    stage: Option<&StageName>,
    named: Option<&NamedCycle>,
) -> Value {
    json!({
        "cycleId": ended.cycle_id.to_string(),
        "cycleType": cycle_type(named),
        "stage": stage,
        "errorCode": error.code,
        "error": error.detail,
        "retryable": error.code.is_retryable(),
        "attempts": 0,
        "durationMs": 0,
    })
}

/// `error.occurred`: one line of a cycle's errors.
pub(super) fn error_occurred(ended: &CycleEnded, error: &CycleError, named: Option<&NamedCycle>) -> Value {
    json!({
        "cycleId": ended.cycle_id.to_string(),
        "cycleType": cycle_type(named),
        "stage": error.stage,
        "strategyId": error.strategy,
        "errorCode": error.code,
        "message": error.detail,
        "retryable": error.code.is_retryable(),
    })
}

/// `orders.intent`. Amounts are texts: no number goes through a float.
pub(super) fn order_intent(intent: &OrderIntended) -> Value {
    json!({
        "intentId": intent.intent_id.to_string(),
        "cycleId": intent.cycle_id.to_string(),
        "decisionId": intent.decision_id,
        "strategyId": intent.strategy,
        "symbol": intent.symbol,
        "side": intent.side,
        "quantity": intent.quantity.to_string(),
        "price": intent.price.to_string(),
        "status": intent.end,
    })
}

/// `agent.changed`.
pub(super) fn agent_changed(changed: &AgentChanged) -> Value {
    let (cause, reason) = match &changed.cause {
        AgentCause::Command(AgentCommand::Start { .. }) => ("start", None),
        AgentCause::Command(AgentCommand::Stop { reason, .. }) => ("stop", reason.clone()),
        AgentCause::Command(AgentCommand::Pause { .. }) => ("pause", None),
        AgentCause::Command(AgentCommand::Resume) => ("resume", None),
        AgentCause::PauseEnded => ("pause_ended", None),
        AgentCause::AuditFailed(cycle) => {
            ("audit_failed", Some(format!("the audit of cycle {cycle} failed")))
        }
        AgentCause::ErrorOccurred(detail) => ("error_occurred", Some(detail.clone())),
    };
    let state = &changed.state;
    json!({
        "status": state.status,
        "previousStatus": changed.from,
        "cause": cause,
        "reason": reason,
        "mode": state.mode,
        "strategies": state.strategies,
        "startedAt": state.started_at.map(to_rfc3339),
        "resumeAt": state.resume_at.map(to_rfc3339),
    })
}

/// `strategy.activated`, `.paused`, `.deactivated`. Without a status it exists no more.
pub(super) fn strategy_changed(
    name: &StrategyName,
    from: Option<StrategyStatus>,
    to: Option<StrategyStatus>,
    why: &str,
) -> Value {
    json!({
        "strategyId": name,
        "id": StrategyUuid::derive(name).to_string(),
        "status": to.unwrap_or_default(),
        "previousStatus": from,
        "cause": why,
        "removed": to.is_none(),
    })
}

/// `alert.raised`.
pub(super) fn alert_raised(raised: &AlertRaised) -> Value {
    json!({ "alert": raised.alert, "detail": raised.detail })
}

/// `alert.cleared`.
pub(super) fn alert_cleared(cleared: &AlertCleared) -> Value {
    json!({ "alert": cleared.alert })
}

/// `kill.block`.
pub(super) fn kill_block(
    decided: &GateDecided,
    stage: Option<&StageName>,
    named: Option<&NamedCycle>,
    why: &str,
) -> Value {
    let (place, decision) = match &decided.place {
        GatePlace::Before(_) => ("before_stage", None),
        GatePlace::After(_) => ("after_stage", None),
        GatePlace::BeforeIntent(decision) => ("before_intent", Some(decision)),
    };
    json!({
        "cycleId": decided.cycle_id.to_string(),
        "cycleType": cycle_type(named),
        "place": place,
        "stage": stage,
        "decisionId": decision,
        "reason": why,
        "errorCode": "E_ORCH_BLOCKED",
    })
}

/// `kill.activated`, `kill.deactivated`.
pub(super) fn kill_latched(latch: &KillLatched, who: &JournalAuthor) -> Value {
    let by = match who {
        JournalAuthor::Actor(name) | JournalAuthor::Operator(name) => name.as_str(),
        JournalAuthor::Schedule(name) => name.as_str(),
    };
    json!({ "latched": latch.latched, "reason": latch.reason, "by": by })
}
