//! The running service: the tree and the HTTP interface, from start to ordered stop.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use orchestrator_actors::fatal::{Chain, Fatal, FatalKind};
use orchestrator_actors::tree::{Stopped, Tree};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::observer::Observer;

use crate::cli::Exit;
use crate::config::Config;
use crate::telemetry::metrics::Metrics;
use crate::wiring::{self, Wired, WiringError};

/// The version of the binary.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why the service did not start. What was opened is closed again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something it needs could not be opened.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// An actor could not start.
    #[error(transparent)]
    Tree(#[from] Fatal),
}

impl StartError {
    /// How the process ends because of it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Wiring(error) => error.exit(),
            Self::Tree(fatal) => exit_of(fatal.kind),
        }
    }
}

/// How the process ends after a fatal failure of this kind.
#[must_use]
pub const fn exit_of(kind: FatalKind) -> Exit {
    match kind {
        FatalKind::Storage => Exit::Io,
        FatalKind::Fenced => Exit::Held,
        FatalKind::Corrupt => Exit::Data,
        FatalKind::Internal => Exit::Internal,
    }
}

/// Why the service is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A signal, or the demo's time is over.
    Asked,
    /// Every source has ended.
    SourcesEnded,
}

/// A service that is up.
pub struct Service {
    tree: Tree,
    wired: Wired,
    metrics: Arc<Metrics>,
    grace: Duration,
}

impl Service {
    /// Opens everything, reads the logs, starts the tree.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let mut metrics = None;
        let wired = wiring::wire(config, |clock| {
            let made = Arc::new(Metrics::new(Arc::clone(clock), wall_now(), VERSION));
            metrics = Some(Arc::clone(&made));
            made as Arc<dyn Observer>
        })
        .await?;
        let metrics = metrics
            .unwrap_or_else(|| Arc::new(Metrics::new(Arc::clone(&wired.ports.clock), wall_now(), VERSION)));
        let tree = Tree::start(wired.ports.clone(), &wired.settings).await?;
        Ok(Self { tree, wired, metrics, grace: config.service.grace })
    }

    /// The tree.
    #[must_use]
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Ready when every source has ended by itself.
    pub fn sources_ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.tree.sources_ended()
    }

    /// The receipt log, for reading.
    #[must_use]
    pub fn receipts(&self) -> Arc<dyn Log> {
        Arc::clone(&self.wired.ports.receipts)
    }

    /// The run log, for reading.
    #[must_use]
    pub fn runs(&self) -> Arc<dyn Log> {
        Arc::clone(&self.wired.ports.runs)
    }

    /// The quarantine, for reading.
    #[must_use]
    pub fn quarantine(&self) -> Arc<dyn Log> {
        Arc::clone(&self.wired.ports.quarantine)
    }

    /// Where the HTTP interface is reached.
    #[must_use]
    pub fn url(&self) -> String {
        "http://127.0.0.1:0".to_owned()
    }

    /// The metrics.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Runs until `stop` is ready or the tree fails; then stops in order.
    pub async fn run(mut self, stop: impl Future<Output = Reason>) -> Exit {
        let reason = tokio::select! {
            biased;
            (kind, what) = self.tree.failed() => {
                tracing::error!(error_detail = what, "the service failed");
                self.end_workers().await;
                return exit_of(kind);
            }
            reason = stop => reason,
        };
        tracing::info!(?reason, "stopping");
        let Self { tree, wired, grace, .. } = self;
        let stopped = tree.stop(grace).await;
        if let Some(workers) = &wired.workers {
            workers.shutdown().await;
        }
        match stopped {
            Stopped::Clean => {
                tracing::info!("stopped");
                Exit::Ok
            }
            Stopped::Unfinished(step) => {
                tracing::error!(
                    step,
                    "stopped before everything was finished; the logs hold it and the next start goes on"
                );
                Exit::Unavailable
            }
        }
    }

    async fn end_workers(&self) {
        if let Some(workers) = &self.wired.workers {
            workers.shutdown().await;
        }
    }
}

fn wall_now() -> TsMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TsMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// An error with its causes, for the last line that the process writes.
#[must_use]
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    Chain(error).to_string()
}
