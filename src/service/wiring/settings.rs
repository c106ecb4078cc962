//! What the configuration decides, in the words of the tree and of the HTTP interface.

use std::time::Duration;

use orchestrator_actors::tree::{SYMBOL_RUNNER, Settings};
use orchestrator_engine_plane::buffer::ProducerLimits;
use orchestrator_engine_plane::flow::FlowLimits;
use orchestrator_engine_plane::retention::{Limits, RetentionSettings};
use orchestrator_engine_plane::scheduler::messages::Universe;
use orchestrator_kernel::engine::retention::Policy;
use orchestrator_kernel::input_time::InputTimes;
use orchestrator_kernel::restart::{BeyondIntensity, Restart, RestartPolicy};
use orchestrator_runtime::group_commit::BatchLimits;
use orchestrator_runtime::kill_switch::KillSwitchSettings;

use crate::api::HttpLimits;
use crate::config::{Config, EngineKind, RetentionConfig, SymbolsConfig};

/// Bounds of the HTTP interface.
#[must_use]
pub fn http_limits(config: &Config) -> HttpLimits {
    let saturated = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    HttpLimits {
        connections_max: config.http.connections_max,
        request_timeout: config.http.request_timeout,
        body_bytes_max: saturated(config.http.body_bytes_max),
        body_bytes_in_flight_max: saturated(
            config.ingest.in_flight_bytes_max.max(config.http.body_bytes_max),
        ),
        subscribers_max: config.http.subscribers_max,
        ..HttpLimits::default()
    }
}

/// How long after an unanswered append the same batch is sent again: little against the time that a server takes to
/// come back, and no load on one that is busy. The embedded log always answers.
const RESEND_AFTER: Duration = Duration::from_millis(100);

/// The tree's settings.
pub(super) fn tree_settings(config: &Config) -> Settings {
    let reconnect = &config.ingest.reconnect;
    let saturated = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Settings {
        cadence: config.schedule.cadence,
        catch_up_max: config.schedule.catch_up_max,
        runs_queued_max: config.schedule.runs_queued_max,
        universe: symbol_universe(config),
        engine_mode: config.engine.mode,
        engine_retry: config.engine.retry,
        engine_deadline: match config.engine.kind {
            EngineKind::Demo => config.engine.deadline,
            // The pool keeps the deadline of a call from when it is written; before that a call may wait for its worker,
            // which may be hanging on another symbol's call or be started again.
            EngineKind::Process => config.engine.deadline * 2 + config.engine.process.restart_wait_max,
            // The client keeps the deadline of a call from its turn on; before that it may wait for a connection.
            EngineKind::Http => config.engine.deadline * 2,
        },
        batch: BatchLimits {
            records: config.buffer.batch_records_max,
            bytes: saturated(config.buffer.batch_bytes_max),
        },
        resend_after: RESEND_AFTER,
        probe_every: None,
        checkpoint_every_receipts: config.buffer.checkpoint_every_receipts,
        checkpoint_every_runs: config.buffer.checkpoint_every_receipts,
        reopen_after: Duration::from_secs(1),
        producers: ProducerLimits {
            known_max: config.ingest.producers_max,
            forget_after: config.ingest.producer_forget_after,
        },
        in_flight_receipts_max: u32::try_from(config.ingest.in_flight_receipts_max).unwrap_or(u32::MAX),
        in_flight_bytes_max: u32::try_from(config.ingest.in_flight_bytes_max).unwrap_or(u32::MAX),
        receipt_bytes_max: saturated(config.ingest.receipt_bytes_max),
        input_times: InputTimes {
            gap_max_ms: i64::try_from(config.clock.gap_max.as_millis()).unwrap_or(i64::MAX),
            ..InputTimes::PLAUSIBLE
        },
        batches_in_flight_max: 8,
        source_restart: RestartPolicy {
            restart: Restart::Transient,
            // 0 attempts in the configuration: no end.
            restarts_max: if reconnect.max_attempts == 0 { u32::MAX } else { reconnect.max_attempts },
            period: Duration::from_secs(600),
            backoff_min: reconnect.min,
            backoff_max: reconnect.max,
            beyond: BeyondIntensity::Halt,
        },
        runner_restart: SYMBOL_RUNNER,
        publish_batch_max: config.publish.batch_max,
        publish_retry: config.publish.retry,
        publish_attempt_max: config.publish.blocked_max,
        publish_held_symbols_max: config.publish.held_symbols_max,
        flow: FlowLimits {
            backlog_max: config.publish.backlog_max,
            backlog_resume: config.publish.backlog_resume,
            blocked_max: config.publish.blocked_max,
        },
        kill_switch: KillSwitchSettings {
            poll: config.kill_switch.poll,
            read_timeout: config.kill_switch.read_timeout,
            lease: config.kill_switch.lease,
        },
        retention: retention_settings(&config.retention),
    }
}

/// Which symbols are run.
pub(super) fn symbol_universe(config: &Config) -> Universe {
    match &config.symbols {
        SymbolsConfig::List(symbols) => Universe::Listed(symbols.clone()),
        SymbolsConfig::Discover { limit } => Universe::Discover { limit: *limit },
    }
}

/// Receipts, and run records, that retention works off at a time: less than a second of reading.
const RETENTION_STEP: u64 = 1 << 20;

/// What the logs keep; nothing to do where they keep everything.
fn retention_settings(config: &RetentionConfig) -> Option<RetentionSettings> {
    let above_zero = |limit: u64| Some(limit).filter(|limit| *limit > 0);
    let age = |age: Duration| above_zero(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let limits = Limits {
        receipts: Policy {
            age_ms_max: age(config.receipts_age_max),
            records_max: above_zero(config.receipts_records_max),
            bytes_max: above_zero(config.receipts_bytes_max),
        },
        runs: Policy {
            age_ms_max: age(config.runs_age_max),
            records_max: above_zero(config.runs_records_max),
            bytes_max: above_zero(config.runs_bytes_max),
        },
        quarantine: Policy {
            age_ms_max: age(config.quarantine_age_max),
            records_max: None,
            bytes_max: above_zero(config.quarantine_bytes_max),
        },
        receipts_below: None,
    };
    let keeps_all = [limits.receipts, limits.runs, limits.quarantine].iter().all(Policy::keeps_all);
    (!keeps_all).then_some(RetentionSettings {
        limits,
        check_every: config.check_every,
        step: RETENTION_STEP,
    })
}
