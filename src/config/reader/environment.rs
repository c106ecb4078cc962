//! The environment layer: `ORCHESTRATOR__SECTION__KEY=value`, or `…__KEY_FILE=path` to read the value from a file.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::file::read_text;
use super::tree::{Origin, Table, Value, insert_at_path};
use super::violation::Violation;

/// What the names of our variables start with.
const PREFIX: &str = "ORCHESTRATOR__";
/// Ends the name of a variable that holds the path of a file with the value.
const FILE_SUFFIX: &str = "_FILE";
/// Largest value that is read from such a file.
const VALUE_BYTES_MAX: u64 = 64 << 10;
/// The key below one of these is passed on as it is spelled: an environment variable of a worker, a stage's name. `*`
/// is any one key.
const SPELLED: [&[&str]; 3] = [
    &["engine", "process", "env"],
    &["trading", "providers", "*", "env"],
    &["trading", "pipelines", "*", "stage"],
];

/// Puts what `variables` say into `tree`. Variables of other names are ignored.
pub(crate) fn apply_variables(tree: &mut Table, variables: &[(OsString, OsString)]) -> Vec<Violation> {
    let mut ours: Vec<_> = variables
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?.strip_prefix(PREFIX)?, value.as_os_str())))
        .collect();
    // The environment has no order; the messages must have one.
    ours.sort_unstable();
    let mut violations = Vec::new();
    let mut seen = Vec::new();
    for (rest, value) in ours {
        let name = format!("{PREFIX}{rest}");
        match parse_variable(rest, &name, value) {
            Ok(Entry { path, .. }) if seen.contains(&path) => violations.push(Violation {
                path: path.join("."),
                what: "is set twice in the environment, once with the suffix _FILE".to_owned(),
                allowed: "one of the two".to_owned(),
                origin: Origin::Env { name },
            }),
            Ok(Entry { path, text, origin }) => {
                insert_at_path(tree, &path, Value::Word(text), origin);
                seen.push(path);
            }
            Err((what, allowed)) => violations.push(Violation {
                path: name.clone(),
                what,
                allowed: allowed.to_owned(),
                origin: Origin::Env { name },
            }),
        }
    }
    violations
}

/// Setting that one variable gives.
struct Entry {
    path: Vec<String>,
    text: String,
    origin: Origin,
}

fn parse_variable(rest: &str, name: &str, value: &OsStr) -> Result<Entry, (String, &'static str)> {
    let text = value.to_str().ok_or_else(|| ("is not UTF-8".to_owned(), "UTF-8 text"))?;
    let mut path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    if path.len() < 2 || path.iter().any(String::is_empty) {
        return Err(("names no setting".to_owned(), "ORCHESTRATOR__SECTION__KEY"));
    }
    for way in SPELLED {
        let leads = way.iter().zip(&path).all(|(key, given)| *key == "*" || key == given);
        if let Some(key) = path.get_mut(way.len()).filter(|_| leads) {
            *key = rest.split("__").nth(way.len()).unwrap_or_default().to_owned();
        }
    }
    let last = path
        .last_mut()
        .filter(|last| last.len() > FILE_SUFFIX.len() && last.to_ascii_uppercase().ends_with(FILE_SUFFIX));
    match last {
        None => Ok(Entry { path, text: text.to_owned(), origin: Origin::Env { name: name.to_owned() } }),
        Some(last) => {
            last.truncate(last.len() - FILE_SUFFIX.len());
            let content = read_value(text)?;
            let origin = Origin::EnvFile { name: name.to_owned(), path: text.to_owned() };
            Ok(Entry { path, text: content, origin })
        }
    }
}

/// The content of the file without the newline that editors and `echo` leave at its end.
fn read_value(path: &str) -> Result<String, (String, &'static str)> {
    const ALLOWED: &str = "the path of a readable UTF-8 file of at most 64KiB";
    let mut text = read_text(Path::new(path), VALUE_BYTES_MAX)
        .map_err(|error| (format!("cannot read {path}: {error}"), ALLOWED))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
