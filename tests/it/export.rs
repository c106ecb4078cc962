//! Recorded data leaves and comes back: export and import by the real binary.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use orchestrator::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{IngestSeq, TsMs};
use orchestrator_kernel::ports::log::{Log, RecordBatch};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Row, RowAccessor};
use serde_json::{Value, json};

use crate::made_up::{START_MS, event, ingest, made_up_day, run, run_json, text_of, with_day};
use crate::support::{checked_receipts, outputs, recording, run_records};

/// Adds a receipt to the log of a stopped service.
async fn append_receipt(data: &Path, event: &[u8]) {
    let log = EmbeddedLog::open(&data.join("receipts"), EmbeddedLogOptions::new("receipts")).unwrap();
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
/// recorded ones, byte for byte.
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
    fs::write(&input, format!("ts,price,quantity\n{START_MS},abc,2\n")).unwrap();
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
