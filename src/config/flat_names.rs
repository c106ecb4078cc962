//! The flat names of the specifications' variables: other names of settings of ours, read below `ORCHESTRATOR__…`.
//!
//! ```text
//! defaults < file < flat names < ORCHESTRATOR__SECTION__KEY < flags
//! ```
//!
//! But for `LOG_LEVEL` they count while trading is on: a machine may have them for other programs.

use std::ffi::OsString;

use super::reader::tree::{Origin, Table, Value, find_at_path, insert_at_path};
use super::reader::violation::Violation;

/// A variable, and the setting that it is another name of.
struct FlatName {
    name: &'static str,
    path: &'static [&'static str],
    /// The value as the setting is written; else what it is not.
    translate: fn(&str) -> Result<String, &'static str>,
    /// Whether it counts while trading is off.
    is_always_read: bool,
}

impl FlatName {
    const fn of_trading(
        name: &'static str,
        path: &'static [&'static str],
        translate: fn(&str) -> Result<String, &'static str>,
    ) -> Self {
        Self { name, path, translate, is_always_read: false }
    }
}

const CYCLE_BUDGET: &[&str] = &["trading", "cycle_budget"];
const STAGE_BUDGETS: &[&str] = &["trading", "stage_budgets"];
const RETRY_MAX: &[&str] = &["trading", "retry_max"];
const FAIL_CLOSED: &[&str] = &["trading", "fail_closed_on_audit"];
const DEGRADED_ALLOW: &[&str] = &["trading", "degraded_allow_exec"];

/// The variables of specifications 001 and 002, and the one of all.
const FLAT_NAMES: [FlatName; 13] = [
    FlatName::of_trading("ORCH_CYCLE_BUDGET_MS", CYCLE_BUDGET, translate_ms),
    FlatName::of_trading("ORDINIS_ORCH_CYCLE_BUDGET_MS", CYCLE_BUDGET, translate_ms),
    FlatName::of_trading("ORCH_STAGE_BUDGET_MS", STAGE_BUDGETS, translate_stage_budgets),
    FlatName::of_trading("ORDINIS_ORCH_STAGE_BUDGET_MS", STAGE_BUDGETS, translate_stage_budgets),
    FlatName::of_trading("ORCH_RETRY_MAX", RETRY_MAX, translate_nothing),
    FlatName::of_trading("ORDINIS_ORCH_RETRY_MAX", RETRY_MAX, translate_nothing),
    FlatName::of_trading("ORCH_FAIL_CLOSED_ON_AUDIT", FAIL_CLOSED, translate_flag),
    FlatName::of_trading("ORDINIS_ORCH_FAIL_CLOSED_ON_AUDIT", FAIL_CLOSED, translate_flag),
    FlatName::of_trading("ORCH_DEGRADED_ALLOW_EXEC", DEGRADED_ALLOW, translate_flag),
    FlatName::of_trading("ORDINIS_ORCH_DEGRADED_ALLOW_EXEC", DEGRADED_ALLOW, translate_flag),
    FlatName::of_trading("DB_HOST", &["trading", "history", "host"], translate_nothing),
    FlatName::of_trading("DB_PORT", &["trading", "history", "port"], translate_nothing),
    FlatName { name: "LOG_LEVEL", path: &["log", "level"], translate: translate_level, is_always_read: true },
];

/// A variable of specification 002 for a bus that this service does not have.
const REFUSED: &str = "NATS_URL";

/// Puts what the flat names say into `tree`, which holds all other layers. What a stronger layer says stays.
pub(super) fn apply_flat_names(tree: &mut Table, variables: &[(OsString, OsString)]) -> Vec<Violation> {
    let is_trading = is_trading_on(tree);
    let mut violations = Vec::new();
    if is_trading && find_variable(variables, REFUSED).is_some() {
        violations.push(Violation {
            path: REFUSED.to_owned(),
            what: "is set, and the bus is RabbitMQ, not NATS".to_owned(),
            allowed: "no such variable, and the broker as trading.events.url".to_owned(),
            origin: Origin::Env { name: REFUSED.to_owned() },
        });
    }
    for flat in FLAT_NAMES.iter().filter(|flat| is_trading || flat.is_always_read) {
        let Some(value) = find_variable(variables, flat.name) else { continue };
        match value.to_str().ok_or("UTF-8 text").and_then(flat.translate) {
            Ok(word) => violations.extend(flat.insert_word(tree, word)),
            // With trading off it may be another program's, and has never stopped this one.
            Err(_) if !is_trading => {}
            Err(allowed) => violations.push(flat.violation(&value.to_string_lossy(), allowed)),
        }
    }
    violations
}

/// Whether the layers so far switch the trading plane on.
fn is_trading_on(tree: &Table) -> bool {
    let enabled = find_at_path(tree, &["trading", "enabled"]);
    enabled.is_some_and(|node| match &node.value {
        Value::Bool(enabled) => *enabled,
        Value::Word(word) => word.trim() == "true",
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Table(_)
        | Value::DateTime(_) => false,
    })
}

/// The value of a variable. An empty one is as good as none.
fn find_variable<'v>(variables: &'v [(OsString, OsString)], name: &str) -> Option<&'v OsString> {
    variables
        .iter()
        .find(|(given, _)| given == name)
        .map(|(_, value)| value)
        .filter(|value| !value.is_empty())
}

impl FlatName {
    fn insert_word(&self, tree: &mut Table, word: String) -> Option<Violation> {
        let origin = Origin::Env { name: self.name.to_owned() };
        if self.is_in_the_way(tree) {
            return None;
        }
        if let Some(node) = find_at_path(tree, self.path) {
            match &node.origin {
                Origin::Default | Origin::File { .. } => {}
                Origin::Flag { .. } | Origin::EnvFile { .. } => return None,
                Origin::Env { name } if !FLAT_NAMES.iter().any(|flat| flat.name == name) => return None,
                Origin::Env { name } => {
                    let is_same = matches!(&node.value, Value::Word(given) if *given == word);
                    return (!is_same).then(|| Violation {
                        path: self.path.join("."),
                        what: format!("is set twice in the environment, and differently by {name}"),
                        allowed: "one of the two".to_owned(),
                        origin,
                    });
                }
            }
        }
        let path: Vec<String> = self.path.iter().map(|key| (*key).to_owned()).collect();
        insert_at_path(tree, &path, Value::Word(word), origin);
        None
    }

    /// Whether something else stands where the section should, which is wrong and is told.
    fn is_in_the_way(&self, tree: &Table) -> bool {
        let section = |end: usize| find_at_path(tree, self.path.get(..end)?);
        (1..self.path.len()).filter_map(section).any(|node| !matches!(node.value, Value::Table(_)))
    }

    fn violation(&self, value: &str, allowed: &str) -> Violation {
        Violation {
            path: self.path.join("."),
            what: format!("{} does not fit", Value::Word(value.to_owned())),
            allowed: allowed.to_owned(),
            origin: Origin::Env { name: self.name.to_owned() },
        }
    }
}

/// The setting says itself what is wrong with it.
fn translate_nothing(value: &str) -> Result<String, &'static str> {
    Ok(value.trim().to_owned())
}

/// A number of milliseconds.
fn translate_ms(value: &str) -> Result<String, &'static str> {
    let ms: u64 = value.trim().parse().map_err(|_| "whole number of milliseconds")?;
    Ok(format!("{ms}ms"))
}

/// `ING=500,FEAT=500`, or the same as an object of JSON.
fn translate_stage_budgets(value: &str) -> Result<String, &'static str> {
    const ALLOWED: &str = "STAGE=milliseconds with commas between, or an object of JSON";
    let text = value.trim();
    let parts: Vec<String> = if text.starts_with('{') {
        let budgets: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|_| ALLOWED)?;
        let part =
            |(stage, budget): (&String, &serde_json::Value)| Some(format!("{stage}={}ms", budget.as_u64()?));
        budgets.iter().map(part).collect::<Option<_>>().ok_or(ALLOWED)?
    } else {
        let part = |part: &str| {
            let (stage, budget) = part.split_once('=')?;
            Some(format!("{}={}", stage.trim(), translate_ms(budget).ok()?))
        };
        text.split(',').map(part).collect::<Option<_>>().ok_or(ALLOWED)?
    };
    // A comma in a stage's name would make two of one.
    if parts.iter().any(|part| part.contains(',')) { Err(ALLOWED) } else { Ok(parts.join(",")) }
}

/// A truth value, in the spellings that environments have.
fn translate_flag(value: &str) -> Result<String, &'static str> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok("true".to_owned()),
        "false" | "0" => Ok("false".to_owned()),
        _ => Err("true or false"),
    }
}

/// A level, in the words of the specifications' language too.
fn translate_level(value: &str) -> Result<String, &'static str> {
    let level = match value.trim().to_ascii_lowercase().as_str() {
        "critical" | "fatal" | "error" => "error",
        "warning" | "warn" => "warn",
        "info" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return Err("ERROR, WARNING, INFO, DEBUG or TRACE"),
    };
    Ok(level.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_budgets_are_read_in_both_spellings() {
        for written in ["ING=500,FEAT=1000", " ING = 500 , FEAT=1000 ", "{\"ING\": 500, \"FEAT\": 1000}"] {
            let mut parts: Vec<String> =
                translate_stage_budgets(written).unwrap().split(',').map(str::to_owned).collect();
            parts.sort_unstable();
            assert_eq!(parts, ["FEAT=1000ms", "ING=500ms"], "{written}");
        }
        for bad in ["", "ING", "ING=", "ING=0.5", "ING=-1", "{\"ING\": \"500\"}", "{\"A,B\": 5}", "{"] {
            assert!(translate_stage_budgets(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn levels_and_flags_are_taken_as_other_languages_write_them() {
        for (written, level) in
            [("INFO", "info"), ("WARNING", "warn"), ("CRITICAL", "error"), ("Debug", "debug")]
        {
            assert_eq!(translate_level(written).as_deref(), Ok(level));
        }
        assert!(translate_level("verbose").is_err());
        assert_eq!(translate_flag("True").as_deref(), Ok("true"));
        assert_eq!(translate_flag("0").as_deref(), Ok("false"));
        assert!(translate_flag("yes").is_err());
    }
}
