//! Every answer of specification 002, as golden bodies.

use super::*;

/// What differs from run to run: how long something took.
fn without_durations(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), &*value) {
                    ("duration" | "duration_ms" | "took_ms" | "age_ms" | "left_ms", Value::Number(_)) => {
                        *value = json!("measured");
                    }
                    _ => without_durations(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_durations),
        Value::String(text) => {
            if let Some((before, _)) = text.split_once(" in ").filter(|(_, rest)| rest.ends_with(" ms")) {
                *text = format!("{before} in measured ms");
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Method: one day of an agent, every path once; the bodies are compared with those that were written down.
#[tokio::test]
async fn every_answer_of_the_specification_has_its_golden_body() {
    const GOLDEN: &str = include_str!("../../../../tests/golden/trading_api_v1.json");
    let mut trading = Trading::of(PlaneRig::new(trading_settings())).await;
    trading.rig.stages.always("SIG/b", orchestrator_trading_plane::testkit::stage_failure("no feed"));
    let mut told = serde_json::Map::new();
    let mut tell = |name: &str, answer: Answer| {
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
        assert_eq!(answer.header("content-type"), "application/json", "{name}");
        let mut body = answer.json();
        without_durations(&mut body);
        told.insert(name.to_owned(), body);
    };
    for path in ["agent/status", "strategies", "cycles"] {
        tell(&format!("GET {path} before"), trading.get(&format!("/api/v1/{path}")).await);
    }
    let analyzed = "/api/v1/strategies/a/analyze";
    for (path, key, body) in [
        ("agent/start", "1", r#"{"strategies":["a","b"],"mode":"conservative"}"#),
        ("agent/pause", "2", r#"{"duration":5}"#),
        ("agent/resume", "3", ""),
        ("strategies/b/deactivate", "4", r#"{"closePositions":true}"#),
        ("strategies/b/activate", "5", "{}"),
        (
            "cycles",
            "6",
            r#"{"pipeline":"canonical","strategies":["a","b"],"trigger_event":{"why":"a test"}}"#,
        ),
        ("strategies/a/analyze", "7", r#"{"symbols":["AAPL"]}"#),
    ] {
        tell(&format!("POST {path}"), trading.post(&format!("/api/v1/{path}"), key, body).await);
    }
    let again = trading.post(analyzed, "7", r#"{"symbols":["AAPL"]}"#).await.json();
    let cycle = again["cycleId"].as_str().unwrap().to_owned();
    until("the cycle ends", async || {
        let status = trading.get("/api/v1/agent/status").await.json();
        status["currentCycle"].is_null() && status["stats"]["cyclesCompleted"] == 2
    })
    .await;
    for path in ["agent/status", "strategies", "cycles?limit=1&status=completed", "schedules"] {
        tell(&format!("GET {path}"), trading.get(&format!("/api/v1/{path}")).await);
    }
    tell("GET cycles/:cycleId", trading.get(&format!("/api/v1/cycles/{cycle}")).await);
    for (path, key) in [("kill-switch/latch", "8"), ("kill-switch/release", "9")] {
        let body = r#"{"operator":"ops","reason":"a test"}"#;
        tell(&format!("POST {path}"), trading.post(&format!("/api/v1/{path}"), key, body).await);
    }
    let stop = r#"{"reason":"the day is over","cancelOpenOrders":true}"#;
    tell("POST agent/stop", trading.post("/api/v1/agent/stop", "10", stop).await);
    let mut health = trading.get("/health").await.json();
    health.as_object_mut().unwrap().retain(|name, _| matches!(name.as_str(), "status" | "checks" | "agent"));
    told.insert("GET /health".to_owned(), health);

    let told = format!("{:#}\n", Value::Object(told));
    assert!(told == GOLDEN, "the bodies are others:\n{told}");
    trading.rig.audited().await;
    trading.crash_plane().await;
}

#[tokio::test]
async fn health_says_what_is_wrong_and_the_agent_of_a_stopped_plane_is_in_error() {
    let trading = Trading::start().await;
    trading.start_agent().await;
    let health = trading.get("/health").await.json();
    assert_eq!((&health["status"], &health["agent"]["status"]), (&json!("healthy"), &json!("running")));
    assert_eq!(health["agent"]["uptime"], LATER_S);

    trading.rig.board.raise_condition(Condition::HistoryBehind, "7 records");
    let health = trading.get("/health").await.json();
    assert_eq!((&health["status"], &health["checks"]["database"]), (&json!("degraded"), &json!("disabled")));

    trading.rig.board.raise_condition(Condition::TradingStopped, "the journal is corrupt");
    let health = trading.get("/health").await.json();
    assert_eq!((&health["status"], &health["agent"]["status"]), (&json!("degraded"), &json!("error")));
    assert_eq!(trading.get("/api/v1/agent/status").await.json()["status"], "error");

    trading.rig.board.raise_condition(Condition::BufferFailing, "no room");
    assert_eq!(trading.get("/health").await.json()["status"], "unhealthy");
}

/// Specification 004, "Health Check": kill-switch availability.
#[tokio::test]
async fn a_kill_switch_of_unknown_state_degrades_the_health_of_a_service_that_trades() {
    let (trading, plain) = (Trading::start().await, Service::start().await);
    for service in [&trading.service, &plain] {
        assert_eq!(service.get("/health").await.json()["status"], "healthy");
        service.kill_switch.put_value(None);
        service.gate.read_store().await;
    }

    let health = trading.get("/health").await.json();
    assert_eq!(
        (&health["status"], &health["details"]["kill_switch"]),
        (&json!("degraded"), &json!("unknown"))
    );
    assert_eq!(plain.get("/health").await.json()["status"], "healthy", "nothing has an effect there");
    trading.service.kill_switch.put_value(Some(b"engaged"));
    trading.service.gate.read_store().await;
    assert_eq!(
        trading.get("/health").await.json()["status"],
        "healthy",
        "what an operator wants is no fault"
    );
}

#[tokio::test]
async fn the_front_page_lists_the_trading_paths_only_while_trading_is_on() {
    let (trading, plain) = (Trading::start().await, Service::start().await);

    let page = async |service: &Service| service.get_as("/", "text/html").await.text;
    let (on, off) = (page(&trading.service).await, page(&plain).await);
    let endpoints = trading.get("/").await.json()["endpoints"].clone();
    assert!(endpoints.as_array().unwrap().contains(&json!("GET /api/v1/cycles/{id}")), "{endpoints}");

    for path in ["agent/status", "strategies", "cycles", "schedules", "kill-switch/latch"] {
        let path = format!("/api/v1/{path}");
        assert!(on.contains(&path) && !off.contains(&path), "{path}");
    }
    assert!(on.starts_with(off.split_once("</dl>").unwrap().0) && on.ends_with("</dl>\n</html>\n"));
}
