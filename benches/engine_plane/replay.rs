//! Replay of a log with the demo engine: receipts a second from the embedded logs to the same run records, against a
//! bare scan that reads and verifies the same bytes and looks at nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use orchestrator::adapters::demo::engine::{DemoEngine, HysteresisConfig};
use orchestrator::config::ClockMode;
use orchestrator_kernel::cadence::Cadence;
use orchestrator_kernel::contracts::engine_run::RunRecord;
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{IngestSeq, Seq};
use orchestrator_kernel::ports::engine::Engine as _;
use orchestrator_kernel::ports::log::{Log, ReadLimit, RecordBatch};
use orchestrator_kernel::replay::{Replay, Step};

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
        scanned.push(runtime.block_on(scan(bed.receipts.as_ref()))?);
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
    let engine = DemoEngine::new(HysteresisConfig::default());
    let mut kernel = Replay::default();
    let mut receipts = Reader::new(bed.receipts.as_ref());
    let mut runs = Reader::new(bed.runs.as_ref());
    let mut equal = 0;
    let begin = Instant::now();
    while let Some(batch) = runs.next().await? {
        for (_, payload) in batch.iter() {
            let recorded = RunRecord::decode(payload)?;
            if recorded.is_terminal() {
                receipts.show(&mut kernel, recorded.facts.cut.end).await?;
            }
            let again = match kernel.run(&recorded)? {
                Step::Nothing => continue,
                Step::Settled(again) => *again,
                Step::Call(call) => kernel.finish(&recorded, engine.call(&call).await)?,
            };
            ensure(again == recorded, || format!("run {} differs", recorded.facts.run_id))?;
            equal += 1;
        }
    }
    let took = begin.elapsed();
    ensure(equal == SYMBOLS * ticks, || format!("{equal} of {} runs were replayed", SYMBOLS * ticks))?;
    Ok(per_second(kernel.seen().0, took))
}

/// Receipts a second that are read and verified.
async fn scan(log: &dyn Log) -> Outcome<f64> {
    let mut reader = Reader::new(log);
    let mut count = 0;
    let begin = Instant::now();
    while let Some(batch) = reader.next().await? {
        count += batch.len() as u64;
    }
    let took = begin.elapsed();
    ensure(count == log.stat().tail.0, || format!("{count} of {} records were read", log.stat().tail))?;
    Ok(per_second(count, took))
}

/// Reads a log from its start.
struct Reader<'a> {
    log: &'a dyn Log,
    next: Seq,
    batch: RecordBatch,
    /// How many of `batch` were shown.
    shown: usize,
}

impl<'a> Reader<'a> {
    fn new(log: &'a dyn Log) -> Self {
        Self { log, next: Seq(1), batch: RecordBatch::default(), shown: 0 }
    }

    async fn next(&mut self) -> Outcome<Option<RecordBatch>> {
        let batch = self.log.read(self.next, ReadLimit::default()).await?;
        self.next = batch.last().next();
        Ok(Some(batch).filter(|batch| !batch.is_empty()))
    }

    /// Shows receipts up to `end`.
    async fn show(&mut self, kernel: &mut Replay, end: IngestSeq) -> Outcome<()> {
        while kernel.seen() < end {
            if self.batch.len() <= self.shown {
                self.batch = self.next().await?.ok_or("the receipt log ends before a cut")?;
                self.shown = 0;
            }
            let payload = self.batch.get(self.shown).unwrap_or_default();
            kernel.receipt(&ReceiptRecord::decode(payload)?);
            self.shown += 1;
        }
        Ok(())
    }
}
