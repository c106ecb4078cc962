//! The stages that are built in, as a cycle of theirs leaves them on record.

use std::sync::Arc;

use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::ports::market::{MarketPrice, MarketView, MemoryMarket};
use orchestrator_kernel::ports::stage::{StageBackend, StageRequest};
use orchestrator_kernel::trading::decision::{Confidence, DecisionAction};
use orchestrator_kernel::trading::ids::{CommandId, CycleId, StageName};
use orchestrator_kernel::trading::journal::{
    ConfigHash, CycleCause, CycleStarted, JournalFact, JournalIndex, StageErrorKind, StageOutput, TradingMode,
};
use orchestrator_kernel::trading::pipeline::canonical_pipeline;
use orchestrator_kernel::trading::risk::{RiskLimits, RiskOutcome};
use orchestrator_kernel::trading::sizing::SizingLimits;
use orchestrator_kernel::trading::strategy::{StrategyChanged, StrategyStatus};
use orchestrator_trading_plane::builtin::{BuiltInSettings, BuiltInStages};
use orchestrator_trading_plane::testkit::{strategy, strategy_name};
use orchestrator_trading_plane::view::TradingView;
use rust_decimal::Decimal;

use crate::common::{WALL, entry};

struct Stages {
    built_in: BuiltInStages,
    outputs: Vec<(StageName, StageOutput)>,
}

impl Stages {
    /// Strategies `a` by momentum and `b` by regime; AAPL has risen, the engine says that MSFT falls.
    fn new() -> Self {
        let market = MemoryMarket::default();
        for (symbol, prices) in [("AAPL", [100, 102]), ("MSFT", [400, 400])] {
            for price in prices {
                market.push_price(
                    &Symbol::from(symbol),
                    MarketPrice { price: Decimal::from(price), at: TsMs(WALL) },
                );
            }
        }
        market.put_output(&Symbol::from("MSFT"), TsMs(WALL), r#"{"confidence":0.5,"regime":"SQUEEZE_DOWN"}"#);
        let (view, mut index) = (TradingView::default(), JournalIndex::default());
        let mut by_regime = strategy("b", "canonical");
        by_regime.kind = StageName::new("regime").unwrap();
        for definition in [strategy("a", "canonical"), by_regime] {
            let defined = StrategyChanged::Defined { definition, status: StrategyStatus::Active };
            let entry = entry(JournalFact::StrategyChanged(defined));
            index.take_entry(index.tail().next(), &entry);
        }
        view.show_index(&index);
        let money = |amount: i64| Decimal::from(amount);
        let settings = BuiltInSettings {
            risk: RiskLimits {
                max_position_size: money(20_000),
                capital: money(100_000),
                confidence_min: Confidence::ZERO,
            },
            sizing: SizingLimits { capital: money(100_000), max_position_size: money(20_000) },
            prices_max: 10,
        };
        let market: Arc<dyn MarketView> = Arc::new(market);
        Self { built_in: BuiltInStages::new(settings, market, view), outputs: vec![] }
    }

    fn request(&self, stage: usize, strategy: Option<&str>) -> StageRequest {
        let command = CommandId::derive("test");
        let pipeline = canonical_pipeline();
        let decisions = self.outputs.iter().flat_map(|(_, output)| output.decisions.clone()).collect();
        StageRequest {
            stage: pipeline.stages[stage].clone(),
            started: Arc::new(CycleStarted {
                cycle_id: CycleId::of_command(command),
                cause: CycleCause::Command(command),
                started_at: TsMs(WALL),
                pipeline,
                begin_at: 0,
                strategies: vec![strategy_name("a"), strategy_name("b")],
                symbols: vec![],
                decisions: vec![],
                mode: TradingMode::Paper,
                dry_run: true,
                as_of_date: "2026-01-09".to_owned(),
                config: ConfigHash([0; 32]),
                denied_at_start: vec![],
            }),
            attempt: 1,
            strategy: strategy.map(strategy_name),
            outputs: Arc::new(self.outputs.clone()),
            decisions: Arc::new(decisions),
            time_left: std::time::Duration::from_secs(1),
        }
    }

    async fn call(&mut self, stage: usize, strategy: Option<&str>) -> StageOutput {
        let request = self.request(stage, strategy);
        let output = self.built_in.call_stage(request.clone()).await.unwrap();
        self.outputs.push((request.stage.name, output.clone()));
        output
    }
}

#[tokio::test]
async fn prices_moves_decisions_verdicts_and_figures_follow_from_each_other() {
    let mut stages = Stages::new();
    assert_eq!(stages.call(0, None).await.data, r#"{"prices":{"AAPL":"102","MSFT":"400"}}"#);
    assert_eq!(stages.call(1, None).await.data, r#"{"moves":{"AAPL":"0.02","MSFT":"0"}}"#);

    let by_momentum = stages.call(2, Some("a")).await.decisions;
    let by_regime = stages.call(2, Some("b")).await.decisions;
    let told = |decisions: &[orchestrator_kernel::trading::decision::TradeDecision]| -> Vec<(String, DecisionAction)> {
        decisions.iter().map(|decision| (decision.decision_id.to_string(), decision.action)).collect()
    };
    assert_eq!(
        told(&by_momentum),
        [("a:AAPL".to_owned(), DecisionAction::Buy), ("a:MSFT".to_owned(), DecisionAction::Hold)]
    );
    assert_eq!(told(&by_regime), [("b:MSFT".to_owned(), DecisionAction::Sell)]);

    let verdicts = stages.call(3, None).await.verdicts;
    let quantities: Vec<Option<Decimal>> = verdicts
        .iter()
        .map(|verdict| match &verdict.outcome {
            RiskOutcome::Allowed { quantity, .. } => Some(*quantity),
            RiskOutcome::Held | RiskOutcome::Denied(_) => None,
        })
        .collect();
    assert_eq!(quantities, [Some(Decimal::from(196)), None, Some(Decimal::from(50))], "20000 of money each");

    stages.call(5, None).await;
    let figures = stages.call(6, None).await.data;
    assert!(figures.contains(r#""allowed":2"#) && figures.contains(r#""notional":"39992""#), "{figures}");
    assert!(stages.call(7, None).await.data.contains(r#""complete":true"#));
}

#[tokio::test]
async fn an_audit_fails_that_finds_a_decision_which_nobody_judged() {
    let mut stages = Stages::new();
    stages.call(2, Some("a")).await;
    let error = stages.built_in.call_stage(stages.request(7, None)).await.unwrap_err();
    assert_eq!(error.kind, StageErrorKind::Provider);
    assert!(error.detail.contains("a:AAPL"), "{error}");
}

#[tokio::test]
async fn a_kind_of_strategy_that_is_not_built_in_fails_by_name() {
    let mut stages = Stages::new();
    let request = StageRequest { strategy: Some(strategy_name("c")), ..stages.request(2, None) };
    assert!(stages.built_in.call_stage(request).await.unwrap().decisions.is_empty(), "it does not exist");
    stages.call(0, None).await;
    let execute = stages.built_in.call_stage(stages.request(4, None)).await.unwrap_err();
    assert_eq!(execute.kind, StageErrorKind::Unavailable, "orders are the cycle's own");
}
