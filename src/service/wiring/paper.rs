//! The paper services as one thing: two sockets, one world, an ordered end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::adapters::paper::{PaperRole, PaperShared, PaperWorld, serve_paper};
use crate::process::time::wall_now;

pub use crate::adapters::paper::PaperSettings;

/// Addresses of the two services; port 0 takes a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaperListen {
    /// The Signal Service.
    pub signals: SocketAddr,
    /// The Execution Gateway.
    pub gateway: SocketAddr,
}

/// Start of the paper services that failed; nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum PaperStartError {
    /// A fault that is to be on from the start.
    #[error("--fault {rule}: {why}")]
    Fault {
        /// The rule as it was written.
        rule: String,
        /// The refusal.
        why: String,
    },
    /// An address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// The running paper services.
#[derive(Debug)]
pub struct PaperServices {
    listen: PaperListen,
    shutdown: CancellationToken,
    servers: JoinSet<()>,
}

impl PaperServices {
    /// Starts both services with `faults` on.
    ///
    /// # Errors
    ///
    /// [`PaperStartError`]: a fault is refused, or an address cannot be listened on.
    pub async fn start(
        settings: PaperSettings,
        faults: &[String],
        listen: PaperListen,
    ) -> Result<Self, PaperStartError> {
        let mut world = PaperWorld::new(settings);
        for rule in faults {
            world
                .set_fault(rule.as_bytes())
                .map_err(|why| PaperStartError::Fault { rule: rule.clone(), why: why.to_string() })?;
        }
        let (signals, signals_at) = bind_address(listen.signals).await?;
        let (gateway, gateway_at) = bind_address(listen.gateway).await?;
        let shared = PaperShared::new(world, wall_now);
        let shutdown = CancellationToken::new();
        let mut servers = JoinSet::new();
        for (listener, role) in [(signals, PaperRole::Signals), (gateway, PaperRole::Gateway)] {
            servers.spawn(serve_paper(listener, role, Arc::clone(&shared), shutdown.clone()));
        }
        Ok(Self { listen: PaperListen { signals: signals_at, gateway: gateway_at }, shutdown, servers })
    }

    /// The addresses with the ports that were taken.
    #[must_use]
    pub const fn listen(&self) -> PaperListen {
        self.listen
    }

    /// Stops both: what was asked is answered, within some seconds.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.servers.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a paper service failed by a defect");
            }
        }
    }
}

async fn bind_address(address: SocketAddr) -> Result<(TcpListener, SocketAddr), PaperStartError> {
    let failed = |source| PaperStartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let taken = listener.local_addr().map_err(failed)?;
    Ok((listener, taken))
}
