//! JSON from producers, engines and operators.

use std::fmt;

use bytes::Bytes;
use orchestrator_kernel::engine::contracts::raw_market_event::{self, Names, SNAPSHOT_INPUTS, normalized};
use orchestrator_kernel::engine::engine_protocol::{Hello, RequestBody, read_answer};
use orchestrator_kernel::error::ERROR_DETAIL_BYTES_MAX;
use orchestrator_kernel::ids::{EngineMode, Symbol, TsMs};
use orchestrator_kernel::json::{DEPTH_MAX, JsonError, canonical};
use orchestrator_kernel::kill_switch::{OperatorCommand, Refusal, Stored, TradingState, decide};
use orchestrator_kernel::ports::engine::{EngineAnswer, EngineCall};
use orchestrator_kernel::trading::decision::TradeDecision;
use orchestrator_kernel::trading::ids::StrategyName;
use orchestrator_kernel::trading::stage_protocol::{read_fixed_answer, read_hook_answer, read_stage_answer};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{check_error, check_line, choice};

/// The members of one JSON object, in order, doubles included: a second reading to compare with.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl Members {
    fn of(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// How often a member comes.
    fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(key, _)| key == name).count()
    }

    /// The text of a member that comes exactly once.
    fn only(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.get());
        value.filter(|_| self.count(name) == 1)
    }

    /// Its value, when it has this type.
    fn read<'a, T: Deserialize<'a>>(&'a self, name: &str) -> Option<T> {
        serde_json::from_str(self.only(name)?).ok()
    }
}

fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok() && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Whether the members are those of the envelope (CONTRACTS §1).
fn is_envelope(found: &Members) -> bool {
    let text = |name| found.read::<String>(name);
    text("schema").is_some_and(|schema| schema == "raw_market_event")
        && text("schema_version").is_some_and(|version| version == "1")
        && text("event_type").is_some()
        && text("source_id").is_some()
        && text("symbol").is_some_and(|symbol| Symbol::is_valid(&symbol))
        && found.read::<Option<i64>>("exchange_ts_ms").is_some()
        && found.read::<i64>("recv_ts_ms").is_some()
        && found.only("raw_payload").is_some_and(|payload| payload.starts_with('"'))
        && found.only("normalized").is_some_and(|normalized| normalized.starts_with('{'))
}

/// A receipt is accepted exactly when it is one object with the envelope's members; its bytes stay as they came.
pub(super) fn raw_market_event(input: &[u8]) {
    let found = std::str::from_utf8(input).ok().and_then(|_| Members::of(input));
    let bytes = Bytes::copy_from_slice(input);
    let mut names = Names::default();
    match raw_market_event::decode(bytes.clone(), &mut names) {
        Ok(receipt) => {
            let found = found.filter(is_envelope).expect("accepted, but it has no envelope");
            assert_eq!(receipt.bytes, input, "LOG-4");
            assert_eq!(found.read::<String>("symbol").as_deref(), Some(receipt.symbol.as_str()));
            assert_eq!(found.read::<i64>("recv_ts_ms"), Some(receipt.recv_ts_ms.0));
            assert_eq!(
                found.read::<Option<i64>>("exchange_ts_ms"),
                Some(receipt.exchange_ts_ms.map(|ts| ts.0))
            );
            assert_eq!(normalized(input), found.only("normalized"), "what was stored is found again");
            assert!(receipt.snapshot_ts_ms.is_none() || receipt.event_type.as_str() == SNAPSHOT_INPUTS);
            assert_eq!(
                raw_market_event::decode(bytes, &mut names).as_ref(),
                Ok(&receipt),
                "names are shared"
            );
        }
        Err(why) => {
            assert!(
                !found.is_some_and(|found| is_envelope(&found)),
                "refused, but it has an envelope: {why}"
            );
            check_error(&why.to_string());
            assert!(!why.reason().is_empty());
        }
    }
}

/// How deep brackets nest outside of strings. Only of valid JSON.
fn depth_of(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn has_number(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::Null | Value::Bool(_) | Value::String(_) => false,
        Value::Array(items) => items.iter().any(has_number),
        Value::Object(members) => members.values().any(has_number),
    }
}

/// JSON has a canonical form exactly when serde_json reads it and it is not too deep; the form means the same.
pub(super) fn canonical_json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let value: Result<Value, _> = serde_json::from_str(text);
    match canonical(text) {
        Ok(form) => {
            assert!(is_json(input) && depth_of(text) <= DEPTH_MAX, "accepted, but it is no JSON");
            assert_eq!(canonical(&form).as_ref(), Ok(&form), "not idempotent");
            assert!(form.len() <= text.len(), "longer than what it is made of");
            match value {
                Ok(value) => {
                    // Numbers stay as they came; without one the forms of both are the same bytes.
                    if !has_number(&value) {
                        assert_eq!(form, value.to_string(), "sorted, compact, no key twice");
                    }
                    assert_eq!(serde_json::from_str::<Value>(&form).ok(), Some(value));
                }
                // Digits stay digits: a number beyond what a double can hold is still a number.
                Err(error) => assert!(error.to_string().starts_with("number out of range"), "{error}"),
            }
        }
        Err(why) => {
            check_error(&why.to_string());
            match why {
                JsonError::TooDeep { at } => {
                    let up_to = |end: usize| text.get(..end).map(depth_of);
                    assert_eq!(up_to(at), Some(DEPTH_MAX), "byte {at}");
                    assert_eq!(up_to(at + 1), Some(DEPTH_MAX + 1), "byte {at}");
                }
                JsonError::Malformed { .. } => assert!(value.is_err(), "serde_json reads it: {why}"),
            }
        }
    }
}

fn check_canonical_object(text: &str) {
    assert!(text.starts_with('{'), "no object");
    assert_eq!(canonical(text).as_deref(), Ok(text), "not canonical");
}

/// Only one object with this id and `ok` is an answer; what is taken from it is canonical, and its errors are bounded.
pub(super) fn engine_answer(input: &[u8]) {
    const ID: u64 = 7;
    let (kind, line) = choice(input);
    let mode = if kind.is_multiple_of(2) { EngineMode::Truth } else { EngineMode::Hysteresis };
    let found = Members::of(line);
    let id = found.as_ref().and_then(|found| found.read::<u64>("id"));
    let ok = found.as_ref().and_then(|found| found.read::<bool>("ok"));
    match read_answer(line, ID, mode) {
        Ok(Ok(answer)) => {
            assert_eq!((id, ok), (Some(ID), Some(true)));
            match answer {
                EngineAnswer::Truth { regime_output } => check_canonical_object(&regime_output),
                EngineAnswer::Hysteresis { decision, state } => {
                    check_canonical_object(&decision);
                    check_canonical_object(&state);
                }
            }
        }
        Ok(Err(failure)) => {
            assert_eq!(id, Some(ID));
            assert!(ok.is_some());
            check_error(&failure.detail);
            assert!(failure.detail.len() <= ERROR_DETAIL_BYTES_MAX);
        }
        Err(why) => check_error(&why.to_string()),
    }
    if let Ok(hello) = serde_json::from_slice::<Hello>(line) {
        assert!(serde_json::from_slice::<IgnoredAny>(line).is_ok(), "{hello:?}");
    }
}

/// Only one object with `ok` is an answer of a stage or hook; what is taken from it is bounded and canonical.
pub(super) fn stage_answer(input: &[u8]) {
    let (kind, answer) = choice(input);
    let found = Members::of(answer);
    let ok = found.as_ref().and_then(|found| found.read::<bool>("ok"));
    let asked = StrategyName::new("a").filter(|_| kind.is_multiple_of(2));
    match read_stage_answer(answer, None, asked.as_ref()) {
        Ok(Ok(output)) => {
            assert_eq!(ok, Some(true));
            assert!(output.data.is_empty() || canonical(&output.data).as_ref() == Ok(&output.data));
            for decision in &output.decisions {
                assert!(asked.as_ref().is_none_or(|asked| *asked == decision.strategy));
                assert!(decision.reasoning.len() <= ERROR_DETAIL_BYTES_MAX);
                let again = TradeDecision::from_json(&decision.to_json().to_string());
                assert_eq!(again.as_ref(), Ok(decision), "written and read again");
            }
        }
        Ok(Err(failure)) => {
            assert!(ok.is_some());
            check_error(&failure.detail);
            assert!(failure.detail.len() <= ERROR_DETAIL_BYTES_MAX);
        }
        Err(why) => check_error(&why.to_string()),
    }
    if let Ok(Ok(vote)) = read_hook_answer(answer, None) {
        assert_eq!(ok, Some(true));
        assert!(found.is_some_and(|found| found.read::<String>("decision").is_some()));
        assert!(vote.reasons.iter().all(|reason| reason.len() <= ERROR_DETAIL_BYTES_MAX));
    }
    if let Ok(output) = std::str::from_utf8(answer).map(|text| read_fixed_answer(text, None)) {
        assert!(output.is_err() || ok != Some(false), "a configured failure is one");
    }
}

/// What a receipt brought goes to the engine as it came, on one line.
pub(super) fn engine_request(input: &[u8]) {
    let (kind, inputs) = choice(input);
    let is_object = is_json(inputs) && inputs.trim_ascii_start().starts_with(b"{");
    let Some(inputs) = std::str::from_utf8(inputs).ok().filter(|_| is_object) else { return };
    let (mode, member) = match kind.is_multiple_of(2) {
        true => (EngineMode::Truth, "run"),
        false => (EngineMode::Hysteresis, "run_with_hysteresis"),
    };
    let state = canonical(inputs).ok();
    let call = EngineCall {
        symbol: Symbol::from("A\"\\é"),
        engine_timestamp_ms: TsMs(i64::MIN),
        mode,
        inputs: inputs.to_owned(),
        state,
    };
    let mut line = b"what stood there before".to_vec();
    RequestBody::new(&call, "{}").write_line(u64::MAX, &mut line);

    let body = line.strip_suffix(b"\n").expect("a line has its end");
    assert!(!body.contains(&b'\n') && !body.contains(&b'\r'), "more than one line");
    let request = Members::of(body).expect("an object");
    assert_eq!(request.read::<u64>("id"), Some(u64::MAX));
    assert_eq!(request.read::<&str>("op"), Some(member));
    let snapshot =
        request.only("snapshot").and_then(|text| Members::of(text.as_bytes())).expect("a snapshot");
    assert_eq!(snapshot.read::<String>("symbol").as_deref(), Some(call.symbol.as_str()));
    let sent = snapshot.only("inputs").expect("the inputs");
    let tokens = |text: &str| text.replace(['\n', '\r'], " ").trim().to_owned();
    assert_eq!(tokens(sent), tokens(inputs), "digit by digit");
}

/// Only the values that are listed allow effects; whatever is stored can be stopped, and says why it is unknown.
pub(super) fn kill_switch(input: &[u8]) {
    let stored = Stored::Value(Bytes::copy_from_slice(input));
    let reading = TradingState::of_stored(&stored);
    let record = Members::of(input).filter(|_| std::str::from_utf8(input).is_ok());
    let state = record.and_then(|found| found.read::<String>("state"));
    match &reading {
        TradingState::Trading => {
            let is_word = [b"disengaged" as &[u8], b"0", b"false", b"off"].contains(&input);
            assert!(is_word || state.as_deref() == Some("ACTIVE"), "KILL-1: that allows nothing");
        }
        TradingState::Halted(halt) => {
            let is_word = [b"engaged" as &[u8], b"1", b"true", b"on"].contains(&input);
            assert!(is_word || state.as_deref() == Some("ENGAGED"));
            let parts = [&halt.by, &halt.reason, &halt.at].into_iter().flatten();
            parts.for_each(|part| {
                assert!(part.len() <= ERROR_DETAIL_BYTES_MAX && !part.contains(char::is_control))
            });
            check_line(&halt.to_string());
        }
        TradingState::Unknown(why) => check_error(&why.to_string()),
    }

    let operator = || "o".to_owned();
    let engage = OperatorCommand::Engage { operator: operator(), reason: "r".to_owned(), details: None };
    match decide(&stored, &engage, TsMs(0)) {
        Ok(change) => {
            let written = Stored::Value(Bytes::from(change.value));
            assert!(matches!(TradingState::of_stored(&written), TradingState::Halted(_)), "engaging stops");
            check_line(&change.entry);
        }
        Err(refusal) => {
            assert_eq!(refusal, Refusal::AlreadyEngaged);
            assert!(matches!(reading, TradingState::Halted(_)), "it does not stop, and engaging is refused");
        }
    }
    let disengage = OperatorCommand::Disengage { operator: operator(), notes: None };
    let lifted = decide(&stored, &disengage, TsMs(0)).is_ok();
    assert_eq!(lifted, matches!(reading, TradingState::Halted(_)), "KILL-2: only what is halted is lifted");
    assert!(
        decide(&stored, &OperatorCommand::Init { operator: operator() }, TsMs(0)).is_err(),
        "KILL-2: not missing"
    );
}
