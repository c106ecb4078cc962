//! Market calendars: on which dates a market has a session, and from when to when.
//!
//! ```text
//!            open                              close
//!  pre-market │             regular             │ after hours
//! ────────────┼─────────────────────────────────┼────────────────
//!             └── one session, named by its local date
//! ```
//!
//! Source: specification 002, market hours; contracts, section "Time".

mod file;
mod phase;

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, Time, Weekday};

use super::zone::{MarketZone, TimeOutOfRange};
use crate::ids::TsMs;

pub use file::{CalendarFileError, CalendarOverrides};
pub use phase::{ExtendedHours, ExtendedHoursError, MarketPhase};

/// Longest stretch of dates that is searched for a session: more than any market was ever closed in a row.
const CLOSED_DAYS_MAX: u32 = 60;

/// Sessions of a market, by data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketCalendar {
    name: String,
    zone: MarketZone,
    /// First and last date that the data speak of.
    known: (Date, Date),
    open: Time,
    close: Time,
    /// Sessions on all seven days, each from midnight to midnight.
    is_always_open: bool,
    closed: BTreeSet<Date>,
    /// Dates with a session although they are a Saturday or a Sunday.
    extra: BTreeSet<Date>,
    early_closes: BTreeMap<Date, Time>,
    late_opens: BTreeMap<Date, Time>,
}

/// One session of a market.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarketSession {
    /// Local date that names it. A session that opens in the evening has the date on which it closes.
    pub date: Date,
    /// First moment of it.
    pub opens: TsMs,
    /// First moment behind it.
    pub closes: TsMs,
}

/// A date or a moment of which the calendar knows nothing. Nothing known is not the same as closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The data begin later or end earlier.
    #[error("calendar {calendar} speaks of {first} to {last} only, not of {date}: get a newer one")]
    NotKnown {
        /// Name of the calendar.
        calendar: String,
        /// Date that was asked for.
        date: Date,
        /// First date that the data speak of.
        first: Date,
        /// Last one.
        last: Date,
    },
    /// No calendar has such a moment.
    #[error(transparent)]
    OutOfRange(#[from] TimeOutOfRange),
}

impl MarketSession {
    /// True from the opening until the close.
    #[must_use]
    pub fn contains(&self, at: TsMs) -> bool {
        self.opens <= at && at < self.closes
    }
}

impl MarketCalendar {
    /// Name, for example `XNYS`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Zone of the market.
    #[must_use]
    pub fn zone(&self) -> &MarketZone {
        &self.zone
    }

    /// Last date that the data speak of: what is asked beyond it is refused.
    #[must_use]
    pub fn last_known(&self) -> Date {
        self.known.1
    }

    /// Days from the date of this moment to the last one that the data speak of; negative beyond it.
    ///
    /// # Errors
    ///
    /// [`CalendarError`] for a moment that no calendar has.
    pub fn days_left(&self, at: TsMs) -> Result<i64, CalendarError> {
        let today = self.zone.read_date(at)?;
        Ok(today.until(self.known.1).map_or(0, |span| i64::from(span.get_days())))
    }

    /// Finds the session of a date; none on a date without one.
    ///
    /// # Errors
    ///
    /// [`CalendarError::NotKnown`] beyond the data.
    pub fn find_session(&self, date: Date) -> Result<Option<MarketSession>, CalendarError> {
        let (first, last) = self.known;
        if date < first || last < date {
            return Err(CalendarError::NotKnown { calendar: self.name.clone(), date, first, last });
        }
        Ok(self.has_session(date).then(|| self.session_of(date)).flatten())
    }

    /// Finds the session that a moment lies in; none while the market is closed.
    ///
    /// # Errors
    ///
    /// [`CalendarError`] for a moment beyond the data.
    pub fn session_at(&self, at: TsMs) -> Result<Option<MarketSession>, CalendarError> {
        let today = self.zone.read_date(at)?;
        // A session that opens in the evening is named by the next date.
        for date in [Some(today), today.tomorrow().ok().filter(|_| self.opens_the_evening_before())] {
            let Some(date) = date else { continue };
            if let Some(session) = self.find_session(date)?.filter(|session| session.contains(at)) {
                return Ok(Some(session));
            }
        }
        Ok(None)
    }

    /// Finds the first session that opens later than `at`.
    ///
    /// # Errors
    ///
    /// [`CalendarError`] when the data end before it.
    pub fn next_session(&self, at: TsMs) -> Result<MarketSession, CalendarError> {
        let mut date = self.zone.read_date(at)?;
        for _ in 0..CLOSED_DAYS_MAX {
            if let Some(session) = self.find_session(date)?.filter(|session| at < session.opens) {
                return Ok(session);
            }
            date = date.tomorrow().map_err(|_| TimeOutOfRange { at })?;
        }
        let (first, last) = self.known;
        Err(CalendarError::NotKnown { calendar: self.name.clone(), date, first, last })
    }

    /// Finds the date that work at this moment is for: the session's, or the local one while the market is closed.
    /// Never the date in UTC.
    ///
    /// # Errors
    ///
    /// As [`session_at`](Self::session_at).
    pub fn trading_date(&self, at: TsMs) -> Result<Date, CalendarError> {
        match self.session_at(at)? {
            Some(session) => Ok(session.date),
            None => Ok(self.zone.read_date(at)?),
        }
    }

    fn has_session(&self, date: Date) -> bool {
        let is_weekend = matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday);
        let is_usual = self.is_always_open || !is_weekend || self.extra.contains(&date);
        is_usual && !self.closed.contains(&date)
    }

    /// When this date's session is, if it has one.
    fn session_of(&self, date: Date) -> Option<MarketSession> {
        let open = self.late_opens.get(&date).copied().unwrap_or(self.open);
        let opening_date = if self.opens_the_evening_before() { date.yesterday().ok()? } else { date };
        let opens = self.zone.find_moment(opening_date.to_datetime(open))?;
        let closes = match self.early_closes.get(&date) {
            Some(&early) => date.to_datetime(early),
            None if self.is_always_open => date.tomorrow().ok()?.to_datetime(self.close),
            None => date.to_datetime(self.close),
        };
        Some(MarketSession { date, opens, closes: self.zone.find_moment(closes)? })
    }

    fn opens_the_evening_before(&self) -> bool {
        !self.is_always_open && self.close <= self.open
    }
}

#[cfg(test)]
pub(super) mod tests;
