//! `orchestrator log stat`: what recorded logs hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;

use orchestrator_engine_plane::retention::saved_base;
use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::retention::{RetentionBase, TrimBlocker};
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::log::{AcquireError, Log, LogName, LogStat, ReadLimit, RecordBatch};
use orchestrator_kernel::ports::marks::{MarkError, Marks};
use orchestrator_kernel::trading::journal::SealedEntry;
use serde_json::{Value, json};

use super::{FromArgs, block_on, log_keep, print_answer, print_complaint};
use crate::config::Config;
use crate::process::exit::ProcessExit;
use crate::process::explain::explain_error;
use crate::service::wiring::reading::{self, LogsPlace, Recorded};
use crate::service::wiring::retention::{self, OfflineError};
use crate::service::wiring::{WiringError, journal_trim, marks};

/// Reads every record of every log, checks it, and prints one JSON object.
#[must_use]
pub fn log_stat(args: &FromArgs, environment: Vec<(OsString, OsString)>) -> ProcessExit {
    let (config, place) = match args.load_config_and_place(environment) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    block_on(async {
        match read_all(&place, &config, args.from.is_none()).await {
            Ok(report) => print_answer(&format!("{report:#}\n")),
            Err(error) => {
                print_complaint(&explain_error(&error));
                error.to_exit()
            }
        }
    })
}

async fn read_all(place: &LogsPlace, config: &Config, is_configured: bool) -> Result<Value, OfflineError> {
    let noted = if is_configured { marks::read_marks(config).await? } else { None };
    let mut logs = reading::open_logs(place).await?;
    let journal = logs.take_journal()?;
    let second_mark = noted.map(|noted| compare_with_mark(noted, &logs, journal.as_ref())).transpose()?;
    let read = ReadRecords {
        receipts: read_receipts(logs.receipts.as_ref()).await?,
        runs: count_runs(logs.runs.as_ref()).await?,
    };
    scan_log(logs.quarantine.as_ref(), |_, _| Ok(())).await?;
    let base = saved_base(logs.checkpoints.as_ref()).await.map_err(WiringError::from)?;
    let floor = retention::trim_floor(&logs, config).await?;
    let mut report = report_json(&logs, &read, &base, &floor);
    if let (Some(second_mark), Value::Object(fields)) = (second_mark, &mut report) {
        fields.insert("second_mark".to_owned(), second_mark);
    }
    if let (Some(journal), Value::Object(fields)) = (journal, &mut report) {
        let journal = journal_json(journal.as_ref(), &logs).await?;
        fields.insert(LogName::Journal.to_string(), journal);
    }
    Ok(report)
}

/// Content of the logs, as their records say.
struct ReadRecords {
    receipts: ReadReceipts,
    runs: RunCounts,
}

/// Span of the receipts in time, and their symbols.
#[derive(Default)]
struct ReadReceipts {
    first: Option<TsMs>,
    last: Option<TsMs>,
    symbols: BTreeSet<String>,
}

/// Run records by status.
#[derive(Default)]
struct RunCounts {
    started: u64,
    completed: u64,
    failed: u64,
}

async fn read_receipts(log: &dyn Log) -> Result<ReadReceipts, WiringError> {
    let mut read = ReadReceipts::default();
    scan_log(log, |seq, payload| {
        let record = ReceiptRecord::decode(payload).map_err(|error| corrupt_record(seq, &error))?;
        read.first = read.first.or(Some(record.ingest_ts_ms));
        read.last = Some(record.ingest_ts_ms);
        if !read.symbols.contains(record.symbol) {
            read.symbols.insert(record.symbol.to_owned());
        }
        Ok(())
    })
    .await?;
    Ok(read)
}

async fn count_runs(log: &dyn Log) -> Result<RunCounts, WiringError> {
    let mut counts = RunCounts::default();
    scan_log(log, |seq, payload| {
        let record = RunRecord::decode(payload).map_err(|error| corrupt_record(seq, &error))?;
        match record.status {
            RunStatus::Started { .. } => counts.started += 1,
            RunStatus::Completed { .. } => counts.completed += 1,
            RunStatus::Failed { .. } => counts.failed += 1,
        }
        Ok(())
    })
    .await?;
    Ok(counts)
}

fn report_json(
    logs: &Recorded,
    read: &ReadRecords,
    base: &RetentionBase,
    (floor, held): &(Seq, TrimBlocker),
) -> Value {
    let extent = |log: &dyn Log| extent_of(log.stat());
    let archive =
        |name: LogName| logs.archived.iter().find(|(log, _)| *log == name).map(|(_, stat)| extent_of(*stat));
    json!({
        "receipts": {
            "log": extent(logs.receipts.as_ref()),
            "first_ingest_ts_ms": read.receipts.first,
            "last_ingest_ts_ms": read.receipts.last,
            "symbols": read.receipts.symbols.len(),
            "archive": archive(LogName::Receipts),
            "floor": floor,
            "floor_held_by": log_keep::held_json(held),
        },
        "runs": {
            "log": extent(logs.runs.as_ref()),
            "started": read.runs.started,
            "completed": read.runs.completed,
            "failed": read.runs.failed,
            "archive": archive(LogName::Runs),
        },
        "quarantine": {"log": extent(logs.quarantine.as_ref()), "archive": archive(LogName::Quarantine)},
        "base": {
            "receipts_from": base.receipts_from(),
            "runs_from": base.runs_from(),
            "quarantine_from": base.quarantine_from(),
        },
    })
}

/// Extent of the journal, what it counts, and how far it could be trimmed.
async fn journal_json(journal: &dyn Log, logs: &Recorded) -> Result<Value, OfflineError> {
    let (mut first, mut last, mut kinds) = (None, None, BTreeMap::<&str, u64>::new());
    scan_log(journal, |seq, payload| {
        let sealed = SealedEntry::decode(payload).map_err(|error| corrupt_record(seq, &error))?;
        first = first.or(Some(sealed.entry.at_ms));
        last = Some(sealed.entry.at_ms);
        *kinds.entry(sealed.entry.fact.kind_word()).or_default() += 1;
        Ok(())
    })
    .await?;
    let (floor, held) = journal_trim::journal_floor(journal, logs.checkpoints.as_ref()).await?;
    let archive = logs.archived.iter().find(|(log, _)| *log == LogName::Journal);
    Ok(json!({
        "log": extent_of(journal.stat()),
        "first_ts_ms": first,
        "last_ts_ms": last,
        "records": kinds,
        "archive": archive.map(|(_, stat)| extent_of(*stat)),
        "floor": floor,
        "floor_held_by": log_keep::journal_held_json(&held),
    }))
}

/// How far the second mark says that each log reaches, or why it says nothing.
fn compare_with_mark(
    (place, marks): (String, Result<Marks, MarkError>),
    logs: &Recorded,
    journal: Option<&Arc<dyn Log>>,
) -> Result<Value, WiringError> {
    let marks = match marks {
        Ok(marks) => marks,
        Err(error) => return Ok(json!({"place": place, "not_compared": error.to_string()})),
    };
    let mut tails = serde_json::Map::from_iter([("place".to_owned(), json!(place))]);
    for (name, log) in [
        (LogName::Receipts, Some(&logs.receipts)),
        (LogName::Runs, Some(&logs.runs)),
        (LogName::Quarantine, Some(&logs.quarantine)),
        // One that is gone is told by its mark alone.
        (LogName::Journal, journal),
    ] {
        let Some(mark) = marks.get(name.as_str()) else { continue };
        let tail = log.map_or(Seq(0), |log| log.stat().tail);
        if tail < mark.tail {
            let detail = format!(
                "LOG_REGRESSED: it ends at {tail}, the second mark ({place}) knows it as acknowledged up to {}",
                mark.tail
            );
            return Err(AcquireError::Corrupt {
                log: name.to_string(),
                place: "the server".to_owned(),
                detail,
            }
            .into());
        }
        tails.insert(name.to_string(), json!(mark.tail));
    }
    Ok(Value::Object(tails))
}

fn extent_of(stat: LogStat) -> Value {
    json!({"first": stat.start, "last": stat.tail, "bytes": stat.bytes})
}

async fn scan_log(
    log: &dyn Log,
    mut take: impl FnMut(Seq, &[u8]) -> Result<(), WiringError>,
) -> Result<(), WiringError> {
    let mut next = log.stat().start;
    loop {
        let batch: RecordBatch = log.read(next, ReadLimit::default()).await?;
        if batch.is_empty() {
            return Ok(());
        }
        for (seq, payload) in batch.iter() {
            take(seq, payload)?;
        }
        next = batch.last_seq().next();
    }
}

fn corrupt_record(at: Seq, error: &dyn std::fmt::Display) -> WiringError {
    orchestrator_kernel::ports::log::ReadError::Corrupt { at, detail: error.to_string() }.into()
}
