//! Words for a schedule that does not fire: its trigger, its hours, or a calendar that has ended.

use super::{CycleSchedule, ScheduleHours, ScheduleTrigger};
use crate::ids::TsMs;
use crate::trading::calendar::{CalendarError, MarketCalendar};

/// Known dates behind a planned time from which on it is not the calendar's end that keeps it from firing: a week has
/// every weekday.
const DAYS_LOOKED_AT: i64 = 7;

impl ScheduleHours {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Session => "session",
            Self::Extended(_) => "extended",
        }
    }
}

impl CycleSchedule {
    /// Tells why [`next_fire`](Self::next_fire) finds none after `at`, in words for people; `ended` is its error, if it
    /// ended with one.
    #[must_use]
    pub fn explain_no_fire(&self, at: TsMs, ended: Option<&CalendarError>) -> String {
        if self.trigger == ScheduleTrigger::OnDemand {
            return "no time makes it fire".to_owned();
        }
        match (self.find_outside(at), ended) {
            (Some((planned, calendar)), ended) => {
                let hours = format!("(hours = {:?} of calendar {})", self.hours.as_str(), calendar.name());
                let until = match ended {
                    Some(_) => format!("until {}, where the calendar's data end", calendar.last_known()),
                    None => "within a year".to_owned(),
                };
                let clock = calendar.zone().read_clock(planned);
                let next = clock.map_or_else(|error| error.to_string(), |shown| shown.to_string());
                format!(
                    "none of its times lies within its hours {hours} {until}; the first one is {next} {}",
                    calendar.zone()
                )
            }
            (None, Some(error)) => error.to_string(),
            (None, None) => "no time makes it fire within a year".to_owned(),
        }
    }

    /// The first planned time after `at`, where it is the hours that keep it from firing.
    fn find_outside(&self, at: TsMs) -> Option<(TsMs, &MarketCalendar)> {
        let calendar = self.calendar.as_deref().filter(|_| self.hours != ScheduleHours::Any)?;
        let planned = self.trigger.first_fire_after(at, Some(calendar)).ok()??;
        let is_known = DAYS_LOOKED_AT <= calendar.days_left(planned).ok()?;
        is_known.then_some((planned, calendar))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::civil::date;

    use super::*;
    use crate::trading::calendar::tests::shipped;
    use crate::trading::schedule::CronTrigger;
    use crate::trading::schedule::tests::schedule;
    use crate::trading::zone::MarketZone;

    /// Why a schedule at this time of day in New York does not fire after `day`.
    fn told(pattern: &str, hours: ScheduleHours, day: jiff::civil::Date) -> String {
        let zone = MarketZone::find_zone("America/New_York").unwrap();
        let at = zone.find_moment(day.at(0, 0, 0, 0)).unwrap();
        let trigger = ScheduleTrigger::Cron(CronTrigger::parse(pattern, zone).unwrap());
        let schedule =
            CycleSchedule { calendar: Some(Arc::new(shipped("XNYS"))), hours, ..schedule(trigger) };
        match schedule.next_fire(at) {
            Ok(Some(fire)) => panic!("it fires at {fire}"),
            Ok(None) => schedule.explain_no_fire(at, None),
            Err(error) => schedule.explain_no_fire(at, Some(&error)),
        }
    }

    #[test]
    fn what_lies_outside_of_the_hours_is_not_blamed_on_the_calendar() {
        let session = ScheduleHours::Session;
        let outside = "none of its times lies within its hours (hours = \"session\" of calendar XNYS)";

        assert_eq!(
            told("0 9 * * *", session, date(2026, 8, 3)),
            format!("{outside} within a year; the first one is 2026-08-03T09:00:00 America/New_York")
        );
        assert_eq!(
            told("0 9 * * *", session, date(2027, 8, 3)),
            format!(
                "{outside} until 2027-11-30, where the calendar's data end; the first one is 2027-08-03T09:00:00 \
                 America/New_York"
            )
        );
        let ended = told("0 10 * * *", session, date(2027, 11, 30).tomorrow().unwrap());
        assert!(ended.starts_with("calendar XNYS speaks of"), "{ended}");
        let ended = told("0 9 * * *", session, date(2027, 11, 29));
        assert!(ended.starts_with("calendar XNYS speaks of"), "nobody knows of the days behind it: {ended}");
        assert_eq!(told("0 0 30 2 *", session, date(2026, 8, 3)), "no time makes it fire within a year");
    }
}
