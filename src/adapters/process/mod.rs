//! Engines, stages and hooks in worker processes over stdin and stdout.
//!
//! ```text
//! call ─hash(key)─▶ queue of worker k ─▶ task of worker k ─request line─▶ process k         one call in flight a worker
//!                                            ▲  └─◀─answer line── stdout                    stderr ─▶ our log
//!                                            └ deadline, death, garbage: kill the group, restart with back-off
//! ```
//!
//! Reading order: what is configured, the lines, what binds a process to us, the child process, its task, the pool;
//! then what is asked of a pool: an engine's call, the work of a stage and a hook's answer.

pub mod backtests;
mod child;
pub mod engine;
pub mod guard;
mod lines;
mod options;
mod pool;
pub mod stage;
mod stderr;
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub mod testkit;
mod worker;

pub use options::{WorkerPoolOptions, WorkerStartError};
