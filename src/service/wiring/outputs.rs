//! Held outputs of a service that is stopped: what waits, and an operator's decision for its next start.

use orchestrator_engine_plane::saved;
use orchestrator_kernel::engine::contracts::manifest::{OperatorRecord, OutputsAct};
use orchestrator_kernel::engine::outbox::{HeldChoice, Holds};
use orchestrator_kernel::ids::{RunSeq, Symbol};
use orchestrator_kernel::ports::checkpoint::LoadError;
use orchestrator_kernel::ports::log::AppendError;
use orchestrator_runtime::act_log::ActLog;

use super::reading::{LogsPlace, open_logs};
use super::{StartOptions, WiringError, storage};
use crate::adapters::files::data_dir::DataDir;
use crate::config::Config;
use crate::process::exit::ProcessExit;
use crate::process::time::wall_now;
use crate::service::manifest::ManifestError;

/// Reason for which held outputs could not be looked at, or decided about.
#[derive(Debug, thiserror::Error)]
pub enum HeldOutputsError {
    /// The logs cannot be opened.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// What is held cannot be read.
    #[error("cannot read which outputs are held")]
    Cursor(#[from] LoadError),
    /// Nothing of the symbol waits.
    #[error("no output of {symbol:?} is held; `orchestrator outputs list` names what is")]
    NotHeld {
        /// Which.
        symbol: String,
    },
}

impl HeldOutputsError {
    /// How the process ends because of it.
    #[must_use]
    pub fn to_exit(&self) -> ProcessExit {
        match self {
            Self::Wiring(error) => error.to_exit(),
            Self::Cursor(LoadError::Damaged { .. }) => ProcessExit::Data,
            Self::Cursor(LoadError::Io(error)) => ProcessExit::of_storage(error),
            Self::NotHeld { .. } => ProcessExit::Different,
        }
    }
}

/// What waits, as the stopped service saved it.
///
/// # Errors
///
/// [`HeldOutputsError`].
pub async fn read_held(config: &Config) -> Result<Holds, HeldOutputsError> {
    let recorded = open_logs(&LogsPlace::of_config(config)).await?;
    Ok(saved::load_progress(recorded.checkpoints.as_ref()).await?.unwrap_or_default().holds)
}

/// An operator's decision about the outputs of one symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldDecision {
    /// Whose outputs.
    pub symbol: String,
    /// What becomes of them.
    pub choice: HeldChoice,
    /// Who decides.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// Records a decision in the logs of a stopped service; its next start carries it out. Returns what it comes to.
///
/// # Errors
///
/// [`HeldOutputsError`]; [`ProcessExit::Held`] among them while a service runs.
pub async fn record_decision(
    config: &Config,
    decision: &HeldDecision,
) -> Result<Vec<OutputsAct>, HeldOutputsError> {
    let symbol = Symbol::from(decision.symbol.as_str());
    // Only looked at first: a directory that holds nothing is not made into one that does.
    if read_held(config).await?.acts_for_choice(&symbol, decision.choice).is_empty() {
        return Err(HeldOutputsError::NotHeld { symbol: decision.symbol.clone() });
    }
    let data_dir = DataDir::open(&config.service.data_dir).map_err(WiringError::from)?;
    let storage = storage::open_storage(config, &data_dir, StartOptions::default()).await?;
    let decided = append_decision(&storage, decision).await;
    if let Some(server) = &storage.server
        && let Err(error) = server.release_writer().await
    {
        tracing::warn!(%error, "the writer's claim was not released; it ends by itself");
    }
    decided
}

async fn append_decision(
    storage: &storage::Storage,
    decision: &HeldDecision,
) -> Result<Vec<OutputsAct>, HeldOutputsError> {
    let holds = saved::load_progress(storage.checkpoints.as_ref()).await?.unwrap_or_default().holds;
    let acts = holds.acts_for_choice(&Symbol::from(decision.symbol.as_str()), decision.choice);
    if acts.is_empty() {
        return Err(HeldOutputsError::NotHeld { symbol: decision.symbol.clone() });
    }
    let acquired =
        storage.manifests.acquire().await.map_err(ManifestError::from).map_err(WiringError::from)?;
    let act_log = ActLog::new(std::sync::Arc::clone(&storage.manifests), acquired);
    for act in &acts {
        let record = OperatorRecord {
            at_ms: wall_now(),
            operator: decision.operator.clone(),
            reason: decision.reason.clone(),
            runs_tail: RunSeq::from(storage.runs.stat().tail),
            act: act.clone(),
        };
        let refused = |error: AppendError| WiringError::from(ManifestError::from(error));
        act_log.record_act(&record).await.map_err(refused)?;
    }
    Ok(acts)
}
