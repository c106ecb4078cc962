//! The suite that every store of second marks passes unchanged: each promise of the port as one check.
//!
//! It needs no runtime: the caller blocks on [`run`] with whatever the provider needs.
#![allow(clippy::expect_used, reason = "a provider that breaks a promise must stop the suite loudly")]

use std::sync::Arc;

use async_trait::async_trait;

use super::marks::{HighWaterMark, MarkStore, Marks};
use crate::ids::{Epoch, Seq};

/// Makes the store that the suite works on.
#[async_trait]
pub trait MarksProvider: Send + Sync {
    /// The store as a started process of any host finds it: every call opens the same one, which is empty at first.
    async fn store(&self) -> Arc<dyn MarkStore>;
}

/// Runs the whole suite.
///
/// # Panics
///
/// When the provider breaks a promise.
pub async fn run(provider: &impl MarksProvider) {
    what_was_never_noted_is_empty(provider).await;
    a_mark_is_found_by_another_host_and_never_goes_back(provider).await;
    logs_do_not_forget_each_other(provider).await;
    a_superseded_writer_hides_nothing_and_is_told(provider).await;
    a_new_log_replaces_a_longer_one_by_its_epoch(provider).await;
    writers_at_the_same_time_lose_nothing(provider).await;
}

/// Notes of a writer that goes on without knowing that it was superseded.
const ZOMBIE_NOTES: u64 = 60;

fn mark(log_id: u64, epoch: u64, tail: u64) -> HighWaterMark {
    HighWaterMark { log_id, epoch: Epoch(epoch), tail: Seq(tail), fingerprint: Some([1, 2, 3, 4, 5]) }
}

fn one(name: &str, mark: HighWaterMark) -> Marks {
    let mut marks = Marks::default();
    marks.raise_mark(name, mark);
    marks
}

async fn note(store: &dyn MarkStore, name: &str, mark: HighWaterMark) -> HighWaterMark {
    let kept = store.note_marks(&one(name, mark)).await.expect("the store takes a mark");
    kept.get(name).expect("the answer has what was noted")
}

async fn load(provider: &impl MarksProvider) -> Marks {
    provider.store().await.load_marks().await.expect("the store can be read")
}

async fn what_was_never_noted_is_empty(provider: &impl MarksProvider) {
    assert!(load(provider).await.is_empty());
    assert!(load(provider).await.is_empty(), "looking leaves no mark");
}

async fn a_mark_is_found_by_another_host_and_never_goes_back(provider: &impl MarksProvider) {
    let store = provider.store().await;
    for tail in [5, 9, 7, 9] {
        note(store.as_ref(), "one", mark(1, 1, tail)).await;
    }
    assert_eq!(load(provider).await.get("one"), Some(mark(1, 1, 9)));
    let bare = HighWaterMark { fingerprint: None, ..mark(1, 1, 10) };
    assert_eq!(note(store.as_ref(), "one", bare).await, bare);
    assert_eq!(load(provider).await.get("one"), Some(bare));
}

async fn logs_do_not_forget_each_other(provider: &impl MarksProvider) {
    let store = provider.store().await;
    note(store.as_ref(), "two", mark(2, 1, 20)).await;
    note(provider.store().await.as_ref(), "three", mark(3, 1, 30)).await;
    note(store.as_ref(), "two", mark(2, 1, 21)).await;
    let kept = load(provider).await;
    let tails = ["one", "two", "three"].map(|name| kept.get(name).map(|mark| mark.tail.0));
    assert_eq!(tails, [Some(10), Some(21), Some(30)]);
}

/// Method: the successor notes once and is silent; the one before goes on for longer than any window would hold.
async fn a_superseded_writer_hides_nothing_and_is_told(provider: &impl MarksProvider) {
    let (zombie, successor) = (provider.store().await, provider.store().await);
    note(zombie.as_ref(), "taken", mark(4, 1, 100)).await;
    note(successor.as_ref(), "taken", mark(4, 2, 90)).await;
    for tail in 101..=100 + ZOMBIE_NOTES {
        let told = note(zombie.as_ref(), "taken", mark(4, 1, tail)).await;
        assert_eq!(told, mark(4, 2, 90), "its own mark no longer counts");
    }
    assert_eq!(load(provider).await.get("taken"), Some(mark(4, 2, 90)));
}

async fn a_new_log_replaces_a_longer_one_by_its_epoch(provider: &impl MarksProvider) {
    let store = provider.store().await;
    note(store.as_ref(), "renewed", mark(5, 3, 1000)).await;
    note(store.as_ref(), "renewed", mark(6, 4, 0)).await;
    assert_eq!(load(provider).await.get("renewed"), Some(mark(6, 4, 0)));
}

async fn writers_at_the_same_time_lose_nothing(provider: &impl MarksProvider) {
    let (left, right) = (provider.store().await, provider.store().await);
    for tail in 1..=10 {
        note(left.as_ref(), "left", mark(7, 1, tail)).await;
        note(right.as_ref(), "right", mark(8, 1, tail)).await;
    }
    let kept = load(provider).await;
    let tails = ["left", "right"].map(|name| kept.get(name).map(|mark| mark.tail.0));
    assert_eq!(tails, [Some(10), Some(10)]);
}
