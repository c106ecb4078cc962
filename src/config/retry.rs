//! The retry tables inside other sections. Delays start at `min`, double, and stay at `max`; there is no jitter, so
//! the same failures give the same delays.

use std::time::Duration;

use orchestrator_kernel::retry::RetrySchedule;

use super::reader::forms::{Count, DurationForm};
use super::reader::section::Section;

/// Shortest and longest delay that can be configured.
pub(super) const DELAY: DurationForm = DurationForm(Duration::from_millis(1)..=Duration::from_secs(600));

/// Reads a retry table: `min` and `max` (1ms to 10m), `max_attempts` (1 to 1000), `max_elapsed` (1ms to 1day).
pub(super) fn read_schedule(schedule: &mut RetrySchedule, section: &mut Section<'_>) {
    section.read_value("min", &mut schedule.min, &DELAY);
    section.read_value("max", &mut schedule.max, &DELAY);
    section.read_value("max_attempts", &mut schedule.max_attempts, &Count(1..=1000));
    let elapsed = DurationForm(Duration::from_millis(1)..=Duration::from_secs(86_400));
    section.read_value("max_elapsed", &mut schedule.max_elapsed, &elapsed);
}

/// Opening a lost connection again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectConfig {
    /// Delay before the first attempt, 1ms to 10m.
    pub min: Duration,
    /// Longest delay, 1ms to 10m. At least `min`.
    pub max: Duration,
    /// Attempts without success before the source is given up, 0 to 1000000; 0 means never.
    pub max_attempts: u32,
}

impl ReconnectConfig {
    pub(super) fn read_keys(&mut self, section: &mut Section<'_>) {
        section.read_value("min", &mut self.min, &DELAY);
        section.read_value("max", &mut self.max, &DELAY);
        section.read_value("max_attempts", &mut self.max_attempts, &Count(0..=1_000_000));
    }
}
