//! How many outputs wait, for how long, and whether that pauses the schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Limits of what may wait for publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Outputs that may wait; beyond it scheduling pauses.
    pub backlog_max: u64,
    /// Scheduling goes on when no more than this wait. Less than `backlog_max`.
    pub backlog_resume: u64,
    /// How long the first waiting output may make no progress; beyond it scheduling pauses.
    pub blocked_max: Duration,
}

#[derive(Debug)]
struct Shared {
    limits: FlowLimits,
    made: AtomicU64,
    published: AtomicU64,
    since: Instant,
    /// Milliseconds after `since` of the last progress, or of the moment when work came after idleness.
    progress_ms: AtomicU64,
    paused: AtomicBool,
}

/// The counts that connect the run log (which makes outputs), the publisher and the scheduler.
#[derive(Clone, Debug)]
pub struct OutputFlow(Arc<Shared>);

impl OutputFlow {
    /// Nothing made, nothing published.
    #[must_use]
    pub fn new(limits: FlowLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            made: AtomicU64::new(0),
            published: AtomicU64::new(0),
            since: Instant::now(),
            progress_ms: AtomicU64::new(0),
            paused: AtomicBool::new(false),
        }))
    }

    fn note_progress(&self) {
        let elapsed = u64::try_from(self.0.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.progress_ms.store(elapsed, Ordering::Relaxed);
    }

    /// The run log holds this many outputs in all.
    pub(crate) fn set_made(&self, outputs: u64) {
        if self.waiting_outputs() == 0 {
            self.note_progress();
        }
        self.0.made.store(outputs, Ordering::Relaxed);
    }

    /// This many outputs are confirmed in all.
    pub(crate) fn set_published(&self, outputs: u64) {
        if self.0.published.swap(outputs, Ordering::Relaxed) != outputs {
            self.note_progress();
        }
    }

    /// Outputs that wait.
    #[must_use]
    pub fn waiting_outputs(&self) -> u64 {
        self.0.made.load(Ordering::Relaxed).saturating_sub(self.0.published.load(Ordering::Relaxed))
    }

    /// Since when nothing was confirmed although something waits.
    #[must_use]
    pub fn blocked_for(&self) -> Duration {
        if self.waiting_outputs() == 0 {
            return Duration::ZERO;
        }
        let progress = Duration::from_millis(self.0.progress_ms.load(Ordering::Relaxed));
        self.0.since.elapsed().saturating_sub(progress)
    }

    /// Whether scheduling has to pause. Once paused, only a small backlog ends it, so that it does not flutter.
    pub fn is_paused(&self) -> bool {
        let limits = &self.0.limits;
        let backlog = self.waiting_outputs();
        let too_much = if self.0.paused.load(Ordering::Relaxed) {
            limits.backlog_resume < backlog
        } else {
            limits.backlog_max < backlog
        };
        let paused = too_much || limits.blocked_max < self.blocked_for();
        self.0.paused.store(paused, Ordering::Relaxed);
        paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_large_or_old_backlog_pauses_and_a_small_moving_one_resumes() {
        let blocked_max = Duration::from_secs(30);
        let flow = OutputFlow::new(FlowLimits { backlog_max: 10, backlog_resume: 5, blocked_max });
        assert!(!flow.is_paused());

        flow.set_made(11);
        assert!(flow.is_paused());
        flow.set_published(5);
        assert!(flow.is_paused(), "6 waiting is still above the resume mark");
        flow.set_published(6);
        assert!(!flow.is_paused());

        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(flow.is_paused(), "nothing moved for 31 s");
        flow.set_published(11);
        assert!(!flow.is_paused());

        tokio::time::advance(Duration::from_secs(60)).await;
        flow.set_made(12);
        assert!(!flow.is_paused(), "idleness is no blockage");
    }
}
