//! Schedules: each fire is a cycle or a recorded skip, whatever the clock, a crash or a slow cycle does.

use orchestrator_kernel::ids::{RunSeq, TsMs};
use orchestrator_kernel::trading::journal::{FireDisposition, FireTrigger, JournalFact};
use orchestrator_kernel::trading::schedule::{FireSkipReason, MisfirePolicy, OverlapPolicy, ScheduleTrigger};
use orchestrator_runtime::testkit::OnAppend;
use orchestrator_trading_plane::cadence::messages::ScheduleEvent;
use orchestrator_trading_plane::plane::TradingPlane;
use orchestrator_trading_plane::settings::TradingSettings;
use orchestrator_trading_plane::testkit::{OnStage, PlaneRig, WALL, start_agent, trading_settings};

use crate::common::eventually;

const MINUTE: i64 = 60_000;
/// The first minute behind the moment zero.
const FIRST: i64 = WALL - WALL % MINUTE + MINUTE;

fn with(change: impl FnOnce(&mut orchestrator_kernel::trading::schedule::CycleSchedule)) -> TradingSettings {
    let mut settings = trading_settings();
    change(&mut settings.schedules[0].schedule);
    settings
}

async fn running(rig: &PlaneRig) -> TradingPlane {
    let plane = rig.start().await;
    if plane.handle().view.agent().state.status.as_str() == "stopped" {
        start_agent(plane.handle(), "start").await.unwrap();
    }
    plane
}

fn cycles(plane: &TradingPlane) -> u64 {
    plane.handle().view.agent().tally.cycles
}

async fn cycles_end(plane: &TradingPlane, count: u64) {
    eventually(&format!("{count} cycles end"), || cycles(plane) == count).await;
}

/// Fires by number, each with its planned time, or the reason why it led to nothing, of records that are durable.
async fn fires(rig: &PlaneRig) -> Vec<(u64, String)> {
    let mut fires = Vec::new();
    for fact in rig.facts(|_| true).await {
        match fact {
            JournalFact::ScheduleFired(fired) => {
                let word = match fired.disposition {
                    FireDisposition::Start => "start",
                    FireDisposition::Queue => "queue",
                };
                fires.push((fired.fire, format!("{word} {}", (fired.planned_ts_ms.0 - FIRST) / MINUTE)));
            }
            JournalFact::ScheduleSkipped(skipped) => {
                fires.push((skipped.first_fire, format!("{} x{}", skipped.reason.as_str(), skipped.fires)));
            }
            _ => {}
        }
    }
    fires
}

fn told(fires: &[(u64, &str)]) -> Vec<(u64, String)> {
    fires.iter().map(|(fire, word)| (*fire, (*word).to_owned())).collect()
}

async fn fires_are(rig: &PlaneRig, plane: TradingPlane, expected: &[(u64, &str)]) {
    plane.stop(std::time::Duration::from_secs(20)).await;
    assert_eq!(fires(rig).await, told(expected));
}

#[tokio::test]
async fn a_schedule_fires_at_its_times_and_a_clock_that_jumps_back_repeats_nothing() {
    let rig = PlaneRig::new(trading_settings());
    let plane = running(&rig).await;

    rig.clock.set(FIRST);
    cycles_end(&plane, 1).await;
    rig.clock.set(FIRST - 10 * MINUTE);
    rig.clock.set(FIRST);
    rig.clock.set(FIRST + MINUTE);
    cycles_end(&plane, 2).await;

    fires_are(&rig, plane, &[(1, "start 0"), (2, "start 1")]).await;
}

/// T4: an hour of absence, by each policy.
#[tokio::test]
async fn what_was_missed_is_decided_by_the_misfire_policy() {
    for (misfire, ended, expected) in [
        (MisfirePolicy::Skip, 1, vec![(1, "start 0"), (2, "misfire x60")]),
        (MisfirePolicy::Latest, 2, vec![(1, "start 0"), (2, "misfire x59"), (61, "start 60")]),
    ] {
        let rig = PlaneRig::new(with(|schedule| schedule.misfire = misfire));
        let plane = running(&rig).await;
        rig.clock.set(FIRST);
        cycles_end(&plane, 1).await;
        plane.kill().await;

        rig.clock.set(FIRST + 60 * MINUTE + 5000);
        let plane = running(&rig).await;
        cycles_end(&plane, ended).await;
        fires_are(&rig, plane, &expected).await;
    }
}

/// T4: all of them, one after the other.
#[tokio::test]
async fn all_that_was_missed_is_made_up_for_and_never_more_at_a_time_than_may() {
    let rig = PlaneRig::new(with(|schedule| schedule.misfire = MisfirePolicy::All));
    let plane = running(&rig).await;
    rig.clock.set(FIRST);
    cycles_end(&plane, 1).await;
    plane.kill().await;

    rig.clock.set(FIRST + 60 * MINUTE + 5000);
    let plane = running(&rig).await;
    cycles_end(&plane, 61).await;
    plane.stop(std::time::Duration::from_secs(20)).await;

    let fired = fires(&rig).await;
    assert_eq!(fired.len(), 61);
    assert!(fired.iter().all(|(_, word)| word.starts_with("start")));
    // No cycle begins before the one before it has ended.
    let mut open = 0;
    for fact in rig.facts(|_| true).await {
        match fact {
            JournalFact::CycleStarted(_) => open += 1,
            JournalFact::CycleEnded(_) => open -= 1,
            _ => {}
        }
        assert!(open <= 1);
    }
}

/// T5: a slow cycle, by each policy.
#[tokio::test]
async fn a_fire_that_finds_a_cycle_running_is_skipped_or_waits_or_cancels() {
    for (overlap, expected) in [
        (OverlapPolicy::Skip, vec![(1, "start 0"), (2, "overlap x1"), (3, "overlap x1")]),
        (OverlapPolicy::QueueOne, vec![(1, "start 0"), (2, "queue 1"), (3, "overlap x1")]),
        (OverlapPolicy::Cancel, vec![(1, "start 0"), (2, "start 1"), (3, "start 2")]),
    ] {
        let rig = PlaneRig::new(with(|schedule| schedule.overlap = overlap));
        rig.stages.always("ING", OnStage::Hold);
        let plane = running(&rig).await;
        rig.clock.set(FIRST);
        eventually("the first runs", || rig.stages.count_calls("ING") == 1).await;
        for minute in [1, 2] {
            rig.clock.set(FIRST + minute * MINUTE);
            let next = TsMs(FIRST + (minute + 1) * MINUTE);
            let waited = tokio::time::timeout(std::time::Duration::from_secs(60), async {
                while plane.handle().list_next_fires().await.unwrap()[0].at != Some(next) {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            });
            waited.await.expect("the fire is decided");
        }
        rig.stages.always("ING", OnStage::Work);
        // Cancelled ones have ended; the last holds until it is let go.
        let all = match overlap {
            OverlapPolicy::Skip => 1,
            OverlapPolicy::QueueOne => 2,
            OverlapPolicy::Cancel => 3,
        };
        if overlap == OverlapPolicy::Cancel {
            eventually("the third runs", || rig.stages.count_calls("ING") == 3).await;
        }
        rig.stages.release();
        cycles_end(&plane, all).await;
        let view = plane.handle().view.clone();
        let cancelled = view.last_cycles(10, |cycle| {
            cycle.state.ended().is_some_and(|ended| ended.reason.to_line().contains("fired again"))
        });
        assert_eq!(cancelled.len(), if overlap == OverlapPolicy::Cancel { 2 } else { 0 });
        fires_are(&rig, plane, &expected).await;
    }
}

/// T6, before the cycle's first record: a fire that is on record has its cycle, with its id, after a crash.
/// A crash while a cycle runs and the next fire waits behind it, durably.
async fn crash_with_a_fire_that_waits(rig: &PlaneRig) {
    rig.stages.always("ING", OnStage::Hold);
    let plane = running(rig).await;
    rig.clock.set(FIRST);
    eventually("the first runs", || rig.stages.count_calls("ING") == 1).await;
    rig.clock.set(FIRST + MINUTE);
    let committed = plane.handle().committed.clone();
    eventually("the second waits, durably", || {
        committed.borrow().batch.iter().any(|(_, bytes)| {
            let sealed = orchestrator_kernel::trading::journal::SealedEntry::decode(bytes).unwrap();
            matches!(sealed.entry.fact, JournalFact::ScheduleFired(fired) if fired.fire == 2)
        })
    })
    .await;
    plane.kill().await;
    rig.stages.always("ING", OnStage::Work);
}

#[tokio::test]
async fn a_fire_that_waits_when_the_service_crashes_begins_behind_it() {
    let rig = PlaneRig::new(with(|schedule| schedule.overlap = OverlapPolicy::QueueOne));
    crash_with_a_fire_that_waits(&rig).await;

    let plane = running(&rig).await;
    cycles_end(&plane, 2).await;
    fires_are(&rig, plane, &[(1, "start 0"), (2, "queue 1")]).await;
}

/// Method: the service comes back when even the longest lateness is over.
#[tokio::test]
async fn a_fire_that_waited_over_a_long_absence_is_too_late() {
    let rig = PlaneRig::new(with(|schedule| {
        schedule.overlap = OverlapPolicy::QueueOne;
        schedule.misfire = MisfirePolicy::Skip;
        schedule.lateness_max_ms = 10 * MINUTE;
    }));
    crash_with_a_fire_that_waits(&rig).await;
    rig.clock.set(FIRST + 60 * MINUTE + 30_000);

    let plane = running(&rig).await;
    cycles_end(&plane, 1).await;
    plane.stop(std::time::Duration::from_secs(20)).await;

    let fires = fires(&rig).await;
    assert_eq!(fires[..3], told(&[(1, "start 0"), (2, "queue 1"), (2, "too_late x1")]), "{fires:?}");
    let started = rig.facts(|fact| matches!(fact, JournalFact::CycleStarted(_))).await;
    assert_eq!(started.len(), 1, "the one that was interrupted");
}

#[tokio::test]
async fn a_fire_while_the_agent_does_not_run_is_skipped_and_a_heartbeat_runs_all_the_same() {
    let mut settings = trading_settings();
    let mut heartbeat = orchestrator_trading_plane::testkit::every_minute("beat", "heartbeat");
    heartbeat.strategies.clear();
    settings.schedules.push(heartbeat);
    let rig = PlaneRig::new(settings);
    let plane = rig.start().await;

    rig.clock.set(FIRST);
    cycles_end(&plane, 1).await;

    plane.stop(std::time::Duration::from_secs(20)).await;
    let skipped = rig.facts(|fact| matches!(fact, JournalFact::ScheduleSkipped(_))).await;
    assert!(
        matches!(&skipped[..], [JournalFact::ScheduleSkipped(skipped)]
            if skipped.reason == FireSkipReason::AgentNotRunning && skipped.schedule.as_str() == "minutely"),
        "{skipped:?}"
    );
}

/// T11: an event that comes twice, and an output that comes twice, make one cycle each.
#[tokio::test]
async fn what_comes_twice_fires_once_also_behind_a_crash() {
    let mut settings = with(|schedule| schedule.trigger = ScheduleTrigger::OnDemand);
    settings.schedules[0].topics = vec!["ordinis.market.*".to_owned()];
    let rig = PlaneRig::new(settings);
    let plane = running(&rig).await;
    let event = ScheduleEvent {
        topic: "ordinis.market.bar".to_owned(),
        event_id: "e-1".to_owned(),
        at: TsMs(WALL - 5),
    };
    plane.handle().take_event(event.clone()).await.unwrap();
    cycles_end(&plane, 1).await;
    plane.handle().take_event(event.clone()).await.unwrap();
    let other = ScheduleEvent { topic: "trade.order.filled".to_owned(), ..event.clone() };
    plane.handle().take_event(other).await.unwrap();
    plane.stop(std::time::Duration::from_secs(20)).await;

    let plane = running(&rig).await;
    plane.handle().take_event(event).await.unwrap();
    assert_eq!(cycles(&plane), 1);
    plane.stop(std::time::Duration::from_secs(20)).await;
    assert_eq!(
        fires(&rig)
            .await
            .iter()
            .map(|(fire, word)| (*fire, word.split(' ').next().unwrap()))
            .collect::<Vec<_>>(),
        [(1, "start"), (2, "already_fired"), (3, "already_fired")]
    );
}

#[tokio::test]
async fn outputs_fire_from_a_cursor_that_stands_in_the_journal() {
    let mut settings = with(|schedule| schedule.trigger = ScheduleTrigger::OnDemand);
    settings.schedules[0].on_outputs = true;
    let rig = PlaneRig::new(settings);
    let plane = running(&rig).await;
    for seq in [1, 1, 2] {
        plane.handle().take_output(RunSeq(seq), TsMs(WALL + i64::try_from(seq).unwrap())).await.unwrap();
        cycles_end(&plane, seq).await;
    }
    plane.stop(std::time::Duration::from_secs(20)).await;

    let plane = running(&rig).await;
    for seq in [1, 2, 3] {
        plane.handle().take_output(RunSeq(seq), TsMs(WALL + i64::try_from(seq).unwrap())).await.unwrap();
    }
    cycles_end(&plane, 3).await;
    let outputs = rig.facts(|fact| {
        matches!(fact, JournalFact::ScheduleFired(fired) if matches!(fired.trigger, FireTrigger::Output { .. }))
    });
    assert_eq!(outputs.await.len(), 3);
}

/// T6, a fire's part. Method: one fire and its cycle are recorded; the journal is cut behind each record from the fire
/// on, and the plane starts on what is left half a second later.
#[tokio::test]
async fn a_fire_that_a_crash_cuts_at_any_record_has_one_cycle_with_its_id() {
    let whole = PlaneRig::new(trading_settings());
    let plane = running(&whole).await;
    whole.clock.set(FIRST);
    cycles_end(&plane, 1).await;
    plane.stop(std::time::Duration::from_secs(20)).await;
    let records = whole.log.records().await;
    let entries = whole.audited().await;
    let id = entries.iter().find_map(|entry| entry.fact.cycle_id()).unwrap();
    let fired = entries.iter().position(|entry| matches!(entry.fact, JournalFact::ScheduleFired(_))).unwrap();

    for cut in fired..=records.len() {
        let rig = PlaneRig::new(trading_settings());
        rig.take_journal(&records[..cut]).await;
        rig.clock.set(FIRST + 500);

        let plane = running(&rig).await;
        cycles_end(&plane, 1).await;
        plane.stop(std::time::Duration::from_secs(20)).await;

        assert_eq!(fires(&rig).await, told(&[(1, "start 0")]), "cut behind {cut}");
        let ends = rig.facts(|fact| matches!(fact, JournalFact::CycleEnded(_))).await;
        assert!(
            matches!(&ends[..], [JournalFact::CycleEnded(ended)] if ended.cycle_id == id),
            "cut behind {cut}"
        );
    }
}

/// CYC-2: a fire that is on record and begins no cycle after all is skipped under the number that it has.
#[tokio::test]
async fn a_fire_that_a_crash_cut_and_that_comes_too_late_is_skipped_under_its_number() {
    let whole = PlaneRig::new(trading_settings());
    let plane = running(&whole).await;
    whole.clock.set(FIRST);
    cycles_end(&plane, 1).await;
    plane.stop(std::time::Duration::from_secs(20)).await;
    let records = whole.log.records().await;
    let entries = whole.audited().await;
    let fired = entries.iter().position(|entry| matches!(entry.fact, JournalFact::ScheduleFired(_))).unwrap();

    let rig = PlaneRig::new(with(|schedule| schedule.lateness_max_ms = 10 * MINUTE));
    rig.take_journal(&records[..=fired]).await;
    rig.clock.set(FIRST + 20 * MINUTE + 5000);
    let plane = running(&rig).await;
    rig.clock.set(FIRST + 21 * MINUTE);
    cycles_end(&plane, 1).await;

    let expected =
        [(1, "start 0"), (1, "too_late x1"), (2, "too_late x10"), (12, "misfire x10"), (22, "start 21")];
    fires_are(&rig, plane, &expected).await;
}

/// JRN-2: whoever brought an event forgets it when it is acknowledged, so a crash must not lose it then.
#[tokio::test]
async fn an_event_is_acknowledged_when_its_fire_is_durable_and_not_before() {
    let rig = PlaneRig::new(with(|schedule| schedule.trigger = ScheduleTrigger::OnDemand));
    let mut settings = rig.settings.clone();
    settings.schedules[0].topics = vec!["news".to_owned()];
    let rig = PlaneRig { settings, ..rig };
    let plane = running(&rig).await;
    rig.log.always(OnAppend::Hang);
    let event = ScheduleEvent { topic: "news".to_owned(), event_id: "e".to_owned(), at: TsMs(WALL) };

    let handle = plane.handle().clone();
    let mut taken = tokio::spawn(async move { handle.take_event(event).await });
    eventually("its fire is on its way", || 0 < rig.log.hanging()).await;
    assert!(!taken.is_finished(), "acknowledged before it is durable");
    rig.log.always(OnAppend::Work);

    (&mut taken).await.unwrap().unwrap();
    let fired = rig.facts(|fact| matches!(fact, JournalFact::ScheduleFired(_))).await;
    assert_eq!(fired.len(), 1);
}

/// Method: three schedules are due at one moment, and there is room for two cycles.
#[tokio::test]
async fn of_what_is_due_at_one_moment_the_higher_priority_begins_first() {
    let mut settings = trading_settings();
    settings.cycles_running_max = 2;
    settings.schedules = [("alpha", 0), ("beta", 9), ("gamma", 5)]
        .map(|(name, priority)| {
            let mut schedule = orchestrator_trading_plane::testkit::every_minute(name, "canonical");
            schedule.schedule.priority = priority;
            schedule
        })
        .into();
    let rig = PlaneRig::new(settings);
    rig.stages.always("ING", OnStage::Hold);
    let plane = running(&rig).await;

    rig.clock.set(FIRST);
    eventually("two run", || rig.stages.count_calls("ING") == 2).await;
    rig.stages.always("ING", OnStage::Work);
    rig.stages.release();
    cycles_end(&plane, 2).await;
    plane.stop(std::time::Duration::from_secs(20)).await;

    let decided = rig
        .facts(|fact| matches!(fact, JournalFact::ScheduleFired(_) | JournalFact::ScheduleSkipped(_)))
        .await;
    let told: Vec<(&str, &str)> = decided
        .iter()
        .filter_map(|fact| match fact {
            JournalFact::ScheduleFired(fired) => Some((fired.schedule.as_str(), "begins")),
            JournalFact::ScheduleSkipped(skipped) => {
                Some((skipped.schedule.as_str(), skipped.reason.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(told, [("beta", "begins"), ("gamma", "begins"), ("alpha", "max_concurrent")]);
}
