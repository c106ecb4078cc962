//! The trading plane's journal: its log under the guards of the others, and how it is trimmed.

use std::sync::Arc;

use orchestrator_kernel::engine::retention::Policy;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{AcquireError, Log, LogName};
use orchestrator_trading_plane::retention::{JournalReader, JournalRetentionPorts, JournalRetentionSettings};

use super::storage::{archive_mark, embedded_log, join_tiers};
use crate::adapters::files::data_dir::DataDir;
use crate::adapters::files::high_water::MarkedLog;
use crate::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use crate::adapters::redis::{RedisLogOptions, RedisStore};
use crate::adapters::unopened_log::UnopenedLog;
use crate::config::Config;

/// Records by which the journal's base is advanced at a time: some tens of megabytes to read.
const RETENTION_STEP: u64 = 50_000;

/// The trading plane's journal, and what retention copies it to.
///
/// A journal that cannot be opened is an [`UnopenedLog`]: it stops the trading plane, when that takes it over, and
/// nothing else. For the same reason its files are not watched with those of the other logs.
#[derive(Clone)]
pub struct JournalStorage {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where retention copies records to before they leave an embedded journal.
    pub archive: Option<Arc<dyn Log>>,
}

impl JournalStorage {
    /// The journal in a data directory.
    pub(super) fn embedded(config: &Config, data_dir: &DataDir) -> Self {
        Self::or_unopened(embedded_journal(config, data_dir).map(|opened| Self {
            log: opened.log,
            archive: opened.archive.map(|archive| archive as Arc<dyn Log>),
        }))
    }

    /// The journal on a server.
    pub(super) async fn on_server(config: &Config, server: &RedisStore, data_dir: &DataDir) -> Self {
        Self::or_unopened(redis_journal(config, server, data_dir).await)
    }

    /// The journal as opened, or in its place why it could not be.
    fn or_unopened(opened: Result<Self, AcquireError>) -> Self {
        opened.unwrap_or_else(|error| {
            tracing::error!(error_detail = %error, "the journal cannot be opened, so the trading plane will not run");
            Self { log: Arc::new(UnopenedLog::new(error)), archive: None }
        })
    }

    /// How the journal is trimmed; nothing where all of it is kept. `readers` are those besides the plane's history.
    #[must_use]
    pub fn retention_ports(
        &self,
        config: &Config,
        readers: Vec<JournalReader>,
    ) -> Option<JournalRetentionPorts> {
        let journal = &config.trading.journal;
        let age_ms = u64::try_from(journal.age_max.as_millis()).unwrap_or(u64::MAX);
        let limit = |value: u64| Some(value).filter(|value| 0 < *value);
        let policy =
            Policy { age_ms_max: limit(age_ms), bytes_max: limit(journal.bytes_max), records_max: None };
        let settings = JournalRetentionSettings {
            policy,
            check_every: config.retention.check_every,
            step: RETENTION_STEP,
        };
        let archive = self.archive.clone();
        (!policy.keeps_all()).then_some(JournalRetentionPorts { settings, archive, readers })
    }
}

/// The journal of a data directory and its archive, if it has one.
pub(super) struct EmbeddedJournal {
    pub(super) log: Arc<EmbeddedLog>,
    pub(super) archive: Option<Arc<EmbeddedLog>>,
}

/// Opens the journal of a data directory for writing, or begins one.
pub(super) fn embedded_journal(config: &Config, data_dir: &DataDir) -> Result<EmbeddedJournal, AcquireError> {
    let name = LogName::Journal;
    let marked = data_dir.make_room_for_journal();
    let marked = marked.map_err(|source| AcquireError::Io { log: name.to_string(), source })?;
    let options = EmbeddedLogOptions {
        segment_bytes: config.buffer.segment_bytes,
        mark: data_dir.mark_of(MarkedLog::Journal).filter(|_| marked),
        ..EmbeddedLogOptions::new(name.as_str())
    };
    let log = embedded_log(&data_dir.log_dir(name), options)?;
    let start = log.stat().start;
    let archive = config.retention.archive.then(|| journal_archive(config, data_dir, start, marked));
    Ok(EmbeddedJournal { log, archive: archive.transpose()? })
}

/// Opens the archive of the journal in the data directory, or begins one with record `first`.
pub(super) fn journal_archive(
    config: &Config,
    data_dir: &DataDir,
    first: Seq,
    marked: bool,
) -> Result<Arc<EmbeddedLog>, AcquireError> {
    let name = LogName::Journal;
    let options = EmbeddedLogOptions {
        segment_bytes: config.buffer.segment_bytes,
        first,
        mark: archive_mark(data_dir, name).filter(|_| marked),
        ..EmbeddedLogOptions::new(name.as_str())
    };
    embedded_log(&data_dir.archive_dir().join(name.as_str()), options)
}

/// The journal on the server, with its archive in the data directory. What is known of it beyond the server's word is
/// asked when it is taken over, as of every log.
async fn redis_journal(
    config: &Config,
    server: &RedisStore,
    data_dir: &DataDir,
) -> Result<JournalStorage, AcquireError> {
    let name = LogName::Journal;
    let marked = data_dir.make_room_for_journal();
    let marked = marked.map_err(|source| AcquireError::Io { log: name.to_string(), source })?;
    let hot = server.open_log(name.as_str(), RedisLogOptions::default()).await?;
    let cold = journal_archive(config, data_dir, Seq(1), marked)?;
    Ok(JournalStorage { log: join_tiers(config, name, hot, cold), archive: None })
}
