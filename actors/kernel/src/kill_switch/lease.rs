//! How long a reading counts.
//!
//! ```text
//! sent ──── answered: Trading ──────────────── sent + 500 ms
//!   │          ├─ permits ────────────────────────┤ Unknown: nobody has said anything since
//! ```
//!
//! All times are monotonic: time since any fixed moment, as arguments. A wall clock that jumps does not come in; an
//! argument smaller than an earlier one counts as that earlier one, so no caller can stretch a lease either (KILL-1).

use std::collections::VecDeque;
use std::time::Duration;

use super::reading::{Halt, KillSwitchReadError, TradingState, UnknownReason};
use crate::check_invariant;
use crate::invariants::Invariant;
use crate::mutant;

/// Transitions that are remembered: the last ones.
pub const RECENT_MAX: usize = 100;

/// The right to begin one effect now.
///
/// It is worth what it says at the moment it is given: an effect asks right before it is sent and never keeps a permit.
/// Only a lease makes one, and it cannot be copied.
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    age: Duration,
    left: Duration,
}

impl Permit {
    /// How long ago the read was sent that it rests on. Recorded with the effect.
    #[must_use]
    pub const fn reading_age(&self) -> Duration {
        self.age
    }

    /// Time until that reading no longer counts.
    #[must_use]
    pub const fn time_left(&self) -> Duration {
        self.left
    }
}

/// Refusal of a permit, with its reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PermitRefused {
    /// An operator stopped trading.
    #[error("{0}")]
    Halted(Halt),
    /// The store does not say that trading is allowed.
    #[error("kill-switch state unknown: {0}")]
    Unknown(UnknownReason),
    /// Trading was allowed or halted, and nobody has said anything since.
    #[error("kill-switch state unknown: the last answer is {} ms old ({why})", age.as_millis())]
    Stale {
        /// How long ago the read was sent that was answered last.
        age: Duration,
        /// Why later reads brought nothing.
        why: String,
    },
}

impl PermitRefused {
    /// The word in metrics: `halted`, `unknown` or `stale`.
    #[must_use]
    pub const fn refusal_word(&self) -> &'static str {
        match self {
            Self::Halted(_) => "halted",
            Self::Unknown(_) => "unknown",
            Self::Stale { .. } => "stale",
        }
    }
}

/// A change between Trading, Halted and Unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradingStateChange {
    /// When, in the time of the arguments.
    pub at: Duration,
    /// The [state_word](TradingState::state_word) of the state before.
    pub from: &'static str,
    /// The state since.
    pub to: TradingState,
}

/// View of the lease at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradingStateView {
    /// The state.
    pub state: TradingState,
    /// How long ago the read was sent that was answered last.
    pub age: Option<Duration>,
    /// How long it has been Trading, Halted or Unknown.
    pub lasted: Duration,
}

/// The last answer and what it is worth.
#[derive(Clone, Debug)]
pub struct Lease {
    term: Duration,
    state: TradingState,
    /// When the read was sent that was answered last.
    sent: Option<Duration>,
    /// When the last answer that blocks was received: a Trading answer counts only if it was asked for after that.
    blocked: Option<Duration>,
    /// Why the latest reads brought nothing.
    trouble: Option<String>,
    since: Duration,
    latest: Duration,
    recent: VecDeque<TradingStateChange>,
}

impl Lease {
    /// Nothing was read yet. `term` is how long a reading counts from the moment the read was sent; `now` the moment.
    #[must_use]
    pub const fn new(term: Duration, now: Duration) -> Self {
        Self {
            term,
            state: TradingState::Unknown(UnknownReason::NotReadYet),
            sent: None,
            blocked: None,
            trouble: None,
            since: now,
            latest: now,
            recent: VecDeque::new(),
        }
    }

    /// Takes the outcome of a read. Reads may overlap and their answers come in any order:
    ///
    /// - an answer that blocks counts at once, whenever it was asked for;
    /// - an answer that allows counts only if it was asked for after the last blocking one had come, and never makes
    ///   the lease shorter than a later read already made it;
    /// - no answer changes nothing: the lease runs out.
    ///
    /// Returns the changes it made, in order.
    pub fn on_read(
        &mut self,
        sent: Duration,
        received: Duration,
        outcome: Result<TradingState, KillSwitchReadError>,
    ) -> Vec<TradingStateChange> {
        let mut changes = Vec::from_iter(self.settle_expiry(received));
        let received = self.latest;
        let sent = sent.min(received);
        match outcome {
            Ok(TradingState::Trading) => changes.extend(self.allow_effects(sent, received)),
            Ok(blocking @ (TradingState::Halted(_) | TradingState::Unknown(_))) => {
                changes.extend(self.block_effects(sent, received, blocking));
            }
            Err(KillSwitchReadError::Refused(why)) => {
                changes.extend(self.block_effects(
                    sent,
                    received,
                    TradingState::Unknown(UnknownReason::Refused(why)),
                ));
            }
            Err(KillSwitchReadError::NoAnswer(why)) => self.trouble = Some(why),
        }
        changes
    }

    fn allow_effects(&mut self, sent: Duration, received: Duration) -> Option<TradingStateChange> {
        let was_asked_before = self.blocked.is_some_and(|blocked| sent <= blocked);
        if was_asked_before || self.term <= received - sent {
            return None;
        }
        self.note_answer(sent);
        self.enter_state(TradingState::Trading, received)
    }

    fn block_effects(
        &mut self,
        sent: Duration,
        received: Duration,
        state: TradingState,
    ) -> Option<TradingStateChange> {
        self.blocked = Some(received);
        self.note_answer(sent);
        self.enter_state(state, received)
    }

    fn note_answer(&mut self, sent: Duration) {
        self.sent = self.sent.max(Some(sent));
        self.trouble = None;
    }

    /// Lets the lease end if it has. Called by everything else here; call it to notice an end in time.
    pub fn settle_expiry(&mut self, now: Duration) -> Option<TradingStateChange> {
        self.latest = self.latest.max(now);
        let ends = self.sent? + self.term;
        let already = matches!(&self.state, TradingState::Unknown(UnknownReason::Stale(_)));
        if already || self.latest < ends || mutant!(PermitForEver) {
            return None;
        }
        let why = self.trouble.clone().unwrap_or_else(|| "no read was answered".to_owned());
        self.enter_state(TradingState::Unknown(UnknownReason::Stale(why)), ends)
    }

    fn enter_state(&mut self, state: TradingState, at: Duration) -> Option<TradingStateChange> {
        let from = self.state.state_word();
        self.state = state;
        if from == self.state.state_word() {
            return None;
        }
        self.since = at;
        let transition = TradingStateChange { at, from, to: self.state.clone() };
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(transition.clone());
        Some(transition)
    }

    /// Whether an effect may begin now. Settle first, to learn of a lease that ended: this only reads.
    ///
    /// # Errors
    ///
    /// [`PermitRefused`], with the reason.
    pub fn issue_permit(&self, now: Duration) -> Result<Permit, PermitRefused> {
        let now = self.latest.max(now);
        let Some(age) = self.sent.map(|sent| now - sent) else {
            return Err(self.refusal_reason());
        };
        if self.term <= age && !mutant!(PermitForEver) {
            let why = match &self.state {
                TradingState::Unknown(UnknownReason::Stale(why)) => Some(why),
                TradingState::Trading | TradingState::Halted(_) | TradingState::Unknown(_) => {
                    self.trouble.as_ref()
                }
            };
            return Err(PermitRefused::Stale { age, why: why.cloned().unwrap_or_default() });
        }
        match &self.state {
            TradingState::Trading => {
                check_invariant!(
                    Invariant::Kill1,
                    age < self.term || mutant!(PermitForEver),
                    "a permit {age:?} old"
                );
                Ok(Permit { age, left: self.term.saturating_sub(age) })
            }
            TradingState::Halted(_) | TradingState::Unknown(_) => Err(self.refusal_reason()),
        }
    }

    fn refusal_reason(&self) -> PermitRefused {
        match &self.state {
            TradingState::Halted(halt) => PermitRefused::Halted(halt.clone()),
            TradingState::Unknown(why) => PermitRefused::Unknown(why.clone()),
            TradingState::Trading => PermitRefused::Unknown(UnknownReason::NotReadYet),
        }
    }

    /// The state; settle first.
    #[must_use]
    pub const fn state(&self) -> &TradingState {
        &self.state
    }

    /// What is known at `now`; settle first.
    #[must_use]
    pub fn view_at(&self, now: Duration) -> TradingStateView {
        let now = self.latest.max(now);
        TradingStateView {
            state: self.state.clone(),
            age: self.sent.map(|sent| now - sent),
            lasted: now.saturating_sub(self.since),
        }
    }

    /// The last changes, oldest first, at most [`RECENT_MAX`].
    pub fn recent_changes(&self) -> impl Iterator<Item = &TradingStateChange> {
        self.recent.iter()
    }
}
