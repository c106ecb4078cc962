//! The gate: the lease, shared by the actor that reads and by everybody who asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::kill_switch::{
    KillSwitchReadError, Lease, Permit, PermitRefused, Stored, TradingState, TradingStateChange,
    TradingStateView, UnknownReason,
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
    last: Mutex<LastReading>,
    /// Whether a refusal was logged since the last change: a loop that asks must not fill the log.
    refusal_logged: AtomicBool,
    observer: Arc<dyn Observer>,
    board: StatusBoard,
}

/// The lease, and the value that it rests on, for those who show it.
struct LastReading {
    lease: Lease,
    stored: Option<Stored>,
}

/// A change in the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// How long ago.
    pub ago: Duration,
    /// What changed.
    pub transition: TradingStateChange,
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
        show_on_board(&board, &lease);
        Self(Arc::new(Inner {
            store,
            read_timeout: settings.read_timeout,
            since: Instant::now(),
            last: Mutex::new(LastReading { lease, stored: None }),
            refusal_logged: AtomicBool::new(false),
            observer,
            board,
        }))
    }

    /// Where the value is, for people.
    #[must_use]
    pub fn place_text(&self) -> String {
        self.0.store.place_text()
    }

    /// What is known now.
    #[must_use]
    pub fn current_view(&self) -> TradingStateView {
        self.ask_settled(|last, now| last.lease.view_at(now))
    }

    /// What is known now, and the stored value that says so. Unknown has none that counts.
    #[must_use]
    pub fn current_value(&self) -> (TradingStateView, Option<Stored>) {
        self.ask_settled(|last, now| (last.lease.view_at(now), last.stored.clone()))
    }

    /// The last changes, oldest first, at most [`RECENT_MAX`](orchestrator_kernel::kill_switch::RECENT_MAX).
    #[must_use]
    pub fn recent_changes(&self) -> Vec<Past> {
        self.ask_settled(|LastReading { lease, .. }, now| {
            let past = |transition: &TradingStateChange| Past {
                ago: now.saturating_sub(transition.at),
                transition: transition.clone(),
            };
            lease.recent_changes().map(past).collect()
        })
    }

    /// Tells telemetry what is known now. Called before each scrape: true also while nobody reads.
    pub fn report_to_telemetry(&self) {
        let TradingStateView { state, age, lasted: _ } = self.current_view();
        let age_seconds = age.map(|age| age.as_secs_f64());
        self.0.observer.observe(&Observation::KillSwitch { state: state.state_word(), age_seconds });
    }

    /// Waits until the value may have changed.
    pub(super) async fn wait_for_change(&self) {
        self.0.store.wait_changed().await;
    }

    /// Reads the store once and takes in what it says: for who has just changed it.
    pub async fn read_store(&self) {
        let sent = self.since_start();
        let outcome = match timeout(self.0.read_timeout, self.0.store.read_value()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(KillSwitchReadError::NoAnswer(format!("none within {:?}", self.0.read_timeout))),
        };
        if let Err(error) = &outcome {
            tracing::debug!(error_detail = %error, "the kill switch was not read");
            self.0.observer.observe(&Observation::KillSwitchReadFailed);
        }
        let changes = {
            let mut last = self.lock_last();
            let found = outcome.map(|stored| (TradingState::of_stored(&stored), stored));
            let state = found.as_ref().map(|(state, _)| state.clone()).map_err(Clone::clone);
            let changes = last.lease.on_read(sent, self.since_start(), state);
            if let Ok((state, stored)) = found
                && state == *last.lease.state()
            {
                // An answer that the lease did not take says nothing about now.
                last.stored = Some(stored);
            }
            self.count_changes(&changes);
            show_on_board(&self.0.board, &last.lease);
            changes
        };
        self.log_changes(&changes);
    }

    /// Lets a lease end that has ended, then asks.
    fn ask_settled<T>(&self, ask: impl FnOnce(&LastReading, Duration) -> T) -> T {
        let (answer, change) = {
            let mut last = self.lock_last();
            // Taken under the lock: no answer is older than what was settled before it.
            let now = self.since_start();
            let change = last.lease.settle_expiry(now);
            if change.is_some() {
                self.count_changes(change.as_slice());
                show_on_board(&self.0.board, &last.lease);
            }
            (ask(&last, now), change)
        };
        self.log_changes(change.as_slice());
        answer
    }

    fn since_start(&self) -> Duration {
        self.0.since.elapsed()
    }

    fn lock_last(&self) -> MutexGuard<'_, LastReading> {
        // A caller's panic leaves the lease in a state that it had: at worst it ends early.
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_changes(&self, changes: &[TradingStateChange]) {
        for change in changes {
            self.0.observer.observe(&Observation::KillSwitchEntered { state: change.to.state_word() });
        }
    }

    fn log_changes(&self, changes: &[TradingStateChange]) {
        for change in changes {
            self.0.refusal_logged.store(false, Ordering::Relaxed);
            log_change(change);
        }
    }

    fn note_refused(&self, refused: &PermitRefused) {
        self.0.observer.observe(&Observation::EffectRefused { reason: refused.refusal_word() });
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
    fn try_permit(&self) -> Result<Permit, PermitRefused> {
        self.ask_settled(|last, now| last.lease.issue_permit(now))
            .inspect_err(|refused| self.note_refused(refused))
    }

    async fn fresh_permit(&self) -> Result<Permit, PermitRefused> {
        self.read_store().await;
        self.try_permit()
    }
}

/// Puts the state on the board, or takes it off.
fn show_on_board(board: &StatusBoard, lease: &Lease) {
    match lease.state() {
        TradingState::Trading => {
            board.clear_condition(&Condition::KillSwitchEngaged);
            board.clear_condition(&Condition::KillSwitchUnknown);
        }
        TradingState::Halted(halt) => {
            board.raise_condition(Condition::KillSwitchEngaged, halt.to_string());
            board.clear_condition(&Condition::KillSwitchUnknown);
        }
        TradingState::Unknown(why) => {
            board.raise_condition(Condition::KillSwitchUnknown, why.to_string());
            board.clear_condition(&Condition::KillSwitchEngaged);
        }
    }
}

/// One line a change, under the published names.
///
/// Source: CONTRACTS §4, "Events".
fn log_change(change: &TradingStateChange) {
    let (from, to) = (change.from, change.to.state_word());
    match &change.to {
        TradingState::Trading => {
            tracing::info!(event = "orchestrator.kill.deactivated", from, to, "effects are allowed");
        }
        TradingState::Halted(halt) => {
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
        TradingState::Unknown(why) => log_unknown(from, why),
    }
}

fn log_unknown(from: &str, why: &UnknownReason) {
    match why {
        // It comes back by itself when the store does.
        UnknownReason::Stale(_) | UnknownReason::Refused(_) | UnknownReason::NotReadYet => tracing::warn!(
            event = "orchestrator.kill.activated", from, to = "unknown", reason = %why,
            "effects are blocked: the kill switch cannot be read"
        ),
        UnknownReason::Missing
        | UnknownReason::NotAState { .. }
        | UnknownReason::TooLong
        | UnknownReason::NotText => {
            tracing::error!(
                event = "orchestrator.kill.activated", from, to = "unknown", reason = %why,
                "effects are blocked: the kill switch says nothing"
            )
        }
    }
}
