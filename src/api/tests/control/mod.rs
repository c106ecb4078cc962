//! The trading plane's face: a real plane in memory behind the real router, on a real socket.

mod answers;
mod backtests;
mod commands;
mod events;
mod orchestration;
mod pages;
mod refusals;

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_kernel::ids::TsMs;
use orchestrator_trading_plane::plane::{TradingHandle, TradingPlane, TradingStop};
use orchestrator_trading_plane::settings::TradingSettings;
use orchestrator_trading_plane::testkit::{PlaneRig, WALL, trading_settings};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::fakes::FakeClock;
use super::*;
use crate::api::TradingNeighbours;

/// Seconds that the process's clock is behind the plane's start.
const LATER_S: i64 = 7;

/// A plane with its face.
struct Trading {
    rig: PlaneRig,
    /// Nothing between two incarnations.
    plane: Option<TradingPlane>,
    door: watch::Sender<Option<TradingHandle>>,
    service: Service,
}

/// A world whose cycles begin by command only.
fn by_hand() -> TradingSettings {
    let mut settings = trading_settings();
    settings.schedules.clear();
    settings
}

/// A face over this door.
async fn face_over(
    door: watch::Receiver<Option<TradingHandle>>,
    board: StatusBoard,
    limits: HttpLimits,
) -> Service {
    let neighbours = || TradingNeighbours {
        event_bus: Some(true),
        services: BTreeMap::from([("market-data".to_owned(), true)]),
    };
    let trading = TradingFaces {
        door,
        code: "1.0.0+abc".to_owned(),
        event_style: Arc::default(),
        neighbours: Arc::new(neighbours),
    };
    let clock = FakeClock { now: TsMs(WALL + LATER_S * 1000), is_driven: false };
    Setup { trading: Some(trading), board, clock, limits, ..Setup::default() }.start().await
}

impl Trading {
    async fn start() -> Self {
        Self::of(PlaneRig::new(by_hand())).await
    }

    async fn of(rig: PlaneRig) -> Self {
        Self::within(rig, HttpLimits::default()).await
    }

    async fn within(rig: PlaneRig, limits: HttpLimits) -> Self {
        let plane = rig.start().await;
        let door = watch::Sender::new(Some(plane.handle().clone()));
        let service = face_over(door.subscribe(), rig.board.clone(), limits).await;
        Self { rig, plane: Some(plane), door, service }
    }

    /// The same service with another incarnation of the plane, after a crash: the journal is read again.
    async fn crash_plane(&mut self) {
        self.door.send_replace(None);
        self.plane.take().expect("a plane").kill().await;
        self.start_plane().await;
    }

    /// The same after an ordered stop: its checkpoint has the state, and not the cycles that ended.
    async fn restart_plane(&mut self) {
        self.door.send_replace(None);
        let stopped = self.plane.take().expect("a plane").stop(DEADLINE * 3).await;
        assert_eq!(stopped, TradingStop::Clean);
        self.start_plane().await;
    }

    async fn start_plane(&mut self) {
        let plane = self.rig.start().await;
        self.door.send_replace(Some(plane.handle().clone()));
        self.plane = Some(plane);
    }

    async fn get(&self, path: &str) -> Answer {
        self.service.get(path).await
    }

    /// Posts a body under an idempotency key.
    async fn post(&self, path: &str, key: &str, body: &str) -> Answer {
        self.post_with(path, &[("content-type", "application/json"), ("idempotency-key", key)], body).await
    }

    async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.service.client.post(self.service.url(path)).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    async fn start_agent(&self) {
        let answer = self.post("/api/v1/agent/start", "start", "{}").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

impl Answer {
    /// Asserts a refusal in the trading plane's form; returns its detail.
    #[track_caller]
    fn refusal(&self, status: u16) -> Value {
        self.refusal_of(status, matches!(status, 408 | 429 | 503))
    }

    /// As [`refusal`](Self::refusal), of a request that must not be sent again as it is.
    #[track_caller]
    fn refusal_for_good(&self, status: u16) -> Value {
        self.refusal_of(status, false)
    }

    #[track_caller]
    fn refusal_of(&self, status: u16, retryable: bool) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("cache-control"), "no-store");
        let body = self.json();
        assert_eq!(body["retryable"], json!(retryable), "{}", self.text);
        let comes_later = retryable && matches!(status, 429 | 503);
        assert_eq!(self.headers.contains_key("retry-after"), comes_later, "{}", self.text);
        let members: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["detail", "retryable"]);
        assert_eq!(body["detail"].is_array(), status == 422, "{}", self.text);
        body["detail"].clone()
    }
}
