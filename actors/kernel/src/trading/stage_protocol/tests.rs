//! The wire form of requests, and what is an answer.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::engine::engine_protocol::OutOfStep;
use crate::json::canonical;
use crate::ports::stage::{HookRequest, StageRequest};
use crate::ports::stage_conformance::{hook_answers, sample_question, sample_request};
use crate::trading::gate::HookError;
use crate::trading::ids::StrategyName;
use crate::trading::journal::{StageError, StageErrorKind, StageOutput, StrategyFailure};
use crate::trading::risk::{RiskOutcome, RiskRule, RiskVerdict};
use crate::trading::testkit::{dec, decision, decision_id, stage_name, strategy_name};

fn verdicts() -> Vec<RiskVerdict> {
    let allowed = RiskOutcome::Allowed {
        quantity: dec("7"),
        price: dec("150.10"),
        lowered_by: vec![RiskRule::Capital],
    };
    let denied = RiskOutcome::Denied(RiskRule::PriceUnavailable);
    let outcomes = [("d-1", allowed), ("d-2", RiskOutcome::Held), ("d-3", denied)];
    outcomes.map(|(id, outcome)| RiskVerdict { decision_id: decision_id(id), outcome }).into()
}

fn stage_request() -> StageRequest {
    let mut request = sample_request(2);
    let started = Arc::make_mut(&mut request.started);
    started.strategies = vec![strategy_name("a"), strategy_name("b")];
    let failed = StrategyFailure {
        strategy: strategy_name("b"),
        error: StageError::new(StageErrorKind::Timeout, "no decision within the stage's budget"),
    };
    let judged = StageOutput { verdicts: verdicts(), failures: vec![failed], ..StageOutput::default() };
    let of_data = |data: &str| StageOutput { data: data.to_owned(), ..StageOutput::default() };
    request.outputs = Arc::new(vec![
        (stage_name("ING"), of_data(r#"{"prices":{ "MSFT":300.505,"AAPL":"150.10" }}"#)),
        (stage_name("FEAT"), of_data("no JSON")),
        (stage_name("RISK"), judged),
    ]);
    request.decisions = Arc::new(vec![decision("d-1", "a", "AAPL", "10.5")]);
    StageRequest {
        strategy: Some(strategy_name("a")),
        attempt: 2,
        time_left: Duration::from_micros(999_500),
        ..request
    }
}

fn hook_request() -> HookRequest {
    let mut question = sample_question("compliance");
    question.hook.budget = Duration::from_millis(50);
    question.decisions = Arc::new(vec![decision("d-1", "a", "AAPL", "10.5")]);
    question
}

#[test]
fn requests_have_the_golden_bytes_of_version_1() {
    const GOLDEN: &str = include_str!("../../../../../tests/golden/stage_requests_v1.ndjson");
    let written = [stage_request_json(&stage_request()), hook_request_json(&hook_request())];

    for text in &written {
        assert_eq!(canonical(text).as_ref(), Ok(text), "canonical as it is written");
    }
    assert_eq!(format!("{}\n", written.join("\n")), GOLDEN);
}

#[test]
fn a_question_is_named_by_cycle_stage_strategy_and_attempt() {
    let request = stage_request();
    let cycle = request.started.cycle_id;

    assert_eq!(request.question_key(), format!("{cycle}/SIG/a/2"));
    assert_eq!(StageRequest { strategy: None, ..request }.question_key(), format!("{cycle}/SIG//2"));
    assert_eq!(hook_request().question_key(), format!("{cycle}/compliance/before"));
}

fn read(text: &str) -> Result<StageOutput, StageError> {
    read_stage_answer(text.as_bytes(), None, None).expect("an answer")
}

#[test]
fn answers_of_version_1_are_read_as_ever() {
    const GOLDEN: &str = include_str!("../../../../../tests/golden/stage_answers_v1.ndjson");
    let lines: Vec<&str> = GOLDEN.lines().collect();
    let [signals, risk, failed, hooks @ ..] = lines.as_slice() else { panic!("{lines:?}") };

    let expected = StageOutput {
        data: r#"{"seen":2}"#.to_owned(),
        decisions: vec![decision("d-1", "a", "AAPL", "10.5")],
        failures: vec![StrategyFailure {
            strategy: strategy_name("b"),
            error: StageError::new(StageErrorKind::Provider, "no model"),
        }],
        ..StageOutput::default()
    };
    assert_eq!(read(signals), Ok(expected));
    assert_eq!(read(risk), Ok(StageOutput { verdicts: verdicts(), ..StageOutput::default() }));
    assert_eq!(read(failed), Err(StageError::new(StageErrorKind::Provider, "no features")));
    assert_eq!(hooks.len(), hook_answers().len());
    for (line, (hook, answer)) in hooks.iter().zip(hook_answers()) {
        assert_eq!(read_hook_answer(line.as_bytes(), None), Ok(Ok(answer)), "{hook}");
    }
}

#[test]
fn what_a_provider_says_of_its_failure_is_kept() {
    let failed = read(r#"{"ok":false,"error_detail":"no\nfeatures"}"#).unwrap_err();
    assert_eq!(failed, StageError { kind: StageErrorKind::Provider, detail: "no features".to_owned() });
    assert_eq!(read(r#"{"ok":false}"#).unwrap_err().detail, "the provider gave no detail");
    let hook = read_hook_answer(br#"{"ok":false,"error_detail":"away","decision":"allow"}"#, None).unwrap();
    assert_eq!(hook, Err(HookError::Failed("away".to_owned())));
}

#[test]
fn what_is_no_answer_is_out_of_step() {
    for text in [
        "",
        "hello",
        "[]",
        "{}",
        "[null,true]",
        r#"{"ok":1}"#,
        r#"{"ok":true,"ok":true}"#,
        r#"{"decision":"allow"}"#,
    ] {
        let stage = read_stage_answer(text.as_bytes(), None, None);
        assert!(matches!(stage, Err(OutOfStep::NotAnAnswer { .. })), "{text}: {stage:?}");
        let hook = read_hook_answer(text.as_bytes(), None);
        assert!(matches!(hook, Err(OutOfStep::NotAnAnswer { .. })), "{text}: {hook:?}");
    }
    assert!(read_stage_answer(b"{\"ok\":true,\"x\":\"\xff\"}", None, None).is_err());
    let other = read_stage_answer(br#"{"id":6,"ok":true}"#, Some(7), None);
    assert_eq!(other, Err(OutOfStep::WrongId { expected: 7, found: 6 }));
    assert!(read_stage_answer(br#"{"ok":true}"#, Some(7), None).is_err());
    assert_eq!(read_stage_answer(br#"{"id":7,"ok":true}"#, Some(7), None), Ok(Ok(StageOutput::default())));
}

/// Nothing of an answer counts when a part of it cannot be: it is in step all the same.
#[test]
fn an_answer_with_a_part_that_cannot_be_is_garbage() {
    let decision =
        r#"{"decisionId":"d","symbol":"A","strategyId":"a","action":"BUY","confidence":0.5,"reasoning":""}"#;
    let good = format!(r#"{{"ok":true,"decisions":[{decision}]}}"#);
    assert_eq!(read(&good).unwrap().decisions.len(), 1);
    for bad in [
        r#"{"ok":true,"data":{"a":"\ud800"}}"#.to_owned(),
        r#"{"ok":true,"decisions":null}"#.to_owned(),
        r#"{"ok":true,"decisions":[{}]}"#.to_owned(),
        good.replace("0.5", "1.5"),
        good.replace("BUY", "buy"),
        r#"{"ok":true,"verdicts":[{"decisionId":"d","outcome":"allowed","quantity":"1"}]}"#.to_owned(),
        r#"{"ok":true,"verdicts":[{"decisionId":"d","outcome":"allowed","quantity":"NaN","price":"1"}]}"#
            .to_owned(),
        r#"{"ok":true,"verdicts":[{"decisionId":"d","outcome":"maybe"}]}"#.to_owned(),
        r#"{"ok":true,"failures":[{"strategyId":"a b","detail":""}]}"#.to_owned(),
    ] {
        let error = read(&bad).unwrap_err();
        assert_eq!(error.kind, StageErrorKind::Garbage, "{bad}: {error}");
    }
}

/// One that is asked for strategy `a` decides nothing for `b`: that one is asked for itself, and may have failed.
#[test]
fn a_decision_of_another_strategy_than_asked_for_is_garbage() {
    let answer = r#"{"ok":true,"decisions":[{"decisionId":"d","symbol":"A","strategyId":"b","action":"BUY","confidence":0.5,"reasoning":""}]}"#;
    let read = |asked: &StrategyName| read_stage_answer(answer.as_bytes(), None, Some(asked)).unwrap();

    assert!(read(&strategy_name("b")).is_ok());
    let refused = read(&strategy_name("a")).unwrap_err();
    assert_eq!(refused.kind, StageErrorKind::Garbage);
    assert_eq!(refused.detail, "decision d is of strategy b, and a was asked for");
}

#[test]
fn a_fixed_answer_gives_each_strategy_its_own_part_and_refuses_what_means_nothing() {
    let of = |id: &str, strategy: &str| decision(id, strategy, "AAPL", "1").to_json().to_string();
    let text = format!(r#"{{"data":{{"echo":1}},"decisions":[{},{}]}}"#, of("d-1", "a"), of("d-2", "b"));

    let ids = |asked: Option<&str>| {
        let asked = asked.map(strategy_name);
        let output = read_fixed_answer(&text, asked.as_ref()).unwrap();
        assert_eq!(output.data, r#"{"echo":1}"#);
        output.decisions.iter().map(|decision| decision.decision_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(Some("b")), ["d-2"]);
    assert_eq!(ids(None), ["d-1", "d-2"]);
    assert_eq!(read_fixed_answer("{}", None), Ok(StageOutput::default()));
    assert_eq!(read_fixed_answer(r#"{"ok":false}"#, None).unwrap_err().kind, StageErrorKind::Provider);
    for bad in ["", "[]", r#"{"echo":1}"#, r#"{"ok":true,"decision":"allow"}"#, r#"{"decisions":[{}]}"#] {
        assert_eq!(read_fixed_answer(bad, None).unwrap_err().kind, StageErrorKind::Garbage, "{bad}");
    }
}

#[test]
fn a_patch_that_is_not_understood_fails_its_hook() {
    let newer = read_hook_answer(br#"{"ok":true,"decision":"allow","new":1,"patch":[]}"#, None);
    assert_eq!(newer, Ok(Ok(hook_answers().remove(0).1)));
    for patch in [
        r#"[{"decisionId":"d-1"}]"#,
        r#"[{"decisionId":"d-1","drop":true,"quantity":1}]"#,
        r#"[{"decisionId":"d-1","quantity":"many"}]"#,
        r#"[{"decisionId":"d-1","quantity":1,"side":"SELL"}]"#,
        r#"[{"quantity":1}]"#,
        "{}",
    ] {
        let answer = format!(r#"{{"ok":true,"decision":"modify","patch":{patch}}}"#);
        let read = read_hook_answer(answer.as_bytes(), None).unwrap();
        assert!(matches!(read, Err(HookError::Failed(_))), "{patch}: {read:?}");
    }
    for word in ["maybe", "ALLOW", ""] {
        let answer = format!(r#"{{"ok":true,"decision":"{word}"}}"#);
        assert!(matches!(read_hook_answer(answer.as_bytes(), None), Ok(Err(HookError::Failed(_)))), "{word}");
    }
}

#[test]
fn a_rule_of_a_provider_is_one_of_ours_or_provider() {
    let rule = |word: &str| {
        let text = format!(r#"{{"ok":true,"verdicts":[{{"decisionId":"d","outcome":"denied"{word}}}]}}"#);
        read(&text).unwrap().verdicts.remove(0).outcome
    };
    assert_eq!(rule(r#","rule":"capital""#), RiskOutcome::Denied(RiskRule::Capital));
    assert_eq!(rule(r#","rule":"house rule 7""#), RiskOutcome::Denied(RiskRule::Provider));
    assert_eq!(rule(""), RiskOutcome::Denied(RiskRule::Provider));
}
