//! The pool: which worker gets a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::future::join_all;
use orchestrator_kernel::engine::engine_protocol::RequestBody;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::child::WorkerProcess;
use super::options::{EngineStartError, ProcessEngineOptions};
use super::worker::{Job, Worker};

/// Calls that are queued at one worker; further callers wait for room, first come, first served.
const QUEUED_CALLS_MAX: usize = 64;

/// A pool of worker processes.
///
/// A call may be dropped at any time. One that was already written keeps its worker busy until it answers or its
/// deadline passes. Dropping the pool ends the workers in the background;
/// [`shut_down_workers`](Self::shut_down_workers) waits for it.
pub struct ProcessEngine {
    identity: EngineIdentity,
    hysteresis_config: String,
    workers: Vec<Seat>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// The way to one worker, and how many calls are on it.
struct Seat {
    calls: mpsc::Sender<Job>,
    load: AtomicUsize,
}

/// One call on a worker; leaves when it is answered or abandoned.
struct Seated<'a>(&'a Seat);

impl<'a> Seated<'a> {
    fn take_seat(seat: &'a Seat) -> Self {
        seat.load.fetch_add(1, Ordering::Relaxed);
        Self(seat)
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ProcessEngine {
    /// Starts all workers at once and waits for their hello lines.
    ///
    /// # Errors
    ///
    /// [`EngineStartError`], which says what to do about it. No process is left behind.
    pub async fn start(options: ProcessEngineOptions) -> Result<Self, EngineStartError> {
        let hysteresis_config = options.validated_config()?;
        let options = Arc::new(options);
        let started = start_all(&options).await?;
        // All are equal; without any, no call would find its worker.
        let identity = started.first().map(|(_, identity)| identity.clone()).unwrap_or_default();
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let workers = started.into_iter().enumerate().map(|(index, (process, _))| {
            let (calls, queue) = mpsc::channel(QUEUED_CALLS_MAX);
            let worker = Worker::new(index, Arc::clone(&options), identity.clone(), queue, closing.clone());
            tasks.spawn(worker.run_until_closed(process));
            Seat { calls, load: AtomicUsize::new(0) }
        });
        let workers = workers.collect();
        tasks.close();
        Ok(Self { identity, hysteresis_config, workers, closing, tasks })
    }

    /// Ends the workers: calls in flight may finish within the grace, all others are answered `shutdown`; then stdin is
    /// closed, and what has not left within the grace is killed. Returns when no process is left. May be called again.
    pub async fn shut_down_workers(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
    }

    /// The symbol's own worker while it is free, whose caches know the symbol; otherwise the one with the least to do.
    /// Any worker can answer, because the state comes with the call: so a hanging symbol holds up no other (ISO-1)
    /// while a worker is left.
    fn seat_for(&self, symbol: &Symbol) -> Option<Seated<'_>> {
        let load = |seat: &Seat| seat.load.load(Ordering::Relaxed);
        let count = u64::try_from(self.workers.len()).ok()?;
        let index = hash_fnv1a(symbol.as_str().as_bytes()).checked_rem(count)?;
        let own = self.workers.get(usize::try_from(index).ok()?)?;
        let least = self.workers.iter().min_by_key(|seat| load(seat))?;
        Some(Seated::take_seat(if load(own) <= load(least) { own } else { least }))
    }
}

impl Drop for ProcessEngine {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

#[async_trait]
impl Engine for ProcessEngine {
    /// Known from the start: the hello lines say it.
    fn identity(&self) -> EngineIdentity {
        self.identity.clone()
    }

    async fn call(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
        let closed = || EngineError::no_answer(ErrorKind::Shutdown, "the engine workers are shutting down");
        let seated = self.seat_for(&call.symbol).ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let body = RequestBody::new(call, &self.hysteresis_config);
        let job = Job { body, mode: call.mode, asked_at: Instant::now(), reply };
        seated.0.calls.send(job).await.map_err(|_| closed())?;
        // The task answers every call that it took; without an answer it was dropped together with its runtime.
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}

/// Starts all workers; when one does not start, ends the others before it reports why.
async fn start_all(
    options: &ProcessEngineOptions,
) -> Result<Vec<(WorkerProcess, EngineIdentity)>, EngineStartError> {
    let starts = (0..options.workers).map(|index| WorkerProcess::start(options, index));
    let mut started = Vec::with_capacity(options.workers);
    let mut failure = None;
    for result in join_all(starts).await {
        match result {
            Ok(up) => started.push(up),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let failure = failure.or_else(|| other_identity(options, &started));
    match failure {
        None => Ok(started),
        Some(error) => {
            for (process, _) in &mut started {
                process.kill_and_reap().await;
            }
            Err(error)
        }
    }
}

fn other_identity(
    options: &ProcessEngineOptions,
    started: &[(WorkerProcess, EngineIdentity)],
) -> Option<EngineStartError> {
    let (_, first) = started.first()?;
    let (_, other) = started.iter().find(|(_, identity)| identity != first)?;
    Some(EngineStartError::Identity {
        command: options.command_line(),
        first: Box::new(first.clone()),
        other: Box::new(other.clone()),
    })
}

/// 64-bit FNV-1a: stable across builds and machines, unlike the standard library's hasher.
fn hash_fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
