//! The writing side of a log: one connection, one command on it at a time, and the mark behind each answer.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, LogStat, RecordBatch, TrimError,
};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind};
use tokio::time::Instant;
use tracing::{error, warn};

use super::connect::{Endpoint, RedisLink, timeout_for};
use super::entry::{self, HEADER_BYTES, Header, LogId};
use super::fault::RedisFault;
use super::high_water::{HighWater, Mark};
use super::log::{FORMAT, LastKnown, MetaLookup, RedisLogOptions, RedisLogState};
use super::promise::Promise;
use super::scripts::{ACQUIRE, APPEND, PROVE_ROOM, TRIM};
use super::second_mark::SecondMark;
use super::witnesses::{Doubt, SecondSays, ServerSays, Witnesses, token_of};

/// Redis takes at most 512 MiB in one argument, and keeps all of a batch in memory more than once.
const BATCH_BYTES_MAX: usize = 256 << 20;
/// What a record adds to a command beside its payload: header, lengths.
const RECORD_OVERHEAD: usize = HEADER_BYTES + 16;

/// A step of trimming ends after so many entries or bytes: some milliseconds of the server's time.
const TRIM_ENTRIES: u64 = 500;
const TRIM_BYTES: u64 = 4 << 20;

/// A connection that was not used for so long is asked first whether its server is still there.
const IDLE_MAX: Duration = Duration::from_millis(500);

/// The one writer of a log.
pub(super) struct Appender {
    shared: Arc<RedisLogState>,
    endpoint: Endpoint,
    promise: Arc<Promise>,
    timeout: Duration,
    options: RedisLogOptions,
    host: Host,
    connection: Option<MultiplexedConnection>,
    /// When the connection was used last.
    used: Instant,
    tenure: Option<Tenure>,
    /// Room for one entry, used again for each.
    entry: Vec<u8>,
}

/// Identity of a log's writer, and its knowledge of the log besides what the server says.
pub(super) struct Host {
    /// Identity of the installation.
    pub(super) instance: String,
    /// The file with this host's high-water mark of the log.
    pub(super) mark_path: PathBuf,
    pub(super) second: Option<Arc<SecondMark>>,
    /// The operator takes the server at its word.
    pub(super) trust_server: bool,
}

/// Epoch, token and mark that this writer got when it acquired the log.
struct Tenure {
    log: LogId,
    epoch: Epoch,
    /// Told apart from a writer that was given the same epoch by a server that had forgotten this one.
    token: String,
    mark: HighWater,
}

/// The answer of the script `acquire.lua`.
type AcquireAnswer = (String, u64, u64, u64, String, u64, Vec<u8>);
/// The answer of the scripts `append.lua` and `prove_room.lua`, each behind `fence.lua`.
type AppendAnswer = (String, u64, u64, u64, u64, u64);
/// The answer of the script `trim.lua`, behind `fence.lua`.
type TrimAnswer = (String, u64, u64, u64, u64, u64);

impl Appender {
    pub(super) fn new(
        shared: Arc<RedisLogState>,
        link: &RedisLink,
        promise: Arc<Promise>,
        options: RedisLogOptions,
        host: Host,
    ) -> Self {
        let (endpoint, timeout) = (link.endpoint.clone(), link.timeout());
        let (connection, used, tenure, entry) = (None, Instant::now(), None, Vec::new());
        Self { shared, endpoint, promise, timeout, options, host, connection, used, tenure, entry }
    }

    pub(super) async fn acquire_log(&mut self) -> Result<Acquired, AcquireError> {
        let log = self.shared.name.clone();
        let failed = |source| AcquireError::Io { log: log.clone(), source };
        // The old connection may have died with its server meanwhile, which only a command would find out.
        self.connection = None;
        let (local, witnesses) = self.gather_witnesses().await?;
        let server = self.ask_server().await?;
        let is_trusted = self.host.trust_server;
        let binding = match witnesses.judge_server(&server) {
            Ok(binding) => binding.filter(|_| !is_trusted),
            Err(doubt) if is_trusted => {
                let (redis, doubt) = (self.endpoint.place(), doubt.doubt_text());
                warn!(log, redis, doubt, "the operator has taken the server at its word (--trust-server)");
                None
            }
            Err(doubt) => return Err(self.doubt_error(doubt)),
        };
        let token = token_of(&self.host.instance, random_u64());
        let floor = witnesses.highest_epoch();
        let answer = self.take_over(&token, binding, floor).await.map_err(|fault| failed(fault.into_io()))?;
        let (word, tail, start, bytes, log_id, epoch, header) = answer;
        let found = LogId::from_hex(&log_id);
        let claimed = ServerSays { log: found, tail: Seq(tail), ..server };
        match (word.as_str(), binding) {
            ("OK", _) => {}
            ("VERSION", _) => {
                let found = u32::try_from(epoch).unwrap_or(u32::MAX);
                return Err(AcquireError::UnknownVersion { log, found, known: FORMAT });
            }
            ("DAMAGED", _) => {
                let entries = String::from_utf8_lossy(&header).into_owned();
                let detail = format!("it has {entries} entries, its meta key says {start} to {tail}");
                return Err(self.corrupt_error(self.stream_place(), detail));
            }
            ("DIFFERS", Some(mark)) => {
                return Err(self.corrupt_error(self.stream_place(), witnesses.differs_text(&mark, &claimed)));
            }
            // It changed since it was judged.
            (word, _) => {
                let doubt = witnesses.judge_server(&claimed).err();
                let detail = doubt
                    .map_or_else(|| format!("LOG_REGRESSED: {word}"), |doubt| doubt.doubt_text().to_owned());
                return Err(self.corrupt_error(self.stream_place(), detail));
            }
        }
        let Some(id) = found else {
            return Err(self.corrupt_error(self.stream_place(), format!("its log id is {log_id:?}")));
        };
        let stat = LogStat { start: Seq(start), tail: Seq(tail), bytes };
        let mark = Mark { log: id, seq: stat.tail, header: Header::try_from(header.as_slice()).ok() };
        let local = note_durably(local, mark, is_trusted).await.map_err(failed)?;
        if let Some(second) = &self.host.second {
            second.announce_writer(&log, Epoch(epoch), mark).await;
        }
        self.shared.replace_known(LastKnown { log: Some(id), stat });
        self.tenure = Some(Tenure { log: id, epoch: Epoch(epoch), token, mark: local });
        Ok(Acquired { epoch: Epoch(epoch), tail: stat.tail })
    }

    /// Why the log would not be acquired as it is now. Nothing is changed.
    pub(super) async fn look_for_doubt(&mut self) -> Result<Option<AcquireError>, AcquireError> {
        if self.host.trust_server {
            return Ok(None);
        }
        let (_, witnesses) = self.gather_witnesses().await?;
        let server = self.ask_server().await?;
        Ok(witnesses.judge_server(&server).err().map(|doubt| self.doubt_error(doubt)))
    }

    /// This host's file, and what is known of the log without the server.
    async fn gather_witnesses(&self) -> Result<(HighWater, Witnesses), AcquireError> {
        let path = self.host.mark_path.clone();
        let local = match off_runtime(move || HighWater::open(&path)).await {
            Ok(local) => local,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.corrupt_error(self.host.mark_path.display().to_string(), error.to_string()));
            }
            Err(source) => return Err(AcquireError::Io { log: self.shared.name.clone(), source }),
        };
        let second = self.host.second.as_ref();
        let witnesses = Witnesses {
            instance: self.host.instance.clone(),
            local: local.last_mark(),
            local_path: local.path().to_owned(),
            second: second.map_or(SecondSays::NotKept, |second| second.says_of_log(&self.shared.name)),
            second_place: second.map(|second| second.store_place()).unwrap_or_default(),
        };
        Ok((local, witnesses))
    }

    /// What the server says of the log now.
    async fn ask_server(&mut self) -> Result<ServerSays, AcquireError> {
        let log = self.shared.name.clone();
        let failed = |source| AcquireError::Io { log: log.clone(), source };
        let connection = self.checked_connection().await.map_err(failed)?.clone();
        let (endpoint, timeout) = (self.endpoint.clone(), self.timeout);
        let looked = endpoint.run_in_time(timeout, self.shared.look_up_meta(connection)).await;
        match self.drop_if_doubtful(looked).map_err(|fault| failed(fault.into_io()))? {
            MetaLookup::Nothing => Ok(ServerSays::default()),
            MetaLookup::Meta(found) if found.format != FORMAT => {
                Err(AcquireError::UnknownVersion { log, found: found.format, known: FORMAT })
            }
            MetaLookup::Meta(found) => Ok(ServerSays {
                log: found.known.log,
                tail: found.known.stat.tail,
                epoch: found.epoch,
                writer: found.writer,
            }),
            MetaLookup::Else(detail) => Err(self.corrupt_error(self.stream_place(), detail)),
        }
    }

    async fn take_over(
        &mut self,
        token: &str,
        mark: Option<Mark>,
        floor: Epoch,
    ) -> Result<AcquireAnswer, RedisFault> {
        let (log, seq, header) = match mark {
            Some(mark) => {
                (mark.log.to_string(), mark.seq.0, mark.header.map_or(Vec::new(), |header| header.to_vec()))
            }
            None => (String::new(), 0, Vec::new()),
        };
        let mut invocation = ACQUIRE.key(&self.shared.stream);
        invocation.key(&self.shared.meta);
        invocation.arg(FORMAT).arg(LogId(random_u64()).to_string()).arg(token).arg(log).arg(seq).arg(header);
        invocation.arg(floor.0);
        let connection = self.checked_connection().await.map_err(RedisFault::Unknown)?;
        let mut connection = connection.clone();
        let answer = self.endpoint.run_in_time(self.timeout, invocation.invoke_async(&mut connection)).await;
        self.drop_if_doubtful(answer)
    }

    fn stream_place(&self) -> String {
        format!("{} {}", self.endpoint.place(), self.shared.stream)
    }

    fn doubt_error(&self, doubt: Doubt) -> AcquireError {
        match doubt {
            Doubt::Regressed(detail) | Doubt::Unknown(detail) => {
                self.corrupt_error(self.stream_place(), detail)
            }
            Doubt::Away(detail) => AcquireError::Io {
                log: self.shared.name.clone(),
                source: io::Error::new(io::ErrorKind::NotConnected, detail),
            },
        }
    }

    fn corrupt_error(&self, place: String, detail: String) -> AcquireError {
        AcquireError::Corrupt { log: self.shared.name.clone(), place, detail }
    }

    pub(super) async fn append_batch(
        &mut self,
        epoch: Epoch,
        batch: &RecordBatch,
    ) -> Result<(), AppendError> {
        let unknown = |source| AppendError::Unknown { source };
        self.check_second_mark(epoch)?;
        self.checked_connection().await.map_err(unknown)?;
        if !batch.is_empty() {
            self.check_promise().await?;
            self.check_room(BatchSize::of_batch(batch), batch.last_seq())?;
        }
        let (command, header) = self.append_command(epoch, batch)?;
        let connection = self.checked_connection().await.map_err(unknown)?.clone();
        let limit = timeout_for(self.timeout, batch.payload_bytes());
        let answer = self.endpoint.run_in_time(limit, send_append(connection, &command)).await;
        let (word, tail, start, bytes, current, at) = match self.drop_if_doubtful(answer) {
            Ok(answer) => answer,
            Err(RedisFault::Full(detail)) => return Err(AppendError::Full { detail }),
            Err(RedisFault::Unknown(source)) => return Err(AppendError::Unknown { source }),
        };
        let (first, tail) = (batch.first_seq(), Seq(tail));
        match word.as_str() {
            "OK" | "DUP" => {
                if let (Some(tenure), Some(header)) = (&mut self.tenure, header) {
                    let mark = Mark { log: tenure.log, seq: batch.last_seq(), header: Some(header) };
                    tenure.mark.note_mark(mark).map_err(|error| mark_failed(&tenure.mark, &error))?;
                    if let Some(second) = &self.host.second {
                        second.learn_mark(&self.shared.name, tenure.epoch, mark);
                    }
                }
                self.shared.learn_stat(LogStat { start: Seq(start), tail, bytes });
                // A probe says whether records would be taken, and is fenced or finds a loss even while they are not.
                if batch.is_empty() { self.check_promise().await } else { Ok(()) }
            }
            "FENCED" => Err(AppendError::Fenced { mine: epoch, current: Epoch(current) }),
            "CONFLICT" => Err(AppendError::Conflict { at: Seq(at) }),
            "GAP" => Err(AppendError::Gap { first, tail }),
            _ => Err(self.regressed_error(first, tail)),
        }
    }

    /// Whether a batch of `size` would be taken: by our own limit, by what the server promises, and by a write.
    pub(super) async fn prove_room(&mut self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        let unknown = |source| AppendError::Unknown { source };
        self.checked_connection().await.map_err(unknown)?;
        self.check_promise().await?;
        self.check_room(size, Seq(u64::MAX))?;
        let Some(tenure) = &self.tenure else {
            // Whoever has this epoch is another handle.
            return Err(AppendError::Fenced { mine: epoch, current: epoch });
        };
        let mut invocation = PROVE_ROOM.key(&self.shared.stream);
        invocation.key(&self.shared.meta).arg(epoch.0).arg(&tenure.token).arg(tenure.log.to_string());
        let mut connection = self.checked_connection().await.map_err(unknown)?.clone();
        let answer = self.endpoint.run_in_time(self.timeout, invocation.invoke_async(&mut connection)).await;
        let (word, tail, start, bytes, current, _): AppendAnswer = match self.drop_if_doubtful(answer) {
            Ok(answer) => answer,
            Err(RedisFault::Full(detail)) => return Err(AppendError::Full { detail }),
            Err(RedisFault::Unknown(source)) => return Err(AppendError::Unknown { source }),
        };
        match word.as_str() {
            "OK" => {
                self.shared.learn_stat(LogStat { start: Seq(start), tail: Seq(tail), bytes });
                Ok(())
            }
            "FENCED" => Err(AppendError::Fenced { mine: epoch, current: Epoch(current) }),
            _ => Err(self.regressed_error(self.shared.last_known().stat.tail, Seq(tail))),
        }
    }

    fn regressed_error(&self, first: Seq, tail: Seq) -> AppendError {
        error!(
            log = self.shared.name, redis = self.endpoint.place(), %first, %tail,
            "LOG_REGRESSED: redis no longer holds the log that was taken over"
        );
        AppendError::Gap { first, tail }
    }

    /// Removes some of the entries below `below`; says what the log starts with now, and whether there is more to do.
    pub(super) async fn trim_step(&mut self, epoch: Epoch, below: Seq) -> Result<(Seq, bool), TrimError> {
        let Some(tenure) = &self.tenure else {
            // Whoever has this epoch is another handle.
            return Err(TrimError::Fenced { mine: epoch, current: epoch });
        };
        let mut invocation = TRIM.key(&self.shared.stream);
        invocation.key(&self.shared.meta);
        invocation.arg(epoch.0).arg(&tenure.token).arg(tenure.log.to_string());
        invocation.arg(below.0).arg(TRIM_ENTRIES).arg(TRIM_BYTES);
        let mut connection = self.checked_connection().await?.clone();
        // It may have to look at one entry of any size.
        let limit = timeout_for(self.timeout, BATCH_BYTES_MAX / 4);
        let answer = self.endpoint.run_in_time(limit, invocation.invoke_async(&mut connection)).await;
        let (word, tail, start, bytes, current, more): TrimAnswer =
            self.drop_if_doubtful(answer).map_err(RedisFault::into_io)?;
        match word.as_str() {
            "OK" => {
                self.shared.learn_stat(LogStat { start: Seq(start), tail: Seq(tail), bytes });
                Ok((Seq(start), more == 1))
            }
            "FENCED" => Err(TrimError::Fenced { mine: epoch, current: Epoch(current) }),
            _ => {
                let text =
                    format!("redis at {} no longer holds the log that was taken over", self.endpoint.place());
                Err(io::Error::other(text).into())
            }
        }
    }

    /// Whether another host has taken over, which a server that was cut off from it cannot know, and whether what was
    /// acknowledged is noted soon enough.
    fn check_second_mark(&self, epoch: Epoch) -> Result<(), AppendError> {
        let Some(second) = &self.host.second else { return Ok(()) };
        if let Some(current) = second.successor_epoch(&self.shared.name, epoch) {
            return Err(AppendError::Fenced { mine: epoch, current });
        }
        second.append_refusal().map_or(Ok(()), |detail| Err(AppendError::Full { detail }))
    }

    /// Whether the server keeps what an acknowledgement promises. A broken promise is asked for again at every try, so
    /// that appends go on as soon as it is mended.
    async fn check_promise(&mut self) -> Result<(), AppendError> {
        if self.promise.append_refusal().is_none() {
            return Ok(());
        }
        let promise = Arc::clone(&self.promise);
        let asked = match self.checked_connection().await {
            Ok(connection) => promise.ask_server(connection).await,
            Err(error) => Err(error),
        };
        match asked.map(|findings| findings.append_refusal()) {
            Ok(None) => Ok(()),
            Ok(Some(detail)) => {
                Err(AppendError::Full { detail: format!("redis at {}: {detail}", self.endpoint.place()) })
            }
            Err(source) => {
                self.connection = None;
                Err(AppendError::Unknown { source })
            }
        }
    }

    /// Whether there is room for a batch that ends at `last`, as far as it can be told before it is sent.
    fn check_room(&self, size: BatchSize, last: Seq) -> Result<(), AppendError> {
        let stat = self.shared.last_known().stat;
        let needed = size.bytes + size.records * RECORD_OVERHEAD;
        if BATCH_BYTES_MAX < needed {
            let detail = format!("one batch takes {needed} bytes, at most {BATCH_BYTES_MAX} are possible");
            return Err(AppendError::Full { detail });
        }
        let after = stat.bytes + (size.bytes + size.records * HEADER_BYTES) as u64;
        match self.options.capacity_bytes {
            // One that is there already adds nothing.
            Some(limit) if limit < after && stat.tail < last => {
                Err(AppendError::Full { detail: format!("capacity_bytes is {limit}") })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The call of the script, and how the last entry begins.
    fn append_command(
        &mut self,
        epoch: Epoch,
        batch: &RecordBatch,
    ) -> Result<(Cmd, Option<Header>), AppendError> {
        let Some(tenure) = &self.tenure else {
            // Whoever has this epoch is another handle.
            return Err(AppendError::Fenced { mine: epoch, current: epoch });
        };
        let bytes = batch.payload_bytes() + (batch.len() + 16) * RECORD_OVERHEAD;
        let mut command = Cmd::with_capacity(9 + batch.len(), bytes);
        command.arg("EVALSHA").arg(APPEND.get_hash()).arg(2).arg(&self.shared.stream).arg(&self.shared.meta);
        command.arg(epoch.0).arg(&tenure.token).arg(tenure.log.to_string()).arg(batch.first_seq().0);
        let mut header = None;
        for (seq, payload) in batch.iter() {
            header = Some(entry::write_entry(tenure.log, seq, payload, &mut self.entry));
            command.arg(self.entry.as_slice());
        }
        Ok((command, header))
    }

    /// The connection; a new one is asked first what its server keeps, since it may be another server by now.
    async fn checked_connection(&mut self) -> io::Result<&mut MultiplexedConnection> {
        self.drop_what_died_idle().await?;
        if self.connection.is_none() {
            let mut connection = self.endpoint.open_connection(None).await?;
            self.promise.ask_server(&mut connection).await?;
            self.connection = Some(connection);
        }
        self.used = Instant::now();
        self.connection.as_mut().ok_or_else(|| io::Error::other("there is no connection"))
    }

    /// Forgets a connection that was closed while nobody used it. A log that nothing was written to during an outage of
    /// the server would fail at its next batch otherwise, when the outage is long over.
    async fn drop_what_died_idle(&mut self) -> io::Result<()> {
        let Some(connection) = self.connection.as_mut().filter(|_| IDLE_MAX < self.used.elapsed()) else {
            return Ok(());
        };
        let ping = redis::cmd("PING");
        match self.endpoint.run_in_time(self.timeout, ping.query_async::<()>(connection)).await {
            Ok(()) => Ok(()),
            Err(RedisFault::Unknown(error)) if error.kind() == io::ErrorKind::TimedOut => {
                self.connection = None;
                Err(error)
            }
            Err(_) => {
                self.connection = None;
                Ok(())
            }
        }
    }

    /// Drops the connection after an answer that leaves a doubt.
    fn drop_if_doubtful<T>(&mut self, answer: Result<T, RedisFault>) -> Result<T, RedisFault> {
        if matches!(answer, Err(RedisFault::Unknown(_))) {
            self.connection = None;
        }
        answer
    }
}

/// Sends the batch; loads the script first when the server does not know it, which it then said before doing anything.
async fn send_append(mut connection: MultiplexedConnection, command: &Cmd) -> RedisResult<AppendAnswer> {
    match command.query_async(&mut connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            APPEND.load_async(&mut connection).await?;
            command.query_async(&mut connection).await
        }
        answer => answer,
    }
}

/// The batch is in Redis, but must not be acknowledged before this host has noted it: sent again, it is noted then.
fn mark_failed(mark: &HighWater, error: &io::Error) -> AppendError {
    let text = format!("cannot write {}: {error}", mark.path().display());
    AppendError::Unknown { source: io::Error::new(error.kind(), text) }
}

async fn note_durably(mut high_water: HighWater, mark: Mark, is_trusted: bool) -> io::Result<HighWater> {
    off_runtime(move || {
        match is_trusted {
            true => high_water.replace_durably(mark)?,
            false => high_water.note_durably(mark)?,
        }
        Ok(high_water)
    })
    .await
}

async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn random_u64() -> u64 {
    // The standard library's per-process random keys, without another dependency.
    RandomState::new().build_hasher().finish()
}
