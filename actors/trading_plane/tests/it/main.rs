//! The trading plane's actors against ports in memory, a clock that the test sets, and stages that do as they are told.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken test must stop loudly")]

mod agent;
mod builtin;
mod cadence;
mod common;
mod cycles;
mod equal_journals;
mod events;
mod history;
mod intake;
mod journal;
mod largest;
mod plane;
mod retention;
mod telemetry;
