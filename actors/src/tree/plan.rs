//! The tree as a table: each child's restart policy with its reason, and what it is started with.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_engine_plane::buffer::{Buffer, BufferArgs};
use orchestrator_engine_plane::flow::OutputFlow;
use orchestrator_engine_plane::ingest::{Credits, Ingest, IngestArgs, Sources};
use orchestrator_engine_plane::publisher::messages::PublishedUpTo;
use orchestrator_engine_plane::publisher::{Publisher, PublisherArgs};
use orchestrator_engine_plane::recorded_times::RecordedTimes;
use orchestrator_engine_plane::retention::{Retention, RetentionArgs, RetentionSettings};
use orchestrator_engine_plane::run_log::messages::Committed;
use orchestrator_engine_plane::run_log::{RunLog, RunLogArgs};
use orchestrator_engine_plane::runners::Runners;
use orchestrator_engine_plane::runners::symbol_runner::RunnerArgs;
use orchestrator_engine_plane::scheduler::{Scheduler, SchedulerArgs};
use orchestrator_kernel::ports::source::SourceFactory;
use orchestrator_kernel::restart::{BeyondIntensity, Restart, RestartPolicy};
use orchestrator_runtime::address::{Address, Down, start_of_actor};
use orchestrator_runtime::clock_watch::ClockWatch;
use orchestrator_runtime::fatal::FatalSlot;
use orchestrator_runtime::kill_switch::{Gate, KillSwitch, KillSwitchArgs};
use orchestrator_runtime::status::{Condition, StatusBoard};
use orchestrator_runtime::supervisor::{ChildSpec, OnHalt, Start, Supervisor, SupervisorArgs, SupervisorMsg};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Addresses, Ports, Settings};

/// The intensity of the actors that are neither a symbol's nor a source's: enough for a passing fault, little enough
/// that a defect shows within a minute.
const CORE: RestartPolicy = RestartPolicy {
    restart: Restart::Permanent,
    restarts_max: 10,
    period: Duration::from_secs(60),
    backoff_min: Duration::from_millis(20),
    backoff_max: Duration::from_secs(2),
    beyond: BeyondIntensity::Escalate,
};

/// An actor whose death the process must not survive: what it knew about a batch in flight cannot be known again.
const NEVER: RestartPolicy = RestartPolicy { restart: Restart::Never, restarts_max: 0, ..CORE };

/// Outputs wait in the run log however often the publisher fails, so there is no number of failures to escalate at.
const PUBLISHER: RestartPolicy = RestartPolicy {
    restarts_max: u32::MAX,
    backoff_min: Duration::from_millis(100),
    backoff_max: Duration::from_secs(5),
    ..CORE
};

/// However often reading the kill switch fails, giving up would only make it worse: while nobody reads, effects are
/// blocked. The first pause is shorter than a lease, so one failure blocks nothing.
const KILL_SWITCH: RestartPolicy = RestartPolicy {
    restarts_max: u32::MAX,
    backoff_min: Duration::from_millis(100),
    backoff_max: Duration::from_secs(5),
    ..CORE
};

/// Without it the logs grow, which is no reason to end anything; the condition tells of it.
const RETENTION: RestartPolicy = RestartPolicy {
    restarts_max: u32::MAX,
    backoff_min: Duration::from_secs(1),
    backoff_max: Duration::from_secs(60),
    ..CORE
};

/// The default intensity of a symbol's runner.
///
/// Five restarts in a minute: beyond it, the symbol is halted.
pub const SYMBOL_RUNNER: RestartPolicy = RestartPolicy {
    restarts_max: 5,
    backoff_min: Duration::from_millis(50),
    backoff_max: Duration::from_secs(5),
    beyond: BeyondIntensity::Halt,
    ..CORE
};

/// Everything that the table's lines need.
pub(super) struct TreePlan {
    pub(super) ports: Ports,
    pub(super) settings: Settings,
    pub(super) board: StatusBoard,
    pub(super) flow: OutputFlow,
    pub(super) fatal: FatalSlot,
    pub(super) stop: CancellationToken,
    pub(super) give_up: CancellationToken,
    pub(super) sources: Sources,
    pub(super) actors: Addresses,
    pub(super) runners: Runners,
    pub(super) committed: Arc<watch::Sender<Committed>>,
    pub(super) gate: Gate,
    pub(super) reached: PublishedUpTo,
    pub(super) watch: ClockWatch,
    pub(super) times: RecordedTimes,
}

impl TreePlan {
    pub(super) fn new(ports: Ports, settings: Settings) -> Self {
        let actors = Addresses {
            kill_switch: Address::new("kill_switch"),
            run_log: Address::new("run_log"),
            buffer: Address::new("buffer"),
            publisher: Address::new("publisher"),
            retention: Address::new("retention"),
            scheduler: Address::new("scheduler"),
            runners: Address::new("runners"),
            ingest: Address::new("ingest"),
        };
        let (stop, give_up) = (CancellationToken::new(), CancellationToken::new());
        let board = StatusBoard::default();
        let (store, observer) = (Arc::clone(&ports.kill_switch), Arc::clone(&ports.observer));
        let gate = Gate::new(store, settings.kill_switch, observer, board.clone());
        let runner = RunnerArgs {
            settings: settings.engine_plane.runners,
            // When the run log looks for room again.
            offer_again: settings.log_writer.reopen_after,
            engine: Arc::clone(&ports.engine),
            receipts: Arc::clone(&ports.receipts),
            run_log: actors.run_log.clone(),
            scheduler: actors.scheduler.clone(),
            clock: Arc::clone(&ports.clock),
            stop: stop.clone(),
            give_up: give_up.clone(),
            observer: Arc::clone(&ports.observer),
        };
        let runners = Runners::new(actors.runners.clone(), board.clone(), runner);
        Self {
            flow: OutputFlow::new(settings.engine_plane.flow),
            fatal: FatalSlot::default(),
            sources: Sources::new(ports.sources.len()),
            committed: Arc::new(watch::Sender::new(Committed::default())),
            gate,
            reached: PublishedUpTo::default(),
            ports,
            settings,
            watch: ClockWatch::new(board.clone()),
            times: RecordedTimes::default(),
            board,
            stop,
            give_up,
            actors,
            runners,
        }
    }

    /// The tree as data: name, restart policy and start, in start order.
    pub(super) fn child_specs(&self) -> Vec<ChildSpec> {
        let actors = &self.actors;
        let line = |name: &'static str, policy, start| ChildSpec {
            name: name.into(),
            kind: name,
            policy,
            start,
            on_halt: None,
        };
        let kill_switch = KillSwitchArgs { gate: self.gate.clone(), poll: self.settings.kill_switch.poll };
        let mut table = vec![
            line("kill_switch", KILL_SWITCH, start_of_actor(&actors.kill_switch, || KillSwitch, kill_switch)),
            line("run_log", NEVER, start_of_actor(&actors.run_log, || RunLog, self.run_log_args())),
            line("buffer", NEVER, start_of_actor(&actors.buffer, || Buffer, self.buffer_args())),
            line(
                "publisher",
                PUBLISHER,
                start_of_actor(&actors.publisher, || Publisher, self.publisher_args()),
            ),
            line("runners", NEVER, self.start_of_group("runners", &actors.runners)),
            line("scheduler", CORE, start_of_actor(&actors.scheduler, || Scheduler, self.scheduler_args())),
            line("ingest", NEVER, self.start_of_group("ingest", &actors.ingest)),
        ];
        if let Some(settings) = self.settings.engine_plane.retention {
            let args = self.retention_args(settings);
            let child = line("retention", RETENTION, start_of_actor(&actors.retention, || Retention, args));
            // After whom it asks, before whoever brings more.
            table.insert(4, child);
        }
        table
    }

    /// A supervisor whose children come and go.
    fn start_of_group(&self, name: &'static str, address: &Address<SupervisorMsg>) -> Start {
        let (fatal, observer, address) =
            (self.fatal.clone(), Arc::clone(&self.ports.observer), address.clone());
        Arc::new(move |parent| {
            let args = SupervisorArgs {
                name,
                children: Vec::new(),
                fatal: fatal.clone(),
                observer: Arc::clone(&observer),
            };
            let address = address.clone();
            Box::pin(async move { address.start_actor(Supervisor, args, parent).await })
        })
    }

    fn run_log_args(&self) -> RunLogArgs {
        RunLogArgs {
            settings: self.settings.engine_plane.run_log,
            writer: self.settings.log_writer,
            log: Arc::clone(&self.ports.runs),
            checkpoints: Arc::clone(&self.ports.checkpoints),
            committed: Arc::clone(&self.committed),
            flow: self.flow.clone(),
            observer: Arc::clone(&self.ports.observer),
            board: self.board.clone(),
        }
    }

    fn buffer_args(&self) -> BufferArgs {
        BufferArgs {
            settings: self.settings.engine_plane.buffer,
            writer: self.settings.log_writer,
            receipts: Arc::clone(&self.ports.receipts),
            quarantine: Arc::clone(&self.ports.quarantine),
            checkpoints: Arc::clone(&self.ports.checkpoints),
            run_log: self.actors.run_log.clone(),
            scheduler: self.actors.scheduler.clone(),
            observer: Arc::clone(&self.ports.observer),
            board: self.board.clone(),
            watch: self.watch.clone(),
        }
    }

    fn publisher_args(&self) -> PublisherArgs {
        PublisherArgs {
            settings: self.settings.engine_plane.publisher,
            runs: Arc::clone(&self.ports.runs),
            committed: self.committed.subscribe(),
            fan_outs: Arc::clone(&self.ports.fan_outs),
            checkpoints: Arc::clone(&self.ports.checkpoints),
            act_log: self.ports.act_log.clone(),
            reached: self.reached.clone(),
            clock: Arc::clone(&self.ports.clock),
            flow: self.flow.clone(),
            observer: Arc::clone(&self.ports.observer),
            board: self.board.clone(),
        }
    }

    fn retention_args(&self, settings: RetentionSettings) -> RetentionArgs {
        RetentionArgs {
            settings,
            // The scheduler's: what it is to run is what retention keeps receipts for.
            universe: self.settings.engine_plane.scheduler.universe.clone(),
            receipts: Arc::clone(&self.ports.receipts),
            runs: Arc::clone(&self.ports.runs),
            quarantine: Arc::clone(&self.ports.quarantine),
            archives: self.ports.archives.clone(),
            checkpoints: Arc::clone(&self.ports.checkpoints),
            clock: Arc::clone(&self.ports.clock),
            buffer: self.actors.buffer.clone(),
            committed: self.committed.subscribe(),
            reached: self.reached.clone(),
            observer: Arc::clone(&self.ports.observer),
            board: self.board.clone(),
        }
    }

    fn scheduler_args(&self) -> SchedulerArgs {
        SchedulerArgs {
            settings: self.settings.engine_plane.scheduler.clone(),
            clock: Arc::clone(&self.ports.clock),
            buffer: self.actors.buffer.clone(),
            run_log: self.actors.run_log.clone(),
            runners: self.runners.clone(),
            flow: self.flow.clone(),
            watch: self.watch.clone(),
            began: Arc::default(),
            times: self.times.clone(),
            observer: Arc::clone(&self.ports.observer),
            board: self.board.clone(),
        }
    }

    /// Sources come last. One that cannot be opened yet makes the service not ready; it is tried again.
    pub(super) fn open_sources(&self) -> Result<(), Down> {
        for child in self.ingest_specs() {
            self.actors.ingest.cast(SupervisorMsg::Add(child))?;
        }
        Ok(())
    }

    fn ingest_specs(&self) -> Vec<ChildSpec> {
        let settings = self.settings.engine_plane.ingest;
        let credits = Credits::new(settings.in_flight_receipts_max, settings.in_flight_bytes_max);
        // When the buffer looks for room again.
        let retry_after = self.settings.log_writer.reopen_after;
        let child = |factory: &Arc<dyn SourceFactory>| {
            self.board.raise_condition(Condition::SourceDown(factory.name().to_owned()), "being opened");
            let args = IngestArgs {
                settings,
                interval_ms: self.settings.engine_plane.scheduler.cadence.interval_ms(),
                retry_after_ms: u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX),
                factory: Arc::clone(factory),
                times: self.times.clone(),
                credits: credits.clone(),
                buffer: self.actors.buffer.clone(),
                clock: Arc::clone(&self.ports.clock),
                stop: self.stop.clone(),
                sources: self.sources.clone(),
                observer: Arc::clone(&self.ports.observer),
                board: self.board.clone(),
            };
            let sources = self.sources.clone();
            let on_halt: OnHalt = Arc::new(move |_| sources.one_given_up());
            ChildSpec {
                name: format!("source:{}", factory.name()),
                kind: "ingest",
                policy: settings.source_restart,
                start: start_of_actor(&Address::new("ingest"), || Ingest, args),
                on_halt: Some(on_halt),
            }
        };
        self.ports.sources.iter().map(child).collect()
    }
}
