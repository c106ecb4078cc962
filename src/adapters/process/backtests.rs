//! Backtests in processes of their own, one at a time: `orchestrator backtest --trading` into a directory of the job's.
//!
//! ```text
//! begin_job ─▶ queue, bounded ─▶ one task ─▶ child, killed with us or after its time ─▶ DIR/<job>/out, job.json
//! ```
//!
//! A process, so that what a backtest needs and breaks is its own: memory, threads, workers, a panic. It has the
//! service's configuration, and one worker thread: journals are equal whatever their number.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator_kernel::error::bounded_detail;
use orchestrator_kernel::ports::backtests::{BacktestRefused, BacktestRunner};
use orchestrator_kernel::trading::backtest::{BacktestJob, BacktestJobState, BacktestRequest};
use orchestrator_kernel::trading::ids::CommandId;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::guard;

/// Name of the file that a job is kept in.
const JOB: &str = "job.json";
/// What a backtest of a service may have of the machine.
const THREADS: &str = "service.worker_threads=1";

/// Options of the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessBacktestsOptions {
    /// The program.
    pub program: PathBuf,
    /// Binds a child to our life; nothing in tests.
    pub guard: Option<PathBuf>,
    /// Arguments that give a child our configuration.
    pub config_args: Vec<String>,
    /// Where recordings are.
    pub captures: PathBuf,
    /// Where jobs are kept.
    pub jobs: PathBuf,
    /// Jobs that may wait.
    pub queue_max: usize,
    /// Jobs that are kept, the newest ones, with their results.
    pub kept_max: usize,
    /// Longest time of one.
    pub time_max: Duration,
}

/// Jobs, oldest first.
type Jobs = Arc<Mutex<VecDeque<BacktestJob>>>;

/// The runner. Dropping it ends the job that runs.
#[derive(Debug)]
pub struct ProcessBacktests {
    options: Arc<ProcessBacktestsOptions>,
    jobs: Jobs,
    queue: mpsc::Sender<BacktestJob>,
    _task: AbortOnDropHandle<()>,
}

impl ProcessBacktests {
    /// Knows the jobs that are kept, and waits for more. Those that a stop interrupted have failed.
    #[must_use]
    pub fn start(options: ProcessBacktestsOptions) -> Self {
        let options = Arc::new(options);
        let jobs: Jobs = Arc::new(Mutex::new(read_kept_jobs(&options.jobs)));
        let (queue, waiting) = mpsc::channel(options.queue_max.max(1));
        let task = tokio::spawn(run_jobs(Arc::clone(&options), Arc::clone(&jobs), waiting));
        Self { options, jobs, queue, _task: AbortOnDropHandle::new(task) }
    }
}

impl BacktestRunner for ProcessBacktests {
    fn check_request(&self, request: &BacktestRequest) -> Result<(), BacktestRefused> {
        if !self.options.captures.join(&request.capture).exists() {
            return Err(BacktestRefused::NoCapture(request.capture.clone()));
        }
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        if self.queue.capacity() == 0 { Err(BacktestRefused::QueueFull { waiting }) } else { Ok(()) }
    }

    fn begin_job(&self, id: CommandId, request: BacktestRequest) {
        let job = BacktestJob::queued(id, request);
        let mut jobs = lock_jobs(&self.jobs);
        if jobs.iter().any(|known| known.id == id) {
            return;
        }
        jobs.push_back(job.clone());
        if self.queue.try_send(job).is_err()
            && let Some(last) = jobs.back_mut()
        {
            // Whoever asks has looked before; it is said all the same.
            (last.state, last.detail) = (BacktestJobState::Failed, "no more could wait".to_owned());
        }
    }

    fn find_job(&self, id: CommandId) -> Option<BacktestJob> {
        lock_jobs(&self.jobs).iter().find(|job| job.id == id).cloned()
    }

    fn list_jobs(&self) -> Vec<BacktestJob> {
        lock_jobs(&self.jobs).iter().rev().cloned().collect()
    }
}

fn lock_jobs(jobs: &Jobs) -> MutexGuard<'_, VecDeque<BacktestJob>> {
    // Every change is a single step on valid data.
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The jobs of earlier processes, oldest first. What is no job is left alone.
fn read_kept_jobs(dir: &Path) -> VecDeque<BacktestJob> {
    let Ok(entries) = fs::read_dir(dir) else { return VecDeque::new() };
    let kept = entries.filter_map(|entry| {
        let path = entry.ok()?.path().join(JOB);
        let changed = path.metadata().ok()?.modified().ok()?;
        let mut job: BacktestJob = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        if !job.is_over() {
            job.state = BacktestJobState::Failed;
            job.detail = "the service was stopped; ask for it again".to_owned();
        }
        Some((changed, job))
    });
    let mut kept: Vec<_> = kept.collect();
    kept.sort_by_key(|(changed, job)| (*changed, job.id));
    kept.into_iter().map(|(_, job)| job).collect()
}

async fn run_jobs(
    options: Arc<ProcessBacktestsOptions>,
    jobs: Jobs,
    mut waiting: mpsc::Receiver<BacktestJob>,
) {
    while let Some(mut job) = waiting.recv().await {
        job.state = BacktestJobState::Running;
        keep_job(&options, &jobs, &job);
        tracing::info!(job = %job.id, capture = job.request.capture, "a backtest begins");
        match run_job(&options, &job).await {
            Ok(status) => {
                job.exit = status.code();
                let is_done = status.success();
                job.state = if is_done { BacktestJobState::Completed } else { BacktestJobState::Failed };
                let dir = job_dir(&options, &job);
                job.detail = last_line(&dir.join("said.txt"));
                job.cycles = read_cycles(&dir.join("out/report.json"));
            }
            Err(error) => {
                (job.state, job.detail) = (BacktestJobState::Failed, bounded_detail(&error.to_string()));
            }
        }
        tracing::info!(job = %job.id, state = %job.state, exit = job.exit, detail = job.detail, "a backtest ended");
        keep_job(&options, &jobs, &job);
        forget_oldest(&options, &jobs);
    }
}

fn job_dir(options: &ProcessBacktestsOptions, job: &BacktestJob) -> PathBuf {
    options.jobs.join(job.id.to_string())
}

/// Shows a job as it is now, and writes it down. Where that fails, only the next process does not know it.
fn keep_job(options: &ProcessBacktestsOptions, jobs: &Jobs, job: &BacktestJob) {
    if let Some(known) = lock_jobs(jobs).iter_mut().find(|known| known.id == job.id) {
        known.clone_from(job);
    }
    let dir = job_dir(options, job);
    let written = serde_json::to_vec_pretty(job).map_err(io::Error::other).and_then(|text| {
        fs::create_dir_all(&dir)?;
        let made = dir.join("job.json.new");
        fs::write(&made, text)?;
        fs::rename(made, dir.join(JOB))
    });
    if let Err(error) = written {
        tracing::warn!(job = %job.id, %error, "a backtest's state is not kept");
    }
}

/// Runs a job to its end, or to the end of its time.
async fn run_job(options: &ProcessBacktestsOptions, job: &BacktestJob) -> io::Result<ExitStatus> {
    let dir = job_dir(options, job);
    let said = File::create(dir.join("said.txt"))?;
    let mut command = match &options.guard {
        None => Command::new(&options.program),
        Some(guard) => {
            let mut command = Command::new(guard);
            command.args([guard::COMMAND, &std::process::id().to_string(), "--"]).arg(&options.program);
            command
        }
    };
    command.args(["backtest", "--trading", "--report", "json", "--time", job.request.time.as_str()]);
    command.arg("--capture").arg(options.captures.join(&job.request.capture));
    command.arg("--out").arg(dir.join("out"));
    command.args(&options.config_args);
    for (path, value) in &job.request.set {
        command.args(["--set", &format!("{path}={}", value.0)]);
    }
    command.args(["--set", THREADS]);
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said).kill_on_drop(true);
    let mut child = guard::spawn_on_lasting_thread(command)?;
    match timeout(options.time_max, child.wait()).await {
        Ok(ended) => ended,
        Err(_) => {
            child.kill().await?;
            Err(io::Error::other(format!("it was ended after {} s", options.time_max.as_secs())))
        }
    }
}

/// The last line that a child said.
fn last_line(path: &Path) -> String {
    let said = fs::read(path).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    bounded_detail(said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default())
}

fn read_cycles(path: &Path) -> Option<Value> {
    let report: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    report.get("trading").cloned()
}

/// Lets the oldest jobs that are over go, with their results.
fn forget_oldest(options: &ProcessBacktestsOptions, jobs: &Jobs) {
    loop {
        let oldest = {
            let mut jobs = lock_jobs(jobs);
            let is_much = options.kept_max.max(1) < jobs.len();
            jobs.front().is_some_and(|oldest| is_much && oldest.is_over()).then(|| jobs.pop_front())
        };
        let Some(Some(oldest)) = oldest else { return };
        if let Err(error) = fs::remove_dir_all(job_dir(options, &oldest)) {
            tracing::warn!(job = %oldest.id, %error, "the result of an old backtest is not removed");
        }
    }
}

#[cfg(test)]
mod tests;
