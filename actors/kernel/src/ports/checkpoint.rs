//! The port of small named values that can be rebuilt: checkpoints of derived state, and the publisher's cursor.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::Epoch;

/// Reason for which a value was not saved. The old one stays.
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

/// Reason for which a value was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Something stands there that is not what was saved. It is never taken for nothing: whether it can be done without
    /// is for the caller to decide, and to say.
    #[error("{place} cannot be trusted: {detail}")]
    Damaged {
        /// File or key.
        place: String,
        /// What is wrong there.
        detail: String,
    },
    /// The storage failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Small values under a name, replaced as a whole.
///
/// What a lost value costs depends on what it is: the checkpoint of an index a longer start, the publish cursor outputs
/// that are published again, which consumers recognise; without the base a trimmed log cannot be gone on with. The
/// cursor may lag.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// The last saved value, or nothing when none was saved.
    ///
    /// # Errors
    ///
    /// [`LoadError`].
    async fn load(&self, name: &str) -> Result<Option<Bytes>, LoadError>;

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
pub struct MemoryCheckpoints(Mutex<BTreeMap<String, Kept>>);

#[derive(Debug)]
struct Kept {
    epoch: Epoch,
    value: Bytes,
    is_damaged: bool,
}

impl MemoryCheckpoints {
    /// Damages a saved value, as a flipped bit does on a medium; one that is not there stays so.
    pub fn damage_value(&self, name: &str) {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = values.get_mut(name) {
            kept.is_damaged = true;
        }
    }
}

#[async_trait]
impl CheckpointStore for MemoryCheckpoints {
    async fn load(&self, name: &str) -> Result<Option<Bytes>, LoadError> {
        match self.0.lock().map_err(poisoned_error)?.get(name) {
            None => Ok(None),
            Some(kept) if kept.is_damaged => Err(LoadError::Damaged {
                place: format!("checkpoint {name} in memory"),
                detail: "it was damaged".to_owned(),
            }),
            Some(kept) => Ok(Some(kept.value.clone())),
        }
    }

    async fn save(&self, name: &str, epoch: Epoch, value: Bytes) -> Result<(), SaveError> {
        let mut values = self.0.lock().map_err(poisoned_error)?;
        match values.get(name) {
            Some(&Kept { epoch: current, .. }) if epoch < current => {
                Err(SaveError::Fenced { mine: epoch, current })
            }
            Some(_) | None => {
                values.insert(name.to_owned(), Kept { epoch, value, is_damaged: false });
                Ok(())
            }
        }
    }
}

fn poisoned_error<T>(_: PoisonError<T>) -> std::io::Error {
    std::io::Error::other("an earlier caller panicked")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::checkpoint_conformance::{self, CheckpointProvider};
    use super::*;

    #[derive(Default)]
    struct InMemory(Arc<MemoryCheckpoints>);

    #[async_trait]
    impl CheckpointProvider for InMemory {
        async fn store(&self) -> Arc<dyn CheckpointStore> {
            Arc::clone(&self.0) as _
        }

        async fn damage(&self, name: &str, _: usize) {
            self.0.damage_value(name);
        }
    }

    #[test]
    fn memory_passes_the_suite() {
        pollster::block_on(checkpoint_conformance::run(&InMemory::default()));
    }

    #[test]
    fn superseded_writer_changes_nothing() {
        let store = MemoryCheckpoints::default();
        pollster::block_on(store.save("cursor", Epoch(3), Bytes::from_static(b"theirs"))).unwrap();

        let mine = pollster::block_on(store.save("cursor", Epoch(2), Bytes::from_static(b"mine")));

        assert!(
            matches!(mine, Err(SaveError::Fenced { mine: Epoch(2), current: Epoch(3) })),
            "LOG-3: {mine:?}"
        );
        let kept = pollster::block_on(store.load("cursor")).unwrap();
        assert_eq!(kept.as_deref(), Some(b"theirs" as &[u8]));
    }
}
