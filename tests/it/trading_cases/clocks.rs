//! T1 to T3: cycles at changes of the clocks, on closed days and early closes, and on the exchange's date.

use serde_json::Value;

use super::{momentum, passes, schedule, witness};
use crate::support::stage_server::StageServer;
use crate::support::trading::{TradingPlace, moment};

/// A cycle of this cron line in New York, whatever the market's hours.
fn nightly(cron: &str) -> String {
    let trigger =
        format!("trigger = \"cron\"\ncron = \"{cron}\"\nzone = \"America/New_York\"\nhours = \"any\"");
    let cycles = schedule("nightly", "canonical", &trigger) + &witness() + &momentum(&["nightly"]);
    format!("[trading.pipelines.canonical]\nstale_after = \"0s\"\n{cycles}")
}

/// The moments at which a schedule will fire, as they are printed before anything runs.
fn previewed(place: &TradingPlace, name: &str, from: &str, count: &str) -> Vec<i64> {
    let printed = place.run(&["schedule", "next", name, "--json", "--from", from, "--count", count], 0);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    let fires = printed["schedules"][0]["next"].as_array().unwrap();
    fires.iter().map(|fire| moment(fire["at"].as_str().unwrap())).collect()
}

/// Method: the wall clock is put to just before each moment at which a second fire could come, and passes it.
async fn check_fires(cron: &str, begin: &str, moments: &[(&str, &str)], fires: &[&str]) {
    let (place, clock) = TradingPlace::at(moment(begin), &nightly(cron));
    let fires: Vec<i64> = fires.iter().map(|fire| moment(fire)).collect();
    assert_eq!(previewed(&place, "nightly", begin, &fires.len().to_string()), fires, "as it is previewed");

    let service = place.start_trading().await;
    for (before, behind) in moments {
        clock.jump_to(moment(before));
        passes(&service, behind).await;
    }
    service.ended_cycles("canonical", fires.len()).await;
    service.stop().await;

    let journal = place.journal();
    assert_eq!(journal.fired("nightly"), fires);
    journal.check_accounts();
}

/// T1: 02:30 is skipped by the clocks, so it fires once, when it is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_the_clocks_skip_fires_once_when_it_is_over() {
    let moments = [
        ("2026-03-08T01:59:58-05:00", "2026-03-08T03:00:01-04:00"),
        ("2026-03-08T03:29:58-04:00", "2026-03-08T03:30:01-04:00"),
        ("2026-03-09T02:29:58-04:00", "2026-03-09T02:30:01-04:00"),
    ];
    let fires = ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"];

    check_fires("30 2 * * *", "2026-03-08T01:58:00-05:00", &moments, &fires).await;
}

/// T1: 01:30 comes twice, and fires once; also when the wall clock is put back by hand right behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_the_clocks_show_twice_fires_once() {
    let moments = [
        ("2026-11-01T01:29:58-04:00", "2026-11-01T01:30:01-04:00"),
        ("2026-11-01T01:29:59-04:00", "2026-11-01T01:30:03-04:00"),
        ("2026-11-01T01:29:58-05:00", "2026-11-01T01:30:01-05:00"),
        ("2026-11-02T01:29:58-05:00", "2026-11-02T01:30:01-05:00"),
    ];
    let fires = ["2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"];

    check_fires("30 1 * * *", "2026-11-01T01:28:00-04:00", &moments, &fires).await;
}

/// T2: nothing on a closed day, whatever its hour; on the day of an early close ten minutes before that one.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_day_has_no_cycle_and_an_early_close_is_the_close() {
    let trading = String::new()
        + "[trading.pipelines.canonical]\nstale_after = \"0s\"\n"
        + "[trading.pipelines.analysis]\nstale_after = \"0s\"\n"
        + &schedule("close", "canonical", "trigger = \"session\"\nat = \"close-10m\"\ncalendar = \"XNYS\"")
        + &schedule(
            "minutely",
            "analysis",
            "trigger = \"interval\"\ninterval = \"1m\"\ncalendar = \"XNYS\"\nhours = \"session\"",
        )
        + &witness()
        + &momentum(&["close", "minutely"])
        + "calendar = \"XNYS\"\n";
    let begin = "2026-11-26T12:49:10-05:00";
    let (place, clock) = TradingPlace::at(moment(begin), &trading);
    let early = moment("2026-11-27T12:50:00-05:00");
    assert_eq!(previewed(&place, "close", begin, "2"), [early, moment("2026-11-30T15:50:00-05:00")]);

    let service = place.start_trading().await;
    for (before, behind) in [
        ("2026-11-26T12:49:58-05:00", "2026-11-26T12:50:01-05:00"),
        ("2026-11-26T15:49:58-05:00", "2026-11-26T15:50:01-05:00"),
    ] {
        clock.jump_to(moment(before));
        passes(&service, behind).await;
        for pipeline in ["canonical", "analysis"] {
            assert!(service.cycles(pipeline).await.is_empty(), "{pipeline} on a closed day");
        }
    }
    clock.jump_to(moment("2026-11-27T12:49:58-05:00"));
    let cycle = service.ended_cycles("canonical", 1).await.remove(0);
    service.ended_cycles("analysis", 1).await;
    clock.jump_to(moment("2026-11-27T15:49:58-05:00"));
    passes(&service, "2026-11-27T15:50:01-05:00").await;
    service.stop().await;

    assert_eq!(cycle["status"], "completed", "{cycle}");
    let journal = place.journal();
    assert_eq!(journal.fired("close"), [early]);
    assert_eq!(journal.fired("minutely"), [early], "the market is open then, and at no other moment here");
    assert_eq!(journal.skipped("minutely", "session_closed"), 20 * 60 + 40, "from then to the next open");
    let told = place.inspect(cycle["id"].as_str().unwrap());
    assert!(told.contains("exchange's date    2026-11-27"), "{told}");
    journal.check_accounts();
}

/// T3: half past ten in New York is tomorrow in UTC; the date is that of the exchange, to everybody who is told one.
#[tokio::test(flavor = "multi_thread")]
async fn an_evening_in_new_york_has_the_date_of_the_exchange() {
    let server = StageServer::start().await;
    let evening = |pipeline: &str| {
        let trigger =
            "trigger = \"cron\"\ncron = \"30 22 * * *\"\nzone = \"America/New_York\"\nhours = \"any\"";
        let stages = "stages = [\"ING\", \"SIG\", \"RISK\", \"EXEC\", \"GOV\"]\nstale_after = \"0s\"\n";
        let provided =
            |stage: &str| format!("[trading.pipelines.{pipeline}.stage.{stage}]\nprovider = \"mine\"\n");
        format!("[trading.pipelines.{pipeline}]\n{stages}{}{}", provided("ING"), provided("SIG"))
            + &schedule(pipeline, pipeline, trigger)
    };
    let strategy = |name: &str, calendar: &str| {
        format!(
            "[trading.strategies.{name}]\nkind = \"mine\"\nsymbols = [\"AAPL\"]\nstatus = \"active\"\n\
             schedules = [\"{name}\"]\ncalendar = \"{calendar}\"\n"
        )
    };
    let trading = String::from("[trading.hours]\nmarket_hours_only = false\n")
        + &server.section("mine")
        + &evening("new_york")
        + &evening("chicago")
        + &strategy("new_york", "XNYS")
        + &strategy("chicago", "CMES");
    let (place, clock) = TradingPlace::at(moment("2026-06-10T22:28:00-04:00"), &trading);

    let service = place.start_trading().await;
    clock.jump_to(moment("2026-06-10T22:29:59-04:00"));
    // In Chicago the session of the 11th has begun at five; in New York it is the evening of the 10th.
    for (name, date) in [("new_york", "2026-06-10"), ("chicago", "2026-06-11")] {
        let cycle = service.ended_cycles(name, 1).await.remove(0);
        let id = cycle["id"].as_str().unwrap();
        let details = service.page(&format!("cycles/{id}")).await;
        assert_eq!(details["cycle"]["metadata"]["as_of_date"], date, "{details}");
        assert_eq!((&cycle["status"], &cycle["orders"]), (&"completed".into(), &1.into()), "{cycle}");
        for stage in ["ING", "SIG"] {
            let asked = server.asked(&format!("{name}/{stage}"));
            assert!(!asked.is_empty() && asked.iter().all(|asked| asked["as_of_date"] == date), "{asked:?}");
        }
    }
    let id = service.cycles("new_york").await[0]["id"].as_str().unwrap().to_owned();
    service.stop().await;

    let told = place.inspect(&id);
    assert!(told.contains("exchange's date    2026-06-10"), "{told}");
    place.journal().check_accounts();
}
