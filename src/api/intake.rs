//! What the interface needs of the HTTP source.

use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::Origin;
use orchestrator_kernel::ports::source::{RawItem, Settlement};

/// The way of posted receipts to ingest.
#[async_trait]
pub trait Intake: Send + Sync {
    /// The ordered channel of a producer that numbers its receipts; without a producer, the channel of those that do
    /// not.
    fn origin_of_producer(&self, producer: Option<&str>) -> Origin;

    /// Offers items and waits for what becomes of them. They have positions either all or none.
    ///
    /// When the future is dropped the items may or may not be stored.
    ///
    /// # Errors
    ///
    /// [`TurnedAway`] at once, with nothing stored, when they cannot even wait.
    async fn submit_items(&self, origin: Origin, items: Vec<RawItem>) -> Result<Settlement, TurnedAway>;
}

/// Reason for which items were not taken. Nothing of them is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnedAway {
    /// As many wait as may wait.
    #[error("as many receipts wait for ingestion as may wait")]
    Busy {
        /// When to come again.
        retry_after: Duration,
    },
    /// The service stops.
    #[error("the service is stopping")]
    Closed {
        /// When to come again.
        retry_after: Duration,
    },
}
