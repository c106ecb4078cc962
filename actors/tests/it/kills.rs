//! Actors that are killed at random, by the thousand: the system is ready again, or has ended and says why. It is never
//! up but dead, and whatever was killed, the logs and the outputs are those of a system that nothing happened to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_actors::testkit::{CrashPoint, ManualClock, TestTree, settings, snapshot, trade};
use orchestrator_actors::tree::{Settings, Tree};
use orchestrator_kernel::random::Rng;
use orchestrator_kernel::restart::RestartPolicy;
use orchestrator_runtime::fatal::FatalKind;
use tokio::time::{Instant, sleep};

use crate::common::{boundary, manual, outputs, second_and_tick};

const SYMBOLS: [&str; 2] = ["A", "B"];
const SEEDS: u64 = 100;
const STEPS: i64 = 25;
/// Longest until the system works again or has ended: the longest back-off, the tries of a publication, and room.
const DECIDED_MAX: Duration = Duration::from_secs(30);
/// Longest back-off of a source, and room.
const OPEN_MAX: Duration = Duration::from_secs(2);

/// The actors that are started again. A symbol's runner and a source stand for all of their kind.
const RESTARTED: [&str; 5] = ["kill_switch", "publisher", "symbol_runner", "scheduler", "source"];
/// The actors whose death is the end of the process.
const ENDS_ALL: [&str; 4] = ["run_log", "buffer", "runners", "ingest"];
/// One of so many kills meets one of the latter.
const ENDS_ALL_ONE_IN: u64 = 8;

/// What a campaign did, so that it can be seen that it did something.
#[derive(Debug, Default)]
struct Coverage {
    kills: BTreeMap<&'static str, u64>,
    healed: u64,
    ended: u64,
    halted: u64,
}

fn one_of(names: &[&'static str], rng: &mut Rng) -> &'static str {
    names[usize::try_from(rng.next_below(names.len() as u64)).unwrap()]
}

/// Kills an actor now, wherever it is in its work; whether there was one.
pub(crate) fn kill(tree: &Tree, name: &str, rng: &mut Rng) -> bool {
    let actors = tree.actor_addresses();
    let cell = match name {
        "kill_switch" => actors.kill_switch.current_actor().map(|actor| actor.get_cell()),
        "run_log" => actors.run_log.current_actor().map(|actor| actor.get_cell()),
        "buffer" => actors.buffer.current_actor().map(|actor| actor.get_cell()),
        "publisher" => actors.publisher.current_actor().map(|actor| actor.get_cell()),
        "runners" => actors.runners.current_actor().map(|actor| actor.get_cell()),
        "scheduler" => actors.scheduler.current_actor().map(|actor| actor.get_cell()),
        "ingest" => actors.ingest.current_actor().map(|actor| actor.get_cell()),
        "source" => {
            let sources = actors.ingest.current_actor().map(|actor| actor.get_children()).unwrap_or_default();
            sources.iter().for_each(|source| source.kill());
            return !sources.is_empty();
        }
        "symbol_runner" => {
            let runners = tree.runners().runner_addresses();
            let one = usize::try_from(rng.next_below(runners.len() as u64)).unwrap();
            runners[one].current_actor().map(|actor| actor.get_cell())
        }
        other => panic!("no actor {other}"),
    };
    cell.inspect(|cell| cell.kill()).is_ok()
}

/// Restarts without a bound on how often, so that a campaign is not over after three kills; two of three seeds.
fn tolerant(settings: &mut Settings) {
    let endless = |policy: RestartPolicy| RestartPolicy { restarts_max: u32::MAX, ..policy };
    settings.engine_plane.ingest.source_restart = endless(settings.engine_plane.ingest.source_restart);
    settings.engine_plane.runners.restart = endless(settings.engine_plane.runners.restart);
}

/// How a step came out.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Healed,
    Halted,
    Ended(FatalKind, String),
}

/// Waits until every output of `step` ticks is there and the service is ready, or something was halted and is said, or
/// the tree has ended.
async fn decided(rig: &TestTree, tree: &mut Tree, step: i64) -> Came {
    let wanted = 4 * usize::try_from(step).unwrap();
    let board = tree.board.clone();
    // Time moves when nothing is left to do: whoever was killed is missed by then.
    sleep(Duration::from_millis(1)).await;
    let deadline = Instant::now() + DECIDED_MAX;
    let works = async {
        loop {
            let counts = rig.ledger().counts();
            let halted = counts.exits.iter().any(|((_, verdict), _)| *verdict == "halted");
            if halted && board.current_status().conditions.is_empty() {
                panic!("halted, and nothing is said: {counts:?}");
            }
            if halted {
                return Came::Halted;
            }
            if rig.outputs.len() == wanted && board.current_status().ready {
                return Came::Healed;
            }
            let seen = (board.current_status(), rig.outputs.len(), wanted);
            assert!(Instant::now() < deadline, "up but dead: {seen:?} {counts:?}");
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        biased;
        (kind, why) = tree.wait_for_failure() => Came::Ended(kind, why),
        came = works => came,
    }
}

/// Method: a second of receipts and its tick, with up to three kills at moments that the seed chooses: before, while
/// the disk is busy, after. What ended is started again on what it left, as a process would be.
async fn campaign(seed: u64, coverage: &mut Coverage) {
    let mut rng = Rng::new(seed);
    let mut settings = settings(&SYMBOLS);
    let is_tolerant = !seed.is_multiple_of(3);
    if is_tolerant {
        tolerant(&mut settings);
    }
    let (rig, clock) = manual(settings);
    for (log, number) in [&rig.receipts, &rig.runs, &rig.quarantine].into_iter().zip(0u64..) {
        log.set_yields(seed * 3 + number, 1 + rng.next_below(8));
    }
    let mut tree = rig.start().await;
    second_and_tick(&rig, &clock, 1, &SYMBOLS).await;
    outputs(&rig, 4).await;

    for step in 2..=STEPS {
        let killed = work_under_kills(&rig, &clock, &tree, step, &mut rng).await;
        killed.iter().for_each(|name| *coverage.kills.entry(name).or_default() += 1);
        match decided(&rig, &mut tree, step).await {
            Came::Healed => coverage.healed += 1,
            Came::Ended(kind, why) => {
                coverage.ended += 1;
                assert_eq!(kind, FatalKind::Internal, "{why}");
                assert!(!tree.board.current_status().ready);
                let deadly = killed.iter().any(|name| ENDS_ALL.contains(name));
                assert!(deadly || !is_tolerant, "{why}, after {killed:?}");
                tree = rig.try_start(&CrashPoint::never()).await.unwrap();
                let again = decided(&rig, &mut tree, step).await;
                assert_eq!(again, Came::Healed, "after {why}");
            }
            Came::Halted => {
                coverage.halted += 1;
                assert!(!is_tolerant);
                tree.kill().await;
                tree = rig.try_start(&CrashPoint::never()).await.unwrap();
                assert_eq!(decided(&rig, &mut tree, step).await, Came::Healed);
            }
        }
        sleep(Duration::from_millis(rng.next_below(5_000))).await;
    }
    tree.stop(Duration::from_secs(10)).await;
    rig.check().await;
    assert_eq!(rig.receipts.records().await.len(), 4 * usize::try_from(STEPS).unwrap(), "each receipt once");
}

/// Pushes the receipts of second `step`, lets its tick come, and kills meanwhile; who was killed.
async fn work_under_kills(
    rig: &TestTree,
    clock: &Arc<ManualClock>,
    tree: &Tree,
    step: i64,
    rng: &mut Rng,
) -> Vec<&'static str> {
    let (ts, planned) = boundary(step);
    let items = SYMBOLS.iter().flat_map(|symbol| [trade(symbol, ts - 300), snapshot(symbol, ts - 200, ts)]);
    let mut killed = Vec::new();
    let kill_some = async |killed: &mut Vec<&'static str>, rng: &mut Rng| {
        for _ in 0..rng.next_below(2) {
            for _ in 0..rng.next_below(40) {
                tokio::task::yield_now().await;
            }
            let name = match rng.next_below(ENDS_ALL_ONE_IN) {
                0 => one_of(&ENDS_ALL, rng),
                _ => one_of(&RESTARTED, rng),
            };
            if kill(tree, name, rng) {
                killed.push(name);
            }
        }
    };
    kill_some(&mut killed, rng).await;
    rig.feed().push(items);
    kill_some(&mut killed, rng).await;
    // A tick that passes before its receipts are durable runs without them: wait for them, or for the end of the tree.
    let (wanted, deadline) = (4 * usize::try_from(step).unwrap(), Instant::now() + OPEN_MAX);
    while rig.feed().settled() < wanted && Instant::now() < deadline {
        sleep(Duration::from_millis(5)).await;
    }
    clock.set(planned);
    kill_some(&mut killed, rng).await;
    killed
}

#[test]
fn whatever_actors_are_killed_the_system_is_ready_again_or_ends_and_says_why() {
    let mut coverage = Coverage::default();
    for seed in 0..SEEDS {
        println!("SEED={seed}");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(campaign(seed, &mut coverage));
    }
    println!("{coverage:?}");
    assert!(RESTARTED.iter().chain(&ENDS_ALL).all(|name| 50 < coverage.kills[name]), "{coverage:?}");
    assert!(1000 < coverage.healed && 100 < coverage.ended && 10 < coverage.halted, "{coverage:?}");
}
