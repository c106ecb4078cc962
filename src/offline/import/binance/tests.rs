//! Each kind of frame, and what is no frame.

use serde_json::{Value, json};

use super::super::Problem;
use super::*;

const RECV: &str = "1723161255088000000";

/// The events of a line, and their checked form: what the service would take.
fn check_line(line: &str) -> Result<Vec<Value>, Problem> {
    let frames = Frames { source_id: "binance_usdm", symbol: None };
    let mut events = Vec::new();
    frames.take_line(line, &mut |event| {
        let bytes = serde_json::to_vec(event).unwrap();
        let mut names = orchestrator_kernel::engine::contracts::raw_market_event::Names::default();
        orchestrator_kernel::engine::contracts::raw_market_event::decode(bytes.clone().into(), &mut names)
            .unwrap();
        events.push(serde_json::from_slice(&bytes).unwrap());
        Ok(())
    })?;
    Ok(events)
}

/// The only event of a frame.
fn check_frame(frame: &str) -> Value {
    let mut events = check_line(&format!("{RECV} {frame}")).unwrap();
    assert_eq!(events.len(), 1, "{frame}");
    let event = events.remove(0);
    assert_eq!(event["raw_payload"], frame);
    assert_eq!(event["recv_ts_ms"], 1_723_161_255_088_i64);
    event
}

#[test]
fn a_trade_has_the_side_of_who_came_to_trade() {
    let frame = r#"{"stream":"btcusdt@trade","data":{"e":"trade","E":7,"T":6,"s":"BTCUSDT","t":99,"p":"61800.30","q":"0.006","X":"MARKET","m":false}}"#;

    let event = check_frame(frame);

    assert_eq!(event["normalized"], json!({"price": 61800.3, "quantity": 0.006, "side": "buy"}));
    assert_eq!(
        (&event["exchange_ts_ms"], &event["source_seq"], &event["source_event_id"], &event["channel"]),
        (&json!(6), &json!(99), &json!("99"), &json!("trades"))
    );
    let sold = check_frame(&frame.replace("false", "true"));
    assert_eq!(sold["normalized"]["side"], "sell");
}

#[test]
fn an_aggregated_trade_has_its_own_number_and_channel() {
    let event = check_frame(
        r#"{"e":"aggTrade","E":7,"s":"BTCUSDT","a":5,"p":"1.10","q":"2","f":1,"l":3,"T":6,"m":true}"#,
    );

    assert_eq!(event["event_type"], "TradeTick");
    assert_eq!((&event["source_seq"], &event["channel"]), (&json!(5), &json!("agg_trades")));
    assert_eq!(event["normalized"], json!({"price": 1.1, "quantity": 2.0, "side": "sell"}));
}

#[test]
fn the_book_is_taken_from_futures_and_from_spot() {
    let delta = check_frame(
        r#"{"e":"depthUpdate","E":7,"s":"ETHUSDT","U":1,"u":4,"b":[["1.0","2.50"]],"a":[["3","0"],["4.10","1"]]}"#,
    );
    assert_eq!(delta["normalized"], json!({"bids": [[1.0, 2.5]], "asks": [[3.0, 0.0], [4.1, 1.0]]}));
    assert_eq!((&delta["exchange_ts_ms"], &delta["source_seq"]), (&json!(7), &json!(4)));
    // The spot market's best prices have neither a name nor a time.
    let top = check_frame(r#"{"u":400,"s":"BNBUSDT","b":"25.35","B":"31.21","a":"25.36","A":"40.66"}"#);
    assert_eq!(top["event_type"], "BookTop");
    assert_eq!(top["exchange_ts_ms"], Value::Null);
    assert_eq!(
        top["normalized"],
        json!({"best_bid_price": 25.35, "best_bid_quantity": 31.21, "best_ask_price": 25.36, "best_ask_quantity": 40.66})
    );
}

#[test]
fn a_candle_has_the_length_of_its_bar() {
    let event = check_frame(
        r#"{"e":"kline","E":60100,"s":"BTCUSDT","k":{"t":0,"T":59999,"s":"BTCUSDT","i":"1m","f":1,"L":2,"o":"1.0","c":"2.0","h":"3.0","l":"0.5","v":"10","n":1,"x":true,"q":"1","V":"1","Q":"1","B":"0"}}"#,
    );

    assert_eq!(
        event["normalized"],
        json!({"open": 1.0, "high": 3.0, "low": 0.5, "close": 2.0, "volume": 10.0, "interval_ms": 60000, "is_final": true})
    );
}

#[test]
fn a_mark_price_frame_gives_an_event_for_each_of_its_facts() {
    let frame = r#"{"e":"markPriceUpdate","E":5,"s":"BTCUSDT","p":"11.50","i":"11.40","P":"11.6","r":"0.00038167","T":9}"#;

    let events = check_line(&format!("{RECV} {frame}")).unwrap();

    let facts: Vec<_> = events
        .iter()
        .map(|event| (event["event_type"].as_str().unwrap(), event["normalized"].clone()))
        .collect();
    assert_eq!(
        facts,
        [
            ("MarkPrice", json!({"mark_price": 11.5})),
            ("IndexPrice", json!({"index_price": 11.4})),
            ("FundingRate", json!({"funding_rate": 0.00038167})),
        ]
    );
    assert!(events.iter().all(|event| event["exchange_ts_ms"] == 5 && event["raw_payload"] == frame));
    let delivery = frame.replace("0.00038167", "").replace(r#""i":"11.40","#, "");
    assert_eq!(check_frame(&delivery)["event_type"], "MarkPrice");
}

#[test]
fn a_liquidation_is_what_was_filled() {
    let frame = r#"{"e":"forceOrder","E":9,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9905.5","X":"FILLED","l":"0.014","z":"0.010","T":8}}"#;

    assert_eq!(check_frame(frame)["normalized"], json!({"price": 9905.5, "quantity": 0.01, "side": "sell"}));

    let unfilled = frame.replace("9905.5", "0").replace("0.010", "0");
    assert_eq!(
        check_frame(&unfilled)["normalized"],
        json!({"price": 9910.0, "quantity": 0.014, "side": "sell"})
    );
    assert_eq!(check_frame(frame)["exchange_ts_ms"], 8);
}

#[test]
fn open_interest_is_recognised_without_a_name() {
    let event = check_frame(r#"{"openInterest":"10659.509","symbol":"BTCUSDT","time":1589437530011}"#);

    assert_eq!((&event["event_type"], &event["symbol"]), (&json!("OpenInterest"), &json!("BTCUSDT")));
    assert_eq!(event["normalized"], json!({"open_interest": 10659.509}));
    assert_eq!(event["exchange_ts_ms"], 1_589_437_530_011_i64);
}

#[test]
fn unknown_frames_are_kept_under_their_own_name() {
    let ticker = check_frame(r#"{"e":"24hrTicker","E":7,"s":"BTCUSDT","p":"1"}"#);
    assert_eq!((&ticker["event_type"], &ticker["exchange_ts_ms"]), (&json!("24hrTicker"), &json!(7)));
    assert_eq!(ticker["normalized"], json!({}));
    let partial = check_frame(r#"{"stream":"btcusdt@depth5","data":{"lastUpdateId":1,"bids":[],"asks":[]}}"#);
    assert_eq!((&partial["event_type"], &partial["symbol"]), (&json!("depth5"), &json!("BTCUSDT")));
    let answer = check_frame(r#"{"result":null,"id":1}"#);
    assert_eq!((&answer["event_type"], &answer["symbol"]), (&json!("Unknown"), &json!("UNKNOWN")));
}

#[test]
fn a_frame_that_cannot_be_read_is_kept_with_the_reason() {
    for (frame, kind) in [
        (r#"{"stream":"btcusdt@trade","data":{"e":"tra"#, "not_a_frame"),
        (r#"{"e":"trade","s":"BTCUSDT","T":1,"t":1,"p":"x","q":"1","m":true}"#, "bad_fields"),
        (r#"{"e":"kline","s":"BTCUSDT","E":1}"#, "bad_fields"),
        ("7", "not_a_frame"),
    ] {
        let event = check_frame(frame);
        assert_eq!(event["event_type"], "DecodeFailure", "{frame}");
        assert_eq!(event["normalized"]["error_kind"], kind, "{frame}");
        assert!(event["normalized"]["error_detail"].as_str().unwrap().contains("column"), "{event}");
    }
}

#[test]
fn an_array_of_frames_is_taken_element_by_element() {
    let lines = check_line(&format!(
        "{RECV} {}",
        r#"{"stream":"!markPrice@arr","data":[{"e":"markPriceUpdate","E":5,"s":"A","p":"1"},{"e":"x","s":"B"}]}"#
    ))
    .unwrap();

    let seen: Vec<_> = lines
        .iter()
        .map(|event| (event["symbol"].as_str().unwrap(), event["raw_payload"].as_str().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [("A", r#"{"e":"markPriceUpdate","E":5,"s":"A","p":"1"}"#), ("B", r#"{"e":"x","s":"B"}"#)]
    );
}

#[test]
fn the_finer_time_of_receipt_is_kept() {
    let event = &check_line("1723161255088000999 {\"e\":\"x\",\"s\":\"A\"}").unwrap()[0];

    assert_eq!(event["recv_ts_ms"], 1_723_161_255_088_i64);
    assert_eq!(event["recv_ts_ns"], 1_723_161_255_088_000_999_i64);
    assert!(check_frame(r#"{"e":"x","s":"A"}"#).get("recv_ts_ns").is_none());
}

#[test]
fn a_line_without_a_receive_time_is_refused() {
    for line in ["", "{}", "soon {}", "99999999999999999999 {}"] {
        assert_eq!(check_line(line).unwrap_err().column, "1", "{line}");
    }
}
