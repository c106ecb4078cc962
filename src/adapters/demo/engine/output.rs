//! The Regime Engine's output, as CONTRACTS §3 has it. Fields stand in sorted order: what serde_json writes is
//! canonical.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// The nine regimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the Regime Engine's own words; the demo gives them no further meaning")]
pub enum Regime {
    ChopBalanced,
    ChopStophunt,
    LiquidationUp,
    LiquidationDown,
    SqueezeUp,
    SqueezeDown,
    TrendBuildUp,
    TrendBuildDown,
    TrendExhaustion,
}

impl Regime {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChopBalanced => "CHOP_BALANCED",
            Self::ChopStophunt => "CHOP_STOPHUNT",
            Self::LiquidationUp => "LIQUIDATION_UP",
            Self::LiquidationDown => "LIQUIDATION_DOWN",
            Self::SqueezeUp => "SQUEEZE_UP",
            Self::SqueezeDown => "SQUEEZE_DOWN",
            Self::TrendBuildUp => "TREND_BUILD_UP",
            Self::TrendBuildDown => "TREND_BUILD_DOWN",
            Self::TrendExhaustion => "TREND_EXHAUSTION",
        }
    }
}

/// Return value of `run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegimeOutput<'a> {
    /// 0 to 1.
    #[serde(deserialize_with = "exact")]
    pub confidence: f64,
    /// What speaks for the regime.
    pub drivers: Vec<Cow<'a, str>>,
    /// What speaks against it.
    pub invalidations: Vec<Cow<'a, str>>,
    /// What the regime allows.
    pub permissions: Vec<Cow<'a, str>>,
    /// The regime.
    pub regime: Regime,
    /// The snapshot's symbol.
    pub symbol: Cow<'a, str>,
    /// The snapshot's timestamp in milliseconds.
    pub timestamp: i64,
}

/// Reads the nearest double. serde_json by default may be one unit off, and a state must survive being stored.
fn exact<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let number = <&RawValue>::deserialize(deserializer)?.get();
    number.parse().map_err(|_| serde::de::Error::custom("confidence is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_agree_with_the_serialised_form() {
        let all = [
            Regime::ChopBalanced,
            Regime::ChopStophunt,
            Regime::LiquidationUp,
            Regime::LiquidationDown,
            Regime::SqueezeUp,
            Regime::SqueezeDown,
            Regime::TrendBuildUp,
            Regime::TrendBuildDown,
            Regime::TrendExhaustion,
        ];
        for regime in all {
            assert_eq!(serde_json::to_string(&regime).unwrap(), format!("\"{}\"", regime.as_str()));
        }
    }
}
