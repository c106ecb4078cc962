//! The gate: the lease, shared by the actor that reads and by everybody who asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::kill_switch::{
    Lease, Permit, ReadError, Reading, Refused, State, Transition, Unknown, View,
};
use orchestrator_kernel::ports::kill_switch::{KillGate, KillSwitchRead};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use tokio::time::{Instant, timeout};

use super::KillSwitchSettings;
use crate::status::{Condition, StatusBoard};

/// Gate that each effect asks. Cheap to clone; it lives as long as the process and across restarts of the actor.
///
/// Its clock is monotonic and goes on while the process is stopped by a signal: after SIGCONT a lease has ended that
/// ended meanwhile.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    store: Arc<dyn KillSwitchRead>,
    read_timeout: Duration,
    since: Instant,
    lease: Mutex<Lease>,
    /// Whether a refusal was logged since the last change: a loop that asks must not fill the log.
    refusal_logged: AtomicBool,
    observer: Arc<dyn Observer>,
    board: StatusBoard,
}

/// A change in the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// How long ago.
    pub ago: Duration,
    /// What changed.
    pub transition: Transition,
}

impl Gate {
    /// A gate that has read nothing yet: it refuses.
    #[must_use]
    pub fn new(
        store: Arc<dyn KillSwitchRead>,
        settings: KillSwitchSettings,
        observer: Arc<dyn Observer>,
        board: StatusBoard,
    ) -> Self {
        let lease = Lease::new(settings.lease, Duration::ZERO);
        show(&board, &lease);
        Self(Arc::new(Inner {
            store,
            read_timeout: settings.read_timeout,
            since: Instant::now(),
            lease: Mutex::new(lease),
            refusal_logged: AtomicBool::new(false),
            observer,
            board,
        }))
    }

    /// Where the value is, for people.
    #[must_use]
    pub fn place(&self) -> String {
        self.0.store.place()
    }

    /// What is known now.
    #[must_use]
    pub fn view(&self) -> View {
        self.settled(|lease, now| lease.view(now))
    }

    /// The last changes, oldest first, at most [`RECENT_MAX`](orchestrator_kernel::kill_switch::RECENT_MAX).
    #[must_use]
    pub fn recent(&self) -> Vec<Past> {
        self.settled(|lease, now| {
            let past = |transition: &Transition| Past {
                ago: now.saturating_sub(transition.at),
                transition: transition.clone(),
            };
            lease.recent().map(past).collect()
        })
    }

    /// Tells telemetry what is known now. Called before each scrape: true also while nobody reads.
    pub fn report(&self) {
        let View { state, age, lasted: _ } = self.view();
        let age_seconds = age.map(|age| age.as_secs_f64());
        self.0.observer.observe(&Observation::KillSwitch { state: state.word(), age_seconds });
    }

    /// Waits until the value may have changed.
    pub(super) async fn changed(&self) {
        self.0.store.changed().await;
    }

    /// Reads the store once and takes in what it says.
    pub(super) async fn read(&self) {
        let sent = self.now();
        let outcome = match timeout(self.0.read_timeout, self.0.store.read()).await {
            Ok(outcome) => outcome.map(|stored| Reading::of(&stored)),
            Err(_) => Err(ReadError::NoAnswer(format!("none within {:?}", self.0.read_timeout))),
        };
        if let Err(error) = &outcome {
            tracing::debug!(error_detail = %error, "the kill switch was not read");
            self.0.observer.observe(&Observation::KillSwitchReadFailed);
        }
        let changes = {
            let mut lease = self.lease();
            let changes = lease.on_read(sent, self.now(), outcome);
            self.count(&changes);
            show(&self.0.board, &lease);
            changes
        };
        self.tell(&changes);
    }

    /// Lets a lease end that has ended, then asks.
    fn settled<T>(&self, ask: impl FnOnce(&Lease, Duration) -> T) -> T {
        let (answer, change) = {
            let mut lease = self.lease();
            // Taken under the lock: no answer is older than what was settled before it.
            let now = self.now();
            let change = lease.settle(now);
            if change.is_some() {
                self.count(change.as_slice());
                show(&self.0.board, &lease);
            }
            (ask(&lease, now), change)
        };
        self.tell(change.as_slice());
        answer
    }

    fn now(&self) -> Duration {
        self.0.since.elapsed()
    }

    fn lease(&self) -> MutexGuard<'_, Lease> {
        // A caller's panic leaves the lease in a state that it had: at worst it ends early.
        self.0.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, changes: &[Transition]) {
        for change in changes {
            self.0.observer.observe(&Observation::KillSwitchEntered { state: change.to.word() });
        }
    }

    fn tell(&self, changes: &[Transition]) {
        for change in changes {
            self.0.refusal_logged.store(false, Ordering::Relaxed);
            log(change);
        }
    }

    fn refused(&self, refused: &Refused) {
        self.0.observer.observe(&Observation::EffectRefused { reason: refused.word() });
        if self.0.refusal_logged.swap(true, Ordering::Relaxed) {
            tracing::debug!(event = "orchestrator.kill.block", reason = %refused, "effect refused");
        } else {
            tracing::warn!(
                event = "orchestrator.kill.block", reason = %refused,
                "effect refused; further ones are counted until the kill switch changes"
            );
        }
    }
}

#[async_trait]
impl KillGate for Gate {
    fn permit(&self) -> Result<Permit, Refused> {
        self.settled(|lease, now| lease.permit(now)).inspect_err(|refused| self.refused(refused))
    }

    async fn fresh(&self) -> Result<Permit, Refused> {
        self.read().await;
        self.permit()
    }
}

/// Puts the state on the board, or takes it off.
fn show(board: &StatusBoard, lease: &Lease) {
    match lease.state() {
        State::Trading => {
            board.clear(&Condition::KillSwitchEngaged);
            board.clear(&Condition::KillSwitchUnknown);
        }
        State::Halted(halt) => {
            board.raise(Condition::KillSwitchEngaged, halt.to_string());
            board.clear(&Condition::KillSwitchUnknown);
        }
        State::Unknown(why) => {
            board.raise(Condition::KillSwitchUnknown, why.to_string());
            board.clear(&Condition::KillSwitchEngaged);
        }
    }
}

/// One line a change, under the published names.
///
/// Source: CONTRACTS §4, "Events".
fn log(change: &Transition) {
    let (from, to) = (change.from, change.to.word());
    match &change.to {
        State::Trading => {
            tracing::info!(event = "orchestrator.kill.deactivated", from, to, "effects are allowed");
        }
        State::Halted(halt) => {
            let (by, reason, at) = (halt.by.as_deref(), halt.reason.as_deref(), halt.at.as_deref());
            tracing::warn!(
                event = "orchestrator.kill.activated",
                from,
                to,
                engaged_by = by,
                reason,
                engaged_at = at,
                "effects are blocked by an operator"
            );
        }
        State::Unknown(why) => log_unknown(from, why),
    }
}

fn log_unknown(from: &str, why: &Unknown) {
    match why {
        // It comes back by itself when the store does.
        Unknown::Stale(_) | Unknown::Refused(_) | Unknown::NotReadYet => tracing::warn!(
            event = "orchestrator.kill.activated", from, to = "unknown", reason = %why,
            "effects are blocked: the kill switch cannot be read"
        ),
        Unknown::Missing | Unknown::NotAState { .. } | Unknown::TooLong | Unknown::NotText => {
            tracing::error!(
                event = "orchestrator.kill.activated", from, to = "unknown", reason = %why,
                "effects are blocked: the kill switch says nothing"
            )
        }
    }
}
