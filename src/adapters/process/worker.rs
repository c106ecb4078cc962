//! The task of one worker: serves its calls one by one, and starts the process again when it breaks.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use orchestrator_kernel::engine::engine_protocol::OutOfStep;
use orchestrator_kernel::error::bounded_detail;
use orchestrator_kernel::ports::engine::EngineIdentity;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::child::{Broken, WorkerProcess};
use super::options::{WorkerPoolOptions, WorkerStartError};

/// A call that workers can answer: its request, and what an answer to it is.
pub(super) trait WorkerCall: Send + Sync + 'static {
    /// What the caller is given.
    type Answer: Send;

    /// Writes the whole request line with its end into `line`, whose content is replaced.
    fn write_line(&self, id: u64, line: &mut Vec<u8>);

    /// Reads the answer to request `id`.
    ///
    /// # Errors
    ///
    /// [`OutOfStep`]: it is none, and the worker that wrote it has to go.
    fn read_answer(&self, line: &[u8], id: u64) -> Result<Self::Answer, OutOfStep>;
}

/// How a call ended that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WorkerFailureKind {
    /// The worker died or its pipe failed.
    Died,
    /// It wrote what is no answer.
    Garbage,
    /// It wrote more than an answer may be.
    TooLarge,
    /// It wrote nothing in time.
    Timeout,
    /// There was no worker to ask in time.
    Unavailable,
    /// The pool ends.
    Shutdown,
}

/// A call without an answer: nobody knows what it would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkerFailure {
    pub(super) kind: WorkerFailureKind,
    /// One line. It names no worker, process or address: outputs must not depend on the number of workers (REP-2).
    pub(super) detail: String,
}

impl WorkerFailure {
    pub(super) fn new(kind: WorkerFailureKind, detail: &str) -> Self {
        Self { kind, detail: bounded_detail(detail) }
    }
}

/// Time of a call, more than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallTime {
    /// From its turn on: from the first byte of the request that is written to the last byte of the answer that is
    /// read. A call that stood behind a hanging one is not charged for it.
    OfTurn(Duration),
    /// From now on, waiting included: nobody takes an answer that comes later.
    InAll(Duration),
}

/// One call on its way to a worker.
pub(super) struct Job<C: WorkerCall> {
    pub(super) call: C,
    pub(super) asked_at: Instant,
    pub(super) time: CallTime,
    pub(super) reply: oneshot::Sender<Result<C::Answer, WorkerFailure>>,
}

impl<C: WorkerCall> Job<C> {
    fn answer_caller(self, answer: Result<C::Answer, WorkerFailure>) {
        // A caller that is gone wants no answer: the port allows to drop a call.
        drop(self.reply.send(answer));
    }

    fn fail(self, kind: WorkerFailureKind, detail: &str) {
        self.answer_caller(Err(WorkerFailure::new(kind, detail)));
    }

    /// Until when it may wait for its turn; nothing for one whose time begins only then.
    fn ends_at(&self) -> Option<Instant> {
        match self.time {
            CallTime::OfTurn(_) => None,
            CallTime::InAll(time) => Some(self.asked_at + time),
        }
    }

    fn is_overdue(&self) -> bool {
        self.ends_at().is_some_and(|end| end <= Instant::now())
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
pub(super) struct Worker<C: WorkerCall> {
    index: usize,
    options: Arc<WorkerPoolOptions>,
    /// Who the first worker of the pool is: the others, and those that replace them, have to be the same.
    identity: Arc<OnceLock<EngineIdentity>>,
    calls: mpsc::Receiver<Job<C>>,
    /// The call that waits for the process to be up again.
    waiting: Option<Job<C>>,
    closing: CancellationToken,
    backoff: Backoff,
    request_id: u64,
    request: Vec<u8>,
}

impl<C: WorkerCall> Worker<C> {
    pub(super) fn new(
        index: usize,
        options: Arc<WorkerPoolOptions>,
        identity: Arc<OnceLock<EngineIdentity>>,
        calls: mpsc::Receiver<Job<C>>,
        closing: CancellationToken,
    ) -> Self {
        let backoff = Backoff::new(options.respawn_backoff_min, options.respawn_backoff_max);
        let (waiting, request) = (None, Vec::new());
        Self { index, options, identity, calls, waiting, closing, backoff, request_id: 0, request }
    }

    /// Serves calls until the pool closes; without a process that is up it starts one.
    pub(super) async fn run_until_closed(mut self, process: Option<WorkerProcess>) {
        let mut process = match process {
            Some(process) => Some(process),
            None => self.start_process(Duration::ZERO).await,
        };
        while let Some(mut up) = process.take() {
            match self.serve_calls(&mut up).await {
                None => up.close_gracefully(self.options.shutdown_grace).await,
                Some((broken, job)) => {
                    self.end_broken(up, broken, job).await;
                    let pause = self.backoff.next_pause();
                    process = self.start_process(pause).await;
                }
            }
        }
        self.calls.close();
        while let Some(job) = self.next_call().await {
            job.fail(WorkerFailureKind::Shutdown, &closing_detail(&self.options));
        }
    }

    /// Serves until the process breaks, or until the pool closes (`None`).
    async fn serve_calls(&mut self, process: &mut WorkerProcess) -> Option<(Broken, Option<Job<C>>)> {
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
            if job.is_overdue() {
                let detail = format!("{} had no time left for it", self.options.subject);
                job.fail(WorkerFailureKind::Timeout, &detail);
                continue;
            }
            match self.exchange_call(process, job).await {
                Ok(()) => self.backoff.reset(),
                Err((broken, job)) => return Some((broken, job)),
            }
        }
    }

    /// The call that waited longest. `None` when the pool is gone.
    async fn next_call(&mut self) -> Option<Job<C>> {
        match self.waiting.take() {
            Some(job) => Some(job),
            None => self.calls.recv().await,
        }
    }

    /// One request and its answer. A caller that gave up changes nothing here: the answer is read all the same, within
    /// its time, so that the next line is the next call's.
    ///
    /// Where nobody takes what comes later, the caller is answered when its time is over, and the worker has a little
    /// longer: its late answer is known by its id, and thrown away. Ended is one that does not write it.
    async fn exchange_call(
        &mut self,
        process: &mut WorkerProcess,
        job: Job<C>,
    ) -> Result<(), (Broken, Option<Job<C>>)> {
        self.request_id += 1;
        job.call.write_line(self.request_id, &mut self.request);
        let (time, end) = match job.time {
            CallTime::OfTurn(time) => (time, Instant::now() + time),
            CallTime::InAll(time) => (time, job.asked_at + time),
        };
        let grace_over = async {
            self.closing.cancelled().await;
            sleep(self.options.shutdown_grace).await;
        };
        let (mut exchange, mut grace_over) = (pin!(process.exchange_line(&self.request)), pin!(grace_over));
        let line = tokio::select! {
            biased;
            line = &mut exchange => line,
            () = sleep_until(end) => match job.time {
                CallTime::OfTurn(_) => return Err((Broken::Deadline(time), Some(job))),
                CallTime::InAll(_) => {
                    let detail = no_answer_detail(&self.options, time);
                    let Job { call, reply, .. } = job;
                    drop(reply.send(Err(WorkerFailure::new(WorkerFailureKind::Timeout, &detail))));
                    let late = tokio::select! {
                        biased;
                        late = &mut exchange => late,
                        () = sleep_until(end + time.min(LATE_ANSWER_MAX)) => Err(Broken::Deadline(time)),
                        () = &mut grace_over => Err(Broken::ShuttingDown),
                    };
                    let read = late.and_then(|line| {
                        call.read_answer(&line, self.request_id).map_err(Broken::OutOfStep)
                    });
                    let (pool, worker) = (&self.options.name, self.index);
                    return match read {
                        Ok(_) => {
                            tracing::warn!(pool, worker, detail, "a worker answered late: thrown away, it stays");
                            Ok(())
                        }
                        Err(broken) => Err((broken, None)),
                    };
                }
            },
            () = &mut grace_over => return Err((Broken::ShuttingDown, Some(job))),
        };
        let read =
            line.and_then(|line| job.call.read_answer(&line, self.request_id).map_err(Broken::OutOfStep));
        match read {
            Ok(answer) => {
                job.answer_caller(Ok(answer));
                Ok(())
            }
            Err(broken) => Err((broken, Some(job))),
        }
    }

    /// Ends a broken process and answers the call that was in flight.
    async fn end_broken(&mut self, mut process: WorkerProcess, broken: Broken, job: Option<Job<C>>) {
        use WorkerFailureKind::{Died, Garbage, Shutdown, Timeout, TooLarge};
        let subject = self.options.subject;
        let (kind, detail) = match broken {
            Broken::Closed => (Died, format!("{subject} {}", process.wait_for_exit().await)),
            Broken::Pipe(error) => (Died, format!("{subject}'s pipe failed ({error})")),
            Broken::TooLong => {
                let max = self.options.output_bytes_max;
                (TooLarge, format!("{subject} wrote a line of more than {max} bytes"))
            }
            Broken::Unasked => (Garbage, format!("{subject} wrote a line unasked")),
            Broken::OutOfStep(what) => (Garbage, format!("{subject} wrote {what}")),
            Broken::Deadline(time) => (Timeout, no_answer_detail(&self.options, time)),
            Broken::ShuttingDown => (Shutdown, format!("{subject} gave no answer before the shutdown")),
        };
        process.kill_and_reap().await;
        let pool = &self.options.name;
        tracing::warn!(pool, worker = self.index, during_call = job.is_some(), detail, "worker is ended");
        if let Some(job) = job {
            job.fail(kind, &detail);
        }
    }

    /// Starts the process until it is up, or until the pool closes (`None`); the first try after `pause`. Meanwhile
    /// calls wait, each up to its bound.
    async fn start_process(&mut self, mut pause: Duration) -> Option<WorkerProcess> {
        let down_since = Instant::now();
        let (index, options) = (self.index, Arc::clone(&self.options));
        loop {
            let start = async {
                sleep(pause).await;
                WorkerProcess::start(&options, index).await
            };
            match self.while_down(down_since, start).await? {
                Ok((mut process, identity)) => {
                    let first = self.identity.get_or_init(|| identity.clone());
                    if *first == identity {
                        tracing::info!(pool = options.name, worker = index, "worker is up");
                        return Some(process);
                    }
                    let (first, other) = (Box::new(first.clone()), Box::new(identity));
                    process.kill_and_reap().await;
                    let command = options.command_line();
                    self.report_failed_start(&WorkerStartError::Identity { command, first, other });
                }
                Err(error) => self.report_failed_start(&error),
            }
            pause = self.backoff.next_pause();
        }
    }

    fn report_failed_start(&self, error: &WorkerStartError) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        let (pool, next_try_in) = (&self.options.name, self.backoff.next);
        tracing::warn!(pool, worker = self.index, %error, cause, ?next_try_in, "worker does not start");
    }

    /// Runs `work` while calls wait for the process. `None` when the pool closes.
    async fn while_down<T>(&mut self, down_since: Instant, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            let bound = self.waiting.as_ref().map(|job| self.waits_until(job, down_since));
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                done = &mut work => return Some(done),
                job = self.calls.recv(), if bound.is_none() => self.waiting = Some(job?),
                () = sleep_until(bound.unwrap_or(down_since)), if bound.is_some() => {
                    if let Some(job) = self.waiting.take() {
                        let (subject, wait_max) = (self.options.subject, self.options.restart_wait_max);
                        let (kind, time) = match job.time {
                            CallTime::InAll(time) if job.is_overdue() => (WorkerFailureKind::Timeout, time),
                            CallTime::InAll(_) | CallTime::OfTurn(_) => (WorkerFailureKind::Unavailable, wait_max),
                        };
                        job.fail(kind, &format!("{subject} was being restarted for more than {time:?}"));
                    }
                }
            }
        }
    }

    /// How long a call waits for a process that is down.
    fn waits_until(&self, job: &Job<C>, down_since: Instant) -> Instant {
        let bound = job.asked_at.max(down_since) + self.options.restart_wait_max;
        job.ends_at().map_or(bound, |end| end.min(bound))
    }
}

/// How much longer than its call's time a worker may take for an answer that nobody takes any more, at most; and never
/// more than as long again.
const LATE_ANSWER_MAX: Duration = Duration::from_secs(1);

fn no_answer_detail(options: &WorkerPoolOptions, time: Duration) -> String {
    format!("{} gave no answer within {time:?}", options.subject)
}

/// Detail of calls that come while the pool ends.
pub(super) fn closing_detail(options: &WorkerPoolOptions) -> String {
    format!("the workers of {} are shutting down", options.name)
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
