//! What the client of an HTTP engine is told, and why it may be refused.

use std::time::Duration;

use orchestrator_kernel::engine::engine_protocol::NoSuchOp;
use orchestrator_kernel::json::{self, JsonError};

use crate::adapters::http::post::{PosterRefused, PosterSettings};

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

impl HttpEngineOptions {
    /// Checks what is the engine's own, and returns the client's settings and the hysteresis config as one line.
    pub(super) fn split_checked(self) -> Result<(PosterSettings, String), HttpEngineError> {
        if self.deadline.is_zero() {
            return Err(HttpEngineError::Options { problem: "deadline must be more than zero" });
        }
        let hysteresis_config =
            json::canonical(&self.hysteresis_config).map_err(HttpEngineError::HysteresisConfig)?;
        if !hysteresis_config.starts_with('{') {
            return Err(HttpEngineError::Options { problem: "hysteresis_config must be a JSON object" });
        }
        let settings = PosterSettings {
            url: self.url,
            token: self.token,
            connect_timeout: self.connect_timeout,
            output_bytes_max: self.output_bytes_max,
            connections_max: self.connections_max,
            subject: "the engine",
        };
        Ok((settings, hysteresis_config))
    }
}

impl From<PosterRefused> for HttpEngineError {
    fn from(refused: PosterRefused) -> Self {
        match refused {
            PosterRefused::Setting(problem) => Self::Options { problem },
            PosterRefused::Tls(error) => Self::Tls(error),
        }
    }
}
