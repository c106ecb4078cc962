//! T5: a cycle that is slower than its schedule, under each overlap policy.

use serde_json::Value;

use super::schedule;
use crate::support::eventually;
use crate::support::stage_server::{OnAsked, StageServer};
use crate::support::trading::{Journal, STRATEGY, TradingPlace};

/// A schedule of every second, with a pipeline of its own name whose signals come from the server.
fn secondly(name: &str) -> String {
    let pipeline = format!(
        "[trading.pipelines.{name}]\nstages = [\"ING\", \"SIG\", \"RISK\", \"EXEC\", \"GOV\"]\n\
         stale_after = \"0s\"\n[trading.pipelines.{name}.stage.SIG]\nprovider = \"mine\"\n"
    );
    let trigger = "trigger = \"interval\"\ninterval = \"1s\"\nhours = \"any\"";
    pipeline + &schedule(name, name, trigger).replace("overlap = \"skip\"", &format!("overlap = \"{name}\""))
}

/// Positions of the records of a kind that name this cycle.
fn position(journal: &Journal, kind: &str, cycle: &Value) -> usize {
    let found = journal.0.iter().position(|it| it["kind"] == kind && it["fact"]["cycle_id"] == *cycle);
    found.unwrap_or_else(|| panic!("no {kind} of {cycle}"))
}

/// T5. Method: the first cycle of each schedule is held while fires come; the one that is to be cancelled never gets an
/// answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_fire_that_finds_a_cycle_running_is_skipped_queued_or_cancels_it_and_each_is_said() {
    let server = StageServer::start().await;
    let trading = server.section("mine")
        + &secondly("skip")
        + &secondly("queue_one")
        + &secondly("cancel")
        + STRATEGY
        + "schedules = [\"skip\", \"queue_one\", \"cancel\"]\n";
    let place = TradingPlace::new(&trading);
    for (name, act) in [("skip", OnAsked::Hold), ("queue_one", OnAsked::Hold), ("cancel", OnAsked::Hang)] {
        server.next(&format!("{name}/SIG"), [act]);
    }
    let service = place.start_trading().await;
    for name in ["skip", "queue_one", "cancel"] {
        server.was_asked(&format!("{name}/SIG"), 1).await;
    }
    // One skipped by the first schedule, and one by the second behind the one that waits.
    eventually("fires find cycles running", async || {
        let skipped = service.metric("orch_cadence_fires_skipped_total{reason=\"overlap\"}").await;
        (4.0 <= skipped).then_some(())
    })
    .await;
    assert_eq!(server.asked("skip/SIG").len(), 1, "nothing begins beside the one that runs");
    assert_eq!(server.asked("queue_one/SIG").len(), 1, "nothing begins beside the one that runs");
    server.was_asked("cancel/SIG", 2).await;

    server.release();
    for name in ["skip", "queue_one", "cancel"] {
        service.ended_cycles(name, 3).await;
    }
    let cancelled = service.ended_cycles("cancel", 3).await.remove(0);
    service.stop().await;

    let journal = place.journal();
    journal.check_accounts();
    let first_of = |name: &str| server.asked(&format!("{name}/SIG"))[0]["cycle_id"].clone();
    assert!(0 < journal.skipped("skip", "overlap"));

    let queued: Vec<&Value> = journal
        .facts("schedule_fired")
        .into_iter()
        .filter(|fact| fact["schedule"] == "queue_one" && fact["disposition"] == "Queue")
        .collect();
    let first = position(&journal, "cycle_ended", &first_of("queue_one"));
    assert!(!queued.is_empty() && 0 < journal.skipped("queue_one", "overlap"), "{queued:?}");
    assert!(
        first < position(&journal, "cycle_started", &queued[0]["cycle_id"]),
        "it waits for the first one"
    );

    let first = first_of("cancel");
    assert_eq!((&cancelled["id"], &cancelled["status"]), (&first, &"cancelled".into()), "{cancelled}");
    assert_eq!(cancelled["errors"][0]["code"], "E_ORCH_BLOCKED", "{cancelled}");
    let told = place.inspect(first.as_str().unwrap());
    assert!(told.contains("schedule cancel fired again"), "{told}");
    let ended = journal.of_cycle("cycle_ended", first.as_str().unwrap());
    assert_eq!((&ended[0]["status"], &ended[0]["counts"]["intents"]), (&"blocked".into(), &0.into()));
}
