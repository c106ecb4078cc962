//! The clocks: the wall, and a recording.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::clock::{Clock, TimeGap};
use tokio::sync::Notify;

/// Longest sleep before the wall clock is read again: so late is a jump of the clock noticed.
const SLICE_MAX: Duration = Duration::from_millis(250);

/// The wall clock of the machine, in milliseconds since the Unix epoch.
///
/// It may jump either way. A sleep follows a jump within a quarter of a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock;

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Option<TsMs> {
        Some(read_wall())
    }

    async fn wait_started(&self) -> TsMs {
        read_wall()
    }

    async fn sleep_until(&self, deadline: TsMs) {
        sleep_in_slices(deadline, read_wall).await;
    }

    fn armed_deadline(&self) -> Option<TsMs> {
        None
    }

    fn is_driven(&self) -> bool {
        false
    }

    async fn advance(&self, _: TsMs) {}
}

fn read_wall() -> TsMs {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => TsMs(ms(since)),
        Err(before) => TsMs(-ms(before.duration())),
    }
}

async fn sleep_in_slices(deadline: TsMs, read: impl Fn() -> TsMs) {
    loop {
        let left = deadline.0.saturating_sub(read().0);
        match u64::try_from(left) {
            Ok(left_ms) if left_ms > 0 => {
                tokio::time::sleep(Duration::from_millis(left_ms).min(SLICE_MAX)).await;
            }
            Ok(_) | Err(_) => return,
        }
    }
}

/// The clock of a recording: it stands still between receipts and runs in lockstep with the scheduler.
///
/// ```text
/// ingest     advance(t) ───────────────┬───────────────────────────────▶ returns: now = t, append the receipt
///                                      │ P1 < t ≤ P2, so P1 fires first
/// scheduler  sleep_until(P1) ──────────┴▶ work at now = P1 ─▶ sleep_until(P2)
/// ```
///
/// `advance` waits until a deadline is armed, because the scheduler arms its next one only when all work of the last
/// one is done. Thus no receipt after a deadline is appended before the deadline's work is done, whatever the speed of
/// disk and engine: that makes two runs of one recording equal. Receipts *at* a deadline belong before it.
///
/// Several sleepers fire in the order of their deadlines; the lockstep is kept with the last one that armed.
#[derive(Debug, Default)]
pub struct RecordedClock {
    state: Mutex<State>,
    /// The clock started, a deadline was armed or fired, or the clock was released.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing before the first receipt. Never decreases.
    now: Option<TsMs>,
    /// Time of the last receipt that arrived.
    reached: Option<TsMs>,
    /// Time of the receipt that drives the clock, or drove it last.
    heading: Option<TsMs>,
    /// Deadlines with the number of their sleeper, which tells equal ones apart.
    armed: BTreeSet<(TsMs, u64)>,
    sleepers: u64,
    released: bool,
}

/// Outcome of one step of `advance`.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The time is there.
    Arrived,
    /// The clock started or a deadline fired: wake the others and go on.
    Moved,
    /// No deadline is armed: the work of the last one is not done.
    Blocked,
}

impl State {
    fn step_towards(&mut self, at: TsMs) -> Step {
        let Some(now) = self.now else {
            (self.now, self.reached) = (Some(at), Some(at));
            return Step::Moved;
        };
        self.heading = Some(at);
        match self.armed.first().copied() {
            Some((deadline, sleeper)) if deadline < at => {
                self.armed.remove(&(deadline, sleeper));
                self.now = Some(now.max(deadline));
                Step::Moved
            }
            None if !self.released => Step::Blocked,
            Some(_) | None => {
                (self.now, self.reached) = (Some(now.max(at)), Some(now.max(at)));
                Step::Arrived
            }
        }
    }

    /// Arms `deadline`, or returns nothing when a receipt after it has already come.
    fn arm_deadline(&mut self, deadline: TsMs) -> Option<(TsMs, u64)> {
        if self.now.is_some_and(|now| deadline < now) {
            return None;
        }
        self.sleepers += 1;
        self.armed.insert((deadline, self.sleepers));
        Some((deadline, self.sleepers))
    }
}

impl RecordedClock {
    /// A clock that starts at the time of its first receipt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A clock that goes on at `last`, the largest `ingest_ts_ms` of the log.
    #[must_use]
    pub fn resume_at(last: TsMs) -> Self {
        let state = State { now: Some(last), reached: Some(last), ..State::default() };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }

    /// Ends the lockstep for good, when the system drains: `advance` no longer waits for a deadline to be armed, so a
    /// blocked one returns.
    ///
    /// Time still never runs backwards and deadlines that it passes still fire, so what is appended afterwards has a
    /// truthful time and cuts can still be derived from the log (CUT-2).
    pub fn end_lockstep(&self) {
        self.lock_state().released = true;
        self.changed.notify_waiters();
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete before it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait_until<T>(&self, reached: impl Fn(&State) -> Option<T>) -> T {
        loop {
            // Made before the check, so that no change between the two is missed.
            let changed = self.changed.notified();
            let found = reached(&self.lock_state());
            match found {
                Some(found) => return found,
                None => changed.await,
            }
        }
    }
}

/// Disarms a deadline whose sleeper is dropped.
struct Armed<'a> {
    clock: &'a RecordedClock,
    key: (TsMs, u64),
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.clock.lock_state().armed.remove(&self.key);
    }
}

#[async_trait]
impl Clock for RecordedClock {
    fn now(&self) -> Option<TsMs> {
        self.lock_state().now
    }

    async fn wait_started(&self) -> TsMs {
        self.wait_until(|state| state.now).await
    }

    async fn sleep_until(&self, deadline: TsMs) {
        let Some(key) = self.lock_state().arm_deadline(deadline) else { return };
        let armed = Armed { clock: self, key };
        self.changed.notify_waiters();
        self.wait_until(|state| (!state.armed.contains(&armed.key)).then_some(())).await;
    }

    fn armed_deadline(&self) -> Option<TsMs> {
        self.lock_state().armed.first().map(|(deadline, _)| *deadline)
    }

    fn crossing_gap(&self) -> Option<TimeGap> {
        let state = self.lock_state();
        Some(TimeGap { from: state.reached?, to: state.heading? })
    }

    fn is_driven(&self) -> bool {
        true
    }

    /// All progress is in the clock: a dropped `advance` loses nothing, and the next one goes on from there.
    async fn advance(&self, at: TsMs) {
        loop {
            let changed = self.changed.notified();
            let step = self.lock_state().step_towards(at);
            match step {
                Step::Arrived => return,
                Step::Moved => self.changed.notify_waiters(),
                Step::Blocked => changed.await,
            }
        }
    }
}

#[cfg(test)]
mod tests;
