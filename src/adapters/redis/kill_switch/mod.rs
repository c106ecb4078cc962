//! The kill switch in Redis: one key that is read, watched, and changed by scripts.
//!
//! ```text
//! commands    connection 1: GETRANGE key (at most 64 KiB)      every poll; no answer in time is no answer
//! subscriber  connection 2: __keyspace@DB__:KEY                "something happened to the key": read it now
//! ```
//!
//! On a Redis Cluster the server that answers names the one that has the key (`route`). What allows needs all of it to
//! be as it should; what stops does not (`stop`).
//!
//! A notification carries nothing that is believed: only a read does. The client is never used with its defaults, which
//! have no timeout, no reconnection and send a command again when its connection dies (RELIABILITY F8).

mod connection;
mod replay;
mod route;
mod scripts;
mod stop;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use fred::clients::Client;
use fred::interfaces::{ListInterface, LuaInterface};
use fred::types::Value;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{
    Applied, HISTORY_MAX, KillSwitchChange, KillSwitchReadError, OperatorCommand, Shortfall, Stored,
    VALUE_BYTES_MAX, decide,
};
use orchestrator_kernel::ports::kill_switch::{ApplyError, KillSwitchRead, KillSwitchStore};
use tokio::time::{Instant, timeout};

use connection::{error_text, is_reply};
use replay::RestartReplay;
use route::{KillSwitchLink, Route, WatchedKeys, is_moved};
use scripts::{Expected, INSPECT, WRITE, write_without_memory};
use stop::with_advice;

/// Settings of a kill switch in Redis: its keys, and how long to wait for them.
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
    route: Route,
    options: KillRedisOptions,
    place: String,
}

/// How often a command looks again when somebody else changed the value between its look and its write.
const ATTEMPTS_MAX: u32 = 16;
/// How often a read or a command goes on to the server that a cluster names.
const HOPS_MAX: u32 = 5;

impl KillRedis {
    /// Connects in the background and goes on trying for ever; until then, reads bring no answer.
    ///
    /// # Errors
    ///
    /// [`BadUrl`]. A server that is not reached is no error here.
    pub fn start(options: KillRedisOptions) -> Result<Self, BadUrl> {
        let config = connection::config_from_url(&options.url).map_err(|error| BadUrl(error_text(&error)))?;
        let database = config.database.unwrap_or(0);
        let hosts: Vec<String> = config.server.hosts().iter().map(ToString::to_string).collect();
        let place = format!("key {} of Redis {}, database {database}", options.key, hosts.join(", "));
        let about = WatchedKeys {
            channel: format!("__keyspace@{database}__:{}", options.key),
            keys: [options.key.clone(), options.history_key.clone()],
        };
        Ok(Self { route: Route::start(config, about, options.read_timeout), place, options })
    }

    /// Waits for a connection to the server that has the key, as long as a command may take; says whether there is one.
    pub async fn wait_connected(&self) -> bool {
        let deadline = Instant::now() + self.options.command_timeout;
        if !self.route.current_link().wait_connected(deadline).await {
            return false;
        }
        // On a cluster another one may have it, and only asking tells.
        self.read_by(deadline).await.is_ok() || self.route.current_link().wait_connected(deadline).await
    }

    /// Reads the value, where a cluster says that it is.
    async fn read_by(&self, deadline: Instant) -> Result<Stored, KillSwitchReadError> {
        for _ in 0..HOPS_MAX {
            let link = self.route.current_link();
            let read = link.read_value(self.options.read_timeout).await;
            match read {
                Err(KillSwitchReadError::Refused(why)) if is_moved(&why) => {
                    // It says nothing about the value: what was read before counts until its lease ends.
                    if !self.route.follow_redirect(&link, &why)
                        || !self.route.current_link().wait_connected(deadline).await
                    {
                        return Err(KillSwitchReadError::NoAnswer(format!(
                            "another server of the cluster has it: {why}"
                        )));
                    }
                }
                Ok(_) | Err(_) => return read,
            }
        }
        Err(KillSwitchReadError::NoAnswer(format!(
            "the cluster named {HOPS_MAX} servers, one after the other"
        )))
    }

    /// Sends a command to the server that has the key, within the time of an operator's command.
    async fn send_to_owner<T, C>(&self, command: impl Fn(Client) -> C) -> Result<T, KillSwitchReadError>
    where
        C: Future<Output = Result<T, fred::error::Error>>,
    {
        let deadline = Instant::now() + self.options.command_timeout;
        for _ in 0..HOPS_MAX {
            let link = self.route.current_link();
            match self.send_over(&link, command(link.client.clone())).await {
                // It was not carried out there.
                Err(KillSwitchReadError::Refused(why))
                    if is_moved(&why) && self.route.follow_redirect(&link, &why) =>
                {
                    if !self.route.current_link().wait_connected(deadline).await {
                        return Err(KillSwitchReadError::Refused(format!("{why}, which is not reached")));
                    }
                }
                answer => return answer,
            }
        }
        Err(KillSwitchReadError::Refused(format!(
            "the cluster named {HOPS_MAX} servers, one after the other"
        )))
    }

    /// Sends a command over this link and nowhere else.
    async fn send_over<T>(
        &self,
        link: &KillSwitchLink,
        command: impl Future<Output = Result<T, fred::error::Error>>,
    ) -> Result<T, KillSwitchReadError> {
        match timeout(self.options.command_timeout, command).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_reply(&error) => Err(KillSwitchReadError::Refused(error_text(&error))),
            Ok(Err(error)) => Err(KillSwitchReadError::NoAnswer(link.trouble.describe_error(&error))),
            Err(_) => {
                Err(KillSwitchReadError::NoAnswer(format!("none within {:?}", self.options.command_timeout)))
            }
        }
    }

    async fn inspect_key(&self) -> Result<Expected, KillSwitchReadError> {
        if !self.wait_connected().await {
            return Err(KillSwitchReadError::NoAnswer(self.route.current_link().trouble.last_text()));
        }
        let keys = [self.options.key.as_str()];
        let inspect =
            |client: Client| async move { client.eval(INSPECT, keys.to_vec(), VALUE_BYTES_MAX as i64).await };
        let found: Vec<Value> = self.send_to_owner(inspect).await?;
        Expected::from_answer(&found)
            .ok_or_else(|| KillSwitchReadError::Refused("an answer that makes no sense".to_owned()))
    }

    /// Writes if the value still is what was expected; says what of it was written, or nothing if it was not.
    async fn write_if_expected(
        &self,
        expected: &Expected,
        change: &KillSwitchChange,
        blocks: bool,
    ) -> Result<Option<Applied>, KillSwitchReadError> {
        let (script, order) =
            if blocks { (write_without_memory(), "value") } else { (WRITE.to_owned(), "history") };
        let keys = [self.options.key.as_str(), self.options.history_key.as_str()];
        let args: Vec<Value> = vec![
            expected.kind_word().into(),
            Value::Bytes(expected.value_bytes()),
            change.value.as_str().into(),
            change.entry.as_str().into(),
            (HISTORY_MAX as i64).into(),
            (VALUE_BYTES_MAX as i64).into(),
            order.into(),
        ];
        let write = |client: Client| {
            let (script, args) = (script.clone(), args.clone());
            async move { client.eval(script, keys.to_vec(), args).await }
        };
        let written: Vec<Value> = self.send_to_owner(write).await?;
        let mut applied = Applied::in_full(change.clone());
        if let Some(why) = written.get(1).and_then(Value::as_string) {
            applied.shortfalls.push(Shortfall::Unrecorded(why));
        }
        Ok((written.first() == Some(&Value::Integer(1))).then_some(applied))
    }

    /// Why a restart of the server may undo a stop, as far as it is known.
    fn undone_by_restart(&self) -> Option<String> {
        match self.route.current_link().replay.found_replay()? {
            RestartReplay::Short(why) | RestartReplay::Stale(why) => Some(why),
            RestartReplay::Whole | RestartReplay::Untold(_) => None,
        }
    }

    /// Carries out a command by the scripts: one step among all writers.
    async fn apply_by_script(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError> {
        for attempt in 1..=ATTEMPTS_MAX {
            let found = self.inspect_key().await.map_err(|error| ApplyError::Unchanged(error.to_string()))?;
            let change = decide(&found.to_stored(), command, now)?;
            // A stop is not put off for ever by others who keep writing.
            let last = attempt == ATTEMPTS_MAX && command.only_blocks();
            let expected = if last { &Expected::Anything } else { &found };
            match self.write_if_expected(expected, &change, command.only_blocks()).await {
                Ok(Some(applied)) => return Ok(applied),
                Ok(None) => {}
                Err(KillSwitchReadError::Refused(why)) => {
                    return Err(ApplyError::Unchanged(with_advice(why)));
                }
                Err(KillSwitchReadError::NoAnswer(why)) => return Err(ApplyError::Unknown(why)),
            }
        }
        Err(ApplyError::Unchanged(format!("others changed it {ATTEMPTS_MAX} times meanwhile; try again")))
    }
}

#[async_trait]
impl KillSwitchRead for KillRedis {
    fn place_text(&self) -> String {
        self.place.clone()
    }

    async fn read_value(&self) -> Result<Stored, KillSwitchReadError> {
        self.read_by(Instant::now() + self.options.read_timeout).await
    }

    async fn wait_changed(&self) {
        self.route.news().notified().await;
    }
}

#[async_trait]
impl KillSwitchStore for KillRedis {
    async fn apply_command(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError> {
        if command.only_blocks() {
            let mut applied = self.engage_stop(command, now).await?;
            applied.shortfalls.extend(self.undone_by_restart().map(Shortfall::Forgettable));
            Ok(applied)
        } else {
            self.apply_by_script(command, now).await
        }
    }

    async fn read_history(&self, count: usize) -> Result<Vec<String>, KillSwitchReadError> {
        if !self.wait_connected().await {
            return Err(KillSwitchReadError::NoAnswer(self.route.current_link().trouble.last_text()));
        }
        let first = -i64::try_from(count.clamp(1, HISTORY_MAX)).unwrap_or(1);
        let link = self.route.current_link();
        let lines = link.client.lrange::<Vec<Value>, _>(self.options.history_key.as_str(), first, -1);
        let lines = self.send_over(&link, lines).await?.into_iter();
        let texts =
            lines.filter_map(Value::into_bytes).map(|line| String::from_utf8_lossy(&line).into_owned());
        Ok(texts.take(count).collect())
    }
}
