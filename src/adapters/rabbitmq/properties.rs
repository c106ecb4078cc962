//! What an output's message says beside its body. Consumers read these, so a test holds them to a recorded file.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use orchestrator_kernel::ports::fan_out::OutputMessage;

/// `delivery_mode` of a message that is written to disk.
const PERSISTENT: u8 = 2;
/// Header: the output's symbol.
const SYMBOL: &str = "symbol";
/// Header: the output's number among those of its symbol.
const SYMBOL_SEQ: &str = "symbol_seq";

/// The properties and headers. A function of the output alone, so a message that is sent again is the same message.
pub(super) fn message_properties(message: &OutputMessage) -> BasicProperties {
    let run_id = message.run_id.to_string();
    let mut headers = FieldTable::default();
    let text = |value: &str| AMQPValue::LongString(value.into());
    let number = |value: u64| AMQPValue::LongLongInt(to_signed(value));
    headers.insert("schema".into(), text("orchestrator_event"));
    headers.insert("schema_version".into(), text("1"));
    headers.insert(SYMBOL.into(), text(message.symbol.as_str()));
    headers.insert(SYMBOL_SEQ.into(), number(message.symbol_seq));
    headers.insert("run_seq".into(), number(message.run_seq.0));
    headers.insert("traceparent".into(), text(&traceparent_of_run(&run_id)));
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message.message_id().into())
        .with_correlation_id(run_id.into())
        .with_type(message.event_type.into())
        .with_app_id("orchestrator".into())
        .with_headers(headers)
}

/// Symbol and number of an output, read back from the headers of its message.
pub(super) struct OutputNumber<'a> {
    symbol: &'a [u8],
    symbol_seq: i64,
}

impl<'a> OutputNumber<'a> {
    /// `None` for a message that is none of ours.
    pub(super) fn from_properties(properties: &'a BasicProperties) -> Option<Self> {
        let headers = properties.headers().as_ref()?.inner();
        let symbol = headers.get(SYMBOL)?.as_long_string()?.as_bytes();
        let symbol_seq = headers.get(SYMBOL_SEQ)?.as_long_long_int()?;
        Some(Self { symbol, symbol_seq })
    }

    pub(super) fn is_of_message(&self, message: &OutputMessage) -> bool {
        self.symbol_seq == to_signed(message.symbol_seq) && self.symbol == message.symbol.as_str().as_bytes()
    }
}

/// The wire has no unsigned 64-bit number; 2^63 outputs are out of reach.
fn to_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The run as a trace of its own: the first 16 bytes of its id name the trace, the next 8 the span.
///
/// Source: W3C Trace Context, "traceparent header", version 00.
fn traceparent_of_run(run_id: &str) -> String {
    let (trace, rest) = run_id.split_at_checked(32).unwrap_or((run_id, ""));
    let span = rest.get(..16).unwrap_or(rest);
    format!("00-{trace}-{span}-01")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
    use orchestrator_kernel::engine::run_id::RunId;
    use orchestrator_kernel::ids::{EngineMode, IngestSeq, RunSeq, Symbol, TsMs};
    use serde_json::json;

    use super::super::routing_key::routing_key;
    use super::*;

    fn message() -> OutputMessage {
        let symbol = Symbol::from("BTCUSDT");
        OutputMessage {
            run_seq: RunSeq(17),
            index: 1,
            run_id: RunId::derive(&symbol, TsMs(1_768_002_660_000), IngestSeq(218), EngineMode::Truth),
            event_type: event_type::RUN_COMPLETED,
            symbol,
            symbol_seq: 9,
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn properties_are_those_that_consumers_know() {
        let (properties, key) = (message_properties(&message()), routing_key(&message()));

        let shown = json!({
            "routing_key": key.as_str(),
            "content_type": properties.content_type(),
            "delivery_mode": properties.delivery_mode(),
            "message_id": properties.message_id(),
            "correlation_id": properties.correlation_id(),
            "type": properties.kind(),
            "app_id": properties.app_id(),
            "headers": headers(&properties),
        });
        let shown = format!("{shown:#}\n");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/amqp_properties.json");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(path).unwrap(), "consumers see it: BLESS=1 records it");
        let others =
            (properties.timestamp(), properties.expiration(), properties.reply_to(), properties.user_id());
        assert_eq!(others, (&None, &None, &None, &None));
    }

    fn headers(properties: &BasicProperties) -> serde_json::Value {
        let shown = |value: &AMQPValue| match value {
            AMQPValue::LongString(text) => json!(text.to_string()),
            AMQPValue::LongLongInt(number) => json!(number),
            other => panic!("{other:?} is not a type that every client reads"),
        };
        let headers = properties.headers().as_ref().unwrap().inner();
        headers.iter().map(|(name, value)| (name.to_string(), shown(value))).collect()
    }

    #[test]
    fn an_output_is_recognised_by_its_headers() {
        let (one, properties) = (message(), message_properties(&message()));
        let number = OutputNumber::from_properties(&properties).unwrap();

        assert!(number.is_of_message(&one));
        assert!(!number.is_of_message(&OutputMessage { symbol_seq: 10, ..one.clone() }));
        assert!(!number.is_of_message(&OutputMessage { symbol: Symbol::from("BTC"), ..one }));
        assert!(OutputNumber::from_properties(&BasicProperties::default()).is_none());
    }
}
