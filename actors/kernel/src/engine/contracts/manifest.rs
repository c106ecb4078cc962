//! What else than receipts outputs depend on, in a log of its own: which program and configuration wrote a stretch of
//! the logs, one record a change; and what operators decided, one record an act.

mod difference;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::DecodeError;
use crate::ids::{IngestSeq, RunSeq, Symbol, TsMs};
use crate::ports::engine::EngineIdentity;

/// Version of the record of a start.
const VERSION: u8 = 1;
/// Version of the records of all other kinds.
const VERSION_OF_ACTS: u8 = 2;

/// Everything that outputs depend on besides the receipts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputManifest {
    /// Version of this program.
    pub binary_version: String,
    /// The settings that decide what is run and what comes out, by path: as `schedule.interval`.
    pub settings: BTreeMap<String, String>,
    /// The engine; empty names when it had not said who it is.
    pub engine: EngineIdentity,
    /// Version of the time zone database that decisions used; [`NO_TIME_ZONES`] when none did.
    pub tz_database: String,
}

/// No decision depends on a time zone: boundaries and timers are arithmetic on milliseconds.
pub const NO_TIME_ZONES: &str = "unused";

impl OutputManifest {
    /// SHA-256 of the settings as lower-case hexadecimal text: equal for equal decisions.
    #[must_use]
    pub fn config_hash(&self) -> String {
        let mut hash = Sha256::new();
        for (path, value) in &self.settings {
            // Lengths, so that no two different settings give the same bytes.
            hash.update(format!("{}:{path}={}:{value}\n", path.len(), value.len()));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is different in `later`, in a fixed order.
    #[must_use]
    pub fn changes_to(&self, later: &Self) -> Vec<ManifestChange> {
        let mut changes = Vec::new();
        let mut compare = |what: &str, kind, was: &str, is: &str| {
            if was != is {
                changes.push(ManifestChange {
                    what: what.to_owned(),
                    kind,
                    was: was.to_owned(),
                    is: is.to_owned(),
                });
            }
        };
        compare("binary_version", ChangeKind::Program, &self.binary_version, &later.binary_version);
        compare("tz_database", ChangeKind::Decision, &self.tz_database, &later.tz_database);
        if self.engine != EngineIdentity::default() && later.engine != EngineIdentity::default() {
            let (was, is) = (&self.engine, &later.engine);
            compare("engine.name", ChangeKind::Decision, &was.name, &is.name);
            compare("engine.version", ChangeKind::Decision, &was.version, &is.version);
            compare("engine.code_hash", ChangeKind::Decision, &was.code_hash, &is.code_hash);
        }
        let paths = self.settings.keys().chain(later.settings.keys());
        for path in paths.collect::<std::collections::BTreeSet<_>>() {
            let value = |of: &Self| of.settings.get(path).cloned().unwrap_or_else(|| "(none)".to_owned());
            compare(path, ChangeKind::Decision, &value(self), &value(later));
        }
        changes
    }
}

/// Effect of a change on outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The program is another version: its golden files promise the same decisions.
    Program,
    /// Settings, engine or time zones: other decisions from here on.
    Decision,
}

/// One difference of two manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestChange {
    /// Which setting or fact.
    pub what: String,
    /// Whether it can change outputs.
    pub kind: ChangeKind,
    /// Before.
    pub was: String,
    /// From here on.
    pub is: String,
}

impl fmt::Display for ManifestChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, was, is, .. } = self;
        let is_long = |value: &String| difference::LONG_CHARS < value.chars().count();
        if !is_long(was) && !is_long(is) {
            return write!(f, "{what} was {was:?}, is {is:?}");
        }
        // Pipelines are settings of thousands of characters: which of their keys changed is what a reader asks.
        write!(f, "{what}: ")?;
        difference::write_difference(f, was, is)
    }
}

/// From which positions on a manifest holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestRecord {
    /// When the process started (operational).
    pub at_ms: TsMs,
    /// The last receipt before it.
    pub receipts_tail: IngestSeq,
    /// The last run record before it.
    pub runs_tail: RunSeq,
    /// What holds from then on.
    pub manifest: OutputManifest,
}

impl ManifestRecord {
    /// Appends the stored form to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        super::encode_to(VERSION, self, out);
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: another version, or bytes that are no record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        super::decode_versioned(VERSION, bytes)
    }
}

/// Decision of an operator about outputs that are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputsAct {
    /// What waits of the symbol is offered again.
    Retry {
        /// Whose outputs.
        symbol: Symbol,
        /// Where they are refused.
        fan_out: String,
    },
    /// These outputs of the symbol are not offered there any more; what waits behind them is offered again.
    Skip {
        /// Whose outputs.
        symbol: Symbol,
        /// Where they are refused.
        fan_out: String,
        /// Number of the first one among the symbol's outputs.
        first: u64,
        /// Number of the last one.
        last: u64,
    },
}

impl OutputsAct {
    /// Whose outputs it is about.
    #[must_use]
    pub const fn symbol(&self) -> &Symbol {
        match self {
            Self::Retry { symbol, .. } | Self::Skip { symbol, .. } => symbol,
        }
    }
}

impl fmt::Display for OutputsAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry { symbol, fan_out } => {
                write!(f, "outputs of {symbol} that {fan_out} had refused were offered again")
            }
            Self::Skip { symbol, fan_out, first, last } => {
                write!(f, "outputs {first} to {last} of {symbol} were let go unpublished at {fan_out}")
            }
        }
    }
}

/// An act of an operator. It takes effect once this is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// When it was decided (operational).
    pub at_ms: TsMs,
    /// Who decided.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// The last run record at that time.
    pub runs_tail: RunSeq,
    /// What was decided.
    pub act: OutputsAct,
}

/// Bytes of an operator's name.
const OPERATOR_BYTES_MAX: usize = 128;
/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 1024;

impl OperatorRecord {
    /// What is wrong with a name and a reason, if anything is: both are kept for ever and read by people.
    #[must_use]
    pub fn find_objection(operator: &str, reason: &str) -> Option<String> {
        let fits = |text: &str, max: usize| {
            !text.trim().is_empty() && text.len() <= max && !text.contains(char::is_control)
        };
        if !fits(operator, OPERATOR_BYTES_MAX) {
            return Some(format!(
                "operator must be 1 to {OPERATOR_BYTES_MAX} bytes without control characters"
            ));
        }
        let fits = fits(reason, REASON_BYTES_MAX);
        (!fits).then(|| format!("reason must be 1 to {REASON_BYTES_MAX} bytes without control characters"))
    }
}

/// The kinds of version 2.
#[derive(Serialize, Deserialize)]
enum Act {
    Operator(OperatorRecord),
}

/// A record of the manifest log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestEntry {
    /// A start that changed something. Stored in version 1, as ever.
    Start(ManifestRecord),
    /// An operator's act. Stored in version 2.
    Operator(OperatorRecord),
}

impl ManifestEntry {
    /// Appends the stored form to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Start(record) => record.encode_to(out),
            Self::Operator(record) => super::encode_to(VERSION_OF_ACTS, &Act::Operator(record.clone()), out),
        }
    }

    /// Reads the stored form of any version.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: another version, or bytes that are no record.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.first() == Some(&VERSION) {
            return ManifestRecord::decode(bytes).map(Self::Start);
        }
        let Act::Operator(record) = super::decode_versioned(VERSION_OF_ACTS, bytes)?;
        Ok(Self::Operator(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(settings: &[(&str, &str)]) -> OutputManifest {
        OutputManifest {
            binary_version: "1".to_owned(),
            settings: settings
                .iter()
                .map(|(path, value)| ((*path).to_owned(), (*value).to_owned()))
                .collect(),
            engine: EngineIdentity {
                name: "e".to_owned(),
                version: "1".to_owned(),
                code_hash: "c".to_owned(),
            },
            tz_database: NO_TIME_ZONES.to_owned(),
        }
    }

    #[test]
    fn every_difference_is_named_with_both_values() {
        let before = manifest(&[("schedule.interval", "3m"), ("engine.mode", "truth")]);
        let mut after = manifest(&[("schedule.interval", "2s"), ("symbols.list", "A")]);
        after.binary_version = "2".to_owned();
        after.engine.code_hash = "d".to_owned();

        let changes = before.changes_to(&after);

        let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                r#"binary_version was "1", is "2""#,
                r#"engine.code_hash was "c", is "d""#,
                r#"engine.mode was "truth", is "(none)""#,
                r#"schedule.interval was "3m", is "2s""#,
                r#"symbols.list was "(none)", is "A""#,
            ]
        );
        let programs = changes.iter().filter(|change| change.kind == ChangeKind::Program).count();
        assert_eq!(programs, 1, "only the version is not a decision");
        assert_eq!(before.changes_to(&before), []);
    }

    #[test]
    fn a_long_setting_is_told_by_the_keys_in_it_that_changed() {
        let pipeline = |budget: u32| {
            let stages = (0..40).map(|number| format!(r#"{{"name":"S{number}","budget":{budget}}}"#));
            format!("[{{\"stages\":[{}]}},{{}}]", stages.collect::<Vec<_>>().join(","))
        };
        let (was, is) = (pipeline(1), pipeline(1).replacen("\"budget\":1", "\"budget\":2", 1));
        let before = manifest(&[("trading.pipelines.p", &was)]);

        let changes = before.changes_to(&manifest(&[("trading.pipelines.p", &is)]));

        assert_eq!(changes[0].to_string(), "trading.pipelines.p: stages.S0.budget was 1, is 2");
    }

    #[test]
    fn an_engine_that_has_not_said_who_it_is_changes_nothing() {
        let mut unknown = manifest(&[]);
        unknown.engine = EngineIdentity::default();

        assert_eq!(manifest(&[]).changes_to(&unknown), []);
        assert_eq!(unknown.changes_to(&manifest(&[])), []);
    }

    #[test]
    fn the_hash_tells_settings_apart_and_nothing_else() {
        let one = manifest(&[("a", "1"), ("b", "2")]);
        let mut same = manifest(&[("b", "2"), ("a", "1")]);
        same.binary_version = "9".to_owned();

        assert_eq!(one.config_hash(), same.config_hash());
        assert_eq!(one.config_hash().len(), 64);
        for other in
            [manifest(&[("a", "1")]), manifest(&[("a", "1\nb=2")]), manifest(&[("a", "2"), ("b", "1")])]
        {
            assert_ne!(one.config_hash(), other.config_hash());
        }
    }
}
