//! The pool: which worker gets a call.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::future::join_all;
use orchestrator_kernel::ports::engine::EngineIdentity;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::child::WorkerProcess;
use super::options::{WorkerPoolOptions, WorkerStartError};
use super::worker::{CallTime, Job, Worker, WorkerCall, WorkerFailure, WorkerFailureKind, closing_detail};

/// Calls that are queued at one worker; further callers wait for room, first come, first served.
const QUEUED_CALLS_MAX: usize = 64;

/// A pool of worker processes that answer calls of one protocol.
///
/// A call may be dropped at any time. One that was already written keeps its worker busy until it answers or its
/// time is over. Dropping the pool ends the workers in the background;
/// [`shut_down_workers`](Self::shut_down_workers) waits for it.
pub(super) struct WorkerPool<C: WorkerCall> {
    identity: Arc<OnceLock<EngineIdentity>>,
    options: Arc<WorkerPoolOptions>,
    workers: Vec<Seat<C>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// The way to one worker, and how many calls are on it.
struct Seat<C: WorkerCall> {
    calls: mpsc::Sender<Job<C>>,
    load: AtomicUsize,
}

/// One call on a worker; leaves when it is answered or abandoned.
struct Seated<'a, C: WorkerCall>(&'a Seat<C>);

impl<'a, C: WorkerCall> Seated<'a, C> {
    fn take_seat(seat: &'a Seat<C>) -> Self {
        seat.load.fetch_add(1, Ordering::Relaxed);
        Self(seat)
    }
}

impl<C: WorkerCall> Drop for Seated<'_, C> {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C: WorkerCall> WorkerPool<C> {
    /// Starts all workers at once and waits for their hello lines.
    ///
    /// # Errors
    ///
    /// [`WorkerStartError`], which says what to do about it. No process is left behind.
    pub(super) async fn start(options: WorkerPoolOptions) -> Result<Self, WorkerStartError> {
        options.check_ranges()?;
        let started = start_all(&options).await?;
        // All are equal; without any, no call would find its worker.
        let identity = started.first().map(|(_, identity)| identity.clone()).unwrap_or_default();
        let processes = started.into_iter().map(|(process, _)| Some(process)).collect();
        Ok(Self::spawn_workers(options, Arc::new(OnceLock::from(identity)), processes))
    }

    /// Begins to start all workers, and does not wait for them: what does not start is tried again.
    ///
    /// # Errors
    ///
    /// [`WorkerStartError::Options`].
    pub(super) fn start_behind(options: WorkerPoolOptions) -> Result<Self, WorkerStartError> {
        options.check_ranges()?;
        let processes = (0..options.workers).map(|_| None).collect();
        Ok(Self::spawn_workers(options, Arc::default(), processes))
    }

    fn spawn_workers(
        options: WorkerPoolOptions,
        identity: Arc<OnceLock<EngineIdentity>>,
        processes: Vec<Option<WorkerProcess>>,
    ) -> Self {
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let options = Arc::new(options);
        let workers = processes.into_iter().enumerate().map(|(index, process)| {
            let (calls, queue) = mpsc::channel(QUEUED_CALLS_MAX);
            let (options, identity) = (Arc::clone(&options), Arc::clone(&identity));
            let worker = Worker::new(index, options, identity, queue, closing.clone());
            tasks.spawn(worker.run_until_closed(process));
            Seat { calls, load: AtomicUsize::new(0) }
        });
        let workers = workers.collect();
        tasks.close();
        Self { identity, options, workers, closing, tasks }
    }

    /// Ends the workers: calls in flight may finish within the grace, all others fail; then stdin is closed, and
    /// what has not left within the grace is killed. Returns when no process is left. May be called again.
    pub(super) async fn shut_down_workers(&self) {
        self.closing.cancel();
        self.tasks.wait().await;
    }

    /// What the workers say that they are; nothing before the first one is up.
    pub(super) fn identity(&self) -> EngineIdentity {
        self.identity.get().cloned().unwrap_or_default()
    }

    /// Has a worker answer a call: the key's own one while it is free.
    pub(super) async fn call(&self, key: &str, call: C, time: CallTime) -> Result<C::Answer, WorkerFailure> {
        let closed = || WorkerFailure::new(WorkerFailureKind::Shutdown, &closing_detail(&self.options));
        let seated = self.seat_for(key).ok_or_else(closed)?;
        let (reply, answer) = oneshot::channel();
        let job = Job { call, asked_at: Instant::now(), time, reply };
        seated.0.calls.send(job).await.map_err(|_| closed())?;
        // The task answers every call that it took; without an answer it was dropped together with its runtime.
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// The key's own worker while it is free, whose caches know it; otherwise the one with the least to do. Any worker
    /// can answer, because all that is needed comes with the call: so a hanging call holds up no other (ISO-1) while a
    /// worker is left.
    fn seat_for(&self, key: &str) -> Option<Seated<'_, C>> {
        let load = |seat: &Seat<C>| seat.load.load(Ordering::Relaxed);
        let count = u64::try_from(self.workers.len()).ok()?;
        let index = hash_fnv1a(key.as_bytes()).checked_rem(count)?;
        let own = self.workers.get(usize::try_from(index).ok()?)?;
        let least = self.workers.iter().min_by_key(|seat| load(seat))?;
        Some(Seated::take_seat(if load(own) <= load(least) { own } else { least }))
    }
}

impl<C: WorkerCall> Drop for WorkerPool<C> {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Starts all workers; when one does not start, ends the others before it reports why.
async fn start_all(
    options: &WorkerPoolOptions,
) -> Result<Vec<(WorkerProcess, EngineIdentity)>, WorkerStartError> {
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
    options: &WorkerPoolOptions,
    started: &[(WorkerProcess, EngineIdentity)],
) -> Option<WorkerStartError> {
    let (_, first) = started.first()?;
    let (_, other) = started.iter().find(|(_, identity)| identity != first)?;
    Some(WorkerStartError::Identity {
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
