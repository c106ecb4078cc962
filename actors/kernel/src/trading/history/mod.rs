//! History: the journal as rows of tables, for people, reports and pages. The journal is the record, this is a copy.
//!
//! ```text
//! journal ─▶ HistoryFold ─▶ HistoryRows ─┐ one transaction
//!               └─────────▶ HistoryMark ─┴▶ runs · artifacts · agent_status · cycles · cycle_logs · strategy_schedules
//!                                           orchestration_runs · signal_order_mappings
//! ```
//!
//! Each row follows from the records up to the mark and from nothing else: no clock, no configuration but what is
//! recorded. So the tables can be thrown away and made again, equal row by row. A row is always written whole,
//! as its last record leaves it; therefore the records of one transaction write each row once.

mod columns;
mod cycle_row;
mod fold;
mod lines;
mod orchestration;
mod page;
mod rows;
mod schedules;
mod shown;

pub use columns::{
    ARTIFACT_BYTES_MAX, CONTEXT_BYTES_MAX, LEVEL_CHARS_MAX, SCHEDULE_VALUE_CHARS_MAX, WORD_CHARS_MAX,
    fit_count, fit_date, fit_json, fit_moment, fit_position, fit_text, fit_word,
};
pub use fold::{CYCLE_RESULT_KIND, HistoryBreak, HistoryFold};
pub use orchestration::{
    MAPPINGS_SHOWN_MAX, ORCHESTRATION_PAGE_MAX, OrchestrationDetails, OrchestrationPage,
    OrchestrationPageQuery, OrchestrationRunRow, SignalOrderRow,
};
pub use page::{CYCLES_PAGE_MAX, CycleDetails, CyclePageQuery, CyclePageStatus};
pub use rows::{
    AgentStatusRow, ArtifactRow, CycleLogRow, CycleRow, HistoryMark, HistoryResume, HistoryRows,
    RUN_SCHEMA_VERSION, RunRow, ScheduleRow,
};
pub use schedules::{HistorySchedule, HistoryTrigger};
pub use shown::{CyclePage, CyclePageFact};

#[cfg(test)]
mod tests;
