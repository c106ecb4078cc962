//! The limits of RISK as the configuration on record has them, and whether verdicts keep them, whoever gave them.
//!
//! Written apart from the built-in RISK, with the same arithmetic: what that allows is never found wrong here.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::JournalRule;
use crate::ids::Symbol;
use crate::trading::decision::{Confidence, DecisionAction, TradeDecision};
use crate::trading::ids::StrategyName;
use crate::trading::strategy::StrategyStatus;

/// Limits of RISK that a configuration on record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordedLimits {
    #[serde(with = "rust_decimal::serde::str")]
    max_position_size: Decimal,
    #[serde(with = "rust_decimal::serde::str")]
    capital: Decimal,
    confidence_min: Confidence,
}

impl RecordedLimits {
    /// The limits among these settings; nothing where one is missing, as before there were any.
    pub(super) fn of_settings(settings: &BTreeMap<String, String>) -> Option<Self> {
        let amount =
            |name: &str| Decimal::from_str_exact(settings.get(&format!("trading.risk.{name}"))?).ok();
        let confidence = settings.get("trading.risk.confidence_min")?.parse().ok();
        Some(Self {
            max_position_size: amount("max_position_size")?,
            capital: amount("capital")?,
            confidence_min: confidence.and_then(Confidence::new)?,
        })
    }
}

/// A strategy, as far as what follows is checked by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuditedStrategy {
    pub(super) status: StrategyStatus,
    pub(super) symbols: BTreeSet<Symbol>,
}

/// A decision, as far as its verdict is checked by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuditedDecision {
    strategy: StrategyName,
    symbol: Symbol,
    action: DecisionAction,
    confidence: Confidence,
}

impl AuditedDecision {
    pub(super) fn of_decision(decision: &TradeDecision) -> Self {
        Self {
            strategy: decision.strategy.clone(),
            symbol: decision.symbol.clone(),
            action: decision.action,
            confidence: decision.confidence,
        }
    }
}

/// The verdicts of one stage, in their order: what its buys may still cost is counted down.
pub(super) struct VerdictAccount<'a> {
    limits: &'a RecordedLimits,
    strategies: &'a BTreeMap<StrategyName, AuditedStrategy>,
    capital_left: Decimal,
}

impl<'a> VerdictAccount<'a> {
    pub(super) const fn new(
        limits: &'a RecordedLimits,
        strategies: &'a BTreeMap<StrategyName, AuditedStrategy>,
    ) -> Self {
        Self { limits, strategies, capital_left: limits.capital }
    }

    /// Takes a verdict that allows.
    pub(super) fn take_allowed(
        &mut self,
        decision: &AuditedDecision,
        quantity: Decimal,
        price: Decimal,
    ) -> Result<(), (JournalRule, String)> {
        let capital = match decision.action {
            DecisionAction::Buy => self.capital_left,
            DecisionAction::Sell | DecisionAction::Hold => self.limits.capital,
        };
        // More shares than a decimal can count are no bound.
        let exceeds = |money: Decimal| money.checked_div(price).is_some_and(|shares| shares < quantity);
        let symbols = self.strategies.get(&decision.strategy).map(|strategy| &strategy.symbols);
        let broken = [
            (price <= Decimal::ZERO, "its price is none"),
            (
                !symbols.is_some_and(|symbols| symbols.contains(&decision.symbol)),
                "the symbol is not its strategy's",
            ),
            (decision.confidence < self.limits.confidence_min, "its confidence is too low"),
            (exceeds(self.limits.max_position_size), "it is worth more than max_position_size"),
            (exceeds(capital), "it is worth more than the capital that is left"),
        ];
        if let Some((_, what)) = broken.into_iter().find(|(is_broken, _)| *is_broken) {
            return Err((
                JournalRule::RiskLimit,
                format!("{quantity} of {} at {price} are allowed: {what}", decision.symbol),
            ));
        }
        if decision.action == DecisionAction::Buy {
            self.capital_left = self.capital_left.saturating_sub(quantity.saturating_mul(price));
        }
        Ok(())
    }
}
