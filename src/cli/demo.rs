//! `orchestrator demo`: a made-up market through the whole system, shown as it happens.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tempfile::TempDir;
use tokio::time::Instant;

use super::demo_trading::{CycleTally, set_up_kill_switch};
use super::run::{RUNTIME_END_MAX, build_runtime};
use super::signals::StopSignals;
use super::tally::Tally;
use super::{DemoArgs, print_answer, print_complaint};
use crate::config::Config;
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::service::wiring::StartOptions;
use crate::service::{Reason, Service};
use crate::telemetry::logs;

/// How often the live line is drawn.
const REFRESH: Duration = Duration::from_millis(250);

/// Runs the demo until its time is over or it is interrupted.
#[must_use]
pub fn run_demo(args: &DemoArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let rust_log = environment.iter().find(|(name, _)| name == "RUST_LOG").map(|(_, value)| value.clone());
    let mut config = match Config::load(&args.config_layers(environment)) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            print_complaint(&error);
            return ProcessExit::Config;
        }
    };
    // Kept until the end: dropping it removes the directory.
    let temporary = match args.data {
        Some(_) => None,
        None => match TempDir::with_prefix("orchestrator-demo-") {
            Ok(dir) => Some(dir),
            Err(error) => {
                print_complaint(&format!(
                    "cannot make a temporary directory: {error}; give one with --data DIR"
                ));
                return ProcessExit::Io;
            }
        },
    };
    if let Some(dir) = &temporary {
        config.service.data_dir = dir.path().to_owned();
    }
    if let Err(error) = logs::start_logging(&config.log, rust_log.as_deref().and_then(|value| value.to_str()))
    {
        print_complaint(&error);
        return ProcessExit::Config;
    }
    let exit = match build_runtime(&config) {
        Ok(runtime) => {
            let exit = runtime.block_on(show_demo(&config, args.duration, temporary.is_some()));
            runtime.shutdown_timeout(RUNTIME_END_MAX);
            exit
        }
        Err(error) => {
            print_complaint(&format!("cannot start the runtime: {error}"));
            ProcessExit::Internal
        }
    };
    drop(temporary);
    exit
}

async fn show_demo(config: &Config, duration: Option<Duration>, temporary: bool) -> ProcessExit {
    let signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            print_complaint(&format!("signals cannot be handled: {error}"));
            return ProcessExit::Internal;
        }
    };
    if config.trading.enabled
        && let Err(error) = set_up_kill_switch(config).await
    {
        print_complaint(&format!("the kill switch cannot be set up: {error}"));
        return ProcessExit::Unavailable;
    }
    let service = match Service::start(config, StartOptions::default()).await {
        Ok(service) => service,
        Err(error) => {
            print_complaint(&explain_error(&error));
            return error.to_exit();
        }
    };
    let screen = Screen::new();
    screen.print_line(&format!(
        "A made-up market of {} symbols, a run of each every other second; logs in {}.",
        config_symbols(config),
        config.service.data_dir.display()
    ));
    screen.print_line(&format!("Outputs as they come: curl -N {}/api/v1/events", service.http_url()));
    let mut tally = Tally::default();
    let mut cycles = service.trading_door().map(CycleTally::new);
    let runs = service.run_log();
    let receipts = service.receipt_log();
    let begun = Instant::now();
    let stop = {
        let (screen, tally, cycles) = (&screen, &mut tally, &mut cycles);
        async move {
            let mut stop = std::pin::pin!(signals.asked_to_stop());
            let end = duration.map(|duration| begun + duration);
            loop {
                // One table at a time: with cycles to show, runs are only counted.
                let shows_runs = cycles.is_none();
                let show_run = |line: &str| {
                    if shows_runs {
                        screen.print_line(line)
                    }
                };
                if let Err(error) = tally.follow_run_log(runs.as_ref(), show_run).await {
                    screen.print_line(&format!("cannot read the run log: {error}"));
                }
                if let Some(cycles) = cycles.as_mut() {
                    cycles.follow_cycles(|line| screen.print_line(line)).await;
                }
                screen.show_live_line(&tally.live_line(begun.elapsed(), receipts.stat().tail));
                let wait =
                    end.map_or(REFRESH, |end| REFRESH.min(end.saturating_duration_since(Instant::now())));
                tokio::select! {
                    () = &mut stop => return Reason::Asked,
                    () = tokio::time::sleep(wait) => {}
                }
                if end.is_some_and(|end| end <= Instant::now()) {
                    return Reason::Asked;
                }
            }
        }
    };
    let (runs, receipts, quarantine) = (service.run_log(), service.receipt_log(), service.quarantine_log());
    let exit = service.run_until_stopped(stop).await;
    screen.clear_live_line();
    let show_run = |line: &str| {
        if cycles.is_none() {
            screen.print_line(line)
        }
    };
    if let Err(error) = tally.follow_run_log(runs.as_ref(), show_run).await {
        print_complaint(&error);
    }
    tally.last_tick(show_run);
    let mut summary = tally.summary_text(begun.elapsed(), receipts.stat().tail, quarantine.stat().tail);
    if let Some(cycles) = &cycles {
        summary = format!("{}\n{summary}", cycles.summary_line());
    }
    let next = next_steps(&config.service.data_dir, temporary, config.trading.enabled);
    let printed = print_answer(&format!("\n{summary}\n{next}"));
    if exit == ProcessExit::Ok { printed } else { exit }
}

fn config_symbols(config: &Config) -> usize {
    use crate::config::SourceConfig;
    let demo = |source: &SourceConfig| match source {
        SourceConfig::Demo(demo) => demo.symbols,
        SourceConfig::File(_)
        | SourceConfig::Http(_)
        | SourceConfig::Rabbit(_)
        | SourceConfig::RedisStream(_) => 0,
    };
    config.sources.values().map(demo).sum()
}

fn next_steps(data: &Path, temporary: bool, is_trading: bool) -> String {
    let demo = if is_trading { "demo --trading" } else { "demo" };
    if temporary {
        return format!(
            "The data was temporary and is gone. Next:\n  \
             orchestrator {demo} --data ./demo-data      keep the logs; kill it, start it again: it goes on\n  \
             orchestrator log stat --data ./demo-data  what is in them\n  \
             orchestrator run --help                   the real thing; see README.md\n"
        );
    }
    let data = data.display();
    let cycle = match is_trading {
        true => format!("orchestrator inspect cycle ID --data {data}   one cycle, whole\n  "),
        false => String::new(),
    };
    format!(
        "Look at it:\n  \
         orchestrator log stat --data {data}\n  \
         {cycle}\
         tail -1 {data}/outputs/orchestrator_events.jsonl\n  \
         orchestrator {demo} --data {data}            goes on where it stopped\n"
    )
}

/// A live line at the bottom of a terminal, plain lines elsewhere.
struct Screen {
    bar: Option<ProgressBar>,
}

impl Screen {
    fn new() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self { bar: None };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar: Some(bar) }
    }

    fn print_line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => {
                if print_answer(&format!("{line}\n")) != ProcessExit::Ok {
                    tracing::debug!("nobody reads the output any more");
                }
            }
        }
    }

    fn show_live_line(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.to_owned());
            bar.tick();
        }
    }

    fn clear_live_line(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
