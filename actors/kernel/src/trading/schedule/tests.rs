//! Clock changes, closed days, absences and overlaps; and the promise that each fire is decided once.

use jiff::civil::{Date, date};
use proptest::prelude::*;

use super::super::calendar::tests::shipped;
use super::super::zone::MarketZone;
use super::*;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn cron(pattern: &str, zone: &str) -> ScheduleTrigger {
    ScheduleTrigger::Cron(CronTrigger::parse(pattern, MarketZone::find_zone(zone).unwrap()).unwrap())
}

pub(super) fn schedule(trigger: ScheduleTrigger) -> CycleSchedule {
    CycleSchedule {
        trigger,
        calendar: None,
        hours: ScheduleHours::Any,
        overlap: OverlapPolicy::Skip,
        misfire: MisfirePolicy::Skip,
        misfire_after_ms: 1000,
        lateness_max_ms: 24 * HOUR,
        concurrent_max: 1,
        rate_limit: None,
        priority: 0,
    }
}

fn every_minute() -> CycleSchedule {
    schedule(ScheduleTrigger::Interval { every_ms: 60_000 })
}

fn new_york(day: Date, hour: i8, minute: i8) -> TsMs {
    MarketZone::find_zone("America/New_York").unwrap().find_moment(day.at(hour, minute, 0, 0)).unwrap()
}

/// Fires from the beginning of `day` until the end of `last`, as New York reads them.
fn fires_in_new_york(schedule: &CycleSchedule, day: Date, last: Date) -> Vec<String> {
    let (mut at, end) = (new_york(day, 0, 0).plus_ms(-1), new_york(last, 23, 59));
    let mut fires = Vec::new();
    while let Some(planned) = schedule.next_fire(at).unwrap().filter(|planned| *planned <= end) {
        let local = MarketZone::find_zone("America/New_York").unwrap().read_clock(planned).unwrap();
        fires.push(local.strftime("%m-%d %H:%M").to_string());
        at = planned;
    }
    fires
}

/// Takes every step that is due at `now`; no cycle ever ends.
fn take_steps(
    state: &mut ScheduleState,
    schedule: &CycleSchedule,
    now: TsMs,
    running: &mut u32,
) -> Vec<ScheduleStep> {
    let mut steps = Vec::new();
    loop {
        let step = state.next_step(schedule, now, *running).unwrap();
        state.apply_step(&step, now, schedule);
        match step {
            ScheduleStep::Wait { .. } => return steps,
            ScheduleStep::Fire { cancels_oldest: false, .. } => *running += 1,
            ScheduleStep::Fire { .. } | ScheduleStep::Hold { .. } | ScheduleStep::Skip(_) => {}
        }
        steps.push(step);
    }
}

fn fire(planned: TsMs) -> ScheduleStep {
    ScheduleStep::Fire { planned, cancels_oldest: false }
}

fn skipped(first: TsMs, last: TsMs, count: u64, reason: ScheduleSkipReason) -> ScheduleStep {
    ScheduleStep::Skip(SkippedFires { first, last, count, reason })
}

#[test]
fn time_that_the_clock_skips_fires_once_and_one_that_it_shows_twice_too() {
    let in_march = fires_in_new_york(
        &schedule(cron("30 2 * * *", "America/New_York")),
        date(2026, 3, 7),
        date(2026, 3, 9),
    );
    let in_november = fires_in_new_york(
        &schedule(cron("30 1 * * *", "America/New_York")),
        date(2026, 10, 31),
        date(2026, 11, 2),
    );

    assert_eq!(in_march, ["03-07 02:30", "03-08 03:00", "03-09 02:30"]);
    assert_eq!(in_november, ["10-31 01:30", "11-01 01:30", "11-02 01:30"]);
}

#[test]
fn one_to_five_is_monday_to_friday_in_the_zone_of_the_pattern() {
    let fires = fires_in_new_york(
        &schedule(cron("30 9 * * 1-5", "America/New_York")),
        date(2026, 8, 1),
        date(2026, 8, 8),
    );

    assert_eq!(fires, ["08-03 09:30", "08-04 09:30", "08-05 09:30", "08-06 09:30", "08-07 09:30"]);
}

#[test]
fn leap_day_comes_every_four_years() {
    let leap = schedule(cron("0 12 29 2 *", "UTC"));
    let years = |from: i16| {
        let at = MarketZone::find_zone("UTC").unwrap().find_moment(date(from, 1, 1).at(0, 0, 0, 0)).unwrap();
        let planned = leap.next_fire(at).unwrap().unwrap();
        MarketZone::find_zone("UTC").unwrap().read_date(planned).unwrap()
    };

    assert_eq!([years(2026), years(2029)], [date(2028, 2, 29), date(2032, 2, 29)]);
}

#[test]
fn seconds_are_a_sixth_field_and_nonsense_is_refused_with_its_reason() {
    let seconds = cron("*/15 * * * * *", "UTC");

    assert_eq!(seconds.first_fire_after(TsMs(1_000), None), Ok(Some(TsMs(15_000))));
    assert_eq!(seconds.first_fire_after(TsMs(14_999), None), Ok(Some(TsMs(15_000))));
    for wrong in ["", "61 * * * *", "* * *", "0 9 * * MOON", "0 0 0 0 0 0 0 2026"] {
        let utc = MarketZone::find_zone("UTC").unwrap();
        assert!(CronTrigger::parse(wrong, utc).is_err(), "{wrong}");
    }
    assert_eq!(schedule(cron("0 0 30 2 *", "UTC")).next_fire(TsMs(0)), Ok(None), "30 February never comes");
}

#[test]
fn distance_from_the_close_follows_an_early_close_and_leaves_out_closed_days() {
    let edge = |edge, offset_ms| CycleSchedule {
        calendar: Some(Arc::new(shipped("XNYS"))),
        ..schedule(ScheduleTrigger::Session { edge, offset_ms })
    };

    let before_close =
        fires_in_new_york(&edge(SessionEdge::Close, -10 * MINUTE), date(2026, 11, 25), date(2026, 11, 30));
    let after_open =
        fires_in_new_york(&edge(SessionEdge::Open, 15 * MINUTE), date(2026, 11, 25), date(2026, 11, 30));

    assert_eq!(before_close, ["11-25 15:50", "11-27 12:50", "11-30 15:50"]);
    assert_eq!(after_open, ["11-25 09:45", "11-27 09:45", "11-30 09:45"]);
}

#[test]
fn fires_outside_of_the_hours_are_one_record_when_the_hours_begin() {
    let schedule = CycleSchedule {
        calendar: Some(Arc::new(shipped("XNYS"))),
        hours: ScheduleHours::Session,
        ..every_minute()
    };
    let friday = new_york(date(2026, 7, 31), 15, 59);
    let monday = new_york(date(2026, 8, 3), 9, 30);
    let mut state = ScheduleState::switched_on(friday);

    let waiting = state.next_step(&schedule, new_york(date(2026, 8, 1), 12, 0), 0);
    let steps = take_steps(&mut state, &schedule, monday, &mut 0);

    assert_eq!(waiting, Ok(ScheduleStep::Wait { until: Some(monday) }));
    let closed =
        skipped(friday.plus_ms(MINUTE), monday.plus_ms(-MINUTE), 3930, ScheduleSkipReason::MarketClosed);
    assert_eq!(steps, [closed, fire(monday)]);
}

#[test]
fn schedule_that_never_meets_its_hours_fires_never() {
    let schedule = CycleSchedule {
        calendar: Some(Arc::new(shipped("XNYS"))),
        hours: ScheduleHours::Session,
        ..schedule(cron("30 1 * * *", "America/New_York"))
    };

    assert_eq!(schedule.next_fire(new_york(date(2026, 8, 3), 0, 0)), Ok(None));
}

#[test]
fn an_hour_of_absence_gives_none_one_or_sixty_cycles_and_each_skip_is_counted() {
    let (start, now) = (TsMs(0), TsMs(HOUR));
    let steps_of = |misfire| {
        let schedule = CycleSchedule { misfire, concurrent_max: 100, ..every_minute() };
        take_steps(&mut ScheduleState::switched_on(start), &schedule, now, &mut 0)
    };

    let missed = |count: i64| {
        skipped(TsMs(MINUTE), TsMs(count * MINUTE), count.unsigned_abs(), ScheduleSkipReason::Missed)
    };
    assert_eq!(steps_of(MisfirePolicy::Skip), [missed(59), fire(now)]);
    assert_eq!(steps_of(MisfirePolicy::Latest), [missed(59), fire(now)]);
    let all: Vec<_> = (1..=60).map(|minute| fire(TsMs(minute * MINUTE))).collect();
    assert_eq!(steps_of(MisfirePolicy::All), all);
}

#[test]
fn between_two_fires_latest_begins_the_last_one_that_was_missed_and_skip_none() {
    let now = TsMs(HOUR + MINUTE / 2);
    let steps_of = |misfire| {
        let schedule = CycleSchedule { misfire, ..every_minute() };
        take_steps(&mut ScheduleState::switched_on(TsMs(0)), &schedule, now, &mut 0)
    };

    let missed = |count: i64| {
        skipped(TsMs(MINUTE), TsMs(count * MINUTE), count.unsigned_abs(), ScheduleSkipReason::Missed)
    };
    assert_eq!(steps_of(MisfirePolicy::Skip), [missed(60)]);
    assert_eq!(steps_of(MisfirePolicy::Latest), [missed(59), fire(TsMs(HOUR))]);
}

#[test]
fn latest_is_the_last_one_within_the_hours() {
    let schedule = CycleSchedule {
        calendar: Some(Arc::new(shipped("XNYS"))),
        hours: ScheduleHours::Session,
        misfire: MisfirePolicy::Latest,
        ..every_minute()
    };
    let day = date(2026, 8, 3);
    let mut state = ScheduleState::switched_on(new_york(day, 15, 0));

    let steps = take_steps(&mut state, &schedule, new_york(day, 19, 0), &mut 0);

    let missed = skipped(new_york(day, 15, 1), new_york(day, 15, 58), 58, ScheduleSkipReason::Missed);
    assert_eq!(steps, [missed, fire(new_york(day, 15, 59))]);
}

#[test]
fn all_that_was_missed_never_bursts_beyond_what_may_run_and_goes_on_when_a_cycle_ends() {
    let schedule = CycleSchedule { misfire: MisfirePolicy::All, concurrent_max: 2, ..every_minute() };
    let (mut state, mut running) = (ScheduleState::switched_on(TsMs(0)), 0);
    let now = TsMs(HOUR);

    let first = take_steps(&mut state, &schedule, now, &mut running);
    running -= 1;
    let second = take_steps(&mut state, &schedule, now, &mut running);

    assert_eq!(first, [fire(TsMs(MINUTE)), fire(TsMs(2 * MINUTE))]);
    assert_eq!(second, [fire(TsMs(3 * MINUTE))]);
}

#[test]
fn what_is_later_than_allowed_is_skipped_whatever_the_policy() {
    let schedule = CycleSchedule {
        misfire: MisfirePolicy::All,
        concurrent_max: 100,
        lateness_max_ms: 10 * MINUTE,
        ..every_minute()
    };

    let steps = take_steps(&mut ScheduleState::switched_on(TsMs(0)), &schedule, TsMs(HOUR), &mut 0);

    assert_eq!(
        steps.first(),
        Some(&skipped(TsMs(MINUTE), TsMs(49 * MINUTE), 49, ScheduleSkipReason::TooLate))
    );
    assert_eq!(steps.len(), 1 + 11);
}

#[test]
fn slow_cycle_is_skipped_queued_once_or_cancelled() {
    let steps_of = |overlap| {
        let schedule = CycleSchedule { overlap, ..every_minute() };
        let (mut state, mut running) = (ScheduleState::switched_on(TsMs(0)), 0);
        let mut steps = Vec::new();
        for minute in 1..=3 {
            steps.extend(take_steps(&mut state, &schedule, TsMs(minute * MINUTE), &mut running));
        }
        running = 0;
        steps.extend(take_steps(&mut state, &schedule, TsMs(3 * MINUTE + 5), &mut running));
        steps
    };
    let [one, two, three] = [1, 2, 3].map(|minute| TsMs(minute * MINUTE));
    let overlapping = |at| skipped(at, at, 1, ScheduleSkipReason::Overlap);
    let cancelling = |planned| ScheduleStep::Fire { planned, cancels_oldest: true };

    assert_eq!(steps_of(OverlapPolicy::Skip), [fire(one), overlapping(two), overlapping(three)]);
    let hold = ScheduleStep::Hold { planned: two };
    assert_eq!(steps_of(OverlapPolicy::QueueOne), [fire(one), hold, overlapping(three), fire(two)]);
    assert_eq!(steps_of(OverlapPolicy::Cancel), [fire(one), cancelling(two), cancelling(three)]);
}

#[test]
fn more_fires_than_the_rate_allows_are_skipped() {
    let rate_limit = Some(FireRateLimit { fires_max: 2, period_ms: 5 * MINUTE });
    let schedule = CycleSchedule { rate_limit, concurrent_max: 100, ..every_minute() };
    let (mut state, mut running, mut fires) = (ScheduleState::switched_on(TsMs(0)), 0, Vec::new());

    for minute in 1..=7 {
        fires.extend(take_steps(&mut state, &schedule, TsMs(minute * MINUTE), &mut running));
    }

    let limited =
        |minute| skipped(TsMs(minute * MINUTE), TsMs(minute * MINUTE), 1, ScheduleSkipReason::RateLimited);
    let [a, b, f, g] = [1, 2, 6, 7].map(|minute| fire(TsMs(minute * MINUTE)));
    assert_eq!(fires, [a, b, limited(3), limited(4), limited(5), f, g]);
}

/// Method: a fire waits for the running cycle; it ends in time, or later than any policy allows, or not at all.
#[test]
fn a_fire_that_waits_begins_in_time_or_never() {
    let schedule = CycleSchedule {
        overlap: OverlapPolicy::QueueOne,
        lateness_max_ms: 10 * MINUTE,
        ..schedule(ScheduleTrigger::OnDemand)
    };
    let planned = TsMs(0);
    let waiting = ScheduleState::restored(planned, Some(planned), []);
    let too_late =
        SkippedFires { first: planned, last: planned, count: 1, reason: ScheduleSkipReason::TooLate };

    for (now, running, step) in [
        (10 * MINUTE, 0, ScheduleStep::Fire { planned, cancels_oldest: false }),
        (10 * MINUTE, 1, ScheduleStep::Wait { until: None }),
        (10 * MINUTE + 1, 0, ScheduleStep::Skip(too_late)),
        (10 * MINUTE + 1, 1, ScheduleStep::Skip(too_late)),
    ] {
        assert_eq!(waiting.next_step(&schedule, TsMs(now), running), Ok(step), "{now} {running}");
    }
    let mut skipped = waiting;
    skipped.apply_step(&ScheduleStep::Skip(too_late), TsMs(60 * MINUTE), &schedule);
    assert_eq!(skipped, ScheduleState::switched_on(planned), "it waits no longer");
}

#[test]
fn faults_of_a_schedule_are_named_together() {
    let broken = CycleSchedule {
        hours: ScheduleHours::Session,
        misfire_after_ms: -1,
        lateness_max_ms: -2,
        concurrent_max: 0,
        rate_limit: Some(FireRateLimit { fires_max: 0, period_ms: 0 }),
        ..schedule(ScheduleTrigger::Interval { every_ms: 0 })
    };

    let faults = broken.find_faults();

    assert_eq!(faults.len(), 7, "{faults:?}");
    assert_eq!(every_minute().find_faults(), Vec::<String>::new());
}

/// A schedule with any policies, on any trigger that has fires every few seconds or minutes.
fn any_schedule() -> impl Strategy<Value = CycleSchedule> {
    let triggers = prop::sample::select(vec![
        ScheduleTrigger::Interval { every_ms: 60_000 },
        ScheduleTrigger::Interval { every_ms: 7_000 },
        cron("*/5 * * * *", "America/New_York"),
        cron("30 1 * * *", "America/New_York"),
    ]);
    let overlaps =
        prop::sample::select(vec![OverlapPolicy::Skip, OverlapPolicy::QueueOne, OverlapPolicy::Cancel]);
    let misfires = prop::sample::select(vec![MisfirePolicy::Skip, MisfirePolicy::Latest, MisfirePolicy::All]);
    let hours = prop::sample::select(vec![ScheduleHours::Any, ScheduleHours::Session]);
    (triggers, overlaps, misfires, hours, 0..3_i64, 1..4_u32, prop::option::of(1..5_u32)).prop_map(
        |(trigger, overlap, misfire, hours, lateness, concurrent_max, rate)| CycleSchedule {
            overlap,
            misfire,
            hours,
            calendar: Some(Arc::new(shipped("XNYS"))),
            lateness_max_ms: 1000 + lateness * 20 * MINUTE,
            concurrent_max,
            rate_limit: rate.map(|fires_max| FireRateLimit { fires_max, period_ms: 10 * MINUTE }),
            ..schedule(trigger)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Method: a clock that goes, stands, jumps and falls back, cycles that end at any time, and a state that is built
    /// again from its steps now and then. Each planned time of the trigger is in exactly one fire, hold or skip.
    #[test]
    fn every_fire_is_decided_once_and_none_bursts(
        schedule in any_schedule(),
        moves in prop::collection::vec((-20 * MINUTE..90 * MINUTE, 0..3_u32), 1..25),
    ) {
        let start = new_york(date(2026, 10, 30), 15, 30);
        let (mut state, mut running, mut now) = (ScheduleState::switched_on(start), 0_u32, start);
        let mut taken = Vec::new();
        for (by, ended) in moves {
            now = now.plus_ms(by);
            running = running.saturating_sub(ended);
            for step in take_steps(&mut state, &schedule, now, &mut running) {
                taken.push((step, now));
            }
            prop_assert!(running <= schedule.concurrent_max);
            let mut again = ScheduleState::switched_on(start);
            taken.iter().for_each(|(step, at)| again.apply_step(step, *at, &schedule));
            prop_assert_eq!(&again, &state);
        }

        let mut counted = 0_u64;
        let (mut begun, mut until) = (Vec::new(), start);
        for (step, _) in &taken {
            match *step {
                ScheduleStep::Fire { planned, .. } if begun.last() == Some(&(planned, true)) => {
                    begun.pop();
                    begun.push((planned, false));
                }
                ScheduleStep::Fire { planned, .. } if planned <= until => {
                    let held = begun.iter().position(|known| *known == (planned, true));
                    prop_assert!(held.is_some(), "{planned} fires twice");
                    begun[held.unwrap()].1 = false;
                }
                ScheduleStep::Fire { planned, .. } | ScheduleStep::Hold { planned } => {
                    prop_assert!(until < planned);
                    begun.push((planned, matches!(step, ScheduleStep::Hold { .. })));
                    (counted, until) = (counted + 1, planned);
                }
                ScheduleStep::Skip(SkippedFires { first, last, count, .. }) if until < first => {
                    prop_assert!(first <= last);
                    (counted, until) = (counted + count, last);
                }
                ScheduleStep::Skip(SkippedFires { first, reason, .. }) => {
                    // A held fire that the rate limit lets go, or that has waited for too long.
                    let ends_a_wait = [ScheduleSkipReason::RateLimited, ScheduleSkipReason::TooLate];
                    prop_assert!(ends_a_wait.contains(&reason), "{reason:?}");
                    let held = begun.iter().position(|known| *known == (first, true));
                    prop_assert!(held.is_some());
                    begun[held.unwrap()].1 = false;
                }
                ScheduleStep::Wait { .. } => {}
            }
        }
        let mut planned = 0;
        let mut after = start;
        while let Some(range) = schedule.trigger.gather_fires(after, until.plus_ms(1), None).unwrap() {
            (planned, after) = (planned + range.count, range.last);
        }
        prop_assert_eq!(counted, planned, "each planned time up to {} is decided", until);
    }
}

#[test]
fn a_fire_that_no_time_brings_keeps_the_overlap_policy_and_the_rate() {
    let planned = TsMs(5);
    let only = SkippedFires { first: planned, last: planned, count: 1, reason: ScheduleSkipReason::Overlap };
    let fire = |cancels_oldest| ScheduleStep::Fire { planned, cancels_oldest };
    let fresh = ScheduleState::switched_on(TsMs(0));
    let with = |overlap| CycleSchedule { overlap, ..schedule(ScheduleTrigger::OnDemand) };
    for (overlap, running, step) in [
        (OverlapPolicy::Skip, 0, fire(false)),
        (OverlapPolicy::Skip, 1, ScheduleStep::Skip(only)),
        (OverlapPolicy::QueueOne, 1, ScheduleStep::Hold { planned }),
        (OverlapPolicy::Cancel, 1, fire(true)),
    ] {
        assert_eq!(fresh.on_demand_step(&with(overlap), planned, running), step, "{overlap:?}");
    }

    let waiting = ScheduleState::restored(TsMs(0), Some(TsMs(4)), []);
    let queue = with(OverlapPolicy::QueueOne);
    assert_eq!(waiting.on_demand_step(&queue, planned, 0), ScheduleStep::Skip(only), "one waits already");
    assert_eq!(
        waiting.next_step(&queue, planned, 0),
        Ok(ScheduleStep::Fire { planned: TsMs(4), cancels_oldest: false })
    );

    let rate_limit = Some(FireRateLimit { fires_max: 1, period_ms: 10 });
    let limited = CycleSchedule { rate_limit, ..with(OverlapPolicy::Skip) };
    let begun = ScheduleState::restored(TsMs(0), None, [TsMs(1)]);
    let over = SkippedFires { reason: ScheduleSkipReason::RateLimited, ..only };
    assert_eq!(begun.on_demand_step(&limited, planned, 0), ScheduleStep::Skip(over));
}
