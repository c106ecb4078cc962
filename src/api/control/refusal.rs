//! Errors on the trading plane's paths: `{"detail": …, "retryable": …}`.
//!
//! `detail` is a list with one line a field for what the schema does not allow (422), and a text for everything else.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrator_trading_plane::command::CommandRefused;
use serde_json::{Value, json};

use crate::api::problem::Problem;

/// When to come again after what may be different then.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One line of a schema's objections.
///
/// Source: CONTRACTS, the recorded interfaces' `ValidationError`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SchemaObjection {
    /// `body`, `query` or `path`.
    pub(super) place: &'static str,
    /// The field, and the index in it; empty for the whole.
    pub(super) field: Vec<Value>,
    /// The kind, a stable word.
    pub(super) kind: &'static str,
    /// What would be right.
    pub(super) msg: String,
}

impl SchemaObjection {
    fn to_wire(&self) -> Value {
        let loc: Vec<Value> = std::iter::once(Value::from(self.place)).chain(self.field.clone()).collect();
        json!({ "loc": loc, "msg": self.msg, "type": self.kind })
    }
}

/// The beginning of what a client sent, in quotes.
pub(super) fn quote_start(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

/// One error answer.
#[derive(Debug)]
pub(super) struct ControlError {
    status: StatusCode,
    detail: Value,
    /// Whether the same request may be sent again as it is.
    is_retryable: bool,
    retry_after: Option<Duration>,
}

impl ControlError {
    /// An error that the same request would get again.
    fn of_text(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: Value::String(detail.into()), is_retryable: false, retry_after: None }
    }

    /// An error that the same request may not get a moment later.
    fn of_now(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { is_retryable: true, retry_after: Some(RETRY_AFTER), ..Self::of_text(status, detail) }
    }

    /// 422: every field that the schema does not allow.
    pub(super) fn of_schema(objections: &[SchemaObjection]) -> Self {
        let detail = Value::Array(objections.iter().map(SchemaObjection::to_wire).collect());
        Self { detail, ..Self::of_text(StatusCode::UNPROCESSABLE_ENTITY, "") }
    }

    /// 400: a value that cannot be.
    pub(super) fn bad_value(detail: impl Into<String>) -> Self {
        Self::of_text(StatusCode::BAD_REQUEST, detail)
    }

    /// 403: not from there.
    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::of_text(StatusCode::FORBIDDEN, detail)
    }

    /// 404.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::of_text(StatusCode::NOT_FOUND, detail)
    }

    /// 405. The header `Allow` comes from the router.
    pub(super) fn method_not_allowed() -> Self {
        Self::of_text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
    }

    /// 415.
    pub(super) fn unsupported_type(detail: impl Into<String>) -> Self {
        Self::of_text(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// 429: as many as may be are on their way.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::of_now(StatusCode::TOO_MANY_REQUESTS, detail)
    }

    /// 503: not now.
    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::of_now(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// 503, and whoever sends it again either gets it again or does something twice.
    pub(super) fn unavailable_for_good(detail: impl Into<String>) -> Self {
        Self::of_text(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// The answer in the form of specification 004: `{"detail": …}` and nothing beside it.
    pub(super) fn into_detail(self) -> Response {
        self.into_answer(|detail| json!({ "detail": detail }))
    }

    fn into_answer(self, make_body: impl FnOnce(Value) -> Value) -> Response {
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut answer = (self.status, kind, make_body(self.detail).to_string()).into_response();
        let retry_after = self.retry_after.map(|delay| HeaderValue::from(delay.as_secs().max(1)));
        answer.headers_mut().extend(retry_after.map(|value| (header::RETRY_AFTER, value)));
        answer
    }
}

impl From<CommandRefused> for ControlError {
    fn from(refused: CommandRefused) -> Self {
        let detail = refused.to_string();
        match refused {
            CommandRefused::Invalid(_) => Self::bad_value(detail),
            CommandRefused::NotFound(_) => Self::not_found(detail),
            CommandRefused::Conflict(_) => Self::of_text(StatusCode::CONFLICT, detail),
            CommandRefused::Unavailable(_) => Self::unavailable(detail),
        }
    }
}

impl From<Problem> for ControlError {
    fn from(problem: Problem) -> Self {
        let (status, detail, retry_after) = problem.into_plain();
        let is_retryable = matches!(
            status,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        Self { is_retryable, retry_after, ..Self::of_text(status, detail) }
    }
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let is_retryable = self.is_retryable;
        self.into_answer(|detail| json!({ "detail": detail, "retryable": is_retryable }))
    }
}
