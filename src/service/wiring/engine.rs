//! The engine that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::engine::Engine;

use super::WiringError;
use crate::adapters::demo::engine::{DemoEngine, DemoHysteresisConfig as DemoHysteresis};
use crate::adapters::http::engine::{HttpEngine, HttpEngineOptions};
use crate::adapters::process::engine::{ProcessEngine, ProcessEngineOptions};
use crate::adapters::process::{WorkerPoolOptions, guard};
use crate::config::{EngineConfig, EngineKind, HysteresisConfig, ProcessConfig};

/// Worker pool behind an engine, if it has one: it is ended after whoever calls it.
pub type EngineWorkers = Option<Arc<ProcessEngine>>;

/// The engine that `config` names, and its worker pool if it has one, to be ended after its last call.
///
/// # Errors
///
/// [`WiringError::Engine`], [`WiringError::HttpEngine`].
pub async fn open_engine(config: &EngineConfig) -> Result<(Arc<dyn Engine>, EngineWorkers), WiringError> {
    match config.kind {
        EngineKind::Demo => Ok((Arc::new(DemoEngine::new(demo_hysteresis(&config.hysteresis))), None)),
        EngineKind::Process => {
            let workers = Arc::new(ProcessEngine::start(process_options(config)).await?);
            Ok((Arc::clone(&workers) as Arc<dyn Engine>, Some(workers)))
        }
        EngineKind::Http => {
            let engine = HttpEngine::new(http_engine_options(config))?;
            engine.check_offer(config.mode).await?;
            Ok((Arc::new(engine), None))
        }
    }
}

const fn demo_hysteresis(config: &HysteresisConfig) -> DemoHysteresis {
    DemoHysteresis {
        min_persistence_updates: config.min_persistence_updates,
        min_confidence_for_flip: config.min_confidence_for_flip,
        decay_factor: config.decay_factor,
        min_confidence_floor: config.min_confidence_floor,
        update_interval_ms: config.update_interval_ms,
    }
}

fn process_options(config: &EngineConfig) -> ProcessEngineOptions {
    ProcessEngineOptions {
        workers: worker_options(&config.process, "engine", "the engine"),
        deadline: config.deadline,
        mode: config.mode,
        hysteresis_config: hysteresis_json(&config.hysteresis),
    }
}

/// The workers of an engine or a provider of stages, in log lines under `name`, in details as `subject`. Which
/// requests will be made is the caller's to say.
pub(super) fn worker_options(
    process: &ProcessConfig,
    name: &str,
    subject: &'static str,
) -> WorkerPoolOptions {
    WorkerPoolOptions {
        name: name.to_owned(),
        subject,
        guard: Some(guard::this_program()),
        command: process.command.clone(),
        env: process.env.0.clone(),
        working_dir: process.working_dir.clone(),
        workers: cores_if_zero(process.workers),
        start_deadline: process.start_deadline,
        restart_wait_max: process.restart_wait_max,
        memory_max_bytes: Some(process.memory_max_bytes).filter(|bytes| *bytes > 0),
        output_bytes_max: usize::try_from(process.output_bytes_max).unwrap_or(usize::MAX),
        ops: Vec::new(),
        respawn_backoff_min: process.respawn.min,
        respawn_backoff_max: process.respawn.max,
        shutdown_grace: Duration::from_secs(1),
    }
}

fn http_engine_options(config: &EngineConfig) -> HttpEngineOptions {
    let http = &config.http;
    HttpEngineOptions {
        url: http.url.expose_url().to_owned(),
        token: http.token.expose_secret().map(str::to_owned),
        deadline: config.deadline,
        connect_timeout: http.connect_timeout,
        output_bytes_max: usize::try_from(http.output_bytes_max).unwrap_or(usize::MAX),
        connections_max: http.connections_max,
        hysteresis_config: hysteresis_json(&config.hysteresis),
    }
}

/// The `config` of every hysteresis call.
fn hysteresis_json(hysteresis: &HysteresisConfig) -> String {
    let json = serde_json::json!({
        "decay_factor": hysteresis.decay_factor,
        "min_confidence_floor": hysteresis.min_confidence_floor,
        "min_confidence_for_flip": hysteresis.min_confidence_for_flip,
        "min_persistence_updates": hysteresis.min_persistence_updates,
        "update_interval_ms": hysteresis.update_interval_ms,
    });
    json.to_string()
}

/// 0 in the configuration means as many as there are cores.
#[must_use]
pub fn cores_if_zero(count: usize) -> usize {
    if count > 0 { count } else { std::thread::available_parallelism().map_or(1, usize::from) }
}
