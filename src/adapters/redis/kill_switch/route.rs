//! The servers that may have the key: the one of the URL and, on a Redis Cluster, the one that it names.
//!
//! ```text
//! home ──MOVED slot host:port──▶ away ──MOVED──▶ another away; MOVED home ends it, and so does losing its connection
//! ```
//!
//! Followed by hand, because it needs no right and no knowledge of the cluster: a server that has the key answers,
//! every other one says who has it. Notifications come from that server only, so each link has both connections.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::interfaces::{ClientLike, KeysInterface};
use fred::types::Value;
use fred::types::config::{Config, Options, Server, ServerConfig};
use orchestrator_kernel::kill_switch::{KillSwitchReadError, Stored, VALUE_BYTES_MAX};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::connection::{self, LinkTrouble, error_text, is_reply};
use super::replay::{ReplayKnown, RestartReplay};
use super::watch;

/// How often a command looks whether there is a connection.
const CONNECTED_PAUSE: Duration = Duration::from_millis(5);
/// Time that a server which was named has to be reached before the one of the URL is asked again.
const REACH_MAX: Duration = Duration::from_secs(1);

/// State that the tasks and the calls of one link share.
pub(super) struct LinkShared {
    pub(super) client: Client,
    pub(super) subscriber: SubscriberClient,
    /// What the subscriber listens to.
    pub(super) channel: String,
    pub(super) news: Arc<Notify>,
    pub(super) trouble: LinkTrouble,
    /// The keys of the value and of the history.
    pub(super) keys: [String; 2],
    /// Whether a restart of this server brings back what is written.
    pub(super) replay: ReplayKnown,
}

/// Channel and keys that a link is about.
#[derive(Clone)]
pub(super) struct WatchedKeys {
    /// What the subscriber listens to.
    pub(super) channel: String,
    /// The keys of the value and of the history.
    pub(super) keys: [String; 2],
}

/// The two connections to one server.
pub(super) struct KillSwitchLink {
    shared: Arc<LinkShared>,
    server: Option<Server>,
    began: Instant,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Deref for KillSwitchLink {
    type Target = LinkShared;

    fn deref(&self) -> &LinkShared {
        &self.shared
    }
}

impl KillSwitchLink {
    fn start_link(
        config: Config,
        about: WatchedKeys,
        read_timeout: Duration,
        news: Arc<Notify>,
    ) -> Arc<Self> {
        let server = config.server.hosts().first().cloned();
        let (client, subscriber) = connection::build_clients(config, read_timeout);
        let WatchedKeys { channel, keys } = about;
        let (trouble, replay) = (LinkTrouble::default(), ReplayKnown::default());
        let shared = Arc::new(LinkShared { client, subscriber, channel, news, trouble, keys, replay });
        Arc::new(Self { _tasks: watch::start_tasks(&shared), shared, server, began: Instant::now() })
    }

    /// Waits for the connection of the commands until `deadline`; says whether there is one.
    pub(super) async fn wait_connected(&self, deadline: Instant) -> bool {
        while !self.client.is_connected() {
            if deadline < Instant::now() {
                return false;
            }
            sleep(CONNECTED_PAUSE).await;
        }
        true
    }

    /// Whether it was given its time and is not connected.
    fn is_lost(&self) -> bool {
        REACH_MAX < self.began.elapsed() && !self.client.is_connected()
    }

    /// Reads the value over this link. A server that would forget it after a restart is asked for nothing: it refuses.
    pub(super) async fn read_value(&self, read_timeout: Duration) -> Result<Stored, KillSwitchReadError> {
        let LinkShared { client, trouble, keys, replay, .. } = &*self.shared;
        trouble.reconnect_if_silent(client);
        let options = Options {
            max_attempts: Some(1),
            timeout: Some(read_timeout),
            // Without a connection a read fails now instead of waiting in a queue.
            fail_fast: true,
            ..Options::default()
        };
        let client = client.with_options(&options);
        let found = match replay.found_replay() {
            Some(found) => found,
            None => replay
                .ask_and_tell(&client, keys)
                .await
                .map_err(|error| KillSwitchReadError::NoAnswer(trouble.describe_error(&error)))?,
        };
        if let RestartReplay::Short(why) = found {
            return Err(KillSwitchReadError::Refused(why));
        }
        // One byte more than counts: that is how a value is seen to be too long, without being read.
        match client.getrange::<Value, _>(keys[0].as_str(), 0, VALUE_BYTES_MAX).await {
            Ok(value) => {
                trouble.note_answered();
                Ok(stored_from_value(value))
            }
            Err(error) if is_reply(&error) => {
                trouble.note_answered();
                if error.details().starts_with("WRONGTYPE") {
                    return Ok(Stored::NotText);
                }
                Err(KillSwitchReadError::Refused(error_text(&error)))
            }
            Err(error) => Err(KillSwitchReadError::NoAnswer(trouble.describe_error(&error))),
        }
    }
}

fn stored_from_value(value: Value) -> Stored {
    match value.into_bytes() {
        Some(bytes) if bytes.len() > VALUE_BYTES_MAX => Stored::TooLong,
        Some(bytes) if !bytes.is_empty() => Stored::Value(bytes),
        Some(_) | None => Stored::Missing,
    }
}

/// The way to the server that has the key.
pub(super) struct Route {
    config: Config,
    read_timeout: Duration,
    home: Arc<KillSwitchLink>,
    away: Mutex<Option<Arc<KillSwitchLink>>>,
}

impl Route {
    /// Begins to connect to the server of `config`.
    pub(super) fn start(config: Config, about: WatchedKeys, read_timeout: Duration) -> Self {
        let home = KillSwitchLink::start_link(config.clone(), about, read_timeout, Arc::default());
        Self { config, read_timeout, home, away: Mutex::default() }
    }

    /// Told when the value may have changed.
    pub(super) fn news(&self) -> &Notify {
        &self.home.news
    }

    /// The link to the server that had the key when it was last asked for.
    pub(super) fn current_link(&self) -> Arc<KillSwitchLink> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        // The cluster may have put another one in its place, and that of the URL knows.
        away.take_if(|away| away.is_lost() && self.home.client.is_connected());
        away.as_ref().map_or_else(|| Arc::clone(&self.home), Arc::clone)
    }

    /// Goes to the server that `said`, the answer over `from`, names. Says whether that is another one.
    pub(super) fn follow_redirect(&self, from: &KillSwitchLink, said: &str) -> bool {
        let Some(named) = server_of(said, from.server.as_ref()) else { return false };
        if from.server.as_ref().is_some_and(|server| is_same(server, &named)) {
            return false;
        }
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if self.home.server.as_ref().is_some_and(|home| is_same(home, &named)) {
            *away = None;
            return true;
        }
        // Reads overlap: another one may have gone there already.
        let is_there =
            away.as_ref().and_then(|away| away.server.as_ref()).is_some_and(|server| is_same(server, &named));
        if !is_there {
            tracing::info!(server = %named, "the kill switch's key is on another server of the cluster");
            let config =
                Config { server: ServerConfig::Centralized { server: named }, ..self.config.clone() };
            let LinkShared { channel, keys, news, .. } = &*self.home.shared;
            let about = WatchedKeys { channel: channel.clone(), keys: keys.clone() };
            *away = Some(KillSwitchLink::start_link(config, about, self.read_timeout, Arc::clone(news)));
        }
        true
    }
}

fn is_same(one: &Server, other: &Server) -> bool {
    one.host == other.host && one.port == other.port
}

/// Whether an answer says that another server has the key.
pub(super) fn is_moved(said: &str) -> bool {
    said.starts_with("MOVED ")
}

/// The server in `MOVED slot host:port`. Without a host it is the one that answered, at another port.
fn server_of(said: &str, from: Option<&Server>) -> Option<Server> {
    let (host, port) = said.strip_prefix("MOVED ")?.split(' ').nth(1)?.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = if host.is_empty() || host == "?" { from?.host.to_string() } else { host.to_owned() };
    let tls_name = from.and_then(|from| from.tls_server_name.as_ref()).map(|_| host.clone());
    Some(Server::new_with_tls(host, port, tls_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_that_an_answer_names_is_read_as_it_is() {
        let from = Server::new("10.0.0.1", 7000);
        for (said, expected) in [
            ("MOVED 3999 127.0.0.1:6381", Some(("127.0.0.1", 6381))),
            ("MOVED 3999 :6381", Some(("10.0.0.1", 6381))),
            ("MOVED 3999 ?:6381", Some(("10.0.0.1", 6381))),
            ("MOVED 3999 ::1:6381", Some(("::1", 6381))),
            ("MOVED 3999 node.example:6381", Some(("node.example", 6381))),
            ("MOVED 3999", None),
            ("MOVED 3999 host:port", None),
            ("ASK 3999 127.0.0.1:6381", None),
        ] {
            let server = server_of(said, Some(&from));
            let found = server.as_ref().map(|server| (&*server.host, server.port));
            assert_eq!(found, expected, "{said}");
        }
    }
}
