//! `orchestrator schedule next`: what a configuration alone says about its fires, on the real binary.

use std::fmt::Write as _;

use serde_json::Value;

use crate::support::{orchestrator, orchestrator_with};

/// A schedule of the canonical pipeline with these further settings.
fn schedule(name: &str, settings: &str) -> String {
    format!(
        "[trading.schedules.{name}]\npipeline = \"canonical\"\noverlap = \"skip\"\nmisfire = \"skip\"\n\
         lateness_max = \"1m\"\n{settings}\n"
    )
}

/// The local times at which the schedules of `config` fire next.
fn local_fires(config: &str, from: &str, count: u32) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("service.toml");
    std::fs::write(&path, config).unwrap();
    let (path, count) = (path.to_str().unwrap(), count.to_string());
    let answer =
        orchestrator(&["schedule", "next", "--json", "--from", from, "--count", &count, "--config", path]);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let schedules = answer["schedules"].as_array().unwrap();
    let fires = schedules.iter().flat_map(|schedule| schedule["next"].as_array().unwrap());
    fires.map(|fire| fire["local"].as_str().unwrap().to_owned()).collect()
}

/// T1: a time that the clock skips fires once when it is over, one that it shows twice fires once.
#[test]
fn a_schedule_fires_once_at_each_change_of_the_clocks() {
    let cron = |pattern: &str| {
        let settings =
            format!("trigger = \"cron\"\ncron = \"{pattern}\"\nzone = \"America/New_York\"\nhours = \"any\"");
        schedule("nightly", &settings)
    };

    assert_eq!(
        local_fires(&cron("30 2 * * *"), "2026-03-07T00:00:00-05:00", 3),
        ["2026-03-07T02:30:00", "2026-03-08T03:00:00", "2026-03-09T02:30:00"]
    );
    assert_eq!(
        local_fires(&cron("30 1 * * *"), "2026-10-31T00:00:00-04:00", 3),
        ["2026-10-31T01:30:00", "2026-11-01T01:30:00", "2026-11-02T01:30:00"]
    );
}

/// A zone that left out a date, as Samoa did when it went over the date line: its schedules go on behind it.
#[test]
fn a_schedule_goes_on_behind_a_date_that_its_zone_left_out() {
    let daily = schedule(
        "daily",
        "trigger = \"cron\"\ncron = \"0 9 * * *\"\nzone = \"Pacific/Apia\"\nhours = \"any\"",
    );

    assert_eq!(
        local_fires(&daily, "2011-12-28T00:00:00-10:00", 4),
        ["2011-12-28T09:00:00", "2011-12-29T09:00:00", "2011-12-31T09:00:00", "2012-01-01T09:00:00"]
    );
}

/// T2: nothing on a holiday, and ten minutes before the early close of the day after it.
#[test]
fn a_schedule_knows_holidays_and_early_closes() {
    let config = schedule("close", "trigger = \"session\"\nat = \"close-10m\"\ncalendar = \"XNYS\"")
        + &schedule(
            "minutely",
            "trigger = \"interval\"\ninterval = \"1m\"\ncalendar = \"XNYS\"\nhours = \"session\"\nenabled = false",
        );

    assert_eq!(
        local_fires(&config, "2025-11-26T12:00:00-05:00", 3),
        ["2025-11-26T15:50:00", "2025-11-28T12:50:00", "2025-12-01T15:50:00"]
    );
}

/// The calendar speaks of the next months, and the schedule's hours are those of its session.
#[test]
fn a_schedule_that_never_meets_its_hours_is_told_so_and_not_blamed_on_the_calendar() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("service.toml");
    let early =
        "trigger = \"cron\"\ncron = \"0 9 * * 1-5\"\nzone = \"America/New_York\"\ncalendar = \"XNYS\"";
    std::fs::write(&path, schedule("early", early)).unwrap();
    let ask = |from: &str, set: &str| {
        let answer = orchestrator(&[
            "schedule",
            "next",
            "--from",
            from,
            "--config",
            path.to_str().unwrap(),
            "--set",
            set,
        ]);
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap()
    };
    let hours_only = "trading.hours.market_hours_only=true";

    for from in ["2026-01-09T09:00:00Z", "2027-06-01T09:00:00Z"] {
        let told = ask(from, hours_only);

        assert!(told.contains("none of its times lies within its hours (hours = \"session\""), "{told}");
        assert!(told.contains("T09:00:00 America/New_York") && !told.contains("get a newer one"), "{told}");
    }
    let ended = ask("2027-12-01T09:00:00Z", hours_only);
    assert!(ended.contains("get a newer one"), "{ended}");
    let at_any_time = ask("2026-01-09T09:00:00Z", "trading.hours.market_hours_only=false");
    assert_eq!(at_any_time.lines().count(), 5, "{at_any_time}");
}

#[test]
fn a_schedule_of_the_29th_waits_for_a_leap_day() {
    let config =
        schedule("leap", "trigger = \"cron\"\ncron = \"0 0 29 2 *\"\nzone = \"UTC\"\nhours = \"any\"");

    assert_eq!(
        local_fires(&config, "2027-03-01T00:00:00Z", 2),
        ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]
    );
}

#[test]
fn the_fires_of_all_schedules_are_printed_in_the_order_of_time_and_a_name_chooses() {
    let mut config = schedule("b", "trigger = \"interval\"\ninterval = \"2h\"\nhours = \"any\"");
    write!(
        config,
        "{}",
        schedule("a", "trigger = \"cron\"\ncron = \"0 10 * * *\"\nzone = \"UTC\"\nhours = \"any\"")
    )
    .unwrap();
    write!(config, "{}", schedule("c", "trigger = \"manual\"")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("service.toml");
    std::fs::write(&path, config).unwrap();
    let path = path.to_str().unwrap();
    let ask = |more: &[&str]| {
        let base = ["schedule", "next", "--from", "2026-01-09T09:00:00Z", "--count", "2", "--config", path];
        let answer = orchestrator(&[&base[..], more].concat());
        (
            answer.status.code(),
            String::from_utf8(answer.stdout).unwrap(),
            String::from_utf8(answer.stderr).unwrap(),
        )
    };

    let (code, all, _) = ask(&[]);
    let begins: Vec<&str> = all.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(code, Some(0));
    assert_eq!(
        begins,
        [
            "2026-01-09T10:00:00+00:00",
            "2026-01-09T10:00:00+00:00",
            "2026-01-09T12:00:00+00:00",
            "2026-01-10T10:00:00+00:00",
            "c (manual): no time makes it fire",
        ],
        "{all}"
    );
    let (code, one, _) = ask(&["b"]);
    assert_eq!((code, one.lines().count()), (Some(0), 2), "{one}");
    let (code, _, said) = ask(&["nobody"]);
    assert!(code == Some(2) && said.contains("there is no schedule \"nobody\""), "{said}");
    let none = orchestrator_with(&["schedule", "next"], &[]);
    assert_eq!((none.status.code(), none.stdout.as_slice()), (Some(0), &b"no schedule is enabled\n"[..]));
}
