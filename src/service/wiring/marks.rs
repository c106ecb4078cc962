//! The second mark of logs on Redis as configured, and its state on the board.

use std::sync::Arc;

use orchestrator_kernel::ports::marks::{MarkError, MarkStore, Marks};
use orchestrator_runtime::status::{Condition, StatusBoard};
use tokio::sync::watch;

use super::{WiringError, rabbit};
use crate::adapters::files::second_mark::SecondMarkFile;
use crate::adapters::rabbitmq::{RabbitMarks, RabbitMarksOptions};
use crate::adapters::redis::SecondMarkOptions;
use crate::config::{Config, MarkKind};

/// Where the second mark is, if one is kept. Nothing is opened yet.
pub(super) fn second_mark(config: &Config) -> Result<Option<SecondMarkOptions>, WiringError> {
    let mark = &config.redis.mark;
    let namespace = &config.redis.namespace;
    let store: Arc<dyn MarkStore> = match (mark.kind, &mark.path) {
        (MarkKind::File, Some(path)) => Arc::new(SecondMarkFile::new(path, namespace)),
        (MarkKind::Rabbit, _) => {
            let options = RabbitMarksOptions {
                queue: mark.queue.clone(),
                namespace: namespace.clone(),
                topology: rabbit::topology_mode(&mark.connection),
                timeout: mark.connection.timeout,
            };
            Arc::new(RabbitMarks::new(rabbit::rabbit_endpoint("redis.mark", &mark.connection)?, options))
        }
        // A file without a path is refused with the configuration.
        (MarkKind::None | MarkKind::File, _) => return Ok(None),
    };
    let max_age = Some(mark.max_age).filter(|age| !age.is_zero());
    Ok(Some(SecondMarkOptions { store, max_age }))
}

/// What the second mark says to somebody who only looks: its place, and the marks or why it cannot be asked. Ask before
/// the logs are opened: a service may go on meanwhile.
///
/// # Errors
///
/// [`WiringError`]: it cannot be addressed.
pub async fn read_marks(config: &Config) -> Result<Option<(String, Result<Marks, MarkError>)>, WiringError> {
    let Some(SecondMarkOptions { store, .. }) = second_mark(config)? else { return Ok(None) };
    let marks = store.load_marks().await;
    Ok(Some((store.place_text(), marks)))
}

/// Shows on the board for as long as it is polled whether the second mark lags behind.
pub async fn show_trouble(mut trouble: watch::Receiver<Option<String>>, board: StatusBoard) {
    loop {
        match trouble.borrow_and_update().clone() {
            Some(detail) => drop(board.raise_condition(Condition::MarkStale, detail)),
            None => drop(board.clear_condition(&Condition::MarkStale)),
        }
        if trouble.changed().await.is_err() {
            return;
        }
    }
}
