//! `POST /api/v1/receipts`: receipts in, answered when they are durable (LOG-2).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use orchestrator_kernel::engine::contracts::quarantine::KEPT_BYTES_MAX;
use orchestrator_kernel::error::bounded_detail;
use orchestrator_kernel::foreign_format::without_byte_order_mark;
use orchestrator_kernel::ports::source::{Intake, ItemFate, Settlement, TurnedAway};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::content::BodyForm;
use super::encoding::ContentEncoding;
use super::lines::{self, NotTaken};
use super::problem::{Problem, ProblemKind};
use super::producers::{ProducerSequence, sequence_overflow};
use super::{Shared, body};

/// Quarantined lines that are named in one answer; all are counted.
const ERRORS_MAX: usize = 100;

/// Count of a request's lines by their fate, with the first errors.
#[derive(Debug, Default, Serialize)]
pub(super) struct Accepted {
    /// Lines that are durable in the receipt log by this request.
    appended: u64,
    /// Lines that were there already.
    duplicate: u64,
    /// Lines that are no receipts; durable in the quarantine. Sending them again cannot help.
    quarantined: u64,
    /// The first of those, at most 100.
    errors: Vec<LineError>,
}

#[derive(Debug, Serialize)]
struct LineError {
    /// Line of the body, counted from 1.
    line: u64,
    reason: String,
}

/// The intake, if there is one.
///
/// # Errors
///
/// The problem that says what to configure.
pub(super) fn intake_of(shared: &Shared) -> Result<&dyn Intake, Problem> {
    shared.state.intake.as_deref().ok_or_else(|| {
        Problem::new(ProblemKind::IntakeNotConfigured, "configure a source of kind \"http\" to post receipts")
    })
}

/// Takes one receipt or a batch.
pub(super) async fn post_receipts(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Accepted>, Problem> {
    let limits = &shared.state.limits;
    let deadline = Instant::now() + limits.request_timeout;
    let intake = intake_of(&shared)?;
    let form = BodyForm::from_headers(&headers)?;
    let encoding = ContentEncoding::from_headers(&headers)?;
    let numbered = ProducerSequence::from_headers(&headers)?;
    let mut body = body::read_body(&shared, &headers, body, deadline).await?;
    // Of the body as a whole first: cut into lines, a mistake of all of it would be settled line by line.
    let text = body.unpack(&shared, encoding).await?;
    let text = text.slice_ref(without_byte_order_mark(&text));
    let mut found = lines::split_body(&text, form, limits.lines_max, KEPT_BYTES_MAX)
        .map_err(|why| not_taken(&why, limits.lines_max))?;
    if found.items.is_empty() {
        return Err(Problem::new(ProblemKind::EmptyBody, "send one receipt, or one a line"));
    }
    if let Some(numbered) = &numbered {
        found.number_from(numbered.first).ok_or_else(sequence_overflow)?;
    }
    let origin = intake.origin_of_producer(numbered.as_ref().map(|numbered| numbered.producer.as_str()));
    match timeout_at(deadline, intake.submit_items(origin, found.items)).await {
        Ok(Ok(Settlement::Durable(fates))) => Ok(Json(Accepted::from_fates(&found.lines, fates))),
        Ok(Ok(Settlement::Gap { expected })) => Err(gap_problem(expected)),
        Ok(Ok(Settlement::Denied { reason })) => {
            Err(Problem::new(ProblemKind::ProducerLimit, bounded_detail(&reason)))
        }
        Ok(Ok(Settlement::Refused { reason, retry_after_ms })) => {
            Err(Problem::new(ProblemKind::Refused, bounded_detail(&reason))
                .retry_after(Duration::from_millis(retry_after_ms)))
        }
        Ok(Err(turned_away)) => Err(turned_away_problem(turned_away)),
        Err(_) => Err(unanswered_problem(numbered.is_some())),
    }
}

impl Accepted {
    fn from_fates(lines: &[u64], fates: Vec<ItemFate>) -> Self {
        let mut accepted = Self::default();
        for (line, fate) in lines.iter().zip(fates) {
            match fate {
                ItemFate::Appended => accepted.appended += 1,
                ItemFate::Duplicate => accepted.duplicate += 1,
                ItemFate::Quarantined(reason) => {
                    accepted.quarantined += 1;
                    if accepted.errors.len() < ERRORS_MAX {
                        accepted.errors.push(LineError { line: *line, reason: bounded_detail(&reason) });
                    }
                }
            }
        }
        accepted
    }
}

fn not_taken(why: &NotTaken, lines_max: usize) -> Problem {
    match why {
        NotTaken::TooMany => {
            let detail = format!("lines_max is {lines_max}; send smaller batches");
            Problem::new(ProblemKind::TooManyLines, detail).with_member("limit", lines_max)
        }
        NotTaken::TooLong { line, bytes } => {
            let detail = format!(
                "line {line} has {bytes} bytes, at most {KEPT_BYTES_MAX} of a line are kept; nothing was stored"
            );
            Problem::new(ProblemKind::LineTooLarge, detail).with_member("limit", KEPT_BYTES_MAX)
        }
    }
}

fn gap_problem(expected: u64) -> Problem {
    let detail = match expected {
        1 => "nothing was stored: this producer is not known, because nothing of it came here, or because it was silent \
              for long and is forgotten. Begin at Orchestrator-Sequence 1; a producer that has answers 200 goes on under \
              another name, since what it sends again would be stored twice"
            .to_owned(),
        expected => format!("nothing was stored; go on from Orchestrator-Sequence {expected}"),
    };
    Problem::new(ProblemKind::SequenceGap, detail).with_member("expected", expected)
}

fn turned_away_problem(away: TurnedAway) -> Problem {
    let detail = away.to_string();
    match away {
        TurnedAway::Busy { retry_after } => Problem::new(ProblemKind::Busy, detail).retry_after(retry_after),
        TurnedAway::Closed { retry_after } => {
            Problem::new(ProblemKind::Refused, detail).retry_after(retry_after)
        }
    }
}

fn unanswered_problem(is_numbered: bool) -> Problem {
    let detail = if is_numbered {
        "send the same request again: what is stored already is recognised"
    } else {
        "sent again it may be stored twice; number the receipts (Orchestrator-Producer, Orchestrator-Sequence) to be safe"
    };
    Problem::new(ProblemKind::OutcomeUnknown, detail).retry_after(Duration::from_secs(1))
}
