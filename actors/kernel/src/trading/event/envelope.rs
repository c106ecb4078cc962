//! The canonical envelope: what every event carries, whatever it is about.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::names::{EventNaming, TradingEventKind};
use crate::engine::run_id::hex_digit;
use crate::ids::TsMs;
use crate::ports::event_bus::EventMessage;
use crate::rfc3339::to_rfc3339;
use crate::trading::ids::{CorrelationId, CycleId, TradingEventId};

/// Version of the envelope and of the payloads.
pub const EVENT_SCHEMA_VERSION: &str = "1.0.0";

/// Tags of every event; what is not configured is null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventTags {
    /// Kind of the instruments.
    pub instrument_type: Option<String>,
    /// Where they are traded.
    pub venue: Option<String>,
    /// Whose law holds there.
    pub jurisdiction: Option<String>,
    /// What a mistake costs: `dev` or `prod`.
    pub env: String,
}

/// Form that all events of this service have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventStyle {
    /// Their names.
    pub naming: EventNaming,
    /// Their `source`: the name of this service.
    pub source: String,
    /// Their tags.
    pub tags: EventTags,
}

/// Place of an event in a trace. It derives from what the event is about, so that a repeated event has the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTrace {
    /// 16 bytes, as hexadecimal text. A cycle's are those of its identifier.
    pub trace_id: String,
    /// 8 bytes, as hexadecimal text.
    pub span_id: String,
    /// The span that it is part of.
    pub parent_span_id: Option<String>,
}

impl EventTrace {
    /// The cycle itself: the root of its trace.
    #[must_use]
    pub fn of_cycle(cycle: CycleId) -> Self {
        Self {
            trace_id: to_hex(cycle.as_bytes()),
            span_id: derive_hex::<8>(&format!("span|{cycle}")),
            parent_span_id: None,
        }
    }

    /// A part of the cycle, named by `part`: unique in the cycle.
    #[must_use]
    pub fn of_cycle_part(cycle: CycleId, part: &str) -> Self {
        let Self { trace_id, span_id, .. } = Self::of_cycle(cycle);
        let own = derive_hex::<8>(&format!("span|{cycle}|{part}"));
        Self { trace_id, span_id: own, parent_span_id: Some(span_id) }
    }

    /// What belongs to no cycle: a trace of its correlation.
    #[must_use]
    pub fn of_correlation(correlation: &CorrelationId, event: TradingEventId) -> Self {
        Self {
            trace_id: derive_hex::<16>(&format!("trace|{correlation}")),
            span_id: derive_hex::<8>(&format!("span|{event}")),
            parent_span_id: None,
        }
    }
}

/// The first `N` bytes of the text's SHA-256, as hexadecimal text.
fn derive_hex<const N: usize>(text: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    to_hex(digest.get(..N).unwrap_or(&digest))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 0xf)]).map(char::from).collect()
}

/// An event, before it has its form on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct TradingEvent {
    /// Its identifier: the same for the same record, whenever it is published.
    pub event_id: TradingEventId,
    /// What happened.
    pub kind: TradingEventKind,
    /// When, by the wall clock that made the record.
    pub at: TsMs,
    /// Where it stands in a trace.
    pub trace: EventTrace,
    /// What ties it to requests and records: of a cycle, the cycle's identifier.
    pub correlation: CorrelationId,
    /// Events with one key belong together and come in order.
    pub partition_key: String,
    /// What a consumer that acts on it recognises a repetition by, beside the event's identifier.
    pub idempotency_key: Option<String>,
    /// The facts.
    pub payload: Value,
}

impl TradingEvent {
    /// The envelope: compact JSON, keys sorted, every field of the contract, absent ones null.
    ///
    /// `ts_ingest` is when this service recorded it: the record's time, so that a repetition has equal bytes.
    ///
    /// Source: CONTRACTS, section 7.
    #[must_use]
    pub fn to_wire(&self, style: &EventStyle) -> String {
        let EventTags { instrument_type, venue, jurisdiction, env } = &style.tags;
        json!({
            "event_id": self.event_id.to_string(),
            "event_type": style.naming.wire_name(self.kind),
            "schema_version": EVENT_SCHEMA_VERSION,
            "ts_event": to_rfc3339(self.at),
            "ts_ingest": to_rfc3339(self.at),
            "source": style.source,
            "trace_id": self.trace.trace_id,
            "span_id": self.trace.span_id,
            "parent_span_id": self.trace.parent_span_id,
            "correlation_id": self.correlation,
            "partition_key": self.partition_key,
            "payload": self.payload,
            "tags": {
                "instrument_type": instrument_type,
                "venue": venue,
                "jurisdiction": jurisdiction,
                "env": env,
            },
            "idempotency_key": self.idempotency_key,
            "sig": Value::Null,
        })
        .to_string()
    }

    /// The event as the bus carries it.
    #[must_use]
    pub fn to_message(&self, style: &EventStyle) -> EventMessage {
        EventMessage {
            topic: style.naming.wire_name(self.kind),
            event_id: self.event_id.to_string(),
            correlation_id: self.correlation.to_string(),
            traceparent: format!("00-{}-{}-01", self.trace.trace_id, self.trace.span_id),
            body: self.to_wire(style).into_bytes().into(),
        }
    }
}
