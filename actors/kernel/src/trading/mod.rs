//! The trading plane's decisions: when a cycle is due, what may happen in it, what an order's answer means.
//!
//! Pure like the rest of the kernel: zones and calendars are data, amounts are decimals, and the journal's records are
//! what a decision is made from and what it leaves behind. It may read the engine plane's records, never the reverse.

pub mod zone;

pub mod calendar;
pub mod schedule;
