//! The port of the history: a database that holds rows and, in one transaction with them, how far they have come.

use async_trait::async_trait;

use crate::ids::TsMs;
use crate::trading::history::{
    AgentStatusRow, ArtifactRow, CycleDetails, CycleLogRow, CyclePageQuery, CycleRow, HistoryMark,
    HistoryResume, HistoryRows, OrchestrationDetails, OrchestrationPage, OrchestrationPageQuery,
    OrchestrationRunRow, RunRow, ScheduleRow, SignalOrderRow,
};
use crate::trading::ids::{CycleId, JournalSeq};

/// Log lines of one cycle that a page shows; of more the first ones.
pub const CYCLE_LOGS_SHOWN_MAX: u32 = 10_000;

/// Reason for which the database did not do it. Whether what was being written is there, its mark says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// It cannot be reached, or is not answering. It may serve later.
    #[error("the history's database is away: {0}")]
    Away(String),
    /// It refuses: rights, a schema of a newer version, what stands in its tables. An operator has to look.
    #[error("the history's database refuses: {0}")]
    Refused(String),
    /// It cannot hold a value of these rows, although every value was made to fit. Without them it goes on.
    #[error("the history's database cannot hold a row: {0}")]
    Unfit(String),
    /// Its mark is not where this writer left it: another one writes too.
    #[error("another writer moved the history's mark from {expected}")]
    Moved {
        /// Where it was left.
        expected: JournalSeq,
    },
}

/// Rows of consecutive records, to be written whole or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryBatch {
    /// Where the mark stands; nothing when there is none.
    pub after: Option<JournalSeq>,
    /// Where it will. Without schedules those of the mark that stands there stay; the first one has them.
    pub mark: HistoryMark,
    /// The rows.
    pub rows: HistoryRows,
}

/// Everything that the tables hold, each in the order of its keys. For comparing two histories.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryTables {
    /// `runs`.
    pub runs: Vec<RunRow>,
    /// `artifacts`.
    pub artifacts: Vec<ArtifactRow>,
    /// `agent_status`.
    pub agent: Option<AgentStatusRow>,
    /// `cycles`.
    pub cycles: Vec<CycleRow>,
    /// `cycle_logs`.
    pub logs: Vec<CycleLogRow>,
    /// `strategy_schedules`.
    pub schedules: Vec<ScheduleRow>,
    /// `orchestration_runs`.
    pub orchestration_runs: Vec<OrchestrationRunRow>,
    /// `signal_order_mappings`.
    pub signal_orders: Vec<SignalOrderRow>,
}

/// A database of the history. Cheap to share; it connects when it is asked first, and again when it was away.
///
/// One writer writes, any number of readers read. A row is replaced by a later one of its key.
#[async_trait]
pub trait HistoryStore: Send + Sync {
    /// What a projection goes on from; nothing when there is no history. Makes the tables where they are missing.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    async fn load_resume(&self) -> Result<Option<HistoryResume>, HistoryError>;

    /// Writes rows and mark in one transaction, if the mark stands where `batch` says.
    ///
    /// # Errors
    ///
    /// [`HistoryError`]. After [`HistoryError::Away`] it is unknown whether it was written: the mark says so.
    async fn apply_batch(&self, batch: &HistoryBatch) -> Result<(), HistoryError>;

    /// Removes every row and the mark in one transaction.
    ///
    /// # Errors
    ///
    /// [`HistoryError`]; everything is still there then, unless it is [`HistoryError::Away`].
    async fn clear_history(&self) -> Result<(), HistoryError>;

    /// Removes what stands beside cycles that began before `before` and have ended, and the cycles: the oldest ones, at
    /// most `limit` of them. Returns how many.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    async fn drop_cycles_before(&self, before: TsMs, limit: u32) -> Result<u64, HistoryError>;

    /// Cycles, newest first.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    async fn list_cycles(&self, query: CyclePageQuery) -> Result<Vec<CycleRow>, HistoryError>;

    /// A cycle with its log lines, of which at most [`CYCLE_LOGS_SHOWN_MAX`]; nothing when there is none of this id.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    async fn find_cycle(&self, id: CycleId) -> Result<Option<CycleDetails>, HistoryError>;

    /// Orchestration runs, newest first, and how many match.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    async fn list_orchestration_runs(
        &self,
        query: &OrchestrationPageQuery,
    ) -> Result<OrchestrationPage, HistoryError>;

    /// An orchestration run with its mappings; nothing when there is none of this id.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    async fn find_orchestration_run(&self, id: CycleId)
    -> Result<Option<OrchestrationDetails>, HistoryError>;

    /// Every row. Holds all of them in memory: for tests, and for comparing a rebuilt history of bounded size.
    ///
    /// # Errors
    ///
    /// [`HistoryError`].
    async fn dump_tables(&self) -> Result<HistoryTables, HistoryError>;
}
