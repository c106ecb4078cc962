//! The running service: the tree and the HTTP interface, from start to ordered stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_actors::tree::{StopOutcome, Tree};
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::source::Intake;
use orchestrator_kernel::trading::event::ServiceHealth;
use orchestrator_runtime::fatal::{Fatal, FatalKind};
use orchestrator_runtime::status::{Condition, StatusBoard};
use orchestrator_trading_plane::plane::TradingStop;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::api::{self, ApiState, CalledServices, TradingFaces, TradingNeighbours};
use crate::config::Config;
use crate::process::exit::{ProcessExit, exit_of};
use crate::process::time::wall_now;
use crate::process::version::{BUILD, VERSION, code_identity};
use crate::telemetry::metrics::{CONTENT_TYPE, Ingested, Metrics};

pub mod manifest;
pub mod trading;
pub mod wiring;

use trading::{TradingDoor, TradingHost};
use wiring::marks::show_trouble;
use wiring::trading::events::event_style;
use wiring::{StartOptions, Wired, WiringError, WiringExtras};

/// Reason for which the service did not start. What was opened is closed again.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something it needs could not be opened.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// An actor could not start.
    #[error(transparent)]
    Tree(#[from] Fatal),
    /// The HTTP interface.
    #[error("cannot listen on {listen}; set http.listen to a free address, or port 0 for any")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl StartError {
    /// How the process ends because of it.
    #[must_use]
    pub fn to_exit(&self) -> ProcessExit {
        match self {
            Self::Wiring(error) => error.to_exit(),
            Self::Tree(fatal) => exit_of(fatal.kind),
            Self::Listen { .. } => ProcessExit::Unavailable,
        }
    }
}

/// Reason for which the service is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A signal, or the demo's time is over.
    Asked,
    /// Every source has ended.
    SourcesEnded,
}

/// A service that is up.
pub struct Service {
    tree: Tree,
    trading: Option<TradingHost>,
    wired: Wired,
    http: Http,
    metrics: Option<Arc<Metrics>>,
    grace: Duration,
    /// Shows whether the second mark of the logs lags behind, where one is kept.
    _mark_shown: Option<AbortOnDropHandle<()>>,
}

/// The HTTP interface while it is served.
struct Http {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Http {
    async fn end_server(self) {
        self.shutdown.cancel();
        if let Err(error) = self.serving.await {
            tracing::warn!(%error, "the HTTP interface ended badly");
        }
    }
}

impl Service {
    /// Opens everything, reads the logs, starts the tree, and answers HTTP.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(config: &Config, options: StartOptions) -> Result<Self, StartError> {
        Self::start_configured(config, options, Vec::new()).await
    }

    /// The same; `config_args` are the arguments that give another process this configuration.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start_configured(
        config: &Config,
        options: StartOptions,
        config_args: Vec<String>,
    ) -> Result<Self, StartError> {
        let listen = config.http.listen;
        let failed = |source| StartError::Listen { listen, source };
        // First of all: a port that is taken is known before anything is opened.
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut metrics = None;
        let extras = WiringExtras { config_args, ..WiringExtras::default() };
        let mut wired = wiring::wire_from(config, options, extras, |clock| {
            let made = Metrics::new(Arc::clone(clock), wall_now(), BUILD);
            let made = Arc::new(if config.trading.enabled { made.with_trading() } else { made });
            metrics = Some(Arc::clone(&made));
            made
        })
        .await?;
        let tree = Tree::start(wired.ports.clone(), &wired.settings).await?;
        // Not waited for: what the journal takes to be read delays no receipt.
        let trading = wired.trading.take().map(|parts| TradingHost::start(parts.join_tree(&tree)));
        let shutdown = CancellationToken::new();
        let limits = wiring::http_limits(config);
        let mut state = api_state(config, &tree, &wired, metrics.clone(), &shutdown);
        state.trading = trading.as_ref().map(|host| trading_faces(host, tree.board.clone(), config));
        let serving =
            tokio::spawn(api::serve_router(listener, api::build_router(state), limits, shutdown.clone()));
        let http = Http { address, shutdown, serving };
        let trouble = wired.server.as_ref().and_then(|server| server.second_mark_trouble());
        let shown = trouble.map(|trouble| tokio::spawn(show_trouble(trouble, tree.board.clone())));
        let _mark_shown = shown.map(AbortOnDropHandle::new);
        Ok(Self { tree, trading, wired, http, metrics, grace: config.service.grace, _mark_shown })
    }

    /// The door to the trading plane; nothing where it is off.
    #[must_use]
    pub fn trading_door(&self) -> Option<TradingDoor> {
        self.trading.as_ref().map(TradingHost::door)
    }

    /// The tree.
    #[must_use]
    pub const fn actor_tree(&self) -> &Tree {
        &self.tree
    }

    /// Ready when every source has ended by itself.
    pub fn sources_ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.tree.sources_ended()
    }

    /// The receipt log, for reading.
    #[must_use]
    pub fn receipt_log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.wired.ports.receipts)
    }

    /// The run log, for reading.
    #[must_use]
    pub fn run_log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.wired.ports.runs)
    }

    /// The quarantine, for reading.
    #[must_use]
    pub fn quarantine_log(&self) -> Arc<dyn Log> {
        Arc::clone(&self.wired.ports.quarantine)
    }

    /// Where the HTTP interface is reached.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http.address)
    }

    /// Runs until `stop` is ready or the tree fails; then stops in order.
    pub async fn run_until_stopped(mut self, stop: impl Future<Output = Reason>) -> ProcessExit {
        let reason = tokio::select! {
            biased;
            (kind, what) = self.tree.wait_for_failure() => {
                tracing::error!(error_detail = what, "the service failed");
                end_outside(self.http, &self.wired, Claim::Keep).await;
                return exit_of(kind);
            }
            lost = self.wired.place.wait_until_lost() => {
                tracing::error!(
                    error = %lost,
                    "the data directory was taken away; nothing more is acknowledged, and what is not on another disk is lost"
                );
                end_outside(self.http, &self.wired, Claim::Keep).await;
                return ProcessExit::Io;
            }
            what = wait_until_fenced(&mut self.trading) => {
                tracing::error!(error_detail = what, "the journal has a later writer");
                end_outside(self.http, &self.wired, Claim::Keep).await;
                return exit_of(FatalKind::Fenced);
            }
            reason = stop => reason,
        };
        tracing::info!(?reason, "stopping");
        let Self { tree, trading, wired, http, metrics, grace, _mark_shown } = self;
        let begun = Instant::now();
        let trading_exit = stop_trading(trading, grace * TRADING_SHARE_PERCENT / 100).await;
        let grace = grace.saturating_sub(begun.elapsed());
        if let Some(intake) = &wired.intake {
            intake.close_intake();
        }
        let given_up = tree.source_given_up();
        let times = tree.times.clone();
        let stopped = tree.stop(grace).await;
        // A server that does not answer would only cost more time; the claim ends by itself.
        let claim = if stopped == StopOutcome::Clean { Claim::Release } else { Claim::Keep };
        end_outside(http, &wired, claim).await;
        for sentence in times.current_notes().to_sentences() {
            tracing::warn!(domain = "ingest", "{sentence}");
        }
        match stopped {
            StopOutcome::Clean if given_up && reason == Reason::SourcesEnded => {
                tracing::error!("stopped; a source could not be read to its end");
                ProcessExit::Unavailable
            }
            StopOutcome::Clean => {
                let ingested = metrics.map(|metrics| metrics.ingested_totals()).unwrap_or_default();
                let exit =
                    if reason == Reason::SourcesEnded { exit_of_sources(ingested) } else { ProcessExit::Ok };
                tracing::info!("stopped");
                // What the engine plane has to say comes first.
                if exit == ProcessExit::Ok { trading_exit } else { exit }
            }
            StopOutcome::Failed(kind, what) => {
                tracing::error!(error_detail = what, "failed while stopping");
                exit_of(kind)
            }
            StopOutcome::Unfinished(step) => {
                tracing::error!(
                    step,
                    "stopped before everything was finished; the logs hold it and the next start goes on"
                );
                ProcessExit::Unavailable
            }
        }
    }
}

/// The trading plane's share of the grace, in per cent: it stops first, and the engine plane has the rest.
const TRADING_SHARE_PERCENT: u32 = 50;

async fn wait_until_fenced(trading: &mut Option<TradingHost>) -> String {
    match trading {
        Some(trading) => trading.wait_until_fenced().await,
        None => std::future::pending().await,
    }
}

/// Stops the trading plane, if there is one, and says how the process ends because of it.
async fn stop_trading(trading: Option<TradingHost>, grace: Duration) -> ProcessExit {
    let Some(trading) = trading else { return ProcessExit::Ok };
    match trading.stop(grace).await {
        TradingStop::Clean => ProcessExit::Ok,
        TradingStop::Unfinished(step) => {
            tracing::error!(
                step,
                "the trading plane stopped before everything was finished; the journal has it"
            );
            ProcessExit::Unavailable
        }
        TradingStop::Failed(failure) => {
            tracing::error!(error_detail = failure.what, "the trading plane had failed");
            exit_of(failure.kind)
        }
    }
}

/// How a run of sources that ended by themselves ends: that none of what they brought is a receipt is no success.
fn exit_of_sources(ingested: Ingested) -> ProcessExit {
    let Ingested { appended, duplicate, quarantined } = ingested;
    if quarantined == 0 {
        return ProcessExit::Ok;
    }
    if appended + duplicate == 0 {
        tracing::error!(
            quarantined,
            "nothing that the sources brought is a receipt; it is all in the quarantine, each with its reason"
        );
        return ProcessExit::Different;
    }
    tracing::warn!(appended, duplicate, quarantined, "some of what the sources brought is no receipt");
    ProcessExit::Ok
}

/// Treatment of the writer's claim on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Another instance may start at once.
    Release,
    /// It runs out.
    Keep,
}

async fn end_outside(http: Http, wired: &Wired, claim: Claim) {
    http.end_server().await;
    let engine = async {
        if let Some(workers) = &wired.workers {
            workers.shut_down_workers().await;
        }
    };
    tokio::join!(engine, wired.stage_workers.shut_down_workers());
    if let (Claim::Release, Some(server)) = (claim, &wired.server)
        && let Err(error) = server.release_writer().await
    {
        tracing::warn!(%error, "the writer's claim was not released; it ends by itself");
    }
}

/// What the interface needs of the trading plane.
fn trading_faces(host: &TradingHost, board: StatusBoard, config: &Config) -> TradingFaces {
    let has_bus = !config.trading.events.connection.url.is_empty();
    let door = host.door();
    let neighbours = move || {
        let services = door.borrow().as_ref().map(|plane| plane.view.list_services()).unwrap_or_default();
        let is_lost = |condition| board.holds_condition(&condition);
        let is_connected = || !is_lost(Condition::EventsBehind) && !is_lost(Condition::EventIntakeDown);
        TradingNeighbours {
            event_bus: has_bus.then(is_connected),
            services: services
                .into_iter()
                .map(|(name, health)| (name, health == ServiceHealth::Healthy))
                .collect(),
        }
    };
    TradingFaces {
        door: host.door(),
        code: code_identity(),
        event_style: Arc::new(event_style(config)),
        neighbours: Arc::new(neighbours),
    }
}

fn api_state(
    config: &Config,
    tree: &Tree,
    wired: &Wired,
    metrics: Option<Arc<Metrics>>,
    shutdown: &CancellationToken,
) -> ApiState {
    let gate = tree.gate.clone();
    let render = move || {
        gate.report_to_telemetry();
        metrics.as_ref().and_then(|metrics| metrics.encode_text().ok()).unwrap_or_default()
    };
    ApiState {
        intake: wired.intake.clone().map(|intake| Arc::new(intake) as Arc<dyn Intake>),
        buffer: tree.actor_addresses().buffer.clone(),
        receipts: Arc::clone(&wired.ports.receipts),
        quarantine: Arc::clone(&wired.ports.quarantine),
        runs: Arc::clone(&wired.ports.runs),
        committed: tree.committed.clone(),
        clock: Arc::clone(&wired.ports.clock),
        board: tree.board.clone(),
        flow: tree.flow.clone(),
        publisher: tree.actor_addresses().publisher.clone(),
        reached: tree.reached.clone(),
        gate: tree.gate.clone(),
        operators: wired.operators.clone(),
        trading: None,
        public_config: wiring::public_config(config),
        // No pipeline of this release calls one.
        called_services: Arc::new(CalledServices::default),
        wall_now,
        metrics: api::MetricsPage { render: Arc::new(render), content_type: CONTENT_TYPE },
        durability: wired.durability,
        version: VERSION,
        limits: wiring::http_limits(config),
        shutdown: shutdown.clone(),
    }
}
