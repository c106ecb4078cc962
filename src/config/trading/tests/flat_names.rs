//! The specifications' variables: what they set, what is stronger, and what they never do.

use super::{ON, check_load, refused};
use crate::config::render_settings;

/// The flat names of the specifications, each with a value and the line that it makes.
const FLAT: &[(&str, &str, &str)] = &[
    ("ORCH_CYCLE_BUDGET_MS", "4000", "cycle_budget = \"4s\""),
    ("ORDINIS_ORCH_CYCLE_BUDGET_MS", "4500", "cycle_budget = \"4s 500ms\""),
    (
        "ORCH_STAGE_BUDGET_MS",
        "SIG=2000,OPT=7",
        "stage_budgets = {ANA = \"500ms\", EXEC = \"2s\", FEAT = \"500ms\", GOV = \"100ms\", ING = \"500ms\", OPT = \"7ms\", PORT = \"200ms\", RISK = \"200ms\", SIG = \"2s\"}",
    ),
    (
        "ORDINIS_ORCH_STAGE_BUDGET_MS",
        "{\"SIG\": 1500}",
        "stage_budgets = {ANA = \"500ms\", EXEC = \"2s\", FEAT = \"500ms\", GOV = \"100ms\", ING = \"500ms\", PORT = \"200ms\", RISK = \"200ms\", SIG = \"1s 500ms\"}",
    ),
    ("ORCH_RETRY_MAX", "3", "retry_max = 3"),
    ("ORDINIS_ORCH_RETRY_MAX", "0", "retry_max = 0"),
    ("ORCH_FAIL_CLOSED_ON_AUDIT", "False", "fail_closed_on_audit = false"),
    ("ORDINIS_ORCH_FAIL_CLOSED_ON_AUDIT", "0", "fail_closed_on_audit = false"),
    ("ORCH_DEGRADED_ALLOW_EXEC", "false", "degraded_allow_exec = false"),
    ("ORDINIS_ORCH_DEGRADED_ALLOW_EXEC", "0", "degraded_allow_exec = false"),
    ("DB_HOST", "db.internal", "host = \"db.internal\""),
    ("DB_PORT", "6543", "port = 6543"),
    ("LOG_LEVEL", "WARNING", "level = \"warn\""),
];

#[test]
fn flat_names_are_other_names_of_settings_and_are_shown_as_their_origin() {
    for &(name, value, line) in FLAT {
        let on = check_load(ON, &[(name, value)], &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let off = check_load("", &[(name, value)], &[]).unwrap();

        let shown = render_settings(&on.settings, true);
        let found =
            shown.lines().find(|shown| shown.starts_with(line)).unwrap_or_else(|| panic!("{line}\n{shown}"));
        assert!(found.ends_with(&format!("# env {name}")), "{found}");
        assert_eq!(off == check_load("", &[], &[]).unwrap(), name != "LOG_LEVEL", "{name} with trading off");
    }
}

#[test]
fn names_of_ours_and_flags_are_stronger_than_flat_names_and_a_file_is_weaker() {
    let load = |environment: &[(&str, &str)], flags: &[(&str, &str)]| {
        let text = format!("{ON}trading.retry_max = 1\nlog.level = \"debug\"\n");
        check_load(&text, environment, flags).unwrap().config
    };
    let flat = [("ORCH_RETRY_MAX", "2"), ("LOG_LEVEL", "INFO")];
    let ours =
        [flat[0], ("ORCHESTRATOR__TRADING__RETRY_MAX", "3"), flat[1], ("ORCHESTRATOR__LOG__LEVEL", "error")];

    assert_eq!(load(&flat, &[]).trading.defaults.retry_max, 2);
    assert_eq!(load(&flat, &[]).log.level.as_str(), "info");
    assert_eq!(load(&ours, &[]).trading.defaults.retry_max, 3);
    assert_eq!(load(&ours, &[]).log.level.as_str(), "error");
    assert_eq!(load(&flat, &[("trading.retry_max", "4")]).trading.defaults.retry_max, 4);
    assert_eq!(
        load(&[("ORCH_RETRY_MAX", "")], &[]).trading.defaults.retry_max,
        1,
        "an empty one is as good as none"
    );
}

#[test]
fn flat_names_that_contradict_each_other_or_make_no_sense_are_refused() {
    let both = [("ORCH_CYCLE_BUDGET_MS", "1"), ("ORDINIS_ORCH_CYCLE_BUDGET_MS", "2")];
    let lines = refused(ON, &both);
    assert!(lines.len() == 1 && lines[0].starts_with("trading.cycle_budget: is set twice"), "{lines:?}");
    assert!(
        check_load(ON, &[both[0], ("ORDINIS_ORCH_CYCLE_BUDGET_MS", "1")], &[]).is_ok(),
        "equal ones agree"
    );

    for (name, value, path) in [
        ("ORCH_CYCLE_BUDGET_MS", "5s", "trading.cycle_budget"),
        ("ORCH_CYCLE_BUDGET_MS", "0", "trading.cycle_budget"),
        ("ORCH_STAGE_BUDGET_MS", "SIG", "trading.stage_budgets"),
        ("ORCH_STAGE_BUDGET_MS", "S I G=5", "trading.stage_budgets"),
        ("ORCH_STAGE_BUDGET_MS", "SGI=5", "trading.stage_budgets"),
        ("ORCH_STAGE_BUDGET_MS", "SIG=5,SIG=6", "trading.stage_budgets"),
        ("ORCH_FAIL_CLOSED_ON_AUDIT", "maybe", "trading.fail_closed_on_audit"),
        ("DB_PORT", "postgres", "trading.history.port"),
        ("LOG_LEVEL", "verbose", "log.level"),
        ("NATS_URL", "nats://host:4222", "NATS_URL"),
    ] {
        let lines = refused(ON, &[(name, value)]);
        assert!(lines.len() == 1 && lines[0].starts_with(path) && lines[0].contains(name), "{lines:?}");
        assert!(check_load("", &[(name, value)], &[]).is_ok(), "{name} stops nobody who does not trade");
    }
    assert!(
        check_load("log = 1", &[("LOG_LEVEL", "INFO")], &[]).is_err(),
        "nothing that is wrong is covered up"
    );
    let prod = format!("{ON}trading.environment = \"prod\"\n");
    assert!(refused(&prod, &[("ORCH_FAIL_CLOSED_ON_AUDIT", "false")])[0].contains("unaudited"));
}
