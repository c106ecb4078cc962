//! What is wrong with a trading configuration is refused alone, at its place, and all at once.

use std::collections::BTreeSet;

use super::{check_load, refused};
use crate::config::Origin;

/// One bad line or block each, the path that must be named, and a word of the reason. Each is wrong with trading on as
/// with trading off.
const BAD: &[(&str, &str, &str)] = &[
    ("trading.enabled = 1", "trading.enabled", "neither"),
    ("trading.enable = true", "trading.enable", "did you mean `enabled`?"),
    ("trading.environment = \"production\"", "trading.environment", "not one of the words"),
    ("trading.mode = \"demo\"", "trading.mode", "not one of the words"),
    ("trading.mode = \"backtest\"", "trading.mode", "the clock is the machine's"),
    ("trading.dry_run = false", "trading.dry_run", "sends none"),
    ("trading.cycle_budget = \"0s\"", "trading.cycle_budget", "range"),
    ("trading.cycle_budget = 5000", "trading.cycle_budget", "no unit"),
    ("trading.stage_budgets = {ING = 500}", "trading.stage_budgets", "which has no unit"),
    ("trading.stage_budgets = \"ING=1s\"", "trading.stage_budgets", "no table"),
    ("trading.retry_max = 10", "trading.retry_max", "range"),
    (
        "trading = {environment = \"prod\", fail_closed_on_audit = false}",
        "trading.fail_closed_on_audit",
        "unaudited",
    ),
    (
        "trading = {environment = \"prod\", pipelines.analysis.fail_closed_on_audit = false}",
        "trading.pipelines.analysis.fail_closed_on_audit",
        "unaudited",
    ),
    ("trading.calendar = \"XMOON\"", "trading.calendar", "no calendar"),
    ("trading.hours.zone = \"America/Gotham\"", "trading.hours.zone", "does not fit"),
    ("trading.hours.regular_start = \"9:30\"", "trading.hours.regular_start", "does not fit"),
    ("trading.hours.pre_market_start = \"10:00\"", "trading.hours.pre_market_start", "not in their order"),
    ("trading.risk.capital = 0.5", "trading.risk.capital", "put it in quotes"),
    ("trading.risk.max_position_size = \"0\"", "trading.risk.max_position_size", "range"),
    ("trading.risk.confidence_min = 1.5", "trading.risk.confidence_min", "range"),
    ("trading.risk.prices_max = 1", "trading.risk.prices_max", "range"),
    ("trading.journal.batch_bytes_max = \"128MiB\"", "trading.journal.batch_bytes_max", "segment"),
    ("trading.events.url = \"nats://host\"", "trading.events.url", "another scheme"),
    ("trading.events.prefix = \"ai-trader.\"", "trading.events.prefix", "does not fit"),
    ("trading.events.consume = [\"a..b\"]", "trading.events.consume", "holds"),
    ("trading.events.consume = [\"system.heartbeat\"]", "trading.events.consume", "no broker"),
    (
        "trading.events = {url = \"amqp://host\", consume = [\"ai.decison.*\"]}",
        "trading.events.consume",
        "did you mean `ai.decision",
    ),
    (
        "trading.events = {url = \"amqp://host\", consume = [\"system.heartbeat\", \"weather.#\"]}",
        "trading.events.consume",
        "holds \"weather.#\", from which nothing follows",
    ),
    (
        "trading = {events = {url = \"amqp://host\", consume = [\"system.*\"]}, schedules.s = {trigger = \"event\", topics = [\"ai.decision.*\"], pipeline = \"canonical\", overlap = \"skip\", misfire = \"all\", lateness_max = \"5s\"}}",
        "trading.schedules.s.topics",
        "lets it in",
    ),
    ("trading.history.url = \"mysql://host\"", "trading.history.url", "another scheme"),
    ("trading.history = {url = \"postgres://host\", host = \"db\"}", "trading.history.host", "so is"),
    ("trading.history = {host = \"db\", name = \"\"}", "trading.history.name", "is empty"),
    ("trading.history.schema = \"a;b\"", "trading.history.schema", "does not fit"),
    ("trading.providers.builtin.kind = \"http\"", "trading.providers.builtin", "cannot be a name"),
    ("trading.providers.p = {url = \"http://host\"}", "trading.providers.p.kind", "is missing"),
    ("trading.providers.p.kind = \"http\"", "trading.providers.p.url", "is missing"),
    (
        "trading.providers.p = {kind = \"http\", url = \"http://canary@host\"}",
        "trading.providers.p.url",
        "user or password",
    ),
    ("trading.providers.p.kind = \"worker\"", "trading.providers.p.command", "is missing"),
    (
        "trading.providers.p = {kind = \"worker\", command = [\"x\"], respawn.min = \"9m\"}",
        "trading.providers.p.respawn.min",
        "more than max",
    ),
    (
        "trading.providers.p = {kind = \"fixed\", answer = \"[]\"}",
        "trading.providers.p.answer",
        "does not fit",
    ),
    (
        "trading.providers.p = {kind = \"fixed\", answer = \"{\\\"echo\\\":1}\"}",
        "trading.providers.p.answer",
        "does not fit",
    ),
    ("trading.pipelines.\"a.b\".budget = \"1s\"", "trading.pipelines.a.b", "cannot be a name"),
    ("trading.pipelines.mine.budget = \"1s\"", "trading.pipelines.mine.stages", "is missing"),
    ("trading.pipelines.mine.stages = []", "trading.pipelines.mine.stages", "there are 0"),
    ("trading.pipelines.mine.stages = [\"ING\", \"ING\"]", "trading.pipelines.mine.stage.ING", "used twice"),
    (
        "trading.pipelines.mine.stages = [\"LEARN\"]",
        "trading.pipelines.mine.stage.LEARN.provider",
        "who does the work",
    ),
    (
        "trading.pipelines.canonical.stage.RISKY.enabled = false",
        "trading.pipelines.canonical.stage.RISKY",
        "none of the pipeline's stages",
    ),
    (
        "trading.pipelines.canonical.stage.SIG.provider = \"somebody\"",
        "trading.pipelines.canonical.stage.SIG.provider",
        "is no provider",
    ),
    (
        "trading.pipelines.canonical.stage.SIG.provider = \"event\"",
        "trading.pipelines.canonical.stage.SIG.provider",
        "no broker",
    ),
    (
        "trading.pipelines.canonical.stage.EXEC.idempotent = true",
        "trading.pipelines.canonical.stage.EXEC.idempotent",
        "never idempotent",
    ),
    (
        "trading.pipelines.canonical.stage.RISK.on_failure = \"degrade\"",
        "trading.pipelines.canonical.stage.RISK.on_failure",
        "fail or block",
    ),
    (
        "trading.pipelines.canonical.stage.RISK.backoff_min = \"1s\"",
        "trading.pipelines.canonical.stage.RISK.backoff_min",
        "min is at most max",
    ),
    (
        "trading.pipelines.canonical.stage.ING = {idempotent = false, attempts_max = 2}",
        "trading.pipelines.canonical.stage.ING.attempts_max",
        "only an idempotent stage",
    ),
    (
        "trading.pipelines.canonical.hook.h = {stage = \"RISK\", mode = \"HARD\", provider = \"builtin\"}",
        "trading.pipelines.canonical.hook.h.provider",
        "http or worker",
    ),
    (
        "trading.schedules.s = {trigger = \"manual\", pipeline = \"canonical\", misfire = \"skip\", lateness_max = \"5s\"}",
        "trading.schedules.s.overlap",
        "no answer suits everybody",
    ),
    (
        "trading.schedules.s = {trigger = \"manual\", pipeline = \"canonical\", overlap = \"skip\", lateness_max = \"5s\"}",
        "trading.schedules.s.misfire",
        "no answer suits everybody",
    ),
    (
        "trading.schedules.s = {trigger = \"manual\", pipeline = \"canonical\", overlap = \"skip\", misfire = \"all\"}",
        "trading.schedules.s.lateness_max",
        "still of use",
    ),
    (
        "trading.schedules.s = {pipeline = \"canonical\", interval = \"1m\", overlap = \"skip\", misfire = \"all\", lateness_max = \"5s\"}",
        "trading.schedules.s.trigger",
        "is missing",
    ),
    (
        "trading.schedules.s = {trigger = \"manual\", pipeline = \"mine\", overlap = \"skip\", misfire = \"all\", lateness_max = \"5s\"}",
        "trading.schedules.s.pipeline",
        "no pipeline",
    ),
    ("trading.schedules.analysis.cron = \"0 9 * * *\"", "trading.schedules.analysis.cron", "another trigger"),
    (
        "trading.schedules.rebalance.cron = \"0 25 * * *\"",
        "trading.schedules.rebalance.cron",
        "no cron pattern",
    ),
    ("trading.schedules.rebalance.zone = \"Gotham\"", "trading.schedules.rebalance.zone", "does not fit"),
    ("trading.schedules.analysis.interval = \"0s\"", "trading.schedules.analysis.interval", "range"),
    (
        "trading.schedules.analysis.misfire_after = \"1m\"",
        "trading.schedules.analysis.lateness_max",
        "misfire_after",
    ),
    ("trading.schedules.analysis.calendar = \"XMOON\"", "trading.schedules.analysis.calendar", "no calendar"),
    ("trading.strategies.s.symbols = [\"A\"]", "trading.strategies.s.kind", "is missing"),
    ("trading.strategies.s.kind = \"momentum\"", "trading.strategies.s.symbols", "is missing"),
    (
        "trading.strategies.s = {kind = \"momentm\", symbols = [\"A\"]}",
        "trading.strategies.s.kind",
        "did you mean `momentum`?",
    ),
    (
        "trading = {schedules.rebalance.enabled = true, strategies.s = {kind = \"of_mine\", symbols = [\"A\"], schedules = [\"rebalance\"]}}",
        "trading.strategies.s.kind",
        "stage calculate_target_weights of pipeline rebalance knows",
    ),
    ("trading.strategies.regime.symbols = []", "trading.strategies.regime.symbols", "there are 0"),
    ("trading.strategies.regime.symbols = [\"A\", \"A\"]", "trading.strategies.regime.symbols", "twice"),
    (
        "trading.strategies.regime.schedules = [\"daily\"]",
        "trading.strategies.regime.schedules",
        "no schedule",
    ),
    ("trading.strategies.regime.pipeline = \"mine\"", "trading.strategies.regime.pipeline", "no pipeline"),
    (
        "trading.strategies.regime.status = \"running\"",
        "trading.strategies.regime.status",
        "not one of the words",
    ),
    ("trading.strategies.regime.targets = {AAPL = 0.5}", "trading.strategies.regime.targets", "in quotes"),
    ("trading.strategies.regime.targets = {TSLA = \"0.5\"}", "trading.strategies.regime.targets", "none of"),
    ("trading.calendars.XNYS.closed = [\"2026-13-01\"]", "trading.calendars.XNYS.closed", "is no date"),
    (
        "trading.calendars.XNYS.early_closes = [\"2026-12-01 25:00\"]",
        "trading.calendars.XNYS.early_closes",
        "no time of day",
    ),
    (
        "trading.calendars.XNYS.late_opens = [\"2026-12-01\"]",
        "trading.calendars.XNYS.late_opens",
        "does not fit",
    ),
    ("trading.pipelines.mine = 1", "trading.pipelines.mine", "not a section"),
    ("trading.schedules.s = 1", "trading.schedules.s", "not a section"),
    ("trading.strategies.s = 1", "trading.strategies.s", "not a section"),
    ("trading.providers.p = 1", "trading.providers.p", "not a section"),
    ("trading.calendars.c = 1", "trading.calendars.c", "not a section"),
    ("trading = 1", "trading", "not a section"),
    ("trading.strategies = []", "trading.strategies", "not a section"),
];

#[test]
fn each_bad_trading_setting_is_refused_for_its_reason_alone() {
    for (text, path, reason) in BAD {
        let error = check_load(text, &[], &[]).expect_err(text);
        let [violation] = error.violations.as_slice() else { panic!("{text}\n{error}") };
        let message = violation.to_string();
        assert_eq!(violation.path, *path, "{text}\n{message}");
        assert!(violation.what.contains(reason), "{text}\n{message}");
        assert!(matches!(violation.origin, Origin::File { .. }), "{text}\n{message}");
        assert!(!message.contains("canary"), "{message}");
    }
}

#[test]
fn what_is_wrong_is_told_whether_trading_is_on_or_off() {
    let is_about_the_switch = |text: &str| text.contains("trading.enable") || text.starts_with("trading = 1");
    for (text, path, _) in BAD.iter().filter(|(text, ..)| !is_about_the_switch(text)) {
        let error = check_load(text, &[], &[("trading.enabled", "true")]).expect_err(text);

        let paths: BTreeSet<&str> =
            error.violations.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(paths, BTreeSet::from([*path]), "{text}\n{error}");
    }
}

#[test]
fn everything_wrong_with_trading_is_told_at_once() {
    let lines = refused(
        "[trading]\nenabled = true\ncycle_budget = \"0s\"\n[trading.schedules.s]\ntrigger = \"cron\"\npipeline = \"nope\"\n\
         [trading.strategies.t]\nsymbols = []\n",
        &[("NATS_URL", "nats://host"), ("ORCH_RETRY_MAX", "many")],
    );

    let starts = [
        "NATS_URL: is set, and the bus is RabbitMQ, not NATS",
        "trading.cycle_budget: ",
        "trading.retry_max: \"many\" is not a whole number",
        "trading.schedules.s.pipeline: there is no pipeline \"nope\"",
        "trading.schedules.s.cron: is missing",
        "trading.schedules.s.overlap: is missing",
        "trading.schedules.s.misfire: is missing",
        "trading.schedules.s.lateness_max: is missing",
        "trading.strategies.t.kind: is missing",
    ];
    for start in starts {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}\n{lines:#?}");
    }
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
}

/// Whatever a schedule lacks, the rest of it is looked at.
#[test]
fn everything_that_a_schedule_lacks_is_told_at_once() {
    let lines = refused("[trading.schedules.s]\ncorn = \"0 9 * * *\"\nmisfire = \"never\"\n", &[]);

    let starts = [
        "trading.schedules.s.pipeline: is missing",
        "trading.schedules.s.trigger: is missing",
        "trading.schedules.s.overlap: is missing",
        "trading.schedules.s.misfire: \"never\" is not one of the words",
        "trading.schedules.s.lateness_max: is missing",
        "trading.schedules.s.corn: is not a key; did you mean `cron`?",
    ];
    for start in starts {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start}\n{lines:#?}");
    }
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
}

#[test]
fn a_history_that_cannot_be_kept_is_refused_with_every_reason_and_no_password() {
    let refused_lines = refused(
        "[trading.history]\nschema = \"a;b\"\nage_max = \"11years\"\n",
        &[("ORCHESTRATOR__TRADING__HISTORY__URL", "mysql://user:hidden@host/name")],
    );

    for setting in ["trading.history.schema", "trading.history.age_max", "trading.history.url"] {
        assert!(refused_lines.iter().any(|line| line.starts_with(setting)), "{setting}: {refused_lines:?}");
    }
    assert!(!refused_lines.concat().contains("hidden"), "{refused_lines:?}");
    let required = refused("[trading.history]\nenabled = false\nrequired = true\n", &[]);
    assert_eq!(required.len(), 1, "{required:?}");
}
