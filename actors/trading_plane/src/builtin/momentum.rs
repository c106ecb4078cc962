//! The momentum strategy: with the move of the last prices, and not against it.

use orchestrator_kernel::ports::market::MarketPrice;
use orchestrator_kernel::trading::decision::{Confidence, DecisionAction};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::Opinion;

/// A move below this part of the price is none: 0.1 %.
const MOVE_MIN: Decimal = Decimal::from_parts(1, 0, 0, false, 3);
/// A move of this part of the price has full confidence: 2 %.
const MOVE_FULL: Decimal = Decimal::from_parts(2, 0, 0, false, 2);

/// The opinion about these prices, oldest first; nothing from fewer than two, or from one that is no price.
pub(super) fn judge_prices(prices: &[MarketPrice]) -> Option<Opinion> {
    let [first, .., last] = prices else { return None };
    let moved = (last.price - first.price).checked_div(first.price)?;
    let action = match moved.abs() < MOVE_MIN {
        true => DecisionAction::Hold,
        false if moved.is_sign_positive() => DecisionAction::Buy,
        false => DecisionAction::Sell,
    };
    let part = moved.abs().checked_div(MOVE_FULL)?.min(Decimal::ONE).to_f64()?;
    Some(Opinion {
        action,
        confidence: Confidence::new(0.5 + part / 2.0)?,
        reasoning: format!("moved by {} over {} prices", moved.round_dp(6), prices.len()),
        price: Some(last.price).filter(|price| Decimal::ZERO < *price),
    })
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ids::TsMs;

    use super::*;

    fn judged(prices: &[i64]) -> Option<(DecisionAction, f64)> {
        let at = |(price, at): (&i64, i64)| MarketPrice { price: Decimal::from(*price), at: TsMs(at) };
        let prices: Vec<_> = prices.iter().zip(0..).map(at).collect();
        judge_prices(&prices).map(|opinion| (opinion.action, opinion.confidence.get()))
    }

    #[test]
    fn it_goes_with_the_move_and_holds_without_one() {
        for (prices, opinion) in [
            (&[][..], None),
            (&[100], None),
            (&[0, 100], None),
            (&[1000, 1000], Some((DecisionAction::Hold, 0.5))),
            (&[10_000, 10_009], Some((DecisionAction::Hold, 0.5225))),
            (&[1000, 1001], Some((DecisionAction::Buy, 0.525))),
            (&[1000, 900, 1010], Some((DecisionAction::Buy, 0.75))),
            (&[1000, 500], Some((DecisionAction::Sell, 1.0))),
        ] {
            assert_eq!(judged(prices), opinion, "{prices:?}");
        }
    }
}
