//! What telemetry and the board are told of the journal, record by record, once it is durable.

use std::sync::Arc;

use orchestrator_kernel::ports::observer::{Observation, Observer, TradingObservation};
use orchestrator_kernel::trading::agent::AgentStatus;
use orchestrator_kernel::trading::cycle::CycleErrorCode;
use orchestrator_kernel::trading::journal::{
    CycleEnded, JournalEntry, JournalFact, JournalIndex, StageError, StageOutcome,
};
use orchestrator_kernel::trading::strategy::StrategyStatus;
use orchestrator_runtime::status::{Condition, StatusBoard};

use crate::view::TradingView;

/// Cycles that fail one after the other before people are told.
const FAILED_IN_A_ROW: u64 = 3;

/// Tells telemetry and the board of a journal.
pub(super) struct JournalWatch {
    pub(super) observer: Arc<dyn Observer>,
    pub(super) board: StatusBoard,
    pub(super) view: TradingView,
}

impl JournalWatch {
    /// Tells of a record that became durable; `index` has it already.
    pub(super) fn tell_entry(&self, entry: &JournalEntry, index: &JournalIndex) {
        match &entry.fact {
            JournalFact::StageEnded(ended) => self.observe(TradingObservation::StageEnded {
                stage: ended.name.as_str(),
                error: match &ended.outcome {
                    StageOutcome::Done(_) => None,
                    StageOutcome::Failed(error) => Some(StageError::error_code(error).as_str()),
                },
                seconds: ms_to_seconds(ended.took_ms),
            }),
            JournalFact::CycleEnded(ended) => {
                self.tell_cycle(ended);
                self.show_conditions(index);
            }
            JournalFact::ScheduleFired(fired) if fired.trigger.is_planned() => {
                let late_ms = entry.at_ms.0.saturating_sub(fired.planned_ts_ms.0).max(0);
                let lag_seconds = ms_to_seconds(late_ms.unsigned_abs());
                self.observe(TradingObservation::ScheduleFired { lag_seconds });
            }
            JournalFact::ScheduleSkipped(skipped) => self.observe(TradingObservation::FiresSkipped {
                reason: skipped.reason.as_str(),
                count: skipped.fires,
            }),
            JournalFact::AgentChanged(_) | JournalFact::StrategyChanged(_) => {
                self.tell_agent(index);
                self.show_conditions(index);
            }
            JournalFact::ScheduleFired(_)
            | JournalFact::CommandReceived(_)
            | JournalFact::CommandEnded(_)
            | JournalFact::CycleStarted(_)
            | JournalFact::GateDecided(_)
            | JournalFact::OrderIntended(_)
            | JournalFact::KillLatched(_)
            | JournalFact::AlertRaised(_)
            | JournalFact::AlertCleared(_)
            | JournalFact::ConfigurationSnapshot(_) => {}
        }
    }

    /// Tells what holds after a start.
    pub(super) fn tell_start(&self, index: &JournalIndex) {
        self.tell_agent(index);
        self.show_conditions(index);
    }

    fn observe(&self, fact: TradingObservation<'_>) {
        self.observer.observe(&Observation::Trading(fact));
    }

    fn tell_cycle(&self, ended: &CycleEnded) {
        let pipeline = self.view.pipeline_of(&ended.cycle_id);
        self.observe(TradingObservation::CycleEnded {
            pipeline: pipeline.as_ref().map_or("", |name| name.as_str()),
            status: ended.status.as_str(),
            seconds: ms_to_seconds(ended.spent_ms),
            decisions: ended.counts.decisions.into(),
            intents: ended.counts.intents.into(),
        });
        for error in &ended.errors {
            self.observe(TradingObservation::CycleFailed { code: CycleErrorCode::as_str(error.code) });
        }
    }

    fn tell_agent(&self, index: &JournalIndex) {
        let agent = index.agent();
        let is_active = |status: StrategyStatus| status == StrategyStatus::Active;
        let active = index.strategies().values().filter(|known| is_active(known.status)).count();
        self.observe(TradingObservation::AgentKnown {
            running_since: agent.started_at.filter(|_| agent.status == AgentStatus::Running),
            strategies_active: u64::try_from(active).unwrap_or(u64::MAX),
        });
    }

    /// Raises what holds; a condition is cleared by a record that proves the contrary: a cycle that did not fail, a
    /// start of the agent.
    fn show_conditions(&self, index: &JournalIndex) {
        let failed = index.tally().failed_in_a_row;
        if failed < FAILED_IN_A_ROW {
            self.board.clear_condition(&Condition::CyclesFailing);
        } else {
            let detail = format!("{failed} cycles failed one after the other");
            self.board.raise_condition(Condition::CyclesFailing, detail);
        }
        let agent = index.agent();
        match (agent.status, index.audit_debt()) {
            (_, Some(cycle)) => {
                self.board
                    .raise_condition(Condition::AgentError, format!("the audit of cycle {cycle} failed"));
            }
            (AgentStatus::Error, None) => {
                let detail = agent.last_error.clone().unwrap_or_default();
                self.board.raise_condition(Condition::AgentError, detail);
            }
            (AgentStatus::Running | AgentStatus::Paused | AgentStatus::Stopped, None) => {
                self.board.clear_condition(&Condition::AgentError);
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a duration for a histogram")]
fn ms_to_seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
