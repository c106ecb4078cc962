//! Telemetry: log lines on standard error and the metrics of a scrape.

mod log_writer;
pub mod logs;
pub mod metrics;
