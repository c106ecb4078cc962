//! Each fault does what it says, and the ledger counts what really happened.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;

use super::APPLE;
use crate::support::{Paper, eventually};

/// What a client sees of its request.
#[derive(Debug, PartialEq)]
enum Seen {
    /// A whole answer with this status.
    Status(u16),
    /// No answer at all.
    Silence,
    /// An answer that ends within its body.
    Cut,
}

async fn send_order(paper: &Paper, body: &str) -> Seen {
    let url = format!("{}/api/v1/orders", paper.gateway);
    let sent =
        paper.client.post(url).body(body.to_owned()).timeout(std::time::Duration::from_secs(20)).send().await;
    let Ok(response) = sent else { return Seen::Silence };
    let status = response.status().as_u16();
    if response.bytes().await.is_ok() { Seen::Status(status) } else { Seen::Cut }
}

/// Method: one process, one fault at a time, an order of its own for each; then the ledger, and the next attempt.
#[tokio::test]
async fn every_fault_of_a_request_shows_and_has_the_effects_that_it_says() {
    let paper = Paper::start(&[]);
    let all = [
        (r#"{"fault":"latency","before_ms":20,"after_ms":20"#, Seen::Status(200), 1),
        (r#"{"fault":"timeout_before_acceptance","hold_ms":100"#, Seen::Silence, 0),
        (r#"{"fault":"timeout_after_acceptance","hold_ms":100"#, Seen::Status(200), 1),
        (r#"{"fault":"reset_before_acceptance""#, Seen::Silence, 0),
        (r#"{"fault":"reset_after_acceptance""#, Seen::Silence, 1),
        (r#"{"fault":"error_before_acceptance","status":500,"body":"plain""#, Seen::Status(500), 0),
        (r#"{"fault":"error_after_acceptance","status":500,"body":"plain""#, Seen::Status(500), 1),
        (r#"{"fault":"error_after_acceptance","status":500"#, Seen::Status(500), 1),
        (r#"{"fault":"error_after_acceptance","status":502,"body":"plain""#, Seen::Status(502), 1),
        (r#"{"fault":"error_after_acceptance","status":503"#, Seen::Status(503), 1),
        (r#"{"fault":"error_after_acceptance","status":504,"body":"plain""#, Seen::Status(504), 1),
        (r#"{"fault":"cut_answer""#, Seen::Cut, 1),
        (r#"{"fault":"garbage_answer""#, Seen::Status(200), 1),
        (r#"{"fault":"large_answer","bytes":3000000"#, Seen::Status(200), 1),
        (r#"{"fault":"redirect""#, Seen::Status(307), 1),
        (r#"{"fault":"redirect","status":302"#, Seen::Status(302), 1),
        (r#"{"fault":"wrong_answer","field":"client_order_id""#, Seen::Status(200), 1),
        (r#"{"fault":"wrong_answer","field":"qty""#, Seen::Status(200), 1),
        (r#"{"fault":"rate_limited""#, Seen::Status(429), 0),
        (r#"{"fault":"refused","status":401"#, Seen::Status(401), 0),
        (r#"{"fault":"safety_gate","gate":"kill_switch_engaged""#, Seen::Status(503), 0),
        (r#"{"fault":"rejected","by":"broker""#, Seen::Status(422), 0),
        (r#"{"fault":"must_be_unique""#, Seen::Status(422), 1),
    ];
    for (number, (rule, seen, effects)) in (1..).zip(all) {
        paper.set_fault(&format!(r#"{rule},"times":1}}"#)).await;
        let order = format!(
            r#"{{"symbol":"AAPL","side":"buy","qty":1,"order_type":"limit","limit_price":"{number}"}}"#
        );
        let before = paper.ledger().await["totals"].clone();

        assert_eq!(send_order(&paper, &order).await, seen, "{rule}");

        let after = paper.ledger().await["totals"].clone();
        let more = |counter: &str| after[counter].as_u64().unwrap() - before[counter].as_u64().unwrap();
        assert_eq!((more("requests"), more("effects")), (1, effects), "{rule}");
        let listed = paper.get("/paper/faults").await.1;
        let hits: Vec<u64> =
            listed["faults"].as_array().unwrap().iter().map(|rule| rule["hits"].as_u64().unwrap()).collect();
        assert_eq!(hits, vec![1; number], "{rule}");
        if rule.contains("rejected") {
            continue;
        }
        // Whatever it was: the next attempt gets an answer, and there is one effect in all.
        let again = send_order(&paper, &order).await;
        assert_eq!(again, Seen::Status(200), "{rule}");
        let settled = paper.ledger().await["totals"]["effects"].as_u64().unwrap();
        assert_eq!(settled - before["effects"].as_u64().unwrap(), 1, "{rule}");
    }
    assert_eq!(paper.ledger().await["redirects_followed"], 0);
}

#[tokio::test]
async fn answers_of_faults_have_the_form_that_they_say() {
    let paper = Paper::start(&[]);
    let url = format!("{}/api/v1/orders", paper.gateway);
    let next = async |rule: &str| {
        paper.set_fault(&format!(r#"{rule},"times":1}}"#)).await;
        let response =
            paper.client.post(&url).body(APPLE).header("X-Correlation-ID", "c-1").send().await.unwrap();
        let header =
            |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("x-correlation-id").as_deref(), Some("c-1"));
        (header("retry-after"), header("location"), header("content-type"), response.bytes().await.unwrap())
    };

    assert_eq!(next(r#"{"fault":"rate_limited","retry_after_s":7"#).await.0.as_deref(), Some("7"));
    assert_eq!(next(r#"{"fault":"rate_limited","header":"absent""#).await.0, None);
    assert_eq!(next(r#"{"fault":"redirect""#).await.1.as_deref(), Some("/paper/redirected"));
    let plain = next(r#"{"fault":"error_before_acceptance","status":500,"body":"plain""#).await;
    assert_eq!(
        (plain.2.as_deref(), &plain.3[..]),
        (Some("text/plain; charset=utf-8"), &b"Internal Server Error"[..])
    );
    assert!(serde_json::from_slice::<Value>(&next(r#"{"fault":"garbage_answer""#).await.3).is_err());
    let large = next(r#"{"fault":"large_answer","bytes":2000000"#).await.3;
    assert_eq!(large.len(), 2_000_000);
    assert_eq!(serde_json::from_slice::<Value>(&large).unwrap()["symbol"], "AAPL");
    let wrong = next(r#"{"fault":"wrong_answer","field":"symbol""#).await.3;
    assert_eq!(serde_json::from_slice::<Value>(&wrong).unwrap()["symbol"], "OTHER");
}

#[tokio::test]
async fn the_other_routes_have_faults_too() {
    let paper = Paper::start(&[]);
    paper.submit(APPLE).await.unwrap();
    let id = paper.ledger().await["orders"].as_object().unwrap().keys().next().unwrap().clone();
    let (order, cancel) = (format!("/api/v1/orders/{id}"), format!("/api/v1/orders/{id}/cancel"));
    let requests = [
        ("read", "GET", paper.gateway.clone(), order.as_str()),
        ("cancel", "POST", paper.gateway.clone(), cancel.as_str()),
        ("positions", "GET", paper.gateway.clone(), "/api/v1/positions"),
        ("config", "GET", paper.gateway.clone(), "/api/v1/config"),
        ("health", "GET", paper.gateway.clone(), "/health"),
        ("health", "GET", paper.signals.clone(), "/ready"),
        ("signals", "POST", paper.signals.clone(), "/api/v1/signals/generate"),
    ];
    for (route, method, base, path) in requests {
        let ask = async || {
            let body = r#"{"symbols":["AAPL","MSFT"]}"#;
            let request = paper.client.request(method.parse().unwrap(), format!("{base}{path}")).body(body);
            request.send().await.map(|response| response.status().as_u16()).ok()
        };
        let mut seen = Vec::new();
        for fault in [
            r#""fault":"error_before_acceptance","status":502"#,
            r#""fault":"reset_after_acceptance""#,
            r#""fault":"rate_limited""#,
        ] {
            paper.set_fault(&format!(r#"{{{fault},"on":"{route}","times":1}}"#)).await;
            seen.push(ask().await);
        }
        seen.push(ask().await);
        assert_eq!(seen, [Some(502), None, Some(429), Some(200)], "{route} {path}");
    }
    paper.set_fault(r#"{"fault":"not_ready","on":"health"}"#).await;
    let ready = paper.client.get(format!("{}/ready", paper.signals)).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.text().await.unwrap(), r#"{"detail":"Service not ready: degraded"}"#);
    assert_eq!(paper.get("/health").await.1["status"], "degraded");
}

#[tokio::test]
async fn a_fill_that_overtakes_its_cancel_is_in_fills_and_position_alone() {
    let paper = Paper::start(&[]);
    paper.set_fault(r#"{"fault":"fills_only","qty":5}"#).await;
    paper.set_fault(r#"{"fault":"late_fill_after_cancel","after_ms":200}"#).await;
    paper.submit(r#"{"symbol":"AAPL","side":"buy","qty":10}"#).await.unwrap();
    let id = paper.ledger().await["orders"].as_object().unwrap().keys().next().unwrap().clone();
    let path = format!("/api/v1/orders/{id}");
    eventually("a part is filled", async || (paper.get(&path).await.1["filled_qty"] == "5").then_some(()))
        .await;

    let (status, said) = paper.post(&format!("{path}/cancel"), "").await;
    assert_eq!((status, &said["message"]), (200, &"Order canceled".into()));
    eventually("the rest is filled", async || {
        (paper.ledger().await["totals"]["filled_qty"] == 10).then_some(())
    })
    .await;

    let (_, order) = paper.get(&path).await;
    assert_eq!((&order["status"], &order["filled_qty"]), (&"canceled".into(), &"5".into()));
    let fills: Vec<&Value> = order["metadata"]["fills"].as_array().unwrap().iter().collect();
    assert_eq!(fills.iter().map(|fill| fill["fill_qty"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 5]);
    assert_eq!(paper.get("/api/v1/positions").await.1["positions"][0]["qty"], "10");
}

/// Method: 300 orders, sixteen at a time, through every fault that leaves a client without an answer, each repeated
/// until it is answered with its content.
#[tokio::test]
async fn three_hundred_disturbed_orders_are_placed_once_each() {
    let paper = Paper::start(&["--position-limit", "1000000"]);
    for fault in [
        r#""fault":"reset_after_acceptance""#,
        r#""fault":"reset_before_acceptance""#,
        r#""fault":"error_after_acceptance","status":500"#,
        r#""fault":"cut_answer""#,
        r#""fault":"garbage_answer""#,
        r#""fault":"timeout_before_acceptance","hold_ms":20"#,
        r#""fault":"wrong_answer","field":"qty""#,
    ] {
        paper.set_fault(&format!(r#"{{{fault},"percent":30,"times_per_order":1}}"#)).await;
    }

    let placed: Vec<usize> = stream::iter(1..=300u64)
        .map(|qty| {
            let paper = &paper;
            async move {
                let order = format!(r#"{{"symbol":"MSFT","side":"sell","qty":{qty}}}"#);
                for attempt in 1..40 {
                    let Ok((200, body)) = paper.submit(&order).await else { continue };
                    let answer = serde_json::from_slice::<Value>(&body).unwrap_or_default();
                    if answer["qty"] == qty && answer["symbol"] == "MSFT" {
                        return attempt;
                    }
                }
                panic!("order of {qty} was never answered");
            }
        })
        .buffer_unordered(16)
        .collect()
        .await;

    assert!(placed.iter().any(|attempts| 1 < *attempts), "nothing was disturbed");
    let ledger = eventually("all are filled", async || {
        let ledger = paper.ledger().await;
        (ledger["totals"]["filled_qty"] == 300 * 301 / 2).then_some(ledger)
    })
    .await;
    let effects: BTreeSet<u64> = ledger["intents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|intent| intent["effects"].as_u64().unwrap())
        .collect();
    assert_eq!((effects, ledger["intents"].as_array().unwrap().len()), (BTreeSet::from([1]), 300));
    assert_eq!(ledger["positions"]["MSFT"], "-45150");
}
