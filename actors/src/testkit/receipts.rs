//! Receipts as a market data service would send them.

use bytes::Bytes;
use orchestrator_kernel::ports::source::RawItem;

fn event(kind: &str, symbol: &str, recv: i64, normalized: &str) -> Bytes {
    Bytes::from(format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"{kind}","source_id":"test","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":{recv},"raw_payload":"{{}}","normalized":{normalized}}}"#
    ))
}

/// A trade of `symbol` received at `recv`.
#[must_use]
pub fn trade(symbol: &str, recv: i64) -> Bytes {
    event("TradeTick", symbol, recv, r#"{"price":1.50,"quantity":2,"side":null}"#)
}

/// The engine's inputs of `symbol` for the timestamp `ts`, received at `recv`.
#[must_use]
pub fn snapshot(symbol: &str, recv: i64, ts: i64) -> Bytes {
    event("SnapshotInputs", symbol, recv, &format!(r#"{{"market":{{"price":{recv}}},"timestamp_ms":{ts}}}"#))
}

/// An item at a position; 0 for an origin that does not number its items.
#[must_use]
pub fn item(position: u64, bytes: Bytes) -> RawItem {
    RawItem { position: (position != 0).then_some(position), bytes, oversized: None, topic: None }
}
