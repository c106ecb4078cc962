//! What the tests share: a tree with two symbols, and a second of receipts.

use std::time::Duration;

use orchestrator_actors::testkit::{ManualClock, TestClock, TestTree, eventually, settings, snapshot, trade};
use orchestrator_actors::tree::{Settings, StopOutcome, Tree};
use orchestrator_runtime::fatal::FatalKind;
use std::sync::Arc;

/// The wall time at which tests begin: right after a boundary.
pub(crate) const START: i64 = 1_000_000;

/// A tree under a clock that the test sets.
pub(crate) fn manual(settings: Settings) -> (TestTree, Arc<ManualClock>) {
    let clock = ManualClock::at(START + 200);
    (TestTree::new(settings, TestClock::Manual(Arc::clone(&clock))), clock)
}

/// The usual: symbols A and B.
pub(crate) fn two_symbols() -> (TestTree, Arc<ManualClock>) {
    manual(settings(&["A", "B"]))
}

/// The boundary of second `n`, counted from 1, and its planned time.
pub(crate) const fn boundary(n: i64) -> (i64, i64) {
    (START + n * 1000, START + n * 1000 + 100)
}

/// Sends the receipts of second `n` for `symbols` and waits until they are durable.
pub(crate) async fn second(rig: &TestTree, n: i64, symbols: &[&str]) {
    let (ts, _) = boundary(n);
    let items = symbols.iter().flat_map(|symbol| [trade(symbol, ts - 300), snapshot(symbol, ts - 200, ts)]);
    let wanted = rig.feed().settled() + 2 * symbols.len();
    rig.feed().push(items);
    eventually("receipts are durable", || rig.feed().settled() >= wanted).await;
}

/// Receipts of second `n`, then its tick.
pub(crate) async fn second_and_tick(rig: &TestTree, clock: &ManualClock, n: i64, symbols: &[&str]) {
    second(rig, n, symbols).await;
    clock.set(boundary(n).1);
}

/// Waits until this many distinct outputs arrived.
pub(crate) async fn outputs(rig: &TestTree, count: usize) {
    eventually(&format!("{count} outputs arrive"), || rig.outputs.len() >= count).await;
    assert_eq!(rig.outputs.len(), count);
}

/// Stops, and checks everything that must hold at rest.
pub(crate) async fn stop_and_check(rig: &TestTree, tree: Tree) {
    assert_eq!(tree.stop(Duration::from_secs(10)).await, StopOutcome::Clean);
    rig.check().await;
}

/// What ends the tree. One that nothing ends is a failure of the test, not a test without end.
pub(crate) async fn failure_of(tree: &mut Tree) -> (FatalKind, String) {
    tokio::time::timeout(Duration::from_secs(120), tree.wait_for_failure())
        .await
        .expect("nothing ended the tree")
}
