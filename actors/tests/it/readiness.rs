//! Readiness of a tree, looked at every ten milliseconds of its time: a condition is gone after the proof and not
//! before, and what blocks nothing never makes it unready.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrator_actors::testkit::{Act, Publish, eventually};
use orchestrator_kernel::random::Rng;
use orchestrator_runtime::status::{Condition, Status, StatusBoard};
use tokio::task::JoinHandle;

use crate::common::{boundary, manual, outputs, second, second_and_tick, stop_and_check, two_symbols};
use crate::kills::kill;

const EVERY: Duration = Duration::from_millis(10);

/// What a board said, from one time to another.
struct BoardWatch {
    seen: Arc<Mutex<Vec<Status>>>,
    task: JoinHandle<()>,
}

impl BoardWatch {
    fn begin(board: &StatusBoard) -> Self {
        let (seen, board) = (Arc::<Mutex<Vec<Status>>>::default(), board.clone());
        let task = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                loop {
                    seen.lock().unwrap().push(board.current_status());
                    tokio::time::sleep(EVERY).await;
                }
            }
        });
        Self { seen, task }
    }

    fn end(self) -> Vec<Status> {
        self.task.abort();
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn never_lost(self) {
        let lost = self.end().into_iter().find(|status| !status.ready);
        assert!(lost.is_none(), "{lost:?}");
    }

    /// Not ready with this condition all the time.
    fn all_the_time(self, condition: &Condition) {
        let seen = self.end();
        assert!(10 < seen.len(), "it was hardly looked at");
        let other = seen.iter().find(|status| status.ready || !status.conditions.contains_key(condition));
        assert!(other.is_none(), "{other:?}");
    }
}

/// Method: the connection of a fan-out that is held back is lost. It is tried, and fails, so nothing is proved.
#[tokio::test(start_paused = true)]
async fn a_fan_out_that_was_held_back_when_it_was_lost_is_blocked_until_it_confirms() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    let is_blocked = || tree.board.current_status().conditions.contains_key(&Condition::FanOutBlocked);
    rig.outputs.hold_back(Some("low on memory"));
    eventually("it is said", is_blocked).await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;

    let readiness = BoardWatch::begin(&tree.board);
    rig.outputs.always(Some(Publish::FailAfter(0)));
    rig.outputs.leave_in_doubt();
    eventually("it is tried", || 3 < rig.outputs.attempts()).await;
    readiness.all_the_time(&Condition::FanOutBlocked);

    rig.outputs.always(None);
    outputs(&rig, 4).await;
    eventually("the doubt is over", || !is_blocked()).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_halted_symbol_and_a_panicking_scheduler_never_make_it_unready() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    let readiness = BoardWatch::begin(&tree.board);
    rig.ledger().panic_at_ticks(1);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    rig.engine.always("A", Act::Panic);

    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    eventually("A is halted", || !rig.ledger().counts().halted.is_empty()).await;
    second_and_tick(&rig, &clock, 3, &["A", "B"]).await;
    outputs(&rig, 8).await;

    readiness.never_lost();
    tree.stop(Duration::from_secs(10)).await;
}

/// Method: each actor that is started again, killed once while a tick is at work. Of a source it is said that it is
/// down.
#[tokio::test(start_paused = true)]
async fn an_actor_that_is_started_again_never_makes_it_unready() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    let mut rng = Rng::new(1);
    for (tick, name) in (1..).zip(["kill_switch", "publisher", "symbol_runner", "scheduler"]) {
        let readiness = BoardWatch::begin(&tree.board);
        second(&rig, tick, &["A", "B"]).await;
        assert!(kill(&tree, name, &mut rng));
        clock.set(boundary(tick).1);
        outputs(&rig, 4 * usize::try_from(tick).unwrap()).await;
        readiness.never_lost();
        assert_eq!(rig.ledger().counts().exits_of(name, "restarted"), 1, "{name}");
    }
    let readiness = BoardWatch::begin(&tree.board);
    assert!(kill(&tree, "source", &mut rng));
    eventually("it is started again", || {
        rig.ledger().counts().exits_of("ingest", "restarted") == 1 && tree.board.current_status().ready
    })
    .await;
    let is_down = |held: &Condition| matches!(held, Condition::SourceDown(_));
    let other =
        readiness.end().into_iter().find(|status| !status.ready && !status.conditions.keys().any(is_down));
    assert!(other.is_none(), "{other:?}");
    second_and_tick(&rig, &clock, 5, &["A", "B"]).await;
    outputs(&rig, 20).await;
    stop_and_check(&rig, tree).await;
}

/// Method: a symbol with ten ticks to make up, after a start.
#[tokio::test(start_paused = true)]
async fn an_absence_never_makes_it_unready() {
    let (rig, clock) = manual(orchestrator_actors::testkit::settings(&["A", "B"]));
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;

    clock.set(boundary(4).1);
    let tree = rig.start().await;
    let readiness = BoardWatch::begin(&tree.board);
    outputs(&rig, 16).await;

    readiness.never_lost();
    stop_and_check(&rig, tree).await;
}
