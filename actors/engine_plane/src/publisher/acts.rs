//! What operators decide about held outputs: recorded first, then done.

use orchestrator_kernel::engine::contracts::manifest::{OperatorRecord, OutputsAct};
use orchestrator_kernel::engine::outbox::{HeldChoice, Skips};
use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::log::{AppendError, ReadError};
use orchestrator_runtime::act_log::ActLog;

use super::PublisherState;

/// An operator's decision about a held symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRequest {
    /// Whose outputs.
    pub symbol: Symbol,
    /// What becomes of them.
    pub choice: HeldChoice,
    /// Who decides.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// When, for people.
    pub at_ms: TsMs,
}

/// Reason for which a decision was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// Nothing of this symbol waits.
    #[error("no output of {symbol:?} is held")]
    NotHeld {
        /// Which.
        symbol: String,
    },
    /// It could not be recorded, and nothing was done.
    #[error("the act cannot be recorded, so nothing was done")]
    NotRecorded(#[source] AppendError),
    /// Nobody knows whether it was recorded. It is done at the next start, if it was.
    #[error("it is not known whether the act was recorded: list what is held, and repeat it")]
    InDoubt(#[source] AppendError),
}

impl PublisherState {
    /// Carries out an operator's decision, once its record is durable. Returns what it came to.
    pub(super) async fn carry_out_decision(
        &mut self,
        request: &HeldRequest,
    ) -> Result<Vec<OutputsAct>, HeldError> {
        let acts = self.progress.holds.acts_for_choice(&request.symbol, request.choice);
        if acts.is_empty() {
            return Err(HeldError::NotHeld { symbol: request.symbol.to_string() });
        }
        for act in &acts {
            if !mutant!(SkipsWithoutRecord) {
                self.record_act(request, act).await?;
            }
            self.skips.note_act(act);
            tracing::warn!(
                domain = "publish", operator = request.operator, reason = request.reason, %act,
                "an operator decided about held outputs"
            );
        }
        self.progress.holds.retry_symbol(&request.symbol);
        self.forget_skipped();
        self.note_progress();
        self.show_held();
        Ok(acts)
    }

    async fn record_act(&mut self, request: &HeldRequest, act: &OutputsAct) -> Result<(), HeldError> {
        let HeldRequest { operator, reason, at_ms, .. } = request;
        let record = OperatorRecord {
            at_ms: *at_ms,
            operator: operator.clone(),
            reason: reason.clone(),
            runs_tail: self.args.committed.borrow().tail,
            act: act.clone(),
        };
        match self.args.act_log.record_act(&record).await {
            Ok(()) => {}
            Err(unknown @ AppendError::Unknown { .. }) => return Err(HeldError::InDoubt(unknown)),
            Err(refused) => return Err(HeldError::NotRecorded(refused)),
        }
        // With it, an earlier one that was in doubt has become durable.
        match read_skips(&self.args.act_log).await {
            Ok(known) => self.skips = known,
            Err(error) => tracing::debug!(%error, "the acts of operators cannot be read again now"),
        }
        Ok(())
    }
}

/// What operators skipped, as the records of their acts say.
pub(super) async fn read_skips(act_log: &ActLog) -> Result<Skips, ReadError> {
    Ok(Skips::from_acts(act_log.read_acts().await?.iter().map(|record| &record.act)))
}
