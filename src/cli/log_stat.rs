//! `orchestrator log stat`: what the logs of a data directory hold. Works on a stopped service's directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use orchestrator_kernel::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, ReadLimit, RecordBatch};
use serde_json::{Value, json};

use super::{Exit, LogStatArgs, complain, print};
use crate::config::Config;
use crate::service::explain;
use crate::wiring::{StoppedLogs, WiringError, open_stopped};

/// Reads every record of every log, checks it, and prints one JSON object.
#[must_use]
pub fn log_stat(args: &LogStatArgs, environment: Vec<(OsString, OsString)>) -> Exit {
    let dir = match &args.data {
        Some(dir) => dir.clone(),
        None => match Config::load(&args.config.layers(environment)) {
            Ok(loaded) => loaded.config.service.data_dir,
            Err(error) => {
                complain(&error);
                return Exit::Config;
            }
        },
    };
    if !dir.join("receipts").is_dir() {
        complain(&format!("{} holds no logs; name the data directory with --data DIR", dir.display()));
        return Exit::Unavailable;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(stat(dir)),
        Err(error) => {
            complain(&error);
            Exit::Internal
        }
    }
}

async fn stat(dir: PathBuf) -> Exit {
    match read_all(&dir).await {
        Ok(report) => print(&format!("{report:#}\n")),
        Err(error) => {
            complain(&explain(&error));
            error.exit()
        }
    }
}

async fn read_all(dir: &Path) -> Result<Value, WiringError> {
    let StoppedLogs { receipts, runs, quarantine, .. } = &open_stopped(dir)?;
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
