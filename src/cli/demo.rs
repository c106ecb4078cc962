//! `orchestrator demo`: a made-up market through the whole system, shown as it happens.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tempfile::TempDir;
use tokio::time::Instant;

use super::run::{RUNTIME_END_MAX, runtime};
use super::signals::StopSignals;
use super::tally::Tally;
use super::{DemoArgs, complain, print};
use crate::config::Config;
use crate::process::exit::Exit;
use crate::process::explain::explain;
use crate::service::wiring::StartOptions;
use crate::service::{Reason, Service};
use crate::telemetry::logs;

/// How often the live line is drawn.
const REFRESH: Duration = Duration::from_millis(250);

/// Runs the demo until its time is over or it is interrupted.
#[must_use]
pub fn demo(args: &DemoArgs, environment: Vec<(OsString, OsString)>) -> Exit {
    let rust_log = environment.iter().find(|(name, _)| name == "RUST_LOG").map(|(_, value)| value.clone());
    let mut config = match Config::load(&args.layers(environment)) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            complain(&error);
            return Exit::Config;
        }
    };
    // Kept until the end: dropping it removes the directory.
    let temporary = match args.data {
        Some(_) => None,
        None => match TempDir::with_prefix("orchestrator-demo-") {
            Ok(dir) => Some(dir),
            Err(error) => {
                complain(&format!("cannot make a temporary directory: {error}; give one with --data DIR"));
                return Exit::Io;
            }
        },
    };
    if let Some(dir) = &temporary {
        config.service.data_dir = dir.path().to_owned();
    }
    if let Err(error) = logs::start(&config.log, rust_log.as_deref().and_then(|value| value.to_str())) {
        complain(&error);
        return Exit::Config;
    }
    let exit = match runtime(&config) {
        Ok(runtime) => {
            let exit = runtime.block_on(show(&config, args.duration, temporary.is_some()));
            runtime.shutdown_timeout(RUNTIME_END_MAX);
            exit
        }
        Err(error) => {
            complain(&format!("cannot start the runtime: {error}"));
            Exit::Internal
        }
    };
    drop(temporary);
    exit
}

async fn show(config: &Config, duration: Option<Duration>, temporary: bool) -> Exit {
    let signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("signals cannot be handled: {error}"));
            return Exit::Internal;
        }
    };
    let service = match Service::start(config, StartOptions::default()).await {
        Ok(service) => service,
        Err(error) => {
            complain(&explain(&error));
            return error.exit();
        }
    };
    let screen = Screen::new();
    screen.line(&format!(
        "A made-up market of {} symbols, a run of each every other second; logs in {}.",
        config_symbols(config),
        config.service.data_dir.display()
    ));
    screen.line(&format!("Outputs as they come: curl -N {}/api/v1/events", service.url()));
    let mut tally = Tally::default();
    let runs = service.runs();
    let receipts = service.receipts();
    let begun = Instant::now();
    let stop = {
        let (screen, tally) = (&screen, &mut tally);
        async move {
            let mut stop = std::pin::pin!(signals.asked_to_stop());
            let end = duration.map(|duration| begun + duration);
            loop {
                if let Err(error) = tally.follow(runs.as_ref(), |line| screen.line(line)).await {
                    screen.line(&format!("cannot read the run log: {error}"));
                }
                screen.live(&tally.live(begun.elapsed(), receipts.stat().tail));
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
    let (runs, receipts, quarantine) = (service.runs(), service.receipts(), service.quarantine());
    let exit = service.run(stop).await;
    screen.done();
    if let Err(error) = tally.follow(runs.as_ref(), |line| screen.line(line)).await {
        complain(&error);
    }
    tally.last_tick(|line| screen.line(line));
    let summary = tally.summary(begun.elapsed(), receipts.stat().tail, quarantine.stat().tail);
    let printed = print(&format!("\n{summary}\n{}", next_steps(&config.service.data_dir, temporary)));
    if exit == Exit::Ok { printed } else { exit }
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

fn next_steps(data: &Path, temporary: bool) -> String {
    if temporary {
        return "The data was temporary and is gone. Next:\n  \
                orchestrator demo --data ./demo-data      keep the logs; kill it, start it again: it goes on\n  \
                orchestrator log stat --data ./demo-data  what is in them\n  \
                orchestrator run --help                   the real thing; see README.md\n"
            .to_owned();
    }
    let data = data.display();
    format!(
        "Look at it:\n  \
         orchestrator log stat --data {data}\n  \
         tail -1 {data}/outputs/orchestrator_events.jsonl\n  \
         orchestrator demo --data {data}            goes on where it stopped\n"
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

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => {
                if print(&format!("{line}\n")) != Exit::Ok {
                    tracing::debug!("nobody reads the output any more");
                }
            }
        }
    }

    fn live(&self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.to_owned());
            bar.tick();
        }
    }

    fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
