//! Log lines: each record of a cycle as one line that a person reads, with the values that its page needs.

use serde_json::{Value, json};

use crate::trading::cycle::{CycleState, CycleStatus};
use crate::trading::decision::TradeDecision;
use crate::trading::gate::{GateDecided, GatePlace, GateVerdict};
use crate::trading::journal::{
    CycleCause, CycleEnded, CycleStarted, IntentEnd, IntentSide, JournalFact, OrderIntended, StageEnded,
    StageOutcome,
};

/// One line.
pub(super) struct HistoryLine {
    pub(super) level: &'static str,
    pub(super) message: String,
    pub(super) context: Value,
}

const INFO: &str = "info";
const WARN: &str = "warn";
const ERROR: &str = "error";

/// The line of a cycle's record; nothing for a record of no cycle.
pub(super) fn line_of_fact(fact: &JournalFact, cycle: &CycleState) -> Option<HistoryLine> {
    match fact {
        JournalFact::CycleStarted(started) => Some(line_of_start(started)),
        JournalFact::GateDecided(decided) => Some(line_of_gates(decided, cycle)),
        JournalFact::StageEnded(ended) => Some(line_of_stage(ended)),
        JournalFact::OrderIntended(intent) => Some(line_of_intent(intent)),
        JournalFact::CycleEnded(ended) => Some(line_of_end(ended)),
        JournalFact::CommandReceived(_)
        | JournalFact::CommandEnded(_)
        | JournalFact::AgentChanged(_)
        | JournalFact::StrategyChanged(_)
        | JournalFact::ScheduleFired(_)
        | JournalFact::ScheduleSkipped(_)
        | JournalFact::AlertRaised(_)
        | JournalFact::AlertCleared(_)
        | JournalFact::ConfigurationSnapshot(_)
        | JournalFact::KillLatched(_) => None,
    }
}

/// The cause as one line.
pub(super) fn cause_line(cause: &CycleCause) -> String {
    match cause {
        CycleCause::Fire { schedule, fire } => format!("fire {fire} of schedule {schedule}"),
        CycleCause::Command(command) => format!("command {command}"),
    }
}

fn line_of_start(started: &CycleStarted) -> HistoryLine {
    let dry = if started.dry_run { ", dry run" } else { "" };
    HistoryLine {
        level: INFO,
        message: format!("cycle of {} began: {}{dry}", started.pipeline.name, cause_line(&started.cause)),
        context: json!({
            "decisions": started.decisions.iter().map(TradeDecision::to_json).collect::<Vec<_>>(),
            "denied_at_start": started.denied_at_start.iter().map(|gate| gate.gate_word()).collect::<Vec<_>>(),
            "strategies": started.strategies,
        }),
    }
}

fn line_of_gates(decided: &GateDecided, cycle: &CycleState) -> HistoryLine {
    let stage_name = |index: u16| {
        let stage = cycle.started().pipeline.stages.get(usize::from(index));
        stage.map_or_else(|| index.to_string(), |stage| stage.name.to_string())
    };
    let place = match &decided.place {
        GatePlace::Before(stage) => format!("before {}", stage_name(*stage)),
        GatePlace::After(stage) => format!("after {}", stage_name(*stage)),
        GatePlace::BeforeIntent(decision) => format!("before the intent of {decision}"),
    };
    let spoken: Vec<Value> = decided
        .checks
        .iter()
        .filter_map(|check| match &check.verdict {
            GateVerdict::Allow => None,
            GateVerdict::Deny(why) => {
                Some(json!({ "gate": check.gate.gate_word(), "verdict": "deny", "why": why }))
            }
            GateVerdict::Noted(why) => {
                Some(json!({ "gate": check.gate.gate_word(), "verdict": "noted", "why": why }))
            }
        })
        .collect();
    let (level, message) = match decided.first_denial() {
        Some((gate, why)) => (WARN, format!("{} denies {place}: {why}", gate.gate_word())),
        None => (INFO, format!("gates allow {place}")),
    };
    HistoryLine { level, message, context: json!({ "checks": spoken, "narrowed": decided.narrowed }) }
}

fn line_of_stage(ended: &StageEnded) -> HistoryLine {
    let (name, took_ms, attempts) = (&ended.name, ended.took_ms, ended.attempts);
    let timing = json!({ "attempts": attempts, "duration_ms": took_ms, "stage": name });
    let (level, message, more) = match &ended.outcome {
        StageOutcome::Done(output) => {
            let level = if output.failures.is_empty() { INFO } else { WARN };
            let message = match output.failures.len() {
                0 => format!("stage {name} done in {took_ms} ms"),
                failed => format!("stage {name} done in {took_ms} ms, failed for {failed} strategies"),
            };
            let more = json!({
                "decisions": output.decisions.iter().map(TradeDecision::to_json).collect::<Vec<_>>(),
                "failures": output.failures,
                "verdicts": output.verdicts,
            });
            (level, message, more)
        }
        StageOutcome::Failed(error) => {
            let message = format!("stage {name} failed after {took_ms} ms: {error}");
            (ERROR, message, json!({ "error_code": error.error_code() }))
        }
    };
    HistoryLine { level, message, context: merged_objects(timing, more) }
}

fn line_of_intent(intent: &OrderIntended) -> HistoryLine {
    let OrderIntended { symbol, quantity, price, .. } = intent;
    let side = side_word(intent.side);
    let end = end_word(intent.end);
    HistoryLine {
        level: INFO,
        message: format!("order intent: {side} {quantity} {symbol} at {price}, {end}"),
        context: json!({ "order": {
            "decisionId": intent.decision_id,
            "orderId": intent.intent_id.to_string(),
            "price": price.to_string(),
            "quantity": quantity.to_string(),
            "side": side,
            "status": end,
            "strategyId": intent.strategy,
            "symbol": symbol.as_str(),
        }}),
    }
}

fn line_of_end(ended: &CycleEnded) -> HistoryLine {
    let level = match ended.status {
        CycleStatus::Ok => INFO,
        CycleStatus::Degraded | CycleStatus::Blocked => WARN,
        CycleStatus::Failed => ERROR,
    };
    HistoryLine {
        level,
        message: format!("cycle ended {}: {}", ended.status.as_str(), ended.reason.to_line()),
        context: json!({
            "audit_failed": ended.audit_failed,
            "duration_ms": ended.spent_ms,
            "errors": ended.errors.len(),
        }),
    }
}

const fn side_word(side: IntentSide) -> &'static str {
    match side {
        IntentSide::Buy => "buy",
        IntentSide::Sell => "sell",
    }
}

const fn end_word(end: IntentEnd) -> &'static str {
    match end {
        IntentEnd::DryRun => "dry_run",
        IntentEnd::HandedOn => "handed_on",
    }
}

/// The members of both objects.
fn merged_objects(mut one: Value, other: Value) -> Value {
    if let (Value::Object(into), Value::Object(from)) = (&mut one, other) {
        into.extend(from);
    }
    one
}
