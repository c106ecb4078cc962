//! The shipped calendars against known days, clock changes and edges of their data.

use jiff::civil::{Date, date, time};
use proptest::prelude::*;

use super::*;

/// A calendar as it is shipped.
pub(in crate::trading) fn shipped(name: &str) -> MarketCalendar {
    let file: &[u8] = match name {
        "XNYS" => include_bytes!("../../../../../config/calendars/XNYS.json"),
        "XLON" => include_bytes!("../../../../../config/calendars/XLON.json"),
        "CMES" => include_bytes!("../../../../../config/calendars/CMES.json"),
        _ => include_bytes!("../../../../../config/calendars/24-7.json"),
    };
    MarketCalendar::parse(file).unwrap()
}

fn moment(zone: &str, local: jiff::civil::DateTime) -> TsMs {
    MarketZone::find_zone(zone).unwrap().find_moment(local).unwrap()
}

fn new_york(day: Date, hour: i8, minute: i8) -> TsMs {
    moment("America/New_York", day.at(hour, minute, 0, 0))
}

fn usual_hours() -> ExtendedHours {
    ExtendedHours::between_times(time(4, 0, 0, 0), time(9, 30, 0, 0), time(16, 0, 0, 0), time(20, 0, 0, 0))
        .unwrap()
}

#[test]
fn new_york_keeps_its_hours_over_both_clock_changes() {
    let calendar = shipped("XNYS");
    for day in [date(2026, 3, 6), date(2026, 3, 9), date(2026, 10, 30), date(2026, 11, 2)] {
        let session = calendar.find_session(day).unwrap().unwrap();

        assert_eq!(session.opens, new_york(day, 9, 30), "{day}");
        assert_eq!(session.closes, new_york(day, 16, 0), "{day}");
    }
}

#[test]
fn holidays_and_weekends_have_no_session_and_early_closes_are_early() {
    let calendar = shipped("XNYS");

    for closed in
        [date(2026, 7, 3), date(2026, 11, 26), date(2026, 11, 28), date(2018, 12, 5), date(2025, 1, 9)]
    {
        assert_eq!(calendar.find_session(closed), Ok(None), "{closed}");
    }
    let early = calendar.find_session(date(2026, 11, 27)).unwrap().unwrap();
    assert_eq!(early.closes, new_york(date(2026, 11, 27), 13, 0));
}

#[test]
fn session_that_opens_in_the_evening_has_the_date_on_which_it_closes() {
    let calendar = shipped("CMES");
    let at = |day: Date, hour| moment("America/Chicago", day.at(hour, 30, 0, 0));

    let sunday_evening = calendar.session_at(at(date(2026, 8, 2), 18)).unwrap().unwrap();

    assert_eq!(sunday_evening.date, date(2026, 8, 3));
    assert_eq!(sunday_evening.opens, moment("America/Chicago", date(2026, 8, 2).at(17, 0, 0, 0)));
    assert_eq!(calendar.session_at(at(date(2026, 8, 3), 2)), Ok(Some(sunday_evening)));
    assert_eq!(calendar.session_at(at(date(2026, 8, 7), 18)), Ok(None), "Friday evening");
    assert_eq!(calendar.trading_date(at(date(2026, 8, 2), 18)), Ok(date(2026, 8, 3)));
    assert_eq!(calendar.trading_date(at(date(2026, 8, 7), 18)), Ok(date(2026, 8, 7)));
}

#[test]
fn market_that_never_closes_is_open_on_christmas_at_midnight() {
    let calendar = shipped("24-7");
    let midnight = moment("UTC", date(2026, 12, 25).at(0, 0, 0, 0));

    let session = calendar.session_at(midnight).unwrap().unwrap();

    assert_eq!((session.date, session.opens), (date(2026, 12, 25), midnight));
    assert_eq!(session.closes.0 - session.opens.0, 24 * 60 * 60 * 1000);
}

#[test]
fn phases_follow_the_hours_and_shift_with_an_early_close() {
    let calendar = shipped("XNYS");
    let phase = |day, hour, minute| calendar.phase_at(new_york(day, hour, minute), usual_hours()).unwrap();
    let (usual, early, holiday) = (date(2026, 11, 25), date(2026, 11, 27), date(2026, 11, 26));

    let of_usual = [(3, 59), (4, 0), (9, 30), (16, 0), (19, 59), (20, 0)].map(|(h, m)| phase(usual, h, m));
    let of_early = [(12, 59), (13, 0), (16, 59), (17, 0)].map(|(h, m)| phase(early, h, m));

    use MarketPhase::{Closed, Post, Pre, Regular};
    assert_eq!(of_usual, [Closed, Pre, Regular, Post, Post, Closed]);
    assert_eq!(of_early, [Regular, Post, Post, Closed]);
    assert_eq!(phase(holiday, 12, 0), Closed);
}

#[test]
fn beyond_its_data_a_calendar_says_that_it_does_not_know() {
    let calendar = shipped("XNYS");
    let beyond = date(2031, 1, 2);

    let error = calendar.find_session(beyond).unwrap_err();

    assert!(error.to_string().contains("get a newer one"), "{error}");
    assert!(calendar.next_session(new_york(date(2027, 11, 30), 17, 0)).is_err());
    assert!(calendar.find_session(calendar.last_known()).is_ok());
}

#[test]
fn operators_know_better() {
    let overrides = CalendarOverrides {
        closed: vec!["2026-08-05".to_owned()],
        open: vec!["2026-08-08".to_owned(), "2026-11-26".to_owned()],
        early_closes: [("2026-08-06".to_owned(), "12:00".to_owned())].into(),
        late_opens: [("2026-08-07".to_owned(), "11:00".to_owned())].into(),
    };

    let calendar = shipped("XNYS").with_overrides(&overrides).unwrap();

    let session = |day| calendar.find_session(day).unwrap();
    assert_eq!(session(date(2026, 8, 5)), None);
    assert_eq!(session(date(2026, 8, 6)).unwrap().closes, new_york(date(2026, 8, 6), 12, 0));
    assert_eq!(session(date(2026, 8, 7)).unwrap().opens, new_york(date(2026, 8, 7), 11, 0));
    assert!(session(date(2026, 8, 8)).is_some() && session(date(2026, 11, 26)).is_some());
}

#[test]
fn every_wrong_field_of_a_file_is_named_at_once() {
    let file = r#"{"calendar": "X", "tz": "Mars/Phobos", "source": "", "from": "2026-13-01", "to": "2026-12-31",
        "open": "9h", "close": "16:00", "closed_weekdays": ["yesterday"], "early_closes": {"2026-12-24": "noon"},
        "late_opens": {}}"#;

    let error = MarketCalendar::parse(file.as_bytes()).unwrap_err().to_string();

    for named in ["tz: ", "from: ", "open: ", "closed_weekdays: ", "early_closes: "] {
        assert!(error.contains(named), "{named} in {error}");
    }
}

#[test]
fn session_that_ends_before_it_begins_is_refused() {
    let overrides = CalendarOverrides {
        late_opens: [("2026-11-27".to_owned(), "14:00".to_owned())].into(),
        ..CalendarOverrides::default()
    };

    let error = shipped("XNYS").with_overrides(&overrides).unwrap_err();

    assert!(error.to_string().contains("2026-11-27: with 14:00"), "{error}");
}

/// 18:00 is 13:00 in New York, written in UTC: the market would have been open for five hours more.
#[test]
fn a_changed_session_is_a_shorter_one_on_a_day_that_has_one() {
    let at = |date: &str, time: &str| [(date.to_owned(), time.to_owned())].into();
    let early =
        |date, time| CalendarOverrides { early_closes: at(date, time), ..CalendarOverrides::default() };
    let late = |date, time| CalendarOverrides { late_opens: at(date, time), ..CalendarOverrides::default() };
    for (overrides, said) in [
        (
            early("2026-12-24", "18:00"),
            "2026-12-24: an early close at 18:00:00 is later than the close at 16:00:00",
        ),
        (
            late("2026-12-24", "08:00"),
            "2026-12-24: a late opening at 08:00:00 is before the opening at 09:30:00",
        ),
        (early("2026-12-25", "13:00"), "2026-12-25 has no session that could be shorter"),
        (early("2026-12-26", "13:00"), "2026-12-26 has no session that could be shorter"),
    ] {
        let error = shipped("XNYS").with_overrides(&overrides).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn hours_that_are_not_in_their_order_are_refused() {
    let [four, nine, ten] = [time(4, 0, 0, 0), time(9, 0, 0, 0), time(10, 0, 0, 0)];

    assert!(ExtendedHours::between_times(nine, four, ten, ten).is_err());
    assert!(ExtendedHours::between_times(four, ten, nine, ten).is_err());
    assert!(ExtendedHours::between_times(four, nine, ten, nine).is_err());
}

proptest! {
    /// Method: a moment anywhere in the data, also in the repeated hour of autumn.
    #[test]
    fn session_of_a_moment_contains_it_and_the_next_one_is_later(
        name in prop::sample::select(vec!["XNYS", "CMES", "XLON", "24-7"]),
        at in 1_400_000_000_000_i64..1_800_000_000_000,
    ) {
        let (calendar, at) = (shipped(name), TsMs(at));

        let now = calendar.session_at(at).unwrap();
        let next = calendar.next_session(at).unwrap();

        prop_assert!(now.is_none_or(|session| session.contains(at) && session.closes <= next.opens));
        prop_assert!(at < next.opens);
        prop_assert_eq!(calendar.session_at(next.opens), Ok(Some(next)));
        prop_assert_eq!(calendar.session_at(next.opens.plus_ms(-1)).unwrap().is_some(), now.is_some_and(|session| session.closes == next.opens));
    }
}
