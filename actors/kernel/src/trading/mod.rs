//! The trading plane's decisions: when a cycle is due, what may happen in it, what an order's answer means.
//!
//! Pure like the rest of the kernel: zones and calendars are data, amounts are decimals, and the journal's records are
//! what a decision is made from and what it leaves behind. It may read the engine plane's records, never the reverse.

pub mod decision;
pub mod ids;
pub mod risk;
pub mod wire_values;

pub mod calendar;
pub mod schedule;
pub mod zone;

pub mod gate;
pub mod pipeline;
pub mod stage;
pub mod stage_protocol;

pub mod agent;
pub mod backtest;
pub mod cycle;
pub mod strategy;

pub mod order;
pub mod price;
pub mod signing;
pub mod sizing;

pub mod ledger;
pub mod reconcile;
pub mod saga;

pub mod event;
pub mod history;
pub mod journal;

#[cfg(test)]
mod stored_forms;
#[cfg(test)]
mod testkit;
