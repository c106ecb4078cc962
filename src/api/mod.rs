//! The HTTP interface: receipts in, outputs out, and how the service is. Nothing on it asks who is calling.
//!
//! ```text
//! producer ── POST /api/v1/receipts ──▶ Intake ──▶ ingest ──▶ receipt log     answered after the durable append
//! subscriber ◀── GET /api/v1/events ── run log                                read at the subscriber's own pace
//! operator ◀── /livez /readyz /health /metrics
//! operator ── POST /api/v1/outputs/held ──▶ publisher                          answered once the act is recorded
//! operator ── POST /api/v1/kill-switch/engage, disengage ──▶ operators' store  done first, then answered
//! operator ── /api/v1/agent, strategies, cycles ──▶ trading plane              while trading is on: see `control`
//! ```
//!
//! It knows the kernel and the actors, no adapter: the HTTP source stands behind the port [`Intake`].

mod admission;
mod body;
mod content;
mod control;
mod encoding;
mod event_stream;
mod events;
mod held;
mod kill_switch;
mod limits;
mod lines;
mod position;
mod problem;
mod producers;
mod receipts;
mod server;
mod service_info;
mod sse;
mod status;
mod stream_start;
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub mod testkit;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use orchestrator_engine_plane::buffer::messages::BufferMsg;
use orchestrator_engine_plane::flow::OutputFlow;
use orchestrator_engine_plane::publisher::messages::{PublishedUpTo, PublisherMsg};
use orchestrator_engine_plane::run_log::messages::Committed;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::source::Intake;
use orchestrator_runtime::address::Address;
use orchestrator_runtime::kill_switch::Gate;
use orchestrator_runtime::status::StatusBoard;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub use control::{TradingFaces, TradingNeighbours};
pub use held::held_json as held_outputs;
pub use kill_switch::OperatorDesk;
pub use limits::HttpLimits;
use problem::{Problem, ProblemKind};
pub use server::serve_router;
pub use service_info::PublicConfig;
pub use status::{CalledService, CalledServices};

/// Parts of the interface; put together by the wiring.
pub struct ApiState {
    /// Takes receipts. `None` when no source of kind `http` is configured: then posts are answered 404.
    pub intake: Option<Arc<dyn Intake>>,
    /// Asked how far a producer has come.
    pub buffer: Address<BufferMsg>,
    /// The receipt log, for its size.
    pub receipts: Arc<dyn Log>,
    /// The quarantine, for its size.
    pub quarantine: Arc<dyn Log>,
    /// The run log, which the outputs are read from.
    pub runs: Arc<dyn Log>,
    /// Announces what becomes durable in the run log.
    pub committed: watch::Receiver<Committed>,
    /// Gives `published_ts_ms`; a driven clock gives none.
    pub clock: Arc<dyn Clock>,
    /// Readiness and conditions.
    pub board: StatusBoard,
    /// How many outputs wait for the fan-outs.
    pub flow: OutputFlow,
    /// Told what operators decide about held outputs.
    pub publisher: Address<PublisherMsg>,
    /// Which outputs are held.
    pub reached: PublishedUpTo,
    /// What is known of the kill switch.
    pub gate: Gate,
    /// Where operators change it.
    pub operators: OperatorDesk,
    /// The trading plane. `None` while trading is off: its paths are then as if they had never been.
    pub trading: Option<TradingFaces>,
    /// What of the configuration others may know.
    pub public_config: PublicConfig,
    /// Looks at the services that are called. Must not block.
    pub called_services: Arc<dyn Fn() -> CalledServices + Send + Sync>,
    /// The time of this machine, for what people read.
    pub wall_now: fn() -> TsMs,
    /// What `/metrics` answers.
    pub metrics: MetricsPage,
    /// What makes a receipt count as durable, in one word.
    pub durability: &'static str,
    /// The version of the service.
    pub version: &'static str,
    /// Bounds of requests and streams.
    pub limits: HttpLimits,
    /// Ends the streams, so that the server can stop.
    pub shutdown: CancellationToken,
}

/// Renders the metrics.
#[derive(Clone)]
pub struct MetricsPage {
    /// The text of one scrape. Must not block.
    pub render: Arc<dyn Fn() -> String + Send + Sync>,
    /// Its content type.
    pub content_type: &'static str,
}

impl fmt::Debug for MetricsPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({})", self.content_type)
    }
}

/// The state and the bounds that all requests share.
struct Shared {
    state: ApiState,
    /// Streams that may still begin.
    subscribers: Arc<Semaphore>,
    /// Bytes of request bodies that may still be held.
    body_bytes: Arc<Semaphore>,
}

/// The routes. Serve them with [`serve_router`]: the timeouts of connections are there.
pub fn build_router(state: ApiState) -> Router {
    let limits = state.limits;
    let trading = state.trading.clone();
    let shared = Arc::new(Shared {
        state,
        subscribers: Arc::new(Semaphore::new(limits.subscribers_max)),
        body_bytes: Arc::new(Semaphore::new(limits.body_bytes_in_flight_max.max(limits.body_bytes_max))),
    });
    let control = trading.map(|faces| control::control_routes(&shared, faces));
    let has_trading = control.is_some();
    Router::new()
        .merge(control.unwrap_or_default())
        .route("/", get(service_info::get_index))
        .route("/api/v1/config", get(service_info::get_config))
        .route("/livez", get(status::get_livez))
        .route("/readyz", get(status::get_readyz))
        .route("/health", get(status::get_health))
        .route("/metrics", get(status::get_metrics))
        .route("/api/v1/receipts", post(receipts::post_receipts))
        .route("/api/v1/producers/{id}", get(producers::get_producer))
        .route("/api/v1/events", get(events::get_events))
        .route("/api/v1/outputs/held", get(held::list_held).post(held::decide_held))
        .route("/api/v1/kill-switch/status", get(kill_switch::get_status))
        .route("/api/v1/kill-switch/engage", post(control::post_engage))
        .route("/api/v1/kill-switch/disengage", post(control::post_disengage))
        .fallback(move |uri: Uri| async move { nothing_there(&uri, has_trading) })
        .method_not_allowed_fallback(async || {
            Problem::new(ProblemKind::MethodNotAllowed, "the Allow header names the methods of this path")
        })
        .layer(axum::middleware::map_response(never_stored))
        .with_state(shared)
}

fn nothing_there(uri: &Uri, has_trading: bool) -> Response {
    match has_trading && control::is_trading_path(uri.path()) {
        true => control::nothing_there(),
        false => Problem::new(ProblemKind::NotFound, "GET / lists the endpoints").into_response(),
    }
}

/// Every answer is true for this moment only.
async fn never_stored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
