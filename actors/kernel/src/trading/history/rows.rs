//! Rows: one type a table, with every value as its column holds it.
//!
//! Source: specification 002, "Database Schema"; specification 001 §6, `runs` and `artifacts`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::orchestration::{OrchestrationRunRow, SignalOrderRow};
use crate::ids::TsMs;
use crate::trading::ids::{CycleId, HistoryRowId, JournalSeq, StrategyUuid};
use crate::trading::journal::ChainHash;

/// Version of the forms that `runs` and `artifacts` name.
pub const RUN_SCHEMA_VERSION: &str = "1.0.0";

/// Row of `runs`: a cycle, as specification 001 keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// The cycle.
    pub run_id: CycleId,
    /// What ties it to requests and events.
    pub correlation_id: String,
    /// `live`, `paper` or `backtest`.
    pub mode: String,
    /// `running`, or the status of its end: `ok`, `degraded`, `failed`, `blocked`.
    pub status: String,
    /// When it began.
    pub started_at: TsMs,
    /// When it ended.
    pub finished_at: Option<TsMs>,
}

/// Row of `artifacts`: what a cycle left behind, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct ArtifactRow {
    /// Its identifier, which follows from the cycle and the kind.
    pub artifact_id: HistoryRowId,
    /// The cycle.
    pub run_id: CycleId,
    /// `cycle_result`.
    pub kind: String,
    /// Version of its form.
    pub schema_version: String,
    /// Version and commit of the program.
    pub code: String,
    /// The artifact.
    pub content: Value,
    /// When it was made.
    pub created_at: TsMs,
}

/// Row of `agent_status`. There is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatusRow {
    /// Its identifier.
    pub id: HistoryRowId,
    /// The agent's status.
    pub status: String,
    /// When it was last started.
    pub started_at: Option<TsMs>,
    /// When it was last stopped.
    pub stopped_at: Option<TsMs>,
    /// Since when it is paused.
    pub paused_at: Option<TsMs>,
    /// When its pause ends.
    pub resume_at: Option<TsMs>,
    /// How careful it is.
    pub mode: String,
    /// Cycles that ended.
    pub cycles_completed: i32,
    /// Decisions that they made.
    pub decisions_generated: i32,
    /// Orders that were handed on.
    pub orders_executed: i32,
    /// Errors of cycles.
    pub errors_count: i32,
    /// The agent's last error.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<TsMs>,
    /// When the row changed.
    pub updated_at: TsMs,
}

impl Default for AgentStatusRow {
    fn default() -> Self {
        Self {
            id: HistoryRowId::of_agent(),
            status: "stopped".to_owned(),
            started_at: None,
            stopped_at: None,
            paused_at: None,
            resume_at: None,
            mode: "normal".to_owned(),
            cycles_completed: 0,
            decisions_generated: 0,
            orders_executed: 0,
            errors_count: 0,
            last_error: None,
            last_error_at: None,
            updated_at: TsMs(0),
        }
    }
}

/// Row of `cycles`.
#[derive(Clone, Debug, PartialEq)]
pub struct CycleRow {
    /// The cycle.
    pub id: CycleId,
    /// The pipeline's name, as much of it as fits.
    pub kind: String,
    /// `started`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// When it began.
    pub started_at: TsMs,
    /// When it ended.
    pub completed_at: Option<TsMs>,
    /// Milliseconds that it took.
    pub duration_ms: Option<i32>,
    /// Strategies for which no stage failed.
    pub strategies_processed: i32,
    /// Decisions made so far.
    pub decisions_generated: i32,
    /// Order intents so far, those of a dry run too.
    pub orders_submitted: i32,
    /// Orders filled.
    pub orders_filled: i32,
    /// Everything that went wrong.
    pub errors: Value,
    /// What it worked with, and why it ended so.
    pub metadata: Value,
    /// When its first record was made.
    pub created_at: TsMs,
}

/// Row of `cycle_logs`: one record of a cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct CycleLogRow {
    /// The record's position in the journal.
    pub id: JournalSeq,
    /// The cycle.
    pub cycle_id: CycleId,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// One line.
    pub message: String,
    /// Its values.
    pub context: Value,
    /// When it was made.
    pub at: TsMs,
}

/// Row of `strategy_schedules`: a schedule, of one of the strategies that its cycles work for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Its identifier, which follows from both names.
    pub id: HistoryRowId,
    /// The strategy.
    pub strategy_id: StrategyUuid,
    /// `interval`, `cron`, `calendar` or `event`.
    pub schedule_type: String,
    /// Milliseconds, a pattern, a place in the session, topics.
    pub schedule_value: String,
    /// Whether the configuration has it.
    pub enabled: bool,
    /// When its last cycle began.
    pub last_run_at: Option<TsMs>,
    /// When it is planned to fire next, where its definition alone says so.
    pub next_run_at: Option<TsMs>,
    /// When a configuration had it first.
    pub created_at: TsMs,
    /// When the row changed.
    pub updated_at: TsMs,
}

/// Mark of how far the history has come. It stands in the database, changed in one transaction with the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryMark {
    /// The last record taken in.
    pub position: JournalSeq,
    /// Its hash: another journal's record has another one.
    pub chain_hash: ChainHash,
    /// The first record of the oldest cycle that had not ended; `position + 1` without one. It is read again from here.
    pub open_from: JournalSeq,
    /// Version and commit of the program, by the last configuration snapshot.
    pub code: String,
    /// The schedules of the last configuration snapshot, as JSON. Nothing in a batch: they stay as they are, which
    /// saves writing a thousand of them with each transaction.
    pub schedules: Option<String>,
}

/// What is in the database when a projection begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryResume {
    /// How far it has come.
    pub mark: HistoryMark,
    /// The agent's row.
    pub agent: Option<AgentStatusRow>,
    /// The rows of all schedules.
    pub schedules: Vec<ScheduleRow>,
}

/// Rows of consecutive records, each as the last of them leaves it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryRows {
    /// Of `runs`.
    pub runs: BTreeMap<CycleId, RunRow>,
    /// Of `cycles`.
    pub cycles: BTreeMap<CycleId, CycleRow>,
    /// Of `cycle_logs`.
    pub logs: Vec<CycleLogRow>,
    /// Of `artifacts`.
    pub artifacts: Vec<ArtifactRow>,
    /// Of `agent_status`.
    pub agent: Option<AgentStatusRow>,
    /// Of `strategy_schedules`.
    pub schedules: BTreeMap<HistoryRowId, ScheduleRow>,
    /// Of `orchestration_runs`.
    pub orchestration_runs: BTreeMap<CycleId, OrchestrationRunRow>,
    /// Of `signal_order_mappings`, by run and position.
    pub signal_orders: BTreeMap<(CycleId, i32), SignalOrderRow>,
}
