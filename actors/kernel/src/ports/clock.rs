//! The port of the process's one wall clock.

use async_trait::async_trait;

use crate::ids::TsMs;

/// Time between two receipts that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeGap {
    /// The time of the last receipt that arrived.
    pub from: TsMs,
    /// The time of the one that drives the clock now.
    pub to: TsMs,
}

/// Source of the time of `ingest_ts_ms` and of the schedule.
///
/// Delays, deadlines and leases never use it: those are monotonic durations of the runtime, so a jump of the wall
/// clock cannot stretch or shorten them.
///
/// A *driven* clock (a recording's) stands still between receipts: [`advance`](Clock::advance) moves it, and waits at
/// every armed deadline until the work due there is done. That is what makes two runs of one recording equal.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time now. For a driven clock that no receipt has started yet: nothing.
    fn now(&self) -> Option<TsMs>;

    /// Waits for the clock to start and returns its time. Immediate for a wall clock.
    async fn wait_started(&self) -> TsMs;

    /// Waits until the time is at least `deadline`; for a driven clock: until a receipt *after* `deadline` comes.
    async fn sleep_until(&self, deadline: TsMs);

    /// The deadline up to which receipts belong together: a driven clock's armed deadline, `None` for a wall clock.
    fn armed_deadline(&self) -> Option<TsMs>;

    /// The next tick that the scheduler of the engine plane waits for; on a clock that others wait on too it may come
    /// after [`armed_deadline`](Self::armed_deadline).
    fn next_tick(&self) -> Option<TsMs> {
        self.armed_deadline()
    }

    /// The gap that a driven clock is crossing.
    fn crossing_gap(&self) -> Option<TimeGap> {
        None
    }

    /// Whether receipts drive this clock.
    fn is_driven(&self) -> bool;

    /// Tells a driven clock that a receipt of time `at` is next; returns once all deadlines before `at` are worked off.
    /// Does nothing on a wall clock.
    async fn advance(&self, at: TsMs);
}
