//! Signals of the paper Signal Service: momentum over the made-up bars, the same for the same request and seed.

use std::collections::BTreeSet;

use orchestrator_kernel::trading::order::id::UtcDate;
use rust_decimal::Decimal;

use super::bars::{LOOK_BACK, PaperBars};

/// Decimal places of a predicted return.
const RETURN_PLACES: u32 = 6;
/// Decimal places of a weight, as many as a double shows.
const WEIGHT_PLACES: u32 = 16;
/// Longs, and shorts, when neither the request nor the command says how many.
const SIDE_DEFAULT_MAX: usize = 3;

/// Symbols to buy and to sell, by predicted return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SideCounts {
    /// Longs: the highest returns.
    pub top_n: usize,
    /// Shorts: the lowest.
    pub bottom_n: usize,
}

impl SideCounts {
    /// Half of the symbols on each side, at most three; of one symbol a long.
    #[must_use]
    pub(super) fn of_universe(symbols: usize) -> Self {
        let side = (symbols / 2).min(SIDE_DEFAULT_MAX);
        Self { top_n: side.max(1), bottom_n: side }
    }
}

/// Signal for one symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PaperSignal {
    /// The symbol.
    pub symbol: String,
    /// Momentum: the last close by that of twenty weekdays before, less one.
    pub predicted_return: Decimal,
    /// 1 is the highest return.
    pub rank: usize,
    /// More than zero long, less than zero short.
    pub target_weight: Decimal,
}

/// Request that the service refuses with 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignalsRefused {
    /// More sides than symbols.
    #[error("Cannot select {top_n} long + {bottom_n} short from {symbols} symbols")]
    TooFewSymbols {
        /// Longs asked for.
        top_n: usize,
        /// Shorts asked for.
        bottom_n: usize,
        /// Symbols in the request.
        symbols: usize,
    },
    /// A date without a bar.
    #[error("Invalid request: No features available for {0}")]
    NoBars(UtcDate),
    /// Symbols that have no bars: one among good ones fails the whole request.
    #[error("Invalid request: No features available for {date}: {unknown}")]
    UnknownSymbols {
        /// The date of the request.
        date: UtcDate,
        /// The symbols.
        unknown: String,
    },
}

/// Computes the signals for `symbols` on `date`, best first. A symbol that is named twice counts once.
///
/// # Errors
///
/// [`SignalsRefused`]: more sides than symbols, a date without a bar, a symbol outside `universe`.
pub(super) fn compute_signals(
    bars: &PaperBars,
    universe: &BTreeSet<String>,
    symbols: &[String],
    date: UtcDate,
    sides: SideCounts,
) -> Result<Vec<PaperSignal>, SignalsRefused> {
    let SideCounts { top_n, bottom_n } = sides;
    let symbols: BTreeSet<&String> = symbols.iter().collect();
    if symbols.len() < top_n.saturating_add(bottom_n) {
        return Err(SignalsRefused::TooFewSymbols { top_n, bottom_n, symbols: symbols.len() });
    }
    let unknown: Vec<&str> =
        symbols.iter().filter(|symbol| !universe.contains(**symbol)).map(|symbol| symbol.as_str()).collect();
    if !unknown.is_empty() {
        return Err(SignalsRefused::UnknownSymbols { date, unknown: unknown.join(", ") });
    }
    let mut signals = Vec::with_capacity(symbols.len());
    for symbol in symbols {
        let closes = bars.closes_until(symbol, date).ok_or(SignalsRefused::NoBars(date))?;
        let predicted_return = (closes[LOOK_BACK] / closes[0] - Decimal::ONE).round_dp(RETURN_PLACES);
        let (symbol, target_weight) = (symbol.clone(), Decimal::ZERO);
        signals.push(PaperSignal { symbol, predicted_return, rank: 0, target_weight });
    }
    // Equal returns keep the order of their names.
    signals.sort_by_key(|signal| std::cmp::Reverse(signal.predicted_return));
    signals.iter_mut().zip(1..).for_each(|(signal, rank)| signal.rank = rank);
    let shorts_from = signals.len() - bottom_n;
    weigh_side(&mut signals[..top_n], Decimal::ONE);
    weigh_side(&mut signals[shorts_from..], Decimal::NEGATIVE_ONE);
    Ok(signals)
}

/// Gives every signal the same share of `whole`; the first one also what the rounding leaves, so that they sum to it.
fn weigh_side(side: &mut [PaperSignal], whole: Decimal) {
    let Some(count) = std::num::NonZero::new(side.len()) else { return };
    let count = Decimal::from(count.get());
    let share = (whole / count).round_dp_with_strategy(WEIGHT_PLACES, rust_decimal::RoundingStrategy::ToZero);
    side.iter_mut().for_each(|signal| signal.target_weight = share);
    if let Some(first) = side.first_mut() {
        first.target_weight += whole - share * count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: UtcDate = UtcDate(20_090);

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("S{number:03}")).collect()
    }

    fn compute(count: usize, sides: SideCounts) -> Result<Vec<PaperSignal>, SignalsRefused> {
        let names = names(count);
        compute_signals(&PaperBars::new(7), &names.iter().cloned().collect(), &names, DATE, sides)
    }

    #[test]
    fn the_best_are_bought_and_the_worst_are_sold() {
        let signals = compute(10, SideCounts { top_n: 3, bottom_n: 2 }).unwrap();

        assert!(signals.is_sorted_by(|a, b| b.predicted_return <= a.predicted_return));
        assert_eq!(
            signals.iter().map(|signal| signal.rank).collect::<Vec<_>>(),
            (1..=10).collect::<Vec<_>>()
        );
        let sum = |wanted: fn(&Decimal) -> bool| -> Decimal {
            signals.iter().map(|signal| signal.target_weight).filter(wanted).sum()
        };
        assert_eq!(sum(Decimal::is_sign_positive), Decimal::ONE);
        assert_eq!(sum(|weight| *weight < Decimal::ZERO), Decimal::NEGATIVE_ONE);
        assert!(signals[3..8].iter().all(|signal| signal.target_weight.is_zero()), "{signals:?}");
        assert_eq!(signals[1].target_weight.to_string(), "0.3333333333333333");
    }

    #[test]
    fn an_unknown_symbol_fails_the_whole_request() {
        let universe = names(2).into_iter().collect();
        let asked = ["S000".to_owned(), "NOPE".to_owned()];
        let sides = SideCounts { top_n: 1, bottom_n: 1 };

        let refused = compute_signals(&PaperBars::new(7), &universe, &asked, DATE, sides);

        let text = "Invalid request: No features available for 2025-01-02: NOPE";
        assert_eq!(refused.unwrap_err().to_string(), text);
    }

    #[test]
    fn more_sides_than_symbols_are_refused_in_the_recorded_words() {
        let refused = compute(1, SideCounts { top_n: 2, bottom_n: 1 }).unwrap_err();

        assert_eq!(refused.to_string(), "Cannot select 2 long + 1 short from 1 symbols");
    }

    #[test]
    fn sides_are_half_of_the_symbols_at_most_three() {
        let of = |symbols| SideCounts::of_universe(symbols);

        assert_eq!(of(1), SideCounts { top_n: 1, bottom_n: 0 });
        assert_eq!(of(2), SideCounts { top_n: 1, bottom_n: 1 });
        assert_eq!(of(5), SideCounts { top_n: 2, bottom_n: 2 });
        assert_eq!(of(500), SideCounts { top_n: 3, bottom_n: 3 });
    }
}
