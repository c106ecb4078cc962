//! The event that an import writes: a RawMarketEvent v1.

use serde::Serialize;
use serde_json::value::RawValue;

/// One event; its fields stand in the order in which they are written.
#[derive(Serialize)]
pub(super) struct Event<'a> {
    schema: &'static str,
    schema_version: &'static str,
    pub(super) event_type: &'a str,
    pub(super) source_id: &'a str,
    pub(super) symbol: &'a str,
    pub(super) exchange_ts_ms: Option<i64>,
    pub(super) recv_ts_ms: i64,
    /// What was recorded, as it stands in the recording.
    pub(super) raw_payload: &'a str,
    pub(super) normalized: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source_seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload_content_type: Option<&'a str>,
    /// The time of receipt as it was recorded, where it is finer than `recv_ts_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recv_ts_ns: Option<i64>,
}

impl<'a> Event<'a> {
    /// An event with nothing in it but what every one has.
    pub(super) fn new(event_type: &'a str, symbol: &'a str, recv_ts_ms: i64, raw_payload: &'a str) -> Self {
        Self {
            schema: "raw_market_event",
            schema_version: "1",
            event_type,
            source_id: "",
            symbol,
            exchange_ts_ms: None,
            recv_ts_ms,
            raw_payload,
            normalized: Fields::default().into_object(),
            source_event_id: None,
            source_seq: None,
            channel: None,
            payload_content_type: None,
            recv_ts_ns: None,
        }
    }
}

/// The members of a `normalized` object, in the order in which they are added.
#[derive(Default)]
pub(super) struct Fields(String);

impl Fields {
    /// Adds a member whose value is JSON already.
    pub(super) fn with_json(mut self, key: &str, json: &str) -> Self {
        self.0.push_str(if self.0.is_empty() { "{\"" } else { ",\"" });
        self.0.push_str(key);
        self.0.push_str("\":");
        self.0.push_str(json);
        self
    }

    /// Adds a text, or null.
    pub(super) fn with_text(self, key: &str, text: Option<&str>) -> Self {
        self.with_json(key, &serde_json::Value::from(text).to_string())
    }

    /// The object.
    pub(super) fn into_object(self) -> Box<RawValue> {
        let object = if self.0.is_empty() { "{}".to_owned() } else { self.0 + "}" };
        // Keys are our own words and values JSON, so this is JSON. If it were not, the event would show it as null and be
        // refused when it is checked.
        RawValue::from_string(object).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}
