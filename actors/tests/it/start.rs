//! A start that fails: what it says is what went wrong first, not who noticed.

use std::time::Duration;

use orchestrator_actors::testkit::{CrashPoint, OnAppend, TestTree, fence};
use orchestrator_actors::tree::Tree;
use orchestrator_runtime::fatal::{Fatal, FatalKind};

use crate::common::{outputs, second_and_tick, two_symbols};

/// Long before the receipt log can be read again, the idle run log is asked whether it is still there and ours.
const PROBE: Duration = Duration::from_millis(100);
const READS_FAIL: u32 = 5;

/// Logs on a server, with receipts and runs, and no checkpoint: the buffer has to read the receipts when it starts.
async fn left_by_a_crash() -> TestTree {
    let (mut rig, clock) = two_symbols();
    rig.settings.log_writer.probe_every = Some(PROBE);
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    tree.kill().await;
    rig.receipts.away_for(READS_FAIL);
    rig
}

fn refused(started: Result<Tree, Fatal>) -> Fatal {
    started.err().expect("a tree without its run log does not start")
}

/// Method: the run log starts; while the buffer waits for the receipts, the storage of the run log breaks. The
/// scheduler is the first that cannot start, because the run log is down.
#[tokio::test(start_paused = true)]
async fn a_storage_that_breaks_during_the_start_is_what_the_start_says() {
    let rig = left_by_a_crash().await;
    rig.runs.always(OnAppend::Poisoned);

    let refused = refused(rig.try_start(&CrashPoint::never()).await);

    assert_eq!(refused.kind, FatalKind::Storage, "{}", refused.what);
    assert!(refused.what.starts_with("run_log: ") && refused.what.contains("as told"), "{}", refused.what);
}

/// The same with a second writer that takes the run log over meanwhile.
#[tokio::test(start_paused = true)]
async fn a_writer_that_takes_over_during_the_start_is_what_the_start_says() {
    let rig = left_by_a_crash().await;
    let never = CrashPoint::never();

    let (started, ()) = tokio::join!(rig.try_start(&never), async {
        tokio::time::sleep(PROBE / 2).await;
        fence(&rig.runs).await;
    });

    let refused = refused(started);
    assert_eq!(refused.kind, FatalKind::Fenced, "{}", refused.what);
    assert!(refused.what.starts_with("run_log: "), "{}", refused.what);
}
