//! Ports for tests that every plane needs: in memory, scripted, and able to fail in every way that their contracts
//! name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test support: a broken test must stop loudly")]

mod clocks;
mod crash;
mod kill_switch;
mod ledger;
mod logs;

pub use clocks::{LockstepClock, ManualClock};
pub use crash::{CrashPoint, CrashingCheckpoints};
pub use kill_switch::{ReadMood, TestKillSwitch};
pub use ledger::{Baseline, Counts, Ledger};
pub use logs::{FaultyLog, OnAppend, fence, runs_of};
