//! The trading plane's configuration as an operator meets it: on the real binary, with the shipped files.

use std::path::Path;
use std::process::Output;

use crate::support::{orchestrator, orchestrator_with};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Exit code of a refused configuration.
const REFUSED: i32 = 78;

#[test]
fn every_shipped_file_is_accepted() {
    for file in ["default", "demo", "demo_trading", "production"] {
        let checked = orchestrator(&["config", "check", "--config", &format!("config/{file}.toml")]);

        assert!(checked.status.success(), "{file}: {}", said(&checked));
    }
}

/// Method: variables as the specifications write them, and what the binary says is in force because of which.
#[test]
fn the_specifications_variables_are_in_force_and_shown_as_their_origin() {
    let variables = [
        ("ORCH_CYCLE_BUDGET_MS", "4000"),
        ("ORCH_STAGE_BUDGET_MS", "ING=250,FEAT=750"),
        ("ORCH_RETRY_MAX", "2"),
        ("ORCH_DEGRADED_ALLOW_EXEC", "false"),
        ("DB_HOST", "db"),
        ("DB_PORT", "6432"),
        ("LOG_LEVEL", "WARNING"),
    ];

    let on = orchestrator_with(&["config", "show", "--origin", "--set", "trading.enabled=true"], &variables);
    let off = orchestrator_with(&["config", "show", "--origin"], &variables);

    let (on, off) = (said(&on), said(&off));
    for (line, name) in [
        ("cycle_budget = \"4s\"", "ORCH_CYCLE_BUDGET_MS"),
        ("retry_max = 2", "ORCH_RETRY_MAX"),
        ("degraded_allow_exec = false", "ORCH_DEGRADED_ALLOW_EXEC"),
        ("host = \"db\"", "DB_HOST"),
        ("port = 6432", "DB_PORT"),
    ] {
        let shown =
            on.lines().find(|shown| shown.starts_with(line)).unwrap_or_else(|| panic!("{line}\n{on}"));
        assert!(shown.ends_with(&format!("# env {name}")), "{shown}");
        assert!(!off.contains(&format!("env {name}")), "{name} counts although trading is off:\n{off}");
    }
    assert!(on.contains("ING = \"250ms\"") && on.contains("SIG = \"1s\""), "{on}");
    for shown in [&on, &off] {
        assert!(shown.contains("# env LOG_LEVEL"), "{shown}");
    }
}

/// Method: what `config show` prints with trading on is a file that is accepted as the same settings.
#[test]
fn what_is_shown_with_trading_on_is_a_file_that_shows_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shown.toml");
    let shown = orchestrator(&["config", "show", "--config", "config/demo_trading.toml"]);
    assert!(shown.status.success(), "{}", said(&shown));
    std::fs::write(&path, &shown.stdout).unwrap();

    let again = orchestrator(&["config", "show", "--config", path.to_str().unwrap()]);

    assert_eq!(said(&again), said(&shown));
    for section in [
        "[trading.pipelines.canonical.stage.RISK]",
        "[trading.schedules.demo]",
        "[trading.strategies.regime]",
    ] {
        assert!(said(&shown).contains(section), "{section}");
    }
}

/// What must not trade by mistake: each with a word that an operator can act upon.
const UNSAFE: [(&str, &str); 6] = [
    ("http = {listen = \"0.0.0.0:0\", allow_public = true}", "whoever reaches it could trade"),
    ("trading = {environment = \"prod\", fail_closed_on_audit = false}", "unaudited"),
    ("trading.dry_run = false", "sends none"),
    (
        "trading.schedules.s = {trigger = \"manual\", pipeline = \"canonical\", lateness_max = \"1m\"}",
        "trading.schedules.s.overlap: is missing",
    ),
    ("trading.pipelines.canonical.stage.EXEC.provider = \"event\"", "only the built-in one executes orders"),
    ("trading.pipelines.canonical.stage.RISK.on_failure = \"degrade\"", "fail or block"),
];

#[test]
fn a_configuration_that_would_trade_unsafely_is_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("unsafe.toml"), dir.path().join("data"));
    for (text, reason) in UNSAFE {
        std::fs::write(&file, format!("{text}\n")).unwrap();
        for command in [["config", "check"].as_slice(), &["run"]] {
            let set = format!("service.data_dir={}", data.display());
            let flags = ["--config", path_of(&file), "--set", "trading.enabled=true", "--set", set.as_str()];

            let refused = orchestrator(&[command, flags.as_slice()].concat());

            assert_eq!(refused.status.code(), Some(REFUSED), "{text}: {}", said(&refused));
            assert!(said(&refused).contains(reason), "{text}: {}", said(&refused));
            assert!(!data.exists(), "{text}: the data directory was touched");
        }
    }
}

/// Method: every setting that is a URL, as a file and as a variable; the address cannot be, and the password is never
/// printed.
#[test]
fn a_url_that_cannot_be_connected_to_is_refused_by_its_key_and_without_its_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("urls.toml");
    for (text, key) in [
        (
            "[sources.s]\nkind = \"rabbitmq\"\nqueue = \"q\"\nurl = \"amqp://me:hidden@host:99999/\"",
            "sources.s.url",
        ),
        (
            "[sources.s]\nkind = \"redis_stream\"\nstream = \"q\"\nurl = \"redis://me:hidden@host:99999/\"",
            "sources.s.url",
        ),
        ("[kill_switch]\nkind = \"redis\"\nurl = \"redis://:hidden@host:99999/\"", "kill_switch.url"),
        ("[storage]\nkind = \"redis\"\n[redis]\nurl = \"redis://:hidden@host:0/\"", "redis.url"),
        ("[engine]\nkind = \"http\"\n[engine.http]\nurl = \"http://host:99999/\"", "engine.http.url"),
        ("[trading.providers.p]\nkind = \"http\"\nurl = \"http://host:99999/\"", "trading.providers.p.url"),
        ("[trading.events]\nurl = \"amqp://me:hidden@host:99999/\"", "trading.events.url"),
        ("[trading.history]\nurl = \"postgres://me:hidden@host:99999/name\"", "trading.history.url"),
    ] {
        std::fs::write(&file, text).unwrap();
        let checked = orchestrator(&["config", "check", "--config", path_of(&file)]);

        let told = said(&checked);
        assert_eq!(checked.status.code(), Some(REFUSED), "{text}: {told}");
        assert!(
            told.contains(&format!("{key}: ")) && told.contains("cannot be connected to"),
            "{text}: {told}"
        );
        assert!(!told.contains("hidden") && !told.contains("99999"), "{told}");
    }
}

/// Method: a schedule over two strategies; what is one symbol too many for a cycle is refused by name at the start, and
/// a schedule that is switched off or only looks may have it.
#[test]
fn a_schedule_whose_strategies_do_not_fit_one_cycle_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("large.toml");
    let strategy = |name: &str, symbols: usize| {
        let symbols: Vec<String> = (0..symbols).map(|number| format!("{name}{number}")).collect();
        format!(
            "[trading.strategies.{name}]\nkind = \"momentum\"\nschedules = [\"large\"]\nsymbols = {symbols:?}\n"
        )
    };
    let check = |schedule: &str, symbols: [usize; 2]| {
        let text = format!(
            "[trading]\nenabled = true\n[trading.schedules.large]\ntrigger = \"interval\"\ninterval = \"1m\"\n\
             overlap = \"skip\"\nmisfire = \"skip\"\nlateness_max = \"1m\"\n{schedule}\n{}{}",
            strategy("one", symbols[0]),
            strategy("two", symbols[1])
        );
        std::fs::write(&file, text).unwrap();
        let checked = orchestrator(&["config", "check", "--config", path_of(&file)]);
        (checked.status.code(), said(&checked))
    };

    let (code, told) = check("pipeline = \"canonical\"", [600, 600]);

    assert_eq!(code, Some(REFUSED), "{told}");
    for word in ["trading.schedules.large: ", "one, two have 1200 symbols together", "at most 1000"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    for (schedule, symbols) in [
        ("pipeline = \"canonical\"", [600, 400]),
        ("pipeline = \"heartbeat\"", [600, 600]),
        ("pipeline = \"canonical\"\nenabled = false", [600, 600]),
    ] {
        let (code, told) = check(schedule, symbols);
        assert_eq!(code, Some(0), "{schedule}: {told}");
    }
}

#[test]
fn a_bus_that_this_service_does_not_have_is_refused_while_trading_is_on() {
    let nats = [("NATS_URL", "nats://host:4222")];

    let on = orchestrator_with(&["config", "check", "--set", "trading.enabled=true"], &nats);
    let off = orchestrator_with(&["config", "check"], &nats);

    assert_eq!(on.status.code(), Some(REFUSED), "{}", said(&on));
    assert!(said(&on).contains("the bus is RabbitMQ, not NATS"), "{}", said(&on));
    assert!(off.status.success(), "{}", said(&off));
}

/// Method: a recording run with and without settings of a plane that is off; a recording is continued only by what
/// decides the same, so the second run is the proof.
#[test]
fn settings_of_a_plane_that_is_off_change_nothing_of_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    let receipt = r#"{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"t","symbol":"A","exchange_ts_ms":null,"recv_ts_ms":1577836800000,"raw_payload":"","normalized":{}}"#;
    std::fs::write(dir.path().join("day.jsonl"), receipt).unwrap();
    let settings = format!(
        "[service]\ndata_dir = \"{0}/data\"\n[clock]\nmode = \"recorded\"\n[sources.day]\nkind = \"file\"\npath = \"{0}/day.jsonl\"\n[http]\nlisten = \"127.0.0.1:0\"\n",
        dir.path().display()
    );
    let file = dir.path().join("config.toml");
    std::fs::write(&file, settings).unwrap();
    let run = |flags: &[&str]| {
        let output =
            orchestrator(&[["run", "--once", "--config", path_of(&file)].as_slice(), flags].concat());
        assert!(output.status.success(), "{flags:?}: {}", said(&output));
        said(&output)
    };

    run(&[]);
    let again = run(&["--set", "trading.mode=live", "--set", "trading.risk.capital=5"]);

    assert!(!again.contains("trading."), "{again}");
}

fn path_of(path: &Path) -> &str {
    path.to_str().unwrap()
}
