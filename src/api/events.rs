//! `GET /api/v1/events`: the outputs as server-sent events, from any position on.
//!
//! The run log is the outbox, so a subscriber that comes back with the id of its last event misses nothing and gets
//! nothing twice. Parameters: `from` (see [`StreamStart`]); `symbol` and `event_type`, each as often as wanted.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures_util::stream;
use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;

use super::Shared;
use super::event_stream::{EventStream, Filter, Outputs};
use super::problem::{Problem, ProblemKind};
use super::stream_start::{LogSpan, StreamStart, bad_parameter, stream_response, take_place};

/// Begins a stream.
pub(super) async fn get_events(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query
        .map_err(|_| Problem::new(ProblemKind::BadParameter, "the query is not of the form name=value&…"))?;
    let request = Request::from_query(&query)?;
    let start = request.from.or_last_event_id(&headers)?;
    let runs = &shared.state.runs;
    let tail = shared.state.committed.borrow().tail.into();
    let from = start.check_position(LogSpan { log: runs.identity(), first: runs.stat().start, tail })?;
    let place = take_place(&shared)?;
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
    Ok(stream_response(chunks))
}

struct Request {
    from: StreamStart,
    filter: Filter,
}

impl Request {
    fn from_query(query: &[(String, String)]) -> Result<Self, Problem> {
        let mut request = Self { from: StreamStart::default(), filter: Filter::default() };
        for (name, value) in query {
            match name.as_str() {
                "from" => request.from = StreamStart::from_parameter(value)?,
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

/// A misspelt type would be a stream that stays silent for ever.
fn known_type(value: &str) -> Result<&'static str, Problem> {
    let known = event_type::ALL.into_iter().find(|known| *known == value);
    known.ok_or_else(|| bad_parameter(&format!("event_type must be one of: {}", event_type::ALL.join(", "))))
}
