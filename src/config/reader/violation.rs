//! Everything that is wrong with a configuration, told at once.

use std::fmt::{self, Write as _};

use super::tree::Origin;

/// One thing that is wrong, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The setting, for example `ingest.receipt_bytes_max`; the layer's name when no setting is meant.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
    /// What would be right. Empty when `what` says it already.
    pub allowed: String,
    /// Which layer said it.
    pub origin: Origin,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = OneLine(f);
        write!(line, "{}: {}", self.path, self.what)?;
        if !self.allowed.is_empty() {
            write!(line, " (allowed: {})", self.allowed)?;
        }
        match self.origin {
            Origin::Default => Ok(()),
            Origin::File { .. } | Origin::Env { .. } | Origin::EnvFile { .. } | Origin::Flag { .. } => {
                write!(line, " [{}]", self.origin)
            }
        }
    }
}

/// Keys and names are text of others: no control character of them reaches a terminal.
struct OneLine<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c.is_control() {
            true => write!(self.0, "{}", c.escape_default()),
            false => self.0.write_char(c),
        })
    }
}

/// A configuration was refused. Nothing was started or touched; the exit code is 78.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Every violation, in the order of the settings. Never empty.
    pub violations: Vec<Violation>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.violations.len();
        write!(f, "configuration refused, {count} violation{}", if count == 1 { "" } else { "s" })?;
        for violation in &self.violations {
            write!(f, "\n  {violation}")?;
        }
        Ok(())
    }
}

/// How alike two keys must be (Jaro-Winkler, 0 to 1) for one to be offered instead of the other.
const SIMILARITY_MIN: f64 = 0.8;

/// The key of `known` that `wrong` most likely means.
pub(crate) fn nearest_key<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|key| (strsim::jaro_winkler(wrong, key), key))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, key)| key)
}
