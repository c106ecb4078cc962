//! The log on a disk whose power fails: one seed is one history of appends, failures, torn writes and starts.
//!
//! `SEED=n` repeats one seed, `SIM_SEEDS=n` runs that many, as in the simulation of the tree.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::campaign::open_marked;
use super::*;

/// Seeds of the default suite.
const SEEDS: u64 = 500;
/// Starts of one history.
const STARTS: u32 = 8;

/// What happened in all histories together.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Power failures that leave torn writes.
    torn: u64,
    /// Processes that end and leave everything that they wrote.
    killed: u64,
    /// Starts that met a power failure.
    dark_starts: u64,
    /// Batches that were acknowledged.
    acknowledged: u64,
    /// Batches that were not: the power, a write or a sync failed.
    failed: u64,
    /// Starts that found more than was acknowledged.
    found_beyond: u64,
    /// Starts that found less than was offered.
    lost: u64,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Method: random batches, one to three at a time, on a disk whose power fails at a random operation, and whose writes
/// and syncs fail now and then; open and compare; again on the same disk.
#[test]
fn acknowledged_batches_survive_every_crash() {
    let tally = match number("SEED") {
        Some(seed) => survive(seed..seed + 1, None),
        None => survive(0..number("SIM_SEEDS").unwrap_or(SEEDS), None),
    };
    println!("{tally:?}");
    let Tally { torn, killed, dark_starts, acknowledged, failed, found_beyond, lost } = tally;
    let met = [torn, killed, dark_starts, acknowledged, failed, found_beyond, lost];
    assert!(number("SEED").is_some() || met.iter().all(|count| *count > 0), "something never happened");
}

/// The same with further seeds for as long as `ops/test --soak MINUTES` says.
#[test]
fn soak_of_torn_writes() {
    let Some(minutes) = number("ORCHESTRATOR_SOAK_MINUTES") else {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    };
    println!("{:?}", survive(SEEDS..u64::MAX, Some(Duration::from_secs(60 * minutes))));
}

fn survive(seeds: Range<u64>, time: Option<Duration>) -> Tally {
    println!("SEED={} and the following, at most {}", seeds.start, seeds.end - seeds.start);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (since, mut tally, mut done) = (Instant::now(), Tally::default(), 0_u64);
    for seed in seeds.take_while(|_| time.is_none_or(|time| since.elapsed() < time)) {
        let repeat = Repeat(seed);
        runtime.block_on(survive_crashes(seed, &mut tally));
        drop(repeat);
        done += 1;
    }
    println!("{done} seeds, {:.2} ms each", since.elapsed().as_secs_f64() * 1e3 / done.max(1) as f64);
    tally
}

/// Says how to repeat a seed that fails.
struct Repeat(u64);

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("SEED={} cargo test --lib acknowledged_batches_survive_every_crash", self.0);
        }
    }
}

async fn survive_crashes(seed: u64, tally: &mut Tally) {
    let mut rng = Rng::new(seed);
    let fs = FaultFs::default();
    fs.defer_background();
    // Every record that must be there; each start adds what it finds beyond.
    let mut known: Vec<Vec<u8>> = Vec::new();
    for _ in 0..STARTS {
        fs.fail_power_after(rng.next_below(120));
        let mut offered = Vec::new();
        let log = open_marked(&fs);
        match &log {
            Ok(log) => match log.acquire().await {
                Ok(acquired) => {
                    offered = append_until_dark(&fs, log, acquired, &mut known, &mut rng, tally).await;
                }
                Err(_) => tally.dark_starts += 1,
            },
            Err(_) => tally.dark_starts += 1,
        }
        if rng.next_below(3) == 0 {
            tally.killed += 1;
            fs.kill_process();
        } else {
            tally.torn += 1;
            fs.fail_power(&mut rng);
        }
        drop(log);
        check_survivors(&fs, &mut known, &offered, tally).await;
    }
}

/// Appends until the power fails. What is acknowledged goes to `known`; returned is what was offered last, in batches.
async fn append_until_dark(
    fs: &FaultFs,
    log: &EmbeddedLog,
    acquired: Acquired,
    known: &mut Vec<Vec<u8>>,
    rng: &mut Rng,
    tally: &mut Tally,
) -> Vec<RecordBatch> {
    loop {
        match rng.next_below(40) {
            0 => fs.fail_next_sync(),
            1 => fs.fail_next_write(),
            _ => {}
        }
        let batches = [0; 3].map(|_| rng.next_below(12) + 1);
        let count = rng.next_below(3) as usize + 1;
        let mut offered = Vec::new();
        let mut next = known.len() as u64 + 1;
        for records in &batches[..count] {
            let mut batch = RecordBatch::starting_at(Seq(next));
            for _ in 0..*records {
                let length = rng.next_below(120);
                batch.push_with(|bytes| bytes.extend((0..length).map(|_| rng.next_u64() as u8)));
            }
            next += records;
            offered.push(batch);
        }
        let results =
            futures_util::future::join_all(offered.iter().map(|batch| log.append(acquired.epoch, batch)));
        for (batch, result) in offered.iter().zip(results.await) {
            if result.is_err() {
                tally.failed += 1;
                return offered;
            }
            tally.acknowledged += 1;
            if batch.last_seq().0 > known.len() as u64 {
                known.extend(batch.iter().map(|(_, payload)| payload.to_vec()));
            }
        }
        if rng.next_below(4) == 0 {
            fs.run_background();
        }
    }
}

async fn check_survivors(fs: &FaultFs, known: &mut Vec<Vec<u8>>, offered: &[RecordBatch], tally: &mut Tally) {
    let log = open_marked(fs).unwrap_or_else(|error| panic!("after a crash: {error}"));
    let found = read_to_tail(&log, Seq(1), ReadLimit::default()).await;
    assert!(found.len() >= known.len(), "{} acknowledged records are lost", known.len() - found.len());
    assert!(found[..known.len()] == known[..], "acknowledged records changed");
    let boundaries = offered.iter().map(|batch| batch.last_seq().0 as usize);
    assert!(
        found.len() == known.len() || boundaries.clone().any(|end| end == found.len()),
        "{} records end inside a batch",
        found.len()
    );
    for (seq, payload) in offered.iter().flat_map(RecordBatch::iter) {
        let stored = found.get(seq.0 as usize - 1);
        assert!(stored.is_none_or(|stored| stored == payload), "record {seq} is not what was offered");
    }
    let beyond = found.len() > known.len();
    let lost = offered.last().is_some_and(|batch| (found.len() as u64) < batch.last_seq().0);
    tally.found_beyond += u64::from(beyond);
    tally.lost += u64::from(lost);
    *known = found;
    // Without a clean end, so that nothing but the segments tells what was durable.
    fs.kill_process();
}
