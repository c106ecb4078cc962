//! Answers, read.

use std::borrow::Cow;
use std::collections::BTreeSet;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::engine::engine_protocol::OutOfStep;
use crate::error::bounded_detail;
use crate::json;
use crate::trading::decision::TradeDecision;
use crate::trading::gate::{HookAnswer, HookError, HookVote, Narrowing};
use crate::trading::ids::{DecisionId, StrategyName};
use crate::trading::journal::{StageError, StageErrorKind, StageOutput, StrategyFailure};
use crate::trading::risk::{RiskOutcome, RiskRule, RiskVerdict};
use crate::trading::wire_values::decimal_of_json;

/// Reasons of a hook that are looked at; its denial counts with any number of them.
const REASONS_MAX: usize = 16;

/// What every answer has: whether it is one, and to what.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Envelope<'a> {
    id: Option<u64>,
    ok: Option<bool>,
    #[serde(borrow)]
    error_detail: Option<Cow<'a, str>>,
}

/// The members of a good stage's answer.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct StageAnswerBody<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    decisions: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    verdicts: Vec<VerdictAnswer<'a>>,
    #[serde(default)]
    failures: Vec<FailureAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
struct VerdictAnswer<'a> {
    decision_id: DecisionId,
    outcome: VerdictWord,
    #[serde(borrow)]
    quantity: Option<&'a RawValue>,
    #[serde(borrow)]
    price: Option<&'a RawValue>,
    #[serde(default)]
    lowered_by: Vec<String>,
    rule: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum VerdictWord {
    Allowed,
    Held,
    Denied,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
struct FailureAnswer {
    strategy_id: StrategyName,
    detail: String,
}

/// The members of a good hook's answer.
#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct HookAnswerBody<'a> {
    decision: VoteWord,
    #[serde(default)]
    reasons: Vec<String>,
    #[serde(borrow, default)]
    patch: Vec<PatchEntry<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum VoteWord {
    Allow,
    Deny,
    Modify,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[serde(expecting = "an object")]
struct PatchEntry<'a> {
    decision_id: DecisionId,
    drop: Option<bool>,
    #[serde(borrow)]
    quantity: Option<&'a RawValue>,
}

/// Reads the answer of a stage's provider. The inner result is the provider's; the outer one says whether it was an
/// answer at all. `id` is the request's where the carrier has one; `strategy` is the one that was asked for, if one
/// was.
///
/// # Errors
///
/// [`OutOfStep`]: no answer to this request. A worker that wrote it has to go.
pub fn read_stage_answer(
    answer: &[u8],
    id: Option<u64>,
    strategy: Option<&StrategyName>,
) -> Result<Result<StageOutput, StageError>, OutOfStep> {
    let (text, envelope) = read_envelope(answer, id)?;
    Ok(match envelope.ok {
        Some(true) => read_output(text, strategy),
        Some(false) => Err(failed_by_own_words(&envelope)),
        None => return Err(not_an_answer("ok is missing".to_owned())),
    })
}

/// Checks that a line is an answer to request `id`, whatever it says.
///
/// # Errors
///
/// [`OutOfStep`]: no answer to this request. A worker that wrote it has to go.
pub fn check_answer(answer: &[u8], id: u64) -> Result<(), OutOfStep> {
    let (_, envelope) = read_envelope(answer, Some(id))?;
    envelope.ok.map(|_| ()).ok_or_else(|| not_an_answer("ok is missing".to_owned()))
}

/// Reads a configured answer. It may leave out `ok`, and may have no member that means nothing.
///
/// # Errors
///
/// [`StageError`] of the kind `Garbage`: it cannot be an answer. One of the kind `Provider` is the configured failure.
pub fn read_fixed_answer(text: &str, strategy: Option<&StrategyName>) -> Result<StageOutput, StageError> {
    const MEMBERS: [&str; 6] = ["data", "decisions", "error_detail", "failures", "ok", "verdicts"];
    let (text, envelope) =
        read_envelope(text.as_bytes(), None).map_err(|why| garbage(&format!("the fixed answer is {why}")))?;
    let members: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| garbage(&json::describe_mistake(&error)))?;
    if let Some(strange) = members.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
        return Err(garbage(&format!("{strange:?} is none of {}", MEMBERS.join(", "))));
    }
    match envelope.ok {
        Some(false) => Err(failed_by_own_words(&envelope)),
        Some(true) | None => {
            let mut output = read_output(text, None)?;
            // One text for all strategies: each is given its own part of it.
            output.decisions.retain(|decision| strategy.is_none_or(|asked| *asked == decision.strategy));
            output.failures.retain(|failure| strategy.is_none_or(|asked| *asked == failure.strategy));
            Ok(output)
        }
    }
}

/// Reads the answer of a hook's provider.
///
/// # Errors
///
/// [`OutOfStep`]: no answer to this question. A worker that wrote it has to go.
pub fn read_hook_answer(answer: &[u8], id: Option<u64>) -> Result<Result<HookAnswer, HookError>, OutOfStep> {
    let (text, envelope) = read_envelope(answer, id)?;
    Ok(match envelope.ok {
        Some(true) => read_vote(text).map_err(HookError::Failed),
        Some(false) => Err(HookError::Failed(own_words(&envelope))),
        None => return Err(not_an_answer("ok is missing".to_owned())),
    })
}

fn read_envelope(answer: &[u8], id: Option<u64>) -> Result<(&str, Envelope<'_>), OutOfStep> {
    // Text first: in members that it does not know, serde_json looks at no character.
    let text = std::str::from_utf8(answer)
        .map_err(|error| not_an_answer(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let envelope: Envelope<'_> =
        serde_json::from_str(text).map_err(|error| not_an_answer(json::describe_mistake(&error)))?;
    // Of an array serde would take the members by their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(not_an_answer("not an object".to_owned()));
    }
    match (id, envelope.id) {
        (None, _) => Ok((text, envelope)),
        (Some(expected), Some(found)) if expected == found => Ok((text, envelope)),
        (Some(expected), Some(found)) => Err(OutOfStep::WrongId { expected, found }),
        (Some(_), None) => Err(not_an_answer("id is missing".to_owned())),
    }
}

fn not_an_answer(detail: String) -> OutOfStep {
    OutOfStep::NotAnAnswer { detail }
}

fn own_words(envelope: &Envelope<'_>) -> String {
    let said = envelope.error_detail.as_deref().filter(|said| !said.trim().is_empty());
    bounded_detail(said.unwrap_or("the provider gave no detail"))
}

fn failed_by_own_words(envelope: &Envelope<'_>) -> StageError {
    StageError::new(StageErrorKind::Provider, &own_words(envelope))
}

fn garbage(detail: &str) -> StageError {
    StageError::new(StageErrorKind::Garbage, detail)
}

fn read_output(text: &str, strategy: Option<&StrategyName>) -> Result<StageOutput, StageError> {
    let body: StageAnswerBody<'_> =
        serde_json::from_str(text).map_err(|error| garbage(&json::describe_mistake(&error)))?;
    let data = match body.data {
        None => String::new(),
        Some(data) => json::canonical(data.get()).map_err(|error| garbage(&format!("data: {error}")))?,
    };
    let decisions = body.decisions.into_iter().map(|raw| read_decision(raw, strategy));
    let verdicts = body.verdicts.into_iter().map(read_verdict);
    let failures = body.failures.into_iter().map(|failure| StrategyFailure {
        strategy: failure.strategy_id,
        error: StageError::new(StageErrorKind::Provider, &failure.detail),
    });
    Ok(StageOutput {
        data,
        decisions: decisions.collect::<Result<_, _>>()?,
        verdicts: verdicts.collect::<Result<_, _>>()?,
        failures: failures.collect(),
    })
}

/// A provider that was asked for one strategy decides for no other: that one is asked for itself.
fn read_decision(raw: &RawValue, asked: Option<&StrategyName>) -> Result<TradeDecision, StageError> {
    let decision =
        TradeDecision::from_json(raw.get()).map_err(|error| garbage(&format!("a decision's {error}")))?;
    match asked {
        Some(asked) if *asked != decision.strategy => Err(garbage(&format!(
            "decision {} is of strategy {}, and {asked} was asked for",
            decision.decision_id, decision.strategy
        ))),
        Some(_) | None => Ok(decision),
    }
}

fn read_verdict(body: VerdictAnswer<'_>) -> Result<RiskVerdict, StageError> {
    let VerdictAnswer { decision_id, outcome, quantity, price, lowered_by, rule } = body;
    let amount = |name: &str, raw: Option<&RawValue>| -> Result<Decimal, StageError> {
        let raw = raw.ok_or_else(|| garbage(&format!("the verdict on {decision_id} lacks {name}")))?;
        decimal_of_json(raw)
            .map_err(|error| garbage(&format!("the verdict on {decision_id}: {name} is {error}")))
    };
    let outcome = match outcome {
        VerdictWord::Allowed => RiskOutcome::Allowed {
            quantity: amount("quantity", quantity)?,
            price: amount("price", price)?,
            // Each rule once, so that a record stays small.
            lowered_by: lowered_by
                .iter()
                .map(|word| rule_of(word))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        },
        VerdictWord::Held => RiskOutcome::Held,
        VerdictWord::Denied => RiskOutcome::Denied(rule.as_deref().map_or(RiskRule::Provider, rule_of)),
    };
    Ok(RiskVerdict { decision_id, outcome })
}

/// A provider may have rules of its own; they all are `provider`.
fn rule_of(word: &str) -> RiskRule {
    RiskRule::ALL.into_iter().find(|rule| rule.as_str() == word).unwrap_or(RiskRule::Provider)
}

fn read_vote(text: &str) -> Result<HookAnswer, String> {
    let body: HookAnswerBody<'_> =
        serde_json::from_str(text).map_err(|error| json::describe_mistake(&error))?;
    let vote = match body.decision {
        VoteWord::Allow => HookVote::Allow,
        VoteWord::Deny => HookVote::Deny,
        VoteWord::Modify => HookVote::Modify,
    };
    let patch: Result<Vec<Narrowing>, String> = body.patch.into_iter().map(read_narrowing).collect();
    let reasons = body.reasons.iter().take(REASONS_MAX).map(|reason| bounded_detail(reason));
    Ok(HookAnswer { vote, reasons: reasons.collect(), patch: patch? })
}

fn read_narrowing(entry: PatchEntry<'_>) -> Result<Narrowing, String> {
    let PatchEntry { decision_id, drop, quantity } = entry;
    match (drop, quantity) {
        (Some(true), None) => Ok(Narrowing::Drop(decision_id)),
        (None | Some(false), Some(quantity)) => match decimal_of_json(quantity) {
            Ok(quantity) => Ok(Narrowing::Limit { decision_id, quantity }),
            Err(error) => Err(bounded_detail(&format!("the patch of {decision_id}: quantity is {error}"))),
        },
        (Some(true), Some(_)) | (None | Some(false), None) => {
            Err(bounded_detail(&format!("the patch of {decision_id} has neither drop nor quantity, or both")))
        }
    }
}
