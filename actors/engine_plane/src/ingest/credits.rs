//! Room in flight: what bounds the receipts between their sources and the log (MEM-1).

use std::sync::Arc;

use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::log::BatchSize;
use tokio::sync::Semaphore;

use crate::buffer::messages::Credit;

/// Receipts and bytes that may be in flight, for all sources together.
#[derive(Clone, Debug)]
pub struct Credits {
    receipts: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    receipts_max: u32,
    bytes_max: u32,
}

impl Credits {
    /// Credits for this many receipts and bytes.
    #[must_use]
    pub fn new(receipts_max: u32, bytes_max: u32) -> Self {
        Self {
            receipts: Arc::new(Semaphore::new(receipts_max as usize)),
            bytes: Arc::new(Semaphore::new(bytes_max as usize)),
            receipts_max,
            bytes_max,
        }
    }

    /// Waits until there is room. A batch larger than the bound gets all of it.
    pub(super) async fn acquire(&self, size: BatchSize) -> Option<Credit> {
        let receipts = u32::try_from(size.records).unwrap_or(u32::MAX).min(self.receipts_max);
        let receipts = if mutant!(CreditsNeverTaken) { 0 } else { receipts };
        let bytes = u32::try_from(size.bytes).unwrap_or(u32::MAX).min(self.bytes_max);
        let receipts = Arc::clone(&self.receipts).acquire_many_owned(receipts).await.ok()?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.ok()?;
        Some(Credit { receipts, bytes })
    }
}
