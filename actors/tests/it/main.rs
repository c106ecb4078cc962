//! The real supervision tree on ports in memory: what it does on good days, on bad ones, and across crashes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken test must stop loudly")]

mod common;

mod absence;
mod backpressure;
mod checkpoints;
mod clock;
mod crash;
mod happy;
mod held;
mod kill_switch;
mod kills;
mod readiness;
mod retention;
mod rules;
mod shutdown;
mod start;
mod supervision;
mod takeover;
