//! Reads a backtest's logs once and counts what the report shows.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::outputs_of;
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{IngestSeq, Seq, Symbol, TsMs};
use orchestrator_kernel::ports::engine::EngineIdentity;
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit};
use serde::Serialize;

use super::over_time::{CountsOverTime, ReceiptCounts, RunCounts};
use super::regimes::Regimes;

/// Figures of the receipt log and the quarantine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReceiptFigures {
    /// Receipts.
    pub receipts: u64,
    /// Their events' bytes.
    pub bytes: u64,
    /// Time of the first one in the receipt log.
    pub first_ts_ms: Option<TsMs>,
    /// Time of the last one.
    pub last_ts_ms: Option<TsMs>,
    /// Receipts by type.
    pub by_event_type: BTreeMap<String, u64>,
    /// Receipts by symbol.
    pub by_symbol: BTreeMap<String, u64>,
    /// Items that are no receipts.
    pub quarantined: u64,
    /// The first of them.
    pub first_quarantined: Option<NoReceipt>,
}

/// Something that is no receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NoReceipt {
    /// Its position in the capture: in a file without blank lines the number of its line.
    pub position: u64,
    /// The stable word.
    pub reason: String,
    /// What exactly is wrong.
    pub detail: String,
}

/// Figures of the run log.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RunFigures {
    /// Runs that were begun.
    pub started: u64,
    /// Runs that the engine answered.
    pub completed: u64,
    /// Runs that ended without an answer.
    pub failed: u64,
    /// Runs that were begun and did not end; 0 in a complete backtest.
    pub open: u64,
    /// Outputs of the runs that ended.
    pub outputs: u64,
    /// Engine calls that were answered, with an output or an error.
    pub answered: u64,
    /// Failures by category.
    pub failures: BTreeMap<ErrorKind, Failures>,
    /// Runs by symbol.
    pub by_symbol: BTreeMap<Symbol, SymbolRunFigures>,
}

/// Runs that failed for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failures {
    /// How many.
    pub runs: u64,
    /// The first of them.
    pub first_run_id: String,
    /// Its symbol.
    pub first_symbol: Symbol,
    /// Its engine timestamp.
    pub first_engine_timestamp_ms: TsMs,
    /// What was wrong with it.
    pub first_error_detail: String,
}

/// One symbol's runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SymbolRunFigures {
    /// Runs that the engine answered.
    pub completed: u64,
    /// Runs that failed, by category.
    pub failed: BTreeMap<ErrorKind, u64>,
    /// Outputs.
    pub outputs: u64,
}

/// Engine that answered, and the number of its answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answerer {
    /// The engine.
    #[serde(flatten)]
    pub engine: EngineIdentity,
    /// Runs that it answered.
    pub runs: u64,
}

/// Everything that is counted.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) receipts: ReceiptFigures,
    pub(super) runs: RunFigures,
    pub(super) regimes: Regimes,
    pub(super) receipts_over_time: CountsOverTime<ReceiptCounts>,
    pub(super) runs_over_time: CountsOverTime<RunCounts>,
    pub(super) engines: Vec<Answerer>,
    open: BTreeSet<String>,
}

/// Width of the first steps of receipts, in milliseconds.
const RECEIPTS_STEP_MS: i64 = 1_000;

/// Counts what the logs hold; runs come every `interval_ms`.
pub(super) async fn read_figures(
    receipts: &dyn Log,
    runs: &dyn Log,
    quarantine: &dyn Log,
    interval_ms: i64,
) -> Result<Figures, ReadError> {
    let mut figures = Figures {
        receipts: ReceiptFigures::default(),
        runs: RunFigures::default(),
        regimes: Regimes::default(),
        receipts_over_time: CountsOverTime::new(RECEIPTS_STEP_MS),
        runs_over_time: CountsOverTime::new(interval_ms),
        engines: Vec::new(),
        open: BTreeSet::new(),
    };
    scan_log(receipts, |seq, payload| {
        let record = ReceiptRecord::decode(payload).map_err(|error| corrupt_record(seq, &error))?;
        figures.add_receipt(&record);
        Ok(())
    })
    .await?;
    scan_log(runs, |seq, payload| {
        figures.add_run(&RunRecord::decode(payload).map_err(|error| corrupt_record(seq, &error))?);
        Ok(())
    })
    .await?;
    scan_log(quarantine, |seq, payload| {
        figures
            .add_quarantined(QuarantineRecord::decode(payload).map_err(|error| corrupt_record(seq, &error))?);
        Ok(())
    })
    .await?;
    figures.runs.open = figures.open.len() as u64;
    Ok(figures)
}

pub(super) async fn scan_log(
    log: &dyn Log,
    mut take: impl FnMut(Seq, &[u8]) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut next = log.stat().start;
    loop {
        let batch = log.read(next, ReadLimit::default()).await?;
        if batch.is_empty() {
            return Ok(());
        }
        batch.iter().try_for_each(|(seq, payload)| take(seq, payload))?;
        next = batch.last_seq().next();
    }
}

pub(super) fn corrupt_record(at: Seq, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::Corrupt { at, detail: error.to_string() }
}

impl Figures {
    fn add_receipt(&mut self, record: &ReceiptRecord<'_>) {
        let receipts = &mut self.receipts;
        receipts.receipts += 1;
        receipts.bytes += record.event.len() as u64;
        if record.ingest_seq == IngestSeq(1) {
            receipts.first_ts_ms = Some(record.ingest_ts_ms);
        }
        receipts.last_ts_ms = Some(record.ingest_ts_ms);
        count_name(&mut receipts.by_event_type, record.event_type);
        count_name(&mut receipts.by_symbol, record.symbol);
        self.receipts_over_time.add_at(record.ingest_ts_ms, ReceiptCounts { receipts: 1 });
    }

    fn add_quarantined(&mut self, record: QuarantineRecord) {
        self.receipts.quarantined += 1;
        self.receipts.first_quarantined.get_or_insert(NoReceipt {
            position: record.position,
            reason: record.reason,
            detail: record.detail,
        });
    }

    fn add_run(&mut self, record: &RunRecord) {
        let facts = &record.facts;
        let runs = &mut self.runs;
        let outputs = outputs_of(record);
        let mut counts = RunCounts { outputs, ..RunCounts::default() };
        let of_symbol = match &record.status {
            RunStatus::Started { .. } => {
                // Each attempt that a crash interrupted has its own.
                runs.started += u64::from(self.open.insert(facts.run_id.to_string()));
                return;
            }
            RunStatus::Completed { answered, answer, engine, .. } => {
                runs.completed += 1;
                runs.answered += u64::from(*answered);
                counts.completed = 1;
                answered_by(&mut self.engines, engine);
                self.regimes.add_answer(&facts.symbol, facts.engine_timestamp_ms, answer);
                let of_symbol = runs.by_symbol.entry(facts.symbol.clone()).or_default();
                of_symbol.completed += 1;
                of_symbol
            }
            RunStatus::Failed { answered, error_kind, error_detail, .. } => {
                runs.failed += 1;
                runs.answered += u64::from(*answered);
                counts.failed = 1;
                let failures = runs.failures.entry(*error_kind).or_insert_with(|| Failures {
                    runs: 0,
                    first_run_id: facts.run_id.to_string(),
                    first_symbol: facts.symbol.clone(),
                    first_engine_timestamp_ms: facts.engine_timestamp_ms,
                    first_error_detail: error_detail.clone(),
                });
                failures.runs += 1;
                let of_symbol = runs.by_symbol.entry(facts.symbol.clone()).or_default();
                *of_symbol.failed.entry(*error_kind).or_default() += 1;
                of_symbol
            }
        };
        of_symbol.outputs += outputs;
        runs.outputs += outputs;
        self.open.remove(&facts.run_id.to_string());
        self.runs_over_time.add_at(facts.planned_ts_ms, counts);
    }
}

fn count_name(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

fn answered_by(engines: &mut Vec<Answerer>, engine: &EngineIdentity) {
    match engines.iter_mut().find(|known| known.engine == *engine) {
        Some(known) => known.runs += 1,
        None => engines.push(Answerer { engine: engine.clone(), runs: 1 }),
    }
}
