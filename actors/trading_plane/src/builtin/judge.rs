//! The built-in RISK: prices as they are on record, quantities by the sizing formula, rules of the kernel.

use std::collections::BTreeMap;

use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::ports::stage::StageRequest;
use orchestrator_kernel::trading::decision::TradeDecision;
use orchestrator_kernel::trading::journal::StageOutput;
use orchestrator_kernel::trading::risk::{BuiltInRisk, RiskInput, RiskOutcome};
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

impl BuiltInStages {
    /// Judges every decision of the cycle, in order.
    pub(super) fn judge_decisions(&self, request: &StageRequest) -> StageOutput {
        let prices = recorded_prices(request);
        let strategies = self.find_strategies(request);
        let agent = self.view.agent().state;
        let mut risk = BuiltInRisk::new(self.settings.risk);
        let mut verdicts = Vec::new();
        for decision in request.decisions.iter() {
            let strategy = strategies.get(&decision.strategy).map(|known| &known.definition);
            let price = prices.get(decision.symbol.as_str()).copied();
            let price = price.or_else(|| self.known_price(&decision.symbol));
            let input = RiskInput {
                quantity: decision.suggested_quantity.or_else(|| self.size_decision(decision, price)),
                price,
                symbols: strategy.map(|definition| definition.symbols.as_slice()).unwrap_or_default(),
                mode: strategy
                    .map_or(agent.mode, |definition| agent.mode.stricter_mode(definition.risk_mode)),
                order_unknown: false,
            };
            verdicts.push(risk.judge_decision(decision, input));
        }
        let allowed = verdicts.iter().filter(|it| matches!(it.outcome, RiskOutcome::Allowed { .. })).count();
        let data = json!({ "allowed": allowed, "judged": verdicts.len() }).to_string();
        StageOutput { data, verdicts, ..StageOutput::default() }
    }

    fn known_price(&self, symbol: &Symbol) -> Option<Decimal> {
        self.market.last_prices(symbol, 1).last().map(|last| last.price)
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

fn recorded_prices(request: &StageRequest) -> BTreeMap<String, Decimal> {
    let ingested = request.started.pipeline.stages.iter().find(|stage| stage.role() == StageRole::Ingest);
    let output = ingested.and_then(|stage| request.outputs.iter().find(|(name, _)| *name == stage.name));
    let read = output.and_then(|(_, output)| serde_json::from_str::<RecordedPrices>(&output.data).ok());
    read.unwrap_or_default().prices
}
