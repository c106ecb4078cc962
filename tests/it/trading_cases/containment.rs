//! T7 and T8: what a stage that is missing, fails, is late, dies or answers rubbish does to its cycle, and to nothing
//! else.

use serde_json::{Value, json};

use crate::support::stage_server::{OnAsked, StageServer, buy};
use crate::support::trading::{STRATEGY, TradingPlace, TradingService, text_of};
use crate::support::{Service, eventually};

/// The canonical pipeline under this name, whose inputs and signals come from the server; `more` changes it.
fn canonical(name: &str, more: &str) -> String {
    format!(
        "[trading.pipelines.{name}]\nstale_after = \"0s\"\n\
         stages = [\"ING\", \"FEAT\", \"SIG\", \"RISK\", \"EXEC\", \"PORT\", \"ANA\", \"GOV\"]\n{}{}{more}",
        stage_of_server(name, "ING"),
        stage_of_server(name, "SIG"),
    )
}

fn stage_of_server(pipeline: &str, stage: &str) -> String {
    format!("[trading.pipelines.{pipeline}.stage.{stage}]\nprovider = \"mine\"\n")
}

fn check_good(result: &Value) {
    assert_eq!((&result["status"], &result["order_intents"]), (&"ok".into(), &1.into()), "{result}");
}

/// T7: no order without a judgement of its risk, whether the stage was left out, switched off, or comes too late.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_risk_blocks_before_anything_is_decided() {
    let server = StageServer::start().await;
    let trading = server.section("mine")
        + &canonical("left_out", "").replace("\"RISK\", ", "")
        + &canonical("off", "[trading.pipelines.off.stage.RISK]\nenabled = false\n")
        + &canonical("late", "").replace("\"RISK\", \"EXEC\"", "\"EXEC\", \"RISK\"")
        + &canonical("whole", "")
        + STRATEGY;
    let place = TradingPlace::new(&trading);
    let service = place.start_trading().await;

    for pipeline in ["left_out", "off", "late"] {
        let result = service.run_cycle(pipeline).await;

        assert_eq!((&result["status"], &result["order_intents"]), (&"blocked".into(), &0.into()), "{result}");
        assert!(result["reason"].as_str().unwrap().starts_with("risk_missing: "), "{result}");
        assert_eq!(result["errors"][0]["code"], "E_ORCH_BLOCKED", "{result}");
        assert_eq!(server.asked(&format!("{pipeline}/SIG")).len(), 0, "nobody is asked to decide");
        let id = result["correlation_id"].as_str().unwrap();
        assert_eq!(service.page(&format!("cycles/{id}")).await["cycle"]["status"], "cancelled");
    }
    check_good(&service.run_cycle("whole").await);
    service.stop().await;

    place.journal().check_accounts();
}

/// T7: analytics that fail after orders degrade their cycle, and trading goes on.
#[tokio::test(flavor = "multi_thread")]
async fn analytics_that_fail_behind_orders_degrade_and_the_next_cycle_trades() {
    let server = StageServer::start().await;
    let trading = server.section("mine") + &canonical("day", &stage_of_server("day", "ANA")) + STRATEGY;
    let place = TradingPlace::new(&trading);
    let service = place.start_trading().await;
    // Also the second attempt.
    server.next("ANA", [OnAsked::Status(500), OnAsked::Status(500)]);

    let result = service.run_cycle("day").await;

    assert_eq!((&result["status"], &result["order_intents"]), (&"degraded".into(), &1.into()), "{result}");
    assert_eq!(
        (&result["partial"], &result["stage_results"]["GOV"]["status"]),
        (&true.into(), &"done".into())
    );
    let error = &result["errors"][0];
    assert_eq!((&error["code"], &error["stage"]), (&"E_ORCH_STAGE_FAILED".into(), &"ANA".into()), "{result}");
    check_good(&service.run_cycle("day").await);
    service.stop().await;

    place.journal().check_accounts();
}

/// Method: a history that is required and away, so that the plane does not start and never will. Whoever asks is told
/// not to ask again.
#[tokio::test(flavor = "multi_thread")]
async fn a_plane_that_stopped_for_good_asks_nobody_to_come_again() {
    // A port that nobody listens on: bound, and let go of.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let history = format!(
        "[trading.history]\nrequired = true\nconnect_timeout = \"200ms\"\n\
         url = \"postgres://me@127.0.0.1:{port}/name\"\n"
    );
    let place = TradingPlace::new(&(history + STRATEGY));
    let service = Service::start(&place.config, &[]).await;
    eventually("the plane has stopped", async || {
        (service.get("/health").await.1.contains("trading_stopped")).then_some(())
    })
    .await;

    for (method, path) in
        [("GET", "agent/status"), ("GET", "cycles"), ("POST", "agent/start"), ("POST", "cycles")]
    {
        let url = format!("{}/api/v1/{path}", service.url);
        let body = if path == "cycles" { r#"{"pipeline":"canonical"}"# } else { "{}" };
        let client = reqwest::Client::new();
        let request = match method {
            "GET" => client.get(url),
            _ => client.post(url).header("content-type", "application/json").body(body),
        };
        let answer = request.send().await.unwrap();

        assert_eq!(answer.status(), 503, "{method} {path}");
        assert!(!answer.headers().contains_key("retry-after"), "{method} {path}");
        let told: Value = answer.json().await.unwrap();
        assert_eq!(told["retryable"], false, "{method} {path}: {told}");
        assert!(told["detail"].as_str().unwrap().contains("stopped for good"), "{told}");
    }
    eventually("the engine plane goes on", async || (service.get("/readyz").await.0 == 200).then_some(()))
        .await;
    service.kill();
}

async fn agent_becomes(service: &TradingService, status: &str) {
    eventually(&format!("the agent is {status}"), async || {
        (service.agent().await["status"] == status).then_some(())
    })
    .await;
}

/// T7: a failed audit fails closed: the agent is in error and nothing trades, also behind a crash, until an operator
/// starts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_audit_fails_closed_until_an_operator_starts_the_agent() {
    let server = StageServer::start().await;
    let trading = server.section("mine") + &canonical("day", &stage_of_server("day", "GOV")) + STRATEGY;
    let place = TradingPlace::new(&trading);
    let service = place.start_trading().await;
    let failed = r#"{"ok":false,"error_detail":"a record is missing"}"#.to_owned();
    server.next("GOV", [OnAsked::Say(failed.clone()), OnAsked::Say(failed)]);

    let result = service.run_cycle("day").await;

    assert_eq!(result["status"], "failed", "{result}");
    assert_eq!(result["stage_results"]["GOV"]["error"], "a record is missing");
    agent_becomes(&service, "error").await;
    let refuses = async |service: &TradingService| {
        let (status, answer) = service.post("cycles", &json!({ "pipeline": "day" }), None).await;
        assert_eq!(status, 409, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("agent_not_running"), "{answer}");
    };
    refuses(&service).await;
    service.kill();

    let service = place.start().await;
    assert_eq!(service.agent().await["status"], "error");
    refuses(&service).await;
    service.done("agent/start", &json!({})).await;
    check_good(&service.run_cycle("day").await);
    service.stop().await;

    place.journal().check_accounts();
}

/// Answers as the file `answer` says; `hang`, `die` and `huge` are words of ours.
const WORKER: &str = r#"
import json, os, sys, time

def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()

say(json.dumps({"protocol": 1, "ops": ["stage"], "engine": {"name": "t", "version": "1", "code_hash": "c"}}))
for line in sys.stdin:
    id = json.loads(line)["id"]
    with open("answer") as file: answer = file.read()
    if answer == "hang": time.sleep(1000)
    if answer == "die": os._exit(3)
    if answer == "huge": answer = '{"ok":true,"data":"' + "x" * (100 << 20) + '"}'
    say(answer.replace("{", '{"id":%d,' % id, 1))
"#;

/// A good answer of the worker.
fn good() -> String {
    json!({ "ok": true, "decisions": [buy("mine", "5")] }).to_string()
}

/// A pipeline whose signals come from this provider, once, within this time.
fn signals_of(pipeline: &str, provider: &str, budget: &str) -> String {
    let of_server = stage_of_server(pipeline, "SIG");
    let once = format!("{of_server}attempts_max = 1\nbudget = \"{budget}\"\n");
    canonical(pipeline, "").replace(&of_server, &once.replace("\"mine\"", &format!("\"{provider}\"")))
}

/// A cycle of which nothing counts, since its signals did not come.
fn check_nothing_counts(result: &Value, code: &str, word: &str) {
    assert_eq!(result["status"], "failed", "{result}");
    let counts = (&result["decisions_generated"], &result["order_intents"]);
    assert_eq!(counts, (&0.into(), &0.into()), "{result}");
    let error = &result["errors"][0];
    assert_eq!((&error["code"], &error["stage"]), (&code.into(), &"SIG".into()), "{result}");
    assert_eq!(error["retryable"], code == "E_ORCH_TIMEOUT", "{result}");
    let detail = result["stage_results"]["SIG"]["error"].as_str().unwrap();
    assert!(detail.contains(word), "{word}: {detail}");
}

/// T8, over HTTP: late, broken off, rubbish, a decision that is none of its business, far too much.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_counts_of_what_a_service_answers_late_or_wrongly() {
    let server = StageServer::start().await;
    let trading = server.section("mine")
        + &signals_of("late", "mine", "500ms")
        + &signals_of("day", "mine", "1m")
        + STRATEGY;
    let place = TradingPlace::new(&trading);
    let service = place.start_trading().await;

    server.next("late/SIG", [OnAsked::Hold]);
    let late = service.run_cycle("late").await;
    // Its decision comes now.
    server.release();
    check_nothing_counts(&late, "E_ORCH_TIMEOUT", "");
    let stranger = json!({ "ok": true, "decisions": [buy("stranger", "5")] });
    for (act, word) in [
        (OnAsked::Say("rubbish".to_owned()), "the provider wrote"),
        (OnAsked::Say(stranger.to_string()), "stranger"),
        (OnAsked::BreakOff, ""),
        (OnAsked::Status(500), "500"),
        (OnAsked::Huge(100), "the provider answered more than"),
    ] {
        server.next("day/SIG", [act]);
        let result = service.run_cycle("day").await;
        check_nothing_counts(&result, "E_ORCH_STAGE_FAILED", word);
        check_good(&service.run_cycle("day").await);
    }
    let failures = "orch_stage_fail_total{stage=\"SIG\",error_code=\"E_ORCH_STAGE_FAILED\"}";
    assert_eq!(service.metric(failures).await, 5.0);
    service.stop().await;

    let journal = place.journal();
    assert_eq!(journal.facts("order_intended").len(), 5, "those of the good cycles");
    journal.check_accounts();
}

/// T8: what is wrong with the answer for one strategy is that strategy's failure; the others of the cycle trade.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_answer_for_one_strategy_stops_no_other_of_its_cycle() {
    let server = StageServer::start().await;
    let other = STRATEGY.replace("strategies.mine", "strategies.other");
    let trading = server.section("mine") + &signals_of("day", "mine", "1m") + STRATEGY + &other;
    let place = TradingPlace::new(&trading);
    let service = place.start_trading().await;
    let answer = |decisions: Vec<Value>| json!({ "ok": true, "decisions": decisions }).to_string();
    let numbered = |number: usize| {
        let mut decision = buy("mine", "5");
        decision["decisionId"] = format!("d-{number}").into();
        decision
    };
    let lengthy = json!({ "ok": true, "data": "x".repeat(2 << 20), "decisions": [buy("mine", "5")] });
    for (bad, word) in [
        (answer(vec![buy("mine", "5"), buy("mine", "5")]), "comes twice"),
        (answer((0..1001).map(numbered).collect()), "1000 are allowed"),
        (json!({ "ok": true, "data": "x".repeat(70_000) }).to_string(), "bytes of data"),
        (lengthy.to_string(), "the provider answered more than"),
        (answer(vec![buy("mine", "5"), buy("other", "5")]), "is of strategy other"),
    ] {
        server.next("day/SIG/mine", [OnAsked::Say(bad)]);

        let result = service.run_cycle("day").await;

        let counts = (
            &result["status"],
            &result["partial"],
            &result["order_intents"],
            &result["strategies_processed"],
        );
        assert_eq!(counts, (&"degraded".into(), &true.into(), &1.into(), &1.into()), "{word}: {result}");
        let error = &result["errors"][0];
        assert_eq!((&error["strategy"], &error["stage"]), (&"mine".into(), &"SIG".into()), "{result}");
        assert!(error["detail"].as_str().unwrap().contains(word), "{word}: {error}");
        assert_eq!(result["errors"].as_array().unwrap().len(), 1, "{result}");
    }
    let whole = service.run_cycle("day").await;
    assert_eq!((&whole["status"], &whole["order_intents"]), (&"ok".into(), &2.into()), "{whole}");
    service.stop().await;

    place.journal().check_accounts();
}

/// T8: a provider that fails and then does not answer is told as what it is, also where time ran out meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_on_record_also_where_the_next_attempt_ran_out_of_time() {
    let server = StageServer::start().await;
    let twice = signals_of("day", "mine", "3s").replace("attempts_max = 1", "attempts_max = 2");
    let place = TradingPlace::new(&(server.section("mine") + &twice + STRATEGY));
    let service = place.start_trading().await;
    server.next("day/SIG", [OnAsked::Status(503), OnAsked::Hang]);

    let result = service.run_cycle("day").await;

    check_nothing_counts(&result, "E_ORCH_TIMEOUT", "; the attempt before: ");
    assert!(result["errors"][0]["detail"].as_str().unwrap().contains("503"), "{result}");
    service.stop().await;

    place.journal().check_accounts();
}

/// T8, in a worker process: late, dead, rubbish, 100 MB. Each time another worker takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_counts_of_a_worker_that_is_late_dies_or_answers_wrongly() {
    let server = StageServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("worker.py"), WORKER).unwrap();
    let answer = |answer: &str| {
        let new = dir.path().join("new");
        std::fs::write(&new, answer).unwrap();
        std::fs::rename(new, dir.path().join("answer")).unwrap();
    };
    let worker = format!(
        "[trading.providers.worker]\nkind = \"worker\"\ncommand = [\"python3\", \"worker.py\"]\nworkers = 1\n\
         working_dir = \"{}\"\nstart_deadline = \"1m\"\nrestart_wait_max = \"1m\"\nmemory_max_bytes = \"0B\"\n\
         respawn = {{min = \"1ms\"}}\n",
        text_of(dir.path())
    );
    let trading = server.section("mine")
        + &worker
        + &signals_of("late", "worker", "1s")
        + &signals_of("day", "worker", "1m")
        + STRATEGY;
    let place = TradingPlace::new(&trading);
    answer(&good());
    let service = place.start_trading().await;
    check_good(&service.run_cycle("day").await);

    answer("hang");
    check_nothing_counts(&service.run_cycle("late").await, "E_ORCH_TIMEOUT", "");
    answer(&good());
    check_good(&service.run_cycle("day").await);
    for (act, word) in [
        ("die", "the worker exited with status 3"),
        ("rubbish", "the worker wrote something that is no answer"),
        (r#"{"ok":true,"decisions":[1]}"#, "expected an object"),
        ("huge", "the worker wrote a line of more than"),
    ] {
        answer(act);
        check_nothing_counts(&service.run_cycle("day").await, "E_ORCH_STAGE_FAILED", word);
        answer(&good());
        check_good(&service.run_cycle("day").await);
    }
    service.stop().await;

    place.journal().check_accounts();
}
