//! T9 and T12: gates between the stages of a cycle: the kill switch that flips, and HARD gates of others.

use std::fs;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::stage_server::{OnAsked, StageServer};
use crate::support::trading::{STRATEGY, TradingPlace, TradingService};

/// The canonical pipeline under this name, whose inputs and signals come from the server, with this hook.
fn pipeline(name: &str, hook: &str) -> String {
    let provided = ["ING", "SIG"]
        .map(|stage| format!("[trading.pipelines.{name}.stage.{stage}]\nprovider = \"mine\"\n"));
    format!(
        "[trading.pipelines.{name}]\nstale_after = \"0s\"\n\
         stages = [\"ING\", \"FEAT\", \"SIG\", \"RISK\", \"EXEC\", \"PORT\", \"ANA\", \"GOV\"]\n{}{hook}",
        provided.concat()
    )
}

fn check_blocked(result: &Value, words: &[&str]) {
    assert_eq!((&result["status"], &result["order_intents"]), (&"blocked".into(), &0.into()), "{result}");
    let reason = result["reason"].as_str().unwrap();
    words.iter().for_each(|word| assert!(reason.contains(word), "{word}: {reason}"));
    assert_eq!(result["errors"][0]["code"], "E_ORCH_BLOCKED", "{result}");
}

/// Flips of the kill switch in a file, what each says to whoever asks why, and how trading is allowed again.
async fn flip(place: &TradingPlace, service: &TradingService, how: &str) {
    let file = place.data().join("kill_switch.json");
    match how {
        "engage" => place.switch(&["engage", "--operator", "mary", "--reason", "odd prices"]),
        "remove" => fs::remove_file(&file).unwrap(),
        "garbage" => fs::write(&file, "garbage").unwrap(),
        "directory" => {
            fs::remove_file(&file).unwrap();
            fs::create_dir(&file).unwrap();
        }
        "latch" => {
            let latch = json!({ "operator": "mary", "reason": "odd prices" });
            service.done("kill-switch/latch", &latch).await;
        }
        _ => panic!("{how}"),
    }
}

async fn allow_again(place: &TradingPlace, service: &TradingService, how: &str) {
    let file = place.data().join("kill_switch.json");
    match how {
        "engage" => place.switch(&["disengage", "--operator", "mary"]),
        "latch" => {
            let release = json!({ "operator": "mary", "reason": "they were right" });
            service.done("kill-switch/release", &release).await;
        }
        "directory" => {
            fs::remove_dir(&file).unwrap();
            place.switch(&["init", "--operator", "mary"]);
        }
        "garbage" => {
            fs::remove_file(&file).unwrap();
            place.switch(&["init", "--operator", "mary"]);
        }
        _ => place.switch(&["init", "--operator", "mary"]),
    }
}

/// T9. Method: the switch flips while signals are made, which come then; nothing behind them is begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_in_a_file_that_flips_between_two_stages_blocks_with_who_and_why() {
    let server = StageServer::start().await;
    let place = TradingPlace::new(&(server.section("mine") + &pipeline("day", "") + STRATEGY));
    let service = place.start_trading().await;
    for (how, words) in [
        ("engage", ["kill_switch: ", "mary", "odd prices"]),
        ("remove", ["kill_switch: ", "nothing is stored", ""]),
        ("garbage", ["kill_switch: ", "unknown", ""]),
        ("directory", ["kill_switch: ", "unknown", ""]),
        ("latch", ["kill_switch: ", "latched: ", "odd prices"]),
    ] {
        let asked = server.asked("SIG").len();
        server.next("SIG", [OnAsked::Hold]);
        let flipped = async {
            server.was_asked("SIG", asked + 1).await;
            flip(&place, &service, how).await;
            server.release();
        };

        let (result, ()) = tokio::join!(service.run_cycle("day"), flipped);

        check_blocked(&result, &words);
        let stages = &result["stage_results"];
        assert_eq!(
            (&stages["SIG"]["status"], &stages["RISK"]["status"]),
            (&"done".into(), &"not_begun".into())
        );
        let id = result["correlation_id"].as_str().unwrap();
        let logs = service.page(&format!("cycles/{id}")).await["logs"].to_string();
        assert!(logs.contains("kill_switch denies before RISK: "), "{how}: {logs}");
        // While it is so nothing is decided either.
        check_blocked(&service.run_cycle("day").await, &["kill_switch: "]);
        assert_eq!(server.asked("SIG").len(), asked + 1, "{how}: nobody is asked to decide");

        allow_again(&place, &service, how).await;
        eventually("it trades again", async || {
            (service.run_cycle("day").await["order_intents"] == 1).then_some(())
        })
        .await;
    }
    service.stop().await;

    place.journal().check_accounts();
}

/// A HARD hook of the server at this stage.
fn hard(pipeline: &str, stage: &str, budget: &str) -> String {
    format!(
        "[trading.pipelines.{pipeline}.hook.compliance]\nstage = \"{stage}\"\nmode = \"HARD\"\n\
         provider = \"mine\"\n{budget}"
    )
}

fn patch(quantity: &str) -> OnAsked {
    let patch = json!([{ "decisionId": "mine:AAPL", "quantity": quantity }]);
    OnAsked::Say(json!({ "ok": true, "decision": "modify", "patch": patch }).to_string())
}

fn say(text: &str) -> OnAsked {
    OnAsked::Say(text.to_owned())
}

/// T12. Method: a gate before RISK, and one before EXEC where RISK's verdict is the ceiling, does each thing that is no
/// permission; and then one that narrows, which is obeyed.
#[tokio::test(flavor = "multi_thread")]
async fn a_hard_gate_that_hangs_denies_widens_or_breaks_denies() {
    let server = StageServer::start().await;
    let trading = server.section("mine")
        + &pipeline("risk", &hard("risk", "RISK", "budget = \"1m\"\n"))
        + &pipeline("exec", &hard("exec", "EXEC", "budget = \"1m\"\n"))
        + &pipeline("shipped", &hard("shipped", "RISK", ""))
        + STRATEGY;
    let place = TradingPlace::new(&trading);
    let service = place.start_trading().await;

    server.next("compliance", [OnAsked::Hang]);
    check_blocked(&service.run_cycle("shipped").await, &["compliance", "E_HOOK_TIMEOUT"]);
    for (stage, not_begun) in [("risk", "RISK"), ("exec", "EXEC")] {
        for (act, words) in [
            (say(r#"{"ok":true,"decision":"deny","reasons":["not today"]}"#), ["E_HOOK_DENIED", "not today"]),
            (patch("6"), ["E_HOOK_DENIED", ""]),
            (
                say(r#"{"ok":true,"decision":"modify","patch":[{"decisionId":"other","drop":true}]}"#),
                ["E_HOOK_DENIED", ""],
            ),
            (say(r#"{"ok":false,"error_detail":"no rules"}"#), ["E_HOOK_FAILED", "no rules"]),
            (say("rubbish"), ["E_HOOK_FAILED", ""]),
            (OnAsked::BreakOff, ["E_HOOK_FAILED", ""]),
            (OnAsked::Status(500), ["E_HOOK_FAILED", ""]),
            (OnAsked::Huge(2), ["E_HOOK_FAILED", ""]),
        ] {
            server.next("compliance", [act]);

            let result = service.run_cycle(stage).await;

            check_blocked(&result, &words);
            assert_eq!(result["stage_results"][not_begun]["status"], "not_begun", "{result}");
        }
        server.next("compliance", [patch("2")]);
        let narrowed = service.run_cycle(stage).await;
        assert_eq!(narrowed["status"], "ok", "{narrowed}");
        let id = narrowed["correlation_id"].as_str().unwrap();
        let orders = service.page(&format!("cycles/{id}")).await["orders"].clone();
        assert_eq!(orders[0]["quantity"], "2", "{orders}");
    }
    service.stop().await;

    let journal = place.journal();
    assert_eq!(journal.facts("order_intended").len(), 2, "those that were narrowed");
    journal.check_accounts();
}
