//! Cron patterns in a zone: the search is croner's, the clock jiff's.

use std::cmp::Ordering;
use std::fmt;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::time::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};
use croner::{Cron, JobType};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ZonedDateTime};

use super::super::zone::{MarketZone, to_timestamp};
use crate::error::bounded_detail;
use crate::ids::TsMs;

/// A cron pattern of five fields, or six with seconds first, read by the wall clock of a zone.
///
/// Days of the week count from Sunday = 0, so `1-5` is Monday to Friday. A time that the clock skips in spring fires
/// once when it is over; one that it shows twice in autumn fires once. A date that a zone leaves out, as Samoa did
/// 2011-12-30, has no fires. Both given, day of month and day of week fire when either fits, as in every cron.
#[derive(Clone)]
pub struct CronTrigger {
    pattern: Box<Cron>,
    zone: MarketZone,
}

/// A pattern that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is no cron pattern: {reason}")]
pub struct CronTriggerError {
    /// As given.
    pub pattern: String,
    /// The parser's words.
    pub reason: String,
}

impl CronTrigger {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`CronTriggerError`] says what is wrong with it.
    pub fn parse(pattern: &str, zone: MarketZone) -> Result<Self, CronTriggerError> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let parsed = parser.parse(pattern).map_err(|error| CronTriggerError {
            pattern: pattern.to_owned(),
            reason: bounded_detail(&error.to_string()),
        })?;
        Ok(Self { pattern: Box::new(parsed), zone })
    }

    /// The zone whose wall clock it is read by.
    #[must_use]
    pub const fn zone(&self) -> &MarketZone {
        &self.zone
    }

    /// Finds the first time after `at` that fits; none when none ever does, such as 30 February.
    #[must_use]
    pub fn first_fire_after(&self, at: TsMs) -> Option<TsMs> {
        let (rules, from) = (self.zone.zone_rules(), to_timestamp(at).ok()?);
        let found = match self.search_from(from, rules, false) {
            // A time of the last hours of a date that is left out is moved to the gap's end: it has no fire there.
            Some(found) if LongGap::ending_at(found, rules).is_some_and(|gap| !gap.is_of_one_date()) => {
                self.search_from(found, rules, true)?
            }
            Some(found) => found,
            // The search gives up inside a gap that is longer than any clock change: it goes on behind it.
            None => long_gaps(rules, from).find_map(|gap| match self.fires_in(&gap) {
                true => Some(gap.end),
                false => self.search_from(gap.end, rules, true),
            })?,
        };
        // The search works in whole seconds and keeps the fraction that it began with.
        Some(TsMs(found.as_second().saturating_mul(1000)))
    }

    fn search_from(&self, from: Timestamp, rules: &TimeZone, inclusive: bool) -> Option<Timestamp> {
        let from = ZonedMoment(from.to_zoned_datetime(rules.clone()));
        let found = self.pattern.find_next_occurrence(&from, inclusive).ok()?;
        Some(found.0.timestamp())
    }

    /// Whether one time of day that the pattern names lies in the gap, of a date that goes on behind it: it fires when
    /// the gap is over, as in every shorter one.
    fn fires_in(&self, gap: &LongGap) -> bool {
        let is_one_time = matches!(self.pattern.determine_job_type(), JobType::FixedTime);
        // A wall clock without changes finds the time that is shown nowhere.
        let from = TimeZone::UTC.to_timestamp(gap.last_shown).ok();
        let planned = from.and_then(|from| self.search_from(from, &TimeZone::UTC, true));
        let skipped = planned.map(|planned| TimeZone::UTC.to_datetime(planned));
        is_one_time && gap.is_of_one_date() && skipped.is_some_and(|skipped| skipped < gap.next_shown)
    }
}

/// Seconds that croner's search looks for the end of a gap.
const SHORT_GAP_SECONDS: i32 = 2 * 3600;

/// Wall clock times that a zone never shows, more of them than a clock change skips.
struct LongGap {
    /// The moment at which the clock is set forward.
    end: Timestamp,
    /// What it would show at that moment.
    last_shown: DateTime,
    /// What it shows instead.
    next_shown: DateTime,
}

impl LongGap {
    /// The gap that is over at `end`, if one is.
    fn ending_at(end: Timestamp, rules: &TimeZone) -> Option<Self> {
        let before = rules.to_offset(end.checked_sub(SignedDuration::from_secs(1)).ok()?);
        let behind = rules.to_offset(end);
        let [last_shown, next_shown] = [before, behind].map(|offset| offset.to_datetime(end));
        let jump = behind.seconds() - before.seconds();
        (SHORT_GAP_SECONDS < jump).then_some(Self { end, last_shown, next_shown })
    }

    /// Whether the date goes on behind it; else a date was left out.
    fn is_of_one_date(&self) -> bool {
        self.last_shown.date() == self.next_shown.date()
    }
}

/// The long gaps of a zone behind `from`, oldest first. There are a few in all of history.
fn long_gaps(rules: &TimeZone, from: Timestamp) -> impl Iterator<Item = LongGap> {
    rules.following(from).filter_map(move |change| LongGap::ending_at(change.timestamp(), rules))
}

impl PartialEq for CronTrigger {
    fn eq(&self, other: &Self) -> bool {
        self.pattern.as_str() == other.pattern.as_str() && self.zone == other.zone
    }
}

impl fmt::Debug for CronTrigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.pattern.as_str(), self.zone)
    }
}

/// A moment in a zone, as croner walks over it.
#[derive(Clone)]
struct ZonedMoment(ZonedDateTime);

impl CronDateTime for ZonedMoment {
    fn to_civil(&self) -> CivilDateTime {
        let part = |part: i8| u32::try_from(part).unwrap_or_default();
        let local = self.0.datetime();
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(i32::from(local.year()), part(local.month()), part(local.day())),
            CivilTime::from_parts_unchecked(part(local.hour()), part(local.minute()), part(local.second())),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        let days = self.0.datetime().weekday().to_sunday_zero_offset();
        Weekday::from_days_from_sunday(u32::try_from(days).unwrap_or_default())
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let local = to_local(civil).ok_or(CronError::InvalidDate)?;
        let zone = self.0.time_zone();
        let at = zone.to_ambiguous_zoned_datetime(local);
        let resolved = match at.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                at.unambiguous().map(|only| Resolution::Single(Self(only)))
            }
            AmbiguousOffset::Fold { .. } => at
                .clone()
                .earlier()
                .and_then(|earlier| Ok(Resolution::Ambiguous(Self(earlier), Self(at.later()?)))),
            AmbiguousOffset::Gap { .. } => Ok(Resolution::Gap),
        };
        resolved.map_err(|_| CronError::InvalidTime)
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.timestamp().cmp(&other.0.timestamp())
    }
}

fn to_local(civil: CivilDateTime) -> Option<DateTime> {
    let part = |part: u32| i8::try_from(part).ok();
    let (hour, minute, second) = (part(civil.hour())?, part(civil.minute())?, part(civil.second())?);
    DateTime::new(
        i16::try_from(civil.year()).ok()?,
        part(civil.month())?,
        part(civil.day())?,
        hour,
        minute,
        second,
        0,
    )
    .ok()
}

#[cfg(test)]
mod tests;
