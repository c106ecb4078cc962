//! `[engine]`: who answers a run, and how long it may take.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::retry::RetrySchedule;
use serde::Serialize;

use super::reader::forms::{Bytes, Count, DurationForm, OneOf, OptionalPath, Real, TextForm, Texts, is_line};
use super::reader::secret::{HeaderSecret, Secret, SecretUrl, UrlForm};
use super::reader::section::Section;
use super::retry;

/// Provider of the engine's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// The small deterministic engine in this binary.
    #[default]
    Demo,
    /// Worker processes, see [`ProcessConfig`].
    Process,
    /// An engine behind HTTP, see [`HttpEngineConfig`].
    Http,
}

/// `[engine]`: the engine.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Which provider.
    pub kind: EngineKind,
    /// Which entry point: `truth` or `hysteresis`. Part of every `run_id`.
    pub mode: EngineMode,
    /// Time of one call, 1ms to 10m. A worker that exceeds it is killed, a connection closed.
    pub deadline: Duration,
    /// Calling again after a failure that another call can mend.
    pub retry: RetrySchedule,
    /// Options of `kind = "process"`.
    pub process: ProcessConfig,
    /// Options of `kind = "http"`.
    pub http: HttpEngineConfig,
    /// Options of `mode = "hysteresis"`.
    pub hysteresis: HysteresisConfig,
}

/// `[engine.process]`: the worker processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessConfig {
    /// Program and arguments of a worker. Required for `kind = "process"`; no shell reads it.
    pub command: Vec<String>,
    /// Workers, 0 to 1024; 0 means one a core. A symbol always goes to the same one.
    pub workers: usize,
    /// Address space of one worker, 0B to 1024GiB; 0 means no limit.
    pub memory_max_bytes: u64,
    /// Time from the start of a worker to its hello, 100ms to 10m.
    pub start_deadline: Duration,
    /// Directory that workers run in; `None` for that of the service.
    pub working_dir: Option<PathBuf>,
    /// Longest answer, 1KiB to 256MiB. A worker that says more is ended.
    pub output_bytes_max: u64,
    /// Time that a call waits for a worker that is down, 1ms to 10m. Then the attempt fails with `engine_unavailable`.
    pub restart_wait_max: Duration,
    /// Pauses before a dead worker is started again.
    pub respawn: RespawnConfig,
    /// The whole environment of a worker, apart from what the adapter itself passes on.
    pub env: WorkerEnv,
}

/// `[engine.http]`: the engine behind HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpEngineConfig {
    /// Where calls are posted, `http` or `https`. Required for `kind = "http"`; without user and password.
    pub url: SecretUrl,
    /// Sent as `Authorization: Bearer …`.
    pub token: Secret,
    /// Time for a connection, 1ms to 10m; part of the call's deadline.
    pub connect_timeout: Duration,
    /// Connections, and so calls at a time, 1 to 1024.
    pub connections_max: usize,
    /// Longest answer, 1KiB to 256MiB.
    pub output_bytes_max: u64,
}

/// `[engine.process.respawn]`: doubled from `min` to `max` until a good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RespawnConfig {
    /// Shortest pause, 1ms to 10m.
    pub min: Duration,
    /// Longest pause, 1ms to 10m. At least `min`.
    pub max: Duration,
}

/// Environment variables of a worker. Values may be secrets: `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WorkerEnv(pub BTreeMap<String, String>);

impl fmt::Debug for WorkerEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// `[engine.hysteresis]`: what is passed to `run_with_hysteresis`.
///
/// As JSON it is the `config` of every call.
///
/// Source: CONTRACTS, section 3.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HysteresisConfig {
    /// Consecutive updates a candidate regime needs, 1 to 1000.
    pub min_persistence_updates: u64,
    /// Confidence that a flip needs, 0 to 1.
    pub min_confidence_for_flip: f64,
    /// Factor on the confidence of the stable regime for each update that contradicts it, 0 to 1.
    pub decay_factor: f64,
    /// What the decayed confidence never falls below, 0 to 1.
    pub min_confidence_floor: f64,
    /// Expected time between two updates in milliseconds, 1 to 604800000. A longer gap resets the state.
    pub update_interval_ms: i64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            kind: EngineKind::Demo,
            mode: EngineMode::Truth,
            deadline: Duration::from_secs(2),
            retry: RetrySchedule {
                min: Duration::from_millis(50),
                max: Duration::from_secs(1),
                max_attempts: 3,
                max_elapsed: Duration::from_secs(10),
            },
            process: ProcessConfig::default(),
            http: HttpEngineConfig::default(),
            hysteresis: HysteresisConfig::default(),
        }
    }
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            workers: 0,
            memory_max_bytes: 1 << 30,
            start_deadline: Duration::from_secs(10),
            working_dir: None,
            output_bytes_max: 1 << 20,
            restart_wait_max: Duration::from_secs(2),
            respawn: RespawnConfig { min: Duration::from_millis(100), max: Duration::from_secs(5) },
            env: WorkerEnv::default(),
        }
    }
}

impl Default for HttpEngineConfig {
    fn default() -> Self {
        Self {
            url: SecretUrl::default(),
            token: Secret::default(),
            connect_timeout: Duration::from_secs(1),
            connections_max: 16,
            output_bytes_max: 1 << 20,
        }
    }
}

impl Default for HysteresisConfig {
    fn default() -> Self {
        Self {
            min_persistence_updates: 3,
            min_confidence_for_flip: 0.6,
            decay_factor: 0.85,
            min_confidence_floor: 0.2,
            update_interval_ms: 180_000,
        }
    }
}

impl EngineConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let kinds = OneOf(&[
            ("demo", EngineKind::Demo),
            ("process", EngineKind::Process),
            ("http", EngineKind::Http),
        ]);
        section.read_value("kind", &mut config.kind, &kinds);
        let modes = OneOf(&[("truth", EngineMode::Truth), ("hysteresis", EngineMode::Hysteresis)]);
        section.read_value("mode", &mut config.mode, &modes);
        let deadline = DurationForm(Duration::from_millis(1)..=Duration::from_secs(600));
        section.read_value("deadline", &mut config.deadline, &deadline);
        section.read_section("retry", |section| retry::read_schedule(&mut config.retry, section));
        config.process = section.read_section("process", ProcessConfig::from_section);
        config.http = section.read_section("http", HttpEngineConfig::from_section);
        config.hysteresis = section.read_section("hysteresis", HysteresisConfig::from_section);
        config
    }
}

impl ProcessConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let argument = TextForm { accepts: |text| !text.contains('\0'), allowed: "text without NUL" };
        section.read_value("command", &mut config.command, &Texts { item: argument, items_max: 256 });
        section.read_value("workers", &mut config.workers, &Count(0..=1024));
        section.read_value("memory_max_bytes", &mut config.memory_max_bytes, &Bytes(0..=1 << 40));
        let deadline = DurationForm(Duration::from_millis(100)..=Duration::from_secs(600));
        section.read_value("start_deadline", &mut config.start_deadline, &deadline);
        section.read_value("working_dir", &mut config.working_dir, &OptionalPath);
        section.read_value("output_bytes_max", &mut config.output_bytes_max, &Bytes(1 << 10..=256 << 20));
        let wait = DurationForm(Duration::from_millis(1)..=Duration::from_secs(600));
        section.read_value("restart_wait_max", &mut config.restart_wait_max, &wait);
        section.read_section("respawn", |section| {
            section.read_value("min", &mut config.respawn.min, &retry::DELAY);
            section.read_value("max", &mut config.respawn.max, &retry::DELAY);
        });
        let value = TextForm { accepts: |text| !text.contains('\0'), allowed: "text without NUL" };
        config.env = section.read_section("env", |section| {
            WorkerEnv(section.hidden_texts(is_variable, &value).into_iter().collect())
        });
        config
    }
}

impl HttpEngineConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let url = UrlForm { schemes: &["http", "https"], may_be_empty: true };
        section.read_value("url", &mut config.url, &url);
        section.read_value("token", &mut config.token, &HeaderSecret);
        let timeout = DurationForm(Duration::from_millis(1)..=Duration::from_secs(600));
        section.read_value("connect_timeout", &mut config.connect_timeout, &timeout);
        section.read_value("connections_max", &mut config.connections_max, &Count(1..=1024));
        section.read_value("output_bytes_max", &mut config.output_bytes_max, &Bytes(1 << 10..=256 << 20));
        config
    }
}

/// Whether `name` can name an environment variable of a worker.
fn is_variable(name: &str) -> bool {
    !name.is_empty() && is_line(name) && !name.contains(['=', '"'])
}

impl HysteresisConfig {
    fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value("min_persistence_updates", &mut config.min_persistence_updates, &Count(1..=1000));
        section.read_value("min_confidence_for_flip", &mut config.min_confidence_for_flip, &Real(0.0..=1.0));
        section.read_value("decay_factor", &mut config.decay_factor, &Real(0.0..=1.0));
        section.read_value("min_confidence_floor", &mut config.min_confidence_floor, &Real(0.0..=1.0));
        section.read_value("update_interval_ms", &mut config.update_interval_ms, &Count(1..=604_800_000));
        config
    }
}
