//! The kernel decides everything and touches nothing.
//!
//! Time, randomness and the results of I/O come in as arguments; a step returns what to do. That is what makes every
//! decision replayable. Reading order: the words that both planes use, the ports, the engine plane, the trading plane.

pub mod error;
pub mod foreign_format;
pub mod ids;
pub mod input_time;
pub mod invariants;
pub mod json;
pub mod metric_names;
pub mod mutants;
pub mod random;
pub mod restart;
pub mod retry;
pub mod rfc3339;

pub mod ports;

pub mod engine;

pub mod trading;

pub mod kill_switch;
