//! `[trading.schedules.<name>]`: when cycles begin, and what becomes of a fire that is late or finds one running.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::trading::ids::{PipelineName, ScheduleName};
use orchestrator_kernel::trading::pipeline::{DefaultCadence, default_cadence};
use orchestrator_kernel::trading::schedule::{
    CronTrigger, CycleSchedule, FireRateLimit, MisfirePolicy, OverlapPolicy, ScheduleTrigger,
};
use orchestrator_kernel::trading::zone::MarketZone;

use super::calendars::TradingCalendars;
use super::forms::{NAME_ALLOWED, NAME_REFUSAL, SessionEdgeForm, TOPIC_PATTERN, TRADING_NAME, ZONE, is_name};
use super::hours::{FireHours, TradingHoursConfig};
use super::pipelines::TradingPipelines;
use crate::config::reader::forms::{
    Count, DurationForm, Flag, OneOf, SettingForm as _, TextForm, Texts, duration_text, is_line,
};
use crate::config::reader::section::Section;

/// A schedule, as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct CycleScheduleConfig {
    /// Whether it fires.
    pub enabled: bool,
    /// What its cycles do.
    pub pipeline: PipelineName,
    /// What makes it fire.
    pub trigger: CycleTriggerConfig,
    /// What becomes of its fires.
    pub policies: FirePolicies,
}

/// Trigger of a schedule, as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct CycleTriggerConfig {
    /// Times that it fires at, if time makes it fire.
    pub trigger: ScheduleTrigger,
    /// Its value as it is written, for the record: a length, a pattern, an edge, topics.
    pub written: String,
    /// Topics whose events make it fire.
    pub topics: Vec<String>,
    /// Whether outputs of the engine plane make it fire.
    pub on_outputs: bool,
}

impl CycleTriggerConfig {
    /// The word of its kind, as the configuration and specification 002's `schedule_type` have it.
    #[must_use]
    pub fn kind_word(&self) -> &'static str {
        match self.trigger {
            ScheduleTrigger::Interval { .. } => "interval",
            ScheduleTrigger::Cron(_) => "cron",
            ScheduleTrigger::Session { .. } => "session",
            ScheduleTrigger::OnDemand if self.topics.is_empty() && !self.on_outputs => "manual",
            ScheduleTrigger::OnDemand => "event",
        }
    }
}

/// Policies of a schedule. Overlap and misfire have no default, but in the shipped schedules, where they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirePolicies {
    /// Market whose sessions count.
    pub calendar: String,
    /// Hours outside of which a fire is skipped.
    pub hours: FireHours,
    /// For fires that find as many cycles running as may.
    pub overlap: OverlapPolicy,
    /// For fires that are late.
    pub misfire: MisfirePolicy,
    /// From this lateness on a fire is a misfire, 0s to 1h.
    pub misfire_after: Duration,
    /// Beyond this lateness a fire is skipped whatever the policy, 0s to 30days.
    pub lateness_max: Duration,
    /// Cycles of it that may run at a time, 1 to 1000.
    pub concurrent_max: u32,
    /// Fires within `rate_period`, 0 to 1000000; 0 for no limit.
    pub rate_max: u32,
    /// Period that `rate_max` counts in, 1s to 1day.
    pub rate_period: Duration,
    /// Among fires that are due at one moment the higher one begins first, 0 to 1000.
    pub priority: i32,
}

/// The schedules by name.
pub type TradingSchedules = BTreeMap<ScheduleName, CycleScheduleConfig>;

/// Names of the shipped schedules: one for each pipeline that the specifications give a cadence.
///
/// Source: specification 002, "Cycle types".
const SHIPPED: [&str; 3] = ["analysis", "heartbeat", "rebalance"];

/// Kinds of triggers, without their options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TriggerKind {
    Interval,
    Cron,
    Session,
    Event,
    Manual,
}

/// Keys that belong to one kind of trigger.
const TRIGGER_KEYS: [&str; 6] = ["interval", "cron", "zone", "at", "topics", "on_outputs"];

impl TriggerKind {
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Interval => &["interval"],
            Self::Cron => &["cron", "zone"],
            Self::Session => &["at"],
            Self::Event => &["topics", "on_outputs"],
            Self::Manual => &[],
        }
    }

    const fn of_shipped(trigger: &ScheduleTrigger) -> Self {
        match trigger {
            ScheduleTrigger::Interval { .. } => Self::Interval,
            ScheduleTrigger::Cron(_) => Self::Cron,
            ScheduleTrigger::Session { .. } => Self::Session,
            ScheduleTrigger::OnDemand => Self::Manual,
        }
    }
}

const KINDS: OneOf<TriggerKind> = OneOf(&[
    ("interval", TriggerKind::Interval),
    ("cron", TriggerKind::Cron),
    ("session", TriggerKind::Session),
    ("event", TriggerKind::Event),
    ("manual", TriggerKind::Manual),
]);
const HOURS: OneOf<FireHours> =
    OneOf(&[("any", FireHours::Any), ("session", FireHours::Session), ("extended", FireHours::Extended)]);
const OVERLAPS: OneOf<OverlapPolicy> = OneOf(&[
    ("skip", OverlapPolicy::Skip),
    ("queue_one", OverlapPolicy::QueueOne),
    ("cancel", OverlapPolicy::Cancel),
]);
const MISFIRES: OneOf<MisfirePolicy> =
    OneOf(&[("skip", MisfirePolicy::Skip), ("latest", MisfirePolicy::Latest), ("all", MisfirePolicy::All)]);
const INTERVAL: DurationForm = DurationForm(Duration::from_millis(10)..=Duration::from_secs(7 * 86_400));
const MISFIRE_AFTER: DurationForm = DurationForm(Duration::ZERO..=Duration::from_secs(3600));
const LATENESS: DurationForm = DurationForm(Duration::ZERO..=Duration::from_secs(30 * 86_400));
const RATE_PERIOD: DurationForm = DurationForm(Duration::from_secs(1)..=Duration::from_secs(86_400));
const CRON: TextForm = TextForm {
    accepts: |text| text.len() <= 200 && is_line(text),
    allowed: "five fields, or six with seconds first, for example 0 9 * * 1-5",
};
/// Patterns that a schedule listens to.
const TOPICS: Texts = Texts { item: TOPIC_PATTERN, items_max: 64 };

/// From this lateness on a fire is a misfire, where nothing is said: more than a busy machine is late.
const MISFIRE_AFTER_DEFAULT: Duration = Duration::from_secs(5);

/// The shipped schedule of this name. It does not fire before it is enabled.
fn shipped_schedule(name: &str, hours: &TradingHoursConfig, calendar: &str) -> Option<CycleScheduleConfig> {
    let (trigger, written) = match default_cadence(name).filter(|_| SHIPPED.contains(&name))? {
        DefaultCadence::Every(interval) => (interval_trigger(interval), duration_text(interval)),
        DefaultCadence::Cron(pattern) => {
            let zone = MarketZone::find_zone(&hours.zone).ok()?;
            let cron = CronTrigger::parse(pattern, zone).ok()?;
            (ScheduleTrigger::Cron(cron), pattern.to_owned())
        }
    };
    let (fire_hours, misfire, lateness_max) = match name {
        "heartbeat" => (FireHours::Any, MisfirePolicy::Skip, MISFIRE_AFTER_DEFAULT),
        // At 09:00 the market of a session's day is in its pre-market; on a holiday it is closed.
        "rebalance" => (FireHours::Extended, MisfirePolicy::Latest, Duration::from_secs(1800)),
        _ => (FireHours::Session, MisfirePolicy::Skip, MISFIRE_AFTER_DEFAULT),
    };
    Some(CycleScheduleConfig {
        enabled: false,
        pipeline: PipelineName::new(name)?,
        trigger: CycleTriggerConfig { trigger, written, topics: Vec::new(), on_outputs: false },
        policies: FirePolicies {
            calendar: calendar.to_owned(),
            hours: fire_hours,
            overlap: OverlapPolicy::Skip,
            misfire,
            misfire_after: MISFIRE_AFTER_DEFAULT,
            lateness_max,
            concurrent_max: 1,
            rate_max: 0,
            rate_period: Duration::from_secs(60),
            priority: 0,
        },
    })
}

/// The shipped schedules.
pub(super) fn default_schedules(hours: &TradingHoursConfig, calendar: &str) -> TradingSchedules {
    let shipped = |name: &&str| Some((ScheduleName::new(name)?, shipped_schedule(name, hours, calendar)?));
    SHIPPED.iter().filter_map(shipped).collect()
}

/// Every so often. The range of the setting keeps it within the type.
fn interval_trigger(interval: Duration) -> ScheduleTrigger {
    ScheduleTrigger::Interval { every_ms: u32::try_from(interval.as_millis()).unwrap_or(u32::MAX) }
}

/// What reading a schedule needs to know besides its section.
pub(super) struct ScheduleReader<'a> {
    pub(super) hours: &'a TradingHoursConfig,
    pub(super) calendars: &'a TradingCalendars,
    pub(super) default_calendar: &'a str,
    pub(super) pipelines: &'a TradingPipelines,
}

impl ScheduleReader<'_> {
    /// Reads the schedules, the shipped ones as [`read_pipelines`](super::pipelines::read_pipelines) does.
    pub(super) fn read_schedules(&self, section: &mut Section<'_>, shows_shipped: bool) -> TradingSchedules {
        let mut schedules = default_schedules(self.hours, self.default_calendar);
        let always: &[&str] = if shows_shipped { &SHIPPED } else { &[] };
        let given = section.given_keys().into_iter().filter(|name| is_name(name) && !always.contains(name));
        let names: Vec<&str> = always.iter().copied().chain(given).collect();
        section.read_sections(&names, (NAME_REFUSAL, NAME_ALLOWED), |name, section| {
            let Some(name) = ScheduleName::new(name) else { return };
            let shipped = schedules.get(&name).cloned();
            if let Some(read) = self.read_schedule(shipped.as_ref(), section) {
                schedules.insert(name, read);
            }
        });
        schedules
    }

    fn read_schedule(
        &self,
        shipped: Option<&CycleScheduleConfig>,
        section: &mut Section<'_>,
    ) -> Option<CycleScheduleConfig> {
        // A schedule that a user adds is meant to fire.
        let mut enabled = shipped.is_none();
        section.read_value("enabled", &mut enabled, &Flag);
        let pipeline = section.read_defaulted(
            "pipeline",
            shipped.map(|shipped| shipped.pipeline.to_string()),
            "it says what the cycles do",
            &TRADING_NAME,
        );
        refuse_unknown_pipeline(section, self.pipelines, pipeline.as_deref());
        let kind = shipped.map(|shipped| TriggerKind::of_shipped(&shipped.trigger.trigger));
        let kind = section.read_defaulted("trigger", kind, "it says what makes it fire", &KINDS);
        let trigger = match kind {
            Some(kind) => self.read_trigger(kind, shipped.map(|shipped| &shipped.trigger), section),
            None => {
                // Which of them it may have is unknown without the trigger.
                TRIGGER_KEYS.into_iter().for_each(|key| section.expect_key(key));
                None
            }
        };
        let policies = self.read_policies(shipped.map(|shipped| &shipped.policies), section);
        Some(CycleScheduleConfig {
            enabled,
            pipeline: PipelineName::new(&pipeline?)?,
            trigger: trigger?,
            policies: policies?,
        })
    }

    /// Reads the keys of this kind of trigger, and refuses those of the others.
    fn read_trigger(
        &self,
        kind: TriggerKind,
        shipped: Option<&CycleTriggerConfig>,
        section: &mut Section<'_>,
    ) -> Option<CycleTriggerConfig> {
        for key in TRIGGER_KEYS.into_iter().filter(|key| !kind.keys().contains(key)) {
            section.refuse_inapplicable(key, "the schedule has another trigger");
        }
        let of_time =
            |trigger, written| CycleTriggerConfig { trigger, written, topics: Vec::new(), on_outputs: false };
        match kind {
            TriggerKind::Interval => {
                let default = shipped.and_then(|shipped| match shipped.trigger {
                    ScheduleTrigger::Interval { every_ms } => {
                        Some(Duration::from_millis(u64::from(every_ms)))
                    }
                    ScheduleTrigger::Cron(_)
                    | ScheduleTrigger::Session { .. }
                    | ScheduleTrigger::OnDemand => None,
                });
                let interval =
                    section.read_defaulted("interval", default, "it says how often it fires", &INTERVAL)?;
                Some(of_time(interval_trigger(interval), duration_text(interval)))
            }
            TriggerKind::Cron => self.read_cron(shipped, section),
            TriggerKind::Session => {
                let at =
                    section.read_required("at", "it says when in a session it fires", &SessionEdgeForm)?;
                let (edge, offset_ms) = at;
                let written = SessionEdgeForm.render_value(&at).trim_matches('"').to_owned();
                Some(of_time(ScheduleTrigger::Session { edge, offset_ms }, written))
            }
            TriggerKind::Event => read_events(section),
            TriggerKind::Manual => Some(of_time(ScheduleTrigger::OnDemand, "manual".to_owned())),
        }
    }

    fn read_cron(
        &self,
        shipped: Option<&CycleTriggerConfig>,
        section: &mut Section<'_>,
    ) -> Option<CycleTriggerConfig> {
        let is_cron = |shipped: &&CycleTriggerConfig| matches!(shipped.trigger, ScheduleTrigger::Cron(_));
        let default = shipped.filter(is_cron).map(|shipped| shipped.written.clone());
        let pattern = section.read_defaulted("cron", default, "it says when it fires", &CRON);
        let mut zone = self.hours.zone.clone();
        section.read_value("zone", &mut zone, &ZONE);
        let (written, zone) = (pattern?, MarketZone::find_zone(&zone).ok()?);
        let parsed = CronTrigger::parse(&written, zone);
        let cron =
            parsed.map_err(|error| section.refuse_key("cron", error.to_string(), CRON.allowed)).ok()?;
        let trigger = ScheduleTrigger::Cron(cron);
        Some(CycleTriggerConfig { trigger, written, topics: Vec::new(), on_outputs: false })
    }

    fn read_policies(
        &self,
        shipped: Option<&FirePolicies>,
        section: &mut Section<'_>,
    ) -> Option<FirePolicies> {
        let mut calendar = self.default_calendar.to_owned();
        section.read_value("calendar", &mut calendar, &TRADING_NAME);
        refuse_unknown_calendar(section, self.calendars, &calendar);
        let mut hours = shipped.map_or(self.hours.default_fire_hours(), |shipped| shipped.hours);
        section.read_value("hours", &mut hours, &HOURS);
        let overlap = section.read_defaulted(
            "overlap",
            shipped.map(|shipped| shipped.overlap),
            "it says what becomes of a fire while a cycle runs, and no answer suits everybody",
            &OVERLAPS,
        );
        let misfire = section.read_defaulted(
            "misfire",
            shipped.map(|shipped| shipped.misfire),
            "it says what becomes of fires that are late, and no answer suits everybody",
            &MISFIRES,
        );
        let mut misfire_after = MISFIRE_AFTER_DEFAULT;
        section.read_value("misfire_after", &mut misfire_after, &MISFIRE_AFTER);
        let lateness_max = section.read_defaulted(
            "lateness_max",
            shipped.map(|shipped| shipped.lateness_max),
            "it says how late a cycle is still of use",
            &LATENESS,
        );
        let (mut concurrent_max, mut rate_max, mut priority) = (1, 0, 0);
        section.read_value("concurrent_max", &mut concurrent_max, &Count(1..=1000));
        section.read_value("rate_max", &mut rate_max, &Count(0..=1_000_000));
        let mut rate_period = Duration::from_secs(60);
        section.read_value("rate_period", &mut rate_period, &RATE_PERIOD);
        section.read_value("priority", &mut priority, &Count(0..=1000));
        Some(FirePolicies {
            calendar,
            hours,
            overlap: overlap?,
            misfire: misfire?,
            misfire_after,
            lateness_max: lateness_max?,
            concurrent_max,
            rate_max,
            rate_period,
            priority,
        })
    }
}

/// Reads what makes a schedule fire that no time does.
fn read_events(section: &mut Section<'_>) -> Option<CycleTriggerConfig> {
    let (mut topics, mut on_outputs) = (Vec::new(), false);
    section.read_value("topics", &mut topics, &TOPICS);
    section.read_value("on_outputs", &mut on_outputs, &Flag);
    if topics.is_empty() && !on_outputs {
        if section.is_accepted("topics") && section.is_accepted("on_outputs") {
            let what = "is empty, so nothing makes it fire".to_owned();
            section.refuse_key("topics", what, "at least one topic, or on_outputs = true");
        }
        return None;
    }
    let outputs = on_outputs.then(|| "outputs".to_owned());
    let written = topics.iter().cloned().chain(outputs).collect::<Vec<_>>().join(" ");
    Some(CycleTriggerConfig { trigger: ScheduleTrigger::OnDemand, written, topics, on_outputs })
}

/// Reports a `pipeline` that there is not.
pub(super) fn refuse_unknown_pipeline(
    section: &mut Section<'_>,
    pipelines: &TradingPipelines,
    name: Option<&str>,
) {
    let Some(name) = name else { return };
    let is_known = PipelineName::new(name).is_some_and(|name| pipelines.contains_key(&name));
    if !is_known && section.is_accepted("pipeline") {
        let known: Vec<&str> = pipelines.keys().take(NAMES_LISTED_MAX).map(PipelineName::as_str).collect();
        section.refuse_key("pipeline", format!("there is no pipeline {name:?}"), &known.join(", "));
    }
}

/// Reports a `calendar` that there is not.
pub(super) fn refuse_unknown_calendar(section: &mut Section<'_>, calendars: &TradingCalendars, name: &str) {
    if !calendars.contains_key(name) && section.is_accepted("calendar") {
        let known: Vec<&str> = calendars.keys().take(NAMES_LISTED_MAX).map(String::as_str).collect();
        section.refuse_key("calendar", format!("there is no calendar {name:?}"), &known.join(", "));
    }
}

/// Names that a message lists.
const NAMES_LISTED_MAX: usize = 8;

impl CycleScheduleConfig {
    /// The schedule as the plane has it.
    #[must_use]
    pub fn cycle_schedule(&self, hours: &TradingHoursConfig, calendars: &TradingCalendars) -> CycleSchedule {
        let policies = &self.policies;
        let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        CycleSchedule {
            trigger: self.trigger.trigger.clone(),
            calendar: calendars.get(&policies.calendar).map(|calendar| Arc::clone(&calendar.market)),
            hours: policies.hours.schedule_hours(hours),
            overlap: policies.overlap,
            misfire: policies.misfire,
            misfire_after_ms: ms(policies.misfire_after),
            lateness_max_ms: ms(policies.lateness_max),
            concurrent_max: policies.concurrent_max,
            rate_limit: (0 < policies.rate_max)
                .then(|| FireRateLimit { fires_max: policies.rate_max, period_ms: ms(policies.rate_period) }),
            priority: policies.priority,
        }
    }
}
