//! T10: an agent that was stopped, paused or running when the service was killed, and is looked at an hour later.

use serde_json::{Value, json};

use super::{momentum, passes, schedule, witness};
use crate::support::eventually;
use crate::support::stage_server::{OnAsked, StageServer};
use crate::support::trading::{TradingPlace, moment};

const BEGIN: &str = "2026-06-10T12:00:00Z";
const HOUR_LATER: &str = "2026-06-10T13:00:00Z";

/// A cycle every second of a strategy that needs nobody.
fn secondly() -> String {
    "[trading.pipelines.canonical]\nstale_after = \"0s\"\n".to_owned()
        + &schedule("secondly", "canonical", "trigger = \"interval\"\ninterval = \"1s\"\nhours = \"any\"")
        + &witness()
        + &momentum(&["secondly"])
}

/// When a cycle began.
fn began(cycle: &Value) -> i64 {
    moment(cycle["startedAt"].as_str().unwrap())
}

/// T10: nothing but an operator starts a stopped agent.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_is_stopped_after_a_crash_and_an_hour() {
    let (place, clock) = TradingPlace::at(moment(BEGIN), &secondly());
    let service = place.start_trading().await;
    service.ended_cycles("canonical", 1).await;
    service.done("agent/stop", &json!({ "reason": "the day is over" })).await;
    service.kill();
    clock.jump_to(moment(HOUR_LATER));

    let service = place.start().await;
    passes(&service, "2026-06-10T13:00:02Z").await;
    assert_eq!(service.agent().await["status"], "stopped");
    let cycles = service.cycles("canonical").await;
    let since = cycles.iter().find(|cycle| moment(HOUR_LATER) <= began(cycle));
    assert_eq!(since, None, "a cycle without an agent");
    service.stop().await;

    let journal = place.journal();
    assert!(0 < journal.skipped("secondly", "agent_not_running"), "each fire is on record");
    journal.check_accounts();
}

/// T10: a pause of five minutes lasts five minutes, whoever is there when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_that_ended_while_the_service_was_away_is_over() {
    let (place, clock) = TradingPlace::at(moment(BEGIN), &secondly());
    let service = place.start_trading().await;
    let paused = service.done("agent/pause", &json!({ "duration": 5 })).await;
    let resume_at = moment(paused["resumeAt"].as_str().unwrap());
    service.kill();

    clock.jump_to(moment(BEGIN) + 120_000);
    let service = place.start().await;
    passes(&service, "2026-06-10T12:02:01Z").await;
    let agent = service.agent().await;
    assert_eq!((&agent["status"], &agent["resumeAt"]), (&"paused".into(), &paused["resumeAt"]), "{agent}");
    service.kill();

    clock.jump_to(moment(HOUR_LATER));
    let service = place.start().await;
    let agent = service.agent().await;
    assert_eq!((&agent["status"], agent["resumeAt"].is_null()), (&"running".into(), true), "{agent}");
    let cycles = eventually("cycles go on", async || {
        let cycles = service.cycles("canonical").await;
        cycles.iter().any(|cycle| resume_at < began(cycle)).then_some(cycles)
    })
    .await;
    let paused_at = resume_at - 300_000;
    let in_pause = |cycle: &&Value| (paused_at..resume_at).contains(&began(cycle));
    assert_eq!(cycles.iter().find(in_pause), None, "a cycle in the pause");
    service.stop().await;

    place.journal().check_accounts();
}

/// T10: a running agent runs on, and what was open is known before anything begins. The cycle that was interrupted
/// keeps its id and ends; its time was over long ago, so nothing of an hour ago is traded on.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_catches_up_first_and_an_interrupted_cycle_trades_on_nothing_of_an_hour_ago() {
    let server = StageServer::start().await;
    let stages = ["ING", "FEAT", "SIG"]
        .map(|stage| format!("[trading.pipelines.canonical.stage.{stage}]\nprovider = \"mine\"\n"));
    let trading = server.section("mine")
        + &secondly().replace("kind = \"momentum\"", "kind = \"mine\"")
        + &stages.concat();
    let (place, clock) = TradingPlace::at(moment(BEGIN), &trading);
    server.next("FEAT", [OnAsked::Hang]);
    let service = place.start_trading().await;
    server.was_asked("FEAT", 1).await;
    let interrupted = server.asked("FEAT")[0]["cycle_id"].as_str().unwrap().to_owned();
    // Its beginning is durable: else it would not be known.
    eventually("the cycle is shown", async || {
        let (status, _) = service.service.get(&format!("/api/v1/cycles/{interrupted}")).await;
        (status == 200).then_some(())
    })
    .await;
    service.kill();
    clock.jump_to(moment(HOUR_LATER));

    let service = place.start().await;
    let agent = service.agent().await;
    assert_eq!((&agent["status"], &agent["catchingUp"]), (&"running".into(), &false.into()), "{agent}");
    let ended = eventually("it ends", async || {
        let details = service.page(&format!("cycles/{interrupted}")).await;
        (!details["cycle"]["completedAt"].is_null()).then_some(details)
    })
    .await;
    eventually("cycles go on", async || {
        let cycles = service.cycles("canonical").await;
        let fresh = |cycle: &Value| cycle["id"] != *interrupted && cycle["orders"] == 1;
        cycles.iter().any(fresh).then_some(())
    })
    .await;
    let log = service.service.log();
    service.stop().await;

    let at = |word: &str| log.rfind(word).unwrap_or_else(|| panic!("{word} is not in the log"));
    assert!(at("a cycle goes on that was interrupted") < at("the trading plane runs"), "first what was open");
    let journal = place.journal();
    journal.check_accounts();
    assert_eq!(
        journal.of_cycle("order_intended", &interrupted).len(),
        0,
        "on a price of an hour ago: {ended}"
    );
    let end = journal.of_cycle("cycle_ended", &interrupted)[0];
    assert_eq!(
        (&end["status"], &end["errors"][0]["code"]),
        (&"failed".into(), &"E_ORCH_TIMEOUT".into()),
        "{end}"
    );
}
