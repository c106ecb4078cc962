//! Accepts connections and serves them within their bounds.

use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as HyperService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;

use super::admission::{Admitted, ConnectionAdmission, FirstHead, PROBE_HEAD_MAX};
use super::control::PeerAddress;
use super::limits::HttpLimits;
use super::problem::{Problem, ProblemKind};

/// Bytes that a connection buffers in each direction, but for one piece of an answer.
const CONNECTION_BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a request's head, the filters of an event stream included.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// What may be asked on a connection beyond the bound.
const PROBES: [&str; 4] = ["/livez", "/readyz", "/health", "/metrics"];
/// How long accepting rests after it failed for want of something, file descriptors for example.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves `router` until `shutdown`; then answers what was asked already, for at most `limits.drain_timeout`.
///
/// Event streams end by the token in [`ApiState`](super::ApiState), which may be the same one.
pub async fn serve_router(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    shutdown: CancellationToken,
) {
    let admission = ConnectionAdmission::new(limits.connections_max);
    let probes = router.clone().layer(middleware::from_fn(refuse_all_but_probes));
    let mut connections = JoinSet::new();
    while let Some((stream, admitted)) = next_connection(&listener, &admission, &shutdown).await {
        while let Some(ended) = connections.try_join_next() {
            report_ended(ended);
        }
        let router = if admitted.is_for_probes { &probes } else { &router };
        connections.spawn(serve_connection(stream, router.clone(), limits, shutdown.clone(), admitted));
    }
    drop(listener);
    let drained = timeout(limits.drain_timeout, async {
        while let Some(ended) = connections.join_next().await {
            report_ended(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), "requests did not end in time and are cut off");
        connections.shutdown().await;
    }
}

/// Waits for a connection and then for a slot; `None` at the shutdown. Meanwhile further connections wait in the
/// kernel's queue.
async fn next_connection(
    listener: &TcpListener,
    admission: &ConnectionAdmission,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, Admitted)> {
    // In this order: nobody is ended to make room for a connection that does not come.
    let next = async { (accept_connection(listener).await, admission.admit_client().await) };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        next = next => Some(next),
    }
}

async fn refuse_all_but_probes(request: Request, next: Next) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let detail = "as many connections are open as http.connections_max allows, the rest is for probes";
    Problem::new(ProblemKind::TooManyConnections, detail).retry_after(Duration::from_secs(1)).into_response()
}

async fn accept_connection(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted now");
                sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    limits: HttpLimits,
    shutdown: CancellationToken,
    admitted: Admitted,
) {
    if let Err(error) = set_options(&stream, limits.write_timeout) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let mut http = http1::Builder::new();
    let head_max = if admitted.is_for_probes { PROBE_HEAD_MAX } else { limits.header_timeout };
    http.timer(TokioTimer::new())
        .header_read_timeout(head_max)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(CONNECTION_BUFFER_BYTES);
    let peer = stream.peer_addr().ok().map(PeerAddress);
    let io = TokioIo::new(limit_write_stalls(stream, limits.write_timeout));
    let service = Noticing { head: admitted.first_head(), peer, inner: TowerToHyperService::new(router) };
    let mut served = pin!(http.serve_connection(io, service));
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = admitted.eviction.cancelled() => {
            tracing::debug!("a connection that sent no request made room for another one");
            return;
        }
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Fails a write when the peer accepted no byte for so long. Without it a subscriber that stops reading would keep its
/// place for ever.
pub(super) fn limit_write_stalls(stream: TcpStream, longest: Duration) -> Pin<Box<TimeoutWriter<TcpStream>>> {
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(longest));
    Box::pin(stream)
}

/// Notices the first request of a connection, and tells each where it came from.
struct Noticing<S> {
    head: FirstHead,
    peer: Option<PeerAddress>,
    inner: S,
}

impl<S: HyperService<hyper::Request<Incoming>>> HyperService<hyper::Request<Incoming>> for Noticing<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: hyper::Request<Incoming>) -> S::Future {
        self.head.has_come();
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        self.inner.call(request)
    }
}

/// Small answers leave at once; and a peer that vanished without a word is noticed even when little is sent, as the
/// write timeout only sees a full send buffer.
fn set_options(stream: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let ms = u32::try_from(write_timeout.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(stream, ms)?;
    }
    #[cfg(not(target_os = "linux"))]
    tracing::trace!(?write_timeout, "no timeout of unacknowledged bytes on this system");
    Ok(())
}

fn report_ended(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a request failed by a defect");
    }
}
