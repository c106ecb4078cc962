//! Connections: opened with a deadline, named in messages without their password, dropped after any doubt.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo as _, RedisResult};
use tokio::sync::Mutex;

use super::fault::RedisFault;

/// Address of a Redis server. The URL and its password stay inside; `Debug` and [`place`](Self::place) are without it.
#[derive(Clone)]
pub struct Endpoint {
    client: Client,
    place: Arc<str>,
    connect_timeout: Duration,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("place", &self.place).finish_non_exhaustive()
    }
}

/// The URL is not one of a Redis server. It is not shown, because it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a Redis URL; write redis://[user:password@]host[:port][/database], with rediss:// for TLS")]
pub struct UrlError;

impl Endpoint {
    /// Reads a URL `redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`UrlError`].
    pub fn parse(url: &str, connect_timeout: Duration) -> Result<Self, UrlError> {
        let info = url.into_connection_info().map_err(|_| UrlError)?;
        let scheme = match info.addr() {
            ConnectionAddr::TcpTls { .. } => "rediss",
            ConnectionAddr::Tcp(..) | ConnectionAddr::Unix(_) => "redis",
            _ => return Err(UrlError),
        };
        let place = format!("{scheme}://{}/{}", info.addr(), info.redis_settings().db());
        // Without it the last packet of a large batch may wait for the acknowledgement of the one before.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let client = Client::open(info).map_err(|_| UrlError)?;
        Ok(Self { client, place: place.into(), connect_timeout })
    }

    /// Scheme, host, port and database, for messages.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether connections are those of the server's user `default`: the URL names no user.
    pub(super) fn is_default_user(&self) -> bool {
        let user = self.client.get_connection_info().redis_settings().username();
        user.is_none_or(|user| user == "default")
    }

    /// Opens a connection of its own: name resolution, TLS and login within the connect timeout.
    ///
    /// `response_timeout` holds for each command on it; `None` leaves that to the caller, as a blocking read needs it.
    ///
    /// # Errors
    ///
    /// It cannot be reached, or refuses the login. The text names the place and says what to do.
    pub async fn open_connection(
        &self,
        response_timeout: Option<Duration>,
    ) -> io::Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(response_timeout);
        let opened = self.client.get_multiplexed_async_connection_with_config(&config).await;
        opened.map_err(|error| RedisFault::from_error(&self.place, &error).into_io())
    }

    /// What an error of a command on one of these connections means.
    pub(super) fn fault_of(&self, error: &redis::RedisError) -> RedisFault {
        RedisFault::from_error(&self.place, error)
    }

    /// Waits for `work` no longer than `limit`.
    pub(super) async fn run_in_time<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, RedisFault> {
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.fault_of(&error)),
            Err(_) => Err(RedisFault::timed_out(&self.place, limit)),
        }
    }
}

/// How long to wait for the answer to a command that moves `bytes`: a slow disk or network still does 8 MiB a second.
/// (64 MiB in one record took 3 s on a busy machine.)
pub(super) fn timeout_for(timeout: Duration, bytes: usize) -> Duration {
    const BYTES_PER_MS: u64 = (8 << 20) / 1000;
    timeout + Duration::from_millis(bytes as u64 / BYTES_PER_MS)
}

/// A connection that is opened when it is needed and forgotten after a fault: an answer that comes too late finds
/// nobody who could take it for the answer to something else.
pub(super) struct RedisLink {
    pub(super) endpoint: Endpoint,
    timeout: Duration,
    open: Mutex<Option<MultiplexedConnection>>,
}

impl RedisLink {
    /// `timeout` is for each small answer.
    pub(super) fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        Self { endpoint, timeout, open: Mutex::new(None) }
    }

    /// The time for a small answer.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Does `work`, which moves about `bytes`, on the connection.
    pub(super) async fn run_once<T, W>(
        &self,
        bytes: usize,
        work: impl FnOnce(MultiplexedConnection) -> W,
    ) -> Result<T, RedisFault>
    where
        W: Future<Output = RedisResult<T>>,
    {
        let connection = {
            let mut open = self.open.lock().await;
            match &*open {
                Some(connection) => connection.clone(),
                None => {
                    let connection =
                        self.endpoint.open_connection(None).await.map_err(RedisFault::Unknown)?;
                    open.insert(connection).clone()
                }
            }
        };
        let done = self.endpoint.run_in_time(timeout_for(self.timeout, bytes), work(connection)).await;
        if matches!(done, Err(RedisFault::Unknown(_))) {
            *self.open.lock().await = None;
        }
        done
    }

    /// As [`run`](Self::run), for reads: once more on a new connection when the first did not answer. Only the second
    /// waits as long as `bytes` may take, so that a hung server is noticed soon: it accepts no login.
    pub(super) async fn run_again<T, W>(
        &self,
        bytes: usize,
        work: impl Fn(MultiplexedConnection) -> W,
    ) -> io::Result<T>
    where
        W: Future<Output = RedisResult<T>>,
    {
        const FIRST_BYTES: usize = 4 << 20;
        match self.run_once(bytes.min(FIRST_BYTES), &work).await {
            Ok(done) => Ok(done),
            Err(RedisFault::Unknown(_)) => self.run_once(bytes, &work).await.map_err(RedisFault::into_io),
            Err(fault @ RedisFault::Full(_)) => Err(fault.into_io()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(200);

    #[test]
    fn password_is_in_no_text() {
        let endpoint = Endpoint::parse("redis://user:s3cret@127.0.0.1:1/3", TIMEOUT).unwrap();

        assert_eq!(endpoint.place(), "redis://127.0.0.1:1/3");
        assert!(!format!("{endpoint:?}").contains("s3cret"));
        let refused = Endpoint::parse("redis:s3cret@", TIMEOUT).unwrap_err();
        assert!(!format!("{refused:?} {refused}").contains("s3cret"));
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_that_names_the_place() {
        let endpoint = Endpoint::parse("redis://:s3cret@127.0.0.1:1", TIMEOUT).unwrap();

        let error = endpoint.open_connection(None).await.err().unwrap();

        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains("redis://127.0.0.1:1/0"), "{error}");
    }
}
