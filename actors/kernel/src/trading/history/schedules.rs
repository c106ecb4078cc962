//! Schedules as a configuration snapshot records them, so that the journal alone says what their rows hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::TsMs;
use crate::trading::ids::{ScheduleName, StrategyName};
use crate::trading::schedule::{CronTrigger, ScheduleTrigger};
use crate::trading::zone::MarketZone;

/// Where a snapshot's settings hold them: one each, with its name behind this.
const SETTING: &str = "history.schedules.";

/// Trigger of a schedule, as it was configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HistoryTrigger {
    /// At every multiple of so many milliseconds.
    Interval(u32),
    /// A cron pattern and the name of its zone.
    Cron(String, String),
    /// A place in the market's session, as `open+15m`.
    Calendar(String),
    /// Events and outputs, by their topics; nothing for a schedule that only people begin.
    Event(String),
}

/// A schedule, as far as its rows need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistorySchedule {
    /// When it fires.
    pub trigger: HistoryTrigger,
    /// The strategies that its cycles work for. It has a row with each, and without any it has none.
    pub strategies: Vec<StrategyName>,
}

impl HistorySchedule {
    /// The setting that a configuration snapshot has to hold for the schedule of this name.
    #[must_use]
    pub fn to_setting(&self, name: &ScheduleName) -> (String, String) {
        // Names and texts only: the writer has no way to fail.
        (format!("{SETTING}{name}"), serde_json::to_string(self).unwrap_or_default())
    }

    /// The schedules of a snapshot. A setting that is none of them is another program's, and is passed over.
    #[must_use]
    pub fn of_settings(settings: &BTreeMap<String, String>) -> BTreeMap<ScheduleName, Self> {
        let ours = settings.range(SETTING.to_owned()..);
        let ours = ours.map_while(|(path, value)| Some((path.strip_prefix(SETTING)?, value)));
        ours.filter_map(|(name, value)| Some((ScheduleName::new(name)?, serde_json::from_str(value).ok()?)))
            .collect()
    }

    /// The word of `schedule_type`.
    pub(super) const fn type_word(&self) -> &'static str {
        match self.trigger {
            HistoryTrigger::Interval(_) => "interval",
            HistoryTrigger::Cron(..) => "cron",
            HistoryTrigger::Calendar(_) => "calendar",
            HistoryTrigger::Event(_) => "event",
        }
    }

    /// The text of `schedule_value`.
    pub(super) fn value_text(&self) -> String {
        match &self.trigger {
            HistoryTrigger::Interval(every_ms) => every_ms.to_string(),
            HistoryTrigger::Cron(text, _) | HistoryTrigger::Calendar(text) | HistoryTrigger::Event(text) => {
                text.clone()
            }
        }
    }

    /// The next planned time after `at`, where the definition alone says so. A calendar's data are not in the journal,
    /// and an event has no time.
    pub(super) fn next_fire(&self, at: TsMs) -> Option<TsMs> {
        let trigger = match &self.trigger {
            HistoryTrigger::Interval(every_ms) => ScheduleTrigger::Interval { every_ms: *every_ms },
            HistoryTrigger::Cron(pattern, zone) => {
                let zone = MarketZone::find_zone(zone).ok()?;
                ScheduleTrigger::Cron(CronTrigger::parse(pattern, zone).ok()?)
            }
            HistoryTrigger::Calendar(_) | HistoryTrigger::Event(_) => return None,
        };
        trigger.first_fire_after(at, None).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trading::testkit::{WALL, schedule_name, strategy_name};

    fn schedule(trigger: HistoryTrigger) -> HistorySchedule {
        HistorySchedule { trigger, strategies: vec![strategy_name("a"), strategy_name("b")] }
    }

    #[test]
    fn schedules_are_read_as_they_are_written_and_what_is_none_is_passed_over() {
        let cron = HistoryTrigger::Cron("0 9 * * 1-5".to_owned(), "America/New_York".to_owned());
        let written = [
            ("beat", schedule(HistoryTrigger::Interval(30_000))),
            ("daily", schedule(cron)),
            ("open", schedule(HistoryTrigger::Calendar("open+15m".to_owned()))),
        ];
        let mut settings: BTreeMap<String, String> =
            written.iter().map(|(name, schedule)| schedule.to_setting(&schedule_name(name))).collect();
        settings.insert("history.schedules.odd".to_owned(), "every day".to_owned());
        settings.insert("history.schedules.a b".to_owned(), settings["history.schedules.beat"].clone());
        settings.insert("schedule.interval".to_owned(), "3m".to_owned());

        let read = HistorySchedule::of_settings(&settings);

        let expected: BTreeMap<_, _> =
            written.into_iter().map(|(name, it)| (schedule_name(name), it)).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn the_next_time_follows_from_an_interval_or_a_pattern_and_from_nothing_else() {
        let cron = |pattern: &str, zone: &str| HistoryTrigger::Cron(pattern.to_owned(), zone.to_owned());
        for (trigger, next) in [
            (HistoryTrigger::Interval(60_000), Some(WALL + 60_000)),
            (HistoryTrigger::Interval(0), None),
            // 2026-01-09 is a Friday; 23:51 UTC is 18:51 in New York.
            (cron("0 9 * * 1-5", "America/New_York"), Some(1_768_226_400_000)),
            (cron("0 9 * * 1-5", "Atlantis/Sunken"), None),
            (cron("nine", "America/New_York"), None),
            (HistoryTrigger::Calendar("open+15m".to_owned()), None),
            (HistoryTrigger::Event("ai.decision.*".to_owned()), None),
        ] {
            assert_eq!(schedule(trigger.clone()).next_fire(TsMs(WALL)), next.map(TsMs), "{trigger:?}");
        }
    }
}
