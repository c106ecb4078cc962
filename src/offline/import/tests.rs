//! Tables and lines, from file to file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn table(rows: Rows, map: &[(&str, &str)]) -> TableOptions {
    TableOptions {
        rows,
        map: map.iter().map(|(key, column)| ((*key).to_owned(), (*column).to_owned())).collect(),
        unit: Unit::Ms,
        delimiter: b',',
        has_header: true,
    }
}

fn options(dir: &Path, text: &[u8], format: RecordingFormat) -> ImportOptions {
    let input = dir.join("in");
    fs::write(&input, text).unwrap();
    ImportOptions {
        input,
        output: dir.join("out"),
        format,
        source_id: "csv".to_owned(),
        symbol: Some("BTCUSDT".to_owned()),
        on_error: OnError::Stop,
        force: true,
    }
}

/// Imports `text`; what was counted, and the events.
fn check_import(text: &str, table: TableOptions) -> Result<(Imported, Vec<Value>), String> {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), text.as_bytes(), RecordingFormat::Table(table));
    let imported = import_recording(&options).map_err(|error| error.to_string())?;
    let events = fs::read_to_string(&options.output).unwrap();
    Ok((imported, events.lines().map(|line| serde_json::from_str(line).unwrap()).collect()))
}

#[test]
fn trades_are_found_by_the_mapping() {
    let map = [("ts", "time_ms"), ("price", "p"), ("quantity", "q"), ("id", "n")];
    let text = "n,time_ms,p,q,side,other\r\n7,1723161255030,61800.30,0.5,Buy,\"a, b\"\r\n\r\n8,1723161255031,1,2,,x\n";

    let (imported, events) = check_import(text, table(Rows::Trades, &map)).unwrap();

    assert_eq!((imported.lines, imported.events), (3, 2), "the header is a line");
    assert_eq!(
        events[0],
        json!({
            "schema": "raw_market_event", "schema_version": "1", "event_type": "TradeTick", "source_id": "csv",
            "symbol": "BTCUSDT", "exchange_ts_ms": 1723161255030_i64, "recv_ts_ms": 1723161255030_i64,
            "raw_payload": "7,1723161255030,61800.30,0.5,Buy,\"a, b\"",
            "normalized": {"price": 61800.3, "quantity": 0.5, "side": "buy"},
            "source_event_id": "7", "source_seq": 7, "channel": "trades", "payload_content_type": "text/csv",
        })
    );
    assert_eq!(events[1]["normalized"]["side"], Value::Null);
}

#[test]
fn columns_without_names_have_numbers_and_the_maker_says_the_side() {
    let map = [("ts", "1"), ("price", "2"), ("quantity", "3"), ("buyer_maker", "4"), ("symbol", "5")];
    let mut table = table(Rows::Trades, &map);
    (table.has_header, table.unit, table.delimiter) = (false, Unit::Us, b';');

    let (_, events) =
        check_import("1723161255000999;1.5;2;true;A\n1723161255001000;1.5;2;False;B\n", table).unwrap();

    let seen: Vec<_> = events
        .iter()
        .map(|event| (event["recv_ts_ms"].as_i64().unwrap(), &event["symbol"], &event["normalized"]["side"]))
        .collect();
    assert_eq!(
        seen,
        [(1723161255000, &json!("A"), &json!("sell")), (1723161255001, &json!("B"), &json!("buy"))]
    );
}

/// A bar is not known before its end: an event at its begin would show the future.
#[test]
fn a_bar_is_received_at_its_end() {
    let text = "ts,open,high,low,close,volume\n1723161240000,1,3,0.5,2,10\n";
    for (time, end) in [(BarTime::Open, 1_723_161_300_000_i64), (BarTime::Close, 1_723_161_240_000)] {
        let rows = Rows::Bars { interval: Duration::from_secs(60), time };

        let (_, events) = check_import(text, table(rows, &[])).unwrap();

        assert_eq!((&events[0]["recv_ts_ms"], &events[0]["exchange_ts_ms"]), (&json!(end), &json!(end)));
        assert_eq!(
            events[0]["normalized"],
            json!({"open": 1.0, "high": 3.0, "low": 0.5, "close": 2.0, "volume": 10.0, "interval_ms": 60000, "is_final": true})
        );
    }
}

#[test]
fn errors_name_line_and_column() {
    let cases = [
        ("ts,price,quantity\nT,2,3\nT,x,3\n", "line 3, column 2 (price): \"x\" is no number"),
        ("ts,price,quantity\n\n,2,3\n", "line 3, column 1 (ts): is empty"),
        ("ts,price,quantity\nT,2\n", "line 2, column 3 (quantity): the line ends before it"),
        ("ts,price,quantity\n1e3,2,3\n", "line 2, column 1 (ts): \"1e3\" is no time"),
        ("ts,price,quantity,side\nT,2,3,up\n", "line 2, column 4 (side): \"up\" is neither buy nor sell"),
        ("ts,price\nT,2\n", "line 1, column 1: no column quantity for quantity, only ts, price"),
        ("ts,price,quantity,x\nT,2,3,\"a\nb\"\nT,2,,\n", "line 4, column 3 (quantity): \"\" is no number"),
    ];
    for (text, expected) in cases {
        let text = text.replace("\nT", "\n1723161255030");
        let error = check_import(&text, table(Rows::Trades, &[])).unwrap_err();
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
    let error = check_import("ts,price,quantity\n", table(Rows::Trades, &[("prize", "p")])).unwrap_err();
    assert!(error.contains("--map knows no prize, only ts, price"), "{error}");
}

#[test]
fn refused_lines_are_left_out_and_counted_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let text = b"ts,price,quantity\n1723161255035,2,3\n1723161255034,x,3\n\xff,2,3\n1723161255034,2,3\n";
    let mut options = options(dir.path(), text, RecordingFormat::Table(table(Rows::Trades, &[])));

    let stopped = import_recording(&options).unwrap_err();
    assert!(stopped.to_string().contains("line 3"), "{stopped}");
    assert!(!options.output.exists(), "a refused import leaves nothing");

    options.on_error = OnError::Skip;
    let imported = import_recording(&options).unwrap();
    assert_eq!((imported.events, imported.skipped, imported.backwards), (2, 2, 1));
    assert_eq!(imported.errors[1], "line 4, column 1: is not UTF-8");
}

#[test]
fn an_endless_line_is_refused_and_the_next_one_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = b"1723161255035000000 {\"e\":\"x\",\"s\":\"".to_vec();
    text.resize(LINE_BYTES_MAX + 10, b'x');
    text.extend(b"\n1723161255036000000 {\"e\":\"x\",\"s\":\"A\"}");
    let mut options = options(dir.path(), &text, RecordingFormat::Binance);
    options.on_error = OnError::Skip;

    let imported = import_recording(&options).unwrap();

    assert_eq!((imported.lines, imported.events, imported.skipped), (2, 1, 1));
}

#[test]
fn an_output_that_is_there_is_not_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), b"1 {}", RecordingFormat::Binance);
    options.force = false;
    fs::write(&options.output, "mine").unwrap();

    assert_eq!(import_recording(&options).unwrap_err().to_exit(), ProcessExit::Different);
    assert_eq!(fs::read_to_string(&options.output).unwrap(), "mine");
}

/// Times in another unit than said, for the whole table or in the middle of it, are no times of an exchange.
#[test]
fn a_time_that_no_exchange_can_have_is_refused_with_its_line_and_likely_unit() {
    let (s, ms, us, ns) = ("1735689600", "1735689600000", "1735689600000000", "1735689600000000000");
    let cases = [
        (Unit::Ms, s, "seconds"),
        (Unit::Ms, us, "microseconds"),
        (Unit::Ms, ns, "nanoseconds"),
        (Unit::S, ms, "milliseconds"),
        (Unit::Us, ms, "milliseconds"),
        (Unit::Ns, us, "microseconds"),
    ];
    for (unit, odd, likely) in cases {
        let good = match unit {
            Unit::S => s,
            Unit::Ms => ms,
            Unit::Us => us,
            Unit::Ns => ns,
        };
        for column in ["ts", "recv"] {
            let (ts, recv) = if column == "ts" { (odd, good) } else { (good, odd) };
            let text = format!("ts,price,quantity,recv\n{good},1,2,{good}\n{ts},1,2,{recv}\n");
            let error = check_import(&text, TableOptions { unit, ..table(Rows::Trades, &[]) }).unwrap_err();
            assert!(error.contains("line 3, column") && error.contains(&format!("({column})")), "{error}");
            assert!(error.contains(&format!("it looks like {likely}")), "{unit:?} {odd}: {error}");
        }
    }
    for zero in ["0", "-1", "9223372036854775807"] {
        let error =
            check_import(&format!("ts,price,quantity\n{zero},1,2\n"), table(Rows::Trades, &[])).unwrap_err();
        assert!(error.contains("line 2") && error.contains("no exchange's clock"), "{error}");
    }
}

#[test]
fn a_receive_time_of_a_frame_is_in_nanoseconds() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        options(dir.path(), b"1723161255088000 {\"e\":\"x\",\"s\":\"A\"}\n", RecordingFormat::Binance);

    let error = import_recording(&options).unwrap_err();

    assert_eq!(error.to_exit(), ProcessExit::Data);
    assert!(
        error.to_string().contains("line 1") && error.to_string().contains("looks like microseconds"),
        "{error}"
    );
}
