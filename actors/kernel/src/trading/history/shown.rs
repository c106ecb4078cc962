//! Pages of cycles that are in memory: the bodies that the tables would give, without asking a database.

use serde_json::Value;

use super::columns::{CONTEXT_BYTES_MAX, fit_json, fit_moment, fit_text};
use super::cycle_row::{CycleFrame, row_of_cycle};
use super::lines::line_of_fact;
use super::page::{PageLine, details_wire};
use super::rows::CycleRow;
use crate::ids::TsMs;
use crate::trading::cycle::CycleState;
use crate::trading::ids::JournalSeq;
use crate::trading::journal::JournalFact;

/// A record of a cycle in memory.
#[derive(Clone, Copy, Debug)]
pub struct CyclePageFact<'a> {
    /// Its position in the journal and its time; nothing where a crash came between and neither is in memory.
    pub made: Option<(JournalSeq, TsMs)>,
    /// What it says.
    pub fact: &'a JournalFact,
}

/// A cycle in memory.
#[derive(Clone, Debug)]
pub struct CyclePage<'a> {
    /// Position of its first record, where it is known.
    pub first_seq: Option<JournalSeq>,
    /// For when it was planned, if it was.
    pub planned: Option<TsMs>,
    /// What happened in it so far.
    pub state: &'a CycleState,
    /// Its records since the start, in order.
    pub facts: Vec<CyclePageFact<'a>>,
}

impl CyclePage<'_> {
    /// The row that the tables have of it, or will have.
    #[must_use]
    pub fn to_row(&self) -> CycleRow {
        let is_intent = |it: &&CyclePageFact<'_>| matches!(it.fact, JournalFact::OrderIntended(_));
        let intents = self.facts.iter().filter(is_intent).count() as u64;
        let frame = CycleFrame { first_seq: self.first_seq, planned: self.planned, intents };
        row_of_cycle(self.state, frame, fit_moment(self.state.started().started_at))
    }

    /// The body of `GET /api/v1/cycles/:cycleId`.
    #[must_use]
    pub fn to_details_wire(&self) -> Value {
        let started = self.state.started();
        let start = JournalFact::CycleStarted(Box::new(started.clone()));
        let start = (self.first_seq, Some(started.started_at), &start);
        let facts = self.facts.iter();
        let facts = facts.map(|it| (it.made.map(|(seq, _)| seq), it.made.map(|(_, at)| at), it.fact));
        let lines = std::iter::once(start).chain(facts).filter_map(|(id, at, fact)| {
            let line = line_of_fact(fact, self.state)?;
            let context = fit_json(line.context, CONTEXT_BYTES_MAX);
            Some(PageLine {
                id,
                at: at.map(fit_moment),
                level: line.level.to_owned(),
                message: fit_text(&line.message),
                context,
            })
        });
        details_wire(&self.to_row(), &lines.collect::<Vec<_>>())
    }
}
