//! What a pool of workers is told, and why it may refuse to start.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use orchestrator_kernel::engine::engine_protocol::{NeededOp, NoSuchOp};
use orchestrator_kernel::ports::engine::EngineIdentity;

/// Settings of the workers. No `Debug`: `env` may hold secrets.
#[derive(Clone)]
pub struct WorkerPoolOptions {
    /// Name of the pool in log lines.
    pub name: String,
    /// The workers in the details of failures, which are published: `the engine`.
    pub subject: &'static str,
    /// Program and arguments of one worker. The program is looked up in `PATH`.
    pub command: Vec<String>,
    /// Program that binds a worker to our life, called as [`guard`](super::guard) says; `None`: a worker that hangs
    /// outlives a kill of ours.
    pub guard: Option<PathBuf>,
    /// The workers' environment. Besides it they get only our `PATH`, unless it is named here.
    pub env: BTreeMap<String, String>,
    /// Where the workers run; `None`: where we run.
    pub working_dir: Option<PathBuf>,
    /// Number of processes, at least 1. Calls of one key go to the same one while it is free.
    pub workers: usize,
    /// Longest from the start of a process to its hello line. More than zero.
    pub start_deadline: Duration,
    /// Longest that a call waits for a worker that is down, counted from the call or from the worker's end, whichever
    /// was later; then it is answered as unavailable. Waiting for a worker that is up has no bound of its own:
    /// each call before it has its time.
    pub restart_wait_max: Duration,
    /// Address space of one worker in bytes; beyond it allocations fail. Set right after the start of the process.
    pub memory_max_bytes: Option<u64>,
    /// Longest answer line in bytes; a longer one ends the worker. More than zero.
    pub output_bytes_max: usize,
    /// The requests that will be made; a worker that says that it cannot answer one is refused.
    pub ops: Vec<NeededOp>,
    /// Pause before a dead worker is started again; doubled each time until a good answer. More than zero.
    pub respawn_backoff_min: Duration,
    /// Longest such pause; not below the shortest.
    pub respawn_backoff_max: Duration,
    /// On shutdown, longest for a call in flight to finish, and again for the process to leave after its stdin was
    /// closed. Then it is killed.
    pub shutdown_grace: Duration,
}

impl WorkerPoolOptions {
    /// Checks the ranges.
    pub(super) fn check_ranges(&self) -> Result<(), WorkerStartError> {
        let refuse = |problem| Err(WorkerStartError::Options { problem });
        if self.command.is_empty() {
            return refuse("command is empty");
        }
        if self.workers == 0 {
            return refuse("workers must be at least 1");
        }
        if self.start_deadline.is_zero() {
            return refuse("start_deadline must be more than zero");
        }
        if self.output_bytes_max == 0 {
            return refuse("output_bytes_max must be more than zero");
        }
        if self.respawn_backoff_min.is_zero() || self.respawn_backoff_max < self.respawn_backoff_min {
            return refuse("respawn_backoff_min must be more than zero and not above respawn_backoff_max");
        }
        Ok(())
    }

    /// The command as an operator would type it.
    pub(super) fn command_line(&self) -> String {
        self.command.join(" ")
    }
}

/// Reason for which the pool did not start. Every process that was started is ended again.
#[derive(Debug, thiserror::Error)]
pub enum WorkerStartError {
    /// An option out of its range.
    #[error("workers: {problem}")]
    Options {
        /// Which and why.
        problem: &'static str,
    },
    /// The program could not be started.
    #[error(
        "cannot start worker command `{command}`: check that the program is installed, is in PATH and may be executed"
    )]
    Spawn {
        /// The command line.
        command: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The memory limit could not be set.
    #[error(
        "cannot limit the memory of worker command `{command}`; remove memory_max_bytes to run without a limit"
    )]
    MemoryLimit {
        /// The command line.
        command: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The process did not introduce itself.
    #[error(
        "worker command `{command}` {problem} instead of writing its hello line; its last stderr lines: {stderr}"
    )]
    NoHello {
        /// The command line.
        command: String,
        /// What it did.
        problem: String,
        /// Its last lines on stderr, `(none)` without any.
        stderr: String,
    },
    /// The process speaks another protocol.
    #[error(
        "worker command `{command}` speaks protocol {found}, this orchestrator speaks {known}: use the worker kit of the same release"
    )]
    Protocol {
        /// The command line.
        command: String,
        /// What its hello line says.
        found: u64,
        /// What we speak.
        known: u64,
    },
    /// The process says that it cannot answer what it would be asked.
    #[error("worker command `{command}`; its last stderr lines: {stderr}")]
    Contract {
        /// The command line.
        command: String,
        /// Its last lines on stderr, `(none)` without any: they say why.
        stderr: String,
        /// What it does not offer.
        #[source]
        source: NoSuchOp,
    },
    /// Two workers do not run the same code, so answers would depend on which one is asked.
    #[error(
        "workers of worker command `{command}` differ: one is {first:?}, another {other:?}; make them all run the same code and restart"
    )]
    Identity {
        /// The command line.
        command: String,
        /// The identity in force.
        first: Box<EngineIdentity>,
        /// The one that differs.
        other: Box<EngineIdentity>,
    },
}
