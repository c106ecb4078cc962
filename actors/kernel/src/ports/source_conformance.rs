//! The suite that every provider of the source port passes unchanged: each promise of the port as one check.
//!
//! How long a refusal is waited out is no promise of a source: ingest asks for nothing until then. It is checked where
//! it is kept, so that no provider can forget it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;

use super::source::{ItemFate, RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceFactory};

/// Holder of the items that are not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// The source, or what it reads from: it offers them again.
    Source,
    /// A client that was told of the refusal.
    Client,
}

/// Makes the sources that the suite works on.
#[async_trait]
pub trait SourceProvider: Send + Sync {
    /// A source with a fresh upstream that has at least [`ITEMS`] items.
    async fn fresh(&self) -> Arc<dyn SourceFactory>;

    /// Who repeats what was refused.
    fn repeats(&self) -> Repeats;
}

/// Items of each upstream.
pub const ITEMS: usize = 40;

/// The item `index` of an upstream that does not make its own.
#[must_use]
pub fn sample_item(index: usize) -> Bytes {
    Bytes::from(format!("item {index}"))
}

/// Runs the whole suite.
///
/// # Panics
///
/// When the provider breaks a promise.
pub async fn run(provider: &dyn SourceProvider) {
    next_may_be_given_up(provider).await;
    if provider.repeats() == Repeats::Source {
        refused_items_come_again_before_anything_new(provider).await;
        a_refusal_holds_up_what_came_behind_it(provider).await;
        what_was_not_settled_comes_again_after_an_opening(provider).await;
    }
}

async fn open(factory: &dyn SourceFactory) -> Box<dyn Source> {
    factory.open_source(ResumeAt::default()).await.unwrap_or_else(|error| panic!("open: {error}"))
}

async fn next(source: &mut dyn Source) -> SourceBatch {
    let batch = source.next_batch().await.unwrap_or_else(|error| panic!("next: {error}"));
    batch.unwrap_or_else(|| panic!("the upstream has more items"))
}

/// A batch if there is one without waiting.
async fn next_at_once(source: &mut dyn Source) -> Option<SourceBatch> {
    let mut next = pin!(source.next_batch());
    match poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await {
        Poll::Ready(batch) => batch.unwrap_or_else(|error| panic!("next: {error}")),
        Poll::Pending => None,
    }
}

async fn settle(source: &mut dyn Source, id: u64, settlement: Settlement) {
    source.settle_batch(id, settlement).await.unwrap_or_else(|error| panic!("settle: {error}"));
}

fn refused() -> Settlement {
    Settlement::Refused { reason: "as told".to_owned(), retry_after_ms: 0 }
}

fn durable(batch: &SourceBatch) -> Settlement {
    Settlement::Durable(vec![ItemFate::Appended; batch.items.len()])
}

/// Takes and settles batches until `count` items came.
async fn drain(source: &mut dyn Source, count: usize) -> Vec<RawItem> {
    let mut items = Vec::new();
    while items.len() < count {
        let batch = next(source).await;
        assert!(!batch.items.is_empty(), "a batch has items");
        settle(source, batch.id, durable(&batch)).await;
        items.extend(batch.items);
    }
    items
}

/// Method: every `next` is dropped after one poll; the items come all the same, once and in order.
async fn next_may_be_given_up(provider: &dyn SourceProvider) {
    let reference = drain(&mut *open(&*provider.fresh().await).await, ITEMS / 2).await;
    let factory = provider.fresh().await;
    let mut source = open(&*factory).await;

    let mut items = Vec::new();
    while items.len() < ITEMS / 2 {
        match next_at_once(&mut *source).await {
            None => give_way().await,
            Some(batch) => {
                settle(&mut *source, batch.id, durable(&batch)).await;
                items.extend(batch.items);
            }
        }
    }

    let both = reference.iter().zip(&items);
    assert!(both.clone().all(|(one, other)| one.position == other.position), "the same positions");
    for (index, item) in items.iter().enumerate().filter(|(_, item)| item.position.is_some()) {
        assert_eq!(item.position, Some(index as u64 + 1), "positions without a hole");
    }
}

async fn refused_items_come_again_before_anything_new(provider: &dyn SourceProvider) {
    let factory = provider.fresh().await;
    let mut source = open(&*factory).await;
    let mut first = next(&mut *source).await;
    let mut wanted = first.items.clone();

    for _ in 0..3 {
        settle(&mut *source, first.id, refused()).await;
        first = next(&mut *source).await;
        assert!(
            wanted.starts_with(&first.items),
            "the refused items, in their order, and nothing new among them"
        );
    }
    settle(&mut *source, first.id, durable(&first)).await;

    let rest = wanted.split_off(first.items.len());
    assert!(drain(&mut *source, rest.len()).await.starts_with(&rest));
}

/// Method: two batches in flight, where the source hands over a second one; the first is refused and the second durable
/// or refused.
async fn a_refusal_holds_up_what_came_behind_it(provider: &dyn SourceProvider) {
    let factory = provider.fresh().await;
    let mut source = open(&*factory).await;
    let first = next(&mut *source).await;
    let second = next_at_once(&mut *source).await;

    settle(&mut *source, first.id, refused()).await;
    let mut wanted = first.items;
    if let Some(second) = second {
        assert!(next_at_once(&mut *source).await.is_none(), "the second batch is not settled yet");
        settle(&mut *source, second.id, refused()).await;
        wanted.extend(second.items);
    }

    assert!(drain(&mut *source, wanted.len()).await.starts_with(&wanted), "in the order of the upstream");
}

async fn what_was_not_settled_comes_again_after_an_opening(provider: &dyn SourceProvider) {
    let factory = provider.fresh().await;
    let mut source = open(&*factory).await;
    let offered = next(&mut *source).await;
    drop(source);

    let mut source = open(&*factory).await;

    let again = drain(&mut *source, offered.items.len()).await;
    for (offered, again) in offered.items.iter().zip(&again) {
        // A source that makes its items up makes others, under the same positions.
        let is_same = offered.position == again.position && (again.position.is_some() || offered == again);
        assert!(is_same, "nothing was acknowledged, and {again:?} comes in place of {offered:?}");
    }
}

/// Lets everything else that is ready go first.
async fn give_way() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
