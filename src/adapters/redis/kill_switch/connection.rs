//! The client's settings, none of them its default, and what its errors mean.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, ReconnectPolicy, TcpConfig, UnresponsiveConfig,
};
use orchestrator_kernel::error::bounded_detail;
use tokio::time::Instant;

/// How long connecting, and each command of it, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection on which nothing came for so long although something was asked is given up.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// Commands that may wait for the connection. There are a few; more mean that it hangs.
const COMMANDS_MAX: usize = 64;
/// Pauses between attempts to connect, in milliseconds: doubled from the first to the second, for ever.
const RECONNECT_MS: (u32, u32) = (50, 1000);

/// What the URL says.
pub(super) fn config_from_url(url: &str) -> Result<Config, Error> {
    // A server that is not there yet is no reason not to start: without a reading, effects are blocked anyway.
    let mut config = Config { fail_fast: false, ..Config::from_url_centralized(url)? };
    if config.username.is_none() && config.password.is_none() {
        // Without a login the client begins with a PING, which a server that cannot save refuses as it refuses writes.
        // The user that is meant takes any password where it has none.
        config.username = Some("default".to_owned());
        config.password = Some("none".to_owned());
    }
    Ok(config)
}

/// The two clients, not connected yet.
pub(super) fn build_clients(config: Config, read_timeout: Duration) -> (Client, SubscriberClient) {
    let performance = PerformanceConfig {
        default_command_timeout: read_timeout.max(CONNECT_TIMEOUT),
        ..PerformanceConfig::default()
    };
    let connection = ConnectionConfig {
        connection_timeout: CONNECT_TIMEOUT,
        internal_command_timeout: CONNECT_TIMEOUT,
        max_command_attempts: 1,
        max_command_buffer_len: COMMANDS_MAX,
        unresponsive: UnresponsiveConfig { max_timeout: Some(SILENT_MAX), interval: SILENT_MAX / 4 },
        tcp: TcpConfig { nodelay: Some(true), ..TcpConfig::default() },
        ..ConnectionConfig::default()
    };
    let mut policy = ReconnectPolicy::new_exponential(0, RECONNECT_MS.0, RECONNECT_MS.1, 2);
    policy.set_jitter(0);
    let client = Client::new(
        config.clone(),
        Some(performance.clone()),
        Some(connection.clone()),
        Some(policy.clone()),
    );
    (client, SubscriberClient::new(config, Some(performance), Some(connection), Some(policy)))
}

/// Whether the server said so itself: its errors begin with a word in capitals, such as `NOPERM`.
pub(super) fn is_reply(error: &Error) -> bool {
    let ours = matches!(
        error.kind(),
        ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Backpressure | ErrorKind::Tls
    );
    let word = error.details().split(' ').next().unwrap_or_default();
    !ours && word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// What the error says, as one bounded line. The client never puts credentials into an error.
pub(super) fn error_text(error: &Error) -> String {
    bounded_detail(error.details())
}

/// Last error of the connection, and since when it is silent.
#[derive(Debug, Default)]
pub(super) struct LinkTrouble(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: Option<String>,
    silent_since: Option<Instant>,
}

impl LinkTrouble {
    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers why there is no connection, for the reads that find none.
    pub(super) fn note_error(&self, error: &Error) {
        self.lock_inner().last = Some(error_text(error));
    }

    /// Something was answered.
    pub(super) fn note_answered(&self) {
        *self.lock_inner() = Inner::default();
    }

    /// Why there is no connection.
    pub(super) fn last_text(&self) -> String {
        let last = self.lock_inner().last.clone().unwrap_or_else(|| "nothing said yet".to_owned());
        format!("not connected: {last}")
    }

    /// What an error that is no reply means.
    pub(super) fn describe_error(&self, error: &Error) -> String {
        match error.kind() {
            ErrorKind::Canceled => self.last_text(),
            ErrorKind::Timeout => "not in time".to_owned(),
            _ => error_text(error),
        }
    }

    /// Gives up a connection that is open but has answered nothing for [`SILENT_MAX`], while reads were sent on it.
    ///
    /// The client has such a check itself, but every command sent puts it off, and a poll is sent all the time.
    pub(super) fn reconnect_if_silent(&self, client: &Client) {
        let mut inner = self.lock_inner();
        let now = Instant::now();
        let since = *inner.silent_since.get_or_insert(now);
        if now - since < SILENT_MAX || !client.is_connected() {
            return;
        }
        inner.silent_since = Some(now);
        drop(inner);
        let client = client.clone();
        tokio::spawn(async move {
            if let Err(error) = client.force_reconnection().await {
                tracing::debug!(
                    error_detail = error_text(&error),
                    "the kill switch's connection was not renewed"
                );
            }
        });
    }
}
