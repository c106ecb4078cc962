//! The wire form of outputs: which events, in which order, with which fields, and what they are numbered.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::engine::contracts::engine_run::{CutRange, RunFacts};
use crate::engine::run::Attempts;
use crate::engine::run_id::RunId;
use crate::ids::{CutKind, Symbol};
use crate::ports::engine::{EngineError, EngineIdentity};

fn facts(engine_mode: EngineMode) -> RunFacts {
    let (symbol, engine_timestamp_ms, end) =
        (Symbol::from("BTCUSDT"), TsMs(1_768_002_660_000), IngestSeq(218));
    RunFacts {
        run_id: RunId::derive(&symbol, engine_timestamp_ms, end, engine_mode),
        symbol,
        engine_timestamp_ms,
        engine_mode,
        cut: CutRange { kind: CutKind::Boundary, start: IngestSeq(1), end },
        planned_ts_ms: TsMs(1_768_002_662_000),
        started_ts_ms: TsMs(1_768_002_662_001),
        snapshot_seq: Some(IngestSeq(217)),
        counts_by_event_type: BTreeMap::from([(EventType::from("TradeTick"), 3), (EventType::from("a"), 1)]),
        symbol_seq: 41,
    }
}

fn truth(regime_output: &str) -> EngineAnswer {
    EngineAnswer::Truth { regime_output: regime_output.to_owned() }
}

fn hysteresis(decision: &str) -> EngineAnswer {
    EngineAnswer::Hysteresis { decision: decision.to_owned(), state: "{}".to_owned() }
}

fn completed(answer: EngineAnswer, errors: u32) -> RunRecord {
    let mode = match answer {
        EngineAnswer::Truth { .. } => EngineMode::Truth,
        EngineAnswer::Hysteresis { .. } => EngineMode::Hysteresis,
    };
    with_errors(mode, errors).completed_record(answer, EngineIdentity::default(), TsMs(9))
}

fn with_errors(mode: EngineMode, errors: u32) -> Attempts {
    let mut attempts = Attempts::first_attempt(facts(mode));
    (0..errors).for_each(|_| {
        attempts.note_error();
        attempts.note_retry();
    });
    attempts
}

fn check_events(record: &RunRecord) -> Vec<OutputMessage> {
    let outputs = events(RunSeq(7), record, None).unwrap();
    assert_eq!(outputs.len() as u64, outputs_of(record));
    outputs
}

fn body(output: &OutputMessage) -> Value {
    serde_json::from_slice(&output.body).unwrap()
}

fn kinds_and_attempts(record: &RunRecord) -> Vec<(&'static str, u64)> {
    check_events(record)
        .iter()
        .map(|output| (output.event_type, body(output)["attempt"].as_u64().unwrap()))
        .collect()
}

#[test]
fn a_run_that_has_not_ended_makes_no_event() {
    assert!(check_events(&Attempts::first_attempt(facts(EngineMode::Truth)).started_record()).is_empty());
}

#[test]
fn an_answered_run_makes_its_events_in_order() {
    assert_eq!(
        kinds_and_attempts(&completed(truth("{}"), 0)),
        [("EngineRunStarted", 1), ("EngineRunCompleted", 1)]
    );
    assert_eq!(
        kinds_and_attempts(&completed(hysteresis(r#"{"selected_output":{}}"#), 2)),
        [("EngineRunStarted", 1), ("HysteresisDecisionPublished", 3), ("EngineRunCompleted", 3)]
    );
}

#[test]
fn a_failed_run_says_after_how_many_answers() {
    let error = EngineError::no_answer(ErrorKind::EngineTimeout, "no answer within 2s");
    let mut attempts = with_errors(EngineMode::Truth, 1);
    attempts.note_error();

    let record = attempts.failed_record(&error, TsMs(9));

    assert_eq!(kinds_and_attempts(&record), [("EngineRunStarted", 1), ("EngineRunFailed", 2)]);
    assert_eq!(
        body(&check_events(&record)[1])["payload"],
        json!({"error_detail": "no answer within 2s", "error_kind": "engine_timeout"})
    );
    let unasked = Attempts::new(facts(EngineMode::Truth), 0).failed_record(&error, TsMs(9));
    assert_eq!(kinds_and_attempts(&unasked), [("EngineRunStarted", 1), ("EngineRunFailed", 1)]);
}

/// An attempt that a crash cut off is in `attempts` but must not show outside: replay could not know of it.
#[test]
fn what_a_crash_interrupted_does_not_show() {
    let calm = completed(truth("{}"), 0);
    let mut again = Attempts::new(facts(EngineMode::Truth), 1);
    again.note_retry();

    let crashed = again.completed_record(truth("{}"), EngineIdentity::default(), TsMs(77));

    assert_eq!(check_events(&crashed), check_events(&calm));
}

#[test]
fn an_event_has_every_field_in_order_and_nothing_between() {
    let outputs = check_events(&completed(truth(r#"{"b":1.50,"a":[1e400,"\u00e9"]}"#), 0));

    assert_eq!(
        std::str::from_utf8(&outputs[1].body).unwrap(),
        concat!(
            r#"{"attempt":1,"counts_by_event_type":{"TradeTick":3,"a":1},"cut_end_ingest_seq":218,"#,
            r#""cut_kind":"boundary","cut_start_ingest_seq":1,"engine_mode":"truth","#,
            r#""engine_timestamp_ms":1768002660000,"event_type":"EngineRunCompleted","#,
            r#""payload":{"regime_output":{"b":1.50,"a":[1e400,"\u00e9"]}},"published_ts_ms":null,"#,
            r#""run_id":"358bd5f742d23c0da60a487a8241cc0ba801a42e1c2d5bb8e467842206a4848f","#,
            r#""schema":"orchestrator_event","schema_version":"1","symbol":"BTCUSDT"}"#,
        )
    );
    assert_eq!(body(&outputs[0])["payload"], json!({}));
}

#[test]
fn outputs_are_named_and_numbered() {
    let record = completed(hysteresis(r#"{"selected_output":{}}"#), 0);
    let id = record.facts.run_id;

    let outputs = events(RunSeq(7), &record, Some(TsMs(5))).unwrap();

    assert_eq!(outputs.iter().map(|output| output.symbol_seq).collect::<Vec<_>>(), [41, 42, 43]);
    assert_eq!(outputs.iter().map(OutputMessage::stream_id).collect::<Vec<_>>(), ["7.0", "7.1", "7.2"]);
    assert_eq!(outputs[1].message_id(), format!("{id}:HysteresisDecisionPublished"));
    assert_eq!(body(&outputs[2])["published_ts_ms"], 5);
}

#[test]
fn the_completed_event_of_a_decision_holds_its_selected_output() {
    let decision =
        r#"{"effective_confidence":0.50,"selected_output":{"regime":"TREND_BUILD_UP"},"transition":{}}"#;

    let outputs = check_events(&completed(hysteresis(decision), 0));

    assert!(
        std::str::from_utf8(&outputs[1].body)
            .unwrap()
            .contains(&format!(r#"{{"hysteresis_decision":{decision}}}"#))
    );
    assert_eq!(body(&outputs[2])["payload"], json!({"regime_output": {"regime": "TREND_BUILD_UP"}}));
}

#[test]
fn an_answer_that_is_no_json_is_an_error_that_names_the_run() {
    for answer in [truth("{"), truth(""), hysteresis("{}"), hysteresis("[]"), hysteresis("nope")] {
        let record = completed(answer, 0);

        let error = events(RunSeq(1), &record, None).unwrap_err();

        assert_eq!(error.run_id, record.facts.run_id.to_string());
    }
}

proptest! {
    /// Method: any names and details; the body parses, and writing it sorted and compact gives the same bytes.
    #[test]
    fn every_body_is_sorted_compact_json_with_all_fields(
        symbol in "\\PC{1,20}", kinds in prop::collection::btree_map("\\PC{0,9}", 1..9u64, 0..5), detail in any::<String>(),
    ) {
        let counts = kinds.iter().map(|(name, count)| (EventType::from(name.as_str()), *count)).collect();
        let facts = RunFacts {
            symbol: Symbol::from(symbol.as_str()),
            counts_by_event_type: counts,
            ..facts(EngineMode::Truth)
        };
        let error = EngineError::from_engine(ErrorKind::EngineFailure, detail);
        let record = Attempts::new(facts, 1).failed_record(&error, TsMs(9));

        for output in check_events(&record) {
            let fields: BTreeMap<String, Value> = serde_json::from_slice(&output.body).unwrap();
            prop_assert_eq!(&serde_json::to_vec(&fields).unwrap(), &output.body);
            prop_assert_eq!(
                fields.keys().map(String::as_str).collect::<Vec<_>>(),
                ["attempt", "counts_by_event_type", "cut_end_ingest_seq", "cut_kind", "cut_start_ingest_seq",
                 "engine_mode", "engine_timestamp_ms", "event_type", "payload", "published_ts_ms", "run_id",
                 "schema", "schema_version", "symbol"]
            );
            prop_assert_eq!(fields["symbol"].as_str(), Some(symbol.as_str()));
        }
    }
}
