//! The largest cycle that a configuration may ask for: the built-in stages do it, and its records fit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::{SYMBOL_BYTES_MAX, Symbol, TsMs};
use orchestrator_kernel::ports::market::MarketPrice;
use orchestrator_kernel::ports::stage::{HookBackend, NoHooks, StageBackend};
use orchestrator_kernel::trading::cycle::CycleStatus;
use orchestrator_kernel::trading::decision::Confidence;
use orchestrator_kernel::trading::pipeline::rebalance_pipeline;
use orchestrator_kernel::trading::risk::RiskLimits;
use orchestrator_kernel::trading::sizing::SizingLimits;
use orchestrator_kernel::trading::strategy::CYCLE_SYMBOLS_MAX;
use orchestrator_trading_plane::builtin::{BuiltInSettings, BuiltInStages};
use orchestrator_trading_plane::command::{CommandRefused, TradingCommand};
use orchestrator_trading_plane::testkit::{
    PlaneRig, every_minute, origin, pipeline_name, start_agent, strategy_name, trading_settings,
};
use orchestrator_trading_plane::view::TradingView;
use rust_decimal::Decimal;

use crate::cycles::{ended, run_cycle};

/// So many symbols of the longest names, of characters that are two in JSON, with prices of the most digits.
fn symbols(rig: &PlaneRig, of: &str, count: usize) -> Vec<Symbol> {
    let named = |number: usize| {
        let name = format!("{of}{number}");
        Symbol::from(format!("{name}{}", "\"".repeat(SYMBOL_BYTES_MAX - name.len())).as_str())
    };
    let symbols: Vec<Symbol> = (0..count).map(named).collect();
    for symbol in &symbols {
        for price in ["1.0000000000000000000000000001", "1.0100000000000000000000000001"] {
            let price = price.parse().unwrap();
            rig.market.push_price(symbol, MarketPrice { price, at: TsMs(i64::MAX) });
        }
    }
    symbols
}

/// A plane with the built-in stages, whose strategies `a` and `b` have so many symbols together.
fn rig(symbols_in_all: usize) -> PlaneRig {
    let mut settings = trading_settings();
    settings.schedules.clear();
    let mut rebalance = rebalance_pipeline();
    rebalance.budget = Duration::from_secs(600);
    rebalance.stages.iter_mut().for_each(|stage| stage.budget = Duration::from_secs(120));
    settings.pipelines.insert(pipeline_name("rebalance"), rebalance);
    let mut rig = PlaneRig::new(settings);
    let of_a = symbols_in_all / 2;
    let shares = [symbols(&rig, "a", of_a), symbols(&rig, "b", symbols_in_all - of_a)];
    for ((definition, _), symbols) in rig.settings.strategies.iter_mut().zip(shares) {
        definition.symbols = symbols;
    }
    let capital = Decimal::from(100_000);
    let built_in = BuiltInSettings {
        risk: RiskLimits { max_position_size: capital, capital, confidence_min: Confidence::ZERO },
        sizing: SizingLimits { capital, max_position_size: capital },
        prices_max: 10,
        targets: BTreeMap::new(),
    };
    let view = TradingView::default();
    let stages = BuiltInStages::new(built_in, rig.market.clone(), view.clone());
    let stages = Arc::new(stages) as Arc<dyn StageBackend>;
    rig.backends = Some((Arc::clone(&stages), Arc::new(NoHooks) as Arc<dyn HookBackend>));
    rig.asks_bus = Some((view, stages));
    rig
}

/// Method: as many symbols as are accepted, in names as long as they may be; both shipped pipelines that decide.
#[tokio::test]
async fn a_cycle_of_as_many_symbols_as_are_accepted_passes_and_its_records_fit_a_batch() {
    let rig = rig(CYCLE_SYMBOLS_MAX);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();

    for pipeline in ["canonical", "rebalance"] {
        let cycle = run_cycle(&plane, pipeline, pipeline).await;
        let ended = ended(&plane, cycle).await;

        assert_eq!(ended.status, CycleStatus::Ok, "{pipeline}: {:?}", ended.errors);
        assert_eq!(usize::try_from(ended.counts.decisions), Ok(CYCLE_SYMBOLS_MAX), "{pipeline}");
        assert!(0 < ended.counts.intents, "{pipeline}");
    }
    plane.kill().await;

    let longest = rig.log.records().await.iter().map(Vec::len).max().unwrap();
    let batch = rig.settings.journal.writer.limits.bytes;
    assert!(longest <= batch, "a record of {longest} bytes, a batch has {batch}");
    rig.audited().await;
}

/// What does not fit is refused: a schedule at the start, a command when it comes.
#[tokio::test]
async fn strategies_with_more_symbols_than_a_cycle_decides_about_are_refused_by_name() {
    let mut rig = rig(CYCLE_SYMBOLS_MAX + 1);
    rig.settings.schedules = vec![every_minute("minutely", "canonical"), every_minute("beat", "heartbeat")];
    let said = "strategies a, b have 1001 symbols together, and one cycle decides about at most 1000";

    let violations = rig.settings.find_violations();

    assert_eq!(violations, [format!("schedules.minutely.strategies: {said}")]);
    rig.settings.schedules.clear();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let run = |pipeline: &str| TradingCommand::RunCycle {
        pipeline: pipeline_name(pipeline),
        strategies: vec![strategy_name("a"), strategy_name("b")],
        trigger_event: None,
    };
    let refused = plane.handle().execute_command(run("canonical"), origin("all")).await;
    assert_eq!(refused, Err(CommandRefused::Invalid(format!("strategies: {said}"))));
    run_cycle(&plane, "looks", "heartbeat").await;
    plane.kill().await;
}
