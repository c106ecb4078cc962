//! The sockets of the paper services: connections within bounds, and the faults that only a socket can show.

use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use orchestrator_kernel::ids::TsMs;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answers::{PaperAnswer, error_answer, wrong_answer};
use super::auth::SignedHeaders;
use super::faults::{AnswerFault, ArrivalFault};
use super::request::{PaperRequest, PaperRole, PaperTarget};
use super::world::PaperWorld;

/// Connections at a time of one service; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 1_024;
/// Requests at a time that are worked on, with those whose client has gone.
const REQUESTS_MAX: usize = 4_096;
/// Largest request.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Time for a request's head, and for its body.
const READ_MAX: Duration = Duration::from_secs(10);
/// How long the beginning of an answer that is cut has to leave.
const CUT_AFTER: Duration = Duration::from_millis(50);
/// How long requests may go on after the shutdown began.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// How long accepting rests after it failed.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// The world behind both services, and the clock that it is asked by.
#[derive(Debug)]
pub struct PaperShared {
    world: Mutex<PaperWorld>,
    now: fn() -> TsMs,
    requests: Arc<Semaphore>,
}

impl PaperShared {
    /// A world whose time is `now`.
    #[must_use]
    pub fn new(world: PaperWorld, now: fn() -> TsMs) -> Arc<Self> {
        Arc::new(Self { world: Mutex::new(world), now, requests: Arc::new(Semaphore::new(REQUESTS_MAX)) })
    }

    /// A panic within the lock leaves the counts of one request behind, which the next one can live with.
    fn lock_world(&self) -> MutexGuard<'_, PaperWorld> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a connection's request.
enum Outcome {
    Answered(PaperAnswer),
    Held(u64, PaperAnswer),
    Swallowed(u64),
    Reset,
    Cut(PaperAnswer),
}

/// A connection that ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped by a fault")]
struct Dropped;

/// Serves `role` until `shutdown`.
pub async fn serve_paper(
    listener: TcpListener,
    role: PaperRole,
    shared: Arc<PaperShared>,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    while let Some((stream, slot)) = next_connection(&listener, &slots, &shutdown).await {
        while connections.try_join_next().is_some() {}
        connections.spawn(serve_connection(stream, role, Arc::clone(&shared), shutdown.clone(), slot));
    }
    drop(listener);
    let drained = timeout(DRAIN_MAX, async { while connections.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::info!(connections = connections.len(), "paper requests did not end in time and are cut off");
        connections.shutdown().await;
    }
}

async fn next_connection(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, slot)),
                Err(error) => {
                    tracing::debug!(%error, "no connection can be accepted now");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        next = next => next,
    }
}

async fn serve_connection(
    stream: TcpStream,
    role: PaperRole,
    shared: Arc<PaperShared>,
    shutdown: CancellationToken,
    _slot: OwnedSemaphorePermit,
) {
    let socket = match stream.set_nodelay(true).and_then(|()| stream.as_fd().try_clone_to_owned()) {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
    };
    let service = service_fn(move |request| {
        let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
        async move { serve_request(request, role, shared, &socket).await }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(READ_MAX).max_header_size(HEAD_BYTES_MAX);
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn serve_request(
    request: Request<Incoming>,
    role: PaperRole,
    shared: Arc<PaperShared>,
    socket: &OwnedFd,
) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let correlation = head.headers.get("x-correlation-id").cloned();
    let body = match timeout(READ_MAX, to_bytes(Body::new(body), BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Ok(to_response(PaperAnswer::detail(413, "Request body too large"), None)),
        Err(_) => return Err(Dropped),
    };
    let request = PaperRequest {
        role,
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: signed_headers(&head.headers),
        body,
    };
    let Ok(slot) = Arc::clone(&shared.requests).acquire_owned().await else { return Err(Dropped) };
    // A task of its own: what was accepted goes on when the client hangs up, as at the real services.
    let work = tokio::spawn(async move {
        let outcome = work_on(request, &shared).await;
        drop(slot);
        outcome
    });
    let answer = match work.await {
        Ok(Outcome::Answered(answer)) => answer,
        Ok(Outcome::Held(ms, answer)) => {
            sleep(Duration::from_millis(ms)).await;
            answer
        }
        Ok(Outcome::Swallowed(ms)) => {
            sleep(Duration::from_millis(ms)).await;
            return Err(Dropped);
        }
        Ok(Outcome::Reset) => {
            if let Err(error) = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)) {
                tracing::debug!(%error, "a connection is closed instead of reset");
            }
            return Err(Dropped);
        }
        Ok(Outcome::Cut(answer)) => return Ok(cut_response(answer, correlation)),
        Err(error) => {
            tracing::error!(%error, "a paper request failed by a defect");
            return Err(Dropped);
        }
    };
    Ok(to_response(answer, correlation))
}

async fn work_on(request: PaperRequest, shared: &PaperShared) -> Outcome {
    let target = PaperTarget::of_request(request.role, &request.method, &request.path);
    let plan = shared.lock_world().plan_request(&target, &request, (shared.now)());
    if 0 < plan.before_ms {
        sleep(Duration::from_millis(plan.before_ms)).await;
    }
    match plan.arrival {
        Some(ArrivalFault::Swallowed(ms)) => return Outcome::Swallowed(ms),
        Some(ArrivalFault::Reset) => return Outcome::Reset,
        Some(ArrivalFault::Error(status, body)) => return Outcome::Answered(error_answer(status, body)),
        None => {}
    }
    let answer = shared.lock_world().answer_request(&target, &request, &plan, (shared.now)());
    if 0 < plan.after_ms {
        sleep(Duration::from_millis(plan.after_ms)).await;
    }
    match plan.answer {
        None => Outcome::Answered(answer),
        Some(AnswerFault::Held(ms)) => Outcome::Held(ms, answer),
        Some(AnswerFault::Reset) => Outcome::Reset,
        Some(AnswerFault::Error(status, body)) => Outcome::Answered(error_answer(status, body)),
        Some(AnswerFault::Cut) => Outcome::Cut(answer),
        Some(AnswerFault::Garbage) => {
            let body = b"\x00\xff<this is not the answer".to_vec();
            Outcome::Answered(PaperAnswer { status: 200, body, ..answer })
        }
        Some(AnswerFault::Large(bytes)) => {
            let mut answer = answer;
            let bytes = usize::try_from(bytes).unwrap_or_default().max(answer.body.len());
            answer.body.resize(bytes, b' ');
            Outcome::Answered(answer)
        }
        Some(AnswerFault::Redirect(status)) => {
            let elsewhere =
                PaperAnswer::text(status, "").with_header("Location", "/paper/redirected".to_owned());
            Outcome::Answered(elsewhere)
        }
        Some(AnswerFault::Wrong(field)) => Outcome::Answered(wrong_answer(&answer, field)),
    }
}

fn signed_headers(headers: &HeaderMap) -> SignedHeaders {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    SignedHeaders {
        token: text("x-internal-token"),
        timestamp: text("x-internal-timestamp"),
        nonce: text("x-internal-nonce"),
        service_id: text("x-service-id"),
        body_hash: text("x-body-hash"),
        user_id: text("x-user-id"),
        strategy_id: text("x-strategy-id"),
    }
}

fn to_response(answer: PaperAnswer, correlation: Option<HeaderValue>) -> Response<Body> {
    let body = Body::from(answer.body);
    with_head(body, answer.status, answer.content_type, &answer.headers, correlation)
}

/// Half of an answer that says how long it would be.
fn cut_response(answer: PaperAnswer, correlation: Option<HeaderValue>) -> Response<Body> {
    let length = answer.body.len();
    let half = Bytes::copy_from_slice(answer.body.get(..length / 2).unwrap_or_default());
    let beginning = stream::once(async move { Ok::<Bytes, Dropped>(half) });
    // The half has left by then; an error at once would take it along.
    let end = stream::once(async {
        sleep(CUT_AFTER).await;
        Err(Dropped)
    });
    let body = Body::from_stream(beginning.chain(end));
    let mut response = with_head(body, answer.status, answer.content_type, &answer.headers, correlation);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn with_head(
    body: Body,
    status: u16,
    content_type: &'static str,
    headers: &[(&'static str, String)],
    correlation: Option<HeaderValue>,
) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let to = response.headers_mut();
    to.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    to.insert("x-paper", HeaderValue::from_static("true"));
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::from_str(value)) {
            to.insert(name, value);
        }
    }
    if let Some(correlation) = correlation {
        to.insert("x-correlation-id", correlation);
    }
    response
}
