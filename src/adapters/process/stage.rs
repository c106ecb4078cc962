//! Stages and hooks whose work worker processes do, in the engines' protocol.
//!
//! ```text
//! hello   {"engine":{"code_hash":"…","name":"…","version":"…"},"ops":["stage","hook"],"protocol":1}
//! ask     {"id":7,"as_of_date":"2026-01-09",…,"op":"stage","stage":"SIG",…}
//! answer  {"data":{…},"id":7,"ok":true}
//! ```
//!
//! | what comes | becomes |
//! |---|---|
//! | an answer | the answer, or the provider's own failure (`provider`) |
//! | a line that is no answer to this request | `garbage`; the worker is replaced |
//! | a line longer than `output_bytes_max` | `too_large`, not read to its end; the worker is replaced |
//! | nothing before the time is over | `timeout`; a late answer is known by its `id` and thrown away; a worker that writes none for as long again, at most a second, is replaced |
//! | the end of the worker; none that is up | `unavailable`; it is started again, with a back-off |

use async_trait::async_trait;
use orchestrator_kernel::engine::engine_protocol::OutOfStep;
use orchestrator_kernel::ports::stage::{HookBackend, HookRequest, StageBackend, StageRequest};
use orchestrator_kernel::trading::gate::{HookAnswer, HookError};
use orchestrator_kernel::trading::ids::StrategyName;
use orchestrator_kernel::trading::journal::{StageError, StageErrorKind, StageOutput};
use orchestrator_kernel::trading::stage_protocol::{
    check_answer, hook_request_json, read_hook_answer, read_stage_answer, stage_request_json,
};

use super::options::{WorkerPoolOptions, WorkerStartError};
use super::pool::WorkerPool;
use super::worker::{CallTime, WorkerCall, WorkerFailure, WorkerFailureKind};

#[cfg(test)]
mod tests;

/// Stages and hooks in a pool of worker processes.
///
/// A call may be dropped at any time: its worker is ended when the call's time is over, unless it has answered by then.
pub struct ProcessStages {
    pool: WorkerPool<StageQuestion>,
}

/// One question, as a JSON object without its opening brace: the id goes in front.
struct StageQuestion(String);

impl StageQuestion {
    fn of_object(text: &str) -> Self {
        Self(text.strip_prefix('{').unwrap_or(text).to_owned())
    }
}

impl WorkerCall for StageQuestion {
    /// The line, known to be an answer; its members are read by whoever asked.
    type Answer = Vec<u8>;

    fn write_line(&self, id: u64, line: &mut Vec<u8>) {
        line.clear();
        line.extend_from_slice(format!(r#"{{"id":{id},"#).as_bytes());
        line.extend_from_slice(self.0.as_bytes());
        line.push(b'\n');
    }

    fn read_answer(&self, line: &[u8], id: u64) -> Result<Self::Answer, OutOfStep> {
        check_answer(line, id)?;
        Ok(line.to_vec())
    }
}

impl ProcessStages {
    /// Begins to start the workers, and does not wait for them: nothing of the engine plane may. One that does not
    /// start is tried again, with a back-off and a line in the log; until it is up its stages are `unavailable`.
    ///
    /// # Errors
    ///
    /// [`WorkerStartError::Options`].
    pub fn start(options: WorkerPoolOptions) -> Result<Self, WorkerStartError> {
        Ok(Self { pool: WorkerPool::start_behind(options)? })
    }

    /// Ends the workers, see the pool of engines. Returns when no process is left. May be called again.
    pub async fn shut_down_workers(&self) {
        self.pool.shut_down_workers().await;
    }
}

#[async_trait]
impl StageBackend for ProcessStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        let question = StageQuestion::of_object(&stage_request_json(&request));
        // A strategy stays with its worker while that is free, as a symbol does with an engine's.
        let key = request.strategy.as_ref().map_or(request.stage.name.as_str(), StrategyName::as_str);
        match self.pool.call(key, question, CallTime::InAll(request.time_left)).await {
            Ok(line) => read_stage_answer(&line, None, request.strategy.as_ref()).unwrap_or_else(|what| {
                Err(StageError::new(StageErrorKind::Garbage, &format!("the worker wrote {what}")))
            }),
            Err(WorkerFailure { kind, detail }) => Err(StageError::new(stage_error_kind(kind), &detail)),
        }
    }
}

#[async_trait]
impl HookBackend for ProcessStages {
    async fn ask_hook(&self, request: HookRequest) -> Result<HookAnswer, HookError> {
        let question = StageQuestion::of_object(&hook_request_json(&request));
        match self.pool.call(request.hook.name.as_str(), question, CallTime::InAll(request.hook.budget)).await
        {
            Ok(line) => read_hook_answer(&line, None)
                .unwrap_or_else(|what| Err(HookError::Failed(format!("the worker wrote {what}")))),
            Err(WorkerFailure { kind: WorkerFailureKind::Timeout, .. }) => Err(HookError::TimedOut),
            Err(WorkerFailure { detail, .. }) => Err(HookError::Failed(detail)),
        }
    }
}

const fn stage_error_kind(kind: WorkerFailureKind) -> StageErrorKind {
    match kind {
        WorkerFailureKind::Died | WorkerFailureKind::Unavailable | WorkerFailureKind::Shutdown => {
            StageErrorKind::Unavailable
        }
        WorkerFailureKind::Garbage => StageErrorKind::Garbage,
        WorkerFailureKind::TooLarge => StageErrorKind::TooLarge,
        WorkerFailureKind::Timeout => StageErrorKind::Timeout,
    }
}
