//! The kill switch: what a stored value means, what an operator's command makes of it, and how long a reading counts.
//!
//! ```text
//! stored value ──of_stored──▶ Trading │ Halted │ Unknown ──Lease──▶ Permit (500 ms from when the read was sent) │ Refused
//! operator's command + stored value ──decide──▶ new value + line of history │ refusal
//! ```
//!
//! Inside there is one vocabulary, because the words outside contradict each other (one neighbour's "ACTIVE" means that
//! trading is allowed, another's that it was killed): *Trading*, *Halted*, *Unknown*. Unknown blocks like Halted and
//! says why. Only the values listed at [`TradingState::of_stored`] mean Trading, and only [`OperatorCommand::Init`] on
//! a missing value and [`OperatorCommand::Disengage`] on a halted one write such a value (KILL-2).
//!
//! Source: CONTRACTS §4; RELIABILITY §3.7, P14.

mod lease;
mod reading;
mod record;
mod shown;

#[cfg(test)]
mod tests;

pub use lease::{Lease, Permit, PermitRefused, RECENT_MAX, TradingStateChange, TradingStateView};
pub use reading::{Halt, KillSwitchReadError, Stored, TradingState, UnknownReason, VALUE_BYTES_MAX};
pub use record::{
    Applied, HISTORY_MAX, KillSwitchChange, OperatorCommand, Refusal, Shortfall, decide, owed_entry,
};
pub use shown::recorded_fields;
