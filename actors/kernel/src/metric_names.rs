//! Every metric, declared once: name, type, labels and help.
//!
//! Names are `orch_<noun>_<unit>`, base units, `_total` for what only grows. The conservation laws between them:
//!
//! - `ingest_items_received = ingest_receipts_appended + …_duplicate + …_quarantined + …_refused + …_in_flight`;
//! - `runs_started = runs_completed + runs_failed + runs_in_flight`;
//! - `publish_outputs_due = publish_outputs + …_skipped + …_held + …_backlog`, once the publisher has told its backlog.

/// Meaning of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Grows from 0 at the start of the process. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricName {
    /// The name as it is scraped.
    pub name: &'static str,
    /// What its values mean.
    pub kind: MetricKind,
    /// Its labels. Every one is bounded.
    pub labels: &'static [&'static str],
    /// One sentence without full stop.
    pub help: &'static str,
}

/// Distinct values that a label takes from the data; all further ones are counted as [`OTHER`].
pub const LABEL_VALUES_MAX: usize = 64;
/// Label value of everything beyond [`LABEL_VALUES_MAX`].
pub const OTHER: &str = "other";

macro_rules! metrics {
    ($($(#[$doc:meta])* $constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $($(#[$doc])* #[doc = $help] pub const $constant: MetricName =
            MetricName { name: $name, kind: MetricKind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every metric of this list, in the order of the data's way through the system.
        pub const ALL: &[MetricName] = &[$($constant),*];
    };
}
pub mod trading;

metrics! {
    BUILD_INFO = Gauge "orch_build_info" ["version", "revision"] "Constant 1, labelled with version and commit of the binary";
    LOG_LINES_DROPPED = Counter "orch_log_lines_dropped_total" [] "Log lines that standard error did not take";
    PROCESS_START = Gauge "orch_process_start_time_seconds" [] "Start of the process, in seconds since the Unix epoch";

    INGEST_RECEIVED = Counter "orch_ingest_items_received_total" [] "Items that sources handed over";
    INGEST_APPENDED = Counter "orch_ingest_receipts_appended_total" ["source_id", "event_type"] "Receipts that became durable";
    INGEST_DUPLICATE = Counter "orch_ingest_items_duplicate_total" [] "Retransmissions that were recognised";
    INGEST_QUARANTINED = Counter "orch_ingest_items_quarantined_total" ["reason"] "Items that are no receipts, durable in the quarantine";
    INGEST_REFUSED = Counter "orch_ingest_items_refused_total" [] "Items that were not stored and stay upstream";
    INGEST_IN_FLIGHT = Gauge "orch_ingest_items_in_flight" [] "Items received whose fate is open";

    INGEST_ODDITIES = Counter "orch_ingest_source_oddities_total" ["kind"] "What is missing or odd in what sources read from, by kind";
    INGEST_PRODUCERS = Gauge "orch_ingest_producers" [] "Producers whose positions are remembered";
    INGEST_PRODUCERS_DENIED = Counter "orch_ingest_producers_denied_total" [] "Batches of new producers that were turned away because too many are remembered";
    INGEST_PRODUCERS_FORGOTTEN = Counter "orch_ingest_producers_forgotten_total" [] "Silent producers that were forgotten for new ones";

    BUFFER_RECORDS = Gauge "orch_buffer_records" [] "Receipts in the log";
    BUFFER_BYTES = Gauge "orch_buffer_size_bytes" [] "Bytes of the receipt log on its medium";
    BUFFER_AGE = Gauge "orch_buffer_age_seconds" [] "Time since the last receipt became durable, NaN before the first";
    BUFFER_FLUSH_DURATION = Histogram "orch_buffer_flush_duration_seconds" [] "Duration of one group commit of the receipt log";
    BUFFER_FLUSH_RECORDS = Histogram "orch_buffer_flush_records" [] "Receipts in one group commit";
    LOG_TRIMMED = Counter "orch_log_trimmed_records_total" ["log"] "Records that retention let go, by log";
    RETENTION_FAILURES = Counter "orch_retention_failures_total" [] "Checks of the retention that failed";
    CHECKPOINTS_DAMAGED = Counter "orch_checkpoints_damaged_total" ["checkpoint"] "Saved values that were damaged and that the service went on without, by checkpoint";
    APPEND_FAILURES = Counter "orch_append_failures_total" ["log"] "Appends that failed, by log";

    SCHEDULE_TICKS = Counter "orch_schedule_ticks_total" [] "Ticks of the schedule";
    SCHEDULE_LAG = Histogram "orch_schedule_lag_seconds" [] "How long after its planned time a tick fired";
    SCHEDULE_RUNS = Counter "orch_schedule_runs_planned_total" [] "Runs that ticks made";
    SCHEDULE_SKIPPED = Counter "orch_schedule_runs_skipped_total" ["reason"] "Runs that ticks did not make, by reason";

    RUNS_STARTED = Counter "orch_runs_started_total" [] "Runs whose start is durable";
    RUNS_COMPLETED = Counter "orch_runs_completed_total" [] "Runs that completed";
    RUNS_FAILED = Counter "orch_runs_failed_total" ["error_kind"] "Runs that failed, by category";
    RUNS_IN_FLIGHT = Gauge "orch_runs_in_flight" [] "Runs started whose end is not durable yet";
    RUN_DURATION = Histogram "orch_run_duration_seconds" [] "From the start of a run to its durable end";
    ENGINE_CALLS = Counter "orch_engine_calls_total" ["outcome"] "Engine calls, by error category or ok";
    ENGINE_CALL_DURATION = Histogram "orch_engine_call_duration_seconds" [] "Duration of one engine call";

    OUTPUTS_DUE = Counter "orch_publish_outputs_due_total" [] "Outputs that had to be published: those of ended runs and the backlog found at the start";
    OUTPUTS_PUBLISHED = Counter "orch_publish_outputs_total" ["event_type"] "Outputs that are confirmed";
    PUBLISH_BACKLOG = Gauge "orch_publish_backlog_outputs" [] "Outputs waiting for confirmation, without those that are held";
    PUBLISH_HELD = Gauge "orch_publish_held_outputs" [] "Outputs that wait because one of their symbol is refused for good";
    PUBLISH_HELD_SYMBOLS = Gauge "orch_publish_held_symbols" [] "Symbols of which an output is refused for good";
    OUTPUTS_SKIPPED = Counter "orch_publish_outputs_skipped_total" [] "Outputs that an operator let go unpublished";
    PUBLISH_LATENCY = Histogram "orch_publish_latency_seconds" [] "From the durable end of a run to the confirmation of its outputs";
    PUBLISH_BLOCKED = Counter "orch_publish_blocked_seconds_total" [] "Time in which publishing did not move although there was work";

    KILL_SWITCH_STATE = Gauge "orch_kill_switch_state" ["state"] "1 for the state that the kill switch is in, 0 for the others";
    KILL_SWITCH_AGE = Gauge "orch_kill_switch_age_seconds" [] "Time since the read of the kill switch was sent that was answered last, NaN before the first";
    KILL_SWITCH_TRANSITIONS = Counter "orch_kill_switch_transitions_total" ["state"] "Changes of the kill switch, by the state entered";
    KILL_SWITCH_REFUSALS = Counter "orch_kill_switch_refusals_total" ["reason"] "Effects that were refused, by reason";
    KILL_SWITCH_READ_FAILURES = Counter "orch_kill_switch_read_failures_total" [] "Reads of the kill switch that brought no value";

    FAILURES = Counter "orch_failures_total" ["domain"] "Failures that were handled, by domain";
    ACTOR_EXITS = Counter "orch_actor_exits_total" ["actor", "verdict"] "Actors that ended unexpectedly, and what the supervisor did";
    SYMBOLS_HALTED = Counter "orch_symbols_halted_total" ["symbol"] "Symbols that were stopped for good because their runner kept failing";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_and_are_unique() {
        let mut names: Vec<&str> = ALL.iter().map(|metric| metric.name).collect();
        for metric in ALL {
            let name = metric.name;
            assert!(
                name.starts_with("orch_") && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            assert!(!metric.help.is_empty() && !metric.help.ends_with('.'), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
