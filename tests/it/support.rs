//! What the end-to-end tests share: the service as a process, its logs, the recording.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use orchestrator::adapters::embedded::log::{EmbeddedLog, LogOptions};
use orchestrator_kernel::contracts::engine_run::RunRecord;
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::log::{Log, ReadLimit};

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The recording beside the repository, or nothing with a printed reason.
pub(crate) fn recording() -> Option<PathBuf> {
    let shared =
        std::env::var_os("ORCHESTRATOR_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let path = shared.join("data/binance_usdm_20240808.jsonl.gz");
    if path.is_file() {
        return Some(path);
    }
    println!("SKIPPED: the recording {} is not there; set ORCHESTRATOR_SHARED", path.display());
    None
}

/// The lines of the recording, without their line ends.
pub(crate) fn recorded_lines(path: &Path) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    MultiGzDecoder::new(File::open(path).unwrap()).read_to_end(&mut text).unwrap();
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Waits until `done` gives something.
pub(crate) async fn eventually<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done().await {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A running `orchestrator run`.
pub(crate) struct Service {
    child: Child,
    stderr: PathBuf,
    /// Where its HTTP interface is.
    pub(crate) url: String,
}

impl Service {
    /// Starts it and waits until it says where it listens.
    pub(crate) async fn start(config: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command.arg("run").arg("--config").arg(config).args(args);
        Self::spawn(command, config).await
    }

    /// Starts `command`, which must end up as an `orchestrator run` with `config`.
    pub(crate) async fn spawn(mut command: Command, config: &Path) -> Self {
        orchestrator::tls::install();
        let stderr = config.with_extension("stderr");
        let file = File::options().create(true).append(true).open(&stderr).unwrap();
        let from = file.metadata().unwrap().len();
        let child = command
            .current_dir(root())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(file))
            .spawn()
            .unwrap();
        let mut service = Self { child, stderr, url: String::new() };
        service.url = service.running_line(from).await;
        service
    }

    async fn running_line(&mut self, from: u64) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read(&self.stderr).unwrap();
            let fresh =
                String::from_utf8_lossy(text.get(usize::try_from(from).unwrap()..).unwrap_or_default())
                    .into_owned();
            let found = fresh.lines().filter(|line| line.contains("\"running\"")).find_map(|line| {
                let fields: serde_json::Value = serde_json::from_str(line).ok()?;
                fields.get("http")?.as_str().map(str::to_owned)
            });
            if let Some(url) = found {
                return url;
            }
            let exited = self.child.try_wait().unwrap();
            assert!(exited.is_none(), "it ended with {exited:?} before it was up:\n{fresh}");
            assert!(Instant::now() < deadline, "it never came up:\n{fresh}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let stderr = self.stderr.clone();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if deadline < Instant::now() {
                panic!("it did not end:\n{}", fs::read_to_string(stderr).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks it to stop and expects a clean end.
    pub(crate) async fn stop(mut self) {
        self.terminate();
        let status = self.ended().await;
        assert!(status.success(), "{status:?}:\n{}", self.log());
    }

    /// One scrape of `/metrics`: the value of a series given as it is written, 0 when it is not there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = reqwest::get(format!("{}/metrics", self.url)).await.unwrap().text().await.unwrap();
        metric_of(&text, series)
    }

    /// Status code and body of a GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Already ended in most tests; a failing one must not leave it behind.
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// The value of a series in a scrape; a name without labels sums all its series.
pub(crate) fn metric_of(text: &str, series: &str) -> f64 {
    text.lines()
        .filter(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with([' ', '{'])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Every record of a stopped service's log.
pub(crate) async fn records(dir: &Path) -> Vec<Vec<u8>> {
    let log = EmbeddedLog::open(dir, LogOptions::new("test")).unwrap();
    let mut all = Vec::new();
    loop {
        let batch = log.read(Seq(all.len() as u64 + 1), ReadLimit::default()).await.unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch.iter().map(|(_, payload)| payload.to_vec()));
    }
}

/// What a receipt log must be after anything that happens: numbered without gap, time never going back. Returns the
/// events.
pub(crate) async fn checked_receipts(data: &Path) -> Vec<Vec<u8>> {
    let stored = records(&data.join("receipts")).await;
    let mut last = TsMs(i64::MIN);
    stored
        .iter()
        .zip(1u64..)
        .map(|(payload, seq)| {
            let record = ReceiptRecord::decode(payload).unwrap();
            assert_eq!(record.ingest_seq.0, seq, "LOG-1: ingest_seq without gap");
            assert!(last <= record.ingest_ts_ms, "LOG-5: ingest_ts_ms never decreases");
            last = record.ingest_ts_ms;
            record.event.to_vec()
        })
        .collect()
}

/// The run log's records.
pub(crate) async fn run_records(data: &Path) -> Vec<RunRecord> {
    records(&data.join("runs")).await.iter().map(|payload| RunRecord::decode(payload).unwrap()).collect()
}

/// The lines of the outputs file.
pub(crate) fn outputs(data: &Path) -> Vec<String> {
    let file = File::open(data.join("outputs/orchestrator_events.jsonl")).unwrap();
    BufReader::new(file).lines().map(Result::unwrap).collect()
}

/// `{run_id}:{event_type}`: what a consumer deduplicates on.
pub(crate) fn message_id(event: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    format!("{}:{}", event["run_id"].as_str().unwrap(), event["event_type"].as_str().unwrap())
}
