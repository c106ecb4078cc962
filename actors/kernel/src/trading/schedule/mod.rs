//! Schedules: which cycles are due by time, and what becomes of a fire that is late or finds its last cycle running.
//!
//! ```text
//!  decided until          now
//!  ──────┬──────x────x────┼────x──▶  planned fires of the trigger
//!        └ every fire up to here is a cycle or a recorded skip; none is decided twice, whatever the wall clock does
//! ```
//!
//! Source: specification 002, scheduling; specification 003, section 4.

mod cron;
mod decide;
mod explain;
mod skip;
mod trigger;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::calendar::{CalendarError, ExtendedHours, MarketCalendar, MarketSession};
use super::zone::TimeOutOfRange;
use crate::ids::TsMs;

pub use cron::{CronTrigger, CronTriggerError};
pub use decide::{ScheduleSkipReason, ScheduleState, ScheduleStep, SkippedFires};
pub use skip::FireSkipReason;
pub use trigger::{FireRange, ScheduleTrigger, SessionEdge};

/// Longest distance of a fire from the edge of its session: a day.
pub const SESSION_OFFSET_MAX_MS: i64 = 24 * 60 * 60 * 1000;

/// How far a fire within the hours is searched for, in milliseconds, before a schedule counts as one that never fires.
const SEARCHED_MAX_MS: i64 = 366 * 24 * 60 * 60 * 1000;

/// Policy for a fire that is due while as many cycles of its schedule run as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlapPolicy {
    /// The fire is skipped.
    Skip,
    /// One fire waits; further ones are skipped.
    QueueOne,
    /// The oldest running cycle is cancelled and the fire begins.
    Cancel,
}

/// Policy for fires that are decided later than they were planned: after an absence, or a clock that jumped forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MisfirePolicy {
    /// None of them begins.
    Skip,
    /// The newest begins, the others are skipped.
    Latest,
    /// All begin, oldest first, as many at a time as may.
    All,
}

/// Bound on how often a schedule begins a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FireRateLimit {
    /// Fires within the period, at least 1.
    pub fires_max: u32,
    /// Period in milliseconds, at least 1.
    pub period_ms: i64,
}

/// Hours in which a schedule's fires count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleHours {
    /// At any time.
    Any,
    /// While the market of the calendar has its session.
    Session,
    /// The same, and before and after it.
    Extended(ExtendedHours),
}

/// A schedule. Overlap and misfire have no default: who does not choose is surprised by either.
#[derive(Clone, Debug)]
pub struct CycleSchedule {
    /// When fires are planned.
    pub trigger: ScheduleTrigger,
    /// Market that hours and session edges are those of.
    pub calendar: Option<Arc<MarketCalendar>>,
    /// Fires outside of these hours are skipped.
    pub hours: ScheduleHours,
    /// For fires that find cycles running.
    pub overlap: OverlapPolicy,
    /// For fires that are late.
    pub misfire: MisfirePolicy,
    /// From this lateness on a fire is a misfire, in milliseconds, at least 0.
    pub misfire_after_ms: i64,
    /// Beyond this lateness a fire is skipped whatever the policy, in milliseconds, at least `misfire_after_ms`.
    pub lateness_max_ms: i64,
    /// Cycles of this schedule that may run at a time, at least 1.
    pub concurrent_max: u32,
    /// Bound on fires, if any.
    pub rate_limit: Option<FireRateLimit>,
    /// Among fires that are due at one moment the higher one begins first.
    pub priority: i32,
}

impl CycleSchedule {
    /// Every value that makes no sense, with the name of its field.
    #[must_use]
    pub fn find_faults(&self) -> Vec<String> {
        let needs_calendar =
            self.hours != ScheduleHours::Any || matches!(self.trigger, ScheduleTrigger::Session { .. });
        let offset = match self.trigger {
            ScheduleTrigger::Session { offset_ms, .. } => offset_ms,
            _ => 0,
        };
        let rate = self.rate_limit.unwrap_or(FireRateLimit { fires_max: 1, period_ms: 1 });
        let rules = [
            (
                needs_calendar && self.calendar.is_none(),
                "calendar: needed by the hours or by a session's edge",
            ),
            (self.trigger == ScheduleTrigger::Interval { every_ms: 0 }, "interval: it must be more than 0"),
            (SESSION_OFFSET_MAX_MS < offset.saturating_abs(), "offset: it must be a day at most"),
            (self.misfire_after_ms < 0, "misfire_after: it must not be negative"),
            (
                self.lateness_max_ms < self.misfire_after_ms,
                "lateness_max: it must not be less than misfire_after",
            ),
            (self.concurrent_max == 0, "concurrent_max: it must be at least 1"),
            (rate.fires_max == 0, "rate_limit.fires_max: it must be at least 1"),
            (rate.period_ms < 1, "rate_limit.period: it must be more than 0"),
        ];
        rules.into_iter().filter(|(is_broken, _)| *is_broken).map(|(_, fault)| fault.to_owned()).collect()
    }

    /// Finds the first fire after `at` that lies within the hours; none when a year brings none.
    ///
    /// # Errors
    ///
    /// [`CalendarError`] when the calendar's data end before it.
    pub fn next_fire(&self, at: TsMs) -> Result<Option<TsMs>, CalendarError> {
        let mut from = at;
        while from <= at.plus_ms(SEARCHED_MAX_MS) {
            let planned = self.trigger.first_fire_after(from, self.calendar.as_deref())?;
            let Some(planned) = planned else { return Ok(None) };
            let Some(opens) = self.opens_next(planned)? else { return Ok(Some(planned)) };
            from = planned.max(opens.plus_ms(-1));
        }
        Ok(None)
    }

    /// Finds the last fire after `after` and not after `until` that lies within the hours.
    pub(super) fn last_fire(&self, after: TsMs, until: TsMs) -> Result<Option<TsMs>, CalendarError> {
        let Some(calendar) = self.calendar.as_deref().filter(|_| self.hours != ScheduleHours::Any) else {
            return self.last_planned(after, until);
        };
        // The evening of `until` may belong to tomorrow's session.
        let mut date =
            calendar.zone().read_date(until)?.tomorrow().map_err(|_| TimeOutOfRange { at: until })?;
        let earliest = calendar.zone().read_date(after)?;
        while earliest <= date {
            if let Some(session) = calendar.find_session(date)? {
                let open = self.hours_around(session);
                let found =
                    self.last_planned(after.max(open.opens.plus_ms(-1)), until.min(open.closes.plus_ms(-1)))?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            date = date.yesterday().map_err(|_| TimeOutOfRange { at: after })?;
        }
        Ok(None)
    }

    fn last_planned(&self, after: TsMs, until: TsMs) -> Result<Option<TsMs>, CalendarError> {
        let mut last = None;
        while let Some(range) =
            self.trigger.gather_fires(last.unwrap_or(after), until.plus_ms(1), self.calendar.as_deref())?
        {
            last = Some(range.last);
        }
        Ok(last)
    }

    /// When the hours begin again after `at`; nothing while they last.
    fn opens_next(&self, at: TsMs) -> Result<Option<TsMs>, CalendarError> {
        let Some(calendar) = self.calendar.as_deref().filter(|_| self.hours != ScheduleHours::Any) else {
            return Ok(None);
        };
        let today = calendar.find_session(calendar.zone().read_date(at)?)?;
        let is_around = today.is_some_and(|session| self.hours_around(session).contains(at));
        if is_around || calendar.session_at(at)?.is_some() {
            return Ok(None);
        }
        Ok(Some(self.hours_around(calendar.next_session(at)?).opens))
    }

    fn hours_around(&self, session: MarketSession) -> MarketSession {
        match self.hours {
            ScheduleHours::Extended(extended) => extended.around_session(session),
            ScheduleHours::Any | ScheduleHours::Session => session,
        }
    }
}

#[cfg(test)]
mod tests;
