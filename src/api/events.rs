//! `GET /api/v1/events`: the outputs as server-sent events, from any position on.
//!
//! The run log is the outbox, so a subscriber that comes back with the id of its last event misses nothing and gets
//! nothing twice. Parameters: `from` = `latest` (the default: only what comes from now on), `earliest`, or an id
//! (strictly behind it); `symbol` and `event_type`, each as often as wanted. The header `Last-Event-ID`, which browsers
//! send when they connect again, wins over `from`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
use orchestrator_kernel::ids::{LogIdentity, RunSeq};

use super::Shared;
use super::event_stream::{EventStream, Filter, Outputs};
use super::position::{EventId, Position};
use super::problem::{Problem, ProblemKind};

const LAST_EVENT_ID: &str = "Last-Event-ID";
/// When a subscriber that found no place should come again.
const PLACE_RETRY: Duration = Duration::from_secs(5);

/// Begins a stream.
pub(super) async fn get_events(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query
        .map_err(|_| Problem::new(ProblemKind::BadParameter, "the query is not of the form name=value&…"))?;
    let mut request = Request::from_query(&query)?;
    if let Some(id) = headers.get(LAST_EVENT_ID) {
        let id = id.to_str().ok().and_then(|id| id.parse().ok());
        request.from = Start::Behind(id.ok_or_else(|| {
            Problem::new(ProblemKind::BadHeader, format!("{LAST_EVENT_ID} must be the id of an event"))
                .with_member("header", LAST_EVENT_ID)
        })?);
    }
    let from = check_position(&shared, request.from)?;
    let place = Arc::clone(&shared.subscribers).try_acquire_owned().map_err(|_| no_place(&shared))?;
    let outputs = Outputs {
        runs: Arc::clone(&shared.state.runs),
        committed: shared.state.committed.clone(),
        clock: Arc::clone(&shared.state.clock),
        shutdown: shared.state.shutdown.clone(),
    };
    let events = EventStream::new(outputs, from, request.filter, shared.state.limits.heartbeat, place);
    let chunks = stream::unfold(events, |mut events| async move {
        events.next_chunk().await.map(|chunk| (Ok::<_, Infallible>(chunk), events))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // Proxies that collect an answer before they pass it on would hold the events back.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Earliest,
    Latest,
    Behind(EventId),
}

struct Request {
    from: Start,
    filter: Filter,
}

impl Request {
    fn from_query(query: &[(String, String)]) -> Result<Self, Problem> {
        let mut request = Self { from: Start::Latest, filter: Filter::default() };
        for (name, value) in query {
            match name.as_str() {
                "from" => request.from = parse_start(value)?,
                "symbol" => {
                    request.filter.symbols.insert(value.clone());
                }
                "event_type" => {
                    request.filter.event_types.insert(known_type(value)?);
                }
                _ => return Err(bad_parameter("a parameter is not one of: from, symbol, event_type")),
            }
        }
        Ok(request)
    }
}

fn parse_start(value: &str) -> Result<Start, Problem> {
    match value {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        id => id
            .parse()
            .map(Start::Behind)
            .map_err(|_| bad_parameter("from must be earliest, latest or the id of an event")),
    }
}

/// A misspelt type would be a stream that stays silent for ever.
fn known_type(value: &str) -> Result<&'static str, Problem> {
    let known = event_type::ALL.into_iter().find(|known| *known == value);
    known.ok_or_else(|| bad_parameter(&format!("event_type must be one of: {}", event_type::ALL.join(", "))))
}

fn bad_parameter(rule: &str) -> Problem {
    Problem::new(ProblemKind::BadParameter, rule)
}

/// Checks that the stream can begin there.
fn check_position(shared: &Shared, start: Start) -> Result<Position, Problem> {
    let tail = shared.state.committed.borrow().tail;
    let first = RunSeq::from(shared.state.runs.stat().start);
    let own = shared.state.runs.identity();
    let position = match start {
        Start::Latest => return Ok(Position::After(tail)),
        Start::Earliest => return Ok(Position::After(RunSeq(first.0.saturating_sub(1)))),
        Start::Behind(id) if id.is_of_another_log(own) => return Err(of_another_log(id, own)),
        Start::Behind(id) => id.position,
    };
    if tail < position.run_seq() {
        let detail =
            format!("the log ends at {tail}: the position is another log's, or this one was restored");
        return Err(Problem::new(ProblemKind::PositionAhead, detail).with_member("tail", tail.to_string()));
    }
    if position.next_record().0 < first {
        let first = EventId { log: own, position: Position::AfterOutput(first, 0) }.to_string();
        let detail = format!("the first event still there is {first}; from=earliest begins with it");
        return Err(Problem::new(ProblemKind::PositionTrimmed, detail).with_member("first_available", first));
    }
    Ok(position)
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

fn no_place(shared: &Shared) -> Problem {
    let max = shared.state.limits.subscribers_max;
    Problem::new(ProblemKind::TooManySubscribers, format!("subscribers_max is {max}"))
        .retry_after(PLACE_RETRY)
}
