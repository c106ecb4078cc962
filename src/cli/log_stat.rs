//! `orchestrator log stat`: what recorded logs hold.

use std::ffi::OsString;

use orchestrator_actors::retention::saved_base;
use orchestrator_kernel::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, LogStat, ReadLimit, RecordBatch};
use serde_json::{Value, json};

use super::{Exit, FromArgs, block_on, complain, log_keep, print};
use crate::config::Config;
use crate::service::explain;
use crate::wiring::WiringError;
use crate::wiring::reading::{self, LogsPlace, Recorded};
use crate::wiring::retention::{self, OfflineError};

/// Reads every record of every log, checks it, and prints one JSON object.
#[must_use]
pub fn log_stat(args: &FromArgs, environment: Vec<(OsString, OsString)>) -> Exit {
    let (config, place) = match args.load(environment) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    block_on(async {
        match read_all(&place, &config).await {
            Ok(report) => print(&format!("{report:#}\n")),
            Err(error) => {
                complain(&explain(&error));
                error.exit()
            }
        }
    })
}

async fn read_all(place: &LogsPlace, config: &Config) -> Result<Value, OfflineError> {
    let logs = reading::open(place).await?;
    let Recorded { receipts, runs, quarantine, archived, .. } = &logs;
    let mut span = (None, None);
    let mut symbols = std::collections::BTreeSet::new();
    scan(receipts.as_ref(), |seq, payload| {
        let record = ReceiptRecord::decode(payload).map_err(|error| corrupt(seq, &error))?;
        span = (span.0.or(Some(record.ingest_ts_ms)), Some(record.ingest_ts_ms));
        if !symbols.contains(record.symbol) {
            symbols.insert(record.symbol.to_owned());
        }
        Ok(())
    })
    .await?;
    let (mut started, mut completed, mut failed) = (0u64, 0u64, 0u64);
    scan(runs.as_ref(), |seq, payload| {
        let record = RunRecord::decode(payload).map_err(|error| corrupt(seq, &error))?;
        match record.status {
            RunStatus::Started { .. } => started += 1,
            RunStatus::Completed { .. } => completed += 1,
            RunStatus::Failed { .. } => failed += 1,
        }
        Ok(())
    })
    .await?;
    scan(quarantine.as_ref(), |_, _| Ok(())).await?;
    let extent = |log: &dyn Log| extent_of(log.stat());
    let archive =
        |name: &str| archived.iter().find(|(log, _)| *log == name).map(|(_, stat)| extent_of(*stat));
    let base = saved_base(logs.checkpoints.as_ref()).await.map_err(WiringError::from)?;
    let (floor, held) = retention::floor(&logs, config).await?;
    Ok(json!({
        "receipts": {
            "log": extent(receipts.as_ref()),
            "first_ingest_ts_ms": span.0,
            "last_ingest_ts_ms": span.1,
            "symbols": symbols.len(),
            "archive": archive("receipts"),
            "floor": floor,
            "floor_held_by": log_keep::held(&held),
        },
        "runs": {
            "log": extent(runs.as_ref()),
            "started": started,
            "completed": completed,
            "failed": failed,
            "archive": archive("runs"),
        },
        "quarantine": {"log": extent(quarantine.as_ref()), "archive": archive("quarantine")},
        "base": {
            "receipts_from": base.receipts_from(),
            "runs_from": base.runs_from(),
            "quarantine_from": base.quarantine_from(),
        },
    }))
}

fn extent_of(stat: LogStat) -> Value {
    json!({"first": stat.start, "last": stat.tail, "bytes": stat.bytes})
}

async fn scan(
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
        next = batch.last().next();
    }
}

fn corrupt(at: Seq, error: &dyn std::fmt::Display) -> WiringError {
    orchestrator_kernel::ports::log::ReadError::Corrupt { at, detail: error.to_string() }.into()
}
