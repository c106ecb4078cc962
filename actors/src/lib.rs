//! The supervision tree: typed actors over the kernel's ports.
//!
//! An actor keeps only what it can rebuild from a log in `pre_start`; a restart therefore loses nothing. Reading order
//! is the way of a receipt: ingest, buffer, scheduler, symbol runner, run log, publisher; the kill switch; then what holds
//! them up.

pub mod ingest;

pub mod buffer;

pub mod scheduler;

pub mod runners;
pub mod symbol_runner;

pub mod run_log;

pub mod publisher;

pub mod kill_switch;

pub mod retention;

pub mod supervisor;
pub mod tree;

pub mod act_log;
pub mod address;
mod clock_watch;
pub mod fatal;
pub mod flow;
pub mod group_commit;
mod log_health;
mod patient_log;
pub mod recorded_times;
mod recovery;
pub mod saved;
pub mod status;

#[cfg(feature = "testkit")]
pub mod testkit;
