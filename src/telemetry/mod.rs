//! Telemetry: log lines on standard error and the metrics of a scrape.

pub mod logs;
pub mod metrics;
