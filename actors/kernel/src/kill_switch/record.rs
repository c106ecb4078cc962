//! What an operator's command makes of the stored value.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::reading::{ACTIVE, ENGAGED, Record, Stored, TradingState, UnknownReason, VALUE_BYTES_MAX};
use crate::ids::TsMs;
use crate::rfc3339::to_rfc3339;

/// Lines of history that a store keeps: the last ones.
pub const HISTORY_MAX: usize = 1000;

/// Longest operator name, in bytes.
const OPERATOR_BYTES_MAX: usize = 128;
/// Longest reason or note, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// Largest details, in bytes of JSON.
const DETAILS_BYTES_MAX: usize = 16 << 10;

/// An operator's act. Nothing else changes the stored value.
#[derive(Clone, Debug, PartialEq)]
pub enum OperatorCommand {
    /// Say for the first time, or after the value was lost, that trading is allowed.
    Init {
        /// Who does it.
        operator: String,
    },
    /// Stop all effects.
    Engage {
        /// Who does it.
        operator: String,
        /// Why.
        reason: String,
        /// More about it.
        details: Option<Map<String, Value>>,
    },
    /// Allow effects again.
    Disengage {
        /// Who does it.
        operator: String,
        /// What was found and done.
        notes: Option<String>,
    },
}

/// Value and history line that a command writes. The store writes both or, for [`OperatorCommand::Engage`], at least
/// the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillSwitchChange {
    /// The new value.
    pub value: String,
    /// The line of history.
    pub entry: String,
}

/// A command that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What it wrote; its value only as far as nothing in `shortfalls` says otherwise.
    pub change: KillSwitchChange,
    /// Parts of a stop that could not be done. Empty for everything else: permission needs all of it.
    pub shortfalls: Vec<Shortfall>,
}

impl Applied {
    /// Carried out in full.
    #[must_use]
    pub const fn in_full(change: KillSwitchChange) -> Self {
        Self { change, shortfalls: Vec::new() }
    }

    /// The value that is in force; none when it was removed.
    #[must_use]
    pub fn value_in_force(&self) -> Option<&str> {
        let removed = self.shortfalls.iter().any(|shortfall| matches!(shortfall, Shortfall::Removed(_)));
        (!removed).then_some(self.change.value.as_str())
    }
}

/// A part of [`OperatorCommand::Engage`] that could not be done. Effects are blocked all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortfall {
    /// The value could not be written, so it is absent now.
    #[error("blocked, state removed: `kill-switch init` is needed before trading is allowed again ({0})")]
    Removed(String),
    /// The value is in force, but not known to be on the disk.
    #[error("blocked now, but a loss of power may undo it: engage it again when the disk is well ({0})")]
    Unsynced(String),
    /// The value is in force, but the server does not keep it over a restart.
    #[error("blocked now, but a restart of the server may undo it ({0})")]
    Forgettable(String),
    /// The history has no line of it.
    #[error("blocked, but the history was not written ({0})")]
    Unrecorded(String),
}

/// Reason for which a command writes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is engaged: engaging again would overwrite who stopped trading and why.
    #[error("Kill-switch already engaged")]
    AlreadyEngaged,
    /// Trading is allowed already.
    #[error("Kill-switch not engaged")]
    NotEngaged,
    /// What is stored does not say that it is engaged, so nobody knows what would be lifted.
    #[error("Kill-switch state unknown: {0}; engage it first, then disengage")]
    NotKnown(UnknownReason),
    /// Something is stored already.
    #[error("Kill-switch is set up already; init only works while nothing is stored")]
    NotMissing,
    /// A part of the command does not fit.
    #[error("{field} {what}")]
    Unfit {
        /// Which part.
        field: &'static str,
        /// Completes the sentence.
        what: String,
    },
}

impl OperatorCommand {
    /// Who acts.
    #[must_use]
    pub fn operator(&self) -> &str {
        match self {
            Self::Init { operator } | Self::Engage { operator, .. } | Self::Disengage { operator, .. } => {
                operator
            }
        }
    }

    /// Whether it may only make the system safer, so that it is carried out first and written down second.
    #[must_use]
    pub const fn only_blocks(&self) -> bool {
        match self {
            Self::Engage { .. } => true,
            Self::Init { .. } | Self::Disengage { .. } => false,
        }
    }

    /// Checks the bounds of every part.
    fn check_bounds(&self) -> Result<(), Refusal> {
        check_line("operator", self.operator(), OPERATOR_BYTES_MAX)?;
        match self {
            Self::Init { .. } | Self::Disengage { notes: None, .. } => Ok(()),
            Self::Disengage { notes: Some(notes), .. } => check_line("notes", notes, TEXT_BYTES_MAX),
            Self::Engage { reason, details, .. } => {
                check_line("reason", reason, TEXT_BYTES_MAX)?;
                let bytes = details.as_ref().map_or(0, |details| json!(details).to_string().len());
                if bytes <= DETAILS_BYTES_MAX {
                    return Ok(());
                }
                let what = format!("have {bytes} bytes, at most {DETAILS_BYTES_MAX} are kept");
                Err(Refusal::Unfit { field: "details", what })
            }
        }
    }
}

fn check_line(field: &'static str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    let what = if text.trim().is_empty() {
        "is empty".to_owned()
    } else if text.len() > bytes_max {
        format!("has {} bytes, at most {bytes_max} are kept", text.len())
    } else if text.chars().any(char::is_control) {
        "holds a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::Unfit { field, what })
}

/// Decides what `command` writes when `stored` is there. Pure: the store does it atomically or asks again.
///
/// - `engage` always works, also when nothing, garbage or no text is stored; only an engaged switch refuses it. Its
///   value begins with its state, so that an overwrite that is torn anywhere never reads as Trading (KILL-4).
/// - `disengage` works only on an engaged one: out of an unknown state the way is engage, look, disengage.
/// - `init` works only while nothing is stored: it never overwrites what somebody wrote.
///
/// # Errors
///
/// [`Refusal`]; nothing is to be written then.
///
/// Source: CONTRACTS §4; RELIABILITY F18 (the known implementation cannot engage when the value is missing).
pub fn decide(stored: &Stored, command: &OperatorCommand, now: TsMs) -> Result<KillSwitchChange, Refusal> {
    command.check_bounds()?;
    let reading = TradingState::of_stored(stored);
    let at = to_rfc3339(now);
    match (command, reading) {
        (OperatorCommand::Engage { .. }, TradingState::Halted(_)) => Err(Refusal::AlreadyEngaged),
        (
            OperatorCommand::Engage { operator, reason, details },
            TradingState::Trading | TradingState::Unknown(_),
        ) => {
            let details = details.clone().map_or(Value::Null, Value::Object);
            Ok(engaged_change(stored, at, operator, reason, details))
        }
        (OperatorCommand::Disengage { operator, notes }, TradingState::Halted(_)) => {
            Ok(disengaged_change(stored, at, operator, notes.as_deref()))
        }
        (OperatorCommand::Disengage { .. }, TradingState::Trading) => Err(Refusal::NotEngaged),
        (OperatorCommand::Disengage { .. }, TradingState::Unknown(why)) => Err(Refusal::NotKnown(why)),
        (OperatorCommand::Init { operator }, TradingState::Unknown(UnknownReason::Missing)) => {
            Ok(initial_change(at, operator))
        }
        (
            OperatorCommand::Init { .. },
            TradingState::Trading | TradingState::Halted(_) | TradingState::Unknown(_),
        ) => Err(Refusal::NotMissing),
    }
}

/// The value in the order of its fields on the wire.
#[derive(Debug, Serialize)]
struct Written<'a> {
    state: &'static str,
    engaged_at: Value,
    engaged_by: Value,
    engagement_reason: Value,
    engagement_details: Value,
    disengaged_at: Option<&'a str>,
    disengaged_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disengagement_notes: Option<Value>,
    engagement_count_today: u64,
}

impl Written<'_> {
    fn to_json(&self) -> String {
        // Serialising strings, numbers and JSON values cannot fail; an empty text would mean Unknown, which blocks.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The line of history of the engagement that is stored, if its record says when and by whom.
///
/// A stop is in force before it is recorded, and perhaps could not be recorded. Whoever lifts it writes the line that
/// is owed, so that no DISENGAGED stands there without its ENGAGED.
#[must_use]
pub fn owed_entry(stored: &Stored) -> Option<String> {
    let record = Record::from_stored(stored).filter(|record| record.state == ENGAGED)?;
    let (at, operator) = (record.engaged_at.as_str()?, record.engaged_by.as_str()?);
    let reason = record.engagement_reason.as_str()?;
    Some(engaged_entry(at, operator, reason, &record.engagement_details))
}

fn engaged_entry(at: &str, operator: &str, reason: &str, details: &Value) -> String {
    let entry = json!({
        "event": "ENGAGED", "timestamp": at, "operator": operator, "reason": reason, "details": details,
    });
    entry.to_string()
}

fn engaged_change(
    stored: &Stored,
    at: String,
    operator: &str,
    reason: &str,
    details: Value,
) -> KillSwitchChange {
    let entry = engaged_entry(&at, operator, reason, &details);
    let record = Written {
        state: ENGAGED,
        engagement_count_today: count_today(stored, &at),
        engaged_at: at.into(),
        engaged_by: operator.into(),
        engagement_reason: reason.into(),
        engagement_details: details,
        disengaged_at: None,
        disengaged_by: None,
        disengagement_notes: None,
    };
    KillSwitchChange { value: record.to_json(), entry }
}

/// This engagement's number on its day (UTC).
fn count_today(stored: &Stored, at: &str) -> u64 {
    let Some(before) = Record::from_stored(stored) else { return 1 };
    let is_today = before.engaged_at.as_str().and_then(|last| last.get(..10)) == at.get(..10);
    let count = before.engagement_count_today.as_u64().unwrap_or(0);
    if is_today { count.saturating_add(1) } else { 1 }
}

fn disengaged_change(stored: &Stored, at: String, operator: &str, notes: Option<&str>) -> KillSwitchChange {
    let entry = json!({"event": "DISENGAGED", "timestamp": at, "operator": operator, "notes": notes});
    let write = |kept: Record| Written {
        state: ACTIVE,
        engagement_count_today: kept.engagement_count_today.as_u64().unwrap_or(0),
        engaged_at: kept.engaged_at,
        engaged_by: kept.engaged_by,
        engagement_reason: kept.engagement_reason,
        engagement_details: kept.engagement_details,
        disengaged_at: Some(&at),
        disengaged_by: Some(operator),
        disengagement_notes: Some(notes.map_or(Value::Null, Value::from)),
    };
    let mut value = write(Record::from_stored(stored).unwrap_or_default()).to_json();
    if value.len() > VALUE_BYTES_MAX {
        // Somebody else's record, almost too long already: what it says stands in the history.
        value = write(Record::default()).to_json();
    }
    KillSwitchChange { value, entry: entry.to_string() }
}

fn initial_change(at: String, operator: &str) -> KillSwitchChange {
    let entry = json!({"event": "INITIALIZED", "timestamp": at, "operator": operator});
    let record = Written {
        state: ACTIVE,
        engaged_at: Value::Null,
        engaged_by: Value::Null,
        engagement_reason: Value::Null,
        engagement_details: Value::Null,
        disengaged_at: None,
        disengaged_by: None,
        disengagement_notes: None,
        engagement_count_today: 0,
    };
    KillSwitchChange { value: record.to_json(), entry: entry.to_string() }
}
