//! The kernel decides everything and touches nothing.
//!
//! Time, randomness and the results of I/O come in as arguments; a step returns what to do. That is what makes every
//! decision replayable. Reading order: the names, the records, the decisions, the ports.

pub mod ids;
pub mod input_time;
pub mod json;
pub mod rfc3339;
pub mod run_id;

pub mod contracts;

pub mod cadence;
pub mod cut;
pub mod positions;
pub mod round;
pub mod run;

pub mod engine_wire;

pub mod audit;
pub mod divergence;
pub mod outbox;
pub mod replay;
pub mod retention;

pub mod kill_switch;

pub mod trading;

pub mod error;
pub mod foreign_format;
pub mod invariants;
pub mod metric_names;
pub mod mutants;
pub mod restart;
pub mod retry;

pub mod ports;

#[cfg(test)]
mod model;
