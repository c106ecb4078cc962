//! The live tree on a recorded capture: the configured engine and schedule, and nothing that leaves this machine but
//! the engine's own calls.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::observer::Observer;
use orchestrator_kernel::ports::source::SourceFactory;

use super::reading::Recorded;
use super::{StartOptions, Wired, WiringError, WiringExtras};
use crate::adapters::files::capture_source::{CaptureFactory, CaptureOptions};
use crate::adapters::recorded_log::RecordedLogFactory;
use crate::config::{
    ClockMode, Config, KillSwitchConfig, RabbitFanOutConfig, RetentionConfig, SourceConfig, Sources,
    StorageKind,
};

mod trading;

pub use crate::adapters::recorded_log::Stamps;
pub use trading::find_trading_faults;

/// Name of the only source; the origin of the receipts.
const SOURCE: &str = "capture";
/// How often a server that holds the capture is asked again before it counts as lost.
const RECONNECTS_MAX: u32 = 5;

/// Capture that is run again.
pub enum BacktestCapture {
    /// Raw market events, one a line, plain or compressed.
    File(PathBuf),
    /// The receipt log of a service.
    Logs {
        /// Its logs.
        recorded: Box<Recorded>,
        /// Whose time counts.
        stamps: Stamps,
        /// Where the clock starts instead of at the first receipt.
        start: Option<TsMs>,
    },
}

/// Part of the capture that was read.
#[derive(Clone, Debug)]
pub struct CaptureProgress {
    done: Arc<AtomicU64>,
    total: u64,
}

impl CaptureProgress {
    /// The part that was read, 0 to 1. What was read may not be durable yet.
    #[must_use]
    pub fn read_fraction(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a share for people to look at")]
        let share = self.done.load(Ordering::Relaxed) as f64 / self.total.max(1) as f64;
        share.min(1.0)
    }
}

/// Parts of the service that a backtest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BacktestPlanes {
    /// The engine plane.
    Engine,
    /// The trading plane's cycles too.
    EngineAndTrading,
}

/// What of `config` a backtest leaves out, for people; empty when it is all used.
#[must_use]
pub fn replaced_settings(config: &Config, planes: BacktestPlanes) -> Vec<String> {
    let mut replaced: Vec<String> = config
        .sources
        .iter()
        .map(|(name, source)| format!("source {name} ({}): the capture", source.kind_word()))
        .collect();
    if !config.publish.rabbitmq.connection.url.is_empty() {
        replaced.push("fan-out rabbitmq: the outputs file".to_owned());
    }
    if config.storage.kind == StorageKind::Redis {
        replaced.push("logs on redis: files of the backtest".to_owned());
    }
    if config.retention != RetentionConfig::default() {
        replaced.push("retention: everything is kept".to_owned());
    }
    replaced.push("HTTP interface: none".to_owned());
    if planes == BacktestPlanes::EngineAndTrading {
        replaced.extend(trading::replaced_trading(&config.trading));
    }
    replaced
}

/// `config` for a backtest with its logs in `data_dir` and its outputs in `outputs`.
#[must_use]
pub fn stage_config(config: &Config, planes: BacktestPlanes, data_dir: PathBuf, outputs: PathBuf) -> Config {
    let mut staged = config.clone();
    match planes {
        BacktestPlanes::Engine => staged.trading.enabled = false,
        BacktestPlanes::EngineAndTrading => trading::stage_trading(&mut staged.trading),
    }
    staged.service.data_dir = data_dir;
    staged.clock.mode = ClockMode::Recorded;
    staged.storage.kind = StorageKind::Embedded;
    staged.sources = Sources::new();
    staged.buffer.capacity_bytes = 0;
    staged.retention = RetentionConfig::default();
    staged.publish.file = Some(outputs);
    // A crash of the machine loses a backtest as a whole; it is made again.
    staged.publish.file_sync = false;
    staged.publish.rabbitmq = RabbitFanOutConfig::default();
    staged.kill_switch = KillSwitchConfig::default();
    if staged.ingest.reconnect.max_attempts == 0 {
        staged.ingest.reconnect.max_attempts = RECONNECTS_MAX;
    }
    staged
}

/// Opens what a `staged` configuration names, with `capture` as its only source.
///
/// # Errors
///
/// [`WiringError`].
pub async fn wire_backtest(
    staged: &Config,
    capture: &BacktestCapture,
    line_bytes_max: usize,
    observer: Arc<dyn Observer>,
) -> Result<(Wired, CaptureProgress), WiringError> {
    let (source, progress) = open_source(capture, line_bytes_max)?;
    let begins = match capture {
        BacktestCapture::Logs { start, .. } => *start,
        BacktestCapture::File(_) => None,
    };
    let extras = WiringExtras { begins, ..WiringExtras::default() };
    let mut wired = super::wire_from(staged, StartOptions::default(), extras, |_| observer).await?;
    wired.ports.sources = vec![source];
    wired.trading = wired.trading.map(|parts| parts.for_backtest(trading::start_agent()));
    Ok((wired, progress))
}

fn open_source(
    capture: &BacktestCapture,
    line_bytes_max: usize,
) -> Result<(Arc<dyn SourceFactory>, CaptureProgress), WiringError> {
    match capture {
        BacktestCapture::File(path) => {
            let factory =
                CaptureFactory::new(CaptureOptions { line_bytes_max, ..CaptureOptions::new(SOURCE, path) });
            let size = std::fs::metadata(path).map_err(|source| WiringError::File {
                what: format!("the capture {}", path.display()),
                source,
            })?;
            let progress = CaptureProgress { done: factory.bytes_read(), total: size.len() };
            Ok((Arc::new(factory), progress))
        }
        BacktestCapture::Logs { recorded, stamps, .. } => {
            let stat = recorded.receipts.stat();
            let factory = RecordedLogFactory::new(SOURCE, Arc::clone(&recorded.receipts), *stamps);
            let total = (stat.tail.0 + 1).saturating_sub(stat.start.0);
            let progress = CaptureProgress { done: factory.records_read(), total };
            Ok((Arc::new(factory), progress))
        }
    }
}

/// The longest line that the configured file sources read, or the default.
#[must_use]
pub fn line_bytes_max(config: &Config) -> usize {
    let configured = config.sources.values().filter_map(|source| match source {
        SourceConfig::File(file) => usize::try_from(file.line_bytes_max).ok(),
        SourceConfig::Http(_)
        | SourceConfig::Rabbit(_)
        | SourceConfig::RedisStream(_)
        | SourceConfig::Demo(_) => None,
    });
    configured.max().unwrap_or(CaptureOptions::new(SOURCE, "").line_bytes_max)
}
