//! The difference of two long settings in words: which keys in them changed, not both texts whole.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// Characters from which on a setting is not shown whole.
pub(super) const LONG_CHARS: usize = 100;
/// Characters of one changed part that are shown.
const PART_CHARS: usize = 60;
/// Changed parts that are shown.
const PARTS_MAX: usize = 8;
/// What stands for a part that is missing.
const NONE: &str = "(none)";

/// One part of a setting that changed.
struct ChangedPart {
    /// Keys that lead to it; empty for a setting without keys.
    path: String,
    was: String,
    is: String,
}

/// Writes what changed from `was` to `is`.
pub(super) fn write_difference(f: &mut fmt::Formatter<'_>, was: &str, is: &str) -> fmt::Result {
    let parts = find_changes(was, is);
    for (number, ChangedPart { path, was, is }) in parts.iter().take(PARTS_MAX).enumerate() {
        let (comma, space) = (if number == 0 { "" } else { ", " }, if path.is_empty() { "" } else { " " });
        write!(f, "{comma}{path}{space}was {}, is {}", cut(was), cut(is))?;
    }
    match parts.len().saturating_sub(PARTS_MAX) {
        0 => Ok(()),
        more => write!(f, ", and {more} more"),
    }
}

/// The changed parts of two settings, each JSON, JSON with words behind it, or words.
fn find_changes(was: &str, is: &str) -> Vec<ChangedPart> {
    let mut changes = Vec::new();
    let (was, is) = match (split_json(was), split_json(is)) {
        (Some((was_json, was)), Some((is_json, is))) => {
            compare_values("", &was_json, &is_json, &mut changes);
            (was, is)
        }
        (Some(_) | None, _) => (was, is),
    };
    compare_words(was, is, &mut changes);
    changes
}

/// The object or list that a text begins with, and what stands behind it.
fn split_json(text: &str) -> Option<(Value, &str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let value = values.next()?.ok().filter(|value| value.is_object() || value.is_array())?;
    let rest = text.get(values.byte_offset()..)?;
    Some((value, rest))
}

fn compare_values(path: &str, was: &Value, is: &Value, changes: &mut Vec<ChangedPart>) {
    if was == is {
        return;
    }
    let Some((was_members, is_members)) = members_of(path, was).zip(members_of(path, is)) else {
        changes.push(ChangedPart { path: path.to_owned(), was: was.to_string(), is: is.to_string() });
        return;
    };
    let found = changes.len();
    let names: BTreeSet<&String> = was_members.iter().chain(&is_members).map(|(name, _)| name).collect();
    for name in names {
        let find = |members: &[(String, Value)]| {
            members.iter().find(|(of, _)| of == name).map(|(_, value)| value.clone())
        };
        // The parts of the whole have no names of their own.
        let is_unnamed = path.is_empty() && name.parse::<usize>().is_ok();
        let inner = match (path.is_empty(), is_unnamed) {
            (true, true) => String::new(),
            (true, false) => name.clone(),
            (false, _) => format!("{path}.{name}"),
        };
        match (find(&was_members), find(&is_members)) {
            (Some(was), Some(is)) => compare_values(&inner, &was, &is, changes),
            (was, is) => {
                let text = |part: Option<Value>| part.map_or_else(|| NONE.to_owned(), |it| it.to_string());
                changes.push(ChangedPart { path: inner, was: text(was), is: text(is) });
            }
        }
    }
    if changes.len() == found {
        let (was, is) = ("in one order".to_owned(), "in another".to_owned());
        changes.push(ChangedPart { path: path.to_owned(), was, is });
    }
}

/// Members by name: of an object, of a list whose items have one, and of a list that is the whole by their number.
fn members_of(path: &str, value: &Value) -> Option<Vec<(String, Value)>> {
    match value {
        Value::Object(members) => Some(members.iter().map(|(name, it)| (name.clone(), it.clone())).collect()),
        Value::Array(items) => {
            let named = |(number, item): (usize, &Value)| {
                let name = match path.is_empty() {
                    true => number.to_string(),
                    false => item.get("name").and_then(Value::as_str)?.to_owned(),
                };
                Some((name, item.clone()))
            };
            items.iter().enumerate().map(named).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Words one by one where there are as many; else from the first one on that differs.
fn compare_words(was: &str, is: &str, changes: &mut Vec<ChangedPart>) {
    let (was, is): (Vec<&str>, Vec<&str>) =
        (was.split_whitespace().collect(), is.split_whitespace().collect());
    let part = |was: String, is: String| ChangedPart { path: String::new(), was, is };
    let quoted = |words: &[&str]| match words {
        [] => NONE.to_owned(),
        words => format!("{:?}", words.join(" ")),
    };
    if was.len() == is.len() {
        let differing = was.iter().zip(&is).filter(|(was, is)| was != is);
        changes.extend(differing.map(|(was, is)| part(format!("{was:?}"), format!("{is:?}"))));
        return;
    }
    let same = was.iter().zip(&is).take_while(|(was, is)| was == is).count();
    let rest = |words: &[&str]| quoted(words.get(same..).unwrap_or_default());
    changes.push(part(rest(&was), rest(&is)));
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(PART_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows a difference as a change does.
    struct Shown<'a>(&'a str, &'a str);

    impl fmt::Display for Shown<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write_difference(f, self.0, self.1)
        }
    }

    fn told(was: &str, is: &str) -> String {
        Shown(was, is).to_string()
    }

    #[test]
    fn only_the_keys_that_changed_are_named() {
        let pipeline =
            r#"[{"name":"p","stages":[{"name":"ING","budget":{"secs":1}},{"name":"SIG","on":true}]},{},{}]"#;

        assert_eq!(
            told(pipeline, &pipeline.replace(r#"{"secs":1}"#, r#"{"secs":2}"#).replace("true", "false")),
            "stages.ING.budget.secs was 1, is 2, stages.SIG.on was true, is false"
        );
        let turned = pipeline.replace("ING", "X").replace("SIG", "ING").replace("X", "SIG");
        assert_ne!(told(pipeline, &turned), "");
        assert_eq!(
            told(r#"{"a":[{"name":"x"},{"name":"y"}]}"#, r#"{"a":[{"name":"y"},{"name":"x"}]}"#),
            "a was in one order, is in another"
        );
        let without = pipeline.replace(r#",{"name":"SIG","on":true}"#, "");
        assert_eq!(told(pipeline, &without), r#"stages.SIG was {"name":"SIG","on":true}, is (none)"#);
        assert_eq!(
            told(r#"{"symbols":["A"]} A=1"#, r#"{"symbols":["A","B"]} A=2"#),
            r#"symbols was ["A"], is ["A","B"], was "A=1", is "A=2""#
        );
    }

    #[test]
    fn settings_of_words_are_told_by_the_words_that_changed() {
        assert_eq!(
            told("p 1m overlap=skip misfire=all", "p 1m overlap=cancel misfire=all"),
            r#"was "overlap=skip", is "overlap=cancel""#
        );
        assert_eq!(told("a b", "a b c d"), r#"was (none), is "c d""#);
        assert_eq!(told("a [1", "a [2"), r#"was "[1", is "[2""#);
    }

    #[test]
    fn what_is_long_or_many_is_cut() {
        let long = "x".repeat(1000);
        assert!(told(&format!("a {long}"), "a b").chars().count() < 100);
        let many = |of: &str| (0..20).map(|number| format!("{of}{number}")).collect::<Vec<_>>().join(" ");
        assert!(told(&many("a"), &many("b")).ends_with(", and 12 more"));
    }
}
