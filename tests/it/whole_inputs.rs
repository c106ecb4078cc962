//! Mistakes of a whole file or body, and texts framed in odd ways: told once and by name, or read; never settled in
//! shreds, never lost.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{Service, checked_receipts, eventually, orchestrator};

fn receipt(symbol: &str) -> String {
    format!(
        "{{\"schema\":\"raw_market_event\",\"schema_version\":\"1\",\"event_type\":\"T\",\"source_id\":\"s\",\
         \"symbol\":\"{symbol}\",\"exchange_ts_ms\":null,\"recv_ts_ms\":1,\"raw_payload\":\"\",\"normalized\":{{}}}}\n"
    )
}

fn receipts(count: usize) -> String {
    (1..=count).map(|number| receipt(&format!("S{number}"))).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// `run --once` on a file of these bytes.
fn run_once(dir: &Path, name: &str, content: &[u8]) -> Output {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    let set = |setting: &str, value: &Path| format!("{setting}={}", value.display());
    orchestrator(&[
        "run",
        "--once",
        "--set",
        "sources.d.kind=file",
        "--set",
        &set("sources.d.path", &path),
        "--set",
        &set("service.data_dir", &dir.join("data")),
        "--set",
        "http.listen=127.0.0.1:0",
    ])
}

/// Method: the beginnings that the usual packers give their files; behind them something that has line ends.
#[tokio::test]
async fn a_file_in_another_format_is_refused_by_name_and_with_the_way_out() {
    let utf_16: Vec<u8> = receipts(3).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let packed = |start: &[u8]| [start, receipts(3).as_bytes()].concat();
    for (name, content, says) in [
        ("c.jsonl.xz", packed(b"\xfd7zXZ\0\0\x04"), "is xz, not one receipt a line: unpack it with xz -d"),
        ("c.jsonl.bz2", packed(b"BZh91AY&SY"), "is bzip2"),
        ("c.zip", packed(b"PK\x03\x04\x14\0"), "is zip"),
        ("c.parquet", packed(b"PAR1\x15\x04"), "is Parquet"),
        ("c.jsonl", utf_16, "is UTF-16"),
        ("c.jsonl.gz", gzip(&packed(b"PAR1\x15\x04")), "is Parquet"),
    ] {
        let dir = tempfile::tempdir().unwrap();

        let output = run_once(dir.path(), name, &content);

        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{name}: {said}");
        assert!(said.contains(says), "{name}: {said}");
        let stored = checked_receipts(&dir.path().join("data")).await;
        assert!(stored.is_empty(), "{name}: nothing is settled in shreds");
        let quarantine = crate::support::records(&dir.path().join("data/quarantine")).await;
        assert!(quarantine.is_empty(), "{name}: nothing is settled in shreds");
    }
}

#[tokio::test]
async fn padding_and_a_byte_order_mark_are_no_content() {
    let marked = [b"\xef\xbb\xbf", receipts(10).as_bytes()].concat();
    for (name, content) in [
        ("marked.jsonl", marked.clone()),
        ("marked.jsonl.gz", gzip(&marked)),
        ("padded.jsonl.gz", [gzip(receipts(10).as_bytes()), vec![0; 512]].concat()),
    ] {
        let dir = tempfile::tempdir().unwrap();

        let output = run_once(dir.path(), name, &content);

        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{name}: {said}");
        assert_eq!(checked_receipts(&dir.path().join("data")).await.len(), 10, "{name}");
    }
}

/// That all of it is in the quarantine is no success, and that some of it is, is said.
#[test]
fn a_run_of_which_nothing_is_a_receipt_does_not_end_well() {
    let dir = tempfile::tempdir().unwrap();
    let none = run_once(dir.path(), "c.jsonl", b"date,price\n2024-01-01,5\n2024-01-02,6\n");
    let other = tempfile::tempdir().unwrap();
    let some = run_once(other.path(), "c.jsonl", format!("date,price\n{}", receipts(2)).as_bytes());

    let said = String::from_utf8_lossy(&none.stderr);
    assert_eq!(none.status.code(), Some(1), "{said}");
    assert!(said.contains("nothing that the sources brought is a receipt"), "{said}");
    let said = String::from_utf8_lossy(&some.stderr);
    assert_eq!(some.status.code(), Some(0), "{said}");
    assert!(said.contains("some of what the sources brought is no receipt"), "{said}");
}

fn with_pipe(dir: &Path) -> (PathBuf, PathBuf) {
    let pipe = dir.join("pipe.jsonl");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let config = dir.join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[sources.pipe]\nkind = \"file\"\npath = {pipe:?}\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[schedule]\ninterval = \"1h\"\n",
        dir.join("data")
    );
    std::fs::write(&config, text).unwrap();
    (pipe, config)
}

/// Method: far fewer lines than a batch holds, and a writer that stays.
#[tokio::test]
async fn a_line_that_a_pipe_has_delivered_is_stored_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (pipe, config) = with_pipe(dir.path());
    // Both ends, so that opening waits for nobody.
    let mut writer = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let service = Service::start(&config, &[]).await;
    let appended = async |count: f64| {
        eventually("the lines are stored", async || {
            (service.metric("orch_ingest_receipts_appended_total").await == count).then_some(())
        })
        .await;
    };

    writer.write_all(receipts(500).as_bytes()).unwrap();
    appended(500.0).await;
    let (whole, begun) = (receipt("X"), receipt("Y"));
    let (begin, end) = begun.split_at(40);
    writer.write_all(format!("{whole}{begin}").as_bytes()).unwrap();
    appended(501.0).await;
    writer.write_all(end.as_bytes()).unwrap();
    appended(502.0).await;

    service.stop().await;
    assert_eq!(checked_receipts(&dir.path().join("data")).await.len(), 502);
}
