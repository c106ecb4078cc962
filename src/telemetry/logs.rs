//! Log lines: human on a terminal, one JSON object a line elsewhere; always on standard error, and never waited for.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use super::log_writer::{self, LineSender, WriterEnd};
use crate::config::{LogConfig, LogFormat};

/// How long the end of the process waits for lines that standard error has not taken.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// The writer of this process, once logging was started. There is one standard error, so there is one of these.
static WRITER: OnceLock<(LineSender, WriterEnd)> = OnceLock::new();
static DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Reason for which log lines cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// `RUST_LOG` is no filter.
    #[error("RUST_LOG is no log filter: {detail}; use for example info or orchestrator=debug")]
    Filter {
        /// What is wrong with it.
        detail: String,
    },
    /// Logging was started before in this process.
    #[error("logging was started twice")]
    Twice,
    /// The system gives no thread or descriptor to write with.
    #[error("cannot start writing log lines")]
    Writer(#[source] std::io::Error),
}

/// Starts logging for the process. `rust_log` is the value of `RUST_LOG`, which overrides the level.
///
/// From here on nothing waits for standard error: lines that it does not take are dropped and counted. Panics are
/// logged like everything else, because the usual report would be written on the thread that panicked.
///
/// # Errors
///
/// [`LogsError`].
pub fn start_logging(config: &LogConfig, rust_log: Option<&str>) -> Result<(), LogsError> {
    let terminal = std::io::stderr().is_terminal();
    let (sender, end) = log_writer::start_writer(DROPPED.clone()).map_err(LogsError::Writer)?;
    build_subscriber(config, rust_log, terminal, sender.clone())?.try_init().map_err(|_| LogsError::Twice)?;
    WRITER.set((sender, end)).map_err(|_| LogsError::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Waits until the lines that were logged are written, a second at most. The process may end then.
pub fn finish_logging() {
    if let Some((_, end)) = WRITER.get() {
        end.finish_writing(FINISH_MAX);
    }
}

/// Writes a line for people to standard error: behind the log lines when logging was started, at once otherwise.
pub fn write_line(line: &str) {
    let line = format!("{line}\n");
    match WRITER.get() {
        Some((sender, _)) => sender.send_line(line.as_bytes()),
        // When standard error cannot be written, nobody can be told; the exit code still says it.
        None => std::io::stderr().write_all(line.as_bytes()).unwrap_or_default(),
    }
}

/// Lines that were dropped since the start, because standard error was not read or failed.
#[must_use]
pub fn dropped_lines() -> Counter {
    DROPPED.clone()
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("a value that is no text");
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(place, error_detail = what, backtrace, "a defect: panicked");
}

/// What takes the log lines and writes them to `writer`.
fn build_subscriber<W>(
    config: &LogConfig,
    rust_log: Option<&str>,
    is_terminal: bool,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogsError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = match rust_log.filter(|directives| !directives.is_empty()) {
        Some(directives) => {
            EnvFilter::try_new(directives).map_err(|error| LogsError::Filter { detail: error.to_string() })?
        }
        None => EnvFilter::new(config.level.as_str()),
    };
    let human = match config.format {
        LogFormat::Auto => is_terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(if human {
        Box::new(lines.with_ansi(is_terminal).with_target(false).finish())
    } else {
        Box::new(lines.json().flatten_event(true).with_current_span(true).with_span_list(false).finish())
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::LogLevel;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn check_lines(config: LogConfig, rust_log: Option<&str>, is_terminal: bool) -> String {
        let written = Written::default();
        let sink = written.clone();
        let subscriber = build_subscriber(&config, rust_log, is_terminal, move || sink.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("receipt");
            tracing::warn!(run_id = %"358b", attempt = 2, "engine run failed");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_are_json_elsewhere_and_human_on_a_terminal() {
        let json = check_lines(LogConfig::default(), None, false);
        let human = check_lines(LogConfig::default(), None, true);

        let line: serde_json::Value = serde_json::from_str(json.trim_end()).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"engine run failed".into()));
        assert_eq!((&line["run_id"], &line["attempt"]), (&"358b".into(), &2.into()));
        assert!(human.contains("engine run failed") && !human.starts_with('{'), "{human}");
    }

    #[test]
    fn the_configured_format_and_level_count_and_rust_log_overrides_the_level() {
        let config = LogConfig { level: LogLevel::Error, format: LogFormat::Human };

        assert_eq!(check_lines(config, None, false), "");
        assert_eq!(check_lines(LogConfig::default(), Some(""), false).lines().count(), 1);
        assert_eq!(check_lines(config, Some("debug"), false).lines().count(), 2);
        assert!(!check_lines(config, Some("debug"), false).contains('\u{1b}'));
    }

    #[test]
    fn a_rust_log_that_is_no_filter_is_refused() {
        let refused = build_subscriber(&LogConfig::default(), Some("a=b=c"), false, std::io::sink);

        assert!(matches!(refused, Err(LogsError::Filter { .. })));
    }
}
