//! The ports: what the system needs from the outside. A trait, its in-memory reference and its conformance suite each.

pub mod away;
pub mod backtests;
pub mod checkpoint;
#[cfg(any(test, feature = "testkit"))]
pub mod checkpoint_conformance;
pub mod clock;
pub mod engine;
pub mod event_bus;
#[cfg(any(test, feature = "testkit"))]
pub mod event_bus_conformance;
pub mod event_bus_memory;
pub mod fan_out;
pub mod history;
#[cfg(any(test, feature = "testkit"))]
pub mod history_conformance;
pub mod history_memory;
pub mod kill_switch;
#[cfg(any(test, feature = "testkit"))]
pub mod kill_switch_conformance;
pub mod log;
pub mod log_backwards;
#[cfg(any(test, feature = "testkit"))]
pub mod log_conformance;
pub mod log_memory;
pub mod market;
pub mod marks;
#[cfg(any(test, feature = "testkit"))]
pub mod marks_conformance;
pub mod observer;
pub mod source;
#[cfg(any(test, feature = "testkit"))]
pub mod source_conformance;
pub mod stage;
#[cfg(any(test, feature = "testkit"))]
pub mod stage_conformance;
pub mod unsettled;
