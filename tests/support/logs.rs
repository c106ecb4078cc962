//! The recording, and what a stopped service left behind: its logs and its outputs.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use orchestrator::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::log::{AcquireError, Log, ReadLimit};

use super::process::root;

/// The recording beside the repository, or nothing with a printed reason.
pub(crate) fn recording() -> Option<PathBuf> {
    shared_file("data/binance_usdm_20240808.jsonl.gz")
}

/// A file beside the repository, or nothing with a printed reason.
pub(crate) fn shared_file(name: &str) -> Option<PathBuf> {
    let shared =
        std::env::var_os("ORCHESTRATOR_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let path = shared.join(name);
    if path.is_file() {
        return Some(path);
    }
    println!("SKIPPED: {} is not there; set ORCHESTRATOR_SHARED", path.display());
    None
}

/// The lines of the recording, without their line ends.
pub(crate) fn recorded_lines(path: &Path) -> Vec<Vec<u8>> {
    let mut text = Vec::new();
    MultiGzDecoder::new(File::open(path).unwrap()).read_to_end(&mut text).unwrap();
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
}

/// Opens a stopped service's log. A process that another test is just starting has our locks from its fork until its
/// exec, so one that is held is tried again.
async fn open_free_log(dir: &Path) -> EmbeddedLog {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match EmbeddedLog::open(dir, EmbeddedLogOptions::new("test")) {
            Ok(log) => return log,
            Err(AcquireError::Held { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{}: {error}", dir.display()),
        }
    }
}

/// Every record of a stopped service's log.
pub(crate) async fn records(dir: &Path) -> Vec<Vec<u8>> {
    let log = open_free_log(dir).await;
    let mut all = Vec::new();
    loop {
        let batch = log.read(Seq(all.len() as u64 + 1), ReadLimit::default()).await.unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch.iter().map(|(_, payload)| payload.to_vec()));
    }
}

/// Removes what tells how far the logs were durable, so that a forged log is compared and not refused before.
pub(crate) fn forget_high_water(data: &Path) {
    let marks = ["high_water.marks", "runs/high_water.marks"];
    let metas = ["receipts/meta", "runs/meta", "quarantine/meta", "manifests/meta"];
    for path in marks.iter().chain(&metas).map(|name| data.join(name)).filter(|path| path.is_file()) {
        std::fs::remove_file(path).unwrap();
    }
}

/// What a receipt log must be after anything that happens: numbered without gap, time never going back. Returns the
/// events.
pub(crate) async fn checked_receipts(data: &Path) -> Vec<Vec<u8>> {
    let stored = records(&data.join("receipts")).await;
    let mut last = TsMs(i64::MIN);
    stored
        .iter()
        .zip(1u64..)
        .map(|(payload, seq)| {
            let record = ReceiptRecord::decode(payload).unwrap();
            assert_eq!(record.ingest_seq.0, seq, "LOG-1: ingest_seq without gap");
            assert!(last <= record.ingest_ts_ms, "LOG-5: ingest_ts_ms never decreases");
            last = record.ingest_ts_ms;
            record.event.to_vec()
        })
        .collect()
}

/// The run log's records.
pub(crate) async fn run_records(data: &Path) -> Vec<RunRecord> {
    records(&data.join("runs")).await.iter().map(|payload| RunRecord::decode(payload).unwrap()).collect()
}

/// The lines of the outputs file.
pub(crate) fn outputs(data: &Path) -> Vec<String> {
    let file = File::open(data.join("outputs/orchestrator_events.jsonl")).unwrap();
    BufReader::new(file).lines().map(Result::unwrap).collect()
}

/// `{run_id}:{event_type}`: what a consumer deduplicates on.
pub(crate) fn message_id(event: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(event).unwrap();
    format!("{}:{}", event["run_id"].as_str().unwrap(), event["event_type"].as_str().unwrap())
}
