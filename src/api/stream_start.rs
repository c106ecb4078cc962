//! Beginning of a stream of events: the place that a subscriber names, checked against the log that it reads.
//!
//! `from` is `latest` (the default: only what comes from now on), `earliest`, or the id of an event (strictly behind
//! it). The header `Last-Event-ID`, which browsers send when they connect again, wins over `from`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use orchestrator_kernel::ids::{LogIdentity, Seq};
use tokio::sync::OwnedSemaphorePermit;

use super::Shared;
use super::position::{EventId, Position};
use super::problem::{Problem, ProblemKind};

const LAST_EVENT_ID: &str = "Last-Event-ID";
/// When a subscriber that found no place should come again.
const PLACE_RETRY: Duration = Duration::from_secs(5);

/// Place at which a subscriber wants to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StreamStart {
    /// With the first event that there is.
    Earliest,
    /// With what comes from now on.
    #[default]
    Latest,
    /// Right behind this event.
    Behind(EventId),
}

/// What a log has: the place that a start is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogSpan {
    /// The log's identity.
    pub(super) log: Option<LogIdentity>,
    /// The first record that it still has.
    pub(super) first: Seq,
    /// The last durable one.
    pub(super) tail: Seq,
}

impl StreamStart {
    /// Reads the parameter `from`.
    ///
    /// # Errors
    ///
    /// 400.
    pub(super) fn from_parameter(value: &str) -> Result<Self, Problem> {
        match value {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            id => id
                .parse()
                .map(Self::Behind)
                .map_err(|_| bad_parameter("from must be earliest, latest or the id of an event")),
        }
    }

    /// The same, unless the headers name the last event that the subscriber has.
    ///
    /// # Errors
    ///
    /// 400.
    pub(super) fn or_last_event_id(self, headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(self) };
        let id = id.to_str().ok().and_then(|id| id.parse().ok());
        id.map(Self::Behind).ok_or_else(|| {
            Problem::new(ProblemKind::BadHeader, format!("{LAST_EVENT_ID} must be the id of an event"))
                .with_member("header", LAST_EVENT_ID)
        })
    }

    /// The position to begin behind.
    ///
    /// # Errors
    ///
    /// 409 for a position of another log or beyond the tail, 410 for one whose next event is gone.
    pub(super) fn check_position(self, span: LogSpan) -> Result<Position, Problem> {
        let position = match self {
            Self::Latest => return Ok(Position::After(span.tail)),
            Self::Earliest => return Ok(Position::After(Seq(span.first.0.saturating_sub(1)))),
            Self::Behind(id) if id.is_of_another_log(span.log) => return Err(of_another_log(id, span.log)),
            Self::Behind(id) => id.position,
        };
        if span.tail < position.record() {
            let tail = span.tail;
            let detail =
                format!("the log ends at {tail}: the position is another log's, or this one was restored");
            return Err(
                Problem::new(ProblemKind::PositionAhead, detail).with_member("tail", tail.to_string())
            );
        }
        if position.next_record().0 < span.first {
            let position = Position::AfterEvent(span.first, 0);
            let first = EventId { log: span.log, position }.to_string();
            let detail = format!("the first event still there is {first}; from=earliest begins with it");
            return Err(
                Problem::new(ProblemKind::PositionTrimmed, detail).with_member("first_available", first)
            );
        }
        Ok(position)
    }
}

/// A parameter that breaks this rule.
pub(super) fn bad_parameter(rule: &str) -> Problem {
    Problem::new(ProblemKind::BadParameter, rule)
}

/// Its number may well be one of this log, of another event.
fn of_another_log(id: EventId, own: Option<LogIdentity>) -> Problem {
    let own = own.map(|own| own.to_string()).unwrap_or_default();
    let detail = format!(
        "{id} is the id of an event of another log (another instance, or a data directory made anew), this one is {own}: \
         from=earliest begins with its first event"
    );
    Problem::new(ProblemKind::PositionOfAnotherLog, detail).with_member("log", own)
}

/// A place for one more stream, held as long as it lives.
///
/// # Errors
///
/// 503 when there are as many as may be.
pub(super) fn take_place(shared: &Shared) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&shared.subscribers).try_acquire_owned().map_err(|_| {
        let max = shared.state.limits.subscribers_max;
        Problem::new(ProblemKind::TooManySubscribers, format!("subscribers_max is {max}"))
            .retry_after(PLACE_RETRY)
    })
}

/// The answer that carries the stream.
pub(super) fn stream_response(
    chunks: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // Proxies that collect an answer before they pass it on would hold the events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (headers, Body::from_stream(chunks)).into_response()
}
