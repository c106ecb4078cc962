//! The meaning of an answer to `POST /api/v1/orders`: one table, and all that it does not name is unknown (ORD-1).
//!
//! Source: CONTRACTS §5, "answer of POST /orders".

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OrderContent;
use super::answer::{AnswerBody, GatewayAnswer, OrderFields, detail_line};
use super::id::ClientOrderId;
use super::status::{OrderStatus, StatusClass};
use crate::error::bounded_detail;
use crate::ids::TsMs;
use crate::trading::wire_values::read_object;

/// Time without a request after a 429 that does not say how long.
const RETRY_AFTER_DEFAULT_MS: i64 = 60_000;

/// The broker's words for an id that it already has.
const MUST_BE_UNIQUE: &[u8] = b"client_order_id must be unique";

/// The order that an answer should be about.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedOrder<'a> {
    /// The content of the order.
    pub content: &'a OrderContent,
    /// The ids that it may have got.
    pub ids: &'a [ClientOrderId],
    /// Moment at which the first attempt was sent.
    pub first_sent_at: TsMs,
}

/// Outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderOutcome {
    /// The gateway has the order, in this status: open, ended or dry run.
    Known {
        /// The id that it has there.
        id: ClientOrderId,
        /// Its status.
        status: OrderStatus,
        /// The broker's id, once there is one.
        broker_order_id: Option<String>,
    },
    /// Refused for good: never tried again.
    Rejected {
        /// The reason, in the gateway's words.
        reason: String,
    },
    /// Not accepted, by proof: it may be sent again where the kind allows it.
    NotAccepted(NotAccepted),
    /// Nobody knows: it is read back, never assumed.
    Unknown(UnknownOutcome),
}

/// Proof that an order was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotAccepted {
    /// 401, 403, 404, 405: a setting is wrong. Sending again cannot help.
    SettingWrong {
        /// The status code.
        code: u16,
        /// The gateway's words.
        detail: String,
    },
    /// 429: nothing more to this gateway before then.
    RateLimited {
        /// The earliest next request.
        until: TsMs,
    },
    /// 503 of a safety gate, before the order was looked at.
    SafetyGate {
        /// The gateway's words.
        gate: String,
    },
    /// No byte of the request left: no connection, no permit, or a permit that ran out before.
    NotSent {
        /// The reason, in words.
        why: String,
    },
    /// An unknown attempt stayed absent for the whole quarantine, and no position moved.
    Absent,
}

impl fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SettingWrong { code, detail } => {
                write!(f, "{} ({code}: {detail})", setting_of(*code))
            }
            Self::RateLimited { until } => write!(f, "rate limited until {until}"),
            Self::SafetyGate { gate } => write!(f, "safety gate: {gate}"),
            Self::NotSent { why } => write!(f, "not sent: {why}"),
            Self::Absent => f.write_str("the gateway never got it"),
        }
    }
}

/// The setting that such an answer points at.
const fn setting_of(code: u16) -> &'static str {
    match code {
        401 => "the secret or the service id of the gateway's client is wrong",
        403 => "the service may not place orders: its rights at the gateway are wrong",
        _ => "the gateway's url is wrong",
    }
}

/// Reason for which an outcome is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownOutcome {
    /// A 200 about another order: another id or another content.
    OtherOrder,
    /// A 2xx that is no answer about an order.
    Unreadable,
    /// An answer that ended within its body, or was larger than what is read.
    NotWhole,
    /// A redirect. Never followed.
    Redirect,
    /// The broker already has the id: it accepted an earlier attempt, whatever the gateway says from now on.
    MustBeUnique,
    /// The gateway does not know itself.
    Status(OrderStatus),
    /// A repeat was answered with the end of an earlier attempt.
    DoubtfulRepeat(OrderStatus),
    /// No answer.
    Silence(String),
    /// Any other answer.
    Answer {
        /// The status code.
        code: u16,
        /// The beginning of what it says.
        detail: String,
    },
    /// The process ended before the answer was recorded.
    Interrupted,
}

impl fmt::Display for UnknownOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherOrder => f.write_str("the answer is about another order"),
            Self::Unreadable => f.write_str("the answer cannot be read"),
            Self::NotWhole => f.write_str("the answer is cut or too large"),
            Self::Redirect => f.write_str("the answer is a redirect"),
            Self::MustBeUnique => f.write_str("the broker already has this id"),
            Self::Status(status) => write!(f, "the gateway says {status}"),
            Self::DoubtfulRepeat(status) => write!(f, "a repeat was answered with {status}"),
            Self::Silence(why) => write!(f, "no answer: {why}"),
            Self::Answer { code, detail } => write!(f, "answer {code}: {detail}"),
            Self::Interrupted => f.write_str("the process ended before the answer"),
        }
    }
}

/// Returns what `answer`, received at `now`, means for the order that was sent.
///
/// Pure. Anything that the table does not name is unknown: a status code, a text, or a shape of the body.
#[must_use]
pub fn outcome_of(answer: &GatewayAnswer<'_>, expected: &ExpectedOrder<'_>, now: TsMs) -> OrderOutcome {
    let (code, retry_after, body) = match answer {
        GatewayAnswer::Silence(why) => return unknown_outcome(UnknownOutcome::Silence(bounded_detail(why))),
        GatewayAnswer::Answered { code, retry_after, body } => (*code, *retry_after, body),
    };
    match code {
        200 | 201 => accepted_answer(body, expected),
        202..=299 => unknown_outcome(UnknownOutcome::Unreadable),
        300..=399 => unknown_outcome(UnknownOutcome::Redirect),
        400 | 422 => refused_answer(code, body),
        401 | 403..=405 => {
            let detail = body.error_detail().map(|detail| detail_line(&detail)).unwrap_or_default();
            OrderOutcome::NotAccepted(NotAccepted::SettingWrong { code, detail })
        }
        429 => OrderOutcome::NotAccepted(NotAccepted::RateLimited { until: retry_at(retry_after, now) }),
        503 => unavailable_answer(body),
        _ => other_answer(code, body),
    }
}

const fn unknown_outcome(why: UnknownOutcome) -> OrderOutcome {
    OrderOutcome::Unknown(why)
}

/// Any other answer: unknown, with the beginning of what it says.
fn other_answer(code: u16, body: &AnswerBody<'_>) -> OrderOutcome {
    let Some(bytes) = body.whole_body() else { return unknown_outcome(UnknownOutcome::NotWhole) };
    let beginning = bytes.get(..200).unwrap_or(bytes);
    let detail = match body.error_detail() {
        Some(detail) => detail_line(&detail),
        None => bounded_detail(&String::from_utf8_lossy(beginning)),
    };
    unknown_outcome(UnknownOutcome::Answer { code, detail })
}

/// 200 and 201.
fn accepted_answer(body: &AnswerBody<'_>, expected: &ExpectedOrder<'_>) -> OrderOutcome {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let Some(bytes) = body.whole_body() else { return unknown_outcome(UnknownOutcome::NotWhole) };
    let (Ok(order), Ok(said)) = (read_object::<OrderFields>(bytes), read_object::<Said>(bytes)) else {
        return unknown_outcome(UnknownOutcome::Unreadable);
    };
    if !order.is_ours(expected.content, expected.ids) {
        return unknown_outcome(UnknownOutcome::OtherOrder);
    }
    let (Some(id), Some(status), Some(created_at)) = (
        ClientOrderId::from_hex(&order.client_order_id),
        OrderStatus::from_word(&order.status),
        order.created_at(),
    ) else {
        return unknown_outcome(UnknownOutcome::Unreadable);
    };
    if says_must_be_unique(bytes) {
        return unknown_outcome(UnknownOutcome::MustBeUnique);
    }
    let is_repeat = said.message.starts_with("Order already exists") || created_at < expected.first_sent_at;
    if is_repeat && status.is_doubtful_in_a_repeat() {
        return unknown_outcome(UnknownOutcome::DoubtfulRepeat(status));
    }
    match status.class() {
        StatusClass::Open | StatusClass::Ended | StatusClass::DryRun => {
            OrderOutcome::Known { id, status, broker_order_id: order.broker_order_id }
        }
        StatusClass::Rejected => {
            OrderOutcome::Rejected { reason: bounded_detail(&format!("{status}: {}", said.message)) }
        }
        StatusClass::Unknown => unknown_outcome(UnknownOutcome::Status(status)),
    }
}

/// 400 and 422.
fn refused_answer(code: u16, body: &AnswerBody<'_>) -> OrderOutcome {
    // Without all of the text nobody can say that the broker does not have the order.
    let Some(bytes) = body.whole_body() else { return unknown_outcome(UnknownOutcome::NotWhole) };
    if says_must_be_unique(bytes) {
        return unknown_outcome(UnknownOutcome::MustBeUnique);
    }
    let detail = body.error_detail();
    let is_final = code == 400
        || match &detail {
            Some(Value::Array(_)) => true,
            Some(Value::Object(_)) => error_word(&detail) == Some("Position limit exceeded"),
            Some(Value::String(text)) => text.starts_with("Order rejected by broker"),
            Some(Value::Null | Value::Bool(_) | Value::Number(_)) | None => false,
        };
    if !is_final {
        return other_answer(code, body);
    }
    let reason = detail.map_or_else(|| format!("answer {code}"), |detail| detail_line(&detail));
    OrderOutcome::Rejected { reason }
}

/// Tells whether the broker's refusal stands anywhere in `text`, in any case and whatever the shape around it.
pub(super) fn says_must_be_unique(text: &[u8]) -> bool {
    text.windows(MUST_BE_UNIQUE.len()).any(|part| part.eq_ignore_ascii_case(MUST_BE_UNIQUE))
}

/// Texts of a 503 that a safety gate answers with before the order is looked at.
const GATE_TEXTS: [&str; 7] = [
    "Kill-switch engaged - new orders blocked",
    "Circuit breaker tripped - trading paused",
    "Circuit-breaker state unavailable (fail-closed for safety)",
    "Position-reservation state unavailable (fail-closed for safety)",
    "Position lookup unavailable for reservation (fail-closed)",
    "Database unavailable during idempotency check",
    "Alpaca client not initialized. Check credentials.",
];

/// The `error` of a 503 object of a safety gate.
const GATE_ERRORS: [&str; 5] = [
    "Kill-switch unavailable",
    "Symbol quarantined",
    "Quarantine check unavailable",
    "Reconciliation in progress",
    "Broker unavailable during reconciliation",
];

/// 503: a safety gate, or unknown.
fn unavailable_answer(body: &AnswerBody<'_>) -> OrderOutcome {
    let detail = body.error_detail();
    let is_gate = match &detail {
        Some(Value::String(text)) => GATE_TEXTS.contains(&text.as_str()),
        Some(Value::Object(_)) => error_word(&detail).is_some_and(|error| GATE_ERRORS.contains(&error)),
        Some(_) | None => false,
    };
    match detail {
        Some(detail) if is_gate => {
            OrderOutcome::NotAccepted(NotAccepted::SafetyGate { gate: detail_line(&detail) })
        }
        Some(_) | None => other_answer(503, body),
    }
}

fn error_word(detail: &Option<Value>) -> Option<&str> {
    detail.as_ref().and_then(|detail| detail.get("error")).and_then(Value::as_str)
}

/// The earliest next request after a 429: `Retry-After` in seconds or as a date; 60 s when it is absent or unreadable.
///
/// Source: RFC 9110, section 10.2.3.
#[must_use]
pub fn retry_at(retry_after: Option<&str>, now: TsMs) -> TsMs {
    let text = retry_after.map(str::trim).unwrap_or_default();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = text.parse().unwrap_or(i64::MAX);
        return now.plus_ms(i64::saturating_mul(seconds, 1000));
    }
    match jiff::fmt::rfc2822::parse(text) {
        Ok(date) => now.max(TsMs(date.timestamp().as_millisecond())),
        Err(_) => now.plus_ms(RETRY_AFTER_DEFAULT_MS),
    }
}

#[cfg(test)]
mod tests;
