//! The next thing to do with an order at a given time.

use super::attempts::{LastWord, OrderPolicy, moment_after};
use super::id::{ClientOrderId, UtcDate};
use super::records::{OrderEnd, PositionCheck};
use super::state::{AbsentReadings, OrderLife, OrderPhase};
use super::status::{OrderStatus, StatusClass};
use crate::ids::TsMs;

/// The next thing to do with an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderNext {
    /// Connect, ask for a permit, record `Sending`, send; or record `NotSent`.
    Send,
    /// The answer is overdue: record it as unknown.
    GiveUpAnswer,
    /// Read it under these ids, with its symbol's position.
    Read(Vec<ClientOrderId>),
    /// Ask for its cancel.
    Cancel(ClientOrderId),
    /// Record that no attempt arrived.
    SettleAbsent,
    /// Record its end.
    End(OrderEnd),
    /// Record that it needs an operator.
    AskOperator(String),
    /// Nothing before then.
    WaitUntil(TsMs),
    /// Nothing any more.
    Nothing,
}

/// Verdict on the absence of an order.
enum Absence {
    /// Absent for the whole quarantine, and no position moved.
    Proven,
    /// Absent for the whole quarantine, and a position moved.
    Moved,
    /// Not long enough, or nobody read the position.
    Open,
}

impl OrderLife {
    /// The next thing to do at `now`.
    #[must_use]
    pub fn next_step(&self, policy: &OrderPolicy, now: TsMs) -> OrderNext {
        match &self.phase {
            OrderPhase::Waiting => self.next_waiting(policy, now),
            OrderPhase::InFlight => self.next_in_flight(policy, now),
            OrderPhase::Unknown => self.next_unknown(policy, now),
            OrderPhase::Open => self.next_open(policy, now),
            OrderPhase::Ended { at, end } => self.next_ended(policy, *at, end, now),
            OrderPhase::NeedsOperator { .. } if self.is_filled() => end_as_filled(),
            OrderPhase::NeedsOperator { .. } => self.read_when_due(policy, now, None),
        }
    }

    /// Nothing of it can be at the gateway: it is sent while that makes sense.
    fn next_waiting(&self, policy: &OrderPolicy, now: TsMs) -> OrderNext {
        let not_placed = |why: String| OrderNext::End(OrderEnd::NotPlaced { why });
        match self.attempts.last_word() {
            Some(LastWord::Rejected { reason }) => {
                return OrderNext::End(OrderEnd::Rejected { reason: reason.clone() });
            }
            Some(LastWord::SettingWrong { reason }) => return not_placed(reason.clone()),
            Some(LastWord::MustBeUnique) => {
                return OrderNext::AskOperator("the broker has it, the gateway does not".to_owned());
            }
            None => {}
        }
        if self.cancel_wanted {
            return not_placed("withdrawn before it was sent".to_owned());
        }
        let refused = self.attempts.last_refusal();
        let due = match refused {
            None => now,
            Some(why) => match self.attempts.retry_at(policy) {
                Some(due) => due.max(now),
                None => return not_placed(format!("given up: {why}")),
            },
        };
        let why = refused.map_or_else(String::new, |why| format!(": {why}"));
        if self.intent.fresh_until < due {
            return not_placed(format!("its signals are no longer fresh{why}"));
        }
        if UtcDate::at_moment(due) != UtcDate::at_moment(self.intent.intended_at) {
            return not_placed(format!("its day is over{why}"));
        }
        if now < due { OrderNext::WaitUntil(due) } else { OrderNext::Send }
    }

    fn next_in_flight(&self, policy: &OrderPolicy, now: TsMs) -> OrderNext {
        let overdue = self.attempts.in_flight().map_or(now, |sent| moment_after(sent, policy.answer_within));
        if now < overdue { OrderNext::WaitUntil(overdue) } else { OrderNext::GiveUpAnswer }
    }

    /// Nobody knows: it is read back, sent again where that can be no second order, and else left to a human.
    fn next_unknown(&self, policy: &OrderPolicy, now: TsMs) -> OrderNext {
        if self.is_filled() {
            return end_as_filled();
        }
        match self.judge_absence(policy) {
            Absence::Moved => {
                return OrderNext::AskOperator(
                    "the gateway does not have it, but its position moved".to_owned(),
                );
            }
            Absence::Proven if self.is_told_of() => {
                return OrderNext::AskOperator("the gateway does not have it, but it was told of".to_owned());
            }
            Absence::Proven => return OrderNext::SettleAbsent,
            Absence::Open => {}
        }
        if let Some(doubt) = self.lasting_doubt(policy) {
            return OrderNext::AskOperator(doubt);
        }
        let resend = self.resend_at(policy, now);
        if resend.is_some_and(|due| due <= now) {
            return OrderNext::Send;
        }
        match resend {
            Some(due) => self.read_when_due(policy, now, Some(due)),
            None => self.cancel_or_read(policy, now),
        }
    }

    /// The gateway has it: it is read until it is terminal, canceled if somebody wants that.
    fn next_open(&self, policy: &OrderPolicy, now: TsMs) -> OrderNext {
        if self.is_filled() {
            return end_as_filled();
        }
        if self.is_dry_run {
            return OrderNext::End(OrderEnd::Status(OrderStatus::DryRun));
        }
        match self.judge_absence(policy) {
            Absence::Moved => {
                return OrderNext::AskOperator(
                    "it vanished at the gateway, and its position moved".to_owned(),
                );
            }
            Absence::Proven => return OrderNext::End(OrderEnd::Vanished),
            Absence::Open => {}
        }
        if let Some(doubt) = self.lasting_doubt(policy) {
            return OrderNext::AskOperator(doubt);
        }
        match self.believed_end() {
            Some(end) => OrderNext::End(end),
            None => self.cancel_or_read(policy, now),
        }
    }

    /// The end that the last view says, if it may be believed.
    fn believed_end(&self) -> Option<OrderEnd> {
        let view = self.trail.view.as_ref()?;
        if self.trail.absent.is_some() || self.trail.doubted_since.is_some() {
            return None;
        }
        match view.status.class() {
            StatusClass::Ended | StatusClass::DryRun => Some(OrderEnd::Status(view.status)),
            StatusClass::Rejected => Some(OrderEnd::Rejected { reason: view.status.to_string() }),
            StatusClass::Open | StatusClass::Unknown => None,
        }
    }

    /// A cancel that was answered is asked for again when the order is still open after the longest poll delay.
    fn cancel_or_read(&self, policy: &OrderPolicy, now: TsMs) -> OrderNext {
        let id = self.known_id.or(self.trail.view.as_ref().map(|view| view.id));
        let (true, Some(id)) = (self.cancel_wanted, id) else {
            return self.read_when_due(policy, now, None);
        };
        let again = self.cancel_answered_at.map(|at| moment_after(at, policy.poll_max));
        match again.max(self.cancel_not_before) {
            Some(due) if now < due => self.read_when_due(policy, now, Some(due)),
            Some(_) | None => OrderNext::Cancel(id),
        }
    }

    /// After its end it is read for late fills, less and less often: 1, 2, 4, 8 … seconds apart.
    fn next_ended(&self, policy: &OrderPolicy, at: TsMs, end: &OrderEnd, now: TsMs) -> OrderNext {
        let is_over = moment_after(at, policy.late_fill_watch) <= now;
        match end {
            OrderEnd::NotPlaced { .. } | OrderEnd::Status(OrderStatus::DryRun) => OrderNext::Nothing,
            _ if is_over || self.is_filled() => OrderNext::Nothing,
            OrderEnd::Status(_)
            | OrderEnd::Rejected { .. }
            | OrderEnd::Vanished
            | OrderEnd::Resolved { .. } => {
                let rarer = OrderPolicy { poll_max: policy.late_fill_watch, ..policy.clone() };
                self.read_when_due(&rarer, now, None)
            }
        }
    }

    /// Reads now if a read is due, else waits for it or for `other`, whichever is first.
    fn read_when_due(&self, policy: &OrderPolicy, now: TsMs, other: Option<TsMs>) -> OrderNext {
        match self.trail.last_at.map(|last| moment_after(last, policy.poll_delay(self.trail.reads))) {
            Some(due) if now < due => OrderNext::WaitUntil(other.map_or(due, |other| due.min(other))),
            Some(_) | None => OrderNext::Read(self.ids_to_read(policy)),
        }
    }

    /// The ids to read it under.
    fn ids_to_read(&self, policy: &OrderPolicy) -> Vec<ClientOrderId> {
        if let Some(id) = self.known_id {
            return vec![id];
        }
        let ids = self.attempts.ids_in_doubt(&self.intent.content, &self.intent.gateway_strategy, policy);
        if ids.is_empty() { vec![self.intent.id] } else { ids }
    }

    /// Moment of the next attempt while it is unknown: only after a reading that found nothing. Every attempt begins
    /// the trail of readings anew, so that one is younger than the last outcome.
    fn resend_at(&self, policy: &OrderPolicy, now: TsMs) -> Option<TsMs> {
        if self.cancel_wanted || self.is_told_of() || self.trail.absent.is_none() {
            return None;
        }
        self.attempts.resend_at(policy, now).filter(|due| *due.max(&now) <= self.intent.fresh_until)
    }

    /// Tells whether anybody ever said that it is there.
    fn is_told_of(&self) -> bool {
        self.known_id.is_some()
            || self.trail.view.is_some()
            || self.attempts.last_word() == Some(&LastWord::MustBeUnique)
    }

    fn judge_absence(&self, policy: &OrderPolicy) -> Absence {
        let Some(AbsentReadings { first, last }) = self.trail.absent else { return Absence::Open };
        let since = self.attempts.last_doubtful_at().map_or(first, |sent| sent.max(first));
        if last < moment_after(since, policy.unknown_quarantine) {
            return Absence::Open;
        }
        match self.trail.position {
            Some(PositionCheck::Unmoved) => Absence::Proven,
            Some(PositionCheck::Moved) => Absence::Moved,
            Some(PositionCheck::Unread) | None => Absence::Open,
        }
    }

    /// A view that was not to be believed, or lacked fills, for the whole quarantine.
    fn lasting_doubt(&self, policy: &OrderPolicy) -> Option<String> {
        let (since, last) = (self.trail.doubted_since?, self.trail.last_at?);
        let view = self.trail.view.as_ref()?;
        let lasts = moment_after(since, policy.unknown_quarantine) <= last;
        lasts.then(|| {
            format!("the gateway says {} and {} of its shares are told", view.status, self.fills.filled_qty())
        })
    }
}

const fn end_as_filled() -> OrderNext {
    OrderNext::End(OrderEnd::Status(OrderStatus::Filled))
}
