//! HOOK/GOV gates of others: what their answer is worth.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::GateVerdict;
use crate::error::bounded_detail;
use crate::mutant;
use crate::trading::ids::DecisionId;
use crate::trading::stage::{HookMode, HookSpec};

/// Vote of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookVote {
    /// Go on.
    Allow,
    /// Stop.
    Deny,
    /// Go on with the patch.
    Modify,
}

/// One narrowing of one decision: all that a patch can hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Narrowing {
    /// The decision is dropped.
    Drop(DecisionId),
    /// It becomes an order of at most this many shares.
    Limit {
        /// The decision.
        decision_id: DecisionId,
        /// Shares, ≥ 0.
        #[serde(with = "rust_decimal::serde::str")]
        quantity: Decimal,
    },
}

impl Narrowing {
    /// The decision that it narrows.
    #[must_use]
    pub const fn decision_id(&self) -> &DecisionId {
        match self {
            Self::Drop(decision_id) | Self::Limit { decision_id, .. } => decision_id,
        }
    }
}

/// A hook's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookAnswer {
    /// What it votes.
    pub vote: HookVote,
    /// Its reasons.
    pub reasons: Vec<String>,
    /// Its patch; counts with [`HookVote::Modify`] only.
    pub patch: Vec<Narrowing>,
}

/// Reason for which a hook gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// An error, or something that is no answer.
    #[error("E_HOOK_FAILED: {0}")]
    Failed(String),
    /// No answer within its budget.
    #[error("E_HOOK_TIMEOUT")]
    TimedOut,
}

/// Ruling on a hook's answer: the verdict that counts, and what it narrows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookRuling {
    /// What it is worth.
    pub verdict: GateVerdict,
    /// What it narrows.
    pub narrowed: Vec<Narrowing>,
}

/// Judges one hook. `ceiling` is how many shares a decision may have now: nothing for a decision that is none of the
/// cycle's, `Some(None)` for one whose quantity is open.
///
/// A patch may only narrow: an unknown decision, or more shares than now, make it as good as a denial.
///
/// Source: CONTRACTS §7; specification 001, "HOOK/GOV gates".
#[must_use]
pub fn judge_hook(
    hook: &HookSpec,
    answer: Result<&HookAnswer, &HookError>,
    ceiling: impl Fn(&DecisionId) -> Option<Option<Decimal>>,
) -> HookRuling {
    let objection = match answer {
        Err(_) if mutant!(SilentHookAllows) => None,
        Err(error) => Some(error.to_string()),
        Ok(answer) => match answer.vote {
            HookVote::Allow => None,
            HookVote::Deny => Some(format!("E_HOOK_DENIED: {}", answer.reasons.join("; "))),
            HookVote::Modify => answer.patch.iter().find_map(|narrowing| {
                let widens = widens_order(narrowing, ceiling(narrowing.decision_id()));
                (widens && !mutant!(HookMayWiden)).then(|| {
                    format!("E_HOOK_DENIED: the patch of {} does not narrow", narrowing.decision_id())
                })
            }),
        },
    };
    match (objection, hook.mode) {
        (Some(why), HookMode::Hard) => ruling_of(GateVerdict::Deny(bounded_detail(&why)), &[]),
        (Some(why), HookMode::Soft) => ruling_of(GateVerdict::Noted(bounded_detail(&why)), &[]),
        (None, HookMode::Hard | HookMode::Soft) => match answer {
            Ok(HookAnswer { vote: HookVote::Modify, patch, .. }) => ruling_of(GateVerdict::Allow, patch),
            Ok(_) | Err(_) => ruling_of(GateVerdict::Allow, &[]),
        },
    }
}

fn ruling_of(verdict: GateVerdict, narrowed: &[Narrowing]) -> HookRuling {
    HookRuling { verdict, narrowed: narrowed.to_vec() }
}

fn widens_order(narrowing: &Narrowing, ceiling: Option<Option<Decimal>>) -> bool {
    match (narrowing, ceiling) {
        (_, None) => true,
        (Narrowing::Drop(_), Some(_)) => false,
        (Narrowing::Limit { quantity, .. }, Some(ceiling)) => {
            *quantity < Decimal::ZERO || ceiling.is_some_and(|ceiling| ceiling < *quantity)
        }
    }
}
