//! The rules over several settings of the trading plane, and over it and the rest.

use std::time::Duration;

use orchestrator_kernel::trading::event::{INCOMING_TOPICS, patterns_meet};
use orchestrator_kernel::trading::journal::TradingMode;
use orchestrator_kernel::trading::stage::StageProvider;
use orchestrator_kernel::trading::strategy::check_cycle_symbols;

use super::{JournalTiming, StageProviderConfig, TradingConfig, TradingEnvironment, TradingJournalConfig};
use crate::config::reader::section::ReadReport;
use crate::config::reader::tree::Origin;
use crate::config::reader::violation::{Violation, nearest_key};
use crate::config::rules::check_delays;
use crate::config::{ClockMode, Config};

/// Reports every rule that `config` breaks.
pub(in crate::config) fn check_trading(config: &Config, report: &mut ReadReport) {
    let trading = &config.trading;
    check_surroundings(config, report);
    check_audit(trading, report);
    check_hours(trading, report);
    check_parts(trading, report);
    check_broker(trading, report);
    check_topics(trading, report);
    check_history(trading, report);
    check_whole(trading, report);
}

/// The rules over the trading plane and the rest of the service.
fn check_surroundings(config: &Config, report: &mut ReadReport) {
    let trading = &config.trading;
    let listen = config.http.listen;
    report.check_rule(
        &["http.listen", "trading.enabled"],
        !trading.enabled || listen.ip().is_loopback(),
        format!(
            "{listen} can be reached from other machines, trading is on, and nothing on it asks who is calling: \
             whoever reaches it could trade"
        ),
        "a loopback address, or trading.enabled = false",
    );
    report.check_rule(
        &["trading.mode", "clock.mode"],
        trading.mode != TradingMode::Backtest || config.clock.mode == ClockMode::Recorded,
        "is \"backtest\", and the clock is the machine's".to_owned(),
        "\"paper\" or \"live\", or clock.mode = \"recorded\"",
    );
    report.check_rule(
        &["trading.dry_run"],
        trading.dry_run,
        "is false, and this version computes orders and sends none".to_owned(),
        "true",
    );
    // Whoever has small segments already must not be refused for the default of a plane that is off.
    let batch_bytes = trading.journal.batch_bytes_max;
    let is_unused = !trading.enabled && batch_bytes == TradingJournalConfig::default().batch_bytes_max;
    report.check_rule(
        &["trading.journal.batch_bytes_max", "buffer.segment_bytes"],
        is_unused || batch_bytes <= config.buffer.segment_bytes,
        "is more than buffer.segment_bytes, so a batch would fit no segment".to_owned(),
        "at most buffer.segment_bytes",
    );
}

/// In earnest nothing passes an audit that failed.
///
/// Source: specification 001, section 8: "In prod must be true".
fn check_audit(trading: &TradingConfig, report: &mut ReadReport) {
    const OF_ALL: &str = "trading.fail_closed_on_audit";
    const ALLOWED: &str = "true, or trading.environment = \"dev\"";
    let is_prod = trading.environment == TradingEnvironment::Prod;
    let what = || "is false, and trading.environment is \"prod\": cycles would go on unaudited".to_owned();
    let holds = !is_prod || trading.defaults.fail_closed_on_audit;
    report.check_rule(&[OF_ALL, "trading.environment"], holds, what(), ALLOWED);
    for (name, config) in &trading.pipelines {
        let path = format!("trading.pipelines.{name}.fail_closed_on_audit");
        let holds = !is_prod || config.pipeline.fail_closed_on_audit;
        report.check_rule(&[&path, OF_ALL, "trading.environment"], holds, what(), ALLOWED);
    }
}

fn check_hours(trading: &TradingConfig, report: &mut ReadReport) {
    const TIMES: [&str; 4] = [
        "trading.hours.pre_market_start",
        "trading.hours.regular_start",
        "trading.hours.regular_end",
        "trading.hours.after_hours_end",
    ];
    report.check_rule(
        &TIMES,
        trading.hours.extended_hours().is_some(),
        "and the three times after it are not in their order".to_owned(),
        "pre_market_start, regular_start, regular_end, after_hours_end, each not before the last",
    );
}

/// What needs a broker has one.
fn check_broker(trading: &TradingConfig, report: &mut ReadReport) {
    const URL: &str = "trading.events.url";
    const ALLOWED: &str = "a broker, for example trading.events.url = \"amqp://rabbitmq:5672/%2f\"";
    let has_broker = !trading.events.connection.url.is_empty();
    let what = || "needs events, and there is no broker that they could come from".to_owned();
    report.check_rule(
        &["trading.events.consume", URL],
        has_broker || trading.events.consume.is_empty(),
        what(),
        ALLOWED,
    );
    for (name, schedule) in &trading.schedules {
        let path = format!("trading.schedules.{name}.topics");
        report.check_rule(&[&path, URL], has_broker || schedule.trigger.topics.is_empty(), what(), ALLOWED);
    }
    for (name, config) in &trading.pipelines {
        for stage in &config.pipeline.stages {
            let path = format!("trading.pipelines.{name}.stage.{}.provider", stage.name);
            report.check_rule(
                &[&path, URL],
                has_broker || stage.provider != StageProvider::Event,
                what(),
                ALLOWED,
            );
        }
    }
}

/// What is taken from the bus leads to something, and what a schedule waits for is taken: a misspelt topic is neither.
fn check_topics(trading: &TradingConfig, report: &mut ReadReport) {
    const CONSUME: &str = "trading.events.consume";
    let (consumed, schedules) = (&trading.events.consume, &trading.schedules);
    let waited_for: Vec<&str> =
        schedules.values().flat_map(|schedule| &schedule.trigger.topics).map(String::as_str).collect();
    let is_met = |pattern: &str, by: &[&str]| by.iter().any(|other| patterns_meet(pattern, other));
    let leads_to_nothing =
        |pattern: &&String| !is_met(pattern, &INCOMING_TOPICS) && !is_met(pattern, &waited_for);
    let strange = consumed.iter().filter(leads_to_nothing).map(|pattern| {
        let meant = nearest_key(pattern, INCOMING_TOPICS);
        meant.map_or_else(|| format!("{pattern:?}"), |meant| format!("{pattern:?} (did you mean `{meant}`?)"))
    });
    let strange: Vec<String> = strange.collect();
    let what =
        format!("holds {}, from which nothing follows, and no schedule waits for it", strange.join(", "));
    report.check_rule(&[CONSUME], strange.is_empty(), what, &INCOMING_TOPICS.join(", "));
    let consumed: Vec<&str> = consumed.iter().map(String::as_str).collect();
    for (name, schedule) in schedules.iter().filter(|(_, schedule)| schedule.enabled) {
        let path = format!("trading.schedules.{name}.topics");
        let is_deaf = |topic: &&String| !is_met(topic, &consumed);
        let Some(topic) = schedule.trigger.topics.iter().find(is_deaf) else { continue };
        let what =
            format!("holds {topic:?}, and no pattern of {CONSUME} lets it in: it would never fire by it");
        report.check_rule(&[&path, CONSUME], false, what, "a topic that is consumed");
    }
}

fn check_history(trading: &TradingConfig, report: &mut ReadReport) {
    let history = &trading.history;
    report.check_rule(
        &["trading.history.host", "trading.history.url"],
        history.host.is_empty() || history.url.is_empty(),
        "is set, and so is trading.history.url".to_owned(),
        "one of the two",
    );
    report.check_rule(
        &["trading.history.name", "trading.history.host"],
        history.host.is_empty() || !history.name.is_empty(),
        "is empty, and trading.history.host is set".to_owned(),
        "the name of a database",
    );
    report.check_rule(
        &["trading.history.required", "trading.history.enabled"],
        !history.required || history.enabled,
        "is true, and trading.history.enabled is false".to_owned(),
        "false, or a history that is kept",
    );
}

/// The rules that the kernel has for each part, at the part's own settings.
fn check_parts(trading: &TradingConfig, report: &mut ReadReport) {
    for (name, config) in &trading.pipelines {
        for found in config.pipeline.find_violations() {
            // The kernel has lists where a file has named sections.
            let key = match found.path.split_once('.') {
                Some(("stages", rest)) => format!("stage.{rest}"),
                Some(("hooks", rest)) => format!("hook.{rest}"),
                Some(_) | None => found.path.clone(),
            };
            let end = if key.ends_with(".backoff") { "_min" } else { "" };
            let section = format!("trading.pipelines.{name}");
            let path = format!("{section}.{key}{end}");
            // A stage as a whole is named by the list.
            let is_whole = key.starts_with("stage.") && key.matches('.').count() == 1;
            let named_by = if is_whole { format!("{section}.stages") } else { section.clone() };
            let what = format!("breaks a rule: {}", found.problem);
            report.check_rule(&[&path, &named_by, &section], false, what, "");
        }
    }
    for (name, strategy) in &trading.strategies {
        for found in strategy.definition.find_violations() {
            let path = format!("trading.strategies.{name}.{}", found.path);
            report.check_rule(&[&path], false, format!("breaks a rule: {}", found.problem), "");
        }
    }
    for (name, schedule) in &trading.schedules {
        let faults = schedule.cycle_schedule(&trading.hours, &trading.calendars).find_faults();
        for fault in faults {
            let (key, problem) = fault.split_once(": ").unwrap_or(("trigger", fault.as_str()));
            let path = format!("trading.schedules.{name}.{key}");
            // Lateness is compared with this one: either may be what the user changed.
            let other = format!("trading.schedules.{name}.misfire_after");
            report.check_rule(&[&path, &other], false, format!("breaks a rule: {problem}"), "");
        }
    }
    check_cycle_sizes(trading, report);
    for (name, provider) in &trading.providers {
        if let StageProviderConfig::Worker(worker) = provider {
            let path = format!("trading.providers.{name}.respawn");
            check_delays(&path, worker.respawn.min, worker.respawn.max, report);
        }
    }
}

/// The strategies of a schedule fit one cycle. What is switched off may be too much.
fn check_cycle_sizes(trading: &TradingConfig, report: &mut ReadReport) {
    for (name, schedule) in trading.schedules.iter().filter(|(_, schedule)| schedule.enabled) {
        let pipeline = trading.pipelines.get(&schedule.pipeline);
        if !pipeline.is_some_and(|config| config.pipeline.works_on_symbols()) {
            continue;
        }
        let definitions = trading.strategies.values().map(|strategy| &strategy.definition);
        let named = definitions.filter(|definition| definition.schedules.contains(name));
        let Err(exceeded) = check_cycle_symbols(named.clone()) else { continue };
        // Any of them is a place where it can be mended.
        let of_schedule = format!("trading.schedules.{name}");
        let of_strategies = named.flat_map(|definition| {
            ["symbols", "schedules"].map(|key| format!("trading.strategies.{}.{key}", definition.name))
        });
        let paths: Vec<String> = std::iter::once(of_schedule).chain(of_strategies).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let allowed = "fewer symbols, or the strategies on several schedules";
        report.check_rule(&paths, false, format!("begins cycles that are too large: {exceeded}"), allowed);
    }
}

/// The plane's own rules, for what none of those above has told.
fn check_whole(trading: &TradingConfig, report: &mut ReadReport) {
    if report.violations.iter().any(|violation| violation.path.starts_with("trading")) {
        return;
    }
    let timing =
        JournalTiming { resend_after: Duration::ZERO, probe_every: None, reopen_after: Duration::ZERO };
    for what in trading.plane_settings("", timing).find_violations() {
        let path = "trading".to_owned();
        report.violations.push(Violation { path, what, allowed: String::new(), origin: Origin::Default });
    }
}
