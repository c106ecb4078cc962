//! Saved values that are damaged: what can be done without is, and it is told; what cannot be done without is refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_actors::testkit::{CrashPoint, ManualClock, TestTree, eventually};
use orchestrator_actors::tree::StopOutcome;
use orchestrator_engine_plane::saved;
use orchestrator_kernel::engine::outbox::PublishProgress;
use orchestrator_kernel::engine::retention::{BASE, RetentionBase};
use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError};
use orchestrator_kernel::ports::fan_out::OutputMessage;
use orchestrator_runtime::fatal::FatalKind;

use crate::common::{outputs, second_and_tick, stop_and_check, two_symbols};

/// Three seconds of two symbols, all published and saved, and the tree stopped.
async fn with_three_seconds() -> (TestTree, Arc<ManualClock>) {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    for n in 1..=3 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        outputs(&rig, 4 * usize::try_from(n).unwrap()).await;
    }
    stop_and_check(&rig, tree).await;
    (rig, clock)
}

#[tokio::test(start_paused = true)]
async fn damaged_checkpoints_are_told_and_rebuilt_from_the_logs() {
    let (rig, clock) = with_three_seconds().await;
    let whole =
        saved::load_known_tails(rig.checkpoints.as_ref()).await.unwrap().expect("the buffer saved it");
    let runs = saved::load_known_run_tail(rig.checkpoints.as_ref()).await.unwrap();
    rig.checkpoints.damage_value("receipts");
    rig.checkpoints.damage_value("runs");

    let tree = rig.start().await;

    assert_eq!(rig.ledger().counts().checkpoints_damaged, ["runs", "receipts"]);
    second_and_tick(&rig, &clock, 4, &["A", "B"]).await;
    outputs(&rig, 16).await;
    stop_and_check(&rig, tree).await;
    let again = saved::load_known_tails(rig.checkpoints.as_ref()).await.unwrap().expect("it is saved again");
    assert!(whole.receipts < again.receipts, "{whole:?}, then {again:?}");
    assert!(runs < saved::load_known_run_tail(rig.checkpoints.as_ref()).await.unwrap());
}

/// Method: values that another program wrote there: whole for the store, and none of ours.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_another_form_is_told_as_damaged() {
    let (rig, _) = with_three_seconds().await;
    for name in ["receipts", "runs", "published"] {
        let value = Bytes::from_static(&[9; 12]);
        rig.checkpoints.save(name, Epoch(1), value).await.unwrap();
        let loaded = match name {
            "receipts" => saved::load_known_tails(rig.checkpoints.as_ref()).await.map(drop),
            "runs" => saved::load_known_run_tail(rig.checkpoints.as_ref()).await.map(drop),
            _ => saved::load_progress(rig.checkpoints.as_ref()).await.map(drop),
        };
        assert!(matches!(loaded, Err(LoadError::Damaged { .. })), "{name}: {loaded:?}");
    }

    let tree = rig.start().await;

    assert_eq!(rig.ledger().counts().checkpoints_damaged, ["runs", "receipts", "published"]);
    assert_eq!(tree.stop(Duration::from_secs(10)).await, StopOutcome::Clean);
}

/// At least once (OUT-1): what is not known to be published is published.
#[tokio::test(start_paused = true)]
async fn a_damaged_cursor_is_told_and_everything_is_published_again() {
    let (rig, _) = with_three_seconds().await;
    let whole = saved::load_progress(rig.checkpoints.as_ref()).await.unwrap();
    let before = rig.outputs.taken();
    rig.checkpoints.damage_value("published");

    let tree = rig.start().await;

    assert_eq!(rig.ledger().counts().checkpoints_damaged, ["published"]);
    eventually("all are published again", || rig.outputs.taken().len() == 2 * before.len()).await;
    let again = rig.outputs.taken().split_off(before.len());
    let ids = |messages: &[OutputMessage]| messages.iter().map(OutputMessage::message_id).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&before), "in the same order");
    // By itself, before anything new is published.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(saved::load_progress(rig.checkpoints.as_ref()).await.unwrap(), whole);
    assert_eq!(tree.stop(Duration::from_secs(10)).await, StopOutcome::Clean);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_cursor_before_the_first_output_is_replaced() {
    let (rig, _) = two_symbols();
    rig.checkpoints.save("published", Epoch(0), Bytes::new()).await.unwrap();
    rig.checkpoints.damage_value("published");

    let tree = rig.start().await;

    assert_eq!(rig.ledger().counts().checkpoints_damaged, ["published"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let saved = saved::load_progress(rig.checkpoints.as_ref()).await.unwrap();
    assert_eq!(saved, Some(PublishProgress::default()));
    stop_and_check(&rig, tree).await;
}

/// What it let go cannot be known without it, so it is never taken for "nothing was let go".
#[tokio::test(start_paused = true)]
async fn a_damaged_base_refuses_the_start_and_says_what_to_do() {
    let (rig, _) = with_three_seconds().await;
    let value = Bytes::from(RetentionBase::default().encode());
    rig.checkpoints.save(BASE, Epoch(1), value).await.unwrap();
    let tree = rig.start().await;
    stop_and_check(&rig, tree).await;
    rig.checkpoints.damage_value(BASE);

    let refused = rig.try_start(&CrashPoint::never()).await.err().expect("it must not start");

    assert_eq!(refused.kind, FatalKind::Corrupt);
    assert!(refused.what.contains("damaged") && refused.what.contains("restore"), "{}", refused.what);
    assert!(matches!(saved::base_is_sound(rig.checkpoints.as_ref()).await, Err(LoadError::Damaged { .. })));
}
