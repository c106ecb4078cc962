//! The built-in RISK: whether a decision may become an order, and of how many shares at most.
//!
//! Every rule may lower or deny, none may raise; what another RISK says can only narrow it further.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::decision::{Confidence, DecisionAction, TradeDecision};
use super::ids::DecisionId;
use crate::ids::Symbol;

/// Carefulness of the agent or of a strategy. Changes sizes and limits, never a gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RiskMode {
    /// Halves quantities and needs a confidence of at least 0.6.
    Conservative,
    /// Quantities as they are.
    #[default]
    Normal,
    /// The same as normal: nothing may be larger than what was asked for.
    Aggressive,
}

/// Confidence that the conservative mode needs.
const CONSERVATIVE_CONFIDENCE: f64 = 0.6;

impl RiskMode {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Conservative => "conservative",
            Self::Normal => "normal",
            Self::Aggressive => "aggressive",
        }
    }

    /// The stricter of two modes: the agent's and a strategy's.
    #[must_use]
    pub fn stricter_mode(self, other: Self) -> Self {
        self.min(other)
    }

    /// The confidence that a decision needs when `configured` is `risk.confidence_min`.
    #[must_use]
    pub fn confidence_min(self, configured: Confidence) -> Confidence {
        match self {
            Self::Conservative => {
                Confidence::new(CONSERVATIVE_CONFIDENCE).map_or(configured, |needed| needed.max(configured))
            }
            Self::Normal | Self::Aggressive => configured,
        }
    }

    fn scale_quantity(self, quantity: Decimal) -> Decimal {
        match self {
            Self::Conservative => quantity / Decimal::TWO,
            Self::Normal | Self::Aggressive => quantity,
        }
    }
}

/// The limits of the built-in RISK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiskLimits {
    /// Money that one order may be worth, > 0.
    pub max_position_size: Decimal,
    /// Money that the buys of one cycle may be worth together, and a sale alone, ≥ 0.
    pub capital: Decimal,
    /// `risk.confidence_min`, 0 by default.
    pub confidence_min: Confidence,
}

/// The facts that a decision is judged by.
#[derive(Clone, Copy, Debug)]
pub struct RiskInput<'a> {
    /// Shares: what the decision suggests, or what it was sized to.
    pub quantity: Option<Decimal>,
    /// The symbol's price, if a usable one is known.
    pub price: Option<Decimal>,
    /// The symbols of the decision's strategy.
    pub symbols: &'a [Symbol],
    /// The stricter of the agent's and the strategy's mode.
    pub mode: RiskMode,
    /// An order of this symbol is open whose outcome nobody knows.
    pub order_unknown: bool,
}

/// A rule of the built-in RISK, or a RISK of others, that denied or lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RiskRule {
    /// The price is unknown, zero or negative.
    PriceUnavailable,
    /// The symbol is none of the strategy's.
    SymbolNotInStrategy,
    /// The confidence is below the minimum.
    ConfidenceTooLow,
    /// An order of the symbol has an unknown outcome.
    OrderUnknown,
    /// There is no quantity.
    QuantityMissing,
    /// The mode halves quantities.
    Mode,
    /// `max_position_size`.
    MaxPositionSize,
    /// `capital`.
    Capital,
    /// Less than one whole share is left.
    QtyLessThanOneShare,
    /// A RISK stage of others.
    Provider,
}

impl RiskRule {
    /// Every rule.
    pub const ALL: [Self; 10] = [
        Self::PriceUnavailable,
        Self::SymbolNotInStrategy,
        Self::ConfidenceTooLow,
        Self::OrderUnknown,
        Self::QuantityMissing,
        Self::Mode,
        Self::MaxPositionSize,
        Self::Capital,
        Self::QtyLessThanOneShare,
        Self::Provider,
    ];

    /// The word in records and reasons.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PriceUnavailable => "price_unavailable",
            Self::SymbolNotInStrategy => "symbol_not_in_strategy",
            Self::ConfidenceTooLow => "confidence_too_low",
            Self::OrderUnknown => "order_unknown",
            Self::QuantityMissing => "quantity_missing",
            Self::Mode => "mode",
            Self::MaxPositionSize => "max_position_size",
            Self::Capital => "capital",
            Self::QtyLessThanOneShare => "qty_less_than_one_share",
            Self::Provider => "provider",
        }
    }
}

/// Outcome of RISK for a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RiskOutcome {
    /// It may become an order of at most this many whole shares.
    Allowed {
        /// Whole shares, ≥ 1.
        #[serde(with = "rust_decimal::serde::str")]
        quantity: Decimal,
        /// The price that it was judged at.
        #[serde(with = "rust_decimal::serde::str")]
        price: Decimal,
        /// The rules that lowered it, in order.
        lowered_by: Vec<RiskRule>,
    },
    /// It wants nothing.
    Held,
    /// It may not.
    Denied(RiskRule),
}

/// RISK's verdict on one decision. No order intent without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiskVerdict {
    /// The decision.
    pub decision_id: DecisionId,
    /// What it is worth.
    pub outcome: RiskOutcome,
}

impl RiskVerdict {
    /// Tells whether it says no more than a RISK may: whole shares at a price, and no more than were suggested.
    #[must_use]
    pub fn keeps_to(&self, suggested: Option<Decimal>) -> bool {
        match &self.outcome {
            RiskOutcome::Held | RiskOutcome::Denied(_) => true,
            RiskOutcome::Allowed { quantity, price, .. } => {
                Decimal::ONE <= *quantity
                    && quantity.is_integer()
                    && Decimal::ZERO < *price
                    && suggested.is_none_or(|suggested| *quantity <= suggested)
            }
        }
    }

    /// This verdict, narrowed by another RISK's: the fewer shares, and a denial of either.
    #[must_use]
    pub fn narrowed_by(self, other: &RiskOutcome) -> Self {
        let outcome = match (self.outcome, other) {
            (RiskOutcome::Denied(rule), _) => RiskOutcome::Denied(rule),
            (RiskOutcome::Held, _) => RiskOutcome::Held,
            (RiskOutcome::Allowed { .. }, RiskOutcome::Denied(rule)) => RiskOutcome::Denied(*rule),
            (RiskOutcome::Allowed { .. }, RiskOutcome::Held) => RiskOutcome::Held,
            (
                RiskOutcome::Allowed { quantity, price, mut lowered_by },
                RiskOutcome::Allowed { quantity: less, lowered_by: rules, .. },
            ) => {
                if quantity <= *less {
                    RiskOutcome::Allowed { quantity, price, lowered_by }
                } else {
                    for rule in rules.iter().chain(&[RiskRule::Provider]) {
                        if !lowered_by.contains(rule) {
                            lowered_by.push(*rule);
                        }
                    }
                    whole_shares(*less, price, lowered_by)
                }
            }
        };
        Self { decision_id: self.decision_id, outcome }
    }
}

/// The built-in RISK of one cycle: what its buys may still cost is counted down.
#[derive(Clone, Debug)]
pub struct BuiltInRisk {
    limits: RiskLimits,
    capital_left: Decimal,
}

impl BuiltInRisk {
    /// Nothing was judged yet.
    #[must_use]
    pub const fn new(limits: RiskLimits) -> Self {
        Self { capital_left: limits.capital, limits }
    }

    /// Judges the next decision.
    ///
    /// Source: issue "Details decided", built-in RISK.
    pub fn judge_decision(&mut self, decision: &TradeDecision, input: RiskInput<'_>) -> RiskVerdict {
        let verdict = self.own_verdict(decision, input);
        self.count_capital(decision.action, verdict)
    }

    /// Judges the next decision, of which another RISK has said this: it may lower or deny, and nothing else.
    pub fn judge_behind(
        &mut self,
        decision: &TradeDecision,
        input: RiskInput<'_>,
        theirs: &RiskOutcome,
    ) -> RiskVerdict {
        let verdict = self.own_verdict(decision, input).narrowed_by(theirs);
        self.count_capital(decision.action, verdict)
    }

    fn own_verdict(&self, decision: &TradeDecision, input: RiskInput<'_>) -> RiskVerdict {
        let outcome = match decision.action {
            DecisionAction::Hold => RiskOutcome::Held,
            DecisionAction::Buy | DecisionAction::Sell => {
                self.allowed_outcome(decision, input).unwrap_or_else(RiskOutcome::Denied)
            }
        };
        RiskVerdict { decision_id: decision.decision_id.clone(), outcome }
    }

    /// What a buy costs is no longer there for the next one. Only what is allowed in the end costs anything.
    fn count_capital(&mut self, action: DecisionAction, verdict: RiskVerdict) -> RiskVerdict {
        if let (RiskOutcome::Allowed { quantity, price, .. }, DecisionAction::Buy) =
            (&verdict.outcome, action)
        {
            self.capital_left = self.capital_left.saturating_sub(quantity.saturating_mul(*price));
        }
        verdict
    }

    fn allowed_outcome(
        &self,
        decision: &TradeDecision,
        input: RiskInput<'_>,
    ) -> Result<RiskOutcome, RiskRule> {
        let price = input.price.filter(|price| Decimal::ZERO < *price).ok_or(RiskRule::PriceUnavailable)?;
        if !input.symbols.contains(&decision.symbol) {
            return Err(RiskRule::SymbolNotInStrategy);
        }
        if decision.confidence < input.mode.confidence_min(self.limits.confidence_min) {
            return Err(RiskRule::ConfidenceTooLow);
        }
        if input.order_unknown {
            return Err(RiskRule::OrderUnknown);
        }
        let asked = input.quantity.ok_or(RiskRule::QuantityMissing)?;
        let capital = match decision.action {
            DecisionAction::Buy => self.capital_left,
            // A sale may close what the capital went into, so what was bought does not count against it.
            DecisionAction::Sell | DecisionAction::Hold => self.limits.capital,
        };
        let (mut quantity, mut lowered_by) = (asked, Vec::new());
        for (rule, bound) in [
            (RiskRule::Mode, Some(input.mode.scale_quantity(asked))),
            // More shares than a decimal can count are no bound.
            (RiskRule::MaxPositionSize, self.limits.max_position_size.checked_div(price)),
            (RiskRule::Capital, capital.checked_div(price)),
        ] {
            if let Some(bound) = bound.filter(|bound| *bound < quantity) {
                quantity = bound;
                lowered_by.push(rule);
            }
        }
        Ok(whole_shares(quantity, price, lowered_by))
    }
}

fn whole_shares(quantity: Decimal, price: Decimal, lowered_by: Vec<RiskRule>) -> RiskOutcome {
    match quantity.floor() {
        none if none < Decimal::ONE => RiskOutcome::Denied(RiskRule::QtyLessThanOneShare),
        quantity => RiskOutcome::Allowed { quantity, price, lowered_by },
    }
}

#[cfg(test)]
mod tests;
