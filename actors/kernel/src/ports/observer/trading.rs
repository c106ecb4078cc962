//! Facts of the trading plane for telemetry. Each is told once, when its record is durable.

use crate::ids::TsMs;

/// One fact of the trading plane. Durations in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TradingObservation<'a> {
    /// A cycle ended.
    CycleEnded {
        /// Its pipeline.
        pipeline: &'a str,
        /// `ok`, `degraded`, `failed` or `blocked`.
        status: &'static str,
        /// How long it took, without what a crash interrupted.
        seconds: f64,
        /// Decisions that it made.
        decisions: u64,
        /// Order intents that it recorded.
        intents: u64,
    },
    /// One error of a cycle that ended.
    CycleFailed {
        /// The published code, as `E_ORCH_TIMEOUT`.
        code: &'static str,
    },
    /// A stage ended.
    StageEnded {
        /// Its name.
        stage: &'a str,
        /// The published code when it failed.
        error: Option<&'static str>,
        /// How long it took.
        seconds: f64,
    },
    /// A schedule fired.
    ScheduleFired {
        /// How long after its planned time.
        lag_seconds: f64,
    },
    /// Fires led to no cycle.
    FiresSkipped {
        /// Why.
        reason: &'static str,
        /// How many.
        count: u64,
    },
    /// The agent and its strategies, after a change.
    AgentKnown {
        /// Since when it runs, if it does.
        running_since: Option<TsMs>,
        /// Strategies that are active.
        strategies_active: u64,
    },
}
