//! Triggers: the planned times of a schedule, as arithmetic on time.

use super::super::calendar::{CalendarError, MarketCalendar};
use super::super::zone::TimeOutOfRange;
use super::CronTrigger;
use crate::ids::TsMs;

/// Fires that one range counts at most, when they have to be walked.
const FIRES_WALKED_MAX: u64 = 10_000;

/// Source of a schedule's planned times.
#[derive(Clone, Debug, PartialEq)]
pub enum ScheduleTrigger {
    /// At every multiple of a length since 1970-01-01 UTC, in milliseconds, more than 0.
    Interval {
        /// Length.
        every_ms: u32,
    },
    /// A cron pattern.
    Cron(CronTrigger),
    /// A fixed distance from an edge of each session, before it when negative, in milliseconds, at most a day.
    Session {
        /// Edge that the distance counts from.
        edge: SessionEdge,
        /// Distance.
        offset_ms: i64,
    },
    /// Events or people: no time brings one.
    OnDemand,
}

/// Edge of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEdge {
    /// Its opening.
    Open,
    /// Its close, which some days is early.
    Close,
}

/// Consecutive planned fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FireRange {
    /// Earliest.
    pub first: TsMs,
    /// Latest.
    pub last: TsMs,
    /// Number of them, at least 1.
    pub count: u64,
}

impl ScheduleTrigger {
    /// Finds the first planned time after `at`; none when there is none any more.
    ///
    /// # Errors
    ///
    /// [`CalendarError`] when the calendar's data end before it.
    pub fn first_fire_after(
        &self,
        at: TsMs,
        calendar: Option<&MarketCalendar>,
    ) -> Result<Option<TsMs>, CalendarError> {
        match (self, calendar) {
            (Self::Interval { every_ms }, _) => Ok(next_multiple(at, i64::from(*every_ms))),
            (Self::Cron(cron), _) => Ok(cron.first_fire_after(at)),
            (Self::Session { edge, offset_ms }, Some(calendar)) => {
                next_session_edge(at, *edge, *offset_ms, calendar).map(Some)
            }
            (Self::Session { .. }, None) | (Self::OnDemand, _) => Ok(None),
        }
    }

    /// Gathers the fires after `after` and before `until`: all of them, or the first ten thousand where they are
    /// walked.
    ///
    /// # Errors
    ///
    /// As [`first_fire_after`](Self::first_fire_after).
    pub fn gather_fires(
        &self,
        after: TsMs,
        until: TsMs,
        calendar: Option<&MarketCalendar>,
    ) -> Result<Option<FireRange>, CalendarError> {
        let next = |at| {
            Ok::<_, CalendarError>(self.first_fire_after(at, calendar)?.filter(|planned| *planned < until))
        };
        let Some(first) = next(after)? else { return Ok(None) };
        if let Self::Interval { every_ms } = self {
            let every = i64::from(*every_ms);
            let more = until.0.saturating_sub(1).saturating_sub(first.0) / every;
            let count = u64::try_from(more).unwrap_or_default().saturating_add(1);
            return Ok(Some(FireRange { first, last: first.plus_ms(more * every), count }));
        }
        let mut range = FireRange { first, last: first, count: 1 };
        while range.count < FIRES_WALKED_MAX
            && let Some(planned) = next(range.last)?
        {
            range = FireRange { last: planned, count: range.count + 1, ..range };
        }
        Ok(Some(range))
    }
}

fn next_multiple(at: TsMs, every: i64) -> Option<TsMs> {
    let multiple = at.0.checked_div_euclid(every)?.checked_add(1)?;
    multiple.checked_mul(every).map(TsMs)
}

fn next_session_edge(
    at: TsMs,
    edge: SessionEdge,
    offset_ms: i64,
    calendar: &MarketCalendar,
) -> Result<TsMs, CalendarError> {
    // A session that opens in the evening has tomorrow's date, and an offset of a day may lead back to yesterday's.
    let out_of_range = |_| TimeOutOfRange { at };
    let mut date = calendar
        .zone()
        .read_date(at.plus_ms(offset_ms.saturating_neg()))?
        .yesterday()
        .map_err(out_of_range)?;
    loop {
        let session = calendar.find_session(date)?;
        let planned = session.map(|session| match edge {
            SessionEdge::Open => session.opens.plus_ms(offset_ms),
            SessionEdge::Close => session.closes.plus_ms(offset_ms),
        });
        match planned.filter(|planned| at < *planned) {
            Some(planned) => return Ok(planned),
            None => date = date.tomorrow().map_err(out_of_range)?,
        }
    }
}
