//! The stages that are built in: they need nothing but what is on record and what is known of the market.
//!
//! ```text
//! ING prices ─▶ FEAT moves ─▶ SIG by strategy kind ─▶ RISK rules ─▶ (EXEC is the cycle's own) ─▶ PORT ─▶ ANA ─▶ GOV
//! ```
//!
//! Equal requests over an equal market give equal answers: maps are ordered, amounts are decimals.

mod figures;
mod guard;
mod judge;
mod momentum;
mod rebalance;
mod regime;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::ports::market::MarketView;
use orchestrator_kernel::ports::stage::{StageBackend, StageRequest, unavailable_stage};
use orchestrator_kernel::trading::decision::TradeDecision;
use orchestrator_kernel::trading::ids::{DecisionId, StrategyName};
use orchestrator_kernel::trading::journal::{KnownStrategy, StageError, StageErrorKind, StageOutput};
use orchestrator_kernel::trading::risk::RiskLimits;
use orchestrator_kernel::trading::sizing::SizingLimits;
use orchestrator_kernel::trading::stage::{StageProvider, StageRole};
use orchestrator_kernel::trading::strategy::StrategyDefinition;
use rust_decimal::Decimal;
use serde_json::json;

use crate::view::TradingView;

pub use guard::GuardedRisk;

/// Kinds of strategies whose signals the built-in stages make.
pub const BUILT_IN_KINDS: [&str; 2] = ["momentum", "regime"];

/// Settings of the built-in stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltInSettings {
    /// Limits of RISK.
    pub risk: RiskLimits,
    /// Limits of a decision that suggests no quantity.
    pub sizing: SizingLimits,
    /// Prices that a move is computed over, at least 2.
    pub prices_max: usize,
    /// Weights that strategies are to have, as parts of the capital. One that has none goes by its signals.
    pub targets: BTreeMap<StrategyName, BTreeMap<Symbol, Decimal>>,
}

/// The built-in stages.
pub struct BuiltInStages {
    settings: BuiltInSettings,
    market: Arc<dyn MarketView>,
    view: TradingView,
}

impl BuiltInStages {
    /// Stages over this market; strategies are those of the read model.
    #[must_use]
    pub fn new(settings: BuiltInSettings, market: Arc<dyn MarketView>, view: TradingView) -> Self {
        Self { settings, market, view }
    }

    /// The cycle's strategies, by name.
    fn find_strategies(&self, request: &StageRequest) -> BTreeMap<StrategyName, KnownStrategy> {
        let names = request.started.strategies.iter();
        names.filter_map(|name| Some((name.clone(), self.view.strategy(name)?))).collect()
    }

    /// Last price of each symbol of the cycle's strategies.
    fn fetch_prices(&self, request: &StageRequest) -> StageOutput {
        let strategies = self.find_strategies(request);
        let symbols = strategies.values().flat_map(|known| known.definition.symbols.iter());
        let symbols = symbols.filter(|symbol| request.started.covers_symbol(symbol));
        let oldest = judge::oldest_price(request);
        let prices: BTreeMap<&Symbol, String> = symbols
            .filter_map(|symbol| Some((symbol, self.last_price(symbol, oldest)?.to_string())))
            .collect();
        data_output(&json!({ "prices": prices }))
    }

    fn decide(&self, request: &StageRequest) -> Result<StageOutput, StageError> {
        let Some(strategy) = request.strategy.as_ref().and_then(|name| self.view.strategy(name)) else {
            return Ok(data_output(&json!({ "decisions": 0 })));
        };
        let definition = &strategy.definition;
        let mut decisions = Vec::new();
        for symbol in definition.symbols.iter().filter(|symbol| request.started.covers_symbol(symbol)) {
            let Some(opinion) = self.opinion_of(definition, symbol)? else { continue };
            let Some(decision_id) = decision_id_of(&definition.name, symbol, decisions.len()) else {
                continue;
            };
            decisions.push(TradeDecision {
                decision_id,
                symbol: symbol.clone(),
                strategy: definition.name.clone(),
                action: opinion.action,
                confidence: opinion.confidence,
                reasoning: opinion.reasoning,
                suggested_quantity: None,
                suggested_price: opinion.price,
            });
        }
        let data = json!({ "decisions": decisions.len() }).to_string();
        Ok(StageOutput { data, decisions, ..StageOutput::default() })
    }

    /// What a strategy's kind makes of a symbol now; nothing where it knows nothing of it.
    fn opinion_of(
        &self,
        definition: &StrategyDefinition,
        symbol: &Symbol,
    ) -> Result<Option<Opinion>, StageError> {
        match definition.kind.as_str() {
            "momentum" => {
                Ok(momentum::judge_prices(&self.market.last_prices(symbol, self.settings.prices_max)))
            }
            "regime" => Ok(self.market.last_output(symbol).and_then(|output| regime::judge_output(&output))),
            kind => {
                let detail = format!("strategy {}: there is no built-in kind {kind}", definition.name);
                Err(StageError::new(StageErrorKind::Provider, &detail))
            }
        }
    }
}

/// The identifier of a strategy's decision about a symbol, one a symbol in each cycle; `number` stands for a symbol
/// that is too long for one.
fn decision_id_of(strategy: &StrategyName, symbol: &Symbol, number: usize) -> Option<DecisionId> {
    DecisionId::new(&format!("{strategy}:{symbol}"))
        .or_else(|| DecisionId::new(&format!("{strategy}:{number}")))
}

#[async_trait]
impl StageBackend for BuiltInStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        match request.stage.name.as_str() {
            "calculate_target_weights" => return self.target_weights(&request),
            "compare_current_weights" => return Ok(self.compare_weights(&request)),
            "generate_rebalance_orders" => return Ok(self.rebalance_orders(&request)),
            "check_service_health" => return Ok(figures::service_health(&self.view)),
            "sync_positions" => return Ok(data_output(&json!({ "positions": [] }))),
            "update_status" => return Ok(figures::agent_figures(&self.view)),
            _ => {}
        }
        match request.stage.role() {
            StageRole::Ingest => Ok(self.fetch_prices(&request)),
            StageRole::Feature => {
                Ok(figures::moves(&request, self.market.as_ref(), self.settings.prices_max))
            }
            StageRole::Signal => self.decide(&request),
            StageRole::Risk => Ok(self.judge_decisions(&request)),
            StageRole::Portfolio => Ok(figures::bookings(&request)),
            StageRole::Analytics => Ok(figures::cycle_figures(&request)),
            StageRole::Audit => figures::check_complete(&request),
            StageRole::Execute | StageRole::Other => Err(unavailable_stage(&request.stage.name)),
        }
    }
}

/// Backends by provider. A stage whose provider is not there fails as unavailable.
pub struct RoutedStages {
    backends: Vec<(StageProvider, Arc<dyn StageBackend>)>,
}

impl RoutedStages {
    /// Routes each stage to the first backend of its provider.
    #[must_use]
    pub fn new(backends: Vec<(StageProvider, Arc<dyn StageBackend>)>) -> Self {
        Self { backends }
    }
}

#[async_trait]
impl StageBackend for RoutedStages {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        let found = self.backends.iter().find(|(provider, _)| *provider == request.stage.provider);
        match found {
            Some((_, backend)) => backend.call_stage(request).await,
            None => Err(unavailable_stage(&request.stage.name)),
        }
    }
}

/// Opinion of a strategy about one symbol.
#[derive(Clone, Debug, PartialEq)]
struct Opinion {
    action: orchestrator_kernel::trading::decision::DecisionAction,
    confidence: orchestrator_kernel::trading::decision::Confidence,
    reasoning: String,
    price: Option<Decimal>,
}

fn data_output(data: &serde_json::Value) -> StageOutput {
    StageOutput { data: data.to_string(), ..StageOutput::default() }
}
