//! Hostile producers against the real binary: whatever they send, it is stored as it came, kept in the quarantine with
//! its reason, or refused by name; and the next good receipt is taken.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::faults::check_conservation;
use crate::support::{PATIENCE, Service, checked_receipts, eventually, metric_of, records};

const ITEM_BYTES_MAX: usize = 128 << 10;
const BODY_BYTES_MAX: usize = 256 << 10;
/// Longest text of a refusal.
const DETAIL_BYTES_MAX: usize = 600;

const TRADE: &str = r#"{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"s","symbol":"BTCUSDT","exchange_ts_ms":null,"recv_ts_ms":5,"raw_payload":"p","normalized":{"price":1.50}}"#;

fn configured(dir: &Path, sources: &str) -> PathBuf {
    let text = format!(
        "[service]\ndata_dir = \"{}\"\n{sources}\n[ingest]\nreceipt_bytes_max = \"128KiB\"\n[http]\nlisten = \"127.0.0.1:0\"\nbody_bytes_max = \"256KiB\"\nrequest_timeout = \"1s\"\n[log]\nformat = \"json\"\n",
        dir.join("data").display()
    );
    let path = dir.join("config.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A trade with a part of it replaced.
fn trade(part: &str, by: &str) -> Vec<u8> {
    assert!(TRADE.contains(part));
    TRADE.replacen(part, by, 1).into_bytes()
}

/// A trade of exactly so many bytes.
fn trade_of(bytes: usize) -> Vec<u8> {
    trade("\"p\"", &format!("\"{}\"", "x".repeat(bytes - TRADE.len() + 1)))
}

/// One good receipt, no two alike.
fn good(number: usize) -> Vec<u8> {
    trade(":5,", &format!(":{number},"))
}

/// What becomes of one item.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Stored,
    /// The word, and what the detail must hold.
    Quarantined(&'static str, &'static str),
}
use Fate::{Quarantined, Stored};

const NOT_AN_ENVELOPE: Fate = Quarantined("not_an_envelope", "column");

/// Items without a line end in them, and what has to become of them.
fn items() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    let long = "L".repeat(10_000);
    let with = |what, part: &str, by: &str, fate| (what, trade(part, by), fate);
    let snapshot = |ts: &str| {
        let event = TRADE.replace("TradeTick", "SnapshotInputs").replace("\"price\":1.50", ts);
        event.into_bytes()
    };
    let mut invalid = trade("BTC", "B__");
    invalid[TRADE.find("BTC").unwrap() + 1..][..2].copy_from_slice(b"\xc3\x28");
    vec![
        ("72 kB", trade_of(72_000), Stored),
        ("the largest receipt", trade_of(ITEM_BYTES_MAX), Stored),
        ("one byte more", trade_of(ITEM_BYTES_MAX + 1), Quarantined("too_large", "the limit is 131072")),
        with("deep in the opaque part", "1.50", &deep, Stored),
        with("deep in an unknown member", "\"recv", &format!("\"new\":{deep},\"recv"), Stored),
        with("deep in a name", "\"BTCUSDT\"", &deep, NOT_AN_ENVELOPE),
        ("nothing but depth", deep.clone().into_bytes(), NOT_AN_ENVELOPE),
        ("depth without end", "[{\"a\":".repeat(5_000).into_bytes(), NOT_AN_ENVELOPE),
        ("no UTF-8", invalid, Quarantined("not_utf8", "byte")),
        ("nothing but 0xff", vec![0xff; 1000], Quarantined("not_utf8", "byte 0")),
        ("NUL bytes", vec![0; 1000], NOT_AN_ENVELOPE),
        with("a NUL byte in a name", "BTC", "B\0C", NOT_AN_ENVELOPE),
        with("an escaped NUL in a name", "BTC", "B\\u0000C", Quarantined("bad_symbol", "control characters")),
        with("half a surrogate pair in a name", "BTC", "\\ud800", NOT_AN_ENVELOPE),
        with("half a surrogate pair in the opaque part", "\"p\"", "\"\\ud800\"", Stored),
        with("NaN", "1.50", "NaN", NOT_AN_ENVELOPE),
        with("minus infinity", "1.50", "-Infinity", NOT_AN_ENVELOPE),
        with("a number no double can hold", "1.50", "1e400", Stored),
        with("a number of 10,000 digits", "1.50", &"9".repeat(10_000), Stored),
        with("a time no double can hold", ":5,", ":1e400,", NOT_AN_ENVELOPE),
        with("a time beyond 64 bits", ":5,", ":9223372036854775808,", NOT_AN_ENVELOPE),
        with("a time with a fraction", ":5,", ":5.0,", NOT_AN_ENVELOPE),
        with("a time as a long text", ":5,", &format!(":\"{long}\","), NOT_AN_ENVELOPE),
        with("the last time", ":5,", ":9223372036854775807,", Stored),
        with("the first time", ":5,", ":-9223372036854775808,", Stored),
        with("the first exchange time", "null", "-9223372036854775808", Stored),
        ("the last snapshot", snapshot("\"timestamp_ms\":9223372036854775807"), Stored),
        ("the first snapshot", snapshot("\"timestamp_ms\":-9223372036854775808"), Stored),
        ("a snapshot of no time", snapshot("\"timestamp_ms\":1e400"), Stored),
        with(
            "a double key",
            "\"recv",
            "\"symbol\":\"B\",\"recv",
            Quarantined("not_an_envelope", "duplicate"),
        ),
        with("a double unknown key", "\"recv", "\"new\":1,\"new\":2,\"recv", Stored),
        with("a double key that is escaped", "\"recv", "\"\\u0073ymbol\":\"B\",\"recv", NOT_AN_ENVELOPE),
        with("another schema", "raw_market", &long, Quarantined("other_schema", "expected")),
        with("a symbol of 10 kB", "BTCUSDT", &long, Quarantined("bad_symbol", "128")),
        with("no symbol", "BTCUSDT", "", Quarantined("bad_symbol", "1 to 128")),
        with("an event type of 10 kB", "TradeTick", &long, Stored),
        with("a source of 10 kB", "\"s\"", &format!("\"{long}\""), Stored),
        with("a source that forges a metric", "\"s\"", r#""x\",y=\"1\"} 1\norch_forged 7\n""#, Stored),
        (
            "an array instead of an object",
            br#"["raw_market_event","1","T","s","A",null,5,"",{}]"#.into(),
            NOT_AN_ENVELOPE,
        ),
        ("two in one line", [TRADE, TRADE].concat().into_bytes(), NOT_AN_ENVELOPE),
        ("half of one", TRADE.as_bytes()[..90].to_vec(), NOT_AN_ENVELOPE),
        ("null", b"null".to_vec(), NOT_AN_ENVELOPE),
    ]
}

/// A service, what it must have stored, and why it must have refused the rest.
struct Bed {
    _dir: tempfile::TempDir,
    data: PathBuf,
    service: Service,
    client: reqwest::Client,
    stored: Vec<Vec<u8>>,
    quarantined: Vec<(&'static str, &'static str)>,
}

impl Bed {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::start(&configured(dir.path(), "[sources.http]\nkind = \"http\""), &[]).await;
        let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        let data = dir.path().join("data");
        Self { _dir: dir, data, service, client, stored: Vec::new(), quarantined: Vec::new() }
    }

    /// Posts a body as lines; status and answer.
    async fn post(&self, body: Vec<u8>, more: &[(&'static str, &str)]) -> (u16, Value) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        for (name, value) in more {
            headers.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let url = format!("{}/api/v1/receipts", self.service.url);
        let response = self.client.post(url).headers(headers).body(body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// The service takes a good receipt, whatever came before it.
    async fn check_good(&mut self, after: &str) {
        let event = good(self.stored.len());
        let (status, answer) = self.post(event.clone(), &[]).await;
        assert_eq!((status, answer["appended"].as_u64()), (200, Some(1)), "after {after}: {answer}");
        self.stored.push(event);
    }

    /// Posts lines; `fates` are those of the lines that are not blank.
    async fn check_items(&mut self, what: &str, body: Vec<u8>, items: Vec<(Vec<u8>, Fate)>) {
        let (status, answer) = self.post(body, &[]).await;
        assert_eq!(status, 200, "{what}: {answer}");
        let refused = items.iter().filter(|(_, fate)| matches!(fate, Quarantined(..))).count();
        assert_eq!(answer["quarantined"], refused, "{what}: {answer}");
        assert_eq!(answer["appended"], items.len() - refused, "{what}: {answer}");
        let reasons: Vec<&str> = answer["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["reason"].as_str().unwrap())
            .collect();
        assert_eq!(reasons.len(), refused, "{what}: {answer}");
        let mut reasons = reasons.into_iter();
        for (item, fate) in items {
            match fate {
                Stored => self.stored.push(item),
                Quarantined(word, part) => {
                    let reason = reasons.next().unwrap();
                    assert!(reason.contains(part) && reason.len() <= DETAIL_BYTES_MAX, "{what}: {reason}");
                    self.quarantined.push((word, part));
                }
            }
        }
        self.check_good(what).await;
    }

    /// Posts a body that is refused as a whole.
    async fn check_refused(
        &mut self,
        what: &str,
        body: Vec<u8>,
        headers: &[(&'static str, &str)],
        refusal: (u16, &str, &str),
    ) {
        let (status, answer) = self.post(body, headers).await;
        let detail = answer["detail"].as_str().unwrap();
        assert_eq!((status, answer["type"].as_str().unwrap()), (refusal.0, refusal.1), "{what}: {answer}");
        assert!(detail.contains(refusal.2) && detail.len() <= DETAIL_BYTES_MAX, "{what}: {detail}");
        self.check_good(what).await;
    }

    /// Sends bytes on a connection of its own and reads until the answer's head is there.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.service.url.trim_start_matches("http://")).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let read = async {
            while !answer.windows(4).any(|end| end == b"\r\n\r\n")
                && stream.read_buf(&mut answer).await.unwrap() > 0
            {}
        };
        tokio::time::timeout(PATIENCE, read).await.expect("it answers");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Nothing was lost, changed, miscounted, or left a panic behind.
    async fn finish(self) {
        let metrics = self.service.get("/metrics").await.1;
        check_conservation(&metrics);
        assert_eq!(metric_of(&metrics, "orch_ingest_receipts_appended_total"), self.stored.len() as f64);
        assert_eq!(metric_of(&metrics, "orch_ingest_items_quarantined_total"), self.quarantined.len() as f64);
        assert!(
            metrics.lines().all(|line| line.len() < 1000 && !line.starts_with("orch_forged")),
            "forged metrics"
        );
        assert_eq!(self.service.get("/readyz").await.0, 200);
        check_log(&self.service.log());
        self.service.stop().await;

        assert!(
            checked_receipts(&self.data).await == self.stored,
            "LOG-4: stored bytes equal received bytes"
        );
        check_quarantine(&self.data, &self.quarantined).await;
    }
}

/// Lines of a service under attack: bounded, and no panic among them.
fn check_log(log: &str) {
    let longest = log.lines().map(str::len).max().unwrap();
    assert!(longest < 4096, "a line of {longest} bytes in the log");
    assert!(!log.contains("panic"), "{log}");
}

/// Each refused item is there with its word and a reason that names the place.
async fn check_quarantine(data: &Path, expected: &[(&str, &str)]) {
    let records = records(&data.join("quarantine")).await;
    assert_eq!(records.len(), expected.len());
    for (record, (word, part)) in records.iter().zip(expected) {
        let record = QuarantineRecord::decode(record).unwrap();
        assert_eq!(record.reason, *word, "{}", record.detail);
        assert!(record.detail.contains(part) && record.detail.len() <= DETAIL_BYTES_MAX, "{}", record.detail);
        assert!(!record.detail.contains(char::is_control), "{:?}", record.detail);
        assert_eq!(record.size, record.bytes.len() as u64, "kept as a whole");
    }
}

#[tokio::test]
async fn hostile_receipts_are_stored_as_they_came_or_kept_with_their_reason() {
    let mut bed = Bed::start().await;

    let readiness = bed.service.watch_readiness().await;
    for (what, item, fate) in items() {
        bed.check_items(what, item.clone(), vec![(item, fate)]).await;
    }
    readiness.end().never_lost();

    bed.finish().await;
}

#[tokio::test]
async fn hostile_bodies_are_cut_into_lines_or_refused_by_name() {
    let mut bed = Bed::start().await;
    let lines = [
        b"\r\n\n \t\r\n".to_vec(),
        trade("\"p\"", "\"1\""),
        b"\r\n\r\n".to_vec(),
        b"\0".to_vec(),
        b"\n".to_vec(),
        trade("\"p\"", "\"2\""),
    ];
    let fates =
        vec![(lines[1].clone(), Stored), (lines[3].clone(), NOT_AN_ENVELOPE), (lines[5].clone(), Stored)];
    bed.check_items("empty lines of every kind", lines.concat(), fates).await;
    let last = [TRADE.as_bytes(), b"\r"].concat();
    bed.check_items("a carriage return without its line end", last.clone(), vec![(last, Stored)]).await;

    let mut full = TRADE.as_bytes().to_vec();
    full.resize(BODY_BYTES_MAX, b'\n');
    bed.check_items("the largest body", full.clone(), vec![(TRADE.into(), Stored)]).await;
    full.push(b'\n');
    let too_large = (413, "body_too_large", "body_bytes_max is 262144");
    bed.check_refused("one byte more", full, &[], too_large).await;
    bed.check_refused("an empty body", Vec::new(), &[], (400, "empty_body", "one receipt")).await;
    bed.check_refused(
        "nothing but line ends",
        b"\r\n \n".repeat(100),
        &[],
        (400, "empty_body", "one a line"),
    )
    .await;
    bed.check_refused(
        "10,001 lines",
        b"x\n".repeat(10_001),
        &[],
        (413, "too_many_lines", "lines_max is 10000"),
    )
    .await;

    for sequence in
        ["18446744073709551616", "18446744073709551615", "-1", "+1", "1e3", "0", "0x10", "1,2", ""]
    {
        let headers = [("orchestrator-producer", "p"), ("orchestrator-sequence", sequence)];
        let refusal = (400, "bad_header", "Orchestrator-Sequence");
        bed.check_refused(sequence, TRADE.into(), &headers, refusal).await;
    }
    let long = "p".repeat(10_000);
    let headers = [("orchestrator-producer", long.as_str()), ("orchestrator-sequence", "1")];
    bed.check_refused("a long name", TRADE.into(), &headers, (400, "bad_header", "Orchestrator-Producer"))
        .await;
    for kind in ["text/plain", "application/json+x", "application/x-ndjson-seq"] {
        let refusal = (415, "unsupported_content_type", "application/x-ndjson");
        bed.check_refused(kind, TRADE.into(), &[("content-type", kind)], refusal).await;
    }
    for id in ["18446744073709551616", "1.4294967296", "-1", "1e3", "1.2.3", ""] {
        let url = format!("{}/api/v1/events", bed.service.url);
        let answer = bed.client.get(url).header("last-event-id", id).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{id}");
        assert!(answer.text().await.unwrap().contains("Last-Event-ID"));
    }
    bed.check_good("event ids").await;

    bed.finish().await;
}

#[tokio::test]
async fn requests_that_do_not_end_or_are_no_http_are_answered_in_time() {
    let mut bed = Bed::start().await;
    let head = "POST /api/v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n";
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let chunk = format!("{:x}\r\n{TRADE}\n\r\n", TRADE.len() + 1);
    let many = chunk.repeat(BODY_BYTES_MAX / TRADE.len() + 1);
    let cases = [
        ("a chunked body that stops", format!("{chunked}{chunk}"), "408"),
        ("a body that is shorter than it says", format!("{head}content-length: 9999\r\n\r\n{TRADE}"), "408"),
        ("a chunked body without end", format!("{chunked}{many}"), "413"),
        (
            "a body that says to be endless",
            format!("{head}content-length: 9223372036854775807\r\n\r\nx"),
            "413",
        ),
        ("a chunk that is no number", format!("{chunked}zz\r\n"), "400"),
        ("a chunk beyond 64 bits", format!("{chunked}fffffffffffffffff\r\n"), "400"),
        ("two lengths", format!("{head}content-length: 1\r\ncontent-length: 2\r\n\r\nx"), "400"),
        ("a NUL in a header", format!("{head}orchestrator-producer: a\0b\r\n\r\n"), "400"),
        ("no HTTP", "\0\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
    ];
    for (what, request, status) in cases {
        let answer = bed.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        bed.check_good(what).await;
    }

    bed.finish().await;
}

/// Method: ten bodies of a thousand lines; the types must all be in the log, and not all in the metrics.
#[tokio::test]
async fn ten_thousand_event_types_are_stored_and_do_not_become_metrics() {
    let mut bed = Bed::start().await;
    for body in 0..10 {
        let types = (0..1000).map(|line| trade("TradeTick", &format!("T{}", body * 1000 + line)));
        let events: Vec<Vec<u8>> = types.collect();
        let items = events.iter().map(|event| (event.clone(), Stored)).collect();
        bed.check_items("a thousand types", events.join(&b'\n'), items).await;
    }

    let metrics = bed.service.get("/metrics").await.1;
    assert!(metrics.lines().count() < 3000, "{} lines of metrics", metrics.lines().count());
    bed.finish().await;
}

/// Method: a file of every hostile item, each followed by a good one, followed while it grows.
#[tokio::test]
async fn a_hostile_file_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("capture.jsonl");
    let source = format!("[sources.day]\nkind = \"file\"\npath = \"{}\"\nfollow = true", path.display());
    let (mut text, mut stored, mut quarantined) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (_, item, fate)) in items().into_iter().enumerate() {
        text.extend([&item[..], b"\r\n\n\r\n", &good(index), b"\n"].concat());
        match fate {
            Stored => stored.push(item),
            Quarantined(word, part) => quarantined.push((word, part)),
        }
        stored.push(good(index));
    }
    std::fs::write(&path, text).unwrap();

    let service = Service::start(&configured(dir.path(), &source), &[]).await;
    eventually("every good line is there", async || {
        let appended = service.metric("orch_ingest_receipts_appended_total").await;
        (stored.len() as f64 <= appended).then_some(())
    })
    .await;
    check_conservation(&service.get("/metrics").await.1);
    check_log(&service.log());
    service.stop().await;

    let data = dir.path().join("data");
    assert!(checked_receipts(&data).await == stored, "LOG-4: stored bytes equal received bytes");
    check_quarantine(&data, &quarantined).await;
    let words: BTreeSet<&str> = quarantined.iter().map(|(word, _)| *word).collect();
    assert_eq!(words.len(), 5, "every reason occurs: {words:?}");
}
