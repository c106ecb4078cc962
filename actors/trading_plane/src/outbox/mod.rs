//! Outbox: publishes the journal's events, at least once and in its order. Failure domain: the event bus, nothing else.
//!
//! ```text
//! JOURNAL ──records behind the cursor──▶ events ──publish──▶ bus
//!              ▲                                              │ confirmed
//!              └────────── cursor: position and hash ◀────────┘
//! ```
//!
//! The bus may be away: no cycle waits, the lag is shown, and what was missed is published from the journal afterwards.
//! What is on its way is bounded by one reading of the journal.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::event_bus::EventBus;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::retry::RetrySchedule;
use orchestrator_kernel::trading::event::{EventCursor, EventStyle};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_runtime::address::send_reply;
use orchestrator_runtime::fatal::Chain;
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::journal::messages::JournalCommitted;

mod feed;
pub mod messages;
mod reader;

pub use feed::{EventFeed, EventFeedError, EventPosition};
use messages::{OutboxMsg, OutboxProgress};
pub use reader::{EVENT_CURSOR, OutboxTrouble};
use reader::{OutboxReader, PendingEvents};

/// Beginning of what is published on a bus to which nothing of the journal was published before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishFrom {
    /// What happens from that start of the process on: what is old news is not told as if it were new.
    #[default]
    Latest,
    /// The first record that the journal has.
    Earliest,
}

/// Publication of events, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxSettings {
    /// The form of events.
    pub style: EventStyle,
    /// Where publishing begins without a cursor.
    pub from: PublishFrom,
    /// Records whose events are on their way at a time, at least one.
    pub records_max: usize,
    /// From this time on, without having caught up, it counts as behind.
    pub behind_after: Duration,
    /// Time between two savings of the cursor. So much may be published again after a crash.
    pub save_every: Duration,
    /// How what failed is tried again: for ever, at last every `max`.
    pub retry: RetrySchedule,
}

/// Bus and settings of the outbox, for the plane.
#[derive(Clone)]
pub struct EventPorts {
    /// The bus.
    pub bus: Arc<dyn EventBus>,
    /// How it is published to.
    pub settings: OutboxSettings,
}

/// Settings and ports of the outbox; cloned for each start.
#[derive(Clone)]
pub struct OutboxArgs {
    /// The bus, and how it is published to.
    pub events: EventPorts,
    /// The journal's log, which is read and never written.
    pub journal: Arc<dyn Log>,
    /// Where the cursor is saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Announces commits of the journal.
    pub committed: watch::Receiver<JournalCommitted>,
    /// Where it says how far it has come.
    pub progress: Arc<watch::Sender<OutboxProgress>>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Where it says that it is behind.
    pub board: StatusBoard,
}

/// Outbox state between two messages; what was published is the cursor's to say.
pub struct OutboxState {
    args: OutboxArgs,
    reader: OutboxReader,
    /// Behind what is confirmed; nothing before the saved one is known.
    cursor: Option<EventCursor>,
    pending: Option<PendingEvents>,
    /// What subscribers bind to is known to exist.
    is_prepared: bool,
    attempts: u32,
    /// A failure is waited out.
    waiting: bool,
    /// Since when it has not caught up.
    behind_since: Option<Instant>,
    /// The cursor has moved since it was saved, and a message to save it is on its way.
    save_queued: bool,
    drain: Option<RpcReplyPort<()>>,
    _watcher: CommitWatcher,
}

/// Turns commits into wake-ups; ends with its owner.
struct CommitWatcher(JoinHandle<()>);

impl Drop for CommitWatcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Result of one step.
enum OutboxStep {
    Published,
    UpToDate,
}

/// The actor.
pub struct EventOutbox;

impl Actor for EventOutbox {
    type Msg = OutboxMsg;
    type State = OutboxState;
    type Arguments = OutboxArgs;

    /// Asks the bus nothing: one that is away keeps nothing from starting.
    async fn pre_start(
        &self,
        me: ActorRef<OutboxMsg>,
        args: OutboxArgs,
    ) -> Result<OutboxState, ActorProcessingErr> {
        let mut committed = args.committed.clone();
        committed.mark_changed();
        let woken = me;
        let watcher = CommitWatcher(tokio::spawn(async move {
            while committed.changed().await.is_ok() && woken.cast(OutboxMsg::Wake).is_ok() {
                // Only the newest commit matters; what was passed over is read from the journal.
                tokio::task::yield_now().await;
            }
        }));
        let settings = &args.events.settings;
        let reader = OutboxReader {
            journal: Arc::clone(&args.journal),
            checkpoints: Arc::clone(&args.checkpoints),
            observer: Arc::clone(&args.observer),
            style: settings.style.clone(),
            from: settings.from,
            records_max: settings.records_max,
        };
        Ok(OutboxState {
            args,
            reader,
            cursor: None,
            pending: None,
            is_prepared: false,
            attempts: 0,
            waiting: false,
            behind_since: None,
            save_queued: false,
            drain: None,
            _watcher: watcher,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<OutboxMsg>,
        message: OutboxMsg,
        state: &mut OutboxState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            OutboxMsg::Wake => state.take_next(&me).await,
            OutboxMsg::Retry => {
                state.waiting = false;
                state.take_next(&me).await
            }
            OutboxMsg::SaveCursor => {
                state.save_queued = false;
                state.save_cursor(&me).await;
                Ok(())
            }
            OutboxMsg::Drain(reply) => {
                state.drain = Some(reply);
                state.take_next(&me).await
            }
        }
    }
}

impl OutboxState {
    /// Publishes one reading's events, and comes back for the next by a message, so that a drain can come between.
    async fn take_next(&mut self, me: &ActorRef<OutboxMsg>) -> Result<(), ActorProcessingErr> {
        if self.waiting {
            self.show_lag();
            self.finish_drain().await;
            return Ok(());
        }
        match self.publish_next().await {
            Ok(OutboxStep::UpToDate) => {
                self.note_caught_up();
                self.finish_drain().await;
            }
            Ok(OutboxStep::Published) => {
                self.note_behind();
                self.queue_save(me);
                me.cast(OutboxMsg::Wake)?;
            }
            Err(trouble) => {
                self.note_trouble(me, &trouble);
                self.finish_drain().await;
            }
        }
        Ok(())
    }

    async fn publish_next(&mut self) -> Result<OutboxStep, OutboxTrouble> {
        // Before the bus is asked: one that is away for long begins where it would have begun.
        self.open_cursor().await?;
        if !self.is_prepared {
            self.args.events.bus.prepare().await?;
            self.is_prepared = true;
        }
        let pending = match self.pending.take() {
            Some(pending) => pending,
            None => match self.read_next().await? {
                Some(pending) => pending,
                None => return Ok(OutboxStep::UpToDate),
            },
        };
        self.publish_pending(pending).await
    }

    /// Makes the cursor known. One that begins at this start is saved at once: the next start goes on from there.
    async fn open_cursor(&mut self) -> Result<(), OutboxTrouble> {
        if self.cursor.is_some() || self.pending.is_some() {
            return Ok(());
        }
        let committed = self.args.committed.borrow().clone();
        let (cursor, has_to_be_saved) = self.reader.open_cursor(&committed).await?;
        if has_to_be_saved && !self.reader.save_cursor(&cursor, committed.epoch).await {
            return Err(OutboxTrouble::NotSaved);
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    async fn read_next(&mut self) -> Result<Option<PendingEvents>, OutboxTrouble> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        let committed = self.args.committed.borrow().clone();
        let next = self.reader.read_next(&cursor, &committed).await;
        // What does not continue the cursor takes it out of hand: the next try looks at the journal again.
        if !matches!(next, Err(OutboxTrouble::Broken(_))) {
            self.cursor = Some(cursor);
        }
        next
    }

    /// What is confirmed of it is not offered again, but by the next start.
    async fn publish_pending(&mut self, mut pending: PendingEvents) -> Result<OutboxStep, OutboxTrouble> {
        let rest = pending.events.get(pending.confirmed..).unwrap_or_default();
        let published = match rest.is_empty() {
            true => Ok(()),
            false => self.args.events.bus.publish(rest).await,
        };
        let confirmed =
            published.as_ref().map_or_else(|error| error.confirmed.min(rest.len()), |()| rest.len());
        if 0 < confirmed {
            self.args.observer.observe(&Observation::EventsPublished { count: confirmed as u64 });
        }
        match published {
            Ok(()) => {
                self.cursor = Some(pending.behind);
                Ok(OutboxStep::Published)
            }
            Err(error) => {
                pending.confirmed += confirmed;
                self.pending = Some(pending);
                Err(error.into())
            }
        }
    }

    fn note_caught_up(&mut self) {
        self.attempts = 0;
        self.behind_since = None;
        self.show_lag();
        if self.args.board.clear_condition(&Condition::EventsBehind) {
            tracing::info!("all events of the journal are published");
        }
    }

    fn note_behind(&mut self) {
        self.attempts = 0;
        self.show_lag();
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        if self.args.events.settings.behind_after <= since.elapsed() {
            let detail = format!("events of {} records are to be published, and are", self.lag());
            self.args.board.raise_condition(Condition::EventsBehind, detail);
        }
    }

    fn note_trouble(&mut self, me: &ActorRef<OutboxMsg>, trouble: &OutboxTrouble) {
        self.attempts = self.attempts.saturating_add(1);
        self.behind_since.get_or_insert_with(Instant::now);
        self.show_lag();
        self.args.observer.observe(&Observation::EventsFailed);
        let detail = Chain(trouble).to_string();
        if self.args.board.raise_condition(Condition::EventsBehind, detail.clone()) {
            tracing::warn!(error = detail, "events are not published; none is lost, and no cycle waits");
        }
        self.waiting = true;
        let delay = self.args.events.settings.retry.unbounded_delay_after(self.attempts);
        me.send_after(delay, || OutboxMsg::Retry);
    }

    /// Says how far it has come. While that is not known, what was known stays: the journal is trimmed by nothing else.
    fn show_lag(&self) {
        if let Some(cursor) = &self.cursor {
            self.args.progress.send_replace(OutboxProgress {
                published: cursor.position(),
                needed_from: Some(cursor.needed_from()),
            });
        }
        self.args.observer.observe(&Observation::EventsLag { records: self.lag() });
    }

    fn lag(&self) -> u64 {
        let published: JournalSeq = self.args.progress.borrow().published;
        self.args.committed.borrow().tail.0.saturating_sub(published.0)
    }

    fn queue_save(&mut self, me: &ActorRef<OutboxMsg>) {
        if !self.save_queued {
            self.save_queued = true;
            me.send_after(self.args.events.settings.save_every, || OutboxMsg::SaveCursor);
        }
    }

    async fn save_cursor(&mut self, me: &ActorRef<OutboxMsg>) {
        let epoch = self.args.committed.borrow().epoch;
        if let Some(cursor) = &self.cursor
            && !self.reader.save_cursor(cursor, epoch).await
        {
            self.queue_save(me);
        }
    }

    async fn finish_drain(&mut self) {
        let Some(reply) = self.drain.take() else { return };
        if let Some(cursor) = &self.cursor {
            let epoch = self.args.committed.borrow().epoch;
            if !self.reader.save_cursor(cursor, epoch).await {
                tracing::info!("the next start publishes some events again");
            }
        }
        send_reply(reply, ());
    }
}
