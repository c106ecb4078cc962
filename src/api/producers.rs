//! Producers that number their receipts, so that a retransmission is recognised.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use orchestrator_engine_plane::buffer::messages::BufferMsg;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Shared;
use super::problem::{Problem, ProblemKind};
use super::receipts::intake_of;

/// Names the producer.
const PRODUCER: &str = "Orchestrator-Producer";
/// Position of the first receipt of the body; the others follow consecutively.
const SEQUENCE: &str = "Orchestrator-Sequence";
/// Bytes of a producer's name.
const ID_BYTES_MAX: usize = 64;

/// Producer and position, as the two headers say them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProducerSequence {
    /// The producer's name.
    pub(super) producer: String,
    /// Position of the first receipt.
    pub(super) first: u64,
}

impl ProducerSequence {
    /// Reads the headers; `None` when neither is there.
    ///
    /// # Errors
    ///
    /// The problem, naming the header that is missing, double or of no use.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        match (only_value(headers, PRODUCER)?, only_value(headers, SEQUENCE)?) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(bad_header(SEQUENCE, "is missing: the two headers go together")),
            (None, Some(_)) => Err(bad_header(PRODUCER, "is missing: the two headers go together")),
            (Some(producer), Some(sequence)) => {
                if !is_id(producer) {
                    return Err(bad_header(PRODUCER, "must be 1 to 64 of A-Z a-z 0-9 . _ -"));
                }
                let is_number = sequence.bytes().all(|byte| byte.is_ascii_digit());
                match sequence.parse() {
                    Ok(first) if is_number && first > 0 => {
                        Ok(Some(Self { producer: producer.to_owned(), first }))
                    }
                    Ok(_) | Err(_) => Err(bad_header(SEQUENCE, "must be a whole number from 1 on")),
                }
            }
        }
    }
}

/// The problem of a sequence whose last number would not fit.
pub(super) fn sequence_overflow() -> Problem {
    bad_header(SEQUENCE, "is so large that the positions of the lines would not fit into 64 bits")
}

fn only_value<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad_header(name, "must come once"));
    }
    value.to_str().map(Some).map_err(|_| bad_header(name, "must be visible ASCII"))
}

fn bad_header(name: &str, rule: &str) -> Problem {
    Problem::new(ProblemKind::BadHeader, format!("{name} {rule}")).with_member("header", name)
}

fn is_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(is_allowed)
}

/// `GET /api/v1/producers/{id}`: the last position of the producer that is settled, so that it can go on after it.
pub(super) async fn get_producer(
    State(shared): State<Arc<Shared>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let intake = intake_of(&shared)?;
    let Some(Path(id)) = id.ok().filter(|id| is_id(id)) else {
        return Err(Problem::new(ProblemKind::BadParameter, "id must be 1 to 64 of A-Z a-z 0-9 . _ -"));
    };
    let origin = intake.origin_of_producer(Some(&id));
    let asked = shared.state.buffer.call(|reply| BufferMsg::Resume(origin, reply));
    match timeout(shared.state.limits.request_timeout, asked).await {
        Ok(Ok(resume)) => Ok(Json(json!({ "producer": id, "settled": resume.position }))),
        Ok(Err(_)) | Err(_) => {
            Err(Problem::new(ProblemKind::Unavailable, "the receipt log does not answer now")
                .retry_after(Duration::from_secs(1)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain() {
        assert!(is_id("a.B-9_") && is_id(&"x".repeat(64)));
        assert!(!is_id("") && !is_id(&"x".repeat(65)) && !is_id("a/b") && !is_id("é") && !is_id("a b"));
    }
}
