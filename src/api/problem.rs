//! Errors as clients see them: problem details (RFC 9457) with stable words and nothing of the inside.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Kinds of problems. Closed: the words are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProblemKind {
    NotFound,
    MethodNotAllowed,
    IntakeNotConfigured,
    BadHeader,
    BadParameter,
    UnsupportedContentType,
    EmptyBody,
    BodyUnreadable,
    BodyTimeout,
    BodyTooLarge,
    TooManyLines,
    LineTooLarge,
    ProducerLimit,
    SequenceGap,
    Busy,
    Refused,
    OutcomeUnknown,
    Unavailable,
    TooManyConnections,
    TooManySubscribers,
    PositionTrimmed,
    PositionAhead,
    PositionOfAnotherLog,
    NotHeld,
}

impl ProblemKind {
    /// Status, stable word, title.
    const fn status_word_title(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is nothing at this path"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This path has other methods")
            }
            Self::IntakeNotConfigured => {
                (StatusCode::NOT_FOUND, "intake_not_configured", "Receipts are not taken over HTTP")
            }
            Self::BadHeader => (StatusCode::BAD_REQUEST, "bad_header", "A header cannot be used"),
            Self::BadParameter => (StatusCode::BAD_REQUEST, "bad_parameter", "A parameter cannot be used"),
            Self::UnsupportedContentType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_type",
                "The content type is not one that is taken here",
            ),
            Self::EmptyBody => (StatusCode::BAD_REQUEST, "empty_body", "The body holds no receipt"),
            Self::BodyUnreadable => {
                (StatusCode::BAD_REQUEST, "body_unreadable", "The body could not be read to its end")
            }
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout", "The body came too slowly"),
            Self::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is larger than the limit")
            }
            Self::TooManyLines => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_many_lines", "The body has more receipts than the limit")
            }
            Self::LineTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "line_too_large",
                "A line is larger than what can be kept of it",
            ),
            Self::ProducerLimit => {
                (StatusCode::FORBIDDEN, "producer_limit", "Too many producers are known to take a new one")
            }
            Self::SequenceGap => {
                (StatusCode::CONFLICT, "sequence_gap", "Receipts of this producer are missing before these")
            }
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy", "The service is at its limit"),
            Self::Refused => (
                StatusCode::SERVICE_UNAVAILABLE,
                "refused",
                "The receipts are not acknowledged: send the same request again",
            ),
            Self::OutcomeUnknown => {
                (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown", "It is not known whether it was stored")
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The service cannot answer now")
            }
            Self::TooManyConnections => {
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", "No further connection is served")
            }
            Self::TooManySubscribers => {
                (StatusCode::SERVICE_UNAVAILABLE, "too_many_subscribers", "No further event stream can begin")
            }
            Self::PositionTrimmed => {
                (StatusCode::GONE, "position_trimmed", "Events after this position were removed")
            }
            Self::PositionAhead => {
                (StatusCode::CONFLICT, "position_ahead", "The position is beyond the last event")
            }
            Self::PositionOfAnotherLog => {
                (StatusCode::CONFLICT, "position_of_another_log", "The position is one of another log")
            }
            Self::NotHeld => (StatusCode::CONFLICT, "not_held", "No output of this symbol is held"),
        }
    }
}

/// One error answer.
#[derive(Debug)]
pub(super) struct Problem {
    kind: ProblemKind,
    detail: String,
    retry_after: Option<Duration>,
    members: Map<String, Value>,
    /// Boxed: most problems have none, and every fallible step here returns one.
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Problem {
    /// `detail` says what is wrong here and what to do.
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None, members: Map::new(), header: None }
    }

    /// Tells the client when to come again.
    pub(super) fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Adds a header that the status asks for.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// Status, detail and `Retry-After`, for answers of another form.
    pub(super) fn into_plain(self) -> (StatusCode, String, Option<Duration>) {
        (self.kind.status_word_title().0, self.detail, self.retry_after)
    }

    /// Adds a fact for programs.
    pub(super) fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, word, title) = self.kind.status_word_title();
        let mut body = self.members;
        body.extend([
            ("type".to_owned(), json!(word)),
            ("title".to_owned(), json!(title)),
            ("status".to_owned(), json!(status.as_u16())),
            ("detail".to_owned(), json!(self.detail)),
        ]);
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))];
        let retry_after = self.retry_after.map(|delay| (header::RETRY_AFTER, whole_seconds(delay).into()));
        let mut answer = (status, kind, Value::Object(body).to_string()).into_response();
        answer.headers_mut().extend(retry_after.into_iter().chain(self.header.map(|header| *header)));
        answer
    }
}

/// `Retry-After` counts whole seconds; rounded up, at least 1.
fn whole_seconds(delay: Duration) -> u64 {
    delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        let seconds = [0, 1, 999, 1000, 1001].map(|ms| whole_seconds(Duration::from_millis(ms)));

        assert_eq!(seconds, [1, 1, 1, 1, 2]);
    }
}
