//! Calendar files: the shipped ones, and what an operator puts over them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::{Date, Time};
use serde::Deserialize;

use super::super::zone::MarketZone;
use super::MarketCalendar;

/// Name of the calendar of markets that never close.
const ALWAYS_OPEN: &str = "24/7";

/// A calendar file, as it stands in JSON. Dates are `YYYY-MM-DD`, times of day `HH:MM` or `HH:MM:SS`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CalendarFile {
    calendar: String,
    tz: String,
    /// Where the facts come from, for people.
    #[serde(rename = "source")]
    _source: String,
    from: String,
    to: String,
    open: String,
    close: String,
    closed_weekdays: Vec<String>,
    early_closes: BTreeMap<String, String>,
    late_opens: BTreeMap<String, String>,
}

/// Corrections by an operator who knows better than the calendar file, or knows later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalendarOverrides {
    /// Dates without a session.
    #[serde(default)]
    pub closed: Vec<String>,
    /// Dates with a session, although the file says closed or they are a Saturday or Sunday.
    #[serde(default)]
    pub open: Vec<String>,
    /// Earlier ends by date.
    #[serde(default)]
    pub early_closes: BTreeMap<String, String>,
    /// Later beginnings by date.
    #[serde(default)]
    pub late_opens: BTreeMap<String, String>,
}

/// Faults of a calendar file, all of them at once.
#[derive(Debug, thiserror::Error)]
pub enum CalendarFileError {
    /// It is not JSON of the expected form.
    #[error("it is no calendar file")]
    Unreadable(#[source] serde_json::Error),
    /// Fields that say nothing sensible.
    #[error("{}", .0.join("; "))]
    Faults(Vec<String>),
}

impl MarketCalendar {
    /// Reads a calendar file.
    ///
    /// # Errors
    ///
    /// [`CalendarFileError`] names every field that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, CalendarFileError> {
        let file: CalendarFile = serde_json::from_slice(bytes).map_err(CalendarFileError::Unreadable)?;
        let mut reader = FieldReader::default();
        let zone = MarketZone::find_zone(&file.tz);
        let zone = zone.map_err(|error| reader.faults.push(format!("tz: {error}"))).ok();
        let known = (reader.read_date("from", &file.from), reader.read_date("to", &file.to));
        if known.1 < known.0 {
            reader.faults.push(format!("to: {} is before from, {}", known.1, known.0));
        }
        let open = reader.read_time("open", &file.open);
        let close = reader.read_time("close", &file.close);
        let closed = reader.read_dates("closed_weekdays", &file.closed_weekdays);
        let early_closes = reader.read_times("early_closes", &file.early_closes);
        let late_opens = reader.read_times("late_opens", &file.late_opens);
        let Some(zone) = zone else { return Err(CalendarFileError::Faults(reader.faults)) };
        let is_always_open = file.calendar == ALWAYS_OPEN;
        let (name, extra) = (file.calendar, BTreeSet::new());
        let calendar =
            Self { name, zone, known, open, close, is_always_open, closed, extra, early_closes, late_opens };
        calendar.check_sessions(&mut reader);
        reader.finish_calendar(calendar)
    }

    /// The same calendar with what an operator knows better.
    ///
    /// # Errors
    ///
    /// [`CalendarFileError::Faults`] names every entry that is wrong.
    pub fn with_overrides(mut self, overrides: &CalendarOverrides) -> Result<Self, CalendarFileError> {
        let mut reader = FieldReader::default();
        let closed = reader.read_dates("closed", &overrides.closed);
        let open = reader.read_dates("open", &overrides.open);
        for both in closed.intersection(&open) {
            reader.faults.push(format!("{both} is both closed and open"));
        }
        self.closed.retain(|date| !open.contains(date));
        self.extra.retain(|date| !closed.contains(date));
        self.extra.extend(open);
        self.closed.extend(closed);
        let early = reader.read_times("early_closes", &overrides.early_closes);
        let late = reader.read_times("late_opens", &overrides.late_opens);
        for date in early.keys().chain(late.keys()).filter(|date| !self.has_session(**date)) {
            reader.faults.push(format!("{date} has no session that could be shorter"));
        }
        self.early_closes.extend(early);
        self.late_opens.extend(late);
        self.check_sessions(&mut reader);
        reader.finish_calendar(self)
    }

    /// Each session that differs from the usual one is a shorter one, and ends after it begins.
    fn check_sessions(&self, reader: &mut FieldReader) {
        let later =
            self.early_closes.iter().filter(|(_, early)| !self.is_always_open && self.close < **early);
        for (date, early) in later {
            reader
                .faults
                .push(format!("{date}: an early close at {early} is later than the close at {}", self.close));
        }
        for (date, late) in self.late_opens.iter().filter(|(_, late)| **late < self.open) {
            reader
                .faults
                .push(format!("{date}: a late opening at {late} is before the opening at {}", self.open));
        }
        for (date, changed) in self.early_closes.iter().chain(&self.late_opens) {
            let is_empty = self.session_of(*date).is_none_or(|session| session.closes <= session.opens);
            if is_empty && self.has_session(*date) {
                reader.faults.push(format!("{date}: with {changed} the session ends before it begins"));
            }
        }
    }
}

/// Reads fields and collects what is wrong with them.
#[derive(Default)]
struct FieldReader {
    faults: Vec<String>,
}

impl FieldReader {
    fn read_date(&mut self, field: &str, text: &str) -> Date {
        text.parse().unwrap_or_else(|_| {
            self.faults.push(format!("{field}: {text:?} is no date, write YYYY-MM-DD"));
            Date::default()
        })
    }

    fn read_time(&mut self, field: &str, text: &str) -> Time {
        text.parse().unwrap_or_else(|_| {
            self.faults.push(format!("{field}: {text:?} is no time of day, write HH:MM"));
            Time::default()
        })
    }

    fn read_dates(&mut self, field: &str, texts: &[String]) -> BTreeSet<Date> {
        texts.iter().map(|text| self.read_date(field, text)).collect()
    }

    fn read_times(&mut self, field: &str, texts: &BTreeMap<String, String>) -> BTreeMap<Date, Time> {
        texts.iter().map(|(date, time)| (self.read_date(field, date), self.read_time(field, time))).collect()
    }

    fn finish_calendar(self, calendar: MarketCalendar) -> Result<MarketCalendar, CalendarFileError> {
        if self.faults.is_empty() { Ok(calendar) } else { Err(CalendarFileError::Faults(self.faults)) }
    }
}
