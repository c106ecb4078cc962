//! Pages: the questions that faces ask of the history, and the bodies that specification 002 answers them with.

use serde_json::{Value, json};

use super::rows::{CycleLogRow, CycleRow};
use crate::ids::TsMs;
use crate::rfc3339::to_rfc3339;
use crate::trading::ids::JournalSeq;

/// Cycles on one page.
pub const CYCLES_PAGE_MAX: u32 = 1000;

/// Status that a page of cycles is asked for.
///
/// Source: specification 002, `GET /api/v1/cycles`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CyclePageStatus {
    /// Ended well, or without something that is not critical.
    Completed,
    /// Without something critical.
    Failed,
    /// Stopped by a gate, or by somebody.
    Cancelled,
}

impl CyclePageStatus {
    /// The word in queries and rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word of a query.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Completed, Self::Failed, Self::Cancelled].into_iter().find(|status| status.as_str() == word)
    }
}

/// Question for the last cycles, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CyclePageQuery {
    /// Cycles at most, 1 to [`CYCLES_PAGE_MAX`].
    pub limit: u32,
    /// Only these; all of them, also those that run, when nothing.
    pub status: Option<CyclePageStatus>,
}

/// A cycle with everything that stands beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct CycleDetails {
    /// The cycle.
    pub cycle: CycleRow,
    /// Its records, oldest first.
    pub logs: Vec<CycleLogRow>,
}

impl CycleRow {
    /// One line of `GET /api/v1/cycles`.
    #[must_use]
    pub fn to_wire(&self) -> Value {
        json!({
            "completedAt": self.completed_at.map(to_rfc3339),
            "decisions": self.decisions_generated,
            "duration": self.duration_ms,
            "errors": self.errors,
            "id": self.id.to_string(),
            "orders": self.orders_submitted,
            "startedAt": to_rfc3339(self.started_at),
            "status": self.status,
            "type": self.kind,
        })
    }
}

impl CycleDetails {
    /// The body of `GET /api/v1/cycles/:cycleId`.
    #[must_use]
    pub fn to_wire(&self) -> Value {
        let lines = self.logs.iter().map(|line| PageLine {
            id: Some(line.id),
            at: Some(line.at),
            level: line.level.clone(),
            message: line.message.clone(),
            context: line.context.clone(),
        });
        details_wire(&self.cycle, &lines.collect::<Vec<_>>())
    }
}

/// One line of a cycle's log.
pub(super) struct PageLine {
    /// Position of its record, where it is known.
    pub(super) id: Option<JournalSeq>,
    /// When it was made, where it is known.
    pub(super) at: Option<TsMs>,
    pub(super) level: String,
    pub(super) message: String,
    pub(super) context: Value,
}

/// A cycle with its log, and what the log says of decisions and orders.
pub(super) fn details_wire(row: &CycleRow, lines: &[PageLine]) -> Value {
    let mut cycle = row.to_wire();
    if let Value::Object(members) = &mut cycle {
        members.insert("metadata".to_owned(), row.metadata.clone());
        members.insert("strategiesProcessed".to_owned(), row.strategies_processed.into());
    }
    let contexts = || lines.iter().map(|line| &line.context);
    let decisions = contexts().filter_map(|context| context["decisions"].as_array()).flatten();
    let orders = contexts().filter_map(|context| context.get("order"));
    json!({
        "cycle": cycle,
        "decisions": decisions.collect::<Vec<_>>(),
        "logs": lines.iter().map(line_wire).collect::<Vec<_>>(),
        "orders": orders.collect::<Vec<_>>(),
    })
}

fn line_wire(line: &PageLine) -> Value {
    json!({
        "context": line.context,
        "id": line.id,
        "level": line.level,
        "message": line.message,
        "timestamp": line.at.map(to_rfc3339),
    })
}
