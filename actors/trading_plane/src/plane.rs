//! The trading plane as a whole: its table, its start, its ordered stop, and what its end means.
//!
//! ```text
//! trading ┬ journal   0 restarts: what it knew of a batch in flight cannot be known again; its death is the plane's
//!         ├ agent     unlimited: it begins again from the journal
//!         ├ cycles    unlimited: open cycles go on from the journal, under the same ids
//!         ├ cadence   unlimited: what was missed meanwhile is decided as late
//!         ├ history   unlimited: it goes on from the database's mark; without a database there is none
//!         ├ retention unlimited: it goes on from the saved base; where all is kept there is none
//!         └ outbox    unlimited: it goes on from its cursor; without a bus there is none
//! ```
//!
//! The plane has a supervisor and a fatal slot of its own: what ends it ends nothing else. One end is not its own: a
//! later writer that took the journal over, [`TradingFailure::ends_process`].

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::{LogIdentity, RunSeq, Seq, TsMs};
use orchestrator_kernel::ports::backtests::BacktestRunner;
use orchestrator_kernel::ports::history::HistoryStore;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::observer::Observer;
use orchestrator_kernel::restart::{BeyondIntensity, Restart, RestartPolicy};
use orchestrator_kernel::trading::ids::{CycleId, JournalSeq};
use orchestrator_runtime::address::{Address, Down, start_of_actor};
use orchestrator_runtime::fatal::{Fatal, FatalKind, FatalSlot};
use orchestrator_runtime::status::{Condition, StatusBoard};
use orchestrator_runtime::supervisor::{ChildSpec, Supervisor, SupervisorArgs, SupervisorMsg};
use ractor::{Actor, ActorRef, Message, RpcReplyPort};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::agent::messages::AgentMsg;
use crate::agent::{Agent, AgentArgs};
use crate::cadence::messages::{CadenceMsg, NextFire, ScheduleEvent};
use crate::cadence::{CadenceActor, CadenceArgs};
use crate::command::{CommandAnswer, CommandOrigin, CommandRefused, TradingCommand};
use crate::cycle::messages::CyclesMsg;
use crate::cycle::{CycleDefects, Cycles, CyclesArgs};
use crate::history::messages::{HistoryMsg, HistoryProgress};
use crate::history::{History, HistoryArgs, HistoryPorts};
use crate::journal::messages::{JournalCommitted, JournalDoor, JournalMsg};
use crate::journal::{Journal, JournalArgs};
use crate::outbox::messages::{OutboxMsg, OutboxProgress};
use crate::outbox::{EventFeed, EventOutbox, EventPorts, EventPosition, OutboxArgs};
use crate::retention::messages::JournalRetentionMsg;
use crate::retention::{JournalReader, JournalRetention, JournalRetentionArgs, JournalRetentionPorts};
use crate::settings::{TradingPorts, TradingSettings};
use crate::view::TradingView;

/// An actor whose death the plane must not survive.
const NEVER: RestartPolicy = RestartPolicy {
    restart: Restart::Never,
    restarts_max: 0,
    period: Duration::from_secs(60),
    backoff_min: Duration::from_millis(20),
    backoff_max: Duration::from_secs(2),
    beyond: BeyondIntensity::Escalate,
};

/// Each start begins with the journal's answer, so that a journal without room is waited for and not hammered; and
/// giving up would leave open cycles without their end.
const FROM_JOURNAL: RestartPolicy =
    RestartPolicy { restart: Restart::Permanent, restarts_max: u32::MAX, ..NEVER };

/// End of the trading plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradingFailure {
    /// The category.
    pub kind: FatalKind,
    /// What happened.
    pub what: String,
}

impl TradingFailure {
    /// Whether the process has to end: another writer owns the logs' place, and whoever is fenced stops at once.
    #[must_use]
    pub fn ends_process(&self) -> bool {
        self.kind == FatalKind::Fenced
    }
}

/// Outcome of an ordered stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TradingStop {
    /// Every cycle ended or was cancelled, and all of it is durable.
    Clean,
    /// This step was not finished in time. Nothing is lost: the next start goes on from the journal.
    Unfinished(&'static str),
    /// The plane had failed, or failed while it stopped.
    Failed(TradingFailure),
}

/// Door to a trading plane that runs: commands go in, and what is on record is looked at. Cheap to clone.
#[derive(Clone)]
pub struct TradingHandle {
    agent: Address<AgentMsg>,
    cadence: Address<CadenceMsg>,
    cycles: Address<CyclesMsg>,
    /// Whether any schedule waits for outputs of the engine plane; else nobody need be told of one.
    pub waits_for_outputs: bool,
    /// What is on record, to read.
    pub view: TradingView,
    /// Announces what becomes durable in the journal: the outbox's tail.
    pub committed: watch::Receiver<JournalCommitted>,
    /// The database of the history, for pages of what is no longer shown; nothing where none is kept.
    pub history: Option<Arc<dyn HistoryStore>>,
    /// Who runs backtests: their jobs, to look at.
    pub backtests: Arc<dyn BacktestRunner>,
    /// How far the history has come; the journal has to keep what it needs.
    pub history_progress: watch::Receiver<HistoryProgress>,
    /// How far the events are published; the journal has to keep what is not.
    pub events_progress: watch::Receiver<OutboxProgress>,
    journal: Arc<dyn Log>,
}

impl TradingHandle {
    /// Carries out a command. It is carried out also when the caller stops waiting.
    ///
    /// # Errors
    ///
    /// [`CommandRefused`]: nothing changed, unless it is [`CommandRefused::Unavailable`], which says so.
    pub async fn execute_command(
        &self,
        command: TradingCommand,
        origin: CommandOrigin,
    ) -> Result<CommandAnswer, CommandRefused> {
        let asked = self.agent.call(|reply| AgentMsg::Execute { command, origin, reply }).await;
        asked.unwrap_or_else(|down| Err(CommandRefused::in_doubt(&down.to_string())))
    }

    /// Tells the schedules of an event. Returns when it is decided.
    ///
    /// # Errors
    ///
    /// [`Down`]: the event has to be told again.
    pub async fn take_event(&self, event: ScheduleEvent) -> Result<(), Down> {
        self.cadence.call(|reply| CadenceMsg::Event(event, reply)).await
    }

    /// Tells the schedules of a durable output of the engine plane, in the run log's order. Returns when it is decided;
    /// one that comes twice fires once.
    ///
    /// # Errors
    ///
    /// [`Down`]: the output has to be told again.
    pub async fn take_output(&self, run_seq: RunSeq, at: TsMs) -> Result<(), Down> {
        self.cadence.call(|reply| CadenceMsg::Output(run_seq, at, reply)).await
    }

    /// The last output of the engine plane that any schedule has decided; where to go on telling them.
    ///
    /// # Errors
    ///
    /// [`Down`].
    pub async fn last_decided_output(&self) -> Result<Option<RunSeq>, Down> {
        self.cadence.call(CadenceMsg::LastOutput).await
    }

    /// The next fires of all schedules, by name.
    ///
    /// # Errors
    ///
    /// [`Down`].
    pub async fn list_next_fires(&self) -> Result<Vec<NextFire>, Down> {
        self.cadence.call(CadenceMsg::NextFires).await
    }

    /// Waits until what was told so far is decided and no cycle runs: a driven clock moves on only then.
    ///
    /// # Errors
    ///
    /// [`Down`].
    pub async fn wait_settled(&self) -> Result<(), Down> {
        self.cadence.call(CadenceMsg::NextFires).await?;
        self.cycles.call(|reply| CyclesMsg::WaitIdle { behind_agent: true, reply }).await?;
        // The ends of cycles stand in its mailbox before this.
        self.cadence.call(CadenceMsg::NextFires).await.map(drop)
    }

    /// Does everything that is due by a driven clock, on which nobody of this plane sleeps, and says when something is
    /// due next. No cycle runs then, and nothing is decided until it is asked again.
    ///
    /// # Errors
    ///
    /// [`Down`]: it has to be asked again before time moves on.
    pub async fn work_off_due(&self, now: TsMs) -> Result<Option<TsMs>, Down> {
        loop {
            let resumes_at = self.agent.call(AgentMsg::WorkOff).await?;
            self.cadence.call(CadenceMsg::WorkOff).await?;
            self.wait_settled().await?;
            let fires = self.list_next_fires().await?.into_iter().filter_map(|fire| fire.at);
            let next = fires.chain(resumes_at).min();
            // One look decides a bounded number of fires.
            if next.is_none_or(|next| now < next) {
                return Ok(next);
            }
        }
    }

    /// Tells the agent of an error that by policy pauses it.
    ///
    /// # Errors
    ///
    /// [`Down`].
    pub fn pause_on_error(&self, detail: String) -> Result<(), Down> {
        self.agent.cast(AgentMsg::ErrorOccurred(detail))
    }

    /// The events of the journal from `from` on; without it, those that become durable from now on. It waits for no
    /// bus.
    #[must_use]
    pub fn subscribe_events(&self, from: Option<EventPosition>) -> EventFeed {
        EventFeed::open(Arc::clone(&self.journal), self.committed.clone(), &self.view, from)
    }

    /// The journal's identity, and the first record that it still has.
    #[must_use]
    pub fn journal_start(&self) -> (Option<LogIdentity>, JournalSeq) {
        (self.journal.identity(), JournalSeq::from(self.journal.stat().start.max(Seq(1))))
    }

    /// Waits until this cycle has ended; nothing when it is not shown (any more).
    pub async fn wait_for_cycle(&self, cycle: CycleId) -> Option<crate::view::CycleView> {
        let mut committed = self.committed.clone();
        loop {
            committed.borrow_and_update();
            match self.view.cycle(&cycle) {
                Some(shown) if shown.state.ended().is_some() => return Some(shown),
                Some(_) => committed.changed().await.ok()?,
                None => return None,
            }
        }
    }
}

/// A running trading plane.
pub struct TradingPlane {
    root: ActorRef<SupervisorMsg>,
    joined: JoinHandle<()>,
    fatal: FatalSlot,
    board: StatusBoard,
    finish_share_percent: u32,
    cycles: Address<CyclesMsg>,
    journal: Address<JournalMsg>,
    /// Nothing where no history is kept.
    history: Option<Address<HistoryMsg>>,
    /// Nothing where no bus is.
    outbox: Option<Address<OutboxMsg>>,
    handle: TradingHandle,
}

/// Starts the plane: the journal is read and audited, what was open is known, the agent is as it was left, and
/// schedules are decided. The engine plane need not wait for it.
///
/// # Errors
///
/// [`Fatal`]: the journal cannot be taken over or trusted, or its storage does not answer. Of the kind
/// [`FatalKind::Fenced`] it ends the process; else only the trading plane does not run, which its condition says.
pub async fn start_trading_plane(
    ports: TradingPorts,
    settings: TradingSettings,
) -> Result<TradingPlane, Fatal> {
    let (board, observer) = (ports.board.clone(), Arc::clone(&ports.observer));
    let view = ports.view.clone();
    view.set_catching_up(true);
    board.raise_condition(Condition::TradingCatchingUp, "the journal is being read");
    if let Some(history) = ports.history.as_ref().filter(|history| history.settings.required)
        && let Err(failure) = reach_history(history).await
    {
        board.clear_condition(&Condition::TradingCatchingUp);
        board.raise_condition(Condition::TradingStopped, failure.to_string());
        return Err(failure);
    }
    let fatal = FatalSlot::default();
    let parts = PlaneParts::new(ports, settings, view);
    let args =
        SupervisorArgs { name: "trading", children: parts.child_specs(), fatal: fatal.clone(), observer };
    let (root, joined) = match Supervisor::spawn(None, Supervisor, args).await {
        Ok(started) => started,
        Err(error) => {
            let failure = fatal.first_or(&error);
            board.clear_condition(&Condition::TradingCatchingUp);
            board.raise_condition(Condition::TradingStopped, failure.to_string());
            return Err(failure);
        }
    };
    board.clear_condition(&Condition::TradingCatchingUp);
    Ok(TradingPlane {
        root,
        joined,
        fatal,
        board,
        finish_share_percent: parts.settings.finish_share_percent.min(80),
        cycles: parts.cycles.clone(),
        journal: parts.door.address().clone(),
        history: parts.ports.history.is_some().then(|| parts.history.clone()),
        outbox: parts.ports.events.is_some().then(|| parts.outbox.clone()),
        handle: TradingHandle {
            agent: parts.agent.clone(),
            cadence: parts.cadence.clone(),
            cycles: parts.cycles.clone(),
            waits_for_outputs: parts.settings.schedules.iter().any(|schedule| schedule.on_outputs),
            view: parts.view.clone(),
            committed: parts.committed.subscribe(),
            history: parts.ports.history.as_ref().map(|history| Arc::clone(&history.store)),
            backtests: Arc::clone(&parts.ports.backtests),
            history_progress: parts.history_progress.subscribe(),
            events_progress: parts.outbox_progress.subscribe(),
            journal: Arc::clone(&parts.ports.journal),
        },
    })
}

/// A history that is required has to answer before anything trades.
async fn reach_history(history: &HistoryPorts) -> Result<(), Fatal> {
    let reached = history.store.load_resume().await.map(drop);
    reached.map_err(|error| Fatal {
        kind: FatalKind::Away,
        what: "the history is required and cannot be used".to_owned(),
        source: Some(Box::new(error)),
    })
}

/// Everything that the table's lines need.
struct PlaneParts {
    ports: TradingPorts,
    settings: Arc<TradingSettings>,
    view: TradingView,
    door: JournalDoor,
    committed: Arc<watch::Sender<JournalCommitted>>,
    agent: Address<AgentMsg>,
    cycles: Address<CyclesMsg>,
    cadence: Address<CadenceMsg>,
    history: Address<HistoryMsg>,
    history_progress: Arc<watch::Sender<HistoryProgress>>,
    retention: Address<JournalRetentionMsg>,
    outbox: Address<OutboxMsg>,
    outbox_progress: Arc<watch::Sender<OutboxProgress>>,
    defects: CycleDefects,
}

impl PlaneParts {
    fn new(ports: TradingPorts, settings: TradingSettings, view: TradingView) -> Self {
        Self {
            door: JournalDoor::new(settings.journal_queue_max, ports.board.clone())
                .requiring_history(ports.history.as_ref().is_some_and(|history| history.settings.required)),
            committed: Arc::new(watch::Sender::new(JournalCommitted::default())),
            agent: Address::new("agent"),
            cycles: Address::new("cycles"),
            cadence: Address::new("cadence"),
            history: Address::new("history"),
            history_progress: Arc::default(),
            retention: Address::new("retention"),
            outbox: Address::new("outbox"),
            outbox_progress: Arc::default(),
            defects: CycleDefects::default(),
            settings: Arc::new(settings),
            ports,
            view,
        }
    }

    /// The plane as data: name, restart policy and start, in start order.
    fn child_specs(&self) -> Vec<ChildSpec> {
        let line = |name: &'static str, policy, start| ChildSpec {
            name: name.into(),
            kind: name,
            policy,
            start,
            on_halt: None,
        };
        let agent = AgentArgs {
            settings: Arc::clone(&self.settings),
            ports: self.ports.clone(),
            door: self.door.clone(),
            cycles: self.cycles.clone(),
        };
        let cadence = CadenceArgs {
            settings: Arc::clone(&self.settings),
            ports: self.ports.clone(),
            door: self.door.clone(),
            cycles: self.cycles.clone(),
        };
        let mut specs = vec![
            line("journal", NEVER, start_of_actor(self.door.address(), || Journal, self.journal_args())),
            line("agent", FROM_JOURNAL, start_of_actor(&self.agent, || Agent, agent)),
            line("cycles", FROM_JOURNAL, start_of_actor(&self.cycles, || Cycles, self.cycles_args())),
            line("cadence", FROM_JOURNAL, start_of_actor(&self.cadence, || CadenceActor, cadence)),
        ];
        let history = self.ports.history.clone().map(|history| self.history_args(history));
        let history = history.map(|args| start_of_actor(&self.history, || History, args));
        specs.extend(history.map(|start| line("history", FROM_JOURNAL, start)));
        let retention = self.ports.retention.clone().map(|ports| self.retention_args(ports));
        let retention = retention.map(|args| start_of_actor(&self.retention, || JournalRetention, args));
        specs.extend(retention.map(|start| line("retention", FROM_JOURNAL, start)));
        let outbox = self.ports.events.clone().map(|events| self.outbox_args(events));
        let outbox = outbox.map(|args| start_of_actor(&self.outbox, || EventOutbox, args));
        specs.extend(outbox.map(|start| line("outbox", FROM_JOURNAL, start)));
        specs
    }

    fn history_args(&self, history: HistoryPorts) -> HistoryArgs {
        HistoryArgs {
            history,
            journal: Arc::clone(&self.ports.journal),
            committed: self.committed.subscribe(),
            progress: Arc::clone(&self.history_progress),
            observer: Arc::clone(&self.ports.observer),
            board: self.ports.board.clone(),
        }
    }

    fn retention_args(&self, mut ports: JournalRetentionPorts) -> JournalRetentionArgs {
        if self.ports.history.is_some() {
            let progress = self.history_progress.subscribe();
            ports.readers.push(JournalReader::new("history", move || progress.borrow().needed_from));
        }
        if self.ports.events.is_some() {
            let progress = self.outbox_progress.subscribe();
            ports.readers.push(JournalReader::new("events", move || progress.borrow().needed_from));
        }
        JournalRetentionArgs {
            ports,
            log: Arc::clone(&self.ports.journal),
            checkpoints: Arc::clone(&self.ports.checkpoints),
            clock: Arc::clone(&self.ports.clock),
            committed: self.committed.subscribe(),
            observer: Arc::clone(&self.ports.observer),
            board: self.ports.board.clone(),
        }
    }

    fn outbox_args(&self, events: EventPorts) -> OutboxArgs {
        OutboxArgs {
            events,
            journal: Arc::clone(&self.ports.journal),
            checkpoints: Arc::clone(&self.ports.checkpoints),
            committed: self.committed.subscribe(),
            progress: Arc::clone(&self.outbox_progress),
            observer: Arc::clone(&self.ports.observer),
            board: self.ports.board.clone(),
        }
    }

    fn journal_args(&self) -> JournalArgs {
        JournalArgs {
            log: Arc::clone(&self.ports.journal),
            checkpoints: Arc::clone(&self.ports.checkpoints),
            settings: self.settings.journal,
            door: self.door.clone(),
            view: self.view.clone(),
            committed: Arc::clone(&self.committed),
            observer: Arc::clone(&self.ports.observer) as Arc<dyn Observer>,
            board: self.ports.board.clone(),
        }
    }

    fn cycles_args(&self) -> CyclesArgs {
        CyclesArgs {
            settings: Arc::clone(&self.settings),
            ports: self.ports.clone(),
            door: self.door.clone(),
            view: self.view.clone(),
            cadence: self.cadence.clone(),
            agent: self.agent.clone(),
            defects: self.defects.clone(),
        }
    }
}

impl TradingPlane {
    /// What others hold of it.
    #[must_use]
    pub const fn handle(&self) -> &TradingHandle {
        &self.handle
    }

    /// Waits until the plane has failed, says so on the board, and says why.
    pub async fn wait_for_failure(&mut self) -> TradingFailure {
        if let Err(error) = (&mut self.joined).await {
            tracing::debug!(%error, "the trading plane was aborted");
        }
        let failure = self.known_failure();
        self.board.raise_condition(Condition::TradingStopped, failure.what.clone());
        tracing::error!(
            reason = failure.what,
            "the trading plane stopped for good; the engine plane goes on"
        );
        failure
    }

    fn known_failure(&self) -> TradingFailure {
        let (kind, what) = self
            .fatal
            .get()
            .unwrap_or((FatalKind::Internal, "the trading plane's supervisor ended".to_owned()));
        TradingFailure { kind, what }
    }

    /// Stops in order: nothing fires any more, cycles end within their share of the grace or are recorded as cancelled,
    /// the journal is durable. Takes at most `grace`.
    pub async fn stop(mut self, grace: Duration) -> TradingStop {
        let begin = Instant::now();
        let share = |percent: u32| begin + grace * percent / 100;
        if self.root.cast(SupervisorMsg::StopRestarting).is_err() {
            return TradingStop::Failed(self.known_failure());
        }
        let mut unfinished = None;
        let mut note = |step: &'static str, done: bool| {
            if !done && unfinished.is_none() {
                unfinished = Some(step);
            }
        };
        note("cadence", ask_to_finish(&self.handle.cadence, share(10), CadenceMsg::Drain).await);
        let finish = self.finish_share_percent;
        if !ask_to_finish(&self.cycles, share(finish), CyclesMsg::Drain).await {
            // Recorded as cancelled rather than left open.
            let told = self.cycles.cast(CyclesMsg::CancelAll("the service stops".to_owned()));
            let ended = ask_to_finish(&self.cycles, share(90), CyclesMsg::Drain).await;
            note("cycles", told.is_ok() && ended);
        }
        note("agent", ask_to_finish(&self.handle.agent, share(92), AgentMsg::Drain).await);
        note("journal", ask_to_finish(&self.journal, share(96), JournalMsg::Drain).await);
        if let Some(history) = &self.history
            && !ask_to_finish(history, share(98), HistoryMsg::Drain).await
        {
            // Not unfinished: the journal has it, and the next start catches up.
            tracing::info!("the history is behind at the stop");
        }
        if let Some(outbox) = &self.outbox
            && !ask_to_finish(outbox, share(99), OutboxMsg::Drain).await
        {
            // Not unfinished: the journal has them, and the next start goes on from the cursor.
            tracing::info!("not all events are published at the stop");
        }
        self.root.stop(Some("the service stops".to_owned()));
        if timeout_at(share(100), &mut self.joined).await.is_err() {
            self.root.kill();
        }
        match (self.fatal.get(), unfinished) {
            (Some((kind, what)), _) => TradingStop::Failed(TradingFailure { kind, what }),
            (None, Some(step)) => TradingStop::Unfinished(step),
            (None, None) => TradingStop::Clean,
        }
    }

    /// Ends at once, as a crash would: nothing is finished or flushed.
    pub async fn kill(self) {
        if self.root.cast(SupervisorMsg::StopRestarting).is_err() {
            tracing::debug!("the trading plane had ended");
        }
        self.root.kill();
        if self.joined.await.is_err() {
            tracing::debug!("the trading plane was aborted");
        }
    }
}

/// Asks an actor to finish and waits for its answer until the deadline; says whether it came.
async fn ask_to_finish<M: Message>(
    actor: &Address<M>,
    deadline: Instant,
    request: impl FnOnce(RpcReplyPort<()>) -> M,
) -> bool {
    matches!(timeout_at(deadline, actor.call(request)).await, Ok(Ok(())))
}
