//! A provider of stages and hooks behind HTTP that does what a test tells it: answers, waits, hangs, breaks off.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::process::eventually;

/// Act of the server when it is asked.
#[derive(Clone, Debug)]
pub(crate) enum OnAsked {
    /// The usual answer.
    Usual,
    /// The usual answer, once the test releases those that are held.
    Hold,
    /// No answer.
    Hang,
    /// This text as JSON.
    Say(String),
    /// The beginning of an answer, and the connection ends.
    BreakOff,
    /// This status.
    Status(u16),
    /// An answer of so many mebibytes.
    Huge(usize),
}

/// What the server was told and asked. Places are names of stages and hooks, with the pipeline and a slash before
/// them where only that one is meant, and a slash and the strategy behind that where only its question is.
#[derive(Default)]
struct Script {
    next: BTreeMap<String, VecDeque<OnAsked>>,
    always: BTreeMap<String, OnAsked>,
    asked: Vec<Value>,
    /// Questions that are being answered, by pipeline, and the most there ever were.
    in_flight: BTreeMap<String, (usize, usize)>,
}

struct Shared {
    script: Mutex<Script>,
    /// Counts releases; a held question waits for the next one.
    released: watch::Sender<u64>,
}

/// The server, which ends with the test's runtime.
pub(crate) struct StageServer {
    /// Where questions are posted.
    pub(crate) url: String,
    shared: Arc<Shared>,
}

impl StageServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { script: Mutex::default(), released: watch::Sender::new(0) });
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared }
    }

    /// Its section of a configuration.
    pub(crate) fn section(&self, name: &str) -> String {
        let url = &self.url;
        format!(
            "[trading.providers.{name}]\nkind = \"http\"\nurl = \"{url}\"\nconnect_timeout = \"30s\"\n\
             connections_max = 100\n"
        )
    }

    /// Acts so on the next questions of this place.
    pub(crate) fn next(&self, place: &str, acts: impl IntoIterator<Item = OnAsked>) {
        self.shared.script.lock().unwrap().next.entry(place.to_owned()).or_default().extend(acts);
    }

    /// Acts so on every further question of this place.
    pub(crate) fn always(&self, place: &str, act: OnAsked) {
        self.shared.script.lock().unwrap().always.insert(place.to_owned(), act);
    }

    /// Answers everything that is held.
    pub(crate) fn release(&self) {
        self.shared.released.send_modify(|count| *count += 1);
    }

    /// The questions of this place so far.
    pub(crate) fn asked(&self, place: &str) -> Vec<Value> {
        let script = self.shared.script.lock().unwrap();
        script.asked.iter().filter(|it| places(it).iter().any(|of| of == place)).cloned().collect()
    }

    /// Waits until this place was asked so often.
    pub(crate) async fn was_asked(&self, place: &str, times: usize) {
        let what = format!("{place} is asked {times} times");
        eventually(&what, async || (times <= self.asked(place).len()).then_some(())).await;
    }

    /// The most questions of a pipeline that it ever answered at a time.
    pub(crate) fn in_flight_max(&self, pipeline: &str) -> usize {
        self.shared.script.lock().unwrap().in_flight.get(pipeline).map_or(0, |(_, most)| *most)
    }
}

/// The names of a question's place, the most exact one first.
fn places(question: &Value) -> [String; 3] {
    let named = if question["op"] == "hook" { &question["hook"] } else { &question["stage"] };
    let (name, pipeline) = (named.as_str().unwrap(), question["pipeline"].as_str().unwrap());
    let strategy = question["strategy"].as_str().unwrap_or_default();
    [format!("{pipeline}/{name}/{strategy}"), format!("{pipeline}/{name}"), name.to_owned()]
}

impl Script {
    fn take_act(&mut self, question: &Value) -> OnAsked {
        let places = places(question);
        let next = places.iter().find_map(|place| self.next.get_mut(place)?.pop_front());
        next.or_else(|| places.iter().find_map(|place| self.always.get(place).cloned()))
            .unwrap_or(OnAsked::Usual)
    }
}

/// A question on its way; it ends when it is answered or when whoever asked has gone.
struct InFlight {
    shared: Arc<Shared>,
    pipeline: String,
}

impl InFlight {
    fn begin(shared: &Arc<Shared>, pipeline: &str) -> Self {
        let mut script = shared.script.lock().unwrap();
        let (now, most) = script.in_flight.entry(pipeline.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Self { shared: Arc::clone(shared), pipeline: pipeline.to_owned() }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some((now, _)) = self.shared.script.lock().unwrap().in_flight.get_mut(&self.pipeline) {
            *now -= 1;
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, question: Bytes) -> Response {
    let question: Value = serde_json::from_slice(&question).unwrap();
    let _in_flight = InFlight::begin(&shared, question["pipeline"].as_str().unwrap());
    let mut released = shared.released.subscribe();
    let act = {
        let mut script = shared.script.lock().unwrap();
        script.asked.push(question.clone());
        script.take_act(&question)
    };
    let as_json = |text: String| ([(header::CONTENT_TYPE, "application/json")], text).into_response();
    match act {
        OnAsked::Usual => as_json(usual_answer(&question).to_string()),
        OnAsked::Hold => {
            drop(released.changed().await);
            as_json(usual_answer(&question).to_string())
        }
        OnAsked::Hang => std::future::pending().await,
        OnAsked::Say(text) => as_json(text),
        OnAsked::BreakOff => {
            let broken =
                futures_util::stream::iter([Ok(Bytes::from("{")), Err(std::io::Error::other("dead"))]);
            Body::from_stream(broken).into_response()
        }
        OnAsked::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        OnAsked::Huge(mebibytes) => {
            as_json(format!(r#"{{"ok":true,"data":"{}"}}"#, "x".repeat(mebibytes << 20)))
        }
    }
}

/// One share of AAPL costs 100, each strategy buys five of them, and all that is asked for is allowed.
fn usual_answer(question: &Value) -> Value {
    if question["op"] == "hook" {
        return json!({ "ok": true, "decision": "allow" });
    }
    match (question["stage"].as_str().unwrap(), question["strategy"].as_str()) {
        ("ING", _) => json!({ "ok": true, "data": { "prices": { "AAPL": "100" } } }),
        ("SIG", Some(strategy)) => json!({ "ok": true, "decisions": [buy(strategy, "5")] }),
        ("RISK", _) => {
            let allowed = question["decisions"].as_array().unwrap().iter().map(|decision| {
                json!({
                    "decisionId": decision["decisionId"], "outcome": "allowed",
                    "quantity": decision["suggestedQuantity"], "price": decision["suggestedPrice"],
                })
            });
            json!({ "ok": true, "verdicts": allowed.collect::<Vec<_>>() })
        }
        _ => json!({ "ok": true, "data": {} }),
    }
}

/// A decision of this strategy.
pub(crate) fn buy(strategy: &str, quantity: &str) -> Value {
    json!({
        "decisionId": format!("{strategy}:AAPL"), "strategyId": strategy, "symbol": "AAPL", "action": "BUY",
        "confidence": 0.7, "reasoning": "up", "suggestedQuantity": quantity, "suggestedPrice": "100",
    })
}
