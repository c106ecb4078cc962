//! The client: one POST a call, and what may come of it.

use std::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::engine::engine_protocol::{Hello, PROTOCOL, RequestBody, read_answer};
use orchestrator_kernel::error::{ERROR_DETAIL_BYTES_MAX, ErrorKind, bounded_detail};
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::options::{Checked, HttpEngineError, HttpEngineOptions};

/// How long an idle connection is kept. Shorter than servers keep theirs, so that mostly we are the one who closes it.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// An engine behind HTTP.
///
/// A call may be dropped at any time: its connection is closed, the next call takes another one.
pub struct HttpEngine {
    client: Client,
    options: HttpEngineOptions,
    checked: Checked,
    /// One permit a connection.
    connections: Semaphore,
    last_id: AtomicU64,
    /// Who gave the first answer.
    identity: OnceLock<EngineIdentity>,
}

impl HttpEngine {
    /// Prepares the client. Nothing is sent, so the engine may be started later.
    ///
    /// The process must have installed a TLS provider of `rustls` before.
    ///
    /// # Errors
    ///
    /// [`HttpEngineError`].
    pub fn new(options: HttpEngineOptions) -> Result<Self, HttpEngineError> {
        let checked = options.check_ranges()?;
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(HttpEngineError::Options { problem: "no TLS provider is installed in this process" });
        }
        let builder = Client::builder()
            .user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .no_proxy()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(options.connect_timeout)
            .pool_max_idle_per_host(options.connections_max)
            .pool_idle_timeout(IDLE_MAX);
        // Without TLS no certificates are needed, and a small container may have none.
        let builder = match checked.url.scheme() {
            "http" => builder.tls_certs_only([]),
            _ => builder,
        };
        let client = builder.build().map_err(|error| HttpEngineError::Tls(error.without_url()))?;
        let connections = Semaphore::new(options.connections_max.min(Semaphore::MAX_PERMITS));
        let (last_id, identity) = (AtomicU64::new(0), OnceLock::new());
        Ok(Self { client, options, checked, connections, last_id, identity })
    }

    /// Asks the engine for its hello, without a call, whether it offers calls of `mode`. One that is not up yet, or
    /// does not answer a GET with a hello, is asked by its first call.
    ///
    /// # Errors
    ///
    /// [`HttpEngineError::Contract`]: it is up and no call could ever complete.
    pub async fn check_offer(&self, mode: EngineMode) -> Result<(), HttpEngineError> {
        let mut get = self.client.get(self.checked.url.clone());
        if let Some(authorization) = &self.checked.authorization {
            get = get.header(AUTHORIZATION, authorization.clone());
        }
        let hello = async {
            let response = get.send().await.ok().filter(|response| response.status() == StatusCode::OK)?;
            serde_json::from_slice::<Hello>(&self.read_body(response).await.ok()?).ok()
        };
        match timeout(self.options.connect_timeout, hello).await {
            Ok(Some(hello)) => hello.check_mode(mode).map_err(HttpEngineError::Contract),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Sends one request and reads the whole answer.
    async fn exchange_request(&self, request: Vec<u8>) -> Result<Vec<u8>, EngineError> {
        let mut post = self.client.post(self.checked.url.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.checked.authorization {
            post = post.header(AUTHORIZATION, authorization.clone());
        }
        let response = post.body(request).send().await.map_err(|error| self.transport_error(&error))?;
        match response.status() {
            StatusCode::OK => self.read_body(response).await,
            status => Err(self.status_error(status, response).await),
        }
    }

    /// The body of a good answer, unless it is too long.
    async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, EngineError> {
        let max = self.options.output_bytes_max;
        let too_long = || {
            self.silent_error(ErrorKind::EngineFailure, &format!("the engine answered more than {max} bytes"))
        };
        if response.content_length().is_some_and(|bytes| (max as u64) < bytes) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport_error(&error))? {
            if max - body.len() < chunk.len() {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What a status other than 200 means; the beginning of its body says more.
    async fn status_error(&self, status: StatusCode, mut response: Response) -> EngineError {
        let kind = match status {
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => ErrorKind::EngineUnavailable,
            _ => ErrorKind::EngineFailure,
        };
        let mut said = Vec::new();
        // A body that breaks off still tells what came of it.
        while let (true, Ok(Some(chunk))) = (said.len() < ERROR_DETAIL_BYTES_MAX, response.chunk().await) {
            said.extend_from_slice(&chunk);
        }
        let said = String::from_utf8_lossy(&said);
        self.silent_error(kind, &format!("the engine answered with status {status}: {}", said.trim()))
    }

    /// A request without an answer. The address stays out of it: details are published.
    fn transport_error(&self, error: &reqwest::Error) -> EngineError {
        if error_causes(error)
            .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
            .any(hyper::Error::is_parse)
        {
            return self.silent_error(ErrorKind::EngineFailure, "the engine's answer is no HTTP");
        }
        // The outer ones name the address, the innermost one says what happened.
        let cause =
            error_causes(error).skip(1).last().map_or_else(String::new, |cause| format!(" ({cause})"));
        let what = if error.is_connect() { "cannot be reached" } else { "closed the connection" };
        self.silent_error(ErrorKind::EngineUnavailable, &format!("the engine {what}{cause}"))
    }

    /// Reads an answer and who gave it.
    fn parse_answer(&self, body: &[u8], id: u64, mode: EngineMode) -> Result<EngineAnswer, EngineError> {
        let failure = |detail: String| self.silent_error(ErrorKind::EngineFailure, &detail);
        let answer =
            read_answer(body, id, mode).map_err(|error| failure(format!("the engine wrote {error}")))?;
        let hello: Hello = serde_json::from_slice(body)
            .map_err(|error| failure(format!("the engine's answer does not say who gave it ({error})")))?;
        if hello.protocol != PROTOCOL {
            let found = hello.protocol;
            let detail = format!("the engine speaks protocol {found}, this orchestrator speaks {PROTOCOL}");
            return Err(failure(detail));
        }
        hello.check_mode(mode).map_err(|refused| failure(refused.to_string()))?;
        let first = self.identity.get_or_init(|| hello.engine.clone());
        if *first != hello.engine {
            let (first, other) = (describe_engine(first), describe_engine(&hello.engine));
            let detail = format!(
                "the engine was exchanged: {other} answered instead of {first}; restart the orchestrator to go on with it"
            );
            return Err(failure(detail));
        }
        answer.map_err(|error| EngineError { detail: self.redacted_detail(&error.detail), ..error })
    }

    /// Something else than an answer came, or nothing.
    fn silent_error(&self, kind: ErrorKind, detail: &str) -> EngineError {
        EngineError::no_answer(kind, self.redacted_detail(detail))
    }

    /// The token must not be published, whoever repeats it to us.
    fn redacted_detail(&self, detail: &str) -> String {
        match &self.options.token {
            Some(token) if !token.is_empty() => bounded_detail(&detail.replace(token, "<hidden>")),
            Some(_) | None => bounded_detail(detail),
        }
    }
}

#[async_trait]
impl Engine for HttpEngine {
    /// Known from the first answer on.
    fn identity(&self) -> EngineIdentity {
        self.identity.get().cloned().unwrap_or_default()
    }

    async fn call(&self, call: &EngineCall) -> Result<EngineAnswer, EngineError> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut request = Vec::new();
        RequestBody::new(call, &self.checked.hysteresis_config).write_line(id, &mut request);
        let Ok(_connection) = self.connections.acquire().await else {
            return Err(self.silent_error(ErrorKind::Shutdown, "the engine's client is closed"));
        };
        let deadline = self.options.deadline;
        match timeout(deadline, self.exchange_request(request)).await {
            Ok(body) => self.parse_answer(&body?, id, call.mode),
            Err(_) => {
                let detail = format!("the engine gave no answer within {deadline:?}");
                Err(self.silent_error(ErrorKind::EngineTimeout, &detail))
            }
        }
    }
}

/// The error and what lies behind it, outermost first.
fn error_causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source())
}

/// An engine as a message names it.
fn describe_engine(engine: &EngineIdentity) -> String {
    format!("{} {} (code {:.12})", engine.name, engine.version, engine.code_hash)
}
