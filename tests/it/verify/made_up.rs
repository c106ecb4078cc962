//! A small made-up log, and what a tamperer does to it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use orchestrator::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{IngestSeq, Seq};
use orchestrator_kernel::ports::log::{Log, RecordBatch};

use crate::support::{forget_high_water, records, root};

const TICKS: i64 = 20;
const SYMBOLS: [&str; 3] = ["AAA", "BBB", "CCC"];
/// Bytes of a receipt's payload: enough for more than one segment of 1 MiB.
const RAW_BYTES: usize = 1200;

/// A recorded run of the service in a directory of its own.
pub(crate) struct MadeUp {
    _dir: tempfile::TempDir,
    pub(crate) config: PathBuf,
    pub(crate) data: PathBuf,
}

/// What a command printed.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl MadeUp {
    /// Records the made-up market with this `[engine]`.
    pub(crate) fn record(engine: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, capture) = (dir.path().join("data"), dir.path().join("capture.jsonl"));
        fs::write(&capture, capture_lines()).unwrap();
        let config = dir.path().join("service.toml");
        let text = format!(
            r#"
            [service]
            data_dir = {data:?}
            worker_threads = 2
            [clock]
            mode = "recorded"
            [sources.made_up]
            kind = "file"
            path = {capture:?}
            [schedule]
            mode = "boundary"
            interval = "1s"
            delay = "100ms"
            [symbols]
            list = ["AAA", "BBB", "CCC"]
            [buffer]
            segment_bytes = "1MiB"
            batch_bytes_max = "256KiB"
            [http]
            listen = "127.0.0.1:0"
            {engine}
            "#
        );
        fs::write(&config, text).unwrap();
        let made = Self { _dir: dir, config, data };
        let ran = made.orchestrator(&["run", "--once"], &[]);
        assert_eq!(ran.code, 0, "{ran:?}");
        made
    }

    /// The made-up market through the demo engine in hysteresis mode.
    pub(crate) fn with_demo_engine() -> Self {
        Self::record(
            "[engine]\nkind = \"demo\"\nmode = \"hysteresis\"\n[engine.hysteresis]\nupdate_interval_ms = 1000",
        )
    }

    /// Runs the real binary with this configuration.
    pub(crate) fn orchestrator(&self, command: &[&str], args: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
            .args(command)
            .arg("--config")
            .arg(&self.config)
            .args(args)
            .current_dir(root())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .unwrap();
        Said {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub(crate) fn verify(&self, args: &[&str]) -> Said {
        self.orchestrator(&["verify"], args)
    }

    pub(crate) fn outputs(&self) -> PathBuf {
        self.data.join("outputs/orchestrator_events.jsonl")
    }

    /// The files that hold stored records and outputs.
    pub(crate) fn stored_files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.outputs()];
        for log in ["receipts", "runs"] {
            let segments = fs::read_dir(self.data.join(log)).unwrap().map(|entry| entry.unwrap().path());
            files.extend(segments.filter(|path| path.extension().is_some_and(|end| end == "seg")));
        }
        files.sort();
        files
    }

    /// Every file with its content.
    pub(crate) fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.data.clone()];
        while let Some(dir) = dirs.pop() {
            for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                match path.is_dir() {
                    true => dirs.push(path),
                    false => drop(files.insert(path.clone(), fs::read(path).unwrap())),
                }
            }
        }
        files
    }

    /// Writes the receipt log again without receipt `gone`. `renumbered`: so that its numbers show nothing.
    pub(crate) async fn drop_receipt(&self, gone: usize, renumbered: bool) {
        let dir = self.data.join("receipts");
        let mut payloads = records(&dir).await;
        payloads.remove(gone - 1);
        fs::remove_dir_all(&dir).unwrap();
        forget_high_water(&self.data);
        let log = EmbeddedLog::open(
            &dir,
            EmbeddedLogOptions { segment_bytes: 1 << 20, ..EmbeddedLogOptions::new("receipts") },
        )
        .unwrap();
        let epoch = log.acquire().await.unwrap().epoch;
        let mut batch = RecordBatch::starting_at(Seq(1));
        for (payload, seq) in payloads.iter().zip(1..) {
            match renumbered {
                true => {
                    let record = ReceiptRecord::decode(payload).unwrap();
                    batch.push_with(|out| {
                        ReceiptRecord { ingest_seq: IngestSeq(seq), ..record }.encode_to(out)
                    });
                }
                false => batch.push(payload),
            }
        }
        log.append(epoch, &batch).await.unwrap();
    }
}

/// The byte after the last one that is not preallocated room.
pub(crate) fn content_end(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// Copies of engines: `change` is applied to the source of the stand-in engine.
pub(crate) fn engine_copy(dir: &Path, change: impl Fn(&str) -> String) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let source = |name: &str| fs::read_to_string(root().join("engines").join(name)).unwrap();
    fs::write(dir.join("standin_hysteresis.py"), source("standin_hysteresis.py")).unwrap();
    let path = dir.join("standin_engine.py");
    fs::write(&path, change(&source("standin_engine.py"))).unwrap();
    path
}

/// 2020-01-01, a boundary.
pub(crate) const BEGIN_MS: i64 = 1_577_836_800_000;

fn capture_lines() -> String {
    let mut text = String::new();
    let raw = "x".repeat(RAW_BYTES);
    for tick in 1..=TICKS {
        let boundary = BEGIN_MS + tick * 1000;
        for (symbol, number) in SYMBOLS.iter().zip(0i64..) {
            for trade in 0..18 {
                let at = boundary - 900 + trade * 40 + number;
                line(&mut text, symbol, "TradeTick", at, &raw, "{}");
            }
            // One symbol misses a snapshot now and then: an explicit failure.
            if (tick + number) % 7 != 0 {
                let price = 100 + (tick * (number + 3)) % 11;
                let normalized = format!(
                    r#"{{"timestamp_ms":{boundary},"market":{{"price":{price}.5,"vwap":101.0,"atr":2.0}},"flow":{{"aggressive_volume_ratio":0.{}}}}}"#,
                    10 + (tick * 7 + number * 13) % 80
                );
                line(&mut text, symbol, "SnapshotInputs", boundary + 20, "", &normalized);
            }
        }
    }
    // Seals the last tick.
    line(&mut text, "AAA", "TradeTick", BEGIN_MS + (TICKS + 1) * 1000 - 500, "", "{}");
    text
}

fn line(text: &mut String, symbol: &str, kind: &str, at: i64, raw: &str, normalized: &str) {
    writeln!(
        text,
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"{kind}","source_id":"made-up","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":{at},"raw_payload":"{raw}","normalized":{normalized}}}"#
    )
    .unwrap();
}
