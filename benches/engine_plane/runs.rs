//! Durable runs a second at saturation: 1000 symbols, a recorded clock that makes the next tick as soon as everything
//! of the last one is done, the demo engine, receipts durable as well.

use std::time::{Duration, Instant};

use orchestrator::config::ClockMode;
use orchestrator_kernel::engine::cadence::Cadence;

use super::bed::{Bed, Recorder, check_runs, config};
use super::feed::{Feed, snapshot, symbol, trade};
use super::medium::{Medium, Rig};
use super::support::{
    Bar, BareFile, Options, Outcome, Row, ensure, median, noise, per_second, runtime, scratch,
};

const SYMBOLS: u64 = 1000;
const INTERVAL_MS: i64 = 1000;

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let ticks = options.size(100, 10);
    let (rounds, bar) = match options.medium {
        Medium::Embedded => (options.size(5, 2), Bar::AtLeast(20_000.0)),
        Medium::Servers { .. } => (options.size(3, 1), Bar::AtLeast(5_000.0)),
    };
    let (mut runs, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let rig = Rig::start(options.medium, true);
        let dir = scratch()?;
        let (took, log_bytes) = runtime()?.block_on(saturate(&rig, &dir.path().join("data"), ticks))?;
        runs.push(per_second(SYMBOLS * ticks, took));
        let records = noise(usize::try_from(log_bytes / ticks / 2)?);
        let mut file = BareFile::create(&dir.path().join("bare"), records.len() as u64 * ticks * 2)?;
        let begin = Instant::now();
        for _ in 0..ticks * 2 {
            file.commit(&records)?;
        }
        bare.push(per_second(SYMBOLS * ticks, begin.elapsed()));
    }
    Ok(vec![Row {
        what: format!("durable runs at saturation, {SYMBOLS} symbols, receipts and outputs included"),
        value: median(&mut runs),
        unit: "runs/s",
        baseline: "2 × write + fdatasync of the run records a tick",
        baseline_value: median(&mut bare),
        bar,
    }])
}

/// Returns the time from the first receipt to the last confirmed output, and the run log's bytes.
async fn saturate(rig: &Rig, dir: &std::path::Path, ticks: u64) -> Outcome<(Duration, u64)> {
    let feed = Feed::new(move |tick| {
        let ts = i64::try_from(tick + 1).unwrap_or_default() * INTERVAL_MS;
        match tick {
            tick if tick < ticks => {
                Some((0..SYMBOLS).map(|index| snapshot(&symbol(index), ts - 1, ts)).collect())
            }
            // Brings the clock past the last tick.
            tick if tick == ticks => Some(vec![trade(&symbol(0), ts, 0)]),
            _ => None,
        }
    });
    let recorder = Recorder::default();
    let cadence = Cadence::Boundary { interval_ms: INTERVAL_MS, delay_ms: 0 };
    rig.subscribe().await?;
    let mut config = config(dir, cadence, ClockMode::Recorded);
    rig.apply(&mut config);
    let bed = Bed::start(config, Some(&feed), |ports, _| recorder.watch(ports)).await?;
    bed.finished(Duration::from_secs(120)).await?;
    let confirmed = recorder.take();
    let outputs: usize = confirmed.iter().map(|confirmed| confirmed.messages.len()).sum();
    let last = confirmed.last().ok_or("nothing was published")?.at;
    let (first, _) = feed.span().ok_or("the source was never asked")?;
    let completed = check_runs(bed.runs.as_ref()).await?;
    ensure(completed == SYMBOLS * ticks && outputs as u64 == completed * 2, || {
        format!("{completed} of {} runs completed, {outputs} outputs", SYMBOLS * ticks)
    })?;
    let bytes = bed.runs.stat().bytes;
    bed.stop().await?;
    Ok((last - first, bytes))
}
