//! The kernel decides everything and touches nothing.
//!
//! Time, randomness and the results of I/O come in as arguments; a step returns what to do. That is what makes every
//! decision replayable. Reading order: the names, the records, the decisions, the ports.

pub mod contracts;
pub mod error;
pub mod ids;
pub mod ports;
pub mod run_id;
