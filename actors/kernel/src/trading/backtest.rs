//! Backtests that somebody asks a running service for: what a request may say, and what is known of its job.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::ids::CommandId;

/// Bytes of a request.
pub const BACKTEST_REQUEST_BYTES_MAX: usize = 16 << 10;
/// Bytes of a capture's name.
const CAPTURE_BYTES_MAX: usize = 200;
/// Settings that one request may change.
const SETTINGS_MAX: usize = 64;
/// Settings that a request may change: what decides. Whoever could set a command or an address could do anything.
const SETTABLE: [&str; 6] =
    ["schedule.", "symbols.", "trading.hours.", "trading.risk.", "trading.schedules.", "trading.strategies."];

/// Request for a backtest.
///
/// Source: specification 001 §4, `run_backtest(config)`; what a config holds is left open there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BacktestRequest {
    /// Name of the recording, in the directory of captures.
    pub capture: String,
    /// Whose time drives the clock.
    #[serde(default)]
    pub time: RecordedTimeKind,
    /// Settings that differ from the service's, by path.
    #[serde(default)]
    pub set: BTreeMap<String, SettingText>,
}

/// Time of a recording that drives its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordedTimeKind {
    /// The receipts' own.
    #[default]
    Receive,
    /// The ingest time in the logs of a service.
    Ingest,
}

impl RecordedTimeKind {
    /// The word of the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Ingest => "ingest",
        }
    }
}

impl<'de> Deserialize<'de> for RecordedTimeKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "receive" => Ok(Self::Receive),
            "ingest" => Ok(Self::Ingest),
            _ => Err(serde::de::Error::custom("time: has to be \"receive\" or \"ingest\"")),
        }
    }
}

/// A setting's value as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SettingText(pub String);

impl<'de> Deserialize<'de> for SettingText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            value @ (Value::Bool(_) | Value::Number(_) | Value::Array(_)) => Ok(Self(value.to_string())),
            Value::Null | Value::Object(_) => {
                Err(serde::de::Error::custom("a value is a text, number, flag or list"))
            }
        }
    }
}

impl BacktestRequest {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// The field, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if BACKTEST_REQUEST_BYTES_MAX < text.len() {
            return Err(format!(
                "config: has {} bytes, and may have {BACKTEST_REQUEST_BYTES_MAX}",
                text.len()
            ));
        }
        let request: Self = serde_json::from_str(text).map_err(|error| format!("config: {error}"))?;
        request.check_fields()?;
        Ok(request)
    }

    fn check_fields(&self) -> Result<(), String> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_name = self.capture.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.capture.len() <= CAPTURE_BYTES_MAX
            && self.capture.chars().all(is_plain);
        if !is_name {
            return Err(
                "capture: has to be the name of a file or directory, of letters, digits, '.', '_' and '-'"
                    .to_owned(),
            );
        }
        if SETTINGS_MAX < self.set.len() {
            return Err(format!("set: has {} settings, and may have {SETTINGS_MAX}", self.set.len()));
        }
        for (path, SettingText(value)) in &self.set {
            if !SETTABLE.iter().any(|settable| path.starts_with(settable)) || path.contains('=') {
                return Err(format!(
                    "set.{path}: a backtest may change {} and nothing else",
                    SETTABLE.join(", ")
                ));
            }
            if value.chars().any(char::is_control) {
                return Err(format!("set.{path}: has to be one line"));
            }
        }
        Ok(())
    }
}

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BacktestJobState {
    /// Another one runs.
    Queued,
    /// It runs.
    Running,
    /// It ended well.
    Completed,
    /// It did not.
    Failed,
}

impl fmt::Display for BacktestJobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
        })
    }
}

/// A backtest that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacktestJob {
    /// The command that asked for it.
    pub id: CommandId,
    /// What was asked for.
    pub request: BacktestRequest,
    /// Where it is.
    pub state: BacktestJobState,
    /// Exit code, once it ended by itself.
    pub exit: Option<i32>,
    /// What it said last, or why it did not run, as one line.
    pub detail: String,
    /// What its report says of cycles; nothing before it has one.
    pub cycles: Option<Value>,
}

impl BacktestJob {
    /// A job that waits.
    #[must_use]
    pub const fn queued(id: CommandId, request: BacktestRequest) -> Self {
        Self { id, request, state: BacktestJobState::Queued, exit: None, detail: String::new(), cycles: None }
    }

    /// Whether it is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, BacktestJobState::Completed | BacktestJobState::Failed)
    }

    /// The body of an answer.
    #[must_use]
    pub fn to_wire(&self) -> Value {
        json!({
            "jobId": self.id.to_string(),
            "status": self.state.to_string(),
            "config": self.request,
            "exitCode": self.exit,
            "detail": self.detail,
            "cycles": self.cycles,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_recording_and_settings_that_decide() {
        let text = r#"{"capture": "day.jsonl.gz", "time": "ingest",
                       "set": {"trading.risk.capital": 1000, "trading.schedules.a.enabled": true,
                               "symbols.list": ["A"]}}"#;

        let request = BacktestRequest::parse(text).unwrap();

        assert_eq!((request.capture.as_str(), request.time.as_str()), ("day.jsonl.gz", "ingest"));
        let set: Vec<_> = request.set.iter().map(|(path, value)| (path.as_str(), value.0.as_str())).collect();
        assert_eq!(
            set,
            [
                ("symbols.list", "[\"A\"]"),
                ("trading.risk.capital", "1000"),
                ("trading.schedules.a.enabled", "true")
            ]
        );
        let again = serde_json::to_string(&request).unwrap();
        assert_eq!(BacktestRequest::parse(&again), Ok(request));
    }

    #[test]
    fn what_a_request_may_not_say_is_refused_with_its_field() {
        for (text, field) in [
            ("{}", "capture"),
            ("[]", "config"),
            (r#"{"capture": "../data"}"#, "capture"),
            (r#"{"capture": "/etc/passwd"}"#, "capture"),
            (r#"{"capture": "-x"}"#, "capture"),
            (r#"{"capture": ""}"#, "capture"),
            (r#"{"capture": "a", "time": "exchange"}"#, "time"),
            (r#"{"capture": "a", "speed": 1}"#, "speed"),
            (r#"{"capture": "a", "set": {"engine.process.command": ["sh"]}}"#, "set.engine.process.command"),
            (
                r#"{"capture": "a", "set": {"trading.providers.p.command": ["sh"]}}"#,
                "set.trading.providers.p.command",
            ),
            (
                r#"{"capture": "a", "set": {"trading.calendars.c.file": "/x"}}"#,
                "set.trading.calendars.c.file",
            ),
            (r#"{"capture": "a", "set": {"service.data_dir": "/"}}"#, "set.service.data_dir"),
            (r#"{"capture": "a", "set": {"trading.risk.a=b": "1"}}"#, "set.trading.risk.a=b"),
            (r#"{"capture": "a", "set": {"trading.risk.capital": null}}"#, "config"),
            (r#"{"capture": "a", "set": {"trading.risk.capital": "1\n2"}}"#, "set.trading.risk.capital"),
        ] {
            let refused = BacktestRequest::parse(text).unwrap_err();
            assert!(refused.contains(field), "{text}: {refused}");
        }
        let long = format!(r#"{{"capture": "{}"}}"#, "a".repeat(BACKTEST_REQUEST_BYTES_MAX));
        assert!(BacktestRequest::parse(&long).unwrap_err().contains("bytes"));
    }
}
