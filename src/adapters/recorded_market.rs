//! The market as the logs show it: the last prices of the receipts, the last outputs of the run log.
//!
//! ```text
//! receipts ──TradeTick, Candle──▶ last prices ┐
//!                                             ├─▶ MarketView, from memory
//! run log  ──completed runs─────▶ last output ┘
//! ```
//!
//! Only symbols that a strategy names are kept, so what is known is bounded, and a receipt of any other symbol costs
//! one look at its header.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::selected_output;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::ports::engine::EngineAnswer;
use orchestrator_kernel::ports::market::{MarketPrice, MarketView};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Known of one symbol.
#[derive(Debug, Default)]
struct SymbolMarket {
    /// The last prices, oldest first.
    prices: VecDeque<MarketPrice>,
    output: Option<String>,
    newest: Option<TsMs>,
}

/// Market of the strategies' symbols, fed with what is durable in the logs.
#[derive(Debug)]
pub struct RecordedMarket {
    symbols: BTreeMap<Symbol, Mutex<SymbolMarket>>,
    prices_max: usize,
}

impl RecordedMarket {
    /// A market of these symbols, of which the last `prices_max` prices are kept, at least one.
    #[must_use]
    pub fn new(symbols: impl IntoIterator<Item = Symbol>, prices_max: usize) -> Self {
        let symbols = symbols.into_iter().map(|symbol| (symbol, Mutex::default())).collect();
        Self { symbols, prices_max: prices_max.max(1) }
    }

    fn find_symbol(&self, symbol: &str) -> Option<MutexGuard<'_, SymbolMarket>> {
        let known = self.symbols.get(symbol)?;
        Some(known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a receipt that has a price. One without, such as a failure to decode, makes nothing that is known newer.
    pub fn take_receipt(&self, receipt: &ReceiptRecord<'_>) {
        let Some(mut known) = self.find_symbol(receipt.symbol) else { return };
        let Some(price) = find_price(receipt.event_type, receipt.event) else { return };
        known.newest = known.newest.max(Some(receipt.ingest_ts_ms));
        if known.prices.len() == self.prices_max {
            known.prices.pop_front();
        }
        known.prices.push_back(MarketPrice { price, at: receipt.ingest_ts_ms });
    }

    /// Takes a record of the run log; says whether it is a run that has an output.
    pub fn take_run(&self, record: &RunRecord) -> bool {
        let RunStatus::Completed { answer, .. } = &record.status else { return false };
        let output = match answer {
            EngineAnswer::Truth { regime_output } => Some(regime_output.as_str()),
            EngineAnswer::Hysteresis { decision, .. } => selected_output(decision).ok().map(RawValue::get),
        };
        if let (Some(mut known), Some(output)) = (self.find_symbol(record.facts.symbol.as_str()), output) {
            known.newest = known.newest.max(Some(record.facts.engine_timestamp_ms));
            known.output = Some(output.to_owned());
        }
        true
    }
}

impl MarketView for RecordedMarket {
    fn newest_input(&self, symbols: &[Symbol]) -> Option<TsMs> {
        symbols.iter().filter_map(|symbol| self.find_symbol(symbol.as_str())?.newest).max()
    }

    fn last_prices(&self, symbol: &Symbol, prices_max: usize) -> Vec<MarketPrice> {
        let Some(known) = self.find_symbol(symbol.as_str()) else { return Vec::new() };
        known.prices.iter().skip(known.prices.len().saturating_sub(prices_max)).copied().collect()
    }

    fn last_output(&self, symbol: &Symbol) -> Option<String> {
        self.find_symbol(symbol.as_str())?.output.clone()
    }
}

/// The fields of an event that hold a price at which something was traded.
///
/// Source: CONTRACTS section 1, the table of normalized fields.
#[derive(Deserialize)]
struct PricedEvent<'a> {
    #[serde(borrow)]
    normalized: PricedFields<'a>,
}

#[derive(Deserialize)]
struct PricedFields<'a> {
    #[serde(borrow)]
    price: Option<&'a RawValue>,
    #[serde(borrow)]
    close: Option<&'a RawValue>,
}

/// The price of a trade or of a finished candle. What is no positive number is none.
fn find_price(event_type: &str, event: &[u8]) -> Option<Decimal> {
    let is_trade = match event_type {
        "TradeTick" => true,
        "Candle" => false,
        _ => return None,
    };
    let PricedEvent { normalized } = serde_json::from_slice(event).ok()?;
    let text = if is_trade { normalized.price } else { normalized.close }?.get().trim_matches('"');
    let price = Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text)).ok()?;
    Some(price).filter(|price| price.is_sign_positive() && !price.is_zero())
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ids::IngestSeq;

    use super::*;

    fn receipt<'a>(symbol: &'a str, event_type: &'a str, at: i64, event: &'a str) -> ReceiptRecord<'a> {
        ReceiptRecord {
            ingest_seq: IngestSeq(1),
            ingest_ts_ms: TsMs(at),
            origin: "feed",
            position: 0,
            symbol,
            event_type,
            snapshot_ts_ms: None,
            event: event.as_bytes(),
        }
    }

    #[test]
    fn trades_and_candles_have_prices_and_what_has_none_makes_nothing_newer() {
        let (a, b) = (Symbol::from("A"), Symbol::from("B"));
        let market = RecordedMarket::new([a.clone()], 2);
        let priced = |field: &str, text: &str| format!(r#"{{"normalized":{{"{field}":{text}}}}}"#);
        for (at, event_type, field, text) in [
            (1, "TradeTick", "price", "100.5"),
            (2, "TradeTick", "price", "\"101.25\""),
            (3, "Candle", "close", "1e2"),
            (4, "TradeTick", "price", "-1"),
            (5, "TradeTick", "price", "null"),
            (6, "TradeTick", "quantity", "1"),
            (7, "BookDelta", "price", "5"),
        ] {
            market.take_receipt(&receipt("A", event_type, at, &priced(field, text)));
        }
        market.take_receipt(&receipt("B", "TradeTick", 9, &priced("price", "7")));

        let prices: Vec<_> =
            market.last_prices(&a, 9).iter().map(|price| (price.at.0, price.price.to_string())).collect();
        assert_eq!(prices, [(2, "101.25".to_owned()), (3, "100".to_owned())], "two are kept, oldest first");
        assert_eq!(market.last_prices(&a, 1).len(), 1);
        assert_eq!(market.newest_input(&[a.clone(), b.clone()]), Some(TsMs(3)));
        assert!(market.last_prices(&b, 1).is_empty(), "no strategy names it");
        assert_eq!(market.last_output(&a), None);
    }
}
