//! Engines in worker processes over stdin and stdout.
//!
//! ```text
//! call ─hash(symbol)─▶ queue of worker k ─▶ task of worker k ─request line─▶ process k      one call in flight a worker
//!                                               ▲  └─◀─answer line── stdout                 stderr ─▶ our log
//!                                               └ deadline, death, garbage: kill the group, restart with back-off
//! ```
//!
//! Reading order: what is configured, the lines, what binds a process to us, the child process, its task, the pool.

mod child;
pub mod guard;
mod lines;
mod options;
mod pool;
mod stderr;
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub mod testkit;
#[cfg(test)]
mod tests;
mod worker;

pub use options::{EngineStartError, ProcessEngineOptions};
pub use pool::ProcessEngine;
