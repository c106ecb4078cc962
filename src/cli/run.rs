//! `orchestrator run`: the service, until it is told to stop.

use std::ffi::OsString;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, RunArgs, complain};
use crate::config::Config;
use crate::service::{Reason, Service, explain};
use crate::telemetry::logs;
use crate::wiring::{StartOptions, cores_if_zero};

/// Runs the service until SIGTERM or SIGINT; with `--once` until every source has ended.
#[must_use]
pub fn run(args: &RunArgs, environment: Vec<(OsString, OsString)>) -> Exit {
    let rust_log = environment.iter().find(|(name, _)| name == "RUST_LOG").map(|(_, value)| value.clone());
    let config = match Config::load(&args.config.layers(environment)) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            complain(&error);
            return Exit::Config;
        }
    };
    let rust_log = rust_log.as_deref().and_then(|value| value.to_str());
    if let Err(error) = logs::start(&config.log, rust_log) {
        complain(&error);
        return Exit::Config;
    }
    match runtime(&config) {
        Ok(runtime) => runtime.block_on(serve(&config, args)),
        Err(error) => {
            complain(&format!("cannot start the runtime: {error}"));
            Exit::Internal
        }
    }
}

/// The runtime with the configured number of threads.
///
/// # Errors
///
/// The system gives no threads.
pub(super) fn runtime(config: &Config) -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(cores_if_zero(config.service.worker_threads))
        .enable_all()
        .build()
}

async fn serve(config: &Config, args: &RunArgs) -> Exit {
    let options = StartOptions {
        takeover: args.takeover,
        accept_changes: args.accept_changes,
        trust_server: args.trust_server,
    };
    let service = match Service::start(config, options).await {
        Ok(service) => service,
        Err(error) => {
            tracing::error!(error_detail = explain(&error), "the service did not start");
            return error.exit();
        }
    };
    tracing::info!(version = crate::service::VERSION, data_dir = %config.service.data_dir.display(), http = service.url(), "running");
    let ended = service.sources_ended();
    let stop = async move {
        tokio::select! {
            biased;
            () = asked_to_stop() => Reason::Asked,
            () = ended, if args.once => Reason::SourcesEnded,
        }
    };
    service.run(stop).await
}

/// Waits for SIGTERM or SIGINT. A second one ends the process at once: nothing acknowledged is lost by that.
pub(super) async fn asked_to_stop() {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "signals cannot be handled; the service must be killed to stop");
                return std::future::pending().await;
            }
        };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("second signal: ending at once");
        std::process::exit(i32::from(Exit::Unavailable.code()));
    });
}
