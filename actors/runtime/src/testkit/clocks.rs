//! Clocks for tests: one that the test sets, and one that receipts drive.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::clock::Clock;
use tokio::sync::watch;

/// A wall clock that moves only when the test says so; in either direction.
#[derive(Debug)]
pub struct ManualClock(watch::Sender<i64>);

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: i64) -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(now)))
    }

    /// Sets the time.
    pub fn set(&self, now: i64) {
        self.0.send_replace(now);
    }

    /// The time in milliseconds.
    #[must_use]
    pub fn ms(&self) -> i64 {
        *self.0.borrow()
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Option<TsMs> {
        Some(TsMs(self.ms()))
    }

    async fn wait_started(&self) -> TsMs {
        TsMs(self.ms())
    }

    async fn sleep_until(&self, deadline: TsMs) {
        self.0.subscribe().wait_for(|now| deadline.0 <= *now).await.expect("the clock owns the sender");
    }

    fn armed_deadline(&self) -> Option<TsMs> {
        None
    }

    fn is_driven(&self) -> bool {
        false
    }

    async fn advance(&self, _at: TsMs) {}
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Driven {
    now: Option<TsMs>,
    /// The armed deadline, and which sleeper armed it.
    armed: Option<(TsMs, u64)>,
    sleepers: u64,
}

/// A clock that receipts drive: it stands still between them and waits at each deadline for the next one to be armed.
#[derive(Debug, Default)]
pub struct LockstepClock {
    state: Mutex<Driven>,
    changed: watch::Sender<u64>,
}

impl LockstepClock {
    fn update<R>(&self, change: impl FnOnce(&mut Driven) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut state);
        drop(state);
        self.changed.send_modify(|count| *count += 1);
        result
    }

    fn read(&self) -> Driven {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait_for(&self, holds: impl Fn(&Driven) -> bool) {
        let mut changed = self.changed.subscribe();
        while !holds(&self.read()) {
            changed.changed().await.expect("the clock owns the sender");
        }
    }
}

/// Takes its deadline back when the sleeper is dropped.
struct Armed<'a>(&'a LockstepClock, u64);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.update(|state| state.armed = state.armed.filter(|(_, sleeper)| *sleeper != self.1));
    }
}

#[async_trait]
impl Clock for LockstepClock {
    fn now(&self) -> Option<TsMs> {
        self.read().now
    }

    async fn wait_started(&self) -> TsMs {
        self.wait_for(|state| state.now.is_some()).await;
        self.read().now.unwrap_or_default()
    }

    async fn sleep_until(&self, deadline: TsMs) {
        let mine = self.update(|state| {
            state.sleepers += 1;
            state.armed = Some((deadline, state.sleepers));
            state.sleepers
        });
        let _armed = Armed(self, mine);
        self.wait_for(|state| state.armed.is_none_or(|(_, sleeper)| sleeper != mine)).await;
    }

    fn armed_deadline(&self) -> Option<TsMs> {
        self.read().armed.map(|(deadline, _)| deadline)
    }

    fn is_driven(&self) -> bool {
        true
    }

    async fn advance(&self, at: TsMs) {
        self.update(|state| state.now = state.now.or(Some(at)));
        loop {
            self.wait_for(|state| state.armed.is_some()).await;
            let passed = self.update(|state| match state.armed {
                Some((deadline, _)) if deadline < at => {
                    state.now = state.now.max(Some(deadline));
                    state.armed = None;
                    false
                }
                Some(_) => {
                    state.now = state.now.max(Some(at));
                    true
                }
                None => false,
            });
            if passed {
                return;
            }
        }
    }
}
