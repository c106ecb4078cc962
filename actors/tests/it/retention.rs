//! Retention in the running tree: what is published and stored is what an untrimmed run publishes and stores, whatever
//! is let go, and wherever the process ends.
//!
//! The archives hold what was let go, so that the whole logs can be compared in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrator_actors::testkit::{
    Act, CrashPoint, ManualClock, Publish, TestEngine, TestTree, eventually, message_bodies, runs_of,
    without_publish_time,
};
use orchestrator_actors::tree::StopOutcome;
use orchestrator_engine_plane::retention::{Limits, RetentionSettings};
use orchestrator_engine_plane::scheduler::messages::Universe;
use orchestrator_kernel::engine::audit::{Audit, AuditStep, StateFrom};
use orchestrator_kernel::engine::contracts::orchestrator_event::events;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::replay::RunLogOutline;
use orchestrator_kernel::engine::retention::{BASE, Policy, RetentionBase};
use orchestrator_kernel::ids::{EngineMode, Epoch, RunSeq, Seq};
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, MemoryCheckpoints};
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::random::Rng;
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_runtime::status::Condition;

use crate::common::{START, outputs, second_and_tick, stop_and_check, two_symbols};
use crate::crash::{check_equal, ends, rig, run_until, runtime};

const KEEP: Policy = Policy { age_ms_max: None, records_max: None, bytes_max: None };

/// Limits so small that something is to go all the time; which ones, the seed says.
fn limits(rng: &mut Rng) -> Limits {
    let receipts = match rng.next_below(4) {
        0 => Policy { age_ms_max: Some(500 + rng.next_below(2000)), ..KEEP },
        1 => Policy { bytes_max: Some(500 + rng.next_below(3000)), ..KEEP },
        2 => KEEP,
        _ => Policy { records_max: Some(rng.next_below(20)), ..KEEP },
    };
    let runs = match rng.next_below(3) {
        0 => Policy { age_ms_max: Some(rng.next_below(2000)), ..KEEP },
        1 => KEEP,
        _ => Policy { records_max: Some(rng.next_below(10)), ..KEEP },
    };
    let quarantine = Policy { records_max: Some(rng.next_below(3)), ..KEEP };
    Limits { receipts, runs, quarantine, receipts_below: None }
}

/// The rig of the crash tests with an engine so slow that retention meets every moment of a run.
fn slow_rig(mode: EngineMode, seed: u64) -> TestTree {
    let rig = rig(mode, seed);
    for symbol in ["A", "B", "C"] {
        rig.engine.always(symbol, Act::AnswerAfter(Duration::from_millis(430)));
    }
    rig
}

fn trimmed_rig(mode: EngineMode, seed: u64) -> TestTree {
    let mut rng = Rng::new(seed ^ 0x7e7e);
    let mut rig = slow_rig(mode, seed);
    let check_every = Duration::from_millis(1 + rng.next_below(300));
    rig.settings.engine_plane.retention =
        Some(RetentionSettings { limits: limits(&mut rng), check_every, step: 1 + rng.next_below(30) });
    rig
}

async fn base_of(rig: &TestTree) -> RetentionBase {
    let stored = rig.checkpoints.load(BASE).await.unwrap();
    stored.map_or_else(RetentionBase::default, |bytes| RetentionBase::decode(&bytes).unwrap())
}

/// What is left in the logs, replayed from the base, gives what was published of it.
async fn check_rest_replays(rig: &TestTree) {
    let base = base_of(rig).await;
    let (receipts, runs) = (rig.receipts.records().await, runs_of(&rig.runs).await);
    let rest: Vec<_> = (rig.runs.stat().start.0..)
        .map(RunSeq)
        .zip(&runs)
        .filter(|(at, _)| base.runs_from() <= *at)
        .collect();
    let mut outline = RunLogOutline::default();
    rest.iter().for_each(|(_, record)| outline.note_record(record));
    let (mut audit, mut found) = (Audit::new(outline, StateFrom::Replay, (&base).into()), Vec::new());
    for bytes in &receipts {
        let record = ReceiptRecord::decode(bytes).unwrap();
        if base.receipts_from() <= record.ingest_seq {
            audit.take_receipt(record.ingest_seq.into(), &record, &mut found);
        }
    }
    audit.receipts_ended();
    let published = message_bodies(&rig.outputs.deduplicated());
    for (at, record) in rest {
        let again = match audit.take_run_record(at, record, &mut found) {
            AuditStep::Nothing => continue,
            AuditStep::Settled(again) => *again,
            AuditStep::Call(call) => {
                audit.compare_answer(at, record, Ok(TestEngine::answer(&call)), &mut found)
            }
        };
        for output in events(at, &again, None).unwrap() {
            let body = without_publish_time(&output.body);
            assert!(published[&output.symbol].contains(&body), "{body}");
        }
    }
    assert_eq!(found, []);
}

/// How much of receipts and runs was let go.
fn gone(rig: &TestTree) -> [u64; 3] {
    [&rig.receipts, &rig.runs, &rig.quarantine].map(|log| log.stat().start.0 - 1)
}

/// Loses what a lost checkpoint may lose: all but the base and the publish cursor.
async fn lose_checkpoints(rig: &mut TestTree) {
    keep_only(rig, &[BASE, "published"]).await;
}

async fn keep_only(rig: &mut TestTree, names: &[&str]) {
    let kept = MemoryCheckpoints::default();
    for name in names {
        if let Some(value) = rig.checkpoints.load(name).await.unwrap() {
            kept.save(name, Epoch(1), value).await.unwrap();
        }
    }
    rig.checkpoints = Arc::new(kept);
}

/// Method: an untrimmed run without a crash tells what must come out. Then, per seed, limits and up to three crashes at
/// random steps of any port, the saving of the base, the copying and the trimming among them; some starts find no
/// checkpoint but the base.
fn check_seeds(mode: EngineMode, seeds: std::ops::Range<u64>) {
    let mut all = [0; 3];
    for seed in seeds {
        let reference = slow_rig(mode, seed);
        assert!(runtime().block_on(run_until(&reference, &CrashPoint::never())));
        let expected = runtime().block_on(ends(&reference));

        let mut rng = Rng::new(seed ^ 0xdead);
        let mut trimmed = trimmed_rig(mode, seed);
        println!("SEED={seed} {mode:?} {:?}", trimmed.settings.engine_plane.retention);
        let crashes =
            (0..rng.next_below(4)).map(|_| CrashPoint::after(i64::try_from(rng.next_below(400)).unwrap()));
        for crash in crashes.collect::<Vec<_>>().into_iter().chain([CrashPoint::never()]) {
            if runtime().block_on(run_until(&trimmed, &crash)) {
                break;
            }
            if rng.next_below(2) == 0 {
                runtime().block_on(lose_checkpoints(&mut trimmed));
            }
        }
        let found = runtime().block_on(ends(&trimmed));
        check_equal(&found, &expected, seed);
        runtime().block_on(check_rest_replays(&trimmed));
        all.iter_mut().zip(gone(&trimmed)).for_each(|(all, gone)| *all += gone);
    }
    println!("let go: {all:?}");
    assert!(all.iter().all(|gone| *gone > 100), "of each log a good part went: {all:?}");
}

#[test]
fn a_trimmed_service_publishes_what_an_untrimmed_one_does() {
    check_seeds(EngineMode::Truth, 0..60);
}

#[test]
fn a_trimmed_service_keeps_its_hysteresis_states() {
    check_seeds(EngineMode::Hysteresis, 2000..2060);
}

/// Method: one recording with limits that let almost everything go; a crash at every single step of its ports, then a
/// start without checkpoints but the base.
#[test]
fn a_crash_at_any_step_between_base_and_trims_loses_nothing() {
    const SEED: u64 = 3;
    let rig_of = || {
        let mut rig = slow_rig(EngineMode::Hysteresis, SEED);
        let few = Policy { records_max: Some(2), ..KEEP };
        let limits = Limits { receipts: few, runs: few, quarantine: few, receipts_below: None };
        let check_every = Duration::from_millis(200);
        rig.settings.engine_plane.retention = Some(RetentionSettings { limits, check_every, step: 7 });
        rig
    };
    let (whole, never) = (rig_of(), CrashPoint::never());
    assert!(runtime().block_on(run_until(&whole, &never)));
    let expected = runtime().block_on(ends(&whole));
    assert!(gone(&whole).iter().all(|gone| *gone > 0), "{:?}", gone(&whole));

    for step in 0..never.steps_made() {
        let mut rig = rig_of();
        runtime().block_on(run_until(&rig, &CrashPoint::after(step)));
        runtime().block_on(lose_checkpoints(&mut rig));
        println!("SEED={SEED} step {step} {:?}", gone(&rig));
        assert!(runtime().block_on(run_until(&rig, &CrashPoint::never())));
        check_equal(&runtime().block_on(ends(&rig)), &expected, SEED);
    }
}

/// A tree with two symbols of which nothing but the last receipts is kept.
fn trimming() -> (TestTree, Arc<ManualClock>) {
    let (mut rig, clock) = two_symbols();
    let receipts = Policy { age_ms_max: Some(1500), ..KEEP };
    let limits = Limits { receipts, ..Limits::default() };
    rig.settings.engine_plane.retention =
        Some(RetentionSettings { limits, check_every: Duration::from_secs(60), step: 1 << 20 });
    (rig, clock)
}

async fn seconds(rig: &TestTree, clock: &ManualClock, range: std::ops::Range<i64>) {
    for n in range {
        second_and_tick(rig, clock, n, &["A", "B"]).await;
        outputs(rig, usize::try_from(n).unwrap() * 4).await;
    }
}

#[tokio::test(start_paused = true)]
async fn records_go_every_minute_by_their_age_and_runs_with_their_receipts() {
    let (rig, clock) = trimming();
    let tree = rig.start().await;
    seconds(&rig, &clock, 1..6).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(gone(&rig), [0, 0, 0], "not yet");

    tokio::time::sleep(Duration::from_secs(11)).await;

    // At 5.1 s what came before 3.6 s goes: receipts of the first four seconds, and the runs whose cuts had them.
    assert_eq!(gone(&rig), [16, 16, 0]);
    let base = base_of(&rig).await;
    assert_eq!((base.receipts_from().0, base.runs_from().0), (17, 17));
    assert!(tree.board.current_status().conditions.is_empty());
    stop_and_check(&rig, tree).await;
}

/// The publisher is down for long: no run that is not published goes, and no receipt of such a run.
#[test]
fn what_is_not_published_stays() {
    runtime().block_on(unpublished_runs_stay());
}

/// The tests see what they have to see: each fails when its defect is planted.
#[cfg(feature = "mutants")]
#[test]
fn planted_defects_of_the_retention_are_caught() {
    use orchestrator_kernel::mutants::Mutant;

    let checks: [(Mutant, fn()); 2] = [
        (Mutant::TrimsBeforePublished, what_is_not_published_stays),
        (Mutant::TrimsBeforeBase, a_crash_at_any_step_between_base_and_trims_loses_nothing),
    ];
    for (mutant, check) in checks {
        let _planted = mutant.plant();
        let caught = std::panic::catch_unwind(check);
        assert!(caught.is_err(), "{mutant:?} was not caught");
    }
}

async fn unpublished_runs_stay() {
    let (mut rig, clock) = trimming();
    rig.settings.engine_plane.flow.backlog_max = 1000;
    let tree = rig.start().await;
    seconds(&rig, &clock, 1..3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.outputs.always(Some(Publish::FailAfter(0)));
    for n in 3..9 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        eventually("the runs are made", || rig.runs.stat().tail.0 >= u64::try_from(n * 4).unwrap()).await;
    }

    tokio::time::sleep(Duration::from_secs(70)).await;

    assert_eq!(gone(&rig), [8, 8, 0], "the first two seconds");
    tree.kill().await;
}

/// Without the base a trimmed log cannot be gone on with: made-up cuts would follow.
#[tokio::test(start_paused = true)]
async fn a_lost_base_refuses_the_start_and_says_what_to_do() {
    let (mut rig, clock) = trimming();
    let tree = rig.start().await;
    seconds(&rig, &clock, 1..6).await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    stop_and_check(&rig, tree).await;
    let whole = Arc::clone(&rig.checkpoints);

    keep_only(&mut rig, &["published", "runs", "receipts"]).await;
    let refused = rig.try_start(&CrashPoint::never()).await.err().expect("it must not start");

    assert_eq!(refused.kind, FatalKind::Corrupt);
    assert!(refused.what.contains("base") && refused.what.contains("restore"), "{}", refused.what);

    // One that is too old is as bad.
    keep_only(&mut rig, &["published"]).await;
    rig.checkpoints.save(BASE, Epoch(1), Bytes::from(RetentionBase::default().encode())).await.unwrap();
    assert!(rig.try_start(&CrashPoint::never()).await.is_err());

    rig.checkpoints = whole;
    keep_only(&mut rig, &[BASE]).await;
    let tree = rig.start().await;
    assert_eq!(rig.outputs.len(), 20, "a lost cursor publishes again what is still there, and nothing else");
    seconds(&rig, &clock, 6..7).await;
    assert_eq!(tree.stop(Duration::from_secs(10)).await, StopOutcome::Clean);
}

/// Method: B is taken out for longer than its receipts are kept, and listed again. Ticks are made up from where it ran
/// last, but not those before which everything is gone.
#[tokio::test(start_paused = true)]
async fn a_symbol_that_is_listed_again_goes_on_with_what_is_still_there() {
    let (mut rig, clock) = trimming();
    let both = rig.settings.engine_plane.scheduler.universe.clone();
    let tree = rig.start().await;
    seconds(&rig, &clock, 1..3).await;
    stop_and_check(&rig, tree).await;

    rig.settings.engine_plane.scheduler.universe = Universe::Listed(vec!["A".into()]);
    let tree = rig.start().await;
    for n in 3..9 {
        second_and_tick(&rig, &clock, n, &["A", "B"]).await;
        outputs(&rig, usize::try_from(8 + (n - 2) * 2).unwrap()).await;
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    // At 8.1 s what came before 6.6 s goes, and what came with the tick at 6.1 s: the receipts of seven seconds.
    assert_eq!(gone(&rig)[0], 28);
    stop_and_check(&rig, tree).await;

    rig.settings.engine_plane.scheduler.universe = both;
    let tree = rig.start().await;
    second_and_tick(&rig, &clock, 9, &["A", "B"]).await;
    eventually("the last tick is run by both", || rig.outputs.len() >= 26).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    assert_eq!(tree.board.current_status().conditions, BTreeMap::new());
    let runs = rig.whole_logs().await.1;
    let again: Vec<_> =
        runs.iter().skip_while(|run| run.facts.engine_timestamp_ms.0 < START + 8000).collect();
    let cuts: Vec<_> = again
        .iter()
        .filter(|run| run.is_terminal() && run.facts.symbol.as_str() == "B")
        .map(|run| (run.facts.engine_timestamp_ms.0 - START, run.facts.cut.start.0, run.facts.cut.end.0))
        .collect();
    assert_eq!(cuts, [(7000, 29, 28), (8000, 29, 32), (9000, 33, 36)]);
    stop_and_check(&rig, tree).await;
}

/// Method: the first process saves a base and cannot trim. The second one finds that base; then the first, whose save
/// was not answered, saves the one that it knows. Only a base that the second has saved itself is safe from that.
#[tokio::test(start_paused = true)]
async fn an_overtaken_process_cannot_set_the_base_back_behind_trimmed_logs() {
    let (rig, clock) = trimming();
    let logs = [&rig.receipts, &rig.runs, &rig.quarantine];
    logs.iter().for_each(|log| log.fail_trims(true));
    let tree = rig.start().await;
    seconds(&rig, &clock, 1..6).await;
    tokio::time::sleep(Duration::from_secs(70)).await;
    assert_eq!((gone(&rig), base_of(&rig).await.receipts_from().0), ([0, 0, 0], 17));
    tree.kill().await;
    logs.iter().for_each(|log| log.fail_trims(false));

    let tree = rig.start().await;
    rig.checkpoints.save(BASE, Epoch(1), Bytes::from(RetentionBase::default().encode())).await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;

    assert_eq!(gone(&rig), [16, 16, 0]);
    assert_eq!(base_of(&rig).await.receipts_from().0, 17);
    stop_and_check(&rig, tree).await;
    stop_and_check(&rig, rig.start().await).await;
}

#[tokio::test(start_paused = true)]
async fn failing_trims_stop_nothing_and_are_told_when_they_go_on() {
    let (rig, clock) = trimming();
    rig.receipts.fail_trims(true);
    let tree = rig.start().await;
    seconds(&rig, &clock, 1..6).await;
    tokio::time::sleep(Duration::from_secs(121)).await;
    assert!(
        tree.board.current_status().conditions.is_empty(),
        "two failures may be a server that starts again"
    );

    tokio::time::sleep(Duration::from_secs(60)).await;

    assert!(tree.board.current_status().conditions.contains_key(&Condition::RetentionFailing));
    assert!(tree.board.current_status().ready, "ingestion and runs go on");
    seconds(&rig, &clock, 6..7).await;
    rig.receipts.fail_trims(false);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(tree.board.current_status().conditions.is_empty());
    assert!(rig.receipts.stat().start > Seq(1));
    assert!(rig.ledger().counts().retention_failed >= 3);
    stop_and_check(&rig, tree).await;
}
