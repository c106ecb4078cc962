//! `orchestrator backtest --trading` on the real binary: cycles over recordings, whose journals are equal however many
//! threads run them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use orchestrator_kernel::random::Rng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Service, eventually, outputs, recorded_lines, recording, records, root};

/// 2024-08-08 00:00 UTC, a Thursday.
const BEGIN_MS: i64 = 1_723_075_200_000;
/// Minutes of the made-up recording.
const MINUTES: i64 = 6;

/// Two strategies and a schedule of each kind that a recording can make fire.
const TRADING: &str = r#"
[schedule]
mode = "boundary"
interval = "15s"
delay = "500ms"
[engine]
kind = "demo"
mode = "truth"
[log]
format = "json"
[trading]
calendar = "24-7"
[trading.schedules.beat]
pipeline = "heartbeat"
trigger = "interval"
interval = "7s"
overlap = "skip"
misfire = "skip"
lateness_max = "5s"
[trading.schedules.minute]
pipeline = "analysis"
trigger = "cron"
cron = "0 * * * * *"
zone = "America/New_York"
overlap = "queue_one"
misfire = "all"
lateness_max = "5s"
[trading.schedules.output]
pipeline = "canonical"
trigger = "event"
on_outputs = true
overlap = "skip"
misfire = "skip"
lateness_max = "5s"
[trading.schedules.steady]
pipeline = "canonical"
trigger = "interval"
interval = "5s"
overlap = "skip"
misfire = "skip"
lateness_max = "5s"
[trading.strategies.momentum]
symbols = ["ETHUSDT", "BTCUSDT"]
schedules = ["minute", "steady"]
status = "active"
[trading.strategies.regime]
symbols = ["ETHUSDT"]
schedules = ["output", "steady"]
status = "active"
"#;

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    command
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null());
    command
}

/// Runs the binary and expects its exit code; returns what it said.
fn check_run(args: &[&str], code: i32) -> String {
    let Output { status, stdout, stderr } = command(args).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "{args:?}:\n{said}");
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A recording, its configuration, and the directories of its backtests.
struct CycleWorld {
    dir: tempfile::TempDir,
    capture: PathBuf,
    config: PathBuf,
}

impl CycleWorld {
    fn new(capture: &str, config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (path, config_path) = (dir.path().join("day.jsonl"), dir.path().join("config.toml"));
        fs::write(&path, capture).unwrap();
        fs::write(&config_path, config).unwrap();
        Self { dir, capture: path, config: config_path }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A backtest with its logs kept in the directory `name`; returns what it said.
    fn play(&self, name: &str, more: &[&str]) -> String {
        let out = self.out(name);
        let args = ["backtest", "--capture", text(&self.capture), "--config", text(&self.config)];
        let args = [&args[..], &["--out", text(&out), "--keep-logs"], more].concat();
        check_run(&args, 0)
    }

    fn report(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.out(name).join("report.json")).unwrap()).unwrap()
    }

    /// The journal's records in their export form.
    fn journal(&self, name: &str) -> Vec<Value> {
        let lines = fs::read_to_string(self.out(name).join("journal.jsonl")).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Everything that the two backtests left of themselves is equal, but for the speed.
    async fn check_equal(&self, one: &str, other: &str) {
        for log in ["journal", "receipts", "runs", "quarantine"] {
            let of = async |name: &str| records(&self.out(name).join("data").join(log)).await;
            let (left, right) = (of(one).await, of(other).await);
            let differs = (0..left.len().max(right.len())).find(|at| left.get(*at) != right.get(*at));
            let shown = |name: &str| match (log, differs) {
                ("journal", Some(at)) => format!("{:?}", self.journal(name).get(at)),
                _ => String::new(),
            };
            assert_eq!(differs, None, "REP-2: {log}\n{}\n{}", shown(one), shown(other));
        }
        for file in ["orchestrator_events.jsonl", "journal.jsonl"] {
            let of = |name: &str| fs::read(self.out(name).join(file)).unwrap();
            assert!(of(one) == of(other), "{file}");
        }
        let of = |name: &str| {
            let mut report = self.report(name);
            report.as_object_mut().unwrap().remove("performance").unwrap();
            report
        };
        assert_eq!(of(one), of(other));
    }

    fn check_verified(&self, name: &str) {
        let data = self.out(name).join("data");
        let said = check_run(&["verify", "--from", text(&data), "--config", text(&self.config)], 0);
        assert!(said.contains("journal: records 1 to "), "{said}");
    }
}

/// One receipt as a line, so many milliseconds after the begin.
fn line(symbol: &str, kind: &str, after_ms: i64, normalized: &Value) -> String {
    let event = json!({
        "schema": "raw_market_event", "schema_version": "1", "event_type": kind, "source_id": "test", "symbol": symbol,
        "exchange_ts_ms": null, "recv_ts_ms": BEGIN_MS + after_ms, "raw_payload": "", "normalized": normalized,
    });
    format!("{event}\n")
}

/// Trades of two symbols that wander, some of them at the very moment of a fire, and a snapshot for each boundary.
fn made_up_capture(minutes: i64) -> String {
    let mut dice = Rng::new(11);
    let mut prices = BTreeMap::from([("BTCUSDT", 60_000_i64), ("ETHUSDT", 2_500)]);
    let mut lines = line("ETHUSDT", "TradeTick", 0, &json!({"price": 2_500}));
    let mut at = 0;
    while at < minutes * 60_000 {
        let next = at + 1 + i64::try_from(dice.next_below(1_500)).unwrap();
        // Receipts at a deadline belong before it.
        let next = if dice.next_below(4) == 0 { next / 1_000 * 1_000 + 1_000 } else { next };
        for boundary in (at / 15_000 + 1)..=(next / 15_000) {
            for (symbol, price) in &prices {
                let market = json!({"price": price, "vwap": price + 3, "atr": 2});
                let snapshot = json!({"timestamp_ms": BEGIN_MS + boundary * 15_000, "market": market});
                lines.push_str(&line(symbol, "SnapshotInputs", boundary * 15_000 + 20, &snapshot));
            }
        }
        at = next;
        let symbol = ["BTCUSDT", "ETHUSDT"][dice.next_index(2)];
        let price = prices.get_mut(symbol).unwrap();
        *price += i64::try_from(dice.next_below(21)).unwrap() - 10;
        lines.push_str(&line(symbol, "TradeTick", at, &json!({"price": price})));
    }
    lines + &line("BTCUSDT", "TradeTick", minutes * 60_000 + 1_000, &json!({"price": 60_000}))
}

/// REP-2. Method: one recording three times, on one worker thread and on four, everything compared; then without
/// cycles, which leaves the engine plane's logs as they are with them.
#[tokio::test]
async fn backtests_of_cycles_write_equal_journals_on_one_thread_or_four() {
    let world = CycleWorld::new(&made_up_capture(MINUTES), TRADING);
    let threads = |count: &str| format!("service.worker_threads={count}");
    for (name, count) in [("one", "1"), ("four", "4"), ("again", "4")] {
        let said = world.play(name, &["--trading", "--set", &threads(count)]);
        assert!(said.contains(" cycles (") && said.contains("journal.jsonl"), "{said}");
    }
    world.play("without", &[]);

    for other in ["four", "again"] {
        world.check_equal("one", other).await;
    }
    world.check_verified("one");
    check_cycles(&world);
    for log in ["receipts", "runs", "quarantine"] {
        let of = async |name: &str| records(&world.out(name).join("data").join(log)).await;
        assert!(of("one").await == of("without").await, "cycles change the {log} log");
    }
    assert_eq!(outputs(&world.out("one").join("data")), outputs(&world.out("without").join("data")));
    let without = world.out("without");
    assert!(!without.join("journal.jsonl").exists() && !without.join("data/journal").exists());
    assert_eq!(world.report("without").get("trading"), None);
}

/// REP-2 of a service that works over a recording, whose agent nobody has started. Method: `run --once` without the
/// trading plane, then with it on one worker thread and on four: the same runs and outputs, and every fire accounted
/// for in equal journals.
#[tokio::test]
async fn a_service_over_a_recording_makes_every_run_beside_its_schedules_and_equal_journals() {
    let world = CycleWorld::new(&made_up_capture(MINUTES), TRADING);
    let run_once = |name: &str, more: &[String]| {
        let set = |setting: String| ["--set".to_owned(), setting];
        let settings = [
            format!("service.data_dir={}", text(&world.out(name))),
            "clock.mode=recorded".to_owned(),
            "sources.day.kind=file".to_owned(),
            format!("sources.day.path={}", text(&world.capture)),
        ];
        let settings = settings.into_iter().chain(more.iter().cloned()).flat_map(set);
        let args = ["run", "--once", "--config", text(&world.config)].map(str::to_owned);
        let args: Vec<_> = args.into_iter().chain(settings).collect();
        check_run(&args.iter().map(String::as_str).collect::<Vec<_>>(), 0);
    };
    run_once("without", &[]);
    for (name, threads) in [("one", "1"), ("four", "4")] {
        let threads = format!("service.worker_threads={threads}");
        run_once(name, &["trading.enabled=true".to_owned(), threads]);
    }

    let log_of = async |name: &str, log: &str| records(&world.out(name).join(log)).await;
    let runs = log_of("without", "runs").await;
    assert!(!runs.is_empty() && !outputs(&world.out("without")).is_empty());
    for name in ["one", "four"] {
        assert!(log_of(name, "runs").await == runs, "{name}: schedules change the runs");
        assert!(outputs(&world.out(name)) == outputs(&world.out("without")), "{name}: outputs");
    }
    let journal = log_of("one", "journal").await;
    assert!(journal == log_of("four", "journal").await, "REP-2: the journals differ");
    // Each minute at least, of the schedule that fires most.
    assert!(usize::try_from(MINUTES).unwrap() < journal.len(), "{} records", journal.len());
    let said = check_run(&["verify", "--from", text(&world.out("four")), "--config", text(&world.config)], 0);
    assert!(said.contains("journal: records 1 to "), "{said}");
}

/// What the journal says happened, by the recording's own time.
fn check_cycles(world: &CycleWorld) {
    let journal = world.journal("one");
    let of_kind = |kind: &str| journal.iter().filter(move |entry| entry["kind"] == kind).collect::<Vec<_>>();
    let started = of_kind("cycle_started");
    let by_pipeline =
        |name: &str| started.iter().filter(|entry| entry["fact"]["pipeline"]["name"] == name).count();

    assert_eq!(by_pipeline("analysis"), usize::try_from(MINUTES).unwrap());
    assert!(by_pipeline("heartbeat") >= 50 && by_pipeline("canonical") >= 70 + 20, "{}", started.len());
    assert!(of_kind("command_received").len() == 1 && of_kind("agent_changed").len() == 1);
    assert!(!of_kind("order_intended").is_empty(), "nothing was decided");
    assert_eq!(started.len(), of_kind("cycle_ended").len());
    assert!(journal.is_sorted_by_key(|entry| entry["at"].as_str().unwrap()), "time never turns back");
    let times = started_at(&journal);
    let recorded = BEGIN_MS..=BEGIN_MS + MINUTES * 60_000 + 1_000;
    assert!(times.iter().all(|time| recorded.contains(time)), "the machine's time is in it: {times:?}");
    assert!(
        started.iter().all(|entry| entry["fact"]["mode"] == "backtest" && entry["fact"]["dry_run"] == true)
    );
    // Every fire by time was on time: time stood still until its cycle was done.
    let late = started.iter().find(|entry| {
        entry["planned"] != entry["at"] && entry["fact"]["cause"].to_string().contains("steady")
    });
    assert_eq!(late, None);
    let figures = &world.report("one")["trading"];
    assert_eq!(figures["started"], started.len());
    assert_eq!(figures["intents"], of_kind("order_intended").len());
    assert_eq!(figures["records"], journal.len());
    assert_eq!(figures["chain_hash"], journal.last().unwrap()["hash"]);
}

/// When each cycle began.
fn started_at(journal: &[Value]) -> Vec<i64> {
    let started = journal.iter().filter(|entry| entry["kind"] == "cycle_started");
    started.map(|entry| entry["fact"]["started_at"].as_i64().unwrap()).collect()
}

/// Method: the recorded day's beginning, on one worker thread and on four. Its speed is printed.
#[tokio::test]
async fn cycles_over_the_recorded_day_write_equal_journals() {
    let Some(recording) = recording() else { return };
    let begin: Vec<u8> = recorded_lines(&recording)
        .into_iter()
        .take(60_000)
        .flat_map(|mut line| {
            line.push(b'\n');
            line
        })
        .collect();
    let world = CycleWorld::new(std::str::from_utf8(&begin).unwrap(), TRADING);

    for (name, threads) in [("one", "service.worker_threads=1"), ("four", "service.worker_threads=4")] {
        world.play(name, &["--trading", "--set", threads]);
        let performance = &world.report(name)["performance"];
        println!(
            "{threads}: {} cycles/s, {} s",
            performance["cycles_per_second"], performance["wall_seconds"]
        );
    }

    world.check_equal("one", "four").await;
    world.check_verified("four");
    let figures = &world.report("one")["trading"];
    assert!(figures["by_pipeline"]["canonical"].as_u64().unwrap() > 10, "{figures}");
    assert!(figures["decisions"].as_u64().unwrap() > 10, "{figures}");
}

/// Method: a table of daily bars becomes a capture; cycles ten minutes before the close of each day's session decide
/// over it. 2024-07-03 closes early, 07-04 is a holiday, 07-06 and 07-07 are a weekend.
#[test]
fn daily_bars_give_cycles_at_the_close_of_each_session() {
    let dir = tempfile::tempdir().unwrap();
    let (table, bars) = (dir.path().join("bars.csv"), dir.path().join("bars.jsonl"));
    let day = |day: i64| 1_719_792_000_000 + day * 86_400_000;
    let mut rows = "ts,open,high,low,close,volume\n".to_owned();
    for at in 0..10 {
        let close = 200 + at * 3;
        rows.push_str(&format!("{},{close},{close},{close},{close},1000\n", day(at - 1)));
    }
    fs::write(&table, rows).unwrap();
    let import = ["import", "--format", "bars-csv", "--interval", "1day", "--symbol", "AAPL"];
    check_run(&[&import[..], &["--in", text(&table), "--out", text(&bars)]].concat(), 0);
    let world = CycleWorld::new(&fs::read_to_string(&bars).unwrap(), DAILY);

    world.play("out", &["--trading"]);

    let journal = world.journal("out");
    let at = |of_day: i64, hour: i64| day(of_day) + (hour * 60 + 50) * 60_000;
    // 15:50 in New York; 12:50 on the third.
    assert_eq!(started_at(&journal), [at(0, 19), at(1, 19), at(2, 16), at(4, 19), at(7, 19), at(8, 19)]);
    let buys = journal.iter().filter(|entry| entry["kind"] == "order_intended").count();
    assert_eq!(buys, 5, "the first day has one price only");
}

const DAILY: &str = r#"
[schedule]
mode = "boundary"
interval = "1day"
delay = "1s"
[symbols]
list = ["AAPL"]
[engine]
kind = "demo"
mode = "truth"
[trading.pipelines.canonical]
stale_after = "4days"
[trading.schedules.close]
pipeline = "canonical"
trigger = "session"
at = "close-10m"
calendar = "XNYS"
overlap = "skip"
misfire = "skip"
lateness_max = "1h"
[trading.strategies.momentum]
symbols = ["AAPL"]
schedules = ["close"]
status = "active"
"#;

/// Method: a recording that does not end, killed in the middle of its cycles.
#[tokio::test]
async fn a_killed_backtest_of_cycles_leaves_no_result_and_is_not_gone_on_with() {
    let world = CycleWorld::new(&made_up_capture(MINUTES), TRADING);
    world.play("whole", &["--trading"]);
    let pipe = world.out("pipe.jsonl");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let out = world.out("killed");
    let args = [
        "backtest",
        "--trading",
        "--keep-logs",
        "--capture",
        text(&pipe),
        "--config",
        text(&world.config),
        "--out",
        text(&out),
    ];
    let mut child = command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (path, lines) = (pipe.clone(), fs::read(&world.capture).unwrap());
    // Opening waits for the reader, and the pipe stays open.
    let written = tokio::task::spawn_blocking(move || {
        let mut pipe = File::options().write(true).open(path).unwrap();
        pipe.write_all(&lines).unwrap();
        pipe
    });
    let pipe_end = tokio::time::timeout(PATIENCE, written).await.expect("it never read").unwrap();
    eventually("cycles on record", async || (20 < records_so_far(&out.join("data/journal"))).then_some(()))
        .await;

    kill(&mut child);
    drop(pipe_end);

    for file in ["journal.jsonl", "report.json", "orchestrator_events.jsonl"] {
        assert!(!out.join(file).exists(), "{file} would be taken for a result");
    }
    let whole = text(&world.capture);
    let again = [
        "backtest",
        "--trading",
        "--keep-logs",
        "--capture",
        whole,
        "--config",
        text(&world.config),
        "--out",
        text(&out),
    ];
    let said = check_run(&again, 2);
    assert!(said.contains("data exists; remove it or name another directory with --out"), "{said}");
    fs::remove_dir_all(out.join("data")).unwrap();
    world.play("killed", &["--trading"]);
    world.check_equal("whole", "killed").await;
}

/// Kilobytes of a journal that somebody writes.
fn records_so_far(journal: &Path) -> u64 {
    let Ok(files) = fs::read_dir(journal) else { return 0 };
    let found: BTreeSet<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    let written = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64)
    };
    found.iter().map(written).sum::<u64>() / 1024
}

fn kill(child: &mut Child) {
    kill_process(Pid::from_child(child), Signal::KILL).unwrap();
    child.wait().unwrap();
}

/// Method: a service that trades itself is asked for a backtest of the recording, whose journal has to be that of the
/// command line; then for one that ends badly.
#[tokio::test]
async fn a_service_runs_the_backtest_that_it_is_asked_for_beside_its_own_work() {
    let plain = CycleWorld::new(&made_up_capture(1), "");
    let captures = plain.capture.parent().unwrap();
    let (data, config) = (plain.out("data"), plain.out("service.toml"));
    let own = format!(
        "[service]\ndata_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[trading.backtests]\ncaptures = \"{}\"\n",
        data.display(),
        captures.display()
    );
    fs::write(&config, TRADING.replace("[trading]\n", "[trading]\nenabled = true\n") + &own).unwrap();
    let world = CycleWorld { config: config.clone(), ..plain };
    let service = Service::start(&config, &[]).await;
    let client = reqwest::Client::new();
    let place = |path: &str| format!("{}/api/v1/backtests{path}", service.url);
    let ended = async |config: Value| {
        // The plane starts beside the service, and says 503 until it has.
        let asked = eventually("a job", async || {
            let asked = client.post(place("")).json(&json!({ "config": config })).send().await.unwrap();
            assert!(matches!(asked.status().as_u16(), 202 | 503), "{asked:?}");
            (asked.status() == 202).then_some(asked)
        })
        .await;
        let job = asked.json::<Value>().await.unwrap()["jobId"].as_str().unwrap().to_owned();
        eventually("the end of the job", async || {
            let job: Value =
                client.get(place(&format!("/{job}"))).send().await.unwrap().json().await.unwrap();
            matches!(job["status"].as_str(), Some("completed" | "failed")).then_some(job)
        })
        .await
    };

    let done = ended(json!({"capture": "day.jsonl"})).await;
    let failed = ended(json!({"capture": "day.jsonl", "time": "ingest"})).await;
    service.stop().await;

    assert_eq!((&done["status"], &done["exitCode"]), (&json!("completed"), &json!(0)), "{done}");
    world.play("alone", &["--trading"]);
    assert_eq!(done["cycles"], world.report("alone")["trading"], "not the journal of the command line");
    assert_eq!((&failed["status"], &failed["exitCode"]), (&json!("failed"), &json!(2)), "{failed}");
    assert!(failed["detail"].as_str().unwrap().contains("needs the logs of a service"), "{failed}");
}

#[test]
fn cycles_that_a_recording_cannot_have_are_refused_and_the_setting_is_named() {
    let world = CycleWorld::new(&made_up_capture(MINUTES), TRADING);
    let (out, capture) = (world.out("out"), text(&world.capture));
    let run = |config: &[&str], code: i32| {
        let args = ["backtest", "--trading", "--capture", capture, "--out", text(&out)];
        check_run(&[&args[..], config].concat(), code)
    };

    let said = run(&[], 78);
    assert!(said.contains("trading.schedules: none of them is enabled"), "{said}");
    let config = ["--config", text(&world.config)];
    let said = run(&[&config[..], &["--set", "trading.mode=backtest"]].concat(), 78);
    assert!(said.contains("trading.mode"), "{said}");
    let by_event = world.out("by_event.toml");
    let stage = "[trading.pipelines.analysis.stage.generate_decisions]\nprovider = \"event\"\n";
    let bus = "[trading.events]\nurl = \"amqp://localhost:5672/%2f\"\n";
    fs::write(&by_event, format!("{TRADING}{stage}{bus}")).unwrap();
    let said = run(&["--config", text(&by_event)], 78);
    assert!(said.contains("trading.pipelines.analysis.stage.generate_decisions.provider"), "{said}");
    let said = run(&[&config[..], &["--set", "trading.schedules.steady.interval=soon"]].concat(), 78);
    assert!(said.contains("trading.schedules.steady.interval"), "{said}");
    assert!(!out.exists(), "nothing was touched");
}
