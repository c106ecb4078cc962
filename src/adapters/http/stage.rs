//! Stages and hooks behind HTTP: each question is one POST of the protocol's JSON.
//!
//! ```text
//! POST <url>                                       {"as_of_date":"2026-01-09",…,"op":"stage","stage":"SIG",…}
//! Content-Type: application/json
//! Idempotency-Key: <cycle>/<stage>/<strategy>/<attempt>
//! Authorization: Bearer <token>, if there is one
//!
//! 200   {"data":{…},"decisions":[…],"ok":true}     {"error_detail":"…","ok":false}
//! ```
//!
//! | what comes | becomes |
//! |---|---|
//! | 200 and an answer | the answer, or the provider's own failure (`provider`) |
//! | 200 and anything else, another content type than JSON, no HTTP | `garbage` |
//! | more than `output_bytes_max` | `too_large`, not read to its end |
//! | 408, 429, 502, 503, 504; no connection; a connection that ends before the answer | `unavailable` |
//! | every other status; redirects are not followed | `provider` with the beginning of the body |
//! | nothing, or not all of it, within the time that is left | `timeout`; the connection is closed |
//!
//! Nothing is sent again by itself: the cycle counts its attempts, and each has a key of its own.

use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ports::stage::{HookBackend, HookRequest, StageBackend, StageRequest};
use orchestrator_kernel::trading::gate::{HookAnswer, HookError};
use orchestrator_kernel::trading::journal::{StageError, StageErrorKind, StageOutput};
use orchestrator_kernel::trading::stage_protocol::{
    hook_request_json, read_hook_answer, read_stage_answer, stage_request_json,
};
use tokio::time::timeout;

use super::post::{PostFailure, PostFailureKind, Poster, PosterRefused, PosterSettings};

#[cfg(test)]
mod tests;

/// Settings of the calls to a provider of stages. No `Debug`: `token` is a secret.
#[derive(Clone)]
pub struct HttpStagesOptions {
    /// Where questions are posted: `http` or `https`, without user and password.
    pub url: String,
    /// Sent as `Authorization: Bearer …`. Printable ASCII.
    pub token: Option<String>,
    /// Longest for making a connection, TLS included; part of a question's time. More than zero.
    pub connect_timeout: Duration,
    /// Longest answer in bytes. More than zero.
    pub output_bytes_max: usize,
    /// Connections, and so questions at a time; further ones wait, within their time. At least 1.
    pub connections_max: usize,
}

/// Reason for which there is no client of a provider. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum HttpStagesError {
    /// An option out of its range.
    #[error("stages behind HTTP: {problem}")]
    Options {
        /// Which and why. Holds no secret.
        problem: &'static str,
    },
    /// TLS cannot be set up.
    #[error("stages behind HTTP: cannot set up TLS; check that the system has root certificates")]
    Tls(#[source] reqwest::Error),
}

/// Stages and hooks behind HTTP. A question may be dropped at any time: its connection is closed.
pub struct HttpStages {
    poster: Poster,
}

impl HttpStages {
    /// Prepares the client. Nothing is sent, so the provider may be started later.
    ///
    /// The process must have installed a TLS provider of `rustls` before.
    ///
    /// # Errors
    ///
    /// [`HttpStagesError`].
    pub fn new(options: HttpStagesOptions) -> Result<Self, HttpStagesError> {
        let settings = PosterSettings {
            url: options.url,
            token: options.token,
            connect_timeout: options.connect_timeout,
            output_bytes_max: options.output_bytes_max,
            connections_max: options.connections_max,
            subject: "the provider",
        };
        Poster::new(settings).map(|poster| Self { poster }).map_err(|refused| match refused {
            PosterRefused::Setting(problem) => HttpStagesError::Options { problem },
            PosterRefused::Tls(error) => HttpStagesError::Tls(error),
        })
    }

    /// Asks once, within `time`, waiting for a connection included.
    async fn ask(&self, question: String, key: &str, time: Duration) -> Result<Vec<u8>, StageError> {
        let exchange = async {
            let Some(_connection) = self.poster.take_turn().await else {
                return Err(StageError::new(StageErrorKind::Unavailable, "the provider's client is closed"));
            };
            let answer = self.poster.post(question.into_bytes(), Some(key)).await.map_err(stage_error)?;
            match answer.content_type {
                Some(kind) if !is_json(&kind) => {
                    let detail = format!("the provider's answer is said to be {kind}");
                    Err(StageError::new(StageErrorKind::Garbage, &self.poster.redact_token(&detail)))
                }
                Some(_) | None => Ok(answer.body),
            }
        };
        timeout(time, exchange).await.unwrap_or_else(|_| {
            let detail = format!("the provider gave no answer within {time:?}");
            Err(StageError::new(StageErrorKind::Timeout, &detail))
        })
    }
}

#[async_trait]
impl StageBackend for HttpStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        let question = stage_request_json(&request);
        let body = self.ask(question, &request.question_key(), request.time_left).await?;
        let answer = read_stage_answer(&body, None, request.strategy.as_ref()).unwrap_or_else(|what| {
            Err(StageError::new(StageErrorKind::Garbage, &format!("the provider wrote {what}")))
        });
        answer.map_err(|error| StageError::new(error.kind, &self.poster.redact_token(&error.detail)))
    }
}

#[async_trait]
impl HookBackend for HttpStages {
    async fn ask_hook(&self, request: HookRequest) -> Result<HookAnswer, HookError> {
        let question = hook_request_json(&request);
        let body = match self.ask(question, &request.question_key(), request.hook.budget).await {
            Ok(body) => body,
            Err(StageError { kind: StageErrorKind::Timeout, .. }) => return Err(HookError::TimedOut),
            Err(StageError { detail, .. }) => return Err(HookError::Failed(detail)),
        };
        match read_hook_answer(&body, None) {
            Ok(Err(HookError::Failed(why))) => Err(HookError::Failed(self.poster.redact_token(&why))),
            Ok(answer) => answer.map(|answer| self.redact_reasons(answer)),
            Err(what) => Err(HookError::Failed(format!("the provider wrote {what}"))),
        }
    }
}

impl HttpStages {
    fn redact_reasons(&self, answer: HookAnswer) -> HookAnswer {
        let reasons = answer.reasons.iter().map(|reason| self.poster.redact_token(reason)).collect();
        HookAnswer { reasons, ..answer }
    }
}

fn stage_error(failure: PostFailure) -> StageError {
    let kind = match failure.kind {
        PostFailureKind::Unavailable => StageErrorKind::Unavailable,
        PostFailureKind::Refused => StageErrorKind::Provider,
        PostFailureKind::NoHttp => StageErrorKind::Garbage,
        PostFailureKind::TooLarge => StageErrorKind::TooLarge,
    };
    StageError { kind, detail: failure.detail }
}

/// `application/json`, or another form of JSON; parameters do not matter.
fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}
