//! The audit of one cycle: order of its stages, gates before them, RISK and a permit before each intent, one end.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::limits::{AuditedDecision, AuditedStrategy, RecordedLimits, VerdictAccount};
use super::{JournalRule, require_rule};
use crate::trading::agent::AgentStatus;
use crate::trading::cycle::CycleStatus;
use crate::trading::decision::TradeDecision;
use crate::trading::gate::{GateDecided, GateKind, GatePlace, GateReadings, GateVerdict, Narrowing};
use crate::trading::ids::{DecisionId, IntentId, StrategyName};
use crate::trading::journal::{
    CycleEnded, CycleStarted, IntentEnd, JournalFact, OrderIntended, StageEnded, StageOutcome, StageOutput,
};
use crate::trading::risk::RiskOutcome;
use crate::trading::stage::{HookMoment, OnStageFailure, StageRole, StageSpec};

type Audited = Result<(), (JournalRule, String)>;

/// Shares that a decision may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
struct ShareLimit(#[serde(with = "rust_decimal::serde::str")] Decimal);

/// Facts outside of a cycle that its records are checked by.
#[derive(Clone, Copy)]
pub(super) struct CycleSurroundings<'a> {
    /// Trading is latched as stopped.
    pub(super) latched: bool,
    /// The limits of RISK that the configuration on record says.
    pub(super) limits: Option<&'a RecordedLimits>,
    pub(super) strategies: &'a BTreeMap<StrategyName, AuditedStrategy>,
}

/// A cycle that has not ended, as far as the audit needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuditedCycle {
    started: CycleStarted,
    /// Index behind the last stage that ended.
    next: u16,
    /// The stage that gates allowed since then.
    cleared: Option<u16>,
    /// The decision whose intent they allowed since the last one.
    permitted: Option<DecisionId>,
    /// The stage whose hooks behind it are to be asked.
    hooks_due: Option<u16>,
    /// Shares that RISK allowed.
    allowed: BTreeMap<DecisionId, ShareLimit>,
    /// Shares that hooks limited.
    limits: BTreeMap<DecisionId, ShareLimit>,
    intended: BTreeSet<DecisionId>,
    decided: BTreeMap<DecisionId, AuditedDecision>,
    decisions: u32,
    /// A gate denied, or a failure blocks.
    is_halted: bool,
    /// A stage failed whose failure fails the cycle.
    has_failed: bool,
    /// Anything else went wrong.
    is_degraded: bool,
    /// Enabled stages that have not ended and were passed over.
    passed_over: u32,
}

impl AuditedCycle {
    pub(super) fn new(started: &CycleStarted) -> Self {
        Self {
            decided: started.decisions.iter().map(to_decided).collect(),
            next: started.begin_at,
            cleared: None,
            permitted: None,
            hooks_due: None,
            allowed: BTreeMap::new(),
            limits: BTreeMap::new(),
            intended: BTreeSet::new(),
            decisions: saturating_count(started.decisions.len()),
            is_halted: false,
            has_failed: false,
            is_degraded: false,
            passed_over: 0,
            started: started.clone(),
        }
    }

    /// Takes a record of the cycle; tells whether it was its end.
    pub(super) fn take_record(
        &mut self,
        fact: &JournalFact,
        around: CycleSurroundings<'_>,
    ) -> Result<bool, (JournalRule, String)> {
        if let JournalFact::CycleEnded(ended) = fact {
            self.check_end(ended)?;
            return Ok(true);
        }
        require_rule(!self.is_halted, JournalRule::GateIgnored, || {
            format!("{} follows a denial", fact.kind_word())
        })?;
        match fact {
            JournalFact::GateDecided(decided) => self.check_gates(decided, around.latched)?,
            JournalFact::StageEnded(ended) => self.check_stage(ended, around)?,
            JournalFact::OrderIntended(intent) => self.check_intent(intent)?,
            JournalFact::CycleStarted(_)
            | JournalFact::CycleEnded(_)
            | JournalFact::CommandReceived(_)
            | JournalFact::CommandEnded(_)
            | JournalFact::AgentChanged(_)
            | JournalFact::StrategyChanged(_)
            | JournalFact::ScheduleFired(_)
            | JournalFact::ScheduleSkipped(_)
            | JournalFact::AlertRaised(_)
            | JournalFact::AlertCleared(_)
            | JournalFact::ConfigurationSnapshot(_)
            | JournalFact::KillLatched(_) => {}
        }
        Ok(false)
    }

    fn check_gates(&mut self, decided: &GateDecided, latched: bool) -> Audited {
        let denies = decided.checks.iter().any(|check| matches!(check.verdict, GateVerdict::Deny(_)));
        if !denies && self.has_to_permit(&decided.place) {
            let permits =
                decided.readings.as_ref().is_some_and(|readings| allows_effect(readings) && !latched);
            require_rule(permits, JournalRule::GateContradicts, || {
                format!("{:?} is allowed without a permit in its readings", decided.place)
            })?;
        }
        for narrowing in &decided.narrowed {
            let quantity = ShareLimit(match narrowing {
                Narrowing::Drop(_) => Decimal::ZERO,
                Narrowing::Limit { quantity, .. } => *quantity,
            });
            let limit = self.limits.entry(narrowing.decision_id().clone()).or_insert(quantity);
            *limit = quantity.min(*limit);
        }
        match (&decided.place, denies) {
            (GatePlace::BeforeIntent(_), true) if only_strategy_denies(decided) => self.is_degraded = true,
            (_, true) => self.is_halted = true,
            (GatePlace::Before(stage), false) => self.cleared = Some(*stage),
            (GatePlace::After(stage), false) => {
                self.hooks_due = self.hooks_due.filter(|due| due != stage);
            }
            (GatePlace::BeforeIntent(decision), false) => self.permitted = Some(decision.clone()),
        }
        Ok(())
    }

    /// From the first stage on that can lead to an effect, and before each intent.
    fn has_to_permit(&self, place: &GatePlace) -> bool {
        match place {
            GatePlace::Before(stage) => {
                self.started.pipeline.first_gated().is_some_and(|first| first <= usize::from(*stage))
            }
            GatePlace::After(_) => false,
            GatePlace::BeforeIntent(_) => true,
        }
    }

    fn check_stage(&mut self, ended: &StageEnded, around: CycleSurroundings<'_>) -> Audited {
        let stage = self.started.pipeline.stages.get(usize::from(ended.stage)).cloned();
        let stage =
            stage.filter(|stage| stage.name == ended.name && stage.enabled && self.next <= ended.stage);
        let Some(stage) = stage else {
            return Err((JournalRule::StageOrder, format!("{} cannot end now", ended.name)));
        };
        self.check_passed_over(ended, &stage)?;
        let asked = self.started.pipeline.first_gated().is_none() || self.cleared == Some(ended.stage);
        let asked = asked && self.hooks_due.is_none();
        require_rule(asked, JournalRule::GateSkipped, || format!("no gates allowed {}", ended.name))?;
        self.next = ended.stage.saturating_add(1);
        self.cleared = None;
        self.permitted = None;
        match &ended.outcome {
            StageOutcome::Done(output) => {
                let pipeline = &self.started.pipeline;
                let has_hooks =
                    pipeline.hooks_at(usize::from(ended.stage), HookMoment::After).next().is_some();
                self.hooks_due = has_hooks.then_some(ended.stage);
                self.count_output(&stage, output);
                self.check_verdicts(&stage, output, around)?;
            }
            StageOutcome::Failed(_) => match self.started.pipeline.on_failure(&stage) {
                OnStageFailure::Fail => self.has_failed = true,
                OnStageFailure::Block => self.is_halted = true,
                OnStageFailure::Degrade => self.is_degraded = true,
            },
        }
        Ok(())
    }

    /// Stages are passed over when the cycle has failed or is out of time, and then only those that settle come.
    fn check_passed_over(&mut self, ended: &StageEnded, stage: &StageSpec) -> Audited {
        let between = self.started.pipeline.stages.iter().take(usize::from(ended.stage));
        let between = between.skip(usize::from(self.next)).filter(|stage| stage.enabled).count();
        let settles = stage.role().settles_effects() && stage.critical;
        require_rule(settles || (between == 0 && !self.has_failed), JournalRule::StageOrder, || {
            format!("{} came after {between} stages that did not end", ended.name)
        })?;
        self.passed_over = self.passed_over.saturating_add(saturating_count(between));
        Ok(())
    }

    fn count_output(&mut self, stage: &StageSpec, output: &StageOutput) {
        self.is_degraded |= !output.failures.is_empty();
        self.decisions = self.decisions.saturating_add(saturating_count(output.decisions.len()));
        self.decided.extend(output.decisions.iter().map(to_decided));
        if stage.role() == StageRole::Risk {
            for verdict in &output.verdicts {
                if let RiskOutcome::Allowed { quantity, .. } = &verdict.outcome {
                    self.allowed.insert(verdict.decision_id.clone(), ShareLimit(*quantity));
                }
            }
        }
    }

    /// A RISK of others is bound by the limits on record as the built-in one is.
    fn check_verdicts(
        &self,
        stage: &StageSpec,
        output: &StageOutput,
        around: CycleSurroundings<'_>,
    ) -> Audited {
        let Some(limits) = around.limits.filter(|_| stage.role() == StageRole::Risk) else { return Ok(()) };
        let mut account = VerdictAccount::new(limits, around.strategies);
        for verdict in &output.verdicts {
            // A verdict on nothing leads to nothing.
            let Some(decision) = self.decided.get(&verdict.decision_id) else { continue };
            if let RiskOutcome::Allowed { quantity, price, .. } = &verdict.outcome {
                account.take_allowed(decision, *quantity, *price)?;
            }
        }
        Ok(())
    }

    fn check_intent(&mut self, intent: &OrderIntended) -> Audited {
        let id = &intent.decision_id;
        let cycle = self.started.cycle_id;
        let is_first = self.intended.insert(id.clone()) && intent.intent_id == IntentId::derive(cycle, id);
        require_rule(is_first, JournalRule::IntentTwice, || format!("decision {id} has another intent"))?;
        let Some(allowed) = self.allowed.get(id) else {
            return Err((JournalRule::IntentWithoutRisk, format!("RISK has not allowed decision {id}")));
        };
        let ShareLimit(limit) = self.limits.get(id).unwrap_or(allowed).min(allowed);
        require_rule(intent.quantity <= *limit, JournalRule::IntentRaised, || {
            format!("decision {id}: {} shares, {limit} are allowed", intent.quantity)
        })?;
        let cleared = self.cleared.and_then(|stage| self.started.pipeline.stages.get(usize::from(stage)));
        let executes = cleared.is_some_and(|stage| stage.role() == StageRole::Execute);
        let has_permit = executes && self.permitted.take().as_ref() == Some(id);
        require_rule(has_permit, JournalRule::IntentWithoutPermit, || {
            format!("no permit for decision {id}")
        })?;
        let is_right = (intent.end == IntentEnd::DryRun) == self.started.dry_run;
        require_rule(is_right, JournalRule::StatusContradicts, || {
            format!("decision {id} ends as {:?}", intent.end)
        })
    }

    fn check_end(&self, ended: &CycleEnded) -> Audited {
        let stages = self.started.pipeline.stages.iter().skip(usize::from(self.next));
        let is_whole = self.passed_over == 0 && !stages.clone().any(|stage| stage.enabled);
        let follows = match ended.status {
            CycleStatus::Ok => is_whole && !self.has_failed && !self.is_halted && !self.is_degraded,
            CycleStatus::Degraded => !self.has_failed && !self.is_halted && (self.is_degraded || !is_whole),
            // Cancelling is no record of the cycle's own.
            CycleStatus::Blocked => !self.has_failed,
            CycleStatus::Failed => self.has_failed || !is_whole,
        };
        require_rule(follows, JournalRule::StatusContradicts, || {
            format!("the cycle ends as {}", ended.status.as_str())
        })?;
        let counts = (ended.counts.decisions, ended.counts.intents);
        let recorded = (self.decisions, saturating_count(self.intended.len()));
        require_rule(counts == recorded, JournalRule::StatusContradicts, || {
            format!("decisions and intents are {counts:?}, on record {recorded:?}")
        })
    }
}

/// What has to hold wherever an effect is allowed, apart from what the gates themselves concluded.
fn allows_effect(readings: &GateReadings) -> bool {
    readings.kill.permits_effect()
        && readings.agent.status == AgentStatus::Running
        && !readings.agent.catching_up
}

fn to_decided(decision: &TradeDecision) -> (DecisionId, AuditedDecision) {
    (decision.decision_id.clone(), AuditedDecision::of_decision(decision))
}

fn only_strategy_denies(decided: &GateDecided) -> bool {
    let mut denials = decided.checks.iter().filter(|check| matches!(check.verdict, GateVerdict::Deny(_)));
    denials.next().is_some_and(|first| first.gate == GateKind::Strategy)
}

fn saturating_count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
