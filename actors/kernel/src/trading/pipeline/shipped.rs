//! The pipelines that come with the program.

use std::time::Duration;

use super::Pipeline;
use crate::trading::ids::{PipelineName, StageName};
use crate::trading::stage::{OnStageFailure, StageBackoff, StageProvider, StageRole, StageSpec};

/// `ORCH_RETRY_MAX`: attempts after the first one, of idempotent stages.
const RETRY_MAX: u32 = 1;
/// `ORCH_CYCLE_BUDGET_MS`: the sum of the canonical stages' budgets is 5300 ms, so the cycle's own one counts too.
const CYCLE_BUDGET: Duration = Duration::from_secs(5);
/// Intervals without a new input after which inputs are too old.
const STALE_AFTER_INTERVALS: u32 = 3;

const ANALYSIS_INTERVAL: Duration = Duration::from_secs(60);
const ANALYSIS_TIMEOUT: Duration = Duration::from_secs(120);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
const REBALANCE_CRON: &str = "0 9 * * 1-5";

/// Rhythm of a shipped pipeline's cycles unless a schedule says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultCadence {
    /// Every so often.
    Every(Duration),
    /// By these five fields, in the trading zone.
    Cron(&'static str),
}

/// The cadence of the pipeline of this name, if the specifications give one.
///
/// Source: specification 002, "Cycle types".
#[must_use]
pub fn default_cadence(pipeline: &str) -> Option<DefaultCadence> {
    match pipeline {
        "analysis" => Some(DefaultCadence::Every(ANALYSIS_INTERVAL)),
        "heartbeat" => Some(DefaultCadence::Every(HEARTBEAT_INTERVAL)),
        "rebalance" => Some(DefaultCadence::Cron(REBALANCE_CRON)),
        _ => None,
    }
}

/// ING FEAT SIG RISK EXEC PORT ANA GOV.
///
/// Source: specification 001 §7; the budgets are ours, the specification leaves them open.
#[must_use]
pub fn canonical_pipeline() -> Pipeline {
    let budgets = [
        ("ING", 500),
        ("FEAT", 500),
        ("SIG", 1000),
        ("RISK", 200),
        ("EXEC", 2000),
        ("PORT", 200),
        ("ANA", 500),
        ("GOV", 100),
    ];
    pipeline_of("canonical", &budgets, CYCLE_BUDGET, ANALYSIS_INTERVAL)
}

/// The main trading cycle of several strategies.
///
/// Source: specification 002, "Analysis Cycle": interval 60 s, timeout 120 s.
#[must_use]
pub fn analysis_pipeline() -> Pipeline {
    let budgets = [
        ("fetch_market_data", 10_000),
        ("evaluate_positions", 5000),
        // Whoever decides may be a model somewhere else.
        ("generate_decisions", 60_000),
        ("validate_decisions", 5000),
        ("execute_orders", 30_000),
        ("update_state", 5000),
    ];
    pipeline_of("analysis", &budgets, ANALYSIS_TIMEOUT, ANALYSIS_INTERVAL)
}

/// A look at the services, without gates: it goes on while trading is halted.
///
/// Source: specification 002, "Heartbeat Cycle".
#[must_use]
pub fn heartbeat_pipeline() -> Pipeline {
    let budgets = [("check_service_health", 2000), ("sync_positions", 2000), ("update_status", 1000)];
    pipeline_of("heartbeat", &budgets, CYCLE_BUDGET, HEARTBEAT_INTERVAL)
}

/// Weights back to their targets. Its orders are judged by RISK where they are made.
///
/// Source: specification 002, "Rebalance Cycle".
#[must_use]
pub fn rebalance_pipeline() -> Pipeline {
    let budgets = [
        ("calculate_target_weights", 10_000),
        ("compare_current_weights", 5000),
        ("generate_rebalance_orders", 5000),
        ("execute_orders", 30_000),
    ];
    pipeline_of("rebalance", &budgets, ANALYSIS_TIMEOUT, ANALYSIS_INTERVAL)
}

fn pipeline_of(name: &str, budgets: &[(&str, u64)], budget: Duration, interval: Duration) -> Pipeline {
    Pipeline {
        name: known_name(name, PipelineName::new),
        stages: budgets.iter().map(|(name, budget_ms)| shipped_stage(name, *budget_ms)).collect(),
        hooks: Vec::new(),
        budget,
        stale_after: Some(interval * STALE_AFTER_INTERVALS),
        degraded_allow_exec: true,
        fail_closed_on_audit: true,
    }
}

fn shipped_stage(name: &str, budget_ms: u64) -> StageSpec {
    default_stage(known_name(name, StageName::new), Duration::from_millis(budget_ms))
}

/// A stage as the shipped pipelines have them: built in, tried twice unless it executes orders, and critical unless it
/// only computes figures.
#[must_use]
pub fn default_stage(name: StageName, budget: Duration) -> StageSpec {
    let role = StageRole::of_stage(&name);
    let is_analytics = role == StageRole::Analytics;
    let idempotent = role != StageRole::Execute;
    StageSpec {
        name,
        provider: StageProvider::BuiltIn,
        budget,
        idempotent,
        attempts_max: if idempotent { 1 + RETRY_MAX } else { 1 },
        backoff: StageBackoff { min: Duration::from_millis(20), max: Duration::from_millis(200) },
        critical: !is_analytics,
        on_failure: if is_analytics { OnStageFailure::Degrade } else { OnStageFailure::Fail },
        enabled: true,
    }
}

/// A name that stands in this file.
fn known_name<T>(name: &str, new: fn(&str) -> Option<T>) -> T {
    #[expect(clippy::expect_used, reason = "the names above are names; a test makes every pipeline")]
    new(name).expect("a name")
}
