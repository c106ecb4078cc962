//! `[trading.backtests]`: backtests that somebody asks a running service for.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::reader::forms::{Count, DurationForm, TextForm, is_line};
use crate::config::reader::section::Section;

/// `[trading.backtests]`.
///
/// Source: specification 001 §4, `run_backtest(config)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradingBacktestsConfig {
    /// Directory of the recordings that may be asked for, relative to `service.data_dir`; empty: no backtests are run.
    pub captures: String,
    /// Backtests that may wait while one runs, 1 to 100.
    pub queue_max: usize,
    /// Backtests that are kept with their results, the newest ones, 1 to 1000.
    pub kept_max: usize,
    /// Longest time of one, 1s to 7days.
    pub time_max: Duration,
}

impl Default for TradingBacktestsConfig {
    fn default() -> Self {
        Self { captures: String::new(), queue_max: 4, kept_max: 20, time_max: Duration::from_secs(3600) }
    }
}

const CAPTURES: TextForm =
    TextForm { accepts: |text| text.len() <= 4096 && is_line(text), allowed: "a directory, \"\" for none" };

impl TradingBacktestsConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let (second, week) = (Duration::from_secs(1), Duration::from_secs(7 * 86_400));
        section.read_value("captures", &mut config.captures, &CAPTURES);
        section.read_value("queue_max", &mut config.queue_max, &Count(1..=100));
        section.read_value("kept_max", &mut config.kept_max, &Count(1..=1000));
        section.read_value("time_max", &mut config.time_max, &DurationForm(second..=week));
        config
    }

    /// The directory of the recordings; nothing where no backtests are run.
    #[must_use]
    pub fn captures_dir(&self, data_dir: &std::path::Path) -> Option<PathBuf> {
        (!self.captures.is_empty()).then(|| data_dir.join(&self.captures))
    }
}
