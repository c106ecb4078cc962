//! An engine in worker processes.

use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::engine::engine_protocol::{NeededOp, OutOfStep, RequestBody, read_answer};
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::json::{self, JsonError};
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};

use super::options::{WorkerPoolOptions, WorkerStartError};
use super::pool::WorkerPool;
use super::worker::{CallTime, WorkerCall, WorkerFailure, WorkerFailureKind};

#[cfg(test)]
mod tests;

/// Settings of an engine in worker processes. No `Debug`: the environment may hold secrets.
#[derive(Clone)]
pub struct ProcessEngineOptions {
    /// The workers. Which requests will be made is added to them.
    pub workers: WorkerPoolOptions,
    /// Longest that a worker may take for one call, from the first byte of the request that is written to the last byte
    /// of the answer that is read. Waiting for earlier calls of the same worker is not part of it, so a call that stood
    /// behind a hanging one is not charged for it. More than zero.
    pub deadline: Duration,
    /// Which calls will be made.
    pub mode: EngineMode,
    /// The `config` of every hysteresis call: text of one JSON object.
    pub hysteresis_config: String,
}

/// Reason for which the engine did not start. Every process that was started is ended again.
#[derive(Debug, thiserror::Error)]
pub enum EngineStartError {
    /// The hysteresis config has no canonical form.
    #[error("engine workers: hysteresis_config must be a JSON object")]
    HysteresisConfig(#[source] JsonError),
    /// The hysteresis config is JSON of another kind.
    #[error("engine workers: hysteresis_config must be a JSON object")]
    NoObject,
    /// The workers.
    #[error(transparent)]
    Workers(#[from] WorkerStartError),
}

/// An engine in a pool of worker processes.
///
/// A call may be dropped at any time. One that was already written keeps its worker busy until it answers or its
/// deadline passes. Dropping the engine ends the workers in the background;
/// [`shut_down_workers`](Self::shut_down_workers) waits for it.
pub struct ProcessEngine {
    pool: WorkerPool<EngineJob>,
    deadline: Duration,
    hysteresis_config: String,
}

/// One call, as its line.
struct EngineJob {
    body: RequestBody,
    mode: EngineMode,
}

impl WorkerCall for EngineJob {
    type Answer = Result<EngineAnswer, EngineError>;

    fn write_line(&self, id: u64, line: &mut Vec<u8>) {
        self.body.write_line(id, line);
    }

    fn read_answer(&self, line: &[u8], id: u64) -> Result<Self::Answer, OutOfStep> {
        read_answer(line, id, self.mode)
    }
}

impl ProcessEngine {
    /// Starts all workers at once and waits for their hello lines.
    ///
    /// # Errors
    ///
    /// [`EngineStartError`], which says what to do about it. No process is left behind.
    pub async fn start(options: ProcessEngineOptions) -> Result<Self, EngineStartError> {
        let ProcessEngineOptions { mut workers, deadline, mode, hysteresis_config } = options;
        if deadline.is_zero() {
            return Err(WorkerStartError::Options { problem: "deadline must be more than zero" }.into());
        }
        let hysteresis_config =
            json::canonical(&hysteresis_config).map_err(EngineStartError::HysteresisConfig)?;
        if !hysteresis_config.starts_with('{') {
            return Err(EngineStartError::NoObject);
        }
        workers.ops = vec![NeededOp::of_mode(mode)];
        Ok(Self { pool: WorkerPool::start(workers).await?, deadline, hysteresis_config })
    }

    /// Ends the workers: calls in flight may finish within the grace, all others are answered `shutdown`; then stdin is
    /// closed, and what has not left within the grace is killed. Returns when no process is left. May be called again.
    pub async fn shut_down_workers(&self) {
        self.pool.shut_down_workers().await;
    }
}

#[async_trait]
impl Engine for ProcessEngine {
    /// Known from the start: the hello lines say it.
    fn identity(&self) -> EngineIdentity {
        self.pool.identity()
    }

    async fn call(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
        let job = EngineJob { body: RequestBody::new(call, &self.hysteresis_config), mode: call.mode };
        match self.pool.call(call.symbol.as_str(), job, CallTime::OfTurn(self.deadline)).await {
            Ok(answer) => answer,
            Err(WorkerFailure { kind, detail }) => Err(EngineError::no_answer(error_kind(kind), detail)),
        }
    }
}

/// The published category of a call without an answer.
const fn error_kind(kind: WorkerFailureKind) -> ErrorKind {
    match kind {
        WorkerFailureKind::Died | WorkerFailureKind::Garbage | WorkerFailureKind::TooLarge => {
            ErrorKind::EngineFailure
        }
        WorkerFailureKind::Timeout => ErrorKind::EngineTimeout,
        WorkerFailureKind::Unavailable => ErrorKind::EngineUnavailable,
        WorkerFailureKind::Shutdown => ErrorKind::Shutdown,
    }
}
