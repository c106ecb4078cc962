//! What the configuration decides, in the words of the tree and of the HTTP interface: a section, a function, the
//! settings of one actor.

use std::time::Duration;

use orchestrator_actors::tree::{SYMBOL_RUNNER, Settings};
use orchestrator_engine_plane::buffer::{BufferSettings, ProducerLimits};
use orchestrator_engine_plane::flow::FlowLimits;
use orchestrator_engine_plane::ingest::IngestSettings;
use orchestrator_engine_plane::publisher::PublisherSettings;
use orchestrator_engine_plane::retention::{Limits, RetentionSettings};
use orchestrator_engine_plane::run_log::RunLogSettings;
use orchestrator_engine_plane::runners::symbol_runner::RunnerSettings;
use orchestrator_engine_plane::scheduler::SchedulerSettings;
use orchestrator_engine_plane::scheduler::messages::Universe;
use orchestrator_engine_plane::settings::EnginePlaneSettings;
use orchestrator_kernel::engine::retention::Policy;
use orchestrator_kernel::input_time::InputTimes;
use orchestrator_kernel::restart::{BeyondIntensity, Restart, RestartPolicy};
use orchestrator_kernel::trading::journal::TradingMode;
use orchestrator_runtime::group_commit::BatchLimits;
use orchestrator_runtime::kill_switch::KillSwitchSettings;
use orchestrator_runtime::log_writer::LogWriterSettings;

use crate::api::{HttpLimits, PublicConfig};
use crate::config::{
    BufferConfig, ClockConfig, Config, EngineConfig, EngineKind, HttpConfig, IngestConfig, KillSwitchConfig,
    PublishConfig, ReconnectConfig, RetentionConfig, ScheduleConfig, SymbolsConfig,
};

/// Bounds of the HTTP interface.
#[must_use]
pub fn http_limits(config: &Config) -> HttpLimits {
    let HttpConfig { connections_max, request_timeout, body_bytes_max, subscribers_max, .. } = config.http;
    HttpLimits {
        connections_max,
        request_timeout,
        body_bytes_max: saturated(body_bytes_max),
        body_bytes_in_flight_max: saturated(config.ingest.in_flight_bytes_max.max(body_bytes_max)),
        subscribers_max,
        ..HttpLimits::default()
    }
}

/// What of the configuration others may know.
#[must_use]
pub fn public_config(config: &Config) -> PublicConfig {
    let trading = &config.trading;
    PublicConfig {
        environment: trading.environment.as_str(),
        dry_run: trading.dry_run,
        alpaca_paper: trading.mode != TradingMode::Live,
        // Every client has one; it cannot be switched off.
        circuit_breaker_enabled: true,
    }
}

/// The tree's settings. `probe_every` is the storage's: whether its logs can go away.
pub(super) fn tree_settings(config: &Config, probe_every: Option<Duration>) -> Settings {
    Settings {
        log_writer: log_writer_settings(&config.buffer, probe_every),
        kill_switch: kill_switch_settings(&config.kill_switch),
        engine_plane: EnginePlaneSettings {
            ingest: ingest_settings(&config.ingest, &config.clock),
            buffer: buffer_settings(&config.buffer, &config.ingest),
            scheduler: scheduler_settings(&config.schedule, &config.symbols),
            runners: runner_settings(&config.engine),
            run_log: RunLogSettings { checkpoint_every: config.buffer.checkpoint_every_receipts },
            publisher: publisher_settings(&config.publish),
            flow: flow_limits(&config.publish),
            retention: retention_settings(&config.retention),
        },
    }
}

/// How long after an unanswered append the same batch is sent again: little against the time that a server takes to
/// come back, and no load on one that is busy. The embedded log always answers.
pub(super) const RESEND_AFTER: Duration = Duration::from_millis(100);
/// How long a full log is left alone before it is asked again whether there is room.
pub(super) const REOPEN_AFTER: Duration = Duration::from_secs(1);

fn log_writer_settings(config: &BufferConfig, probe_every: Option<Duration>) -> LogWriterSettings {
    LogWriterSettings {
        limits: BatchLimits { records: config.batch_records_max, bytes: saturated(config.batch_bytes_max) },
        resend_after: RESEND_AFTER,
        probe_every,
        reopen_after: REOPEN_AFTER,
    }
}

fn kill_switch_settings(config: &KillSwitchConfig) -> KillSwitchSettings {
    let KillSwitchConfig { poll, read_timeout, lease, .. } = *config;
    KillSwitchSettings { poll, read_timeout, lease }
}

/// Batches of one source that may be in flight: enough to keep a group commit filled, few enough to stop soon.
const BATCHES_IN_FLIGHT_MAX: usize = 8;

fn ingest_settings(config: &IngestConfig, clock: &ClockConfig) -> IngestSettings {
    IngestSettings {
        in_flight_receipts_max: u32::try_from(config.in_flight_receipts_max).unwrap_or(u32::MAX),
        in_flight_bytes_max: u32::try_from(config.in_flight_bytes_max).unwrap_or(u32::MAX),
        batches_in_flight_max: BATCHES_IN_FLIGHT_MAX,
        receipt_bytes_max: saturated(config.receipt_bytes_max),
        input_times: InputTimes {
            gap_max_ms: i64::try_from(clock.gap_max.as_millis()).unwrap_or(i64::MAX),
            ..InputTimes::PLAUSIBLE
        },
        source_restart: source_restart(&config.reconnect),
    }
}

/// How a source is opened again.
const fn source_restart(config: &ReconnectConfig) -> RestartPolicy {
    RestartPolicy {
        restart: Restart::Transient,
        // 0 attempts in the configuration: no end.
        restarts_max: if config.max_attempts == 0 { u32::MAX } else { config.max_attempts },
        period: Duration::from_secs(600),
        backoff_min: config.min,
        backoff_max: config.max,
        beyond: BeyondIntensity::Halt,
    }
}

const fn buffer_settings(config: &BufferConfig, ingest: &IngestConfig) -> BufferSettings {
    BufferSettings {
        checkpoint_every: config.checkpoint_every_receipts,
        producers: ProducerLimits {
            known_max: ingest.producers_max,
            forget_after: ingest.producer_forget_after,
        },
    }
}

fn scheduler_settings(config: &ScheduleConfig, symbols: &SymbolsConfig) -> SchedulerSettings {
    let ScheduleConfig { cadence, catch_up_max, runs_queued_max } = *config;
    SchedulerSettings { cadence, catch_up_max, runs_queued_max, universe: symbol_universe(symbols) }
}

/// Which symbols are run.
pub(super) fn symbol_universe(config: &SymbolsConfig) -> Universe {
    match config {
        SymbolsConfig::List(symbols) => Universe::Listed(symbols.clone()),
        SymbolsConfig::Discover { limit } => Universe::Discover { limit: *limit },
    }
}

fn runner_settings(config: &EngineConfig) -> RunnerSettings {
    RunnerSettings {
        mode: config.mode,
        retry: config.retry,
        deadline: match config.kind {
            EngineKind::Demo => config.deadline,
            // The pool keeps the deadline of a call from when it is written; before that a call may wait for its worker,
            // which may be hanging on another symbol's call or be started again.
            EngineKind::Process => config.deadline * 2 + config.process.restart_wait_max,
            // The client keeps the deadline of a call from its turn on; before that it may wait for a connection.
            EngineKind::Http => config.deadline * 2,
        },
        restart: SYMBOL_RUNNER,
    }
}

const fn publisher_settings(config: &PublishConfig) -> PublisherSettings {
    PublisherSettings {
        batch_max: config.batch_max,
        retry: config.retry,
        attempt_max: config.blocked_max,
        held_symbols_max: config.held_symbols_max,
    }
}

const fn flow_limits(config: &PublishConfig) -> FlowLimits {
    FlowLimits {
        backlog_max: config.backlog_max,
        backlog_resume: config.backlog_resume,
        blocked_max: config.blocked_max,
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

fn saturated(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}
