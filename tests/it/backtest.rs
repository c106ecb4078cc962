//! `orchestrator backtest` on the real binary: the live run's bytes, a report that tells what the logs say, and its
//! ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Service, checked_receipts, eventually, outputs, records, root, run_records};

/// Name of the outputs file.
const OUTPUTS: &str = "orchestrator_events.jsonl";

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    command
        .arg("backtest")
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null());
    command
}

/// Runs a backtest and expects its exit code; returns what it said.
fn check_backtest(args: &[&str], code: i32) -> String {
    let Output { status, stdout, stderr } = command(args).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "{args:?}:\n{said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn report(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap()
}

/// Parses the page as XML, which HTML need not be but this one is.
fn check_page(out: &Path) -> String {
    let path = out.join("report.html");
    let parsed = Command::new("python3")
        .args(["-c", "import sys, xml.etree.ElementTree as e; e.parse(sys.argv[1])"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
    fs::read_to_string(path).unwrap()
}

/// What a backtest leaves of itself besides the report's figures of speed.
async fn left(out: &Path) -> (Vec<u8>, Vec<Vec<u8>>, Value) {
    let mut report = report(out);
    report.as_object_mut().unwrap().remove("performance").unwrap();
    (fs::read(out.join(OUTPUTS)).unwrap(), records(&out.join("data/runs")).await, report)
}

/// A backtest of the recording equals `live`, the data directory of a service that ran it once; and so does a second
/// one.
pub(crate) async fn check_equals_live(recording: &Path, config: &Path, live: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    for out in [&first, &second] {
        let said = check_backtest(
            &["--capture", text(recording), "--config", text(config), "--out", text(out), "--keep-logs"],
            0,
        );
        assert!(said.contains("source capture (file): the capture"), "{said}");
    }

    let live_outputs = fs::read(live.join("outputs").join(OUTPUTS)).unwrap();
    assert!(fs::read(first.join(OUTPUTS)).unwrap() == live_outputs, "the outputs differ from the live run's");
    assert!(left(&first).await == left(&second).await, "two backtests differ");
    for log in ["receipts", "runs", "quarantine"] {
        let of_live = records(&live.join(log)).await;
        assert!(records(&first.join("data").join(log)).await == of_live, "the {log} logs differ");
    }
    check_figures(&report(&first), live).await;
    check_verified(&first.join("data"), config);
    let page = check_page(&first);
    assert!(page.contains("missing_snapshot_inputs") && page.contains("BTCUSDT"));
}

/// Kept logs are a service's logs: `verify` finds everything in them equal.
fn check_verified(data: &Path, config: &Path) {
    let verified = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["verify", "--from", text(data), "--config", text(config)])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        verified.status.success(),
        "{}{}",
        String::from_utf8_lossy(&verified.stdout),
        String::from_utf8_lossy(&verified.stderr)
    );
}

/// The report's figures, counted here from the logs of the live run.
async fn check_figures(report: &Value, live: &Path) {
    let receipts = checked_receipts(live).await;
    let mut by_symbol: BTreeMap<String, u64> = BTreeMap::new();
    for receipt in &receipts {
        let event: Value = serde_json::from_slice(receipt).unwrap();
        *by_symbol.entry(event["symbol"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let runs: Vec<RunRecord> = run_records(live).await;
    let count = |wanted: fn(&RunStatus) -> bool| runs.iter().filter(|run| wanted(&run.status)).count();
    let failed = runs.iter().find(|run| matches!(run.status, RunStatus::Failed { .. })).unwrap();
    let lines = outputs(live);
    let sum = |series: &str, field: &str| -> u64 {
        let steps = report["over_time"][series]["steps"].as_array().unwrap();
        steps.iter().map(|step| step[field].as_u64().unwrap()).sum()
    };
    let regimes: u64 =
        report["regimes"]["runs"].as_object().unwrap().values().map(|runs| runs.as_u64().unwrap()).sum();
    let completed = count(|status| matches!(status, RunStatus::Completed { .. }));
    let calls = &report["performance"]["engine_calls"];

    assert_eq!(report["schema"], "orchestrator_backtest_report");
    assert_eq!(report["complete"], true);
    assert_eq!(report["capture"]["receipts"], receipts.len());
    assert_eq!(report["capture"]["bytes"], receipts.iter().map(Vec::len).sum::<usize>());
    assert_eq!(report["capture"]["by_symbol"], json!(by_symbol));
    assert_eq!(report["runs"]["completed"], completed);
    assert_eq!(report["runs"]["failed"], count(|status| matches!(status, RunStatus::Failed { .. })));
    assert_eq!(report["runs"]["started"], count(|status| matches!(status, RunStatus::Started { .. })));
    assert_eq!(report["runs"]["open"], 0);
    assert_eq!(report["runs"]["outputs"], lines.len());
    let failures = &report["runs"]["failures"]["missing_snapshot_inputs"];
    assert_eq!(failures["runs"], report["runs"]["failed"]);
    assert_eq!(failures["first_run_id"], failed.facts.run_id.to_string());
    assert_eq!(
        (sum("receipts", "receipts"), sum("runs", "outputs")),
        (receipts.len() as u64, lines.len() as u64)
    );
    assert_eq!(regimes, completed as u64);
    assert_eq!((&calls["calls"], &calls["failed"]), (&report["runs"]["completed"], &json!(0)));
    let histogram = calls["histogram"].as_array().unwrap();
    assert_eq!(histogram.iter().map(|class| class["calls"].as_u64().unwrap()).sum::<u64>(), completed as u64);
    assert_eq!(report["manifest"]["engines"][0]["name"], "standin-engine");
    assert_eq!(report["manifest"]["engines"][0]["runs"], completed);
}

/// Each output without the time of its publication, by its symbol in order.
fn unpublished(lines: impl IntoIterator<Item = String>) -> BTreeMap<String, Vec<String>> {
    let mut by_symbol: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let event: Value = serde_json::from_str(&line).unwrap();
        let published = format!("\"published_ts_ms\":{}", event["published_ts_ms"]);
        assert!(line.contains(&published), "{line}");
        let symbol = event["symbol"].as_str().unwrap().to_owned();
        by_symbol.entry(symbol).or_default().push(line.replace(&published, "\"published_ts_ms\":?"));
    }
    by_symbol
}

/// Method: a service under the wall clock; a producer whose own clock stands in 2020 posts to it all the time, so that
/// only the times of ingestion can tell which receipts belong to which cut, and a symbol never comes. Then its logs by
/// ingest time. By receive time, which they can be run by too, they give other runs.
#[tokio::test]
async fn the_logs_of_a_live_service_by_ingest_time_give_its_own_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let (live, config) = (dir.path().join("live"), dir.path().join("config.toml"));
    let settings = format!(
        "[service]\ndata_dir = \"{}\"\n[schedule]\ninterval = \"200ms\"\ndelay = \"100ms\"\n\
         catch_up_max = 1000\nruns_queued_max = 1000\n\
         [symbols]\nlist = [\"BTCUSDT\", \"ETHUSDT\", \"NEVER\"]\n[engine]\nmode = \"hysteresis\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
        live.display()
    );
    fs::write(&config, settings).unwrap();
    let service = Service::start(&config, &[]).await;
    let seen = |what: &str| {
        let file = fs::read_to_string(live.join("outputs").join(OUTPUTS)).unwrap_or_default();
        file.matches(what).count()
    };
    // Ticks before the first receipt and after the last one are the service's too.
    eventually("runs before receipts", async || (seen("EngineRunFailed") >= 6).then_some(())).await;
    post_until(&service, || seen("EngineRunCompleted") >= 10).await;
    let failed = seen("EngineRunFailed");
    eventually("runs after receipts", async || (seen("EngineRunFailed") >= failed + 9).then_some(())).await;
    service.stop().await;

    let [ingest, receive] = ["ingest", "receive"].map(|name| dir.path().join(name));
    for out in [&ingest, &receive] {
        let time = out.file_name().unwrap().to_str().unwrap();
        let args = ["--capture", text(&live), "--config", text(&config), "--out", text(out), "--time", time];
        let said = check_backtest(&args, 0);
        assert!(said.contains("source http (http): the capture"), "{said}");
        assert_eq!(report(out)["capture"]["time"], time);
    }

    let lines = |path: &Path| unpublished(fs::read_to_string(path).unwrap().lines().map(str::to_owned));
    let expected = unpublished(outputs(&live));
    assert_eq!(expected.keys().map(String::as_str).collect::<Vec<_>>(), ["BTCUSDT", "ETHUSDT", "NEVER"]);
    assert!(lines(&ingest.join(OUTPUTS)) == expected, "the outputs differ from the live service's");
    assert!(
        lines(&receive.join(OUTPUTS)) != expected,
        "the times do not matter, so nothing is shown by this test"
    );
    assert_eq!(report(&ingest)["capture"]["receipts"], records(&live.join("receipts")).await.len());
}

/// Posts trades and snapshots for the boundaries around now, one batch after the other.
async fn post_until(service: &Service, enough: impl Fn() -> bool) {
    let client = reqwest::Client::new();
    let mut posted = 0;
    eventually("enough outputs", async || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let boundary = now / 200 * 200;
        let mut body = String::new();
        for symbol in ["BTCUSDT", "ETHUSDT"] {
            posted += 1;
            body.push_str(&line(symbol, "TradeTick", 1_000 + posted, json!({})));
            for timestamp in [boundary, boundary + 200] {
                // Each is another one, so it matters which is the last of its cut.
                let market = json!({"price": 100 + posted % 7, "vwap": 100, "atr": 2 + posted % 3});
                let snapshot = json!({"timestamp_ms": u64::try_from(timestamp).unwrap(), "market": market});
                body.push_str(&line(symbol, "SnapshotInputs", 1_000 + posted, snapshot));
            }
        }
        let request = client.post(format!("{}/api/v1/receipts", service.url));
        let answer = request.header("content-type", "application/x-ndjson").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        enough().then_some(())
    })
    .await;
}

/// 2020-01-01, a boundary.
const BEGIN_MS: i64 = 1_577_836_800_000;

/// One receipt as a line, received so long after the begin.
fn line(symbol: &str, kind: &str, recv_ts_ms: i64, normalized: Value) -> String {
    let event = json!({
        "schema": "raw_market_event", "schema_version": "1", "event_type": kind, "source_id": "test",
        "symbol": symbol, "exchange_ts_ms": null, "recv_ts_ms": BEGIN_MS + recv_ts_ms, "raw_payload": "", "normalized": normalized,
    });
    format!("{event}\n")
}

/// Three intervals of three minutes for a symbol, with a snapshot at the second boundary.
fn capture_of(symbol: &str) -> String {
    let snapshot =
        json!({"timestamp_ms": BEGIN_MS + 360_000, "market": {"price": 1.0, "vwap": 1.0, "atr": 1.0}});
    [
        line(symbol, "TradeTick", 1_000, json!({})),
        line(symbol, "SnapshotInputs", 360_010, snapshot),
        line(symbol, "TradeTick", 400_000, json!({})),
    ]
    .concat()
}

/// Method: a symbol and a type that are pieces of HTML, and lines that are no receipts.
#[test]
fn hostile_names_and_broken_lines_are_shown_and_harm_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (capture, out) = (dir.path().join("day.jsonl"), dir.path().join("out"));
    let symbol = "</title><script>alert(1)</script>\"'&";
    let lines = capture_of(symbol);
    fs::write(&capture, format!("{lines}no receipt\n{}", line("A", "<script>", 400_001, json!({})))).unwrap();

    let said = check_backtest(&["--capture", text(&capture), "--out", text(&out)], 0);

    assert!(said.contains("first line that is no receipt: 4: "), "{said}");
    assert!(said.contains("source http (http): the capture"), "{said}");
    let page = check_page(&out);
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"), "{page}");
    let report = report(&out);
    assert_eq!(report["capture"]["quarantined"], 1);
    assert_eq!(report["capture"]["first_quarantined"]["position"], 4);
    assert_eq!(report["runs"]["by_symbol"][symbol]["completed"], 1);
    assert_eq!(report["regimes"]["by_symbol"][symbol]["segments"].as_array().unwrap().len(), 1);
    assert!(!out.join("data").exists());
    assert!(
        fs::read_dir(&out).unwrap().all(|entry| !entry
            .unwrap()
            .file_name()
            .to_str()
            .unwrap()
            .starts_with('.'))
    );
}

/// Method: an exported directory as a capture, in each of its forms, against the plain file; only JSON is asked for.
#[test]
fn an_exported_directory_is_a_capture_and_only_the_wanted_report_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (exported, out) = (dir.path().join("exported"), dir.path().join("out"));
    fs::create_dir(&exported).unwrap();
    let text_of = capture_of("A");
    let mut packed = GzEncoder::new(
        File::create(exported.join("raw_market_events.jsonl.gz")).unwrap(),
        Compression::fast(),
    );
    packed.write_all(text_of.as_bytes()).unwrap();
    packed.finish().unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("report.html"), "of an earlier backtest").unwrap();

    check_backtest(&["--capture", text(&exported), "--out", text(&out), "--report", "json"], 0);

    assert_eq!(report(&out)["capture"]["receipts"], 3);
    assert!(!out.join("report.html").exists(), "it would be taken for this one's");
}

/// Method: a compressed file that is cut off, one that is not there, one without a receipt.
#[test]
fn a_capture_that_cannot_be_read_to_its_end_is_said_and_the_exit_code_tells() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let run = |capture: &Path, code| check_backtest(&["--capture", text(capture), "--out", text(&out)], code);
    let whole = dir.path().join("whole.jsonl.gz");
    let mut packed = GzEncoder::new(Vec::new(), Compression::none());
    let lines: String = (0..2_000).map(|at| line("A", "TradeTick", 1_000 + at, json!({}))).collect();
    packed.write_all(lines.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    fs::write(&whole, &packed[..packed.len() / 2]).unwrap();

    let said = run(&whole, 69);
    assert!(said.contains("whole.jsonl.gz cannot be read beyond byte"), "{said}");
    let report = report(&out);
    let read = report["capture"]["receipts"].as_u64().unwrap();
    assert!(said.contains(&format!("after {read} whole items")), "{said}");
    assert!(0 < read && read < 2_000);
    assert_eq!((&report["complete"], &report["conditions"]), (&json!(false), &json!([])));
    assert!(check_page(&out).contains("This backtest is incomplete"));

    assert!(run(&dir.path().join("missing.jsonl"), 74).contains("missing.jsonl"));
    let garbage = dir.path().join("garbage.jsonl");
    fs::write(&garbage, "{}\nx\n").unwrap();
    assert!(run(&garbage, 65).contains("holds no receipt; line 1: "));
    assert!(run(dir.path(), 69).contains("holds neither logs nor"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("day.jsonl");
    fs::write(&capture, capture_of("A")).unwrap();
    let capture = text(&capture);
    fs::create_dir_all(dir.path().join("out/data")).unwrap();
    let out = dir.path().join("out");
    let out = text(&out);

    check_backtest(&[], 2);
    check_backtest(&["--capture", capture, "--out", out, "--report", "pdf"], 2);
    check_backtest(&["--capture", capture, "--out", out, "--time", "exchange"], 2);
    let said = check_backtest(&["--capture", capture, "--out", out, "--time", "ingest"], 2);
    assert!(said.contains("needs the logs of a service"), "{said}");
    let said = check_backtest(&["--capture", capture, "--out", out, "--keep-logs"], 2);
    assert!(said.contains("data exists; remove it"), "{said}");
    check_backtest(&["--capture", capture, "--out", out, "--set", "schedule.interval=soon"], 78);
    assert_eq!(fs::read_dir(out).unwrap().count(), 1, "nothing was touched");
}

/// Method: a capture that does not end, a named pipe that stays open; then the signal of Ctrl-C.
#[tokio::test]
async fn an_interrupted_backtest_ends_in_order_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (pipe, out) = (dir.path().join("day.jsonl"), dir.path().join("out"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut child = command(&["--capture", text(&pipe), "--out", text(&out)])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let written = pipe.clone();
    // Opening waits for the reader.
    let opened = tokio::task::spawn_blocking(move || {
        let mut pipe = File::options().write(true).open(written).unwrap();
        pipe.write_all(capture_of("A").as_bytes()).unwrap();
        pipe
    });
    let pipe = tokio::time::timeout(PATIENCE, opened).await.expect("it never read").unwrap();

    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = eventually("its end", async || child.try_wait().unwrap()).await;

    drop(pipe);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(report(&out)["complete"], false);
}
