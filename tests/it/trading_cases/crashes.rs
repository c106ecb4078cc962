//! T6: kill −9 at every record of a cycle.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::stage_server::{OnAsked, StageServer};
use crate::support::trading::{STRATEGY, TradingPlace, TradingService};

/// Stages of others. EXEC is always the service's own, and RISK judges by its own rules here.
const STAGES: [&str; 6] = ["ING", "FEAT", "SIG", "PORT", "ANA", "GOV"];
/// Hooks, each with its stage and moment: between the records of the stages there are those of these.
const HOOKS: [(&str, &str, &str); 6] = [
    ("enter_risk", "RISK", "before"),
    ("leave_risk", "RISK", "after"),
    ("enter_exec", "EXEC", "before"),
    ("leave_exec", "EXEC", "after"),
    ("enter_gov", "GOV", "before"),
    ("leave_gov", "GOV", "after"),
];
/// Kills at moments that grow from the command's on, so that they hit what is not durable yet.
const KILLS_BY_TIME: u64 = 6;

fn canonical(server: &StageServer) -> String {
    let stages =
        STAGES.map(|stage| format!("[trading.pipelines.canonical.stage.{stage}]\nprovider = \"mine\"\n"));
    let hooks = HOOKS.map(|(name, stage, moment)| {
        format!(
            "[trading.pipelines.canonical.hook.{name}]\nstage = \"{stage}\"\nmoment = \"{moment}\"\n\
             mode = \"HARD\"\nprovider = \"mine\"\nbudget = \"1m\"\n"
        )
    });
    "[trading.pipelines.canonical]\nstale_after = \"0s\"\n".to_owned()
        + &stages.concat()
        + &hooks.concat()
        + &server.section("mine")
        + STRATEGY
}

/// Sends the command again that a crash interrupted, with its key, until its cycle has ended. The cycle's id.
async fn end_of(service: &TradingService, key: &str) -> String {
    let (status, answer) = service.post("cycles", &json!({ "pipeline": "canonical" }), Some(key)).await;
    match status {
        200 => {
            assert_eq!(answer["status"], "ok", "{answer}");
            answer["correlation_id"].as_str().unwrap().to_owned()
        }
        202 => answer["cycleId"].as_str().unwrap().to_owned(),
        _ => panic!("{key}: {status} {answer}"),
    }
}

/// T6. Method: each stage and each hook is held in a cycle of its own, and the service is killed then; and then killed
/// at growing moments. After each kill the command is sent again with its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_that_is_killed_at_any_record_keeps_its_id_ends_once_and_intends_nothing_twice() {
    let server = StageServer::start().await;
    let place = TradingPlace::new(&canonical(&server));
    let mut service = place.start_trading().await;
    let command = json!({ "pipeline": "canonical" });
    let mut cycles = BTreeSet::new();

    for held in STAGES.into_iter().chain(HOOKS.map(|(name, ..)| name)) {
        server.next(held, [OnAsked::Hang]);
        let before = server.asked(held).len();
        service.post_unheard("cycles", &command, held);
        server.was_asked(held, before + 1).await;
        let interrupted = server.asked(held)[before].clone();
        service.kill();

        service = place.start().await;
        let cycle = end_of(&service, held).await;
        assert_eq!(interrupted["cycle_id"], *cycle, "{held}: the same cycle");
        let again = server.asked(held)[before + 1].clone();
        assert_eq!(interrupted["idempotency_key"], again["idempotency_key"], "{held}: the same question");
        assert!(cycles.insert(cycle), "{held}: one cycle a command");
    }
    for kill in 0..KILLS_BY_TIME {
        let key = format!("after {kill}");
        service.post_unheard("cycles", &command, &key);
        // It is the moment that is tried out, whatever it hits.
        tokio::time::sleep(Duration::from_millis(4 * kill)).await;
        service.kill();

        service = place.start().await;
        assert!(cycles.insert(end_of(&service, &key).await), "{key}: one cycle a command");
    }
    service.ended_cycles("canonical", 1).await;
    service.stop().await;

    let journal = place.journal();
    journal.check_accounts();
    let ended = journal.facts("cycle_ended");
    let ids: BTreeSet<String> =
        ended.iter().map(|ended| ended["cycle_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, cycles);
    for ended in ended {
        let done = |ended: &Value| ended["status"] == "ok" && ended["counts"]["intents"] == 1;
        assert!(done(ended), "it goes on as if nothing had been: {ended}");
    }
}
