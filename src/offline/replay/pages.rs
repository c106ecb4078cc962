//! A log's records in pages, read ahead of whoever takes them.

use std::sync::Arc;

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit, RecordBatch};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Pages that wait to be taken. More would only be memory: one is read while another is taken.
const PAGES_AHEAD: usize = 2;

/// The records of a log in order. Reading goes on beside the taker and ends with this value.
pub struct Pages {
    pages: mpsc::Receiver<Result<RecordBatch, ReadError>>,
    _reader: AbortOnDropHandle<()>,
}

impl Pages {
    /// Reads `log` from `from` on; to its end, or up to `last` where that is known. Must be called on a runtime.
    #[must_use]
    pub fn read_ahead(log: Arc<dyn Log>, from: Seq, last: Option<Seq>) -> Self {
        let (sender, pages) = mpsc::channel(PAGES_AHEAD);
        let reader = tokio::spawn(async move {
            let mut next = from;
            while last.is_none_or(|last| next <= last) {
                let page = log.read(next, ReadLimit::default()).await;
                let last_read = match &page {
                    Ok(page) if page.is_empty() => return,
                    Ok(page) => Some(page.last_seq()),
                    Err(_) => None,
                };
                let Ok(()) = sender.send(page).await else { return };
                let Some(last_read) = last_read else { return };
                next = last_read.next();
            }
        });
        Self { pages, _reader: AbortOnDropHandle::new(reader) }
    }

    /// The next page; nothing after the last one. A page may reach beyond `last`.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; nothing comes after it.
    pub async fn next_page(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        self.pages.recv().await.transpose()
    }
}
