//! The regime strategy: what the Regime Engine says, as a decision.

use orchestrator_kernel::trading::decision::{Confidence, DecisionAction};
use serde::Deserialize;

use super::Opinion;

/// The part of a RegimeOutput that decides.
#[derive(Deserialize)]
struct RegimeReading {
    regime: String,
    confidence: f64,
}

/// The opinion about an output of the engine, as JSON text; nothing when it is none.
///
/// A regime that builds or squeezes upwards buys, one downwards sells, any other holds.
pub(super) fn judge_output(output: &str) -> Option<Opinion> {
    let reading: RegimeReading = serde_json::from_str(output).ok()?;
    let action = match reading.regime.as_str() {
        up if up.ends_with("_UP") => DecisionAction::Buy,
        down if down.ends_with("_DOWN") => DecisionAction::Sell,
        _ => DecisionAction::Hold,
    };
    Some(Opinion {
        action,
        confidence: Confidence::new(reading.confidence)?,
        reasoning: format!("regime {:.64}", reading.regime),
        price: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_regimes_direction_decides_and_what_is_no_output_says_nothing() {
        let judged =
            |text: &str| judge_output(text).map(|opinion| (opinion.action, opinion.confidence.get()));
        for (regime, action) in [
            ("TREND_BUILD_UP", DecisionAction::Buy),
            ("SQUEEZE_DOWN", DecisionAction::Sell),
            ("CHOP_BALANCED", DecisionAction::Hold),
        ] {
            let text = format!(r#"{{"confidence":0.7333,"regime":"{regime}","symbol":"BTCUSDT"}}"#);
            assert_eq!(judged(&text), Some((action, 0.7333)), "{regime}");
        }
        assert_eq!(judged("{}"), None);
        assert_eq!(judged(r#"{"confidence":7,"regime":"SQUEEZE_UP"}"#), None);
    }
}
