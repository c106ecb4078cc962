//! The stages that are built in, as a cycle of theirs leaves them on record.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::ports::market::{MarketPrice, MarketView, MemoryMarket};
use orchestrator_kernel::ports::stage::{MemoryStages, StageBackend, StageRequest};
use orchestrator_kernel::trading::cycle::merge_strategy_answers;
use orchestrator_kernel::trading::decision::{Confidence, DecisionAction, TradeDecision};
use orchestrator_kernel::trading::event::ForeignHeartbeat;
use orchestrator_kernel::trading::ids::{CommandId, CycleId, DecisionId, StageName, StrategyName};
use orchestrator_kernel::trading::journal::{
    ConfigHash, CycleCause, CycleStarted, JournalFact, JournalIndex, StageErrorKind, StageOutput, TradingMode,
};
use orchestrator_kernel::trading::pipeline::{
    Pipeline, canonical_pipeline, heartbeat_pipeline, rebalance_pipeline,
};
use orchestrator_kernel::trading::risk::{RiskLimits, RiskOutcome, RiskRule, RiskVerdict};
use orchestrator_kernel::trading::sizing::SizingLimits;
use orchestrator_kernel::trading::stage::StageProvider;
use orchestrator_kernel::trading::strategy::{StrategyChanged, StrategyStatus};
use orchestrator_trading_plane::builtin::{BuiltInSettings, BuiltInStages, GuardedRisk};
use orchestrator_trading_plane::testkit::{strategy, strategy_name};
use orchestrator_trading_plane::view::TradingView;
use rust_decimal::Decimal;

use crate::common::{WALL, entry};

struct Stages {
    pipeline: Pipeline,
    view: TradingView,
    built_in: Arc<BuiltInStages>,
    outputs: Vec<(StageName, StageOutput)>,
    started_at: TsMs,
}

impl Stages {
    /// Strategies `a` by momentum and `b` by regime; AAPL has risen, the engine says that MSFT falls.
    fn new() -> Self {
        Self::with(canonical_pipeline(), 0.0, [].into())
    }

    fn with_confidence(confidence_min: f64) -> Self {
        Self::with(canonical_pipeline(), confidence_min, [].into())
    }

    fn with(
        pipeline: Pipeline,
        confidence_min: f64,
        targets: BTreeMap<StrategyName, BTreeMap<Symbol, Decimal>>,
    ) -> Self {
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
                confidence_min: Confidence::new(confidence_min).unwrap(),
            },
            sizing: SizingLimits { capital: money(100_000), max_position_size: money(20_000) },
            prices_max: 10,
            targets,
        };
        let market: Arc<dyn MarketView> = Arc::new(market);
        let built_in = Arc::new(BuiltInStages::new(settings, market, view.clone()));
        Self { pipeline, view, built_in, outputs: vec![], started_at: TsMs(WALL) }
    }

    fn request(&self, stage: usize, strategy: Option<&str>) -> StageRequest {
        let command = CommandId::derive("test");
        let pipeline = self.pipeline.clone();
        let decisions = self.outputs.iter().flat_map(|(_, output)| output.decisions.clone()).collect();
        StageRequest {
            stage: pipeline.stages[stage].clone(),
            started: Arc::new(CycleStarted {
                cycle_id: CycleId::of_command(command),
                cause: CycleCause::Command(command),
                started_at: self.started_at,
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

/// One symbol that moves passes the gate of stale data for all: the price of another may be an old one.
#[tokio::test]
async fn a_price_older_than_stale_after_counts_for_no_order() {
    let mut stages = Stages::new();
    let age = stages.pipeline.stale_after.unwrap();
    let age_ms = i64::try_from(age.as_millis()).unwrap();
    for (later_ms, prices, judged) in [
        (age_ms, r#"{"prices":{"AAPL":"102","MSFT":"400"}}"#, r#"{"allowed":1,"judged":2}"#),
        (age_ms + 1, r#"{"prices":{}}"#, r#"{"allowed":0,"judged":2}"#),
    ] {
        stages.outputs.clear();
        stages.started_at = TsMs(WALL + later_ms);

        assert_eq!(stages.call(0, None).await.data, prices);
        stages.call(2, Some("a")).await;
        assert_eq!(stages.call(3, None).await.data, judged, "{later_ms} ms later");
    }
}

/// Method: each verdict of a RISK behind HTTP, and what is left of it. AAPL is at 102, one order may be worth 20000.
#[tokio::test]
async fn a_risk_of_others_may_lower_or_deny_and_nothing_else() {
    let verdict =
        |id: &str, outcome: RiskOutcome| RiskVerdict { decision_id: DecisionId::new(id).unwrap(), outcome };
    let allowed = |quantity: i64, price: i64| RiskOutcome::Allowed {
        quantity: Decimal::from(quantity),
        price: Decimal::from(price),
        lowered_by: vec![],
    };
    let decided = |id: &str, symbol: &str, confidence: f64, quantity: i64| TradeDecision {
        decision_id: DecisionId::new(id).unwrap(),
        symbol: Symbol::from(symbol),
        strategy: strategy_name("a"),
        action: DecisionAction::Buy,
        confidence: Confidence::new(confidence).unwrap(),
        reasoning: "up".to_owned(),
        suggested_quantity: Some(Decimal::from(quantity)),
        suggested_price: None,
    };
    let told = RiskOutcome::Denied(RiskRule::Provider);
    let cases = [
        ("it goes beyond max_position_size", decided("d", "AAPL", 0.9, 1000), allowed(1000, 1), Some(196)),
        ("it lowers", decided("d", "AAPL", 0.9, 1000), allowed(7, 102), Some(7)),
        ("it denies", decided("d", "AAPL", 0.9, 10), told, None),
        ("nobody knows a price", decided("d", "TSLA", 0.9, 10), allowed(10, 300), None),
        ("the symbol is none of the strategy's", decided("d", "ETH", 0.9, 10), allowed(10, 300), None),
        ("the confidence is too low", decided("d", "AAPL", 0.1, 10), allowed(10, 102), None),
    ];
    for (what, decision, outcome, left) in cases {
        let (stages, foreign) = (Stages::with_confidence(0.2), Arc::new(MemoryStages::default()));
        let guarded =
            GuardedRisk::new(Arc::clone(&foreign) as Arc<dyn StageBackend>, Arc::clone(&stages.built_in));
        let mut request = stages.request(3, None);
        request.stage.provider = StageProvider::Http;
        request.decisions = Arc::new(vec![decision]);
        let answer = StageOutput { verdicts: vec![verdict("d", outcome)], ..StageOutput::default() };
        foreign.push_answer("RISK", Ok(answer));

        let narrowed = guarded.call_stage(request).await.unwrap().verdicts;

        let shares = match &narrowed[0].outcome {
            RiskOutcome::Allowed { quantity, price, .. } => {
                assert_eq!(*price, Decimal::from(102), "the price that is known, not theirs");
                Some(*quantity)
            }
            RiskOutcome::Held | RiskOutcome::Denied(_) => None,
        };
        assert_eq!(shares, left.map(Decimal::from), "{what}: {narrowed:?}");
    }
}

/// What no RISK may say is left for the cycle to refuse, whole; and the built-in RISK is judged once.
#[tokio::test]
async fn a_verdict_that_raises_is_not_mended_into_a_good_one() {
    let (stages, foreign) = (Stages::new(), Arc::new(MemoryStages::default()));
    let guarded =
        GuardedRisk::new(Arc::clone(&foreign) as Arc<dyn StageBackend>, Arc::clone(&stages.built_in));
    let mut request = stages.request(3, None);
    request.stage.provider = StageProvider::Worker;
    let mut decision = orchestrator_trading_plane::testkit::decision_of(&strategy_name("a"));
    decision.suggested_quantity = Some(Decimal::TEN);
    request.decisions = Arc::new(vec![decision.clone()]);
    let outcome =
        RiskOutcome::Allowed { quantity: Decimal::from(11), price: Decimal::ONE, lowered_by: vec![] };
    let raises = StageOutput {
        verdicts: vec![RiskVerdict { decision_id: decision.decision_id, outcome }],
        ..StageOutput::default()
    };
    foreign.push_answer("RISK", Ok(raises.clone()));

    assert_eq!(guarded.call_stage(request.clone()).await.unwrap(), raises);
    request.stage.provider = StageProvider::BuiltIn;
    guarded.call_stage(request).await.unwrap();
    assert_eq!(
        foreign.asked_stages(),
        ["RISK", "RISK"],
        "each is asked once, and the own one is not judged twice"
    );
}

fn shares_of(output: &StageOutput) -> Vec<(String, DecisionAction, Option<Decimal>)> {
    let verdicts = output.verdicts.iter().zip(&output.decisions);
    verdicts
        .map(|(verdict, decision)| {
            assert_eq!(verdict.decision_id, decision.decision_id);
            let shares = match &verdict.outcome {
                RiskOutcome::Allowed { quantity, .. } => Some(*quantity),
                RiskOutcome::Held | RiskOutcome::Denied(_) => None,
            };
            (decision.decision_id.to_string(), decision.action, shares)
        })
        .collect()
}

/// The stages of a rebalance of `a` and `b`, of which each is asked for its weights.
async fn rebalanced(stages: &mut Stages) -> StageOutput {
    for at in [0, 1] {
        let mut parts = Vec::new();
        for name in ["a", "b"] {
            let request = stages.request(at, Some(name));
            parts.push((strategy_name(name), stages.built_in.call_stage(request).await));
        }
        let name = stages.pipeline.stages[at].name.clone();
        stages.outputs.push((name, merge_strategy_answers(StageProvider::BuiltIn, &[], parts).unwrap()));
    }
    stages.call(2, None).await
}

/// Method: `a` has targets, `b` goes by its signals: the engine says with 0.5 that MSFT falls, of two symbols. Nothing
/// is held, so each target is an order: 0.1 of 100000 at 102, the most that one order may be worth, 0.25 short at 400.
#[tokio::test]
async fn a_rebalance_orders_what_targets_or_signals_say_within_the_rules() {
    let weight = |symbol: &str, weight: &str| (Symbol::from(symbol), weight.parse::<Decimal>().unwrap());
    let targets = [weight("AAPL", "0.1"), weight("MSFT", "-0.9"), weight("TSLA", "0.5"), weight("NONE", "0")];
    let targets = [(strategy_name("a"), targets.into())].into();
    let mut stages = Stages::with(rebalance_pipeline(), 0.0, targets);

    let orders = rebalanced(&mut stages).await;

    let weights = &stages.outputs[1].1.data;
    assert!(
        weights
            .contains(r#""b":{"confidence":{"MSFT":0.5},"differences":{"MSFT":"-0.25"},"source":"signals"}"#),
        "{weights}"
    );
    let told = |id: &str, action, shares: Option<i64>| (id.to_owned(), action, shares.map(Decimal::from));
    assert_eq!(
        shares_of(&orders),
        [
            told("a:AAPL", DecisionAction::Buy, Some(98)),
            told("a:MSFT", DecisionAction::Sell, Some(50)),
            told("a:TSLA", DecisionAction::Buy, None),
            told("b:MSFT", DecisionAction::Sell, Some(50)),
        ]
    );
    let denied = &orders.verdicts[2].outcome;
    assert_eq!(
        *denied,
        RiskOutcome::Denied(RiskRule::PriceUnavailable),
        "a target is judged as any decision"
    );

    let mut careful = Stages::with(rebalance_pipeline(), 0.6, [].into());
    let orders = rebalanced(&mut careful).await;
    assert_eq!(shares_of(&orders).last().unwrap().2, None, "a signal keeps its confidence: {orders:?}");
}

#[tokio::test]
async fn without_a_target_there_is_no_order() {
    let zero = [(Symbol::from("AAPL"), Decimal::ZERO)].into();
    let none = BTreeMap::from([(strategy_name("a"), zero), (strategy_name("b"), BTreeMap::new())]);
    let mut stages = Stages::with(rebalance_pipeline(), 0.0, none);

    let orders = rebalanced(&mut stages).await;

    assert!(orders.decisions.is_empty() && orders.verdicts.is_empty(), "{orders:?}");
}

/// A heartbeat's answers: how other services are, and the agent's figures.
#[tokio::test]
async fn a_heartbeat_tells_the_services_and_the_agents_figures() {
    let mut stages = Stages::with(heartbeat_pipeline(), 0.0, [].into());
    assert_eq!(stages.call(0, None).await.data, r#"{"catching_up":false,"services":{},"unwell":0}"#);
    stages.view.expect_heartbeats(std::time::Duration::from_secs(3600));
    for (service, status) in [("feed", "healthy"), ("models", "degraded")] {
        stages
            .view
            .take_heartbeat(&ForeignHeartbeat { service: service.to_owned(), status: status.to_owned() });
    }

    let health = stages.call(0, None).await.data;

    assert_eq!(
        health,
        r#"{"catching_up":false,"services":{"feed":"healthy","models":"degraded"},"unwell":1}"#
    );
    let figures = stages.call(2, None).await.data;
    assert_eq!(figures, r#"{"agent":"stopped","cycles":0,"decisions":0,"errors":0,"orders":0}"#);
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
