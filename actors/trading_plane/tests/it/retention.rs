//! Retention of the journal: what may go goes, what is needed stays, and what is left goes on under its rules.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::engine::retention::Policy;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::history_memory::MemoryHistory;
use orchestrator_kernel::ports::log::{Log, ReadLimit};
use orchestrator_kernel::ports::log_memory::MemoryLog;
use orchestrator_kernel::trading::cycle::CycleStatus;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::retention::{JournalLimits, JournalTrimSearch};
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::status::Condition;
use orchestrator_trading_plane::plane::{TradingPlane, TradingStop};
use orchestrator_trading_plane::retention::{JournalReader, JournalRetentionPorts, JournalRetentionSettings};
use orchestrator_trading_plane::saved::{JournalFold, load_journal_base};
use orchestrator_trading_plane::testkit::{
    OnStage, PlaneRig, WALL, history_ports, start_agent, trading_settings,
};

use crate::common::eventually;
use crate::cycles::{ended, run_cycle};

const DAY_MS: i64 = 86_400_000;

/// A world without a schedule whose journal keeps a day, looked at all the time.
fn rig() -> PlaneRig {
    let mut settings = trading_settings();
    settings.schedules.clear();
    let mut rig = PlaneRig::new(settings);
    let policy = Policy { age_ms_max: Some(DAY_MS.unsigned_abs()), ..Policy::default() };
    let settings = JournalRetentionSettings { policy, check_every: Duration::from_millis(5), step: 4 };
    rig.retention = Some(JournalRetentionPorts { settings, archive: None, readers: vec![] });
    rig
}

fn start_of(rig: &PlaneRig) -> Seq {
    rig.log.stat().start
}

/// Where a journal that is all there starts once everything is old: at the first record of its last work.
async fn start_of_last_work(rig: &PlaneRig) -> Seq {
    let stat = rig.log.stat();
    assert_eq!(stat.start, Seq(1), "nothing is old");
    let limits =
        JournalLimits { older_than: None, below: JournalSeq(u64::MAX), needed_from: stat.tail.into() };
    let mut search = JournalTrimSearch::new(JournalSeq(0), limits);
    for (entry, seq) in rig.audited().await.iter().zip(1..) {
        search.take_entry(JournalSeq(seq), entry);
    }
    Seq::from(search.base_at()).next()
}

/// Two days go by, and everything but the last work goes.
async fn everything_grows_old(rig: &PlaneRig) {
    let start = start_of_last_work(rig).await;
    assert!(Seq(1) < start);
    rig.clock.set(WALL + 2 * DAY_MS);
    eventually("what is old goes", || start_of(rig) == start).await;
}

/// What is left of the journal follows from its base, by every rule.
async fn audit_rest(rig: &PlaneRig) -> JournalFold {
    let base = load_journal_base(rig.checkpoints.as_ref()).await.unwrap();
    let mut fold = base.unwrap_or_default();
    assert!(start_of(rig) <= Seq::from(fold.tail()).next(), "the base knows all that went");
    loop {
        let next = Seq::from(fold.tail()).next();
        let page = rig.log.read(next, ReadLimit::default()).await.unwrap();
        if page.is_empty() {
            return fold;
        }
        for (seq, bytes) in page.iter() {
            fold.take_record(seq, bytes).unwrap();
        }
    }
}

async fn cycle_ends_well(plane: &TradingPlane, key: &str) {
    let cycle = run_cycle(plane, key, "canonical").await;
    assert_eq!(ended(plane, cycle).await.status, CycleStatus::Ok);
}

/// Method: the journal is trimmed to its last record, then the plane starts again, with its checkpoint and without.
#[tokio::test]
async fn a_trimmed_journal_is_continued_from_its_base_and_keeps_its_rules() {
    for keeps_checkpoint in [true, false] {
        let rig = rig();
        let plane = rig.start().await;
        start_agent(plane.handle(), "start").await.unwrap();
        cycle_ends_well(&plane, "one").await;
        everything_grows_old(&rig).await;
        match keeps_checkpoint {
            true => assert_eq!(plane.stop(Duration::from_secs(60)).await, TradingStop::Clean),
            false => {
                plane.kill().await;
                rig.checkpoints.damage_value("journal");
            }
        }

        let plane = rig.start().await;

        let agent = plane.handle().view.agent();
        assert_eq!((agent.state.status.as_str(), agent.tally.cycles), ("running", 1), "known from the base");
        cycle_ends_well(&plane, "two").await;
        plane.kill().await;
        let fold = audit_rest(&rig).await;
        assert_eq!(fold.index.tally().cycles, 2);
    }
}

#[tokio::test]
async fn a_lost_base_of_a_trimmed_journal_is_said_and_nothing_is_made_up() {
    let rig = rig();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    everything_grows_old(&rig).await;
    plane.kill().await;
    rig.checkpoints.damage_value("journal");
    rig.checkpoints.damage_value("journal_base");

    let refused = rig.try_start().await.map(drop).unwrap_err();

    assert_eq!(refused.kind, FatalKind::Corrupt);
    assert!(refused.to_string().contains("nothing is known of what stood before"), "{refused}");
}

/// Method: a cycle hangs while everything grows old.
#[tokio::test]
async fn an_open_cycle_holds_its_records_until_it_has_ended() {
    let rig = rig();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    rig.stages.next("ING", [OnStage::Hold]);
    let cycle = run_cycle(&plane, "held", "canonical").await;
    let first = plane.handle().view.cycle(&cycle).unwrap().first_seq.unwrap();
    eventually("the cycle waits", || rig.stages.count_calls("ING") == 1).await;
    rig.clock.set(WALL + 2 * DAY_MS);
    eventually("what was before it goes", || Seq(1) < start_of(&rig)).await;
    let held = start_of(&rig);
    assert!(held <= Seq::from(first), "{held} holds {first}");

    rig.stages.release();
    ended(&plane, cycle).await;
    cycle_ends_well(&plane, "next").await;
    rig.clock.set(WALL + 4 * DAY_MS);
    eventually("it goes when it has ended", || Seq::from(first) < start_of(&rig)).await;
    audit_rest(&rig).await;
    plane.kill().await;
}

/// Method: a history whose database is away knows nothing, then it is back; a reader besides it stands still.
#[tokio::test]
async fn what_readers_have_not_taken_in_stays() {
    let store = Arc::new(MemoryHistory::default());
    let mut rig = rig();
    let reader = Arc::new(std::sync::atomic::AtomicU64::new(3));
    let needs = Arc::clone(&reader);
    let needed_from = move || Some(JournalSeq(needs.load(std::sync::atomic::Ordering::Relaxed)));
    rig.history = Some(history_ports(store.clone(), false));
    rig.retention.as_mut().unwrap().readers.push(JournalReader::new("outbox", needed_from));
    store.set_away(true);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    cycle_ends_well(&plane, "one").await;
    rig.clock.set(WALL + 2 * DAY_MS);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert_eq!(start_of(&rig), Seq(1), "nobody knows what the history needs");
    }

    store.set_away(false);
    eventually("what the reader has goes", || start_of(&rig) == Seq(3)).await;
    reader.store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
    eventually("and more when it has that", || Seq(3) < start_of(&rig)).await;
    plane.kill().await;
    audit_rest(&rig).await;
}

#[tokio::test]
async fn records_are_archived_before_they_go_and_a_failure_is_said_and_loses_nothing() {
    let mut rig = rig();
    let archive = Arc::new(MemoryLog::default());
    rig.retention.as_mut().unwrap().archive = Some(archive.clone());
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    cycle_ends_well(&plane, "one").await;
    let all = rig.log.records().await;
    rig.log.fail_trims(true);
    rig.clock.set(WALL + 2 * DAY_MS);
    eventually("it is said", || rig.board.holds_condition(&Condition::JournalRetentionFailing)).await;
    assert_eq!(start_of(&rig), Seq(1));

    rig.log.fail_trims(false);
    eventually("it is tried again", || Seq(1) < start_of(&rig)).await;
    eventually("it is over", || !rig.board.holds_condition(&Condition::JournalRetentionFailing)).await;
    let start = start_of(&rig);
    let archived = archive.read(Seq(1), ReadLimit::default()).await.unwrap();
    let archived: Vec<_> = archived.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    assert_eq!(archived, all[..start.0 as usize - 1]);
    plane.kill().await;
}

/// Method: the process that was overtaken goes on trimming; its base and its trims change nothing.
#[tokio::test]
async fn an_overtaken_plane_neither_trims_nor_sets_the_base_back() {
    let rig = rig();
    let old = rig.start().await;
    start_agent(old.handle(), "start").await.unwrap();
    let new = rig.start().await;
    cycle_ends_well(&new, "one").await;
    everything_grows_old(&rig).await;
    let saved = rig.checkpoints.load("journal_base").await.unwrap();

    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    assert_eq!(rig.checkpoints.load("journal_base").await.unwrap(), saved);
    new.kill().await;
    old.kill().await;
    audit_rest(&rig).await;
}
