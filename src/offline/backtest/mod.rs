//! A backtest: the live tree on a recorded capture as fast as it goes, and a report on what came out.
//!
//! ```text
//! capture ─▶ the same actors, ports and wiring as `orchestrator run` ─▶ logs ─▶ outputs file, journal
//!            under the recorded clock, with cycles on request             └───▶ report.json, report.html
//! ```
//!
//! The report is read from the logs, so two backtests of one capture give the same report; only its `performance` tells
//! of the machine.

mod charts;
mod cycles;
mod figures;
mod html;
mod latency;
mod over_time;
mod regimes;
mod report;
mod run;
mod svg;
mod words;

pub use cycles::{CycleFigures, IntentCounts};
pub use html::render_page;
pub use latency::{Calls, Latency};
pub use report::{BacktestReport, Input};
pub use run::{BacktestPlan, End, PlayError, Played, play_capture};
