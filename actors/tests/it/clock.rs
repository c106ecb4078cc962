//! A wall clock that was ahead and is corrected: no run happens until it has caught up, and the service says so.

use std::time::Duration;

use orchestrator_actors::testkit::{CrashPoint, eventually, settings};
use orchestrator_actors::tree::Tree;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ports::observer::TickSkipReason;
use orchestrator_runtime::status::{Condition, Lifecycle};
use tokio::time::sleep;

use crate::common::{START, boundary, manual, outputs, second, second_and_tick, stop_and_check, two_symbols};

/// What is said of the clock.
fn said(tree: &Tree) -> Option<String> {
    tree.board.current_status().conditions.get(&Condition::ClockBehind).cloned()
}

/// Method: two hours ahead for one wake-up of the scheduler, then right again, with a restart in between; the clock
/// then shows the time that it had been ahead to.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_ahead_stops_runs_until_it_has_caught_up_and_says_so() {
    const AHEAD: i64 = 7200;
    let mut settings = settings(&["A", "B"]);
    settings.engine_plane.scheduler.catch_up_max = 2;
    let (rig, clock) = manual(settings);
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    clock.set(boundary(AHEAD).1);
    outputs(&rig, 12).await;
    assert_eq!(rig.ledger().counts().skipped, [(TickSkipReason::Missed, 2 * (AHEAD as u64 - 3))].into());
    assert_eq!(said(&tree), None, "nobody can know yet that it is wrong");
    clock.set(boundary(1).1 + 500);
    eventually("it is said", || said(&tree).is_some()).await;
    let status = tree.board.current_status();
    assert_eq!((status.lifecycle, status.ready), (Lifecycle::Degraded, false));
    assert!(said(&tree).unwrap().contains("7198 s behind"), "{:?}", said(&tree));
    tree.kill().await;

    let tree = rig.try_start(&CrashPoint::never()).await.unwrap();
    eventually("it is said after a restart too", || said(&tree).is_some()).await;
    for n in 2..=5 {
        second(&rig, n, &["A", "B"]).await;
        clock.set(boundary(n).1);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.outputs.len(), 12, "no tick comes twice, and none early");
    assert_eq!(rig.feed().settled(), 20, "receipts are taken all the time");
    assert!(!tree.board.current_status().ready);

    clock.set(boundary(AHEAD).1 + 1);
    eventually("it has caught up", || tree.board.current_status().ready).await;
    assert_eq!(said(&tree), None);
    second_and_tick(&rig, &clock, AHEAD + 1, &["A", "B"]).await;
    outputs(&rig, 16).await;
    stop_and_check(&rig, tree).await;
}

/// Receipts alone carry the clock's time into the log: no tick need have passed.
#[tokio::test(start_paused = true)]
async fn receipts_that_were_stamped_ahead_are_noticed_without_any_tick() {
    let mut settings = settings(&["A", "B"]);
    settings.engine_plane.scheduler.cadence =
        orchestrator_kernel::engine::cadence::Cadence::Boundary { interval_ms: 60_000, delay_ms: 100 };
    let (rig, clock) = manual(settings);
    let tree = rig.start().await;

    clock.set(START + 10_000);
    second(&rig, 1, &["A", "B"]).await;
    clock.set(START + 1_000);
    eventually("it is said", || said(&tree).is_some()).await;
    assert!(!tree.board.current_status().ready);
    second(&rig, 2, &["A", "B"]).await;
    clock.set(START + 10_000);
    eventually("it has caught up", || tree.board.current_status().ready).await;

    let stored = rig.receipts.records().await;
    let stamps: Vec<i64> =
        stored.iter().map(|bytes| ReceiptRecord::decode(bytes).unwrap().ingest_ts_ms.0).collect();
    assert_eq!(stamps, [START + 10_000; 8], "LOG-5");
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_slewed_back_a_little_is_no_trouble() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    clock.set(boundary(1).1 - 2000);
    sleep(Duration::from_secs(5)).await;

    assert_eq!(said(&tree), None);
    assert!(tree.board.current_status().ready);
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 8).await;
    stop_and_check(&rig, tree).await;
}
