//! What the client of an HTTP engine is told, and why it may be refused.

use std::time::Duration;

use orchestrator_kernel::engine::engine_protocol::NoSuchOp;
use orchestrator_kernel::json::{self, JsonError};
use reqwest::Url;
use reqwest::header::HeaderValue;

/// Settings of the calls to the engine. No `Debug`: `token` is a secret.
#[derive(Clone)]
pub struct HttpEngineOptions {
    /// Where calls are posted: `http` or `https`, without user and password.
    pub url: String,
    /// Sent as `Authorization: Bearer …`. Printable ASCII.
    pub token: Option<String>,
    /// Longest for one call, from the first byte to the last, connecting included. Waiting for a free connection is not
    /// part of it. More than zero.
    pub deadline: Duration,
    /// Longest for making a connection, TLS included. More than zero.
    pub connect_timeout: Duration,
    /// Longest answer in bytes. More than zero.
    pub output_bytes_max: usize,
    /// Connections, and so calls at a time; further calls wait, first come, first served. At least 1.
    pub connections_max: usize,
    /// The `config` of every hysteresis call: text of one JSON object.
    pub hysteresis_config: String,
}

/// Reason for which there is no client. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum HttpEngineError {
    /// An option out of its range.
    #[error("HTTP engine: {problem}")]
    Options {
        /// Which and why. Holds no secret.
        problem: &'static str,
    },
    /// The hysteresis config has no canonical form.
    #[error("HTTP engine: hysteresis_config must be a JSON object")]
    HysteresisConfig(#[source] JsonError),
    /// The engine says that it cannot answer what it would be asked.
    #[error("HTTP engine")]
    Contract(#[source] NoSuchOp),
    /// TLS cannot be set up.
    #[error("HTTP engine: cannot set up TLS; check that the system has root certificates")]
    Tls(#[source] reqwest::Error),
}

/// The options in the form in which they are used.
pub(super) struct Checked {
    pub(super) url: Url,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) hysteresis_config: String,
}

impl HttpEngineOptions {
    /// Checks the ranges.
    pub(super) fn check_ranges(&self) -> Result<Checked, HttpEngineError> {
        let refuse = |problem| Err(HttpEngineError::Options { problem });
        let Ok(url) = Url::parse(&self.url) else { return refuse("url is no address") };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("url must begin with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("url must not hold user or password; use token");
        }
        if self.deadline.is_zero() || self.connect_timeout.is_zero() {
            return refuse("deadline and connect_timeout must be more than zero");
        }
        if self.output_bytes_max == 0 {
            return refuse("output_bytes_max must be more than zero");
        }
        if self.connections_max == 0 {
            return refuse("connections_max must be at least 1");
        }
        let authorization = match &self.token {
            None => None,
            Some(token) => match HeaderValue::from_str(&format!("Bearer {token}")) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    Some(value)
                }
                Err(_) => return refuse("token must be printable ASCII"),
            },
        };
        let hysteresis_config =
            json::canonical(&self.hysteresis_config).map_err(HttpEngineError::HysteresisConfig)?;
        if !hysteresis_config.starts_with('{') {
            return refuse("hysteresis_config must be a JSON object");
        }
        Ok(Checked { url, authorization, hysteresis_config })
    }
}
