//! The service as it introduces itself: `/` and `/api/v1/config`, as specification 004 has them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use orchestrator_kernel::rfc3339::to_rfc3339;
use serde::Serialize;
use serde_json::{Value, json};

use super::Shared;

/// The service's name in what it answers.
pub(super) const SERVICE: &str = "orchestrator";

/// Every path, for programs; people have them on the page.
const ENDPOINTS: [&str; 14] = [
    "GET /",
    "GET /livez",
    "GET /readyz",
    "GET /health",
    "GET /metrics",
    "GET /api/v1/config",
    "POST /api/v1/receipts",
    "GET /api/v1/producers/{id}",
    "GET /api/v1/events",
    "GET /api/v1/outputs/held",
    "POST /api/v1/outputs/held",
    "GET /api/v1/kill-switch/status",
    "POST /api/v1/kill-switch/engage",
    "POST /api/v1/kill-switch/disengage",
];

/// Those of the trading plane, there while it is on.
const TRADING_ENDPOINTS: [&str; 20] = [
    "POST /api/v1/agent/start",
    "POST /api/v1/agent/stop",
    "POST /api/v1/agent/pause",
    "POST /api/v1/agent/resume",
    "GET /api/v1/agent/status",
    "GET /api/v1/strategies",
    "POST /api/v1/strategies/{id}/activate",
    "POST /api/v1/strategies/{id}/deactivate",
    "POST /api/v1/strategies/{id}/analyze",
    "GET /api/v1/cycles",
    "POST /api/v1/cycles",
    "GET /api/v1/cycles/{id}",
    "GET /api/v1/backtests",
    "POST /api/v1/backtests",
    "GET /api/v1/backtests/{id}",
    "GET /api/v1/schedules",
    "GET /api/v1/orchestration/runs",
    "GET /api/v1/orchestration/runs/{id}",
    "POST /api/v1/kill-switch/latch",
    "POST /api/v1/kill-switch/release",
];

/// What the configuration says that others may know. No secret, and no address with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicConfig {
    /// `dev` or `prod`.
    pub environment: &'static str,
    /// Whether orders end as computed.
    pub dry_run: bool,
    /// Whether it is not real money that is traded.
    pub alpaca_paper: bool,
    /// Whether calls of services that fail are broken off for a while.
    pub circuit_breaker_enabled: bool,
}

/// Body of `GET /api/v1/config`.
#[derive(Debug, Serialize)]
struct ConfigAnswer {
    service: &'static str,
    version: &'static str,
    environment: &'static str,
    dry_run: bool,
    alpaca_paper: bool,
    circuit_breaker_enabled: bool,
    timestamp: String,
}

/// `GET /api/v1/config`.
pub(super) async fn get_config(State(shared): State<Arc<Shared>>) -> Response {
    let state = &shared.state;
    let PublicConfig { environment, dry_run, alpaca_paper, circuit_breaker_enabled } = state.public_config;
    let answer = ConfigAnswer {
        service: SERVICE,
        version: state.version,
        environment,
        dry_run,
        alpaca_paper,
        circuit_breaker_enabled,
        timestamp: to_rfc3339((state.wall_now)()),
    };
    Json(answer).into_response()
}

/// `GET /`: the service for programs, and the same as a page for who would rather have one.
pub(super) async fn get_index(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let has_trading = shared.state.trading.is_some();
    let mut answer = match prefers_page(&headers) {
        true => make_page(has_trading).into_response(),
        false => Json(describe_service(shared.state.version, has_trading)).into_response(),
    };
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    answer
}

fn make_page(has_trading: bool) -> Html<String> {
    let page = include_str!("index.html");
    // The trading plane's come last, where there is one.
    Html(match (has_trading, page.rsplit_once("</dl>")) {
        (true, Some((head, tail))) => format!("{head}{}</dl>{tail}", include_str!("control/index.html")),
        (_, _) => page.to_owned(),
    })
}

fn describe_service(version: &str, has_trading: bool) -> Value {
    let trading = TRADING_ENDPOINTS.iter().filter(|_| has_trading);
    json!({
        "service": SERVICE,
        "version": version,
        "description": "Receipts to engine runs to outputs; schedules to cycles to orders",
        "endpoints": ENDPOINTS.iter().chain(trading).collect::<Vec<_>>(),
        "trading": has_trading,
    })
}

/// Whether a page is preferred to JSON. Who does not say gets JSON, as specification 004 has it.
fn prefers_page(headers: &HeaderMap) -> bool {
    let lines: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok()).collect();
    let accept = lines.join(",");
    quality_of(&accept, "application", "json") < quality_of(&accept, "text", "html")
}

/// How much a type is wanted, in thousandths: what the range says that names it most exactly.
///
/// Source: RFC 9110, section 12.5.1.
fn quality_of(accept: &str, kind: &str, subtype: &str) -> u16 {
    let ranges = accept.split(',').filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let (range_kind, range_subtype) = parts.next()?.split_once('/')?;
        let is_kind = range_kind.eq_ignore_ascii_case(kind);
        let exactness = match (range_kind, range_subtype) {
            ("*", "*") => 0,
            (_, "*") if is_kind => 1,
            (_, _) if is_kind && range_subtype.eq_ignore_ascii_case(subtype) => 2,
            (_, _) => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((exactness, weight.map_or(1000, read_thousandths)))
    });
    ranges.max().map_or(0, |(_, thousandths)| thousandths)
}

/// A weight of `Accept`; one that is none counts as nothing.
fn read_thousandths(weight: &str) -> u16 {
    let weight = weight.parse::<f64>().ok().filter(|weight| (0.0..=1.0).contains(weight));
    weight.map_or(0, |weight| (weight * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_for_who_prefers_one() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, is_page) in [
            (firefox, true),
            ("text/html", true),
            ("text/*;q=0.5", true),
            ("TEXT/HTML; q=0.4, application/json; q=0.3", true),
            ("*/*;q=0.1, text/html", true),
            ("", false),
            ("*/*", false),
            ("application/json", false),
            ("application/json, text/html", false),
            ("text/html;q=0.5, application/json", false),
            ("text/html;q=0.5, */*", false),
            ("text/html;q=0, */*;q=0.1", false),
            ("text/html;q=2", false),
            ("nonsense, /, ;q=1", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(prefers_page(&headers), is_page, "{accept}");
        }
        assert!(!prefers_page(&HeaderMap::new()));
    }

    #[test]
    fn every_path_is_on_the_page_too() {
        let page = make_page(true).0;
        for endpoint in ENDPOINTS.iter().chain(&TRADING_ENDPOINTS) {
            let (_, path) = endpoint.split_once(' ').unwrap();
            // The page names what follows an id, or a sister path, by its last word.
            let last = path.rsplit('/').find(|part| !part.starts_with('{')).unwrap();
            assert!(page.contains(last), "{endpoint}");
        }
    }
}
