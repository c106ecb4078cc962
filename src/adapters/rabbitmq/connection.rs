//! A connection to the broker: opened within a time limit, never recovered by the library, always given up for good.
//!
//! The library's own recovery leaves confirms unresolved, so whoever uses a connection opens a new one after a loss.
//! A socket of our own in hand makes giving up certain: without it the library's thread would wait for as long as a
//! frozen broker keeps the connection.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::types::ShortString;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use rustix::net::{Shutdown, shutdown};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Interval of heartbeats in seconds. A broker that is silent for two of them counts as lost, on both sides.
const HEARTBEAT_S: u16 = 10;
/// How long a connection that is given up may take to say goodbye before its socket is cut.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Address of the broker. `Debug` and `Display` show no credentials.
#[derive(Clone)]
pub struct RabbitEndpoint {
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    timeout: Duration,
}

/// Reason for which a URL is of no use. Never holds the URL itself: it may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of RabbitMQ: {problem}; write amqp://user:password@host:port/vhost, or amqps:// with TLS")]
pub struct BadEndpoint {
    /// What is wrong.
    pub problem: String,
}

impl RabbitEndpoint {
    /// Reads `amqp[s]://user:password@host:port/vhost`. With `amqps` the broker's certificate is checked against the
    /// authorities of the system and those of `ca_pem` (PEM text). Opening a connection or channel, and each question
    /// to the broker, may take `timeout`.
    ///
    /// # Errors
    ///
    /// [`BadEndpoint`].
    pub fn new(url: &str, ca_pem: Option<String>, timeout: Duration) -> Result<Self, BadEndpoint> {
        let bad = |problem: String| BadEndpoint { problem };
        if url.contains("@[") || url.contains("//[") {
            // The library would silently take localhost instead.
            return Err(bad("the host is an IPv6 address: give it a name".to_owned()));
        }
        let mut uri: AMQPUri = url.parse().map_err(bad)?;
        uri.query.heartbeat = Some(HEARTBEAT_S);
        Ok(Self { uri, tls: OwnedTLSConfig { identity: None, cert_chain: ca_pem }, timeout })
    }
}

impl fmt::Display for RabbitEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        write!(f, "{scheme}://{}:{}/{vhost}", authority.host, authority.port)
    }
}

impl fmt::Debug for RabbitEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RabbitEndpoint({self})")
    }
}

/// Failure of an exchange with the broker, for people, without credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(super) struct BrokerTrouble {
    /// The broker's reply code, when it said one.
    pub(super) code: Option<u16>,
    /// What happened.
    pub(super) detail: String,
}

impl BrokerTrouble {
    pub(super) fn new(detail: impl Into<String>) -> Self {
        Self { code: None, detail: detail.into() }
    }

    /// The same with what was being done before it.
    pub(super) fn during(self, doing: &str) -> Self {
        Self { code: self.code, detail: format!("{doing}: {}", self.detail) }
    }
}

impl From<lapin::Error> for BrokerTrouble {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            // The text starts with the name of the code: "NOT_FOUND - no exchange …".
            ErrorKind::ProtocolError(said) => Self {
                code: Some(said.get_id()),
                detail: format!("{} {}", said.get_id(), said.get_message()),
            },
            ErrorKind::IOError(error) => Self::new(error.to_string()),
            // Not ours to match exhaustively: the library may add kinds.
            _ => Self::new(error.to_string()),
        }
    }
}

/// A name for the wire.
///
/// # Errors
///
/// It has more than 255 bytes.
pub(super) fn to_short_string(name: &str) -> Result<ShortString, BrokerTrouble> {
    ShortString::try_new(name)
        .map_err(|_| BrokerTrouble::new(format!("a name has more than 255 bytes: {name:.40}…")))
}

/// An open connection. Dropping it closes it, at the latest after a second by cutting the socket.
pub(super) struct BrokerLink {
    connection: Option<Connection>,
    socket: Socket,
    timeout: Duration,
    blocked: watch::Receiver<Option<String>>,
    listener: JoinHandle<()>,
}

impl BrokerLink {
    /// Connects; `name` is how the broker's operators see the connection.
    ///
    /// # Errors
    ///
    /// [`BrokerTrouble`] that names the broker.
    pub(super) async fn open(endpoint: &RabbitEndpoint, name: &str) -> Result<Self, BrokerTrouble> {
        let socket = Socket::default();
        let opened = timeout(endpoint.timeout, connect_broker(endpoint, name, socket.kept.clone())).await;
        let connection = match opened {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(BrokerTrouble::from(error)),
            Err(_) => Err(BrokerTrouble::new(format!("no answer within {:?}", endpoint.timeout))),
        };
        let connection = connection.map_err(|why| why.during(&format!("cannot connect to {endpoint}")))?;
        let (sender, blocked) = watch::channel(None);
        let listener = tokio::spawn(note_blocking(connection.events_listener(), sender));
        Ok(Self { connection: Some(connection), socket, timeout: endpoint.timeout, blocked, listener })
    }

    /// Opens a channel.
    ///
    /// # Errors
    ///
    /// [`BrokerTrouble`]: the connection is lost, or the broker does not answer in time.
    pub(super) async fn open_channel(&self) -> Result<Channel, BrokerTrouble> {
        let connection =
            self.connection.as_ref().ok_or_else(|| BrokerTrouble::new("connection is closed"))?;
        self.ask_in_time("opening a channel", connection.create_channel()).await
    }

    /// Asks the broker something, within the time limit of this connection.
    pub(super) async fn ask_in_time<T>(
        &self,
        doing: &str,
        question: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerTrouble> {
        match timeout(self.timeout, question).await {
            Ok(answered) => answered.map_err(|error| BrokerTrouble::from(error).during(doing)),
            Err(_) => Err(BrokerTrouble::new(format!("{doing}: no answer within {:?}", self.timeout))),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.status().connected())
    }

    /// Whether the last that the broker said is that it takes nothing, also on a connection that is lost by now.
    pub(super) fn is_left_blocked(&self) -> bool {
        self.blocked.borrow().is_some()
    }

    /// Why the broker takes nothing from publishers, while it says so.
    pub(super) fn blocked_reason(&self) -> Option<String> {
        self.is_connected().then(|| self.blocked.borrow().clone()).flatten()
    }

    /// Tells when the broker starts or stops blocking.
    pub(super) fn watch_blocking(&self) -> watch::Receiver<Option<String>> {
        self.blocked.clone()
    }
}

impl Drop for BrokerLink {
    fn drop(&mut self) {
        self.listener.abort();
        let (Some(connection), Ok(runtime)) = (self.connection.take(), Handle::try_current()) else { return };
        let socket = std::mem::take(&mut self.socket);
        runtime.spawn(async move {
            if connection.status().connected() {
                match timeout(FAREWELL_MAX, connection.close(200, "OK".into())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "connection was lost while it was closed"),
                    Err(_) => tracing::debug!("broker did not answer the close of a connection"),
                }
            }
            drop(socket);
        });
    }
}

/// A second handle of a connection's socket. Dropping it ends the connection whatever the library waits for.
#[derive(Default)]
struct Socket {
    kept: Kept,
}

/// Where the handle is left once it is connected.
type Kept = Arc<Mutex<SocketState>>;

#[derive(Default)]
enum SocketState {
    #[default]
    Connecting,
    Connected(OwnedFd),
    /// Nobody waits for it any more.
    GivenUp,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut state = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let SocketState::Connected(socket) = std::mem::replace(&mut *state, SocketState::GivenUp) {
            shut_down_socket(&socket);
        }
    }
}

/// Leaves a socket, unless it was given up meanwhile.
fn keep_socket(kept: &Kept, socket: OwnedFd) {
    let mut state = kept.lock().unwrap_or_else(PoisonError::into_inner);
    match *state {
        SocketState::GivenUp => shut_down_socket(&socket),
        SocketState::Connecting | SocketState::Connected(_) => *state = SocketState::Connected(socket),
    }
}

fn shut_down_socket(socket: &OwnedFd) {
    if let Err(error) = shutdown(socket, Shutdown::Both) {
        tracing::debug!(%error, "socket was closed already");
    }
}

/// Opens the connection and leaves a handle of its socket.
async fn connect_broker(endpoint: &RabbitEndpoint, name: &str, kept: Kept) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let (tls, limit) = (endpoint.tls.clone(), endpoint.timeout);
    let runtime = lapin::runtime::default_runtime()?;
    let reactor = runtime.clone();
    let transport = async move |uri: AMQPUri, _| {
        let connecting = async {
            let AMQPUri { scheme, authority, .. } = uri;
            let addresses = reactor.to_socket_addrs((authority.host.clone(), authority.port));
            let stream = AsyncTcpStream::connect(&reactor, addresses).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                keep_socket(&kept, plain.get_ref().as_fd().try_clone_to_owned()?);
            }
            match scheme {
                AMQPScheme::AMQP => Ok(stream),
                AMQPScheme::AMQPS => stream.into_tls(&authority.host, tls.as_ref()).await,
            }
        };
        let connected = timeout(limit, connecting).await;
        Ok(connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?)
    };
    Connection::connector(endpoint.uri.clone(), runtime, transport, properties).await
}

/// Keeps the broker's last word about blocking.
async fn note_blocking(
    mut events: impl Stream<Item = Event> + Unpin,
    blocked: watch::Sender<Option<String>>,
) {
    while let Some(event) = events.next().await {
        match event {
            Event::ConnectionBlocked(reason) => drop(blocked.send_replace(Some(reason))),
            Event::ConnectionUnblocked => drop(blocked.send_replace(None)),
            // Not ours to match exhaustively: the library may add events, and errors come back from every call.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// Method: a listener that never answers, as a frozen broker whose system still accepts. The library would wait for
    /// as long as the socket is open.
    #[tokio::test]
    async fn a_connection_that_is_not_answered_is_given_up_with_its_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("amqp://user:sekret@{}/x", listener.local_addr().unwrap());
        let endpoint = RabbitEndpoint::new(&url, None, Duration::from_millis(200)).unwrap();

        let error = BrokerLink::open(&endpoint, "test").await.map(drop).unwrap_err();

        assert!(
            error.detail.contains("no answer within 200ms") && !error.detail.contains("sekret"),
            "{error}"
        );
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut sent = Vec::new();
        socket.read_to_end(&mut sent).unwrap();
        assert!(sent.starts_with(b"AMQP"), "the socket was closed after the header");
    }

    #[test]
    fn an_endpoint_shows_no_credentials() {
        let endpoint =
            RabbitEndpoint::new("amqps://user:sekret@host/v", None, Duration::from_secs(1)).unwrap();

        assert_eq!(
            format!("{endpoint} {endpoint:?}"),
            "amqps://host:5671/v RabbitEndpoint(amqps://host:5671/v)"
        );
        for bad in [
            "amqp://user:sekret@[::1]/v",
            "http://user:sekret@host/v",
            "sekret",
            "amqp://user:sekret@host:x/v",
        ] {
            let error = RabbitEndpoint::new(bad, None, Duration::from_secs(1)).unwrap_err();
            assert!(!error.to_string().contains("sekret"), "{error}");
        }
    }
}
