//! The clock of a recording.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::clock::{Clock, TimeGap};
use tokio::sync::Notify;

/// The clock of a recording: it stands still between receipts and runs in lockstep with the scheduler.
///
/// ```text
/// ingest     advance(t) ───────────────┬──────────────────────────────────────▶ returns: now = t, append the receipt
///                                      │ P1 < t ≤ P2, so P1 fires first
/// scheduler  sleep_until(P1) ──────────┴▶ work at now = P1 ─▶ sleep_until(P2)
/// follower   sleep(D) ────────────────────────────────────────┴▶ work at now = P1 ─▶ sleep(D)
/// ```
///
/// `advance` waits until a deadline is armed, because the scheduler arms its next one only when all work of the last
/// one is done. Thus no receipt after a deadline is appended before the deadline's work is done, whatever the speed of
/// disk and engine: that makes two runs of one recording equal. Receipts *at* a deadline belong before it.
///
/// Several sleepers fire in the order of their deadlines; the lockstep is kept with the last one that armed. One more
/// may [follow](Self::join_follower): it has its turn after each of them and at moments of its own, and no two work at
/// the same time.
#[derive(Debug, Default)]
pub struct RecordedClock {
    state: Mutex<State>,
    /// The clock started, a deadline was armed or fired, the follower's turn began or ended, or the clock was released.
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
    follower: Option<FollowerState>,
    /// A deadline fired, and the follower has not had its turn since.
    owes_turn: bool,
    released: bool,
}

/// State of whoever follows the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FollowerState {
    /// It has its turn: time stands still.
    Working,
    /// It waits for the next deadline of others, or for a moment of its own.
    Asleep { until: Option<TsMs> },
}

/// Outcome of one step of `advance`.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The time is there.
    Arrived,
    /// The clock started, a deadline fired or the follower's turn began: wake the others and go on.
    Moved,
    /// The work of the last deadline is not done: none is armed, or the follower works.
    Blocked,
}

impl State {
    fn step_towards(&mut self, at: TsMs) -> Step {
        let Some(now) = self.now else {
            (self.now, self.reached) = (Some(at), Some(at));
            return Step::Moved;
        };
        self.heading = Some(at);
        let is_working = self.armed.is_empty() || self.follower == Some(FollowerState::Working);
        if is_working && !self.released {
            return Step::Blocked;
        }
        let deadline = self.armed.first().copied().filter(|(deadline, _)| *deadline < at);
        match (deadline, self.next_turn(now, at)) {
            // At one moment the follower comes last: it sees what the others did.
            (Some((deadline, sleeper)), turn) if turn.is_none_or(|turn| deadline <= turn) => {
                self.armed.remove(&(deadline, sleeper));
                self.now = Some(now.max(deadline));
                self.owes_turn = self.follower.is_some();
                Step::Moved
            }
            (_, Some(turn)) => {
                self.follower = Some(FollowerState::Working);
                self.owes_turn = false;
                self.now = Some(now.max(turn));
                Step::Moved
            }
            (_, None) => {
                (self.now, self.reached) = (Some(now.max(at)), Some(now.max(at)));
                Step::Arrived
            }
        }
    }

    /// When a follower that sleeps has its next turn on the way to `at`.
    fn next_turn(&self, now: TsMs, at: TsMs) -> Option<TsMs> {
        match self.follower? {
            FollowerState::Working => None,
            FollowerState::Asleep { .. } if self.owes_turn => Some(now),
            FollowerState::Asleep { until } => until.filter(|until| *until < at),
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

    /// Ends the follower's turn, unless its moment has passed already. Says whether it sleeps now.
    fn end_turn(&mut self, until: Option<TsMs>) -> bool {
        let has_passed = until.is_some_and(|until| self.now.is_some_and(|now| until < now));
        if !has_passed {
            self.follower = Some(FollowerState::Asleep { until });
        }
        !has_passed
    }

    fn first_deadline(&self) -> Option<TsMs> {
        self.armed.first().map(|(deadline, _)| *deadline)
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

    /// Lets somebody keep step with the sleepers, one at a time. It has its turn from now on, so that time does not
    /// move on before it has slept once.
    #[must_use]
    pub fn join_follower(self: &Arc<Self>) -> RecordedFollower {
        self.lock_state().follower = Some(FollowerState::Working);
        RecordedFollower(Arc::clone(self))
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

/// Follower of a recording's sleepers: it works in turns in which time stands still. When it goes, time goes on without
/// it.
#[derive(Debug)]
pub struct RecordedFollower(Arc<RecordedClock>);

impl RecordedFollower {
    /// Ends the turn, and waits for the next one: after the next deadline of others, and at the latest when a receipt
    /// after `until` comes. A moment that has passed already is due at once.
    pub async fn sleep_until(&self, until: Option<TsMs>) {
        if !self.0.lock_state().end_turn(until) {
            return;
        }
        let _turn = NextTurn(&self.0);
        self.0.changed.notify_waiters();
        self.0.wait_until(|state| (state.follower == Some(FollowerState::Working)).then_some(())).await;
    }
}

impl Drop for RecordedFollower {
    fn drop(&mut self) {
        self.0.lock_state().follower = None;
        self.0.changed.notify_waiters();
    }
}

/// Takes the turn back when a follower stops sleeping, also before its time: nothing may happen behind its back.
struct NextTurn<'a>(&'a RecordedClock);

impl Drop for NextTurn<'_> {
    fn drop(&mut self) {
        self.0.lock_state().follower = Some(FollowerState::Working);
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
        let state = self.lock_state();
        let of_follower = match state.follower {
            Some(FollowerState::Asleep { until }) => until,
            Some(FollowerState::Working) | None => None,
        };
        state.first_deadline().into_iter().chain(of_follower).min()
    }

    fn next_tick(&self) -> Option<TsMs> {
        self.lock_state().first_deadline()
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
