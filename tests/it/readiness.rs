//! Readiness, sampled every ten milliseconds, while the faults happen whose own tests look at something else:
//! conditions that block are said in time and until they are over, all other faults never make the service unready.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, ReadinessWatch, SAID_MAX, Service, eventually, orchestrator, root};

/// How long a fault lasts that nothing ends, and how long readiness is looked at after one.
const LASTS: Duration = Duration::from_secs(2);

/// A service with a source over HTTP and runs every 200 ms.
fn config(dir: &Path, more: &str) -> PathBuf {
    let path = dir.join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
         [schedule]\ninterval = \"200ms\"\ndelay = \"0s\"\n[sources.http]\nkind = \"http\"\n{more}\n",
        dir.join("data")
    );
    fs::write(&path, text).unwrap();
    path
}

const LISTED: &str = "[symbols]\ndiscover = false\nlist = [\"A\"]\n";

fn receipt(number: u64) -> String {
    format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"T","source_id":"t","symbol":"A","exchange_ts_ms":null,"recv_ts_ms":{number},"raw_payload":"","normalized":{{}}}}"#
    )
}

/// Status of a post of the receipts from `first` on, each of them larger than a kilobyte when `is_large`.
async fn post(service: &Service, first: u64, count: u64, is_large: bool) -> u16 {
    let padding = if is_large { "x".repeat(1000) } else { String::new() };
    let lines: Vec<String> = (first..first + count)
        .map(|number| {
            receipt(number).replace("\"raw_payload\":\"\"", &format!("\"raw_payload\":\"{padding}\""))
        })
        .collect();
    let request = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    let request = request
        .post(format!("{}/api/v1/receipts", service.url))
        .header("content-type", "application/x-ndjson")
        .header("orchestrator-producer", "p")
        .header("orchestrator-sequence", first)
        .body(lines.join("\n"));
    request.send().await.unwrap().status().as_u16()
}

/// Waits until the metric has grown by this much.
async fn grows(service: &Service, metric: &str, by: f64) {
    let enough = service.metric(metric).await + by;
    eventually(metric, async || (enough <= service.metric(metric).await).then_some(())).await;
}

/// Method: a file that is followed is written anew; nothing can make its source good again while the service runs.
#[tokio::test]
async fn a_source_that_is_given_up_is_said_in_time_and_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("day.jsonl");
    fs::write(&file, format!("{}\n{}\n", receipt(1), receipt(2))).unwrap();
    let source = format!("{LISTED}[sources.day]\nkind = \"file\"\npath = {file:?}\nfollow = true");
    let service = Service::start(&config(dir.path(), &source), &[]).await;
    let readiness = service.watch_readiness().await;
    eventually("both are stored", async || {
        (service.metric("orch_buffer_records").await == 2.0).then_some(())
    })
    .await;

    let fault = Instant::now();
    fs::write(&file, format!("{}\n", receipt(3))).unwrap();

    eventually("it is said", async || (service.get("/readyz").await.0 == 503).then_some(())).await;
    tokio::time::sleep(LASTS).await;
    readiness.end().lost_for_good("source_down", fault, SAID_MAX);
    service.stop_unverified().await;
}

/// Method: files that are refused when they are opened: missing, another one than before, packed in an unknown way.
#[tokio::test]
async fn a_source_that_cannot_be_opened_is_said_all_the_time() {
    let packed = [b"\xfd7zXZ\0\0\x04", receipt(1).as_bytes(), b"\n"].concat();
    for content in [None, Some(packed), Some(format!("{}\n", receipt(9)).into_bytes())] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("day.jsonl");
        let source = format!("{LISTED}[sources.day]\nkind = \"file\"\npath = {file:?}");
        let config = config(dir.path(), &source);
        fs::write(&file, format!("{}\n", receipt(1))).unwrap();
        let service = Service::start(&config, &[]).await;
        eventually("it is stored", async || {
            (service.metric("orch_buffer_records").await == 1.0).then_some(())
        })
        .await;
        service.stop().await;
        match content {
            None => fs::remove_file(&file).unwrap(),
            Some(content) => fs::write(&file, content).unwrap(),
        }

        let service = Service::start(&config, &[]).await;
        let readiness = ReadinessWatch::begin(&service.url);
        grows(&service, "orch_schedule_ticks_total", 3.0).await;

        readiness.end().lost_for_good("source_down", Instant::now(), Duration::ZERO);
        service.stop_unverified().await;
    }
}

#[tokio::test]
async fn a_log_at_its_capacity_is_said_all_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let buffer =
        "[buffer]\ncapacity_bytes = \"2MiB\"\nsegment_bytes = \"1MiB\"\nbatch_bytes_max = \"512KiB\"\n";
    let service = Service::start(&config(dir.path(), &format!("{LISTED}{buffer}")), &[]).await;
    let readiness = service.watch_readiness().await;

    let mut first = 1;
    while post(&service, first, 100, true).await == 200 {
        first += 100;
        assert!(first < 10_000, "it never became full");
    }
    let full = Instant::now();
    tokio::time::sleep(LASTS).await;

    readiness.end().lost_for_good("buffer_append_failing", full, Duration::ZERO);
    service.stop().await;
}

/// Method: something else takes the place of the outputs file, until outputs wait beyond the limit, and is moved away.
#[tokio::test]
async fn outputs_that_cannot_be_written_make_it_unready_at_the_limit_and_until_they_are() {
    const LIMIT: f64 = 40.0;
    let dir = tempfile::tempdir().unwrap();
    let publish =
        "[publish]\nbatch_max = 4\nbacklog_max = 40\nbacklog_resume = 4\n[publish.retry]\nmax = \"200ms\"\n";
    let service = Service::start(&config(dir.path(), &format!("{LISTED}{publish}")), &[]).await;
    let readiness = service.watch_readiness().await;
    grows(&service, "orch_publish_outputs_total", 2.0).await;
    let outputs = dir.path().join("data/outputs/orchestrator_events.jsonl");
    let aside = dir.path().join("aside");

    let strange = dir.path().join("strange");
    fs::write(&strange, "something else\n").unwrap();
    fs::rename(&strange, &outputs).unwrap();
    eventually("the limit is reached", async || {
        (LIMIT < service.metric("orch_publish_backlog_outputs").await).then_some(())
    })
    .await;
    let fault = Instant::now();
    tokio::time::sleep(LASTS).await;
    let healed = Instant::now();
    fs::rename(&outputs, &aside).unwrap();
    eventually("it is ready", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
    tokio::time::sleep(LASTS).await;

    readiness.end().lost_once("publish_blocked", fault, SAID_MAX, healed);
    service.stop_unverified().await;
}

#[tokio::test]
async fn a_second_service_on_the_directory_does_not_disturb_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), LISTED);
    let service = Service::start(&config, &[]).await;
    let readiness = service.watch_readiness().await;

    for command in ["run", "verify"] {
        let second = orchestrator(&[command, "--config", config.to_str().unwrap()]);
        assert!(!second.status.success(), "{command}");
    }
    grows(&service, "orch_runs_started_total", 2.0).await;

    readiness.end().never_lost();
    service.stop().await;
}

/// Method: repeated, reordered and missing positions, a body in another encoding, all from one producer.
#[tokio::test]
async fn mistakes_of_a_producer_never_make_it_unready() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&config(dir.path(), LISTED), &[]).await;
    let readiness = service.watch_readiness().await;

    assert_eq!(post(&service, 1, 10, false).await, 200);
    assert_eq!(post(&service, 1, 10, false).await, 200, "repeated");
    assert_eq!(post(&service, 50, 10, false).await, 409, "reordered");
    assert_eq!(post(&service, 11, 10, false).await, 200);
    let packed = reqwest::Client::new()
        .post(format!("{}/api/v1/receipts", service.url))
        .header("content-type", "application/x-ndjson")
        .body(&b"PAR1\x15\x04"[..]);
    assert_eq!(packed.send().await.unwrap().status(), 415);

    readiness.end().never_lost();
    service.stop().await;
}

/// An engine over HTTP, killed in the end.
struct HttpEngine(Child);

impl HttpEngine {
    fn start(port: u16) -> Self {
        let mut command = Command::new("python3");
        command.args(["engines/examples/http_engine.py", "--port", &port.to_string()]);
        command.current_dir(root()).env("PYTHONPATH", "engines").stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for HttpEngine {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A made-up market with a snapshot of each of two symbols each second, run each second.
const MARKET: &str = "[sources.demo]\nkind = \"demo\"\nsymbols = 2\nrate_per_second = 50\nsnapshot_interval = \"1s\"\n\
                      snapshot_lag = \"20ms\"\n[engine.retry]\nmax_attempts = 2\nmax = \"50ms\"\n";
const SLOWER: [&str; 4] = ["--set", "schedule.interval=1s", "--set", "schedule.delay=100ms"];

/// Method: nobody listens; then an engine does; then it is gone.
#[tokio::test]
async fn an_engine_over_http_that_comes_and_goes_never_makes_it_unready() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let engine = format!(
        "{MARKET}[engine]\nkind = \"http\"\n[engine.http]\nurl = \"http://127.0.0.1:{port}/v1/engine\"\n"
    );
    let service = Service::start(&config(dir.path(), &engine), &SLOWER).await;
    let readiness = service.watch_readiness().await;
    let failed = "orch_runs_failed_total{error_kind=\"engine_unavailable\"}";

    grows(&service, failed, 2.0).await;
    let engine = HttpEngine::start(port);
    grows(&service, "orch_runs_completed_total", 2.0).await;
    drop(engine);
    grows(&service, failed, 2.0).await;

    readiness.end().never_lost();
    // Verification would need the engine.
    service.stop_unverified().await;
}

/// Method: a worker that ends in the middle of each call for one symbol, and one that writes garbage.
#[tokio::test]
async fn a_worker_that_dies_or_writes_garbage_never_makes_it_unready() {
    for fault in ["--exit-symbol", "--garbage-symbol"] {
        let dir = tempfile::tempdir().unwrap();
        let engine = format!(
            "{MARKET}[engine]\nkind = \"process\"\n[engine.process]\nworkers = 2\nstart_deadline = \"60s\"\n\
             command = [\"python3\", \"engines/examples/fault_engine.py\", {fault:?}, \"ETHUSDT\"]\n"
        );
        let service = Service::start(&config(dir.path(), &engine), &SLOWER).await;
        let readiness = service.watch_readiness().await;

        grows(&service, "orch_runs_failed_total", 2.0).await;
        grows(&service, "orch_runs_completed_total", 2.0).await;

        readiness.end().never_lost();
        service.stop().await;
    }
}

/// Method: a FIFO in which half a line stands for a while.
#[tokio::test]
async fn half_a_line_in_a_pipe_never_makes_it_unready() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.jsonl");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut writer = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let source = format!("{LISTED}[sources.pipe]\nkind = \"file\"\npath = {pipe:?}");
    writer.write_all(format!("{}\n", receipt(1)).as_bytes()).unwrap();
    let service = Service::start(&config(dir.path(), &source), &[]).await;
    let readiness = service.watch_readiness().await;

    let line = receipt(2);
    let (begin, end) = line.split_at(40);
    writer.write_all(begin.as_bytes()).unwrap();
    tokio::time::sleep(LASTS).await;
    writer.write_all(format!("{end}\n").as_bytes()).unwrap();
    let stored = async || (service.metric("orch_buffer_records").await == 2.0).then_some(());
    eventually("it is stored", stored).await;

    readiness.end().never_lost();
    service.stop().await;
}
