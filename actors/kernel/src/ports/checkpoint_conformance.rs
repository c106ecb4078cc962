//! The suite that every store of checkpoints passes unchanged: each promise of the port as one check.
//!
//! It needs no runtime: the caller blocks on [`run`] with whatever the provider needs.
#![allow(clippy::expect_used, reason = "a provider that breaks a promise must stop the suite loudly")]

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::checkpoint::{CheckpointStore, LoadError};
use crate::ids::Epoch;

/// Makes the store that the suite works on.
#[async_trait]
pub trait CheckpointProvider: Send + Sync {
    /// The store as a started process finds it: every call opens the same one, which is empty at first.
    async fn store(&self) -> Arc<dyn CheckpointStore>;

    /// Changes one byte of what is stored under `name`, past the store: byte `at`, counted from the beginning and over
    /// again when there are fewer.
    async fn damage(&self, name: &str, at: usize);
}

/// Runs the whole suite.
///
/// # Panics
///
/// When the provider breaks a promise.
pub async fn run(provider: &impl CheckpointProvider) {
    what_was_never_saved_is_nothing(provider).await;
    saved_value_is_found_by_the_next_process(provider).await;
    damaged_value_is_named_and_never_taken_for_none(provider).await;
}

const EPOCH: Epoch = Epoch(1);
/// More than any header has.
const BYTES: usize = 64;

async fn save(store: &dyn CheckpointStore, name: &str, value: &[u8]) {
    store.save(name, EPOCH, Bytes::copy_from_slice(value)).await.expect("the store takes a value");
}

async fn load(provider: &impl CheckpointProvider, name: &str) -> Option<Bytes> {
    provider.store().await.load(name).await.expect("the store can be read")
}

async fn what_was_never_saved_is_nothing(provider: &impl CheckpointProvider) {
    assert_eq!(load(provider, "never").await, None);
}

async fn saved_value_is_found_by_the_next_process(provider: &impl CheckpointProvider) {
    let store = provider.store().await;
    let long = vec![0xa5; 300_000];

    save(store.as_ref(), "replaced", b"one").await;
    save(store.as_ref(), "replaced", b"two").await;
    save(store.as_ref(), "empty", b"").await;
    save(store.as_ref(), "long", &long).await;

    for (name, value) in [("replaced", b"two" as &[u8]), ("empty", b""), ("long", &long)] {
        assert_eq!(load(provider, name).await.as_deref(), Some(value), "{name}");
    }
}

/// Method: one byte after the other; each time the value is saved again, which mends it.
async fn damaged_value_is_named_and_never_taken_for_none(provider: &impl CheckpointProvider) {
    let store = provider.store().await;
    save(store.as_ref(), "beside", b"whole").await;
    for at in 0..BYTES {
        save(store.as_ref(), "damaged", b"a value").await;

        provider.damage("damaged", at).await;

        match provider.store().await.load("damaged").await {
            Err(LoadError::Damaged { place, detail }) => {
                assert!(place.contains("damaged") && !detail.is_empty(), "byte {at}: {place}: {detail}");
            }
            other => panic!("byte {at}: it must be told that the value is damaged: {other:?}"),
        }
        assert_eq!(load(provider, "beside").await.as_deref(), Some(b"whole" as &[u8]));
    }
    save(store.as_ref(), "damaged", b"again").await;
    assert_eq!(load(provider, "damaged").await.as_deref(), Some(b"again" as &[u8]));
}
