//! The journal: one chain whatever the log does, one wait a cycle, and nothing that follows from what is not there.

use std::time::Duration;

use futures_util::FutureExt as _;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::{JournalFact, KillLatched};
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::testkit::{OnAppend, fence};
use orchestrator_trading_plane::journal::messages::JournalRefused;

use crate::common::{JournalRig, cleared, entry, eventually, journal_settings, raised};

#[tokio::test]
async fn what_nobody_waits_for_becomes_durable_with_what_somebody_waits_for_in_one_append() {
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (index, writer) = journal.door.read_snapshot().await.unwrap();
    assert_eq!(index.tail(), JournalSeq(0));

    for alert in ["a", "b", "c"] {
        writer.push_entries(raised(alert)).await.unwrap();
    }
    assert_eq!(rig.log.trace(), [], "nobody waits yet");
    assert_eq!(writer.commit_entries(cleared("b")).await, Ok(JournalSeq(4)));

    assert_eq!(rig.log.trace(), [(1, 4, true)]);
    assert_eq!(journal.committed.borrow().tail, JournalSeq(4));
    assert_eq!(rig.audit().await.tail(), JournalSeq(4));
}

#[tokio::test]
async fn what_nobody_waits_for_becomes_durable_a_little_later() {
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();

    writer.push_entries(raised("a")).await.unwrap();

    eventually("it is durable", || journal.committed.borrow().tail == JournalSeq(1)).await;
}

/// Method: records before and behind a restart, with and without what a clean end saves.
#[tokio::test]
async fn a_restart_continues_the_chain_with_and_without_a_checkpoint() {
    for clean in [false, true] {
        let rig = JournalRig::default();
        let journal = rig.start().await.unwrap();
        let (_, writer) = journal.door.read_snapshot().await.unwrap();
        writer.commit_entries(raised("a")).await.unwrap();
        if clean {
            journal.drain().await
        } else {
            journal.kill().await
        }

        let journal = rig.start().await.unwrap();
        let (index, writer) = journal.door.read_snapshot().await.unwrap();
        assert!(index.alerts().contains_key("a"));
        assert_eq!(writer.commit_entries(cleared("a")).await, Ok(JournalSeq(2)));
        assert_eq!(rig.audit().await.tail(), JournalSeq(2));
    }
}

#[tokio::test]
async fn a_full_journal_refuses_and_whoever_continues_what_is_lost_begins_again() {
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    writer.commit_entries(raised("kept")).await.unwrap();

    rig.log.always(OnAppend::Full);
    writer.push_entries(raised("lost")).await.unwrap();
    let refused = writer.commit_entries(cleared("kept")).await;
    assert!(matches!(refused, Err(JournalRefused::Full(_))), "{refused:?}");
    assert!(journal.is_failing() && writer.check_term().is_err());
    assert_eq!(writer.push_entries(cleared("lost")).await, Err(JournalRefused::Lost));
    let mut asked = Box::pin(journal.door.read_snapshot());
    assert!(asked.as_mut().now_or_never().is_none(), "there is no room to begin anything");

    rig.log.always(OnAppend::Work);
    let (index, again) = asked.await.unwrap();
    assert!(!journal.is_failing());
    assert!(index.alerts().contains_key("kept") && !index.alerts().contains_key("lost"));
    assert_eq!(writer.commit_entries(cleared("kept")).await, Err(JournalRefused::Lost), "of another term");
    assert_eq!(again.commit_entries(raised("lost")).await, Ok(JournalSeq(2)));
    assert_eq!(rig.audit().await.tail(), JournalSeq(2));
}

#[tokio::test]
async fn an_append_that_hangs_is_said_and_what_waits_goes_on_when_it_is_over() {
    let rig = JournalRig { queue_max: 3, ..JournalRig::default() };
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    rig.log.always(OnAppend::Hang);

    let mut waiting = Box::pin(writer.commit_entries(raised("a")));
    assert!(waiting.as_mut().now_or_never().is_none());
    eventually("it is said", || journal.is_failing()).await;
    for alert in ["b", "c"] {
        writer.push_entries(raised(alert)).await.unwrap();
    }
    let mut beyond = Box::pin(writer.push_entries(raised("d")));
    assert!(beyond.as_mut().now_or_never().is_none(), "the queue is bounded");

    rig.log.always(OnAppend::Work);
    assert_eq!(waiting.await, Ok(JournalSeq(1)));
    assert_eq!(beyond.await, Ok(JournalSeq(4)));
    eventually("it is over", || !journal.is_failing() && journal.committed.borrow().tail.0 == 4).await;
    assert_eq!(rig.audit().await.tail(), JournalSeq(4));
}

#[tokio::test]
async fn an_append_that_is_not_answered_is_sent_again_and_stands_there_once() {
    for done in [false, true] {
        let rig = JournalRig::default();
        let journal = rig.start().await.unwrap();
        let (_, writer) = journal.door.read_snapshot().await.unwrap();
        rig.log.next([OnAppend::Unknown { done }, OnAppend::Unknown { done }]);

        assert_eq!(writer.commit_entries(raised("a")).await, Ok(JournalSeq(1)));

        assert_eq!(rig.audit().await.tail(), JournalSeq(1));
        assert!(!journal.is_failing());
    }
}

#[tokio::test]
async fn a_record_that_breaks_a_rule_is_kept_out_and_stops_the_plane() {
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    writer.commit_entries(raised("a")).await.unwrap();

    assert!(matches!(writer.commit_entries(raised("a")).await, Err(JournalRefused::Down(_))));

    let (kind, what) = journal.failure().await;
    assert_eq!(kind, FatalKind::Internal);
    assert!(what.contains("alert_order"), "{what}");

    // What it was kept out for is on record in its place: a restart does not go on trading with the same defect.
    assert_eq!(rig.audit().await.tail(), JournalSeq(2));
    let journal = rig.start().await.unwrap();
    let latched = journal.view.agent().latched.unwrap();
    assert!(latched.contains("breaks alert_order"), "{latched}");
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    assert!(matches!(writer.commit_entries(raised("a")).await, Err(JournalRefused::Down(_))));
    journal.failure().await;
    assert_eq!(rig.audit().await.tail(), JournalSeq(2), "it is latched already");
}

/// Method: the record that breaks a rule comes while the journal does not answer, then while it has no room.
#[tokio::test]
async fn a_latch_for_a_broken_rule_waits_for_its_record_and_never_for_room() {
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    writer.push_entries(raised("a")).await.unwrap();
    rig.log.always(OnAppend::Hang);
    assert!(matches!(writer.commit_entries(raised("a")).await, Err(JournalRefused::Down(_))));
    assert!(
        matches!(writer.commit_entries(cleared("a")).await, Err(JournalRefused::Down(_))),
        "it is ending"
    );
    rig.log.always(OnAppend::Work);
    assert!(journal.failure().await.1.contains("alert_order"));
    assert_eq!(rig.audit().await.tail(), JournalSeq(2), "what was accepted before it, and the latch");

    let full = JournalRig::default();
    let journal = full.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    full.log.next([OnAppend::Full]);
    assert!(matches!(writer.commit_entries(cleared("a")).await, Err(JournalRefused::Down(_))));
    assert!(journal.failure().await.1.contains("alert_order"));
    assert_eq!(full.audit().await.tail(), JournalSeq(0));
}

#[tokio::test]
async fn a_broken_storage_and_another_writer_are_told_apart() {
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    rig.log.next([OnAppend::Poisoned]);
    assert!(matches!(writer.commit_entries(raised("a")).await, Err(JournalRefused::Down(_))));
    assert_eq!(journal.failure().await.0, FatalKind::Storage);

    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    fence(&rig.log).await;
    assert!(matches!(writer.commit_entries(raised("a")).await, Err(JournalRefused::Down(_))));
    assert_eq!(journal.failure().await.0, FatalKind::Fenced);
}

#[tokio::test]
async fn a_journal_that_was_altered_or_that_cannot_be_read_is_not_continued() {
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    writer.commit_entries(raised("a")).await.unwrap();
    writer.commit_entries(cleared("a")).await.unwrap();
    journal.kill().await;

    rig.log.corrupt(2);
    assert_eq!(rig.start().await.err().map(|(kind, _)| kind), Some(FatalKind::Corrupt));

    // A log whose second record is another one than when it was written.
    let altered = JournalRig::default();
    let records = rig.log.records().await;
    let mut batch = orchestrator_kernel::ports::log::RecordBatch::starting_at(Seq(1));
    batch.push(&records[0]);
    batch.push(&records[1].iter().map(|byte| byte ^ 1).collect::<Vec<u8>>());
    let log: &dyn orchestrator_kernel::ports::log::Log = altered.log.as_ref();
    let acquired = log.acquire().await.unwrap();
    log.append(acquired.epoch, &batch).await.unwrap();
    let (kind, what) = altered.start().await.err().unwrap();
    assert_eq!(kind, FatalKind::Corrupt);
    assert!(what.contains("record 2") && what.contains("chain"), "{what}");
}

#[tokio::test]
async fn a_journal_that_lost_its_end_or_its_beginning_is_not_continued() {
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    writer.commit_entries(raised("a")).await.unwrap();
    writer.commit_entries(cleared("a")).await.unwrap();
    journal.drain().await;
    let shorter = JournalRig { checkpoints: rig.checkpoints.clone(), ..JournalRig::default() };
    let (kind, what) = shorter.start().await.err().unwrap();
    assert!(kind == FatalKind::Corrupt && what.contains("LOG_REGRESSED"), "{what}");

    let log: &dyn orchestrator_kernel::ports::log::Log = rig.log.as_ref();
    let acquired = log.acquire().await.unwrap();
    log.trim(acquired.epoch, Seq(2)).await.unwrap();
    let without = JournalRig { log: rig.log.clone(), ..JournalRig::default() };
    let (kind, what) = without.start().await.err().unwrap();
    assert!(kind == FatalKind::Corrupt && what.contains("starts at 2"), "{what}");
    assert!(rig.start().await.is_ok(), "the checkpoint says what stood before");
}

#[tokio::test]
async fn a_latch_is_recorded_and_survives() {
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    let latch = KillLatched { latched: true, reason: "asked to".to_owned() };
    writer.commit_entries(vec![entry(JournalFact::KillLatched(latch))]).await.unwrap();
    assert_eq!(journal.view.agent().latched.as_deref(), Some("asked to"));
    journal.kill().await;

    let journal = rig.start().await.unwrap();
    assert_eq!(journal.view.agent().latched.as_deref(), Some("asked to"));
    assert_eq!(journal.door.read_snapshot().await.unwrap().0.latched(), Some("asked to"));
}

/// The gates had looked before the latch, their record comes behind it: it would be a lie.
#[tokio::test]
async fn a_permit_that_crosses_a_latch_is_refused() {
    use orchestrator_kernel::ids::TsMs;
    use orchestrator_kernel::trading::agent::AgentStatus;
    use orchestrator_kernel::trading::gate::{
        AgentReading, GateDecided, GatePlace, GateReadings, KillReading, SessionReading,
    };
    use orchestrator_kernel::trading::ids::{CommandId, CycleId};
    let rig = JournalRig::default();
    let journal = rig.start().await.unwrap();
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    let decided = GateDecided {
        cycle_id: CycleId::of_command(CommandId::derive("c")),
        place: GatePlace::Before(0),
        readings: Some(GateReadings {
            now: TsMs(0),
            kill: KillReading::Permit { age_ms: 1, left_ms: 499 },
            newest_input: None,
            session: SessionReading { calendar_allows: true, announcement_allows: None },
            agent: AgentReading { status: AgentStatus::Running, catching_up: false },
            strategies: vec![],
            last_cycle_degraded: false,
        }),
        checks: vec![],
        narrowed: vec![],
    };
    let latch = KillLatched { latched: true, reason: "asked to".to_owned() };
    writer.push_entries(vec![entry(JournalFact::KillLatched(latch))]).await.unwrap();

    let refused = writer.push_entries(vec![entry(JournalFact::GateDecided(Box::new(decided)))]).await;

    assert_eq!(refused, Err(JournalRefused::Flipped("latched: asked to".to_owned())));
    assert!(writer.commit_entries(raised("a")).await.is_ok(), "the journal goes on");
}

/// Method: a thousand records a piece from eight authors at once, over a log that answers late.
#[tokio::test]
async fn records_of_many_authors_are_one_chain() {
    let settings = journal_settings();
    let rig = JournalRig { settings, queue_max: 64, ..JournalRig::default() };
    let journal = rig.start().await.unwrap();
    rig.log.always(OnAppend::WorkAfter(Duration::from_micros(200)));
    let (_, writer) = journal.door.read_snapshot().await.unwrap();
    let authors = (0..8).map(|author| {
        let writer = writer.clone();
        tokio::spawn(async move {
            for number in 0..200 {
                let alert = format!("{author}-{number}");
                writer.push_entries(raised(&alert)).await.unwrap();
                writer.commit_entries(cleared(&alert)).await.unwrap();
            }
        })
    });
    for author in authors.collect::<Vec<_>>() {
        author.await.unwrap();
    }

    assert_eq!(rig.audit().await.tail(), JournalSeq(3200));
    assert_eq!(rig.log.trace().iter().filter(|(_, _, landed)| !landed).count(), 0);
}
