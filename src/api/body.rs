//! Reads a request body within its bounds of size, time and memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::encoding::ContentEncoding;
use super::problem::{Problem, ProblemKind};

/// A body in memory, and the right to hold it there.
pub(super) struct HeldBody {
    pub(super) bytes: Bytes,
    /// Counts the bytes against those of all requests, until it is dropped.
    held: Option<OwnedSemaphorePermit>,
}

impl HeldBody {
    /// The body as text. It is unpacked off the threads that serve, and counts as the largest body meanwhile.
    ///
    /// # Errors
    ///
    /// The problem: see [`ContentEncoding::unpack`], or as many bytes held as may be held.
    pub(super) async fn unpack(
        &mut self,
        shared: &Shared,
        encoding: ContentEncoding,
    ) -> Result<Bytes, Problem> {
        let (body, bytes_max) = (self.bytes.clone(), shared.state.limits.body_bytes_max);
        if encoding == ContentEncoding::Identity {
            return encoding.unpack_body(body, bytes_max);
        }
        hold_bytes(shared, &mut self.held, bytes_max)?;
        match tokio::task::spawn_blocking(move || encoding.unpack_body(body, bytes_max)).await {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "unpacking a body failed by a defect");
                Err(Problem::new(
                    ProblemKind::Unavailable,
                    "the body could not be unpacked; nothing was stored",
                ))
            }
        }
    }
}

/// Reads `body` until `deadline`.
///
/// # Errors
///
/// The problem: too large, too slow, torn, or as many bytes held as may be held.
pub(super) async fn read_body(
    shared: &Shared,
    headers: &HeaderMap,
    body: Body,
    deadline: Instant,
) -> Result<HeldBody, Problem> {
    let max = shared.state.limits.body_bytes_max;
    let mut chunks = body.into_data_stream();
    if declared_length(headers).is_some_and(|length| (max as u64) < length) {
        return Err(too_large(&mut chunks, max, deadline).await);
    }
    let (mut bytes, mut held) = (BytesMut::new(), None);
    loop {
        let chunk = match timeout_at(deadline, chunks.next()).await {
            Err(_) => return Err(too_slow(shared)),
            Ok(None) => return Ok(HeldBody { bytes: bytes.freeze(), held }),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "request body could not be read");
                return Err(Problem::new(ProblemKind::BodyUnreadable, "send the request again"));
            }
            Ok(Some(Ok(chunk))) => chunk,
        };
        if max - bytes.len() < chunk.len() {
            return Err(too_large(&mut chunks, max, deadline).await);
        }
        hold_bytes(shared, &mut held, chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
}

/// Reads a body of at most `max` bytes until `deadline`. It does not count against what all requests may hold.
///
/// # Errors
///
/// The problem: too large, too slow, or torn.
pub(super) async fn read_small_body(body: Body, max: usize, deadline: Instant) -> Result<Bytes, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = BytesMut::new();
    loop {
        match timeout_at(deadline, chunks.next()).await {
            Err(_) => return Err(Problem::new(ProblemKind::BodyTimeout, "send the whole body at once")),
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Err(error))) => {
                tracing::debug!(%error, "request body could not be read");
                return Err(Problem::new(ProblemKind::BodyUnreadable, "send the request again"));
            }
            Ok(Some(Ok(chunk))) if chunk.len() <= max - bytes.len() => bytes.extend_from_slice(&chunk),
            Ok(Some(Ok(_))) => {
                drain_body(&mut chunks, max, deadline).await;
                return Err(Problem::new(
                    ProblemKind::BodyTooLarge,
                    format!("at most {max} bytes are taken"),
                ));
            }
        }
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Counts further bytes against the bound of all requests.
fn hold_bytes(shared: &Shared, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Problem> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let Ok(more) = Arc::clone(&shared.body_bytes).try_acquire_many_owned(bytes) else {
        let detail = "as many bytes of request bodies are held as may be held; send the request again later";
        return Err(Problem::new(ProblemKind::Busy, detail).retry_after(Duration::from_secs(1)));
    };
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    Ok(())
}

async fn too_large(chunks: &mut BodyDataStream, max: usize, deadline: Instant) -> Problem {
    drain_body(chunks, max, deadline).await;
    Problem::new(ProblemKind::BodyTooLarge, format!("body_bytes_max is {max}; send smaller batches"))
        .with_member("limit", max)
}

/// Reads on for a bounded while before the answer: a client that is still sending when the connection is closed would
/// see a reset instead of the answer.
async fn drain_body(chunks: &mut BodyDataStream, max: usize, deadline: Instant) {
    let mut left = max;
    while let Ok(Some(Ok(chunk))) = timeout_at(deadline, chunks.next()).await {
        let Some(rest) = left.checked_sub(chunk.len()) else { break };
        left = rest;
    }
}

fn too_slow(shared: &Shared) -> Problem {
    let limit = shared.state.limits.request_timeout;
    Problem::new(ProblemKind::BodyTimeout, format!("the whole body must come within {limit:?}"))
}
