//! The logs of a service that is stopped, or that keeps them on a server: for reading. Nothing is created or changed,
//! so a copy on a medium that cannot be written is good too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrator_engine_plane::retention::saved_base;
use orchestrator_kernel::engine::audit::ReplayStart;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::{AcquireError, Log, LogName, LogStat};

use super::WiringError;
use super::storage::{archive_mark, redis_options};
use crate::adapters::files::checkpoints::FileCheckpoints;
use crate::adapters::files::data_dir::DataDir;
use crate::adapters::files::fs::RealFs;
use crate::adapters::files::high_water::{EmbeddedLogMark, MarkedLog};
use crate::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use crate::adapters::redis::{Endpoint, RedisLog, RedisLogOptions, RedisOpenError, RedisOptions, RedisStore};
use crate::adapters::tiered::{TieredLog, TieredOptions};
use crate::config::{Config, StorageKind};

/// Place of recorded logs.
#[derive(Clone, Debug)]
pub enum LogsPlace {
    /// In the data directory of a stopped service.
    DataDir(PathBuf),
    /// As above, its old part in an archive that lies elsewhere.
    Archived {
        /// The data directory.
        dir: PathBuf,
        /// The archive.
        archive: PathBuf,
    },
    /// On a Redis server, their old part in the archive of a data directory, if there is one.
    Redis {
        /// How the server is reached.
        options: Box<RedisOptions>,
        /// The data directory with the archive.
        data_dir: Option<PathBuf>,
    },
}

impl LogsPlace {
    /// Where a service with this configuration keeps its logs.
    #[must_use]
    pub fn of_config(config: &Config) -> Self {
        let data_dir = config.service.data_dir.clone();
        match config.storage.kind {
            StorageKind::Embedded => Self::DataDir(data_dir),
            StorageKind::Redis => Self::Redis {
                options: Box::new(redis_options(config, data_dir.join("high_water"))),
                data_dir: Some(data_dir),
            },
        }
    }

    /// On the server at `url`; their old part in the archive of `data_dir`. How long an answer may take is configured.
    #[must_use]
    pub fn on_server(url: &str, namespace: &str, data_dir: Option<PathBuf>, config: &Config) -> Self {
        // Nothing is acquired, so nothing is written there.
        let state_dir = data_dir.as_deref().unwrap_or(Path::new(".")).join("high_water");
        let mut options = RedisOptions::new(url, namespace, state_dir);
        options.response_timeout = config.redis.response_timeout;
        options.connect_timeout = config.redis.connect_timeout;
        Self::Redis { options: Box::new(options), data_dir }
    }

    /// What people call it; without secrets.
    #[must_use]
    pub fn display_name(&self) -> String {
        match self {
            Self::DataDir(dir) | Self::Archived { dir, .. } => dir.display().to_string(),
            Self::Redis { options, .. } => {
                let endpoint = Endpoint::parse(&options.url, options.connect_timeout);
                let place = endpoint.as_ref().map_or("redis", Endpoint::place);
                format!("{place}, namespace {}", options.namespace)
            }
        }
    }
}

/// Logs opened for reading. A data directory among them is held against other processes meanwhile.
pub struct Recorded {
    /// The receipt log.
    pub receipts: Arc<dyn Log>,
    /// The run log.
    pub runs: Arc<dyn Log>,
    /// The quarantine.
    pub quarantine: Arc<dyn Log>,
    /// Which programs and configurations wrote them.
    pub manifests: Arc<dyn Log>,
    /// The trading plane's journal, where there is one. One that cannot be opened keeps nobody from the other logs.
    journal: Result<Option<Arc<dyn Log>>, WiringError>,
    /// The publish cursor, and what a trimmed log continues from.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Per log on disk, bytes of a write that a crash cut short. Nobody was told of them; the next start removes them.
    pub torn: Vec<(LogName, u64)>,
    /// Per log with an archive, what that holds.
    pub archived: Vec<(LogName, LogStat)>,
    _data_dir: Option<DataDir>,
    _server: Option<RedisStore>,
}

/// Torn writes and archived parts that were met while logs were opened.
#[derive(Default)]
struct OpenNotes {
    torn: Vec<(LogName, u64)>,
    archived: Vec<(LogName, LogStat)>,
}

impl Recorded {
    /// The trading plane's journal; nothing where there is none.
    ///
    /// # Errors
    ///
    /// [`WiringError`]: it cannot be opened.
    pub const fn journal(&self) -> Result<Option<&Arc<dyn Log>>, &WiringError> {
        match &self.journal {
            Ok(journal) => Ok(journal.as_ref()),
            Err(error) => Err(error),
        }
    }

    /// The same, taken out.
    ///
    /// # Errors
    ///
    /// [`WiringError`]: it cannot be opened.
    pub fn take_journal(&mut self) -> Result<Option<Arc<dyn Log>>, WiringError> {
        std::mem::replace(&mut self.journal, Ok(None))
    }

    /// What stood before these logs, where their beginning was trimmed and no archive has it; and what the service
    /// trimmed without a run, where they still have it.
    ///
    /// # Errors
    ///
    /// [`WiringError`]: the base cannot be read.
    pub async fn load_base(&self) -> Result<ReplayStart, WiringError> {
        let is_whole = [&self.receipts, &self.runs].iter().all(|log| log.stat().start <= Seq(1));
        let base = saved_base(self.checkpoints.as_ref()).await?;
        Ok(if is_whole { ReplayStart::of_whole_logs(&base) } else { ReplayStart::from(&base) })
    }
}

/// Opens the logs at `place`.
///
/// # Errors
///
/// [`WiringError`]; [`ProcessExit::Held`](crate::process::exit::ProcessExit::Held) among them while a service uses the
/// data directory.
pub async fn open_logs(place: &LogsPlace) -> Result<Recorded, WiringError> {
    match place {
        LogsPlace::DataDir(dir) => open_embedded(dir, None),
        LogsPlace::Archived { dir, archive } => open_embedded(dir, Some(archive)),
        LogsPlace::Redis { options, data_dir } => on_redis((**options).clone(), data_dir.as_deref()).await,
    }
}

fn open_embedded(dir: &Path, archive: Option<&Path>) -> Result<Recorded, WiringError> {
    let data_dir = DataDir::open_read_only(dir)?;
    data_dir.check_logs()?;
    let archive = Archive { data_dir: Some(&data_dir), elsewhere: archive };
    let mut met = OpenNotes::default();
    let mut open = |name| open_with_archive(name, &data_dir, &archive, &mut met);
    let (receipts, runs) = (open(LogName::Receipts)?, open(LogName::Runs)?);
    let (quarantine, manifests) = (open(LogName::Quarantine)?, open(LogName::Manifests)?);
    Ok(Recorded {
        receipts,
        runs,
        quarantine,
        manifests,
        journal: open_found_journal(&data_dir, &archive, &mut met),
        checkpoints: Arc::new(FileCheckpoints::open_read_only(&data_dir.checkpoints_dir(), Arc::new(RealFs))),
        torn: met.torn,
        archived: met.archived,
        _data_dir: Some(data_dir),
        _server: None,
    })
}

/// A log of a data directory and its archive, as one.
fn open_with_archive(
    name: LogName,
    data_dir: &DataDir,
    archive: &Archive<'_>,
    met: &mut OpenNotes,
) -> Result<Arc<dyn Log>, WiringError> {
    let mark = MarkedLog::of_log(name).and_then(|log| data_dir.mark_of(log));
    let hot = open_embedded_log(name, &data_dir.log_dir(name), mark, met)?;
    join_archive(name, hot, archive, met)
}

/// The journal of a data directory, where somebody has written one.
fn open_found_journal(
    data_dir: &DataDir,
    archive: &Archive<'_>,
    met: &mut OpenNotes,
) -> Result<Option<Arc<dyn Log>>, WiringError> {
    let name = LogName::Journal;
    let is_there = data_dir.has_journal();
    let is_there = is_there.map_err(|source| AcquireError::Io { log: name.to_string(), source })?;
    is_there.then(|| open_with_archive(name, data_dir, archive, met)).transpose()
}

/// The trading plane's journal, opened for reading. A data directory is held against its service meanwhile.
pub struct RecordedJournal {
    /// The journal.
    pub log: Arc<dyn Log>,
    _data_dir: Option<DataDir>,
    _server: Option<RedisStore>,
}

/// Opens the journal at `place`.
///
/// # Errors
///
/// [`WiringError`], as [`open_logs`]; [`WiringError::NoJournal`] where there is none.
pub async fn open_journal(place: &LogsPlace) -> Result<RecordedJournal, WiringError> {
    let (dir, elsewhere) = match place {
        LogsPlace::DataDir(dir) => (dir, None),
        LogsPlace::Archived { dir, archive } => (dir, Some(archive.as_path())),
        LogsPlace::Redis { options, data_dir } => {
            return open_redis_journal((**options).clone(), data_dir.as_deref()).await;
        }
    };
    let data_dir = DataDir::open_read_only(dir)?;
    let archive = Archive { data_dir: Some(&data_dir), elsewhere };
    let found = open_found_journal(&data_dir, &archive, &mut OpenNotes::default())?;
    // An empty journal in the place of one that is not there would be a made-up answer.
    let log = found.ok_or_else(|| WiringError::NoJournal { place: place.display_name() })?;
    Ok(RecordedJournal { log, _data_dir: Some(data_dir), _server: None })
}

async fn open_redis_journal(
    options: RedisOptions,
    data_dir: Option<&Path>,
) -> Result<RecordedJournal, WiringError> {
    let namespace = options.namespace.clone();
    let server = RedisStore::connect_to_read(options).await?;
    let data_dir = data_dir.filter(|dir| dir.is_dir()).map(DataDir::open_read_only).transpose()?;
    let archive = Archive { data_dir: data_dir.as_ref(), elsewhere: None };
    let found = find_redis_journal(&server, &archive, &mut OpenNotes::default()).await?;
    let log = found.ok_or_else(|| {
        let place = format!("{}, namespace {namespace}", server.place());
        WiringError::NoJournal { place }
    })?;
    Ok(RecordedJournal { log, _data_dir: data_dir, _server: Some(server) })
}

/// The journal on a server, where somebody has written one.
async fn find_redis_journal(
    server: &RedisStore,
    archive: &Archive<'_>,
    met: &mut OpenNotes,
) -> Result<Option<Arc<dyn Log>>, WiringError> {
    let hot = open_redis_log(server, LogName::Journal).await?;
    match hot.is_there() {
        true => join_archive(LogName::Journal, Arc::new(hot), archive, met).map(Some),
        false => Ok(None),
    }
}

/// Opens a log on disk so that nothing of it is changed.
fn open_embedded_log(
    name: LogName,
    dir: &Path,
    mark: Option<EmbeddedLogMark>,
    met: &mut OpenNotes,
) -> Result<Arc<dyn Log>, WiringError> {
    let log = EmbeddedLog::open_read_only(
        dir,
        EmbeddedLogOptions { mark, ..EmbeddedLogOptions::new(name.as_str()) },
    )?;
    if log.torn_bytes() > 0 {
        met.torn.push((name, log.torn_bytes()));
    }
    Ok(Arc::new(log))
}

/// Place of the logs' archives: in the data directory, where marks tell how long they are, or elsewhere.
struct Archive<'a> {
    data_dir: Option<&'a DataDir>,
    elsewhere: Option<&'a Path>,
}

impl Archive<'_> {
    /// The archive of one log, if there is one.
    fn archive_of(&self, name: LogName) -> Option<(PathBuf, Option<EmbeddedLogMark>)> {
        let (dir, mark) = match (self.elsewhere, self.data_dir) {
            (Some(dir), _) => (dir.join(name.as_str()), None),
            (None, Some(data_dir)) => {
                (data_dir.archive_dir().join(name.as_str()), archive_mark(data_dir, name))
            }
            (None, None) => return None,
        };
        dir.is_dir().then_some((dir, mark))
    }
}

/// A log and the archive of it, if there is one, as one log.
fn join_archive(
    name: LogName,
    hot: Arc<dyn Log>,
    archive: &Archive<'_>,
    met: &mut OpenNotes,
) -> Result<Arc<dyn Log>, WiringError> {
    let Some((dir, mark)) = archive.archive_of(name) else { return Ok(hot) };
    let cold = open_embedded_log(name, &dir, mark, met)?;
    let (archived, start) = (cold.stat(), hot.stat().start);
    met.archived.push((name, archived));
    if archived.tail.next() < start {
        tracing::warn!(
            log = name.as_str(), archive_ends = %archived.tail, log_starts = %start,
            "the archive does not reach up to the log, so it is left aside"
        );
        return Ok(hot);
    }
    // It is never acquired, so it archives nothing.
    Ok(Arc::new(TieredLog::new(hot, cold, TieredOptions::new(name.as_str(), u64::MAX, 0))))
}

async fn on_redis(options: RedisOptions, data_dir: Option<&Path>) -> Result<Recorded, WiringError> {
    let namespace = options.namespace.clone();
    let server = RedisStore::connect_to_read(options).await?;
    let data_dir = data_dir.filter(|dir| dir.is_dir()).map(DataDir::open_read_only).transpose()?;
    let archive = Archive { data_dir: data_dir.as_ref(), elsewhere: None };
    let mut met = OpenNotes::default();
    // Runs first: every receipt that a run needs was there before it.
    let runs = open_redis_log(&server, LogName::Runs).await?;
    let receipts = open_redis_log(&server, LogName::Receipts).await?;
    let quarantine = open_redis_log(&server, LogName::Quarantine).await?;
    let manifests = open_redis_log(&server, LogName::Manifests).await?;
    require_all_logs(
        [(LogName::Receipts, &receipts), (LogName::Runs, &runs), (LogName::Quarantine, &quarantine)],
        &server,
        &namespace,
    )?;
    let journal = find_redis_journal(&server, &archive, &mut met).await;
    let mut tiered =
        |name, hot: RedisLog| join_archive(name, Arc::new(hot) as Arc<dyn Log>, &archive, &mut met);
    Ok(Recorded {
        receipts: tiered(LogName::Receipts, receipts)?,
        runs: tiered(LogName::Runs, runs)?,
        quarantine: tiered(LogName::Quarantine, quarantine)?,
        manifests: tiered(LogName::Manifests, manifests)?,
        journal,
        checkpoints: Arc::new(server.checkpoints()),
        torn: met.torn,
        archived: met.archived,
        _data_dir: data_dir,
        _server: Some(server),
    })
}

/// Opens a log on the server. Until here nothing but a login was asked of it, so it says only now what it refuses.
async fn open_redis_log(server: &RedisStore, name: LogName) -> Result<RedisLog, WiringError> {
    server.open_log(name.as_str(), RedisLogOptions::default()).await.map_err(|error| match error {
        AcquireError::Io { source, .. } => RedisOpenError::Unreachable(source).into(),
        error @ (AcquireError::Held { .. }
        | AcquireError::Corrupt { .. }
        | AcquireError::UnknownVersion { .. }) => error.into(),
    })
}

/// A service makes all of these logs at its first start: without any there was none, and where one has records, no
/// other may be missing. An empty log in the place of a lost one would be a made-up answer.
fn require_all_logs(
    logs: [(LogName, &RedisLog); 3],
    server: &RedisStore,
    namespace: &str,
) -> Result<(), WiringError> {
    let place = format!("{}, namespace {namespace}", server.place());
    let missing = logs.iter().find(|(_, log)| !log.is_there());
    match (missing, logs.iter().any(|(_, log)| log.stat().tail > Seq(0))) {
        (None, _) => Ok(()),
        (Some(_), false) => Err(WiringError::NoLogs { place }),
        (Some((name, _)), true) => Err(WiringError::Log(AcquireError::Corrupt {
            log: name.to_string(),
            place,
            detail: "it is gone, and other logs beside it are not".to_owned(),
        })),
    }
}
