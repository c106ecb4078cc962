//! The failure and backpressure rules of specification 000, one test each.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_actors::testkit::{
    Act, CrashPoint, OnAppend, Publish, eventually, runs_of, settings, snapshot, trade,
};
use orchestrator_kernel::engine::contracts::engine_run::RunStatus;
use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::observer::TickSkipReason;
use orchestrator_kernel::ports::source::{ItemFate, Settlement};
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::status::{Condition, Lifecycle};

use crate::common::{
    boundary, failure_of, manual, outputs, second, second_and_tick, stop_and_check, two_symbols,
};

#[tokio::test(start_paused = true)]
async fn a_full_receipt_log_is_not_ready_refuses_upstream_and_resumes_by_itself() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.receipts.always(OnAppend::Full);

    let (ts, _) = boundary(1);
    rig.feed().push([trade("A", ts - 300), snapshot("A", ts - 200, ts)]);
    eventually("upstream is refused", || !rig.feed().settlements().is_empty()).await;
    assert!(!tree.board.current_status().ready);
    assert!(tree.board.current_status().conditions.contains_key(&Condition::BufferFailing));
    assert!(matches!(rig.feed().settlements()[0], Settlement::Refused { .. }));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.feed().settled(), 0);

    rig.receipts.always(OnAppend::Work);
    eventually("the batch is taken", || rig.feed().settled() == 2).await;
    assert!(tree.board.current_status().ready);
    second_and_tick(&rig, &clock, 1, &["B"]).await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;
}

/// Method: nobody sends anything any more. Only a proof that what was refused would fit makes the service ready again.
#[tokio::test(start_paused = true)]
async fn a_full_log_stays_not_ready_until_room_is_proved_whoever_asks() {
    let (rig, _clock) = two_symbols();
    let tree = rig.start().await;
    for (log, word) in
        [(&rig.receipts, Condition::BufferFailing), (&rig.quarantine, Condition::BufferFailing)]
    {
        log.always(OnAppend::Full);
        let item =
            if Arc::ptr_eq(log, &rig.receipts) { trade("A", boundary(1).0) } else { "no receipt".into() };
        rig.feed().push([item]);
        eventually("it is seen", || tree.board.current_status().conditions.contains_key(&word)).await;

        let taken = rig.feed().settled() + 1;
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        while tokio::time::Instant::now() < until {
            assert!(!tree.board.current_status().ready, "ready although nothing is taken");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        log.always(OnAppend::Work);
        eventually("it is ready", || tree.board.current_status().ready).await;
        eventually("it is taken", || rig.feed().settled() == taken).await;
    }
    stop_and_check(&rig, tree).await;
}

/// Method: a large batch finds no room, a small one does.
#[tokio::test(start_paused = true)]
async fn room_for_less_than_what_was_refused_is_no_proof() {
    let (mut rig, _clock) = two_symbols();
    // Two batches in flight would share a commit.
    rig.settings.engine_plane.ingest.batches_in_flight_max = 1;
    let tree = rig.start().await;
    rig.receipts.always(OnAppend::Full);
    rig.feed().push((0..8).map(|n| trade("A", boundary(1).0 + n)));
    eventually("it is refused", || !tree.board.current_status().ready).await;

    rig.feed().batches([1]);
    rig.receipts.next([OnAppend::Work]);
    eventually("the small one is taken", || rig.feed().settled() == 1).await;

    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!tree.board.current_status().ready, "the large one was never proved to fit");
    rig.receipts.always(OnAppend::Work);
    eventually("all is taken", || rig.feed().settled() == 8).await;
    eventually("it is ready", || tree.board.current_status().ready).await;
    stop_and_check(&rig, tree).await;
}

/// Method: a source that offers what was refused again as soon as it is asked, as a queue in memory does.
#[tokio::test(start_paused = true)]
async fn a_source_is_asked_again_only_when_the_time_of_a_refusal_is_over() {
    let (rig, _clock) = two_symbols();
    let tree = rig.start().await;
    rig.receipts.always(OnAppend::Full);
    rig.feed().push([trade("A", boundary(1).0)]);

    tokio::time::sleep(Duration::from_secs(10)).await;

    let most = Duration::from_secs(10).as_millis() / rig.settings.log_writer.reopen_after.as_millis() + 1;
    let refused = rig.feed().settlements().len();
    assert!((2..=most as usize).contains(&refused), "refused {refused} times in 10 s");
    rig.receipts.always(OnAppend::Work);
    eventually("it is taken", || rig.feed().settled() == 1).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_quarantine_refuses_upstream_and_resumes_by_itself() {
    let (rig, _clock) = two_symbols();
    let tree = rig.start().await;
    rig.quarantine.next([OnAppend::Full, OnAppend::Full]);

    rig.feed().push([trade("A", boundary(1).0), "no receipt".into()]);
    eventually("upstream is refused", || !rig.feed().settlements().is_empty()).await;
    assert!(!tree.board.current_status().ready);
    eventually("the batch is taken", || rig.feed().settled() == 2).await;
    eventually("it is ready again", || tree.board.current_status().ready).await;

    assert_eq!((rig.receipts.records().await.len(), rig.quarantine.records().await.len()), (1, 1));
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_run_log_is_not_ready_keeps_the_run_and_resumes_by_itself() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.runs.always(OnAppend::Full);

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("it is seen", || {
        tree.board.current_status().conditions.contains_key(&Condition::RunLogFailing)
    })
    .await;
    assert!(!tree.board.current_status().ready);
    assert_eq!(rig.engine.calls().len(), 0, "RUN-1");

    rig.runs.always(OnAppend::Work);
    outputs(&rig, 4).await;
    assert!(tree.board.current_status().ready);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_append_is_sent_again_and_stored_once() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    let unknown = [OnAppend::Unknown { done: true }, OnAppend::Unknown { done: false }];
    rig.receipts.next(unknown);
    rig.runs.next(unknown);
    rig.quarantine.next(unknown);

    rig.feed().push(["no receipt".into()]);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    assert_eq!(rig.receipts.records().await.len(), 4);
    assert_eq!(rig.runs.records().await.len(), 4);
    assert_eq!(rig.quarantine.records().await.len(), 1);
    assert!(tree.board.current_status().ready);
    stop_and_check(&rig, tree).await;
}

/// A server that is asked again after an unanswered append may say that it has no room before it looks whether that one
/// was done. To believe it would put another record at the same position.
#[tokio::test(start_paused = true)]
async fn no_room_after_an_unanswered_append_says_nothing_of_that_one() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    let in_doubt = [OnAppend::Unknown { done: true }, OnAppend::Full, OnAppend::Full];
    rig.receipts.next(in_doubt);
    rig.runs.next(in_doubt);
    rig.quarantine.next(in_doubt);

    rig.feed().push(["no receipt".into()]);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    let refused = |settlement: &Settlement| matches!(settlement, Settlement::Refused { .. });
    assert!(!rig.feed().settlements().iter().any(refused), "what may be stored is not refused");
    assert!(tree.board.current_status().ready);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn an_append_that_is_not_answered_for_long_is_not_ready_acknowledges_nothing_and_goes_on_by_itself() {
    let (rig, _clock) = two_symbols();
    let tree = rig.start().await;
    rig.receipts.always(OnAppend::Unknown { done: false });

    rig.feed().push([trade("A", boundary(1).0)]);
    eventually("it is seen", || {
        tree.board.current_status().conditions.contains_key(&Condition::BufferFailing)
    })
    .await;
    assert!(!tree.board.current_status().ready);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(rig.feed().settled(), 0, "LOG-2");
    assert!(rig.receipts.trace().len() > 1000, "it is sent again and again");

    rig.receipts.always(OnAppend::Work);
    eventually("it is durable", || rig.feed().settled() == 1).await;
    assert_eq!(rig.receipts.records().await.len(), 1);
    assert!(tree.board.current_status().ready);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_logs_on_a_server_and_for_no_others() {
    let (mut rig, clock) = two_symbols();
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;

    rig.checkpoints = std::sync::Arc::default();
    rig.receipts.away_for(10);
    let refused = rig.try_start(&CrashPoint::never()).await.err().expect("the embedded log is never away");
    assert_eq!(refused.kind, FatalKind::Storage);

    rig.settings.log_writer.probe_every = Some(Duration::from_secs(1));
    rig.receipts.away_for(10);
    let tree = rig.start().await;
    stop_and_check(&rig, tree).await;
}

/// Method: logs that can go away, and nothing to do. What happened to them must be seen all the same.
#[tokio::test(start_paused = true)]
async fn an_idle_log_that_is_gone_or_taken_over_is_noticed() {
    let mut settings = settings(&["A", "B"]);
    settings.log_writer.probe_every = Some(Duration::from_secs(1));
    let (rig, _clock) = manual(settings);
    let mut tree = rig.start().await;

    rig.runs.always(OnAppend::Unknown { done: false });
    rig.quarantine.always(OnAppend::Unknown { done: false });
    let conditions = || tree.board.current_status().conditions;
    eventually("the run log is missed", || conditions().contains_key(&Condition::RunLogFailing)).await;
    eventually("the quarantine is missed", || conditions().contains_key(&Condition::BufferFailing)).await;
    rig.runs.always(OnAppend::Work);
    rig.quarantine.always(OnAppend::Work);
    eventually("both are back", || tree.board.current_status().ready).await;

    rig.receipts.acquire().await.unwrap();
    let (kind, what) = failure_of(&mut tree).await;

    assert_eq!(kind, FatalKind::Fenced, "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_failing_engine_is_tried_as_configured_then_the_run_fails_and_the_next_one_runs() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", vec![Act::Fail(ErrorKind::EngineFailure); 3]);

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 8).await;

    let times: Vec<_> = rig.engine.calls().into_iter().filter(|(_, c)| c.symbol.as_str() == "A").collect();
    let delays: Vec<_> = times.windows(2).take(2).map(|pair| (pair[1].0 - pair[0].0).as_millis()).collect();
    assert_eq!(delays, [100, 200], "min, doubled");
    let failed: Vec<_> =
        rig.outputs.taken().into_iter().filter(|m| m.event_type == event_type::RUN_FAILED).collect();
    assert_eq!(failed.len(), 1);
    let body = String::from_utf8_lossy(&failed[0].body).into_owned();
    assert!(body.contains(r#""error_detail":"as told","error_kind":"engine_failure""#), "{body}");
    assert!(body.contains(r#"{"attempt":3,"#), "{body}");
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_failure_that_cannot_be_helped_is_not_tried_again() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Fail(ErrorKind::SnapshotBuildFailure)]);

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    assert_eq!(rig.engine.calls_of("A"), 1);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_engine_is_given_up_at_the_deadline_and_siblings_are_on_time() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Hang, Act::Hang, Act::Hang]);
    let begin = tokio::time::Instant::now();

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 2).await;
    assert!(begin.elapsed() < Duration::from_millis(50), "B does not wait for A");
    outputs(&rig, 4).await;

    let took = begin.elapsed().as_millis();
    assert!((1800..1850).contains(&took), "3 × 500 ms and delays of 100 and 200 ms, not {took}");
    let bodies: Vec<_> =
        rig.outputs.taken().iter().map(|m| String::from_utf8_lossy(&m.body).into_owned()).collect();
    assert!(bodies.iter().any(|body| body.contains("engine_timeout")));
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 8).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_symbol_queues_a_bounded_number_of_runs_then_its_ticks_are_skipped_and_counted() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::AnswerAfter(Duration::from_millis(450))]);

    for n in 1..=6 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        outputs_of_b(&rig, n).await;
    }
    eventually("A is done", || rig.ledger().counts().completed == 10).await;

    assert_eq!(rig.ledger().counts().skipped, [(TickSkipReason::SymbolBusy, 2)].into());
    stop_and_check(&rig, tree).await;
}

async fn outputs_of_b(rig: &orchestrator_actors::testkit::TestTree, runs: i64) {
    let wanted = 2 * usize::try_from(runs).unwrap();
    eventually("B is on time", || {
        rig.outputs.taken().iter().filter(|m| m.symbol.as_str() == "B").count() == wanted
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn publishing_that_fails_as_often_as_configured_is_degraded_keeps_outputs_and_recovers() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.outputs.always(Some(Publish::FailAfter(0)));

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("it is degraded", || {
        tree.board.current_status().conditions.contains_key(&Condition::PublishDegraded)
    })
    .await;
    assert_eq!(rig.outputs.attempts(), 3);
    assert_eq!(
        (tree.board.current_status().lifecycle, tree.board.current_status().ready),
        (Lifecycle::Degraded, true)
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!((14..=17).contains(&rig.outputs.attempts()), "every 800 ms: {}", rig.outputs.attempts());
    assert_eq!(tree.flow.waiting_outputs(), 4);

    rig.outputs.always(None);
    outputs(&rig, 4).await;
    eventually("it says so", || tree.board.current_status().conditions.is_empty()).await;
    stop_and_check(&rig, tree).await;
}

/// Method: a fan-out that confirms one message an attempt. What it has confirmed is not offered to it again.
#[tokio::test(start_paused = true)]
async fn publishing_goes_on_behind_the_confirmed_prefix() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.outputs.always(Some(Publish::FailAfter(1)));

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("all are confirmed", || rig.outputs.taken().len() == 4).await;
    rig.outputs.always(None);
    eventually("nothing waits", || tree.flow.waiting_outputs() == 0).await;

    assert_eq!(rig.outputs.taken().len(), 4, "none twice");
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_log_that_ends_before_what_was_published_is_refused() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;

    let ahead = [1_000u64.to_le_bytes(), 4u64.to_le_bytes()].concat();
    rig.checkpoints.save("published", Epoch(u64::MAX), ahead.into()).await.unwrap();
    let refused =
        rig.try_start(&CrashPoint::never()).await.err().expect("new records would reuse published numbers");

    assert_eq!(refused.kind, FatalKind::Corrupt);
    assert!(refused.to_string().contains("LOG_REGRESSED"), "{refused}");
}

/// Method: a broker that blocks its publishers, first while nothing waits, then with outputs.
#[tokio::test(start_paused = true)]
async fn a_fan_out_that_is_held_back_is_not_asked_and_says_why_until_it_goes_on() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    let blocked = || tree.board.current_status().conditions.get(&Condition::FanOutBlocked).cloned();

    rig.outputs.hold_back(Some("low on memory"));
    eventually("an idle publisher notices", || blocked().is_some()).await;
    assert_eq!(blocked().as_deref(), Some("low on memory"));
    assert!(!tree.board.current_status().ready);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((rig.outputs.attempts(), tree.flow.waiting_outputs()), (0, 4), "no storm of attempts");

    rig.outputs.hold_back(None);
    outputs(&rig, 4).await;
    assert!(blocked().is_none());
    stop_and_check(&rig, tree).await;
}

/// Method: four outputs at once to a fan-out that takes 0.6 s for each, with 1 s for an attempt: two can never make it.
#[tokio::test(start_paused = true)]
async fn a_fan_out_that_is_too_slow_for_a_whole_batch_gets_it_in_parts() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.outputs.always(Some(Publish::Slow(Duration::from_millis(600))));

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("all are confirmed", || tree.flow.waiting_outputs() == 0).await;

    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;
}

/// The cursor stays before what is not confirmed (OUT-2).
#[tokio::test(start_paused = true)]
async fn an_unconfirmed_publication_is_repeated_after_its_time() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.outputs.next([Publish::Hang]);

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("it is repeated", || rig.outputs.attempts() >= 2 && tree.flow.waiting_outputs() == 0).await;

    assert!(rig.outputs.taken().len() > rig.outputs.len(), "at least once");
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn publishing_blocked_beyond_its_limits_pauses_the_schedule_and_resumes_by_itself() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.outputs.always(Some(Publish::FailAfter(0)));

    // Three ticks make 12 outputs, more than 8: the fourth and fifth are skipped.
    for n in 1..=5 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        let done = 2 * u64::try_from(n.min(3)).unwrap();
        let skipped = 2 * u64::try_from((n - 3).max(0)).unwrap();
        eventually("the tick is dealt with", || {
            let counts = rig.ledger().counts();
            counts.completed == done && counts.skipped.values().sum::<u64>() == skipped
        })
        .await;
    }
    assert!(!tree.board.current_status().ready);
    assert!(tree.board.current_status().conditions.contains_key(&Condition::PublishBlocked));
    assert_eq!(rig.ledger().counts().skipped, [(TickSkipReason::PublishBlocked, 4)].into());
    assert_eq!(rig.receipts.records().await.len(), 20, "ingestion goes on (ISO-2)");

    rig.outputs.always(None);
    outputs(&rig, 12).await;
    second_and_tick(&rig, &clock, 6, &["A", "B"]).await;
    outputs(&rig, 16).await;
    assert!(tree.board.current_status().ready);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn publishing_that_does_not_move_for_too_long_pauses_the_schedule() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.outputs.always(Some(Publish::FailAfter(0)));
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("the runs are done", || rig.ledger().counts().completed == 2).await;

    tokio::time::sleep(Duration::from_secs(31)).await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    eventually("the tick is skipped", || {
        rig.ledger().counts().skipped == [(TickSkipReason::PublishBlocked, 2)].into()
    })
    .await;
    assert!(!tree.board.current_status().ready);

    rig.outputs.always(None);
    outputs(&rig, 4).await;
    second_and_tick(&rig, &clock, 3, &["A", "B"]).await;
    outputs(&rig, 8).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_without_its_snapshot_is_an_explicit_failure_and_the_engine_is_not_called() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;

    // A has a snapshot, but for another timestamp; B has nothing at all.
    rig.feed().push([trade("A", boundary(1).0 - 300), snapshot("A", boundary(1).0 - 200, boundary(9).0)]);
    eventually("they are durable", || rig.feed().settled() == 2).await;
    clock.set(boundary(1).1);
    outputs(&rig, 4).await;

    assert_eq!(rig.engine.calls().len(), 0);
    let runs = runs_of(&rig.runs).await;
    let failed: Vec<_> = runs.iter().filter(|run| run.is_terminal()).collect();
    for run in &failed {
        let RunStatus::Failed { attempts: 0, error_kind, .. } = run.status else { panic!("{run:?}") };
        assert_eq!(error_kind, ErrorKind::MissingSnapshotInputs);
    }
    let cuts: Vec<_> = failed.iter().map(|run| (run.facts.cut.start.0, run.facts.cut.end.0)).collect();
    assert_eq!(cuts, [(1, 2), (3, 2)], "an empty cut starts after its end");
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn of_several_snapshots_for_one_timestamp_the_last_is_used() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    let (ts, planned) = boundary(1);

    rig.feed().push([snapshot("A", ts - 300, ts), snapshot("A", ts - 7, ts), trade("A", ts)]);
    eventually("they are durable", || rig.feed().settled() == 3).await;
    clock.set(planned);
    outputs(&rig, 4).await;

    let calls = rig.engine.calls();
    assert!(calls[0].1.inputs.contains(&format!("{}", ts - 7)), "{}", calls[0].1.inputs);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_receipt_is_quarantined_with_its_reason_and_settled() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    clock.set(boundary(0).1);

    let large = trade("A", 1).to_vec().repeat(40);
    rig.feed().push(["no receipt".into(), trade("A", boundary(1).0), large.clone().into()]);
    rig.feed().push([trade("A", boundary(1).0)]);
    eventually("all is settled", || rig.feed().settled() == 4).await;

    let settlements = rig.feed().settlements();
    let Settlement::Durable(fates) = &settlements[0] else { panic!("{settlements:?}") };
    assert!(matches!(fates[..], [ItemFate::Quarantined(_), ItemFate::Appended, ItemFate::Quarantined(_)]));
    assert_eq!(settlements[1], Settlement::Durable(vec![ItemFate::Appended]), "not overtaken");
    let kept = rig.quarantine.records().await;
    let kept: Vec<_> = kept.iter().map(|bytes| QuarantineRecord::decode(bytes).unwrap()).collect();
    let seen: Vec<_> = kept.iter().map(|r| (r.reason.as_str(), r.position, r.size, r.at_ms.0)).collect();
    let now = boundary(0).1;
    assert_eq!(seen, [("not_an_envelope", 1, 10, now), ("too_large", 3, large.len() as u64, now)]);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_nothing_but_refused_items_is_stamped_with_the_time() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;

    rig.feed().push(["no receipt".into()]);
    eventually("it is settled", || rig.feed().settled() == 1).await;

    let kept = QuarantineRecord::decode(&rig.quarantine.records().await[0]).unwrap();
    assert_eq!(kept.at_ms.0, clock.ms());
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn retransmissions_are_recognised_by_their_positions() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    let (ts, _) = boundary(1);
    rig.feed().push([trade("A", ts), "no receipt".into(), trade("B", ts)]);
    eventually("they are durable", || rig.feed().settled() == 3).await;

    rig.feed().repeat(3);
    eventually("they are settled again", || rig.feed().settlements().len() == 2).await;
    // Half of this batch was there before.
    rig.feed().push([trade("A", ts + 1)]);
    eventually("it is durable", || rig.feed().settled() == 4).await;
    rig.feed().repeat(1);
    eventually("it is settled again", || rig.feed().settlements().len() == 4).await;

    let counts = rig.ledger().counts();
    assert_eq!((counts.appended, counts.quarantined, counts.duplicate), (3, 1, 4));
    let settlements = rig.feed().settlements();
    let Settlement::Durable(fates) = &settlements[1] else { panic!("{settlements:?}") };
    assert!(matches!(fates[..], [ItemFate::Duplicate, ItemFate::Quarantined(_), ItemFate::Duplicate]));
    assert_eq!((rig.receipts.records().await.len(), rig.quarantine.records().await.len()), (3, 1));
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn missing_positions_are_a_gap_and_the_producer_is_told_where_to_go_on() {
    let (rig, _clock) = two_symbols();
    let tree = rig.start().await;
    let ts = boundary(1).0;
    rig.feed().push([trade("A", ts)]);
    eventually("it is durable", || rig.feed().settled() == 1).await;

    rig.feed().leave_out(1);
    rig.feed().push([trade("A", ts + 1), trade("A", ts + 2)]);
    eventually("all is durable", || rig.feed().settled() == 3).await;

    assert_eq!(rig.feed().settlements()[1], Settlement::Gap { expected: 2 });
    assert_eq!(rig.receipts.records().await.len(), 3);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_back_makes_no_tick_twice_and_time_never_decreases_in_the_log() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;

    clock.set(boundary(0).0 - 60_000);
    second(&rig, 2, &["A", "B"]).await;
    clock.set(boundary(1).1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.outputs.len(), 4);
    clock.set(boundary(2).1);
    outputs(&rig, 8).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_absence_runs_the_last_ticks_and_counts_the_others_as_missed() {
    let mut settings = settings(&["A", "B"]);
    settings.engine_plane.scheduler.catch_up_max = 2;
    let (rig, clock) = manual(settings);
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;

    clock.set(boundary(9).1);
    let tree = rig.start().await;
    outputs(&rig, 12).await;

    assert_eq!(rig.ledger().counts().skipped, [(TickSkipReason::Missed, 12)].into());
    stop_and_check(&rig, tree).await;
}
