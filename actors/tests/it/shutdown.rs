//! An ordered stop: within its grace, nothing half done, and the next start goes on.

use std::time::Duration;

use orchestrator_actors::testkit::{Act, OnAppend, Publish, eventually, runs_of, trade};
use orchestrator_actors::tree::StopOutcome;
use orchestrator_kernel::engine::contracts::engine_run::RunStatus;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_runtime::status::Lifecycle;
use tokio::time::Instant;

use crate::common::{boundary, outputs, second_and_tick, stop_and_check, two_symbols};

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_run_in_flight_is_finished_and_published() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::AnswerAfter(Duration::from_millis(400))]);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("A is in its call", || rig.engine.calls_of("A") == 1).await;
    let board = tree.board.clone();

    assert_eq!(tree.stop(GRACE).await, StopOutcome::Clean);

    assert_eq!(board.current_status().lifecycle, Lifecycle::Stopped);
    assert_eq!(rig.outputs.len(), 4);
    assert_eq!(rig.ledger().counts().completed, 2);
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_engine_is_failed_as_shutdown_within_the_grace() {
    let (rig, clock) = two_symbols();
    let mut settings = rig.settings.clone();
    settings.engine_plane.runners.deadline = Duration::from_secs(3600);
    let rig = orchestrator_actors::testkit::TestTree { settings, ..rig };
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Hang]);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("A is in its call", || rig.engine.calls_of("A") == 1).await;

    let begin = Instant::now();
    assert_eq!(tree.stop(GRACE).await, StopOutcome::Clean);

    assert!(begin.elapsed() <= GRACE);
    let runs = runs_of(&rig.runs).await;
    let failed = runs.iter().find_map(|run| match &run.status {
        RunStatus::Failed { error_kind, .. } => Some(*error_kind),
        RunStatus::Started { .. } | RunStatus::Completed { .. } => None,
    });
    assert_eq!(failed, Some(ErrorKind::Shutdown));
    assert_eq!(rig.outputs.len(), 4);
    rig.check().await;
}

#[tokio::test(start_paused = true)]
async fn runs_that_were_not_begun_are_left_to_the_next_start() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::AnswerAfter(Duration::from_millis(400))]);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("the first tick is sealed", || rig.ledger().counts().ticks == 1).await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    eventually("B has run twice", || rig.engine.calls_of("B") == 2).await;
    assert_eq!(tree.stop(GRACE).await, StopOutcome::Clean);
    assert_eq!(rig.outputs.len(), 6);
    rig.check().await;

    let tree = rig.start().await;
    outputs(&rig, 8).await;
    second_and_tick(&rig, &clock, 3, &["A", "B"]).await;
    outputs(&rig, 12).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn outputs_that_cannot_be_published_in_time_are_published_by_the_next_start() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.outputs.always(Some(Publish::FailAfter(0)));
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("the runs are done", || rig.ledger().counts().completed == 2).await;

    let begin = Instant::now();
    assert_eq!(tree.stop(GRACE).await, StopOutcome::Unfinished("publisher"));
    assert!(begin.elapsed() <= GRACE, "{:?}", begin.elapsed());
    assert!(rig.outputs.is_empty());

    rig.outputs.always(None);
    let tree = rig.start().await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_log_does_not_hold_up_the_stop_and_nothing_is_acknowledged() {
    let (rig, _clock) = two_symbols();
    let tree = rig.start().await;
    rig.receipts.always(OnAppend::Hang);
    rig.feed().push([trade("A", boundary(1).0)]);
    eventually("the append hangs", || rig.receipts.hanging() == 1).await;

    let begin = Instant::now();
    assert_eq!(tree.stop(GRACE).await, StopOutcome::Unfinished("ingest"));

    assert!(begin.elapsed() <= GRACE, "{:?}", begin.elapsed());
    assert_eq!(rig.feed().settled(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_actors_are_down_is_in_order() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.always("A", Act::Panic);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("the runner is down", || rig.ledger().counts().exits_of("symbol_runner", "restarted") == 3)
        .await;

    assert_eq!(tree.stop(GRACE).await, StopOutcome::Clean);

    rig.engine.always("A", Act::Answer);
    let tree = rig.start().await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;
}
