//! What a source handed over and has waited for long: shown until it is settled, never cleared by time alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use orchestrator_runtime::status::{Condition, StatusBoard};
use tokio::time::sleep;

/// How long a batch may wait before it is shown: as long as a producer's request may take at the defaults.
const LONG: Duration = Duration::from_secs(10);

/// The batches of one source that have waited for long.
#[derive(Clone)]
pub(super) struct UnsettledWatch {
    board: StatusBoard,
    source: String,
    long: Arc<AtomicUsize>,
}

/// One of them; it is over when this is dropped.
struct LongWait<'a>(&'a UnsettledWatch);

impl UnsettledWatch {
    pub(super) fn new(board: StatusBoard, source: &str) -> Self {
        Self { board, source: source.to_owned(), long: Arc::default() }
    }

    /// Waits for `settling`, and shows when it takes long; `why` says for people what it may wait for.
    pub(super) async fn watch_settling<F: Future>(&self, why: &'static str, settling: F) -> F::Output {
        tokio::pin!(settling);
        tokio::select! {
            biased;
            settled = &mut settling => return settled,
            () = sleep(LONG) => {}
        }
        let _shown = self.show_long_wait(why);
        settling.await
    }

    fn show_long_wait(&self, why: &'static str) -> LongWait<'_> {
        if self.long.fetch_add(1, Ordering::Relaxed) == 0 {
            let detail = format!("a batch is not settled for more than {LONG:?}: {why}");
            self.board.raise_condition(self.unsettled_condition(), detail);
            tracing::warn!(source = self.source, domain = "ingest", why, "a batch is not settled for long");
        }
        LongWait(self)
    }

    fn unsettled_condition(&self) -> Condition {
        Condition::SourceUnsettled(self.source.clone())
    }
}

impl Drop for LongWait<'_> {
    fn drop(&mut self) {
        let watch = self.0;
        if watch.long.fetch_sub(1, Ordering::Relaxed) == 1
            && watch.board.clear_condition(&watch.unsettled_condition())
        {
            tracing::info!(source = watch.source, domain = "ingest", "nothing waits for long any more");
        }
    }
}
