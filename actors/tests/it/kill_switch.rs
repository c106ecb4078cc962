//! The kill switch in the tree: what effects are told on good days, and when whatever reads it fails.

use std::time::Duration;

use orchestrator_actors::testkit::{ReadMood, eventually};
use orchestrator_kernel::kill_switch::{KillSwitchReadError, PermitRefused, UnknownReason};
use orchestrator_kernel::ports::kill_switch::KillGate;
use orchestrator_runtime::status::{Condition, Lifecycle};
use tokio::time::{Instant, sleep};

use crate::common::{outputs, second_and_tick, stop_and_check, two_symbols};

const fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

/// Waits until the gate refuses, and says how long that took.
async fn until_refused(gate: &impl KillGate) -> Duration {
    let began = Instant::now();
    while gate.try_permit().is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5), "never refused");
        sleep(ms(1)).await;
    }
    began.elapsed()
}

/// KILL-3. Method: a flip that is announced, and one that is not.
#[tokio::test(start_paused = true)]
async fn a_flip_blocks_at_once_when_announced_and_with_the_next_poll_when_not() {
    let (rig, _) = two_symbols();
    let tree = rig.start().await;
    let memory = &rig.kill_switch.memory;
    assert!(tree.gate.try_permit().is_ok());

    memory.put_value(Some(b"engaged"));
    assert!(until_refused(&tree.gate).await <= ms(2));
    assert!(matches!(tree.gate.try_permit(), Err(PermitRefused::Halted(_))));

    memory.put_value(Some(b"off"));
    eventually("permits are given again", || tree.gate.try_permit().is_ok()).await;
    memory.put_silently(None);
    assert!(until_refused(&tree.gate).await <= ms(101));
    assert_eq!(tree.gate.try_permit(), Err(PermitRefused::Unknown(UnknownReason::Missing)));
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_switch_that_blocks_is_shown_and_does_not_touch_the_engine_plane() {
    let (rig, clock) = two_symbols();
    rig.kill_switch
        .memory
        .put_value(Some(br#"{"state":"ENGAGED","engaged_by":"ops","engagement_reason":"halt"}"#));
    let tree = rig.start().await;

    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    let status = tree.board.current_status();
    assert_eq!((status.lifecycle, status.ready), (Lifecycle::Running, true));
    assert_eq!(status.conditions[&Condition::KillSwitchEngaged], "halted by ops: halt");

    rig.kill_switch.memory.put_value(None);
    eventually("the value is gone", || tree.gate.current_view().state.state_word() == "unknown").await;
    assert!(
        tree.board.current_status().conditions[&Condition::KillSwitchUnknown].contains("kill-switch init")
    );
    rig.kill_switch.memory.put_value(Some(b"0"));
    eventually("trading is allowed", || tree.board.current_status().conditions.is_empty()).await;

    let words: Vec<_> =
        tree.gate.recent_changes().into_iter().map(|past| past.transition.to.state_word()).collect();
    assert_eq!(words, ["halted", "unknown", "trading"]);
    assert_eq!(rig.ledger().counts().kill_switch_entered, words);
    stop_and_check(&rig, tree).await;
}

/// KILL-1. Method: reads hang, then fail; the lease carries what was read before to its end and no further.
#[tokio::test(start_paused = true)]
async fn permits_end_with_the_lease_when_reads_bring_nothing_and_come_back_with_them() {
    let (rig, _) = two_symbols();
    let tree = rig.start().await;
    for trouble in ["hangs", "fails"] {
        match trouble {
            "hangs" => rig.kill_switch.set(ReadMood::Hangs),
            _ => rig
                .kill_switch
                .memory
                .fail_reads(Some(KillSwitchReadError::NoAnswer("connection reset".to_owned()))),
        }
        let left = tree.gate.try_permit().unwrap().time_left();
        assert!(left <= ms(500) && ms(200) <= left, "{left:?}");

        let took = until_refused(&tree.gate).await;

        assert!(left <= took && took <= left + ms(1), "{took:?} of {left:?}");
        let refused = tree.gate.try_permit().unwrap_err();
        assert!(matches!(&refused, PermitRefused::Stale { age, .. } if ms(500) <= *age), "{refused:?}");
        assert!(tree.board.current_status().conditions.contains_key(&Condition::KillSwitchUnknown));
        rig.kill_switch.set(ReadMood::Works);
        rig.kill_switch.memory.fail_reads(None);
        eventually("permits are given again", || tree.gate.try_permit().is_ok()).await;
    }
    assert!(rig.ledger().counts().effects_refused["stale"] > 0);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_keeps_panicking_blocks_effects_and_nothing_else() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.kill_switch.set(ReadMood::Panics);

    until_refused(&tree.gate).await;
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 4).await;
    sleep(Duration::from_secs(60)).await;
    assert!(tree.gate.try_permit().is_err());
    assert!(
        rig.ledger().counts().exits_of("kill_switch", "restarted") > 10,
        "it is started again without end"
    );

    rig.kill_switch.set(ReadMood::Works);
    eventually("permits are given again", || tree.gate.try_permit().is_ok()).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn an_effect_can_read_for_itself_while_the_reader_is_busy() {
    let (rig, _) = two_symbols();
    let tree = rig.start().await;
    rig.kill_switch.set(ReadMood::Hangs);
    until_refused(&tree.gate).await;
    rig.kill_switch.set(ReadMood::Works);

    let permit = tree.gate.fresh_permit().await.unwrap();
    assert_eq!(permit.reading_age(), ms(0));
    rig.kill_switch.memory.put_silently(Some(b"on"));
    assert!(tree.gate.fresh_permit().await.is_err());

    stop_and_check(&rig, tree).await;
}

/// Method: a writer that changes the value ten thousand times; each notification would be a read.
#[tokio::test(start_paused = true)]
async fn a_flood_of_notifications_becomes_a_few_reads() {
    let (rig, _) = two_symbols();
    let tree = rig.start().await;
    let before = rig.kill_switch.reads();

    for _ in 0..10_000 {
        rig.kill_switch.memory.put_value(Some(b"off"));
    }
    sleep(ms(1000)).await;

    let reads = rig.kill_switch.reads() - before;
    assert!((10..20).contains(&reads), "{reads} reads");
    stop_and_check(&rig, tree).await;
}
