//! The agent: start, stop, pause, resume, and how it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_kernel::trading::agent::{AgentCommand, PAUSE_MINUTES_MAX};
use orchestrator_kernel::trading::ids::StageName;
use orchestrator_kernel::trading::journal::{LastCycle, StageOutcome};
use orchestrator_kernel::trading::risk::RiskMode;
use orchestrator_kernel::trading::strategy::StrategyStatus;
use orchestrator_trading_plane::command::TradingCommand;
use orchestrator_trading_plane::plane::TradingHandle;
use orchestrator_trading_plane::view::CycleView;
use serde_json::{Value, json};

use super::Control;
use super::command::CommandHead;
use super::latch::check_line;
use super::refusal::ControlError;
use super::strategies::strategy_wire;

/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 1024;
/// Cycles that the health of stages is looked up in.
const CYCLES_LOOKED_AT: usize = 20;
/// How long the cadence may take to say what it fires next.
const NEXT_FIRES_WAIT: Duration = Duration::from_secs(1);

const MODES: [(&str, RiskMode); 3] = [
    ("normal", RiskMode::Normal),
    ("conservative", RiskMode::Conservative),
    ("aggressive", RiskMode::Aggressive),
];

type Answer = Result<Json<Value>, ControlError>;

/// `POST /api/v1/agent/start`.
pub(super) async fn post_start(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let (head, mut body) = control.read_command(request).await?;
    let named = body.take_texts("strategies");
    let mode = body.take_word("mode", &MODES);
    body.finish()?;
    let strategies = named.map(|names| control.find_strategies(&names)).transpose()?;
    control.command_agent(head, AgentCommand::Start { strategies, mode }).await
}

/// `POST /api/v1/agent/stop`.
pub(super) async fn post_stop(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let (head, mut body) = control.read_command(request).await?;
    let reason = body.take_text("reason");
    let cancel_open_orders = body.take_flag("cancelOpenOrders");
    body.finish()?;
    reason.as_deref().map_or(Ok(()), |reason| check_line("reason", reason, REASON_BYTES_MAX))?;
    control.command_agent(head, AgentCommand::Stop { reason, cancel_open_orders }).await
}

/// `POST /api/v1/agent/pause`.
pub(super) async fn post_pause(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let (head, mut body) = control.read_command(request).await?;
    let duration = body.take_whole("duration");
    body.finish()?;
    let minutes = duration.map(|minutes| {
        let possible = u32::try_from(minutes).ok().filter(|it| (1..=PAUSE_MINUTES_MAX).contains(it));
        possible.ok_or_else(|| ControlError::bad_value(format!("duration: 1 to {PAUSE_MINUTES_MAX} minutes")))
    });
    control.command_agent(head, AgentCommand::Pause { minutes: minutes.transpose()? }).await
}

/// `POST /api/v1/agent/resume`.
pub(super) async fn post_resume(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let (head, body) = control.read_command(request).await?;
    body.finish()?;
    control.command_agent(head, AgentCommand::Resume).await
}

impl Control {
    async fn command_agent(&self, head: CommandHead, command: AgentCommand) -> Answer {
        let answer = self.execute_command(head, TradingCommand::Agent(command)).await?;
        Ok(Json(answer.to_wire()))
    }
}

/// `GET /api/v1/agent/status`.
pub(super) async fn get_status(State(control): State<Arc<Control>>) -> Answer {
    let plane = control.plane()?;
    let (agent, now) = (plane.view.agent(), control.now());
    let strategies = plane.view.list_strategies();
    let active = strategies.iter().filter(|known| {
        known.status == StrategyStatus::Active && agent.state.covers_strategy(&known.definition.name)
    });
    let active: Vec<Value> = active.map(strategy_wire).collect();
    let next = next_fire(&plane).await;
    let looked_at = plane.view.last_cycles(CYCLES_LOOKED_AT, |_| true);
    Ok(Json(json!({
        "status": control.agent_status().as_str(),
        "uptime": agent.state.uptime_ms(now) / 1000,
        "currentCycle": running_cycle(&plane).as_ref().map(current_wire),
        "lastCycle": agent.last_cycle.as_ref().map(last_wire),
        "stats": {
            "cyclesCompleted": agent.tally.cycles,
            "decisionsGenerated": agent.tally.decisions,
            "ordersExecuted": agent.tally.orders,
            "errors": agent.tally.errors,
        },
        "activeStrategies": active,
        "nextScheduledCycle": next.map(to_rfc3339),
        "catchingUp": plane.view.is_catching_up(),
        "lastError": agent.state.last_error,
        "latched": agent.latched,
        "mode": agent.state.mode.as_str(),
        "resumeAt": agent.state.resume_at.map(to_rfc3339),
        "stages": stage_health(&looked_at),
    })))
}

/// The cycle that runs, of several the one that began last.
pub(super) fn running_cycle(plane: &TradingHandle) -> Option<CycleView> {
    plane.view.last_cycles(1, |shown| shown.state.ended().is_none()).pop()
}

fn current_wire(running: &CycleView) -> Value {
    let started = running.state.started();
    json!({
        "id": started.cycle_id.to_string(),
        "type": started.pipeline.name,
        "startedAt": to_rfc3339(started.started_at),
        "progress": running.state.progress_percent(),
    })
}

fn last_wire(last: &LastCycle) -> Value {
    json!({
        "id": last.cycle_id.to_string(),
        "completedAt": to_rfc3339(last.finished_at),
        "duration": last.spent_ms,
        "decisions": last.decisions,
        "orders": last.intents,
        "status": last.status,
    })
}

/// The earliest fire of any schedule; nothing when time brings none, or when nobody can say now.
async fn next_fire(plane: &TradingHandle) -> Option<TsMs> {
    let fires = tokio::time::timeout(NEXT_FIRES_WAIT, plane.list_next_fires()).await.ok()?.ok()?;
    fires.into_iter().filter_map(|fire| fire.at).min()
}

/// How each stage ended last.
fn stage_health(newest_first: &[CycleView]) -> Value {
    let mut health: BTreeMap<&StageName, Value> = BTreeMap::new();
    for cycle in newest_first {
        for (_, ended) in cycle.state.ended_stages() {
            health.entry(&ended.name).or_insert_with(|| {
                let (status, error_code) = match &ended.outcome {
                    StageOutcome::Done(_) => ("done", None),
                    StageOutcome::Failed(error) => ("failed", Some(error.error_code().as_str())),
                };
                json!({
                    "status": status,
                    "cycleId": cycle.state.started().cycle_id.to_string(),
                    "duration": ended.took_ms,
                    "errorCode": error_code,
                })
            });
        }
    }
    let named = health.into_iter().map(|(name, health)| (name.to_string(), health));
    Value::Object(named.collect())
}
