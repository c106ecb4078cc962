//! ISO-2: the engine plane at half its saturated load, with a hundred cycles a second beside it and without, in turns.
//!
//! What cycles take of the processors they take from everybody; that share is measured and is not the engine plane's
//! loss. What goes beyond it would be waiting: for a lock, a log, an actor of the other plane.

use std::path::Path;
use std::time::Duration;

use orchestrator::adapters::clock::WallClock;
use orchestrator::config::{ClockMode, Config, ConfigBase, Layers};
use orchestrator::service::trading::TradingHost;
use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_trading_plane::plane::{TradingHandle, TradingStop};
use orchestrator_trading_plane::testkit::start_agent;

use super::engine_bed::{Bed, Confirmed, Recorder, check_runs, config, wall_us};
use super::feed::{Feed, snapshot, symbol, trade};
use super::support::{Bar, Options, Outcome, Row, ensure, median, per_second, runtime, scratch, until};

const INTERVAL_MS: i64 = 250;
/// The first ticks pay for opening files and growing memory.
const WARM_UP: u64 = 8;
/// One schedule each, all once a second.
const STRATEGIES: u64 = 100;

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let (rounds, ticks): (u64, u64) = (options.size(5, 1), options.size(40, 8));
    let saturated = runtime()?.block_on(saturate(options.size(60, 8)))?;
    let symbols = (saturated / 2.0 * INTERVAL_MS as f64 / 1000.0) as u64;
    let (mut alone, mut beside, mut cycles) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        alone.push(runtime()?.block_on(load(symbols, ticks, false))?);
        let round = runtime()?.block_on(load(symbols, ticks, true))?;
        cycles += round.cycles;
        beside.push(round);
    }
    let middle =
        |rounds: &[Round], of: fn(&Round) -> f64| median(&mut rounds.iter().map(of).collect::<Vec<_>>());
    let (cpu_alone, cpu_beside) = (middle(&alone, |round| round.cpu), middle(&beside, |round| round.cpu));
    let share = (1.0 - cpu_alone / cpu_beside).max(0.0);
    let took = middle(&beside, |round| round.tick_ms);
    let rate = cycles as f64 / (rounds * ticks) as f64 * 1000.0 / INTERVAL_MS as f64;
    Ok(vec![Row {
        what: format!(
            "tick → published, {symbols} symbols (half of {saturated:.0} runs/s), {rate:.0} cycles/s beside them \
             ({took:.1} ms with their own {:.1} % of the processor time), mean",
            share * 100.0
        ),
        value: took * (1.0 - share),
        unit: "ms",
        baseline: "the same without the trading plane, in turns",
        baseline_value: middle(&alone, |round| round.tick_ms),
        bar: Bar::RatioAtMost(1.05),
    }])
}

/// Runs a second when the next tick begins as soon as the last one is done.
async fn saturate(ticks: u64) -> Outcome<f64> {
    const SYMBOLS: u64 = 1000;
    let feed = Feed::new(move |tick| {
        let ts = i64::try_from(tick + 1).unwrap_or_default() * INTERVAL_MS;
        match tick {
            tick if tick < ticks => {
                Some((0..SYMBOLS).map(|index| snapshot(&symbol(index), ts - 1, ts)).collect())
            }
            tick if tick == ticks => Some(vec![trade(&symbol(0), ts, 0)]),
            _ => None,
        }
    });
    let dir = scratch()?;
    let recorder = Recorder::default();
    let config = config(&dir.path().join("data"), cadence(), ClockMode::Recorded);
    let bed = Bed::start(config, Some(&feed), |ports, _| recorder.watch(ports)).await?;
    bed.finished(Duration::from_secs(120)).await?;
    let last = recorder.take().last().ok_or("nothing was published")?.at;
    let (first, _) = feed.span().ok_or("the source was never asked")?;
    bed.stop().await?;
    Ok(per_second(SYMBOLS * ticks, last - first))
}

const fn cadence() -> Cadence {
    Cadence::Boundary { interval_ms: INTERVAL_MS, delay_ms: 0 }
}

/// What one round came to.
struct Round {
    /// Mean time from a tick to its last confirmed output, in milliseconds.
    tick_ms: f64,
    /// Processor time of the process over the measured ticks, in seconds.
    cpu: f64,
    /// Cycles that ended meanwhile.
    cycles: u64,
}

async fn load(symbols: u64, ticks: u64, with_cycles: bool) -> Outcome<Round> {
    let dir = scratch()?;
    let mut config = match with_cycles {
        true => trading_config(dir.path(), symbols)?,
        false => Config::default(),
    };
    apply_engine(&mut config, &dir.path().join("data"));
    let first_tick = (wall_us() / 1000 / 1000 + 4) * 1000;
    let planned = move |tick: u64| first_tick + i64::try_from(tick).unwrap_or_default() * INTERVAL_MS;
    let feed = Feed::new(move |tick| {
        let ts = planned(tick);
        Some((0..symbols).map(|index| snapshot(&symbol(index), ts - 1, ts)).collect())
    })
    .paced(move |tick| TsMs(planned(tick) - INTERVAL_MS / 2));
    let recorder = Recorder::default();
    let mut bed = Bed::start(config, Some(&feed), |ports, _| recorder.watch(ports)).await?;
    let host = bed.trading.take().map(|parts| TradingHost::start(parts.join_tree(&bed.tree)));
    let plane = match &host {
        Some(host) => Some(begin_trading(host).await?),
        None => None,
    };
    let ended = || plane.as_ref().map_or(0, |plane| plane.view.agent().tally.cycles);

    WallClock.sleep_until(TsMs(planned(WARM_UP) - INTERVAL_MS / 2)).await;
    let (cpu, cycles) = (processor_seconds()?, ended());
    WallClock.sleep_until(TsMs(planned(WARM_UP + ticks) - INTERVAL_MS / 2)).await;
    let (cpu, cycles) = (processor_seconds()? - cpu, ended() - cycles);

    until("what is measured is published", Duration::from_secs(10), || bed.tree.flow.waiting_outputs() == 0)
        .await?;
    let measured: Vec<i64> = (WARM_UP..WARM_UP + ticks).map(planned).collect();
    let tick_ms = mean_of_ticks(&recorder.take(), &measured, symbols)?;
    if let Some(host) = host {
        drop(plane);
        let stopped = host.stop(Duration::from_secs(20)).await;
        ensure(stopped == TradingStop::Clean, || format!("{stopped:?}"))?;
        let least = STRATEGIES * ticks / 4 / 2;
        ensure(least <= cycles, || format!("only {cycles} cycles ended, at least {least} were due"))?;
    }
    check_runs(bed.runs.as_ref()).await?;
    bed.stop().await?;
    Ok(Round { tick_ms, cpu, cycles })
}

fn apply_engine(config: &mut Config, dir: &Path) {
    let engine = super::engine_bed::config(dir, cadence(), ClockMode::Wall);
    config.service.data_dir = engine.service.data_dir;
    config.schedule = engine.schedule;
    config.symbols = engine.symbols;
    config.clock.mode = engine.clock.mode;
}

/// A hundred strategies on the market that is fed, one cycle a second each, by the built-in stages.
fn trading_config(dir: &Path, symbols: u64) -> Outcome<Config> {
    let mut text = "[trading]\nenabled = true\ncalendar = \"24-7\"\n".to_owned();
    for number in 0..STRATEGIES {
        text.push_str(&format!(
            "[trading.schedules.s{number}]\npipeline = \"canonical\"\ntrigger = \"interval\"\ninterval = \"1s\"\n\
             overlap = \"skip\"\nmisfire = \"skip\"\nlateness_max = \"5s\"\n\
             [trading.strategies.a{number}]\nkind = \"momentum\"\nsymbols = [\"{}\"]\nschedules = [\"s{number}\"]\n\
             status = \"active\"\n",
            symbol(number % symbols)
        ));
    }
    let path = dir.join("bench.toml");
    std::fs::write(&path, text)?;
    let layers = Layers { base: ConfigBase::File(path), ..Layers::default() };
    Ok(Config::load(&layers)?.config)
}

async fn begin_trading(host: &TradingHost) -> Outcome<TradingHandle> {
    let mut door = host.door();
    let opened = tokio::time::timeout(Duration::from_secs(10), door.wait_for(Option::is_some)).await??;
    let plane = opened.clone().ok_or("the trading plane did not start")?;
    drop(opened);
    start_agent(&plane, "start").await?;
    Ok(plane)
}

/// User and system time of this process, in seconds.
fn processor_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no processor time")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Mean time from the planned tick to its last output; fails unless each tick has one completed run of each symbol.
fn mean_of_ticks(confirmed: &[Confirmed], measured: &[i64], symbols: u64) -> Outcome<f64> {
    let mut ticks: std::collections::BTreeMap<i64, (u64, i64)> = std::collections::BTreeMap::new();
    for Confirmed { wall_us, messages, .. } in confirmed {
        for message in messages.iter().filter(|message| message.event_type == event_type::RUN_COMPLETED) {
            let body: serde_json::Value = serde_json::from_slice(&message.body)?;
            let tick =
                body.get("engine_timestamp_ms").and_then(serde_json::Value::as_i64).unwrap_or_default();
            let (count, last) = ticks.entry(tick).or_default();
            *count += 1;
            *last = (*last).max(*wall_us);
        }
    }
    let mut whole = 0.0;
    for tick in measured {
        let (count, last) = ticks.get(tick).copied().unwrap_or_default();
        ensure(count == symbols, || format!("{count} of {symbols} runs of the tick at {tick} completed"))?;
        whole += (last - tick * 1000) as f64 / 1e3;
    }
    Ok(whole / measured.len() as f64)
}
