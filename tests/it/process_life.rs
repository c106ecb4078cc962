//! The process among others: whoever reads its log may stop or go, whoever signals it is obeyed in order, and nothing
//! that it started outlives it.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{ReadinessWatch, Service, eventually, metric_of, root};

/// What an ordered stop may take: `service.grace`, and what a busy machine adds.
const STOP_MAX: Duration = Duration::from_secs(20);

fn config(dir: &Path, listen: &str, more: &str) -> PathBuf {
    let path = dir.join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[http]\nlisten = {listen:?}\n[schedule]\ninterval = \"200ms\"\ndelay = \"0s\"\n\
         [symbols]\ndiscover = false\nlist = [\"A\", \"B\", \"C\", \"D\"]\n{more}",
        dir.join("data"),
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A port that was free a moment ago: what the service says on its standard error is not read in these tests.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The service with this standard error, killed in the end if it is still there.
struct Unread {
    child: Child,
    url: String,
}

impl Unread {
    async fn start(dir: &Path, stderr: Stdio) -> Self {
        orchestrator::process::tls::install_crypto();
        let address = free_address();
        // Each receipt leaves a line.
        let config = config(dir, &address, "[log]\nlevel = \"debug\"\n");
        let child = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
            .args(["run", "--config"])
            .arg(config)
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let service = Self { child, url: format!("http://{address}") };
        eventually("it answers", async || {
            let answer = reqwest::get(format!("{}/readyz", service.url)).await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        service
    }

    /// Receipts, and so lines, by the thousand; each request is answered.
    async fn post_receipts(&self) {
        let receipt = "{\"schema\":\"raw_market_event\",\"schema_version\":\"1\",\"event_type\":\"T\",\"source_id\":\"t\",\
                       \"symbol\":\"A\",\"exchange_ts_ms\":null,\"recv_ts_ms\":1,\"raw_payload\":\"\",\"normalized\":{}}\n";
        let post = reqwest::Client::new().post(format!("{}/api/v1/receipts", self.url));
        let post = post.header("content-type", "application/x-ndjson").body(receipt.repeat(4000));
        assert_eq!(post.send().await.unwrap().status(), 200);
    }

    /// Waits until lines are dropped. Each question is answered while nobody reads.
    async fn drop_lines(&self) {
        eventually("lines are dropped", async || {
            self.post_receipts().await;
            (self.dropped_lines().await > 0.0).then_some(())
        })
        .await;
    }

    async fn dropped_lines(&self) -> f64 {
        let text = reqwest::get(format!("{}/metrics", self.url)).await.unwrap().text().await.unwrap();
        metric_of(&text, "orch_log_lines_dropped_total")
    }

    async fn stop(mut self) -> ExitStatus {
        let since = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = eventually("it ends", async || self.child.try_wait().unwrap()).await;
        assert!(since.elapsed() < STOP_MAX, "it took {:?}", since.elapsed());
        status
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Method: a pipe of 64 KiB that nobody reads, until lines are dropped; then it is read again.
#[tokio::test]
async fn a_log_reader_that_stops_reading_costs_lines_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut service = Unread::start(dir.path(), Stdio::piped()).await;

    let readiness = ReadinessWatch::begin(&service.url);
    service.drop_lines().await;
    readiness.end().never_lost();

    let mut stderr = service.child.stderr.take().unwrap();
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let status = service.stop().await;

    let text = reading.join().unwrap().unwrap();
    assert!(status.success(), "{status:?}");
    assert!(text.contains("log lines were dropped"), "it is said once somebody reads again");
    assert!(text.trim_end().lines().all(|line| line.starts_with('{')), "no line is cut");
}

#[tokio::test]
async fn a_service_whose_log_is_never_read_stops_within_its_grace() {
    let dir = tempfile::tempdir().unwrap();
    let service = Unread::start(dir.path(), Stdio::piped()).await;
    service.drop_lines().await;

    assert!(service.stop().await.success());
}

/// Method: a full device, and a pipe whose reader is gone.
#[tokio::test]
async fn a_log_that_cannot_be_written_costs_lines_and_nothing_else() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);

    for stderr in [Stdio::from(full), Stdio::from(gone)] {
        let dir = tempfile::tempdir().unwrap();
        let service = Unread::start(dir.path(), stderr).await;

        service.drop_lines().await;
        let status = service.stop().await;

        assert!(status.success(), "{status:?}");
    }
}

#[tokio::test]
async fn every_signal_that_asks_for_a_stop_is_obeyed_in_order() {
    for (signal, name) in [
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::HUP, "SIGHUP"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut service = Service::start(&config(dir.path(), "127.0.0.1:0", ""), &[]).await;

        send(service.pid(), signal);
        let status = service.ended().await;

        let log = service.log();
        assert!(status.success(), "{name}: {status:?}:\n{log}");
        let last = log.trim_end().lines().last().unwrap();
        assert!(last.contains("\"stopped\""), "{name}: {last}");
        assert!(log.contains(name), "{name} is named:\n{log}");
    }
}

/// Method: signals that mean nothing to it, and a HUP where it was started with HUP ignored, as `nohup` does.
#[tokio::test]
async fn signals_without_a_meaning_are_noted_and_outlived() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "127.0.0.1:0", "");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap '' HUP; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_orchestrator"),
        "run",
        "--config",
    ]);
    command.arg(&config);
    let service = Service::spawn(command, &config).await;

    let readiness = service.watch_readiness().await;
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP] {
        send(service.pid(), signal);
    }

    eventually("both are noted", async || {
        let log = service.log();
        (log.contains("SIGUSR1") && log.contains("SIGUSR2")).then_some(())
    })
    .await;
    readiness.end().never_lost();
    assert!(!service.log().contains("SIGHUP"), "{}", service.log());
    service.stop_unverified().await;
}

/// Method: the engine never says hello, so the start waits.
#[tokio::test]
async fn a_service_that_is_asked_to_stop_while_it_starts_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = "[engine]\nkind = \"process\"\n[engine.process]\ncommand = [\"sleep\", \"600\"]\nworkers = 1\n\
                  start_deadline = \"5m\"\n";
    let config = config(dir.path(), "127.0.0.1:0", engine);
    let stderr = dir.path().join("stderr");
    let mut child = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["run", "--config"])
        .arg(config)
        .stderr(std::fs::File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let workers = eventually("the worker is there", async || {
        let found = children(child.id());
        (found.len() == 1 && command_of(found[0]).starts_with("sleep")).then_some(found)
    })
    .await;

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = eventually("it ends", async || child.try_wait().unwrap()).await;

    assert_eq!(status.code(), Some(69), "{}", std::fs::read_to_string(&stderr).unwrap());
    eventually("its worker is gone", async || gone(workers[0]).then_some(())).await;
}

/// Method: segments larger than files may be.
#[tokio::test]
async fn a_file_size_limit_is_an_error_and_no_sudden_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "127.0.0.1:0", "");
    let output = Command::new("sh")
        .args([
            "-c",
            "ulimit -f 2048; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_orchestrator"),
            "run",
            "--config",
        ])
        .arg(config)
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), None, "{said}");
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(said.contains("File too large"), "{said}");
}

/// Method: a worker that takes a call and never looks at its pipe again.
#[tokio::test]
async fn a_worker_that_hangs_does_not_outlive_a_killed_service() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("hangs");
    let script = format!(
        "import sys, time\nsys.path.insert(0, \"engines\")\nfrom orchestrator_engine import serve\n\
         def run(snapshot):\n    open({mark:?}, \"w\").close()\n    while True:\n        time.sleep(1)\n\
         serve(name=\"hanging\", version=\"1\", run=run)\n"
    );
    let engine = dir.path().join("engine.py");
    std::fs::write(&engine, script).unwrap();
    let more = format!(
        "[sources.demo]\nkind = \"demo\"\nsymbols = 4\nsnapshot_interval = \"200ms\"\nsnapshot_lag = \"0s\"\n\
         [engine]\nkind = \"process\"\ndeadline = \"10m\"\n\
         [engine.process]\ncommand = [\"python3\", {engine:?}]\nworkers = 1\nstart_deadline = \"60s\"\n"
    );
    let path = config(dir.path(), "127.0.0.1:0", &more);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("discover = false\nlist = [\"A\", \"B\", \"C\", \"D\"]\n", ""))
        .unwrap();
    let service = Service::start(&path, &["--set", "schedule.delay=50ms"]).await;
    eventually("the worker hangs", async || mark.exists().then_some(())).await;
    let workers = children(service.pid());
    assert_eq!(workers.len(), 1, "{workers:?}");

    service.kill();

    eventually("the worker is gone", async || gone(workers[0]).then_some(())).await;
}

/// A command that is not there is named as before, although another program starts it.
#[test]
fn an_engine_command_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let engine =
        "[engine]\nkind = \"process\"\n[engine.process]\ncommand = [\"no-such-engine\"]\nworkers = 1\n";
    let config = config(dir.path(), "127.0.0.1:0", engine);

    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["run", "--config"])
        .arg(config)
        .output()
        .unwrap();

    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot start worker command `no-such-engine`"), "{said}");
    assert!(said.contains("No such file"), "{said}");
}

fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let list =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let listed: Vec<String> = tasks.map(|task| list(task.unwrap())).collect();
    listed.iter().flat_map(|list| list.split_whitespace()).map(|pid| pid.parse().unwrap()).collect()
}

fn command_of(pid: u32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// Ended, and reaped by whoever inherited it or still waiting to be.
fn gone(pid: u32) -> bool {
    let alive = test_kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()).is_ok();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !alive || stat.rsplit(") ").next().is_some_and(|state| state.starts_with('Z'))
}
