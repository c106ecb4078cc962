//! Who does the work of stages and answers for hooks, as configured.
//!
//! ```text
//! stage ─ kind of its provider ─┬─ built in ──▶ this service
//!                               └─ HTTP │ worker │ fixed ─ (pipeline, stage) ─▶ name ─▶ trading.providers.<name>
//! hook  ────────────────────────── HTTP │ worker ───────── (pipeline, hook) ──▶ name ─▶ trading.providers.<name>
//! ```
//!
//! A cycle goes on with the pipeline that it began with, also when a restart brought another configuration. What its
//! stage's provider is now has to be of the same kind; else nobody does that work, and the cycle says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use orchestrator_kernel::engine::engine_protocol::NeededOp;
use orchestrator_kernel::ports::stage::{
    HookBackend, HookRequest, NoHooks, StageBackend, StageRequest, unavailable_stage,
};
use orchestrator_kernel::trading::gate::{HookAnswer, HookError};
use orchestrator_kernel::trading::ids::{PipelineName, StageName};
use orchestrator_kernel::trading::journal::{StageError, StageOutput};
use orchestrator_kernel::trading::stage::StageProvider;
use orchestrator_kernel::trading::stage_protocol::{HOOK_OP, STAGE_OP};
use orchestrator_trading_plane::builtin::{BuiltInStages, GuardedRisk, RoutedStages};

use crate::adapters::fixed_stages::FixedStages;
use crate::adapters::http::stage::{HttpStages, HttpStagesOptions};
use crate::adapters::process::stage::ProcessStages;
use crate::adapters::process::{WorkerPoolOptions, guard};
use crate::config::HttpEngineConfig;
use crate::config::trading::{PipelineConfig, StageProviderConfig, TradingConfig};
use crate::service::wiring::WiringError;
use crate::service::wiring::engine::worker_options;

#[cfg(test)]
mod tests;

/// Backends of stages and hooks, and what has to be ended after whoever calls them.
pub struct StageBackends {
    /// Who does the work of stages, each by its provider.
    pub stages: Arc<dyn StageBackend>,
    /// Who answers for hooks.
    pub hooks: Arc<dyn HookBackend>,
    /// The workers behind them.
    pub workers: StageWorkers,
}

/// Worker pools of providers of stages.
#[derive(Default)]
pub struct StageWorkers(Vec<Arc<ProcessStages>>);

impl StageWorkers {
    /// Ends all workers and waits until none is left. May be called again.
    pub async fn shut_down_workers(&self) {
        futures_util::future::join_all(self.0.iter().map(|pool| pool.shut_down_workers())).await;
    }
}

/// The backends that `config` names; stages of this service are done by `built_in`, those that are
/// answered over the bus by `by_event`. The rules of the built-in RISK hold behind every other one. Workers begin to
/// start and are not waited for; what is behind HTTP may come later too. A provider that no stage and no hook names is
/// not started.
///
/// # Errors
///
/// [`WiringError::StageWorkers`], [`WiringError::StageClient`]: with the provider's setting.
pub fn stage_backends(
    config: &TradingConfig,
    built_in: Arc<BuiltInStages>,
    by_event: Option<Arc<dyn StageBackend>>,
) -> Result<StageBackends, WiringError> {
    let own = Arc::clone(&built_in) as Arc<dyn StageBackend>;
    let opened = open_backends(config, (own, by_event), Some(guard::this_program()))?;
    Ok(StageBackends { stages: Arc::new(GuardedRisk::new(opened.stages, built_in)), ..opened })
}

fn open_backends(
    config: &TradingConfig,
    (built_in, by_event): (Arc<dyn StageBackend>, Option<Arc<dyn StageBackend>>),
    guard: Option<PathBuf>,
) -> Result<StageBackends, WiringError> {
    let mut opened = BTreeMap::new();
    let mut workers = StageWorkers::default();
    for (name, needed) in needed_ops(config) {
        let Some(provider) = config.providers.get(&name) else { continue };
        let provider = match provider {
            StageProviderConfig::Http(http) => OpenProvider::Http(Arc::new(open_client(&name, http)?)),
            StageProviderConfig::Worker(process) => {
                let options = worker_options(process, &name, "the worker");
                let options = WorkerPoolOptions { guard: guard.clone(), ops: needed, ..options };
                let pool = Arc::new(start_workers(&name, options)?);
                workers.0.push(Arc::clone(&pool));
                OpenProvider::Worker(pool)
            }
            StageProviderConfig::Fixed(answer) => {
                OpenProvider::Fixed(Arc::new(FixedStages::new(answer.clone())))
            }
        };
        opened.insert(name, provider);
    }
    let named = Arc::new(NamedProviders::new(config, &opened));
    let by_name = |kind| (kind, Arc::clone(&named) as Arc<dyn StageBackend>);
    let mut routes = vec![
        (StageProvider::BuiltIn, built_in),
        by_name(StageProvider::Http),
        by_name(StageProvider::Worker),
        by_name(StageProvider::Fixed),
    ];
    routes.extend(by_event.map(|asked| (StageProvider::Event, asked)));
    Ok(StageBackends { stages: Arc::new(RoutedStages::new(routes)), hooks: named, workers })
}

/// What each provider is asked, by its name. Stages that are switched off ask nothing.
fn needed_ops(config: &TradingConfig) -> BTreeMap<String, Vec<NeededOp>> {
    let mut needed: BTreeMap<String, Vec<NeededOp>> = BTreeMap::new();
    let mut need = |name: &String, op| {
        let op = NeededOp { op, setting: format!("trading.providers.{name}") };
        let of_name = needed.entry(name.clone()).or_default();
        if !of_name.contains(&op) {
            of_name.push(op);
        }
    };
    for PipelineConfig { pipeline, stage_providers, hook_providers } in config.pipelines.values() {
        let enabled = pipeline.stages.iter().filter(|stage| stage.enabled);
        enabled.filter_map(|stage| stage_providers.get(&stage.name)).for_each(|name| need(name, STAGE_OP));
        hook_providers.values().for_each(|name| need(name, HOOK_OP));
    }
    needed
}

fn open_client(name: &str, http: &HttpEngineConfig) -> Result<HttpStages, WiringError> {
    let options = HttpStagesOptions {
        url: http.url.expose_url().to_owned(),
        token: http.token.expose_secret().map(str::to_owned),
        connect_timeout: http.connect_timeout,
        output_bytes_max: usize::try_from(http.output_bytes_max).unwrap_or(usize::MAX),
        connections_max: http.connections_max,
    };
    HttpStages::new(options)
        .map_err(|source| WiringError::StageClient { setting: format!("trading.providers.{name}"), source })
}

fn start_workers(name: &str, options: WorkerPoolOptions) -> Result<ProcessStages, WiringError> {
    ProcessStages::start(options).map_err(|source| WiringError::StageWorkers {
        setting: format!("trading.providers.{name}"),
        source: Box::new(source),
    })
}

/// A provider that is ready to be asked.
enum OpenProvider {
    Http(Arc<HttpStages>),
    Worker(Arc<ProcessStages>),
    Fixed(Arc<FixedStages>),
}

impl OpenProvider {
    fn of_stage(&self) -> (StageProvider, Arc<dyn StageBackend>) {
        match self {
            Self::Http(stages) => (StageProvider::Http, Arc::clone(stages) as Arc<dyn StageBackend>),
            Self::Worker(stages) => (StageProvider::Worker, Arc::clone(stages) as Arc<dyn StageBackend>),
            Self::Fixed(stages) => (StageProvider::Fixed, Arc::clone(stages) as Arc<dyn StageBackend>),
        }
    }

    fn of_hook(&self) -> (StageProvider, Arc<dyn HookBackend>) {
        match self {
            Self::Http(hooks) => (StageProvider::Http, Arc::clone(hooks) as Arc<dyn HookBackend>),
            Self::Worker(hooks) => (StageProvider::Worker, Arc::clone(hooks) as Arc<dyn HookBackend>),
            Self::Fixed(_) => (StageProvider::Fixed, Arc::new(NoHooks)),
        }
    }
}

/// Backends by pipeline and by stage or hook, each with its kind.
type ByPlace<B> = BTreeMap<PipelineName, BTreeMap<StageName, (StageProvider, Arc<B>)>>;

/// The providers that have names: each stage and hook is sent to its own.
struct NamedProviders {
    stages: ByPlace<dyn StageBackend>,
    hooks: ByPlace<dyn HookBackend>,
}

impl NamedProviders {
    fn new(config: &TradingConfig, opened: &BTreeMap<String, OpenProvider>) -> Self {
        fn resolve<B: ?Sized>(
            names: &BTreeMap<StageName, String>,
            opened: &BTreeMap<String, OpenProvider>,
            role: impl Fn(&OpenProvider) -> (StageProvider, Arc<B>),
        ) -> BTreeMap<StageName, (StageProvider, Arc<B>)> {
            let found =
                names.iter().filter_map(|(place, name)| Some((place.clone(), role(opened.get(name)?))));
            found.collect()
        }
        let pipelines = config.pipelines.iter();
        let (stages, hooks) = pipelines
            .map(|(name, it)| {
                let stages = resolve(&it.stage_providers, opened, OpenProvider::of_stage);
                let hooks = resolve(&it.hook_providers, opened, OpenProvider::of_hook);
                ((name.clone(), stages), (name.clone(), hooks))
            })
            .unzip();
        Self { stages, hooks }
    }
}

/// The backend of one place, if its provider is still of this kind.
fn find_backend<'a, B: ?Sized>(
    backends: &'a ByPlace<B>,
    pipeline: &PipelineName,
    place: &StageName,
    kind: StageProvider,
) -> Option<&'a B> {
    let (found, backend) = backends.get(pipeline)?.get(place)?;
    (*found == kind).then_some(backend.as_ref())
}

#[async_trait]
impl StageBackend for NamedProviders {
    async fn call_stage(&self, request: StageRequest) -> Result<StageOutput, StageError> {
        let (pipeline, stage) = (&request.started.pipeline.name, &request.stage);
        match find_backend(&self.stages, pipeline, &stage.name, stage.provider) {
            Some(backend) => backend.call_stage(request).await,
            None => Err(unavailable_stage(&stage.name)),
        }
    }
}

#[async_trait]
impl HookBackend for NamedProviders {
    async fn ask_hook(&self, request: HookRequest) -> Result<HookAnswer, HookError> {
        let (pipeline, hook) = (&request.started.pipeline.name, &request.hook);
        match find_backend(&self.hooks, pipeline, &hook.name, hook.provider) {
            Some(backend) => backend.ask_hook(request).await,
            None => NoHooks.ask_hook(request).await,
        }
    }
}
