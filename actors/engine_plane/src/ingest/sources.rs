//! How many sources there are and which are up, for those who wait for their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestrator_runtime::status::{Condition, StatusBoard};
use tokio::sync::watch;

use super::IngestArgs;

/// Counts of the sources, for those who wait for their end.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Sources that have not ended.
    open: Arc<watch::Sender<usize>>,
    /// Ingest actors that are up.
    active: Arc<watch::Sender<usize>>,
    /// Whether a source was given up.
    gave_up: Arc<AtomicBool>,
}

impl Sources {
    /// This many sources, none of them up yet.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            open: Arc::new(watch::Sender::new(count)),
            active: Arc::new(watch::Sender::new(0)),
            gave_up: Arc::default(),
        }
    }

    /// A source has ended by itself.
    pub(super) fn one_ended(&self) {
        self.open.send_modify(|count| *count = count.saturating_sub(1));
    }

    /// A source was given up: nothing more comes from it.
    pub fn one_given_up(&self) {
        self.gave_up.store(true, Ordering::Relaxed);
        self.one_ended();
    }

    /// Whether a source was given up.
    pub fn any_given_up(&self) -> bool {
        self.gave_up.load(Ordering::Relaxed)
    }

    /// Waits until every source has ended by itself or was given up.
    pub async fn all_ended(&self) {
        none_left(&self.open).await;
    }

    /// Waits until no ingest actor is up.
    pub async fn all_down(&self) {
        none_left(&self.active).await;
    }
}

async fn none_left(count: &watch::Sender<usize>) {
    // The sender is ours: the channel cannot close.
    if count.subscribe().wait_for(|count| *count == 0).await.is_err() {
        tracing::debug!("nobody counts sources any more");
    }
}

/// Counts one ingest actor while it is up, and shows its source as down when it goes, however it goes.
pub(super) struct ActiveSource {
    count: Arc<watch::Sender<usize>>,
    board: StatusBoard,
    source: Condition,
    /// Why it goes; `None` when that is in order.
    pub(super) why: Option<String>,
}

impl ActiveSource {
    pub(super) fn count_in(args: &IngestArgs) -> Self {
        args.sources.active.send_modify(|count| *count += 1);
        Self {
            count: Arc::clone(&args.sources.active),
            board: args.board.clone(),
            source: args.down_condition(),
            why: Some("its actor ended unexpectedly".to_owned()),
        }
    }
}

impl Drop for ActiveSource {
    fn drop(&mut self) {
        if let Some(why) = self.why.take() {
            self.board.raise_condition(self.source.clone(), why);
        }
        self.count.send_modify(|count| *count -= 1);
    }
}
