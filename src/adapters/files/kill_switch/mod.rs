//! The kill switch of the embedded default: one file whose content is the value, and one beside it with its history.
//!
//! ```text
//! kill_switch.json            the value, as in Redis; one line feed at its end is not part of it
//! kill_switch.history.jsonl   the last commands, one a line
//! kill_switch.lock            held while a command is carried out that allows, or a line of history is written
//! kill_switch.tmp             the next value of a command that allows, until it takes the place of the value
//! ```
//!
//! Commands that allow are one step each: they hold the lock, and replace the file as a whole. The one that stops needs
//! nothing of it (`stop`): it overwrites the file where it is. A reader, who needs no lock, sees the old value, the new
//! one, or a torn one that means nothing and so blocks. None of it is under the lock of the data directory: an
//! operator's command works while the service runs, and while it does not.

mod files;
mod stop;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{Applied, KillSwitchReadError, OperatorCommand, Stored};
use orchestrator_kernel::ports::kill_switch::{ApplyError, KillSwitchRead, KillSwitchStore};
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;

use files::Files;

/// Reads at a time. A disk that hangs holds so many threads and no more.
const READS_MAX: usize = 4;

/// Settings of a kill switch in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillFileOptions {
    /// The file with the value. Its directory is created by the first command.
    pub path: PathBuf,
    /// How long a command waits for one of another process.
    pub lock_wait: Duration,
}

/// A kill switch in a file.
#[derive(Debug)]
pub struct KillFile {
    files: Arc<Files>,
    reads: Arc<Semaphore>,
    news: Notify,
}

impl KillFile {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(options: KillFileOptions) -> Self {
        Self {
            files: Arc::new(Files::new(options.path, options.lock_wait)),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            news: Notify::new(),
        }
    }

    /// Runs `work` where it may block.
    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let files = Arc::clone(&self.files);
        spawn_blocking(move || work(&files)).await
    }
}

#[async_trait]
impl KillSwitchRead for KillFile {
    fn place_text(&self) -> String {
        format!("file {}", self.files.value_path().display())
    }

    async fn read_value(&self) -> Result<Stored, KillSwitchReadError> {
        let slot = Arc::clone(&self.reads).acquire_owned().await;
        let read = self.run_blocking(move |files| {
            let read = files.read_value();
            drop(slot);
            read
        });
        match read.await {
            Ok(Ok(stored)) => Ok(stored),
            Ok(Err(error)) => Err(KillSwitchReadError::Refused(error.to_string())),
            Err(error) => Err(KillSwitchReadError::NoAnswer(error.to_string())),
        }
    }

    /// Told of commands of this process only; those of others are seen by the next poll.
    async fn wait_changed(&self) {
        self.news.notified().await;
    }
}

#[async_trait]
impl KillSwitchStore for KillFile {
    async fn apply_command(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError> {
        if command.only_blocks() {
            // Here and now: a machine that gives no further thread must not keep an operator from stopping it.
            let applied = self.files.apply_command(command, now);
            self.news.notify_one();
            return applied;
        }
        let command = command.clone();
        let applied = self.run_blocking(move |files| files.apply_command(&command, now)).await;
        self.news.notify_one();
        applied.unwrap_or_else(|error| Err(ApplyError::Unknown(error.to_string())))
    }

    async fn read_history(&self, count: usize) -> Result<Vec<String>, KillSwitchReadError> {
        match self.run_blocking(move |files| files.read_history(count)).await {
            Ok(Ok(lines)) => Ok(lines),
            Ok(Err(error)) => Err(KillSwitchReadError::Refused(error.to_string())),
            Err(error) => Err(KillSwitchReadError::NoAnswer(error.to_string())),
        }
    }
}
