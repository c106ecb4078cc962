//! Answers of stages: what is taken, and what is garbage however well formed it is.

use std::collections::BTreeSet;

use super::state::CycleState;
use crate::trading::ids::StrategyName;
use crate::trading::journal::{
    STAGE_DATA_BYTES_MAX, StageError, StageErrorKind, StageOutput, StrategyFailure,
};
use crate::trading::risk::RiskOutcome;
use crate::trading::stage::StageRole;

/// Decisions that a cycle may have.
pub const CYCLE_DECISIONS_MAX: usize = 1000;

impl CycleState {
    /// Checks what a stage of this role answered.
    ///
    /// # Errors
    ///
    /// [`StageError`]: the answer is too large, or says what such a stage cannot say. Nothing of it counts.
    pub(super) fn check_answer(&self, role: StageRole, answer: &StageOutput) -> Result<(), StageError> {
        if STAGE_DATA_BYTES_MAX < answer.data.len() {
            return Err(StageError::new(
                StageErrorKind::TooLarge,
                &format!("{} bytes of data, {STAGE_DATA_BYTES_MAX} are allowed", answer.data.len()),
            ));
        }
        self.check_decisions(role, answer)?;
        self.check_verdicts(role, answer)?;
        self.check_failures(answer)
    }

    /// The answer without decisions about symbols that the cycle is not to decide about, and without verdicts on them.
    /// Before it is on record: what is there counts.
    pub(super) fn limit_answer(&self, mut answer: StageOutput) -> StageOutput {
        let StageOutput { decisions, verdicts, .. } = &mut answer;
        let (kept, dropped): (Vec<_>, Vec<_>) =
            std::mem::take(decisions).into_iter().partition(|it| self.started().covers_symbol(&it.symbol));
        *decisions = kept;
        verdicts.retain(|verdict| dropped.iter().all(|it| it.decision_id != verdict.decision_id));
        answer
    }

    fn check_decisions(&self, role: StageRole, answer: &StageOutput) -> Result<(), StageError> {
        let may_decide = matches!(role, StageRole::Signal | StageRole::Risk);
        if !may_decide && !answer.decisions.is_empty() {
            return Err(garbage_error("decisions come from signals and RISK only"));
        }
        let all = self.decisions().len() + answer.decisions.len();
        if CYCLE_DECISIONS_MAX < all {
            let detail = format!("{all} decisions, {CYCLE_DECISIONS_MAX} are allowed");
            return Err(StageError::new(StageErrorKind::TooLarge, &detail));
        }
        let mut known: BTreeSet<_> = self.decisions().iter().map(|decision| &decision.decision_id).collect();
        for decision in &answer.decisions {
            if !known.insert(&decision.decision_id) {
                return Err(garbage_error(&format!("decision {} comes twice", decision.decision_id)));
            }
            if !self.live_strategies().any(|strategy| *strategy == decision.strategy) {
                return Err(garbage_error(&format!("{} is no strategy of this cycle", decision.strategy)));
            }
        }
        Ok(())
    }

    fn check_verdicts(&self, role: StageRole, answer: &StageOutput) -> Result<(), StageError> {
        if role != StageRole::Risk && !answer.verdicts.is_empty() {
            return Err(garbage_error("verdicts come from RISK only"));
        }
        let mut judged = BTreeSet::new();
        for verdict in &answer.verdicts {
            let id = &verdict.decision_id;
            if !judged.insert(id) {
                return Err(garbage_error(&format!("decision {id} is judged twice")));
            }
            let made_here = answer.decisions.iter().find(|decision| decision.decision_id == *id);
            let Some(decision) = self.find_decision(id).or(made_here) else {
                return Err(garbage_error(&format!("decision {id} is judged and was never made")));
            };
            if let RiskOutcome::Allowed { quantity, price, .. } = &verdict.outcome
                && !verdict.keeps_to(decision.suggested_quantity)
            {
                return Err(garbage_error(&format!("decision {id}: RISK allows {quantity} at {price}")));
            }
        }
        Ok(())
    }

    fn check_failures(&self, answer: &StageOutput) -> Result<(), StageError> {
        let failed: BTreeSet<_> = answer.failures.iter().map(|failure| &failure.strategy).collect();
        if let Some(other) = failed.iter().find(|name| !self.started().strategies.contains(name)) {
            return Err(garbage_error(&format!("{other} is no strategy of this cycle")));
        }
        match answer.failures.first() {
            Some(first) if self.live_strategies().all(|strategy| failed.contains(strategy)) => {
                Err(first.error.clone())
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn garbage_error(detail: &str) -> StageError {
    StageError::new(StageErrorKind::Garbage, detail)
}

/// Joins what a stage answered for each strategy, in the order given. One that failed stops no other; its error stands
/// in the result.
///
/// # Errors
///
/// [`StageError`]: the stage failed for every strategy. The first one's.
///
/// Source: issue "Pipelines and cycles": one strategy's failure stands in `errors` (partial) and stops no other.
pub fn merge_strategy_answers(
    answers: Vec<(StrategyName, Result<StageOutput, StageError>)>,
) -> Result<StageOutput, StageError> {
    let mut merged = StageOutput::default();
    let mut first_error = None;
    let mut parts = Vec::new();
    let mut any_done = answers.is_empty();
    for (strategy, answer) in answers {
        match answer {
            Ok(output) => {
                any_done = true;
                let json = if output.data.is_empty() { "null" } else { &output.data };
                // A name holds nothing that JSON escapes.
                parts.push(format!("\"{strategy}\":{json}"));
                merged.decisions.extend(output.decisions);
                merged.verdicts.extend(output.verdicts);
                merged.failures.extend(output.failures);
            }
            Err(error) => {
                first_error.get_or_insert_with(|| error.clone());
                merged.failures.push(StrategyFailure { strategy, error });
            }
        }
    }
    match (any_done, first_error) {
        (false, Some(error)) => Err(error),
        (true | false, _) => {
            merged.data = format!("{{{}}}", parts.join(","));
            Ok(merged)
        }
    }
}
