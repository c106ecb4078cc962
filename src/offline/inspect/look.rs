//! Finds what is asked for: at most two passes over the run log, and the receipts of one cut.

use std::collections::BTreeSet;

use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::{events, selected_output};
use orchestrator_kernel::engine::contracts::raw_market_event::normalized;
use orchestrator_kernel::ids::{IngestSeq, RunSeq, Seq, TsMs};
use orchestrator_kernel::ports::engine::EngineAnswer;
use orchestrator_kernel::ports::log::{Log, LogName, ReadError, read_one};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::cycle::find_cycle;
use super::{
    Decided, InspectAnswer, InspectError, KnownInputs, Question, ReceiptLine, ReceiptView, RunLine, RunView,
    SnapshotView, SymbolView,
};
use crate::offline::recorded::{LogError, ReceiptCursor, RunCursor, decode_receipt, first_after};
use crate::service::wiring::reading::Recorded;

/// Runs of an ambiguous beginning that are named.
const EXAMPLES_MAX: usize = 5;

/// Answers `question`. The journal is asked for cycles only.
///
/// # Errors
///
/// [`InspectError`].
pub async fn answer_question(
    recorded: &Recorded,
    journal: Option<&dyn Log>,
    question: &Question,
) -> Result<InspectAnswer, InspectError> {
    let (receipts, runs) = (recorded.receipts.as_ref(), recorded.runs.as_ref());
    match question {
        Question::Run(prefix) => {
            let target = find_run(runs, prefix).await?;
            let around = runs_around(runs, &target).await?;
            Ok(InspectAnswer::Run(Box::new(view_run(receipts, around).await?)))
        }
        Question::Seq(seq) => {
            Ok(InspectAnswer::Receipt(Box::new(look_at_receipt(receipts, runs, *seq).await?)))
        }
        Question::Cycle(prefix) => Ok(InspectAnswer::Cycle(Box::new(find_cycle(journal, prefix).await?))),
        Question::Symbol { symbol, at } => {
            Ok(InspectAnswer::Symbol(Box::new(look_at_symbol(receipts, runs, symbol, *at).await?)))
        }
    }
}

/// A record with its position.
type Placed = (RunSeq, RunRecord);

/// The last record of the only run whose id begins with `prefix`.
async fn find_run(runs: &dyn Log, prefix: &str) -> Result<Placed, InspectError> {
    let prefix = prefix.to_ascii_lowercase();
    let mut found: Option<Placed> = None;
    let mut ids = BTreeSet::new();
    let mut records = RunCursor::over_all(runs);
    while let Some((seq, record)) = records.next().await? {
        let id = record.facts.run_id.to_string();
        if id.starts_with(&prefix) {
            ids.insert(id);
            found = Some((seq, record));
        }
        if EXAMPLES_MAX < ids.len() {
            break;
        }
    }
    match found {
        None => Err(InspectError::NotFound(format!("no run of this log begins with {prefix}"))),
        Some(_) if 1 < ids.len() => {
            let examples = ids.into_iter().take(EXAMPLES_MAX).collect();
            Err(InspectError::Ambiguous { prefix, examples })
        }
        Some(found) => Ok(found),
    }
}

/// A run with what stands around it in the log.
struct Around {
    target: Placed,
    previous: Option<Placed>,
    next: Option<Placed>,
    state_before: Option<String>,
}

/// Collects what stands around `target`: the symbol's runs before and after it, and the state that it began with.
async fn runs_around(runs: &dyn Log, target: &Placed) -> Result<Around, InspectError> {
    let facts = &target.1.facts;
    let mut around = Around { target: target.clone(), previous: None, next: None, state_before: None };
    let mut is_behind = false;
    let mut records = RunCursor::over_all(runs);
    while let Some((seq, record)) = records.next().await? {
        if record.facts.symbol != facts.symbol {
            continue;
        }
        if record.facts.run_id == facts.run_id {
            is_behind = true;
        } else if is_behind {
            let is_ended = record.is_terminal();
            around.next = Some((seq, record));
            if is_ended {
                break;
            }
        } else {
            if let Some(state) = state_of(&record) {
                around.state_before = Some(state.to_owned());
            }
            around.previous = Some((seq, record));
        }
    }
    Ok(around)
}

/// The hysteresis state that an answer left.
fn state_of(record: &RunRecord) -> Option<&str> {
    match &record.status {
        RunStatus::Completed { answer: EngineAnswer::Hysteresis { state, .. }, .. } => Some(state),
        RunStatus::Completed { answer: EngineAnswer::Truth { .. }, .. }
        | RunStatus::Started { .. }
        | RunStatus::Failed { .. } => None,
    }
}

async fn view_run(receipts: &dyn Log, around: Around) -> Result<RunView, InspectError> {
    let Around { target: (run_seq, record), previous, next, state_before } = around;
    let facts = &record.facts;
    let mut known = receipts_of(receipts, facts.symbol.as_str(), facts.cut.start, facts.cut.end).await?;
    known.recorded_by_event_type =
        facts.counts_by_event_type.iter().map(|(name, count)| (name.as_str().to_owned(), *count)).collect();
    if let Some(seq) = facts.snapshot_seq {
        known.snapshot = Some(SnapshotView { ingest_seq: seq.0, inputs: inputs_of(receipts, seq).await? });
    }
    let (attempts, answered, completed_ts_ms) = match &record.status {
        RunStatus::Started { attempts } => (*attempts, None, None),
        RunStatus::Completed { attempts, answered, completed_ts_ms, .. }
        | RunStatus::Failed { attempts, answered, completed_ts_ms, .. } => {
            (*attempts, Some(*answered), Some(*completed_ts_ms))
        }
    };
    let outputs = events(run_seq, &record, None)?
        .into_iter()
        .map(|output| raw_json("an output", &String::from_utf8_lossy(&output.body)))
        .collect::<Result<_, _>>()?;
    Ok(RunView {
        run: run_line(&(run_seq, record.clone())),
        engine_mode: facts.engine_mode.as_str(),
        cut_kind: facts.cut.kind.as_str(),
        planned_ts_ms: facts.planned_ts_ms,
        started_ts_ms: facts.started_ts_ms,
        completed_ts_ms,
        attempts,
        answered,
        known,
        decided: decided_of(&record, state_before)?,
        outputs,
        previous: previous.as_ref().map(run_line),
        next: next.as_ref().map(run_line),
    })
}

fn decided_of(record: &RunRecord, state_before: Option<String>) -> Result<Decided, InspectError> {
    match &record.status {
        RunStatus::Started { .. } => Ok(Decided::default()),
        RunStatus::Failed { error_kind, error_detail, .. } => Ok(Decided {
            error_kind: Some(error_kind.as_str()),
            error_detail: Some(error_detail.clone()),
            ..Decided::default()
        }),
        RunStatus::Completed { answer, engine, .. } => {
            let (text, state) = match answer {
                EngineAnswer::Truth { regime_output } => (regime_output, None),
                EngineAnswer::Hysteresis { decision, state } => (decision, Some(state)),
            };
            let before = state_before.filter(|_| state.is_some());
            Ok(Decided {
                answer: Some(raw_json("the answer", text)?),
                engine: Some(engine.clone()),
                state_before: before.map(|state| raw_json("the state before", &state)).transpose()?,
                state_after: state.map(|state| raw_json("the state after", state)).transpose()?,
                ..Decided::default()
            })
        }
    }
}

fn raw_json(what: &str, text: &str) -> Result<Box<RawValue>, InspectError> {
    serde_json::from_str::<&RawValue>(text)
        .map(RawValue::to_owned)
        .map_err(|source| InspectError::Json { what: what.to_owned(), source })
}

/// One line about a run.
fn run_line((run_seq, record): &Placed) -> RunLine {
    #[derive(Deserialize)]
    struct Regime {
        regime: String,
    }
    let regime_of = |output: &str| serde_json::from_str::<Regime>(output).ok().map(|output| output.regime);
    let facts = &record.facts;
    let (status, regime, error_kind) = match &record.status {
        RunStatus::Started { .. } => ("started", None, None),
        RunStatus::Failed { error_kind, .. } => ("failed", None, Some(error_kind.as_str())),
        RunStatus::Completed { answer: EngineAnswer::Truth { regime_output }, .. } => {
            ("completed", regime_of(regime_output), None)
        }
        RunStatus::Completed { answer: EngineAnswer::Hysteresis { decision, .. }, .. } => {
            let output = selected_output(decision).ok();
            ("completed", output.and_then(|output| regime_of(output.get())), None)
        }
    };
    RunLine {
        run_id: facts.run_id.to_string(),
        run_seq: run_seq.0,
        symbol: facts.symbol.as_str().to_owned(),
        engine_timestamp_ms: facts.engine_timestamp_ms,
        cut_start_ingest_seq: facts.cut.start.0,
        cut_end_ingest_seq: facts.cut.end.0,
        status,
        regime,
        error_kind,
    }
}

/// The symbol's receipts from `start` to `end`.
async fn receipts_of(
    receipts: &dyn Log,
    symbol: &str,
    start: IngestSeq,
    end: IngestSeq,
) -> Result<KnownInputs, InspectError> {
    let mut known = KnownInputs {
        is_trimmed: start <= end && start.0 < receipts.stat().start.0,
        ..KnownInputs::default()
    };
    let mut cut = ReceiptCursor::over_range(receipts, &(start..=end));
    while let Some(record) = cut.next().await? {
        if record.symbol != symbol {
            continue;
        }
        let seen = ReceiptLine {
            ingest_seq: record.ingest_seq.0,
            ingest_ts_ms: record.ingest_ts_ms,
            event_type: record.event_type.to_owned(),
        };
        known.receipts += 1;
        *known.by_event_type.entry(seen.event_type.clone()).or_default() += 1;
        known.first.get_or_insert_with(|| seen.clone());
        known.last = Some(seen);
    }
    Ok(known)
}

/// What the engine got from a snapshot's receipt; nothing when it was trimmed.
async fn inputs_of(receipts: &dyn Log, seq: IngestSeq) -> Result<Option<Box<RawValue>>, InspectError> {
    match stored_event(receipts, seq).await {
        Ok(Some(payload)) => {
            let record = decode_receipt(seq.into(), &payload)?;
            normalized(record.event).map(|inputs| raw_json("the snapshot", inputs)).transpose()
        }
        Ok(None) | Err(LogError { source: ReadError::Trimmed { .. }, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn stored_event(receipts: &dyn Log, seq: IngestSeq) -> Result<Option<bytes::Bytes>, LogError> {
    read_one(receipts, Seq(seq.0)).await.map_err(|source| LogError { log: LogName::Receipts, source })
}

async fn look_at_receipt(receipts: &dyn Log, runs: &dyn Log, seq: u64) -> Result<ReceiptView, InspectError> {
    // One that was trimmed is none, as one that never was.
    let payload = match receipts.stat().start.0.max(1) <= seq {
        false => None,
        true => stored_event(receipts, IngestSeq(seq)).await?,
    };
    let Some(payload) = payload else {
        let stat = receipts.stat();
        return Err(InspectError::NotFound(format!(
            "there is no receipt {seq}; the log holds {} to {}",
            stat.start, stat.tail
        )));
    };
    let record = decode_receipt(Seq(seq), &payload)?;
    let mut taken_by: Option<Placed> = None;
    let mut records = RunCursor::over_all(runs);
    while let Some((run_seq, run)) = records.next().await? {
        let (facts, cut) = (&run.facts, run.facts.cut);
        if facts.symbol.as_str() == record.symbol && cut.start.0 <= seq && seq <= cut.end.0 {
            let is_ended = run.is_terminal();
            taken_by = Some((run_seq, run));
            if is_ended {
                break;
            }
        }
    }
    let is_snapshot = |(_, run): &Placed| run.facts.snapshot_seq == Some(IngestSeq(seq));
    Ok(ReceiptView {
        ingest_seq: seq,
        ingest_ts_ms: record.ingest_ts_ms,
        origin: record.origin.to_owned(),
        position: record.position,
        symbol: record.symbol.to_owned(),
        event_type: record.event_type.to_owned(),
        event: raw_json("the receipt", &String::from_utf8_lossy(record.event))?,
        is_snapshot_of_run: taken_by.as_ref().is_some_and(is_snapshot),
        taken_by: taken_by.as_ref().map(run_line),
    })
}

async fn look_at_symbol(
    receipts: &dyn Log,
    runs: &dyn Log,
    symbol: &str,
    at: TsMs,
) -> Result<SymbolView, InspectError> {
    let (mut last, mut under_way): (Option<Placed>, Option<Placed>) = (None, None);
    let mut is_known = false;
    let mut records = RunCursor::over_all(runs);
    while let Some((seq, record)) = records.next().await? {
        if record.facts.symbol.as_str() != symbol {
            continue;
        }
        is_known = true;
        let ended = match &record.status {
            RunStatus::Started { .. } => None,
            RunStatus::Completed { completed_ts_ms, .. } | RunStatus::Failed { completed_ts_ms, .. } => {
                Some(*completed_ts_ms)
            }
        };
        match ended {
            Some(ended) if ended <= at => (last, under_way) = (Some((seq, record)), None),
            Some(_) | None if record.facts.planned_ts_ms <= at => under_way = Some((seq, record)),
            Some(_) | None => break,
        }
    }
    let tail = IngestSeq(first_after(receipts, at).await?.0.saturating_sub(1));
    let taken = under_way.as_ref().or(last.as_ref()).map_or(IngestSeq(0), |(_, run)| run.facts.cut.end);
    let waiting = receipts_of(receipts, symbol, taken.next(), tail).await?;
    if !is_known && waiting.receipts == 0 {
        let what =
            format!("no run and no receipt of {symbol} until then; is it written as the receipts write it?");
        return Err(InspectError::NotFound(what));
    }
    let last_run = match last {
        Some(target) => Some(Box::new(view_run(receipts, runs_around(runs, &target).await?).await?)),
        None => None,
    };
    Ok(SymbolView {
        symbol: symbol.to_owned(),
        at_ms: at,
        last_ingest_seq: tail.0,
        waiting,
        under_way: under_way.as_ref().map(run_line),
        last_run,
    })
}
