//! What the records of a cycle say about it: the part that a crash does not lose.

mod ahead;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rust_decimal::Decimal;

use super::status::{CycleEndReason, CycleErrorCode, CycleStatus};
use crate::ids::TsMs;
use crate::mutant;
use crate::trading::decision::TradeDecision;
use crate::trading::gate::{GateDecided, GateKind, GatePlace, Narrowing};
use crate::trading::ids::{CycleId, DecisionId, StrategyName};
use crate::trading::journal::{
    CycleEnded, CycleError, CycleStarted, JournalFact, OrderIntended, StageEnded, StageError, StageOutcome,
    StageOutput,
};
use crate::trading::risk::{RiskOutcome, RiskVerdict};
use crate::trading::stage::{HookMoment, OnStageFailure, StageRole, StageSpec};

/// Lines of errors that a cycle keeps; of more it keeps the first ones.
pub const CYCLE_ERRORS_MAX: usize = 256;

/// A record that this cycle's next one cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot come now in cycle {cycle}")]
pub struct CycleOutOfOrder {
    /// The cycle.
    pub cycle: CycleId,
    /// The kind of the record.
    pub what: &'static str,
}

/// A moment of a cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CycleNow {
    /// Monotonic time. Budgets are measured by it, from any fixed moment on.
    pub elapsed: Duration,
    /// The wall clock. It stands in records and decides nothing.
    pub wall: TsMs,
}

/// Standing of a cycle: the worst that happened so far, and all that went wrong.
#[derive(Clone, Debug)]
struct CycleStanding {
    status: CycleStatus,
    reason: CycleEndReason,
    errors: Vec<CycleError>,
}

impl CycleStanding {
    const fn new() -> Self {
        Self { status: CycleStatus::Ok, reason: CycleEndReason::Done, errors: Vec::new() }
    }

    /// A worse status replaces a better one, with its reason; of equally bad ones the first stays.
    fn worsen_status(&mut self, status: CycleStatus, reason: CycleEndReason) {
        if self.status < status {
            self.status = status;
            self.reason = reason;
        }
    }

    fn push_stage_error(&mut self, stage: Option<&StageSpec>, code: CycleErrorCode, detail: String) {
        self.push_error(CycleError {
            stage: stage.map(|stage| stage.name.clone()),
            strategy: None,
            code,
            detail,
        });
    }

    fn push_error(&mut self, error: CycleError) {
        if self.errors.len() < CYCLE_ERRORS_MAX {
            self.errors.push(error);
        }
    }
}

/// The state of a cycle, as far as it is on record.
#[derive(Clone, Debug)]
pub struct CycleState {
    started: CycleStarted,
    /// Index of the first stage that has not been looked at.
    next: usize,
    /// The stage that the gates allowed last.
    cleared: Option<usize>,
    /// The decision whose intent they allowed last.
    cleared_intent: Option<DecisionId>,
    /// The stage that is done and whose hooks have not been asked.
    hooks_due: Option<usize>,
    stages: BTreeMap<usize, StageEnded>,
    decisions: Vec<TradeDecision>,
    verdicts: BTreeMap<DecisionId, RiskOutcome>,
    /// What hooks limited decisions to.
    limits: BTreeMap<DecisionId, Decimal>,
    /// Decisions that became an intent, or never will.
    settled: BTreeSet<DecisionId>,
    failed_strategies: BTreeSet<StrategyName>,
    standing: CycleStanding,
    intents: u32,
    /// Whether orders were executed, as far as it came.
    executed: bool,
    audit_failed: bool,
    /// A gate denied, or a failure blocks: nothing more is begun, whatever the status is.
    halted: bool,
    ended: Option<CycleEnded>,
}

impl CycleState {
    /// The state right after the start.
    #[must_use]
    pub fn new(started: CycleStarted) -> Self {
        Self {
            next: usize::from(started.begin_at),
            cleared: None,
            cleared_intent: None,
            hooks_due: None,
            stages: BTreeMap::new(),
            decisions: started.decisions.clone(),
            verdicts: BTreeMap::new(),
            limits: BTreeMap::new(),
            settled: BTreeSet::new(),
            failed_strategies: BTreeSet::new(),
            standing: CycleStanding::new(),
            intents: 0,
            executed: false,
            audit_failed: false,
            halted: false,
            ended: None,
            started,
        }
    }

    /// How it began.
    #[must_use]
    pub const fn started(&self) -> &CycleStarted {
        &self.started
    }

    /// How it ended, if it has.
    #[must_use]
    pub const fn ended(&self) -> Option<&CycleEnded> {
        self.ended.as_ref()
    }

    /// Its decisions so far.
    #[must_use]
    pub fn decisions(&self) -> &[TradeDecision] {
        &self.decisions
    }

    /// The ends of its stages so far, by index.
    pub fn ended_stages(&self) -> impl Iterator<Item = (usize, &StageEnded)> {
        self.stages.iter().map(|(index, ended)| (*index, ended))
    }

    /// Its strategies that no stage failed for.
    pub fn live_strategies(&self) -> impl Iterator<Item = &StrategyName> {
        self.started.strategies.iter().filter(|name| !self.failed_strategies.contains(*name))
    }

    /// How far it is, 0 to 100: stages that ended among those that are enabled.
    #[must_use]
    pub fn progress_percent(&self) -> u8 {
        let enabled = self.enabled_stages().count();
        let percent = (self.stages.len() * 100).checked_div(enabled).unwrap_or(100);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }

    /// Takes the cycle's next record.
    ///
    /// # Errors
    ///
    /// [`CycleOutOfOrder`]; the state is then unchanged.
    pub fn apply_fact(&mut self, fact: &JournalFact) -> Result<(), CycleOutOfOrder> {
        let is_ours = self.ended.is_none() && fact.cycle_id() == Some(self.started.cycle_id);
        let taken = is_ours
            && match fact {
                JournalFact::GateDecided(decided) => self.apply_gates(decided),
                JournalFact::StageEnded(ended) => self.apply_stage(ended),
                JournalFact::OrderIntended(intent) => self.apply_intent(intent),
                JournalFact::CycleEnded(ended) => {
                    self.ended = Some((**ended).clone());
                    true
                }
                JournalFact::CommandReceived(_)
                | JournalFact::CommandEnded(_)
                | JournalFact::AgentChanged(_)
                | JournalFact::StrategyChanged(_)
                | JournalFact::ScheduleFired(_)
                | JournalFact::ScheduleSkipped(_)
                | JournalFact::CycleStarted(_)
                | JournalFact::AlertRaised(_)
                | JournalFact::AlertCleared(_)
                | JournalFact::ConfigurationSnapshot(_)
                | JournalFact::KillLatched(_) => false,
            };
        taken.then_some(()).ok_or(CycleOutOfOrder { cycle: self.started.cycle_id, what: fact.kind_word() })
    }

    fn apply_gates(&mut self, decided: &GateDecided) -> bool {
        for narrowing in &decided.narrowed {
            self.apply_narrowing(narrowing);
        }
        if let GatePlace::After(_) = decided.place {
            self.hooks_due = None;
        }
        if let Some((gate, why)) = decided.first_denial() {
            let reason = CycleEndReason::Gate { gate: gate.clone(), why: why.to_owned() };
            // A strategy that was paused meanwhile loses its own intents only.
            if let (GatePlace::BeforeIntent(decision), GateKind::Strategy) = (&decided.place, gate) {
                self.standing.push_stage_error(None, CycleErrorCode::Blocked, format!("{decision}: {why}"));
                self.standing.worsen_status(CycleStatus::Degraded, reason);
                self.settled.insert(decision.clone());
                return true;
            }
            self.standing.push_stage_error(None, CycleErrorCode::Blocked, reason.to_line());
            self.standing.worsen_status(CycleStatus::Blocked, reason);
            self.halted = true;
            return true;
        }
        match &decided.place {
            GatePlace::Before(stage) => self.cleared = Some(usize::from(*stage)),
            GatePlace::After(_) => {}
            GatePlace::BeforeIntent(decision) => self.cleared_intent = Some(decision.clone()),
        }
        true
    }

    fn apply_narrowing(&mut self, narrowing: &Narrowing) {
        let quantity = match narrowing {
            Narrowing::Drop(_) => Decimal::ZERO,
            Narrowing::Limit { quantity, .. } => *quantity,
        };
        let limit = self.limits.entry(narrowing.decision_id().clone()).or_insert(quantity);
        *limit = quantity.min(*limit);
    }

    fn apply_stage(&mut self, ended: &StageEnded) -> bool {
        let index = usize::from(ended.stage);
        let Some(stage) = self.started.pipeline.stages.get(index).cloned() else { return false };
        if index < self.next || stage.name != ended.name {
            return false;
        }
        self.next = index + 1;
        self.cleared = None;
        self.cleared_intent = None;
        self.executed |= stage.role() == StageRole::Execute;
        match &ended.outcome {
            StageOutcome::Done(output) => {
                let has_hooks = self.started.pipeline.hooks_at(index, HookMoment::After).next().is_some();
                self.hooks_due = has_hooks.then_some(index);
                self.take_output(&stage, output);
            }
            StageOutcome::Failed(error) => self.take_failure(&stage, error),
        }
        self.stages.insert(index, ended.clone());
        true
    }

    fn take_output(&mut self, stage: &StageSpec, output: &StageOutput) {
        self.decisions.extend(output.decisions.iter().cloned());
        for RiskVerdict { decision_id, outcome } in &output.verdicts {
            self.verdicts.insert(decision_id.clone(), outcome.clone());
        }
        for failure in &output.failures {
            self.failed_strategies.insert(failure.strategy.clone());
            let (name, strategy) = (Some(stage.name.clone()), Some(failure.strategy.clone()));
            self.standing.push_error(CycleError {
                stage: name,
                strategy,
                code: failure.error.error_code(),
                detail: failure.error.detail.clone(),
            });
            self.standing.worsen_status(CycleStatus::Degraded, CycleEndReason::Stage(stage.name.clone()));
        }
    }

    fn take_failure(&mut self, stage: &StageSpec, error: &StageError) {
        self.standing.push_stage_error(Some(stage), error.error_code(), error.detail.clone());
        let reason = CycleEndReason::Stage(stage.name.clone());
        match self.started.pipeline.on_failure(stage) {
            OnStageFailure::Fail => self.standing.worsen_status(CycleStatus::Failed, reason),
            OnStageFailure::Block => {
                self.standing.push_stage_error(
                    Some(stage),
                    CycleErrorCode::Blocked,
                    "its failure blocks".to_owned(),
                );
                self.standing.worsen_status(CycleStatus::Blocked, reason);
                self.halted = true;
            }
            OnStageFailure::Degrade => self.standing.worsen_status(CycleStatus::Degraded, reason),
        }
        let fails_closed = self.started.pipeline.fail_closed_on_audit;
        self.audit_failed |= stage.role() == StageRole::Audit && fails_closed && !mutant!(AuditNotAwaited);
    }

    fn apply_intent(&mut self, intent: &OrderIntended) -> bool {
        if self.allowed_quantity(&intent.decision_id).is_none() {
            return false;
        }
        if !mutant!(IntentNotSettled) {
            self.settled.insert(intent.decision_id.clone());
        }
        self.cleared_intent = None;
        self.executed = true;
        self.intents += 1;
        true
    }
}
