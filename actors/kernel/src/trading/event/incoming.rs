//! What comes in: the envelope of somebody else's event, read strictly where something follows from it.
//!
//! Required are the fields that decide: `event_id`, `event_type`, `schema_version`, `ts_event`, `source`,
//! `correlation_id`, `payload`. The others may be absent, and have their type where they are there; fields that nobody
//! knows are ignored.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::incoming_payload::IncomingPayload;
use super::names::EventNaming;
use crate::error::bounded_detail;
use crate::ids::TsMs;
use crate::trading::ids::{CorrelationId, FOREIGN_ID_BYTES_MAX};
use crate::trading::wire_values::{moment_of_text, read_object};

/// Bytes that an event may have.
pub const INCOMING_EVENT_BYTES_MAX: usize = 256 << 10;

/// Reason for which a message is no event for us. It goes to the dead letters with this text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncomingMisfit {
    /// More bytes than an event may have.
    #[error("{bytes} bytes, an event has at most {INCOMING_EVENT_BYTES_MAX}")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// No envelope.
    #[error("no event envelope: {0}")]
    NoEnvelope(String),
    /// A field has a value that it cannot have.
    #[error("{field}: {problem}")]
    Field {
        /// The field, with its path.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// It came by a topic that is another one's: who may publish one topic may not thereby publish another.
    #[error("event_type: {event_type} came by the topic {topic}")]
    OtherTopic {
        /// What it says it is.
        event_type: String,
        /// How it came.
        topic: String,
    },
    /// No pattern of `trading.events.consume` lists it.
    #[error("event_type: no pattern of trading.events.consume lists {0}")]
    Unlisted(String),
}

impl IncomingMisfit {
    pub(super) fn of_field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field { field, problem: bounded_detail(&problem.into()) }
    }
}

/// The envelope, as it stands there.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct EnvelopeBody<'a> {
    event_id: String,
    event_type: String,
    schema_version: String,
    ts_event: String,
    #[serde(default)]
    ts_ingest: Option<String>,
    source: String,
    #[serde(default, rename = "trace_id")]
    _trace_id: Option<String>,
    #[serde(default, rename = "span_id")]
    _span_id: Option<String>,
    #[serde(default, rename = "parent_span_id")]
    _parent_span_id: Option<String>,
    correlation_id: String,
    #[serde(default, rename = "partition_key")]
    _partition_key: Option<String>,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(default, rename = "tags")]
    _tags: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(default, rename = "idempotency_key")]
    _idempotency_key: Option<String>,
    #[serde(default, rename = "sig")]
    _sig: Option<serde_json::Value>,
}

/// An event of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingEvent {
    /// Its name, without the prefix.
    pub name: String,
    /// Its identifier, as its maker gave it.
    pub event_id: String,
    /// When it happened, as it says itself.
    pub at: TsMs,
    /// Its maker.
    pub source: String,
    /// What ties it to others.
    pub correlation: CorrelationId,
    /// What it says.
    pub payload: IncomingPayload,
}

impl IncomingEvent {
    /// Reads a message that came by `topic`.
    ///
    /// # Errors
    ///
    /// [`IncomingMisfit`]: it is no event, or not one of this topic.
    pub fn parse(topic: &str, naming: &EventNaming, bytes: &[u8]) -> Result<Self, IncomingMisfit> {
        if INCOMING_EVENT_BYTES_MAX < bytes.len() {
            return Err(IncomingMisfit::TooLarge { bytes: bytes.len() });
        }
        let body: EnvelopeBody<'_> = read_object(bytes)
            .map_err(|error| IncomingMisfit::NoEnvelope(bounded_detail(&error.to_string())))?;
        if !body.schema_version.starts_with("1.") {
            let problem = format!("{:?} is not read, 1.x is", body.schema_version);
            return Err(IncomingMisfit::of_field("schema_version", problem));
        }
        let (name, came_by) = (naming.strip_prefix_of(&body.event_type), naming.strip_prefix_of(topic));
        if name != came_by {
            let (event_type, topic) = (bounded_detail(name), bounded_detail(came_by));
            return Err(IncomingMisfit::OtherTopic { event_type, topic });
        }
        let at = moment_of_text(&body.ts_event).ok_or_else(|| no_moment("ts_event"))?;
        if body.ts_ingest.is_some_and(|text| moment_of_text(&text).is_none()) {
            return Err(no_moment("ts_ingest"));
        }
        Ok(Self {
            payload: IncomingPayload::parse(name, body.payload.get())?,
            name: name.to_owned(),
            at,
            event_id: foreign_text("event_id", body.event_id)?,
            source: foreign_text("source", body.source)?,
            correlation: CorrelationId::new(&body.correlation_id)
                .ok_or_else(|| IncomingMisfit::of_field("correlation_id", FOREIGN_TEXT))?,
        })
    }
}

const FOREIGN_TEXT: &str = "1 to 128 bytes without control characters";

fn no_moment(field: &'static str) -> IncomingMisfit {
    IncomingMisfit::of_field(field, "no RFC 3339 time with an offset")
}

/// A text of somebody else, of a bounded length and without control characters.
pub(super) fn foreign_text(field: &'static str, text: String) -> Result<String, IncomingMisfit> {
    let fits = (1..=FOREIGN_ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err(IncomingMisfit::of_field(field, FOREIGN_TEXT)) }
}
