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
    assert_eq!((&shown["effects"], &shown["reason"]), (&json!("trading"), &json!(null)));
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
        (&health["lifecycle"], &health["kill_switch"]["effects"]),
        (&json!("running"), &json!("halted"))
    );
    assert_eq!(health["conditions"][0]["condition"], "kill_switch_engaged");
    let status = service.get("/api/v1/kill-switch/status").await.json();
    assert_eq!((&status["effects"], &status["place"]), (&json!("halted"), &json!("memory")));
    let words: Vec<_> =
        status["transitions"].as_array().unwrap().iter().map(|change| change["to"].clone()).collect();
    assert_eq!(words, ["trading", "halted"]);
    assert_eq!(status["transitions"][1]["engaged_by"], "ops");
}

#[tokio::test]
async fn metrics_have_their_content_type_and_the_front_page_lists_every_path() {
    let service = Service::start().await;

    let metrics = service.get("/metrics").await;
    let index = service.get_as("/", "text/html").await;

    assert_eq!((metrics.header("content-type"), metrics.text.as_str()), ("text/test", "up 1\n"));
    assert!(index.header("content-type").starts_with("text/html"));
    for path in [
        "/api/v1/receipts",
        "/api/v1/producers/",
        "/api/v1/events",
        "/api/v1/kill-switch/status",
        "/api/v1/kill-switch/engage",
        "/api/v1/config",
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

/// Specification 004: `/`, `/api/v1/config` and `/health` for programs, with every recorded field.
#[tokio::test]
async fn the_service_its_configuration_and_its_health_are_told_as_specified() {
    let called_services = CalledServices {
        signals: CalledService { url: "http://localhost:8001".to_owned(), is_healthy: true },
        gateway: CalledService { url: "http://localhost:8002".to_owned(), is_healthy: false },
    };
    let service = Setup { called_services, ..Setup::default() }.start().await;

    let index = service.get("/").await;
    assert_eq!(
        (index.status, index.header("content-type"), index.header("vary")),
        (200, "application/json", "accept")
    );
    assert_eq!(
        (&index.json()["service"], &index.json()["version"]),
        (&json!("orchestrator"), &json!("1.2.3"))
    );
    let endpoints = index.json()["endpoints"].as_array().unwrap().clone();
    assert!(
        endpoints.contains(&json!("POST /api/v1/receipts"))
            && !endpoints.contains(&json!("GET /api/v1/cycles"))
    );
    for endpoint in &endpoints {
        let (method, path) = endpoint.as_str().unwrap().split_once(' ').unwrap();
        let path = path.replace("{id}", "x");
        let probe = service.client.request(method.parse().unwrap(), service.url(&path));
        let status = probe.header("accept", "*/*").timeout(DEADLINE).send().await.unwrap().status().as_u16();
        assert!(!matches!(status, 404 | 405), "{endpoint}: {status}");
    }

    let config = service.get("/api/v1/config").await;
    let told = json!({
        "service": "orchestrator", "version": "1.2.3", "environment": "dev", "dry_run": true, "alpaca_paper": true,
        "circuit_breaker_enabled": true, "timestamp": "2026-01-01T00:00:00+00:00",
    });
    assert_eq!((config.status, config.json()), (200, told));

    let health = service.get("/health").await.json();
    for (name, value) in [
        ("status", json!("healthy")),
        ("service", json!("orchestrator")),
        ("version", json!("1.2.3")),
        ("timestamp", json!("2026-01-01T00:00:00+00:00")),
        ("signal_service_url", json!("http://localhost:8001")),
        ("execution_gateway_url", json!("http://localhost:8002")),
        ("signal_service_healthy", json!(true)),
        ("execution_gateway_healthy", json!(false)),
        ("database_connected", json!(false)),
        ("details", json!({"kill_switch": "trading", "ready": true})),
    ] {
        assert_eq!(health[name], value, "{name}");
    }
    service.board.raise_condition(Condition::BufferFailing, "no room");
    assert_eq!(service.get("/health").await.json()["status"], "unhealthy");
}
