//! The known kinds of frames, one function each.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::super::Take;
use super::super::event::{Event, Fields};
use super::super::number::json_decimal;
use super::{Bad, One};

/// A number that Binance writes as a text.
struct Number(String);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        json_decimal(bare).map(Self).ok_or_else(|| D::Error::custom(format!("{text} is no number")))
    }
}

/// A trade, single or aggregated.
pub(super) fn convert_trade(one: &One<'_>, data: &str, frame: &str, take: Take<'_>) -> Result<(), Bad> {
    #[derive(Deserialize)]
    struct Trade<'a> {
        #[serde(borrow)]
        e: Cow<'a, str>,
        #[serde(borrow)]
        s: Cow<'a, str>,
        #[serde(rename = "T")]
        time: i64,
        // In a `trade` of the spot market `a` is an order.
        t: Option<i64>,
        a: Option<i64>,
        p: Number,
        q: Number,
        m: bool,
    }
    let trade: Trade<'_> = serde_json::from_str(data)?;
    let (id, channel) = match trade.e.as_ref() {
        "aggTrade" => (trade.a, "agg_trades"),
        _ => (trade.t, "trades"),
    };
    // `m`: the buyer was waiting in the book, so the seller came to trade.
    let side = if trade.m { "sell" } else { "buy" };
    let mut event = Event::new("TradeTick", &trade.s, 0, frame);
    let fields = Fields::default().with_json("price", &trade.p.0).with_json("quantity", &trade.q.0);
    event.normalized = fields.with_text("side", Some(side)).into_object();
    event.source_event_id = id.map(|id| id.to_string());
    event.source_seq = id;
    event.channel = Some(channel);
    Ok(one.hand_on_event(event, Some(trade.time), take)?)
}

/// A change of the book.
pub(super) fn convert_depth(one: &One<'_>, data: &str, frame: &str, take: Take<'_>) -> Result<(), Bad> {
    #[derive(Deserialize)]
    struct Depth<'a> {
        #[serde(borrow)]
        s: Cow<'a, str>,
        #[serde(rename = "T")]
        time: Option<i64>,
        #[serde(rename = "E")]
        event_time: i64,
        u: i64,
        b: Vec<[Number; 2]>,
        a: Vec<[Number; 2]>,
    }
    let depth: Depth<'_> = serde_json::from_str(data)?;
    let levels = |levels: &[[Number; 2]]| {
        let levels: Vec<String> =
            levels.iter().map(|[price, size]| format!("[{},{}]", price.0, size.0)).collect();
        format!("[{}]", levels.join(","))
    };
    let mut event = Event::new("BookDelta", &depth.s, 0, frame);
    event.normalized = Fields::default()
        .with_json("bids", &levels(&depth.b))
        .with_json("asks", &levels(&depth.a))
        .into_object();
    event.source_seq = Some(depth.u);
    event.channel = Some("book");
    Ok(one.hand_on_event(event, depth.time.or(Some(depth.event_time)), take)?)
}

/// The best bid and ask.
pub(super) fn convert_book_ticker(one: &One<'_>, data: &str, frame: &str, take: Take<'_>) -> Result<(), Bad> {
    #[derive(Deserialize)]
    struct Book<'a> {
        #[serde(borrow)]
        s: Cow<'a, str>,
        u: Option<i64>,
        b: Number,
        #[serde(rename = "B")]
        bid_quantity: Number,
        a: Number,
        #[serde(rename = "A")]
        ask_quantity: Number,
        #[serde(rename = "T")]
        time: Option<i64>,
        #[serde(rename = "E")]
        event_time: Option<i64>,
    }
    let book: Book<'_> = serde_json::from_str(data)?;
    let mut event = Event::new("BookTop", &book.s, 0, frame);
    event.normalized = Fields::default()
        .with_json("best_bid_price", &book.b.0)
        .with_json("best_bid_quantity", &book.bid_quantity.0)
        .with_json("best_ask_price", &book.a.0)
        .with_json("best_ask_quantity", &book.ask_quantity.0)
        .into_object();
    event.source_seq = book.u;
    event.channel = Some("book_ticker");
    Ok(one.hand_on_event(event, book.time.or(book.event_time), take)?)
}

/// A bar, finished or not.
pub(super) fn convert_kline(one: &One<'_>, data: &str, frame: &str, take: Take<'_>) -> Result<(), Bad> {
    #[derive(Deserialize)]
    struct Kline<'a> {
        #[serde(borrow)]
        s: Cow<'a, str>,
        #[serde(rename = "E")]
        event_time: i64,
        k: Bar,
    }
    #[derive(Deserialize)]
    struct Bar {
        t: i64,
        #[serde(rename = "T")]
        end: i64,
        o: Number,
        h: Number,
        l: Number,
        c: Number,
        v: Number,
        x: bool,
    }
    let Kline { s, event_time, k } = serde_json::from_str(data)?;
    // `T` is the bar's last millisecond, so this holds for months, too.
    let interval_ms = k.end.saturating_sub(k.t).saturating_add(1);
    let mut event = Event::new("Candle", &s, 0, frame);
    event.normalized = Fields::default()
        .with_json("open", &k.o.0)
        .with_json("high", &k.h.0)
        .with_json("low", &k.l.0)
        .with_json("close", &k.c.0)
        .with_json("volume", &k.v.0)
        .with_json("interval_ms", &interval_ms.to_string())
        .with_json("is_final", if k.x { "true" } else { "false" })
        .into_object();
    event.channel = Some("candles");
    Ok(one.hand_on_event(event, Some(event_time), take)?)
}

/// The mark price, with the index price and the funding rate where they are.
pub(super) fn mark_price(one: &One<'_>, data: &str, frame: &str, take: Take<'_>) -> Result<(), Bad> {
    #[derive(Deserialize)]
    struct MarkPrice<'a> {
        #[serde(borrow)]
        s: Cow<'a, str>,
        // `T` is the time of the next funding, not of this frame.
        #[serde(rename = "E")]
        event_time: i64,
        p: Number,
        i: Option<Number>,
        // Empty where a contract has no funding.
        #[serde(borrow)]
        r: Option<Cow<'a, str>>,
    }
    let found: MarkPrice<'_> = serde_json::from_str(data)?;
    let funding = match found.r.as_deref() {
        None | Some("") => None,
        Some(rate) => Some(
            json_decimal(rate).ok_or_else(|| serde_json::Error::custom(format!("{rate:?} is no number")))?,
        ),
    };
    let facts = [
        ("MarkPrice", "mark_price", Some(&found.p.0)),
        ("IndexPrice", "index_price", found.i.as_ref().map(|price| &price.0)),
        ("FundingRate", "funding_rate", funding.as_ref()),
    ];
    for (event_type, key, value) in facts {
        let Some(value) = value else { continue };
        let mut event = Event::new(event_type, &found.s, 0, frame);
        event.normalized = Fields::default().with_json(key, value).into_object();
        event.channel = Some("mark_price");
        one.hand_on_event(event, Some(found.event_time), take)?;
    }
    Ok(())
}

/// A liquidation.
pub(super) fn force_order(one: &One<'_>, data: &str, frame: &str, take: Take<'_>) -> Result<(), Bad> {
    #[derive(Deserialize)]
    struct ForceOrder<'a> {
        #[serde(rename = "E")]
        event_time: i64,
        #[serde(borrow)]
        o: Order<'a>,
    }
    #[derive(Deserialize)]
    struct Order<'a> {
        #[serde(borrow)]
        s: Cow<'a, str>,
        #[serde(borrow, rename = "S")]
        side: Cow<'a, str>,
        p: Number,
        q: Number,
        ap: Option<Number>,
        z: Option<Number>,
        #[serde(rename = "T")]
        time: Option<i64>,
    }
    let ForceOrder { event_time, o } = serde_json::from_str(data)?;
    // What was printed is what was filled; an order that was not filled yet has only its own price and quantity.
    let filled = |number: Option<Number>| number.filter(|number| number.0 != "0.0");
    let (price, quantity) = match (filled(o.ap), filled(o.z)) {
        (Some(price), Some(quantity)) => (price, quantity),
        (_, _) => (o.p, o.q),
    };
    let side = match o.side.as_ref() {
        "BUY" => Some("buy"),
        "SELL" => Some("sell"),
        _ => None,
    };
    let mut event = Event::new("LiquidationPrint", &o.s, 0, frame);
    let fields = Fields::default().with_json("price", &price.0).with_json("quantity", &quantity.0);
    event.normalized = fields.with_text("side", side).into_object();
    event.channel = Some("liquidations");
    Ok(one.hand_on_event(event, o.time.or(Some(event_time)), take)?)
}

/// The open interest.
pub(super) fn open_interest(one: &One<'_>, data: &str, frame: &str, take: Take<'_>) -> Result<(), Bad> {
    #[derive(Deserialize)]
    struct OpenInterest<'a> {
        #[serde(borrow)]
        symbol: Cow<'a, str>,
        #[serde(rename = "openInterest")]
        open_interest: Number,
        time: Option<i64>,
    }
    let found: OpenInterest<'_> = serde_json::from_str(data)?;
    let mut event = Event::new("OpenInterest", &found.symbol, 0, frame);
    event.normalized = Fields::default().with_json("open_interest", &found.open_interest.0).into_object();
    event.channel = Some("open_interest");
    Ok(one.hand_on_event(event, found.time, take)?)
}
