//! The trading plane beside the engine plane: it starts without holding that up, is watched, and stops first.
//!
//! ```text
//! host ┬ plane        the actors
//!      ├ follow runs      ─▶ market, schedules that wait for outputs ┐ on a recording one task does both, in step
//!      ├ follow receipts  ─▶ market                                  ┘ with its clock
//!      └ take events      ─▶ commands, schedules that wait for them
//! ```
//!
//! Nothing here ends the process but one thing: a later writer that took the journal over. Whatever else ends the
//! plane leaves the engine plane running, with `trading_stopped` on the board.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::clock::Clock;
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_trading_plane::plane::{
    TradingFailure, TradingHandle, TradingPlane, TradingStop, start_trading_plane,
};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::wiring::trading::events::spawn_event_intake;
use super::wiring::trading::{MarketFeed, RecordedStep, TradingStart};

mod feed;
mod recorded;

/// Door to the plane for faces: nothing while it starts, and again when it has stopped.
pub type TradingDoor = watch::Receiver<Option<TradingHandle>>;

/// A trading plane that starts, runs, or has stopped.
pub struct TradingHost {
    door: TradingDoor,
    stop: oneshot::Sender<Duration>,
    /// Ready when a later writer has taken the journal over, with what was seen.
    fenced: Option<oneshot::Receiver<String>>,
    task: JoinHandle<TradingStop>,
}

impl TradingHost {
    /// Begins to start the plane.
    #[must_use]
    pub fn start(start: TradingStart) -> Self {
        let (open, door) = watch::channel(None);
        let (stop, asked) = oneshot::channel();
        let (tell_fenced, fenced) = oneshot::channel();
        let task = tokio::spawn(host_plane(start, open, asked, tell_fenced));
        Self { door, stop, fenced: Some(fenced), task }
    }

    /// The door for faces.
    #[must_use]
    pub fn door(&self) -> TradingDoor {
        self.door.clone()
    }

    /// Waits until the process has to end because of the plane, and says why. Waits for ever otherwise.
    pub async fn wait_until_fenced(&mut self) -> String {
        if let Some(fenced) = &mut self.fenced {
            let told = fenced.await;
            self.fenced = None;
            if let Ok(what) = told {
                return what;
            }
        }
        std::future::pending().await
    }

    /// Stops the plane in order, within `grace`.
    pub async fn stop(self, grace: Duration) -> TradingStop {
        // It answers with its end whether it hears this or has ended.
        if self.stop.send(grace).is_err() {
            tracing::debug!("the trading plane had ended");
        }
        self.task.await.unwrap_or_else(|error| {
            TradingStop::Failed(TradingFailure { kind: FatalKind::Internal, what: error.to_string() })
        })
    }
}

/// The whole life of a plane. Returns when it is asked to stop, also when the plane ended long before.
async fn host_plane(
    start: TradingStart,
    open: watch::Sender<Option<TradingHandle>>,
    mut asked: oneshot::Receiver<Duration>,
    tell_fenced: oneshot::Sender<String>,
) -> TradingStop {
    let TradingStart { ports, settings, feed, intake, step } = start;
    let (board, clock) = (ports.board.clone(), Arc::clone(&ports.clock));
    if clock.is_driven() {
        // Its first records have the recording's time.
        tokio::select! {
            biased;
            _ = &mut asked => return TradingStop::Clean,
            _ = clock.wait_started() => {}
        }
    }
    let started = tokio::select! {
        biased;
        _ = &mut asked => return TradingStop::Unfinished("start"),
        started = start_trading_plane(ports, settings) => started,
    };
    let failure = match started {
        Ok(plane) => {
            open.send_replace(Some(plane.handle().clone()));
            tracing::info!("the trading plane runs");
            let handle = plane.handle().clone();
            let mut followers = match step {
                Some(step) => vec![spawn_step(step, feed, clock, handle)],
                None => feed::spawn_followers(feed, handle),
            };
            followers.extend(intake.map(|plan| spawn_event_intake(plan, plane.handle().clone(), board)));
            let ended = run_plane(plane, &mut asked, followers).await;
            open.send_replace(None);
            match ended {
                PlaneEnd::Stopped(stop) => return stop,
                PlaneEnd::Failed(failure) => failure,
            }
        }
        Err(fatal) => {
            // A recording goes on without it.
            drop(step);
            tracing::error!(error_detail = %fatal, "the trading plane did not start; the engine plane goes on");
            TradingFailure { kind: fatal.kind, what: fatal.to_string() }
        }
    };
    if failure.ends_process() && tell_fenced.send(failure.what.clone()).is_err() {
        tracing::debug!("the service is stopping already");
    }
    if asked.await.is_err() {
        tracing::debug!("the service ended without an ordered stop");
    }
    TradingStop::Failed(failure)
}

fn spawn_step(
    step: RecordedStep,
    feed: MarketFeed,
    clock: Arc<dyn Clock>,
    handle: TradingHandle,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(recorded::keep_step(step, feed, clock, handle)))
}

/// End of a plane that ran.
enum PlaneEnd {
    /// It was asked to.
    Stopped(TradingStop),
    /// It failed.
    Failed(TradingFailure),
}

async fn run_plane(
    mut plane: TradingPlane,
    asked: &mut oneshot::Receiver<Duration>,
    followers: Vec<AbortOnDropHandle<()>>,
) -> PlaneEnd {
    let grace = tokio::select! {
        biased;
        grace = asked => grace,
        failure = plane.wait_for_failure() => return PlaneEnd::Failed(failure),
    };
    // No output or event fires any more.
    drop(followers);
    match grace {
        Ok(grace) => PlaneEnd::Stopped(plane.stop(grace).await),
        Err(_) => {
            plane.kill().await;
            PlaneEnd::Stopped(TradingStop::Unfinished("service"))
        }
    }
}
