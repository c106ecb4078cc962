//! What is done with recorded data while no service runs: played back, checked, looked at, compared, moved in and out.
//! The command line alone uses it.

pub mod backtest;
pub mod diff;
pub mod export;
pub mod import;
pub mod inspect;
pub mod recorded;
pub mod replay;
pub mod verify;
