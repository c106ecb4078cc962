//! History: keeps the SQL history behind the journal. Failure domain: the trading plane's history, and nothing else.
//!
//! The database may be slow, away, or wrong: cycles go on, the lag is shown, and what was missed is taken in from the
//! journal afterwards. Only where the history is required, [`Condition::HistoryBehind`] keeps cycles from going on,
//! as a journal without room does (specification 001 §11).

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::history::HistoryStore;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::retry::RetrySchedule;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_runtime::address::send_reply;
use orchestrator_runtime::fatal::Chain;
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::journal::messages::JournalCommitted;

pub mod messages;
mod projector;
mod rebuild;

use messages::{HistoryMsg, HistoryProgress};
pub use projector::{HistoryProjector, HistoryStep, HistoryTrouble};
pub use rebuild::{RebuiltHistory, rebuild_history};

/// How often it is looked for cycles that are older than the retention.
const DROP_OLD_EVERY: Duration = Duration::from_secs(60 * 60);
/// Cycles that one transaction removes at most, so that none is long.
const DROPPED_AT_ONCE_MAX: u32 = 1000;

/// How the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// Whether cycles stop while it is behind.
    pub required: bool,
    /// Records that one transaction takes in, at least one.
    pub records_max: usize,
    /// From this time on, without having caught up, it counts as behind.
    pub behind_after: Duration,
    /// How what failed is tried again: for ever, at last every `max`.
    pub retry: RetrySchedule,
    /// How long ended cycles are kept, by the journal's time; for ever when nothing.
    pub retention: Option<Duration>,
}

/// Database and settings of a history, for the plane.
#[derive(Clone)]
pub struct HistoryPorts {
    /// The database.
    pub store: Arc<dyn HistoryStore>,
    /// How it is kept.
    pub settings: HistorySettings,
}

/// Settings and ports of the history; cloned for each start.
#[derive(Clone)]
pub struct HistoryArgs {
    /// The database, and how it is kept.
    pub history: HistoryPorts,
    /// The journal's log, which is read and never written.
    pub journal: Arc<dyn Log>,
    /// Announces commits of the journal.
    pub committed: watch::Receiver<JournalCommitted>,
    /// Where it says how far it has come.
    pub progress: Arc<watch::Sender<HistoryProgress>>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Where it says that it is behind.
    pub board: StatusBoard,
}

/// History state between two messages; what was projected is the database's to say.
pub struct HistoryState {
    args: HistoryArgs,
    projector: HistoryProjector,
    attempts: u32,
    /// A failure is waited out.
    waiting: bool,
    /// Since when it has not caught up.
    behind_since: Option<Instant>,
    drain: Option<RpcReplyPort<()>>,
    _watcher: JournalWatcher,
}

/// Turns commits into wake-ups; ends with its owner.
struct JournalWatcher(JoinHandle<()>);

impl Drop for JournalWatcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The actor.
pub struct History;

impl Actor for History {
    type Msg = HistoryMsg;
    type State = HistoryState;
    type Arguments = HistoryArgs;

    /// Asks the database nothing: one that is away keeps nothing from starting.
    async fn pre_start(
        &self,
        me: ActorRef<HistoryMsg>,
        args: HistoryArgs,
    ) -> Result<HistoryState, ActorProcessingErr> {
        let mut committed = args.committed.clone();
        committed.mark_changed();
        let woken = me.clone();
        let watcher = JournalWatcher(tokio::spawn(async move {
            while committed.changed().await.is_ok() && woken.cast(HistoryMsg::Wake).is_ok() {
                // Only the newest commit matters; what was passed over is read from the journal.
                tokio::task::yield_now().await;
            }
        }));
        me.send_after(DROP_OLD_EVERY, || HistoryMsg::DropOld);
        let HistoryPorts { store, settings } = args.history.clone();
        let journal = Arc::clone(&args.journal);
        Ok(HistoryState {
            args,
            projector: HistoryProjector::new(store, journal, settings.records_max),
            attempts: 0,
            waiting: false,
            behind_since: None,
            drain: None,
            _watcher: watcher,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<HistoryMsg>,
        message: HistoryMsg,
        state: &mut HistoryState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            HistoryMsg::Wake => state.take_next(&me).await,
            HistoryMsg::Retry => {
                state.waiting = false;
                state.take_next(&me).await
            }
            HistoryMsg::DropOld => state.drop_old(&me).await,
            HistoryMsg::Drain(reply) => {
                state.drain = Some(reply);
                state.take_next(&me).await
            }
        }
    }
}

impl HistoryState {
    /// Takes one transaction's records in, and comes back for the next by a message, so that a drain can come between.
    async fn take_next(&mut self, me: &ActorRef<HistoryMsg>) -> Result<(), ActorProcessingErr> {
        if self.waiting {
            self.show_lag();
            self.finish_drain();
            return Ok(());
        }
        match self.project_next().await {
            Ok(HistoryStep::UpToDate) => {
                self.note_caught_up();
                self.finish_drain();
            }
            Ok(HistoryStep::Written) => {
                self.note_behind();
                me.cast(HistoryMsg::Wake)?;
            }
            Ok(HistoryStep::Skipped { seq, detail }) => {
                tracing::error!(%seq, detail, "the history's database cannot hold a record's rows: left out");
                self.args.observer.observe(&Observation::HistoryRecordSkipped);
                self.note_behind();
                me.cast(HistoryMsg::Wake)?;
            }
            Err(trouble) => {
                self.note_trouble(me, &trouble);
                self.finish_drain();
            }
        }
        Ok(())
    }

    /// The last commit if it comes next, which need not be read back; otherwise what the journal has.
    async fn project_next(&mut self) -> Result<HistoryStep, HistoryTrouble> {
        let (tail, newest) = {
            let committed = self.args.committed.borrow();
            (committed.tail, Arc::clone(&committed.batch))
        };
        match self.projector.project_batch(&newest).await? {
            Some(step) => Ok(step),
            None => self.projector.project_next(tail).await,
        }
    }

    fn note_caught_up(&mut self) {
        self.attempts = 0;
        self.behind_since = None;
        self.show_lag();
        if self.args.board.clear_condition(&Condition::HistoryBehind) {
            tracing::info!("the history has caught up with the journal");
        }
    }

    fn note_behind(&mut self) {
        self.attempts = 0;
        self.show_lag();
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        if self.args.history.settings.behind_after <= since.elapsed() {
            let detail = format!("{} records behind the journal, and catching up", self.lag());
            self.args.board.raise_condition(Condition::HistoryBehind, detail);
        }
    }

    fn note_trouble(&mut self, me: &ActorRef<HistoryMsg>, trouble: &HistoryTrouble) {
        self.attempts = self.attempts.saturating_add(1);
        self.behind_since.get_or_insert_with(Instant::now);
        self.show_lag();
        self.args.observer.observe(&Observation::HistoryFailed);
        let detail = Chain(trouble).to_string();
        if self.args.board.raise_condition(Condition::HistoryBehind, detail.clone()) {
            tracing::warn!(error = detail, "the history does not follow the journal; nothing of it is lost");
        }
        self.waiting = true;
        let delay = self.args.history.settings.retry.unbounded_delay_after(self.attempts);
        me.send_after(delay, || HistoryMsg::Retry);
    }

    /// Says how far it has come. While that is not known, what was known stays: the journal is trimmed by nothing else.
    fn show_lag(&self) {
        if let Some(progress) = self.projector.progress() {
            self.args.progress.send_replace(progress);
        }
        self.args.observer.observe(&Observation::HistoryLag { records: self.lag() });
    }

    fn lag(&self) -> u64 {
        let projected: JournalSeq = self.args.progress.borrow().projected;
        self.args.committed.borrow().tail.0.saturating_sub(projected.0)
    }

    fn finish_drain(&mut self) {
        self.drain.take().into_iter().for_each(|reply| send_reply(reply, ()));
    }

    /// Removes what is older than the retention, some of it at a time.
    async fn drop_old(&mut self, me: &ActorRef<HistoryMsg>) -> Result<(), ActorProcessingErr> {
        let before = self.args.history.settings.retention.zip(self.projector.last_at());
        let before = before.map(|(retention, last_at)| {
            let ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
            TsMs(last_at.0.saturating_sub(ms))
        });
        let Some(before) = before.filter(|_| !self.waiting && self.drain.is_none()) else {
            me.send_after(DROP_OLD_EVERY, || HistoryMsg::DropOld);
            return Ok(());
        };
        match self.args.history.store.drop_cycles_before(before, DROPPED_AT_ONCE_MAX).await {
            Ok(dropped) if dropped == u64::from(DROPPED_AT_ONCE_MAX) => me.cast(HistoryMsg::DropOld)?,
            Ok(dropped) => {
                tracing::debug!(dropped, "cycles older than the history's retention are gone");
                me.send_after(DROP_OLD_EVERY, || HistoryMsg::DropOld);
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot remove old cycles; tried again in an hour");
                me.send_after(DROP_OLD_EVERY, || HistoryMsg::DropOld);
            }
        }
        Ok(())
    }
}
