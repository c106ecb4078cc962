//! `[trading.calendars.<name>]`: calendars of markets, beyond or over those that are compiled in.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use orchestrator_kernel::trading::calendar::{CalendarFileError, CalendarOverrides, MarketCalendar};
use sha2::{Digest as _, Sha256};

use super::forms::{NAME_ALLOWED, NAME_REFUSAL, is_name};
use crate::config::reader::file::read_text;
use crate::config::reader::forms::{OptionalPath, TextForm, Texts};
use crate::config::reader::section::Section;

/// A calendar that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalendarConfig {
    /// Its sessions.
    pub market: Arc<MarketCalendar>,
    /// SHA-256 over its file and what stands over it, for the record: other sessions are other decisions.
    pub digest: String,
}

/// The calendars by name.
pub type TradingCalendars = BTreeMap<String, CalendarConfig>;

/// Calendar of strategies and schedules that name none.
pub(super) const DEFAULT_CALENDAR: &str = "XNYS";

/// The calendar files that are compiled in.
const FILES: [(&str, &str); 4] = [
    ("24-7", include_str!("../../../config/calendars/24-7.json")),
    ("CMES", include_str!("../../../config/calendars/CMES.json")),
    ("XLON", include_str!("../../../config/calendars/XLON.json")),
    ("XNYS", include_str!("../../../config/calendars/XNYS.json")),
];

/// The shipped calendars, parsed once.
static SHIPPED: LazyLock<TradingCalendars> = LazyLock::new(|| {
    let parse = |(name, text): (&str, &str)| {
        let market = MarketCalendar::parse(text.as_bytes()).ok()?;
        Some((name.to_owned(), CalendarConfig::new(market, text, &CalendarOverrides::default())))
    };
    FILES.into_iter().filter_map(parse).collect()
});

/// The calendars that come with the program.
pub(super) fn shipped_calendars() -> TradingCalendars {
    SHIPPED.clone()
}

impl CalendarConfig {
    fn new(market: MarketCalendar, text: &str, overrides: &CalendarOverrides) -> Self {
        let over = format!("{overrides:?}");
        let digest = Sha256::new().chain_update(text).chain_update(over).finalize();
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { market: Arc::new(market), digest }
    }
}

/// Dates that an operator may put over a file, of each kind.
const DATES_MAX: usize = 1000;
/// Largest calendar file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A date. Whether there is such a one, the calendar says.
const DATE: TextForm = TextForm { accepts: is_short_line, allowed: "date YYYY-MM-DD" };
/// A date with a time of day.
const DATE_AND_TIME: TextForm = TextForm {
    accepts: |text| is_short_line(text) && text.split_whitespace().count() == 2,
    allowed: "date and time of day YYYY-MM-DD HH:MM",
};

fn is_short_line(text: &str) -> bool {
    text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// Reads the calendars: the shipped ones, with what the configuration says of them, and others.
pub(super) fn read_calendars(section: &mut Section<'_>) -> TradingCalendars {
    let mut calendars = shipped_calendars();
    let names: Vec<&str> = section.given_keys().into_iter().filter(|name| is_name(name)).collect();
    section.read_sections(&names, (NAME_REFUSAL, NAME_ALLOWED), |name, section| {
        let shipped = FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        // What is wrong with it is told; the shipped one stands in, so that nothing else is told because of it.
        let stand_in = || SHIPPED.get(name).or_else(|| SHIPPED.get(DEFAULT_CALENDAR)).cloned();
        if let Some(calendar) = read_calendar(section, shipped).or_else(stand_in) {
            calendars.insert(name.to_owned(), calendar);
        }
    });
    calendars
}

fn read_calendar(section: &mut Section<'_>, shipped: Option<&str>) -> Option<CalendarConfig> {
    let mut file: Option<PathBuf> = None;
    section.read_value("file", &mut file, &OptionalPath);
    let overrides = read_overrides(section);
    let text = match (&file, shipped) {
        (Some(path), _) => match read_regular_file(path) {
            Ok(text) => text,
            Err(error) => {
                let what = format!("cannot be read: {error}");
                section.refuse_key("file", what, "a readable calendar file of at most 1MiB");
                return None;
            }
        },
        (None, Some(text)) => text.to_owned(),
        (None, None) => {
            if section.is_accepted("file") {
                let what = "is missing: no calendar of this name is compiled in".to_owned();
                section.refuse_key("file", what, "a file like those in config/calendars");
            }
            return None;
        }
    };
    let parsed = MarketCalendar::parse(text.as_bytes());
    let market = parsed.map_err(|error| refuse_file(section, &error)).ok()?;
    let market = market.with_overrides(&overrides);
    let market = market.map_err(|error| refuse_overrides(section, &error)).ok()?;
    Some(CalendarConfig::new(market, &text, &overrides))
}

fn read_overrides(section: &mut Section<'_>) -> CalendarOverrides {
    let mut overrides = CalendarOverrides::default();
    let dates = Texts { item: DATE, items_max: DATES_MAX };
    section.read_value("closed", &mut overrides.closed, &dates);
    section.read_value("open", &mut overrides.open, &dates);
    let times = Texts { item: DATE_AND_TIME, items_max: DATES_MAX };
    let (mut early_closes, mut late_opens) = (Vec::new(), Vec::new());
    section.read_value("early_closes", &mut early_closes, &times);
    section.read_value("late_opens", &mut late_opens, &times);
    overrides.early_closes = split_times(&early_closes);
    overrides.late_opens = split_times(&late_opens);
    overrides
}

fn split_times(texts: &[String]) -> BTreeMap<String, String> {
    let split = |text: &String| {
        let (date, time) = text.trim().split_once(' ')?;
        Some((date.to_owned(), time.trim().to_owned()))
    };
    texts.iter().filter_map(split).collect()
}

/// The text of a file, and of nothing that has no end or no beginning, such as a pipe.
fn read_regular_file(path: &Path) -> io::Result<String> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    read_text(path, FILE_BYTES_MAX)
}

fn refuse_file(section: &mut Section<'_>, error: &CalendarFileError) {
    let what = match error {
        CalendarFileError::Unreadable(source) => format!("holds no calendar: {source}"),
        CalendarFileError::Faults(faults) => {
            let told: Vec<&str> = faults.iter().take(FAULTS_TOLD_MAX).map(String::as_str).collect();
            format!("holds no calendar: {}", told.join("; "))
        }
    };
    section.refuse_key("file", what, "a file like those in config/calendars");
}

fn refuse_overrides(section: &mut Section<'_>, error: &CalendarFileError) {
    let faults = match error {
        CalendarFileError::Faults(faults) => faults.clone(),
        CalendarFileError::Unreadable(source) => vec![source.to_string()],
    };
    let of_key = |fault: &String| {
        KEYS.into_iter().find_map(|key| {
            let what = fault.strip_prefix(key)?.strip_prefix(": ")?;
            Some((key, what.to_owned()))
        })
    };
    let mut told: Vec<(&str, String)> = faults.iter().filter_map(of_key).collect();
    if told.is_empty() {
        // The others begin with a date, and are about both lists or about the date's times. Where an entry could not
        // be read they only follow from that.
        let key = |fault: &str| if fault.ends_with("closed and open") { "open" } else { "early_closes" };
        told = faults.into_iter().map(|fault| (key(&fault), fault)).collect();
    }
    for (key, what) in told.into_iter().take(FAULTS_TOLD_MAX) {
        section.refuse_key(key, what, "dates and times that the calendar can have");
    }
}

/// Keys that stand over a file.
const KEYS: [&str; 4] = ["closed", "open", "early_closes", "late_opens"];
/// Faults of one file that are told; a file of another kind has thousands.
const FAULTS_TOLD_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_calendar_is_compiled_in() {
        let names: Vec<String> = shipped_calendars().into_keys().collect();

        assert_eq!(names, ["24-7", "CMES", "XLON", "XNYS"]);
        assert!(SHIPPED.contains_key(DEFAULT_CALENDAR));
        assert!(SHIPPED.values().all(|calendar| calendar.digest.len() == 64));
    }
}
