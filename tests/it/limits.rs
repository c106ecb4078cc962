//! Limits that meet, at the values that are shipped: each pair is right together, not only alone.
//!
//! A pair is here, or has a rule in `src/config/rules.rs` that refuses it with both paths, or a test of its own:
//!
//! | limits | what holds them together |
//! |---|---|
//! | `schedule.catch_up_max`, `schedule.runs_queued_max` | `an_idle_symbol_gets_the_last_catch_up_max_ticks_of_an_absence` |
//! | the same, `publish.backlog_max` | below; beyond it `made_up_runs_wait_while_publishing_is_blocked` |
//! | `publish.batch_max`, `publish.backlog_resume`, `publish.backlog_max` | rules |
//! | `publish.batch_max`, `publish.rabbitmq.confirms_max` | none: a batch is published in windows of confirms |
//! | `publish.rabbitmq.confirm_timeout`, `publish.blocked_max` | below |
//! | `ingest.receipt_bytes_max`, `ingest.in_flight_bytes_max`, `buffer.batch_bytes_max`, `buffer.segment_bytes` | rules |
//! | `buffer.capacity_bytes`, `buffer.segment_bytes` | rule |
//! | a batch, `ingest.in_flight_receipts_max` | none: a batch larger than the bound gets all of it |
//! | `http.body_bytes_max`, `ingest.receipt_bytes_max` | rule |
//! | `http.body_bytes_max`, `sources.*.queue_bytes_max` | below; a larger body is taken when nothing waits |
//! | `http.connections_max`, `http.subscribers_max` | rule |
//! | `sources.*.prefetch`, `sources.*.batch_max` | rule |
//! | `sources.*.prefetch`, `max_message_size`, the container's memory | `the_servers_have_room_for_what_the_configuration_keeps_in_them` |
//! | `redis.archive_above`, `maxmemory` | the same |
//! | `redis.archive_keep`, `redis.archive_above` | rule |
//! | `redis.writer_ttl`, `redis.response_timeout` | below |
//! | `engine.deadline`, `engine.retry`, `service.grace` | below; what runs longer is recorded as failed with `shutdown` |
//! | `*.retry.max_attempts`, `*.retry.max_elapsed` | below |
//! | `engine.*.output_bytes_max`, `max_message_size` of the shipped broker | below |
//! | `kill_switch.lease`, `kill_switch.poll`, `kill_switch.read_timeout` | rule, and below |
//! | `service.grace`, `stop_grace_period` of the shipped compose file | `compose_file_image_and_configuration_agree` |

use std::time::Duration;

use orchestrator::config::{Config, ConfigBase, Layers, SourceConfig, SymbolsConfig};
use orchestrator_kernel::retry::RetrySchedule;

use crate::support::root;

/// Outputs of one run, at most: begun, ended, state.
const OUTPUTS_OF_A_RUN: u64 = 3;
/// What an output has besides the engine's answer: names, ids and numbers of the envelope.
const ENVELOPE_BYTES: u64 = 16 * 1024;

fn defaults() -> Config {
    Config::load(&Layers::default()).unwrap_or_else(|error| panic!("{error}")).config
}

/// The shipped configuration; its secrets come from files that a deployment has.
fn production() -> Config {
    let layers =
        Layers { base: ConfigBase::File(root().join("config/production.toml")), ..Layers::default() };
    Config::load(&layers).unwrap_or_else(|error| panic!("{error}")).config
}

fn both() -> [(&'static str, Config); 2] {
    [("defaults", defaults()), ("production", production())]
}

#[test]
fn an_absence_of_all_symbols_fits_the_backlog() {
    for (name, config) in both() {
        let SymbolsConfig::Discover { limit } = config.symbols else { panic!("{name} discovers") };
        let made_up = limit as u64 * u64::from(config.schedule.catch_up_max) * OUTPUTS_OF_A_RUN;
        assert!(made_up <= config.publish.backlog_max, "{name}: {made_up} outputs at once");
    }
}

/// The numbers that the test of an absence uses are those that are shipped.
#[test]
fn an_absence_is_tested_at_the_defaults() {
    for (name, config) in both() {
        assert_eq!((config.schedule.catch_up_max, config.schedule.runs_queued_max), (20, 4), "{name}");
    }
}

#[test]
fn an_answer_of_the_engine_fits_a_message_of_the_shipped_broker() {
    let conf = std::fs::read_to_string(root().join("ops/rabbitmq/rabbitmq.conf")).unwrap();
    let line = conf.lines().find_map(|line| line.strip_prefix("max_message_size = ")).unwrap();
    let largest: u64 = line.trim().parse().unwrap();
    let config = production();
    for (path, bytes) in [
        ("engine.process.output_bytes_max", config.engine.process.output_bytes_max),
        ("engine.http.output_bytes_max", config.engine.http.output_bytes_max),
    ] {
        assert!(bytes + ENVELOPE_BYTES <= largest, "{path}: the broker would refuse an output for good");
    }
}

#[test]
fn what_is_sent_fits_what_takes_it() {
    for (name, config) in both() {
        assert!(config.http.body_bytes_max <= config.ingest.in_flight_bytes_max, "{name}");
        for source in config.sources.values() {
            if let SourceConfig::Http(http) = source {
                assert!(config.http.body_bytes_max <= http.queue_bytes_max, "{name}");
            }
        }
    }
}

/// The delays between all attempts: as long as they do not fit, the last attempts are never made.
fn delays(retry: &RetrySchedule) -> Duration {
    (1..retry.max_attempts)
        .map(|attempt| retry.min.saturating_mul(1 << (attempt - 1).min(30)).min(retry.max))
        .sum()
}

#[test]
fn times_that_meet_leave_room_for_each_other() {
    for (name, config) in both() {
        for retry in [&config.engine.retry, &config.publish.retry] {
            assert!(delays(retry) <= retry.max_elapsed, "{name}: {retry:?}");
        }
        assert!(
            config.engine.deadline <= config.service.grace * 55 / 100,
            "{name}: a call can end in a stop"
        );
        assert!(config.publish.rabbitmq.confirm_timeout < config.publish.blocked_max, "{name}");
        assert!(
            config.redis.response_timeout * 3 <= config.redis.writer_ttl,
            "{name}: a claim is renewed in time"
        );
        let kill_switch = &config.kill_switch;
        let lost_read = (kill_switch.poll + kill_switch.read_timeout) * 2;
        assert!(lost_read <= kill_switch.lease, "{name}: one lost read blocks no effect");
    }
}
