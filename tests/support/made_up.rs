//! A made-up day: small, the same every time, with one run that fails. And the binary that is asked about it.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::process::orchestrator;

/// The first boundary of the made-up days.
pub(crate) const START_MS: i64 = 1_768_002_660_000;
/// Time between two runs.
pub(crate) const INTERVAL_MS: i64 = 2_000;

/// Runs a command that must end with `code`; what it said on standard output and standard error.
pub(crate) fn run(args: &[&str], code: i32) -> (String, String) {
    let output = orchestrator(args);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    (out, err)
}

/// As [`run`]; the JSON that it printed.
pub(crate) fn run_json(args: &[&str], code: i32) -> Value {
    serde_json::from_str(&run(args, code).0).unwrap()
}

pub(crate) fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A receipt.
pub(crate) fn event(event_type: &str, symbol: &str, ts: i64, normalized: &Value) -> String {
    json!({
        "schema": "raw_market_event", "schema_version": "1", "event_type": event_type, "source_id": "made_up",
        "symbol": symbol, "exchange_ts_ms": null, "recv_ts_ms": ts, "raw_payload": "", "normalized": normalized,
    })
    .to_string()
}

/// A day of two symbols: six boundaries, trades between them, a snapshot at all but the fourth boundary of ETHUSDT.
pub(crate) fn made_up_day() -> Vec<String> {
    let mut lines = Vec::new();
    for tick in 0..6 {
        let boundary = START_MS + tick * INTERVAL_MS;
        for (symbol, base) in [("BTCUSDT", 60_000.0), ("ETHUSDT", 2_500.0)] {
            for trade in 0..10 {
                let price = base + f64::from(trade) * 0.5;
                let normalized = json!({"price": price, "quantity": 0.25, "side": "buy"});
                lines.push(event("TradeTick", symbol, boundary - 500 + i64::from(trade), &normalized));
            }
            if symbol == "BTCUSDT" || tick != 3 {
                let vwap = base - 3.0 + f64::from(i32::try_from(tick).unwrap());
                let market = json!({"price": base, "vwap": vwap, "atr": 2.0});
                let normalized = json!({"timestamp_ms": boundary, "market": market});
                lines.push(event("SnapshotInputs", symbol, boundary, &normalized));
            }
        }
    }
    // Time goes on until the last runs are due.
    lines.push(event("TradeTick", "BTCUSDT", START_MS + 6 * INTERVAL_MS - 900, &json!({"price": 1.5})));
    lines.sort_by_key(|line| serde_json::from_str::<Value>(line).unwrap()["recv_ts_ms"].as_i64());
    lines
}

/// Gives `capture` to the service, as a recording; what is in the data directory afterwards came from it alone.
pub(crate) fn ingest(capture: &Path, data: &Path, settings: &[&str]) {
    let config = data.with_extension("toml");
    let toml = format!(
        "[service]\ndata_dir = \"{}\"\n[clock]\nmode = \"recorded\"\n[sources.day]\nkind = \"file\"\npath = \"{}\"\n\
         [schedule]\ninterval = \"2s\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        data.display(),
        capture.display()
    );
    fs::write(&config, toml).unwrap();
    let mut args = vec!["run", "--once", "--config", text_of(&config)];
    args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
    run(&args, 0);
}

/// A directory with the data of the made-up day in `day`.
pub(crate) fn with_day(settings: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("capture.jsonl");
    fs::write(&capture, made_up_day().join("\n")).unwrap();
    let data = dir.path().join("day");
    ingest(&capture, &data, settings);
    (dir, data)
}
