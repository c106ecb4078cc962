//! The history behind a plane: it follows, it is waited for by nothing unless it is required, and it catches up.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::history::{HistoryError, HistoryStore, HistoryTables};
use orchestrator_kernel::ports::history_memory::MemoryHistory;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::trading::cycle::CycleStatus;
use orchestrator_kernel::trading::history::{CyclePageQuery, HistoryFold, HistoryRows};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::status::Condition;
use orchestrator_trading_plane::command::{CommandRefused, TradingCommand};
use orchestrator_trading_plane::history::{HistoryProjector, HistoryStep, HistoryTrouble, rebuild_history};
use orchestrator_trading_plane::plane::{TradingPlane, TradingStop};
use orchestrator_trading_plane::testkit::{
    PlaneRig, WALL, history_ports, origin, pipeline_name, start_agent, trading_settings,
};

use crate::common::eventually;
use crate::cycles::{ended, run_cycle};

fn rig(required: bool) -> (PlaneRig, Arc<MemoryHistory>) {
    let store = Arc::new(MemoryHistory::default());
    let mut settings = trading_settings();
    settings.schedules.clear();
    let mut rig = PlaneRig::new(settings);
    rig.history = Some(history_ports(store.clone(), required));
    (rig, store)
}

/// The tables that follow from the journal as it is now.
async fn expected_tables(rig: &PlaneRig) -> HistoryTables {
    let (mut fold, mut rows) = (HistoryFold::begin_at(JournalSeq(1)), HistoryRows::default());
    for (bytes, seq) in rig.log.records().await.iter().zip(1..) {
        fold.take_record(JournalSeq(seq), bytes, &mut rows).unwrap();
    }
    rows.artifacts.sort_by_key(|row| row.artifact_id);
    HistoryTables {
        runs: rows.runs.into_values().collect(),
        artifacts: rows.artifacts,
        agent: rows.agent,
        cycles: rows.cycles.into_values().collect(),
        logs: rows.logs,
        schedules: rows.schedules.into_values().collect(),
        orchestration_runs: rows.orchestration_runs.into_values().collect(),
        signal_orders: rows.signal_orders.into_values().collect(),
    }
}

async fn caught_up(plane: &TradingPlane) {
    let handle = plane.handle();
    eventually("the history has caught up", || {
        let tail = handle.committed.borrow().tail;
        JournalSeq(0) < tail && handle.history_progress.borrow().projected == tail
    })
    .await;
}

#[tokio::test]
async fn the_history_follows_the_journal_and_answers_pages() {
    let (rig, store) = rig(false);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "go", "canonical").await;
    assert_eq!(ended(&plane, cycle).await.status, CycleStatus::Ok);
    caught_up(&plane).await;

    assert_eq!(plane.stop(Duration::from_secs(30)).await, TradingStop::Clean);

    assert_eq!(store.dump_tables().await.unwrap(), expected_tables(&rig).await);
    let page = store.list_cycles(CyclePageQuery { limit: 20, status: None }).await.unwrap();
    assert_eq!(page.iter().map(|row| row.id).collect::<Vec<_>>(), [cycle]);
    let details = store.find_cycle(cycle).await.unwrap().unwrap();
    assert!(!details.to_wire()["decisions"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_database_that_is_away_stops_no_cycle_and_is_brought_up_to_date() {
    let (rig, store) = rig(false);
    store.set_away(true);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();

    let cycle = run_cycle(&plane, "go", "canonical").await;

    assert_eq!(ended(&plane, cycle).await.status, CycleStatus::Ok);
    eventually("it is said", || rig.board.holds_condition(&Condition::HistoryBehind)).await;
    assert_eq!(plane.handle().history_progress.borrow().needed_from, None, "the journal keeps everything");
    assert_eq!(store.mark(), None);

    store.set_away(false);
    eventually("it is over", || !rig.board.holds_condition(&Condition::HistoryBehind)).await;
    caught_up(&plane).await;
    assert_eq!(store.dump_tables().await.unwrap(), expected_tables(&rig).await);
    assert_eq!(plane.stop(Duration::from_secs(30)).await, TradingStop::Clean);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_database_that_is_away() {
    let (rig, store) = rig(false);
    let plane = rig.start().await;
    caught_up(&plane).await;
    store.set_away(true);
    start_agent(plane.handle(), "start").await.unwrap();

    assert_eq!(plane.stop(Duration::from_secs(30)).await, TradingStop::Clean);

    store.set_away(false);
    let plane = rig.start().await;
    caught_up(&plane).await;
    plane.kill().await;
    assert_eq!(store.dump_tables().await.unwrap(), expected_tables(&rig).await);
}

#[tokio::test]
async fn a_required_history_that_is_away_keeps_the_plane_from_starting() {
    let (rig, store) = rig(true);
    store.set_away(true);

    let refused = rig.try_start().await.err().unwrap();

    assert_eq!(refused.kind, FatalKind::Away);
    assert!(rig.board.holds_condition(&Condition::TradingStopped));
    store.set_away(false);
    rig.start().await.kill().await;
}

/// Specification 001 §11: persistence unavailable fails closed.
#[tokio::test]
async fn a_required_history_that_goes_away_holds_cycles_until_it_is_back() {
    let (rig, store) = rig(true);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    caught_up(&plane).await;

    store.set_away(true);
    // Something has to be recorded before it is noticed: the history asks nothing of an idle database.
    start_agent(plane.handle(), "again").await.unwrap_err();
    eventually("it is noticed", || rig.board.holds_condition(&Condition::HistoryBehind)).await;
    let run = TradingCommand::RunCycle {
        pipeline: pipeline_name("canonical"),
        strategies: vec![],
        trigger_event: None,
    };
    let held = plane.handle().execute_command(run, origin("held")).await;
    let Err(CommandRefused::Unavailable(why)) = held else { panic!("{held:?}") };
    assert_eq!(
        why,
        "no cycle begins: history_behind: trading.history.required is true, and the history is behind the journal"
    );

    store.set_away(false);
    eventually("it is over", || !rig.board.holds_condition(&Condition::HistoryBehind)).await;
    let cycle = run_cycle(&plane, "go", "canonical").await;
    assert_eq!(ended(&plane, cycle).await.status, CycleStatus::Ok);
}

/// Method: the database fails in each of its ways, each at every transaction.
#[tokio::test]
async fn whatever_the_database_does_the_tables_are_those_of_the_journal() {
    let (rig, _) = rig(false);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "go", "canonical").await;
    ended(&plane, cycle).await;
    plane.stop(Duration::from_secs(30)).await;
    let journal: Arc<dyn Log> = rig.log.clone();
    let tail = JournalSeq::from(journal.stat().tail);
    for failure in [
        HistoryError::Away("cut".to_owned()),
        HistoryError::Refused("no rights".to_owned()),
        HistoryError::Unfit("odd".to_owned()),
        HistoryError::Moved { expected: JournalSeq(7) },
    ] {
        let store = Arc::new(MemoryHistory::default());
        let mut projector = HistoryProjector::new(store.clone(), Arc::clone(&journal), 3);
        let mut steps = 0;
        loop {
            steps += 1;
            // Every second call fails; a refusal of rows is looked at record by record, so it fails once only.
            if steps % 2 == 0 && (steps < 3 || !matches!(failure, HistoryError::Unfit(_))) {
                store.fail_next([failure.clone()]);
            }
            match projector.project_next(tail).await {
                Ok(HistoryStep::UpToDate) => break,
                Ok(HistoryStep::Written) | Err(HistoryTrouble::Store(_)) => {}
                other => panic!("{failure}: {other:?}"),
            }
            assert!(steps < 10_000, "{failure}: it does not come to its end");
        }
        // The last failure may be one that no call has met: then it meets this one.
        let dumped = match store.dump_tables().await {
            Ok(tables) => tables,
            Err(_) => store.dump_tables().await.unwrap(),
        };
        assert_eq!(dumped, expected_tables(&rig).await, "{failure}");
    }
}

/// The last resort: every value is made to fit, and a database that takes one for unfit all the same stops nothing.
#[tokio::test]
async fn a_record_that_the_database_cannot_hold_is_left_out_alone() {
    let (rig, store) = rig(false);
    store.refuse_lines("stage SIG");
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "go", "canonical").await;
    ended(&plane, cycle).await;
    caught_up(&plane).await;

    let mut expected = expected_tables(&rig).await;
    expected.logs.retain(|line| !line.message.contains("stage SIG"));
    assert_eq!(store.dump_tables().await.unwrap(), expected);
}

#[tokio::test]
async fn another_journal_and_a_shorter_one_are_refused_and_change_nothing() {
    let (rig, store) = rig(false);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    caught_up(&plane).await;
    plane.stop(Duration::from_secs(30)).await;
    let before = store.dump_tables().await.unwrap();
    let projected = store.mark().unwrap().position;

    let shorter = HistoryProjector::new(store.clone(), rig.log.clone(), 3).project_next(JournalSeq(1)).await;
    assert!(matches!(shorter, Err(HistoryTrouble::Ahead { .. })), "{shorter:?}");
    let other = PlaneRig::new(trading_settings());
    other.clock.set(WALL + 1);
    let plane = other.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    plane.stop(Duration::from_secs(30)).await;
    let tail = other.log.stat().tail.max(Seq(projected.0));
    let strange =
        HistoryProjector::new(store.clone(), other.log.clone(), 3).project_next(JournalSeq(tail.0)).await;
    assert!(matches!(strange, Err(HistoryTrouble::Broken(_))), "{strange:?}");
    assert_eq!(store.dump_tables().await.unwrap(), before);
}

/// Method: rebuilt beside a plane that runs, so that two write; and once more with nobody beside it.
#[tokio::test]
async fn a_rebuilt_history_is_equal_row_by_row() {
    let (rig, store) = rig(false);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    for key in ["one", "two"] {
        let cycle = run_cycle(&plane, key, "canonical").await;
        ended(&plane, cycle).await;
    }
    caught_up(&plane).await;
    let journal: Arc<dyn Log> = rig.log.clone();
    let rebuild = || {
        let (store, tail) = (store.clone(), JournalSeq::from(journal.stat().tail));
        rebuild_history(store, Arc::clone(&journal), tail, 4, |_| ())
    };

    let before = store.dump_tables().await.unwrap();
    rebuild().await.unwrap();
    assert_eq!(store.dump_tables().await.unwrap(), before);
    let cycle = run_cycle(&plane, "three", "canonical").await;
    ended(&plane, cycle).await;
    caught_up(&plane).await;
    plane.kill().await;

    let before = store.dump_tables().await.unwrap();
    assert_eq!(before, expected_tables(&rig).await);
    let rebuilt = rebuild().await.unwrap();
    assert_eq!((rebuilt.projected.0, rebuilt.skipped), (journal.stat().tail.0, vec![]));
    assert_eq!(store.dump_tables().await.unwrap(), before);
}
