//! `[service]`, `[clock]` and `[log]`: the process itself.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::forms::{Count, DurationForm, FilePath, OneOf};
use super::reader::section::Section;

/// `[service]`: where the process keeps its data and how it stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Directory of the logs and outputs. Created when missing; one process at a time may use it.
    pub data_dir: PathBuf,
    /// Time that a stop may take before the process leaves with work undone, which the next start finishes. 1s to 5m.
    pub grace: Duration,
    /// Threads of the runtime, 0 to 256; 0 means one a core.
    pub worker_threads: usize,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { data_dir: PathBuf::from("data"), grace: Duration::from_secs(10), worker_threads: 0 }
    }
}

impl ServiceConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value("data_dir", &mut config.data_dir, &FilePath);
        section.read_value(
            "grace",
            &mut config.grace,
            &DurationForm(Duration::from_secs(1)..=Duration::from_secs(300)),
        );
        section.read_value("worker_threads", &mut config.worker_threads, &Count(0..=256));
        config
    }
}

/// Clock that `ingest_ts_ms` and the schedule follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockMode {
    /// The machine's wall clock.
    #[default]
    Wall,
    /// The `recv_ts_ms` of the one source's receipts: a recording runs the same way every time, at any speed.
    Recorded,
}

/// `[clock]`: whose time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockConfig {
    /// Wall clock or the recording's.
    pub mode: ClockMode,
    /// Longest gap between two receipts of a recording, 1m to 100years. A receipt farther ahead goes to the quarantine.
    pub gap_max: Duration,
}

impl Default for ClockConfig {
    fn default() -> Self {
        Self { mode: ClockMode::default(), gap_max: Duration::from_secs(2 * YEAR_SECONDS) }
    }
}

/// A year as durations in a configuration count it: 365.25 days.
const YEAR_SECONDS: u64 = 31_557_600;

impl ClockConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let modes = OneOf(&[("wall", ClockMode::Wall), ("recorded", ClockMode::Recorded)]);
        section.read_value("mode", &mut config.mode, &modes);
        let gaps = DurationForm(Duration::from_secs(60)..=Duration::from_secs(100 * YEAR_SECONDS));
        section.read_value("gap_max", &mut config.gap_max, &gaps);
        config
    }
}

/// The least severe line that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// A human must act.
    Error,
    /// The system recovered by itself.
    Warn,
    /// Runs and the life of the service.
    #[default]
    Info,
    /// Single receipts too.
    Debug,
    /// Everything, the libraries as well.
    Trace,
}

impl LogLevel {
    /// The word in the configuration and in `RUST_LOG`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[log]`: the log lines on standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The least severe line. `RUST_LOG` overrides it.
    pub level: LogLevel,
    /// How lines look.
    pub format: LogFormat,
}

impl LogConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let levels = OneOf(&[
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ]);
        section.read_value("level", &mut config.level, &levels);
        let formats =
            OneOf(&[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)]);
        section.read_value("format", &mut config.format, &formats);
        config
    }
}
