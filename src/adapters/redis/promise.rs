//! The promise of durability over time: asked for again and again, and no append while it is broken.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tracing::{debug, error, info};

use super::connect::Endpoint;
use super::preflight::{Durability, ServerFindings, examine_server};
use super::replay::ReplayedCommands;

/// Promise of durability, and whether the server keeps it.
pub(super) struct Promise {
    endpoint: Endpoint,
    durability: Durability,
    written: ReplayedCommands,
    timeout: Duration,
    refusal: Mutex<Option<String>>,
}

impl Promise {
    /// `written`: what is written to the server, and must come back when it is restarted.
    pub(super) fn new(
        endpoint: Endpoint,
        durability: Durability,
        written: ReplayedCommands,
        timeout: Duration,
    ) -> Self {
        Self { endpoint, durability, written, timeout, refusal: Mutex::new(None) }
    }

    pub(super) const fn durability(&self) -> Durability {
        self.durability
    }

    /// Why nothing may be appended now, as far as it is known.
    pub(super) fn append_refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the server on `connection`, and remembers the answer for [`refusal`](Self::refusal).
    ///
    /// # Errors
    ///
    /// It did not answer; what was known stays.
    pub(super) async fn ask_server(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> io::Result<ServerFindings> {
        let findings =
            examine_server(&self.endpoint, connection, self.durability, &self.written, self.timeout).await?;
        let refusal = findings.append_refusal();
        let mut known = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != refusal {
            match &refusal {
                Some(refusal) => error!(redis = self.endpoint.place(), refusal, "nothing is appended"),
                None => info!(redis = self.endpoint.place(), "redis keeps its promise again"),
            }
            *known = refusal;
        }
        Ok(findings)
    }
}

/// Asks every `interval`, on a connection of its own, until it is dropped.
pub(super) async fn watch_server(promise: Arc<Promise>, interval: Duration) {
    let mut connection = None;
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = ask_on_own_connection(&promise, &mut connection).await {
            // The appends notice it too, and say so.
            debug!(%error, "cannot ask redis what it keeps");
            connection = None;
        }
    }
}

async fn ask_on_own_connection(
    promise: &Promise,
    connection: &mut Option<MultiplexedConnection>,
) -> io::Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(promise.endpoint.open_connection(None).await?),
    };
    promise.ask_server(connection).await.map(|_| ())
}
