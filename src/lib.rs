//! The service: adapters behind the kernel's ports, and the wiring that joins them to the actors.

pub mod adapters;
pub mod api;
pub mod backtest;
pub mod cli;
pub mod config;
pub mod diff;
pub mod export;
pub mod files;
pub mod import;
pub mod inspect;
pub mod manifest;
pub mod recorded;
pub mod replay;
pub mod service;
pub mod telemetry;
pub mod tls;
pub mod verify;
pub mod wiring;

/// The fuzz targets name this crate as the fuzzer does, from outside.
#[cfg(test)]
extern crate self as orchestrator;
#[cfg(test)]
#[path = "../fuzz/src/suite.rs"]
mod fuzz;
