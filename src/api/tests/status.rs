//! Probes, health, metrics and the front page.

use orchestrator_kernel::ports::kill_switch::KillGate as _;
use orchestrator_runtime::status::{Condition, Lifecycle};
use serde_json::json;

use super::fakes::End;
use super::*;

#[tokio::test]
async fn readiness_names_what_is_in_the_way() {
    let service = Service::start().await;
    let ready = service.get("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json()["ready"], &ready.json()["reasons"]),
        (200, &json!(true), &json!([]))
    );

    service.board.raise_condition(Condition::SymbolHalted("A".to_owned()), "5 restarts");
    assert_eq!(service.get("/readyz").await.status, 200);

    service.board.raise_condition(Condition::SourceDown("feed".to_owned()), "refused");
    let answer = service.get("/readyz").await;
    assert_eq!(answer.status, 503);
    let reason = json!({"condition": "source_down", "subject": "feed", "detail": "refused"});
    assert_eq!((&answer.json()["ready"], &answer.json()["reasons"]), (&json!(false), &json!([reason])));
    assert_eq!(answer.header("cache-control"), "no-store");

    service.board.clear_condition(&Condition::SourceDown("feed".to_owned()));
    service.board.enter_lifecycle(Lifecycle::Drained);
    assert_eq!(service.get("/readyz").await.json()["reasons"][0]["condition"], "not_running");
    assert_eq!(service.get("/livez").await.status, 200);
}

#[tokio::test]
async fn health_tells_the_lifecycle_the_version_and_the_counts() {
    let service = Service::start().await;
    service.runs.run("A", End::Truth).await;
    for symbol in 0..150 {
        service.board.raise_condition(Condition::SymbolHalted(symbol.to_string()), "");
    }

    let health = service.get("/health").await.json();

    assert_eq!((&health["lifecycle"], &health["version"]), (&json!("degraded"), &json!("1.2.3")));
    assert_eq!((&health["ready"], &health["conditions_total"]), (&json!(true), &json!(150)));
    assert_eq!(health["conditions"].as_array().unwrap().len(), 100);
    assert_eq!(
        (&health["logs"]["runs"]["tail"], &health["logs"]["receipts"]["tail"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(health["outputs"]["backlog"], 0);
}

#[tokio::test]
async fn the_kill_switch_is_shown_with_its_reason_and_past_and_never_stands_in_the_way() {
    let service = Service::start().await;
    let shown = service.get("/readyz").await.json()["kill_switch"].clone();
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("trading"), &json!(null)));
    assert!(shown["age_ms"].as_u64().unwrap() < 10_000, "{shown}");
    assert!(
        shown["since"].as_str().unwrap().starts_with("2025-12-31T23:59:5")
            || shown["since"] == "2026-01-01T00:00:00+00:00"
    );

    let halted = r#"{"state":"ENGAGED","engaged_by":"ops","engaged_at":"2026-01-01T00:00:00+00:00","engagement_reason":"why"}"#;
    service.kill_switch.put_value(Some(halted.as_bytes()));
    service.gate.fresh_permit().await.unwrap_err();

    let reason = json!("halted by ops at 2026-01-01T00:00:00+00:00: why");
    let ready = service.get("/readyz").await;
    let health = service.get("/health").await.json();
    assert_eq!((ready.status, &ready.json()["kill_switch"]["reason"]), (200, &reason));
    assert_eq!(
        (&health["lifecycle"], &health["kill_switch"]["state"]),
        (&json!("running"), &json!("halted"))
    );
    assert_eq!(health["conditions"][0]["condition"], "kill_switch_engaged");
    let status = service.get("/api/v1/kill-switch/status").await.json();
    assert_eq!((&status["state"], &status["place"]), (&json!("halted"), &json!("memory")));
    let words: Vec<_> =
        status["transitions"].as_array().unwrap().iter().map(|change| change["to"].clone()).collect();
    assert_eq!(words, ["trading", "halted"]);
    assert_eq!(status["transitions"][1]["engaged_by"], "ops");
}

#[tokio::test]
async fn metrics_have_their_content_type_and_the_front_page_lists_every_path() {
    let service = Service::start().await;

    let metrics = service.get("/metrics").await;
    let index = service.get("/").await;

    assert_eq!((metrics.header("content-type"), metrics.text.as_str()), ("text/test", "up 1\n"));
    assert!(index.header("content-type").starts_with("text/html"));
    for path in [
        "/api/v1/receipts",
        "/api/v1/producers/",
        "/api/v1/events",
        "/api/v1/kill-switch/status",
        "/livez",
        "/readyz",
        "/health",
        "/metrics",
    ] {
        assert!(index.text.contains(path), "{path}");
    }
    assert!(!index.text.contains("https://") && !index.text.contains("src="), "no outside assets");
}

#[tokio::test]
async fn other_paths_and_methods_are_problems_too() {
    let service = Service::start().await;

    service.get("/api/v2").await.problem(404, "not_found");
    let answer = service.get("/api/v1/receipts").await;
    answer.problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), "POST");
}
