//! Decisions: what a strategy, or somebody on the event bus, wants to be done with one symbol.

use std::cmp::Ordering;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ids::{DecisionId, StrategyName};
use super::schedule::FireSkipReason;
use super::strategy::StrategyDefinition;
use crate::error::bounded_detail;
use crate::ids::Symbol;

/// Action that a decision wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DecisionAction {
    /// More of the symbol.
    Buy,
    /// Less of the symbol.
    Sell,
    /// Nothing.
    Hold,
}

impl DecisionAction {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Buy => "BUY",
            Self::Sell => "SELL",
            Self::Hold => "HOLD",
        }
    }
}

/// Confidence of a decision, 0 to 1. Compared by total order, so equal means equal bits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Confidence(f64);

impl Confidence {
    /// No confidence at all.
    pub const ZERO: Self = Self(0.0);

    /// Takes a value from 0 to 1. Minus zero is taken as zero.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        (0.0..=1.0).contains(&value).then_some(Self(value.abs()))
    }

    /// The value.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Confidence {
    type Error = &'static str;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value).ok_or("a confidence is 0 to 1")
    }
}

impl From<Confidence> for f64 {
    fn from(value: Confidence) -> Self {
        value.0
    }
}

impl PartialEq for Confidence {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Confidence {}

impl PartialOrd for Confidence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Confidence {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// One decision.
///
/// Source: CONTRACTS §7, `ai.decision.generated`; specification 002.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TradeDecision {
    /// Its identifier, as its maker gave it.
    pub decision_id: DecisionId,
    /// The instrument.
    pub symbol: Symbol,
    /// The strategy that it belongs to.
    pub strategy: StrategyName,
    /// What is wanted.
    pub action: DecisionAction,
    /// How sure its maker is.
    pub confidence: Confidence,
    /// Why, as one line of at most 500 bytes.
    pub reasoning: String,
    /// Wanted shares, more than 0. Nothing: it is sized later.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub suggested_quantity: Option<Decimal>,
    /// Price that its maker had in mind, more than 0.
    #[serde(with = "rust_decimal::serde::str_option")]
    pub suggested_price: Option<Decimal>,
}

/// Refusal of a body that is no decision: the field, by its name on the wire, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct DecisionRefused {
    /// The field; `$` is the whole body.
    pub field: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// The body on the wire. Numbers stay text until they are decimals: none goes through a float but `confidence`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[serde(expecting = "an object")]
struct DecisionBody<'a> {
    decision_id: String,
    symbol: String,
    strategy_id: String,
    action: DecisionAction,
    confidence: f64,
    reasoning: String,
    #[serde(borrow)]
    suggested_quantity: Option<&'a RawValue>,
    #[serde(borrow)]
    suggested_price: Option<&'a RawValue>,
}

impl TradeDecision {
    /// Reads the payload of `ai.decision.generated`, or one decision of a stage's answer. Unknown fields are ignored.
    ///
    /// # Errors
    ///
    /// [`DecisionRefused`]: a field is missing, comes twice, or has a value that it cannot have.
    pub fn from_json(text: &str) -> Result<Self, DecisionRefused> {
        let body: DecisionBody<'_> =
            serde_json::from_str(text).map_err(|error| refuse_field("$", &error.to_string()))?;
        Ok(Self {
            decision_id: DecisionId::new(&body.decision_id)
                .ok_or_else(|| refuse_field("decisionId", "1 to 128 bytes without control characters"))?,
            symbol: Some(body.symbol.as_str())
                .filter(|symbol| Symbol::is_valid(symbol))
                .map(Symbol::from)
                .ok_or_else(|| refuse_field("symbol", "1 to 128 bytes without control characters"))?,
            strategy: StrategyName::new(&body.strategy_id)
                .ok_or_else(|| refuse_field("strategyId", "no name of a strategy"))?,
            action: body.action,
            confidence: Confidence::new(body.confidence)
                .ok_or_else(|| refuse_field("confidence", "not from 0 to 1"))?,
            reasoning: bounded_detail(&body.reasoning),
            suggested_quantity: positive_decimal("suggestedQuantity", body.suggested_quantity)?,
            suggested_price: positive_decimal("suggestedPrice", body.suggested_price)?,
        })
    }

    /// The decision in the words of specification 002, as [`from_json`](Self::from_json) reads it. Numbers are texts,
    /// so that no reader takes them through a float.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "action": self.action.as_str(),
            "confidence": self.confidence.get(),
            "decisionId": self.decision_id,
            "reasoning": self.reasoning,
            "strategyId": self.strategy,
            "suggestedPrice": self.suggested_price.map(|price| price.to_string()),
            "suggestedQuantity": self.suggested_quantity.map(|quantity| quantity.to_string()),
            "symbol": self.symbol.as_str(),
        })
    }
}

/// Route of a decision that came by event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionRoute {
    /// It answers a request of an open cycle.
    Answers,
    /// It begins a cycle of its strategy, at RISK.
    Begins,
    /// It is recorded and leads to nothing.
    Skipped(FireSkipReason),
}

/// Decides where a decision goes. `is_requested` says that its correlation is that of an open request; `strategy` is
/// the one that it names, if that exists.
///
/// Source: issue "Details decided", `ai.decision.generated`.
#[must_use]
pub fn route_decision(
    decision: &TradeDecision,
    is_requested: bool,
    strategy: Option<&StrategyDefinition>,
) -> DecisionRoute {
    match strategy {
        None => DecisionRoute::Skipped(FireSkipReason::UnknownStrategy),
        Some(strategy) if !strategy.symbols.contains(&decision.symbol) => {
            DecisionRoute::Skipped(FireSkipReason::UnknownSymbol)
        }
        Some(_) if is_requested => DecisionRoute::Answers,
        Some(_) => DecisionRoute::Begins,
    }
}

fn refuse_field(field: &'static str, problem: &str) -> DecisionRefused {
    DecisionRefused { field, problem: bounded_detail(problem) }
}

/// A number, or a number in a string, as the exact decimal that was written.
fn positive_decimal(field: &'static str, raw: Option<&RawValue>) -> Result<Option<Decimal>, DecisionRefused> {
    let Some(raw) = raw else { return Ok(None) };
    let text = raw.get().trim_matches('"');
    let exact = Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text));
    match exact {
        Ok(value) if Decimal::ZERO < value => Ok(Some(value)),
        Ok(_) => Err(refuse_field(field, "not more than 0")),
        Err(_) => Err(refuse_field(field, "no decimal number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(field: &str, value: &str) -> String {
        let mut fields = vec![
            ("decisionId", r#""d-1""#),
            ("symbol", r#""AAPL""#),
            ("strategyId", r#""momentum""#),
            ("action", r#""BUY""#),
            ("confidence", "0.7"),
            ("reasoning", r#""up\nfor three days""#),
            ("suggestedQuantity", "10"),
            ("suggestedPrice", r#""150.10""#),
        ];
        fields.retain(|(name, _)| *name != field);
        let fields = fields
            .into_iter()
            .chain([(field, value)])
            .filter(|(name, value)| !name.is_empty() && !value.is_empty());
        let fields: Vec<String> = fields.map(|(name, value)| format!("{name:?}:{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }

    #[test]
    fn a_decision_is_read_with_its_exact_numbers() {
        let decision = TradeDecision::from_json(&body("extra", "{}")).unwrap();

        assert_eq!(decision.decision_id.as_str(), "d-1");
        assert_eq!(decision.action, DecisionAction::Buy);
        assert_eq!(decision.reasoning, "up for three days");
        assert_eq!(decision.suggested_quantity, Some(Decimal::from(10)));
        assert_eq!(decision.suggested_price.map(|price| price.to_string()).as_deref(), Some("150.10"));
        assert_eq!(TradeDecision::from_json(&decision.to_json().to_string()), Ok(decision));
        for (number, read) in [("0.1", "0.1"), ("1.5e2", "150"), (r#""7""#, "7")] {
            let decision = TradeDecision::from_json(&body("suggestedQuantity", number)).unwrap();
            assert_eq!(decision.suggested_quantity.map(|q| q.normalize().to_string()).as_deref(), Some(read));
        }
        for absent in ["", "null"] {
            let decision = TradeDecision::from_json(&body("suggestedQuantity", absent)).unwrap();
            assert_eq!(decision.suggested_quantity, None);
        }
    }

    #[test]
    fn a_field_that_cannot_be_is_named() {
        for (field, value) in [
            ("decisionId", r#""""#),
            ("symbol", r#""A\u0000""#),
            ("strategyId", r#""a b""#),
            ("confidence", "1.01"),
            ("confidence", "-0.1"),
            ("suggestedQuantity", "0"),
            ("suggestedQuantity", "-1"),
            ("suggestedQuantity", r#""many""#),
            ("suggestedQuantity", "1e400"),
            ("suggestedQuantity", "[1]"),
            ("suggestedPrice", "true"),
        ] {
            let refused = TradeDecision::from_json(&body(field, value)).unwrap_err();
            assert_eq!(refused.field, field, "{field} {value}: {refused}");
        }
        for whole in
            ["", "[]", "{}", &body("action", r#""HODL""#), &body("confidence", "NaN"), &body("symbol", "")]
        {
            assert_eq!(TradeDecision::from_json(whole).unwrap_err().field, "$", "{whole}");
        }
        let twice = body("symbol", r#""A","symbol":"B""#);
        assert!(TradeDecision::from_json(&twice).unwrap_err().problem.contains("duplicate field"));
    }

    #[test]
    fn a_decision_answers_its_request_or_begins_a_cycle_of_a_strategy_that_trades_its_symbol() {
        use DecisionRoute::{Answers, Begins, Skipped};
        let strategy = crate::trading::testkit::strategy("a");
        let of = |symbol| crate::trading::testkit::decision("d", "a", symbol, "1");
        for (symbol, is_requested, strategy, route) in [
            ("AAPL", true, Some(&strategy), Answers),
            ("AAPL", false, Some(&strategy), Begins),
            ("TSLA", true, Some(&strategy), Skipped(FireSkipReason::UnknownSymbol)),
            ("TSLA", false, Some(&strategy), Skipped(FireSkipReason::UnknownSymbol)),
            ("AAPL", true, None, Skipped(FireSkipReason::UnknownStrategy)),
            ("AAPL", false, None, Skipped(FireSkipReason::UnknownStrategy)),
        ] {
            assert_eq!(route_decision(&of(symbol), is_requested, strategy), route, "{symbol} {is_requested}");
        }
    }

    #[test]
    fn confidence_is_a_number_from_zero_to_one_in_total_order() {
        for bad in [-f64::EPSILON, 1.0 + f64::EPSILON, f64::NAN, f64::INFINITY] {
            assert_eq!(Confidence::new(bad), None);
        }
        assert_eq!(Confidence::new(-0.0), Some(Confidence::ZERO));
        assert!(Confidence::new(0.1) < Confidence::new(0.2));
    }
}
