//! The one writer of a log, as every actor that has one needs it: batches in flight, what is wrong with the log, and
//! when it is asked whether that is over.
//!
//! ```text
//! push ─▶ batch ─▶ begin ─▶ in flight ─▶ land ─┬─▶ durable: those who waited go on
//!            ▲                                ├─▶ no room: they and all behind them are refused, and a probe will tell
//!            └── wait                         └─▶ anything else ends the process
//! ```

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{Acquired, AppendError, Log, LogName, RecordBatch};

use crate::fatal::Fatal;
use crate::group_commit::{BatchLimits, GroupCommit, Landed, Unanswered};
use crate::log_health::{LogHealth, LogTrouble};

/// Settings of a log's writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogWriterSettings {
    /// Bounds of a batch.
    pub limits: BatchLimits,
    /// How long after an unanswered attempt a batch is sent again.
    pub resend_after: Duration,
    /// How often an idle log is asked whether it is still there and ours; `None` for one that cannot go away.
    pub probe_every: Option<Duration>,
    /// How long after a refusal for want of room the log is asked whether there is some.
    pub reopen_after: Duration,
}

/// Writer of a log whose appends are awaited by `W`.
pub struct LogWriter<W> {
    name: LogName,
    commit: GroupCommit<W>,
    health: LogHealth,
    settings: LogWriterSettings,
}

/// Outcome of a batch that has landed.
pub enum Landing<W> {
    /// It is durable. Without records it was a probe, or somebody who waited behind the batch before.
    Durable {
        /// The records.
        batch: Arc<RecordBatch>,
        /// Who waited for them, in order.
        waiters: Vec<W>,
        /// How long it took.
        took: Duration,
    },
    /// There was no room: nothing of it was stored, and nothing behind it will be.
    Refused {
        /// Who waited for it and for what was behind it, in order.
        waiters: Vec<W>,
        /// What the log said.
        detail: String,
    },
    /// There still is no room. Nobody waited for that.
    StillFull,
}

/// Answer to somebody who asks to wait for what was pushed.
pub enum Waited<W> {
    /// It waits; the next flush takes it along.
    Queued,
    /// Everything is durable already.
    Durable(W),
}

impl<W: Send + 'static> LogWriter<W> {
    /// Continues the log `name` after its tail.
    #[must_use]
    pub fn new(
        name: LogName,
        log: Arc<dyn Log>,
        acquired: Acquired,
        settings: LogWriterSettings,
        health: LogHealth,
    ) -> Self {
        let told = health.clone();
        let unanswered: Unanswered =
            Arc::new(move |error| told.note_failed_append(name, LogTrouble::NoAnswer, &error.to_string()));
        let LogWriterSettings { limits, resend_after, .. } = settings;
        let commit = GroupCommit::new(log, acquired, limits, resend_after, unanswered);
        Self { name, commit, health, settings }
    }

    /// The epoch of this writer.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.commit.epoch()
    }

    /// The sequence that the next pushed record gets.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        self.commit.next_seq()
    }

    /// Whether every pushed record has landed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.commit.is_idle()
    }

    /// Adds a record; it gets the sequence [`next_seq`](Self::next_seq).
    pub fn push_record(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.commit.push_record(write);
    }

    /// Lets `waiter` wait for everything pushed so far, also when nothing of that is its own.
    pub fn wait_for_pushed(&mut self, waiter: W) -> Waited<W> {
        match self.commit.wait_for_pushed(waiter) {
            None => Waited::Queued,
            Some(waiter) if self.commit.is_idle() => Waited::Durable(waiter),
            // Durable with the batch in flight: an empty one waits behind it.
            Some(waiter) => {
                self.commit.wait_behind(waiter);
                Waited::Queued
            }
        }
    }

    /// Sends the oldest batch unless one is in flight. The future must be run to its end; its result goes to
    /// [`land_batch`](Self::land_batch).
    pub fn begin_append(&mut self) -> Option<impl Future<Output = Landed<W>> + Send + use<W>> {
        self.commit.begin_append()
    }

    /// Takes the outcome of a batch. `tail` is the last record that is known to be durable without it.
    ///
    /// # Errors
    ///
    /// [`Fatal`]: the log is lost to this process.
    pub fn land_batch(&mut self, landed: Landed<W>, tail: Seq) -> Result<Landing<W>, Fatal> {
        let size = landed.batch_size();
        let Landed { batch, waiters, result, proved, took } = landed;
        match result {
            Ok(()) => {
                self.commit.finish_append(true, batch.last_seq(), size);
                self.health.note_answer(self.name, self.commit.has_room());
                Ok(Landing::Durable { batch, waiters, took })
            }
            Err(AppendError::Full { detail }) if proved.is_some() => {
                self.health.note_trouble(self.name, LogTrouble::NoRoom, &detail);
                self.commit.not_proved();
                Ok(Landing::StillFull)
            }
            Err(AppendError::Full { detail }) => {
                self.health.note_failed_append(self.name, LogTrouble::NoRoom, &detail);
                let behind = self.commit.finish_append(false, tail, size);
                Ok(Landing::Refused { waiters: waiters.into_iter().chain(behind).collect(), detail })
            }
            Err(error) => {
                self.health.note_failed_append(self.name, LogTrouble::NoRoom, &error.to_string());
                Err(Fatal::on_append(self.name, error))
            }
        }
    }

    /// When the log is to be probed next, if it is: one that can go away always, any other only while it has no room.
    /// Nobody may send anything any more, or less than what was refused, so only a proof tells that there is room
    /// again.
    #[must_use]
    pub fn probe_after(&self) -> Option<Duration> {
        let reopen_after = (!self.commit.has_room()).then_some(self.settings.reopen_after);
        self.settings.probe_every.or(reopen_after)
    }

    /// Queues a probe, if the log is to be probed and is idle: a busy one tells by itself.
    pub fn queue_probe(&mut self) {
        if self.probe_after().is_some() {
            self.commit.queue_probe();
        }
    }
}
