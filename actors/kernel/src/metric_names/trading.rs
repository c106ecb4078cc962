//! The metrics of the trading plane, which are there while it is on.
//!
//! Names that specifications 001 (section 9) and 002 ("Metrics") give are kept letter by letter, also where they have
//! no base unit; beside each duration of theirs stands ours in seconds.

use super::{MetricKind, MetricName};

metrics! {
    CYCLES_BY_STATUS = Counter "orch_cycle_total" ["status"] "Cycles that ended, by status";
    CYCLE_LATENCY_MS = Histogram "orch_cycle_latency_ms" [] "Time of a cycle in milliseconds";
    STAGE_LATENCY_MS = Histogram "orch_stage_latency_ms" ["stage"] "Time of a stage in milliseconds, by stage";
    STAGE_FAILURES = Counter "orch_stage_fail_total" ["stage", "error_code"] "Stages that failed, by stage and error code";
    CYCLES_BY_TYPE = Counter "orchestrator_cycles_total" ["type"] "Cycles that ended, by pipeline";
    CYCLE_DURATION_MS = Histogram "orchestrator_cycle_duration_ms" [] "Time of a cycle in milliseconds";
    DECISIONS = Counter "orchestrator_decisions_total" [] "Decisions that cycles made";
    ERRORS = Counter "orchestrator_errors_total" ["type"] "Errors of cycles, by error code";
    AGENT_UPTIME = Gauge "orchestrator_agent_uptime" [] "Seconds for which the agent has run since its last start, 0 while it does not";
    STRATEGIES_ACTIVE = Gauge "orchestrator_strategies_active" [] "Strategies that are active";

    CYCLE_DURATION = Histogram "orch_cycle_duration_seconds" [] "Time of a cycle";
    STAGE_DURATION = Histogram "orch_stage_duration_seconds" ["stage"] "Time of a stage, by stage";
    INTENTS = Counter "orch_order_intents_total" [] "Order intents that cycles recorded";
    CADENCE_LAG = Histogram "orch_cadence_lag_seconds" [] "How long after its planned time a schedule fired";
    FIRES_SKIPPED = Counter "orch_cadence_fires_skipped_total" ["reason"] "Fires of schedules that led to no cycle, by reason";

    HISTORY_LAG = Gauge "orch_history_lag_records" [] "Records of the journal whose rows are not in the SQL history yet";
    HISTORY_FAILURES = Counter "orch_history_failures_total" [] "Attempts of the SQL history to follow the journal that failed";
    HISTORY_SKIPPED = Counter "orch_history_records_skipped_total" [] "Records whose rows the SQL history's database could not hold";

    EVENTS_PUBLISHED = Counter "orch_trading_events_published_total" [] "Events that the event bus confirmed";
    EVENTS_LAG = Gauge "orch_trading_events_lag_records" [] "Records of the journal whose events are not published yet";
    EVENTS_FAILURES = Counter "orch_trading_events_failures_total" [] "Attempts to publish events that failed";
    EVENTS_TAKEN = Counter "orch_trading_events_received_total" ["fate"] "Events of others that were decided about, by what became of them";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_specifications_or_follow_our_rules() {
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("orch_") || name.starts_with("orchestrator_"), "{name}");
            assert!(name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}");
            assert!(crate::metric_names::ALL.iter().all(|other| other.name != name), "{name}");
        }
    }
}
