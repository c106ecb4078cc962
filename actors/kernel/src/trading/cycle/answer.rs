//! Answers of stages: what is taken, and what is garbage however well formed it is.

use std::collections::BTreeSet;

use super::state::CycleState;
use crate::trading::decision::TradeDecision;
use crate::trading::ids::{DecisionId, StrategyName};
use crate::trading::journal::{StageError, StageErrorKind, StageOutput, StrategyFailure};
use crate::trading::risk::RiskOutcome;
use crate::trading::stage::{StageProvider, StageRole, StageSpec};

/// Decisions that a cycle may have.
pub const CYCLE_DECISIONS_MAX: usize = 1000;

impl CycleState {
    /// Checks what this stage answered.
    ///
    /// # Errors
    ///
    /// [`StageError`]: the answer is too large, or says what such a stage cannot say. Nothing of it counts.
    pub(super) fn check_answer(&self, stage: &StageSpec, answer: &StageOutput) -> Result<(), StageError> {
        let (role, data_bytes_max) = (stage.role(), stage.provider.data_bytes_max());
        if data_bytes_max < answer.data.len() {
            let detail = format!("{} bytes of data, {data_bytes_max} are allowed", answer.data.len());
            return Err(StageError::new(StageErrorKind::TooLarge, &detail));
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
                return Err(twice_error(&decision.decision_id));
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

fn twice_error(decision: &DecisionId) -> StageError {
    garbage_error(&format!("decision {decision} comes twice"))
}

/// Answer of a stage for one strategy.
pub type StrategyAnswer = (StrategyName, Result<StageOutput, StageError>);

/// Joins what a stage answered for each strategy, in the order given. One that failed stops no other; its error stands
/// in the result. An answer of `provider` that cannot count is its own strategy's failure, so that what is joined can
/// be taken whole:
///
/// | answer | fails |
/// |---|---|
/// | says what a strategy's signals cannot say, or one decision twice | its strategy |
/// | with the others, too many decisions or too much data | the largest ones, until the rest fits |
/// | has the decision of an earlier strategy, or one that the cycle `known` has already | the later strategy |
///
/// # Errors
///
/// [`StageError`]: the stage failed for every strategy. The first one's.
///
/// Source: issue "Pipelines and cycles": one strategy's failure stands in `errors` (partial) and stops no other.
pub fn merge_strategy_answers(
    provider: StageProvider,
    known: &[TradeDecision],
    answers: Vec<StrategyAnswer>,
) -> Result<StageOutput, StageError> {
    let mut answers: Vec<StrategyAnswer> = answers
        .into_iter()
        .map(|(strategy, answer)| {
            let checked = answer.and_then(|output| check_own_answer(&strategy, output));
            (strategy, checked)
        })
        .collect();
    let decisions_left = CYCLE_DECISIONS_MAX.saturating_sub(known.len());
    refuse_largest(&mut answers, "decisions", decisions_left, |_, output| output.decisions.len());
    refuse_largest(&mut answers, "bytes of data", provider.data_bytes_max(), data_part_bytes);
    refuse_taken_decisions(known, &mut answers);
    join_answers(answers)
}

/// The answer for one strategy, if it says only what signals say of that strategy.
fn check_own_answer(strategy: &StrategyName, output: StageOutput) -> Result<StageOutput, StageError> {
    if !output.verdicts.is_empty() {
        return Err(garbage_error("verdicts come from RISK only"));
    }
    if let Some(strange) = output.decisions.iter().find(|decision| decision.strategy != *strategy) {
        return Err(garbage_error(&format!(
            "decision {} is of strategy {}",
            strange.decision_id, strange.strategy
        )));
    }
    if let Some(strange) = output.failures.iter().find(|failure| failure.strategy != *strategy) {
        return Err(garbage_error(&format!("it says that strategy {} failed", strange.strategy)));
    }
    let mut own = BTreeSet::new();
    match output.decisions.iter().find(|decision| !own.insert(&decision.decision_id)) {
        Some(twice) => Err(twice_error(&twice.decision_id)),
        None => Ok(output),
    }
}

/// Refuses the largest answers until the rest has at most `most` of what `size_of` counts; of equally large ones the
/// last. Small ones never fail because of a large one.
fn refuse_largest(
    answers: &mut [StrategyAnswer],
    unit: &str,
    most: usize,
    size_of: impl Fn(&StrategyName, &StageOutput) -> usize,
) {
    let sizes =
        |(strategy, answer): &StrategyAnswer| answer.as_ref().map_or(0, |output| size_of(strategy, output));
    let mut all: usize = answers.iter().map(&sizes).sum();
    while most < all {
        let Some(largest) = answers.iter_mut().max_by_key(|answer| sizes(answer)) else { return };
        let size = sizes(largest);
        let detail = format!("{size} {unit}; all strategies together have {all}, {most} are allowed");
        largest.1 = Err(StageError::new(StageErrorKind::TooLarge, &detail));
        all = all.saturating_sub(size);
    }
}

/// A decision is one strategy's: whoever comes later with its identifier has failed.
fn refuse_taken_decisions(known: &[TradeDecision], answers: &mut [StrategyAnswer]) {
    let mut taken: BTreeSet<DecisionId> = known.iter().map(|decision| decision.decision_id.clone()).collect();
    for (_, answer) in answers {
        let Ok(output) = answer else { continue };
        let mut ids = output.decisions.iter().map(|decision| &decision.decision_id);
        match ids.find(|id| taken.contains(*id)) {
            Some(twice) => *answer = Err(twice_error(twice)),
            None => taken.extend(output.decisions.iter().map(|decision| decision.decision_id.clone())),
        }
    }
}

/// Data of an answer as it stands in the joined one.
fn data_of(output: &StageOutput) -> &str {
    if output.data.is_empty() { "null" } else { &output.data }
}

/// Bytes that an answer adds to the joined data: quotes, colon, and a comma or one of the braces.
fn data_part_bytes(strategy: &StrategyName, output: &StageOutput) -> usize {
    strategy.as_str().len() + data_of(output).len() + 5
}

fn join_answers(answers: Vec<StrategyAnswer>) -> Result<StageOutput, StageError> {
    let mut merged = StageOutput::default();
    let mut first_error = None;
    let mut parts = Vec::new();
    let mut any_done = answers.is_empty();
    for (strategy, answer) in answers {
        match answer {
            Ok(output) => {
                any_done = true;
                // A name holds nothing that JSON escapes.
                parts.push(format!("\"{strategy}\":{}", data_of(&output)));
                merged.decisions.extend(output.decisions);
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
