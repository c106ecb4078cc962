//! `orchestrator backtest`: a capture through the live tree as fast as it goes, and what came out of it.

mod place;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::log::{Log, ReadError, read_one};
use tempfile::TempDir;
use tokio::time::Instant;

use super::from::{FromArgs, is_url};
use super::run::runtime;
use super::signals::StopSignals;
use super::{ConfigArgs, complain, print};
use crate::config::{Config, LogLevel};
use crate::offline::backtest::{End, Input, Plan, Played, Report, play};
use crate::process::exit::Exit;
use crate::process::explain::explain;
use crate::service::wiring::backtest::{Capture, Progress, Stamps, line_bytes_max, replaced, staged};
use crate::service::wiring::reading::{self, Recorded};
use crate::telemetry::logs;
use place::{Place, removed};

/// Names of the file of receipts in an exported directory.
const EXPORTED: [&str; 3] =
    ["raw_market_events.jsonl", "raw_market_events.jsonl.gz", "raw_market_events.jsonl.zst"];

/// Time that drives the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Time {
    /// The receipts' own recv_ts_ms: equal to `run --once` with clock.mode = "recorded".
    #[default]
    Receive,
    /// The ingest_ts_ms in the logs of a service: the cuts are those of that service.
    Ingest,
}

/// File format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One page that needs nothing else.
    Html,
    /// For programs.
    Json,
}

/// Options of `backtest`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct BacktestArgs {
    /// What to run: a file of raw market events (.jsonl, .gz, .zst), a directory made by `export`, the data directory of a
    /// stopped service, or `redis://[user:password@]host[:port][/database]`.
    #[arg(long, value_name = "FILE|DIR|URL")]
    pub capture: String,
    /// With a URL: the namespace of the keys.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// With a URL: the data directory whose archive holds what moved out of the server. Its service must be stopped.
    #[arg(long, value_name = "DIR")]
    pub archive: Option<PathBuf>,
    /// Whose time drives the clock.
    #[arg(long, value_enum, default_value_t)]
    pub time: Time,
    /// Where the outputs and the report go. Those of an earlier backtest are replaced.
    #[arg(long, value_name = "DIR", default_value = "backtest")]
    pub out: PathBuf,
    /// What the report is written as.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Format::Html, Format::Json])]
    pub report: Vec<Format>,
    /// Keep the logs, in data below the directory of the outputs; it must not exist yet.
    #[arg(long)]
    pub keep_logs: bool,
    /// Where the configuration comes from: engine, schedule and symbols.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Exit of a backtest that did not happen. The reason was said on standard error.
struct Refused(Exit);

impl Refused {
    fn because(exit: Exit, what: &dyn std::fmt::Display) -> Self {
        complain(what);
        Self(exit)
    }
}

/// Runs the backtest.
#[must_use]
pub fn backtest(args: &BacktestArgs, environment: Vec<(OsString, OsString)>) -> Exit {
    match prepared(args, environment) {
        Ok(config) => match runtime(&config) {
            Ok(runtime) => {
                let mut logs = None;
                let exit =
                    runtime.block_on(run(args, &config, &mut logs)).unwrap_or_else(|refused| refused.0);
                // Whoever still writes into the logs goes with the runtime; only then can they be removed.
                drop(runtime);
                removed(logs).unwrap_or(exit)
            }
            Err(error) => {
                complain(&format!("cannot start the runtime: {error}"));
                Exit::Internal
            }
        },
        Err(refused) => refused.0,
    }
}

fn prepared(args: &BacktestArgs, environment: Vec<(OsString, OsString)>) -> Result<Config, Refused> {
    let rust_log = environment.iter().find(|(name, _)| name == "RUST_LOG").map(|(_, value)| value.clone());
    let loaded = Config::load(&args.config.layers(environment))
        .map_err(|error| Refused::because(Exit::Config, &error))?;
    let mut config = loaded.config;
    // What a service tells its operator every day would only tear the progress.
    config.log.level = LogLevel::Error;
    logs::start(&config.log, rust_log.as_deref().and_then(|value| value.to_str()))
        .map_err(|error| Refused::because(Exit::Config, &error))?;
    Ok(config)
}

async fn run(args: &BacktestArgs, config: &Config, logs: &mut Option<TempDir>) -> Result<Exit, Refused> {
    // From here on a signal counts and does not end the process in the middle of something.
    let signals = StopSignals::listen().map_err(|error| Refused::because(Exit::Internal, &error))?;
    let stop = std::pin::pin!(signals.asked_to_stop());
    let Opened { capture, name, until } = opened(args, config).await?;
    let place = Place::make(args, logs)?;
    let staged = staged(config, place.data.clone(), place.partial.clone());
    let plan = Plan { config: &staged, capture: &capture, line_bytes_max: line_bytes_max(config), until };
    let mut screen = Screen::new();
    let played = play(&plan, stop, |progress, receipts| screen.show(progress, receipts)).await;
    screen.done();
    let played = played.map_err(|error| Refused::because(error.exit(), &explain(&error)))?;
    let input = Input {
        config: &staged,
        replaced: replaced(config),
        capture: name,
        time: match args.time {
            Time::Receive => "receive",
            Time::Ingest => "ingest",
        },
    };
    let report =
        Report::new(input, &played).await.map_err(|error| Refused::because(Exit::Data, &explain(&error)))?;
    let files = place.write(&report, &args.report).map_err(|error| {
        Refused::because(Exit::Io, &format!("cannot write to {}: {error}", args.out.display()))
    })?;
    let printed = print(&summary(&report, &files));
    Ok(match verdict(&played, &report) {
        Exit::Ok => printed,
        exit => exit,
    })
}

/// How the process ends, and why when it is not well.
fn verdict(played: &Played, report: &Report) -> Exit {
    match &played.end {
        End::Unreadable(detail) => {
            complain(&format!("the capture was not read to its end: {detail}"));
            return Exit::Unavailable;
        }
        End::Interrupted => {
            complain(&"interrupted; what was done until then is in the report");
            return Exit::Different;
        }
        End::Complete => {}
    }
    let receipts = &report.capture.receipts;
    if receipts.receipts == 0 {
        let first = receipts.first_quarantined.as_ref();
        let first = first.map(|first| format!("; line {}: {}", first.position, first.detail));
        complain(&format!("the capture holds no receipt{}", first.unwrap_or_default()));
        return Exit::Data;
    }
    for condition in &report.conditions {
        complain(&format!("{}: {}", condition.condition, condition.detail));
    }
    if report.runs.open > 0 || !report.conditions.is_empty() { Exit::Different } else { Exit::Ok }
}

/// An opened capture.
struct Opened {
    capture: Capture,
    /// What it is called, without secrets.
    name: String,
    /// How far the clock goes on after the last receipt.
    until: Option<TsMs>,
}

async fn opened(args: &BacktestArgs, config: &Config) -> Result<Opened, Refused> {
    let dir = PathBuf::from(&args.capture);
    if is_url(&args.capture) || dir.join("receipts").is_dir() {
        return recorded(args, config).await;
    }
    if args.time == Time::Ingest {
        return Err(Refused::because(
            Exit::Usage,
            &"--time ingest needs the logs of a service; a file of events does not say when they were ingested",
        ));
    }
    let file = if dir.is_dir() {
        EXPORTED.iter().map(|name| dir.join(name)).find(|path| path.is_file())
    } else {
        Some(dir)
    };
    let Some(file) = file else {
        return Err(Refused::because(
            Exit::Unavailable,
            &format!(
                "{} holds neither logs nor {}; name a file with --capture FILE",
                args.capture,
                EXPORTED.join(", ")
            ),
        ));
    };
    Ok(Opened { name: file.display().to_string(), capture: Capture::File(file), until: None })
}

async fn recorded(args: &BacktestArgs, config: &Config) -> Result<Opened, Refused> {
    let from = FromArgs {
        from: Some(args.capture.clone()),
        namespace: args.namespace.clone(),
        archive: args.archive.clone(),
        config: ConfigArgs::default(),
    };
    let place = from.place(config).map_err(Refused)?;
    let failed =
        |error: crate::service::wiring::WiringError| Refused::because(error.exit(), &explain(&error));
    let recorded = reading::open(&place).await.map_err(failed)?;
    let (stamps, start, until) = match args.time {
        Time::Receive => (Stamps::Receive, None, None),
        Time::Ingest => {
            let (start, until) =
                schedule_of(&recorded, config).await.map_err(|error| failed(error.into()))?;
            (Stamps::Ingest, start, until)
        }
    };
    Ok(Opened {
        capture: Capture::Logs { recorded: Box::new(recorded), stamps, start },
        name: place.name(),
        until,
    })
}

/// Where the schedule of recorded runs begins and ends: a live service's clock runs before its first receipt and after its
/// last one. The start is the moment whose first tick is that of the first run.
async fn schedule_of(
    recorded: &Recorded,
    config: &Config,
) -> Result<(Option<TsMs>, Option<TsMs>), ReadError> {
    let stat = recorded.runs.stat();
    let first = planned(recorded.runs.as_ref(), stat.start).await?;
    let last = planned(recorded.runs.as_ref(), stat.tail).await?;
    let interval = config.schedule.cadence.interval_ms();
    Ok((first.map(|first| first.plus(-interval)), last))
}

async fn planned(runs: &dyn Log, at: Seq) -> Result<Option<TsMs>, ReadError> {
    if at.0 == 0 {
        return Ok(None);
    }
    let Some(stored) = read_one(runs, at).await? else { return Ok(None) };
    let record =
        RunRecord::decode(&stored).map_err(|error| ReadError::Corrupt { at, detail: error.to_string() })?;
    Ok(Some(record.facts.planned_ts_ms))
}

/// What is printed at the end.
fn summary(report: &Report, files: &[PathBuf]) -> String {
    let (receipts, runs, performance) = (&report.capture.receipts, &report.runs, &report.performance);
    #[expect(clippy::cast_precision_loss, reason = "a span for people to look at")]
    let minutes = receipts.span_ms() as f64 / 60e3;
    let mut text = format!(
        "{} receipts over {minutes:.1} min, {} undecodable ones kept aside\n{} runs completed, {} failed, {} outputs\n",
        receipts.receipts, receipts.quarantined, runs.completed, runs.failed, runs.outputs,
    );
    for (kind, failures) in &runs.failures {
        text.push_str(&format!("  {:>5}  {kind}, first {}\n", failures.runs, failures.first_run_id));
    }
    if let Some(first) = &receipts.first_quarantined {
        text.push_str(&format!("first line that is no receipt: {}: {}\n", first.position, first.detail));
    }
    for sentence in report.capture.odd_times.sentences() {
        text.push_str(&format!("{sentence}\n"));
    }
    text.push_str(&format!(
        "{:.1} s: {:.0} receipts/s, {:.0} times as fast as recorded\nreplaced:\n",
        performance.wall_seconds, performance.receipts_per_second, performance.speed_up,
    ));
    for replaced in &report.manifest.replaced {
        text.push_str(&format!("  {replaced}\n"));
    }
    for file in files {
        text.push_str(&format!("{}\n", file.display()));
    }
    text
}

/// A progress bar on a terminal; nothing elsewhere.
struct Screen {
    bar: Option<ProgressBar>,
    begun: Instant,
}

/// Parts of the bar.
const PARTS: u64 = 10_000;

impl Screen {
    fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(PARTS), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, begun: Instant::now() }
    }

    fn show(&mut self, progress: &Progress, receipts: u64) {
        let Some(bar) = &self.bar else { return };
        let (fraction, seconds) = (progress.fraction(), self.begun.elapsed().as_secs_f64());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to PARTS")]
        bar.set_position((fraction * PARTS as f64) as u64);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people to look at")]
        let rate = if seconds > 0.0 { receipts as f64 / seconds } else { 0.0 };
        let left = match fraction > 0.0 {
            true => Duration::try_from_secs_f64(seconds / fraction * (1.0 - fraction)).unwrap_or_default(),
            false => Duration::ZERO,
        };
        bar.set_message(format!("{receipts} receipts, {rate:.0}/s, {} s left", left.as_secs()));
    }

    fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
