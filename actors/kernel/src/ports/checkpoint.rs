//! The port of small named values that can be rebuilt: checkpoints of derived state, and the publisher's cursor.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

/// Small values under a name, replaced as a whole.
///
/// A checkpoint only saves time: losing it costs a longer start, a wrong one is refused by its checksum and costs the
/// same. The cursor saved here may lag: then outputs are published again, which consumers recognise.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// The last saved value, or nothing when there is none that can be trusted.
    ///
    /// # Errors
    ///
    /// The storage failed.
    async fn load(&self, name: &str) -> std::io::Result<Option<Bytes>>;

    /// Replaces the value; after a crash the old or the new one is there.
    ///
    /// # Errors
    ///
    /// The storage failed; the old value stays.
    async fn save(&self, name: &str, value: Bytes) -> std::io::Result<()>;
}

/// The reference: values in memory.
#[derive(Debug, Default)]
pub struct MemoryCheckpoints(Mutex<BTreeMap<String, Bytes>>);

#[async_trait]
impl CheckpointStore for MemoryCheckpoints {
    async fn load(&self, name: &str) -> std::io::Result<Option<Bytes>> {
        Ok(self.0.lock().map_err(poisoned)?.get(name).cloned())
    }

    async fn save(&self, name: &str, value: Bytes) -> std::io::Result<()> {
        self.0.lock().map_err(poisoned)?.insert(name.to_owned(), value);
        Ok(())
    }
}

fn poisoned<T>(_: std::sync::PoisonError<T>) -> std::io::Error {
    std::io::Error::other("an earlier caller panicked")
}
