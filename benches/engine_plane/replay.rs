//! Replay of a log with the demo engine by the driver of `orchestrator verify`: receipts a second to the same run
//! records, every fact audited, against a bare scan that reads and verifies the same bytes and looks at nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orchestrator::adapters::demo::engine::{DemoEngine, DemoHysteresisConfig};
use orchestrator::config::ClockMode;
use orchestrator::offline::replay::{Answers, Driver, Pages, ReplayPlan, ReplayedRun, Sink};
use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::engine::divergence::Divergence;
use orchestrator_kernel::ids::{IngestSeq, RunSeq, Seq};
use orchestrator_kernel::ports::log::Log;

use super::bed::{Bed, config};
use super::feed::{Feed, snapshot, symbol, trade};
use super::medium::{Medium, Rig};
use super::support::{Bar, Options, Outcome, Row, ensure, median, per_second, runtime, scratch};

const SYMBOLS: u64 = 100;
/// Receipts of each symbol between two ticks; one is the snapshot.
const EACH: u64 = 100;
const INTERVAL_MS: i64 = 1000;
/// Receipts that the source hands over together.
const PART: u64 = 1000;
/// Engine calls beside each other.
const CALLS_MAX: usize = 16;

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let ticks = options.size(200, 10);
    let bar = match options.medium {
        Medium::Embedded => Bar::AtLeast(2e6),
        Medium::Servers { .. } => Bar::AtLeast(3e5),
    };
    let dir = scratch()?;
    let runtime = runtime()?;
    let rig = Rig::start(options.medium, false);
    let bed = runtime.block_on(record(&rig, dir.path(), ticks))?;
    let (mut replayed, mut scanned) = (Vec::new(), Vec::new());
    for _ in 0..options.size(7, 2) {
        replayed.push(runtime.block_on(replay(&bed, ticks))?);
        scanned.push(runtime.block_on(scan(&bed.receipts))?);
    }
    runtime.block_on(bed.stop())?;
    Ok(vec![Row {
        what: "replay with the demo engine".to_owned(),
        value: median(&mut replayed),
        unit: "receipts/s",
        baseline: "read and verify the same records",
        baseline_value: median(&mut scanned),
        bar,
    }])
}

/// A recording of `ticks` ticks.
async fn record(rig: &Rig, dir: &Path, ticks: u64) -> Outcome<Bed> {
    let parts_per_tick = SYMBOLS * EACH / PART;
    let feed = Feed::new(move |part| {
        let tick = part / parts_per_tick;
        let ts = i64::try_from(tick + 1).unwrap_or_default() * INTERVAL_MS;
        let first = part % parts_per_tick * PART;
        if tick == ticks {
            return (first == 0).then(|| vec![trade(&symbol(0), ts, 0)]);
        }
        let receipt = |number: u64| {
            let name = symbol(number % SYMBOLS);
            if number < SYMBOLS { snapshot(&name, ts - 1, ts) } else { trade(&name, ts - 1, number) }
        };
        (tick < ticks).then(|| (first..first + PART).map(receipt).collect())
    });
    let cadence = Cadence::Boundary { interval_ms: INTERVAL_MS, delay_ms: 0 };
    let mut config = config(dir, cadence, ClockMode::Recorded);
    rig.apply(&mut config);
    let bed = Bed::start(config, Some(&feed), |_, _| Ok(())).await?;
    bed.finished(Duration::from_secs(300)).await?;
    let completed = bed.counts.completed();
    ensure(completed == SYMBOLS * ticks, || format!("{completed} of {} runs completed", SYMBOLS * ticks))?;
    Ok(bed)
}

/// Receipts a second; fails unless every run comes out as it was recorded.
async fn replay(bed: &Bed, ticks: u64) -> Outcome<f64> {
    let engine = Arc::new(DemoEngine::new(DemoHysteresisConfig::default()));
    let begin = Instant::now();
    let (receipts, runs) = (Arc::clone(&bed.receipts), Arc::clone(&bed.runs));
    let plan = ReplayPlan { calls_max: CALLS_MAX, ..ReplayPlan::default() };
    let driver = Driver::new(receipts, runs, Answers::Engine(engine), plan).await?;
    let mut compare = Compare::default();
    let done = driver.replay_logs(&mut compare).await?;
    let took = begin.elapsed();
    ensure(compare.found.is_empty(), || format!("{:?}", compare.found))?;
    let equal = compare.equal;
    ensure(equal == SYMBOLS * ticks, || format!("{equal} of {} runs were replayed", SYMBOLS * ticks))?;
    Ok(per_second(done.receipts.0, took))
}

/// Counts equal runs.
#[derive(Default)]
struct Compare {
    equal: u64,
    found: Vec<Divergence>,
}

#[async_trait]
impl Sink for Compare {
    async fn take_run(&mut self, run: ReplayedRun) -> bool {
        self.equal += u64::from(run.replayed == run.recorded && run.engine.is_some());
        self.found.extend(run.found);
        true
    }

    fn take_divergences(&mut self, found: Vec<Divergence>) {
        self.found.extend(found);
    }

    fn note_progress(&mut self, _: IngestSeq, _: RunSeq) {}
}

/// Receipts a second that are read and verified.
async fn scan(log: &Arc<dyn Log>) -> Outcome<f64> {
    let mut pages = Pages::read_ahead(Arc::clone(log), Seq(1), None);
    let mut count = 0;
    let begin = Instant::now();
    while let Some(page) = pages.next_page().await? {
        count += page.len() as u64;
    }
    let took = begin.elapsed();
    ensure(count == log.stat().tail.0, || format!("{count} of {} records were read", log.stat().tail))?;
    Ok(per_second(count, took))
}
