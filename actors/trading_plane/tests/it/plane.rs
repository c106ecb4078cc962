//! The plane as a whole: what it stops with, what it stops, and what goes on.

use std::time::Duration;

use orchestrator_kernel::trading::cycle::CycleStatus;
use orchestrator_kernel::trading::journal::JournalFact;
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::status::{Condition, Lifecycle};
use orchestrator_runtime::testkit::{OnAppend, fence};
use orchestrator_trading_plane::command::TradingCommand;
use orchestrator_trading_plane::plane::TradingStop;
use orchestrator_trading_plane::testkit::{OnStage, PlaneRig, origin, start_agent, trading_settings};

use crate::common::eventually;
use crate::cycles::{ended, run_cycle};

#[test]
fn settings_are_refused_as_a_whole() {
    let mut settings = trading_settings();
    assert_eq!(settings.find_violations(), Vec::<String>::new());
    settings.default_calendar = "nowhere".to_owned();
    settings.schedules[0].schedule.concurrent_max = 0;
    settings.schedules[0].strategies.push(orchestrator_trading_plane::testkit::strategy_name("nobody"));
    settings.schedules.push(settings.schedules[0].clone());
    settings.strategies[0].0.symbols.clear();
    let found = settings.find_violations();
    for place in [
        "default_calendar:",
        "schedules.minutely.concurrent_max:",
        "schedules.minutely.strategies:",
        "schedules.minutely: the name",
        "strategies.a.symbols:",
    ] {
        assert!(found.iter().any(|it| it.starts_with(place)), "{place}: {found:?}");
    }
}

/// Containment: a journal that has no room at the start is waited for.
#[tokio::test]
async fn a_start_on_a_full_journal_waits_for_room() {
    use futures_util::FutureExt as _;
    let rig = PlaneRig::new(trading_settings());
    rig.log.always(OnAppend::Full);
    let mut starting = Box::pin(rig.try_start());
    eventually("it is said", || {
        assert!(
            starting.as_mut().now_or_never().is_none(),
            "the plane starts without a record of its configuration"
        );
        rig.board.holds_condition(&Condition::JournalFailing)
    })
    .await;
    rig.log.always(OnAppend::Work);
    let plane = starting.await.unwrap();
    assert!(start_agent(plane.handle(), "start").await.is_ok());
    rig.audited().await;
}

#[tokio::test]
async fn a_stop_lets_a_cycle_end_and_begins_none() {
    let rig = PlaneRig::new(trading_settings());
    rig.stages.next("ING", [OnStage::WorkAfter(Duration::from_millis(100))]);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    run_cycle(&plane, "run", "canonical").await;

    assert_eq!(plane.stop(Duration::from_secs(30)).await, TradingStop::Clean);

    let ends = rig.facts(|fact| matches!(fact, JournalFact::CycleEnded(_))).await;
    assert!(
        matches!(&ends[..], [JournalFact::CycleEnded(ended)] if ended.status == CycleStatus::Ok),
        "{ends:?}"
    );
}

#[tokio::test]
async fn a_cycle_that_outlasts_its_share_of_the_grace_is_recorded_as_cancelled() {
    let mut rig = PlaneRig::new(trading_settings());
    rig.pipeline("canonical").budget = Duration::from_secs(600);
    rig.pipeline("canonical").stages[0].budget = Duration::from_secs(600);
    rig.stages.next("ING", [OnStage::Hang]);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    run_cycle(&plane, "run", "canonical").await;

    assert_eq!(plane.stop(Duration::from_secs(2)).await, TradingStop::Clean);

    let ends = rig.facts(|fact| matches!(fact, JournalFact::CycleEnded(_))).await;
    assert!(
        matches!(&ends[..], [JournalFact::CycleEnded(ended)] if ended.status == CycleStatus::Blocked
            && ended.reason.to_line() == "cancelled: the service stops"),
        "{ends:?}"
    );
}

/// Containment: a journal whose storage broke stops the plane, visibly; a later writer ends the process.
#[tokio::test]
async fn what_breaks_the_journal_stops_the_plane_and_says_whether_the_process_has_to_end() {
    for is_fenced in [false, true] {
        let rig = PlaneRig::new(trading_settings());
        rig.board.enter_lifecycle(Lifecycle::Running);
        let mut plane = rig.start().await;
        if is_fenced {
            fence(&rig.log).await;
        } else {
            rig.log.next([OnAppend::Poisoned]);
        }
        assert_eq!(start_agent(plane.handle(), "start").await.unwrap_err().http_status(), 503);

        let failure = tokio::time::timeout(Duration::from_secs(60), plane.wait_for_failure()).await.unwrap();

        assert_eq!(failure.kind, if is_fenced { FatalKind::Fenced } else { FatalKind::Storage });
        assert_eq!(failure.ends_process(), is_fenced);
        assert!(rig.board.holds_condition(&Condition::TradingStopped));
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_trusted_keeps_the_plane_from_starting_and_says_so() {
    let rig = PlaneRig::new(trading_settings());
    rig.start().await.kill().await;
    rig.log.corrupt(1);
    let failure = rig.try_start().await.err().unwrap();
    assert_eq!(failure.kind, FatalKind::Corrupt);
    assert!(rig.board.holds_condition(&Condition::TradingStopped));
    assert!(!rig.board.holds_condition(&Condition::TradingCatchingUp));
}

/// Containment: full, then room: the cycle that was cut goes on under its id, and ends once.
#[tokio::test]
async fn a_journal_without_room_stops_cycles_and_they_go_on_when_there_is_some() {
    let rig = PlaneRig::new(trading_settings());
    rig.stages.next("FEAT", [OnStage::Hold]);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    eventually("FEAT is asked", || rig.stages.count_calls("FEAT") == 1).await;

    rig.log.always(OnAppend::Full);
    rig.stages.release();
    eventually("it is said", || rig.board.holds_condition(&Condition::JournalFailing)).await;
    assert!(plane.handle().view.cycle(&cycle).unwrap().state.ended().is_none());

    rig.log.always(OnAppend::Work);
    let ended = ended(&plane, cycle).await;
    assert_eq!(ended.counts.intents, 2, "{ended:?}");
    assert_eq!(plane.stop(Duration::from_secs(30)).await, TradingStop::Clean);
    let ends = rig.facts(|fact| matches!(fact, JournalFact::CycleEnded(_))).await;
    assert_eq!(ends.len(), 1);
}

/// Containment: a journal that hangs stops cycles before their next stage.
#[tokio::test]
async fn a_journal_that_hangs_stops_cycles_before_their_next_stage() {
    let mut rig = PlaneRig::new(trading_settings());
    rig.settings.journal.slow_after = Duration::from_millis(30);
    rig.settings.journal.linger = Duration::from_millis(1);
    rig.stages.next("FEAT", [OnStage::Hold]);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "run", "canonical").await;
    eventually("FEAT is asked", || rig.stages.count_calls("FEAT") == 1).await;
    rig.log.always(OnAppend::Hang);
    let handle = plane.handle().clone();
    let other = tokio::spawn(async move {
        let beat = orchestrator_trading_plane::testkit::pipeline_name("heartbeat");
        let command = TradingCommand::RunCycle { pipeline: beat, strategies: vec![], trigger_event: None };
        handle.execute_command(command, origin("beat")).await
    });
    eventually("it is said", || rig.board.holds_condition(&Condition::JournalFailing)).await;
    rig.stages.release();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.stages.count_calls("SIG/a"), 0, "nothing is begun");

    rig.log.always(OnAppend::Work);
    other.await.unwrap().unwrap();
    assert_eq!(ended(&plane, cycle).await.status, CycleStatus::Ok);
    rig.audited().await;
}
