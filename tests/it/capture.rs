//! The recorded market day through the whole system: equal every time, whatever the number of threads and workers.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use orchestrator_kernel::engine::contracts::engine_run::RunStatus;
use orchestrator_kernel::error::ErrorKind;

use crate::support::{
    Service, checked_receipts, outputs, recorded_lines, recording, records, root, run_records,
};

/// The configuration of the recording: its boundaries, its clock, the stand-in engine in Python workers.
pub(crate) fn config(source: &str, mode: &str, data: &Path, threads: usize, workers: usize) -> String {
    let data = data.display();
    format!(
        r#"
[service]
data_dir = "{data}"
worker_threads = {threads}
[clock]
mode = "recorded"
{source}
[schedule]
mode = "boundary"
interval = "15s"
delay = "500ms"
[symbols]
list = ["BTCUSDT", "ETHUSDT"]
[engine]
kind = "process"
mode = "{mode}"
deadline = "30s"
[engine.process]
command = ["python3", "engines/standin_engine.py"]
workers = {workers}
start_deadline = "60s"
[engine.hysteresis]
update_interval_ms = 15000
[http]
listen = "127.0.0.1:0"
body_bytes_max = "8MiB"
[log]
format = "json"
"#
    )
}

pub(crate) fn file_source(recording: &Path) -> String {
    format!("[sources.capture]\nkind = \"file\"\npath = \"{}\"", recording.display())
}

/// Runs the recording once to its end; `flags` win over the configuration.
async fn run_once(
    recording: &Path,
    mode: &str,
    data: &Path,
    (threads, workers): (usize, usize),
    flags: &[&str],
) {
    std::fs::create_dir_all(data).unwrap();
    let path = data.join("config.toml");
    std::fs::write(&path, config(&file_source(recording), mode, data, threads, workers)).unwrap();
    let mut service = Service::start(&path, &[&["--once"], flags].concat()).await;
    let status = service.ended().await;
    assert!(status.success(), "{status:?}:\n{}", service.log());
}

/// The stand-in engine behind HTTP; ended with its handle.
pub(crate) struct HttpEngine {
    process: Child,
    pub(crate) url: String,
}

impl HttpEngine {
    /// With a token, nobody else is answered.
    pub(crate) fn start(token: Option<&str>) -> Self {
        let mut process = Command::new("python3")
            .args(["engines/examples/http_engine.py", "--port", "0"])
            .current_dir(root())
            .env("PYTHONPATH", "engines")
            .envs(token.map(|token| ("ENGINE_TOKEN", token)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut announced = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut announced).unwrap();
        let url = announced.split_whitespace().last().unwrap().to_owned();
        Self { process, url }
    }
}

impl Drop for HttpEngine {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Method: one thread and one worker against four threads and three workers with other hash seeds, and against the same
/// engine behind HTTP; every record of every log compared.
async fn check_mode(mode: &str) {
    let Some(recording) = recording() else { return };
    let dir = tempfile::tempdir().unwrap();
    let [one, many, http] = ["one", "many", "http"].map(|name| dir.path().join(name));
    let engine = HttpEngine::start(None);
    let url = format!("engine.http.url={}", engine.url);

    // This process's own hash maps are seeded anew at every start; the workers' are told theirs.
    let seed = |seed: &str| format!("engine.process.env.PYTHONHASHSEED={seed}");
    run_once(&recording, mode, &one, (1, 1), &["--set", &seed("1")]).await;
    run_once(&recording, mode, &many, (4, 3), &["--set", &seed("4711")]).await;
    run_once(&recording, mode, &http, (2, 1), &["--set", "engine.kind=http", "--set", &url]).await;

    let stored = checked_receipts(&one).await;
    let sent = recorded_lines(&recording);
    assert_eq!(stored.len(), 168_651);
    assert!(stored == sent, "LOG-4: stored bytes equal received bytes");
    check_runs(&one).await;
    for log in ["receipts", "runs", "quarantine"] {
        let expected = records(&one.join(log)).await;
        assert!(expected == records(&many.join(log)).await, "REP-2: the {log} logs differ");
        assert!(expected == records(&http.join(log)).await, "REP-2: the {log} logs differ over HTTP");
    }
    assert_eq!(outputs(&one), outputs(&many), "REP-2: the outputs differ");
    assert_eq!(outputs(&one), outputs(&http), "REP-2: the outputs differ over HTTP");
    let per_run = if mode == "truth" { 2 } else { 3 };
    assert_eq!(outputs(&one).len(), 44 * per_run + 2 * 2);
    crate::backtest::check_equals_live(&recording, &one.join("config.toml"), &one).await;
}

/// 44 runs complete; the first boundary comes 470 ms after the first receipt, before any snapshot, so its two runs are
/// explicit failures.
async fn check_runs(data: &Path) {
    let (mut completed, mut failed) = (0, 0);
    for record in run_records(data).await {
        match record.status {
            RunStatus::Started { .. } => {}
            RunStatus::Completed { answered, .. } => {
                assert_eq!(answered, 1);
                completed += 1;
            }
            RunStatus::Failed { error_kind, .. } => {
                assert_eq!(error_kind, ErrorKind::MissingSnapshotInputs);
                assert_eq!(record.facts.engine_timestamp_ms.0, 1_723_161_255_000);
                failed += 1;
            }
        }
    }
    assert_eq!((completed, failed), (44, 2));
}

#[tokio::test]
async fn the_recording_gives_equal_bytes_in_truth_mode() {
    check_mode("truth").await;
}

#[tokio::test]
async fn the_recording_gives_equal_bytes_in_hysteresis_mode() {
    check_mode("hysteresis").await;
}
