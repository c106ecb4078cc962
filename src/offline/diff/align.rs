//! Finds the runs that belong together, whatever the order between symbols is on each side.

use std::collections::BTreeMap;

use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::ids::{Symbol, TsMs};

use super::compare::RunFindings;
use super::{DiffVerdict, Differences, SideSummary};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// Takes ended runs of both sides, each side's in the order of its log, and compares those that belong together.
///
/// Of a symbol that both have, a run waits for the other side only until that side is past its timestamp. So memory
/// follows how far one side is fed ahead of the other; see [`side_behind`](Self::side_behind).
#[derive(Debug, Default)]
pub struct Align {
    a: Waiting,
    b: Waiting,
    findings: RunFindings,
    differences: Differences,
}

#[derive(Debug, Default)]
struct Waiting {
    runs: BTreeMap<Symbol, BTreeMap<TsMs, RunRecord>>,
    reached: Option<TsMs>,
    is_ended: bool,
}

impl Align {
    /// A comparison of two sides with these names.
    #[must_use]
    pub fn new(a: &str, b: &str) -> Self {
        let mut align = Self::default();
        align.differences.a.name = a.to_owned();
        align.differences.b.name = b.to_owned();
        align
    }

    /// The side that is to be fed next: the one that is less far in time. Nothing when both have ended.
    #[must_use]
    pub const fn side_behind(&self) -> Option<Side> {
        match (self.a.is_ended, self.b.is_ended) {
            (true, true) => None,
            (false, true) => Some(Side::A),
            (true, false) => Some(Side::B),
            (false, false) => match (self.a.reached, self.b.reached) {
                (Some(a), Some(b)) if b.0 < a.0 => Some(Side::B),
                (Some(_), None) => Some(Side::B),
                (_, _) => Some(Side::A),
            },
        }
    }

    /// Takes the next record of a side; one that is not the end of a run is passed over.
    pub fn take_record(&mut self, side: Side, record: RunRecord) {
        if !record.is_terminal() {
            return;
        }
        let (own, other, summary) = match side {
            Side::A => (&mut self.a, &mut self.b, &mut self.differences.a),
            Side::B => (&mut self.b, &mut self.a, &mut self.differences.b),
        };
        note_record(summary, &record);
        let ts = record.facts.engine_timestamp_ms;
        own.reached = own.reached.max(Some(ts));
        let (passed, partner) = other.take_until(&record.facts.symbol, ts);
        let alone = match partner {
            Some(partner) => {
                let (a, b) = match side {
                    Side::A => (&record, &partner),
                    Side::B => (&partner, &record),
                };
                match self.findings.compare_runs(a, b) {
                    true => self.differences.equal += 1,
                    false => self.differences.different += 1,
                }
                None
            }
            // A log that has a run twice is odd; the second one has no partner.
            None => own.runs.entry(record.facts.symbol.clone()).or_default().insert(ts, record),
        };
        let (mine, others) = match side {
            Side::A => (&mut self.differences.only_in_a, &mut self.differences.only_in_b),
            Side::B => (&mut self.differences.only_in_b, &mut self.differences.only_in_a),
        };
        alone.iter().for_each(|record| mine.note_record(record));
        passed.iter().for_each(|record| others.note_record(record));
    }

    /// Takes the end of a side.
    pub const fn end_side(&mut self, side: Side) {
        match side {
            Side::A => self.a.is_ended = true,
            Side::B => self.b.is_ended = true,
        }
    }

    /// What was found, once both sides have ended.
    #[must_use]
    pub fn into_differences(self) -> Differences {
        let mut differences = self.differences;
        self.a.remaining_runs().for_each(|record| differences.only_in_a.note_record(record));
        self.b.remaining_runs().for_each(|record| differences.only_in_b.note_record(record));
        self.findings.move_into(&mut differences);
        let is_equal = differences.different + differences.only_in_a.count + differences.only_in_b.count == 0;
        differences.verdict = match (differences.equal + differences.different, is_equal) {
            (0, _) => DiffVerdict::CannotTell,
            (_, true) => DiffVerdict::Equal,
            (_, false) => DiffVerdict::Different,
        };
        differences
    }
}

impl Waiting {
    /// Takes out the symbol's runs before `ts`, which the other side will not have any more, and the one at `ts`.
    fn take_until(&mut self, symbol: &Symbol, ts: TsMs) -> (Vec<RunRecord>, Option<RunRecord>) {
        let Some(runs) = self.runs.get_mut(symbol) else { return (Vec::new(), None) };
        let later = runs.split_off(&ts);
        let passed = std::mem::replace(runs, later).into_values().collect();
        (passed, runs.remove(&ts))
    }

    fn remaining_runs(&self) -> impl Iterator<Item = &RunRecord> {
        self.runs.values().flat_map(BTreeMap::values)
    }
}

fn note_record(summary: &mut SideSummary, record: &RunRecord) {
    summary.runs += 1;
    if let RunStatus::Completed { engine, .. } = &record.status
        && !summary.engines.contains(engine)
    {
        summary.engines.push(engine.clone());
    }
}

#[cfg(test)]
mod tests;
