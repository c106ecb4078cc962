//! A tree on ports in memory that survive it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator_engine_plane::buffer::{BufferSettings, ProducerLimits};
use orchestrator_engine_plane::flow::FlowLimits;
use orchestrator_engine_plane::ingest::IngestSettings;
use orchestrator_engine_plane::publisher::PublisherSettings;
use orchestrator_engine_plane::retention::{Archives, saved_base};
use orchestrator_engine_plane::run_log::RunLogSettings;
use orchestrator_engine_plane::runners::symbol_runner::RunnerSettings;
use orchestrator_engine_plane::saved;
use orchestrator_engine_plane::scheduler::SchedulerSettings;
use orchestrator_engine_plane::scheduler::messages::Universe;
use orchestrator_engine_plane::settings::EnginePlaneSettings;
use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::run::{RunIndex, RunTotals};
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::input_time::InputTimes;
use orchestrator_kernel::ports::checkpoint::MemoryCheckpoints;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::fan_out::FanOut;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::source::SourceFactory;
use orchestrator_kernel::restart::{BeyondIntensity, Restart, RestartPolicy};
use orchestrator_kernel::retry::RetrySchedule;
use orchestrator_runtime::act_log::ActLog;
use orchestrator_runtime::fatal::Fatal;
use orchestrator_runtime::group_commit::BatchLimits;
use orchestrator_runtime::kill_switch::KillSwitchSettings;
use orchestrator_runtime::log_writer::LogWriterSettings;
use orchestrator_runtime::testkit::FaultyLog;
use orchestrator_runtime::testkit::TestKillSwitch;
use orchestrator_runtime::testkit::{Baseline, Ledger};
use orchestrator_runtime::testkit::{CrashPoint, CrashingCheckpoints};
use orchestrator_runtime::testkit::{LockstepClock, ManualClock};

use super::engine::TestEngine;
use super::fan_out::{Outputs, RecordingFanOut};
use super::source::TestSource;
use super::verify::{message_bodies, replayed_bodies_after};
use crate::tree::{Ports, SYMBOL_RUNNER, Settings, Tree};

/// Which clock a tree gets.
#[derive(Clone, Debug)]
pub enum TestClock {
    /// The test sets it; it goes on across restarts.
    Manual(Arc<ManualClock>),
    /// Receipts drive it; each start gets a new one.
    Lockstep,
}

/// Everything outside the tree.
#[derive(Debug)]
pub struct TestTree {
    /// The receipt log.
    pub receipts: Arc<FaultyLog>,
    /// The quarantine.
    pub quarantine: Arc<FaultyLog>,
    /// The run log.
    pub runs: Arc<FaultyLog>,
    /// Where retention copies receipts, runs and quarantined items to before they go.
    pub archives: [Arc<FaultyLog>; 3],
    /// Checkpoints and cursor.
    pub checkpoints: Arc<MemoryCheckpoints>,
    /// The engine.
    pub engine: Arc<TestEngine>,
    /// Starts and operators' acts.
    pub manifests: Arc<FaultyLog>,
    /// What subscribers got.
    pub outputs: Outputs,
    /// Name of the fan-out that takes it.
    pub fan_out: &'static str,
    /// The kill switch. It allows trading at first.
    pub kill_switch: Arc<TestKillSwitch>,
    /// The sources.
    pub sources: Vec<Arc<TestSource>>,
    /// The clock.
    pub clock: TestClock,
    /// The configuration.
    pub settings: Settings,
    /// The telemetry of the last start, and what was open before it.
    pub ledger: Mutex<(Arc<Ledger>, Baseline)>,
}

/// Boundaries every second, taken 100 ms later; two attempts and small limits, so that tests reach them.
#[must_use]
pub fn settings(symbols: &[&str]) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        log_writer: LogWriterSettings {
            limits: BatchLimits { records: 64, bytes: 1 << 20 },
            resend_after: ms(10),
            probe_every: None,
            reopen_after: ms(50),
        },
        kill_switch: KillSwitchSettings { poll: ms(100), read_timeout: ms(100), lease: ms(500) },
        engine_plane: engine_plane_settings(symbols),
    }
}

fn engine_plane_settings(symbols: &[&str]) -> EnginePlaneSettings {
    let ms = Duration::from_millis;
    let retry = |min, max, max_attempts| RetrySchedule {
        min: ms(min),
        max: ms(max),
        max_attempts,
        max_elapsed: Duration::from_secs(3600),
    };
    EnginePlaneSettings {
        ingest: IngestSettings {
            in_flight_receipts_max: 64,
            in_flight_bytes_max: 1 << 20,
            batches_in_flight_max: 4,
            receipt_bytes_max: 4096,
            input_times: InputTimes::ANY,
            source_restart: RestartPolicy {
                restart: Restart::Transient,
                restarts_max: 3,
                period: Duration::from_secs(60),
                backoff_min: ms(100),
                backoff_max: ms(1000),
                beyond: BeyondIntensity::Halt,
            },
        },
        buffer: BufferSettings {
            checkpoint_every: 1 << 40,
            producers: ProducerLimits { known_max: 10_000, forget_after: Duration::from_secs(86_400) },
        },
        scheduler: SchedulerSettings {
            cadence: Cadence::Boundary { interval_ms: 1000, delay_ms: 100 },
            catch_up_max: 10,
            runs_queued_max: 4,
            universe: Universe::Listed(symbols.iter().map(|symbol| (*symbol).into()).collect()),
        },
        runners: RunnerSettings {
            mode: EngineMode::Truth,
            retry: retry(100, 400, 3),
            deadline: ms(500),
            restart: SYMBOL_RUNNER,
        },
        run_log: RunLogSettings { checkpoint_every: 1 << 40 },
        publisher: PublisherSettings {
            batch_max: 64,
            retry: retry(100, 800, 3),
            attempt_max: ms(1000),
            held_symbols_max: 2,
        },
        flow: FlowLimits { backlog_max: 8, backlog_resume: 2, blocked_max: Duration::from_secs(30) },
        retention: None,
    }
}

impl TestTree {
    /// A tree with one source named `feed`.
    #[must_use]
    pub fn new(settings: Settings, clock: TestClock) -> Self {
        Self {
            receipts: Arc::default(),
            quarantine: Arc::default(),
            runs: Arc::default(),
            archives: Default::default(),
            checkpoints: Arc::default(),
            engine: Arc::default(),
            manifests: Arc::default(),
            outputs: Outputs::default(),
            fan_out: "recording",
            kill_switch: Arc::new(TestKillSwitch::trading()),
            sources: vec![TestSource::named("feed")],
            clock,
            settings,
            ledger: Mutex::default(),
        }
    }

    /// The first source.
    #[must_use]
    pub fn feed(&self) -> &Arc<TestSource> {
        &self.sources[0]
    }

    /// The telemetry of the last start.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger.lock().expect("tests do not panic with it").0)
    }

    /// Starts a tree on what is there.
    ///
    /// # Errors
    ///
    /// As [`Tree::start`].
    pub async fn try_start(&self, crash: &CrashPoint) -> Result<Tree, Fatal> {
        let ledger = Arc::new(Ledger::default());
        let before = self.baseline().await;
        *self.ledger.lock().expect("tests do not panic with it") = (Arc::clone(&ledger), before);
        for log in [&self.receipts, &self.quarantine, &self.runs].into_iter().chain(&self.archives) {
            log.set_crash(crash);
        }
        self.engine.set_crash(crash);
        self.sources.iter().for_each(|source| source.set_crash(crash));
        let fan_out =
            RecordingFanOut { name: self.fan_out, outputs: self.outputs.clone(), crash: crash.clone() };
        let clock: Arc<dyn Clock> = match &self.clock {
            TestClock::Manual(clock) => Arc::clone(clock) as _,
            TestClock::Lockstep => Arc::new(LockstepClock::default()),
        };
        let manifests = Arc::clone(&self.manifests) as Arc<dyn Log>;
        let acquired = manifests.acquire().await.expect("in memory");
        let ports = Ports {
            act_log: ActLog::new(manifests, acquired),
            receipts: Arc::clone(&self.receipts) as _,
            quarantine: Arc::clone(&self.quarantine) as _,
            runs: Arc::clone(&self.runs) as _,
            checkpoints: Arc::new(CrashingCheckpoints {
                inner: Arc::clone(&self.checkpoints),
                crash: crash.clone(),
            }),
            archives: Some(self.archives_port()),
            clock,
            engine: Arc::clone(&self.engine) as _,
            fan_outs: Arc::new(tokio::sync::Mutex::new(vec![Box::new(fan_out) as Box<dyn FanOut>])),
            sources: self.sources.iter().map(|source| Arc::clone(source) as Arc<dyn SourceFactory>).collect(),
            kill_switch: Arc::clone(&self.kill_switch) as _,
            observer: ledger,
        };
        #[cfg(feature = "mutants")]
        let ports = super::plant_in_ports(ports);
        Tree::start(ports, &self.settings).await
    }

    /// Starts a tree that must start, and waits until it is ready.
    pub async fn start(&self) -> Tree {
        let tree = self.try_start(&CrashPoint::never()).await.expect("the tree starts");
        eventually("the tree is ready", || tree.board.current_status().ready).await;
        tree
    }

    fn archives_port(&self) -> Archives {
        let [receipts, runs, quarantine] =
            self.archives.each_ref().map(|log| Arc::clone(log) as Arc<dyn Log>);
        Archives { receipts, runs, quarantine }
    }

    /// Every receipt and every run record ever, from the archives and the logs.
    ///
    /// # Panics
    ///
    /// Records are missing between an archive and its log.
    pub async fn whole_logs(&self) -> (Vec<Vec<u8>>, Vec<RunRecord>) {
        let [receipts, runs, _] = &self.archives;
        let runs = whole(runs, &self.runs).await;
        let runs = runs.iter().map(|bytes| RunRecord::decode(bytes).expect("a run record"));
        (whole(receipts, &self.receipts).await, runs.collect())
    }

    /// Every quarantined item ever.
    pub async fn whole_quarantine(&self) -> Vec<Vec<u8>> {
        whole(&self.archives[2], &self.quarantine).await
    }

    async fn baseline(&self) -> Baseline {
        let mut index = RunIndex::default();
        for record in self.whole_logs().await.1 {
            // A symbol that retention had let go does not tile.
            index.take_record(&record);
        }
        let RunTotals { started, completed, failed } = index.run_counts();
        // One that is damaged counts as none.
        let cursor = saved::load_progress(self.checkpoints.as_ref()).await.ok().flatten();
        let published =
            cursor.map_or(0, |progress| progress.cursor.outputs - progress.holds.waiting_outputs());
        Baseline { open_runs: started - completed - failed, backlog: index.output_count() - published }
    }

    /// Checks everything that must hold at rest: the logs, their replay against what was published, the telemetry.
    pub async fn check(&self) {
        let (receipts, runs) = self.whole_logs().await;
        let base = saved_base(self.checkpoints.as_ref()).await.expect("in memory");
        assert_eq!(
            message_bodies(&self.outputs.deduplicated()),
            replayed_bodies_after(&base, &receipts, &runs),
            "REP-1, OUT-1"
        );
        let (ledger, before) = {
            let guard = self.ledger.lock().expect("tests do not panic with it");
            (Arc::clone(&guard.0), guard.1)
        };
        ledger.check_at_rest(before);
    }
}

/// The records of an archive, then those of its log that are not in it.
async fn whole(archive: &FaultyLog, log: &FaultyLog) -> Vec<Vec<u8>> {
    let mut records = archive.records().await;
    let start = usize::try_from(log.stat().start.0).expect("few records");
    assert!(start <= records.len() + 1, "the archive ends at {}, the log starts at {start}", records.len());
    let archived = records.len() + 1 - start;
    records.extend(log.records().await.into_iter().skip(archived));
    records
}

/// Waits until `holds`, at most two minutes of the runtime's time.
///
/// # Panics
///
/// It did not come to hold.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(120), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}
