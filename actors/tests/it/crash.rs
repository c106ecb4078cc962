//! A process that ends at any step of any port, and the one that comes after it.
//!
//! A producer keeps what was not acknowledged and sends it again. Under a clock that receipts drive, what subscribers
//! have in the end is the same as if nothing had happened.

use std::time::Duration;

use bytes::Bytes;
use orchestrator_actors::testkit::{
    Act, CrashPoint, TestClock, TestTree, eventually, message_bodies, runs_of, settings, snapshot, trade,
};
use orchestrator_actors::tree::StopOutcome;
use orchestrator_engine_plane::scheduler::messages::Universe;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{EngineMode, Symbol};
use orchestrator_kernel::random::Rng;

use crate::common::START;

const SYMBOLS: [&str; 3] = ["A", "B", "C"];
const SECONDS: i64 = 6;

/// Six seconds of three symbols: in and out of order, some seconds without a snapshot, some items that are no receipts.
fn recording() -> Vec<Bytes> {
    let mut rng = Rng::new(42);
    let mut items = Vec::new();
    for second in 1..=SECONDS {
        let ts = START + second * 1000;
        for (symbol, index) in SYMBOLS.iter().zip(0i64..) {
            // C comes in the third second only.
            if *symbol == "C" && second < 3 {
                continue;
            }
            items.push(trade(symbol, ts - 900 + index * 10));
            if rng.next_below(6) > 0 {
                items.push(snapshot(symbol, ts - 500 + index * 10, ts));
            }
            if rng.next_below(4) == 0 {
                items.push(Bytes::from_static(b"no receipt"));
            }
            items.push(trade(symbol, ts - 520));
        }
    }
    items.push(trade("A", START + (SECONDS + 1) * 1000));
    items
}

/// A tree whose limits are so small that every step of the test meets them.
pub(crate) fn rig(mode: EngineMode, seed: u64) -> TestTree {
    let mut rng = Rng::new(seed);
    let mut settings = settings(&[]);
    settings.engine_plane.runners.mode = mode;
    settings.engine_plane.scheduler.universe = match rng.next_below(2) {
        0 => Universe::Discover { limit: 10 },
        _ => Universe::Listed(SYMBOLS.iter().map(|symbol| Symbol::from(*symbol)).collect()),
    };
    settings.log_writer.limits.records = 1 + usize::try_from(rng.next_below(4)).unwrap();
    settings.engine_plane.buffer.checkpoint_every = 1 + rng.next_below(8);
    settings.engine_plane.run_log.checkpoint_every = 1 + rng.next_below(8);
    settings.engine_plane.publisher.batch_max = 1 + usize::try_from(rng.next_below(4)).unwrap();
    let rig = TestTree::new(settings, TestClock::Lockstep);
    rig.engine.fails(|call| call.symbol.as_str() == "B" && call.engine_timestamp_ms.0 % 4000 == 0);
    // Some symbols are so slow that a crash finds them in the middle of a tick that the others have done.
    for symbol in SYMBOLS {
        if rng.next_below(2) == 0 {
            rig.engine.always(symbol, Act::AnswerAfter(Duration::from_millis(rng.next_below(50))));
        }
    }
    let mut items = recording().into_iter().peekable();
    while items.peek().is_some() {
        let count = 1 + usize::try_from(rng.next_below(7)).unwrap();
        rig.feed().push(items.by_ref().take(count).collect::<Vec<_>>());
    }
    rig.feed().end();
    rig
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Runs until the recording is worked off (`true`) or the crash (`false`).
pub(crate) async fn run_until(rig: &TestTree, crash: &CrashPoint) -> bool {
    let work = async {
        let tree = rig.try_start(crash).await.expect("it starts on whatever a crash left");
        let done = tokio::time::timeout(Duration::from_secs(5), tree.sources_ended());
        tokio::select! {
            biased;
            () = crash.crashed() => {
                tree.kill().await;
                return false;
            }
            done = done => assert!(done.is_ok(), "stuck: {:?} {:?} {:?}", tree.board.current_status(), rig.ledger().counts(), tree.flow),
        }
        tokio::select! {
            biased;
            () = crash.crashed() => false,
            stopped = tree.stop(Duration::from_secs(60)) => {
                assert_eq!(stopped, StopOutcome::Clean);
                true
            }
        }
    };
    // A start that meets the crash never returns.
    let hung = async {
        crash.crashed().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        biased;
        finished = work => finished,
        () = hung => false,
    }
}

/// What must be the same in the end, however often the process crashed: receipts, quarantined items, outputs.
pub(crate) async fn ends(rig: &TestTree) -> Vec<String> {
    rig.check().await;
    let (receipts, _) = rig.whole_logs().await;
    let receipts = receipts.iter().map(|bytes| {
        let record = ReceiptRecord::decode(bytes).unwrap();
        let event = String::from_utf8_lossy(record.event);
        format!(
            "receipt {} at {} position {} {event}",
            record.ingest_seq, record.ingest_ts_ms, record.position
        )
    });
    let quarantined = rig.whole_quarantine().await.len();
    let outputs = message_bodies(&rig.outputs.deduplicated());
    let outputs = outputs.into_values().flatten();
    receipts.chain([format!("quarantined {quarantined}")]).chain(outputs).collect()
}

pub(crate) fn check_equal(found: &[String], expected: &[String], seed: u64) {
    let differs = (0..found.len().max(expected.len())).find(|at| found.get(*at) != expected.get(*at));
    if let Some(at) = differs {
        panic!("SEED={seed}\nfound    {:?}\nexpected {:?}", found.get(at), expected.get(at));
    }
}

/// Method: count the steps of a run without a crash; then, per seed, crash at up to three random steps, each time in a
/// new runtime (a process that is gone) or in the same (a tree that was killed, whose tasks go on).
fn check_crashes(mode: EngineMode, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let reference = rig(mode, seed);
        let never = CrashPoint::never();
        assert!(runtime().block_on(run_until(&reference, &never)));
        let expected = runtime().block_on(ends(&reference));
        assert!(expected.len() > 60);

        let mut rng = Rng::new(seed ^ 0x5eed);
        let crashed = rig(mode, seed);
        let crashes: Vec<CrashPoint> = (0..1 + rng.next_below(3))
            .map(|_| {
                let step = i64::try_from(rng.next_below(never.steps_made().unsigned_abs())).unwrap();
                if rng.next_below(3) == 0 { CrashPoint::told_at(step) } else { CrashPoint::after(step) }
            })
            .chain([CrashPoint::never()])
            .collect();
        println!("SEED={seed} {mode:?} {} crashes", crashes.len() - 1);
        if rng.next_below(2) == 0 {
            crashes.iter().any(|crash| runtime().block_on(run_until(&crashed, crash)));
        } else {
            runtime().block_on(async {
                for crash in &crashes {
                    if run_until(&crashed, crash).await {
                        break;
                    }
                }
            });
        }
        let found = runtime().block_on(ends(&crashed));
        check_equal(&found, &expected, seed);
    }
}

#[test]
fn after_any_crashes_the_outputs_are_those_of_an_uninterrupted_run() {
    check_crashes(EngineMode::Truth, 0..200);
}

#[test]
fn after_any_crashes_the_hysteresis_states_are_those_of_an_uninterrupted_run() {
    check_crashes(EngineMode::Hysteresis, 1000..1200);
}

/// Everything that a run leaves behind.
async fn traces(rig: &TestTree) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<(u64, usize, bool)>) {
    let [receipts, runs, quarantine] =
        [rig.receipts.records().await, rig.runs.records().await, rig.quarantine.records().await];
    (receipts, runs, quarantine, rig.runs.trace())
}

fn yielding(seed: u64, most: u64) -> TestTree {
    let rig = rig(EngineMode::Hysteresis, 7);
    for (log, index) in [&rig.receipts, &rig.runs, &rig.quarantine].into_iter().zip(0u64..) {
        log.set_yields(seed.wrapping_mul(3) + index, most);
    }
    rig
}

#[test]
fn the_same_seed_gives_the_same_trace_and_any_schedule_the_same_bytes() {
    let run = |seed, most| {
        let rig = yielding(seed, most);
        assert!(runtime().block_on(run_until(&rig, &CrashPoint::never())));
        runtime().block_on(traces(&rig))
    };
    let expected = run(0, 0);
    for seed in 1..=60 {
        println!("SEED={seed}");
        let most = 1 + seed % 40;
        let (first, second) = (run(seed, most), run(seed, most));
        assert_eq!(first, second, "SEED={seed}: the same seed, another trace");
        assert_eq!((&first.0, &first.1, &first.2), (&expected.0, &expected.1, &expected.2), "SEED={seed}");
    }
}

/// REP-2: one worker or four.
#[test]
fn many_workers_write_the_same_bytes() {
    let expected = {
        let rig = yielding(0, 0);
        assert!(runtime().block_on(run_until(&rig, &CrashPoint::never())));
        runtime().block_on(traces(&rig))
    };
    for _ in 0..5 {
        let rig = yielding(1, 3);
        let many =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        assert!(many.block_on(run_until(&rig, &CrashPoint::never())));
        let found = many.block_on(traces(&rig));
        assert_eq!((found.0, found.1, found.2), (expected.0.clone(), expected.1.clone(), expected.2.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_tree_under_the_wall_clock_is_continued_without_a_hole() {
    use crate::common::{outputs, second_and_tick, stop_and_check, two_symbols};

    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Hang]);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    outputs(&rig, 2).await;
    eventually("A is in its call", || rig.engine.calls_of("A") == 1).await;

    tree.kill().await;
    let tree = rig.start().await;
    outputs(&rig, 4).await;
    second_and_tick(&rig, &clock, 2, &["A", "B"]).await;
    outputs(&rig, 8).await;

    let runs = runs_of(&rig.runs).await;
    let of_a = runs.iter().filter(|run| run.facts.symbol.as_str() == "A" && run.is_terminal()).count();
    assert_eq!(of_a, 2);
    stop_and_check(&rig, tree).await;
}
