//! The built-in RISK: prices as they are on record, quantities by the sizing formula, rules of the kernel.

use std::collections::BTreeMap;

use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::ports::stage::StageRequest;
use orchestrator_kernel::trading::decision::TradeDecision;
use orchestrator_kernel::trading::ids::{DecisionId, StrategyName};
use orchestrator_kernel::trading::journal::{KnownStrategy, StageOutput};
use orchestrator_kernel::trading::risk::{BuiltInRisk, RiskInput, RiskMode, RiskOutcome, RiskVerdict};
use orchestrator_kernel::trading::sizing::size_signal;
use orchestrator_kernel::trading::stage::StageRole;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::json;

use super::BuiltInStages;

/// Record of ING.
#[derive(Deserialize, Default)]
struct RecordedPrices {
    #[serde(default)]
    prices: BTreeMap<String, Decimal>,
}

/// Facts that the decisions of one cycle are judged by.
struct JudgedFacts {
    prices: KnownPrices,
    strategies: BTreeMap<StrategyName, KnownStrategy>,
    agent_mode: RiskMode,
}

impl BuiltInStages {
    /// Judges every decision of the cycle, in order.
    pub(super) fn judge_decisions(&self, request: &StageRequest) -> StageOutput {
        self.judge_all(request, request.decisions.iter())
    }

    /// Judges these decisions, in order.
    pub(super) fn judge_all<'a>(
        &self,
        request: &StageRequest,
        decisions: impl Iterator<Item = &'a TradeDecision>,
    ) -> StageOutput {
        let facts = self.gather_facts(request);
        let mut risk = BuiltInRisk::new(self.settings.risk);
        let verdicts: Vec<RiskVerdict> = decisions
            .map(|decision| risk.judge_decision(decision, self.facts_of_decision(decision, &facts)))
            .collect();
        let allowed = verdicts.iter().filter(|it| matches!(it.outcome, RiskOutcome::Allowed { .. })).count();
        let data = json!({ "allowed": allowed, "judged": verdicts.len() }).to_string();
        StageOutput { data, verdicts, ..StageOutput::default() }
    }

    /// The answer of a RISK of others with each verdict narrowed by the own rules, in its order. One that says what no
    /// RISK may say stays as it is: the cycle refuses it whole.
    pub(super) fn narrow_verdicts(&self, request: &StageRequest, answer: StageOutput) -> StageOutput {
        let decisions: BTreeMap<&DecisionId, &TradeDecision> =
            request.decisions.iter().chain(&answer.decisions).map(|it| (&it.decision_id, it)).collect();
        let facts = self.gather_facts(request);
        let mut risk = BuiltInRisk::new(self.settings.risk);
        let narrowed: Option<Vec<RiskVerdict>> = answer
            .verdicts
            .iter()
            .map(|theirs| {
                let decision = decisions.get(&theirs.decision_id)?;
                let input = self.facts_of_decision(decision, &facts);
                theirs
                    .keeps_to(decision.suggested_quantity)
                    .then(|| risk.judge_behind(decision, input, &theirs.outcome))
            })
            .collect();
        match narrowed {
            Some(verdicts) => StageOutput { verdicts, ..answer },
            None => answer,
        }
    }

    fn gather_facts(&self, request: &StageRequest) -> JudgedFacts {
        JudgedFacts {
            prices: known_prices(request),
            strategies: self.find_strategies(request),
            agent_mode: self.view.agent().state.mode,
        }
    }

    fn facts_of_decision<'a>(&self, decision: &TradeDecision, facts: &'a JudgedFacts) -> RiskInput<'a> {
        let strategy = facts.strategies.get(&decision.strategy).map(|known| &known.definition);
        let price = self.price_of(&facts.prices, &decision.symbol);
        RiskInput {
            quantity: decision.suggested_quantity.or_else(|| self.size_decision(decision, price)),
            price,
            symbols: strategy.map(|definition| definition.symbols.as_slice()).unwrap_or_default(),
            mode: strategy
                .map_or(facts.agent_mode, |definition| facts.agent_mode.stricter_mode(definition.risk_mode)),
            order_unknown: false,
        }
    }

    /// The price on record, else the last one that is known and counts.
    pub(super) fn price_of(&self, prices: &KnownPrices, symbol: &Symbol) -> Option<Decimal> {
        let recorded = prices.recorded.get(symbol.as_str()).copied();
        recorded.or_else(|| self.last_price(symbol, prices.oldest))
    }

    /// The last price that is known of a symbol, unless it is older than `oldest`: the gate of stale data looks at the
    /// newest of all symbols of a cycle, and one that moves does not make another's price a fresh one.
    pub(super) fn last_price(&self, symbol: &Symbol, oldest: TsMs) -> Option<Decimal> {
        let prices = self.market.last_prices(symbol, 1);
        prices.last().filter(|last| oldest <= last.at).map(|last| last.price)
    }

    /// Shares of a decision that suggests none: its confidence stands for the weight.
    ///
    /// Source: CONTRACTS §5, "Sizing".
    fn size_decision(&self, decision: &TradeDecision, price: Option<Decimal>) -> Option<Decimal> {
        let price = price.filter(|price| Decimal::ZERO < *price)?;
        let weight = Decimal::try_from(decision.confidence.get()).ok()?;
        let size = size_signal(weight, &self.settings.sizing, Ok(price)).ok()?;
        Some(Decimal::from(size.qty))
    }
}

/// Since when a price counts in this cycle, by the pipeline's `stale_after`.
pub(super) fn oldest_price(request: &StageRequest) -> TsMs {
    let started = &request.started;
    let kept = started.pipeline.stale_after.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    kept.map_or(TsMs(i64::MIN), |age_ms| started.started_at.plus_ms(-age_ms))
}

/// Prices of a cycle: those that ING has left, and since when others count.
pub(super) struct KnownPrices {
    recorded: BTreeMap<String, Decimal>,
    oldest: TsMs,
}

/// What the cycle knows of prices.
pub(super) fn known_prices(request: &StageRequest) -> KnownPrices {
    let ingested = request.started.pipeline.stages.iter().find(|stage| stage.role() == StageRole::Ingest);
    let output = ingested.and_then(|stage| request.outputs.iter().find(|(name, _)| *name == stage.name));
    let read = output.and_then(|(_, output)| serde_json::from_str::<RecordedPrices>(&output.data).ok());
    KnownPrices { recorded: read.unwrap_or_default().prices, oldest: oldest_price(request) }
}
