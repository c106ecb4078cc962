//! The events of the synthetic market, in the wire form of RawMarketEvent v1.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::market::Market;
use super::random::Random;

/// The observing system that the events name.
const SOURCE_ID: &str = "demo_exchange";
/// Types with their weights: what an event of the base rate is.
const MIX: [(Kind, u32); 9] = [
    (Kind::Trade, 550),
    (Kind::BookTop, 170),
    (Kind::BookDelta, 150),
    (Kind::MarkPrice, 40),
    (Kind::IndexPrice, 30),
    (Kind::OpenInterest, 25),
    (Kind::Candle, 20),
    (Kind::Funding, 13),
    (Kind::Liquidation, 2),
];
/// Trades of a liquidation phase that are liquidations: one in so many.
const LIQUIDATION_ONE_IN: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Trade,
    Liquidation,
    BookTop,
    BookDelta,
    Candle,
    Funding,
    OpenInterest,
    MarkPrice,
    IndexPrice,
}

/// CONTRACTS §1, "Input: RawMarketEvent v1".
#[derive(Serialize)]
struct Event<'a> {
    schema: &'static str,
    schema_version: &'static str,
    event_type: &'a str,
    source_id: &'static str,
    symbol: &'a str,
    exchange_ts_ms: Option<i64>,
    recv_ts_ms: i64,
    source_seq: u64,
    channel: &'static str,
    payload_content_type: &'static str,
    raw_payload: String,
    normalized: Value,
}

/// One event of the base rate.
pub(super) fn random_event(market: &mut Market, now_ms: i64, random: &mut Random) -> Bytes {
    let mut kind = Kind::Trade;
    let mut at = random.next_below(MIX.iter().map(|(_, weight)| weight).sum());
    for (candidate, weight) in MIX {
        if at < weight {
            kind = candidate;
            break;
        }
        at -= weight;
    }
    if kind == Kind::Trade && market.is_liquidating() && random.one_in(LIQUIDATION_ONE_IN) {
        kind = Kind::Liquidation;
    }
    let (event_type, normalized) = match kind {
        Kind::Trade => ("TradeTick", trade_fields(market, now_ms, random)),
        Kind::Liquidation => ("LiquidationPrint", trade_fields(market, now_ms, random)),
        Kind::BookTop => ("BookTop", book_top(market, random)),
        Kind::BookDelta => ("BookDelta", book_delta(market, random)),
        Kind::Candle => ("Candle", candle_fields(market, random)),
        Kind::Funding => {
            let rate = random.next_around(1.0 + market.directed_readings().funding_z, 0.3) * 1e-4;
            ("FundingRate", json!({ "funding_rate": round_to_scale(rate, 1e8) }))
        }
        Kind::OpenInterest => {
            ("OpenInterest", json!({ "open_interest": round_to_scale(market.open_interest, 1e3) }))
        }
        Kind::MarkPrice => ("MarkPrice", json!({ "mark_price": price_near(market, 2e-5, random) })),
        Kind::IndexPrice => ("IndexPrice", json!({ "index_price": price_near(market, 1e-4, random) })),
    };
    encode_event(market, event_type, normalized, now_ms, random)
}

/// An event of a type that nobody knows yet.
pub(super) fn unknown_event(market: &mut Market, now_ms: i64, random: &mut Random) -> Bytes {
    let normalized =
        json!({ "implied_volatility": round_to_scale(random.next_around(0.6, 0.1), 1e4), "tenor_days": 30 });
    encode_event(market, "OptionSurface", normalized, now_ms, random)
}

/// An event that says that the observing system could not read something.
pub(super) fn decode_failure(market: &mut Market, now_ms: i64, random: &mut Random) -> Bytes {
    let normalized = json!({ "error_kind": "invalid_json", "error_detail": "expected value at column 1" });
    encode_event(market, "DecodeFailure", normalized, now_ms, random)
}

/// What is no receipt at all.
pub(super) fn garbage_bytes(now_ms: i64, random: &mut Random) -> Bytes {
    match random.next_below(4) {
        0 => Bytes::from(format!("{{\"event_type\":\"TradeTick\",\"recv_ts_ms\":{now_ms},\"sym")),
        1 => Bytes::from_static(b"\xff\xfe not text"),
        2 => Bytes::from_static(b"{\"schema\":\"heartbeat\",\"schema_version\":\"1\"}"),
        _ => Bytes::from_static(b"<html>502 Bad Gateway</html>"),
    }
}

/// The engine's inputs of `boundary_ms`.
pub(super) fn snapshot_event(
    market: &mut Market,
    boundary_ms: i64,
    now_ms: i64,
    random: &mut Random,
) -> Bytes {
    let mut normalized = Map::new();
    normalized.insert("timestamp_ms".to_owned(), json!(boundary_ms));
    let groups = [
        ("market", market_inputs(market, random)),
        ("derivatives", derivatives_inputs(market, random)),
        ("flow", flow_inputs(market, random)),
        ("context", context_inputs(random)),
    ];
    for (name, fields) in groups {
        // An omitted object or field is *missing*, which is not the same as null.
        if !random.one_in(30) {
            let kept = fields
                .into_iter()
                .filter(|_| !random.one_in(40))
                .map(|(name, value)| (name.to_owned(), value));
            normalized.insert(name.to_owned(), kept.collect::<Map<_, _>>().into());
        }
    }
    market.snapshot_taken(random);
    encode_event(market, "SnapshotInputs", normalized.into(), now_ms, random)
}

fn market_inputs(market: &Market, random: &mut Random) -> Vec<(&'static str, Value)> {
    let readings = market.directed_readings();
    let atr = market.price * 0.002 * random.next_around(1.0, 0.1);
    let vwap = market.price - random.next_around(readings.stretch, 0.15) * atr;
    let level = |atrs: f64| json!(market.on_grid(market.price + atrs * atr));
    vec![
        ("price", json!(market.on_grid(market.price))),
        ("vwap", json!(market.on_grid(vwap))),
        ("atr", json!(round_to_scale(atr, 1e6))),
        ("atr_z", json!(round_to_scale(random.next_around(readings.stretch.abs(), 0.5), 1e4))),
        (
            "range_expansion",
            json!(round_to_scale(random.next_around(1.0 + readings.stretch.abs(), 0.2), 1e4)),
        ),
        (
            "structure_levels",
            json!({ "high": level(2.0), "low": level(-2.0), "pivots": [level(-0.5), level(0.7)] }),
        ),
        ("acceptance_score", json!(rounded_share(random.next_around(0.5 + 0.3 * readings.slope.abs(), 0.1)))),
        ("sweep_score", json!(rounded_share(random.next_around(readings.sweep, 0.08)))),
    ]
}

fn derivatives_inputs(market: &Market, random: &mut Random) -> Vec<(&'static str, Value)> {
    let readings = market.directed_readings();
    let mut slope = |scale: f64| json!(round_to_scale(random.next_around(readings.drift, 0.3) * scale, 1e6));
    let (oi_short, oi_med, oi_accel, funding) = (slope(1.0), slope(0.5), slope(0.2), slope(1e-4));
    let liquidation = rounded_share(random.next_around(readings.liquidation, 0.06));
    vec![
        ("open_interest", json!(round_to_scale(market.open_interest, 1e3))),
        ("oi_slope_short", oi_short),
        ("oi_slope_med", oi_med),
        ("oi_accel", oi_accel),
        (
            "funding_rate",
            json!(round_to_scale(random.next_around(1.0 + readings.funding_z, 0.3) * 1e-4, 1e8)),
        ),
        ("funding_slope", funding),
        ("funding_z", json!(round_to_scale(random.next_around(readings.funding_z, 0.25), 1e4))),
        ("liquidation_intensity", if random.one_in(8) { Value::Null } else { json!(liquidation) }),
    ]
}

fn flow_inputs(market: &Market, random: &mut Random) -> Vec<(&'static str, Value)> {
    let readings = market.directed_readings();
    let slope = random.next_around(readings.slope, 0.1).clamp(-0.95, 0.95);
    // Slope against size, so that slope / (|cvd| + |slope|) is the reading.
    let cvd_slope = (market.cvd.abs() + 1.0) * slope / (1.0 - slope.abs());
    vec![
        ("cvd", json!(round_to_scale(market.cvd, 1e4))),
        ("cvd_slope", json!(round_to_scale(cvd_slope, 1e4))),
        ("cvd_efficiency", json!(rounded_share(random.next_around(0.4 + 0.4 * slope.abs(), 0.1)))),
        (
            "aggressive_volume_ratio",
            json!(rounded_share(random.next_around(0.5 + readings.pressure / 2.0, 0.05))),
        ),
    ]
}

fn context_inputs(random: &mut Random) -> Vec<(&'static str, Value)> {
    let regime = |random: &mut Random| {
        let names = ["CHOP_BALANCED", "TREND_BUILD_UP", "TREND_BUILD_DOWN", "SQUEEZE_UP"];
        if random.one_in(6) { Value::Null } else { json!(random.pick_one(&names)) }
    };
    vec![
        ("rs_vs_btc", json!(round_to_scale(random.next_around(0.0, 0.02), 1e6))),
        ("beta_to_btc", json!(round_to_scale(random.next_around(1.1, 0.2), 1e4))),
        ("alt_breadth", json!(rounded_share(random.next_around(0.5, 0.15)))),
        ("btc_regime", regime(random)),
        ("eth_regime", regime(random)),
    ]
}

fn trade_fields(market: &mut Market, now_ms: i64, random: &mut Random) -> Value {
    let is_buy = random.next_unit() < 0.5 + market.directed_readings().pressure / 2.0;
    let size = 5_000.0 / market.price * (0.02 + random.next_unit() * random.next_unit() * 4.0);
    market.apply_trade(if is_buy { size } else { -size }, now_ms, random);
    let side = match random.one_in(50) {
        true => Value::Null,
        false => json!(if is_buy { "buy" } else { "sell" }),
    };
    json!({ "price": market.on_grid(market.price), "quantity": round_to_scale(size, 1e6), "side": side })
}

fn book_top(market: &Market, random: &mut Random) -> Value {
    let bid = market.on_grid(market.price);
    let ask = market.on_grid(bid + market.price_step() * f64::from(1 + random.next_below(3)));
    let (bid_quantity, ask_quantity) = (random_quantity(market, random), random_quantity(market, random));
    json!({
        "best_bid_price": bid, "best_bid_quantity": bid_quantity,
        "best_ask_price": ask, "best_ask_quantity": ask_quantity,
    })
}

fn book_delta(market: &Market, random: &mut Random) -> Value {
    let mut levels = |direction: f64| -> Vec<[f64; 2]> {
        let levels_max = if random.one_in(40) { 200 } else { 8 };
        let count = 1 + random.next_below(levels_max);
        (1..=count)
            .map(|level| {
                let price = market.price + direction * market.price_step() * f64::from(level);
                // A quantity of nothing removes the level.
                [market.on_grid(price), if random.one_in(4) { 0.0 } else { random_quantity(market, random) }]
            })
            .collect()
    };
    let (bids, asks) = (levels(-1.0), levels(1.0));
    json!({ "bids": bids, "asks": asks })
}

fn candle_fields(market: &mut Market, random: &mut Random) -> Value {
    let closed = market.closed.take();
    let is_final = match (closed.is_some(), random.one_in(10)) {
        (true, _) => Value::Bool(true),
        (false, true) => Value::Null,
        (false, false) => Value::Bool(false),
    };
    let price = market.on_grid(market.price);
    let [open, high, low, close, volume] =
        closed.or(market.candle).map_or([price, price, price, price, 0.0], |candle| {
            let on_grid = |price| market.on_grid(price);
            [
                on_grid(candle.open),
                on_grid(candle.high),
                on_grid(candle.low),
                on_grid(candle.close),
                candle.volume,
            ]
        });
    json!({
        "open": open, "high": high, "low": low, "close": close, "volume": round_to_scale(volume, 1e6),
        "interval_ms": 60_000, "is_final": is_final,
    })
}

fn encode_event(
    market: &mut Market,
    event_type: &str,
    normalized: Value,
    now_ms: i64,
    random: &mut Random,
) -> Bytes {
    market.source_seq += 1;
    let latency_ms = match random.next_below(100) {
        // Some exchanges' clocks are ahead of ours, some events are late, some have no time.
        0..=2 => -i64::from(random.next_below(1_500)),
        3..=4 => i64::from(200 + random.next_below(2_000)),
        _ => i64::from(3 + random.next_below(60)),
    };
    let event = Event {
        schema: "raw_market_event",
        schema_version: "1",
        event_type,
        source_id: SOURCE_ID,
        symbol: &market.symbol,
        exchange_ts_ms: (!random.one_in(60)).then_some(now_ms - latency_ms),
        recv_ts_ms: now_ms,
        source_seq: market.source_seq,
        channel: "demo",
        payload_content_type: "application/json",
        raw_payload: json!({ "s": market.symbol, "n": market.source_seq, "d": normalized }).to_string(),
        normalized,
    };
    // Strings and finite numbers under string keys always encode; were it otherwise, the quarantine would show why.
    serde_json::to_vec(&event).unwrap_or_else(|error| error.to_string().into_bytes()).into()
}

fn price_near(market: &Market, spread: f64, random: &mut Random) -> f64 {
    market.on_grid(market.price * random.next_around(1.0, spread))
}

fn random_quantity(market: &Market, random: &mut Random) -> f64 {
    round_to_scale(20_000.0 / market.price * random.next_unit(), 1e6)
}

/// From 0 to 1.
fn rounded_share(value: f64) -> f64 {
    round_to_scale(value.clamp(0.0, 1.0), 1e4)
}

fn round_to_scale(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}
