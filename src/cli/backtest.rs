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
use super::run::build_runtime;
use super::signals::StopSignals;
use super::{ConfigArgs, print_answer, print_complaint};
use crate::config::{Config, LogLevel};
use crate::offline::backtest::{BacktestPlan, BacktestReport, End, Input, Played, play_capture};
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::service::wiring::backtest::{
    BacktestCapture, BacktestPlanes, CaptureProgress, Stamps, find_trading_faults, line_bytes_max,
    replaced_settings, stage_config,
};
use crate::service::wiring::reading::{self, Recorded};
use crate::telemetry::logs;
use place::{BacktestPlace, remove_logs};

/// Names of the file of receipts in an exported directory.
const EXPORTED: [&str; 3] =
    ["raw_market_events.jsonl", "raw_market_events.jsonl.gz", "raw_market_events.jsonl.zst"];

/// Time that drives the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BacktestTime {
    /// The receipts' own recv_ts_ms: equal to `run --once` with clock.mode = "recorded".
    #[default]
    Receive,
    /// The ingest_ts_ms in the logs of a service: the cuts are those of that service.
    Ingest,
}

/// File format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// One page that needs nothing else.
    Html,
    /// For programs.
    Json,
}

/// Options of `backtest`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct BacktestArgs {
    /// What to run: a file of raw market events (.jsonl, .gz, .zst), a directory made by `export`, the data directory
    /// of a stopped service, or `redis://[user:password@]host[:port][/database]`.
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
    pub time: BacktestTime,
    /// Where the outputs and the report go. Those of an earlier backtest are replaced.
    #[arg(long, value_name = "DIR", default_value = "backtest")]
    pub out: PathBuf,
    /// What the report is written as.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [ReportFormat::Html, ReportFormat::Json])]
    pub report: Vec<ReportFormat>,
    /// Keep the logs, in data below the directory of the outputs; it must not exist yet.
    #[arg(long)]
    pub keep_logs: bool,
    /// Run the trading plane's cycles too: what it decides is recorded, and nothing is sent.
    #[arg(long)]
    pub trading: bool,
    /// Where the configuration comes from: engine, schedule and symbols; with --trading also strategies, schedules of
    /// cycles and pipelines.
    #[command(flatten)]
    pub config: ConfigArgs,
}

impl BacktestArgs {
    const fn planes(&self) -> BacktestPlanes {
        if self.trading { BacktestPlanes::EngineAndTrading } else { BacktestPlanes::Engine }
    }
}

/// Exit of a backtest that did not happen. The reason was said on standard error.
struct Refused(ProcessExit);

impl Refused {
    fn complain_because(exit: ProcessExit, what: &dyn std::fmt::Display) -> Self {
        print_complaint(what);
        Self(exit)
    }
}

/// Runs the backtest.
#[must_use]
pub fn run_backtest(args: &BacktestArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    match prepare_config(args, environment) {
        Ok(config) => match build_runtime(&config) {
            Ok(runtime) => {
                let mut logs = None;
                let exit = runtime
                    .block_on(backtest_capture(args, &config, &mut logs))
                    .unwrap_or_else(|refused| refused.0);
                // Whoever still writes into the logs goes with the runtime; only then can they be removed.
                drop(runtime);
                remove_logs(logs).unwrap_or(exit)
            }
            Err(error) => {
                print_complaint(&format!("cannot start the runtime: {error}"));
                ProcessExit::Internal
            }
        },
        Err(refused) => refused.0,
    }
}

fn prepare_config(args: &BacktestArgs, environment: Vec<(OsString, OsString)>) -> Result<Config, Refused> {
    let rust_log = environment.iter().find(|(name, _)| name == "RUST_LOG").map(|(_, value)| value.clone());
    let loaded = Config::load(&args.config.config_layers(environment))
        .map_err(|error| Refused::complain_because(ProcessExit::Config, &error))?;
    let mut config = loaded.config;
    if args.trading {
        let faults = find_trading_faults(&config.trading);
        faults.iter().for_each(|fault| print_complaint(fault));
        if !faults.is_empty() {
            return Err(Refused(ProcessExit::Config));
        }
    }
    // What a service tells its operator every day would only tear the progress.
    config.log.level = LogLevel::Error;
    logs::start_logging(&config.log, rust_log.as_deref().and_then(|value| value.to_str()))
        .map_err(|error| Refused::complain_because(ProcessExit::Config, &error))?;
    Ok(config)
}

async fn backtest_capture(
    args: &BacktestArgs,
    config: &Config,
    logs: &mut Option<TempDir>,
) -> Result<ProcessExit, Refused> {
    // From here on a signal counts and does not end the process in the middle of something.
    let signals =
        StopSignals::listen().map_err(|error| Refused::complain_because(ProcessExit::Internal, &error))?;
    let stop = std::pin::pin!(signals.asked_to_stop());
    let Opened { capture, name, until } = open_capture(args, config).await?;
    let place = BacktestPlace::make_dirs(args, logs)?;
    let staged = stage_config(config, args.planes(), place.data.clone(), place.partial.clone());
    let plan =
        BacktestPlan { config: &staged, capture: &capture, line_bytes_max: line_bytes_max(config), until };
    let mut screen = Screen::new();
    let played =
        play_capture(&plan, stop, |progress, receipts| screen.show_progress(progress, receipts)).await;
    screen.clear_progress();
    let played =
        played.map_err(|error| Refused::complain_because(error.to_exit(), &explain_error(&error)))?;
    let input = Input {
        config: &staged,
        replaced: replaced_settings(config, args.planes()),
        capture: name,
        time: match args.time {
            BacktestTime::Receive => "receive",
            BacktestTime::Ingest => "ingest",
        },
    };
    let report = BacktestReport::from_logs(input, &played)
        .await
        .map_err(|error| Refused::complain_because(ProcessExit::Data, &explain_error(&error)))?;
    let cannot_write = |error: io::Error| {
        let what = format!("cannot write to {}: {error}", args.out.display());
        Refused::complain_because(ProcessExit::Io, &what)
    };
    let mut files = place.write_report(&report, &args.report).map_err(cannot_write)?;
    let journal = place.write_journal(played.journal.as_deref()).await;
    files
        .extend(journal.map_err(|error| Refused::complain_because(error.to_exit(), &explain_error(&error)))?);
    let printed = print_answer(&summary_text(&report, &files));
    Ok(match exit_of_backtest(&played, &report) {
        ProcessExit::Ok => printed,
        exit => exit,
    })
}

/// How the process ends, and why when it is not well.
fn exit_of_backtest(played: &Played, report: &BacktestReport) -> ProcessExit {
    match &played.end {
        End::Unreadable(detail) => {
            print_complaint(&format!("the capture was not read to its end: {detail}"));
            return ProcessExit::Unavailable;
        }
        End::Interrupted => {
            print_complaint(&"interrupted; what was done until then is in the report");
            return ProcessExit::Different;
        }
        End::Complete => {}
    }
    let receipts = &report.capture.receipts;
    if receipts.receipts == 0 {
        let first = receipts.first_quarantined.as_ref();
        let first = first.map(|first| format!("; line {}: {}", first.position, first.detail));
        print_complaint(&format!("the capture holds no receipt{}", first.unwrap_or_default()));
        return ProcessExit::Data;
    }
    for condition in &report.conditions {
        print_complaint(&format!("{}: {}", condition.condition, condition.detail));
    }
    if report.runs.open > 0 || !report.conditions.is_empty() {
        ProcessExit::Different
    } else {
        ProcessExit::Ok
    }
}

/// An opened capture.
struct Opened {
    capture: BacktestCapture,
    /// What it is called, without secrets.
    name: String,
    /// How far the clock goes on after the last receipt.
    until: Option<TsMs>,
}

async fn open_capture(args: &BacktestArgs, config: &Config) -> Result<Opened, Refused> {
    let dir = PathBuf::from(&args.capture);
    if is_url(&args.capture) || dir.join("receipts").is_dir() {
        return open_logs(args, config).await;
    }
    if args.time == BacktestTime::Ingest {
        return Err(Refused::complain_because(
            ProcessExit::Usage,
            &"--time ingest needs the logs of a service; a file of events does not say when they were ingested",
        ));
    }
    let file = if dir.is_dir() {
        EXPORTED.iter().map(|name| dir.join(name)).find(|path| path.is_file())
    } else {
        Some(dir)
    };
    let Some(file) = file else {
        return Err(Refused::complain_because(
            ProcessExit::Unavailable,
            &format!(
                "{} holds neither logs nor {}; name a file with --capture FILE",
                args.capture,
                EXPORTED.join(", ")
            ),
        ));
    };
    Ok(Opened { name: file.display().to_string(), capture: BacktestCapture::File(file), until: None })
}

async fn open_logs(args: &BacktestArgs, config: &Config) -> Result<Opened, Refused> {
    let from = FromArgs {
        from: Some(args.capture.clone()),
        namespace: args.namespace.clone(),
        archive: args.archive.clone(),
        config: ConfigArgs::default(),
    };
    let place = from.logs_place(config).map_err(Refused)?;
    let failed = |error: crate::service::wiring::WiringError| {
        Refused::complain_because(error.to_exit(), &explain_error(&error))
    };
    let recorded = reading::open_logs(&place).await.map_err(failed)?;
    let (stamps, start, until) = match args.time {
        BacktestTime::Receive => (Stamps::Receive, None, None),
        BacktestTime::Ingest => {
            let (start, until) =
                schedule_of(&recorded, config).await.map_err(|error| failed(error.into()))?;
            (Stamps::Ingest, start, until)
        }
    };
    Ok(Opened {
        capture: BacktestCapture::Logs { recorded: Box::new(recorded), stamps, start },
        name: place.display_name(),
        until,
    })
}

/// Where the schedule of recorded runs begins and ends: a live service's clock runs before its first receipt and after
/// its last one. The start is the moment whose first tick is that of the first run.
async fn schedule_of(
    recorded: &Recorded,
    config: &Config,
) -> Result<(Option<TsMs>, Option<TsMs>), ReadError> {
    let stat = recorded.runs.stat();
    let first = planned_ts_at(recorded.runs.as_ref(), stat.start).await?;
    let last = planned_ts_at(recorded.runs.as_ref(), stat.tail).await?;
    let interval = config.schedule.cadence.interval_ms();
    Ok((first.map(|first| first.plus_ms(-interval)), last))
}

async fn planned_ts_at(runs: &dyn Log, at: Seq) -> Result<Option<TsMs>, ReadError> {
    if at.0 == 0 {
        return Ok(None);
    }
    let Some(stored) = read_one(runs, at).await? else { return Ok(None) };
    let record =
        RunRecord::decode(&stored).map_err(|error| ReadError::Corrupt { at, detail: error.to_string() })?;
    Ok(Some(record.facts.planned_ts_ms))
}

/// What is printed at the end.
fn summary_text(report: &BacktestReport, files: &[PathBuf]) -> String {
    let (receipts, runs, performance) = (&report.capture.receipts, &report.runs, &report.performance);
    #[expect(clippy::cast_precision_loss, reason = "a span for people to look at")]
    let minutes = receipts.span_ms() as f64 / 60e3;
    let mut text = format!(
        "{} receipts over {minutes:.1} min, {} undecodable ones kept aside\n{} runs completed, {} failed, {} outputs\n",
        receipts.receipts, receipts.quarantined, runs.completed, runs.failed, runs.outputs,
    );
    if let Some(cycles) = &report.trading {
        let ended: Vec<String> =
            cycles.ended.iter().map(|(status, count)| format!("{count} {status}")).collect();
        text.push_str(&format!(
            "{} cycles ({}), {} decisions, {} order intents; the journal's {} records end with {}\n",
            cycles.ended_total(),
            if ended.is_empty() { "none".to_owned() } else { ended.join(", ") },
            cycles.decisions,
            cycles.intents,
            cycles.records,
            cycles.chain_hash,
        ));
        for (reason, fires) in &cycles.fires_skipped {
            text.push_str(&format!("  {fires:>5}  fires without a cycle: {reason}\n"));
        }
    }
    for (kind, failures) in &runs.failures {
        text.push_str(&format!("  {:>5}  {kind}, first {}\n", failures.runs, failures.first_run_id));
    }
    if let Some(first) = &receipts.first_quarantined {
        text.push_str(&format!("first line that is no receipt: {}: {}\n", first.position, first.detail));
    }
    for sentence in report.capture.odd_times.to_sentences() {
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

    fn show_progress(&mut self, progress: &CaptureProgress, receipts: u64) {
        let Some(bar) = &self.bar else { return };
        let (fraction, seconds) = (progress.read_fraction(), self.begun.elapsed().as_secs_f64());
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

    fn clear_progress(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
