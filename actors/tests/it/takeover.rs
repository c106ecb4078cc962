//! Another writer takes over: how the process ends that was overtaken (LOG-3).

use orchestrator_actors::testkit::{Publish, TestTree, eventually};
use orchestrator_actors::tree::Tree;
use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::Log;
use orchestrator_runtime::fatal::FatalKind;

use crate::common::{failure_of, second_and_tick, two_symbols};

/// The process that is superseded must not set back the cursor of its successor (LOG-3).
#[tokio::test(start_paused = true)]
async fn a_superseded_publisher_ends_its_tree() {
    let (rig, clock) = two_symbols();
    let mut tree = rig.start().await;
    let theirs = rig.checkpoints.load("published").await.unwrap().unwrap_or_default();
    rig.checkpoints.save("published", Epoch(u64::MAX), theirs).await.unwrap();

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    let (kind, what) = failure_of(&mut tree).await;

    assert_eq!(kind, FatalKind::Fenced, "{what}");
}

/// How a tree ends whose run log is cut off by this writer before it is published.
async fn cut_off(writer: impl AsyncFnOnce(&TestTree, &Tree) -> Epoch) -> (FatalKind, String) {
    let (rig, clock) = two_symbols();
    let mut tree = rig.start().await;
    rig.outputs.always(Some(Publish::FailAfter(0)));
    for n in 1..=3 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        let done = 2 * u64::try_from(n).unwrap();
        eventually("the runs are done", || rig.ledger().counts().completed == done).await;
    }

    let writer = writer(&rig, &tree).await;
    rig.runs.trim(writer, rig.runs.stat().tail).await.unwrap();

    failure_of(&mut tree).await
}

/// A successor has published what it lets go, and this process still has to: that is no damage (LOG-3).
#[tokio::test(start_paused = true)]
async fn a_superseded_publisher_does_not_take_trimmed_runs_for_damage() {
    let (kind, what) = cut_off(async |rig, _| rig.runs.acquire().await.unwrap().epoch).await;

    assert_eq!(kind, FatalKind::Fenced, "{what}");
    assert!(
        what.contains("took over") && what.contains("before this was known: publisher: cannot read"),
        "{what}"
    );
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_gone_before_they_are_published_are_damage_if_nobody_took_over() {
    let (kind, what) = cut_off(async |_, tree| tree.committed.borrow().epoch).await;

    assert_eq!(kind, FatalKind::Corrupt, "{what}");
}
