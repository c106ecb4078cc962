//! Recordings whose times are odd: absurd, far apart, or running backwards. Each is said with its line, and the rest
//! runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{SAID_MAX, Service, eventually, orchestrator, root};

/// 2026-01-09T23:51:00Z, a boundary of three minutes.
const T: i64 = 1_768_002_660_000;
const INTERVAL: i64 = 180_000;
const DAY: i64 = 86_400_000;
/// Seconds after which a run that makes millions of ticks is given up.
const PATIENCE_SECONDS: &str = "60";

fn line(symbol: &str, kind: &str, recv: i64, timestamp: i64) -> String {
    format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"{kind}","source_id":"s","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":{recv},"raw_payload":"","normalized":{{"timestamp_ms":{timestamp},"market":{{"price":1.5}}}}}}"#
    )
}

/// For each of `count` boundaries from `T` on: a snapshot just before it, which its run finds.
fn day(count: i64) -> Vec<String> {
    let at = |n: i64| T + n * INTERVAL;
    let mut lines: Vec<String> =
        (0..count).map(|n| line("A", "SnapshotInputs", at(n) - 1000, at(n))).collect();
    lines.push(line("A", "TradeTick", at(count) - 1000, 0));
    lines
}

/// A recording with its configuration, in a directory of its own.
struct Recording {
    dir: tempfile::TempDir,
}

impl Recording {
    fn of(lines: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("day.jsonl"), lines.join("\n") + "\n").unwrap();
        let recording = Self { dir };
        let source = format!("kind = \"file\"\npath = {:?}", recording.path("day.jsonl"));
        fs::write(recording.path("c.toml"), recording.config(&source, "")).unwrap();
        recording
    }

    fn config(&self, source: &str, more: &str) -> String {
        format!(
            "[service]\ndata_dir = {:?}\n[clock]\nmode = \"recorded\"\n{more}\n[sources.day]\n{source}\n\
             [http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
            self.path("data")
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Output {
        Command::new("timeout")
            .args(["-s", "KILL", PATIENCE_SECONDS, env!("CARGO_BIN_EXE_orchestrator")])
            .args(args)
            .arg("--config")
            .arg(self.path("c.toml"))
            .current_dir(root())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs it to its end; the outputs, and the log lines.
    fn run_once(&self) -> (Vec<String>, Vec<Value>) {
        let Output { status, stderr, .. } = self.command(&["run", "--once"]);
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(0), "{stderr:.4000}");
        let outputs = self.path("data/outputs/orchestrator_events.jsonl");
        let outputs = fs::read_to_string(outputs).unwrap_or_default();
        let logged = stderr.lines().map(|line| serde_json::from_str(line).unwrap());
        (outputs.lines().map(str::to_owned).collect(), logged.collect())
    }

    /// The report of its backtest, what was printed, and the page.
    fn backtest(&self) -> (Value, String, String) {
        let (capture, out) = (self.path("day.jsonl"), self.path("out"));
        let args = ["backtest", "--capture", text(&capture), "--out", text(&out)];
        let Output { status, stdout, stderr } = self.command(&args);
        assert_eq!(status.code(), Some(0), "{}", String::from_utf8_lossy(&stderr));
        let report = serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap();
        let page = fs::read_to_string(out.join("report.html")).unwrap();
        (report, String::from_utf8(stdout).unwrap(), page)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said<'l>(logged: &'l [Value], what: &str) -> Vec<&'l Value> {
    logged.iter().filter(|line| line.to_string().contains(what)).collect()
}

/// Times that no receipt of a recording can have: other units, nothing, everything, and one far ahead of the others.
fn absurd() -> [(i64, &'static str); 8] {
    [
        (0, "1970-01-01"),
        (-1, "1969"),
        (T / 1000, "looks like seconds"),
        (T * 1000, "looks like microseconds"),
        (T * 1_000_000, "looks like nanoseconds"),
        (i64::MAX, "292278994"),
        (i64::MIN, "-292275055"),
        (4_070_908_800_000, "clock.gap_max"), // 2099
    ]
}

#[test]
fn an_absurd_time_is_quarantined_by_its_line_and_all_other_lines_run() {
    let (expected, _) = Recording::of(&day(4)).run_once();
    assert_eq!(expected.len(), 8);
    for (at, why) in absurd() {
        // The first receipt of all decides where a clock begins; being far ahead needs something before it.
        for index in if why == "clock.gap_max" { [2, 5] } else { [0, 3] } {
            let mut lines = day(4);
            lines.insert(index, line("A", "TradeTick", at, 0));
            let recording = Recording::of(&lines);

            let (outputs, logged) = recording.run_once();

            assert!(outputs == expected, "{at} at line {}: other outputs", index + 1);
            let named = said(&logged, "implausible_time");
            assert_eq!(named.len(), 1, "{named:?}");
            assert_eq!(named[0]["position"], index + 1);
            assert!(named[0]["error_detail"].as_str().unwrap().contains(why), "{}", named[0]);
        }
    }
}

#[test]
fn a_backtest_names_an_absurd_time_too() {
    let mut lines = day(4);
    lines.insert(2, line("A", "TradeTick", T * 1000, 0));

    let (report, printed, _) = Recording::of(&lines).backtest();

    assert_eq!(report["runs"]["completed"], 4);
    assert_eq!(report["capture"]["quarantined"], 1);
    assert_eq!(report["capture"]["first_quarantined"]["position"], 3);
    assert_eq!(report["capture"]["first_quarantined"]["reason"], "implausible_time");
    assert!(
        printed.contains("first line that is no receipt: 3:") && printed.contains("microseconds"),
        "{printed}"
    );
}

/// Over HTTP too it is answered, with the line; readiness and everything else go on.
#[tokio::test]
async fn an_absurd_time_over_http_is_answered_with_its_line() {
    let recording = Recording::of(&[]);
    let config = recording.path("http.toml");
    fs::write(&config, recording.config("kind = \"http\"", "")).unwrap();
    let service = Service::start(&config, &[]).await;
    let readiness = service.watch_readiness().await;
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
    for (at, why) in absurd() {
        let mut lines = day(4);
        lines.insert(2, line("A", "TradeTick", at, 0));
        let post = client.post(format!("{}/api/v1/receipts", service.url));
        let post = post.header("content-type", "application/x-ndjson").body(lines.join("\n"));
        let answer = post.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{at}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!((&answer["appended"], &answer["quarantined"]), (&5.into(), &1.into()), "{answer}");
        assert_eq!(answer["errors"][0]["line"], 3);
        assert!(answer["errors"][0]["reason"].as_str().unwrap().contains(why), "{answer}");
    }
    readiness.end().never_lost();
    assert_eq!(service.metric("orch_ingest_items_quarantined_total{reason=\"implausible_time\"}").await, 8.0);
    service.stop().await;
}

/// A gap that a recording can have is run whole; a longer one by its ends, said with counts, and the rest runs on.
#[test]
fn a_long_gap_is_run_by_its_ends_and_said_with_counts() {
    let with_gap = |days: i64| {
        let mut lines = day(2);
        let later = T + days * DAY;
        lines.extend(
            (0..2).map(|n| line("A", "SnapshotInputs", later + n * INTERVAL - 1000, later + n * INTERVAL)),
        );
        lines.push(line("A", "TradeTick", later + 2 * INTERVAL - 1000, 0));
        Recording::of(&lines)
    };

    let (outputs, logged) = with_gap(3).run_once();
    assert_eq!(outputs.len(), 2 * (2 + 3 * 480), "a weekend is run whole");
    assert!(said(&logged, "a gap of the recording").is_empty());

    let long = with_gap(300);
    let (outputs, logged) = long.run_once();
    // In the gap 20 ticks at either end, of which the first has the receipts before it; then two more.
    assert_eq!(outputs.len(), 2 * (2 + 40 + 2), "{}", outputs.len());
    assert_eq!(outputs.iter().filter(|output| output.contains("EngineRunCompleted")).count(), 4);
    let named = said(&logged, "a gap of the recording");
    assert_eq!(named[0]["missed"], 300 * 480 - 2 - 40, "{named:?}");
    assert!(named[0]["from"].as_str().unwrap().starts_with("2026-01-09"));
    assert_eq!(said(&logged, "gaps of the recording have more than 10000 ticks").len(), 1, "at the end too");
    let verified =
        orchestrator(&["verify", "--from", text(&long.path("data")), "--config", text(&long.path("c.toml"))]);
    assert!(verified.status.success(), "{verified:?}");

    let (report, printed, page) = long.backtest();
    assert_eq!(report["capture"]["odd_times"]["gaps"]["ticks_skipped"], 300 * 480 - 2 - 40);
    assert_eq!(report["runs"]["completed"], 4);
    assert!(
        printed.contains("not run") && page.contains("ticks in the middle of them were not run"),
        "{printed}"
    );
}

/// Method: the halves of a recording are swapped, and a recording is turned round.
#[test]
fn time_that_runs_backwards_is_said_with_counts() {
    let lines = day(20);
    let (ahead, behind) = lines.split_at(10);
    let swapped: Vec<String> = behind.iter().chain(ahead).cloned().collect();
    let reversed: Vec<String> = lines.iter().rev().cloned().collect();
    for (lines, late, snapshots, first) in [(swapped, 10, 10, 12), (reversed, 20, 20, 2)] {
        let recording = Recording::of(&lines);

        let (_, logged) = recording.run_once();
        let summary = said(&logged, "time runs backwards in the recording:");
        let at_once: Vec<_> = summary.iter().filter(|line| line["position"] == first).collect();
        assert_eq!(at_once.len(), 1, "{summary:?}");
        let counted = format!("{late} receipts came after the tick of their own time");
        let at_the_end = said(&logged, &counted);
        assert_eq!(at_the_end.len(), 1, "{logged:?}");
        assert!(
            at_the_end[0].to_string().contains(&format!("first one is at position {first}:")),
            "{at_the_end:?}"
        );

        let (report, printed, page) = recording.backtest();
        let said = &report["capture"]["odd_times"]["late"];
        assert_eq!((&said["receipts"], &said["snapshots"]), (&late.into(), &snapshots.into()), "{said}");
        assert_eq!(said["first_position"], first);
        assert!(printed.contains(&counted), "{printed}");
        assert!(page.contains(&counted), "{page}");
    }

    let (_, logged) = Recording::of(&day(20)).run_once();
    assert!(said(&logged, "backwards").is_empty(), "nothing is said of a recording in order");
}

/// A receipt that is late by less than a tick keeps its run: nothing need be said.
#[test]
fn a_receipt_that_is_late_within_its_tick_is_no_trouble() {
    let mut lines = day(4);
    lines.insert(2, line("A", "TradeTick", T + INTERVAL - 1500, 0));

    let (outputs, logged) = Recording::of(&lines).run_once();

    assert_eq!(outputs.iter().filter(|output| output.contains("EngineRunCompleted")).count(), 4);
    assert!(said(&logged, "backwards").is_empty());
}

/// How long a batch may wait before that is said.
const UNSETTLED_AFTER: Duration = Duration::from_secs(10);

/// Method: an engine that takes its time makes the runs of a gap slow, so the poster waits; then the gap is over.
#[tokio::test]
async fn a_batch_that_is_not_settled_for_long_is_shown_until_it_is() {
    let recording = Recording::of(&[]);
    let config = recording.path("http.toml");
    let slow = "[engine]\nkind = \"process\"\ndeadline = \"30s\"\n[engine.process]\nworkers = 1\nstart_deadline = \"60s\"\n\
                command = [\"python3\", \"-c\", \"\"\"\nimport sys, time, pathlib\n\
                sys.path.insert(0, 'engines')\nfrom orchestrator_engine import serve\n\
                def run(snapshot):\n    while not pathlib.Path('GO').exists(): time.sleep(0.01)\n    return {'regime': 'X'}\n\
                serve(name='slow', version='1', run=run, sources=['engines/standin_engine.py'])\n\"\"\"]\n";
    let go = recording.path("go");
    let slow = slow.replace("GO", text(&go));
    fs::write(&config, format!("{}{slow}", recording.config("kind = \"http\"", ""))).unwrap();
    let service = Service::start(&config, &[]).await;
    let ready = async || service.get("/readyz").await;
    let readiness = service.watch_readiness().await;
    let fault = Instant::now();

    let post = reqwest::Client::new().post(format!("{}/api/v1/receipts", service.url));
    let post = post.header("content-type", "application/x-ndjson").body(day(1).join("\n"));
    let posted = tokio::spawn(async move { post.send().await.map(|answer| answer.status()) });
    let shown = eventually("it is shown", async || {
        let (status, body) = ready().await;
        (status == 503).then_some(body)
    })
    .await;
    assert!(shown.contains("source_unsettled") && shown.contains("\"day\""), "{shown}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let healed = Instant::now();
    fs::write(&go, "").unwrap();
    eventually("it is settled", async || (ready().await.0 == 200).then_some(())).await;
    readiness.end().lost_once("source_unsettled", fault, UNSETTLED_AFTER + SAID_MAX, healed);
    posted.await.unwrap().unwrap();
    service.stop_unverified().await;
}
