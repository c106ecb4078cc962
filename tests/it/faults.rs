//! Faults of the neighbourhood: engines that hang or fail, consumers that do not read, disks that are full or broken.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use orchestrator_kernel::engine::contracts::engine_run::RunStatus;
use orchestrator_kernel::error::ErrorKind;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{
    PATIENCE, ReadinessWatch, SAID_MAX, Service, eventually, message_id, outputs, records, run_records,
    verify, verify_by,
};

/// How long a run of a working symbol may end after its planned time. Far above what a loaded machine costs, far below
/// what waiting behind a hanging call would cost.
const LATE_MAX_MS: i64 = 2_000;
/// How long nobody posts to a full disk: some times as long as its room is asked for.
const QUIET: Duration = Duration::from_secs(4);
/// How long a hanging call takes until its worker is killed.
const DEADLINE: &str = "4s";

/// A made-up market of four symbols, a run of each every second, the fault engine in Python workers. One attempt a run.
fn market(data: &Path, faults: &[&str], more: &str) -> PathBuf {
    std::fs::create_dir_all(data).unwrap();
    let command: Vec<String> = ["python3", "engines/examples/fault_engine.py"]
        .iter()
        .chain(faults)
        .map(|word| format!("\"{word}\""))
        .collect();
    let text = format!(
        r#"
[service]
data_dir = "{data}"
[sources.demo]
kind = "demo"
symbols = 4
rate_per_second = 200
snapshot_interval = "1s"
snapshot_lag = "20ms"
[schedule]
mode = "boundary"
interval = "1s"
delay = "100ms"
[engine]
kind = "process"
deadline = "{DEADLINE}"
[engine.retry]
min = "10ms"
max = "50ms"
max_attempts = 2
max_elapsed = "1s"
[engine.process]
command = [{command}]
workers = 4
start_deadline = "60s"
[http]
listen = "127.0.0.1:0"
[log]
format = "json"
{more}
"#,
        data = data.display(),
        command = command.join(", "),
    );
    let path = data.join("config.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Waits until `completed` runs have ended well.
async fn runs_completed(service: &Service, completed: f64) {
    eventually("runs complete", async || {
        (completed <= service.metric("orch_runs_completed_total").await).then_some(())
    })
    .await;
}

/// What became of the runs of `symbol`: completed, failed by kind.
async fn ends(data: &Path, symbol: &str) -> (usize, Vec<(ErrorKind, u32)>) {
    let (mut completed, mut failed) = (0, Vec::new());
    for record in run_records(data).await.iter().filter(|record| record.facts.symbol.as_str() == symbol) {
        match &record.status {
            RunStatus::Started { .. } => {}
            RunStatus::Completed { .. } => completed += 1,
            RunStatus::Failed { error_kind, answered, .. } => failed.push((*error_kind, *answered)),
        }
    }
    (completed, failed)
}

/// The worst time between a run's planned time and its end, over the symbols that work.
async fn worst_lateness_ms(data: &Path, but: &str) -> i64 {
    run_records(data)
        .await
        .iter()
        .filter(|record| record.facts.symbol.as_str() != but)
        .filter_map(|record| match &record.status {
            RunStatus::Completed { completed_ts_ms, .. } => {
                Some(completed_ts_ms.0 - record.facts.planned_ts_ms.0)
            }
            RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
        })
        .max()
        .unwrap()
}

#[tokio::test]
async fn a_wedged_worker_is_killed_at_its_deadline_and_the_other_symbols_stay_on_time() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&market(dir.path(), &["--hang-symbol", "ETHUSDT"], ""), &[]).await;
    let readiness = ReadinessWatch::begin(&service.url);

    eventually("a hanging call fails", async || {
        (service.metric("orch_runs_failed_total{error_kind=\"engine_timeout\"}").await >= 1.0).then_some(())
    })
    .await;
    runs_completed(&service, 12.0).await;
    readiness.end().never_lost();
    service.stop().await;

    let (completed, failed) = ends(dir.path(), "ETHUSDT").await;
    assert_eq!(completed, 0);
    assert!(failed.contains(&(ErrorKind::EngineTimeout, 2)), "two attempts, then explicit: {failed:?}");
    for symbol in ["BTCUSDT", "SOLUSDT", "XRPUSDT"] {
        let (completed, _) = ends(dir.path(), symbol).await;
        assert!(completed >= 3, "{symbol} completed {completed} runs");
    }
    let late = worst_lateness_ms(dir.path(), "ETHUSDT").await;
    assert!(late < LATE_MAX_MS, "ISO-1: a run of another symbol ended {late} ms after its planned time");
}

/// Method: an engine call that hangs far beyond the grace; SIGTERM once, and in another life twice.
#[tokio::test]
async fn a_stop_ends_within_its_grace_and_a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[publish]\nfile_sync = false";
    let config = market(dir.path(), &["--hang-symbol", "ETHUSDT"], more);
    let args = ["--set", "engine.deadline=5m", "--set", "service.grace=3s"];

    let mut service = Service::start(&config, &args).await;
    runs_completed(&service, 3.0).await;
    let asked = Instant::now();
    service.terminate();
    let status = service.ended().await;
    assert!(status.success(), "{status:?}:\n{}", service.log());
    // The grace and the end of the workers on a loaded machine; the call itself would hang for 5 minutes.
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    let (_, failed) = ends(dir.path(), "ETHUSDT").await;
    assert!(failed.iter().any(|(kind, _)| *kind == ErrorKind::Shutdown), "explicitly failed: {failed:?}");

    let mut service =
        Service::start(&config, &["--set", "engine.deadline=5m", "--set", "service.grace=5m"]).await;
    runs_completed(&service, 3.0).await;
    let readiness = service.watch_readiness().await;
    let asked = Instant::now();
    service.terminate();
    eventually("it is draining", async || (service.get("/readyz").await.0 == 503).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    readiness.end().lost_for_good("not_running", asked, SAID_MAX);
    service.terminate();
    assert_eq!(service.ended().await.code(), Some(69));
    verify(&config, &[]);
}

#[tokio::test]
async fn a_symbol_whose_engine_always_fails_fails_explicitly_and_alone() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&market(dir.path(), &["--fail-symbol", "ETHUSDT"], ""), &[]).await;
    let readiness = service.watch_readiness().await;

    runs_completed(&service, 9.0).await;
    readiness.end().never_lost();
    service.stop().await;

    let (completed, failed) = ends(dir.path(), "ETHUSDT").await;
    assert_eq!(completed, 0);
    assert!(failed.len() >= 2, "it proceeds to the next timestamp: {failed:?}");
    assert!(
        failed.iter().all(|(kind, answered)| matches!(
            (kind, answered),
            (ErrorKind::EngineFailure, 2) | (ErrorKind::MissingSnapshotInputs, 0) | (ErrorKind::Shutdown, _)
        )),
        "bounded retries, then an explicit failure: {failed:?}"
    );
    let published = outputs(dir.path());
    let of_failed =
        published.iter().filter(|event| event.contains("\"error_kind\":\"engine_failure\"")).count();
    assert_eq!(of_failed, failed.iter().filter(|(kind, _)| *kind == ErrorKind::EngineFailure).count());
    let late = worst_lateness_ms(dir.path(), "ETHUSDT").await;
    assert!(late < LATE_MAX_MS, "ISO-1: a run of another symbol ended {late} ms after its planned time");
}

/// Method: memory of 256 MiB; a call takes it all. One engine gets a MemoryError and answers with it, the other one
/// ends itself, as native code does that is refused memory.
#[tokio::test]
async fn a_worker_without_memory_fails_its_calls_alone_and_is_started_again() {
    for (fault, is_ended) in [("--memory-symbol", false), ("--memory-abort-symbol", true)] {
        let dir = tempfile::tempdir().unwrap();
        let config = market(dir.path(), &[fault, "ETHUSDT"], "");
        let service = Service::start(&config, &["--set", "engine.process.memory_max_bytes=256MiB"]).await;
        let readiness = service.watch_readiness().await;

        let failed = "orch_runs_failed_total{error_kind=\"engine_failure\"}";
        eventually("its runs fail", async || (service.metric(failed).await >= 2.0).then_some(())).await;
        runs_completed(&service, 9.0).await;
        readiness.end().never_lost();
        let log = service.log();
        service.stop().await;

        let (completed, failed) = ends(dir.path(), "ETHUSDT").await;
        assert_eq!(completed, 0, "{fault}");
        assert!(failed.contains(&(ErrorKind::EngineFailure, 2)), "two attempts, then explicit: {failed:?}");
        assert_eq!(log.contains("worker is ended"), is_ended, "{fault}: {log}");
        assert_eq!(log.contains("worker is up"), is_ended, "{fault}: {log}");
        let late = worst_lateness_ms(dir.path(), "ETHUSDT").await;
        assert!(late < LATE_MAX_MS, "ISO-1: a run of another symbol ended {late} ms after its planned time");
    }
}

#[tokio::test]
async fn a_consumer_that_stops_reading_slows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = market(dir.path(), &[], "").to_owned();
    let service = Service::start(&config, &[]).await;
    let readiness = service.watch_readiness().await;
    let address = service.url.trim_start_matches("http://").to_owned();

    // It asks for everything and never reads a byte.
    let mut stalled = TcpStream::connect(&address).await.unwrap();
    stalled
        .write_all(
            b"GET /api/v1/events?from=earliest HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n",
        )
        .await
        .unwrap();
    runs_completed(&service, 12.0).await;
    readiness.end().never_lost();
    let metrics = service.get("/metrics").await.1;
    let metric = |series: &str| crate::support::metric_of(&metrics, series);
    assert!(metric("orch_publish_backlog_outputs") <= 8.0, "publishing goes on");
    assert_eq!(metric("orch_schedule_runs_skipped_total"), 0.0, "ISO-2: no tick is skipped");
    check_conservation(&metrics);
    service.stop().await;

    let late = worst_lateness_ms(dir.path(), "").await;
    assert!(late < LATE_MAX_MS, "ISO-2: a run ended {late} ms after its planned time");
    let ids: Vec<String> = outputs(dir.path()).iter().map(|event| message_id(event)).collect();
    let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "each output once");
    drop(stalled);
}

/// The laws that hold in every scrape.
pub(crate) fn check_conservation(metrics: &str) {
    let metric = |series: &str| crate::support::metric_of(metrics, series);
    assert_eq!(
        metric("orch_ingest_items_received_total"),
        metric("orch_ingest_receipts_appended_total")
            + metric("orch_ingest_items_duplicate_total")
            + metric("orch_ingest_items_quarantined_total")
            + metric("orch_ingest_items_refused_total")
            + metric("orch_ingest_items_in_flight"),
        "received = appended + duplicate + quarantined + refused + in flight"
    );
    assert_eq!(
        metric("orch_runs_started_total"),
        metric("orch_runs_completed_total")
            + metric("orch_runs_failed_total")
            + metric("orch_runs_in_flight"),
        "started = completed + failed + in flight"
    );
    assert_eq!(
        metric("orch_publish_outputs_due_total"),
        metric("orch_publish_outputs_total") + metric("orch_publish_backlog_outputs"),
        "outputs = published + backlog"
    );
}

/// Wraps the service so that its data directory is a small file system of its own, in a mount namespace of its own.
fn on_small_disk(config: &Path, data: &Path, megabytes: u32) -> Command {
    let script = config.with_extension("sh");
    let text = format!(
        "#!/bin/sh\nmount -t tmpfs -o size={megabytes}m tmpfs '{data}' && cp '{data}.ballast' '{data}/ballast' && exec '{binary}' run --config '{config}'\n",
        data = data.display(),
        binary = env!("CARGO_BIN_EXE_orchestrator"),
        config = config.display(),
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "--"]).arg(script);
    command
}

/// Method: a data directory on a tmpfs that a ballast file fills but for a few segments; receipts until it is full;
/// then the ballast is removed.
#[tokio::test]
async fn a_full_disk_refuses_receipts_and_resumes_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(dir.path().join("data.ballast"), vec![7u8; 24 << 20]).unwrap();
    let config = dir.path().join("config.toml");
    let text = format!(
        "[service]\ndata_dir = \"{}\"\n[buffer]\nsegment_bytes = \"1MiB\"\nbatch_bytes_max = \"512KiB\"\n[sources.http]\nkind = \"http\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
        data.display()
    );
    std::fs::write(&config, text).unwrap();
    let service = Service::spawn(on_small_disk(&config, &data, 48), &config).await;
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    let readiness = ReadinessWatch::begin(&service.url);

    let mut acknowledged = 0;
    let refused = loop {
        let response = post_receipts(&client, &service.url, acknowledged + 1).await;
        if response.status() != 200 {
            break response;
        }
        acknowledged += RECEIPTS_PER_POST;
        assert!(acknowledged < 1_000_000, "the disk never became full");
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let (status, body) = service.get("/readyz").await;
    assert_eq!(status, 503, "not ready at once");
    assert!(body.contains("buffer_append_failing"), "{body}");
    let full = Instant::now();
    // Nobody posts any more: only the service itself can find out whether there is room, and there is none.
    tokio::time::sleep(QUIET).await;

    let healed = Instant::now();
    std::fs::remove_file(format!("/proc/{}/root{}/ballast", service.pid(), data.display())).unwrap();
    eventually("it takes receipts again", async || {
        (post_receipts(&client, &service.url, acknowledged + 1).await.status() == 200).then_some(())
    })
    .await;
    acknowledged += RECEIPTS_PER_POST;
    eventually("it is ready again", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
    readiness.end().lost_once("buffer_append_failing", full, Duration::ZERO, healed);
    let (_, settled) = service.get("/api/v1/producers/disk").await;
    assert!(
        settled.contains(&format!("\"settled\":{acknowledged}")),
        "nothing lost, nothing twice: {settled}"
    );
    // The small disk is seen by the service only, and is gone with the last who sees it.
    let [user, mounts] = ["user", "mnt"]
        .map(|what| std::fs::File::open(format!("/proc/{}/ns/{what}", service.pid())).unwrap());
    service.stop_unverified().await;
    let held = |file: &std::fs::File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let mut beside_it = Command::new("nsenter");
    beside_it
        .args(["--preserve-credentials", &format!("--user={}", held(&user))])
        .args([&format!("--mount={}", held(&mounts)), env!("CARGO_BIN_EXE_orchestrator")]);
    verify_by(beside_it, &config, &[]);
}

pub(crate) const RECEIPTS_PER_POST: u64 = 500;

/// Posts the receipts `first` … of a producer that numbers them.
pub(crate) async fn post_receipts(client: &reqwest::Client, url: &str, first: u64) -> reqwest::Response {
    let payload = "x".repeat(900);
    let line = |position: u64| {
        format!(
            r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"t","symbol":"A","exchange_ts_ms":null,"recv_ts_ms":{position},"raw_payload":"{payload}","normalized":{{}}}}"#
        )
    };
    let body: Vec<String> = (first..first + RECEIPTS_PER_POST).map(line).collect();
    client
        .post(format!("{url}/api/v1/receipts"))
        .header("content-type", "application/x-ndjson")
        .header("orchestrator-producer", "disk")
        .header("orchestrator-sequence", first)
        .body(body.join("\n"))
        .send()
        .await
        .unwrap()
}

/// Method: `strace` makes a later fdatasync fail with EIO. The kernel may have dropped the pages, so nothing written
/// since is trusted: the process acknowledges nothing more and ends with code 74.
#[tokio::test]
async fn a_failed_sync_ends_the_process_and_acknowledges_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let config = dir.path().join("config.toml");
    let text = format!(
        "[service]\ndata_dir = \"{}\"\n[sources.http]\nkind = \"http\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
        data.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("strace");
    command
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync",
            "-e",
            "inject=fdatasync:error=EIO:when=30+",
        ])
        .arg(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["run", "--config"])
        .arg(&config);
    let mut service = Service::spawn(command, &config).await;
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();

    let mut acknowledged = 0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(40) {
        let posted = client
            .post(format!("{}/api/v1/receipts", service.url))
            .header("content-type", "application/x-ndjson")
            .body(format!(
                r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"T","source_id":"t","symbol":"A","exchange_ts_ms":null,"recv_ts_ms":{acknowledged},"raw_payload":"","normalized":{{}}}}"#
            ))
            .send()
            .await;
        match posted {
            Ok(response) if response.status() == 200 => acknowledged += 1,
            Ok(_) | Err(_) => break,
        }
    }
    let status = service.ended().await;

    assert_eq!(status.code(), Some(74), "{}", service.log());
    assert!(acknowledged > 0);
    let stored = records(&data.join("receipts")).await;
    assert!(acknowledged <= stored.len(), "every acknowledged receipt is there");
    verify(&config, &[]);
}
