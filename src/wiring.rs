//! The one place that knows every adapter: from the configuration to the ports and settings of the tree.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_actors::flow::FlowLimits;
use orchestrator_actors::group_commit::BatchLimits;
use orchestrator_actors::kill_switch::KillSwitchSettings;
use orchestrator_actors::scheduler::Universe;
use orchestrator_actors::tree::{Ports, SYMBOL_RUNNER, Settings};
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{Origin, TsMs};
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::engine::Engine;
use orchestrator_kernel::ports::fan_out::FanOut;
use orchestrator_kernel::ports::log::{AcquireError, Log, ReadError, read_one};
use orchestrator_kernel::ports::observer::Observer;
use orchestrator_kernel::ports::source::{RawItem, Settlement, SourceFactory};
use orchestrator_kernel::restart::{BeyondIntensity, Restart, RestartPolicy};
use tokio::sync::Mutex;

use crate::adapters::capture::{self, CaptureFactory, CaptureOptions};
use crate::adapters::clock::{RecordedClock, WallClock};
use crate::adapters::demo::engine::{DemoEngine, HysteresisConfig as DemoHysteresis};
use crate::adapters::demo::feed::{DemoFeedFactory, DemoFeedOptions};
use crate::adapters::embedded::data_dir::{DataDir, DataDirError};
use crate::adapters::embedded::fs::RealFs;
use crate::adapters::embedded::log::{EmbeddedLog, LogOptions};
use crate::adapters::embedded::ndjson::{NdjsonFile, NdjsonOptions};
use crate::adapters::http_engine::{HttpEngine, HttpEngineError, HttpEngineOptions};
use crate::adapters::http_source::{HttpIntake, HttpIntakeOptions, SubmitError};
use crate::adapters::kill_redis::BadUrl;
use crate::adapters::process::{EngineStartError, ProcessEngine, ProcessEngineOptions};
use crate::adapters::rabbitmq::BadEndpoint;
use crate::adapters::redis::stream_source::{StreamSourceFactory, StreamSourceOptions};
use crate::adapters::redis::{ClaimError, RedisOpenError, RedisStore, UrlError};
use crate::api::{HttpLimits, Intake, TurnedAway};
use crate::cli::Exit;
use crate::config::{
    ClockMode, Config, DemoSourceConfig, EngineConfig, EngineKind, HysteresisConfig, RedisStreamConfig,
    SourceConfig, Speed, SymbolsConfig,
};

pub mod kill_switch;
mod rabbit;
mod storage;

#[async_trait::async_trait]
impl Intake for HttpIntake {
    fn origin(&self, producer: Option<&str>) -> Origin {
        Self::origin(self, producer)
    }

    async fn submit(&self, origin: Origin, items: Vec<RawItem>) -> Result<Settlement, TurnedAway> {
        match Self::submit(self, origin, items) {
            Ok(submitted) => Ok(submitted.await),
            Err(SubmitError::Busy { retry_after }) => Err(TurnedAway::Busy { retry_after }),
            Err(SubmitError::Closed { retry_after }) => Err(TurnedAway::Closed { retry_after }),
        }
    }
}

/// Bounds of the HTTP interface.
#[must_use]
pub fn http_limits(config: &Config) -> HttpLimits {
    let saturated = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    HttpLimits {
        connections_max: config.http.connections_max,
        request_timeout: config.http.request_timeout,
        body_bytes_max: saturated(config.http.body_bytes_max),
        body_bytes_in_flight_max: saturated(
            config.ingest.in_flight_bytes_max.max(config.http.body_bytes_max),
        ),
        receipt_bytes_max: saturated(config.ingest.receipt_bytes_max),
        subscribers_max: config.http.subscribers_max,
        ..HttpLimits::default()
    }
}

/// Why the service could not be put together. Nothing was taken in or sent out.
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
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineStartError),
    /// The Redis server of the logs.
    #[error(transparent)]
    Redis(#[from] RedisOpenError),
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
    /// The kill switch.
    #[error("kill_switch.url is refused")]
    KillSwitch(#[from] BadUrl),
}

impl WiringError {
    /// How the process ends because of it.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::DataDir(DataDirError::Held { .. }) | Self::Log(AcquireError::Held { .. }) => Exit::Held,
            Self::Log(AcquireError::Corrupt { .. } | AcquireError::UnknownVersion { .. })
            | Self::LogEnd(ReadError::Corrupt { .. } | ReadError::Trimmed { .. }) => Exit::Data,
            Self::DataDir(_)
            | Self::Log(AcquireError::Io { .. })
            | Self::LogEnd(ReadError::Io(_))
            | Self::File { .. } => Exit::Io,
            Self::Engine(_)
            | Self::HttpEngine(_)
            | Self::Redis(RedisOpenError::Unreachable(_))
            | Self::Claim(ClaimError::Io(_)) => Exit::Unavailable,
            Self::Claim(ClaimError::Held { .. }) => Exit::Held,
            Self::Redis(
                RedisOpenError::Url(_) | RedisOpenError::Options { .. } | RedisOpenError::Promise { .. },
            )
            | Self::Broker { .. }
            | Self::KillSwitch(_)
            | Self::Stream { .. } => Exit::Config,
        }
    }
}

/// Everything that outlives the tree.
pub struct Wired {
    /// What the tree needs.
    pub ports: Ports,
    /// What the configuration decides.
    pub settings: Settings,
    /// The queue of the HTTP source, if there is one.
    pub intake: Option<HttpIntake>,
    /// The worker pool, if there is one: it is ended after the tree.
    pub workers: Option<Arc<ProcessEngine>>,
    /// What makes a receipt count as durable, for people.
    pub durability: &'static str,
    /// The server that the logs are on, with the writer's claim, if there is one: it is released after the tree.
    pub server: Option<RedisStore>,
    /// Holds the data directory against a second process.
    pub data_dir: DataDir,
}

/// Opens everything that `config` names. `takeover`: also from another writer that still holds logs on a server.
/// `observer` is made once the clock is known.
///
/// # Errors
///
/// [`WiringError`].
pub async fn wire(
    config: &Config,
    takeover: bool,
    observer: impl FnOnce(&Arc<dyn Clock>) -> Arc<dyn Observer>,
) -> Result<Wired, WiringError> {
    let data_dir = DataDir::open(&config.service.data_dir)?;
    let storage = storage::open(config, &data_dir, takeover).await?;
    let clock = clock(config, storage.receipts.as_ref()).await?;
    let (engine, workers) = engine(&config.engine).await?;
    let (sources, intake) = sources(config, &clock)?;
    let ports = Ports {
        receipts: storage.receipts,
        quarantine: storage.quarantine,
        runs: storage.runs,
        checkpoints: storage.checkpoints,
        kill_switch: kill_switch::for_reading(config)?,
        observer: observer(&clock),
        clock,
        engine,
        fan_outs: Arc::new(Mutex::new(fan_outs(config)?)),
        sources,
    };
    let settings = Settings { probe_every: storage.probe_every, ..settings(config) };
    Ok(Wired {
        ports,
        settings,
        intake,
        workers,
        durability: storage.durability,
        server: storage.server,
        data_dir,
    })
}

/// The logs of a data directory whose service is stopped, for reading. Holds the directory against a second process.
pub struct StoppedLogs {
    /// The receipt log.
    pub receipts: Arc<dyn Log>,
    /// The run log.
    pub runs: Arc<dyn Log>,
    /// The quarantine.
    pub quarantine: Arc<dyn Log>,
    _data_dir: DataDir,
}

/// Opens the logs in `dir`.
///
/// # Errors
///
/// [`WiringError`]; [`Exit::Held`] among them when the service runs.
pub fn open_stopped(dir: &Path) -> Result<StoppedLogs, WiringError> {
    let data_dir = DataDir::open(dir)?;
    let open = |name: &str, dir: &Path| -> Result<Arc<dyn Log>, WiringError> {
        Ok(Arc::new(EmbeddedLog::open(dir, LogOptions::new(name))?))
    };
    Ok(StoppedLogs {
        receipts: open("receipts", &data_dir.receipts())?,
        runs: open("runs", &data_dir.runs())?,
        quarantine: open("quarantine", &data_dir.quarantine())?,
        _data_dir: data_dir,
    })
}

async fn clock(config: &Config, receipts: &dyn Log) -> Result<Arc<dyn Clock>, WiringError> {
    Ok(match config.clock.mode {
        ClockMode::Wall => Arc::new(WallClock),
        ClockMode::Recorded => match last_ingest_ts(receipts).await? {
            Some(last) => Arc::new(RecordedClock::resume_at(last)),
            None => Arc::new(RecordedClock::new()),
        },
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

async fn engine(config: &EngineConfig) -> Result<(Arc<dyn Engine>, Option<Arc<ProcessEngine>>), WiringError> {
    match config.kind {
        EngineKind::Demo => Ok((Arc::new(DemoEngine::new(demo_hysteresis(&config.hysteresis))), None)),
        EngineKind::Process => {
            let workers = Arc::new(ProcessEngine::start(process_options(config)).await?);
            Ok((Arc::clone(&workers) as Arc<dyn Engine>, Some(workers)))
        }
        EngineKind::Http => Ok((Arc::new(HttpEngine::new(http_engine_options(config))?), None)),
    }
}

const fn demo_hysteresis(config: &HysteresisConfig) -> DemoHysteresis {
    DemoHysteresis {
        min_persistence_updates: config.min_persistence_updates,
        min_confidence_for_flip: config.min_confidence_for_flip,
        decay_factor: config.decay_factor,
        min_confidence_floor: config.min_confidence_floor,
        update_interval_ms: config.update_interval_ms,
    }
}

fn process_options(config: &EngineConfig) -> ProcessEngineOptions {
    let process = &config.process;
    ProcessEngineOptions {
        command: process.command.clone(),
        env: process.env.0.clone(),
        working_dir: process.working_dir.clone(),
        workers: cores_if_zero(process.workers),
        deadline: config.deadline,
        start_deadline: process.start_deadline,
        restart_wait_max: process.restart_wait_max,
        memory_max_bytes: Some(process.memory_max_bytes).filter(|bytes| *bytes > 0),
        output_bytes_max: usize::try_from(process.output_bytes_max).unwrap_or(usize::MAX),
        hysteresis_config: hysteresis_json(&config.hysteresis),
        respawn_backoff_min: process.respawn.min,
        respawn_backoff_max: process.respawn.max,
        shutdown_grace: Duration::from_secs(1),
    }
}

fn http_engine_options(config: &EngineConfig) -> HttpEngineOptions {
    let http = &config.http;
    HttpEngineOptions {
        url: http.url.expose().to_owned(),
        token: http.token.expose().map(str::to_owned),
        deadline: config.deadline,
        connect_timeout: http.connect_timeout,
        output_bytes_max: usize::try_from(http.output_bytes_max).unwrap_or(usize::MAX),
        connections_max: http.connections_max,
        hysteresis_config: hysteresis_json(&config.hysteresis),
    }
}

/// The `config` of every hysteresis call.
fn hysteresis_json(hysteresis: &HysteresisConfig) -> String {
    let json = serde_json::json!({
        "decay_factor": hysteresis.decay_factor,
        "min_confidence_floor": hysteresis.min_confidence_floor,
        "min_confidence_for_flip": hysteresis.min_confidence_for_flip,
        "min_persistence_updates": hysteresis.min_persistence_updates,
        "update_interval_ms": hysteresis.update_interval_ms,
    });
    json.to_string()
}

/// 0 in the configuration means as many as there are cores.
#[must_use]
pub fn cores_if_zero(count: usize) -> usize {
    if count > 0 { count } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// The sources, and the queue of the one that is posted to.
type Opened = (Vec<Arc<dyn SourceFactory>>, Option<HttpIntake>);

fn sources(config: &Config, clock: &Arc<dyn Clock>) -> Result<Opened, WiringError> {
    let mut intake = None;
    let open = |(name, source): (&String, &SourceConfig)| -> Result<Arc<dyn SourceFactory>, WiringError> {
        Ok(match source {
            SourceConfig::File(file) => Arc::new(CaptureFactory::new(CaptureOptions {
                speed: match file.speed {
                    Speed::Max => capture::Speed::Max,
                    Speed::Times(times) => capture::Speed::Times(times),
                },
                follow: file.follow,
                line_bytes_max: usize::try_from(file.line_bytes_max).unwrap_or(usize::MAX),
                ..CaptureOptions::new(name, &file.path)
            })),
            SourceConfig::Http(http) => {
                let (handle, factory) = HttpIntake::new(
                    name,
                    HttpIntakeOptions {
                        queue_batches_max: http.queue_batches_max,
                        queue_bytes_max: usize::try_from(http.queue_bytes_max).unwrap_or(usize::MAX),
                        unsettled_batches_max: http.unsettled_batches_max,
                        retry_after: http.retry_after,
                    },
                );
                intake = Some(handle);
                Arc::new(factory)
            }
            SourceConfig::RedisStream(stream) => {
                Arc::new(StreamSourceFactory::new(stream_source(name, stream)).map_err(|source| {
                    WiringError::Stream { setting: format!("sources.{name}.url"), source }
                })?)
            }
            SourceConfig::Demo(demo) => {
                Arc::new(DemoFeedFactory::new(demo_feed(name, demo), Arc::clone(clock)))
            }
            SourceConfig::Rabbit(rabbit) => Arc::new(rabbit::source(name, rabbit, &config.ingest)?),
        })
    };
    let sources = config.sources.iter().map(open).collect::<Result<_, _>>()?;
    Ok((sources, intake))
}

/// A server of a source that does not answer within it is lost: readiness must tell within two seconds.
const STREAM_TIMEOUT: Duration = Duration::from_secs(1);

fn stream_source(name: &str, stream: &RedisStreamConfig) -> StreamSourceOptions {
    StreamSourceOptions {
        name: name.to_owned(),
        url: stream.url.expose().to_owned(),
        stream: stream.stream.clone(),
        group: stream.group.clone(),
        consumer: stream.consumer.clone(),
        field: stream.field.clone(),
        start: stream.start.clone(),
        count_max: stream.count_max,
        claim_idle: stream.claim_idle,
        connect_timeout: STREAM_TIMEOUT,
        response_timeout: STREAM_TIMEOUT,
    }
}

fn demo_feed(name: &str, demo: &DemoSourceConfig) -> DemoFeedOptions {
    let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    DemoFeedOptions {
        name: name.to_owned(),
        seed: demo.seed,
        symbols: demo_symbols(demo.symbols),
        rate_per_second: demo.rate_per_second,
        snapshot_interval_ms: millis(demo.snapshot_interval),
        snapshot_lag_ms: millis(demo.snapshot_lag),
        duration: None,
    }
}

/// Names of the made-up market: well-known ones first, then numbered ones.
fn demo_symbols(count: usize) -> Vec<String> {
    const KNOWN: [&str; 8] =
        ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "AVAXUSDT", "LINKUSDT"];
    let numbered = (KNOWN.len() + 1..).map(|number| format!("SYM{number:04}"));
    KNOWN.iter().map(|known| (*known).to_owned()).chain(numbered).take(count).collect()
}

fn fan_outs(config: &Config) -> Result<Vec<Box<dyn FanOut>>, WiringError> {
    let mut fan_outs: Vec<Box<dyn FanOut>> = Vec::new();
    if let Some(path) = config.outputs_file() {
        let options = NdjsonOptions { sync: config.publish.file_sync, fs: Arc::new(RealFs) };
        let file = NdjsonFile::open(&path, options).map_err(|source| WiringError::File {
            what: format!("the outputs file {}", path.display()),
            source,
        })?;
        fan_outs.push(Box::new(file));
    }
    if !config.publish.rabbitmq.connection.url.is_empty() {
        fan_outs.push(Box::new(rabbit::fan_out(&config.publish.rabbitmq)?));
    }
    Ok(fan_outs)
}

/// How long after an unanswered append the same batch is sent again: little against the time that a server takes to
/// come back, and no load on one that is busy. The embedded log always answers.
const RESEND_AFTER: Duration = Duration::from_millis(100);

fn settings(config: &Config) -> Settings {
    let reconnect = &config.ingest.reconnect;
    let saturated = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Settings {
        cadence: config.schedule.cadence,
        catch_up_max: config.schedule.catch_up_max,
        runs_queued_max: config.schedule.runs_queued_max,
        universe: match &config.symbols {
            SymbolsConfig::List(symbols) => Universe::Listed(symbols.clone()),
            SymbolsConfig::Discover { limit } => Universe::Discover { limit: *limit },
        },
        engine_mode: config.engine.mode,
        engine_retry: config.engine.retry,
        engine_deadline: match config.engine.kind {
            EngineKind::Demo => config.engine.deadline,
            // The pool keeps the deadline of a call from when it is written; before that a call may wait for its worker,
            // which may be hanging on another symbol's call or be started again.
            EngineKind::Process => config.engine.deadline * 2 + config.engine.process.restart_wait_max,
            // The client keeps the deadline of a call from its turn on; before that it may wait for a connection.
            EngineKind::Http => config.engine.deadline * 2,
        },
        batch: BatchLimits {
            records: config.buffer.batch_records_max,
            bytes: saturated(config.buffer.batch_bytes_max),
        },
        resend_after: RESEND_AFTER,
        probe_every: None,
        checkpoint_every_receipts: config.buffer.checkpoint_every_receipts,
        checkpoint_every_runs: config.buffer.checkpoint_every_receipts,
        reopen_after: Duration::from_secs(1),
        in_flight_receipts_max: u32::try_from(config.ingest.in_flight_receipts_max).unwrap_or(u32::MAX),
        in_flight_bytes_max: u32::try_from(config.ingest.in_flight_bytes_max).unwrap_or(u32::MAX),
        receipt_bytes_max: saturated(config.ingest.receipt_bytes_max),
        batches_in_flight_max: 8,
        source_restart: RestartPolicy {
            restart: Restart::Transient,
            // 0 attempts in the configuration: no end.
            restarts_max: if reconnect.max_attempts == 0 { u32::MAX } else { reconnect.max_attempts },
            period: Duration::from_secs(600),
            backoff_min: reconnect.min,
            backoff_max: reconnect.max,
            beyond: BeyondIntensity::Halt,
        },
        runner_restart: SYMBOL_RUNNER,
        publish_batch_max: config.publish.batch_max,
        publish_retry: config.publish.retry,
        publish_attempt_max: config.publish.blocked_max,
        flow: FlowLimits {
            backlog_max: config.publish.backlog_max,
            backlog_resume: config.publish.backlog_resume,
            blocked_max: config.publish.blocked_max,
        },
        kill_switch: KillSwitchSettings {
            poll: config.kill_switch.poll,
            read_timeout: config.kill_switch.read_timeout,
            lease: config.kill_switch.lease,
        },
    }
}
