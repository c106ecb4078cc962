//! The tree: its start from downstream to upstream, and its ordered end. As a table it is in `plan.rs`.
//!
//! ```text
//! root ┬ kill_switch  unlimited: while it is down the lease runs out, which blocks effects
//!      ├ run_log      0 restarts: its death is the process's
//!      ├ buffer       0 restarts: its death is not ready, never a silent gap
//!      ├ publisher    unlimited: outputs wait in the run log meanwhile
//!      ├ retention    unlimited, and only where something is to go: the logs grow meanwhile
//!      ├ runners ──── symbol_runner:* (one bad symbol is halted alone)
//!      ├ scheduler
//!      └ ingest ───── source:* (last up, first down)
//! ```

mod ending;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use orchestrator_engine_plane::buffer::messages::BufferMsg;
use orchestrator_engine_plane::flow::OutputFlow;
use orchestrator_engine_plane::ingest::Sources;
use orchestrator_engine_plane::publisher::FanOuts;
use orchestrator_engine_plane::publisher::messages::{PublishedUpTo, PublisherMsg};
use orchestrator_engine_plane::recorded_times::RecordedTimes;
use orchestrator_engine_plane::retention::Archives;
use orchestrator_engine_plane::retention::messages::RetentionMsg;
use orchestrator_engine_plane::run_log::messages::{Committed, RunLogMsg};
use orchestrator_engine_plane::runners::Runners;
use orchestrator_engine_plane::runners::messages::RunnerMsg;
use orchestrator_engine_plane::scheduler::messages::SchedulerMsg;
use orchestrator_engine_plane::settings::EnginePlaneSettings;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::engine::Engine;
use orchestrator_kernel::ports::kill_switch::KillSwitchRead;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::observer::Observer;
use orchestrator_kernel::ports::source::SourceFactory;
use orchestrator_runtime::act_log::ActLog;
use orchestrator_runtime::address::Address;
use orchestrator_runtime::fatal::{Fatal, FatalKind, FatalSlot};
use orchestrator_runtime::kill_switch::{Gate, KillSwitchMsg, KillSwitchSettings};
use orchestrator_runtime::log_writer::LogWriterSettings;
use orchestrator_runtime::status::{Lifecycle, StatusBoard};
use orchestrator_runtime::supervisor::{Supervisor, SupervisorArgs, SupervisorMsg};
use ractor::{Actor, ActorRef, Message};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use ending::{ASK_MAX, fenced_rather_than_corrupt};
use plan::TreePlan;

pub use plan::SYMBOL_RUNNER;

/// Ports of the tree to the outside.
#[derive(Clone)]
pub struct Ports {
    /// The receipt log.
    pub receipts: Arc<dyn Log>,
    /// The quarantine.
    pub quarantine: Arc<dyn Log>,
    /// The run log.
    pub runs: Arc<dyn Log>,
    /// Checkpoints and the publish cursor.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Where operators' acts are recorded.
    pub act_log: ActLog,
    /// Where retention copies records to before it trims them, if it does.
    pub archives: Option<Archives>,
    /// The process's clock.
    pub clock: Arc<dyn Clock>,
    /// The engine.
    pub engine: Arc<dyn Engine>,
    /// Where outputs go.
    pub fan_outs: FanOuts,
    /// Where receipts come from.
    pub sources: Vec<Arc<dyn SourceFactory>>,
    /// Where the kill switch is read. The service never changes it.
    pub kill_switch: Arc<dyn KillSwitchRead>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
}

/// Settings of the tree, decided by the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How every log is written, whichever actor has it: they are on one storage.
    pub log_writer: LogWriterSettings,
    /// How the kill switch is read.
    pub kill_switch: KillSwitchSettings,
    /// From receipts to outputs.
    pub engine_plane: EnginePlaneSettings,
}

/// A running tree.
pub struct Tree {
    root: ActorRef<SupervisorMsg>,
    joined: JoinHandle<()>,
    actors: Addresses,
    runners: Runners,
    stop: CancellationToken,
    give_up: CancellationToken,
    fatal: FatalSlot,
    sources: Sources,
    runs: Arc<dyn Log>,
    /// Readiness and conditions.
    pub board: StatusBoard,
    /// Output counts.
    pub flow: OutputFlow,
    /// How far publishing has come, and what is held.
    pub reached: PublishedUpTo,
    /// Announces what becomes durable in the run log.
    pub committed: watch::Receiver<Committed>,
    /// What effects ask before they begin.
    pub gate: Gate,
    /// What is odd about a recording's times.
    pub times: RecordedTimes,
}

/// Addresses of the tree's actors.
#[derive(Clone)]
pub struct Addresses {
    /// The reader of the kill switch.
    pub kill_switch: Address<KillSwitchMsg>,
    /// The run log.
    pub run_log: Address<RunLogMsg>,
    /// The buffer.
    pub buffer: Address<BufferMsg>,
    /// The publisher.
    pub publisher: Address<PublisherMsg>,
    /// The retention. Never up where everything is kept.
    pub retention: Address<RetentionMsg>,
    /// The scheduler.
    pub scheduler: Address<SchedulerMsg>,
    /// The supervisor of the runners.
    pub runners: Address<SupervisorMsg>,
    /// The supervisor of the ingest actors.
    pub ingest: Address<SupervisorMsg>,
}

/// Outcome of an ordered stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopOutcome {
    /// Everything in flight was finished or explicitly failed, and published.
    Clean,
    /// This step was not finished in time, or its actor was down. Nothing is lost: the logs hold everything, the next
    /// start goes on from there.
    Unfinished(&'static str),
    /// Something failed for good while stopping.
    Failed(FatalKind, String),
}

impl Tree {
    /// Starts every actor, from downstream to upstream. Returns when all logs are read and the sources are open.
    ///
    /// # Errors
    ///
    /// The first actor that could not start, with the reason. If it could not because another one had gone down: that
    /// one's reason.
    pub async fn start(ports: Ports, settings: &Settings) -> Result<Self, Fatal> {
        let plan = TreePlan::new(ports, settings.clone());
        let TreePlan {
            board,
            flow,
            fatal,
            stop,
            give_up,
            sources,
            actors,
            runners,
            committed,
            gate,
            reached,
            times,
            ..
        } = &plan;
        let args = SupervisorArgs {
            name: "root",
            children: plan.child_specs(),
            fatal: fatal.clone(),
            observer: Arc::clone(&plan.ports.observer),
        };
        let (root, joined) = match Supervisor::spawn(None, Supervisor, args).await {
            Ok(started) => started,
            Err(error) => {
                let known = committed.borrow().clone();
                let until = Instant::now() + ASK_MAX;
                return Err(fenced_rather_than_corrupt(
                    fatal.first_or(&error),
                    plan.ports.runs.as_ref(),
                    &known,
                    until,
                )
                .await);
            }
        };
        plan.open_sources().map_err(|down| fatal.first_or(&down))?;
        board.enter_lifecycle(Lifecycle::Running);
        Ok(Self {
            root,
            joined,
            actors: actors.clone(),
            runners: runners.clone(),
            stop: stop.clone(),
            give_up: give_up.clone(),
            fatal: fatal.clone(),
            sources: sources.clone(),
            runs: Arc::clone(&plan.ports.runs),
            board: board.clone(),
            flow: flow.clone(),
            reached: reached.clone(),
            committed: committed.subscribe(),
            gate: gate.clone(),
            times: times.clone(),
        })
    }

    /// Where the tree's actors are reached.
    #[must_use]
    pub const fn actor_addresses(&self) -> &Addresses {
        &self.actors
    }

    /// The runners.
    #[must_use]
    pub const fn runners(&self) -> &Runners {
        &self.runners
    }

    /// Waits until every source has ended by itself or was given up.
    pub fn sources_ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let sources = self.sources.clone();
        async move { sources.all_ended().await }
    }

    /// Whether a source was given up because it cannot be read.
    #[must_use]
    pub fn source_given_up(&self) -> bool {
        self.sources.any_given_up()
    }

    /// Waits until the tree has failed, and says why.
    pub async fn wait_for_failure(&mut self) -> (FatalKind, String) {
        if let Err(error) = (&mut self.joined).await {
            tracing::debug!(%error, "root was aborted");
        }
        self.board.enter_lifecycle(Lifecycle::Stopped);
        self.failure_reason(Instant::now() + ASK_MAX)
            .await
            .unwrap_or((FatalKind::Internal, "the root supervisor ended".to_owned()))
    }

    /// What failed for good, if anything did; whose work it was is found out before `until`.
    async fn failure_reason(&self, until: Instant) -> Option<(FatalKind, String)> {
        let (kind, what) = self.fatal.get()?;
        let known = self.committed.borrow().clone();
        let Fatal { kind, what, .. } =
            fenced_rather_than_corrupt(Fatal::new(kind, what), self.runs.as_ref(), &known, until).await;
        Some((kind, what))
    }

    /// Stops in order, leaves first: no new receipts, no new runs, runs finished or explicitly failed, outputs
    /// published, logs flushed. Takes at most `grace`.
    pub async fn stop(mut self, grace: Duration) -> StopOutcome {
        self.board.enter_lifecycle(Lifecycle::Drained);
        let begin = Instant::now();
        let share = |percent: u32| begin + grace * percent / 100;
        self.stop_restarting();
        self.stop.cancel();
        let mut unfinished = None;
        let mut note = |step: &'static str, done: bool| {
            if !done && unfinished.is_none() {
                unfinished = Some(step);
            }
        };
        note("ingest", timeout_at(share(20), self.sources.all_down()).await.is_ok());
        note(
            "scheduler",
            ask_to_finish(&self.actors.scheduler, share(25), SchedulerMsg::Drain).await != Asked::Late,
        );
        if !self.runners_idle(share(55)).await {
            // Explicitly failed with error_kind `shutdown` rather than left open.
            self.give_up.cancel();
            note("runners", self.runners_idle(share(65)).await);
        }
        note(
            "publisher",
            ask_to_finish(&self.actors.publisher, share(80), PublisherMsg::Drain).await == Asked::Done,
        );
        note(
            "run_log",
            ask_to_finish(&self.actors.run_log, share(85), RunLogMsg::Drain).await == Asked::Done,
        );
        note("buffer", ask_to_finish(&self.actors.buffer, share(90), BufferMsg::Drain).await == Asked::Done);
        self.root.stop(Some("the service stops".to_owned()));
        if timeout_at(share(100), &mut self.joined).await.is_err() {
            self.root.kill();
        }
        self.board.enter_lifecycle(Lifecycle::Stopped);
        match (self.failure_reason(share(100)).await, unfinished) {
            (Some((kind, what)), _) => StopOutcome::Failed(kind, what),
            (None, Some(step)) => StopOutcome::Unfinished(step),
            (None, None) => StopOutcome::Clean,
        }
    }

    /// Ends at once, as a crash would: nothing is finished or flushed.
    pub async fn kill(self) {
        self.stop_restarting();
        self.root.kill();
        if self.joined.await.is_err() {
            tracing::debug!("root was aborted");
        }
    }

    fn stop_restarting(&self) {
        for told in [
            self.root.cast(SupervisorMsg::StopRestarting).is_ok(),
            self.actors.runners.cast(SupervisorMsg::StopRestarting).is_ok(),
            self.actors.ingest.cast(SupervisorMsg::StopRestarting).is_ok(),
        ] {
            if !told {
                tracing::debug!("a supervisor was down before the stop");
            }
        }
    }

    async fn runners_idle(&self, deadline: Instant) -> bool {
        let runners = self.runners.runner_addresses();
        let waits = runners.iter().map(|runner| ask_to_finish(runner, deadline, RunnerMsg::Drain));
        join_all(waits).await.into_iter().all(|asked| asked != Asked::Late)
    }
}

/// Outcome of a request to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// It is finished.
    Done,
    /// The actor is down. A scheduler or runner then has nothing that the next start does not find in the logs.
    Down,
    /// Time ran out.
    Late,
}

/// Asks an actor to finish and waits for its answer until the deadline.
async fn ask_to_finish<M: Message>(
    actor: &Address<M>,
    deadline: Instant,
    request: impl FnOnce(ractor::RpcReplyPort<()>) -> M,
) -> Asked {
    match timeout_at(deadline, actor.call(request)).await {
        Ok(Ok(())) => Asked::Done,
        Ok(Err(_)) => Asked::Down,
        Err(_) => Asked::Late,
    }
}
