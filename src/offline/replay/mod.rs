//! Replaying recorded logs: pages read ahead, the audit fed in the right order, the engine called beside it.
//!
//! ```text
//! receipt log ─▶ Pages ─┐ (a task reads and verifies while the one before is taken)
//!                       ├─▶ Driver ─▶ Audit ─▶ engine calls, bounded, beside each other ─┐
//! run log ─────▶ Pages ─┘                                                               ├─▶ Sink, in run-log order
//!                               settled runs, divergences ──────────────────────────────┘
//! ```
//!
//! The run log is read twice: first for its [`RunLogOutline`](orchestrator_kernel::engine::replay::RunLogOutline), then
//! for its runs.

mod driver;
mod pages;
mod plan;

pub use driver::{Answers, Driver, ReplayError, ReplaySummary, ReplayedRun, Sink};
pub use pages::Pages;
pub use plan::{ReplayPlan, ReplayRange};
