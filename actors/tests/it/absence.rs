//! An absence: its last ticks are made up for at the limits that the service ships with, whatever a symbol is doing.
//!
//! `schedule.catch_up_max` and `schedule.runs_queued_max` meet here, because made-up ticks are all due at once.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator_actors::testkit::{Act, CrashPoint, Publish, TestTree, eventually, runs_of, settings};
use orchestrator_actors::tree::Settings;
use orchestrator_engine_plane::flow::FlowLimits;
use orchestrator_kernel::ports::observer::TickSkipReason;

use crate::common::{boundary, manual, outputs, second, second_and_tick, stop_and_check};

/// `config/default.toml`'s numbers; tests/it/limits.rs holds these equal to it.
const CATCH_UP_MAX: i64 = 20;
const RUNS_QUEUED_MAX: usize = 4;

fn defaults() -> Settings {
    let mut settings = settings(&["A", "B"]);
    settings.engine_plane.scheduler.catch_up_max = 20;
    settings.engine_plane.scheduler.runs_queued_max = RUNS_QUEUED_MAX;
    settings.engine_plane.runners.deadline = Duration::from_secs(2);
    settings.engine_plane.flow =
        FlowLimits { backlog_max: 100_000, backlog_resume: 50_000, ..settings.engine_plane.flow };
    settings
}

/// Engine timestamps of the runs that ended, by symbol, as seconds of the test.
async fn ended(rig: &TestTree) -> BTreeMap<String, Vec<i64>> {
    let mut ended: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for record in runs_of(&rig.runs).await.into_iter().filter(|record| record.is_terminal()) {
        let second = (record.facts.engine_timestamp_ms.0 - boundary(0).0) / 1000;
        ended.entry(record.facts.symbol.to_string()).or_default().push(second);
    }
    ended
}

fn seconds(seconds: impl IntoIterator<Item = i64>) -> Vec<i64> {
    seconds.into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn an_idle_symbol_gets_the_last_catch_up_max_ticks_of_an_absence() {
    let (rig, clock) = manual(defaults());
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;

    clock.set(boundary(31).1);
    let tree = rig.start().await;
    outputs(&rig, 4 + 2 * 2 * 20).await;

    let expected = seconds([1].into_iter().chain(12..=31));
    assert_eq!(ended(&rig).await, [("A".to_owned(), expected.clone()), ("B".to_owned(), expected)].into());
    assert_eq!(rig.ledger().counts().skipped, [(TickSkipReason::Missed, 2 * 10)].into());
    stop_and_check(&rig, tree).await;
}

/// Method: A's first run takes its time when a jump of the clock makes up twenty ticks; then the next one comes.
#[tokio::test(start_paused = true)]
async fn a_slow_symbol_makes_up_later_holds_up_nobody_and_its_live_ticks_are_skipped() {
    let (rig, clock) = manual(defaults());
    let tree = rig.start().await;
    rig.engine.next("A", [Act::AnswerAfter(Duration::from_millis(1500))]);
    second(&rig, 1, &["A", "B"]).await;

    clock.set(boundary(CATCH_UP_MAX).1);
    eventually("B has made up", || of_b(&rig) == 40).await;
    second_and_tick(&rig, &clock, CATCH_UP_MAX + 1, &["A", "B"]).await;
    eventually("B is on time", || of_b(&rig) == 42).await;
    assert_eq!(rig.ledger().counts().skipped, [(TickSkipReason::SymbolBusy, 1)].into(), "A's live tick");
    eventually("A has made up too", || rig.outputs.len() == 82).await;
    second_and_tick(&rig, &clock, CATCH_UP_MAX + 2, &["A", "B"]).await;
    outputs(&rig, 86).await;

    let a = seconds((1..=CATCH_UP_MAX).chain([CATCH_UP_MAX + 2]));
    assert_eq!(ended(&rig).await, [("A".to_owned(), a), ("B".to_owned(), seconds(1..=22))].into());
    stop_and_check(&rig, tree).await;
}

fn of_b(rig: &TestTree) -> usize {
    rig.outputs.taken().iter().filter(|message| message.symbol.as_str() == "B").count()
}

/// Method: the process is killed while A's made-up runs wait in the scheduler; receipts came meanwhile, so that the
/// cuts have to be read back from the log.
#[tokio::test(start_paused = true)]
async fn made_up_runs_that_wait_survive_a_crash() {
    let (rig, clock) = manual(defaults());
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Hang]);
    second(&rig, 1, &["A", "B"]).await;
    clock.set(boundary(CATCH_UP_MAX).1);
    eventually("B has made up", || of_b(&rig) == 40).await;
    second(&rig, CATCH_UP_MAX + 1, &["A", "B"]).await;
    tree.kill().await;

    let tree = rig.try_start(&CrashPoint::never()).await.unwrap();
    outputs(&rig, 80).await;
    clock.set(boundary(CATCH_UP_MAX + 1).1);
    outputs(&rig, 84).await;

    let all = seconds(1..=CATCH_UP_MAX + 1);
    assert_eq!(ended(&rig).await, [("A".to_owned(), all.clone()), ("B".to_owned(), all)].into());
    stop_and_check(&rig, tree).await;
}

/// Method: the runner fails in the middle of what it makes up; its successor gets the rest, in order.
#[tokio::test(start_paused = true)]
async fn made_up_runs_that_wait_survive_a_failing_runner() {
    let (rig, clock) = manual(defaults());
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Panic]);
    second(&rig, 1, &["A", "B"]).await;

    clock.set(boundary(CATCH_UP_MAX).1);
    outputs(&rig, 80).await;

    let all = seconds(1..=CATCH_UP_MAX);
    assert_eq!(ended(&rig).await, [("A".to_owned(), all.clone()), ("B".to_owned(), all)].into());
    assert!(rig.ledger().counts().skipped.is_empty());
    stop_and_check(&rig, tree).await;
}

/// `publish.backlog_max` meets `schedule.catch_up_max`: what waits in the scheduler goes on waiting while publishing is
/// blocked.
#[tokio::test(start_paused = true)]
async fn made_up_runs_wait_while_publishing_is_blocked() {
    let mut settings = defaults();
    settings.engine_plane.flow =
        FlowLimits { backlog_max: 8, backlog_resume: 2, ..settings.engine_plane.flow };
    let (rig, clock) = manual(settings);
    let tree = rig.start().await;
    rig.outputs.always(Some(Publish::FailAfter(0)));

    clock.set(boundary(CATCH_UP_MAX).1);
    eventually("publishing is blocked", || !tree.board.current_status().ready).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let runs = ended(&rig).await.values().map(Vec::len).sum::<usize>();
    assert!(runs < 20, "{runs} runs for a backlog of 8 outputs");

    rig.outputs.always(None);
    outputs(&rig, 80).await;
    assert!(rig.ledger().counts().skipped.is_empty());
    stop_and_check(&rig, tree).await;
}
