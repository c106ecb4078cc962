//! Notices a wall clock that is behind the logs: no run happens until it has caught up, and that must not look ready.
//!
//! Ticks and stamps never go back (LOG-5). So after a clock that was ahead has been corrected, the next tick lies in
//! the future, and receipts get the last stamp until then: nothing is wrong with them, but they belong to a later cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::to_rfc3339;

use crate::status::{Condition, StatusBoard};

/// How far behind counts. Less is what a clock that is being disciplined does, and the next tick is not missed by it.
const BEHIND_MAX_MS: i64 = 2_000;

/// A receipt behind a seal is stamped a millisecond after it, and so may be that much ahead of a clock that is right.
const AHEAD_MAX_MS: i64 = 1;

/// How often the scheduler looks. With it, a clock that is behind is shown within a second.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The latest time that stands in the logs, or has been planned for. It outlives the actors that note it.
#[derive(Clone)]
pub struct ClockWatch {
    latest: Arc<AtomicI64>,
    board: StatusBoard,
}

impl ClockWatch {
    /// Nothing is known of the logs yet.
    #[must_use]
    pub fn new(board: StatusBoard) -> Self {
        Self { latest: Arc::new(AtomicI64::new(i64::MIN)), board }
    }

    /// This time was stamped or sealed, or ticks up to it were planned.
    pub fn note_time(&self, time: Option<TsMs>) {
        if let Some(time) = time {
            self.latest.fetch_max(time.0, Ordering::Relaxed);
        }
    }

    /// Says whether the clock, which shows `now`, is behind.
    pub fn check_clock(&self, now: TsMs) {
        let latest = TsMs(self.latest.load(Ordering::Relaxed));
        let behind_ms = latest.0.saturating_sub(now.0);
        if behind_ms <= AHEAD_MAX_MS {
            if self.board.clear_condition(&Condition::ClockBehind) {
                tracing::info!("the clock has caught up with the logs, runs go on");
            }
        } else if BEHIND_MAX_MS < behind_ms {
            let (seconds, until) = (behind_ms / 1000, to_rfc3339(latest));
            let detail = format!("the clock is {seconds} s behind the logs: no runs before it shows {until}");
            if self.board.raise_condition(Condition::ClockBehind, detail.clone()) {
                tracing::error!(
                    error_kind = Condition::ClockBehind.runbook_word(),
                    error_detail = detail,
                    "the clock is behind"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_is_said_beyond_the_bound_and_until_it_has_caught_up() {
        let board = StatusBoard::default();
        let watch = ClockWatch::new(board.clone());
        let behind_at = |now| {
            watch.check_clock(TsMs(now));
            board.current_status().conditions.get(&Condition::ClockBehind).cloned()
        };
        assert_eq!(behind_at(i64::MIN), None, "nothing is in the logs");

        watch.note_time(Some(TsMs(10_000)));
        watch.note_time(Some(TsMs(9_000)));
        watch.note_time(None);
        assert_eq!(behind_at(8_000), None, "the bound itself is allowed");
        let said = behind_at(7_000).unwrap();
        assert!(said.contains("3 s behind") && said.contains("1970-01-01T00:00:10"), "{said}");
        assert!(behind_at(9_998).is_some());
        assert_eq!(behind_at(9_999), None, "a stamp behind a seal");
    }
}
