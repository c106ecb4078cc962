//! The service: adapters behind the kernel's ports, and the wiring that joins them to the actors.

pub mod adapters;
pub mod api;
pub mod cli;
pub mod config;
pub mod offline;
pub mod process;
pub mod service;
pub mod telemetry;

/// The fuzz targets name this crate as the fuzzer does, from outside.
#[cfg(test)]
extern crate self as orchestrator;
#[cfg(test)]
#[path = "../fuzz/src/suite.rs"]
mod fuzz;
