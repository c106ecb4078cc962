//! One POST a call: the client of engines, stages and hooks behind HTTP, and what may come of a call.

use std::error::Error;
use std::time::Duration;

use orchestrator_kernel::error::{ERROR_DETAIL_BYTES_MAX, bounded_detail};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long an idle connection is kept. Shorter than servers keep theirs, so that mostly we are the one who closes it.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Names the question, so that a server that meets it again need not do it again.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Settings of a client. No `Debug`: `token` is a secret.
#[derive(Clone)]
pub(super) struct PosterSettings {
    /// Where calls are posted: `http` or `https`, without user and password.
    pub(super) url: String,
    /// Sent as `Authorization: Bearer …`. Printable ASCII.
    pub(super) token: Option<String>,
    /// Longest for making a connection, TLS included. More than zero.
    pub(super) connect_timeout: Duration,
    /// Longest answer in bytes. More than zero.
    pub(super) output_bytes_max: usize,
    /// Connections, and so calls at a time. At least 1.
    pub(super) connections_max: usize,
    /// The server in the details of failures, which are published: `the engine`.
    pub(super) subject: &'static str,
}

/// Reason for which there is no client. Nothing was sent.
#[derive(Debug)]
pub(super) enum PosterRefused {
    /// A setting out of its range. Holds no secret.
    Setting(&'static str),
    /// TLS cannot be set up.
    Tls(reqwest::Error),
}

/// How a call ended that got no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostFailureKind {
    /// There was no connection, it broke off, or the status says that another time may be better.
    Unavailable,
    /// Another status than 200.
    Refused,
    /// What came is no HTTP.
    NoHttp,
    /// The answer is longer than allowed. It was not read to its end.
    TooLarge,
}

/// A call without a good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PostFailure {
    pub(super) kind: PostFailureKind,
    /// One line without address and token: details are published.
    pub(super) detail: String,
}

/// The body of a response 200.
pub(super) struct PostAnswer {
    pub(super) body: Vec<u8>,
    /// What it is said to be, if anything is said.
    pub(super) content_type: Option<String>,
}

/// Client of one URL.
///
/// A call may be dropped at any time: its connection is closed, the next call takes another one. Nothing is sent again
/// by itself. Only a request of which no byte was written, because the kept connection had just been closed, goes out
/// on another one.
pub(super) struct Poster {
    client: Client,
    url: Url,
    authorization: Option<HeaderValue>,
    settings: PosterSettings,
    /// One permit a connection.
    connections: Semaphore,
}

impl Poster {
    /// Prepares the client. Nothing is sent, so the server may be started later.
    ///
    /// The process must have installed a TLS provider of `rustls` before.
    ///
    /// # Errors
    ///
    /// [`PosterRefused`].
    pub(super) fn new(settings: PosterSettings) -> Result<Self, PosterRefused> {
        let (url, authorization) = settings.check_ranges().map_err(PosterRefused::Setting)?;
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(PosterRefused::Setting("no TLS provider is installed in this process"));
        }
        let builder = Client::builder()
            .user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .no_proxy()
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(settings.connections_max)
            .pool_idle_timeout(IDLE_MAX);
        // Without TLS no certificates are needed, and a small container may have none.
        let builder = match url.scheme() {
            "http" => builder.tls_certs_only([]),
            _ => builder,
        };
        let client = builder.build().map_err(|error| PosterRefused::Tls(error.without_url()))?;
        let connections = Semaphore::new(settings.connections_max.min(Semaphore::MAX_PERMITS));
        Ok(Self { client, url, authorization, settings, connections })
    }

    /// Waits for a connection's turn, first come, first served. It is never closed.
    pub(super) async fn take_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.connections.acquire().await.ok()
    }

    /// Fetches what stands at the URL; nothing for anything but a response 200.
    pub(super) async fn fetch(&self) -> Option<Vec<u8>> {
        let get = self.authorized(self.client.get(self.url.clone()));
        let response = get.send().await.ok().filter(|response| response.status() == StatusCode::OK)?;
        self.read_body(response).await.ok()
    }

    /// Sends one request and reads the whole answer. Whoever calls it has a turn and a deadline.
    pub(super) async fn post(&self, request: Vec<u8>, key: Option<&str>) -> Result<PostAnswer, PostFailure> {
        let mut post = self.authorized(self.client.post(self.url.clone()));
        post = post.header(CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            post = post.header(IDEMPOTENCY_KEY, key);
        }
        let response = post.body(request).send().await.map_err(|error| self.transport_failure(&error))?;
        match response.status() {
            StatusCode::OK => {
                let content_type = response.headers().get(CONTENT_TYPE);
                let content_type =
                    content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
                Ok(PostAnswer { body: self.read_body(response).await?, content_type })
            }
            status => Err(self.status_failure(status, response).await),
        }
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.clone()),
            None => request,
        }
    }

    /// The body of a good answer, unless it is too long.
    async fn read_body(&self, mut response: Response) -> Result<Vec<u8>, PostFailure> {
        let max = self.settings.output_bytes_max;
        let too_long = || {
            let detail = format!("{} answered more than {max} bytes", self.settings.subject);
            self.failure(PostFailureKind::TooLarge, &detail)
        };
        if response.content_length().is_some_and(|bytes| (max as u64) < bytes) {
            return Err(too_long());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.transport_failure(&error))? {
            if max - body.len() < chunk.len() {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What a status other than 200 means; the beginning of its body says more.
    async fn status_failure(&self, status: StatusCode, mut response: Response) -> PostFailure {
        let kind = match status {
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => PostFailureKind::Unavailable,
            _ => PostFailureKind::Refused,
        };
        let mut said = Vec::new();
        // A body that breaks off still tells what came of it.
        while let (true, Ok(Some(chunk))) = (said.len() < ERROR_DETAIL_BYTES_MAX, response.chunk().await) {
            said.extend_from_slice(&chunk);
        }
        let (subject, said) = (self.settings.subject, String::from_utf8_lossy(&said));
        self.failure(kind, &format!("{subject} answered with status {status}: {}", said.trim()))
    }

    /// A request without an answer. The address stays out of it.
    fn transport_failure(&self, error: &reqwest::Error) -> PostFailure {
        let subject = self.settings.subject;
        if error_causes(error)
            .filter_map(|cause| cause.downcast_ref::<hyper::Error>())
            .any(hyper::Error::is_parse)
        {
            return self.failure(PostFailureKind::NoHttp, &format!("{subject}'s answer is no HTTP"));
        }
        // The outer ones name the address, the innermost one says what happened.
        let cause =
            error_causes(error).skip(1).last().map_or_else(String::new, |cause| format!(" ({cause})"));
        let what = if error.is_connect() { "cannot be reached" } else { "closed the connection" };
        self.failure(PostFailureKind::Unavailable, &format!("{subject} {what}{cause}"))
    }

    fn failure(&self, kind: PostFailureKind, detail: &str) -> PostFailure {
        PostFailure { kind, detail: self.redact_token(detail) }
    }

    /// One bounded line. The token must not be published, whoever repeats it to us.
    pub(super) fn redact_token(&self, detail: &str) -> String {
        match &self.settings.token {
            Some(token) if !token.is_empty() => bounded_detail(&detail.replace(token, "<hidden>")),
            Some(_) | None => bounded_detail(detail),
        }
    }
}

impl PosterSettings {
    fn check_ranges(&self) -> Result<(Url, Option<HeaderValue>), &'static str> {
        let Ok(url) = Url::parse(&self.url) else { return Err("url is no address") };
        if !matches!(url.scheme(), "http" | "https") {
            return Err("url must begin with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("url must not hold user or password; use token");
        }
        if self.connect_timeout.is_zero() {
            return Err("connect_timeout must be more than zero");
        }
        if self.output_bytes_max == 0 {
            return Err("output_bytes_max must be more than zero");
        }
        if self.connections_max == 0 {
            return Err("connections_max must be at least 1");
        }
        let Some(token) = &self.token else { return Ok((url, None)) };
        let mut value =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| "token must be printable ASCII")?;
        value.set_sensitive(true);
        Ok((url, Some(value)))
    }
}

/// The error and what lies behind it, outermost first.
fn error_causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source())
}
