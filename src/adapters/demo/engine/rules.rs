//! From a snapshot's numbers to a regime: a handful of thresholds, chosen so that real captures give varied outputs.

use std::borrow::Cow;

use serde::Deserialize;

use super::output::{Regime, RegimeOutput};

/// Share of the readings (−1 to 1) from which there is a trend.
const TREND: f64 = 0.35;
/// Price is away from VWAP, in average true ranges.
const STRETCHED: f64 = 0.45;
/// Aggressive volume is on one side, −1 to 1.
const ONE_SIDED: f64 = 0.6;
/// Aggressive volume works against the price, −1 to 1.
const OPPOSED: f64 = 0.3;
/// Funding is crowded, in standard deviations.
const CROWDED: f64 = 1.0;
/// Liquidations rule, 0 to 1.
const LIQUIDATING: f64 = 0.7;
/// Stops were swept, 0 to 1.
const SWEPT: f64 = 0.6;
/// A reading from which on it is named among drivers or invalidations.
const NOTABLE: f64 = 0.1;

/// The numbers that the demo reads; all others are ignored. Absent and `null` are the same to it: unknown.
#[derive(Deserialize)]
struct Inputs {
    market: Option<Market>,
    derivatives: Option<Derivatives>,
    flow: Option<Flow>,
}

#[derive(Default, Deserialize)]
struct Market {
    price: Option<f64>,
    vwap: Option<f64>,
    atr: Option<f64>,
    sweep_score: Option<f64>,
}

#[derive(Default, Deserialize)]
struct Derivatives {
    funding_z: Option<f64>,
    liquidation_intensity: Option<f64>,
}

#[derive(Default, Deserialize)]
struct Flow {
    cvd: Option<f64>,
    cvd_slope: Option<f64>,
    aggressive_volume_ratio: Option<f64>,
}

impl Market {
    /// Price against VWAP, in average true ranges.
    fn price_stretch(&self) -> Option<f64> {
        Some((self.price? - self.vwap?) / self.atr?)
    }
}

impl Flow {
    /// Change of the cumulative volume delta against its size, −1 to 1.
    fn cvd_turn(&self) -> Option<f64> {
        let slope = self.cvd_slope?;
        Some(slope / (self.cvd?.abs() + slope.abs()))
    }
}

/// The output for one snapshot.
///
/// # Errors
///
/// The inputs are no object with numbers where numbers belong.
pub(super) fn run<'a>(
    symbol: &'a str,
    timestamp: i64,
    inputs: &str,
) -> Result<RegimeOutput<'a>, serde_json::Error> {
    let readings = Readings::from_inputs(serde_json::from_str(inputs)?);
    let trend = readings.trend_strength();
    let regime = readings.classify_regime(trend);
    let (drivers, invalidations) = readings.name_notable(trend);
    Ok(RegimeOutput {
        confidence: confidence_in_regime(regime, trend),
        drivers,
        invalidations,
        permissions: vec![Cow::Borrowed(regime.as_str())],
        regime,
        symbol: Cow::Borrowed(symbol),
        timestamp,
    })
}

/// Readings that the rules look at; unknown ones are 0.
struct Readings {
    /// See [`Market::stretch`].
    stretch: f64,
    /// Aggressive volume: −1 all selling, 1 all buying.
    pressure: f64,
    /// See [`Flow::cvd_turn`].
    slope: f64,
    funding: f64,
    liquidation: f64,
    sweep: f64,
}

impl Readings {
    fn from_inputs(inputs: Inputs) -> Self {
        let market = inputs.market.unwrap_or_default();
        let derivatives = inputs.derivatives.unwrap_or_default();
        let flow = inputs.flow.unwrap_or_default();
        Self {
            stretch: finite_or_zero(market.price_stretch()),
            pressure: finite_or_zero(flow.aggressive_volume_ratio.map(|ratio| 2.0 * ratio - 1.0))
                .clamp(-1.0, 1.0),
            slope: finite_or_zero(flow.cvd_turn()),
            funding: finite_or_zero(derivatives.funding_z),
            liquidation: finite_or_zero(derivatives.liquidation_intensity),
            sweep: finite_or_zero(market.sweep_score),
        }
    }

    /// −1 down to 1 up.
    fn trend_strength(&self) -> f64 {
        (self.stretch.clamp(-1.0, 1.0) + self.pressure + self.slope) / 3.0
    }

    fn classify_regime(&self, trend: f64) -> Regime {
        let (up, down) = (trend >= TREND, trend <= -TREND);
        if self.liquidation >= LIQUIDATING && trend.abs() >= NOTABLE {
            return if trend > 0.0 { Regime::LiquidationUp } else { Regime::LiquidationDown };
        }
        if up && (self.funding <= -CROWDED || self.pressure >= ONE_SIDED) {
            return Regime::SqueezeUp;
        }
        if down && (self.funding >= CROWDED || self.pressure <= -ONE_SIDED) {
            return Regime::SqueezeDown;
        }
        let against_the_price = self.pressure.abs() >= OPPOSED && self.pressure * self.stretch < 0.0;
        if self.stretch.abs() >= STRETCHED && against_the_price {
            return Regime::TrendExhaustion;
        }
        if up {
            return Regime::TrendBuildUp;
        }
        if down {
            return Regime::TrendBuildDown;
        }
        match self.sweep >= SWEPT || self.stretch.abs() >= STRETCHED {
            true => Regime::ChopStophunt,
            false => Regime::ChopBalanced,
        }
    }

    /// The notable readings: those that point with the trend, those that point against it.
    fn name_notable(&self, trend: f64) -> (Vec<Cow<'static, str>>, Vec<Cow<'static, str>>) {
        let directed = [
            (self.stretch, "Market price against VWAP"),
            (self.pressure, "Flow aggressive volume"),
            (self.slope, "Flow CVD slope"),
            (-self.funding, "Derivatives funding"),
        ];
        let (mut with, mut against) = (Vec::with_capacity(6), Vec::new());
        for (reading, name) in directed {
            if reading.abs() >= NOTABLE {
                if reading * trend < 0.0 { &mut against } else { &mut with }.push(Cow::Borrowed(name));
            }
        }
        for (reading, name) in
            [(self.liquidation, "Derivatives liquidations"), (self.sweep, "Market sweep score")]
        {
            if reading >= NOTABLE {
                with.push(Cow::Borrowed(name));
            }
        }
        (with, against)
    }
}

/// Unknown, and what a division by zero gives, counts as 0.
fn finite_or_zero(reading: Option<f64>) -> f64 {
    reading.filter(|reading| reading.is_finite()).unwrap_or(0.0)
}

/// 0.5 to 1: in a trend the more of it, without one the less of it. Four decimals, so that the text is short.
fn confidence_in_regime(regime: Regime, trend: f64) -> f64 {
    let strength = match regime {
        Regime::ChopBalanced | Regime::ChopStophunt | Regime::TrendExhaustion => 1.0 - trend.abs(),
        Regime::LiquidationUp
        | Regime::LiquidationDown
        | Regime::SqueezeUp
        | Regime::SqueezeDown
        | Regime::TrendBuildUp
        | Regime::TrendBuildDown => trend.abs(),
    };
    ((0.5 + strength / 2.0) * 1e4).round() / 1e4
}
