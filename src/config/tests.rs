//! Good configurations load as they should, bad ones are refused with their path and place.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::ids::Symbol;
use proptest::prelude::*;

use super::*;

const DEFAULT: &str = include_str!("../../config/default.toml");
const DEMO: &str = include_str!("../../config/demo.toml");

const fn toml(toml: &'static str) -> ConfigBase {
    ConfigBase::BuiltIn { name: "test.toml", toml }
}

fn check_load(
    base: ConfigBase,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Loaded, ConfigError> {
    let environment =
        environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    let flag = |(path, value): &(&str, &str)| FlagSetting {
        flag: "--set".to_owned(),
        path: (*path).to_owned(),
        value: (*value).to_owned(),
    };
    Config::load(&Layers { base, environment, flags: flags.iter().map(flag).collect() })
}

fn check_refused(base: ConfigBase, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
    let error = check_load(base, environment, flags).expect_err("must be refused");
    error.violations.iter().map(ToString::to_string).collect()
}

#[test]
fn default_file_equals_the_defaults_of_the_code_and_sets_every_one() {
    let nothing = check_load(ConfigBase::None, &[], &[]).unwrap();
    let file = check_load(toml(DEFAULT), &[], &[]).unwrap();

    assert_eq!(nothing.config, Config::default());
    assert_eq!(file.config, Config::default());
    for setting in &file.settings {
        assert!(
            matches!(setting.origin, Origin::File { .. }),
            "{}.{} is missing",
            setting.section,
            setting.key
        );
    }
    let names = |loaded: &Loaded| -> Vec<String> {
        loaded.settings.iter().map(|setting| format!("{}.{}", setting.section, setting.key)).collect()
    };
    assert_eq!(names(&nothing), names(&file));
}

/// Method: the comment lines right above each `key = value` must hold the text that the refusal of a bad value prints.
#[test]
fn default_file_documents_what_each_setting_may_be() {
    let file = check_load(toml(DEFAULT), &[], &[]).unwrap();
    let lines: Vec<&str> = DEFAULT.lines().collect();

    for setting in &file.settings {
        let Origin::File { line, .. } = setting.origin else { panic!("{setting:?}") };
        let above = lines[..line - 1].iter().rev().take_while(|line| line.starts_with('#'));
        let comment: String = above.map(|line| line.trim_start_matches("# ")).rev_join(" ");
        assert!(comment.contains(&format!("({})", setting.allowed)), "{setting:?}: {comment}");
    }
}

trait RevJoin<'a> {
    fn rev_join(self, separator: &str) -> String;
}

impl<'a, I: Iterator<Item = &'a str>> RevJoin<'a> for I {
    fn rev_join(self, separator: &str) -> String {
        let mut items: Vec<&str> = self.collect();
        items.reverse();
        items.join(separator)
    }
}

#[test]
fn demo_file_is_accepted() {
    let demo = check_load(toml(DEMO), &[], &[]).unwrap().config;

    assert_eq!(demo.sources.keys().collect::<Vec<_>>(), ["demo"]);
    assert_eq!(demo.symbols, SymbolsConfig::Discover { limit: 1000 });
}

#[test]
fn later_layers_win_and_say_where_a_value_comes_from() {
    let base = || {
        toml("[http]\nlisten = \"127.0.0.1:1\"\n\n[log]\nlevel = \"warn\"\n[buffer]\nbatch_records_max = 7\n")
    };
    let environment =
        [("ORCHESTRATOR__HTTP__LISTEN", "127.0.0.1:2"), ("ORCHESTRATOR__LOG__LEVEL", "error"), ("PATH", "x")];

    let loaded = check_load(base(), &environment, &[("http.listen", "127.0.0.1:3")]).unwrap();

    assert_eq!(loaded.config.http.listen.port(), 3);
    assert_eq!(loaded.config.log.level, LogLevel::Error);
    assert_eq!(loaded.config.buffer.batch_records_max, 7);
    let shown = render_settings(&loaded.settings, true);
    for (line, origin) in [
        ("listen = \"127.0.0.1:3\"", "flag --set"),
        ("level = \"error\"", "env ORCHESTRATOR__LOG__LEVEL"),
        ("batch_records_max = 7", "test.toml:7"),
        ("grace = \"10s\"", "default"),
    ] {
        let found =
            shown.lines().find(|candidate| candidate.starts_with(line)).unwrap_or_else(|| panic!("{line}"));
        assert!(found.ends_with(&format!("# {origin}")), "{found}");
    }
}

#[test]
fn the_environment_can_set_every_form() {
    let environment = [
        ("ORCHESTRATOR__SOURCES__CAPTURE__KIND", "file"),
        ("ORCHESTRATOR__SOURCES__CAPTURE__PATH", "a.jsonl"),
        ("ORCHESTRATOR__SOURCES__CAPTURE__SPEED", "2.5"),
        ("ORCHESTRATOR__SYMBOLS__LIST", "BTCUSDT, ETHUSDT"),
        ("ORCHESTRATOR__ENGINE__KIND", "process"),
        ("ORCHESTRATOR__ENGINE__PROCESS__COMMAND", "[\"python3\", \"a,b.py\"]"),
        ("ORCHESTRATOR__ENGINE__PROCESS__ENV__PYTHONPATH", "lib"),
        ("ORCHESTRATOR__ENGINE__PROCESS__MEMORY_MAX_BYTES", "512MiB"),
        ("ORCHESTRATOR__HTTP__ALLOW_PUBLIC", "true"),
        ("ORCHESTRATOR__SCHEDULE__INTERVAL", "1h 30m"),
    ];

    let config = check_load(ConfigBase::None, &environment, &[]).unwrap().config;

    let capture = FileSourceConfig {
        path: PathBuf::from("a.jsonl"),
        speed: RecordingSpeed::Times(2.5),
        follow: false,
        line_bytes_max: 256 << 10,
    };
    assert_eq!(config.sources, Sources::from([("capture".to_owned(), SourceConfig::File(capture))]));
    assert_eq!(config.symbols, SymbolsConfig::List(vec![Symbol::from("BTCUSDT"), Symbol::from("ETHUSDT")]));
    assert_eq!(config.engine.process.command, ["python3", "a,b.py"]);
    assert_eq!(config.engine.process.env.0.get("PYTHONPATH").map(String::as_str), Some("lib"));
    assert_eq!(config.engine.process.memory_max_bytes, 512 << 20);
    assert!(config.http.allow_public);
    assert_eq!(config.schedule.cadence, Cadence::Boundary { interval_ms: 5_400_000, delay_ms: 500 });
}

#[test]
fn an_option_of_the_default_source_can_be_set_alone() {
    let config =
        check_load(ConfigBase::None, &[("ORCHESTRATOR__SOURCES__HTTP__QUEUE_BATCHES_MAX", "5")], &[])
            .unwrap()
            .config;

    let http = SourceConfig::Http(HttpSourceConfig { queue_batches_max: 5, ..HttpSourceConfig::default() });
    assert_eq!(config.sources, Sources::from([("http".to_owned(), http)]));
}

#[test]
fn a_value_from_a_file_loses_its_newline_and_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let environment = [
        ("ORCHESTRATOR__ENGINE__PROCESS__ENV__TOKEN_FILE", &*file("token", "canary\r\n")),
        ("ORCHESTRATOR__PUBLISH__FILE_FILE", &*file("path", "canary.jsonl\n\n")),
        ("ORCHESTRATOR__PUBLISH__FILE", ""),
    ];

    let loaded = check_load(ConfigBase::None, &environment[..2], &[]).unwrap();
    let refused = check_refused(ConfigBase::None, &environment, &[]).join("\n");
    let wrong =
        check_refused(ConfigBase::None, &[("ORCHESTRATOR__HTTP__LISTEN_FILE", &*file("bad", "canary"))], &[])
            .join("\n");

    assert_eq!(loaded.config.engine.process.env.0.get("TOKEN").map(String::as_str), Some("canary"));
    assert_eq!(loaded.config.publish.file.as_deref(), Some(Path::new("canary.jsonl\n")));
    assert!(!render_settings(&loaded.settings, true).contains("canary"));
    assert!(!format!("{:?}", loaded.config.engine).contains("canary"));
    assert!(refused.contains("publish.file: is set twice"), "{refused}");
    assert!(wrong.starts_with("http.listen: the file's content is not a numeric address"), "{wrong}");
    assert!(!wrong.contains("canary"), "{wrong}");
}

#[test]
fn what_is_shown_loads_as_the_same_configuration() {
    for base in [toml(DEFAULT), toml(DEMO), toml(TIMER)] {
        let loaded = check_load(base, &[], &[]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shown.toml");

        std::fs::write(&path, render_settings(&loaded.settings, true)).unwrap();

        assert_eq!(check_load(ConfigBase::File(path), &[], &[]).unwrap().config, loaded.config);
    }
}

#[test]
fn a_stream_may_drive_a_recorded_clock_and_hides_its_password() {
    let text = "clock.mode = \"recorded\"\n[sources.s]\nkind = \"redis_stream\"\nurl = \"redis://:canary@host/1\"\nstream = \"k\"\nstart = \"5-0\"";

    let loaded = check_load(toml(text), &[], &[]).unwrap();

    let SourceConfig::RedisStream(stream) = &loaded.config.sources["s"] else { panic!("{loaded:?}") };
    assert_eq!(stream.url.expose_url(), "redis://:canary@host/1");
    assert_eq!(
        (stream.group.as_str(), stream.field.as_str(), stream.start.as_str()),
        ("orchestrator", "event", "5-0")
    );
    assert!(
        !render_settings(&loaded.settings, true).contains("canary")
            && !format!("{loaded:?}").contains("canary")
    );
}

/// Uses what the other two files leave out.
const TIMER: &str = r#"
[service]
data_dir = "with \"quotes\" and \\"
[clock]
mode = "recorded"
[sources.a-1]
kind = "file"
path = "capture.jsonl"
speed = "original"
[schedule]
mode = "timer"
interval = "6m"
align = "3m"
[symbols]
list = ["BTCUSDT"]
[engine]
kind = "process"
process.command = ["true"]
[publish]
file = ""
"#;

#[test]
fn everything_wrong_is_told_at_once_with_its_place() {
    let refused = check_refused(
        toml(
            "[ingest]\nreceipt_bytes_max = 0\nin_fligth_receipts_max = 5\n[enginee]\n[log]\nlevel = \"inof\"\n",
        ),
        &[("ORCHESTRATOR__HTTP__LISTEN", "localhost:80")],
        &[("buffer.batch_records_max", "many")],
    );

    let expected = [
        "ingest.receipt_bytes_max: 0 is out of range (allowed: size, 1KiB to 64MiB) [test.toml:2]",
        "ingest.in_fligth_receipts_max: is not a key; did you mean `in_flight_receipts_max`? (allowed: in_flight_receipts_max) [test.toml:3]",
        "buffer.batch_records_max: \"many\" is not a whole number (allowed: whole number, 1 to 65536) [flag --set]",
        "http.listen: \"localhost:80\" is not a numeric address with a port (allowed: address:port, for example \"127.0.0.1:8003\" or \"[::1]:8003\") [env ORCHESTRATOR__HTTP__LISTEN]",
        "log.level: \"inof\" is not one of the words; did you mean `info`? (allowed: \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\") [test.toml:6]",
        "enginee: is not a section; did you mean `engine`? (allowed: engine) [test.toml:4]",
    ];
    assert_eq!(refused, expected);
}

#[test]
fn a_file_that_is_not_there_or_no_toml_is_refused_with_its_name() {
    let missing = check_refused(ConfigBase::File(PathBuf::from("no/such.toml")), &[], &[]).join("\n");
    let broken = check_refused(toml("[log]\nlevel = \n[http\n"), &[], &[]).join("\n");
    let directory = check_refused(ConfigBase::File(std::env::temp_dir()), &[], &[]).join("\n");

    assert!(missing.starts_with("no/such.toml: cannot be read: "), "{missing}");
    assert!(broken.contains("[test.toml:2]") && broken.contains("[test.toml:3]"), "{broken}");
    assert!(directory.contains("cannot be read"), "{directory}");
}

#[test]
fn environment_variables_that_name_nothing_are_refused() {
    for (name, value, expected) in [
        ("ORCHESTRATOR__", "x", "names no setting"),
        ("ORCHESTRATOR__HTTP", "x", "names no setting"),
        ("ORCHESTRATOR__HTTP__", "x", "names no setting"),
        ("ORCHESTRATOR__HTTP__LISTENN", "127.0.0.1:1", "did you mean `listen`?"),
        ("ORCHESTRATOR__HTPP__LISTEN", "127.0.0.1:1", "did you mean `http`?"),
        ("ORCHESTRATOR__HTTP__LISTEN__PORT", "1", "http.listen: a table is not text"),
        ("ORCHESTRATOR__ENGINE__PROCESS", "x", "engine.process: is \"x\", not a section"),
        ("ORCHESTRATOR__LOG__LEVEL_FILE", "/no/such/file", "cannot read /no/such/file"),
        ("ORCHESTRATOR__LOG__LEVEL_FILE", "/dev/zero", "cannot read /dev/zero"),
    ] {
        let refused = check_refused(ConfigBase::None, &[(name, value)], &[]).join("\n");
        assert!(refused.contains(expected), "{name}={value}: {refused}");
    }
}

/// One bad line or block each, the path that must be named, and a word of the reason.
const BAD: &[(&str, &str, &str)] = &[
    ("service.data_dir = \"\"", "service.data_dir", "no path"),
    ("service.data_dir = 5", "service.data_dir", "not text"),
    ("service.grace = \"0s\"", "service.grace", "range"),
    ("service.grace = 10", "service.grace", "no unit"),
    ("service.grace = \"10\"", "service.grace", "not a duration"),
    ("service.grace = \"-1s\"", "service.grace", "not a duration"),
    ("service.grace = \"1500us\"", "service.grace", "whole number of milliseconds"),
    ("service.grace = \"99999999999999999y\"", "service.grace", "not a duration"),
    ("service.grace = 2026-01-01", "service.grace", "not a duration"),
    ("service.grace = true", "service.grace", "not a duration"),
    ("service.worker_threads = -1", "service.worker_threads", "range"),
    ("service.worker_threads = 1.5", "service.worker_threads", "whole number"),
    ("service.worker_threads = \"2\"", "service.worker_threads", "whole number"),
    ("service.worker_threads = 99999999999999999999999", "service.worker_threads", "range"),
    ("service.worker_thread = 2", "service.worker_thread", "did you mean `worker_threads`?"),
    ("service = 1", "service", "not a section"),
    ("service = []", "service", "not a section"),
    ("clock.mode = \"wal\"", "clock.mode", "did you mean `wall`?"),
    ("clock.mode = 1", "clock.mode", "not one of the words"),
    ("clock.mode = \"recorded\"\n[sources.demo]\nkind = \"demo\"", "clock.mode", "needs a recording"),
    (
        "clock.mode = \"recorded\"\nsources.a = {kind = \"file\", path = \"x\"}\nsources.b = {kind = \"file\", path = \"y\"}",
        "clock.mode",
        "follows one source",
    ),
    (
        "clock.mode = \"recorded\"\nsources.a = {kind = \"file\", path = \"x\", follow = true}",
        "sources.a.follow",
        "recorded clock",
    ),
    ("sources.a.path = \"x\"", "sources.a.kind", "is missing"),
    ("sources.a.kind = \"kafka\"", "sources.a.kind", "not one of the words"),
    ("sources.a.kind = \"file\"", "sources.a.path", "is missing"),
    ("sources.a = {kind = \"file\", path = \"\"}", "sources.a.path", "no path"),
    ("sources.a = {kind = \"file\", path = \"x\", seed = 1}", "sources.a.seed", "not a key"),
    ("sources.a = {kind = \"file\", path = \"x\", speed = \"fast\"}", "sources.a.speed", "not a number"),
    ("sources.a = {kind = \"file\", path = \"x\", speed = 0}", "sources.a.speed", "range"),
    ("sources.a = {kind = \"file\", path = \"x\", speed = nan}", "sources.a.speed", "range"),
    ("sources.a = {kind = \"file\", path = \"x\", speed = inf}", "sources.a.speed", "range"),
    ("sources.a = {kind = \"file\", path = \"x\", speed = 2, follow = true}", "sources.a.speed", "pace"),
    ("sources.a = {kind = \"file\", path = \"x\", follow = 1}", "sources.a.follow", "neither"),
    (
        "sources.a = {kind = \"file\", path = \"x\", line_bytes_max = \"1MB\"}",
        "sources.a.line_bytes_max",
        "not a size",
    ),
    ("sources.\"A B\".kind = \"http\"", "sources.A B", "cannot be a name"),
    (
        "sources.a123456789012345678901234567890123.kind = \"http\"",
        "sources.a123456789012345678901234567890123",
        "name",
    ),
    ("sources.a = 1", "sources.a", "not a section"),
    ("sources.a = {kind = \"http\"}\nsources.b = {kind = \"http\"}", "sources", "one HTTP interface"),
    ("sources.a = {kind = \"http\", queue_batches_max = 0}", "sources.a.queue_batches_max", "range"),
    ("sources.a = {kind = \"redis_stream\", url = \"redis://x\"}", "sources.a.stream", "is missing"),
    ("sources.a = {kind = \"redis_stream\", stream = \"x\"}", "sources.a.url", "is missing"),
    (
        "sources.a = {kind = \"redis_stream\", stream = \"x\", url = \"redis://x\", start = \"1\"}",
        "sources.a.start",
        "does not fit",
    ),
    (
        "sources.a = {kind = \"redis_stream\", stream = \"x\", url = \"redis://x\", claim_idle = \"1ms\"}",
        "sources.a.claim_idle",
        "range",
    ),
    ("sources.a = {kind = \"demo\", symbols = 0}", "sources.a.symbols", "range"),
    ("sources.a = {kind = \"demo\", seed = -1}", "sources.a.seed", "range"),
    ("sources.a = {kind = \"demo\", rate_per_second = -1}", "sources.a.rate_per_second", "range"),
    (
        "sources.a = {kind = \"demo\", snapshot_interval = \"7s\"}",
        "sources.a.snapshot_interval",
        "does not divide",
    ),
    ("ingest.in_flight_receipts_max = 0", "ingest.in_flight_receipts_max", "range"),
    ("ingest.in_flight_bytes_max = \"64kb\"", "ingest.in_flight_bytes_max", "not a size"),
    (
        "ingest.in_flight_bytes_max = \"99999999999999999999999999999999999999GiB\"",
        "ingest.in_flight_bytes_max",
        "not a size",
    ),
    ("ingest.in_flight_bytes_max = -1", "ingest.in_flight_bytes_max", "range"),
    ("ingest.in_flight_bytes_max = \"64KiB\"", "ingest.receipt_bytes_max", "in_flight_bytes_max"),
    ("ingest.receipt_bytes_max = \"16MiB\"", "ingest.receipt_bytes_max", "batch_bytes_max"),
    ("ingest.receipt_bytes_max = \"2MiB\"", "http.body_bytes_max", "receipt_bytes_max"),
    ("ingest.reconnect.min = \"6s\"", "ingest.reconnect.min", "more than max"),
    ("ingest.reconnect.max_elapsed = \"6s\"", "ingest.reconnect.max_elapsed", "not a key"),
    ("buffer.batch_records_max = 65537", "buffer.batch_records_max", "range"),
    ("buffer.batch_bytes_max = \"128MiB\"", "buffer.batch_bytes_max", "segment"),
    ("buffer.capacity_bytes = \"100MiB\"", "buffer.capacity_bytes", "two segments"),
    ("buffer.checkpoint_every_receipts = 1", "buffer.checkpoint_every_receipts", "range"),
    ("engine.process.respawn.min = \"10s\"", "engine.process.respawn.min", "more than max"),
    ("sources.a = {kind = \"demo\", snapshot_lag = \"1s\"}", "sources.a.snapshot_lag", "not shorter"),
    ("schedule.mode = \"cron\"", "schedule.mode", "not one of the words"),
    ("schedule.mode = \"timer\"", "schedule.align", "can never equal the aligned timestamp_ms"),
    ("schedule = {mode = \"timer\", align = \"7s\"}", "schedule.interval", "no multiple"),
    ("schedule = {mode = \"timer\", align = \"6m\"}", "schedule.interval", "no multiple"),
    ("schedule = {mode = \"timer\", align = \"0s\"}", "schedule.align", "range"),
    ("schedule = {mode = \"timer\", align = \"3m\", delay = \"1s\"}", "schedule.delay", "no effect"),
    ("schedule.align = \"3m\"", "schedule.align", "no effect"),
    ("schedule.interval = \"0s\"", "schedule.interval", "range"),
    ("schedule.delay = \"3m\"", "schedule.delay", "not shorter"),
    ("schedule.runs_queued_max = 0", "schedule.runs_queued_max", "range"),
    ("symbols.list = []", "symbols.list", "empty"),
    ("symbols.list = \"BTCUSDT\"", "symbols.list", "not a list"),
    ("symbols.list = [1]", "symbols.list", "holds 1"),
    ("symbols.list = [\"\"]", "symbols.list", "does not fit"),
    ("symbols.list = [\"A\", \"B\", \"A\"]", "symbols.list", "twice"),
    ("symbols = {list = [\"A\"], discover = true}", "symbols.discover", "although there is a list"),
    ("symbols = {list = [\"A\"], limit = 5}", "symbols.limit", "no effect"),
    ("symbols.discover = false", "symbols.discover", "no list"),
    ("symbols.limit = 0", "symbols.limit", "range"),
    ("engine.kind = \"grpc\"", "engine.kind", "not one of the words"),
    ("engine.kind = \"http\"", "engine.http.url", "empty"),
    ("engine.http.url = \"redis://host\"", "engine.http.url", "another scheme"),
    ("engine.http.url = \"http://canary@host\"", "engine.http.url", "user or password"),
    ("engine.http.token = \"a b\"", "engine.http.token", "does not fit"),
    ("engine.http.connections_max = 0", "engine.http.connections_max", "range"),
    ("engine.kind = \"process\"", "engine.process.command", "empty"),
    ("engine = {kind = \"process\", process.command = [\"\"]}", "engine.process.command", "empty"),
    ("engine.mode = \"thruth\"", "engine.mode", "did you mean `truth`?"),
    ("engine.deadline = \"0ms\"", "engine.deadline", "range"),
    ("engine.retry.max_attempts = 0", "engine.retry.max_attempts", "range"),
    ("engine.retry.min = \"2s\"", "engine.retry.min", "more than max"),
    ("engine.retry = {min = \"1s\", max_elapsed = \"10ms\"}", "engine.retry.max_elapsed", "less than min"),
    ("engine.process.env = {A = 1}", "engine.process.env.A", "not text"),
    ("engine.process.env = {\"A=B\" = \"x\"}", "engine.process.env.A=B", "cannot be a name"),
    ("engine.hysteresis.decay_factor = 1.5", "engine.hysteresis.decay_factor", "range"),
    (
        "engine.hysteresis.min_confidence_for_flip = \"high\"",
        "engine.hysteresis.min_confidence_for_flip",
        "not a number",
    ),
    ("publish.file = 1", "publish.file", "not text"),
    ("publish.backlog_resume = 100000", "publish.backlog_resume", "not less"),
    ("publish = {backlog_max = 100, backlog_resume = 1}", "publish.batch_max", "backlog_max"),
    ("publish.blocked_max = \"2h\"", "publish.blocked_max", "range"),
    ("http.listen = \"0.0.0.0:8003\"", "http.listen", "other machines"),
    ("http.listen = \"[::]:8003\"", "http.listen", "other machines"),
    ("http.listen = \"127.0.0.1\"", "http.listen", "port"),
    ("http.listen = 8003", "http.listen", "not text"),
    ("http.allow_public = \"yes\"", "http.allow_public", "neither"),
    ("http.connections_max = 0", "http.connections_max", "range"),
    ("log.format = \"xml\"", "log.format", "not one of the words"),
    ("log.colour = true", "log.colour", "not a key"),
    ("listen = 1", "listen", "not a section"),
];

#[test]
fn each_bad_configuration_is_refused_for_its_reason_alone() {
    assert!(BAD.len() >= 60);
    for (text, path, reason) in BAD {
        let error = check_load(toml(text), &[], &[]).expect_err(text);
        let [violation] = error.violations.as_slice() else { panic!("{text}\n{error}") };
        let message = violation.to_string();
        assert_eq!(violation.path, *path, "{text}\n{message}");
        assert!(violation.what.contains(reason), "{text}\n{message}");
        // What concerns a default as well is shown at the line that broke it.
        let of_file = violation.path == "sources" || matches!(violation.origin, Origin::File { .. });
        assert!(of_file, "{text}\n{message}");
    }
}

#[test]
fn a_public_address_is_accepted_when_it_is_allowed() {
    let config =
        check_load(toml("http = {listen = \"0.0.0.0:80\", allow_public = true}"), &[], &[]).unwrap().config;

    assert_eq!(config.http.listen.to_string(), "0.0.0.0:80");
}

#[test]
fn outputs_file_lies_in_the_data_directory() {
    let mut config = Config::default();
    assert_eq!(config.outputs_file().as_deref(), Some(Path::new("data/outputs/orchestrator_events.jsonl")));

    config.publish.file = None;
    assert_eq!(config.outputs_file(), None);
}

/// Pieces that mutations put in.
const PIECES: &[&str] = &[
    "",
    "=",
    "[",
    "]",
    "\"",
    "\n",
    "0",
    "-",
    "1e999",
    "\"3m\"",
    "nan",
    "é",
    "#",
    ".",
    "{",
    "x = 1\n",
    "[http]\n",
    "[[log]]\n",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Method: cut pieces out of good files and put others in, then load: it must not panic, and each violation must
    /// name a path.
    #[test]
    fn mutated_files_are_accepted_or_refused_with_a_path(
        which in 0..3_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, prop::sample::select(PIECES)), 1..4),
    ) {
        let mut text: Vec<char> = [DEFAULT, DEMO, TIMER][which].chars().collect();
        for (at, length, piece) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, piece.chars());
        }
        let text: String = text.into_iter().collect();

        let tree = file::parse_text(&text, Path::new("mutated.toml"));
        let violations = match tree {
            Ok(tree) => {
                let mut report = ReadReport::default();
                let config = Section::read_tree(&tree, &mut report, Config::from_root);
                rules::check_rules(&config, &mut report);
                report.violations
            }
            Err(violations) => violations,
        };

        for violation in violations {
            prop_assert!(!violation.path.is_empty() && !violation.what.is_empty(), "{violation:?}");
        }
    }

    #[test]
    fn any_environment_value_is_accepted_or_refused_with_a_path(
        name in "ORCHESTRATOR__[A-Z]{2,9}(__[A-Z_]{1,20}){0,3}", value in "\\PC{0,20}",
    ) {
        if let Err(error) = check_load(ConfigBase::None, &[(&name, &value)], &[]) {
            prop_assert!(error.violations.iter().all(|violation| !violation.path.is_empty()));
        }
    }
}

#[test]
fn a_kill_switch_that_one_lost_read_would_block_is_refused() {
    let refused = check_refused(
        toml("[kill_switch]\nkind = \"redis\"\nlease = \"200ms\"\nhistory_key = \"kill_switch:state\"\n"),
        &[("ORCHESTRATOR__KILL_SWITCH__URL", "http://:canary@host")],
        &[],
    );

    assert_eq!(refused.len(), 3, "{refused:?}");
    for (path, line) in
        ["kill_switch.url", "kill_switch.lease", "kill_switch.history_key"].iter().zip(&refused)
    {
        assert!(line.starts_with(path) && !line.contains("canary"), "{line}");
    }
}
