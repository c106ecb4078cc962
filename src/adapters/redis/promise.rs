//! The promise of durability over time: asked for again and again, and no append while it is broken.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tracing::{debug, error, info};

use super::connect::Endpoint;
use super::preflight::{Durability, Findings, examine};
use super::replay::Replayed;

/// Promise of durability, and whether the server keeps it.
pub(super) struct Promise {
    endpoint: Endpoint,
    durability: Durability,
    written: Replayed,
    timeout: Duration,
    refusal: Mutex<Option<String>>,
}

impl Promise {
    /// `written`: what is written to the server, and must come back when it is restarted.
    pub(super) fn new(
        endpoint: Endpoint,
        durability: Durability,
        written: Replayed,
        timeout: Duration,
    ) -> Self {
        Self { endpoint, durability, written, timeout, refusal: Mutex::new(None) }
    }

    pub(super) const fn durability(&self) -> Durability {
        self.durability
    }

    /// Why nothing may be appended now, as far as it is known.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the server on `connection`, and remembers the answer for [`refusal`](Self::refusal).
    ///
    /// # Errors
    ///
    /// It did not answer; what was known stays.
    pub(super) async fn ask(&self, connection: &mut MultiplexedConnection) -> io::Result<Findings> {
        let findings =
            examine(&self.endpoint, connection, self.durability, &self.written, self.timeout).await?;
        let refusal = findings.refusal();
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
pub(super) async fn watch(promise: Arc<Promise>, interval: Duration) {
    let mut connection = None;
    loop {
        tokio::time::sleep(interval).await;
        if let Err(error) = ask(&promise, &mut connection).await {
            // The appends notice it too, and say so.
            debug!(%error, "cannot ask redis what it keeps");
            connection = None;
        }
    }
}

async fn ask(promise: &Promise, connection: &mut Option<MultiplexedConnection>) -> io::Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(promise.endpoint.open(None).await?),
    };
    promise.ask(connection).await.map(|_| ())
}
