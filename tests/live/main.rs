//! Live tests: the same promises on real servers. Each test has a private redis-server or a vhost of a private
//! rabbitmq-server, on loopback ports of their own; nothing here is mocked, and a missing server is a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod support;

mod as_shipped;
mod capture;
mod credentials;
mod damaged_checkpoints;
mod endurance;
mod fail_over;
mod healthy;
mod kill_switch;
mod kill_switch_http;
mod kill_switch_stop;
mod kill_switch_store;
mod kills;
mod look_back;
#[cfg(feature = "mutants")]
mod mutants;
mod postgres_history;
mod proxy;
mod rabbit_alarms;
mod rabbit_fan_out;
mod rabbit_faults;
mod rabbit_full_log;
mod rabbit_held;
mod rabbit_marks;
mod rabbit_network;
mod rabbit_refusals;
mod rabbit_source;
mod rabbit_topology;
mod rabbit_trading_events;
mod readiness;
mod ready_throughout;
mod redis_checks;
mod redis_disk;
mod redis_faults;
mod redis_log;
mod redis_model;
mod redis_refusals;
mod redis_retention;
mod redis_source;
mod redis_source_losses;
mod redis_start;
mod redis_takeover;
mod servers;
mod shipped;
mod survival;
mod trading_cases;
