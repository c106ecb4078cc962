//! `orchestrator log stat`: what recorded logs hold.

use std::ffi::OsString;

use orchestrator_kernel::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, ReadLimit, RecordBatch};
use serde_json::{Value, json};

use super::{Exit, FromArgs, block_on, complain, print};
use crate::service::explain;
use crate::wiring::WiringError;
use crate::wiring::reading::{self, LogsPlace, Recorded};

/// Reads every record of every log, checks it, and prints one JSON object.
#[must_use]
pub fn log_stat(args: &FromArgs, environment: Vec<(OsString, OsString)>) -> Exit {
    let (_, place) = match args.load(environment) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    block_on(async {
        match read_all(&place).await {
            Ok(report) => print(&format!("{report:#}\n")),
            Err(error) => {
                complain(&explain(&error));
                error.exit()
            }
        }
    })
}

async fn read_all(place: &LogsPlace) -> Result<Value, WiringError> {
    let Recorded { receipts, runs, quarantine, .. } = &reading::open(place).await?;
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
    let extent = |log: &dyn Log| {
        let stat = log.stat();
        json!({"first": stat.start, "last": stat.tail, "bytes": stat.bytes})
    };
    Ok(json!({
        "receipts": {
            "log": extent(receipts.as_ref()),
            "first_ingest_ts_ms": span.0,
            "last_ingest_ts_ms": span.1,
            "symbols": symbols.len(),
        },
        "runs": {"log": extent(runs.as_ref()), "started": started, "completed": completed, "failed": failed},
        "quarantine": {"log": extent(quarantine.as_ref())},
    }))
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
