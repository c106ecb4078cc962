//! `[trading.journal]`: how the journal is written, and how long it is kept.

use std::time::Duration;

use orchestrator_runtime::group_commit::BatchLimits;
use orchestrator_runtime::log_writer::LogWriterSettings;
use orchestrator_trading_plane::journal::JournalSettings;

use crate::config::reader::forms::{Bytes, Count, DurationForm};
use crate::config::reader::section::Section;

/// `[trading.journal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradingJournalConfig {
    /// Records that become durable together, 1 to 65536.
    pub batch_records_max: usize,
    /// Their bytes, 64KiB to 256MiB.
    pub batch_bytes_max: u64,
    /// How long records that nobody waits for may wait for company, 0s to 1s.
    pub linger: Duration,
    /// From this time on an append counts as one that is not answered, 10ms to 1m.
    pub slow_after: Duration,
    /// Records between two checkpoints, 1000 to 1000000000.
    pub checkpoint_every_records: u64,
    /// Records that may be on their way to it, 16 to 1000000. Beyond it their authors wait.
    pub queue_max: u32,
    /// How long a schedule waits before it asks again whether the journal takes records, 10ms to 1m.
    pub retry_after: Duration,
    /// Age of records, 0s to 10years; 0 means no limit.
    pub age_max: Duration,
    /// Bytes of the journal, 0B to 1048576GiB; 0 means no limit.
    pub bytes_max: u64,
}

const DAY_SECONDS: u64 = 86_400;
/// Ten years as durations are written: 365.25 days each.
const YEARS_10: Duration = Duration::from_secs(315_576_000);

impl Default for TradingJournalConfig {
    fn default() -> Self {
        Self {
            batch_records_max: 1024,
            batch_bytes_max: 4 << 20,
            linger: Duration::from_millis(5),
            slow_after: Duration::from_secs(1),
            checkpoint_every_records: 100_000,
            queue_max: 10_000,
            retry_after: Duration::from_secs(1),
            age_max: Duration::from_secs(365 * DAY_SECONDS),
            bytes_max: 0,
        }
    }
}

impl TradingJournalConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let (ms, second) = (Duration::from_millis, Duration::from_secs(1));
        section.read_value("batch_records_max", &mut config.batch_records_max, &Count(1..=65_536));
        section.read_value("batch_bytes_max", &mut config.batch_bytes_max, &Bytes(64 << 10..=256 << 20));
        section.read_value("linger", &mut config.linger, &DurationForm(Duration::ZERO..=second));
        section.read_value("slow_after", &mut config.slow_after, &DurationForm(ms(10)..=second * 60));
        let records = Count(1000..=1_000_000_000);
        section.read_value("checkpoint_every_records", &mut config.checkpoint_every_records, &records);
        section.read_value("queue_max", &mut config.queue_max, &Count(16..=1_000_000));
        section.read_value("retry_after", &mut config.retry_after, &DurationForm(ms(10)..=second * 60));
        section.read_value("age_max", &mut config.age_max, &DurationForm(Duration::ZERO..=YEARS_10));
        section.read_value("bytes_max", &mut config.bytes_max, &Bytes(0..=1 << 50));
        config
    }

    /// How the journal is written. `timing` is what the storage needs.
    pub(super) fn journal_settings(&self, timing: JournalTiming) -> JournalSettings {
        JournalSettings {
            writer: LogWriterSettings {
                limits: BatchLimits {
                    records: self.batch_records_max,
                    bytes: usize::try_from(self.batch_bytes_max).unwrap_or(usize::MAX),
                },
                resend_after: timing.resend_after,
                probe_every: timing.probe_every,
                reopen_after: timing.reopen_after,
            },
            linger: self.linger,
            slow_after: self.slow_after,
            checkpoint_every: self.checkpoint_every_records,
        }
    }
}

/// Times of the journal's writer that its storage decides, as those of every other log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalTiming {
    /// How long after an unanswered attempt a batch is sent again.
    pub resend_after: Duration,
    /// How often an idle log is asked whether it is still there and ours; nothing for one that cannot go away.
    pub probe_every: Option<Duration>,
    /// How long after a refusal for want of room the log is asked whether there is some.
    pub reopen_after: Duration,
}
