//! One Redis server in use: examined at the start and watched from then on.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::log::AcquireError;
use orchestrator_kernel::ports::marks::{MarkError, MarkStore};
use tokio::sync::{Mutex, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::appender::Host;
use super::checkpoints::RedisCheckpoints;
use super::connect::{Endpoint, RedisLink, UrlError};
use super::is_plain_name;
use super::log::{RedisLog, RedisLogOptions, RedisLogParts, Watch};
use super::preflight::Durability;
use super::promise::{Promise, watch_server as watch_promise};
use super::replay::ReplayedCommands;
use super::second_mark::SecondMark;
use super::writer::{ClaimError, NamespaceWriter, WriterClaim};

/// Settings of the storage in Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS. A secret: it is in no text.
    ///
    /// TLS needs a rustls crypto provider that the process has installed.
    pub url: String,
    /// Sets these keys apart from everybody else's: 1 to 128 letters, digits, `_` and `-`.
    pub namespace: String,
    /// What the server must at least do.
    pub durability: Durability,
    /// Directory on this host for the high-water marks; created when it is not there.
    pub state_dir: PathBuf,
    /// Longest time for an answer to a small command; large batches get more. An answer that takes longer is unknown.
    pub response_timeout: Duration,
    /// Longest time to connect and log in.
    pub connect_timeout: Duration,
    /// Time between two looks at what the server keeps. Every new connection for appends looks as well.
    pub check_interval: Duration,
    /// How long a writer's claim outlives it. Renewed three times in that time.
    pub writer_ttl: Duration,
    /// Identity of the installation, the same after a restart; in every acquisition, so that a host knows its own.
    pub instance: String,
    /// Where the second mark is; without one a host takes over no log that another one wrote last.
    pub marks: Option<SecondMarkOptions>,
    /// Take logs as the server has them, whatever is known of them: the operator's word, for one start.
    pub trust_server: bool,
    /// Whether a trading plane keeps its journal there too.
    pub is_trading: bool,
}

/// The second mark of the logs.
#[derive(Clone)]
pub struct SecondMarkOptions {
    /// Its place.
    pub store: Arc<dyn MarkStore>,
    /// How long what was acknowledged may wait to be noted before appends are refused; `None`: as long as it takes.
    pub max_age: Option<Duration>,
}

impl RedisOptions {
    /// `always` durable, answers within a second, a look every 30 seconds, claims of 10 seconds, no second mark.
    #[must_use]
    pub fn new(url: &str, namespace: &str, state_dir: PathBuf) -> Self {
        Self {
            url: url.to_owned(),
            namespace: namespace.to_owned(),
            durability: Durability::Always,
            state_dir,
            response_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            check_interval: Duration::from_secs(30),
            writer_ttl: Duration::from_secs(10),
            instance: String::new(),
            marks: None,
            trust_server: false,
            is_trading: false,
        }
    }
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Reason for which Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    /// The URL has no meaning.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// An option out of its range.
    #[error("redis: {problem}")]
    Options {
        /// Which and why.
        problem: &'static str,
    },
    /// No answer, or no login. It may answer later.
    #[error("cannot use redis; check its address, that it runs, and the login")]
    Unreachable(#[source] io::Error),
    /// It answers, but does not keep what was promised.
    #[error("redis at {place} does not keep the promised durability `{}`:{}", durability.config_word(), finding_lines(findings))]
    Promise {
        /// Which server.
        place: String,
        /// What was promised.
        durability: Durability,
        /// Everything that is wrong; each says what to set.
        findings: Vec<String>,
    },
    /// What stands in the place of the second mark is none. It is never taken for no mark.
    #[error(
        "the second mark cannot be read; move what is there away, which then needs a start by `run --trust-server` \
         unless this host wrote last"
    )]
    SecondMark(#[source] MarkError),
}

fn finding_lines(findings: &[String]) -> String {
    findings.iter().map(|finding| format!("\n  - {finding}")).collect()
}

fn check_options(options: &RedisOptions) -> Result<(), RedisOpenError> {
    if !is_plain_name(&options.namespace) {
        let problem = "the namespace must have 1 to 128 letters, digits, '_' and '-'";
        return Err(RedisOpenError::Options { problem });
    }
    let RedisOptions { response_timeout, connect_timeout, check_interval, writer_ttl, .. } = options;
    if [response_timeout, connect_timeout, check_interval, writer_ttl].iter().any(|time| time.is_zero()) {
        return Err(RedisOpenError::Options { problem: "all times must be more than zero" });
    }
    Ok(())
}

/// The second mark, asked for what it knows.
async fn second_mark(options: SecondMarkOptions) -> Result<Arc<SecondMark>, RedisOpenError> {
    let mark = SecondMark::new(options.store, options.max_age);
    mark.load_marks().await.map_err(RedisOpenError::SecondMark)?;
    Ok(Arc::new(mark))
}

/// One Redis server, and one namespace on it.
///
/// Logs and checkpoints go on when this handle is dropped; only the writer's claim ends then.
pub struct RedisStore {
    options: RedisOptions,
    endpoint: Endpoint,
    promise: Arc<Promise>,
    second_mark: Option<Arc<SecondMark>>,
    /// Nobody watches for a process that only reads: what the server promises does not matter to it.
    watch: Option<Arc<Watch>>,
    writer: Mutex<Option<NamespaceWriter>>,
}

impl RedisStore {
    /// Connects, examines the server, and goes on doing so every [`check_interval`](RedisOptions::check_interval):
    /// as long as it breaks its promise, appends are refused as
    /// [`Full`](orchestrator_kernel::ports::log::AppendError::Full).
    ///
    /// Scarce memory does not refuse the start, because trimming is what mends it.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`]; a broken promise names everything that is wrong at once.
    pub async fn connect(options: RedisOptions) -> Result<Self, RedisOpenError> {
        Self::open(options, true).await
    }

    /// As [`connect`](Self::connect), for a process that only reads: it does not matter what the server promises.
    ///
    /// # Errors
    ///
    /// [`RedisOpenError`], without a broken promise.
    pub async fn connect_to_read(options: RedisOptions) -> Result<Self, RedisOpenError> {
        Self::open(options, false).await
    }

    async fn open(options: RedisOptions, for_writing: bool) -> Result<Self, RedisOpenError> {
        check_options(&options)?;
        let endpoint = Endpoint::parse(&options.url, options.connect_timeout)?;
        let written = ReplayedCommands::of_store(&options.namespace, options.is_trading);
        let promise = Promise::new(endpoint.clone(), options.durability, written, options.response_timeout);
        let promise = Arc::new(promise);
        let mut connection = endpoint.open_connection(None).await.map_err(RedisOpenError::Unreachable)?;
        if for_writing {
            let findings = promise.ask_server(&mut connection).await.map_err(RedisOpenError::Unreachable)?;
            if !findings.broken.is_empty() {
                return Err(RedisOpenError::Promise {
                    place: endpoint.place().to_owned(),
                    durability: options.durability,
                    findings: findings.broken.into_iter().chain(findings.short).collect(),
                });
            }
            for advice in &findings.advice {
                warn!(redis = endpoint.place(), advice, "redis could serve better");
            }
            let durability = options.durability.config_word();
            info!(redis = endpoint.place(), namespace = options.namespace, durability, "redis is in use");
        }
        let second_mark = match options.marks.clone().filter(|_| for_writing) {
            Some(marks) => Some(second_mark(marks).await?),
            None => None,
        };
        let watch = for_writing.then(|| {
            let spawned = |work| AbortOnDropHandle::new(work);
            let watch = tokio::spawn(watch_promise(Arc::clone(&promise), options.check_interval));
            let keep = second_mark.clone().map(|mark| spawned(tokio::spawn(mark.keep_noting())));
            Arc::new(Watch { _promise: spawned(watch), _second_mark: keep })
        });
        Ok(Self { options, endpoint, promise, second_mark, watch, writer: Mutex::new(None) })
    }

    /// Opens the log `name` without taking it over; nothing is created before [`acquire`].
    ///
    /// [`acquire`]: orchestrator_kernel::ports::log::Log::acquire
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: not readable, or of a newer version.
    pub async fn open_log(&self, name: &str, options: RedisLogOptions) -> Result<RedisLog, AcquireError> {
        let RedisOptions { namespace, state_dir, response_timeout, .. } = &self.options;
        if !is_plain_name(name) {
            let text = "a log's name must have 1 to 128 letters, digits, '_' and '-'";
            let source = io::Error::new(io::ErrorKind::InvalidInput, text);
            return Err(AcquireError::Io { log: name.to_owned(), source });
        }
        let host = Host {
            instance: self.options.instance.clone(),
            mark_path: state_dir.join(format!("{namespace}.{name}.mark")),
            second: self.second_mark.clone(),
            trust_server: self.options.trust_server,
        };
        let link = RedisLink::new(self.endpoint.clone(), *response_timeout);
        let (promise, watch) = (Arc::clone(&self.promise), self.watch.clone());
        RedisLog::open(name, namespace, RedisLogParts { options, host, link, promise, watch }).await
    }

    /// The checkpoints of this namespace.
    #[must_use]
    pub fn checkpoints(&self) -> RedisCheckpoints {
        let link = RedisLink::new(self.endpoint.clone(), self.options.response_timeout);
        RedisCheckpoints::new(Arc::new(link), self.options.namespace.clone())
    }

    /// Claims the writer's place in this namespace, and keeps it until this handle is dropped or
    /// [`release_writer`](Self::release_writer)d. Claim before acquiring a log: it protects a running instance from
    /// being fenced off by mistake.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Held`] when another instance writes and no takeover is asked for.
    pub async fn claim_writer(&self, claim: &WriterClaim) -> Result<(), ClaimError> {
        let RedisOptions { namespace, response_timeout, writer_ttl, .. } = &self.options;
        let link = Arc::new(RedisLink::new(self.endpoint.clone(), *response_timeout));
        let claimed = NamespaceWriter::claim_namespace(link, namespace, claim, *writer_ttl).await?;
        *self.writer.lock().await = Some(claimed);
        Ok(())
    }

    /// Why the second mark lags behind what is acknowledged, while it does; nothing where none is kept.
    #[must_use]
    pub fn second_mark_trouble(&self) -> Option<watch::Receiver<Option<String>>> {
        self.second_mark.as_ref().map(|mark| mark.watch_trouble())
    }

    /// Gives the writer's place up, so that another instance can start at once. Without a claim it does nothing. What
    /// was acknowledged last is noted before.
    ///
    /// # Errors
    ///
    /// Redis did not answer; then the claim ends by itself.
    pub async fn release_writer(&self) -> io::Result<()> {
        if let Some(mark) = &self.second_mark {
            mark.note_waiting().await;
        }
        match self.writer.lock().await.take() {
            Some(writer) => writer.release_claim().await,
            None => Ok(()),
        }
    }

    /// What was promised, for status.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.promise.durability()
    }

    /// Why nothing is appended now, or nothing: the server breaks its promise, or has hardly any memory left.
    #[must_use]
    pub fn append_refusal(&self) -> Option<String> {
        self.promise.append_refusal()
    }

    /// Scheme, host, port and database, for messages; without the password.
    #[must_use]
    pub fn place(&self) -> &str {
        self.endpoint.place()
    }
}
