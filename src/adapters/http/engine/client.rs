//! The client: one POST a call, and what may come of it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::engine::engine_protocol::{Hello, PROTOCOL, RequestBody, read_answer};
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::ports::engine::{Engine, EngineAnswer, EngineCall, EngineError, EngineIdentity};
use tokio::time::timeout;

use super::options::{HttpEngineError, HttpEngineOptions};
use crate::adapters::http::post::{PostFailure, PostFailureKind, Poster};

/// An engine behind HTTP.
///
/// A call may be dropped at any time: its connection is closed, the next call takes another one.
pub struct HttpEngine {
    poster: Poster,
    deadline: Duration,
    connect_timeout: Duration,
    hysteresis_config: String,
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
        let (deadline, connect_timeout) = (options.deadline, options.connect_timeout);
        let (settings, hysteresis_config) = options.split_checked()?;
        let poster = Poster::new(settings)?;
        let (last_id, identity) = (AtomicU64::new(0), OnceLock::new());
        Ok(Self { poster, deadline, connect_timeout, hysteresis_config, last_id, identity })
    }

    /// Asks the engine for its hello, without a call, whether it offers calls of `mode`. One that is not up yet, or
    /// does not answer a GET with a hello, is asked by its first call.
    ///
    /// # Errors
    ///
    /// [`HttpEngineError::Contract`]: it is up and no call could ever complete.
    pub async fn check_offer(&self, mode: EngineMode) -> Result<(), HttpEngineError> {
        let hello = async { serde_json::from_slice::<Hello>(&self.poster.fetch().await?).ok() };
        match timeout(self.connect_timeout, hello).await {
            Ok(Some(hello)) => hello.check_mode(mode).map_err(HttpEngineError::Contract),
            Ok(None) | Err(_) => Ok(()),
        }
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
        answer.map_err(|error| EngineError { detail: self.poster.redact_token(&error.detail), ..error })
    }

    /// Something else than an answer came, or nothing.
    fn silent_error(&self, kind: ErrorKind, detail: &str) -> EngineError {
        EngineError::no_answer(kind, self.poster.redact_token(detail))
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
        RequestBody::new(call, &self.hysteresis_config).write_line(id, &mut request);
        let Some(_connection) = self.poster.take_turn().await else {
            return Err(self.silent_error(ErrorKind::Shutdown, "the engine's client is closed"));
        };
        let deadline = self.deadline;
        match timeout(deadline, self.poster.post(request, None)).await {
            Ok(Ok(answer)) => self.parse_answer(&answer.body, id, call.mode),
            Ok(Err(PostFailure { kind, detail })) => Err(EngineError::no_answer(error_kind(kind), detail)),
            Err(_) => {
                let detail = format!("the engine gave no answer within {deadline:?}");
                Err(self.silent_error(ErrorKind::EngineTimeout, &detail))
            }
        }
    }
}

/// The published category of a call without a good answer.
const fn error_kind(kind: PostFailureKind) -> ErrorKind {
    match kind {
        PostFailureKind::Unavailable => ErrorKind::EngineUnavailable,
        PostFailureKind::Refused | PostFailureKind::NoHttp | PostFailureKind::TooLarge => {
            ErrorKind::EngineFailure
        }
    }
}

/// An engine as a message names it.
fn describe_engine(engine: &EngineIdentity) -> String {
    format!("{} {} (code {:.12})", engine.name, engine.version, engine.code_hash)
}
