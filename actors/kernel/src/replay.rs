//! Replay: the outputs again, from the two logs alone.
//!
//! The schedule comes from the run log, never from a clock; cuts are derived again from the receipt log and compared
//! with the recorded ones. What is published is compared byte for byte by the caller (REP-1).

use std::collections::{BTreeMap, VecDeque};

use crate::contracts::engine_run::{RunFacts, RunRecord, RunStatus};
use crate::contracts::raw_market_event::normalized;
use crate::contracts::receipt::ReceiptRecord;
use crate::cut::Slice;
use crate::error::ErrorKind;
use crate::ids::{EngineMode, EventType, IngestSeq, Symbol, TsMs};
use crate::ports::engine::{EngineAnswer, EngineCall, EngineError};
use crate::run::{Attempts, missing_snapshot};
use crate::run_id::RunId;

/// Where the logs contradict each other, or the engine contradicts the run log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("run {run_id} of {symbol}: {field} was recorded as {recorded}, replay gives {replayed}")]
pub struct Divergence {
    /// The run.
    pub run_id: RunId,
    /// Its symbol.
    pub symbol: Symbol,
    /// What differs.
    pub field: &'static str,
    /// As recorded.
    pub recorded: String,
    /// As replayed.
    pub replayed: String,
}

/// What a recorded run needs to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not a terminal record: nothing to do.
    Nothing,
    /// The run's result follows from the logs without the engine.
    Settled(Box<RunRecord>),
    /// The engine is to be called, its answer given to [`Replay::finish`].
    Call(EngineCall),
}

/// A receipt that no replayed cut has taken yet.
#[derive(Debug)]
struct Pending {
    seq: IngestSeq,
    event_type: EventType,
    snapshot: Option<(TsMs, Vec<u8>)>,
}

#[derive(Debug, Default)]
struct SymbolReplay {
    pending: VecDeque<Pending>,
    next_start: Option<IngestSeq>,
    floor: Option<TsMs>,
    state: Option<String>,
}

/// A replay in progress. Show it receipts up to a run's cut end, then the run.
#[derive(Debug, Default)]
pub struct Replay {
    symbols: BTreeMap<Symbol, SymbolReplay>,
    seen: IngestSeq,
}

impl Replay {
    /// The last receipt shown; a run needs all up to its `cut.end`.
    #[must_use]
    pub const fn seen(&self) -> IngestSeq {
        self.seen
    }

    /// Takes the next receipt of the log.
    pub fn receipt(&mut self, record: &ReceiptRecord<'_>) {
        self.seen = record.ingest_seq;
        let symbol = match self.symbols.get_mut(record.symbol) {
            Some(symbol) => symbol,
            None => self.symbols.entry(Symbol::from(record.symbol)).or_default(),
        };
        symbol.pending.push_back(Pending {
            seq: record.ingest_seq,
            event_type: EventType::from(record.event_type),
            snapshot: record.snapshot_ts_ms.map(|ts| (ts, record.event.to_vec())),
        });
    }

    /// Takes the next record of the run log, once every receipt up to its cut end was shown.
    ///
    /// # Errors
    ///
    /// [`Divergence`]: the recorded id, cut, counts or snapshot are not what the receipts give.
    pub fn run(&mut self, record: &RunRecord) -> Result<Step, Divergence> {
        if !record.is_terminal() {
            return Ok(Step::Nothing);
        }
        let facts = &record.facts;
        let symbol = self.symbols.entry(facts.symbol.clone()).or_default();
        let (slice, inputs) = symbol.take(facts);
        check(facts, &slice)?;
        let call = inputs.map(|inputs| EngineCall {
            symbol: facts.symbol.clone(),
            engine_timestamp_ms: facts.engine_timestamp_ms,
            mode: facts.engine_mode,
            inputs,
            state: symbol.state.clone().filter(|_| facts.engine_mode == EngineMode::Hysteresis),
        });
        Ok(match (call, &record.status) {
            (None, RunStatus::Failed { completed_ts_ms, .. }) => {
                let attempts = Attempts::new(facts.clone(), 0);
                Step::Settled(Box::new(attempts.failed(&missing_snapshot(facts), *completed_ts_ms)))
            }
            // How an engine fails (a deadline, a dead process) is not in the logs: the record is the authority.
            (Some(_), RunStatus::Failed { .. }) => Step::Settled(Box::new(record.clone())),
            (Some(call), RunStatus::Completed { .. }) => Step::Call(call),
            (None, RunStatus::Completed { .. }) => {
                return Err(diverged(facts, "status", "completed", ErrorKind::MissingSnapshotInputs));
            }
            (_, RunStatus::Started { .. }) => Step::Nothing,
        })
    }

    /// The record that the engine's answer makes of a completed run.
    ///
    /// # Errors
    ///
    /// [`Divergence`]: the engine fails where it answered then.
    pub fn finish(
        &mut self,
        record: &RunRecord,
        answer: Result<EngineAnswer, EngineError>,
    ) -> Result<RunRecord, Divergence> {
        let answer = answer
            .map_err(|error| diverged(&record.facts, "status", "completed", format!("failed ({error})")))?;
        if let (EngineAnswer::Hysteresis { state, .. }, Some(symbol)) =
            (&answer, self.symbols.get_mut(&record.facts.symbol))
        {
            symbol.state = Some(state.clone());
        }
        let mut replayed = record.clone();
        if let RunStatus::Completed { answer: recorded, .. } = &mut replayed.status {
            *recorded = answer;
        }
        Ok(replayed)
    }
}

impl SymbolReplay {
    fn take(&mut self, facts: &RunFacts) -> (Slice, Option<String>) {
        let first = self.pending.front().map(|receipt| receipt.seq).filter(|seq| *seq <= facts.cut.end);
        let start = self.next_start.or(first).unwrap_or(facts.cut.end.next());
        let mut slice = Slice::starting_at(start, self.floor);
        let mut inputs = None;
        while let Some(receipt) = self.pending.pop_front_if(|receipt| receipt.seq <= facts.cut.end) {
            let ts = receipt.snapshot.as_ref().map(|(ts, _)| *ts);
            slice.observe(receipt.event_type.as_str(), ts, receipt.seq, &[]);
            if let Some((ts, event)) = receipt.snapshot
                && ts == facts.engine_timestamp_ms
            {
                inputs = normalized(&event).map(str::to_owned);
            }
        }
        self.next_start = Some(facts.cut.end.next());
        self.floor = Some(facts.engine_timestamp_ms);
        (slice, inputs)
    }
}

fn check(facts: &RunFacts, slice: &Slice) -> Result<(), Divergence> {
    let run_id = RunId::derive(&facts.symbol, facts.engine_timestamp_ms, facts.cut.end, facts.engine_mode);
    let selected = slice.select(facts.engine_timestamp_ms).map(|snapshot| snapshot.seq);
    if run_id != facts.run_id {
        return Err(diverged(facts, "run_id", facts.run_id, run_id));
    }
    if slice.start() != facts.cut.start {
        return Err(diverged(facts, "cut_start_ingest_seq", facts.cut.start, slice.start()));
    }
    if selected != facts.snapshot_seq {
        return Err(diverged(
            facts,
            "snapshot",
            format!("{:?}", facts.snapshot_seq),
            format!("{selected:?}"),
        ));
    }
    if *slice.counts() != facts.counts_by_event_type {
        let (recorded, replayed) = (&facts.counts_by_event_type, slice.counts());
        return Err(diverged(
            facts,
            "counts_by_event_type",
            format!("{recorded:?}"),
            format!("{replayed:?}"),
        ));
    }
    Ok(())
}

fn diverged(
    facts: &RunFacts,
    field: &'static str,
    recorded: impl ToString,
    replayed: impl ToString,
) -> Divergence {
    Divergence {
        run_id: facts.run_id,
        symbol: facts.symbol.clone(),
        field,
        recorded: recorded.to_string(),
        replayed: replayed.to_string(),
    }
}

#[cfg(test)]
mod tests;
