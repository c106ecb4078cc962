//! The service as a process of its own, as the end-to-end and the live tests start, ask, signal and end it.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::readiness::ReadinessWatch;
use super::verify::verify;

/// How long a test waits for anything before it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How many lines of the service's log a failing test shows, from the end.
const LOG_LINES_SHOWN: usize = 200;

/// The variable that names a planted fault; only a binary with the feature `mutants` looks at it.
const MUTANT: &str = "ORCHESTRATOR_MUTANT";

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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

/// How long a command may take that ends by itself, on a busy machine.
const COMMAND_MAX: Duration = Duration::from_secs(300);

/// Runs the binary in the root of the repository, with nothing of this environment but the path.
pub(crate) fn orchestrator(args: &[&str]) -> Output {
    orchestrator_with(args, &[])
}

/// Runs the binary as [`orchestrator`] does, with these variables in its environment.
pub(crate) fn orchestrator_with(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    command
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(variables.iter().copied());
    output_of(command)
}

/// What a command prints until its end. One that does not end is killed and fails the test, which would hang otherwise.
pub(crate) fn output_of(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        let late = end.recv_timeout(COMMAND_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if late {
            kill_process(pid, Signal::KILL).unwrap();
        }
        late
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    assert!(!watch.join().unwrap(), "{command:?} did not end within {COMMAND_MAX:?}");
    output
}

/// A running `orchestrator run`.
pub(crate) struct Service {
    child: Child,
    config: PathBuf,
    args: Vec<String>,
    stderr: PathBuf,
    /// The same file, which can be read when a failing test has removed its directory already.
    stderr_kept: File,
    /// Where its HTTP interface is.
    pub(crate) url: String,
}

impl Service {
    /// Starts it and waits until it says where it listens.
    pub(crate) async fn start(config: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command.arg("run").arg("--config").arg(config).args(args);
        let mut service = Self::spawn(command, config).await;
        service.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        service
    }

    /// Starts `command`, which must end up as an `orchestrator run` with `config`.
    pub(crate) async fn spawn(mut command: Command, config: &Path) -> Self {
        orchestrator::process::tls::install_crypto();
        let stderr = config.with_extension("stderr");
        let file = File::options().create(true).append(true).open(&stderr).unwrap();
        let stderr_kept = File::open(&stderr).unwrap();
        let from = file.metadata().unwrap().len();
        let child = command
            .current_dir(root())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(std::env::var_os(MUTANT).map(|planted| (MUTANT, planted)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(file))
            .spawn()
            .unwrap();
        let (config, args, url) = (config.to_owned(), Vec::new(), String::new());
        let mut service = Self { child, config, args, stderr, stderr_kept, url };
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

    /// Asks it to stop (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Freezes it (SIGSTOP): its connections stay, it does nothing.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
        // Until every thread has stopped an answer may still slip out.
        let stat = format!("/proc/{}/stat", self.pid());
        let deadline = Instant::now() + PATIENCE;
        while !fs::read_to_string(&stat).unwrap().rsplit(") ").next().unwrap().starts_with('T') {
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::yield_now();
        }
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
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

    /// Asks it to stop and expects a clean end; then everything that it recorded follows from its logs (REP-1).
    pub(crate) async fn stop(self) {
        let (config, args) = (self.config.clone(), self.args.clone());
        self.stop_unverified().await;
        verify(&config, &args);
    }

    /// As [`stop`](Self::stop), where nothing was recorded, or where the logs are out of reach afterwards.
    pub(crate) async fn stop_unverified(mut self) {
        self.terminate();
        let status = self.ended().await;
        assert!(status.success(), "{status:?}:\n{}", self.log());
    }

    /// One scrape of `/metrics`: the value of a series given as it is written, 0 when it is not there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = reqwest::get(format!("{}/metrics", self.url)).await.unwrap().text().await.unwrap();
        metric_of(&text, series)
    }

    /// Begins to sample its readiness, once it is ready.
    pub(crate) async fn watch_readiness(&self) -> ReadinessWatch {
        eventually("it is ready", async || (self.get("/readyz").await.0 == 200).then_some(())).await;
        ReadinessWatch::begin(&self.url)
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
        if std::thread::panicking() {
            let mut log = String::new();
            drop(self.stderr_kept.read_to_string(&mut log));
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(LOG_LINES_SHOWN)..).unwrap_or_default();
            println!("the end of {}:\n{}", self.stderr.display(), last.join("\n"));
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
