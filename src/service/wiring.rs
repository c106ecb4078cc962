//! The one place that knows every adapter: from the configuration to the ports and settings of the tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrator_actors::tree::{Ports, Settings};
use orchestrator_engine_plane::saved;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::engine::Engine;
use orchestrator_kernel::ports::fan_out::FanOut;
use orchestrator_kernel::ports::log::{AcquireError, AppendError, Log, ReadError, read_one};
use orchestrator_kernel::ports::marks::MarkError;
use orchestrator_kernel::ports::observer::Observer;
use orchestrator_runtime::act_log::ActLog;
use orchestrator_runtime::fatal::Fatal;
use tokio::sync::Mutex;

use crate::adapters::clock::{RecordedClock, RecordedFollower, WallClock};
use crate::adapters::files::capture_source::StoredLines;
use crate::adapters::files::data_dir::{DataDir, DataDirError};
use crate::adapters::files::fs::RealFs;
use crate::adapters::files::ndjson_fan_out::{NdjsonFile, NdjsonOptions, Outbox, OutputsFileError};
use crate::adapters::http::engine::HttpEngineError;
use crate::adapters::http::source::HttpIntake;
use crate::adapters::http::stage::HttpStagesError;
use crate::adapters::process::WorkerStartError;
use crate::adapters::process::engine::{EngineStartError, ProcessEngine};
use crate::adapters::rabbitmq::BadEndpoint;
use crate::adapters::redis::kill_switch::BadUrl;
use crate::adapters::redis::{ClaimError, RedisOpenError, RedisStore, UrlError};
use crate::api::OperatorDesk;
use crate::config::{ClockMode, Config, StorageKind};
use crate::process::exit::ProcessExit;
use crate::process::exit::exit_of;
use crate::process::time::wall_now;
use crate::service::manifest::{self, ManifestError};

pub mod backtest;
pub mod engine;
pub mod history;
pub mod journal;
pub mod journal_trim;
pub mod kill_switch;
pub mod marks;
pub mod outputs;
pub mod paper;
mod rabbit;
pub mod reading;
pub mod retention;
mod settings;
mod sources;
mod storage;
pub mod trading;
pub mod watch;

use trading::stages::StageWorkers;
use trading::{EngineParts, TradingParts, wire_trading};
use watch::PlaceWatch;

pub use crate::adapters::process::guard as worker_guard;
pub use engine::cores_if_zero;
pub use settings::{http_limits, public_config};

/// Reason for which the service could not be put together. Nothing was taken in or sent out.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A log.
    #[error(transparent)]
    Log(#[from] AcquireError),
    /// The end of the receipt log cannot be read.
    #[error("cannot read the end of the receipt log")]
    LogEnd(#[from] ReadError),
    /// A file of the data directory.
    #[error("cannot open {what}")]
    File {
        /// Which.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file that two sources read.
    #[error("sources.{first} and sources.{second} read one file, {}: each receipt would be taken twice; remove one of them", path.display())]
    OneFileTwice {
        /// A source.
        first: String,
        /// The other one.
        second: String,
        /// The file, as the other one names it.
        path: PathBuf,
    },
    /// The file that outputs are appended to.
    #[error("the outputs file {}", path.display())]
    OutputsFile {
        /// Where it is.
        path: PathBuf,
        /// Why it is not written.
        #[source]
        source: OutputsFileError,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineStartError),
    /// The Redis server of the logs.
    #[error(transparent)]
    Redis(#[from] RedisOpenError),
    /// Nobody has ever written logs there.
    #[error("{place}: there are no logs; name their namespace with --namespace, or with redis.namespace")]
    NoLogs {
        /// Server and namespace.
        place: String,
    },
    /// No trading plane has ever written there.
    #[error("{place}: there is no journal; trading was never on there")]
    NoJournal {
        /// Data directory, or server and namespace.
        place: String,
    },
    /// Another instance writes these logs.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The URL of a broker.
    #[error("{setting}: {source}")]
    Broker {
        /// The setting.
        setting: String,
        /// What is wrong with it.
        source: BadEndpoint,
    },
    /// The URL of a stream's server.
    #[error("{setting}: {source}")]
    Stream {
        /// The setting.
        setting: String,
        /// What is wrong with it.
        source: UrlError,
    },
    /// The engine behind HTTP.
    #[error(transparent)]
    HttpEngine(#[from] HttpEngineError),
    /// What wrote the logs so far.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What trimmed logs go on from.
    #[error(transparent)]
    Base(#[from] Fatal),
    /// The kill switch.
    #[error("{setting} is refused")]
    KillSwitch {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        source: BadUrl,
    },
    /// The workers of a provider of stages.
    #[error("{setting}: {source}")]
    StageWorkers {
        /// The setting.
        setting: String,
        /// What is wrong.
        source: Box<WorkerStartError>,
    },
    /// The client of a provider of stages.
    #[error("{setting}: {source}")]
    StageClient {
        /// The setting.
        setting: String,
        /// What is wrong.
        source: HttpStagesError,
    },
    /// The history's database.
    #[error("{setting} cannot be used")]
    History {
        /// The setting. Its value is not shown: it may hold a password.
        setting: &'static str,
    },
}

impl WiringError {
    /// How the process ends because of it.
    #[must_use]
    pub fn to_exit(&self) -> ProcessExit {
        match self {
            Self::DataDir(DataDirError::Held { .. }) | Self::Log(AcquireError::Held { .. }) => {
                ProcessExit::Held
            }
            Self::Log(AcquireError::Corrupt { .. } | AcquireError::UnknownVersion { .. })
            | Self::LogEnd(ReadError::Corrupt { .. } | ReadError::Trimmed { .. })
            | Self::Redis(RedisOpenError::SecondMark(MarkError::Damaged { .. })) => ProcessExit::Data,
            Self::Log(AcquireError::Io { source, .. }) | Self::LogEnd(ReadError::Io(source)) => {
                ProcessExit::of_storage(source)
            }
            Self::Engine(EngineStartError::Workers(WorkerStartError::Contract { .. }))
            | Self::StageWorkers { .. }
            | Self::HttpEngine(HttpEngineError::Contract(_)) => ProcessExit::Config,
            Self::DataDir(_) | Self::File { .. } => ProcessExit::Io,
            Self::OutputsFile { source, .. } => match source {
                OutputsFileError::InUse => ProcessExit::Held,
                OutputsFileError::NotOurs { .. } => ProcessExit::Config,
                OutputsFileError::Regressed { .. }
                | OutputsFileError::Runs(ReadError::Corrupt { .. } | ReadError::Trimmed { .. }) => {
                    ProcessExit::Data
                }
                OutputsFileError::Runs(ReadError::Io(error)) => ProcessExit::of_storage(error),
                OutputsFileError::Io(_) => ProcessExit::Io,
            },
            Self::Engine(_)
            | Self::HttpEngine(_)
            | Self::StageClient { .. }
            | Self::Redis(RedisOpenError::Unreachable(_) | RedisOpenError::SecondMark(MarkError::Away(_)))
            | Self::NoLogs { .. }
            | Self::NoJournal { .. }
            | Self::Claim(ClaimError::Io(_)) => ProcessExit::Unavailable,
            Self::Claim(ClaimError::Held { .. })
            | Self::Manifest(
                ManifestError::Acquire(AcquireError::Held { .. })
                | ManifestError::Append(AppendError::Fenced { .. }),
            ) => ProcessExit::Held,
            Self::Base(fatal) => exit_of(fatal.kind),
            Self::Manifest(ManifestError::Mixed { .. }) => ProcessExit::Config,
            Self::Manifest(
                ManifestError::Acquire(AcquireError::Corrupt { .. } | AcquireError::UnknownVersion { .. })
                | ManifestError::Read(ReadError::Corrupt { .. } | ReadError::Trimmed { .. })
                | ManifestError::Append(AppendError::Conflict { .. } | AppendError::Gap { .. }),
            ) => ProcessExit::Data,
            Self::Manifest(ManifestError::Append(AppendError::Poisoned { .. })) => ProcessExit::Io,
            Self::Manifest(
                ManifestError::Acquire(AcquireError::Io { source, .. })
                | ManifestError::Read(ReadError::Io(source)),
            ) => ProcessExit::of_storage(source),
            Self::Manifest(ManifestError::Append(AppendError::Full { .. } | AppendError::Unknown { .. })) => {
                ProcessExit::Unavailable
            }
            Self::Redis(
                RedisOpenError::Url(_) | RedisOpenError::Options { .. } | RedisOpenError::Promise { .. },
            )
            | Self::Broker { .. }
            | Self::OneFileTwice { .. }
            | Self::KillSwitch { .. }
            | Self::History { .. }
            | Self::Stream { .. } => ProcessExit::Config,
        }
    }
}

/// Everything that outlives the tree.
pub struct Wired {
    /// What the tree needs.
    pub ports: Ports,
    /// What the configuration decides.
    pub settings: Settings,
    /// The trading plane, where it is on.
    pub trading: Option<TradingParts>,
    /// The workers of its stages and hooks: they are ended after it.
    pub stage_workers: StageWorkers,
    /// The queue of the HTTP source, if there is one.
    pub intake: Option<HttpIntake>,
    /// Where operators who come over HTTP change the kill switch.
    pub operators: OperatorDesk,
    /// The worker pool, if there is one: it is ended after the tree.
    pub workers: Option<Arc<ProcessEngine>>,
    /// What makes a receipt count as durable, for people.
    pub durability: &'static str,
    /// The server that the logs are on, with the writer's claim, if there is one: it is released after the tree.
    pub server: Option<RedisStore>,
    /// Tells when the data directory is taken away.
    pub place: PlaceWatch,
    /// Holds the data directory against a second process.
    pub data_dir: Arc<DataDir>,
}

/// Permissions for what a start otherwise refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartOptions {
    /// Take logs on a server over from another writer that still holds them.
    pub takeover: bool,
    /// Go on in a recording with other settings or another engine than it was begun with.
    pub accept_changes: bool,
    /// Take logs on a server as they are there, whatever is known of them.
    pub trust_server: bool,
}

/// Opens everything that `config` names. `observer` is made once the clock is known.
///
/// # Errors
///
/// [`WiringError`].
pub async fn wire_service(
    config: &Config,
    options: StartOptions,
    observer: impl FnOnce(&Arc<dyn Clock>) -> Arc<dyn Observer>,
) -> Result<Wired, WiringError> {
    wire_from(config, options, WiringExtras::default(), observer).await
}

/// Facts that the configuration does not hold.
#[derive(Clone, Debug, Default)]
pub(super) struct WiringExtras {
    /// Where a recorded clock over empty logs begins instead of at the first receipt.
    pub(super) begins: Option<TsMs>,
    /// Arguments that give another process this configuration.
    pub(super) config_args: Vec<String>,
}

/// The same, with `extras`.
///
/// # Errors
///
/// [`WiringError`].
pub(super) async fn wire_from(
    config: &Config,
    options: StartOptions,
    extras: WiringExtras,
    observer: impl FnOnce(&Arc<dyn Clock>) -> Arc<dyn Observer>,
) -> Result<Wired, WiringError> {
    let data_dir = Arc::new(DataDir::open(&config.service.data_dir)?);
    let storage = storage::open_storage(config, &data_dir, options).await?;
    let (clock, follower) = open_clock(config, storage.receipts.as_ref(), extras.begins).await?;
    let (engine, workers) = engine::open_engine(&config.engine).await?;
    let stored =
        StoredLines { receipts: Arc::clone(&storage.receipts), quarantine: Arc::clone(&storage.quarantine) };
    let (sources, intake) = sources::open_sources(config, &clock, &stored)?;
    let operators = kill_switch::operator_desk(config)?;
    let kill_switch = kill_switch::for_reading(config)?;
    let fan_outs = fan_outs(config, &storage, &clock).await?;
    let observer = observer(&clock);
    let (trading, stage_workers) = match &storage.journal {
        Some(journal) => {
            let engine = EngineParts {
                receipts: Arc::clone(&storage.receipts),
                runs: Arc::clone(&storage.runs),
                checkpoints: Arc::clone(&storage.checkpoints),
                clock: Arc::clone(&clock),
                follower,
                observer: Arc::clone(&observer),
                probe_every: storage.probe_every,
                config_args: extras.config_args,
            };
            let (parts, workers) = wire_trading(config, journal, engine)?;
            (Some(parts), workers)
        }
        None => (None, StageWorkers::default()),
    };
    // Last, when nothing else can refuse the start.
    let act_log = note_manifest(config, &storage, engine.as_ref(), options).await?;
    let ports = Ports {
        receipts: storage.receipts,
        quarantine: storage.quarantine,
        runs: storage.runs,
        checkpoints: storage.checkpoints,
        act_log,
        archives: storage.archives,
        kill_switch,
        observer,
        clock,
        engine,
        fan_outs: Arc::new(Mutex::new(fan_outs)),
        sources,
    };
    let settings = settings::tree_settings(config, storage.probe_every);
    Ok(Wired {
        ports,
        settings,
        trading,
        stage_workers,
        intake,
        operators,
        workers,
        durability: storage.durability,
        server: storage.server,
        place: PlaceWatch::new(Arc::clone(&data_dir), storage.written),
        data_dir,
    })
}

/// Records what writes the logs from now on, and says what has changed. Returns where operators' acts are recorded.
async fn note_manifest(
    config: &Config,
    storage: &storage::Storage,
    engine: &dyn Engine,
    options: StartOptions,
) -> Result<ActLog, WiringError> {
    let start = manifest::Start {
        manifest: manifest::manifest_of(config, engine.identity()),
        at_ms: wall_now(),
        receipts_tail: storage.receipts.stat().tail,
        runs_tail: storage.runs.stat().tail,
        strict: config.clock.mode == ClockMode::Recorded && !options.accept_changes,
    };
    let is_empty = start.receipts_tail == Seq(0) && start.runs_tail == Seq(0);
    if storage.manifests.stat().tail == Seq(0) && !is_empty {
        tracing::warn!(
            receipts = %start.receipts_tail, runs = %start.runs_tail,
            "nothing tells what wrote these logs: the log of manifests is empty, as an older version left it, or it was deleted"
        );
    }
    let (changes, act_log) = manifest::record_start(Arc::clone(&storage.manifests), start).await?;
    for change in &changes {
        tracing::warn!(%change, "the logs were written with something else until now");
    }
    Ok(act_log)
}

/// The clock, and the trading plane's place on one that receipts drive, where that plane is on.
async fn open_clock(
    config: &Config,
    receipts: &dyn Log,
    begins: Option<TsMs>,
) -> Result<(Arc<dyn Clock>, Option<RecordedFollower>), WiringError> {
    Ok(match config.clock.mode {
        ClockMode::Wall => (Arc::new(WallClock), None),
        ClockMode::Recorded => {
            let last = last_ingest_ts(receipts).await?.or(begins);
            let clock = Arc::new(last.map_or_else(RecordedClock::new, RecordedClock::resume_at));
            let follower = config.trading.enabled.then(|| clock.join_follower());
            (clock, follower)
        }
    })
}

/// `ingest_ts_ms` of the last receipt: where a recorded clock goes on.
async fn last_ingest_ts(receipts: &dyn Log) -> Result<Option<TsMs>, WiringError> {
    let tail = receipts.stat().tail;
    if tail.0 == 0 {
        return Ok(None);
    }
    let stored = read_one(receipts, tail).await?.unwrap_or_default();
    let record = ReceiptRecord::decode(&stored)
        .map_err(|error| ReadError::Corrupt { at: tail, detail: error.to_string() })?;
    Ok(Some(record.ingest_ts_ms))
}

async fn fan_outs(
    config: &Config,
    storage: &storage::Storage,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Box<dyn FanOut>>, WiringError> {
    let mut fan_outs: Vec<Box<dyn FanOut>> = Vec::new();
    if let Some(path) = config.outputs_file() {
        let file = outputs_file(config, &path, storage, clock).await;
        fan_outs.push(Box::new(file.map_err(|source| WiringError::OutputsFile { path, source })?));
    }
    if !config.publish.rabbitmq.connection.url.is_empty() {
        fan_outs.push(Box::new(rabbit::fan_out(&config.publish.rabbitmq)?));
    }
    Ok(fan_outs)
}

/// The outputs file, compared with the run log that it is derived from.
async fn outputs_file(
    config: &Config,
    path: &Path,
    storage: &storage::Storage,
    clock: &Arc<dyn Clock>,
) -> Result<NdjsonFile, OutputsFileError> {
    let options = NdjsonOptions { sync: config.publish.file_sync, fs: Arc::new(RealFs) };
    let file = NdjsonFile::open(path, options)?;
    // A cursor that cannot be used is the publisher's to tell: it then publishes everything again.
    let published = saved::load_progress(storage.checkpoints.as_ref())
        .await
        .ok()
        .flatten()
        .unwrap_or_default()
        .cursor
        .run_seq;
    let runs = Arc::clone(&storage.runs);
    if runs.stat().tail < Seq::from(published) {
        // Nor is a run log that has lost records compared with anything: the tree refuses it and says so.
        return Ok(file);
    }
    let file = file.derived_from(Outbox { runs, clock: Arc::clone(clock), published }).await?;
    match config.storage.kind {
        StorageKind::Embedded => file.catch_up().await?,
        // Whether a server still has all that was acknowledged shows when its logs are taken over. One that has not is that
        // error, and not the file of another log; so the file is compared before the first output instead.
        StorageKind::Redis => {}
    }
    Ok(file)
}
