//! Recorded data leaves and comes back: export, import, inspect and diff by the real binary.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::read::MultiGzDecoder;
use orchestrator::adapters::embedded::log::{EmbeddedLog, LogOptions};
use orchestrator_kernel::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{IngestSeq, TsMs};
use orchestrator_kernel::ports::engine::EngineAnswer;
use orchestrator_kernel::ports::log::{Log, RecordBatch};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Row, RowAccessor};
use serde_json::{Value, json};

use crate::support::{checked_receipts, outputs, recording, root, run_records};

/// The first boundary of the made-up days.
const START_MS: i64 = 1_768_002_660_000;
/// Time between two runs.
const INTERVAL_MS: i64 = 2_000;

fn orchestrator(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .unwrap()
}

/// Runs a command that must end with `code`; what it said on standard output and standard error.
fn run(args: &[&str], code: i32) -> (String, String) {
    let output = orchestrator(args);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    (out, err)
}

fn run_json(args: &[&str], code: i32) -> Value {
    serde_json::from_str(&run(args, code).0).unwrap()
}

fn text_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn event(event_type: &str, symbol: &str, ts: i64, normalized: &Value) -> String {
    json!({
        "schema": "raw_market_event", "schema_version": "1", "event_type": event_type, "source_id": "made_up",
        "symbol": symbol, "exchange_ts_ms": null, "recv_ts_ms": ts, "raw_payload": "", "normalized": normalized,
    })
    .to_string()
}

/// A day of two symbols: six boundaries, trades between them, a snapshot at all but the fourth boundary of ETHUSDT.
fn made_up_day() -> Vec<String> {
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
fn ingest(capture: &Path, data: &Path, settings: &[&str]) {
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
fn with_day(settings: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("capture.jsonl");
    fs::write(&capture, made_up_day().join("\n")).unwrap();
    let data = dir.path().join("day");
    ingest(&capture, &data, settings);
    (dir, data)
}

/// Adds a receipt to the log of a stopped service.
async fn append_receipt(data: &Path, event: &[u8]) {
    let log = EmbeddedLog::open(&data.join("receipts"), LogOptions::new("receipts")).unwrap();
    let acquired = log.acquire().await.unwrap();
    let seq = acquired.tail.next();
    let mut batch = RecordBatch::starting_at(seq);
    batch.push_with(|out| {
        ReceiptRecord {
            ingest_seq: IngestSeq(seq.0),
            ingest_ts_ms: TsMs(START_MS + 100_000),
            origin: "odd",
            position: 1,
            symbol: "BTCUSDT",
            event_type: "TradeTick",
            snapshot_ts_ms: None,
            event,
        }
        .encode_to(out);
    });
    log.append(acquired.epoch, &batch).await.unwrap();
}

/// Method: the exported lines are given to a service as its source; its receipts, runs and outputs are the first ones'.
#[tokio::test]
async fn what_is_exported_and_read_again_is_the_same_byte_for_byte() {
    let (dir, day) = with_day(&[]);
    let receipts = checked_receipts(&day).await;
    let runs = run_records(&day).await;
    assert_eq!(receipts, made_up_day().into_iter().map(String::into_bytes).collect::<Vec<_>>());
    for (compress, suffix) in [("none", ""), ("gz", ".gz"), ("zst", ".zst")] {
        let to = dir.path().join(format!("export-{compress}"));

        let said =
            run_json(&["export", "--from", text_of(&day), "--to", text_of(&to), "--compress", compress], 0);

        assert_eq!(said["receipts"], receipts.len(), "{said}");
        assert_eq!(said["line_is_ingest_seq"], true, "{said}");
        assert_eq!(said["run_records"], runs.len(), "{said}");
        let again = dir.path().join(format!("again-{compress}"));
        ingest(&to.join(format!("raw_market_events.jsonl{suffix}")), &again, &[]);
        assert!(checked_receipts(&again).await == receipts, "the receipts differ");
        assert_eq!(run_records(&again).await, runs);
    }
    let to = dir.path().join("export-none");
    let exported = fs::read_to_string(to.join("orchestrator_events.jsonl")).unwrap();
    assert_eq!(exported.lines().collect::<Vec<_>>(), outputs(&day));
    let wire = fs::read_to_string(to.join("engine_run_records.jsonl")).unwrap();
    assert_eq!(
        wire.lines().map(str::to_owned).collect::<Vec<_>>(),
        runs.iter().map(|run| run.to_wire()).collect::<Vec<_>>()
    );
    assert_eq!(fs::read_to_string(to.join("quarantine.jsonl")).unwrap(), "");
}

#[tokio::test]
async fn files_that_are_there_are_not_replaced_unasked() {
    let (dir, day) = with_day(&[]);
    let to = dir.path().join("export");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("engine_run_records.jsonl"), "mine").unwrap();
    let args = ["export", "--from", text_of(&day), "--to", text_of(&to)];

    let (_, said) = run(&args, 1);

    assert!(said.contains("engine_run_records.jsonl exists"), "{said}");
    assert_eq!(fs::read_dir(&to).unwrap().count(), 1, "a refused export leaves nothing");
    run(&[&args[..], &["--force"]].concat(), 0);
    assert_ne!(fs::read_to_string(to.join("engine_run_records.jsonl")).unwrap(), "mine");
}

/// Method: a receipt whose JSON is spread over lines, as a queue may deliver it.
#[tokio::test]
async fn a_receipt_with_line_breaks_is_one_line_and_is_counted() {
    let (dir, day) = with_day(&[]);
    let spread = event("TradeTick", "BTCUSDT", 1, &json!({"price": 1})).replace(',', ",\r\n");
    append_receipt(&day, spread.as_bytes()).await;
    let to = dir.path().join("export");

    let said = run_json(&["export", "--from", text_of(&day), "--to", text_of(&to)], 0);

    assert_eq!(said["receipts_with_line_breaks"], 1);
    let lines = fs::read_to_string(to.join("raw_market_events.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), made_up_day().len() + 1);
    assert_eq!(lines.lines().last().unwrap(), spread.replace("\r\n", "  "));
    // A table has no lines: there every byte is kept.
    run(&["export", "--from", text_of(&day), "--to", text_of(&to), "--format", "parquet"], 0);
    assert_eq!(rows(&to.join("receipts.parquet")).last().unwrap().get_string(7).unwrap(), &spread);
}

#[tokio::test]
async fn a_part_is_exported_by_symbol_and_range() {
    let (dir, day) = with_day(&[]);
    let to = dir.path().join("part");
    let args = ["export", "--from", text_of(&day), "--to", text_of(&to), "--symbols", "ETHUSDT"];
    // From the second boundary to the end of the third tick.
    let range = ["--range", "2026-01-09T23:51:02Z..2026-01-09T23:51:04.500Z"];

    let said = run_json(&[&args[..], &range].concat(), 0);

    let lines = fs::read_to_string(to.join("raw_market_events.jsonl")).unwrap();
    let expected: Vec<String> = made_up_day()
        .into_iter()
        .filter(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            let at = event["recv_ts_ms"].as_i64().unwrap() - START_MS;
            event["symbol"] == "ETHUSDT" && (2_000..=4_500).contains(&at)
        })
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    assert_eq!(said["line_is_ingest_seq"], false);
    let events = fs::read_to_string(to.join("orchestrator_events.jsonl")).unwrap();
    let times: Vec<i64> = events
        .lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["symbol"], "ETHUSDT");
            event["engine_timestamp_ms"].as_i64().unwrap() - START_MS
        })
        .collect();
    assert_eq!(times, [2_000, 2_000, 4_000, 4_000]);
    assert!(!to.join("quarantine.jsonl").exists(), "it has no symbol to select by");
}

fn rows(table: &Path) -> Vec<Row> {
    let reader = SerializedFileReader::new(fs::File::open(table).unwrap()).unwrap();
    reader.get_row_iter(None).unwrap().map(Result::unwrap).collect()
}

/// Method: the tables are read back and compared with the logs, row by row.
#[tokio::test]
async fn tables_hold_what_the_logs_hold() {
    let (dir, day) = with_day(&["engine.mode=hysteresis"]);
    let to = dir.path().join("tables");

    let said = run_json(&["export", "--from", text_of(&day), "--to", text_of(&to), "--format", "parquet"], 0);

    let receipts = rows(&to.join("receipts.parquet"));
    let expected = checked_receipts(&day).await;
    assert_eq!((receipts.len(), &said["receipts"]), (expected.len(), &json!(expected.len())));
    for ((row, event), seq) in receipts.iter().zip(&expected).zip(1..) {
        let parsed: Value = serde_json::from_slice(event).unwrap();
        assert_eq!(row.get_long(0).unwrap(), seq);
        assert_eq!(row.get_string(2).unwrap(), parsed["symbol"].as_str().unwrap());
        assert_eq!(row.get_string(4).unwrap(), "made_up");
        assert_eq!(row.get_long(5).unwrap(), parsed["recv_ts_ms"].as_i64().unwrap());
        assert!(row.get_long(6).is_err(), "exchange_ts_ms is null");
        assert_eq!(row.get_string(7).unwrap().as_bytes(), event);
    }
    let runs = rows(&to.join("runs.parquet"));
    let ended: Vec<_> = run_records(&day).await.into_iter().filter(|record| record.is_terminal()).collect();
    assert_eq!(runs.len(), ended.len());
    let (mut completed, mut failed) = (0, 0);
    for (row, record) in runs.iter().zip(&ended) {
        let wire: Value = serde_json::from_str(&record.to_wire()).unwrap();
        for (column, field) in [(1, "run_id"), (2, "symbol"), (4, "engine_mode"), (12, "status")] {
            assert_eq!(row.get_string(column).unwrap(), wire[field].as_str().unwrap());
        }
        for (column, field) in [
            (3, "engine_timestamp_ms"),
            (6, "cut_start_ingest_seq"),
            (7, "cut_end_ingest_seq"),
            (15, "attempts"),
        ] {
            assert_eq!(row.get_long(column).unwrap(), wire[field].as_i64().unwrap());
        }
        match wire["error_kind"].as_str() {
            Some(kind) => {
                assert_eq!(row.get_string(13).unwrap(), kind);
                assert!(row.get_string(16).is_err() && row.get_string(18).is_err());
                failed += 1;
            }
            None => {
                let decision: Value = serde_json::from_str(row.get_string(18).unwrap()).unwrap();
                let output = &decision["selected_output"];
                assert_eq!(row.get_string(16).unwrap(), output["regime"].as_str().unwrap());
                assert_eq!(row.get_double(17).unwrap(), output["confidence"].as_f64().unwrap());
                assert!(row.get_string(19).unwrap().contains("candidate_count"));
                assert_eq!(row.get_string(20).unwrap(), "demo");
                completed += 1;
            }
        }
    }
    assert_eq!((completed, failed), (11, 1));
}

/// Method: the frames of a recorded market day, taken out of its events and imported again. The events must be the
/// recorded ones, byte for byte, and the service must take them.
#[test]
fn recorded_frames_become_the_recorded_events_byte_for_byte() {
    let Some(recording) = recording() else { return };
    let text = BufReader::new(MultiGzDecoder::new(fs::File::open(recording).unwrap()));
    let (mut frames, mut expected, mut types) = (String::new(), Vec::new(), BTreeSet::new());
    for line in text.lines().take(30_000).map(Result::unwrap) {
        let event: Value = serde_json::from_str(&line).unwrap();
        let frame = event["raw_payload"].as_str().unwrap();
        if !frame.is_empty() {
            frames += &format!("{}000000 {frame}\n", event["recv_ts_ms"]);
            types.insert(event["event_type"].as_str().unwrap().to_owned());
            expected.push(line);
        }
    }
    assert_eq!(types.iter().collect::<Vec<_>>(), ["BookDelta", "BookTop", "TradeTick"]);
    let dir = tempfile::tempdir().unwrap();
    let [input, output] = ["frames", "events.jsonl.zst"].map(|name| dir.path().join(name));
    fs::write(&input, frames).unwrap();

    let said =
        run_json(&["import", "--format", "binance", "--in", text_of(&input), "--out", text_of(&output)], 0);

    assert_eq!((&said["events"], &said["skipped"]), (&json!(expected.len()), &json!(0)));
    let imported = zstd::decode_all(fs::File::open(&output).unwrap()).unwrap();
    let imported = String::from_utf8(imported).unwrap();
    for (imported, expected) in imported.lines().zip(&expected) {
        assert_eq!(imported, expected);
    }
    assert_eq!(imported.lines().count(), expected.len());
}

/// Method: a table with trades becomes receipts of a service, nothing of it in the quarantine.
#[tokio::test]
async fn an_imported_table_is_a_recording_for_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let [input, output, data] = ["trades.csv", "events.jsonl.gz", "data"].map(|name| dir.path().join(name));
    let rows: String = (0..50).map(|row| format!("{},{}.50,1,sell\n", START_MS + row, 100 + row)).collect();
    fs::write(&input, format!("time_ms,p,q,side\n{rows}")).unwrap();
    let args = [
        "import",
        "--format",
        "trades-csv",
        "--symbol",
        "BTCUSDT",
        "--in",
        text_of(&input),
        "--out",
        text_of(&output),
    ];

    let said = run_json(&[&args[..], &["--map", "ts=time_ms,price=p,quantity=q"]].concat(), 0);
    ingest(&output, &data, &[]);

    assert_eq!(said["events"], 50);
    let receipts = checked_receipts(&data).await;
    assert_eq!(receipts.len(), 50);
    let first: Value = serde_json::from_slice(&receipts[0]).unwrap();
    assert_eq!(first["raw_payload"], format!("{START_MS},100.50,1,sell"));
    // What is wrong is said with its place, and nothing is left.
    let wrong = dir.path().join("wrong.jsonl");
    fs::write(&input, "ts,price,quantity\n1,abc,2\n").unwrap();
    let args = [
        "import",
        "--format",
        "trades-csv",
        "--symbol",
        "A",
        "--in",
        text_of(&input),
        "--out",
        text_of(&wrong),
    ];
    assert!(run(&args, 65).1.contains("line 2, column 2 (price): \"abc\" is no number"));
    assert!(!wrong.exists());
}

#[tokio::test]
async fn a_run_is_looked_at_by_the_first_digits_of_its_id() {
    let (_dir, day) = with_day(&["engine.mode=hysteresis"]);
    let ended: Vec<_> = run_records(&day)
        .await
        .into_iter()
        .filter(|record| record.is_terminal() && record.facts.symbol.as_str() == "BTCUSDT")
        .collect();
    let facts = &ended[2].facts;
    let id = facts.run_id.to_string();

    let seen = run_json(&["inspect", "run", &id[..16], "--from", text_of(&day), "--json"], 0);

    let seen = &seen["run"];
    assert_eq!(seen["run"]["run_id"], id);
    assert_eq!(seen["known"]["by_event_type"], json!({"SnapshotInputs": 1, "TradeTick": 10}));
    assert_eq!(seen["known"]["by_event_type"], seen["known"]["recorded_by_event_type"]);
    assert_eq!(seen["known"]["snapshot"]["inputs"]["timestamp_ms"], facts.engine_timestamp_ms.0);
    assert_eq!(seen["known"]["last"]["ingest_seq"], facts.snapshot_seq.unwrap().0);
    assert_eq!(seen["decided"]["engine"]["name"], "demo");
    let state = |record: &RunRecord| match &record.status {
        RunStatus::Completed { answer: EngineAnswer::Hysteresis { state, .. }, .. } => {
            serde_json::from_str::<Value>(state).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(seen["decided"]["state_before"], state(&ended[1]));
    assert_eq!(seen["decided"]["state_after"], state(&ended[2]));
    let published: Vec<String> = outputs(&day).into_iter().filter(|line| line.contains(&id)).collect();
    let shown: Vec<String> = seen["outputs"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(shown, published);
    assert_eq!(seen["previous"]["run_id"], ended[1].facts.run_id.to_string());
    assert_eq!(seen["next"]["run_id"], ended[3].facts.run_id.to_string());
    assert_eq!(seen["next"]["status"], "completed");
    let page = run(&["inspect", "run", &id, "--from", text_of(&day)], 0).0;
    for part in [
        "what was known",
        "TradeTick 10",
        "what was decided",
        "candidate_count",
        "EngineRunCompleted",
        "next run",
    ] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    assert!(
        run(&["inspect", "run", "0123456789", "--from", text_of(&day)], 1).1.contains("no run of this log")
    );
    run(&["inspect", "run", "xyz", "--from", text_of(&day)], 2);
}

/// Method: among so many runs two share their first digit, and the message names them.
#[tokio::test]
async fn a_beginning_of_several_ids_is_refused_with_examples() {
    let (_dir, day) = with_day(&[]);
    let ids: BTreeSet<String> =
        run_records(&day).await.iter().map(|run| run.facts.run_id.to_string()).collect();
    let shared = ids.iter().zip(ids.iter().skip(1)).find(|(a, b)| a[..1] == b[..1]).unwrap();

    let (_, said) = run(&["inspect", "run", &shared.0[..1], "--from", text_of(&day)], 1);

    assert!(said.contains(shared.0) && said.contains(shared.1), "{said}");
}

#[tokio::test]
async fn a_receipt_is_looked_at_with_the_run_that_took_it() {
    let (_dir, day) = with_day(&[]);
    let receipts = checked_receipts(&day).await;
    let ended: Vec<_> = run_records(&day).await.into_iter().filter(|record| record.is_terminal()).collect();
    for (event, seq) in receipts.iter().zip(1u64..).step_by(17) {
        let event: Value = serde_json::from_slice(event).unwrap();
        let seen = run_json(&["inspect", "seq", &seq.to_string(), "--from", text_of(&day), "--json"], 0);
        let taken = ended.iter().find(|run| {
            run.facts.symbol.as_str() == event["symbol"].as_str().unwrap()
                && (run.facts.cut.start.0..=run.facts.cut.end.0).contains(&seq)
        });
        assert_eq!(seen["receipt"]["event"], event);
        assert_eq!(
            seen["receipt"]["taken_by"]["run_id"],
            json!(taken.map(|run| run.facts.run_id.to_string())),
            "receipt {seq}"
        );
    }
    let last = receipts.len().to_string();
    let page = run(&["inspect", "seq", &last, "--from", text_of(&day)], 0).0;
    assert!(page.contains("no run has taken it yet"), "{page}");
    for nowhere in ["0", "999999"] {
        assert!(
            run(&["inspect", "seq", nowhere, "--from", text_of(&day)], 1).1.contains("there is no receipt")
        );
    }
}

/// Method: between two boundaries, and before the first one.
#[tokio::test]
async fn a_symbol_is_looked_at_as_it_was_at_a_time() {
    let (_dir, day) = with_day(&[]);
    let at = |ms: i64| {
        let at = (START_MS + ms).to_string();
        run_json(&["inspect", "symbol", "ETHUSDT", "--at", &at, "--from", text_of(&day), "--json"], 0)["symbol"].clone()
    };

    // 1505 ms after the first boundary: its run has ended, six trades before the second one are in.
    let seen = at(1_505);
    assert_eq!(seen["last_run"]["run"]["engine_timestamp_ms"], START_MS);
    assert_eq!(seen["last_run"]["next"]["engine_timestamp_ms"], START_MS + INTERVAL_MS);
    assert_eq!(seen["waiting"]["by_event_type"], json!({"TradeTick": 6}));
    assert_eq!(seen["under_way"], Value::Null);
    let before = at(-495);
    assert_eq!((&before["last_run"], &before["waiting"]["receipts"]), (&Value::Null, &json!(6)));
    let failed = at(3 * INTERVAL_MS + 900);
    assert_eq!(failed["last_run"]["decided"]["error_kind"], "missing_snapshot_inputs");
    let args = ["inspect", "symbol", "ethusdt", "--at", "2026-01-09T23:51:02Z", "--from", text_of(&day)];
    assert!(run(&args, 1).1.contains("is it written as the receipts write it?"));
}

/// Method: a day against itself, against one with another snapshot, against one without its last part, against nothing.
#[tokio::test]
async fn two_days_are_compared_run_by_run() {
    let (dir, day) = with_day(&[]);
    let variant = |name: &str, lines: &[String]| {
        let capture = dir.path().join(format!("{name}.jsonl"));
        fs::write(&capture, lines.join("\n")).unwrap();
        let data = dir.path().join(name);
        ingest(&capture, &data, &[]);
        data
    };
    let again = variant("again", &made_up_day());
    let moved: Vec<String> = made_up_day()
        .into_iter()
        .map(|line| {
            match line.contains("SnapshotInputs") && line.contains(&(START_MS + INTERVAL_MS).to_string()) {
                true => line.replace("\"vwap\":59998.0", "\"vwap\":60000.0"),
                false => line,
            }
        })
        .collect();
    assert_ne!(moved, made_up_day());
    let moved = variant("moved", &moved);
    let shorter = variant("shorter", &made_up_day()[..60]);

    let equal = run_json(&["diff", text_of(&day), text_of(&again), "--json"], 0);
    assert_eq!((&equal["verdict"], &equal["equal"]), (&json!("equal"), &json!(12)));

    let different = run_json(&["diff", text_of(&day), text_of(&moved), "--json"], 1);
    assert_eq!((&different["equal"], &different["different"]), (&json!(11), &json!(1)));
    let place = &different["regime_changes"][0]["first"];
    assert_eq!(
        (&place["symbol"], &place["engine_timestamp_ms"]),
        (&json!("BTCUSDT"), &json!(START_MS + INTERVAL_MS))
    );
    let page = run(&["diff", text_of(&day), text_of(&moved)], 1).0;
    assert!(page.contains("regime changes") && page.contains("engine demo"), "{page}");

    let missing = run_json(&["diff", text_of(&day), text_of(&shorter), "--json"], 1);
    assert!(0 < missing["only_in_a"]["count"].as_u64().unwrap(), "{missing}");
    assert_eq!(missing["different"], 0);
    // A part that both have.
    let range = ["--range", "..2026-01-09T23:51:00Z"];
    let part = run_json(&[&["diff", text_of(&day), text_of(&moved), "--json"], &range[..]].concat(), 0);
    assert_eq!(part["equal"], 2);
    run(&["diff", text_of(&day), text_of(&dir.path().join("nowhere"))], 2);
    run(&["diff", text_of(&day), text_of(&moved), "--symbols", "NONE"], 2);
}

/// Method: the engine that recorded the day, another one, one that fails, and a log that lacks a receipt.
#[tokio::test]
async fn an_engine_is_compared_with_what_was_recorded() {
    let (dir, day) = with_day(&["engine.mode=hysteresis"]);
    let against = |settings: &[&str], code: i32| {
        let mut args = vec!["diff", text_of(&day), "--engine", "--json"];
        args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        run_json(&args, code)
    };

    let same = against(&[], 0);
    assert_eq!((&same["verdict"], &same["equal"]), (&json!("equal"), &json!(12)));

    let standin =
        ["engine.kind=process", "engine.process.command=[\"python3\", \"engines/standin_engine.py\"]"];
    let other = against(&[&standin[..], &["engine.hysteresis.update_interval_ms=2000"]].concat(), 1);
    assert_eq!(
        (&other["equal"], &other["different"]),
        (&json!(1), &json!(11)),
        "the failed run is as recorded"
    );
    assert_eq!(other["a"]["engines"][0]["name"], "demo");
    assert_ne!(other["b"]["engines"][0]["name"], "demo");
    let drift: Vec<_> =
        other["drift"].as_array().unwrap().iter().map(|drift| drift["path"].as_str().unwrap()).collect();
    assert!(drift.contains(&"decision.selected_output.confidence"), "{drift:?}");

    let failing = dir.path().join("failing.py");
    let script = "from orchestrator_engine import serve\ndef run(snapshot): raise ValueError('odd')\n\
                  serve(name='failing', version='1', run=run)\n";
    fs::write(&failing, script).unwrap();
    let truth = dir.path().join("truth");
    ingest(&dir.path().join("capture.jsonl"), &truth, &[]);
    let command = format!("engine.process.command=[\"python3\", \"{}\"]", failing.display());
    let args =
        ["diff", text_of(&truth), "--engine", "--json", "--set", "engine.kind=process", "--set", &command];
    let failed = run_json(&[&args[..], &["--set", "engine.process.env.PYTHONPATH=engines"]].concat(), 1);
    assert_eq!(failed["different"], 11);
    assert_eq!(failed["regime_changes"][0]["to"], "(engine_failure)", "{failed}");

    let fewer: Vec<String> = made_up_day().into_iter().skip(1).collect();
    fs::write(dir.path().join("fewer.jsonl"), fewer.join("\n")).unwrap();
    let fewer = dir.path().join("fewer");
    ingest(&dir.path().join("fewer.jsonl"), &fewer, &[]);
    fs::remove_dir_all(day.join("receipts")).unwrap();
    fs::rename(fewer.join("receipts"), day.join("receipts")).unwrap();
    let doubtful = against(&[], 2);
    assert_eq!(doubtful["verdict"], "cannot_tell");
    assert!(doubtful["doubts"][0].as_str().unwrap().contains("replay gives"), "{doubtful}");
    // A second side is needed, and only one.
    run(&["diff", text_of(&day)], 2);
    run(&["diff", text_of(&day), text_of(&truth), "--engine"], 2);
}
