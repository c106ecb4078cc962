//! The task of one worker: serves its calls one by one, and starts the process again when it breaks.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::engine::engine_protocol::{RequestBody, read_answer};
use orchestrator_kernel::error::{ErrorKind, bounded_detail};
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::ports::engine::{EngineAnswer, EngineError, EngineIdentity};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::child::{Broken, WorkerProcess};
use super::options::{EngineStartError, ProcessEngineOptions};

/// One call on its way to a worker.
pub(super) struct Job {
    pub(super) body: RequestBody,
    pub(super) mode: EngineMode,
    pub(super) asked_at: Instant,
    pub(super) reply: oneshot::Sender<Result<EngineAnswer, EngineError>>,
}

impl Job {
    fn answer_caller(self, answer: Result<EngineAnswer, EngineError>) {
        // A caller that is gone wants no answer: the port allows to drop a call.
        drop(self.reply.send(answer));
    }

    /// No answer came, so nobody knows what it would have been.
    fn fail_unanswered(self, kind: ErrorKind, detail: &str) {
        self.answer_caller(Err(EngineError::no_answer(kind, bounded_detail(detail))));
    }
}

/// Pauses between starts: the shortest, doubled each time up to the longest.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.max);
        pause
    }

    fn reset(&mut self) {
        self.next = self.min;
    }
}

/// State of one worker's task.
pub(super) struct Worker {
    index: usize,
    options: Arc<ProcessEngineOptions>,
    identity: EngineIdentity,
    calls: mpsc::Receiver<Job>,
    /// The call that waits for the process to be up again.
    waiting: Option<Job>,
    closing: CancellationToken,
    backoff: Backoff,
    request_id: u64,
    request: Vec<u8>,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        options: Arc<ProcessEngineOptions>,
        identity: EngineIdentity,
        calls: mpsc::Receiver<Job>,
        closing: CancellationToken,
    ) -> Self {
        let backoff = Backoff::new(options.respawn_backoff_min, options.respawn_backoff_max);
        let (waiting, request) = (None, Vec::new());
        Self { index, options, identity, calls, waiting, closing, backoff, request_id: 0, request }
    }

    /// Serves calls until the pool closes; `process` is up.
    pub(super) async fn run_until_closed(mut self, process: WorkerProcess) {
        let mut process = Some(process);
        while let Some(mut up) = process.take() {
            match self.serve_calls(&mut up).await {
                None => up.close_gracefully(self.options.shutdown_grace).await,
                Some((broken, job)) => {
                    self.end_broken(up, broken, job).await;
                    process = self.restart_process().await;
                }
            }
        }
        self.calls.close();
        while let Some(job) = self.next_call().await {
            job.fail_unanswered(ErrorKind::Shutdown, "the engine workers are shutting down");
        }
    }

    /// Serves until the process breaks, or until the pool closes (`None`).
    async fn serve_calls(&mut self, process: &mut WorkerProcess) -> Option<(Broken, Option<Job>)> {
        let closing = self.closing.clone();
        loop {
            let job = tokio::select! {
                biased;
                () = closing.cancelled() => return None,
                broken = process.wait_for_unasked() => return Some((broken, None)),
                job = self.next_call() => job?,
            };
            if job.reply.is_closed() {
                continue; // abandoned before it was written: nothing to do and nothing out of step
            }
            match self.exchange_call(process, &job).await {
                Ok(answer) => {
                    self.backoff.reset();
                    job.answer_caller(answer);
                }
                Err(broken) => return Some((broken, Some(job))),
            }
        }
    }

    /// The call that waited longest. `None` when the pool is gone.
    async fn next_call(&mut self) -> Option<Job> {
        match self.waiting.take() {
            Some(job) => Some(job),
            None => self.calls.recv().await,
        }
    }

    /// One request and its answer. A caller that gave up changes nothing here: the answer is read all the same, within
    /// the deadline, so that the next line is the next call's.
    async fn exchange_call(
        &mut self,
        process: &mut WorkerProcess,
        job: &Job,
    ) -> Result<Result<EngineAnswer, EngineError>, Broken> {
        self.request_id += 1;
        job.body.write_line(self.request_id, &mut self.request);
        let grace_over = async {
            self.closing.cancelled().await;
            sleep(self.options.shutdown_grace).await;
        };
        let line = tokio::select! {
            biased;
            line = process.exchange_line(&self.request) => line?,
            () = sleep(self.options.deadline) => return Err(Broken::Deadline),
            () = grace_over => return Err(Broken::ShuttingDown),
        };
        read_answer(&line, self.request_id, job.mode).map_err(Broken::OutOfStep)
    }

    /// Ends a broken process and answers the call that was in flight.
    async fn end_broken(&mut self, mut process: WorkerProcess, broken: Broken, job: Option<Job>) {
        let (kind, detail) = match broken {
            Broken::Closed => {
                (ErrorKind::EngineFailure, format!("the engine {}", process.wait_for_exit().await))
            }
            Broken::Pipe(error) => (ErrorKind::EngineFailure, format!("the engine's pipe failed ({error})")),
            Broken::TooLong => {
                let max = self.options.output_bytes_max;
                (ErrorKind::EngineFailure, format!("the engine wrote a line of more than {max} bytes"))
            }
            Broken::Unasked => (ErrorKind::EngineFailure, "the engine wrote a line unasked".to_owned()),
            Broken::OutOfStep(what) => (ErrorKind::EngineFailure, format!("the engine wrote {what}")),
            Broken::Deadline => {
                let deadline = self.options.deadline;
                (ErrorKind::EngineTimeout, format!("the engine gave no answer within {deadline:?}"))
            }
            Broken::ShuttingDown => {
                (ErrorKind::Shutdown, "the engine gave no answer before the shutdown".to_owned())
            }
        };
        process.kill_and_reap().await;
        tracing::warn!(worker = self.index, during_call = job.is_some(), detail, "engine worker is ended");
        if let Some(job) = job {
            job.fail_unanswered(kind, &detail);
        }
    }

    /// Starts the process until it is up, or until the pool closes (`None`). Meanwhile calls wait, each up to its
    /// bound.
    async fn restart_process(&mut self) -> Option<WorkerProcess> {
        let down_since = Instant::now();
        let (index, options) = (self.index, Arc::clone(&self.options));
        loop {
            let pause = self.backoff.next_pause();
            let start = async {
                sleep(pause).await;
                WorkerProcess::start(&options, index).await
            };
            match self.while_down(down_since, start).await? {
                Ok((process, identity)) if identity == self.identity => {
                    tracing::info!(worker = index, "engine worker is up again");
                    return Some(process);
                }
                Ok((mut process, identity)) => {
                    process.kill_and_reap().await;
                    self.report_failed_start(&EngineStartError::Identity {
                        command: options.command_line(),
                        first: Box::new(self.identity.clone()),
                        other: Box::new(identity),
                    });
                }
                Err(error) => self.report_failed_start(&error),
            }
        }
    }

    fn report_failed_start(&self, error: &EngineStartError) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(worker = self.index, %error, cause, next_try_in = ?self.backoff.next, "engine worker does not start");
    }

    /// Runs `work` while calls wait for the process. `None` when the pool closes.
    async fn while_down<T>(&mut self, down_since: Instant, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let wait_max = self.options.restart_wait_max;
        loop {
            let bound = self.waiting.as_ref().map(|job| job.asked_at.max(down_since) + wait_max);
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                done = &mut work => return Some(done),
                job = self.calls.recv(), if bound.is_none() => self.waiting = Some(job?),
                () = sleep_until(bound.unwrap_or(down_since)), if bound.is_some() => {
                    if let Some(job) = self.waiting.take() {
                        job.fail_unanswered(
                            ErrorKind::EngineUnavailable,
                            &format!("the engine was being restarted for more than {wait_max:?}"),
                        );
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));

        let pauses: Vec<u64> = (0..5).map(|_| backoff.next_pause().as_secs()).collect();
        backoff.reset();

        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        assert_eq!(backoff.next_pause().as_secs(), 1);
    }
}
