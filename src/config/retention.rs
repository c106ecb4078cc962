//! `[retention]`: how much of the logs is kept.

use std::time::Duration;

use super::reader::forms::{Bytes, Count, DurationForm, Flag};
use super::reader::section::Section;

/// `[retention]`: how much of the logs is kept. 0 means no limit; of several limits of one log the strictest counts.
///
/// Whatever the limits say, what is still needed stays: receipts of cuts to come, runs that are not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetentionConfig {
    /// Age of receipts, 0s to 10years. Runs leave with the receipts of their cuts.
    pub receipts_age_max: Duration,
    /// Receipts, 0 to 10^15.
    pub receipts_records_max: u64,
    /// Bytes of the receipt log, 0B to 1048576GiB.
    pub receipts_bytes_max: u64,
    /// Age of run records, 0s to 10years. Runs may leave before their receipts.
    pub runs_age_max: Duration,
    /// Run records, 0 to 10^15.
    pub runs_records_max: u64,
    /// Bytes of the run log, 0B to 1048576GiB.
    pub runs_bytes_max: u64,
    /// Age of quarantined items, 0s to 10years.
    pub quarantine_age_max: Duration,
    /// Bytes of the quarantine, 0B to 1048576GiB.
    pub quarantine_bytes_max: u64,
    /// Time between two checks, 1s to 1day.
    pub check_every: Duration,
    /// Whether records are copied to `archive/` in the data directory before they leave an embedded log.
    pub archive: bool,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            receipts_age_max: Duration::ZERO,
            receipts_records_max: 0,
            receipts_bytes_max: 0,
            runs_age_max: Duration::ZERO,
            runs_records_max: 0,
            runs_bytes_max: 0,
            quarantine_age_max: Duration::ZERO,
            quarantine_bytes_max: 0,
            check_every: Duration::from_secs(60),
            archive: false,
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// Ten years as durations are written: 365.25 days each.
const YEARS_10: Duration = Duration::from_secs(315_576_000);

impl RetentionConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let age = DurationForm(Duration::ZERO..=YEARS_10);
        let records = Count(0..=1_000_000_000_000_000);
        let bytes = Bytes(0..=1 << 50);
        section.read_value("receipts_age_max", &mut config.receipts_age_max, &age);
        section.read_value("receipts_records_max", &mut config.receipts_records_max, &records);
        section.read_value("receipts_bytes_max", &mut config.receipts_bytes_max, &bytes);
        section.read_value("runs_age_max", &mut config.runs_age_max, &age);
        section.read_value("runs_records_max", &mut config.runs_records_max, &records);
        section.read_value("runs_bytes_max", &mut config.runs_bytes_max, &bytes);
        section.read_value("quarantine_age_max", &mut config.quarantine_age_max, &age);
        section.read_value("quarantine_bytes_max", &mut config.quarantine_bytes_max, &bytes);
        section.read_value(
            "check_every",
            &mut config.check_every,
            &DurationForm(Duration::from_secs(1)..=DAY),
        );
        section.read_value("archive", &mut config.archive, &Flag);
        config
    }
}
