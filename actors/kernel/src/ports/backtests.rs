//! The port of backtests that are asked for while a service runs.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::trading::backtest::{BacktestJob, BacktestRequest};
use crate::trading::ids::CommandId;

/// Reason for which a backtest is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BacktestRefused {
    /// Nothing says where recordings are.
    #[error("no backtests are run here: trading.backtests.captures names no directory of recordings")]
    Off,
    /// There is no such recording.
    #[error("capture: there is no {0} in trading.backtests.captures")]
    NoCapture(String),
    /// As many wait as may.
    #[error("{waiting} backtests wait, and no more may: come again when one has ended")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
}

/// Runner of backtests, one at a time. It may not hold up whoever asks.
pub trait BacktestRunner: Send + Sync {
    /// Whether this request could be taken now. One asks and begins, so that what is allowed here is taken.
    ///
    /// # Errors
    ///
    /// [`BacktestRefused`].
    fn check_request(&self, request: &BacktestRequest) -> Result<(), BacktestRefused>;

    /// Takes a job, which is on record by now. One that is known already is not taken again.
    fn begin_job(&self, id: CommandId, request: BacktestRequest);

    /// A job, while it is kept.
    fn find_job(&self, id: CommandId) -> Option<BacktestJob>;

    /// The jobs that are kept, newest first.
    fn list_jobs(&self) -> Vec<BacktestJob>;
}

/// Runner where no recordings are.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBacktests;

impl BacktestRunner for NoBacktests {
    fn check_request(&self, _: &BacktestRequest) -> Result<(), BacktestRefused> {
        Err(BacktestRefused::Off)
    }

    fn begin_job(&self, _: CommandId, _: BacktestRequest) {}

    fn find_job(&self, _: CommandId) -> Option<BacktestJob> {
        None
    }

    fn list_jobs(&self) -> Vec<BacktestJob> {
        Vec::new()
    }
}

/// The reference: jobs in memory, which wait for ever.
#[derive(Debug, Default)]
pub struct MemoryBacktests {
    /// Recordings that there are.
    pub captures: BTreeSet<String>,
    /// Jobs that may wait.
    pub queue_max: usize,
    jobs: Mutex<Vec<BacktestJob>>,
}

impl MemoryBacktests {
    /// A runner of these recordings.
    #[must_use]
    pub fn of_captures(captures: &[&str], queue_max: usize) -> Self {
        let captures = captures.iter().map(|name| (*name).to_owned()).collect();
        Self { captures, queue_max, jobs: Mutex::default() }
    }
}

impl BacktestRunner for MemoryBacktests {
    fn check_request(&self, request: &BacktestRequest) -> Result<(), BacktestRefused> {
        let waiting = self.list_jobs().len();
        if !self.captures.contains(&request.capture) {
            Err(BacktestRefused::NoCapture(request.capture.clone()))
        } else if self.queue_max <= waiting {
            Err(BacktestRefused::QueueFull { waiting })
        } else {
            Ok(())
        }
    }

    fn begin_job(&self, id: CommandId, request: BacktestRequest) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.iter().all(|job| job.id != id) {
            jobs.insert(0, BacktestJob::queued(id, request));
        }
    }

    fn find_job(&self, id: CommandId) -> Option<BacktestJob> {
        self.list_jobs().into_iter().find(|job| job.id == id)
    }

    fn list_jobs(&self) -> Vec<BacktestJob> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
