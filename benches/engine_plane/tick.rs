//! From a tick to the confirmation of its outputs, for all symbols at one instant. The engine answers a constant at
//! once: that is how engine time is excluded, nothing is subtracted.
//!
//! ```text
//! tick i − ½ interval   snapshots of all symbols arrive     tick i + ¼   the baseline writes the same bytes bare
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orchestrator::adapters::clock::WallClock;
use orchestrator::config::ClockMode;
use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::clock::Clock;

use super::bed::{Bed, Confirmed, ConstantEngine, Recorder, check_runs, config, wall_us};
use super::feed::{Feed, snapshot, symbol};
use super::medium::{Medium, Rig};
use super::support::{
    Bar, BareFile, Options, Outcome, Row, ensure, noise, percentile, runtime, scratch, until,
};

const INTERVAL_MS: i64 = 250;
/// The first ticks pay for opening files and growing memory.
const WARM_UP: u64 = 8;

/// Bytes of one run's two records and of its two outputs, so that the baseline writes as much.
struct Shape {
    log_bytes_per_run: usize,
    output_bytes_per_run: usize,
}

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let ticks = WARM_UP + options.size(80, 12);
    let mut rows = Vec::new();
    let bars = match options.medium {
        Medium::Embedded => [Bar::None, Bar::Below(1.0), Bar::Below(5.0)],
        Medium::Servers { .. } => [Bar::None, Bar::Below(10.0), Bar::RatioAtMost(1.5)],
    };
    for (symbols, bar) in [1, 100, 1000].into_iter().zip(bars) {
        rows.extend(runtime()?.block_on(burst(options.medium, symbols, ticks, bar))?);
    }
    Ok(rows)
}

/// Milliseconds of each output of each measured tick.
#[derive(Default)]
struct Latencies {
    since_planned: Vec<f64>,
    since_woken: Vec<f64>,
    bare: Vec<f64>,
}

async fn burst(medium: Medium, symbols: u64, ticks: u64, bar: Bar) -> Outcome<Vec<Row>> {
    let dir = scratch()?;
    // Before the first tick is planned: a broker takes seconds to start.
    let rig = Rig::start(medium, true);
    let publisher = rig.bare_publisher().await?;
    rig.subscribe().await?;
    // Far enough for the start: the first tick is at least one second away.
    let first_tick = (wall_us() / 1000 / INTERVAL_MS + 1000 / INTERVAL_MS + 1) * INTERVAL_MS;
    let planned = move |tick: u64| first_tick + i64::try_from(tick).unwrap_or_default() * INTERVAL_MS;
    let feed = Feed::new(move |tick| {
        let ts = planned(tick);
        // Without end: the schedule goes on while the results are checked.
        Some((0..symbols).map(|index| snapshot(&symbol(index), ts - 1, ts)).collect())
    })
    .paced(move |tick| TsMs(planned(tick) - INTERVAL_MS / 2));
    let (recorder, woken) = (Recorder::default(), Woken::default());
    let cadence = Cadence::Boundary { interval_ms: INTERVAL_MS, delay_ms: 0 };
    let mut config = config(&dir.path().join("data"), cadence, ClockMode::Wall);
    rig.apply(&mut config);
    let bed = Bed::start(config, Some(&feed), |ports, _| {
        ports.engine = Arc::new(ConstantEngine);
        ports.clock = Arc::new(woken.clone());
        recorder.watch(ports)
    })
    .await?;
    let mut latencies = Latencies::default();
    let mut shape = None;
    let mut bare = Bare::create(dir.path())?;
    let mut confirmed = Vec::new();
    for tick in 0..ticks {
        WallClock.sleep_until(TsMs(planned(tick) + INTERVAL_MS / 4)).await;
        confirmed.extend(recorder.take());
        if tick == WARM_UP {
            shape = Some(shape_of(&bed, &confirmed));
        }
        if let (Some(publisher), Some(last)) = (&publisher, confirmed.last().filter(|_| tick > WARM_UP)) {
            // As many messages as a tick has, of which the last batch may be only a part.
            let messages: Vec<_> =
                last.messages.iter().cycle().take(2 * usize::try_from(symbols)?).cloned().collect();
            latencies.bare.push(publisher.publish(&messages).await?);
        } else if let Some(shape) = &shape {
            latencies.bare.push(tokio::task::block_in_place(|| bare.burst(symbols, shape))?);
        }
    }
    until("the last tick is published", Duration::from_secs(10), || bed.tree.flow.waiting_outputs() == 0)
        .await?;
    confirmed.extend(recorder.take());
    let measured = planned(WARM_UP)..=planned(ticks - 1);
    evaluate(&confirmed, &woken, measured, symbols, &mut latencies)?;
    // Runners may not be up at the first tick, which is then skipped; afterwards every symbol has its run.
    let completed = check_runs(bed.runs.as_ref()).await?;
    ensure(completed >= symbols * (ticks - WARM_UP), || format!("only {completed} runs completed"))?;
    bed.stop().await?;
    Ok(rows(medium, symbols, bar, latencies))
}

/// How large a run is in the log and on its way out.
fn shape_of(bed: &Bed, confirmed: &[Confirmed]) -> Shape {
    let runs = usize::try_from(bed.counts.completed()).unwrap_or(usize::MAX).max(1);
    let messages = confirmed.iter().flat_map(|confirmed| &confirmed.messages);
    let output_bytes: usize = messages.map(|message| message.body.len() + 1).sum();
    let log_bytes = usize::try_from(bed.runs.stat().bytes).unwrap_or_default();
    Shape { log_bytes_per_run: log_bytes / runs, output_bytes_per_run: output_bytes / runs }
}

/// Takes the samples of the measured ticks; fails unless each has one completed run of each symbol.
fn evaluate(
    confirmed: &[Confirmed],
    woken: &Woken,
    measured: std::ops::RangeInclusive<i64>,
    symbols: u64,
    into: &mut Latencies,
) -> Outcome<()> {
    let woken = woken.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut seen: BTreeMap<i64, u64> = BTreeMap::new();
    let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
    for Confirmed { at, wall_us, messages } in confirmed {
        for message in messages {
            let number = numbers.entry(message.symbol.as_str()).or_default();
            *number += 1;
            ensure(message.symbol_seq == *number, || {
                format!("{} has output {} where {number} belongs", message.symbol, message.symbol_seq)
            })?;
            let body: serde_json::Value = serde_json::from_slice(&message.body)?;
            let tick =
                body.get("engine_timestamp_ms").and_then(serde_json::Value::as_i64).unwrap_or_default();
            if message.event_type != event_type::RUN_COMPLETED || !measured.contains(&tick) {
                continue;
            }
            *seen.entry(tick).or_default() += 1;
            let since = woken.get(&tick).ok_or("a tick without a wake-up")?;
            into.since_woken.push(at.duration_since(*since).as_secs_f64() * 1e3);
            into.since_planned.push((wall_us - tick * 1000) as f64 / 1e3);
        }
    }
    let expected = (measured.end() - measured.start()) / INTERVAL_MS + 1;
    ensure(seen.len() as i64 == expected && seen.values().all(|count| *count == symbols), || {
        format!("of {expected} ticks with {symbols} runs there are {seen:?}")
    })
}

fn rows(medium: Medium, symbols: u64, bar: Bar, mut latencies: Latencies) -> Vec<Row> {
    let baseline = match medium {
        Medium::Embedded => "2 × write + fdatasync, 1 write",
        Medium::Servers { .. } => "the same messages published bare, with confirms",
    };
    let row = |what: &str, samples: &mut [f64], bare: &mut [f64], percent: f64, bar: Bar| Row {
        what: format!("tick → published, {symbols} symbols, {what} p{percent}"),
        value: percentile(samples, percent),
        unit: "ms",
        baseline,
        baseline_value: percentile(bare, percent),
        bar,
    };
    let Latencies { since_planned, since_woken, bare } = &mut latencies;
    // The runtime's timer counts in milliseconds: since planned shows mostly that.
    vec![
        row("since woken,", since_woken, bare, 50.0, Bar::None),
        row("since woken,", since_woken, bare, 95.0, bar),
        row("since woken,", since_woken, bare, 99.0, Bar::None),
        row("since planned,", since_planned, bare, 95.0, Bar::None),
    ]
}

/// The wall clock, with a note of when it ended the wait for each deadline.
#[derive(Clone, Default)]
struct Woken(Arc<Mutex<BTreeMap<i64, Instant>>>);

#[async_trait]
impl Clock for Woken {
    fn now(&self) -> Option<TsMs> {
        WallClock.now()
    }

    async fn wait_started(&self) -> TsMs {
        WallClock.wait_started().await
    }

    async fn sleep_until(&self, deadline: TsMs) {
        WallClock.sleep_until(deadline).await;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(deadline.0, Instant::now());
    }

    fn armed_deadline(&self) -> Option<TsMs> {
        None
    }

    fn is_driven(&self) -> bool {
        false
    }

    async fn advance(&self, _: TsMs) {}
}

/// What nobody can do without: both records of each run durable, one commit after the other, then the outputs written.
struct Bare {
    log: BareFile,
    outputs: BareFile,
}

impl Bare {
    fn create(dir: &Path) -> Outcome<Self> {
        let log = BareFile::create(&dir.join("bare-log"), 512 << 20)?;
        Ok(Self { log, outputs: BareFile::create(&dir.join("bare-outputs"), 512 << 20)? })
    }

    /// Milliseconds for one tick.
    fn burst(&mut self, symbols: u64, shape: &Shape) -> Outcome<f64> {
        let symbols = usize::try_from(symbols)?;
        let records = noise(symbols * shape.log_bytes_per_run);
        let outputs = noise(symbols * shape.output_bytes_per_run);
        let (started, ended) = records.split_at(records.len() / 2);
        let begin = Instant::now();
        self.log.commit(started)?;
        self.log.commit(ended)?;
        self.outputs.write(&outputs)?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}
