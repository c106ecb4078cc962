//! `orchestrator verify`: whether everything that was recorded follows from the logs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use orchestrator_kernel::engine::audit::StateFrom;

use super::progress::ReadProgress;
use super::run::build_runtime;
use super::{FromArgs, print_answer, print_complaint};
use crate::config::{Config, EngineConfig, EngineKind};
use crate::offline::verify::{SavedState, Verify, VerifyFormat, VerifyReport, unopened_report};
use crate::process::exit::ProcessExit;
use crate::service::manifest;
use crate::service::wiring::reading::{self, LogsPlace, Recorded};
use crate::service::wiring::{WiringError, cores_if_zero, engine};
use crate::telemetry::logs;

/// Where outputs are in a data directory, unless configured otherwise.
const OUTPUTS_FILE: &str = "outputs/orchestrator_events.jsonl";

/// Options of `verify`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyArgs {
    /// Where the logs and the engine are.
    #[command(flatten)]
    pub from: FromArgs,
    /// Give each call the hysteresis state that this replay computed, instead of the recorded one.
    #[arg(long)]
    pub recompute_state: bool,
    /// Take equal answers of another engine (name, version or code) than the recorded one for equal.
    #[arg(long)]
    pub allow_other_engine: bool,
    /// Outputs files to compare, oldest first, for example those that were rotated and then the current one; without it
    /// the current one alone.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub outputs: Vec<PathBuf>,
    /// Form of the report.
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub report: VerifyFormat,
    /// Write the report into this file; without it: to standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Compares, reports, and exits with 0 when all is equal, 1 when something differs, 2 when it cannot tell.
#[must_use]
pub fn run_verify(args: &VerifyArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let rust_log = rust_log(&environment);
    let (config, place) = match args.from.load_config_and_place(environment) {
        Ok(loaded) => loaded,
        Err(ProcessExit::Unavailable) => return ProcessExit::Usage,
        Err(exit) => return exit,
    };
    if let Err(error) = logs::start_logging(&config.log, Some(&rust_log)) {
        print_complaint(&error);
        return ProcessExit::Config;
    }
    match build_runtime(&config) {
        Ok(runtime) => {
            let report = runtime.block_on(compare_logs(&config, &place, args));
            deliver_report(&report, args)
        }
        Err(error) => {
            print_complaint(&format!("cannot start the runtime: {error}"));
            ProcessExit::Internal
        }
    }
}

/// What is logged by commands that report by themselves: trouble only, unless the environment says otherwise.
pub(super) fn rust_log(environment: &[(OsString, OsString)]) -> String {
    let found = environment.iter().find(|(name, _)| name == "RUST_LOG");
    found.and_then(|(_, value)| value.to_str()).unwrap_or("warn").to_owned()
}

/// The logs, and what was saved beside them before they were opened: on a server a service may go on meanwhile.
async fn open_logs(place: &LogsPlace) -> Result<(Recorded, SavedState), WiringError> {
    let recorded = reading::open_logs(place).await?;
    let saved = SavedState::read_beside(&recorded).await;
    match place {
        LogsPlace::DataDir(_) | LogsPlace::Archived { .. } => Ok((recorded, saved)),
        LogsPlace::Redis { .. } => {
            drop(recorded);
            Ok((reading::open_logs(place).await?, saved))
        }
    }
}

async fn compare_logs(config: &Config, place: &LogsPlace, args: &VerifyArgs) -> VerifyReport {
    let (recorded, saved) = match open_logs(place).await {
        Ok(opened) => opened,
        Err(error) => return unopened_report(place.display_name(), &error),
    };
    let (engine, workers) = match engine::open_engine(&config.engine).await {
        Ok(started) => started,
        Err(error) => return unopened_report(place.display_name(), &error),
    };
    let progress = ReadProgress::for_receipts(recorded.receipts.stat().tail);
    let verify = Verify {
        recorded: &recorded,
        place: place.display_name(),
        now: manifest::manifest_of(config, engine.identity()),
        engine,
        calls_max: calls_max(&config.engine),
        state_from: if args.recompute_state { StateFrom::Replay } else { StateFrom::Record },
        allow_other_engine: args.allow_other_engine,
        outputs: outputs_files(config, place, args),
        is_outputs_configured: args.from.from.is_none() || !args.outputs.is_empty(),
        saved,
    };
    let report = verify.compare_all(&mut |receipts, runs| progress.set_position(receipts, runs)).await;
    progress.clear_bar();
    if let Some(workers) = workers {
        workers.shut_down_workers().await;
    }
    report
}

/// Calls beside each other: enough to keep every worker busy.
pub(super) fn calls_max(engine: &EngineConfig) -> usize {
    match engine.kind {
        EngineKind::Demo => 4 * cores_if_zero(0),
        EngineKind::Process => 2 * cores_if_zero(engine.process.workers),
        EngineKind::Http => engine.http.connections_max.max(1),
    }
}

/// Where outputs were written, as far as it is known.
fn outputs_files(config: &Config, place: &LogsPlace, args: &VerifyArgs) -> Vec<PathBuf> {
    if !args.outputs.is_empty() {
        return args.outputs.clone();
    }
    let is_named = args.from.from.is_some();
    let file = match place {
        _ if !is_named => config.outputs_file(),
        LogsPlace::DataDir(dir) | LogsPlace::Archived { dir, .. } => Some(dir.join(OUTPUTS_FILE)),
        LogsPlace::Redis { data_dir, .. } => data_dir.as_deref().map(|dir: &Path| dir.join(OUTPUTS_FILE)),
    };
    file.into_iter().collect()
}

fn deliver_report(report: &VerifyReport, args: &VerifyArgs) -> ProcessExit {
    let rendered = report.render_as(args.report);
    let written = match &args.out {
        None => print_answer(&rendered),
        Some(path) => match std::fs::write(path, rendered) {
            Ok(()) => ProcessExit::Ok,
            Err(error) => {
                print_complaint(&format!("cannot write the report to {}: {error}", path.display()));
                ProcessExit::Io
            }
        },
    };
    match (report.to_verdict().to_exit(), written) {
        (ProcessExit::Ok, written) => written,
        (exit, _) => exit,
    }
}
