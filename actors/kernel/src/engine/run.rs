//! The life of a run, and what the run log says about each symbol.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::cadence::Tick;
use crate::engine::contracts::engine_run::{CutRange, RunFacts, RunRecord, RunStatus};
use crate::engine::contracts::orchestrator_event::outputs_of;
use crate::engine::cut::SymbolCut;
use crate::engine::run_id::RunId;
use crate::error::{ErrorKind, bounded_detail};
use crate::ids::{EngineMode, IngestSeq, RunSeq, Symbol, TsMs};
use crate::mutant;
use crate::ports::engine::{EngineAnswer, EngineError, EngineIdentity};

/// The `started` record of a first attempt on `cut` at `tick`.
///
/// `symbol_seq` is the number of the run's first output among the symbol's outputs.
#[must_use]
pub fn first_started_record(
    tick: Tick,
    cut: SymbolCut,
    mode: EngineMode,
    now: TsMs,
    symbol_seq: u64,
) -> RunRecord {
    let run_id = RunId::derive(&cut.symbol, tick.engine_timestamp_ms, cut.end, mode);
    let facts = RunFacts {
        run_id,
        symbol: cut.symbol,
        engine_timestamp_ms: tick.engine_timestamp_ms,
        engine_mode: mode,
        cut: CutRange { kind: tick.cut_kind, start: cut.start, end: cut.end },
        planned_ts_ms: tick.planned_ts_ms,
        started_ts_ms: now,
        snapshot_seq: cut.snapshot.map(|snapshot| snapshot.seq),
        counts_by_event_type: cut.counts,
        symbol_seq,
    };
    Attempts::first_attempt(facts).started_record()
}

/// The attempts of one run, from its `started` record to its terminal one.
#[derive(Clone, Debug)]
pub struct Attempts {
    facts: RunFacts,
    attempts: u32,
    answered: u32,
}

impl Attempts {
    /// The first attempt; a run without a snapshot makes none.
    #[must_use]
    pub fn first_attempt(facts: RunFacts) -> Self {
        let attempts = u32::from(facts.snapshot_seq.is_some());
        Self { facts, attempts, answered: 0 }
    }

    /// Continues after a durable `started` record with this many attempts.
    #[must_use]
    pub const fn new(facts: RunFacts, attempts: u32) -> Self {
        Self { facts, attempts, answered: 0 }
    }

    /// The run.
    #[must_use]
    pub const fn facts(&self) -> &RunFacts {
        &self.facts
    }

    /// Total attempts begun.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Attempts that were answered, with an error too.
    #[must_use]
    pub const fn answered(&self) -> u32 {
        self.answered
    }

    /// Notes that the current attempt was answered with an error.
    pub fn note_error(&mut self) {
        self.answered += 1;
    }

    /// Notes that another attempt begins.
    pub fn note_retry(&mut self) {
        self.attempts += 1;
    }

    /// The `started` record of the current attempt: the first one, or one that follows a crash (RUN-4).
    #[must_use]
    pub fn started_record(&self) -> RunRecord {
        RunRecord { facts: self.facts.clone(), status: RunStatus::Started { attempts: self.attempts } }
    }

    /// The terminal record of an answered run.
    #[must_use]
    pub fn completed_record(self, answer: EngineAnswer, engine: EngineIdentity, now: TsMs) -> RunRecord {
        let status = RunStatus::Completed {
            attempts: self.attempts,
            answered: self.answered + 1,
            completed_ts_ms: now,
            answer,
            engine,
        };
        RunRecord { facts: self.facts, status }
    }

    /// The terminal record of a run without an answer.
    #[must_use]
    pub fn failed_record(self, error: &EngineError, now: TsMs) -> RunRecord {
        let status = RunStatus::Failed {
            attempts: self.attempts,
            answered: self.answered,
            completed_ts_ms: now,
            error_kind: error.kind,
            error_detail: bounded_detail(&error.detail),
        };
        RunRecord { facts: self.facts, status }
    }
}

/// The error of a run whose cut has no snapshot. The text is part of the published output, so it says nothing that a
/// replay could not say.
#[must_use]
pub fn missing_snapshot(facts: &RunFacts) -> EngineError {
    let detail = format!("no SnapshotInputs with timestamp_ms {} in the cut", facts.engine_timestamp_ms);
    EngineError::no_answer(ErrorKind::MissingSnapshotInputs, detail)
}

/// The error of a run whose snapshot the engine cannot be given. It follows from the receipt, as the one above.
#[must_use]
pub fn unusable_snapshot(seq: IngestSeq) -> EngineError {
    let detail = format!("receipt {seq} has no usable normalized object");
    EngineError::no_answer(ErrorKind::SnapshotBuildFailure, detail)
}

/// State of one symbol by the run log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolHistory {
    /// End of the last cut; the next one starts after it.
    pub last_cut_end: Option<IngestSeq>,
    /// Engine timestamp of the last run.
    pub last_engine_ts: Option<TsMs>,
    /// Hysteresis state after the last completed run that had one.
    pub hysteresis_state: Option<String>,
    /// The run that has no terminal record yet, with its attempts.
    pub open: Option<(RunFacts, u32)>,
    /// Outputs of the symbol so far.
    pub outputs: u64,
}

impl SymbolHistory {
    /// Where the next cut starts; `None` when there was none.
    #[must_use]
    pub fn next_start(&self) -> Option<IngestSeq> {
        self.last_cut_end.map(|end| if mutant!(CutOverlapsByOne) { end } else { end.next() })
    }
}

/// A record that the run log must not get.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunViolation {
    /// RUN-2, RUN-4: a terminal record needs its open run.
    #[error("run {run_id} of {symbol} is not open, so it cannot end")]
    NotOpen {
        /// The run.
        run_id: RunId,
        /// Its symbol.
        symbol: Symbol,
    },
    /// RUN-3: another run of the symbol is still open.
    #[error("run {run_id} of {symbol} cannot start before run {open} has ended")]
    StillOpen {
        /// The run.
        run_id: RunId,
        /// Its symbol.
        symbol: Symbol,
        /// The run before it.
        open: RunId,
    },
    /// RUN-3: engine time must increase.
    #[error("run {run_id} of {symbol} at {engine_ts} is not after the last one at {last}")]
    NotIncreasing {
        /// The run.
        run_id: RunId,
        /// Its symbol.
        symbol: Symbol,
        /// Its engine timestamp.
        engine_ts: TsMs,
        /// The last one.
        last: TsMs,
    },
    /// CUT-1: a cut ends at its start - 1 or later; the next one would overlap otherwise.
    #[error("run {run_id} of {symbol} has a cut from {start} that ends before, at {end}")]
    Backwards {
        /// The run.
        run_id: RunId,
        /// Its symbol.
        symbol: Symbol,
        /// Start of its cut.
        start: IngestSeq,
        /// End of its cut.
        end: IngestSeq,
    },
    /// CUT-1: cuts tile the log.
    #[error("run {run_id} of {symbol} starts its cut at {start}, the last one ended at {last_end}")]
    NotTiled {
        /// The run.
        run_id: RunId,
        /// Its symbol.
        symbol: Symbol,
        /// Start of its cut.
        start: IngestSeq,
        /// End of the last cut.
        last_end: IngestSeq,
    },
}

/// Numbers of a run log's runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunTotals {
    /// Started.
    pub started: u64,
    /// Ended with an answer.
    pub completed: u64,
    /// Ended without one.
    pub failed: u64,
}

/// Index of the run log by symbol. Rebuilt by showing it the log's records in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunIndex {
    tail: RunSeq,
    symbols: BTreeMap<Symbol, SymbolHistory>,
    last_planned_ts: Option<TsMs>,
    started: u64,
    completed: u64,
    failed: u64,
    outputs: u64,
}

impl RunIndex {
    /// The last record taken in.
    #[must_use]
    pub const fn tail(&self) -> RunSeq {
        self.tail
    }

    /// What is known of a symbol; the default for one that never ran.
    #[must_use]
    pub fn symbol_runs(&self, symbol: &Symbol) -> SymbolHistory {
        self.symbols.get(symbol).cloned().unwrap_or_default()
    }

    /// What is known of a symbol, if it ever ran.
    #[must_use]
    pub fn get(&self, symbol: &Symbol) -> Option<&SymbolHistory> {
        self.symbols.get(symbol)
    }

    /// The receipts of `symbol` before `start` were let go without a run: its next cut starts there, unless it starts
    /// later anyway.
    pub fn resume_at(&mut self, symbol: &Symbol, start: IngestSeq) {
        if let Some(known) = self.symbols.get_mut(symbol) {
            known.last_cut_end = known.last_cut_end.max(Some(IngestSeq(start.0.saturating_sub(1))));
        }
    }

    /// Takes over what a base says of receipts that were [let go](Self::resume_at).
    pub fn resume_after(&mut self, base: &Self) {
        for (symbol, runs) in base.symbols() {
            if let Some(start) = runs.next_start() {
                self.resume_at(symbol, start);
            }
        }
    }

    /// Every symbol that ever ran.
    pub fn symbols(&self) -> impl Iterator<Item = (&Symbol, &SymbolHistory)> {
        self.symbols.iter()
    }

    /// The largest planned time of any run: the log is sealed up to there (CUT-2).
    #[must_use]
    pub const fn last_planned_ts(&self) -> Option<TsMs> {
        self.last_planned_ts
    }

    /// Numbers of runs.
    #[must_use]
    pub const fn run_counts(&self) -> RunTotals {
        RunTotals { started: self.started, completed: self.completed, failed: self.failed }
    }

    /// Outputs of all terminal records.
    #[must_use]
    pub const fn output_count(&self) -> u64 {
        self.outputs
    }

    /// Checks that `record` may come next, without changing anything.
    ///
    /// # Errors
    ///
    /// [`RunViolation`] names the invariant that it would break.
    pub fn check_record(&self, record: &RunRecord) -> Result<(), RunViolation> {
        let facts = &record.facts;
        let (run_id, symbol) = (facts.run_id, facts.symbol.clone());
        let known = self.symbols.get(&facts.symbol);
        let open = known.and_then(|known| known.open.as_ref());
        if record.is_terminal() {
            return match open {
                Some((open, _)) if open.run_id == run_id => Ok(()),
                Some(_) | None => Err(RunViolation::NotOpen { run_id, symbol }),
            };
        }
        if let Some((open, _)) = open {
            let again = open.run_id == run_id;
            return if again {
                Ok(())
            } else {
                Err(RunViolation::StillOpen { run_id, symbol, open: open.run_id })
            };
        }
        let CutRange { start, end, .. } = facts.cut;
        if end.next() < start {
            return Err(RunViolation::Backwards { run_id, symbol, start, end });
        }
        let Some(known) = known else { return Ok(()) };
        if let Some(last) = known.last_engine_ts.filter(|last| facts.engine_timestamp_ms <= *last) {
            return Err(RunViolation::NotIncreasing {
                run_id,
                symbol,
                engine_ts: facts.engine_timestamp_ms,
                last,
            });
        }
        match known.last_cut_end {
            Some(last_end) if start != last_end.next() => {
                Err(RunViolation::NotTiled { run_id, symbol, start, last_end })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes the next record of the log.
    ///
    /// # Errors
    ///
    /// As [`check_record`](Self::check_record); the index is then unchanged.
    pub fn admit_record(&mut self, record: &RunRecord) -> Result<(), RunViolation> {
        self.check_record(record)?;
        self.take_record(record);
        Ok(())
    }

    /// Takes the next record of the log as it is, also one that [`check_record`](Self::check_record) refuses: for a
    /// reader that reports it and goes on.
    pub fn take_record(&mut self, record: &RunRecord) {
        self.tail = self.tail.next();
        self.last_planned_ts = self.last_planned_ts.max(Some(record.facts.planned_ts_ms));
        let outputs = outputs_of(record);
        self.outputs += outputs;
        let known = self.symbols.entry(record.facts.symbol.clone()).or_default();
        known.outputs += outputs;
        match &record.status {
            RunStatus::Started { attempts } => {
                self.started += u64::from(known.open.is_none());
                known.last_cut_end = Some(record.facts.cut.end);
                known.last_engine_ts = Some(record.facts.engine_timestamp_ms);
                known.open = Some((record.facts.clone(), *attempts));
            }
            RunStatus::Completed { answer, .. } => {
                self.completed += 1;
                known.open = known.open.take().filter(|_| mutant!(EndIsForgotten));
                if let EngineAnswer::Hysteresis { state, .. } = answer {
                    known.hysteresis_state = Some(state.clone());
                }
            }
            RunStatus::Failed { .. } => {
                self.failed += 1;
                known.open = None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
