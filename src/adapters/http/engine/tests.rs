//! The client against real sockets: an engine of axum, and a server that says on the wire whatever the test wants.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{EngineMode, Symbol, TsMs};
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::{HttpEngine, HttpEngineError, HttpEngineOptions};

const DEADLINE: Duration = Duration::from_secs(20);

fn options(url: &str) -> HttpEngineOptions {
    HttpEngineOptions {
        url: url.to_owned(),
        token: None,
        deadline: DEADLINE,
        connect_timeout: DEADLINE,
        output_bytes_max: 100_000,
        connections_max: 4,
        hysteresis_config: r#"{ "min": 3 }"#.to_owned(),
    }
}

fn engine(options: HttpEngineOptions) -> HttpEngine {
    // Another test of the process may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    HttpEngine::new(options).unwrap()
}

fn call(mode: EngineMode, inputs: &str) -> EngineCall {
    EngineCall {
        symbol: Symbol::from("A\"é"),
        engine_timestamp_ms: TsMs(180_000),
        mode,
        inputs: inputs.to_owned(),
        state: Some(r#"{"n":1}"#.to_owned()),
    }
}

async fn check_call(engine: &HttpEngine, inputs: &str) -> Result<Value, EngineError> {
    engine.call(&call(EngineMode::Truth, inputs)).await.map(|answer| match answer {
        EngineAnswer::Truth { regime_output } => serde_json::from_str(&regime_output).unwrap(),
        EngineAnswer::Hysteresis { .. } => panic!("{answer:?}"),
    })
}

/// What the engine of the tests saw.
#[derive(Clone, Default)]
struct Seen {
    clients: Arc<Mutex<BTreeSet<SocketAddr>>>,
    now: Arc<Mutex<(usize, usize)>>,
}

impl Seen {
    fn connections(&self) -> usize {
        self.clients.lock().unwrap().len()
    }

    /// Calls at a time, at most.
    fn calls_max(&self) -> usize {
        self.now.lock().unwrap().1
    }

    fn begin(&self) {
        let mut now = self.now.lock().unwrap();
        now.0 += 1;
        now.1 = now.1.max(now.0);
    }

    fn end(&self) {
        self.now.lock().unwrap().0 -= 1;
    }
}

/// Does what `inputs.do` says.
async fn serve(
    State(seen): State<Seen>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    seen.clients.lock().unwrap().insert(client);
    let request: Value = serde_json::from_slice(&body).unwrap();
    let inputs = &request["snapshot"]["inputs"];
    let text = |key: &str| inputs[key].as_str().unwrap_or_default().to_owned();
    let version = inputs["version"].as_str().unwrap_or("1");
    let mut answer = json!({
        "engine": {"name": "test", "version": version, "code_hash": "0123456789abcdef"},
        "protocol": inputs["protocol"].as_u64().unwrap_or(1),
        "id": request["id"],
        "ok": true,
    });
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap());
    let output = json!({"request": request, "authorization": authorization});
    match request["op"].as_str().unwrap() {
        "run" => answer["regime_output"] = output,
        _ => {
            answer["hysteresis_decision"] = output;
            answer["state"] = json!({"was": request["state"]});
        }
    }
    seen.begin();
    tokio::time::sleep(Duration::from_millis(inputs["sleep_ms"].as_u64().unwrap_or(0))).await;
    seen.end();
    match text("do").as_str() {
        "fail" => {
            answer["ok"] = json!(false);
            answer["error_kind"] = json!(text("kind"));
            answer["error_detail"] = json!("why");
        }
        "huge" => answer["regime_output"]["long"] = json!("x".repeat(200_000)),
        "huge_stream" => {
            let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 10_000]));
            return Body::from_stream(pieces).into_response();
        }
        "slow_body" => {
            let pieces = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, std::io::Error>(" "), ()))
            });
            return Body::from_stream(pieces).into_response();
        }
        "empty" => drop(answer.as_object_mut().unwrap().remove("regime_output")),
        "wrong_id" => answer["id"] = json!(0),
        "anonymous" => drop(answer.as_object_mut().unwrap().remove("engine")),
        "html" => return "<html>hello</html>".into_response(),
        "status" => {
            let status = StatusCode::from_u16(inputs["status"].as_u64().unwrap().try_into().unwrap());
            let location = [("location", "/elsewhere")];
            return (status.unwrap(), location, format!(" why\n{} ", "x".repeat(5_000))).into_response();
        }
        "echo_token" => {
            return (StatusCode::FORBIDDEN, format!("{} is no good", authorization.unwrap())).into_response();
        }
        _ => {}
    }
    answer.to_string().into_response()
}

/// Starts the engine of the tests; the URL to call.
async fn start() -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/engine", listener.local_addr().unwrap());
    let seen = Seen::default();
    let app = axum::Router::new().route("/v1/engine", axum::routing::post(serve)).with_state(seen.clone());
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    (url, seen)
}

#[tokio::test]
async fn both_entry_points_make_the_round_trip() {
    let (url, _) = start().await;
    let engine = engine(options(&url));
    assert_eq!(engine.identity(), EngineIdentity::default());

    let output = check_call(&engine, "{\n\"price\" : 1.50}").await.unwrap();
    let answer = engine.call(&call(EngineMode::Hysteresis, "{}")).await.unwrap();

    let EngineAnswer::Hysteresis { decision, state } = answer else { panic!("{answer:?}") };
    assert_eq!(output["request"]["snapshot"]["symbol"], "A\"é");
    assert_eq!(output["request"]["snapshot"]["timestamp_ms"], 180_000);
    assert_eq!(output["request"]["snapshot"]["inputs"]["price"], 1.5);
    assert_eq!(output["authorization"], Value::Null);
    let decision: Value = serde_json::from_str(&decision).unwrap();
    assert_eq!(decision["request"]["op"], "run_with_hysteresis");
    assert_eq!(decision["request"]["config"]["min"], 3);
    assert_eq!(state, r#"{"was":{"n":1}}"#);
    assert_eq!(engine.identity().name, "test");
}

#[tokio::test]
async fn errors_of_the_engine_keep_their_kind_and_are_its_own_words() {
    let (url, _) = start().await;
    let engine = engine(options(&url));

    let error = check_call(&engine, r#"{"do":"fail","kind":"snapshot_build_failure"}"#).await.unwrap_err();
    let lacking = check_call(&engine, r#"{"do":"empty"}"#).await.unwrap_err();

    assert_eq!(error, EngineError::from_engine(ErrorKind::SnapshotBuildFailure, "why"));
    let detail = "the engine's answer has nothing in regime_output";
    assert_eq!(lacking, EngineError::from_engine(ErrorKind::EngineFailure, detail));
}

/// Method: whatever a call ended with, the next one is answered.
#[tokio::test]
async fn what_is_no_answer_is_an_engine_failure_that_says_why() {
    let (url, _) = start().await;
    let engine = engine(options(&url));
    let cases = [
        (r#"{"do":"huge"}"#, "the engine answered more than 100000 bytes"),
        (r#"{"do":"huge_stream"}"#, "the engine answered more than 100000 bytes"),
        (r#"{"do":"html"}"#, "the engine wrote something that is no answer ("),
        (r#"{"do":"wrong_id"}"#, "the engine wrote answer 0 to request"),
        (r#"{"do":"anonymous"}"#, "the engine's answer does not say who gave it"),
        (r#"{"protocol":2}"#, "the engine speaks protocol 2, this orchestrator speaks 1"),
    ];
    for (inputs, detail) in cases {
        let error = check_call(&engine, inputs).await.unwrap_err();

        assert_eq!((error.kind, error.said), (ErrorKind::EngineFailure, false), "{inputs}");
        assert!(error.detail.starts_with(detail), "{inputs}: {}", error.detail);
        check_call(&engine, "{}").await.unwrap();
    }
}

#[tokio::test]
async fn statuses_tell_whether_the_engine_failed_or_is_not_there() {
    let (url, _) = start().await;
    let engine = engine(options(&url));
    let (failed, absent) = (ErrorKind::EngineFailure, ErrorKind::EngineUnavailable);
    let cases = [(204, failed), (302, failed), (307, failed), (400, failed), (401, failed), (404, failed)];
    let more = [(413, failed), (500, failed), (501, failed)];
    let unavailable = [408, 429, 502, 503, 504].map(|status| (status, absent));
    for (status, kind) in cases.into_iter().chain(more).chain(unavailable) {
        let inputs = format!(r#"{{"do":"status","status":{status}}}"#);

        let error = check_call(&engine, &inputs).await.unwrap_err();

        assert_eq!((error.kind, error.said), (kind, false), "{status}: {}", error.detail);
        assert!(error.detail.starts_with(&format!("the engine answered with status {status}")), "{error}");
        if status != 204 {
            assert!(error.detail.contains(": why xxx") && error.detail.len() <= 500, "{error}");
        }
        check_call(&engine, "{}").await.unwrap();
    }
}

/// Method: an answer of another version; the first one stays in force.
#[tokio::test]
async fn an_answer_of_another_engine_is_refused() {
    let (url, _) = start().await;
    let engine = engine(options(&url));
    check_call(&engine, "{}").await.unwrap();

    let error = check_call(&engine, r#"{"version":"2"}"#).await.unwrap_err();

    assert_eq!((error.kind, error.said), (ErrorKind::EngineFailure, false));
    let detail = "test 2 (code 0123456789ab) answered instead of test 1 (code 0123456789ab)";
    assert!(error.detail.contains(detail), "{error}");
    assert_eq!(engine.identity().version, "1");
    check_call(&engine, "{}").await.unwrap();
}

#[tokio::test]
async fn the_token_is_sent_and_never_told() {
    let (url, _) = start().await;
    let engine = engine(HttpEngineOptions { token: Some("canary".to_owned()), ..options(&url) });

    let output = check_call(&engine, "{}").await.unwrap();
    let error = check_call(&engine, r#"{"do":"echo_token"}"#).await.unwrap_err();

    assert_eq!(output["authorization"], "Bearer canary");
    assert!(error.detail.ends_with("Bearer <hidden> is no good") && !error.said, "{error}");
}

#[tokio::test]
async fn calls_one_after_another_share_a_connection_and_those_at_once_are_bounded() {
    let (url, seen) = start().await;
    let engine = engine(options(&url));

    for _ in 0..20 {
        check_call(&engine, "{}").await.unwrap();
    }
    assert_eq!(seen.connections(), 1);
    let calls = (0..20).map(|_| check_call(&engine, r#"{"sleep_ms":20}"#));
    let answers = futures_util::future::join_all(calls).await;

    assert!(answers.iter().all(Result::is_ok));
    assert_eq!((seen.calls_max(), seen.connections() <= 4), (4, true));
}

/// Method: one connection; calls that hang, that trickle, and one that waited behind them longer than its deadline.
#[tokio::test]
async fn a_call_has_its_whole_deadline_from_its_turn_on() {
    let (url, _) = start().await;
    let deadline = Duration::from_millis(500);
    let engine = engine(HttpEngineOptions { deadline, connections_max: 1, ..options(&url) });
    let started = Instant::now();

    let (hung, trickled, waited) = tokio::join!(
        check_call(&engine, r#"{"sleep_ms":1000000}"#),
        check_call(&engine, r#"{"do":"slow_body"}"#),
        check_call(&engine, r#"{"sleep_ms":100}"#),
    );

    let timeout = EngineError::no_answer(ErrorKind::EngineTimeout, "the engine gave no answer within 500ms");
    assert_eq!((hung.unwrap_err(), trickled.unwrap_err()), (timeout.clone(), timeout));
    assert!(waited.is_ok(), "{waited:?}");
    assert!(started.elapsed() >= 2 * deadline);
}

/// Method: drop calls before, while and after they are answered; the next answer must be its own.
#[tokio::test]
async fn a_dropped_call_leaves_the_engine_usable() {
    let (url, _) = start().await;
    let engine = engine(HttpEngineOptions { connections_max: 1, ..options(&url) });

    for after_ms in [0, 1, 5, 20, 1_000] {
        let slow = check_call(&engine, r#"{"sleep_ms":100,"old":1}"#);
        let dropped = tokio::time::timeout(Duration::from_millis(after_ms), slow).await;
        assert_eq!(dropped.is_ok(), after_ms == 1_000);

        let output = check_call(&engine, r#"{"new":1}"#).await.unwrap();

        assert_eq!(output["request"]["snapshot"]["inputs"], json!({"new": 1}));
    }
}

/// A server that reads a request and then says `bytes` and closes; the URL, and how often it was asked.
async fn say(bytes: &'static [u8]) -> (String, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 64 << 10];
            if stream.read(&mut request).await.unwrap() > 0 {
                *counter.lock().unwrap() += 1;
            }
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (url, asked)
}

#[tokio::test]
async fn a_connection_that_ends_early_is_unavailable_and_garbage_is_a_failure_and_neither_is_sent_again() {
    let cases: [(&[u8], ErrorKind, &str); 5] = [
        (b"", ErrorKind::EngineUnavailable, "the engine closed the connection ("),
        (b"HTTP/1.1 200 OK\r\n", ErrorKind::EngineUnavailable, "the engine closed the connection ("),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\"",
            ErrorKind::EngineUnavailable,
            "the engine closed the connection (",
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", ErrorKind::EngineFailure, "the engine's answer is no HTTP"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            ErrorKind::EngineFailure,
            "the engine's answer is no HTTP",
        ),
    ];
    for (bytes, kind, detail) in cases {
        let (url, asked) = say(bytes).await;

        let error = check_call(&engine(options(&url)), "{}").await.unwrap_err();

        let shown = String::from_utf8_lossy(bytes);
        assert_eq!((error.kind, error.said), (kind, false), "{shown}: {error}");
        assert!(error.detail.starts_with(detail), "{shown}: {error}");
        assert!(!error.detail.contains("127.0.0.1"), "the address is published: {error}");
        assert_eq!(*asked.lock().unwrap(), 1, "{shown}");
    }
}

/// Method: nobody listens; then the engine is started on that port.
#[tokio::test]
async fn an_engine_that_is_not_there_is_unavailable_until_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let engine = engine(options(&format!("http://{address}/v1/engine")));

    let error = check_call(&engine, "{}").await.unwrap_err();

    assert_eq!((error.kind, error.said), (ErrorKind::EngineUnavailable, false));
    assert!(error.detail.starts_with("the engine cannot be reached ("), "{error}");
    assert!(!error.detail.contains(&address.port().to_string()), "the address is published: {error}");

    let listener = TcpListener::bind(address).await.unwrap();
    let app = axum::Router::new().fallback(serve).with_state(Seen::default());
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    check_call(&engine, "{}").await.unwrap();
}

/// Method: a listener whose queue is full accepts no connection, so connecting takes for ever.
#[tokio::test]
async fn connecting_has_a_bound_of_its_own() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..3 {
        let filler = tokio::net::TcpStream::connect(address);
        fillers.push(tokio::time::timeout(Duration::from_millis(50), filler).await);
    }
    let connect_timeout = Duration::from_millis(100);
    let engine = engine(HttpEngineOptions { connect_timeout, ..options(&format!("http://{address}/")) });

    let error = check_call(&engine, "{}").await.unwrap_err();

    assert_eq!(error.kind, ErrorKind::EngineUnavailable, "{error}");
}

#[tokio::test]
async fn options_out_of_range_are_refused_without_telling_them() {
    let good = || options("http://localhost:1/");
    let cases = [
        HttpEngineOptions { url: "canary".to_owned(), ..good() },
        HttpEngineOptions { url: "ftp://x/canary".to_owned(), ..good() },
        HttpEngineOptions { url: "http://x:canary@localhost/".to_owned(), ..good() },
        HttpEngineOptions { token: Some("canary\n".to_owned()), ..good() },
        HttpEngineOptions { deadline: Duration::ZERO, ..good() },
        HttpEngineOptions { connect_timeout: Duration::ZERO, ..good() },
        HttpEngineOptions { output_bytes_max: 0, ..good() },
        HttpEngineOptions { connections_max: 0, ..good() },
        HttpEngineOptions { hysteresis_config: "[]".to_owned(), ..good() },
    ];
    for (number, options) in cases.into_iter().enumerate() {
        match HttpEngine::new(options) {
            Err(error @ HttpEngineError::Options { .. }) => {
                assert!(!error.to_string().contains("canary"), "{error}");
            }
            Err(error) => panic!("{number}: {error}"),
            Ok(_) => panic!("{number} was taken"),
        }
    }
    let no_json = HttpEngine::new(HttpEngineOptions { hysteresis_config: "{".to_owned(), ..good() });
    assert!(matches!(no_json, Err(HttpEngineError::HysteresisConfig(_))));
    engine(options("https://localhost:1/"));
}
