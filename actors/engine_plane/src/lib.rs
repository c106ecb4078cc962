//! The engine plane's actors. One folder an actor: `messages.rs` is what the others may know of it.
//!
//! An actor keeps only what it can rebuild from a log in `pre_start`; a restart therefore loses nothing. Reading order
//! is the way of a receipt: ingest, buffer, scheduler, symbol runner, run log, publisher; then retention.

pub mod ingest;

pub mod buffer;

pub mod scheduler;

pub mod runners;

pub mod run_log;

pub mod publisher;

pub mod retention;

pub mod flow;
pub mod recorded_times;
mod recovery;
pub mod saved;
pub mod settings;

#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod testkit;
