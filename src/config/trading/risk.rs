//! `[trading.risk]`: the limits of the built-in RISK, and of sizes that it chooses.

use std::collections::BTreeMap;

use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::trading::decision::Confidence;
use orchestrator_kernel::trading::ids::StrategyName;
use orchestrator_kernel::trading::risk::RiskLimits;
use orchestrator_kernel::trading::sizing::SizingLimits;
use orchestrator_trading_plane::builtin::BuiltInSettings;
use rust_decimal::Decimal;

use super::forms::{ConfidenceForm, Money};
use crate::config::reader::forms::Count;
use crate::config::reader::section::Section;

/// `[trading.risk]`.
///
/// Source: CONTRACTS, section 5, "Sizing"; specification 004 for the two amounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradingRiskConfig {
    /// Money that the buys of one cycle may be worth together, 0 to 10^12.
    pub capital: Decimal,
    /// Money that one order may be worth, more than 0, up to 10^12.
    pub max_position_size: Decimal,
    /// Confidence that a decision needs, 0 to 1.
    pub confidence_min: Confidence,
    /// Prices that a move is computed over, 2 to 1000.
    pub prices_max: usize,
}

impl Default for TradingRiskConfig {
    fn default() -> Self {
        Self {
            capital: Decimal::from(100_000),
            max_position_size: Decimal::from(20_000),
            confidence_min: Confidence::ZERO,
            prices_max: 20,
        }
    }
}

impl TradingRiskConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value("capital", &mut config.capital, &Money { may_be_zero: true });
        section.read_value("max_position_size", &mut config.max_position_size, &Money { may_be_zero: false });
        section.read_value("confidence_min", &mut config.confidence_min, &ConfidenceForm);
        section.read_value("prices_max", &mut config.prices_max, &Count(2..=1000));
        config
    }

    /// The settings of the built-in stages, of strategies with these targets.
    #[must_use]
    pub const fn built_in_settings(
        &self,
        targets: BTreeMap<StrategyName, BTreeMap<Symbol, Decimal>>,
    ) -> BuiltInSettings {
        let Self { capital, max_position_size, confidence_min, prices_max } = *self;
        BuiltInSettings {
            targets,
            risk: RiskLimits { max_position_size, capital, confidence_min },
            sizing: SizingLimits { capital, max_position_size },
            prices_max,
        }
    }
}
