//! `orchestrator schedule next`: when the schedules of a configuration will fire. It needs no service and no journal.

use std::collections::BTreeSet;
use std::ffi::OsString;

use clap::{Args, Subcommand};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::{moment_of_people, to_rfc3339};
use orchestrator_kernel::trading::ids::ScheduleName;
use orchestrator_kernel::trading::schedule::{CycleSchedule, ScheduleTrigger};
use orchestrator_kernel::trading::zone::MarketZone;
use serde_json::{Value, json};

use super::ConfigArgs;
use super::output::{print_answer, print_complaint};
use crate::config::Config;
use crate::config::trading::{CycleTriggerConfig, TradingConfig};
use crate::process::exit::ProcessExit;
use crate::process::time::wall_now;

/// Commands on schedules.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum ScheduleCommand {
    /// Print when the schedules of a configuration fire next. Nothing fires because of it.
    Next(NextFiresArgs),
}

/// Options of `schedule next`.
#[derive(Args, Clone, Debug, PartialEq)]
pub struct NextFiresArgs {
    /// Schedules; without any: all that are enabled.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Moment to look from, for example 2026-03-07T00:00:00-05:00; without it: now.
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub from: Option<TsMs>,
    /// Fires of each schedule.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub config: ConfigArgs,
}

fn parse_moment(text: &str) -> Result<TsMs, &'static str> {
    moment_of_people(text).ok_or("expected a date and a time with seconds, as 2026-03-07T00:00:00-05:00")
}

/// Carries out a command on schedules.
#[must_use]
pub fn run_schedule(command: &ScheduleCommand, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let ScheduleCommand::Next(args) = command;
    let config = match Config::load(&args.config.config_layers(environment)) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            print_complaint(&error);
            return ProcessExit::Config;
        }
    };
    let from = args.from.unwrap_or_else(wall_now);
    match preview_schedules(&config.trading, &args.names, from, args.count) {
        Ok(previews) if args.json => print_answer(&format!("{:#}\n", previews_json(&previews, from))),
        Ok(previews) => print_answer(&previews_text(&previews)),
        Err(unknown) => {
            print_complaint(&unknown);
            ProcessExit::Usage
        }
    }
}

/// Next fires of one schedule.
struct SchedulePreview {
    name: ScheduleName,
    /// The kind of its trigger, and its value.
    trigger: String,
    zone: MarketZone,
    pipeline: String,
    fires: Vec<TsMs>,
    /// Why there are no more.
    ended: Option<String>,
}

/// Previews these schedules, or those that are enabled.
fn preview_schedules(
    trading: &TradingConfig,
    names: &[String],
    from: TsMs,
    count: u32,
) -> Result<Vec<SchedulePreview>, String> {
    let is_known = |name: &&String| trading.schedules.keys().any(|known| known.as_str() == name.as_str());
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        let known: Vec<&str> = trading.schedules.keys().map(ScheduleName::as_str).collect();
        return Err(format!("there is no schedule {unknown:?}; there are: {}", known.join(", ")));
    }
    let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let is_wanted = |name: &ScheduleName, is_enabled| match wanted.is_empty() {
        true => is_enabled,
        false => wanted.contains(name.as_str()),
    };
    let chosen = trading.schedules.iter().filter(|(name, config)| is_wanted(name, config.enabled));
    Ok(chosen
        .map(|(name, config)| {
            let schedule = config.cycle_schedule(&trading.hours, &trading.calendars);
            let (fires, ended) = next_fires(&schedule, from, count);
            SchedulePreview {
                name: name.clone(),
                trigger: trigger_text(&config.trigger),
                zone: zone_of(&schedule),
                pipeline: config.pipeline.to_string(),
                fires,
                ended,
            }
        })
        .collect())
}

fn trigger_text(trigger: &CycleTriggerConfig) -> String {
    match (trigger.kind_word(), trigger.written.as_str()) {
        (kind, written) if kind == written => kind.to_owned(),
        (kind, written) => format!("{kind} {written}"),
    }
}

/// The next `count` fires after `from` that lie within the hours, and why there are no more, where it is so.
fn next_fires(schedule: &CycleSchedule, from: TsMs, count: u32) -> (Vec<TsMs>, Option<String>) {
    let (mut fires, mut at) = (Vec::new(), from);
    for _ in 0..count {
        match schedule.next_fire(at) {
            Ok(Some(next)) => {
                fires.push(next);
                at = next;
            }
            Ok(None) => return (fires, Some(schedule.explain_no_fire(at, None))),
            Err(error) => return (fires, Some(schedule.explain_no_fire(at, Some(&error)))),
        }
    }
    (fires, None)
}

/// The zone whose clock people read the schedule by.
fn zone_of(schedule: &CycleSchedule) -> MarketZone {
    match (&schedule.trigger, &schedule.calendar) {
        (ScheduleTrigger::Cron(cron), _) => cron.zone().clone(),
        (_, Some(calendar)) => calendar.zone().clone(),
        (_, None) => MarketZone::utc(),
    }
}

fn local_text(zone: &MarketZone, at: TsMs) -> String {
    zone.read_clock(at).map_or_else(|error| error.to_string(), |local| local.to_string())
}

/// The fires of all schedules in the order of time, one a line; then the schedules that have no more.
fn previews_text(previews: &[SchedulePreview]) -> String {
    let fires = previews.iter().flat_map(|preview| preview.fires.iter().map(move |at| (*at, preview)));
    let mut lines: Vec<(TsMs, &SchedulePreview)> = fires.collect();
    lines.sort_by(|one, other| (one.0, &one.1.name).cmp(&(other.0, &other.1.name)));
    let widest = previews.iter().map(|preview| preview.name.as_str().len()).max().unwrap_or_default();
    let line = |(at, preview): (TsMs, &SchedulePreview)| {
        let SchedulePreview { name, trigger, zone, pipeline, .. } = preview;
        let (utc, local) = (to_rfc3339(at), local_text(zone, at));
        format!("{utc}  {local} {zone}  {:widest$}  {pipeline} ({trigger})\n", name.as_str())
    };
    let fired: String = lines.into_iter().map(line).collect();
    let ended = previews.iter().filter_map(|preview| {
        let why = preview.ended.as_ref()?;
        Some(format!("{} ({}): {why}\n", preview.name, preview.trigger))
    });
    let text = fired + &ended.collect::<String>();
    if text.is_empty() { "no schedule is enabled\n".to_owned() } else { text }
}

fn previews_json(previews: &[SchedulePreview], from: TsMs) -> Value {
    let schedule = |preview: &SchedulePreview| {
        let fire = |at: &TsMs| json!({ "at": to_rfc3339(*at), "local": local_text(&preview.zone, *at) });
        json!({
            "ended": preview.ended,
            "name": preview.name,
            "next": preview.fires.iter().map(fire).collect::<Vec<_>>(),
            "pipeline": preview.pipeline,
            "trigger": preview.trigger,
            "zone": preview.zone.to_string(),
        })
    };
    json!({ "from": to_rfc3339(from), "schedules": previews.iter().map(schedule).collect::<Vec<_>>() })
}
