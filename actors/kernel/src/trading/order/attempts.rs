//! The attempts of one order: when it may be sent again, and under which ids it may already be there.
//!
//! ```text
//! not accepted ─ 4 s ─ 8 s ─ 16 s ─┤ queued: 5 min ─ 10 min ─ 20 min ─┤ not placed
//! unknown, absent ─ 4 s ─ 8 s ─ 16 s, on the same date of every clock involved ─┤ read only, until the quarantine ends
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::OrderContent;
use super::id::{ClientOrderId, possible_dates, possible_ids};
use super::outcome::{NotAccepted, OrderOutcome, UnknownOutcome};
use crate::ids::TsMs;
use crate::retry::RetrySchedule;

/// Times and limits of an order's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderPolicy {
    /// Delays before an order that was not accepted, or is unknown and absent, is sent again.
    pub retry: RetrySchedule,
    /// Delays after those, while it is queued.
    pub queue: Vec<Duration>,
    /// Time that an order has to stay absent before the gateway is believed not to have it.
    pub unknown_quarantine: Duration,
    /// Distance from midnight UTC within which the gateway's date may be another than ours.
    pub midnight_window: Duration,
    /// Time within which a request is answered or given up.
    pub answer_within: Duration,
    /// Delay before the second read of an order; doubled up to `poll_max`.
    pub poll_min: Duration,
    /// Longest delay between two reads.
    pub poll_max: Duration,
    /// Time after its end during which an order is still read for late fills.
    pub late_fill_watch: Duration,
}

impl Default for OrderPolicy {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self {
            retry: RetrySchedule {
                min: Duration::from_secs(4),
                max: Duration::from_secs(60),
                max_attempts: 4,
                max_elapsed: minutes(10),
            },
            queue: [5, 10, 20].map(minutes).to_vec(),
            unknown_quarantine: minutes(5),
            midnight_window: minutes(5),
            answer_within: Duration::from_secs(30),
            poll_min: Duration::from_secs(1),
            poll_max: Duration::from_secs(10),
            late_fill_watch: minutes(5),
        }
    }
}

impl OrderPolicy {
    /// [`midnight_window`](Self::midnight_window) in milliseconds.
    #[must_use]
    pub fn midnight_window_ms(&self) -> i64 {
        to_millis(self.midnight_window)
    }

    /// Reads of an order: 1, 2, 4, 8, 10, 10 … seconds apart.
    pub(super) fn poll_delay(&self, reads: u32) -> Duration {
        let endless = RetrySchedule {
            min: self.poll_min,
            max: self.poll_max,
            max_attempts: u32::MAX,
            max_elapsed: Duration::MAX,
        };
        endless.unbounded_delay_after(reads.max(1))
    }
}

fn to_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The moment `duration` after `at`.
pub(super) fn moment_after(at: TsMs, duration: Duration) -> TsMs {
    at.plus_ms(to_millis(duration))
}

/// The attempts so far, as far as they decide about the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAttempts {
    sent: u32,
    first_sent_at: Option<TsMs>,
    in_flight: Option<TsMs>,
    /// Send times of the attempts that may have arrived.
    doubtful: Vec<TsMs>,
    /// Attempts since the first of them, sent or not: they are counted whatever they came to.
    resends: u32,
    last_outcome_at: Option<TsMs>,
    /// Refusals in a row that count towards giving up.
    refusals: u32,
    /// Refusals in a row because of too many requests: as long as the order is fresh it waits for its turn.
    rate_limits: u32,
    refused: Option<NotAccepted>,
    last_word: Option<LastWord>,
}

/// An answer after which an order is never sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastWord {
    /// The broker said that it has the id.
    MustBeUnique,
    /// An attempt was rejected. An earlier one may have arrived all the same.
    Rejected {
        /// The reason, in words.
        reason: String,
    },
    /// An attempt met a wrong setting.
    SettingWrong {
        /// Which, in words.
        reason: String,
    },
}

impl OrderAttempts {
    /// Attempts of which bytes may have left.
    #[must_use]
    pub const fn sent_count(&self) -> u32 {
        self.sent
    }

    /// Send time of the first of them.
    #[must_use]
    pub const fn first_sent_at(&self) -> Option<TsMs> {
        self.first_sent_at
    }

    /// Send time of the attempt that has no outcome yet.
    #[must_use]
    pub const fn in_flight(&self) -> Option<TsMs> {
        self.in_flight
    }

    /// Tells whether an attempt may have arrived of which nobody knows.
    #[must_use]
    pub const fn is_doubtful(&self) -> bool {
        !self.doubtful.is_empty()
    }

    /// Send time of the first attempt that may have arrived.
    #[must_use]
    pub fn doubtful_since(&self) -> Option<TsMs> {
        self.doubtful.first().copied()
    }

    /// Send time of the last attempt that may have arrived.
    #[must_use]
    pub fn last_doubtful_at(&self) -> Option<TsMs> {
        self.doubtful.last().copied()
    }

    /// Moment of the last outcome.
    #[must_use]
    pub const fn last_outcome_at(&self) -> Option<TsMs> {
        self.last_outcome_at
    }

    /// The last refusal; nothing while an attempt may have arrived.
    #[must_use]
    pub const fn last_refusal(&self) -> Option<&NotAccepted> {
        self.refused.as_ref()
    }

    /// The answer after which it is never sent again.
    #[must_use]
    pub const fn last_word(&self) -> Option<&LastWord> {
        self.last_word.as_ref()
    }

    /// Takes in that an attempt was sent.
    pub(super) fn note_sent(&mut self, at: TsMs) {
        self.sent = self.sent.saturating_add(1);
        self.count_resend();
        self.first_sent_at.get_or_insert(at);
        self.in_flight = Some(at);
    }

    /// Takes in what the attempt in flight came to.
    ///
    /// A refusal speaks of its own attempt only: while an earlier one may have arrived, the order stays unknown.
    pub(super) fn note_outcome(&mut self, at: TsMs, outcome: &OrderOutcome) {
        let sent_at = self.in_flight.take();
        self.last_outcome_at = Some(at);
        match outcome {
            OrderOutcome::Known { .. } => {}
            OrderOutcome::Unknown(why) => {
                self.doubtful.extend(sent_at);
                self.refused = None;
                if *why == UnknownOutcome::MustBeUnique {
                    self.last_word = Some(LastWord::MustBeUnique);
                }
            }
            OrderOutcome::NotAccepted(why) => self.note_refused(why),
            OrderOutcome::Rejected { reason } => {
                self.forbid_repeat(LastWord::Rejected { reason: reason.clone() })
            }
        }
    }

    /// Takes in that no byte of an attempt left.
    pub(super) fn note_not_sent(&mut self, at: TsMs, why: &str) {
        // One whose record was durable was counted when it was.
        if self.in_flight.take().is_none() {
            self.count_resend();
        }
        self.last_outcome_at = Some(at);
        self.note_refused(&NotAccepted::NotSent { why: why.to_owned() });
    }

    fn count_resend(&mut self) {
        self.resends = if self.is_doubtful() { self.resends.saturating_add(1) } else { 0 };
    }

    fn note_refused(&mut self, why: &NotAccepted) {
        match why {
            NotAccepted::SettingWrong { .. } => {
                self.forbid_repeat(LastWord::SettingWrong { reason: why.to_string() });
            }
            NotAccepted::RateLimited { .. } => self.rate_limits = self.rate_limits.saturating_add(1),
            NotAccepted::SafetyGate { .. } | NotAccepted::NotSent { .. } | NotAccepted::Absent => {
                self.refusals = self.refusals.saturating_add(1);
                self.rate_limits = 0;
            }
        }
        self.refused = Some(why.clone());
    }

    fn forbid_repeat(&mut self, word: LastWord) {
        // That the broker has it outweighs what a later attempt was told.
        self.last_word.get_or_insert(word);
    }

    /// Takes in that no attempt arrived, by proof.
    pub(super) fn note_absent(&mut self, at: TsMs) {
        self.doubtful.clear();
        self.last_outcome_at = Some(at);
        self.note_refused(&NotAccepted::Absent);
    }

    /// The earliest moment to send again what was not accepted; nothing when it never may.
    #[must_use]
    pub fn retry_at(&self, policy: &OrderPolicy) -> Option<TsMs> {
        if self.last_word.is_some() {
            return None;
        }
        let last = self.last_outcome_at?;
        match self.refused.as_ref()? {
            NotAccepted::SettingWrong { .. } => None,
            NotAccepted::RateLimited { until } => Some(
                moment_after(last, policy.retry.unbounded_delay_after(self.rate_limits.max(1))).max(*until),
            ),
            NotAccepted::SafetyGate { .. } | NotAccepted::NotSent { .. } | NotAccepted::Absent => {
                let quick = policy.retry.delay_after(self.refusals);
                let queued = self.refusals.checked_sub(policy.retry.max_attempts);
                let queued = queued.and_then(|at| policy.queue.get(usize::try_from(at).ok()?).copied());
                quick.or(queued).map(|delay| moment_after(last, delay))
            }
        }
    }

    /// The earliest moment to send an unknown order again that a read after its last attempt found absent.
    ///
    /// Nothing when it never may: its id has to be the same at every clock that may decide about it, or a request
    /// that is still on its way and the new one would be two orders (ORD-2).
    #[must_use]
    pub fn resend_at(&self, policy: &OrderPolicy, now: TsMs) -> Option<TsMs> {
        if self.last_word.is_some() {
            return None;
        }
        let window_ms = policy.midnight_window_ms();
        let mut dates = self.doubtful.iter().chain([&now]).map(|at| possible_dates(*at, window_ms));
        let first = dates.next()?;
        if first.len() != 1 || dates.any(|others| others != first) {
            return None;
        }
        let delay = policy.retry.delay_after(self.resends.saturating_add(1))?;
        // Requests that were refused for too many are waited for as well.
        let until = match &self.refused {
            Some(NotAccepted::RateLimited { until }) => *until,
            Some(_) | None => TsMs(i64::MIN),
        };
        Some(moment_after(self.last_outcome_at?, delay).max(until))
    }

    /// The ids under which an attempt may have arrived.
    #[must_use]
    pub fn ids_in_doubt(
        &self,
        content: &OrderContent,
        strategy_id: &str,
        policy: &OrderPolicy,
    ) -> Vec<ClientOrderId> {
        let window_ms = policy.midnight_window_ms();
        let sent = self.doubtful.iter().chain(&self.in_flight);
        let mut ids: Vec<ClientOrderId> = Vec::new();
        for id in sent.flat_map(|at| possible_ids(content, strategy_id, *at, window_ms)) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }
}
