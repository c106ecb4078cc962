//! Plays a capture through the live tree to its end, and stops the tree in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_actors::tree::{StopOutcome, Tree};
use orchestrator_engine_plane::recorded_times::OddTimes;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::log::Log;
use orchestrator_runtime::fatal::{Fatal, FatalKind};
use orchestrator_runtime::status::Condition;
use orchestrator_trading_plane::plane::TradingStop;
use tokio::time::Instant;

use super::latency::{Calls, Latency};
use crate::config::Config;
use crate::process::exit::ProcessExit;
use crate::process::exit::exit_of;
use crate::service::trading::TradingHost;
use crate::service::wiring::backtest::{BacktestCapture, CaptureProgress, wire_backtest};
use crate::service::wiring::trading::TradingParts;
use crate::service::wiring::{Wired, WiringError};

/// Plan of a backtest.
pub struct BacktestPlan<'a> {
    /// The configuration, already [staged](crate::service::wiring::backtest::stage_config).
    pub config: &'a Config,
    /// The capture.
    pub capture: &'a BacktestCapture,
    /// Longest line of a capture file in bytes; a longer one goes to the quarantine.
    pub line_bytes_max: usize,
    /// How far the clock goes on after the last receipt. `None`: no further.
    pub until: Option<TsMs>,
}

/// End of a backtest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The capture was read to its end and everything that was due is done.
    Complete,
    /// The capture could not be read to its end; what was read is done.
    Unreadable(String),
    /// Somebody asked it to stop.
    Interrupted,
}

/// Result of a finished backtest.
pub struct Played {
    /// The receipt log.
    pub receipts: Arc<dyn Log>,
    /// The run log.
    pub runs: Arc<dyn Log>,
    /// The quarantine.
    pub quarantine: Arc<dyn Log>,
    /// The journal; nothing where no cycles were run.
    pub journal: Option<Arc<dyn Log>>,
    /// How it ended.
    pub end: End,
    /// What was wrong at the end: the stable word and its details.
    pub conditions: Vec<(String, String)>,
    /// What was odd about the capture's times.
    pub times: OddTimes,
    /// How long it took, without the start of the engine.
    pub took: Duration,
    /// How long the engine's calls took.
    pub latency: Latency,
}

/// Reason for which there is no result.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// Something could not be opened.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// An actor could not start.
    #[error(transparent)]
    Tree(#[from] Fatal),
    /// The tree failed.
    #[error("the backtest failed: {what}")]
    Failed {
        /// Whose fault.
        kind: FatalKind,
        /// What happened.
        what: String,
    },
    /// The end did not come in time.
    #[error("the step {step} of the end was not finished in {grace:?}; give service.grace more time")]
    Unfinished {
        /// Which step.
        step: &'static str,
        /// The time it had.
        grace: Duration,
    },
}

impl PlayError {
    /// How the process ends because of it.
    #[must_use]
    pub fn to_exit(&self) -> ProcessExit {
        match self {
            Self::Wiring(error) => error.to_exit(),
            Self::Tree(Fatal { kind, .. }) | Self::Failed { kind, .. } => exit_of(*kind),
            Self::Unfinished { .. } => ProcessExit::Unavailable,
        }
    }
}

/// How often progress is told.
const REFRESH: Duration = Duration::from_millis(200);
/// Time for the ordered end of a complete backtest, at least: outputs may wait to be written.
const GRACE_MIN: Duration = Duration::from_secs(300);

/// Plays `plan` until the capture has ended or `stop` is ready. `show` is told now and then how far it is: the
/// progress, and the receipts that are durable.
///
/// # Errors
///
/// [`PlayError`]: nothing of the result counts then.
pub async fn play_capture(
    plan: &BacktestPlan<'_>,
    stop: impl Future<Output = ()>,
    mut show: impl FnMut(&CaptureProgress, u64),
) -> Result<Played, PlayError> {
    let calls = Arc::new(Calls::default());
    let (mut wired, progress) =
        wire_backtest(plan.config, plan.capture, plan.line_bytes_max, Arc::clone(&calls) as Arc<_>).await?;
    let journal = wired.trading.as_ref().map(TradingParts::journal_log);
    let trading = wired.trading.take();
    let begun = Instant::now();
    let played = play_wired(plan, &wired, trading, stop, || {
        show(&progress, wired.ports.receipts.stat().tail.0);
    })
    .await;
    if let Some(workers) = &wired.workers {
        workers.shut_down_workers().await;
    }
    wired.stage_workers.shut_down_workers().await;
    let (end, conditions, times) = played?;
    Ok(Played {
        receipts: Arc::clone(&wired.ports.receipts),
        runs: Arc::clone(&wired.ports.runs),
        quarantine: Arc::clone(&wired.ports.quarantine),
        journal,
        end,
        conditions,
        times,
        took: begun.elapsed(),
        latency: calls.current_latency(),
    })
}

/// Reason for which the tree is stopped.
enum Ending {
    SourceEnded,
    Asked,
    /// The trading plane ended: what would come has no cycles.
    TradingStopped,
}

async fn play_wired(
    plan: &BacktestPlan<'_>,
    wired: &Wired,
    trading: Option<TradingParts>,
    stop: impl Future<Output = ()>,
    mut show: impl FnMut(),
) -> Result<(End, Vec<(String, String)>, OddTimes), PlayError> {
    let mut tree = Tree::start(wired.ports.clone(), &wired.settings).await?;
    let trading = trading.map(|parts| TradingHost::start(parts.join_tree(&tree)));
    let ended = tree.sources_ended();
    let clock = Arc::clone(&wired.ports.clock);
    let done = async move {
        ended.await;
        if let Some(until) = plan.until {
            // A deadline *before* the moment fires, and the moment itself is to be over.
            clock.advance(until.plus_ms(1)).await;
        }
    };
    tokio::pin!(done, stop);
    let ending = loop {
        tokio::select! {
            biased;
            (kind, what) = tree.wait_for_failure() => return Err(PlayError::Failed { kind, what }),
            () = &mut stop => break Ending::Asked,
            () = &mut done => break Ending::SourceEnded,
            () = tokio::time::sleep(REFRESH) => show(),
        }
        if tree.board.holds_condition(&Condition::TradingStopped) {
            break Ending::TradingStopped;
        }
    };
    let given_up = tree.source_given_up();
    let conditions = tree.board.current_status().conditions;
    let grace = match ending {
        Ending::SourceEnded => plan.config.service.grace.max(GRACE_MIN),
        Ending::Asked | Ending::TradingStopped => plan.config.service.grace,
    };
    let end = match ending {
        Ending::Asked | Ending::TradingStopped => End::Interrupted,
        Ending::SourceEnded if given_up => End::Unreadable(source_detail(&conditions)),
        Ending::SourceEnded => End::Complete,
    };
    let times = tree.times.clone();
    let begun = Instant::now();
    let cycles = stop_cycles(trading, grace / 2).await;
    let grace = grace.saturating_sub(begun.elapsed());
    let stopped = tree.stop(grace).await;
    cycles?;
    match stopped {
        StopOutcome::Clean => Ok((end, shown_conditions(conditions), times.current_notes())),
        StopOutcome::Failed(kind, what) => Err(PlayError::Failed { kind, what }),
        StopOutcome::Unfinished(step) => Err(PlayError::Unfinished { step, grace }),
    }
}

/// Ends the trading plane, if there is one: all that it decided is in the journal then.
async fn stop_cycles(trading: Option<TradingHost>, grace: Duration) -> Result<(), PlayError> {
    let Some(trading) = trading else { return Ok(()) };
    match trading.stop(grace).await {
        TradingStop::Clean => Ok(()),
        TradingStop::Unfinished(step) => Err(PlayError::Unfinished { step, grace }),
        TradingStop::Failed(failure) => {
            let what = format!("the trading plane stopped: {}", failure.what);
            Err(PlayError::Failed { kind: failure.kind, what })
        }
    }
}

/// Why the capture was given up.
fn source_detail(conditions: &BTreeMap<Condition, String>) -> String {
    let is_source = |condition: &Condition| matches!(condition, Condition::SourceDown(_));
    let down = conditions.iter().find(|(condition, _)| is_source(condition));
    down.map_or_else(|| "no reason is known".to_owned(), |(_, detail)| detail.clone())
}

/// What concerns a backtest, besides its capture, which is told by how it ended: it has no effects, so a kill switch
/// means nothing to it.
fn shown_conditions(conditions: BTreeMap<Condition, String>) -> Vec<(String, String)> {
    let name = |condition: &Condition| match condition {
        Condition::SourceDown(of)
        | Condition::SourceUnsettled(of)
        | Condition::SymbolHalted(of)
        | Condition::OutputHeld(of)
        | Condition::ServiceUnhealthy(of)
        | Condition::CalendarEnding(of) => {
            format!("{} {of}", condition.runbook_word())
        }
        Condition::BufferFailing
        | Condition::RunLogFailing
        | Condition::PublishBlocked
        | Condition::PublishDegraded
        | Condition::FanOutBlocked
        | Condition::SymbolLimit
        | Condition::ClockBehind
        | Condition::RetentionFailing
        | Condition::MarkStale
        | Condition::ProducerLimit
        | Condition::KillSwitchEngaged
        | Condition::KillSwitchUnknown
        | Condition::JournalFailing
        | Condition::TradingStopped
        | Condition::TradingCatchingUp
        | Condition::CyclesFailing
        | Condition::AgentError
        | Condition::JournalRetentionFailing
        | Condition::HistoryBehind
        | Condition::EventsBehind
        | Condition::EventIntakeDown => condition.runbook_word().to_owned(),
    };
    let is_source =
        |condition: &Condition| matches!(condition, Condition::SourceDown(_) | Condition::SourceUnsettled(_));
    let degrading = conditions.into_iter();
    let degrading = degrading.filter(|(condition, _)| condition.degrades_service() && !is_source(condition));
    degrading.map(|(condition, detail)| (name(&condition), detail)).collect()
}
