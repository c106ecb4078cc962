//! The row of a cycle, from the cycle's state: the same for the tables and for pages of what is in memory.

use serde_json::{Value, json};

use super::columns::{CONTEXT_BYTES_MAX, WORD_CHARS_MAX, fit_count, fit_json, fit_moment, fit_word};
use super::lines::cause_line;
use super::rows::CycleRow;
use crate::ids::TsMs;
use crate::trading::cycle::{CycleState, error_wire};
use crate::trading::ids::JournalSeq;

/// Facts of a cycle that its state does not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct CycleFrame {
    /// Position of its first record, where it is known.
    pub(super) first_seq: Option<JournalSeq>,
    /// For when it was planned, if it was.
    pub(super) planned: Option<TsMs>,
    /// Order intents so far.
    pub(super) intents: u64,
}

/// The row, of a cycle whose first record was made at `began_at`.
pub(super) fn row_of_cycle(state: &CycleState, frame: CycleFrame, began_at: TsMs) -> CycleRow {
    let (started, ended) = (state.started(), state.ended());
    let decided = ended.map_or(state.decisions().len() as u64, |it| u64::from(it.counts.decisions));
    let errors = ended.map(|ended| ended.errors.iter().map(error_wire).collect::<Vec<_>>());
    CycleRow {
        id: started.cycle_id,
        kind: fit_word(started.pipeline.name.as_str(), WORD_CHARS_MAX),
        status: fit_word(ended.map_or("started", |it| it.status.cycle_word()), WORD_CHARS_MAX),
        started_at: fit_moment(started.started_at),
        completed_at: ended.map(|ended| fit_moment(ended.finished_at)),
        duration_ms: ended.map(|ended| fit_count(ended.spent_ms)),
        strategies_processed: ended.map_or(0, |it| fit_count(it.counts.strategies_processed.into())),
        decisions_generated: fit_count(decided),
        orders_submitted: fit_count(frame.intents),
        // Fills are the second half's.
        orders_filled: 0,
        errors: fit_json(Value::Array(errors.unwrap_or_default()), CONTEXT_BYTES_MAX),
        metadata: fit_json(metadata(state, frame), CONTEXT_BYTES_MAX),
        created_at: began_at,
    }
}

fn metadata(state: &CycleState, frame: CycleFrame) -> Value {
    let (started, ended) = (state.started(), state.ended());
    json!({
        "as_of_date": started.as_of_date,
        "cause": cause_line(&started.cause),
        "config": started.config,
        "dry_run": started.dry_run,
        "first_seq": frame.first_seq,
        "mode": started.mode,
        "pipeline": started.pipeline.name,
        "planned_ts_ms": frame.planned,
        "reason": ended.map(|ended| ended.reason.to_line()),
        "status": ended.map(|ended| ended.status),
        "strategies": started.strategies,
        "symbols": started.symbols,
    })
}
