//! What comes in, and what does not fit.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{events_of, facts_of_every_event, style};
use crate::ids::TsMs;
use crate::trading::event::{
    EventNaming, EventStyle, INCOMING_EVENT_BYTES_MAX, IncomingEvent, IncomingMisfit, IncomingPayload,
    OrderNewsKind, SessionWord,
};

fn envelope(event_type: &str, payload: Value) -> Value {
    json!({
        "event_id": "e-1",
        "event_type": event_type,
        "schema_version": "1.0.0",
        "ts_event": "2026-01-09T23:51:00Z",
        "ts_ingest": "2026-01-09T23:51:00Z",
        "source": "ai-decision",
        "trace_id": "0102", "span_id": "03", "parent_span_id": null,
        "correlation_id": "c-1",
        "partition_key": "AAPL",
        "payload": payload,
        "tags": { "instrument_type": null, "venue": null, "jurisdiction": null, "env": "dev" },
        "idempotency_key": null,
        "sig": null,
    })
}

fn parse(topic: &str, body: &Value) -> Result<IncomingEvent, IncomingMisfit> {
    IncomingEvent::parse(topic, &EventNaming::default(), body.to_string().as_bytes())
}

fn payload_of(name: &str, payload: Value) -> Result<IncomingPayload, String> {
    parse(name, &envelope(name, payload)).map(|event| event.payload).map_err(|misfit| misfit.to_string())
}

#[test]
fn every_consumed_event_is_read_as_its_type() {
    use IncomingPayload as Payload;
    let decision = json!({"decisionId": "d", "symbol": "AAPL", "strategyId": "a", "action": "BUY",
        "confidence": 0.7, "reasoning": "up", "suggestedQuantity": 10});
    assert!(matches!(payload_of("ai.decision.generated", decision), Ok(Payload::Decision(_))));
    let judged = json!({"decisionId": "d", "symbol": "AAPL", "approved": false, "validationChecks": []});
    assert!(matches!(
        payload_of("ai.decision.validated", judged),
        Ok(Payload::DecisionJudged(judged)) if !judged.approved
    ));
    let beat = json!({"service": "market-data", "instance": "1", "status": "healthy", "uptime": 5});
    assert!(matches!(
        payload_of("system.heartbeat", beat),
        Ok(Payload::Heartbeat(beat)) if beat.service == "market-data"
    ));
    let error = json!({"service": "market-data", "errorCode": "E1", "message": "gone\n", "severity": "high"});
    assert!(matches!(
        payload_of("system.error.occurred", error),
        Ok(Payload::Error(error)) if error.to_line() == "market-data: E1: gone "
    ));
    let session = json!({"previousSession": "regular", "currentSession": "closed", "market": "XNYS"});
    assert!(matches!(
        payload_of("market.session.changed", session),
        Ok(Payload::Session(news)) if news.current == SessionWord::Closed
    ));
    let order = json!({"orderId": "o", "symbol": "AAPL", "filledQuantity": "5", "fillPrice": 150.1});
    for (last, kind) in [
        ("submitted", OrderNewsKind::Submitted),
        ("filled", OrderNewsKind::Filled),
        ("rejected", OrderNewsKind::Rejected),
        ("cancelled", OrderNewsKind::Cancelled),
        ("canceled", OrderNewsKind::Cancelled),
        ("expired", OrderNewsKind::Other),
    ] {
        let read = payload_of(&format!("trade.order.{last}"), order.clone());
        assert!(matches!(read, Ok(Payload::Order(news)) if news.kind == kind), "{last}");
    }
    let kill = |name: &str| payload_of(name, json!({"reason": "odd"}));
    assert!(matches!(kill("ordinis.ops.kill.activate.requested"), Ok(Payload::KillActivate(_))));
    assert!(matches!(kill("ordinis.ops.kill.deactivate.requested"), Ok(Payload::KillDeactivate(_))));
    assert!(matches!(
        payload_of("ordinis.ops.run.backtest.requested", json!({"capture": "day.jsonl"})),
        Ok(Payload::Backtest(asked)) if asked.capture == "day.jsonl"
    ));
    let escapes = payload_of("ordinis.ops.run.backtest.requested", json!({"capture": "../day.jsonl"}));
    assert!(escapes.is_err_and(|misfit| misfit.to_string().contains("capture")));
    assert_eq!(payload_of("ordinis.market.bar", json!({"close": 1})), Ok(Payload::Other));
}

/// Method: one field of a good event is spoiled at a time; the reason names it.
#[test]
fn what_does_not_fit_is_refused_with_the_field() {
    let name = "system.heartbeat";
    let good = envelope(name, json!({"service": "a"}));
    assert!(parse(name, &good).is_ok());
    for (field, value, said) in [
        ("event_id", json!(""), "event_id"),
        ("event_id", json!(7), "invalid type"),
        ("event_type", json!("system.error.occurred"), "came by the topic system.heartbeat"),
        ("schema_version", json!("2.0.0"), "schema_version"),
        ("ts_event", json!("yesterday"), "ts_event"),
        ("ts_event", json!("2026-01-09T23:51:00"), "ts_event"),
        ("ts_ingest", json!("x"), "ts_ingest"),
        ("source", json!("a\nb"), "source"),
        ("correlation_id", json!("x".repeat(129)), "correlation_id"),
        ("trace_id", json!(1), "invalid type"),
        ("tags", json!([]), "invalid type"),
        ("payload", json!([]), "payload"),
        ("payload", json!(null), "payload"),
        ("payload", json!({"service": 1}), "payload"),
        ("payload", json!({"service": "x".repeat(129)}), "payload.service"),
    ] {
        let mut bad = good.clone();
        bad[field] = value.clone();
        let misfit = parse(name, &bad).map_err(|misfit| misfit.to_string());
        assert!(misfit.as_ref().is_err_and(|misfit| misfit.contains(said)), "{field} {value}: {misfit:?}");
    }
    for field in
        ["event_id", "event_type", "schema_version", "ts_event", "source", "correlation_id", "payload"]
    {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        let misfit = parse(name, &bad).unwrap_err().to_string();
        assert!(misfit.contains(&format!("missing field `{field}`")), "{field}: {misfit}");
    }
    let twice = good.to_string().replacen('{', r#"{"event_id":"e-2","#, 1);
    for bytes in [twice.as_bytes(), b"", b"[]", b"{", b"\xff"] {
        let misfit = IncomingEvent::parse(name, &EventNaming::default(), bytes);
        assert!(matches!(misfit, Err(IncomingMisfit::NoEnvelope(_))), "{misfit:?}");
    }
    let large = vec![b' '; INCOMING_EVENT_BYTES_MAX + 1];
    let misfit = IncomingEvent::parse(name, &EventNaming::default(), &large);
    assert_eq!(misfit, Err(IncomingMisfit::TooLarge { bytes: INCOMING_EVENT_BYTES_MAX + 1 }));
    for (name, payload, said) in [
        (
            "trade.order.filled",
            json!({"orderId": "o", "symbol": "A", "filledQuantity": -1}),
            "filledQuantity",
        ),
        ("trade.order.filled", json!({"orderId": "o", "symbol": "A", "fillPrice": "NaN"}), "fillPrice"),
        ("trade.order.filled", json!({"orderId": "o", "symbol": ""}), "symbol"),
        ("market.session.changed", json!({"currentSession": "lunch"}), "lunch"),
        ("ai.decision.generated", json!({"decisionId": "d"}), "missing field"),
    ] {
        let misfit = payload_of(name, payload).unwrap_err();
        assert!(misfit.contains(said), "{name}: {misfit}");
    }
}

#[test]
fn the_prefix_is_taken_from_topic_and_type_alike() {
    let naming = EventNaming { prefix: "ai-trader".to_owned(), ..EventNaming::default() };
    let parse = |topic: &str, event_type: &str| {
        let body = envelope(event_type, json!({"service": "a"})).to_string();
        IncomingEvent::parse(topic, &naming, body.as_bytes()).map(|event| event.name)
    };
    for (topic, event_type) in [
        ("ai-trader.system.heartbeat", "ai-trader.system.heartbeat"),
        ("ai-trader.system.heartbeat", "system.heartbeat"),
        ("system.heartbeat", "ai-trader.system.heartbeat"),
    ] {
        assert_eq!(parse(topic, event_type).as_deref(), Ok("system.heartbeat"));
    }
    assert!(parse("other.system.heartbeat", "system.heartbeat").is_err());
}

/// What this service publishes fits its own reader.
#[test]
fn a_published_event_is_an_event_for_whoever_reads_strictly() {
    let style: EventStyle = style();
    for event in events_of(&facts_of_every_event()) {
        let message = event.to_message(&style);

        let read = IncomingEvent::parse(&message.topic, &style.naming, &message.body).unwrap();

        assert_eq!((read.event_id, read.at), (message.event_id, event.at));
        assert_eq!(read.at, TsMs(super::WALL + 12));
        assert_eq!(read.correlation, event.correlation);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(IncomingEvent::parse("a", &EventNaming::default(), &bytes).is_err());
    }

    /// Method: a good event with one byte changed is read or refused, and never something else than it says.
    #[test]
    fn an_altered_event_is_read_as_it_stands_there_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let body = json!({"decisionId": "d", "symbol": "AAPL", "strategyId": "a", "action": "BUY",
            "confidence": 0.7, "reasoning": "up", "suggestedQuantity": 10, "suggestedPrice": "150.5"});
        let mut bytes = envelope("ai.decision.generated", body).to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;

        if let Ok(event) = IncomingEvent::parse("ai.decision.generated", &EventNaming::default(), &bytes) {
            prop_assert!(matches!(event.payload, IncomingPayload::Decision(_)));
        }
    }
}
