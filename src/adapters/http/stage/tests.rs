//! The client against real sockets: a provider of axum that does what the stage's name says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use orchestrator_kernel::ports::stage::{HookBackend, StageBackend, StageRequest};
use orchestrator_kernel::ports::stage_conformance::{
    HookBackendProvider, StageBackendProvider, run, run_for_hooks, sample_question, sample_request,
};
use orchestrator_kernel::trading::gate::HookError;
use orchestrator_kernel::trading::ids::StageName;
use orchestrator_kernel::trading::journal::{StageError, StageErrorKind, StageOutput};
use orchestrator_kernel::trading::stage_protocol::{hook_request_json, stage_request_json};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{HttpStages, HttpStagesError, HttpStagesOptions};

const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 100_000;

fn options(url: &str) -> HttpStagesOptions {
    HttpStagesOptions {
        url: url.to_owned(),
        token: None,
        connect_timeout: PATIENCE,
        output_bytes_max: ANSWER_BYTES_MAX,
        connections_max: 4,
    }
}

fn provider(options: HttpStagesOptions) -> HttpStages {
    // Another test of the process may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    HttpStages::new(options).unwrap()
}

/// Requests as they came: headers and body.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(HeaderMap, Bytes)>>>);

impl Seen {
    fn requests(&self) -> Vec<(HeaderMap, Bytes)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Does what the name of the stage or hook says.
async fn serve(State(seen): State<Seen>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap();
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    seen.0.lock().unwrap_or_else(PoisonError::into_inner).push((headers, body));
    let name = request["stage"].as_str().or_else(|| request["hook"].as_str()).unwrap().to_owned();
    let json = |text: &str| ([("content-type", "application/json; charset=utf-8")], text.to_owned());
    match name.as_str() {
        "ING" => json(r#"{ "ok": true, "data": {"echo": 1} }"#).into_response(),
        "FEAT" => json(r#"{"ok":false,"error_detail":"no features"}"#).into_response(),
        "allows" => json(r#"{"ok":true,"decision":"allow"}"#).into_response(),
        "denies" => json(r#"{"ok":true,"decision":"deny","reasons":["not today"]}"#).into_response(),
        "narrows" => {
            let patch = r#"[{"decisionId":"d-1","quantity":2.5},{"decisionId":"d-2","drop":true}]"#;
            json(&format!(r#"{{"ok":true,"decision":"modify","reasons":["too large"],"patch":{patch}}}"#))
                .into_response()
        }
        "hang" => std::future::pending().await,
        "empty" => json("").into_response(),
        "array" => json("[]").into_response(),
        "anything" => json("{}").into_response(),
        "html" => ([("content-type", "text/html")], r#"{"ok":true}"#).into_response(),
        "plain" => Body::from(r#"{"ok":true}"#).into_response(),
        "huge" => json(&format!(r#"{{"ok":true,"data":"{}"}}"#, "x".repeat(100 << 20))).into_response(),
        "endless" => {
            let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 10_000]));
            Body::from_stream(pieces).into_response()
        }
        "echo_token" => {
            let said = authorization.unwrap().replace("Bearer ", "");
            json(&format!(r#"{{"ok":false,"error_detail":"{said} is no good"}}"#)).into_response()
        }
        status => match status.strip_prefix("status-").and_then(|code| code.parse().ok()) {
            Some(code) => {
                let status = StatusCode::from_u16(code).unwrap();
                (status, [("location", "/elsewhere")], format!(" why\n{} ", "x".repeat(5_000)))
                    .into_response()
            }
            None => (StatusCode::NOT_FOUND, "no such stage").into_response(),
        },
    }
}

async fn start() -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/stages", listener.local_addr().unwrap());
    let seen = Seen::default();
    let app = axum::Router::new().route("/stages", axum::routing::post(serve)).with_state(seen.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, seen)
}

/// A question for a stage of this name.
fn request_of(stage: &str) -> StageRequest {
    let mut request = sample_request(0);
    request.stage.name = StageName::new(stage).unwrap();
    StageRequest { time_left: PATIENCE, ..request }
}

async fn check_stage(stages: &HttpStages, stage: &str) -> Result<StageOutput, StageError> {
    stages.call_stage(request_of(stage)).await
}

struct OverHttp;

#[async_trait]
impl StageBackendProvider for OverHttp {
    async fn fresh(&self) -> Arc<dyn StageBackend> {
        Arc::new(provider(options(&start().await.0)))
    }
}

#[async_trait]
impl HookBackendProvider for OverHttp {
    async fn fresh(&self) -> Arc<dyn HookBackend> {
        Arc::new(provider(options(&start().await.0)))
    }
}

#[tokio::test]
async fn stages_and_hooks_behind_http_keep_the_promises() {
    run(&OverHttp).await;
    run_for_hooks(&OverHttp).await;
}

#[tokio::test]
async fn a_question_is_one_post_named_by_its_key() {
    let (url, seen) = start().await;
    let stages = provider(HttpStagesOptions { token: Some("canary".to_owned()), ..options(&url) });
    let (request, question) = (request_of("ING"), sample_question("allows"));

    stages.call_stage(request.clone()).await.unwrap();
    stages.ask_hook(question.clone()).await.unwrap();

    let seen = seen.requests();
    let texts = [
        (request.question_key(), stage_request_json(&request)),
        (question.question_key(), hook_request_json(&question)),
    ];
    assert_eq!(seen.len(), texts.len());
    for ((headers, body), (key, text)) in seen.iter().zip(texts) {
        assert_eq!(headers["idempotency-key"], key);
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["authorization"], "Bearer canary");
        assert_eq!(body, &text);
        assert!(text.contains(&format!(r#""idempotency_key":"{key}""#)), "{text}");
    }
}

/// T8. Method: whatever a question ended with, the next one is answered.
#[tokio::test]
async fn what_is_no_answer_fails_its_stage_and_nothing_else() {
    use StageErrorKind::{Garbage, Provider, TooLarge, Unavailable};
    let (url, seen) = start().await;
    let stages = provider(options(&url));
    let mut cases = vec![
        ("empty", Garbage, "the provider wrote something that is no answer"),
        ("array", Garbage, "the provider wrote something that is no answer"),
        ("anything", Garbage, "the provider wrote something that is no answer (ok is missing)"),
        ("html", Garbage, "the provider's answer is said to be text/html"),
        ("huge", TooLarge, "the provider answered more than 100000 bytes"),
        ("endless", TooLarge, "the provider answered more than 100000 bytes"),
    ];
    let statuses = [
        ("status-204", Provider),
        ("status-307", Provider),
        ("status-400", Provider),
        ("status-401", Provider),
        ("status-408", Unavailable),
        ("status-429", Unavailable),
        ("status-500", Provider),
        ("status-502", Unavailable),
        ("status-503", Unavailable),
        ("status-504", Unavailable),
    ];
    cases.extend(statuses.map(|(stage, kind)| (stage, kind, "the provider answered with status ")));
    let count = cases.len();
    for (stage, kind, detail) in cases {
        let error = check_stage(&stages, stage).await.unwrap_err();

        assert_eq!(error.kind, kind, "{stage}: {error}");
        assert!(error.detail.starts_with(detail) && error.detail.len() <= 500, "{stage}: {error}");
        check_stage(&stages, "ING").await.unwrap();
    }
    assert_eq!(seen.requests().len(), 2 * count, "nothing is sent again, and no redirect is followed");
    assert!(check_stage(&stages, "plain").await.is_ok(), "an answer that does not say what it is");
    for hook in ["empty", "anything", "html", "huge", "status-503"] {
        let refused = stages.ask_hook(sample_question(hook)).await;
        assert!(matches!(refused, Err(HookError::Failed(_))), "{hook}: {refused:?}");
    }
}

/// T8, T12. Method: one connection; a question that waits for it is charged for the wait, and none is left hanging.
#[tokio::test]
async fn time_counts_from_the_question_on_and_a_hanging_one_frees_its_connection() {
    let (url, seen) = start().await;
    let stages = provider(HttpStagesOptions { connections_max: 1, ..options(&url) });
    let within = |stage: &str| StageRequest { time_left: Duration::from_millis(300), ..request_of(stage) };

    let (first, second) = tokio::join!(stages.call_stage(within("hang")), stages.call_stage(within("hang")));
    for late in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!(
            late,
            StageError::new(StageErrorKind::Timeout, "the provider gave no answer within 300ms")
        );
    }
    assert!(seen.requests().len() <= 2);
    let mut question = sample_question("hang");
    question.hook.budget = Duration::from_millis(50);
    assert_eq!(stages.ask_hook(question).await, Err(HookError::TimedOut));

    check_stage(&stages, "ING").await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_unavailable_until_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let stages = provider(options(&format!("http://{address}/stages")));

    let error = check_stage(&stages, "ING").await.unwrap_err();

    assert_eq!(error.kind, StageErrorKind::Unavailable);
    assert!(error.detail.starts_with("the provider cannot be reached ("), "{error}");
    assert!(!error.detail.contains(&address.port().to_string()), "the address is published: {error}");
}

#[tokio::test]
async fn a_token_that_the_provider_repeats_is_not_told() {
    let (url, _) = start().await;
    let stages = provider(HttpStagesOptions { token: Some("canary".to_owned()), ..options(&url) });

    let stage = check_stage(&stages, "echo_token").await.unwrap_err();
    let hook = stages.ask_hook(sample_question("echo_token")).await;

    assert_eq!(stage.detail, "<hidden> is no good");
    assert_eq!(hook, Err(HookError::Failed("<hidden> is no good".to_owned())));
}

#[test]
fn options_out_of_range_are_refused_without_telling_them() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let good = || options("http://localhost:1/");
    for bad in [
        HttpStagesOptions { url: "canary".to_owned(), ..good() },
        HttpStagesOptions { url: "ftp://x/canary".to_owned(), ..good() },
        HttpStagesOptions { url: "http://x:canary@localhost/".to_owned(), ..good() },
        HttpStagesOptions { token: Some("canary\n".to_owned()), ..good() },
        HttpStagesOptions { connect_timeout: Duration::ZERO, ..good() },
        HttpStagesOptions { output_bytes_max: 0, ..good() },
        HttpStagesOptions { connections_max: 0, ..good() },
    ] {
        match HttpStages::new(bad) {
            Err(error @ HttpStagesError::Options { .. }) => {
                assert!(!error.to_string().contains("canary"), "{error}");
            }
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("taken"),
        }
    }
}
