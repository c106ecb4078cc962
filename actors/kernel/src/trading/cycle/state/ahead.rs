//! What follows from a cycle's state: what may begin next, what may be intended, how it ends.

use rust_decimal::Decimal;

use super::{CycleNow, CycleState};
use crate::trading::cycle::status::{CycleEndReason, CycleErrorCode, CycleStatus};
use crate::trading::decision::{DecisionAction, TradeDecision};
use crate::trading::gate::whole_ms;
use crate::trading::ids::{DecisionId, IntentId};
use crate::trading::journal::{CycleCounts, CycleEnded, IntentEnd, IntentSide, OrderIntended};
use crate::trading::risk::RiskOutcome;
use crate::trading::stage::StageSpec;

impl CycleState {
    pub(super) fn enabled_stages(&self) -> impl Iterator<Item = (usize, &StageSpec)> {
        let from = usize::from(self.started.begin_at);
        self.started.pipeline.stages.iter().enumerate().skip(from).filter(|(_, stage)| stage.enabled)
    }

    /// The next stage to begin. `out_of_time` says that the cycle's budget is exceeded.
    pub(in crate::trading::cycle) fn next_stage(&self, out_of_time: bool) -> Option<usize> {
        let mut ahead = self.enabled_stages().filter(|(index, _)| self.next <= *index);
        if self.halted {
            return None;
        }
        let found = match self.standing.status {
            CycleStatus::Ok | CycleStatus::Degraded if !out_of_time => ahead.next(),
            CycleStatus::Ok | CycleStatus::Degraded | CycleStatus::Blocked | CycleStatus::Failed => {
                ahead.find(|(_, stage)| self.executed && stage.critical && stage.role().settles_effects())
            }
        };
        found.map(|(index, _)| index)
    }

    pub(in crate::trading::cycle) fn stage_spec(&self, index: usize) -> Option<&StageSpec> {
        self.started.pipeline.stages.get(index)
    }

    /// Whether gates have allowed this stage since the last one ended.
    pub(in crate::trading::cycle) fn is_cleared(&self, stage: usize) -> bool {
        self.cleared == Some(stage)
    }

    pub(in crate::trading::cycle) fn is_intent_cleared(&self, decision: &DecisionId) -> bool {
        self.cleared_intent.as_ref() == Some(decision)
    }

    /// A permit does not outlive its process.
    pub(in crate::trading::cycle) fn forget_clearances(&mut self) {
        self.cleared = None;
        self.cleared_intent = None;
    }

    /// Forgets that the next order was permitted.
    pub(in crate::trading::cycle) fn forget_permit(&mut self) {
        self.cleared_intent = None;
    }

    pub(in crate::trading::cycle) const fn hooks_due(&self) -> Option<usize> {
        self.hooks_due
    }

    pub(in crate::trading::cycle) const fn is_degraded(&self) -> bool {
        matches!(self.standing.status, CycleStatus::Degraded)
    }

    pub(in crate::trading::cycle) const fn has_intents(&self) -> bool {
        0 < self.intents
    }

    pub(in crate::trading::cycle) const fn is_halted(&self) -> bool {
        self.halted
    }

    pub(in crate::trading::cycle) fn find_decision(&self, decision: &DecisionId) -> Option<&TradeDecision> {
        self.decisions.iter().find(|known| known.decision_id == *decision)
    }

    /// How many shares a decision may have now, for a patch that may only narrow: nothing when it is none of ours,
    /// `Some(None)` when its quantity is open.
    pub(in crate::trading::cycle) fn share_ceiling(&self, decision: &DecisionId) -> Option<Option<Decimal>> {
        let known = self.find_decision(decision)?;
        let by_risk = self.verdicts.get(decision).map(|outcome| match outcome {
            RiskOutcome::Allowed { quantity, .. } => *quantity,
            RiskOutcome::Held | RiskOutcome::Denied(_) => Decimal::ZERO,
        });
        let by_hooks = self.limits.get(decision).copied();
        Some([known.suggested_quantity, by_risk, by_hooks].into_iter().flatten().min())
    }

    /// Whole shares and the price of an order that may be intended; nothing when RISK has not allowed it, a hook took
    /// it, its strategy failed, or it is settled.
    pub(in crate::trading::cycle) fn allowed_quantity(
        &self,
        decision: &DecisionId,
    ) -> Option<(Decimal, Decimal)> {
        self.open_quantity(self.find_decision(decision)?)
    }

    fn open_quantity(&self, known: &TradeDecision) -> Option<(Decimal, Decimal)> {
        let decision = &known.decision_id;
        let RiskOutcome::Allowed { quantity, price, .. } = self.verdicts.get(decision)? else { return None };
        let is_open = known.action != DecisionAction::Hold
            && !self.settled.contains(decision)
            && !self.failed_strategies.contains(&known.strategy);
        let limit = self.limits.get(decision).copied().unwrap_or(Decimal::MAX);
        let quantity = (*quantity).min(limit).floor();
        (is_open && Decimal::ONE <= quantity).then_some((quantity, *price))
    }

    /// The next decision that is to become an intent, in the order in which they were made.
    pub(in crate::trading::cycle) fn next_to_execute(&self) -> Option<&TradeDecision> {
        self.decisions.iter().find(|decision| self.open_quantity(decision).is_some())
    }

    /// The intent of a decision that is [allowed](Self::allowed_quantity).
    pub(in crate::trading::cycle) fn intent_of(&self, decision: &TradeDecision) -> Option<OrderIntended> {
        let (quantity, price) = self.open_quantity(decision)?;
        let side = match decision.action {
            DecisionAction::Buy => IntentSide::Buy,
            DecisionAction::Sell => IntentSide::Sell,
            DecisionAction::Hold => return None,
        };
        let cycle_id = self.started.cycle_id;
        Some(OrderIntended {
            intent_id: IntentId::derive(cycle_id, &decision.decision_id),
            cycle_id,
            decision_id: decision.decision_id.clone(),
            strategy: decision.strategy.clone(),
            symbol: decision.symbol.clone(),
            side,
            quantity,
            price,
            end: if self.started.dry_run { IntentEnd::DryRun } else { IntentEnd::HandedOn },
        })
    }

    /// The end of the cycle as it stands at `now`. Out of time, stages that were not begun count by whether they are
    /// critical.
    pub(in crate::trading::cycle) fn end_record(
        &self,
        now: CycleNow,
        out_of_time: bool,
        cancelled: Option<&str>,
    ) -> CycleEnded {
        let mut standing = self.standing.clone();
        let not_begun = || self.enabled_stages().filter(|(index, _)| !self.stages.contains_key(index));
        // Only time passes over a stage of a cycle that goes well. It did so for good, whatever a clock that was set back
        // says after a crash.
        let goes_well = matches!(standing.status, CycleStatus::Ok | CycleStatus::Degraded);
        let is_passed_over = goes_well && not_begun().any(|(index, _)| index < self.next);
        let out_of_time = out_of_time || is_passed_over;
        if let Some(why) = cancelled {
            let reason = CycleEndReason::Cancelled { why: why.to_owned() };
            standing.push_stage_error(None, CycleErrorCode::Blocked, reason.to_line());
            standing.worsen_status(CycleStatus::Blocked, reason);
        } else if let (false, true, Some((_, first))) = (self.halted, out_of_time, not_begun().next()) {
            let detail = format!("the cycle's budget was exceeded before {}", first.name);
            standing.push_stage_error(None, CycleErrorCode::Timeout, detail);
            let is_critical = not_begun().any(|(_, stage)| stage.critical);
            let status = if is_critical { CycleStatus::Failed } else { CycleStatus::Degraded };
            standing.worsen_status(status, CycleEndReason::OutOfTime);
        }
        let counts = CycleCounts {
            strategies_processed: saturating_count(self.live_strategies().count()),
            decisions: saturating_count(self.decisions.len()),
            intents: self.intents,
        };
        CycleEnded {
            cycle_id: self.started.cycle_id,
            status: standing.status,
            reason: standing.reason,
            finished_at: now.wall,
            spent_ms: whole_ms(now.elapsed),
            counts,
            errors: standing.errors,
            audit_failed: self.audit_failed,
        }
    }
}

fn saturating_count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
