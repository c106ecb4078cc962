//! Refusals: each status with its form, and nothing done.

use orchestrator_kernel::trading::journal::JournalFact;
use orchestrator_runtime::testkit::OnAppend;

use super::*;

const START: &str = "/api/v1/agent/start";

/// Paths of the trading plane.
const PATHS: [(&str, &str); 18] = [
    ("GET", "/api/v1/backtests"),
    ("GET", "/api/v1/backtests/00000000-0000-8000-8000-000000000000"),
    ("POST", "/api/v1/backtests"),
    ("POST", START),
    ("POST", "/api/v1/agent/stop"),
    ("POST", "/api/v1/agent/pause"),
    ("POST", "/api/v1/agent/resume"),
    ("GET", "/api/v1/agent/status"),
    ("GET", "/api/v1/strategies"),
    ("POST", "/api/v1/strategies/a/activate"),
    ("POST", "/api/v1/strategies/a/deactivate"),
    ("POST", "/api/v1/strategies/a/analyze"),
    ("GET", "/api/v1/cycles"),
    ("GET", "/api/v1/cycles/00000000-0000-8000-8000-000000000000"),
    ("POST", "/api/v1/cycles"),
    ("GET", "/api/v1/schedules"),
    ("GET", "/api/v1/trading/events"),
    ("POST", "/api/v1/kill-switch/latch"),
];

async fn ask(service: &Service, method: &str, path: &str, body: &'static str) -> Answer {
    let request = service.client.request(method.parse().unwrap(), service.url(path));
    let request = request.header("content-type", "application/json").body(body);
    Answer::of(request.send().await.unwrap()).await
}

fn body_of(path: &str) -> &'static str {
    match path {
        "/api/v1/backtests" => r#"{"config":{"capture":"a"}}"#,
        "/api/v1/cycles" => r#"{"pipeline":"canonical"}"#,
        "/api/v1/kill-switch/latch" => r#"{"operator":"o","reason":"r"}"#,
        _ => "",
    }
}

#[tokio::test]
async fn while_trading_is_off_there_is_nothing() {
    let service = Service::start().await;

    for (method, path) in PATHS {
        ask(&service, method, path, body_of(path)).await.problem(404, "not_found");
    }
    let health = service.get("/health").await.json();
    assert!(["checks", "agent"].iter().all(|name| health.get(name).is_none()), "{health}");
}

#[tokio::test]
async fn a_plane_that_is_not_up_is_unavailable_and_the_rest_of_the_service_is_not() {
    let door = watch::Sender::new(None);
    let board = StatusBoard::default();
    let service = face_over(door.subscribe(), board.clone(), HttpLimits::default()).await;

    for (method, path) in PATHS {
        let detail = ask(&service, method, path, body_of(path)).await.refusal(503);
        assert_eq!(detail, "the trading plane is starting", "{method} {path}");
    }
    assert_eq!(service.get("/health").await.json()["agent"]["status"], "stopped");
    assert_eq!(service.get("/readyz").await.status, 200);

    board.raise_condition(Condition::TradingStopped, "corrupt");
    for (method, path) in PATHS {
        let detail = ask(&service, method, path, body_of(path)).await.refusal_for_good(503);
        assert!(
            detail.as_str().unwrap().starts_with("the trading plane stopped for good"),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn paths_and_methods_that_there_are_not_are_told_in_the_same_form() {
    let trading = Trading::start().await;

    for path in [
        "/api/v1/agent",
        "/api/v1/agent/",
        "/api/v1/agent/dance",
        "/api/v1/cycles/a/b",
        "/api/v1/strategies/a",
    ] {
        assert_eq!(trading.get(path).await.refusal(404), "Not Found", "{path}");
    }
    assert_eq!(trading.get(START).await.refusal(405), "Method Not Allowed");
    assert_eq!(trading.get(START).await.header("allow"), "POST");
    trading.get("/api/v1/agents").await.problem(404, "not_found");
    trading.get("/api/v1/receipts").await.problem(405, "method_not_allowed");
    for path in ["/api/v1/strategies/nobody/activate", "/api/v1/strategies/%ff/analyze"] {
        trading.post(path, "k", "{}").await.refusal(404);
    }
}

/// Every field that the schema does not allow is named, all of one body at once.
#[tokio::test]
async fn a_body_that_breaks_the_schema_is_422_with_a_line_a_field() {
    let trading = Trading::start().await;
    let loc = |answer: &Answer| -> Vec<Value> {
        let detail = answer.refusal(422);
        detail.as_array().unwrap().iter().map(|line| json!([line["loc"], line["type"]])).collect()
    };
    for (path, body, lines) in [
        (
            START,
            r#"{"mode":"wild","strategies":[7]}"#,
            json!([[["body", "strategies", 0], "string_type"], [["body", "mode"], "literal_error"]]),
        ),
        (START, r#"{"strategies":[]}"#, json!([[["body", "strategies"], "too_short"]])),
        (START, r#"{"strategies":"a"}"#, json!([[["body", "strategies"], "list_type"]])),
        (START, r#"{"Mode":"normal"}"#, json!([[["body", "Mode"], "extra_forbidden"]])),
        (START, r#"{"mode":"normal","mode":"aggressive"}"#, json!([[["body"], "dict_type"]])),
        (START, "[]", json!([[["body"], "dict_type"]])),
        (START, "{", json!([[["body"], "json_invalid"]])),
        (START, "\u{feff}{}", json!([[["body"], "json_invalid"]])),
        (
            "/api/v1/agent/stop",
            r#"{"reason":1,"cancelOpenOrders":"yes"}"#,
            json!([[["body", "reason"], "string_type"], [["body", "cancelOpenOrders"], "bool_type"]]),
        ),
        ("/api/v1/agent/pause", r#"{"duration":2.5}"#, json!([[["body", "duration"], "int_type"]])),
        ("/api/v1/agent/resume", r#"{"now":true}"#, json!([[["body", "now"], "extra_forbidden"]])),
        ("/api/v1/strategies/a/analyze", r#"{"symbols":[]}"#, json!([[["body", "symbols"], "too_short"]])),
        ("/api/v1/cycles", "{}", json!([[["body", "pipeline"], "missing"]])),
        (
            "/api/v1/cycles",
            r#"{"pipeline":null,"trigger_event":[]}"#,
            json!([[["body", "pipeline"], "string_type"], [["body", "trigger_event"], "dict_type"]]),
        ),
        ("/api/v1/kill-switch/latch", r#"{"reason":"r"}"#, json!([[["body", "operator"], "missing"]])),
    ] {
        assert_eq!(json!(loc(&trading.post(path, "k", body).await)), lines, "{path} {body}");
    }
    for (query, lines) in [
        ("limit=0", json!([[["query", "limit"], "greater_than_equal"]])),
        ("limit=1001", json!([[["query", "limit"], "less_than_equal"]])),
        ("limit=99999999999", json!([[["query", "limit"], "less_than_equal"]])),
        (
            "limit=-1&status=done",
            json!([[["query", "limit"], "greater_than_equal"], [["query", "status"], "literal_error"]]),
        ),
        (
            "limit=1&limit=2&state=failed",
            json!([[["query", "limit"], "extra_forbidden"], [["query", "state"], "extra_forbidden"]]),
        ),
    ] {
        assert_eq!(json!(loc(&trading.get(&format!("/api/v1/cycles?{query}")).await)), lines, "{query}");
    }
    assert_eq!(
        json!(loc(&trading.get("/api/v1/cycles/7").await)),
        json!([[["path", "cycleId"], "uuid_parsing"]])
    );
    assert!(trading.rig.facts(|fact| matches!(fact, JournalFact::CommandReceived(_))).await.is_empty());
}

#[tokio::test]
async fn a_value_that_cannot_be_is_400_with_a_sentence() {
    let trading = Trading::start().await;
    trading.start_agent().await;
    for (path, body, detail) in [
        (START, r#"{"strategies":["nobody"]}"#, "strategies: there is no strategy nobody"),
        ("/api/v1/agent/pause", r#"{"duration":0}"#, "duration: 1 to 527040 minutes"),
        ("/api/v1/agent/pause", r#"{"duration":1e12}"#, "duration: 1 to 527040 minutes"),
        (
            "/api/v1/agent/stop",
            "{\"reason\":\"a\\nb\"}",
            "reason must be 1 to 1024 bytes without control characters",
        ),
        ("/api/v1/strategies/a/analyze", "{\"symbols\":[\"\"]}", "symbols: \"\" is no symbol"),
        ("/api/v1/cycles", r#"{"pipeline":"a b"}"#, "pipeline: \"a b\" is no name of a pipeline"),
        (
            "/api/v1/kill-switch/latch",
            r#"{"operator":"","reason":"r"}"#,
            "operator must be 1 to 128 bytes without control characters",
        ),
        (
            "/api/v1/kill-switch/latch",
            r#"{"operator":"o","reason":" "}"#,
            "reason must be 1 to 1024 bytes without control characters",
        ),
    ] {
        assert_eq!(trading.post(path, "k", body).await.refusal(400), detail, "{path} {body}");
    }
    for key in ["", " ", &"k".repeat(129)] {
        let detail = trading.post(START, key, "{}").await.refusal(400);
        assert_eq!(detail, "Idempotency-Key must come once, with 1 to 128 bytes of visible ASCII");
    }
    let twice = [("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "b")];
    trading.post_with(START, &twice, "{}").await.refusal(400);
    assert_eq!(trading.get("/api/v1/agent/status").await.json()["status"], "running");
}

/// A page of another site: form types and no type are sent without asking, and a name may lead here.
#[tokio::test]
async fn a_page_of_another_site_commands_nothing() {
    let trading = Trading::start().await;
    let json = ("content-type", "application/json");
    for headers in [
        &[][..],
        &[("content-type", "text/plain")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "multipart/form-data; boundary=x")],
        &[("content-type", "application/x-ndjson")],
        &[json, ("content-encoding", "gzip")],
    ] {
        trading.post_with(START, headers, "{}").await.refusal(415);
    }
    for headers in [
        [json, ("origin", "http://evil.example")],
        [json, ("origin", "null")],
        [json, ("sec-fetch-site", "cross-site")],
    ] {
        trading.post_with(START, &headers, "{}").await.refusal(403);
    }
    let rebound = "POST /api/v1/agent/start HTTP/1.1\r\nhost: evil.example\r\norigin: http://evil.example\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    let answer = trading.service.raw(rebound.as_bytes(), |_| false).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(trading.rig.facts(|fact| matches!(fact, JournalFact::CommandReceived(_))).await.is_empty());
}

#[tokio::test]
async fn a_body_beyond_its_bounds_is_refused() {
    let limits = HttpLimits {
        body_bytes_max: 100,
        request_timeout: Duration::from_millis(200),
        ..HttpLimits::default()
    };
    let trading = Trading::within(PlaneRig::new(by_hand()), limits).await;

    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(100));
    trading.post("/api/v1/agent/stop", "k", &long).await.refusal(413);
    let slow = "POST /api/v1/agent/start HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{";
    let answer = trading.service.raw(slow.as_bytes(), |text| text.contains("retryable")).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"retryable\":true"), "{answer}");
}

#[tokio::test]
async fn what_makes_no_sense_now_is_409_and_a_journal_without_room_is_503() {
    let trading = Trading::start().await;
    for (path, body) in [
        ("/api/v1/agent/stop", "{}"),
        ("/api/v1/agent/pause", "{}"),
        ("/api/v1/agent/resume", "{}"),
        ("/api/v1/strategies/a/activate", "{}"),
        ("/api/v1/strategies/a/analyze", "{}"),
        ("/api/v1/cycles", r#"{"pipeline":"canonical"}"#),
        ("/api/v1/kill-switch/release", r#"{"operator":"o","reason":"r"}"#),
    ] {
        trading.post(path, path, body).await.refusal(409);
    }
    trading.post("/api/v1/cycles", "no pipeline", r#"{"pipeline":"nothing"}"#).await.refusal(404);

    trading.rig.log.always(OnAppend::Full);
    trading.post(START, "full", "{}").await.refusal(503);
    trading.rig.log.always(OnAppend::Work);
    until("there is room", async || trading.post(START, "full", "{}").await.status == 200).await;
}

/// Method: a journal that does not answer, so that commands stay on their way until as many are as may be.
#[tokio::test]
async fn one_command_more_than_may_be_on_its_way_is_429_and_does_nothing() {
    let trading = Trading::start().await;
    trading.rig.log.always(OnAppend::Hang);
    let client = trading.service.client.clone();
    let mut on_their_way = tokio::task::JoinSet::new();
    for number in 0..=COMMANDS_MAX {
        let request = client.post(trading.service.url("/api/v1/kill-switch/latch"));
        let request = request.header("content-type", "application/json");
        let request = request.header("idempotency-key", format!("fill {number}"));
        let request = request.body(r#"{"operator":"o","reason":"r"}"#);
        on_their_way.spawn(async move { Answer::of(request.send().await.unwrap()).await });
    }
    // The others are answered when the journal is.
    on_their_way.join_next().await.unwrap().unwrap().refusal(429);

    let refused = trading.post(START, "start", "{}").await;
    let detail = refused.refusal(429);
    assert!(detail.as_str().unwrap().contains("nothing was done"), "{detail}");
    assert_eq!(trading.get("/api/v1/agent/status").await.status, 200, "pages are read all the same");
    trading.rig.log.always(OnAppend::Work);
    while let Some(answer) = on_their_way.join_next().await {
        let status = answer.unwrap().status;
        assert!(matches!(status, 200 | 503), "{status}");
    }

    until("there is room again", async || trading.post(START, "start", "{}").await.status == 200).await;
    let facts = trading.rig.facts(|fact| matches!(fact, JournalFact::AgentChanged(_))).await;
    assert_eq!(facts.len(), 1, "what was refused was not done");
}

/// As many as the service carries out at a time.
const COMMANDS_MAX: usize = 64;
