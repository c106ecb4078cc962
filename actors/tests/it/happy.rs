//! Good days: receipts in, runs, outputs out.

use orchestrator_actors::testkit::{eventually, runs_of, settings, trade};
use orchestrator_engine_plane::scheduler::messages::Universe;
use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::ports::source::{ItemFate, Settlement};
use orchestrator_runtime::status::{Condition, Lifecycle};

use crate::common::{boundary, manual, outputs, second_and_tick, stop_and_check, two_symbols};

#[tokio::test(start_paused = true)]
async fn receipts_become_runs_and_outputs_in_order() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    assert_eq!(tree.board.current_status().lifecycle, Lifecycle::Running);

    for n in 1..=5 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        outputs(&rig, 4 * usize::try_from(n).unwrap()).await;
    }

    let of_a: Vec<_> = rig.outputs.taken().into_iter().filter(|m| m.symbol.as_str() == "A").collect();
    let numbers: Vec<u64> = of_a.iter().map(|message| message.symbol_seq).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    let kinds: Vec<_> = of_a.iter().take(2).map(|message| message.event_type).collect();
    assert_eq!(kinds, [event_type::RUN_STARTED, event_type::RUN_COMPLETED]);
    let settlements = rig.feed().settlements();
    assert!(settlements.iter().all(|s| *s == Settlement::Durable(vec![ItemFate::Appended; 4])));
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn hysteresis_state_goes_from_run_to_run_and_across_restarts() {
    let mut settings = settings(&["A", "B"]);
    settings.engine_plane.runners.mode = EngineMode::Hysteresis;
    let (rig, clock) = manual(settings);

    for n in 1..=4 {
        let tree = rig.start().await;
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        outputs(&rig, 6 * usize::try_from(n).unwrap()).await;
        stop_and_check(&rig, tree).await;
    }

    let decisions: Vec<_> = rig.outputs.taken();
    let decisions = decisions.iter().filter(|m| m.event_type == event_type::HYSTERESIS_DECISION);
    let last = decisions.last().unwrap();
    assert!(String::from_utf8_lossy(&last.body).contains("\"hysteresis_decision\":{\"count\":4,"));
}

#[tokio::test(start_paused = true)]
async fn discovered_symbols_are_run_from_their_first_receipt_up_to_the_limit() {
    let mut settings = settings(&[]);
    settings.engine_plane.scheduler.universe = Universe::Discover { limit: 2 };
    let (rig, clock) = manual(settings);
    let tree = rig.start().await;

    second_and_tick(&rig, &clock, 1, &["A"]).await;
    outputs(&rig, 2).await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 6).await;
    second_and_tick(&rig, &clock, 3, &["A", "B", "C"]).await;
    outputs(&rig, 10).await;

    assert!(tree.board.current_status().conditions.contains_key(&Condition::SymbolLimit));
    assert!(tree.board.current_status().ready);
    assert_eq!(rig.engine.calls_of("C"), 0);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_nothing_ends_in_order() {
    let (rig, _clock) = two_symbols();
    rig.feed().end();
    let tree = rig.start().await;

    tree.sources_ended().await;
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;

    assert_eq!(rig.feed().opened().len(), 1, "a normal end is no reason to open it again");
    assert!(tree.board.current_status().conditions.is_empty());
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn receipts_that_come_after_the_planned_time_belong_to_the_next_cut() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    rig.feed().push([trade("A", boundary(1).0)]);
    eventually("it is durable", || rig.feed().settled() == 5).await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 8).await;

    let runs = runs_of(&rig.runs).await;
    let cuts: Vec<_> = runs
        .iter()
        .filter(|run| run.is_terminal() && run.facts.symbol.as_str() == "A")
        .map(|run| (run.facts.cut.start.0, run.facts.cut.end.0))
        .collect();
    assert_eq!(cuts, [(1, 4), (5, 9)]);
    stop_and_check(&rig, tree).await;
}
