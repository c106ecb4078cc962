//! What a pool of engine workers is told, and why it may refuse to start.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use orchestrator_kernel::engine::engine_protocol::NoSuchOp;
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::json::{self, JsonError};
use orchestrator_kernel::ports::engine::EngineIdentity;

/// Settings of the workers. No `Debug`: `env` may hold secrets.
#[derive(Clone)]
pub struct ProcessEngineOptions {
    /// Program and arguments of one worker. The program is looked up in `PATH`.
    pub command: Vec<String>,
    /// Program that binds a worker to our life, called as [`guard`](super::guard) says; `None`: a worker that hangs
    /// outlives a kill of ours.
    pub guard: Option<PathBuf>,
    /// The workers' environment. Besides it they get only our `PATH`, unless it is named here.
    pub env: BTreeMap<String, String>,
    /// Where the workers run; `None`: where we run.
    pub working_dir: Option<PathBuf>,
    /// Number of processes, at least 1. A symbol always goes to the same one.
    pub workers: usize,
    /// Longest that a worker may take for one call, from the first byte of the request that is written to the last byte
    /// of the answer that is read. Waiting for earlier calls of the same worker is not part of it, so a call that stood
    /// behind a hanging one is not charged for it. More than zero.
    pub deadline: Duration,
    /// Longest from the start of a process to its hello line. More than zero.
    pub start_deadline: Duration,
    /// Longest that a call waits for a worker that is down, counted from the call or from the worker's end, whichever
    /// was later; then it is answered `engine_unavailable`. Waiting for a worker that is up has no bound of its own:
    /// each call before it has `deadline`.
    pub restart_wait_max: Duration,
    /// Address space of one worker in bytes; beyond it allocations fail. Set right after the start of the process.
    pub memory_max_bytes: Option<u64>,
    /// Longest answer line in bytes; a longer one ends the worker. More than zero.
    pub output_bytes_max: usize,
    /// Which calls will be made.
    pub mode: EngineMode,
    /// The `config` of every hysteresis call: text of one JSON object.
    pub hysteresis_config: String,
    /// Pause before a dead worker is started again; doubled each time until a good answer. More than zero.
    pub respawn_backoff_min: Duration,
    /// Longest such pause; not below the shortest.
    pub respawn_backoff_max: Duration,
    /// On shutdown, longest for a call in flight to finish, and again for the process to leave after its stdin was
    /// closed. Then it is killed.
    pub shutdown_grace: Duration,
}

impl ProcessEngineOptions {
    /// Checks the ranges and returns the hysteresis config as one line.
    pub(super) fn validated_config(&self) -> Result<String, EngineStartError> {
        let refuse = |problem| Err(EngineStartError::Options { problem });
        if self.command.is_empty() {
            return refuse("command is empty");
        }
        if self.workers == 0 {
            return refuse("workers must be at least 1");
        }
        if self.deadline.is_zero() || self.start_deadline.is_zero() {
            return refuse("deadline and start_deadline must be more than zero");
        }
        if self.output_bytes_max == 0 {
            return refuse("output_bytes_max must be more than zero");
        }
        if self.respawn_backoff_min.is_zero() || self.respawn_backoff_max < self.respawn_backoff_min {
            return refuse("respawn_backoff_min must be more than zero and not above respawn_backoff_max");
        }
        let config = json::canonical(&self.hysteresis_config).map_err(EngineStartError::HysteresisConfig)?;
        if !config.starts_with('{') {
            return refuse("hysteresis_config must be a JSON object");
        }
        Ok(config)
    }

    /// The command as an operator would type it.
    pub(super) fn command_line(&self) -> String {
        self.command.join(" ")
    }
}

/// Reason for which the pool did not start. Every process that was started is ended again.
#[derive(Debug, thiserror::Error)]
pub enum EngineStartError {
    /// An option out of its range.
    #[error("engine workers: {problem}")]
    Options {
        /// Which and why.
        problem: &'static str,
    },
    /// The hysteresis config has no canonical form.
    #[error("engine workers: hysteresis_config must be a JSON object")]
    HysteresisConfig(#[source] JsonError),
    /// The program could not be started.
    #[error(
        "cannot start engine command `{command}`: check that the program is installed, is in PATH and may be executed"
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
        "cannot limit the memory of engine command `{command}`; remove memory_max_bytes to run without a limit"
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
        "engine command `{command}` {problem} instead of writing its hello line; its last stderr lines: {stderr}"
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
        "engine command `{command}` speaks protocol {found}, this orchestrator speaks {known}: use the worker kit of the same release"
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
    #[error("engine command `{command}`; its last stderr lines: {stderr}")]
    Contract {
        /// The command line.
        command: String,
        /// Its last lines on stderr, `(none)` without any: they say why.
        stderr: String,
        /// What it does not offer.
        #[source]
        source: NoSuchOp,
    },
    /// Two workers are not the same engine, so outputs would depend on the symbol's worker.
    #[error(
        "workers of engine command `{command}` differ: one is {first:?}, another {other:?}; make them all run the same code and restart"
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
