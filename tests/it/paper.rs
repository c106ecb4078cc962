//! The paper services as a stranger meets them: the real binary, plain HTTP, every fault, and the ledger.

mod contract;
mod faults;

use std::process::Command;

use orchestrator_kernel::trading::signing::{SignedRequest, sign_request};
use serde_json::json;

use crate::support::{Paper, eventually, output_of, paper_command};

/// 133 AAPL.
const APPLE: &str = r#"{"order_type":"market","qty":133,"side":"buy","symbol":"AAPL","time_in_force":"day"}"#;

#[tokio::test]
async fn the_paper_services_say_what_they_are_and_stop_in_order() {
    let paper = Paper::start(&["--fault", r#"{"fault":"timeout_after_acceptance","hold_ms":600000}"#]);
    assert!(paper.said.starts_with("Paper trading: a made-up market and a paper broker. No real money"));
    for url in [&paper.signals, &paper.gateway] {
        assert!(url.starts_with("http://127.0.0.1:") && !url.ends_with(":0"), "{url}");
        let root: serde_json::Value = paper.client.get(url).send().await.unwrap().json().await.unwrap();
        assert_eq!(root["paper"], true);
    }
    let held = tokio::spawn(paper.client.post(format!("{}/api/v1/orders", paper.gateway)).body(APPLE).send());
    eventually("the order is placed", async || {
        (paper.ledger().await["totals"]["effects"] == 1).then_some(())
    })
    .await;

    let status = tokio::task::spawn_blocking(|| paper.stop()).await.unwrap();

    assert_eq!(status.code(), Some(0));
    assert!(held.await.unwrap().is_err(), "a request that is held is cut off");
}

#[tokio::test]
async fn paper_services_that_cannot_start_say_everything_at_once() {
    let ended = |command: Command, code: i32| {
        let output = output_of(command);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        said
    };
    let said = ended(
        paper_command(&["--orders-max", "0", "--symbols", "A B"], &[("INTERNAL_TOKEN_SECRET", "short")]),
        78,
    );
    for part in ["--orders-max", "--symbols", "INTERNAL_TOKEN_SECRET: expected at least 64 characters"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("short"), "{said}");
    let mut public = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    public.args(["paper", "--gateway", "0.0.0.0:0"]);
    assert!(ended(public, 78).contains("expected a loopback address, or --allow-public"));
    let said = ended(paper_command(&["--fault", r#"{"fault":"explode"}"#], &[]), 78);
    assert!(said.contains("unknown variant `explode`"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    command.args([
        "paper",
        "--signals",
        "127.0.0.1:0",
        "--gateway",
        &taken.local_addr().unwrap().to_string(),
    ]);
    assert!(ended(command, 69).contains("cannot listen on"));
}

#[tokio::test]
async fn with_a_secret_a_request_is_let_in_once_and_signed() {
    let secret = "s".repeat(64);
    let paper = Paper::start_with(&[], &[("INTERNAL_TOKEN_SECRET", secret.as_str())]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let signed = |nonce: &'static str, path: &'static str, body: &'static str| {
        let method = if body.is_empty() { "GET" } else { "POST" };
        let request = SignedRequest {
            method,
            path,
            query: "",
            body: body.as_bytes(),
            service_id: "orchestrator",
            strategy_id: "",
            user_id: "",
            timestamp_s: i64::try_from(now).unwrap(),
            nonce,
        };
        let signature = sign_request(secret.as_bytes(), &request);
        paper
            .client
            .request(method.parse().unwrap(), format!("{}{path}", paper.gateway))
            .header("X-Internal-Token", signature.token)
            .header("X-Internal-Timestamp", now)
            .header("X-Internal-Nonce", nonce)
            .header("X-Service-ID", "orchestrator")
            .header("X-Body-Hash", signature.body_hash)
            .body(body)
    };
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();

    let unsigned = paper.post("/api/v1/orders", APPLE).await;
    assert_eq!(
        unsigned,
        (
            401,
            json!({ "detail": { "error": "authentication_required", "message": "Authentication required" } })
        )
    );
    assert_eq!(status(signed("1", "/api/v1/orders", APPLE)).await, 200);
    let replayed = signed("1", "/api/v1/orders", APPLE).send().await.unwrap();
    assert_eq!(replayed.status(), 401);
    let body: serde_json::Value = replayed.json().await.unwrap();
    assert_eq!(body["detail"]["error"], "invalid_internal_token");
    assert_eq!(status(signed("2", "/api/v1/orders", APPLE)).await, 200);
    assert_eq!(status(signed("3", "/api/v1/positions", "")).await, 200);
    assert_eq!(paper.get("/api/v1/config").await.0, 200);
    let ledger = paper.ledger().await;
    assert_eq!((&ledger["unauthorized"], &ledger["totals"]["effects"]), (&2.into(), &1.into()));
}

/// Method: the client hangs up while its request is still on its way; the order appears afterwards.
#[tokio::test]
async fn an_order_arrives_although_its_client_hung_up() {
    let paper = Paper::start(&[]);
    paper.set_fault(r#"{"fault":"latency","before_ms":1500,"times":1}"#).await;
    let impatient = paper.client.post(format!("{}/api/v1/orders", paper.gateway)).body(APPLE);
    let hung_up = impatient.timeout(std::time::Duration::from_millis(300)).send().await;
    assert!(hung_up.is_err());
    let ledger = paper.ledger().await;
    assert_eq!((&ledger["totals"]["requests"], &ledger["totals"]["effects"]), (&1.into(), &0.into()));
    let (id, _) = ledger["orders"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(paper.get(&format!("/api/v1/orders/{id}")).await.0, 404);

    eventually("the order appears", async || {
        (paper.get(&format!("/api/v1/orders/{id}")).await.0 == 200).then_some(())
    })
    .await;

    let (status, _) = paper.submit(APPLE).await.unwrap();
    let ledger = paper.ledger().await;
    assert_eq!(
        (status, &ledger["totals"]["effects"], &ledger["totals"]["repeats"]),
        (200, &1.into(), &1.into())
    );
}

#[tokio::test]
async fn the_same_seed_gives_the_same_signals_and_prices() {
    let body = r#"{"symbols":["AAPL","MSFT","GOOGL","AMZN","TSLA"],"as_of_date":"2025-01-02"}"#;
    let mut found = Vec::new();
    for seed in ["5", "5", "6"] {
        let paper = Paper::start(&["--seed", seed]);
        let (status, mut answer) = paper.signals(body).await;
        assert_eq!(status, 200, "{answer}");
        answer["metadata"]["generated_at"] = json!(null);
        found.push((answer, paper.get("/paper/quotes/AAPL").await.1["mid"].clone()));
    }

    assert_eq!(found[0], found[1]);
    assert_ne!(found[0], found[2]);
}
