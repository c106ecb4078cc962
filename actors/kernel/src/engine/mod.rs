//! The engine plane's decisions: from receipts to cuts, from cuts to runs, from runs to outputs, and whether what was
//! recorded follows from itself.

pub mod contracts;
pub mod run_id;

pub mod cadence;
pub mod cut;
pub mod lockstep_order;
pub mod positions;
pub mod run;

pub mod engine_protocol;

pub mod audit;
pub mod divergence;
pub mod outbox;
pub mod replay;
pub mod retention;

#[cfg(test)]
mod tests;
