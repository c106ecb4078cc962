//! End-to-end tests: the real binary, real worker processes, real files, real sockets. One binary, so that it links
//! once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that panics has failed, which is what it is for"
)]

mod backtest;
mod backtest_trading;
mod capture;
mod cli;
mod clock;
mod crash;
mod deployment;
mod engine_contract;
mod export;
mod faults;
mod full_disk;
mod history;
mod hostile;
mod http_floods;
mod identity;
mod journal;
mod kill_switch_http;
mod kill_switch_stop;
mod limits;
mod log_tail;
mod look_back;
mod odd_times;
mod orchestration_pages;
mod paper;
mod process_life;
mod producers;
mod readiness;
mod retention;
mod schedule;
mod storage_faults;
mod support;
mod tidy;
mod tiered;
mod trading;
mod trading_cases;
mod trading_config;
mod trading_rows;
mod verify;
mod whole_inputs;

use support::made_up;
