//! Dates and hours that a zone left out: fires go on behind them.

use jiff::civil::{Date, date};
use proptest::prelude::*;

use super::*;

/// Zones that left out a date, with that date: they went over to the other side of the date line.
const SKIPPED_DATES: [(&str, Date); 6] = [
    ("Pacific/Apia", date(2011, 12, 30)),
    ("Pacific/Fakaofo", date(2011, 12, 30)),
    ("Pacific/Kwajalein", date(1993, 8, 21)),
    ("Pacific/Enderbury", date(1994, 12, 31)),
    ("Pacific/Kiritimati", date(1994, 12, 31)),
    ("Asia/Manila", date(1844, 12, 31)),
];
/// Days before and behind such a date that a test looks at. No clock changes in any of them.
const AROUND: i64 = 6;

fn cron(pattern: &str, zone: &str) -> CronTrigger {
    CronTrigger::parse(pattern, MarketZone::find_zone(zone).unwrap()).unwrap()
}

/// What the clocks of the zone show at the fires from `first` until the end of `last`.
fn fires_between(cron: &CronTrigger, first: Date, last: Date) -> Vec<DateTime> {
    let zone = cron.zone();
    let mut at = zone.find_moment(first.at(0, 0, 0, 0)).unwrap().plus_ms(-1);
    let mut fires = Vec::new();
    while let Some(planned) = cron.first_fire_after(at) {
        let shown = zone.read_clock(planned).unwrap();
        if last < shown.date() {
            return fires;
        }
        assert!(at < planned, "{at} {planned}");
        fires.push(shown);
        at = planned;
    }
    panic!("the fires end with {fires:?}");
}

#[test]
fn a_zone_leaves_out_the_dates_that_the_tests_say() {
    for (zone, skipped) in SKIPPED_DATES {
        let zone = MarketZone::find_zone(zone).unwrap();
        let before = TimeZone::UTC.to_timestamp(skipped.yesterday().unwrap().at(0, 0, 0, 0)).unwrap();

        let gap = long_gaps(zone.zone_rules(), before).next().unwrap();

        assert_eq!((gap.last_shown.date(), gap.next_shown.date()), (skipped, skipped.tomorrow().unwrap()));
    }
}

#[test]
fn a_time_in_a_gap_of_some_hours_fires_once_when_it_is_over() {
    // Casey put its clocks from 02:00 to 05:00 on this day.
    let fires = |pattern: &str| {
        let fires = fires_between(&cron(pattern, "Antarctica/Casey"), date(2009, 10, 17), date(2009, 10, 19));
        fires.iter().map(|shown| shown.strftime("%d %H:%M").to_string()).collect::<Vec<_>>()
    };

    assert_eq!(fires("30 3 * * *"), ["17 03:30", "18 05:00", "19 03:30"]);
    assert_eq!(fires("0 6 * * *"), ["17 06:00", "18 06:00", "19 06:00"]);
    assert_eq!(fires("0 3 17,19 * *"), ["17 03:00", "19 03:00"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A pattern of one time a day fires on every date that there is, once, and on no other; one of every few hours
    /// at each of its times.
    #[test]
    fn every_date_that_a_zone_has_fires_and_the_one_that_it_left_out_does_not(
        which in 0..SKIPPED_DATES.len(),
        hour in 0_i8..24,
        minute in 0_i8..60,
        every in prop::option::of(prop::sample::select(vec![1_i8, 2, 3, 4, 6, 8, 12])),
    ) {
        let (zone, skipped) = SKIPPED_DATES[which];
        let hours = every.map_or_else(|| hour.to_string(), |every| format!("*/{every}"));
        let cron = cron(&format!("{minute} {hours} * * *"), zone);
        let days = |days: i64| skipped.checked_add(SignedDuration::from_hours(24 * days)).unwrap();

        let fires = fires_between(&cron, days(-AROUND), days(AROUND));

        let dates = (-AROUND..=AROUND).map(days).filter(|date| *date != skipped);
        let times: Vec<i8> = match every {
            None => vec![hour],
            Some(every) => (0..24).filter(|hour| hour % every == 0).collect(),
        };
        let expected: Vec<DateTime> =
            dates.flat_map(|date| times.iter().map(move |hour| date.at(*hour, minute, 0, 0))).collect();
        prop_assert_eq!(fires, expected);
    }
}
