//! The log port on a stream: what all its parts share, and which part does what.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, Log, LogStat, ReadError, ReadLimit, RecordBatch, TrimError,
};
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio_util::task::AbortOnDropHandle;

use super::appender::Appender;
use super::connect::Link;
use super::entry::LogId;
use super::promise::Promise;
use super::reader::Reader;

/// The version of the stored form that this binary writes and reads.
pub(super) const FORMAT: u32 = 1;

/// How a log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Most bytes of entries (payload and 5 bytes each) that the log may hold; appends beyond are refused as full.
    /// Redis takes some 4 % more memory for entries of 400 bytes. `None`: as much as the server takes.
    pub capacity_bytes: Option<u64>,
}

/// What this process knows of the log. Refreshed by every answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Nothing before the log was acquired for the first time.
    pub(super) log: Option<LogId>,
    pub(super) stat: LogStat,
}

/// What every part of a log needs.
pub(super) struct Shared {
    pub(super) name: String,
    pub(super) stream: String,
    pub(super) meta: String,
    known: Mutex<Known>,
}

impl Shared {
    pub(super) fn known(&self) -> Known {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what an answer told. Answers may come out of order: start and tail only grow.
    pub(super) fn learn(&self, stat: LogStat) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.stat = LogStat {
            start: known.stat.start.max(stat.start),
            tail: known.stat.tail.max(stat.tail),
            bytes: stat.bytes,
        };
    }

    /// Starts anew with what a look at the whole log told.
    pub(super) fn replace(&self, known: Known) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Reads the meta key as it is now; nothing when there is no log.
    pub(super) async fn look(&self, mut connection: MultiplexedConnection) -> RedisResult<Option<Meta>> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.meta).arg(&["format", "log_id", "start", "tail", "bytes"]);
        type Fields = (Option<u32>, Option<String>, Option<u64>, Option<u64>, Option<u64>);
        let (format, log, start, tail, bytes): Fields = command.query_async(&mut connection).await?;
        let Some(log) = log else { return Ok(None) };
        let stat = LogStat {
            start: Seq(start.unwrap_or(1)),
            tail: Seq(tail.unwrap_or(0)),
            bytes: bytes.unwrap_or(0),
        };
        Ok(Some(Meta { format: format.unwrap_or(FORMAT), known: Known { log: LogId::from_hex(&log), stat } }))
    }
}

/// The meta key.
pub(super) struct Meta {
    pub(super) format: u32,
    pub(super) known: Known,
}

/// A log in Redis.
///
/// One append or step of trimming is in flight at a time, on a connection of its own; reads go beside it on another one.
/// What one process appends or trims is seen by all others; `stat` is what the last answer told.
pub struct RedisLog {
    shared: Arc<Shared>,
    appender: tokio::sync::Mutex<Appender>,
    reader: Reader,
    _watch: Arc<AbortOnDropHandle<()>>,
}

impl RedisLog {
    /// Reads what there is. `mark` is the file with this host's high-water mark.
    pub(super) async fn open(
        name: &str,
        namespace: &str,
        options: LogOptions,
        mark: PathBuf,
        link: Link,
        promise: &Arc<Promise>,
        watch: &Arc<AbortOnDropHandle<()>>,
    ) -> Result<Self, AcquireError> {
        let stream = format!("orch:{{{namespace}}}:{name}");
        let meta = format!("{stream}:meta");
        let empty = Known { log: None, stat: LogStat { start: Seq(1), ..LogStat::default() } };
        let shared = Shared { name: name.to_owned(), stream, meta, known: Mutex::new(empty) };
        let found = link.run_again(0, |connection| shared.look(connection)).await;
        let found = found.map_err(|source| AcquireError::Io { log: name.to_owned(), source })?;
        if let Some(found) = found {
            if found.format != FORMAT {
                let log = name.to_owned();
                return Err(AcquireError::UnknownVersion { log, found: found.format, known: FORMAT });
            }
            shared.replace(found.known);
        }
        let shared = Arc::new(shared);
        let endpoint = link.endpoint.clone();
        let appender =
            Appender::new(Arc::clone(&shared), endpoint, Arc::clone(promise), link.timeout(), options, mark);
        Ok(Self {
            reader: Reader::new(Arc::clone(&shared), link),
            appender: tokio::sync::Mutex::new(appender),
            shared,
            _watch: Arc::clone(watch),
        })
    }
}

#[async_trait]
impl Log for RedisLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.appender.lock().await.acquire().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        self.appender.lock().await.append(epoch, batch).await
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        self.reader.read(from, limit).await
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        loop {
            // Let go of after each step: appends go between.
            let (start, more) = self.appender.lock().await.trim_step(epoch, below).await?;
            if !more {
                return Ok(start);
            }
        }
    }

    fn stat(&self) -> LogStat {
        self.shared.known().stat
    }
}
