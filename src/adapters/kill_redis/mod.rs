//! The kill switch in Redis: one key that is read, watched, and changed by scripts.
//!
//! ```text
//! commands    connection 1: GETRANGE key (at most 64 KiB)      every poll; no answer in time is no answer
//! subscriber  connection 2: __keyspace@DB__:KEY                "something happened to the key": read it now
//! ```
//!
//! A notification carries nothing that is believed: only a read does. The client is never used with its defaults, which
//! have no timeout, no reconnection and send a command again when its connection dies (RELIABILITY F8).

mod connection;
mod scripts;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::clients::{Client, SubscriberClient};
use fred::interfaces::{ClientLike, KeysInterface, ListInterface, LuaInterface};
use fred::types::Value;
use fred::types::config::Options;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{
    Change, Command, HISTORY_MAX, ReadError, Stored, VALUE_BYTES_MAX, decide,
};
use orchestrator_kernel::ports::kill_switch::{ApplyError, KillSwitchRead, KillSwitchStore};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use connection::{Trouble, is_reply, said};
use scripts::{Expected, INSPECT, WRITE};

/// Where the key is and how long to wait for it.
#[derive(Clone, PartialEq, Eq)]
pub struct KillRedisOptions {
    /// `redis://` or `rediss://` with credentials, host, port and database. Never shown.
    pub url: String,
    /// The key with the value.
    pub key: String,
    /// The list with the history.
    pub history_key: String,
    /// How long one read may take.
    pub read_timeout: Duration,
    /// How long an operator's command may take, connecting included.
    pub command_timeout: Duration,
}

impl fmt::Debug for KillRedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KillRedisOptions({}, {})", self.key, self.history_key)
    }
}

/// The URL cannot be used. It is not quoted: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("the URL of the kill switch's Redis cannot be used: {0}")]
pub struct BadUrl(String);

/// A kill switch in Redis.
pub struct KillRedis {
    shared: Arc<Shared>,
    options: KillRedisOptions,
    place: String,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What the tasks and the calls share.
struct Shared {
    client: Client,
    subscriber: SubscriberClient,
    /// What the subscriber listens to.
    channel: String,
    news: Notify,
    trouble: Trouble,
}

/// How often a command looks again when somebody else changed the value between its look and its write.
const ATTEMPTS_MAX: u32 = 16;
/// How often a command looks whether there is a connection.
const CONNECTED_PAUSE: Duration = Duration::from_millis(5);

impl KillRedis {
    /// Connects in the background and goes on trying for ever; until then, reads bring no answer.
    ///
    /// # Errors
    ///
    /// [`BadUrl`]. A server that is not reached is no error here.
    pub fn start(options: KillRedisOptions) -> Result<Self, BadUrl> {
        let config = connection::config(&options.url).map_err(|error| BadUrl(said(&error)))?;
        let database = config.database.unwrap_or(0);
        let hosts: Vec<String> = config.server.hosts().iter().map(ToString::to_string).collect();
        let (client, subscriber) = connection::clients(config, options.read_timeout);
        let shared = Arc::new(Shared {
            client,
            subscriber,
            channel: format!("__keyspace@{database}__:{}", options.key),
            news: Notify::new(),
            trouble: Trouble::default(),
        });
        Ok(Self {
            place: format!("key {} of Redis {}, database {database}", options.key, hosts.join(", ")),
            _tasks: watch::start(&shared),
            shared,
            options,
        })
    }

    /// Waits for a connection, as long as a command may take; says whether there is one.
    pub async fn connected(&self) -> bool {
        let deadline = Instant::now() + self.options.command_timeout;
        while !self.shared.client.is_connected() {
            if deadline < Instant::now() {
                return false;
            }
            sleep(CONNECTED_PAUSE).await;
        }
        true
    }

    fn read_options(&self) -> Options {
        Options {
            max_attempts: Some(1),
            timeout: Some(self.options.read_timeout),
            // Without a connection a read fails now instead of waiting in a queue.
            fail_fast: true,
            ..Options::default()
        }
    }

    /// Sends `command` within the time of an operator's command.
    async fn operate<T>(
        &self,
        command: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<T, ReadError> {
        match timeout(self.options.command_timeout, command).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_reply(&error) => Err(ReadError::Refused(said(&error))),
            Ok(Err(error)) => Err(ReadError::NoAnswer(self.shared.trouble.of(&error))),
            Err(_) => Err(ReadError::NoAnswer(format!("none within {:?}", self.options.command_timeout))),
        }
    }

    async fn inspect(&self) -> Result<Expected, ReadError> {
        if !self.connected().await {
            return Err(ReadError::NoAnswer(self.shared.trouble.last()));
        }
        let keys = vec![self.options.key.as_str()];
        let found = self.shared.client.eval(INSPECT, keys, VALUE_BYTES_MAX as i64);
        let found: Vec<Value> = self.operate(found).await?;
        Expected::of(&found).ok_or_else(|| ReadError::Refused("an answer that makes no sense".to_owned()))
    }

    /// Writes if the value still is what was expected; says whether it was.
    async fn write(&self, expected: &Expected, change: &Change, blocks: bool) -> Result<bool, ReadError> {
        let keys = vec![self.options.key.as_str(), self.options.history_key.as_str()];
        let order = if blocks { "value" } else { "history" };
        let args: Vec<Value> = vec![
            expected.kind().into(),
            Value::Bytes(expected.value()),
            change.value.as_str().into(),
            change.entry.as_str().into(),
            (HISTORY_MAX as i64).into(),
            (VALUE_BYTES_MAX as i64).into(),
            order.into(),
        ];
        let written: Vec<Value> = self.operate(self.shared.client.eval(WRITE, keys, args)).await?;
        if let Some(Value::String(why)) = written.get(1) {
            tracing::error!(
                error_detail = %why, entry = change.entry,
                "the kill switch is engaged, but its history could not be written"
            );
        }
        Ok(written.first() == Some(&Value::Integer(1)))
    }
}

#[async_trait]
impl KillSwitchRead for KillRedis {
    fn place(&self) -> String {
        self.place.clone()
    }

    async fn read(&self) -> Result<Stored, ReadError> {
        let Shared { client, trouble, .. } = &*self.shared;
        trouble.reconnect_if_silent(client);
        let client = client.with_options(&self.read_options());
        // One byte more than counts: that is how a value is seen to be too long, without being read.
        match client.getrange::<Value, _>(self.options.key.as_str(), 0, VALUE_BYTES_MAX).await {
            Ok(value) => {
                trouble.answered();
                Ok(stored(value))
            }
            Err(error) if is_reply(&error) => {
                trouble.answered();
                if error.details().starts_with("WRONGTYPE") {
                    return Ok(Stored::NotText);
                }
                Err(ReadError::Refused(said(&error)))
            }
            Err(error) => Err(ReadError::NoAnswer(trouble.of(&error))),
        }
    }

    async fn changed(&self) {
        self.shared.news.notified().await;
    }
}

fn stored(value: Value) -> Stored {
    match value.into_bytes() {
        Some(bytes) if bytes.len() > VALUE_BYTES_MAX => Stored::TooLong,
        Some(bytes) if !bytes.is_empty() => Stored::Value(bytes),
        Some(_) | None => Stored::Missing,
    }
}

#[async_trait]
impl KillSwitchStore for KillRedis {
    async fn apply(&self, command: &Command, now: TsMs) -> Result<Change, ApplyError> {
        for attempt in 1..=ATTEMPTS_MAX {
            let found = self.inspect().await.map_err(|error| ApplyError::Unchanged(error.to_string()))?;
            let change = decide(&found.stored(), command, now)?;
            // A stop is not put off for ever by others who keep writing.
            let last = attempt == ATTEMPTS_MAX && command.blocks();
            let expected = if last { &Expected::Anything } else { &found };
            match self.write(expected, &change, command.blocks()).await {
                Ok(true) => return Ok(change),
                Ok(false) => {}
                Err(ReadError::Refused(why)) => return Err(ApplyError::Unchanged(why)),
                Err(ReadError::NoAnswer(why)) => return Err(ApplyError::Unknown(why)),
            }
        }
        Err(ApplyError::Unchanged(format!("others changed it {ATTEMPTS_MAX} times meanwhile; try again")))
    }

    async fn history(&self, count: usize) -> Result<Vec<String>, ReadError> {
        if !self.connected().await {
            return Err(ReadError::NoAnswer(self.shared.trouble.last()));
        }
        let first = -i64::try_from(count.clamp(1, HISTORY_MAX)).unwrap_or(1);
        let lines = self.shared.client.lrange::<Vec<Value>, _>(self.options.history_key.as_str(), first, -1);
        let lines = self.operate(lines).await?.into_iter();
        let texts =
            lines.filter_map(Value::into_bytes).map(|line| String::from_utf8_lossy(&line).into_owned());
        Ok(texts.take(count).collect())
    }
}
