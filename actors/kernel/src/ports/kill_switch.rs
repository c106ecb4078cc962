//! The ports of the kill switch: where its value is stored, and whom effects ask.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::TsMs;
use crate::kill_switch::{
    Applied, HISTORY_MAX, KillSwitchReadError, OperatorCommand, Permit, PermitRefused, Refusal, Shortfall,
    Stored, VALUE_BYTES_MAX, decide,
};

/// Reads the stored value. What the running service does by itself holds no more: it cannot change it (KILL-2).
#[async_trait]
pub trait KillSwitchRead: Send + Sync {
    /// Where the value is, for people: no secrets.
    fn place_text(&self) -> String;

    /// Reads the value, at most [`VALUE_BYTES_MAX`] bytes and one of it. Answers come from the store itself, never from
    /// memory. Takes no longer than the store was told to wait.
    ///
    /// # Errors
    ///
    /// [`KillSwitchReadError`]; repeating a read is harmless.
    async fn read_value(&self) -> Result<Stored, KillSwitchReadError>;

    /// Waits until the value may have changed since this was last ready. For one waiter at a time.
    ///
    /// It only saves waiting for the next poll: it may be late, may come for nothing, and may never come.
    async fn wait_changed(&self);
}

/// Reason for which a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It does not fit what is stored. Nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store said no, or was not reached. Nothing was written.
    #[error("nothing was changed: {0}")]
    Unchanged(String),
    /// The store did not say whether it was written. Reading tells.
    #[error(
        "it is not known whether this was carried out ({0}); ask for the status, then repeat it if needed"
    )]
    Unknown(String),
}

/// Carries out operators' commands. For what an operator drives, never for the service on its own.
#[async_trait]
pub trait KillSwitchStore: KillSwitchRead {
    /// Carries out `command`: reads, [decides](decide), writes value and history.
    ///
    /// [`OperatorCommand::Init`] and [`OperatorCommand::Disengage`] are one step among all writers, and write both or
    /// nothing. [`OperatorCommand::Engage`] needs neither room nor memory, lock, history or agreement (KILL-4): it is
    /// in force before anything else is tried, where it cannot be written the value is removed, which blocks as well,
    /// and what could not be done stands in [`Applied::shortfalls`]. One that is under way while another command is,
    /// wins.
    ///
    /// # Errors
    ///
    /// [`ApplyError`].
    async fn apply_command(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError>;

    /// The last `count` lines of history, oldest first; at most [`HISTORY_MAX`] are kept.
    ///
    /// # Errors
    ///
    /// [`KillSwitchReadError`].
    async fn read_history(&self, count: usize) -> Result<Vec<String>, KillSwitchReadError>;
}

/// Gate that an effect asks for a permit right before it is sent.
///
/// ```text
/// effect ──permit()──▶ is the last reading Trading, and younger than its lease?      cheap, no I/O
///        ──fresh() ──▶ read the store now, then the same question                    one round trip
/// ```
#[async_trait]
pub trait KillGate: Send + Sync {
    /// Whether one effect may begin now. Costs no I/O.
    ///
    /// # Errors
    ///
    /// [`PermitRefused`]: the effect must not begin.
    fn try_permit(&self) -> Result<Permit, PermitRefused>;

    /// As [`try_permit`](Self::try_permit), after a read of the caller's own.
    ///
    /// A read that brings no answer leaves the lease as it is: the question is then the same as without it.
    ///
    /// # Errors
    ///
    /// [`PermitRefused`]: the effect must not begin.
    async fn fresh_permit(&self) -> Result<Permit, PermitRefused>;
}

/// The reference: a value and its history in memory.
#[derive(Debug)]
pub struct MemoryKillSwitch(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    stored: Stored,
    history: VecDeque<String>,
    history_spoiled: bool,
    failing: Option<KillSwitchReadError>,
    is_news: bool,
    waiting: Option<Waker>,
}

impl Default for MemoryKillSwitch {
    fn default() -> Self {
        Self(Mutex::new(Inner {
            stored: Stored::Missing,
            history: VecDeque::new(),
            history_spoiled: false,
            failing: None,
            is_news: false,
            waiting: None,
        }))
    }
}

impl MemoryKillSwitch {
    /// Stores `value` as somebody else would, `None` for nothing.
    pub fn put_value(&self, value: Option<&[u8]>) {
        let stored = match value {
            None | Some([]) => Stored::Missing,
            Some(long) if long.len() > VALUE_BYTES_MAX => Stored::TooLong,
            Some(value) => Stored::Value(Bytes::copy_from_slice(value)),
        };
        self.lock_inner().store_value(stored);
    }

    /// As [`put_value`](Self::put_value), but nobody is told: only a poll finds out.
    pub fn put_silently(&self, value: Option<&[u8]>) {
        let waiting = self.lock_inner().waiting.take();
        self.put_value(value);
        let mut inner = self.lock_inner();
        inner.is_news = false;
        inner.waiting = waiting;
    }

    /// Lets every read fail like this, or succeed again.
    pub fn fail_reads(&self, how: Option<KillSwitchReadError>) {
        self.lock_inner().failing = how;
    }

    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single step on valid data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn store_value(&mut self, stored: Stored) {
        self.stored = stored;
        self.is_news = true;
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

#[async_trait]
impl KillSwitchRead for MemoryKillSwitch {
    fn place_text(&self) -> String {
        "memory".to_owned()
    }

    async fn read_value(&self) -> Result<Stored, KillSwitchReadError> {
        let inner = self.lock_inner();
        match &inner.failing {
            Some(how) => Err(how.clone()),
            None => Ok(inner.stored.clone()),
        }
    }

    async fn wait_changed(&self) {
        poll_fn(|context| {
            let mut inner = self.lock_inner();
            if std::mem::take(&mut inner.is_news) {
                return Poll::Ready(());
            }
            inner.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[async_trait]
impl KillSwitchStore for MemoryKillSwitch {
    async fn apply_command(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError> {
        let mut inner = self.lock_inner();
        let mut applied = Applied::in_full(decide(&inner.stored, command, now)?);
        if inner.history_spoiled {
            let why = "the history is spoiled".to_owned();
            if !command.only_blocks() {
                return Err(ApplyError::Unchanged(why));
            }
            applied.shortfalls.push(Shortfall::Unrecorded(why));
        } else {
            inner.history.push_back(applied.change.entry.clone());
            let beyond = inner.history.len().saturating_sub(HISTORY_MAX);
            inner.history.drain(..beyond);
        }
        inner.store_value(Stored::Value(Bytes::copy_from_slice(applied.change.value.as_bytes())));
        Ok(applied)
    }

    async fn read_history(&self, count: usize) -> Result<Vec<String>, KillSwitchReadError> {
        let inner = self.lock_inner();
        let skipped = inner.history.len().saturating_sub(count);
        Ok(inner.history.iter().skip(skipped).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::kill_switch_conformance::{self as conformance, KillSwitchProvider};
    use super::*;

    struct InMemory;

    #[async_trait]
    impl KillSwitchProvider for InMemory {
        type Store = MemoryKillSwitch;

        async fn fresh(&self) -> Arc<MemoryKillSwitch> {
            Arc::default()
        }

        async fn put(&self, store: &MemoryKillSwitch, value: Option<&[u8]>) {
            store.put_value(value);
        }

        async fn put_history(&self, store: &MemoryKillSwitch, lines: Vec<String>) {
            store.lock_inner().history.extend(lines);
        }

        async fn spoil_history(&self, store: &MemoryKillSwitch) {
            store.lock_inner().history_spoiled = true;
        }
    }

    #[test]
    fn memory_keeps_the_promises_of_the_port() {
        pollster::block_on(conformance::run(&InMemory));
    }
}
