//! Ports for tests that every plane needs: in memory, scripted, and able to fail in every way that their contracts
//! name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test support: a broken test must stop loudly")]

mod clocks;
mod crash;
mod early_log;
mod kill_switch;
mod ledger;
mod logs;

pub use clocks::{LockstepClock, ManualClock};
pub use crash::{CrashPoint, CrashingCheckpoints};
pub use early_log::{EARLY_LOG_LATE, EarlyLog};
pub use kill_switch::{ReadMood, TestKillSwitch};
pub use ledger::{Baseline, Counts, Ledger};
pub use logs::{FaultyLog, OnAppend, fence, runs_of};
