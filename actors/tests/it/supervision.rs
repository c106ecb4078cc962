//! Each decision of the tree, made by letting a real actor panic or fail.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrator_actors::testkit::{
    Act, CrashPoint, OnAppend, Publish, SourceAct, eventually, fence, runs_of, settings, trade,
};
use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::engine::contracts::engine_run::RunStatus;
use orchestrator_kernel::ports::source::Settlement;
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::status::{Condition, Lifecycle};

use crate::common::{
    START, boundary, failure_of, manual, outputs, second, second_and_tick, stop_and_check, two_symbols,
};

#[tokio::test(start_paused = true)]
async fn a_panicking_engine_call_restarts_its_runner_which_finishes_the_same_run() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Panic, Act::Panic]);

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("B is on time", || rig.outputs.len() == 2).await;
    outputs(&rig, 4).await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 8).await;

    let of_a: Vec<_> =
        runs_of(&rig.runs).await.into_iter().filter(|run| run.facts.symbol.as_str() == "A").collect();
    let first = of_a[0].facts.run_id;
    let story: Vec<_> = of_a.iter().filter(|run| run.facts.run_id == first).map(|run| &run.status).collect();
    assert!(matches!(
        story[..],
        [
            RunStatus::Started { attempts: 1 },
            RunStatus::Started { attempts: 2 },
            RunStatus::Started { attempts: 3 },
            RunStatus::Completed { attempts: 3, answered: 1, .. }
        ]
    ));
    assert_eq!(rig.ledger().counts().exits_of("symbol_runner", "restarted"), 2);
    assert!(tree.board.current_status().conditions.is_empty());
    stop_and_check(&rig, tree).await;
}

/// RUN-2. Method: kill a runner whose terminal record is on its way to the log, and let it be started again meanwhile.
#[tokio::test(start_paused = true)]
async fn a_runner_that_is_killed_while_it_records_an_end_records_it_once() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::AnswerAfter(Duration::from_millis(50))]);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 2).await;
    rig.runs.always(OnAppend::Hang);
    eventually("A's end is on its way", || rig.runs.hanging() == 1).await;

    let runners = tree.runners().runner_addresses();
    runners[0].current_actor().unwrap().kill();
    eventually("it is started again", || rig.ledger().counts().exits_of("symbol_runner", "restarted") == 1)
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.runs.always(OnAppend::Work);
    outputs(&rig, 4).await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 8).await;

    assert_eq!(runs_of(&rig.runs).await.iter().filter(|run| run.is_terminal()).count(), 4);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn runs_handed_to_a_runner_that_goes_down_are_neither_lost_nor_repeated() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::AnswerAfter(Duration::from_millis(400)), Act::Panic]);

    // Three ticks while the runner is busy with the first; it goes down with the other two in its mailbox.
    for n in 1..=3 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        eventually("B is on time", || rig.ledger().counts().ticks == n.unsigned_abs()).await;
    }
    outputs(&rig, 12).await;

    let counts = rig.ledger().counts();
    assert_eq!((counts.completed, counts.failed, counts.skipped.len()), (6, 0, 0));
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_finds_a_runner_down_is_run_when_it_is_up_again() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Panic]);

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("the runner is down", || rig.ledger().counts().exits_of("symbol_runner", "restarted") == 1)
        .await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 8).await;

    assert_eq!(rig.ledger().counts().skipped.len(), 0);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_runner_beyond_its_intensity_is_halted_alone() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.always("A", Act::Panic);

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("A is halted", || !rig.ledger().counts().halted.is_empty()).await;
    for n in 2..=3 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        outputs(&rig, 2 * usize::try_from(n).unwrap()).await;
    }

    let status = tree.board.current_status();
    assert_eq!((status.lifecycle, status.ready), (Lifecycle::Degraded, true));
    assert!(status.conditions.contains_key(&Condition::SymbolHalted("A".to_owned())));
    let counts = rig.ledger().counts();
    assert_eq!(counts.exits_of("symbol_runner", "restarted"), 5);
    assert_eq!(counts.exits_of("symbol_runner", "halted"), 1);
    assert_eq!((counts.started, counts.completed), (4, 3), "the halted symbol's run stays open");
    tree.stop(Duration::from_secs(10)).await;

    // The next start finishes what was left open, and makes the runs that the halted symbol missed.
    rig.engine.always("A", Act::Answer);
    let tree = rig.start().await;
    outputs(&rig, 12).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_panicking_fan_out_restarts_the_publisher_and_no_output_is_lost() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    rig.outputs.next([Publish::Panic, Publish::FailAfter(1), Publish::Panic]);
    for n in 2..=4 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        outputs(&rig, 4 * usize::try_from(n).unwrap()).await;
    }

    assert_eq!(rig.ledger().counts().exits_of("publisher", "restarted"), 2);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_panicking_scheduler_is_rebuilt_from_the_run_log_without_losing_or_doubling_a_tick() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    for n in 2..=4 {
        rig.ledger().panic_at_ticks(1);
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        outputs(&rig, 4 * usize::try_from(n).unwrap()).await;
    }

    let counts = rig.ledger().counts();
    assert_eq!(counts.exits_of("scheduler", "restarted"), 3);
    assert_eq!((counts.completed, counts.failed), (8, 0));
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_panics_at_its_first_tick_leaves_no_hole_in_the_cuts() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;

    rig.ledger().panic_at_ticks(1);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("it is down", || rig.ledger().counts().exits_of("scheduler", "restarted") == 1).await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 8).await;

    let runs = runs_of(&rig.runs).await;
    let starts: Vec<_> =
        runs.iter().filter(|run| run.is_terminal()).map(|run| run.facts.cut.start.0).collect();
    assert_eq!(starts, [1, 3, 5, 5]);
    stop_and_check(&rig, tree).await;
}

/// Method: a timer schedule begins with the process, before the first receipt; its scheduler dies while no run of the
/// first tick is durable yet, so the log cannot tell where the schedule began.
#[tokio::test(start_paused = true)]
async fn a_timer_goes_on_in_step_though_its_scheduler_dies_before_the_first_run_is_durable() {
    let cadence = Cadence::Timer { interval_ms: 1000, align_ms: 1000 };
    let mut settings = settings(&["A", "B"]);
    settings.engine_plane.scheduler.cadence = cadence;
    let (rig, clock) = manual(settings);
    let tree = rig.start().await;
    clock.set(START + 700);
    second(&rig, 1, &["A", "B"]).await;
    rig.runs.always(OnAppend::Full);
    clock.set(START + 1300);
    eventually("the runs of the first tick wait for room", || {
        tree.board.current_status().conditions.contains_key(&Condition::RunLogFailing)
    })
    .await;

    tree.actor_addresses().scheduler.current_actor().unwrap().kill();
    eventually("it ends", || rig.ledger().counts().exits_of("scheduler", "restarted") == 1).await;
    // Its back-off, and its look at the logs.
    tokio::time::sleep(Duration::from_millis(500)).await;
    rig.runs.always(OnAppend::Work);
    outputs(&rig, 4).await;
    second(&rig, 2, &["A", "B"]).await;
    clock.set(START + 2300);
    outputs(&rig, 8).await;

    let planned: BTreeSet<i64> =
        runs_of(&rig.runs).await.iter().map(|run| run.facts.planned_ts_ms.0 - START).collect();
    assert_eq!(planned, BTreeSet::from([1200, 2200]), "first tick + k × interval, never re-based");
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_beyond_its_intensity_ends_the_tree() {
    let (rig, clock) = two_symbols();
    let mut tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    rig.ledger().panic_at_ticks(u64::MAX);
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    let (kind, why) = failure_of(&mut tree).await;

    assert_eq!(kind, FatalKind::Internal, "{why}");
    assert_eq!(rig.ledger().counts().exits_of("scheduler", "restarted"), 10);
    assert_eq!(tree.board.current_status().lifecycle, Lifecycle::Stopped);
}

/// What is not durable is never acknowledged (LOG-2).
#[tokio::test(start_paused = true)]
async fn a_broken_receipt_log_ends_the_tree_and_acknowledges_nothing() {
    let (rig, _clock) = two_symbols();
    let mut tree = rig.start().await;
    rig.receipts.next([OnAppend::Poisoned]);

    rig.feed().push([trade("A", boundary(1).0)]);
    let (kind, why) = failure_of(&mut tree).await;

    assert_eq!(kind, FatalKind::Storage, "{why}");
    assert!(!tree.board.current_status().ready);
    assert!(!rig.feed().settlements().iter().any(|s| matches!(s, Settlement::Durable(_))));
    assert_eq!(rig.receipts.records().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_broken_quarantine_ends_the_tree_and_acknowledges_nothing() {
    let (rig, _clock) = two_symbols();
    let mut tree = rig.start().await;
    rig.quarantine.next([OnAppend::Poisoned]);

    rig.feed().push(["no receipt".into()]);
    let (kind, why) = failure_of(&mut tree).await;

    assert_eq!(kind, FatalKind::Storage, "{why}");
    assert!(!rig.feed().settlements().iter().any(|s| matches!(s, Settlement::Durable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_broken_run_log_ends_the_tree_before_the_engine_is_called() {
    let (rig, clock) = two_symbols();
    let mut tree = rig.start().await;
    rig.runs.next([OnAppend::Poisoned]);

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    let (kind, why) = failure_of(&mut tree).await;

    assert_eq!(kind, FatalKind::Storage, "{why}");
    assert!(!tree.board.current_status().ready);
    assert_eq!(rig.engine.calls().len(), 0, "RUN-1");
    assert!(rig.outputs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_panicking_buffer_ends_the_tree() {
    let (rig, _clock) = two_symbols();
    let mut tree = rig.start().await;
    rig.ledger().panic_at_flushes(1);

    rig.feed().push([trade("A", boundary(1).0)]);
    let (kind, why) = failure_of(&mut tree).await;

    assert_eq!(kind, FatalKind::Internal, "{why}");
    assert!(!rig.feed().settlements().iter().any(|s| matches!(s, Settlement::Durable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_later_writer_ends_the_tree_as_fenced() {
    for fence_runs in [false, true] {
        let (rig, clock) = two_symbols();
        let mut tree = rig.start().await;
        second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
        outputs(&rig, 4).await;
        let stored = rig.receipts.records().await.len();

        fence(if fence_runs { &rig.runs } else { &rig.receipts }).await;
        if fence_runs {
            clock.set(boundary(2).1);
        } else {
            rig.feed().push([trade("A", boundary(2).0)]);
        }
        let (kind, why) = failure_of(&mut tree).await;

        assert_eq!(kind, FatalKind::Fenced, "{why}");
        assert_eq!(rig.receipts.records().await.len(), stored);
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_records_is_not_started_on() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;

    let (mut shorter, _) = two_symbols();
    shorter.runs = rig.runs.clone();
    let Err(fatal) = shorter.try_start(&CrashPoint::never()).await else { panic!("it started") };

    assert_eq!(fatal.kind, FatalKind::Corrupt);
    assert!(fatal.to_string().contains("LOG_REGRESSED"), "{fatal}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_read_back_ends_the_tree_as_corrupt() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Hang]);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("A is in its call", || rig.engine.calls_of("A") == 1).await;
    tree.kill().await;

    // The interrupted run has to read its snapshot, at 2, from the log.
    rig.receipts.corrupt(2);
    let ended = match rig.try_start(&CrashPoint::never()).await {
        Ok(mut tree) => failure_of(&mut tree).await,
        Err(fatal) => (fatal.kind, fatal.to_string()),
    };

    assert_eq!(ended.0, FatalKind::Corrupt, "{}", ended.1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_source_is_opened_again_where_it_stopped() {
    for act in [SourceAct::Lose, SourceAct::Panic] {
        let (rig, clock) = two_symbols();
        let tree = rig.start().await;
        second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
        outputs(&rig, 4).await;

        rig.feed().on_next([act]);
        eventually("it is down", || !tree.board.current_status().ready).await;
        assert!(
            tree.board.current_status().conditions.contains_key(&Condition::SourceDown("feed".to_owned()))
        );
        eventually("it is up again", || tree.board.current_status().ready).await;
        assert_eq!(rig.feed().opened().last().unwrap().position, 4);
        second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
        outputs(&rig, 8).await;

        assert_eq!(rig.ledger().counts().exits_of("ingest", "restarted"), 1);
        stop_and_check(&rig, tree).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_lost_with_batches_in_flight_brings_them_again() {
    for act in [SourceAct::Lose, SourceAct::Panic] {
        let (rig, clock) = two_symbols();
        let tree = rig.start().await;
        rig.receipts.next([OnAppend::WorkAfter(Duration::from_millis(20))]);
        rig.feed().push([trade("A", boundary(1).0), "no receipt".into()]);
        rig.feed().push([trade("A", boundary(1).0)]);
        eventually("they are in flight", || rig.feed().offered_max() == 3).await;
        rig.feed().on_next([act]);

        eventually("all is settled", || rig.feed().settled() == 3).await;
        second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
        outputs(&rig, 4).await;

        assert_eq!(rig.receipts.records().await.len(), 6);
        assert_eq!(rig.quarantine.records().await.len(), 1);
        stop_and_check(&rig, tree).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_beyond_its_intensity_is_halted_and_shown() {
    for act in [SourceAct::Lose, SourceAct::Panic] {
        let (rig, clock) = two_symbols();
        let tree = rig.start().await;
        second(&rig, 1, &["A", "B"]).await;

        rig.feed().always_next(Some(act));
        eventually("it is halted", || rig.ledger().counts().exits_of("ingest", "halted") == 1).await;
        let status = tree.board.current_status();
        assert!(status.conditions.contains_key(&Condition::SourceDown("feed".to_owned())), "{act:?}");
        assert!(!status.ready);

        clock.set(boundary(1).1);
        outputs(&rig, 4).await;
        assert_eq!(rig.ledger().counts().exits_of("ingest", "restarted"), 3);
        stop_and_check(&rig, tree).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_opened_leaves_the_service_up_and_not_ready() {
    let (rig, clock) = two_symbols();
    rig.feed().on_open([SourceAct::Lose, SourceAct::Panic]);
    let tree = rig.try_start(&CrashPoint::never()).await.unwrap();

    assert!(!tree.board.current_status().ready);
    eventually("it is open", || tree.board.current_status().ready).await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;
}
