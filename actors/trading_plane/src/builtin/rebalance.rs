//! The rebalance: weights that strategies are to have, how far they are from those that they have, and the orders
//! between the two.
//!
//! ```text
//! calculate_target_weights ─ targets of the configuration, else the strategy's signals
//! compare_current_weights ── the differences; there are no positions before orders are sent, so each is a target
//! generate_rebalance_orders ─ a decision for each difference, judged by the rules of RISK
//! ```
//!
//! No target, no order.
//!
//! Source: specification 002, "Rebalance Cycle".

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::ports::stage::StageRequest;
use orchestrator_kernel::trading::decision::{Confidence, DecisionAction, TradeDecision};
use orchestrator_kernel::trading::ids::StrategyName;
use orchestrator_kernel::trading::journal::{StageError, StageOutput};
use orchestrator_kernel::trading::sizing::size_signal;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::judge::{KnownPrices, known_prices};
use super::{BuiltInStages, data_output, decision_id_of};

/// Decimal places of a weight that follows from signals.
const WEIGHT_PLACES: u32 = 6;

/// Weights of a strategy, as the stages of a rebalance hand them on.
#[derive(Debug, Default, Serialize, Deserialize)]
struct StrategyWeights {
    /// `configuration` or `signals`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    source: String,
    /// Parts of the capital; less than zero is short.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    targets: BTreeMap<String, Decimal>,
    /// How far the weights that there are have to move.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    differences: BTreeMap<String, Decimal>,
    /// Confidence in a weight; without one it is certain.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    confidence: BTreeMap<String, Confidence>,
}

impl StrategyWeights {
    fn to_output(&self) -> StageOutput {
        data_output(&json!(self))
    }
}

impl BuiltInStages {
    /// The weights that the request's strategy is to have.
    pub(super) fn target_weights(&self, request: &StageRequest) -> Result<StageOutput, StageError> {
        let Some(strategy) = request.strategy.as_ref().and_then(|name| self.view.strategy(name)) else {
            return Ok(StrategyWeights::default().to_output());
        };
        let definition = &strategy.definition;
        let covered = |symbol: &Symbol| request.started.covers_symbol(symbol);
        if let Some(configured) = self.settings.targets.get(&definition.name) {
            let targets = configured.iter().filter(|(symbol, _)| covered(symbol));
            let targets = targets.map(|(symbol, weight)| (symbol.to_string(), *weight)).collect();
            let source = "configuration".to_owned();
            return Ok(StrategyWeights { source, targets, ..StrategyWeights::default() }.to_output());
        }
        let mut weights = StrategyWeights { source: "signals".to_owned(), ..StrategyWeights::default() };
        let share = Decimal::ONE.checked_div(Decimal::from(definition.symbols.len()));
        for symbol in definition.symbols.iter().filter(|symbol| covered(symbol)) {
            let Some(opinion) = self.opinion_of(definition, symbol)? else { continue };
            let strength = Decimal::try_from(opinion.confidence.get()).ok();
            let Some(weight) = share.zip(strength).and_then(|(share, strength)| share.checked_mul(strength))
            else {
                continue;
            };
            let weight = match opinion.action {
                DecisionAction::Buy => weight,
                DecisionAction::Sell => -weight,
                DecisionAction::Hold => continue,
            };
            weights.targets.insert(symbol.to_string(), weight.round_dp(WEIGHT_PLACES).normalize());
            weights.confidence.insert(symbol.to_string(), opinion.confidence);
        }
        Ok(weights.to_output())
    }

    /// How far each weight is from its target. Nothing is held before orders are sent.
    pub(super) fn compare_weights(&self, request: &StageRequest) -> StageOutput {
        let targets = request.strategy.as_ref().and_then(|name| {
            let mut all = recorded_weights(request, "calculate_target_weights");
            all.remove(name)
        });
        let StrategyWeights { targets: differences, confidence, source, .. } = targets.unwrap_or_default();
        StrategyWeights { source, differences, confidence, targets: BTreeMap::new() }.to_output()
    }

    /// A decision for each difference, judged where it is made: a rebalance has no stage of its own for that.
    pub(super) fn rebalance_orders(&self, request: &StageRequest) -> StageOutput {
        let prices = known_prices(request);
        let known: BTreeSet<_> = request.decisions.iter().map(|decision| &decision.decision_id).collect();
        let decisions: Vec<TradeDecision> = recorded_weights(request, "compare_current_weights")
            .into_iter()
            .filter(|(strategy, _)| request.started.strategies.contains(strategy))
            .flat_map(|(strategy, weights)| self.decide_differences(&prices, &strategy, &weights))
            .filter(|decision| request.started.covers_symbol(&decision.symbol))
            .filter(|decision| !known.contains(&decision.decision_id))
            .collect();
        let judged = self.judge_all(request, request.decisions.iter().chain(&decisions));
        StageOutput { decisions, ..judged }
    }

    fn decide_differences(
        &self,
        prices: &KnownPrices,
        strategy: &StrategyName,
        weights: &StrategyWeights,
    ) -> Vec<TradeDecision> {
        let differences = weights.differences.iter().filter(|(_, weight)| !weight.is_zero()).enumerate();
        let decided = differences.filter_map(|(number, (name, weight))| {
            let symbol = Symbol::from(name.as_str());
            let price = self.price_of(prices, &symbol);
            // What cannot be sized is decided all the same, so that its denial is on record.
            let shares = price.and_then(|price| size_signal(*weight, &self.settings.sizing, Ok(price)).ok());
            let is_more = weight.is_sign_positive();
            Some(TradeDecision {
                decision_id: decision_id_of(strategy, &symbol, number)?,
                strategy: strategy.clone(),
                action: if is_more { DecisionAction::Buy } else { DecisionAction::Sell },
                confidence: weights.confidence.get(name).copied().or_else(|| Confidence::new(1.0))?,
                reasoning: format!("weight {} by {}", weight.normalize(), weights.source),
                suggested_quantity: Some(shares.map_or(Decimal::ZERO, |size| Decimal::from(size.qty))),
                suggested_price: price.filter(|price| Decimal::ZERO < *price),
                symbol,
            })
        });
        decided.collect()
    }
}

/// What a stage before has left of each strategy's weights, whoever did its work. What cannot be read is none.
fn recorded_weights(request: &StageRequest, stage: &str) -> BTreeMap<StrategyName, StrategyWeights> {
    let output = request.outputs.iter().find(|(name, _)| name.as_str() == stage).map(|(_, output)| output);
    let read = output
        .and_then(|output| serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&output.data).ok());
    let parts = read.unwrap_or_default().into_iter();
    parts
        .filter_map(|(name, part)| Some((StrategyName::new(&name)?, serde_json::from_value(part).ok()?)))
        .collect()
}
