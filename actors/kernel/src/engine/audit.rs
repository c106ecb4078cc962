//! The audit of two logs: everything that follows from other records is derived again and compared.
//!
//! A divergence changes nothing: the audit goes on from what is recorded, so that one wrong fact is one divergence and
//! what comes after it is still checked.

mod compare;
mod gone;

use std::collections::BTreeMap;

use crate::engine::contracts::engine_run::{RunFacts, RunRecord, RunStatus};
use crate::engine::contracts::receipt::ReceiptRecord;
use crate::engine::divergence::{Check, Divergence, ORDER};
use crate::engine::positions::FORGET_AFTER_MIN;
use crate::engine::replay::{CutReplay, Derived, Gap, RunLogOutline};
use crate::engine::retention;
use crate::engine::run::{Attempts, RunIndex};
use crate::engine::run_id::RunId;
use crate::error::ErrorKind;
use crate::ids::{EngineMode, IngestSeq, Origin, RunSeq, Seq, Symbol, TsMs};
use crate::ports::engine::{EngineAnswer, EngineCall, EngineError, EngineIdentity};

use compare::{
    check_attempts, compare_answers, compare_facts, compare_failure, receipt_divergence, run_divergence,
};
pub use gone::{ResumedAfterTrim, SavedTrims};

/// Origin of a call's hysteresis state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateFrom {
    /// What the log recorded before the run. Each call stands alone: one wrong answer is one divergence.
    #[default]
    Record,
    /// What this replay computed, from the beginning of the log on.
    Replay,
}

/// Start of a replay: the state before the logs' first records, if they were trimmed. The default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayStart {
    /// The last receipt before the first one that is there.
    pub receipts: IngestSeq,
    /// What the run records said before the first one that is there.
    pub runs: RunIndex,
    /// Of each symbol whose run is open in `runs`: its engine time before that run, if there was one.
    pub before_open: BTreeMap<Symbol, TsMs>,
    /// What was let go without a run, though these logs still have it.
    pub gone: SavedTrims,
}

impl ReplayStart {
    /// For logs that still have their first records, whose service goes on from `base`.
    #[must_use]
    pub fn of_whole_logs(base: &retention::RetentionBase) -> Self {
        Self { gone: SavedTrims::from(base), ..Self::default() }
    }

    /// Whether nothing stood before.
    #[must_use]
    pub const fn is_beginning(&self) -> bool {
        self.receipts.0 == 0 && self.runs.tail().0 == 0
    }
}

impl From<&retention::RetentionBase> for ReplayStart {
    fn from(base: &retention::RetentionBase) -> Self {
        Self {
            receipts: IngestSeq(base.receipts_from().0.saturating_sub(1)),
            runs: base.run_index().clone(),
            before_open: base.before_open().clone(),
            gone: SavedTrims::default(),
        }
    }
}

/// Need of a run record in the replay: nothing, or the engine's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditStep {
    /// Not a terminal record: nothing to do.
    Nothing,
    /// The run's result follows from the logs without the engine.
    Settled(Box<RunRecord>),
    /// The engine is to be called, its answer given to [`Audit::compare_answer`].
    Call(Box<EngineCall>),
}

/// A run between its first record and its terminal one.
#[derive(Debug)]
struct Open {
    facts: RunFacts,
    attempts: u32,
    derived: Derived,
}

/// An audit in progress.
#[derive(Debug, Default)]
pub struct Audit {
    state_from: StateFrom,
    replay: CutReplay,
    last_receipt: Option<TsMs>,
    next_receipt: IngestSeq,
    /// The last position of each origin, and when it came.
    positions: BTreeMap<Origin, (u64, TsMs)>,
    index: RunIndex,
    open: BTreeMap<Symbol, Open>,
    /// With [`StateFrom::Replay`]: each symbol's state so far.
    states: BTreeMap<Symbol, String>,
    anew: Vec<ResumedAfterTrim>,
}

impl Audit {
    /// An audit of logs that begin at `base`, whose run log has this outline.
    #[must_use]
    pub fn new(outline: RunLogOutline, state_from: StateFrom, base: ReplayStart) -> Self {
        let gaps: Vec<_> = outline
            .first_starts()
            .map(|(symbol, start)| (symbol.clone(), base.gone.gaps_of_symbol(symbol, start)))
            .collect();
        let mut replay = CutReplay::new(outline, base.receipts);
        gaps.into_iter().for_each(|(symbol, gaps)| replay.leave_out(&symbol, gaps));
        let mut states = BTreeMap::new();
        for (symbol, runs) in base.runs.symbols() {
            match &runs.open {
                // Its cut is taken again, for the run's records that are there.
                Some((facts, _)) => {
                    replay.continue_at(symbol, Some(facts.cut.start), base.before_open.get(symbol).copied());
                }
                None => replay.continue_at(symbol, runs.next_start(), runs.last_engine_ts),
            }
            if let Some(state) = &runs.hysteresis_state {
                states.insert(symbol.clone(), state.clone());
            }
        }
        Self {
            state_from,
            replay,
            next_receipt: base.receipts.next(),
            index: base.runs,
            states,
            ..Self::default()
        }
    }

    /// The last receipt shown.
    #[must_use]
    pub const fn last_receipt_seen(&self) -> IngestSeq {
        self.replay.last_receipt()
    }

    /// What the run records say so far.
    #[must_use]
    pub const fn run_index(&self) -> &RunIndex {
        &self.index
    }

    /// The cuts that began anew so far: no differences, but receipts without a run.
    #[must_use]
    pub fn resumed_after_trim(&self) -> &[ResumedAfterTrim] {
        &self.anew
    }

    /// Whether more receipts have to be shown before `record`.
    #[must_use]
    pub fn wants_receipts_for(&self, record: &RunRecord) -> bool {
        self.replay.wants_receipts_for(&record.facts)
    }

    /// Takes the next receipt, which the log counts as `at`.
    pub fn take_receipt(&mut self, at: Seq, record: &ReceiptRecord<'_>, found: &mut Vec<Divergence>) {
        let at = IngestSeq::from(at);
        if record.ingest_seq != at || at != self.next_receipt {
            found.push(receipt_divergence(
                Check::Receipts,
                at,
                "ingest_seq",
                record.ingest_seq,
                self.next_receipt,
            ));
        }
        self.next_receipt = at.next();
        if let Some(last) = self.last_receipt.filter(|last| record.ingest_ts_ms < *last) {
            let at_least = format!("{last} or later");
            found.push(receipt_divergence(Check::Order, at, "ingest_ts_ms", record.ingest_ts_ms, at_least));
        }
        self.last_receipt = self.last_receipt.max(Some(record.ingest_ts_ms));
        if record.position != 0 {
            self.check_position(at, record, found);
        }
        self.replay.take_receipt(&ReceiptRecord { ingest_seq: at, ..*record });
    }

    fn check_position(&mut self, at: IngestSeq, record: &ReceiptRecord<'_>, found: &mut Vec<Divergence>) {
        match self.positions.get_mut(record.origin) {
            Some((last, came)) => {
                let was_silent = i128::from(record.ingest_ts_ms.0) - i128::from(came.0);
                if record.position == 1 && FORGET_AFTER_MIN.as_millis().cast_signed() <= was_silent {
                    *last = 0;
                }
                if record.position <= *last {
                    let more = format!("more than {last}");
                    found.push(receipt_divergence(Check::Positions, at, "position", record.position, more));
                }
                *last = (*last).max(record.position);
                *came = record.ingest_ts_ms;
            }
            None => {
                let told = (record.position, record.ingest_ts_ms);
                self.positions.insert(Origin::from(record.origin), told);
            }
        }
    }

    /// Tells that there is no further receipt.
    pub fn receipts_ended(&mut self) {
        self.replay.receipts_ended();
    }

    /// Takes the next record of the run log, once no receipts are wanted for it.
    pub fn take_run_record(
        &mut self,
        at: RunSeq,
        record: &RunRecord,
        found: &mut Vec<Divergence>,
    ) -> AuditStep {
        let facts = &record.facts;
        let open = self.run_of_record(at, record, found);
        // Before the index takes the record, which may bring the next state.
        let recorded_state = self.index.get(&facts.symbol).and_then(|runs| runs.hysteresis_state.clone());
        self.index.take_record(record);
        check_attempts(at, record, &open, found);
        match &record.status {
            RunStatus::Started { attempts } => {
                self.open.insert(facts.symbol.clone(), Open { attempts: *attempts, ..open });
                AuditStep::Nothing
            }
            RunStatus::Completed { .. } => match open.derived.inputs {
                Ok(inputs) => AuditStep::Call(Box::new(self.engine_call(facts, inputs, recorded_state))),
                Err(error) => {
                    let (recorded, derived) = ("completed".to_owned(), format!("failed ({error})"));
                    found.push(run_divergence(Check::Failures, (at, facts), "status", recorded, derived));
                    AuditStep::Settled(Box::new(record.clone()))
                }
            },
            RunStatus::Failed { completed_ts_ms, error_kind, .. } => match &open.derived.inputs {
                Err(error) => {
                    let attempts = Attempts::new(facts.clone(), open.attempts);
                    let derived = attempts.failed_record(error, *completed_ts_ms);
                    compare_failure(at, record, &derived, found);
                    AuditStep::Settled(Box::new(derived))
                }
                // How an engine fails (a deadline, a dead process) is not in the logs: the record is the authority.
                Ok(_) => {
                    if *error_kind == ErrorKind::MissingSnapshotInputs {
                        let (recorded, derived) =
                            (error_kind.to_string(), "another: its cut holds a usable snapshot".to_owned());
                        found.push(run_divergence(
                            Check::Failures,
                            (at, facts),
                            "error_kind",
                            recorded,
                            derived,
                        ));
                    }
                    AuditStep::Settled(Box::new(record.clone()))
                }
            },
        }
    }

    /// The run that a record belongs to: the symbol's open one if it is that, or one that begins with it. Either way
    /// the record is compared with what was to come.
    fn run_of_record(&mut self, at: RunSeq, record: &RunRecord, found: &mut Vec<Divergence>) -> Open {
        let facts = &record.facts;
        let open = self.open.remove(&facts.symbol).filter(|open| open.facts.run_id == facts.run_id);
        if open.is_none() {
            self.begin_anew(at, &facts.symbol);
        }
        if let Err(violation) = self.index.check_record(record) {
            let order = "another record".to_owned();
            found.push(run_divergence(Check::Runs, (at, facts), ORDER, violation.to_string(), order));
        }
        let Some(open) = open else { return self.open_run(at, record, found) };
        compare_facts(at, facts, &open.facts, found);
        // Without a snapshot no attempt is made, so none is made again.
        if !record.is_terminal() && facts.snapshot_seq.is_none() {
            let (recorded, ended) = ("started once more".to_owned(), "its end".to_owned());
            found.push(run_divergence(Check::Runs, (at, facts), ORDER, recorded, ended));
        }
        open
    }

    /// Continues behind what was let go without a run, where the run that begins with `at` is the first one after it.
    fn begin_anew(&mut self, at: RunSeq, symbol: &Symbol) {
        let Some(gap) = self.replay.begin_anew(at, symbol) else { return };
        self.index.resume_at(symbol, gap.to);
        if gap.from.is_some() || 0 < gap.receipts {
            let Gap { to, receipts, .. } = gap;
            self.anew.push(ResumedAfterTrim { symbol: symbol.clone(), at, before: to, receipts });
        }
    }

    /// The first record of a run that is not open.
    fn open_run(&mut self, at: RunSeq, record: &RunRecord, found: &mut Vec<Divergence>) -> Open {
        let facts = &record.facts;
        let derived = self.replay.take_run(at, facts, found);
        // Only after a base: otherwise its first record was seen.
        let carried = self.index.get(&facts.symbol).and_then(|runs| runs.open.clone());
        if let Some((first, attempts)) = carried.filter(|(first, _)| first.run_id == facts.run_id) {
            compare_facts(at, facts, &first, found);
            return Open { facts: first, attempts, derived };
        }
        let expected = self.index.get(&facts.symbol).map_or(0, |runs| runs.outputs) + 1;
        if facts.symbol_seq != expected {
            let (recorded, replayed) = (facts.symbol_seq.to_string(), expected.to_string());
            found.push(run_divergence(Check::Numbering, (at, facts), "symbol_seq", recorded, replayed));
        }
        let attempts = match (&record.status, facts.snapshot_seq) {
            // Its first record: the attempt that it announces is the first.
            (RunStatus::Started { .. }, _) => 0,
            (RunStatus::Completed { .. } | RunStatus::Failed { .. }, snapshot) => {
                u32::from(snapshot.is_some())
            }
        };
        Open { facts: facts.clone(), attempts, derived }
    }

    fn engine_call(&self, facts: &RunFacts, inputs: String, recorded: Option<String>) -> EngineCall {
        let state = match self.state_from {
            StateFrom::Record => recorded,
            StateFrom::Replay => self.states.get(&facts.symbol).cloned(),
        };
        EngineCall {
            symbol: facts.symbol.clone(),
            engine_timestamp_ms: facts.engine_timestamp_ms,
            mode: facts.engine_mode,
            inputs,
            state: state.filter(|_| facts.engine_mode == EngineMode::Hysteresis),
        }
    }

    /// The record that the engine's answer makes of a completed run; compares the two. With [`StateFrom::Replay`] it
    /// must come before the symbol's next run.
    pub fn compare_answer(
        &mut self,
        at: RunSeq,
        record: &RunRecord,
        answer: Result<EngineAnswer, EngineError>,
        found: &mut Vec<Divergence>,
    ) -> RunRecord {
        let mut replayed = record.clone();
        let RunStatus::Completed { answer: recorded, .. } = &mut replayed.status else { return replayed };
        match answer {
            Ok(answer) => {
                compare_answers(at, &record.facts, recorded, &answer, found);
                if let (StateFrom::Replay, EngineAnswer::Hysteresis { state, .. }) =
                    (self.state_from, &answer)
                {
                    self.states.insert(record.facts.symbol.clone(), state.clone());
                }
                *recorded = answer;
            }
            Err(error) => {
                let (recorded, replayed) = ("completed".to_owned(), format!("failed ({error})"));
                found.push(run_divergence(Check::Answers, (at, &record.facts), "status", recorded, replayed));
            }
        }
        replayed
    }

    /// Instead of [`compare_answer`](Self::compare_answer), for a run whose engine is not asked: its recorded state
    /// counts as computed.
    pub fn accept_recorded_state(&mut self, record: &RunRecord) {
        if let (
            StateFrom::Replay,
            RunStatus::Completed { answer: EngineAnswer::Hysteresis { state, .. }, .. },
        ) = (self.state_from, &record.status)
        {
            self.states.insert(record.facts.symbol.clone(), state.clone());
        }
    }

    /// Runs that were started and have no terminal record: a crash or a running service leaves them, the next start
    /// finishes them.
    pub fn unfinished_runs(&self) -> impl Iterator<Item = (&Symbol, RunId)> {
        self.open.iter().map(|(symbol, open)| (symbol, open.facts.run_id))
    }
}

/// The engine that a completed run was answered by.
#[must_use]
pub const fn engine_of(record: &RunRecord) -> Option<&EngineIdentity> {
    match &record.status {
        RunStatus::Completed { engine, .. } => Some(engine),
        RunStatus::Started { .. } | RunStatus::Failed { .. } => None,
    }
}

#[cfg(test)]
mod tests;
