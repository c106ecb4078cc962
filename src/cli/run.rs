//! `orchestrator run`: the service, until it is told to stop.

use std::ffi::OsString;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::signals::StopSignals;
use super::{RunArgs, print_complaint};
use crate::config::Config;
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_start;
use crate::service::wiring::{StartOptions, cores_if_zero};
use crate::service::{Reason, Service};
use crate::telemetry::logs;

/// How long the end waits for what still blocks a thread: a disk that hangs must not keep the process.
pub(super) const RUNTIME_END_MAX: Duration = Duration::from_secs(2);

/// Runs the service until a signal asks it to stop; with `--once` until every source has ended.
#[must_use]
pub fn run_service(args: &RunArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let rust_log = environment.iter().find(|(name, _)| name == "RUST_LOG").map(|(_, value)| value.clone());
    let config = match Config::load(&args.config.config_layers(environment)) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            print_complaint(&error);
            return ProcessExit::Config;
        }
    };
    let rust_log = rust_log.as_deref().and_then(|value| value.to_str());
    if let Err(error) = logs::start_logging(&config.log, rust_log) {
        print_complaint(&error);
        return ProcessExit::Config;
    }
    match build_runtime(&config) {
        Ok(runtime) => {
            let exit = runtime.block_on(serve_until_stopped(&config, args));
            runtime.shutdown_timeout(RUNTIME_END_MAX);
            exit
        }
        Err(error) => {
            print_complaint(&format!("cannot start the runtime: {error}"));
            ProcessExit::Internal
        }
    }
}

/// The runtime with the configured number of threads.
///
/// # Errors
///
/// The system gives no threads.
pub(super) fn build_runtime(config: &Config) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(cores_if_zero(config.service.worker_threads))
        .enable_all()
        .build()
}

async fn serve_until_stopped(config: &Config, args: &RunArgs) -> ProcessExit {
    let options = StartOptions {
        takeover: args.takeover,
        accept_changes: args.accept_changes,
        trust_server: args.trust_server,
    };
    let signals = match StopSignals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be handled, so nothing could stop the service in order");
            return ProcessExit::Internal;
        }
    };
    let mut asked = std::pin::pin!(signals.asked_to_stop());
    let started = tokio::select! {
        biased;
        () = &mut asked => None,
        started = Service::start_configured(config, options, args.config.to_arguments()) => Some(started),
    };
    let service = match started {
        Some(Ok(service)) => service,
        Some(Err(error)) => {
            tracing::error!(error_detail = explain_start(&error), "the service did not start");
            return error.to_exit();
        }
        None => {
            tracing::warn!("asked to stop before the service was up; nothing was taken");
            return ProcessExit::Unavailable;
        }
    };
    tracing::info!(version = crate::process::version::VERSION, data_dir = %config.service.data_dir.display(), http = service.http_url(), "running");
    let ended = service.sources_ended();
    let stop = async move {
        tokio::select! {
            biased;
            () = asked => Reason::Asked,
            () = ended, if args.once => Reason::SourcesEnded,
        }
    };
    service.run_until_stopped(stop).await
}
