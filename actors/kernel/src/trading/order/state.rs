//! An order's life: a fold of its records, and the next thing to do.
//!
//! ```text
//! Intended ─ send ─ InFlight ─┬─ known ───────────────▶ Open ─ read until terminal ─▶ Ended ─ read for late fills
//!    ▲                        ├─ rejected ────────────────────────────────────────────▶ Ended
//!    └──── not accepted ──────┤
//!    ▲                        └─ unknown ─▶ Unknown ─ read ─┬─ found ─▶ Open
//!    └──── absent for the whole quarantine ─────────────────┤
//!                                                           └─ cannot be settled ─▶ NeedsOperator
//! ```
//!
//! The records decide: [`OrderLife::apply_event`] takes them in order, live and after a crash. [`OrderLife::next_step`]
//! looks and changes nothing; what it tells to do is done, recorded, and applied.

use serde::{Deserialize, Serialize};

use super::attempts::{LastWord, OrderAttempts};
use super::fills::{FillBook, FillMoment, FillTaken, FillTotal};
use super::id::{ClientOrderId, UtcDate};
use super::outcome::OrderOutcome;
use super::read_back::{CancelAnswer, OrderReading, OrderView};
use super::records::{OrderEnd, OrderEvent, OrderIntent, OrderViolation, PositionCheck};
use super::status::{OrderStatus, StatusClass};
use crate::ids::TsMs;

/// Phase of an order's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderPhase {
    /// Nothing of it can be at the gateway.
    Waiting,
    /// An attempt has no outcome yet.
    InFlight,
    /// Nobody knows.
    Unknown,
    /// The gateway has it.
    Open,
    /// It ended.
    Ended {
        /// Moment of it.
        at: TsMs,
        /// The way it ended.
        end: OrderEnd,
    },
    /// A human has to look. It is read on.
    NeedsOperator {
        /// The reason, in words.
        why: String,
    },
}

/// Readings in a row that found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AbsentReadings {
    /// When the first of them was made.
    pub(super) first: TsMs,
    /// When the last of them was made.
    pub(super) last: TsMs,
}

/// The readings so far, as far as they decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReadTrail {
    /// Reads since the order got into its phase.
    pub(super) reads: u32,
    pub(super) last_at: Option<TsMs>,
    /// The readings in a row that found nothing.
    pub(super) absent: Option<AbsentReadings>,
    /// The position's word at the last of them.
    pub(super) position: Option<PositionCheck>,
    /// Since when the gateway reports it in a way that is not to be believed.
    pub(super) doubted_since: Option<TsMs>,
    /// The last thing found.
    pub(super) view: Option<OrderView>,
}

/// One order, from its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLife {
    pub(super) intent: OrderIntent,
    pub(super) phase: OrderPhase,
    pub(super) attempts: OrderAttempts,
    pub(super) trail: ReadTrail,
    /// The id under which the gateway has it.
    pub(super) known_id: Option<ClientOrderId>,
    /// It was answered by a gateway in dry run.
    pub(super) is_dry_run: bool,
    pub(super) fills: FillBook,
    pub(super) cancel_wanted: bool,
    /// No further cancel before then.
    pub(super) cancel_not_before: Option<TsMs>,
    pub(super) cancel_answered_at: Option<TsMs>,
}

impl OrderLife {
    /// Begins with the intent.
    #[must_use]
    pub fn new(intent: OrderIntent) -> Self {
        let fills = FillBook::new(intent.content.qty);
        Self {
            intent,
            phase: OrderPhase::Waiting,
            attempts: OrderAttempts::default(),
            trail: ReadTrail::default(),
            known_id: None,
            is_dry_run: false,
            fills,
            cancel_wanted: false,
            cancel_not_before: None,
            cancel_answered_at: None,
        }
    }

    /// The intent.
    #[must_use]
    pub const fn intent(&self) -> &OrderIntent {
        &self.intent
    }

    /// Its phase.
    #[must_use]
    pub const fn phase(&self) -> &OrderPhase {
        &self.phase
    }

    /// Its attempts.
    #[must_use]
    pub const fn attempts(&self) -> &OrderAttempts {
        &self.attempts
    }

    /// Its fills.
    #[must_use]
    pub const fn fills(&self) -> &FillBook {
        &self.fills
    }

    /// The id under which the gateway has it, once that is known.
    #[must_use]
    pub const fn known_id(&self) -> Option<ClientOrderId> {
        self.known_id
    }

    /// Tells whether `event` has to be in the journal. What a further read only repeats need not be: after a crash the
    /// order is read again anyway, and what follows from readings is a record of its own.
    #[must_use]
    pub fn is_news(&self, event: &OrderEvent) -> bool {
        match event {
            OrderEvent::Read { reading: OrderReading::Unread { .. }, .. } => false,
            OrderEvent::Read { reading: OrderReading::Absent, .. } => self.trail.absent.is_none(),
            OrderEvent::Read { reading: OrderReading::Found(view), .. } => {
                self.trail.view.as_ref() != Some(view) || self.trail.absent.is_some()
            }
            _ => true,
        }
    }

    /// Takes the next record; returns the fills that it told for the first time, to be booked.
    ///
    /// # Errors
    ///
    /// [`OrderViolation`]: a record that must not be there. Nothing is changed then.
    pub fn apply_event(&mut self, event: &OrderEvent) -> Result<Vec<FillTaken>, OrderViolation> {
        let has_ended = matches!(self.phase, OrderPhase::Ended { .. });
        match event {
            OrderEvent::Intended(_) => return Err(OrderViolation::IntendedTwice),
            OrderEvent::Read { at, reading, position } => {
                return Ok(self.note_reading(*at, reading, *position));
            }
            OrderEvent::Reported { id, total, .. } => return Ok(self.note_report(*id, total.as_ref())),
            // A cancel that crosses the end of the order changes nothing.
            OrderEvent::CancelWanted { .. } | OrderEvent::CancelAnswered { .. } if has_ended => {}
            _ if has_ended => return Err(OrderViolation::HasEnded),
            OrderEvent::NotSent { at, why } => self.note_not_sent(*at, why)?,
            OrderEvent::Sending { at, .. } => self.note_sending(*at)?,
            OrderEvent::Answered { at, outcome } => self.note_outcome(*at, outcome)?,
            OrderEvent::SettledAbsent { at } => self.note_absent(*at)?,
            OrderEvent::CancelWanted { .. } => self.cancel_wanted = true,
            OrderEvent::CancelAnswered { at, answer } => self.note_cancel_answer(*at, answer),
            OrderEvent::Ended { .. } | OrderEvent::NeedsOperator { .. }
                if self.phase == OrderPhase::InFlight =>
            {
                return Err(OrderViolation::StillInFlight);
            }
            OrderEvent::OperatorRetried { .. } | OrderEvent::OperatorResolved { .. }
                if !self.needs_operator() =>
            {
                return Err(OrderViolation::NobodyAsked);
            }
            OrderEvent::Ended { at, end } => {
                self.enter_phase(OrderPhase::Ended { at: *at, end: end.clone() })
            }
            OrderEvent::NeedsOperator { why, .. } => {
                self.enter_phase(OrderPhase::NeedsOperator { why: why.clone() });
            }
            OrderEvent::OperatorRetried { .. } => self.enter_phase(OrderPhase::Unknown),
            OrderEvent::OperatorResolved { at, by, reason } => {
                let end = OrderEnd::Resolved { by: by.clone(), reason: reason.clone() };
                self.enter_phase(OrderPhase::Ended { at: *at, end });
            }
        }
        Ok(Vec::new())
    }

    const fn needs_operator(&self) -> bool {
        matches!(self.phase, OrderPhase::NeedsOperator { .. })
    }

    /// Every phase reads anew: what an earlier one found does not count for it.
    fn enter_phase(&mut self, phase: OrderPhase) {
        self.phase = phase;
        self.trail = ReadTrail { view: self.trail.view.take(), ..ReadTrail::default() };
    }

    fn note_sending(&mut self, at: TsMs) -> Result<(), OrderViolation> {
        match self.phase {
            OrderPhase::Waiting => {}
            OrderPhase::Unknown if self.attempts.is_doubtful() && self.known_id.is_none() => {
                let since = self.attempts.doubtful_since().unwrap_or(at);
                if UtcDate::at_moment(since) != UtcDate::at_moment(at) {
                    return Err(OrderViolation::SentOnAnotherDate);
                }
            }
            _ => return Err(OrderViolation::SentAgain),
        }
        if self.attempts.last_word().is_some() {
            return Err(OrderViolation::SentAgain);
        }
        self.attempts.note_sent(at);
        self.enter_phase(OrderPhase::InFlight);
        Ok(())
    }

    fn note_not_sent(&mut self, at: TsMs, why: &str) -> Result<(), OrderViolation> {
        match self.phase {
            OrderPhase::Waiting | OrderPhase::InFlight | OrderPhase::Unknown => {}
            _ => return Err(OrderViolation::SentAgain),
        }
        self.attempts.note_not_sent(at, why);
        self.enter_after_attempt();
        Ok(())
    }

    fn note_outcome(&mut self, at: TsMs, outcome: &OrderOutcome) -> Result<(), OrderViolation> {
        if self.attempts.in_flight().is_none() {
            return Err(OrderViolation::NothingInFlight);
        }
        self.attempts.note_outcome(at, outcome);
        match outcome {
            OrderOutcome::Known { id, status, .. } => {
                self.known_id = Some(*id);
                self.is_dry_run = *status == OrderStatus::DryRun;
                self.enter_phase(OrderPhase::Open);
            }
            OrderOutcome::Rejected { .. } | OrderOutcome::NotAccepted(_) | OrderOutcome::Unknown(_) => {
                self.enter_after_attempt();
            }
        }
        Ok(())
    }

    /// While any attempt may have arrived, or somebody told of the order, the order is unknown.
    fn enter_after_attempt(&mut self) {
        let may_be_there = self.attempts.is_doubtful() || self.known_id.is_some();
        self.enter_phase(if may_be_there { OrderPhase::Unknown } else { OrderPhase::Waiting });
    }

    fn note_absent(&mut self, at: TsMs) -> Result<(), OrderViolation> {
        if self.phase != OrderPhase::Unknown {
            return Err(OrderViolation::NotUnknown);
        }
        self.attempts.note_absent(at);
        self.enter_phase(OrderPhase::Waiting);
        Ok(())
    }

    fn note_cancel_answer(&mut self, at: TsMs, answer: &CancelAnswer) {
        self.cancel_answered_at = Some(at);
        self.cancel_not_before = match answer {
            CancelAnswer::NotBefore(until) => Some(*until),
            CancelAnswer::Requested
            | CancelAnswer::AlreadyEnded
            | CancelAnswer::Absent
            | CancelAnswer::Unknown { .. } => None,
        };
        // Whatever was answered, the next reading says what came of it.
        self.trail.last_at = None;
    }

    /// Somebody told of the order: it is there, so it is never sent again, and it is read at once.
    fn note_report(&mut self, id: ClientOrderId, total: Option<&FillTotal>) -> Vec<FillTaken> {
        self.known_id.get_or_insert(id);
        self.trail.last_at = None;
        if self.phase == OrderPhase::Waiting {
            self.enter_phase(OrderPhase::Unknown);
        }
        let moment = self.fill_moment();
        total.and_then(|total| self.fills.take_total(total, moment)).into_iter().collect()
    }

    fn note_reading(&mut self, at: TsMs, reading: &OrderReading, position: PositionCheck) -> Vec<FillTaken> {
        self.trail.reads = self.trail.reads.saturating_add(1);
        self.trail.last_at = Some(at);
        match reading {
            OrderReading::Unread { .. } => Vec::new(),
            OrderReading::Absent => {
                let first = self.trail.absent.map_or(at, |absent| absent.first);
                self.trail.absent = Some(AbsentReadings { first, last: at });
                self.trail.position = Some(position);
                Vec::new()
            }
            OrderReading::Found(view) => self.note_view(at, view),
        }
    }

    fn note_view(&mut self, at: TsMs, view: &OrderView) -> Vec<FillTaken> {
        let moment = self.fill_moment();
        let mut taken: Vec<FillTaken> =
            view.fills.iter().map(|fill| self.fills.take_report(fill, moment)).collect();
        taken.extend(self.fills.take_total(&view.total, moment));
        taken.retain(is_told);
        self.trail.absent = None;
        self.trail.view = Some(view.clone());
        let is_doubtful = self.is_doubtful(view);
        if is_doubtful || self.lacks_fills(view) {
            self.trail.doubted_since.get_or_insert(at);
        } else {
            self.trail.doubted_since = None;
        }
        if is_doubtful {
            return taken;
        }
        match self.phase {
            OrderPhase::Waiting
            | OrderPhase::InFlight
            | OrderPhase::Unknown
            | OrderPhase::NeedsOperator { .. } => {
                self.known_id = Some(view.id);
                // Only an attempt whose answer may still come keeps its phase.
                if self.phase != OrderPhase::InFlight {
                    let doubted_since = self.trail.doubted_since;
                    self.enter_phase(OrderPhase::Open);
                    self.trail =
                        ReadTrail { last_at: Some(at), doubted_since, ..std::mem::take(&mut self.trail) };
                }
            }
            OrderPhase::Open => self.known_id = Some(view.id),
            OrderPhase::Ended { .. } => {}
        }
        taken
    }

    /// Tells whether a filled order's shares are not all told yet.
    fn lacks_fills(&self, view: &OrderView) -> bool {
        view.status == OrderStatus::Filled && !self.is_filled()
    }

    /// Tells whether all its shares are filled.
    pub(super) fn is_filled(&self) -> bool {
        self.fills.filled_qty() >= self.intent.content.qty.into()
    }

    /// Tells whether a view is not to be believed: the gateway does not know itself, reports as refused what the broker
    /// has or has filled, or reports the end of an order that is older than our first attempt.
    fn is_doubtful(&self, view: &OrderView) -> bool {
        let at_broker =
            view.is_at_broker_already || self.attempts.last_word() == Some(&LastWord::MustBeUnique);
        let is_older = self.attempts.first_sent_at().is_some_and(|sent| view.created_at < sent);
        match view.status.class() {
            StatusClass::Unknown => true,
            StatusClass::Rejected => at_broker || is_older || !self.fills.filled_qty().is_zero(),
            StatusClass::Ended => is_older && view.status.is_doubtful_in_a_repeat(),
            StatusClass::Open | StatusClass::DryRun => false,
        }
    }

    fn fill_moment(&self) -> FillMoment {
        match self.phase {
            OrderPhase::Ended { .. } => FillMoment::AfterEnd,
            _ if self.cancel_wanted => FillMoment::AfterCancel,
            _ => FillMoment::Open,
        }
    }
}

/// Tells whether a report added shares or does not fit: what only repeats is not told on.
fn is_told(taken: &FillTaken) -> bool {
    !taken.qty.is_zero() || taken.contradiction.is_some()
}

#[cfg(test)]
mod tests;
