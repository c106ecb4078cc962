//! Trading configurations load as they should, say where each value comes from, and are refused with their place.

mod flat_names;
mod refusals;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::calendar::ExtendedHours;
use orchestrator_kernel::trading::history::HistorySchedule;
use orchestrator_kernel::trading::schedule::{
    MisfirePolicy, OverlapPolicy, ScheduleHours, ScheduleTrigger, SessionEdge,
};
use orchestrator_kernel::trading::stage::{HookMode, HookMoment, OnStageFailure, StageProvider};
use orchestrator_kernel::trading::strategy::StrategyStatus;
use orchestrator_trading_plane::outbox::PublishFrom;
use orchestrator_trading_plane::settings::{TradingHours, TradingSettings};

use super::*;
use crate::config::{Config, ConfigError, FlagSetting, Layers, Loaded, render_settings};

const DEFAULT: &str = include_str!("../../../config/default.toml");

fn check_load(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Loaded, ConfigError> {
    let variable = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let flag = |(path, value): &(&str, &str)| FlagSetting {
        flag: "--set".to_owned(),
        path: (*path).to_owned(),
        value: (*value).to_owned(),
    };
    let layers = Layers {
        base: ConfigBase::None,
        environment: environment.iter().map(variable).collect(),
        flags: flags.iter().map(flag).collect(),
    };
    Config::load_text(text, "test.toml", &layers)
}

fn accepted(text: &str) -> TradingConfig {
    check_load(text, &[], &[]).unwrap_or_else(|error| panic!("{text}\n{error}")).config.trading
}

fn refused(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    let error = check_load(text, environment, &[]).expect_err(text);
    error.violations.iter().map(ToString::to_string).collect()
}

fn plane(config: &TradingConfig) -> TradingSettings {
    let timing = JournalTiming {
        resend_after: Duration::from_millis(100),
        probe_every: None,
        reopen_after: Duration::from_secs(1),
    };
    config.plane_settings("0.1.0", timing)
}

const ON: &str = "trading.enabled = true\n";

/// What a user adds: one section of each kind, every key of it.
const ADDED: &str = r##"
[trading]
enabled = true
calendar = "24-7"
[trading.events]
url = "amqp://rabbitmq:5672/%2f"
consume = ["market.session.*", "ai.decision.*"]
[trading.providers.learner]
kind = "worker"
command = ["python3", "learn.py"]
env = {TOKEN = "canary"}
[trading.providers.signals]
kind = "http"
url = "http://localhost:8001/"
[trading.providers.nothing]
kind = "fixed"
answer = '{"decisions":[]}'
[trading.calendars.XNYS]
closed = ["2026-12-02"]
early_closes = ["2026-12-01 13:00"]
[trading.pipelines.mine]
stages = ["ING", "SIG", "RISK", "EXEC", "GOV", "LEARN", "NEWS"]
budget = "7s"
stale_after = "0s"
[trading.pipelines.mine.stage.SIG]
provider = "signals"
budget = "3s"
[trading.pipelines.mine.stage.LEARN]
provider = "learner"
idempotent = false
critical = false
on_failure = "degrade"
[trading.pipelines.mine.stage.NEWS]
provider = "event"
attempts_max = 3
backoff_min = "1ms"
backoff_max = "5ms"
enabled = false
[trading.pipelines.mine.hook.compliance]
stage = "RISK"
mode = "HARD"
provider = "learner"
[trading.schedules.opening]
pipeline = "mine"
trigger = "session"
at = "open+15m"
calendar = "XNYS"
hours = "extended"
overlap = "queue_one"
misfire = "latest"
lateness_max = "10m"
misfire_after = "1s"
concurrent_max = 2
rate_max = 10
rate_period = "1h"
priority = 7
[trading.schedules.news]
pipeline = "mine"
trigger = "event"
topics = ["ai.decision.*", "#"]
on_outputs = true
overlap = "cancel"
misfire = "all"
lateness_max = "1day"
[trading.schedules.friday]
pipeline = "mine"
trigger = "cron"
cron = "0 30 16 * * 5"
zone = "Europe/London"
overlap = "skip"
misfire = "skip"
lateness_max = "5s"
[trading.schedules.hand]
enabled = false
pipeline = "mine"
trigger = "manual"
overlap = "skip"
misfire = "skip"
lateness_max = "5s"
[trading.strategies.mine]
kind = "of_mine"
symbols = ["AAPL", "BTC USD"]
risk_mode = "conservative"
pipeline = "mine"
schedules = ["opening", "news"]
calendar = "XNYS"
status = "paused"
targets = {AAPL = "0.25", "BTC USD" = "-0.1"}
"##;

#[test]
fn what_a_user_adds_becomes_settings_of_the_plane() {
    let config = accepted(ADDED);
    let settings = plane(&config);
    assert_eq!(settings.find_violations(), Vec::<String>::new());

    let schedules: Vec<&str> = settings.schedules.iter().map(|schedule| schedule.name.as_str()).collect();
    assert_eq!(schedules, ["friday", "news", "opening"], "what is not enabled does not fire");
    let opening = &settings.schedules[2];
    assert_eq!(
        opening.schedule.trigger,
        ScheduleTrigger::Session { edge: SessionEdge::Open, offset_ms: 900_000 }
    );
    assert_eq!(opening.schedule.calendar.as_ref().map(|calendar| calendar.name()), Some("XNYS"));
    assert!(
        matches!(opening.schedule.hours, ScheduleHours::Extended(hours) if hours != ExtendedHours::default())
    );
    assert_eq!(opening.schedule.overlap, OverlapPolicy::QueueOne);
    assert_eq!(opening.schedule.misfire, MisfirePolicy::Latest);
    assert_eq!((opening.schedule.misfire_after_ms, opening.schedule.lateness_max_ms), (1000, 600_000));
    assert_eq!((opening.schedule.concurrent_max, opening.schedule.priority), (2, 7));
    let rate = opening.schedule.rate_limit.unwrap();
    assert_eq!((rate.fires_max, rate.period_ms), (10, 3_600_000));
    let covered: Vec<&str> = opening.strategies.iter().map(|name| name.as_str()).collect();
    assert_eq!(covered, ["mine"]);
    let news = &settings.schedules[1];
    assert_eq!((news.topics.len(), news.on_outputs), (2, true));
    assert_eq!(news.schedule.trigger, ScheduleTrigger::OnDemand);

    let kinds: Vec<(&str, &str)> =
        config.schedules.values().map(|it| (it.trigger.kind_word(), it.trigger.written.as_str())).collect();
    assert_eq!(
        kinds,
        [
            ("interval", "1m"),
            ("cron", "0 30 16 * * 5"),
            ("manual", "manual"),
            ("interval", "30s"),
            ("event", "ai.decision.* # outputs"),
            ("session", "open+15m"),
            ("cron", "0 9 * * 1-5"),
        ]
    );

    let mine = &config.pipelines[&opening.pipeline];
    assert_eq!((mine.pipeline.budget, mine.pipeline.stale_after), (Duration::from_secs(7), None));
    let stages: Vec<(&str, StageProvider, u64, u32)> = mine
        .pipeline
        .stages
        .iter()
        .map(|it| (it.name.as_str(), it.provider, it.budget.as_millis() as u64, it.attempts_max))
        .collect();
    assert_eq!(
        stages,
        [
            ("ING", StageProvider::BuiltIn, 500, 2),
            ("SIG", StageProvider::Http, 3000, 2),
            ("RISK", StageProvider::BuiltIn, 200, 2),
            ("EXEC", StageProvider::BuiltIn, 2000, 1),
            ("GOV", StageProvider::BuiltIn, 100, 2),
            ("LEARN", StageProvider::Worker, 1000, 1),
            ("NEWS", StageProvider::Event, 1000, 3),
        ]
    );
    assert_eq!(mine.pipeline.stages[5].on_failure, OnStageFailure::Degrade);
    let hook = &mine.pipeline.hooks[0];
    assert_eq!(
        (hook.moment, hook.mode, hook.budget),
        (HookMoment::Before, HookMode::Hard, Duration::from_millis(50))
    );
    let of_stage = config.find_stage_provider(&opening.pipeline, &mine.pipeline.stages[1].name);
    assert!(matches!(of_stage, Some(StageProviderConfig::Http(_))), "{of_stage:?}");
    let of_hook = config.find_hook_provider(&opening.pipeline, &hook.name);
    assert!(matches!(of_hook, Some(StageProviderConfig::Worker(_))), "{of_hook:?}");
    assert!(config.find_stage_provider(&opening.pipeline, &mine.pipeline.stages[0].name).is_none());

    let (definition, status) =
        settings.strategies.iter().find(|(definition, _)| definition.name.as_str() == "mine").unwrap();
    assert_eq!((definition.symbols.len(), *status), (2, StrategyStatus::Paused));
    assert!(!format!("{config:?}").contains("canary"));
}

/// 1 December 2026, 18:30 in UTC: 13:30 in New York.
const AFTER_THE_EARLY_CLOSE: TsMs = TsMs(1_796_149_800_000);

#[test]
fn overrides_stand_over_a_calendar_and_change_what_decides() {
    let (shipped, changed) = (accepted(ON), accepted(ADDED));
    let of = |config: &TradingConfig| config.calendars["XNYS"].clone();

    let is_open =
        |config: &TradingConfig| of(config).market.session_at(AFTER_THE_EARLY_CLOSE).unwrap().is_some();
    assert_eq!((is_open(&shipped), is_open(&changed)), (true, false));
    assert_ne!(of(&shipped).digest, of(&changed).digest);
    let decides = |config: &TradingConfig| config.deciding_settings()["trading.calendars.XNYS"].clone();
    assert_ne!(decides(&shipped), decides(&changed));
}

/// The tables of the history are made from the journal alone.
#[test]
fn every_schedule_with_its_strategies_is_on_record_for_the_history() {
    let settings = plane(&accepted(ADDED));

    let written = HistorySchedule::of_settings(&settings.configuration.settings);

    let planned: Vec<_> = settings.schedules.iter().map(|it| (&it.name, &it.strategies)).collect();
    assert!(!planned.is_empty());
    assert_eq!(written.iter().map(|(name, it)| (name, &it.strategies)).collect::<Vec<_>>(), planned);
}

#[test]
fn another_calendar_comes_from_a_file_and_from_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("XTST.json");
    let text = include_str!("../../../config/calendars/XNYS.json").replace("XNYS", "XTST");
    std::fs::write(&path, text).unwrap();
    let named =
        |file: &std::path::Path| format!("trading.calendars.XTST.file = {:?}\n", file.display().to_string());

    assert_eq!(accepted(&named(&path)).calendars["XTST"].market.name(), "XTST");
    std::fs::write(&path, "{\"calendar\": 7}").unwrap();
    assert!(refused(&named(&path), &[])[0].contains("trading.calendars.XTST.file: holds no calendar"));
    for (file, why) in [("no/such.json", "cannot be read"), ("/dev/zero", "it is no file")] {
        let lines = refused(&named(std::path::Path::new(file)), &[]);
        assert!(lines.len() == 1 && lines[0].contains(why), "{lines:?}");
    }
    let lines = refused("trading.calendars.XTST.closed = [\"2026-13-01\"]", &[]);
    assert!(lines.len() == 1 && lines[0].starts_with("trading.calendars.XTST.file: is missing"), "{lines:?}");
}

#[test]
fn what_is_shipped_is_there_and_does_nothing_by_itself() {
    let config = TradingConfig::default();
    let settings = plane(&config);

    assert!(!config.enabled && config.dry_run);
    assert_eq!(settings.find_violations(), Vec::<String>::new());
    assert!(settings.schedules.is_empty(), "no shipped schedule fires before it is enabled");
    assert!(settings.strategies.iter().all(|(_, status)| *status == StrategyStatus::Stopped));
    let names: Vec<&str> = config.pipelines.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["analysis", "canonical", "heartbeat", "rebalance"]);
    let schedules: Vec<(&str, &str)> =
        config.schedules.iter().map(|(name, it)| (name.as_str(), it.trigger.written.as_str())).collect();
    assert_eq!(schedules, [("analysis", "1m"), ("heartbeat", "30s"), ("rebalance", "0 9 * * 1-5")]);
    let strategies: Vec<&str> = config.strategies.keys().map(|name| name.as_str()).collect();
    assert_eq!(strategies, ["momentum", "regime"]);
    assert_eq!(settings.hours, TradingHours::Session);
    assert_eq!(
        settings.calendars.keys().collect::<Vec<_>>(),
        ["XNYS"],
        "of others nobody hears that they end"
    );
}

/// Specification 002, `cycles.analysis.maxConcurrent`: 1. A schedule that a user adds is no other.
#[test]
fn one_cycle_of_a_schedule_runs_at_a_time_unless_it_says_otherwise() {
    let added = "[trading.schedules.mine]\npipeline = \"canonical\"\ntrigger = \"manual\"\noverlap = \"skip\"\n\
                 misfire = \"skip\"\nlateness_max = \"1m\"\n";
    let schedules = accepted(added).schedules;

    let names: Vec<&str> = schedules.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["analysis", "heartbeat", "mine", "rebalance"]);
    assert!(schedules.values().all(|schedule| schedule.policies.concurrent_max == 1), "{schedules:?}");
}

/// Old news is not told to a broker that is new, unless that is asked for.
#[test]
fn events_are_published_from_the_first_start_on_unless_configured_otherwise() {
    assert_eq!(accepted("").events.publish_from, PublishFrom::Latest);
    let earliest = "trading.events.publish_from = \"earliest\"\n";
    assert_eq!(accepted(earliest).events.publish_from, PublishFrom::Earliest);
    let said = refused("trading.events.publish_from = \"newest\"\n", &[]);
    assert!(said[0].contains("trading.events.publish_from") && said[0].contains("earliest"), "{said:?}");
}

/// The built-in stages of a rebalance know the weights that strategies are given; one without goes by its signals.
#[test]
fn targets_of_strategies_are_settings_of_the_built_in_stages() {
    let settings = accepted(ADDED).built_in_settings();

    let names: Vec<&str> = settings.targets.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["mine"]);
    assert_eq!(settings.targets.values().next().map(|targets| targets.len()), Some(2));
}

#[test]
fn shipped_pipelines_are_those_of_the_kernel_until_a_setting_changes_them() {
    let config = TradingConfig::default();
    let kernel = [
        canonical_pipeline(),
        orchestrator_kernel::trading::pipeline::analysis_pipeline(),
        orchestrator_kernel::trading::pipeline::heartbeat_pipeline(),
        orchestrator_kernel::trading::pipeline::rebalance_pipeline(),
    ];
    for pipeline in kernel {
        assert_eq!(config.pipelines[&pipeline.name].pipeline, pipeline);
    }

    let changed = accepted(
        "trading = {cycle_budget = \"9s\", retry_max = 3, stage_budgets = {RISK = \"1s\", execute_orders = \"2s\"}, \
         degraded_allow_exec = false, pipelines.analysis = {budget = \"1m\", stage.execute_orders.budget = \"3s\"}}",
    );

    let of = |name: &str| {
        let found = changed.pipelines.iter().find(|(known, _)| known.as_str() == name).unwrap();
        found.1.pipeline.clone()
    };
    let stage = |pipeline: &str, stage: &str| {
        let pipeline = of(pipeline);
        pipeline.stages.into_iter().find(|known| known.name.as_str() == stage).unwrap()
    };
    let seconds = |pipeline: &str| of(pipeline).budget.as_secs();
    assert_eq!(["canonical", "heartbeat", "analysis", "rebalance"].map(seconds), [9, 9, 60, 120]);
    assert_eq!(stage("canonical", "RISK").budget, Duration::from_secs(1));
    assert_eq!(
        stage("canonical", "ING").budget,
        Duration::from_millis(500),
        "what is not named keeps its budget"
    );
    assert_eq!(stage("rebalance", "execute_orders").budget, Duration::from_secs(2));
    assert_eq!(stage("analysis", "execute_orders").budget, Duration::from_secs(3));
    assert_eq!((stage("canonical", "RISK").attempts_max, stage("canonical", "EXEC").attempts_max), (4, 1));
    assert!(!of("rebalance").degraded_allow_exec);
}

#[test]
fn a_stage_is_appended_to_a_shipped_pipeline_by_its_list() {
    let config = accepted(
        "[trading.providers.opt]\nkind = \"fixed\"\nanswer = \"{}\"\n[trading.pipelines.canonical]\n\
         stages = [\"ING\", \"SIG\", \"RISK\", \"EXEC\", \"OPT\"]\n[trading.pipelines.canonical.stage.OPT]\nprovider = \"opt\"\n",
    );

    let canonical = config.pipelines.iter().find(|(name, _)| name.as_str() == "canonical").unwrap().1;
    let stages: Vec<&str> = canonical.pipeline.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(stages, ["ING", "SIG", "RISK", "EXEC", "OPT"]);
    assert_eq!(canonical.pipeline.stages[4].provider, StageProvider::Fixed);
}

#[test]
fn a_listener_that_others_reach_is_refused_while_trading_is_on() {
    let public = "http = {listen = \"0.0.0.0:80\", allow_public = true}\n";

    assert!(check_load(public, &[], &[]).is_ok());
    let lines = refused(&format!("{public}{ON}"), &[]);
    assert!(lines.len() == 1 && lines[0].contains("whoever reaches it could trade"), "{lines:?}");
    assert!(check_load(&format!("http.listen = \"[::1]:80\"\n{ON}"), &[], &[]).is_ok());
}

#[test]
fn a_stage_is_named_in_the_environment_as_it_is_spelled() {
    let loaded =
        check_load(ON, &[("ORCHESTRATOR__TRADING__PIPELINES__CANONICAL__STAGE__RISK__BUDGET", "150ms")], &[])
            .unwrap();

    let canonical = &loaded.config.trading.pipelines[&canonical_pipeline().name].pipeline;
    let risk = canonical.stages.iter().find(|stage| stage.name.as_str() == "RISK").unwrap();
    assert_eq!(risk.budget, Duration::from_millis(150));
}

#[test]
fn what_is_shown_of_trading_loads_as_the_same_configuration() {
    // What is hidden cannot be shown and loaded again.
    let without_secrets = ADDED.replace("env = {TOKEN = \"canary\"}\n", "");
    for text in [ON, without_secrets.as_str(), DEMO_TRADING_TOML] {
        let loaded = check_load(text, &[], &[]).unwrap();
        let shown = render_settings(&loaded.settings, true);

        let again = check_load(&shown, &[], &[]).unwrap_or_else(|error| panic!("{error}\n{shown}"));

        assert_eq!(again.config, loaded.config);
        assert_eq!(render_settings(&again.settings, false), render_settings(&loaded.settings, false));
    }
    assert!(!render_settings(&check_load(ADDED, &[], &[]).unwrap().settings, true).contains("canary"));
}

#[test]
fn what_is_shipped_is_shown_while_trading_is_on_and_only_then() {
    let sections = |text: &str| -> BTreeSet<String> {
        let loaded = check_load(text, &[], &[]).unwrap();
        loaded.settings.into_iter().map(|setting| setting.section).collect()
    };
    let (on, off) = (sections(ON), sections(""));

    for shown in [
        "trading.pipelines.canonical",
        "trading.pipelines.canonical.stage.RISK",
        "trading.schedules.rebalance",
        "trading.strategies.momentum",
    ] {
        assert!(on.contains(shown) && !off.contains(shown), "{shown}");
    }
    let switched = check_load(ON, &[], &[]).unwrap().config.trading;
    assert_eq!(TradingConfig { enabled: false, ..switched }, TradingConfig::default());
}

#[test]
fn a_password_of_the_history_is_never_shown() {
    let text = "trading.history = {host = \"db\", user = \"me\", password = \"canary word\"}";

    let loaded = check_load(text, &[], &[]).unwrap();

    let place = loaded.config.trading.history.place();
    let Some(HistoryPlace::PostgresHost { password, user, .. }) = &place else { panic!("{place:?}") };
    assert_eq!((password.expose_secret(), user.as_deref()), (Some("canary word"), Some("me")));
    let shown = render_settings(&loaded.settings, true);
    assert!(!shown.contains("canary") && !format!("{loaded:?}{place:?}").contains("canary"));
    assert!(!loaded.config.trading.deciding_settings().values().any(|value| value.contains("canary")));
    assert_eq!(
        TradingConfig::default().history.place(),
        Some(HistoryPlace::Sqlite(std::path::PathBuf::from("history.sqlite")))
    );
}

#[test]
fn a_prefix_stands_before_every_name() {
    let prefixed = accepted("trading.events.prefix = \"ai-trader\"").events;

    assert_eq!(prefixed.naming().prefixed_name("system.heartbeat"), "ai-trader.system.heartbeat");
    assert_eq!(prefixed.naming().strip_prefix_of("ai-trader.system.heartbeat"), "system.heartbeat");
    assert_eq!(prefixed.naming().strip_prefix_of("system.heartbeat"), "system.heartbeat");
    assert_eq!(TradingEventsConfig::default().naming().strip_prefix_of(".a"), ".a");
    assert_eq!(TradingEventsConfig::default().naming().prefixed_name("system.heartbeat"), "system.heartbeat");
}

#[test]
fn another_setting_that_decides_is_another_configuration_and_one_that_does_not_is_none() {
    let hash = |text: &str| plane(&accepted(text)).configuration.config_hash();
    let shipped = hash("");

    for decides in [
        "trading.mode = \"live\"",
        "trading.environment = \"prod\"",
        "trading.cycle_budget = \"6s\"",
        "trading.hours.extended = true",
        "trading.hours.after_hours_end = \"19:00\"",
        "trading.risk.capital = 5",
        "trading.risk.confidence_min = 0.5",
        "trading.pipelines.canonical.stage.ANA.enabled = false",
        "trading.schedules.analysis.enabled = true",
        "trading.strategies.regime.risk_mode = \"conservative\"",
        "trading.strategies.regime.targets = {AAPL = \"0.5\"}",
        "trading.calendars.XNYS.closed = [\"2026-12-02\"]",
    ] {
        assert_ne!(hash(decides), shipped, "{decides}");
    }
    for is_operation in [
        "trading.risk.capital = \"100000.00\"",
        "trading.journal.linger = \"1ms\"",
        "trading.history.file = \"other.sqlite\"",
        "trading.events.confirms_max = 5",
        "trading.schedules.analysis.interval = \"5m\"",
    ] {
        assert_eq!(hash(is_operation), shipped, "{is_operation}");
    }
}

#[test]
fn demo_of_trading_runs_two_strategies_that_need_nothing() {
    let ConfigBase::BuiltIn { toml, .. } = trading_demo_base() else { panic!() };
    let loaded = check_load(toml, &[], &[]).unwrap().config;
    let settings = plane(&loaded.trading);

    assert!(loaded.trading.enabled && loaded.trading.dry_run && loaded.http.listen.ip().is_loopback());
    assert_eq!(settings.find_violations(), Vec::<String>::new());
    let [schedule] = settings.schedules.as_slice() else { panic!("{:?}", settings.schedules) };
    let covered: Vec<&str> = schedule.strategies.iter().map(|name| name.as_str()).collect();
    assert_eq!(covered, ["momentum", "regime"]);
    assert!(settings.strategies.iter().all(|(_, status)| *status == StrategyStatus::Active));
    assert_eq!(settings.default_calendar, "24-7");
    let open = settings.calendars["24-7"].session_at(AFTER_THE_EARLY_CLOSE).unwrap();
    assert!(open.is_some(), "the made-up market never closes");
}

/// The demo of trading and the demo differ in nothing but the trading.
#[test]
fn demo_of_trading_has_the_market_of_the_demo() {
    let demo = check_load(include_str!("../../../config/demo.toml"), &[], &[]).unwrap().config;
    let trading = check_load(DEMO_TRADING_TOML, &[], &[]).unwrap().config;

    assert_eq!(Config { trading: TradingConfig::default(), ..trading }, demo);
}

/// Where the default file says that a section may be added, it shows keys that there are.
#[test]
fn sections_that_the_default_file_shows_are_accepted() {
    let shown = DEFAULT.lines().skip_while(|line| !line.starts_with("#   [trading.strategies.mine]"));
    let shown = shown.take_while(|line| *line != "[trading]");
    let example: String = shown.map(|line| format!("{}\n", line.trim_start_matches("#   "))).collect();

    let config = accepted(&format!("{example}\n"));

    assert!(config.strategies.keys().any(|name| name.as_str() == "mine"));
    assert!(config.pipelines.keys().any(|name| name.as_str() == "mine"));
}
