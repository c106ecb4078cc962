//! Where the logs, the checkpoints and the publish cursor are: files of the data directory, or Redis Streams.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orchestrator_engine_plane::retention::Archives;
use orchestrator_kernel::engine::retention::BASE;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::{AcquireError, Log, LogName};
use orchestrator_trading_plane::saved::JOURNAL_BASE;

use super::journal::JournalStorage;
use super::marks::second_mark;
use super::{StartOptions, WiringError};
use crate::adapters::files::checkpoints::FileCheckpoints;
use crate::adapters::files::data_dir::DataDir;
use crate::adapters::files::fs::RealFs;
use crate::adapters::files::high_water::{EmbeddedLogMark, MarkedLog};
use crate::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use crate::adapters::redis::{Durability, RedisLog, RedisLogOptions, RedisOptions, RedisStore, WriterClaim};
use crate::adapters::tiered::{TieredLog, TieredOptions};
use crate::config::{Config, RedisConfig, RedisDurability, StorageKind};

/// Storage of the tree's data.
pub(super) struct Storage {
    pub(super) receipts: Arc<dyn Log>,
    pub(super) quarantine: Arc<dyn Log>,
    pub(super) runs: Arc<dyn Log>,
    /// Which programs and configurations wrote the other logs.
    pub(super) manifests: Arc<dyn Log>,
    /// The trading plane's journal; nothing while that is off.
    pub(super) journal: Option<JournalStorage>,
    pub(super) checkpoints: Arc<dyn CheckpointStore>,
    /// Where retention copies records to before they leave embedded logs.
    pub(super) archives: Option<Archives>,
    /// What makes a receipt count as durable, for people.
    pub(super) durability: &'static str,
    /// How often idle logs are asked whether they are still there; `None` for files, which cannot go away.
    pub(super) probe_every: Option<Duration>,
    /// The server with the writer's claim, to be released at the end.
    pub(super) server: Option<RedisStore>,
    /// The logs in the data directory that are written: files that could be taken away.
    pub(super) written: Vec<Arc<EmbeddedLog>>,
}

/// Twice within the two seconds in which readiness has to tell that a server is gone.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Manifests are small and few.
pub(super) const MANIFEST_SEGMENT_BYTES: u64 = 64 << 10;

/// Opens what the configuration names.
pub(super) async fn open_storage(
    config: &Config,
    data_dir: &DataDir,
    options: StartOptions,
) -> Result<Storage, WiringError> {
    match config.storage.kind {
        StorageKind::Embedded => open_embedded(config, data_dir),
        StorageKind::Redis => on_redis(config, data_dir, options).await,
    }
}

/// The bytes that the receipt log may take, if they are limited.
fn receipt_log_capacity(config: &Config) -> Option<u64> {
    Some(config.buffer.capacity_bytes).filter(|bytes| *bytes > 0)
}

/// Logs and checkpoints of a data directory that retention works on.
pub(super) struct EmbeddedParts {
    pub(super) receipts: Arc<EmbeddedLog>,
    pub(super) quarantine: Arc<EmbeddedLog>,
    pub(super) runs: Arc<EmbeddedLog>,
    pub(super) checkpoints: Arc<dyn CheckpointStore>,
}

/// Opens it for writing.
pub(super) fn embedded_parts(config: &Config, data_dir: &DataDir) -> Result<EmbeddedParts, WiringError> {
    let checkpoints = FileCheckpoints::open(&data_dir.checkpoints_dir(), Arc::new(RealFs))
        .map_err(|source| WiringError::File { what: "the checkpoints".to_owned(), source })?
        .reserving_for(if config.trading.enabled { &[BASE, JOURNAL_BASE] } else { &[BASE] });
    data_dir.check_logs()?;
    let open = |name: LogName, capacity_bytes| {
        let (segment_bytes, mark) =
            (config.buffer.segment_bytes, MarkedLog::of_log(name).and_then(|log| data_dir.mark_of(log)));
        let options = EmbeddedLogOptions::new(name.as_str());
        let options = EmbeddedLogOptions { segment_bytes, capacity_bytes, mark, ..options };
        embedded_log(&data_dir.log_dir(name), options)
    };
    Ok(EmbeddedParts {
        receipts: open(LogName::Receipts, receipt_log_capacity(config))?,
        quarantine: open(LogName::Quarantine, None)?,
        runs: open(LogName::Runs, None)?,
        checkpoints: Arc::new(checkpoints),
    })
}

fn open_embedded(config: &Config, data_dir: &DataDir) -> Result<Storage, WiringError> {
    let EmbeddedParts { receipts, quarantine, runs, checkpoints } = embedded_parts(config, data_dir)?;
    let manifests = embedded_log(
        &data_dir.log_dir(LogName::Manifests),
        EmbeddedLogOptions {
            segment_bytes: MANIFEST_SEGMENT_BYTES,
            mark: data_dir.mark_of(MarkedLog::Manifests),
            ..EmbeddedLogOptions::new(LogName::Manifests.as_str())
        },
    )?;
    let mut written = vec![Arc::clone(&receipts), Arc::clone(&quarantine), Arc::clone(&runs)];
    written.push(Arc::clone(&manifests));
    let mut archive = |name, log: &EmbeddedLog| {
        let archive = archive_log(config, name, data_dir, log.stat().start)?;
        written.push(Arc::clone(&archive));
        Ok::<_, WiringError>(archive as Arc<dyn Log>)
    };
    let archives = match config.retention.archive {
        false => None,
        true => Some(Archives {
            receipts: archive(LogName::Receipts, &receipts)?,
            runs: archive(LogName::Runs, &runs)?,
            quarantine: archive(LogName::Quarantine, &quarantine)?,
        }),
    };
    let journal = config.trading.enabled.then(|| JournalStorage::embedded(config, data_dir));
    Ok(Storage {
        receipts,
        quarantine,
        runs,
        archives,
        manifests,
        journal,
        checkpoints,
        durability: "fdatasync",
        probe_every: None,
        server: None,
        written,
    })
}

/// The mark of the archive of the log `name`. An archive that was moved away as a whole is begun anew.
pub(super) fn archive_mark(data_dir: &DataDir, name: LogName) -> Option<EmbeddedLogMark> {
    let mark = data_dir.mark_of(MarkedLog::of_archive(name)?)?;
    Some(if data_dir.archive_dir().join(name.as_str()).is_dir() { mark } else { mark.without_found() })
}

/// Opens the archive of a log in the data directory, or begins one with record `first`.
pub(super) fn archive_log(
    config: &Config,
    name: LogName,
    data_dir: &DataDir,
    first: Seq,
) -> Result<Arc<EmbeddedLog>, WiringError> {
    let (segment_bytes, mark) = (config.buffer.segment_bytes, archive_mark(data_dir, name));
    let options = EmbeddedLogOptions { segment_bytes, first, mark, ..EmbeddedLogOptions::new(name.as_str()) };
    Ok(embedded_log(&data_dir.archive_dir().join(name.as_str()), options)?)
}

/// Opens an archive elsewhere, or begins one with record `first`.
pub(super) fn archive_elsewhere(
    config: &Config,
    name: LogName,
    dir: &Path,
    first: Seq,
) -> Result<Arc<EmbeddedLog>, WiringError> {
    let segment_bytes = config.buffer.segment_bytes;
    let options = EmbeddedLogOptions { segment_bytes, first, ..EmbeddedLogOptions::new(name.as_str()) };
    Ok(embedded_log(dir, options)?)
}

pub(super) fn embedded_log(
    dir: &Path,
    options: EmbeddedLogOptions,
) -> Result<Arc<EmbeddedLog>, AcquireError> {
    let name = options.name.clone();
    let log = EmbeddedLog::open(dir, options)?;
    if log.torn_bytes() > 0 {
        tracing::warn!(
            log = name,
            bytes = log.torn_bytes(),
            tail = %log.last_durable(),
            high_water = ?log.high_water(),
            "removed what followed the last whole write: a write that a crash cut short, or damage of what was written \
             within a second before this host failed; whether that was acknowledged is not known. Nothing up to the \
             high-water mark is missing"
        );
    }
    Ok(Arc::new(log))
}

async fn on_redis(
    config: &Config,
    data_dir: &DataDir,
    options: StartOptions,
) -> Result<Storage, WiringError> {
    let server = connect_redis(config, data_dir, options.trust_server).await?;
    let claim = WriterClaim { instance: data_dir.instance_id().to_owned(), takeover: options.takeover };
    server.claim_writer(&claim).await?;
    if let Err(doubt) = check_doubts(&server).await {
        // Whoever may start must not wait for a claim that was of no use.
        if let Err(error) = server.release_writer().await {
            tracing::warn!(%error, "the writer's claim was not released; it ends by itself");
        }
        return Err(doubt);
    }
    let durability = match server.durability() {
        Durability::Always => "redis-always",
        Durability::Everysec => "redis-everysec",
        Durability::AssertedByOperator => "redis-asserted-by-operator",
    };
    let mut tiers = TieredLogs { config, server: &server, data_dir, written: Vec::new() };
    let journal = match config.trading.enabled {
        false => None,
        true => Some(JournalStorage::on_server(config, &server, data_dir).await),
    };
    Ok(Storage {
        receipts: tiers.open_log(LogName::Receipts, receipt_log_capacity(config)).await?,
        quarantine: tiers.open_log(LogName::Quarantine, None).await?,
        runs: tiers.open_log(LogName::Runs, None).await?,
        manifests: Arc::new(server.open_log(LogName::Manifests.as_str(), RedisLogOptions::default()).await?),
        journal,
        checkpoints: Arc::new(server.checkpoints()),
        archives: None,
        durability,
        probe_every: Some(PROBE_EVERY),
        written: tiers.written,
        server: Some(server),
    })
}

/// A log on the server and its archive, as one.
pub(super) fn join_tiers(
    config: &Config,
    name: LogName,
    hot: RedisLog,
    cold: Arc<EmbeddedLog>,
) -> Arc<dyn Log> {
    let RedisConfig { archive_above, archive_keep, .. } = config.redis;
    let options = TieredOptions::new(name.as_str(), archive_above, archive_keep);
    Arc::new(TieredLog::new(Arc::new(hot), cold, options))
}

/// Logs on the server with their archives in the data directory.
struct TieredLogs<'a> {
    config: &'a Config,
    server: &'a RedisStore,
    data_dir: &'a DataDir,
    /// The archives that were opened, which are written to.
    written: Vec<Arc<EmbeddedLog>>,
}

impl TieredLogs<'_> {
    async fn open_log(
        &mut self,
        name: LogName,
        capacity_bytes: Option<u64>,
    ) -> Result<Arc<dyn Log>, WiringError> {
        let hot = self.server.open_log(name.as_str(), RedisLogOptions { capacity_bytes }).await?;
        let cold = archive_log(self.config, name, self.data_dir, Seq(1))?;
        self.written.push(Arc::clone(&cold));
        Ok(join_tiers(self.config, name, hot, cold))
    }
}

async fn connect_redis(
    config: &Config,
    data_dir: &DataDir,
    trust_server: bool,
) -> Result<RedisStore, WiringError> {
    let options = RedisOptions {
        instance: data_dir.instance_id().to_owned(),
        marks: second_mark(config)?,
        trust_server,
        ..redis_options(config, data_dir.high_water())
    };
    Ok(RedisStore::connect(options).await?)
}

/// Refuses a server that has less than is known, or of which nobody can tell, with all that is wrong at once: before a
/// log is taken over, and so before an epoch is spent.
async fn check_doubts(server: &RedisStore) -> Result<(), WiringError> {
    let mut doubts = Vec::new();
    for name in LogName::OF_EVERY_SERVICE {
        let log = server.open_log(name.as_str(), RedisLogOptions::default()).await?;
        doubts.extend(log.find_doubt().await?);
    }
    let is_corrupt = |doubt: &AcquireError| matches!(doubt, AcquireError::Corrupt { .. });
    for doubt in doubts.iter().filter(|doubt| is_corrupt(doubt)) {
        tracing::error!(error_detail = %doubt, "a log on the server is not what is known of it");
    }
    // What is certain before what may be known later.
    let first = doubts.iter().position(is_corrupt).unwrap_or(0);
    match doubts.is_empty() {
        true => Ok(()),
        false => Err(doubts.swap_remove(first).into()),
    }
}

/// How the configured server is used, with the high-water marks in `state_dir`.
pub(super) fn redis_options(config: &Config, state_dir: PathBuf) -> RedisOptions {
    let redis = &config.redis;
    RedisOptions {
        url: redis.url.expose_url().to_owned(),
        namespace: redis.namespace.clone(),
        durability: match redis.durability {
            RedisDurability::Always => Durability::Always,
            RedisDurability::Everysec => Durability::Everysec,
            RedisDurability::AssertedByOperator => Durability::AssertedByOperator,
        },
        state_dir,
        response_timeout: redis.response_timeout,
        connect_timeout: redis.connect_timeout,
        check_interval: redis.check_interval,
        writer_ttl: redis.writer_ttl,
        instance: String::new(),
        marks: None,
        trust_server: false,
        is_trading: config.trading.enabled,
    }
}
