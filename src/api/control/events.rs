//! `GET /api/v1/trading/events`: the trading plane's events as server-sent events, from any position on.
//!
//! The journal is the outbox: what a record gives is told when the record is durable, in the journal's order, and a
//! subscriber that comes back with the id of its last event misses nothing. Parameters: `from` (see [`StreamStart`]);
//! `event_type`, as often as wanted: a name, or a pattern as a topic exchange matches them. It needs no broker.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use orchestrator_kernel::ids::{LogIdentity, Seq};
use orchestrator_kernel::trading::event::{
    EventNaming, EventStyle, TradingEvent, TradingEventKind, matches_topic,
};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_runtime::fatal::Chain;
use orchestrator_trading_plane::outbox::{EventFeed, EventFeedError, EventPosition};
use orchestrator_trading_plane::plane::TradingHandle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Control;
use super::refusal::ControlError;
use crate::api::position::{EventId, Position};
use crate::api::sse;
use crate::api::stream_start::{LogSpan, StreamStart, bad_parameter, stream_response, take_place};

/// A chunk is given out when it has this many bytes, or when nothing else is at hand.
const CHUNK_BYTES: usize = 64 << 10;
/// Patterns of one subscriber; there are fewer events.
const PATTERNS_MAX: usize = 32;

/// Begins a stream.
pub(super) async fn get_events(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, ControlError> {
    let Query(query) =
        query.map_err(|_| ControlError::bad_value("the query is not of the form name=value&…"))?;
    let style = Arc::clone(&control.faces.event_style);
    let (start, patterns) = read_query(&query, &style.naming)?;
    let start = start.or_last_event_id(&headers)?;
    let plane = control.plane()?;
    let (log, from) = find_begin(&plane, start)?;
    let place = take_place(&control.shared)?;
    let limits = &control.shared.state.limits;
    let events = TradingEventStream {
        feed: plane.subscribe_events(Some(from)),
        log,
        style,
        patterns,
        reached: behind_position(from),
        held: VecDeque::new(),
        heartbeat: limits.heartbeat,
        shutdown: control.shared.state.shutdown.clone(),
        phase: StreamPhase::Beginning,
        _place: place,
    };
    let chunks = stream::unfold(events, |mut events| async move {
        events.next_chunk().await.map(|chunk| (Ok::<_, Infallible>(chunk), events))
    });
    Ok(stream_response(chunks))
}

fn read_query(
    query: &[(String, String)],
    naming: &EventNaming,
) -> Result<(StreamStart, Vec<String>), ControlError> {
    let (mut start, mut patterns) = (StreamStart::default(), Vec::new());
    for (name, value) in query {
        match name.as_str() {
            "from" => start = StreamStart::from_parameter(value)?,
            "event_type" => {
                require_known(value, naming)?;
                if patterns.len() == PATTERNS_MAX {
                    let rule = format!("event_type may come {PATTERNS_MAX} times");
                    return Err(bad_parameter(&rule).into());
                }
                patterns.push(value.clone());
            }
            _ => return Err(bad_parameter("a parameter is not one of: from, event_type").into()),
        }
    }
    Ok((start, patterns))
}

/// A misspelt name would be a stream that stays silent for ever.
fn require_known(pattern: &str, naming: &EventNaming) -> Result<(), ControlError> {
    // A request for an analysis is published before its cycle's record, so no record gives it.
    let kinds = TradingEventKind::ALL.into_iter().filter(|kind| *kind != TradingEventKind::AnalysisRequested);
    let names: Vec<String> = kinds.map(|kind| naming.wire_name(kind)).collect();
    match names.iter().any(|name| matches_topic(pattern, name)) {
        true => Ok(()),
        false => {
            let rule = format!("event_type must match one of: {}", names.join(", "));
            Err(bad_parameter(&rule).into())
        }
    }
}

/// The first event that the subscriber wants.
fn find_begin(
    plane: &TradingHandle,
    start: StreamStart,
) -> Result<(Option<LogIdentity>, EventPosition), ControlError> {
    let (log, first) = plane.journal_start();
    let tail = plane.committed.borrow().tail;
    let span = LogSpan { log, first: Seq(first.0), tail: Seq(tail.0) };
    let (seq, seen) = start.check_position(span)?.next_record();
    Ok((log, EventPosition { seq: JournalSeq(seq.0), index: u32::try_from(seen).unwrap_or(u32::MAX) }))
}

/// The place right before an event.
const fn behind_position(next: EventPosition) -> Position {
    match next.index.checked_sub(1) {
        Some(index) => Position::AfterEvent(Seq(next.seq.0), index),
        None => Position::After(Seq(next.seq.0.saturating_sub(1))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamPhase {
    Beginning,
    Open,
    Ended,
}

/// One subscriber's way through the journal. The next chunk is made when its connection has room: a slow one holds one
/// reading of the journal and a chunk, and slows nobody.
struct TradingEventStream {
    feed: EventFeed,
    /// Part of each id.
    log: Option<LogIdentity>,
    style: Arc<EventStyle>,
    /// What is wanted; empty for all.
    patterns: Vec<String>,
    /// Everything up to there was told, or is not wanted.
    reached: Position,
    /// Events that were read and not told yet.
    held: VecDeque<(EventPosition, TradingEvent)>,
    heartbeat: Duration,
    shutdown: CancellationToken,
    phase: StreamPhase,
    _place: OwnedSemaphorePermit,
}

impl TradingEventStream {
    /// The next bytes for the subscriber; `None` at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        match self.phase {
            StreamPhase::Ended => None,
            StreamPhase::Beginning => {
                self.phase = StreamPhase::Open;
                Some(sse::greeting_bytes(self.reached_id()).into())
            }
            StreamPhase::Open => self.events_or_heartbeat().await.map(Bytes::from),
        }
    }

    async fn events_or_heartbeat(&mut self) -> Option<Vec<u8>> {
        let heartbeat_at = Instant::now() + self.heartbeat;
        loop {
            let chunk = self.drain_held();
            if !chunk.is_empty() {
                return Some(chunk);
            }
            // Also where events come all the time and none of them is wanted.
            if heartbeat_at <= Instant::now() {
                return Some(self.make_heartbeat());
            }
            let read = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                read = timeout_at(heartbeat_at, self.feed.next_events()) => read,
            };
            match read {
                Ok(Ok(events)) => self.held.extend(events),
                Ok(Err(error)) => return Some(self.end_with_farewell(&error)),
                Err(_) => return Some(self.make_heartbeat()),
            }
        }
    }

    /// A sign of life. Nothing is held then, so records without an event need not be looked at again.
    fn make_heartbeat(&mut self) -> Vec<u8> {
        let record = Seq(self.feed.reached_record().0);
        if self.reached.record() < record {
            self.reached = Position::After(record);
        }
        sse::heartbeat_bytes(self.reached_id())
    }

    /// What was read and is wanted, as much as makes a chunk.
    fn drain_held(&mut self) -> Vec<u8> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_BYTES {
            let Some((at, event)) = self.held.pop_front() else { break };
            self.reached = Position::AfterEvent(Seq(at.seq.0), at.index);
            let name = self.style.naming.wire_name(event.kind);
            if self.patterns.is_empty() || self.patterns.iter().any(|pattern| matches_topic(pattern, &name)) {
                sse::write_event(self.reached_id(), &name, event.to_wire(&self.style).as_bytes(), &mut chunk);
            }
        }
        chunk
    }

    const fn reached_id(&self) -> EventId {
        EventId { log: self.log, position: self.reached }
    }

    fn end_with_farewell(&mut self, error: &EventFeedError) -> Vec<u8> {
        self.phase = StreamPhase::Ended;
        match error {
            EventFeedError::Trimmed { .. } | EventFeedError::Ended => sse::farewell_bytes(&error.to_string()),
            EventFeedError::Journal(_) | EventFeedError::Broken(_) => {
                tracing::error!(error = %Chain(error), "stream of trading events cannot go on");
                sse::farewell_bytes("the journal cannot be read on; connect again later")
            }
        }
    }
}
