//! The port of small named values that can be rebuilt: checkpoints of derived state, and the publisher's cursor.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::Epoch;

/// Why a value was not saved. The old one stays.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A later writer has saved under this name. Stop, never retry (LOG-3).
    #[error("a later writer (epoch {current}) has saved it; this one ({mine}) must stop")]
    Fenced {
        /// The epoch of this writer.
        mine: Epoch,
        /// The highest epoch that has saved.
        current: Epoch,
    },
    /// The storage failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

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

    /// Replaces the value; after a crash the old or the new one is there. `epoch` is that of the log which the value is
    /// derived from: a superseded process cannot set back what its successor has saved.
    ///
    /// # Errors
    ///
    /// [`SaveError`]; the old value stays.
    async fn save(&self, name: &str, epoch: Epoch, value: Bytes) -> Result<(), SaveError>;
}

/// The reference: values in memory.
#[derive(Debug, Default)]
pub struct MemoryCheckpoints(Mutex<BTreeMap<String, (Epoch, Bytes)>>);

#[async_trait]
impl CheckpointStore for MemoryCheckpoints {
    async fn load(&self, name: &str) -> std::io::Result<Option<Bytes>> {
        Ok(self.0.lock().map_err(poisoned)?.get(name).map(|(_, value)| value.clone()))
    }

    async fn save(&self, name: &str, epoch: Epoch, value: Bytes) -> Result<(), SaveError> {
        let mut values = self.0.lock().map_err(poisoned)?;
        match values.get(name) {
            Some(&(current, _)) if epoch < current => Err(SaveError::Fenced { mine: epoch, current }),
            Some(_) | None => {
                values.insert(name.to_owned(), (epoch, value));
                Ok(())
            }
        }
    }
}

fn poisoned<T>(_: std::sync::PoisonError<T>) -> std::io::Error {
    std::io::Error::other("an earlier caller panicked")
}
