//! The log port on a stream: what all its parts share, and which part does what.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use orchestrator_kernel::ids::{Epoch, LogIdentity, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio_util::task::AbortOnDropHandle;

use super::appender::{Appender, Host};
use super::connect::RedisLink;
use super::entry::LogId;
use super::promise::Promise;
use super::reader::Reader;

/// The version of the stored form that this binary writes and reads.
pub(super) const FORMAT: u32 = 1;

/// Settings of a log in Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisLogOptions {
    /// Most bytes of entries (payload and 5 bytes each) that the log may hold; appends beyond are refused as full.
    /// Redis takes some 4 % more memory for entries of 400 bytes. `None`: as much as the server takes.
    pub capacity_bytes: Option<u64>,
}

/// Last known state of the log in this process. Refreshed by every answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastKnown {
    /// Nothing before the log was acquired for the first time.
    pub(super) log: Option<LogId>,
    pub(super) stat: LogStat,
}

/// Keys and last known state of a log, shared by all its parts.
pub(super) struct RedisLogState {
    pub(super) name: String,
    pub(super) stream: String,
    pub(super) meta: String,
    known: Mutex<LastKnown>,
}

impl RedisLogState {
    pub(super) fn last_known(&self) -> LastKnown {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what an answer told. Answers may come out of order: start and tail only grow.
    pub(super) fn learn_stat(&self, stat: LogStat) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.stat = LogStat {
            start: known.stat.start.max(stat.start),
            tail: known.stat.tail.max(stat.tail),
            bytes: stat.bytes,
        };
    }

    /// Starts anew with what a look at the whole log told.
    pub(super) fn replace_known(&self, known: LastKnown) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Reads the meta key as it is now.
    pub(super) async fn look_up_meta(
        &self,
        mut connection: MultiplexedConnection,
    ) -> RedisResult<MetaLookup> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.meta).arg(&["format", "log_id", "start", "tail", "bytes", "epoch", "writer"]);
        let answer: RedisResult<[Option<Vec<u8>>; 7]> = command.query_async(&mut connection).await;
        match answer {
            Ok(fields) => Ok(RedisLogMeta::from_fields(
                fields.map(|field| field.map(|text| String::from_utf8_lossy(&text).into_owned())),
            )),
            Err(error) if error.code() == Some("WRONGTYPE") => {
                Ok(MetaLookup::Else("it is no hash".to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

/// Content of the meta key.
pub(super) enum MetaLookup {
    /// Nothing: there is no log.
    Nothing,
    /// A log.
    Meta(RedisLogMeta),
    /// Not what a log has there, and why.
    Else(String),
}

/// The meta key.
pub(super) struct RedisLogMeta {
    pub(super) format: u32,
    pub(super) known: LastKnown,
    /// Of the last acquisition.
    pub(super) epoch: Epoch,
    pub(super) writer: String,
}

impl RedisLogMeta {
    /// Reads the fields format, log_id, start, tail, bytes, epoch and writer.
    fn from_fields([format, log, start, tail, bytes, epoch, writer]: [Option<String>; 7]) -> MetaLookup {
        let Some(log) = log else { return MetaLookup::Nothing };
        let number = |name: &str, field: Option<String>, missing: u64| {
            let Some(text) = field else { return Ok(missing) };
            text.parse::<u64>().map_err(|_| format!("its field {name} is {text:?}, which is no number"))
        };
        let read = || {
            let format = number("format", format, u64::from(FORMAT))?;
            let stat = LogStat {
                start: Seq(number("start", start, 1)?),
                tail: Seq(number("tail", tail, 0)?),
                bytes: number("bytes", bytes, 0)?,
            };
            let format = u32::try_from(format).unwrap_or(u32::MAX);
            let known = LastKnown { log: LogId::from_hex(&log), stat };
            let epoch = Epoch(number("epoch", epoch, 0)?);
            Ok(Self { format, known, epoch, writer: writer.unwrap_or_default() })
        };
        read().map_or_else(MetaLookup::Else, MetaLookup::Meta)
    }
}

/// A log in Redis.
///
/// One append or step of trimming is in flight at a time, on a connection of its own; reads go beside it on another
/// one. What one process appends or trims is seen by all others; `stat` is what the last answer told.
pub struct RedisLog {
    shared: Arc<RedisLogState>,
    appender: tokio::sync::Mutex<Appender>,
    reader: Reader,
    _watch: Option<Arc<Watch>>,
}

/// Parts of its store that a log is opened with.
pub(super) struct RedisLogParts {
    pub(super) options: RedisLogOptions,
    pub(super) host: Host,
    pub(super) link: RedisLink,
    pub(super) promise: Arc<Promise>,
    pub(super) watch: Option<Arc<Watch>>,
}

/// Tasks that run for as long as somebody writes. Nobody needs them who only reads.
pub(super) struct Watch {
    pub(super) _promise: AbortOnDropHandle<()>,
    pub(super) _second_mark: Option<AbortOnDropHandle<()>>,
}

impl RedisLog {
    /// Reads what there is of the log `name` in `namespace`.
    pub(super) async fn open(
        name: &str,
        namespace: &str,
        parts: RedisLogParts,
    ) -> Result<Self, AcquireError> {
        let RedisLogParts { options, host, link, promise, watch } = parts;
        let stream = format!("orch:{{{namespace}}}:{name}");
        let meta = format!("{stream}:meta");
        let empty = LastKnown { log: None, stat: LogStat { start: Seq(1), ..LogStat::default() } };
        let shared = RedisLogState { name: name.to_owned(), stream, meta, known: Mutex::new(empty) };
        let found = link.run_again(0, |connection| shared.look_up_meta(connection)).await;
        match found.map_err(|source| AcquireError::Io { log: name.to_owned(), source })? {
            MetaLookup::Nothing => {}
            MetaLookup::Meta(found) if found.format != FORMAT => {
                let log = name.to_owned();
                return Err(AcquireError::UnknownVersion { log, found: found.format, known: FORMAT });
            }
            MetaLookup::Meta(found) => shared.replace_known(found.known),
            MetaLookup::Else(detail) => {
                let place = format!("{} {}", link.endpoint.place(), shared.meta);
                return Err(AcquireError::Corrupt { log: name.to_owned(), place, detail });
            }
        }
        let shared = Arc::new(shared);
        let appender = Appender::new(Arc::clone(&shared), &link, promise, options, host);
        Ok(Self {
            reader: Reader::new(Arc::clone(&shared), link),
            appender: tokio::sync::Mutex::new(appender),
            shared,
            _watch: watch,
        })
    }

    /// Whether a writer has made it, as far as the last look told.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.shared.last_known().log.is_some()
    }

    /// Why acquiring it would be refused: the server has less than is known of it, or nobody can tell. Nothing is
    /// changed.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: it cannot be looked at.
    pub async fn find_doubt(&self) -> Result<Option<AcquireError>, AcquireError> {
        self.appender.lock().await.look_for_doubt().await
    }
}

#[async_trait]
impl Log for RedisLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        self.appender.lock().await.acquire_log().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        self.appender.lock().await.append_batch(epoch, batch).await
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        self.appender.lock().await.prove_room(epoch, size).await
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        self.reader.read_batch(from, limit).await
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
        self.shared.last_known().stat
    }

    fn identity(&self) -> Option<LogIdentity> {
        self.shared.last_known().log.map(|id| LogIdentity(id.0))
    }
}
