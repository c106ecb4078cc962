//! The port of what is known of the market right now, for the stages that are built in and for the staleness gate.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use rust_decimal::Decimal;

use crate::ids::{Symbol, TsMs};

/// Price of a symbol, and the time that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarketPrice {
    /// The price.
    pub price: Decimal,
    /// Its time.
    pub at: TsMs,
}

/// View of the newest inputs. It answers from memory, at once.
pub trait MarketView: Send + Sync {
    /// Time of the newest input of any of these symbols.
    fn newest_input(&self, symbols: &[Symbol]) -> Option<TsMs>;

    /// The last prices of a symbol, oldest first, at most `prices_max`.
    fn last_prices(&self, symbol: &Symbol, prices_max: usize) -> Vec<MarketPrice>;

    /// The engine's last output for a symbol, as JSON text.
    fn last_output(&self, symbol: &Symbol) -> Option<String>;
}

#[derive(Debug, Default)]
struct KnownMarket {
    prices: BTreeMap<Symbol, Vec<MarketPrice>>,
    outputs: BTreeMap<Symbol, (TsMs, String)>,
}

/// Prices of a symbol that the reference keeps.
const PRICES_KEPT: usize = 1000;

/// The reference: a market in memory, as it was told.
#[derive(Debug, Default)]
pub struct MemoryMarket(Mutex<KnownMarket>);

impl MemoryMarket {
    /// Takes a symbol's next price.
    pub fn push_price(&self, symbol: &Symbol, price: MarketPrice) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let prices = known.prices.entry(symbol.clone()).or_default();
        if prices.len() == PRICES_KEPT {
            prices.remove(0);
        }
        prices.push(price);
    }

    /// Takes the engine's output for a symbol.
    pub fn put_output(&self, symbol: &Symbol, at: TsMs, output: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.outputs.insert(symbol.clone(), (at, output.to_owned()));
    }
}

impl MarketView for MemoryMarket {
    fn newest_input(&self, symbols: &[Symbol]) -> Option<TsMs> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_symbol = |symbol: &Symbol| {
            let price = known.prices.get(symbol).and_then(|prices| prices.last()).map(|price| price.at);
            price.max(known.outputs.get(symbol).map(|(at, _)| *at))
        };
        symbols.iter().filter_map(of_symbol).max()
    }

    fn last_prices(&self, symbol: &Symbol, prices_max: usize) -> Vec<MarketPrice> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let prices = known.prices.get(symbol).map(Vec::as_slice).unwrap_or_default();
        prices.iter().skip(prices.len().saturating_sub(prices_max)).copied().collect()
    }

    fn last_output(&self, symbol: &Symbol) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.outputs.get(symbol).map(|(_, output)| output.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_prices_and_outputs_counts_and_the_last_prices_come_in_order() {
        let market = MemoryMarket::default();
        let (a, b) = (Symbol::from("A"), Symbol::from("B"));
        for at in 1..=3 {
            market.push_price(&a, MarketPrice { price: Decimal::from(at), at: TsMs(at) });
        }
        market.put_output(&b, TsMs(9), "{}");

        assert_eq!(market.newest_input(std::slice::from_ref(&a)), Some(TsMs(3)));
        assert_eq!(market.newest_input(&[a.clone(), b.clone()]), Some(TsMs(9)));
        assert_eq!(market.newest_input(&[]), None);
        let last: Vec<i64> = market.last_prices(&a, 2).iter().map(|price| price.at.0).collect();
        assert_eq!(last, [2, 3]);
        assert_eq!((market.last_output(&a), market.last_output(&b)), (None, Some("{}".to_owned())));
    }
}
