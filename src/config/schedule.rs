//! `[schedule]` and `[symbols]`: when runs happen, and for what.

use std::time::Duration;

use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::ids::{SYMBOL_BYTES_MAX, Symbol};

use super::reader::forms::{Count, DurationForm, Flag, OneOf, TextForm, Texts};
use super::reader::section::Section;

/// `[schedule]`: the cadence and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleConfig {
    /// When runs happen: `mode`, `interval` (10ms to 7days), and `delay` (0s to 1h, shorter than the interval) in
    /// boundary mode or `align` (1ms to 7days, divides the interval) in timer mode.
    pub cadence: Cadence,
    /// Missed ticks that are made up after a pause, the latest ones, 0 to 100000. Older ones are recorded as skipped.
    pub catch_up_max: u32,
    /// Runs of one symbol that may wait for its running one, 1 to 1000. Further ones are recorded as skipped.
    pub runs_queued_max: usize,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            cadence: Cadence::Boundary {
                interval_ms: whole_ms(DEFAULT_INTERVAL),
                delay_ms: whole_ms(DEFAULT_DELAY),
            },
            catch_up_max: 20,
            runs_queued_max: 4,
        }
    }
}

/// The modes, without their options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Boundary,
    Timer,
}

/// `interval` when none is given: that of the Regime Engine's snapshots.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(180);
/// `delay` when none is given.
const DEFAULT_DELAY: Duration = Duration::from_millis(500);
/// Range of `interval`.
const INTERVAL: DurationForm = DurationForm(Duration::from_millis(10)..=Duration::from_secs(7 * 86_400));

/// Why timer mode has no default `align`. Source: CONTRACTS, section 2.
const WHY_ALIGN: &str = "a raw wall-clock timestamp can never equal the aligned timestamp_ms of a SnapshotInputs, so timer \
                         mode floors engine_timestamp_ms to multiples of align, and which ones the snapshots have must be said";

impl ScheduleConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let mut mode = Mode::Boundary;
        section.read_value(
            "mode",
            &mut mode,
            &OneOf(&[("boundary", Mode::Boundary), ("timer", Mode::Timer)]),
        );
        let (mut interval, mut delay) = (DEFAULT_INTERVAL, DEFAULT_DELAY);
        section.read_value("interval", &mut interval, &INTERVAL);
        config.cadence = match mode {
            Mode::Boundary => {
                section.read_value(
                    "delay",
                    &mut delay,
                    &DurationForm(Duration::ZERO..=Duration::from_secs(3600)),
                );
                section.refuse_inapplicable("align", "boundary mode is aligned to its interval");
                Cadence::Boundary { interval_ms: whole_ms(interval), delay_ms: whole_ms(delay) }
            }
            Mode::Timer => {
                section.refuse_inapplicable("delay", "timer mode cuts at the tick itself");
                let aligns = DurationForm(Duration::from_millis(1)..=Duration::from_secs(7 * 86_400));
                let align = section.read_required("align", WHY_ALIGN, &aligns);
                Cadence::Timer {
                    interval_ms: whole_ms(interval),
                    align_ms: whole_ms(align.unwrap_or(interval)),
                }
            }
        };
        section.read_value("catch_up_max", &mut config.catch_up_max, &Count(0..=100_000));
        section.read_value("runs_queued_max", &mut config.runs_queued_max, &Count(1..=1000));
        config
    }
}

/// Whole milliseconds; the ranges keep them far below the type's.
fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// `[symbols]`: for which symbols runs are made. Receipts of all others are recorded all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SymbolsConfig {
    /// `list = […]`: exactly these.
    List(Vec<Symbol>),
    /// `discover = true`: every symbol that a receipt names.
    Discover {
        /// Symbols at most, 1 to 100000; runs are not made for further ones.
        limit: usize,
    },
}

impl Default for SymbolsConfig {
    fn default() -> Self {
        Self::Discover { limit: 1000 }
    }
}

/// Symbols that a list can have.
const LISTED_MAX: usize = 100_000;

impl SymbolsConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let Self::Discover { mut limit } = Self::default() else { return Self::default() };
        let mut discover = !section.has_key("list");
        section.read_value("discover", &mut discover, &Flag);
        if section.has_key("list") {
            return Self::read_list(section, discover);
        }
        if !discover {
            section.refuse_key(
                "discover",
                "is false and there is no list, so there would be no run".to_owned(),
                "a list, or discover = true",
            );
        }
        section.expect_key("list");
        section.read_value("limit", &mut limit, &Count(1..=LISTED_MAX as u64));
        Self::Discover { limit }
    }

    fn read_list(section: &mut Section<'_>, discover: bool) -> Self {
        let mut names: Vec<String> = Vec::new();
        let symbol =
            TextForm { accepts: Symbol::is_valid, allowed: "1 to 128 bytes without control characters" };
        section.read_value("list", &mut names, &Texts { item: symbol, items_max: LISTED_MAX });
        section.refuse_inapplicable("limit", "it bounds discovery, and there is a list");
        if discover {
            section.refuse_key(
                "discover",
                "is true although there is a list".to_owned(),
                "a list, or discover = true",
            );
        } else if names.is_empty() && section.is_accepted("list") {
            section.refuse_key(
                "list",
                "is empty, so there would be no run".to_owned(),
                "at least one symbol",
            );
        }
        let mut sorted = names.clone();
        sorted.sort_unstable();
        if let Some([twice, _]) = sorted.array_windows().find(|[a, b]| a == b) {
            section.refuse_key("list", format!("names {twice:?} twice"), "each symbol once");
        }
        Self::List(names.iter().map(|name| Symbol::from(name.as_str())).collect())
    }
}

/// The documented bound of a symbol's name is the kernel's.
const _: () = assert!(SYMBOL_BYTES_MAX == 128);
