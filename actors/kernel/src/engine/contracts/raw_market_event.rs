//! Input: the RawMarketEvent v1 envelope. Only the envelope is read; the bytes are kept as they came.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::ids::{EventType, SourceId, Symbol, TsMs};
use crate::input_time::Implausible;
use crate::json;

/// The `event_type` that carries an engine snapshot.
pub const SNAPSHOT_INPUTS: &str = "SnapshotInputs";

/// A receipt whose envelope was read. `bytes` is the whole event, unaltered (LOG-4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// `symbol`.
    pub symbol: Symbol,
    /// `event_type`; unknown ones are as good as known ones.
    pub event_type: EventType,
    /// `source_id`.
    pub source_id: SourceId,
    /// `recv_ts_ms`.
    pub recv_ts_ms: TsMs,
    /// `exchange_ts_ms`, if the exchange gave one.
    pub exchange_ts_ms: Option<TsMs>,
    /// `normalized.timestamp_ms` of a SnapshotInputs; `None` for other types and for a snapshot without an integer
    /// there.
    pub snapshot_ts_ms: Option<TsMs>,
    /// The event, byte for byte.
    pub bytes: Bytes,
}

/// Reason for which bytes are no receipt. Its word goes to the quarantine and to metrics, so it is one of few.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAReceipt {
    /// Not UTF-8.
    #[error("not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The first bad byte.
        at: usize,
    },
    /// Not one JSON object with the envelope's fields.
    #[error("{detail}")]
    NotAnEnvelope {
        /// What serde_json says: the field and the column.
        detail: String,
    },
    /// Another schema or version.
    #[error("schema is {schema:?} version {version:?}, expected \"raw_market_event\" version \"1\"")]
    OtherSchema {
        /// `schema` found.
        schema: String,
        /// `schema_version` found.
        version: String,
    },
    /// A name that cannot be used.
    #[error("symbol must have 1 to 128 bytes and no control characters")]
    BadSymbol,
    /// Larger than the configured limit.
    #[error("{bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Size found.
        bytes: u64,
        /// Limit in force.
        max: u64,
    },
    /// Under a recorded clock only: its time cannot drive the clock.
    #[error(transparent)]
    ImplausibleTime(#[from] Implausible),
}

impl NotAReceipt {
    /// The stable word of this reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotAnEnvelope { .. } => "not_an_envelope",
            Self::OtherSchema { .. } => "other_schema",
            Self::BadSymbol => "bad_symbol",
            Self::TooLarge { .. } => "too_large",
            Self::ImplausibleTime(_) => "implausible_time",
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    schema: Cow<'a, str>,
    #[serde(borrow)]
    schema_version: Cow<'a, str>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    source_id: Cow<'a, str>,
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(deserialize_with = "present")]
    exchange_ts_ms: Option<i64>,
    recv_ts_ms: i64,
    #[serde(borrow)]
    raw_payload: &'a RawValue,
    #[serde(borrow)]
    normalized: &'a RawValue,
}

/// `null` is a value, absence is not.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Option::deserialize(deserializer)
}

/// Shares the strings that come again and again, so that a receipt costs no allocation for its names.
///
/// Bounded: beyond [`Names::MAX`] distinct ones, and beyond [`Names::BYTES_MAX`] bytes (hostile input), a name is
/// simply allocated.
#[derive(Debug, Default)]
pub struct Names(BTreeMap<Box<str>, Arc<str>>);

impl Names {
    /// How many distinct names are shared.
    pub const MAX: usize = 65_536;
    /// Longest name that is shared, in bytes.
    pub const BYTES_MAX: usize = 128;

    fn share_name(&mut self, name: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(name) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = Arc::from(name);
        if self.0.len() < Self::MAX && name.len() <= Self::BYTES_MAX {
            self.0.insert(Box::from(name), Arc::clone(&shared));
        }
        shared
    }
}

/// Reads the envelope of `bytes`. It validates no market meaning: that is not the buffer's business.
///
/// # Errors
///
/// [`NotAReceipt`] when there is no envelope: such bytes go to the quarantine.
///
/// Source: specification 000, "Inputs"; CONTRACTS §1.
pub fn decode(bytes: Bytes, names: &mut Names) -> Result<Receipt, NotAReceipt> {
    let text =
        std::str::from_utf8(&bytes).map_err(|error| NotAReceipt::NotUtf8 { at: error.valid_up_to() })?;
    let envelope: Envelope<'_> = serde_json::from_str(text)
        .map_err(|error| NotAReceipt::NotAnEnvelope { detail: json::describe_mistake(&error) })?;
    // Of an array serde would take the fields by their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(NotAReceipt::NotAnEnvelope { detail: "not an object at line 1 column 1".to_owned() });
    }
    if envelope.schema != "raw_market_event" || envelope.schema_version != "1" {
        return Err(NotAReceipt::OtherSchema {
            schema: shorten_name(&envelope.schema),
            version: shorten_name(&envelope.schema_version),
        });
    }
    if !envelope.raw_payload.get().starts_with('"') {
        return Err(NotAReceipt::NotAnEnvelope { detail: "raw_payload is not a string".to_owned() });
    }
    if !envelope.normalized.get().starts_with('{') {
        return Err(NotAReceipt::NotAnEnvelope { detail: "normalized is not an object".to_owned() });
    }
    if !Symbol::is_valid(&envelope.symbol) {
        return Err(NotAReceipt::BadSymbol);
    }
    let is_snapshot = envelope.event_type == SNAPSHOT_INPUTS;
    Ok(Receipt {
        symbol: Symbol::from(names.share_name(&envelope.symbol)),
        event_type: EventType::from(names.share_name(&envelope.event_type)),
        source_id: SourceId::from(names.share_name(&envelope.source_id)),
        recv_ts_ms: TsMs(envelope.recv_ts_ms),
        exchange_ts_ms: envelope.exchange_ts_ms.map(TsMs),
        snapshot_ts_ms: if is_snapshot { snapshot_timestamp(envelope.normalized.get()) } else { None },
        bytes,
    })
}

/// The `normalized` object of a stored event, byte for byte.
#[must_use]
pub fn normalized(event: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Normalized<'a> {
        #[serde(borrow)]
        normalized: &'a RawValue,
    }
    serde_json::from_slice::<Normalized<'_>>(event).ok().map(|found| found.normalized.get())
}

fn snapshot_timestamp(normalized: &str) -> Option<TsMs> {
    #[derive(Deserialize)]
    struct Timestamp {
        timestamp_ms: i64,
    }
    serde_json::from_str::<Timestamp>(normalized).ok().map(|found| TsMs(found.timestamp_ms))
}

fn shorten_name(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const TRADE: &str = r#"{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"s","symbol":"BTCUSDT","exchange_ts_ms":null,"recv_ts_ms":5,"raw_payload":"{\"a\":1}","normalized":{"price":1.50}}"#;

    fn check_decode(text: &str) -> Result<Receipt, NotAReceipt> {
        decode(Bytes::copy_from_slice(text.as_bytes()), &mut Names::default())
    }

    #[test]
    fn an_envelope_is_read_and_its_bytes_are_kept() {
        let receipt = check_decode(TRADE).unwrap();

        assert_eq!(receipt.symbol.as_str(), "BTCUSDT");
        assert_eq!(receipt.recv_ts_ms, TsMs(5));
        assert_eq!(receipt.exchange_ts_ms, None);
        assert_eq!(receipt.bytes, TRADE.as_bytes());
    }

    #[test]
    fn unknown_types_and_fields_are_receipts_too() {
        let text =
            TRADE.replace("TradeTick", "Brand/New").replace("\"recv_ts_ms\":5", "\"x\":[1],\"recv_ts_ms\":5");

        assert_eq!(check_decode(&text).unwrap().event_type.as_str(), "Brand/New");
    }

    #[test]
    fn only_a_snapshot_has_a_snapshot_timestamp_and_only_an_integer_one() {
        let with = |kind: &str, normalized: &str| {
            let text = TRADE.replace("TradeTick", kind).replace("{\"price\":1.50}", normalized);
            check_decode(&text).unwrap().snapshot_ts_ms
        };

        assert_eq!(with("SnapshotInputs", r#"{"market":{},"timestamp_ms":180000}"#), Some(TsMs(180_000)));
        assert_eq!(with("SnapshotInputs", r#"{"timestamp_ms":"180000"}"#), None);
        assert_eq!(with("SnapshotInputs", "{}"), None);
        assert_eq!(with("TradeTick", r#"{"timestamp_ms":180000}"#), None);
    }

    #[test]
    fn what_has_no_envelope_is_refused_with_a_stable_reason() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let cases = [
            ("", "not_an_envelope"),
            ("null", "not_an_envelope"),
            ("{\"a\":1", "not_an_envelope"),
            (r#"["raw_market_event","1","T","s","A",null,5,"",{}]"#, "not_an_envelope"),
            (deep.as_str(), "not_an_envelope"),
            (&TRADE.replace("\"exchange_ts_ms\":null,", ""), "not_an_envelope"),
            (&TRADE.replace("\"recv_ts_ms\":5", "\"recv_ts_ms\":99999999999999999999"), "not_an_envelope"),
            (&TRADE.replace("\"{\\\"a\\\":1}\"", "7"), "not_an_envelope"),
            (&TRADE.replace("{\"price\":1.50}", "[]"), "not_an_envelope"),
            (&TRADE.replace("\"1\",\"event", "\"2\",\"event"), "other_schema"),
            (&TRADE.replace("BTCUSDT", ""), "bad_symbol"),
            (&TRADE.replace("BTCUSDT", "A\\u0000"), "bad_symbol"),
        ];
        for (text, reason) in cases {
            assert_eq!(check_decode(text).unwrap_err().reason(), reason, "{text:.120}");
        }
        assert_eq!(
            decode(Bytes::from_static(b"\xff"), &mut Names::default()).unwrap_err().reason(),
            "not_utf8"
        );
    }

    #[test]
    fn a_refusal_quotes_a_bounded_part_and_ends_with_its_place() {
        let long = TRADE.replace(":5,", &format!(":\"{}\",", "x".repeat(72_000)));

        let detail = check_decode(&long).unwrap_err().to_string();

        assert!(detail.len() < 300, "{} bytes", detail.len());
        assert!(detail.starts_with("invalid type: string \"xxx"), "{detail}");
        assert!(detail.ends_with("xxx… at line 1 column 72147"), "{detail}");
    }

    #[test]
    fn deep_nesting_in_the_opaque_part_is_stored() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));

        assert!(check_decode(&TRADE.replace("{\"price\":1.50}", &deep)).is_ok());
    }
}
