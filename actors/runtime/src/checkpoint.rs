//! Saved values that shorten a start: their stored form, and what becomes of one that is damaged.

use std::sync::Arc;

use bytes::Bytes;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use serde::Serialize;
use serde::de::DeserializeOwned;

const VERSION: u8 = 1;

/// The stored form of a checkpoint: a version byte, then postcard.
#[must_use]
pub fn encode_checkpoint<T: Serialize>(state: &T) -> Bytes {
    match postcard::to_extend(state, vec![VERSION]) {
        Ok(bytes) => Bytes::from(bytes),
        // Never for these types; an empty checkpoint is none, and a start is only slower.
        Err(_) => Bytes::new(),
    }
}

/// What [`encode_checkpoint`] made; nothing when the bytes are none of this version.
#[must_use]
pub fn decode_checkpoint<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).ok(),
        Some(_) | None => None,
    }
}

/// The value saved under `name`, if one was; one that `decode` does not know is as good as damaged.
///
/// # Errors
///
/// [`LoadError`].
pub async fn load_saved<T>(
    store: &dyn CheckpointStore,
    name: &str,
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<Option<T>, LoadError> {
    let Some(bytes) = store.load(name).await? else { return Ok(None) };
    match decode(&bytes) {
        Some(value) => Ok(Some(value)),
        None => Err(LoadError::Damaged {
            place: format!("checkpoint {name}"),
            detail: "its content is none of this version".to_owned(),
        }),
    }
}

/// Saves a value; that it could not be saved only makes the next start longer.
async fn save_checkpoint(store: &dyn CheckpointStore, name: &str, epoch: Epoch, value: Bytes) {
    if let Err(error) = store.save(name, epoch, value).await {
        tracing::warn!(name, %error, "checkpoint not saved, the next start will take longer");
    }
}

/// Reader of the values that an actor starts from; it tells the observer when one of them is damaged.
#[derive(Clone, Copy)]
pub struct CheckpointReader<'a> {
    /// Where values are saved.
    pub store: &'a dyn CheckpointStore,
    /// Told when one is damaged.
    pub observer: &'a dyn Observer,
}

impl CheckpointReader<'_> {
    /// A checkpoint of what the log says anyway: without it the start takes longer.
    pub async fn load_checkpoint<T: DeserializeOwned>(self, name: &'static str) -> Option<T> {
        match load_saved(self.store, name, decode_checkpoint).await {
            Ok(saved) => saved,
            Err(error @ LoadError::Damaged { .. }) => {
                tracing::warn!(name, %error, "checkpoint is damaged, reading the whole log instead");
                self.observer.observe(&Observation::CheckpointDamaged { name });
                None
            }
            Err(LoadError::Io(error)) => {
                tracing::warn!(name, %error, "checkpoint not readable, reading the whole log instead");
                None
            }
        }
    }
}

/// Saves what an actor knows of its log, once so many records came that reading them again would take long.
pub struct CheckpointSaver {
    name: &'static str,
    store: Arc<dyn CheckpointStore>,
    /// Records between two checkpoints.
    every: u64,
    saved_at: Seq,
}

impl CheckpointSaver {
    /// Saves under `name`; `tail` is the last record that the actor knows at its start.
    #[must_use]
    pub fn new(name: &'static str, store: Arc<dyn CheckpointStore>, every: u64, tail: Seq) -> Self {
        Self { name, store, every, saved_at: tail }
    }

    /// Saves in the background when it is due. `encode` gives the stored form of what is known up to `tail`.
    pub fn save_when_due(&mut self, tail: Seq, epoch: Epoch, encode: impl FnOnce() -> Bytes) {
        if tail.0 - self.saved_at.0 < self.every {
            return;
        }
        self.saved_at = tail;
        let (name, store, value) = (self.name, Arc::clone(&self.store), encode());
        tokio::spawn(async move { save_checkpoint(store.as_ref(), name, epoch, value).await });
    }

    /// Saves now, for an actor that is done.
    pub async fn save_now(&self, epoch: Epoch, value: Bytes) {
        save_checkpoint(self.store.as_ref(), self.name, epoch, value).await;
    }
}
