//! `orchestrator engine-worker`: what the service starts in place of a worker, see [`worker_guard`].

use std::ffi::OsString;
use std::process::ExitCode;

use super::print_complaint;
use crate::service::wiring::worker_guard;

/// Becomes the worker; returns only when that fails.
#[must_use]
pub fn engine_worker(parent: i32, memory_max: Option<u64>, command: &[OsString]) -> ExitCode {
    print_complaint(&worker_guard::become_worker(parent, memory_max, command));
    ExitCode::from(worker_guard::NOT_EXECUTED)
}
