//! Golden files: the stored and published forms of version 1, byte for byte.
//!
//! A test that fails here says that logs written before are no longer read, or that consumers see other bytes. When
//! that is meant, raise the version and add a file beside the old one; `BLESS=1 cargo test -p orchestrator-kernel
//! --test golden` writes files anew, for forms that were never released.

#![expect(clippy::disallowed_methods, reason = "a test reads its golden files")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;

use orchestrator_kernel::engine::contracts::engine_run::{CutRange, RunFacts, RunRecord};
use orchestrator_kernel::engine::contracts::manifest::{
    ManifestEntry, ManifestRecord, NO_TIME_ZONES, OperatorRecord, OutputManifest, OutputsAct,
};
use orchestrator_kernel::engine::contracts::orchestrator_event::{event_type, events};
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::cut::{BookCheckpoint, CutBook, CutRequest};
use orchestrator_kernel::engine::outbox::{OutputRefusal, PublishCursor, PublishProgress};
use orchestrator_kernel::engine::retention::{
    BaseAdvance, RetainedFor, RetentionBase, RunsAfterBase, Scheduled, TrimBlocker, TrimRequest, TrimmedRange,
};
use orchestrator_kernel::engine::run::{Attempts, RunIndex, missing_snapshot};
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{CutKind, EngineMode, Epoch, EventType, IngestSeq, RunSeq, Seq, Symbol, TsMs};
use orchestrator_kernel::ports::engine::{EngineAnswer, EngineError, EngineIdentity};
use orchestrator_kernel::ports::marks::{HighWaterMark, Marks};

/// The golden file's text, written first when `BLESS` is set.
fn golden(name: &str, actual: &str) -> String {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path(name), actual).unwrap();
    }
    stored(name)
}

/// The text of a golden file, also of a version that is no longer written.
fn stored(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/")).join(name)
}

fn check_text(name: &str, actual: &str) {
    assert_eq!(golden(name, actual), actual, "tests/golden/{name} differs");
}

/// Compares the encoding with the file, and what the file decodes to with the value: old logs stay readable.
fn check_bytes<T: PartialEq + Debug>(name: &str, value: &T, actual: &[u8], decode: impl Fn(&[u8]) -> T) {
    let file = golden(name, &to_hex(actual));
    assert_eq!(decode(&from_hex(&file)), *value, "tests/golden/{name} is read as another value");
    assert_eq!(file, to_hex(actual), "tests/golden/{name} differs");
}

/// Lines of 32 bytes, so that a difference shows where it is.
fn to_hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect();
    bytes.chunks(32).map(line).collect::<Vec<String>>().concat()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

const EVENT: &[u8] = br#"{"schema":"raw_market_event","schema_version":"1","event_type":"SnapshotInputs","source_id":"demo","symbol":"BTCUSDT","exchange_ts_ms":null,"recv_ts_ms":1768002659990,"raw_payload":"{\"p\":1.50}","normalized":{"timestamp_ms":1768002660000,"market":{"price":94250.10}}}"#;

fn receipt() -> ReceiptRecord<'static> {
    ReceiptRecord {
        ingest_seq: IngestSeq(218),
        ingest_ts_ms: TsMs(1_768_002_660_012),
        origin: "feed/0",
        position: 4711,
        symbol: "BTCUSDT",
        event_type: "SnapshotInputs",
        snapshot_ts_ms: Some(TsMs(1_768_002_660_000)),
        event: EVENT,
    }
}

fn facts(engine_mode: EngineMode) -> RunFacts {
    let (symbol, engine_timestamp_ms, end) =
        (Symbol::from("BTCUSDT"), TsMs(1_768_002_660_000), IngestSeq(218));
    RunFacts {
        run_id: RunId::derive(&symbol, engine_timestamp_ms, end, engine_mode),
        symbol,
        engine_timestamp_ms,
        engine_mode,
        cut: CutRange { kind: CutKind::Boundary, start: IngestSeq(1), end },
        planned_ts_ms: TsMs(1_768_002_662_000),
        started_ts_ms: TsMs(1_768_002_662_003),
        snapshot_seq: Some(IngestSeq(218)),
        counts_by_event_type: BTreeMap::from([
            (EventType::from("SnapshotInputs"), 1),
            (EventType::from("TradeTick"), 150),
        ]),
        symbol_seq: 1,
    }
}

fn engine() -> EngineIdentity {
    EngineIdentity { name: "demo".to_owned(), version: "1.2.3".to_owned(), code_hash: "c0de".to_owned() }
}

fn completed_truth() -> RunRecord {
    let regime_output = r#"{"confidence":0.75,"drivers":["é"],"invalidations":[],"permissions":[],"regime":"TREND_BUILD_UP","symbol":"BTCUSDT","timestamp":1768002660000}"#;
    let answer = EngineAnswer::Truth { regime_output: regime_output.to_owned() };
    Attempts::first_attempt(facts(EngineMode::Truth)).completed_record(
        answer,
        engine(),
        TsMs(1_768_002_662_009),
    )
}

fn completed_hysteresis() -> RunRecord {
    let decision = r#"{"effective_confidence":0.7,"selected_output":{"regime":"CHOP_BALANCED"},"transition":{"flipped":false}}"#;
    let state = r#"{"candidate_count":1,"last_timestamp":1768002660000}"#;
    let answer = EngineAnswer::Hysteresis { decision: decision.to_owned(), state: state.to_owned() };
    // One attempt was cut off by a crash, one failed, the third was answered.
    let mut attempts = Attempts::new(facts(EngineMode::Hysteresis), 2);
    attempts.note_error();
    attempts.note_retry();
    attempts.completed_record(answer, engine(), TsMs(1_768_002_662_009))
}

fn failed() -> RunRecord {
    let mut attempts = Attempts::first_attempt(facts(EngineMode::Truth));
    attempts.note_error();
    let error = EngineError::no_answer(ErrorKind::EngineTimeout, "no answer within 2s");
    attempts.failed_record(&error, TsMs(1_768_002_664_003))
}

fn missing() -> RunRecord {
    let mut facts = facts(EngineMode::Truth);
    facts.cut.start = IngestSeq(219);
    facts.snapshot_seq = None;
    facts.counts_by_event_type.clear();
    let error = missing_snapshot(&facts);
    Attempts::first_attempt(facts).failed_record(&error, TsMs(1_768_002_662_003))
}

fn check_run(name: &str, record: &RunRecord) {
    let mut bytes = Vec::new();
    record.encode_to(&mut bytes);
    check_bytes(name, record, &bytes, |bytes| RunRecord::decode(bytes).unwrap());
}

#[test]
fn receipt_record() {
    let mut bytes = Vec::new();
    receipt().encode_to(&mut bytes);

    let file = golden("receipt_record_v1.hex", &to_hex(&bytes));

    assert_eq!(ReceiptRecord::decode(&from_hex(&file)), Ok(receipt()));
    assert_eq!(file, to_hex(&bytes));
}

#[test]
fn receipt_wire() {
    check_text("receipt_wire_v1.json", std::str::from_utf8(&receipt().to_wire()).unwrap());
}

#[test]
fn run_records() {
    check_run(
        "run_record_started_v1.hex",
        &Attempts::first_attempt(facts(EngineMode::Truth)).started_record(),
    );
    check_run("run_record_completed_truth_v1.hex", &completed_truth());
    check_run("run_record_completed_hysteresis_v1.hex", &completed_hysteresis());
    check_run("run_record_failed_v1.hex", &failed());
}

/// Every number of an enum in the stored form, so that none is ever given to another variant.
#[test]
fn run_record_error_kinds() {
    let attempts = Attempts::first_attempt(facts(EngineMode::Truth));
    let numbers = ErrorKind::ALL.map(|kind| {
        let record = attempts.clone().failed_record(&EngineError::no_answer(kind, ""), TsMs(0));
        let mut bytes = Vec::new();
        record.encode_to(&mut bytes);
        format!("{} {kind}\n", bytes[bytes.len() - 2])
    });
    check_text("error_kinds_v1.txt", &numbers.concat());
}

#[test]
fn engine_run_record_wire() {
    let records = [
        Attempts::first_attempt(facts(EngineMode::Truth)).started_record(),
        completed_truth(),
        completed_hysteresis(),
        failed(),
        missing(),
    ];
    check_text("engine_run_record_wire_v1.json", &records.map(|record| record.to_wire() + "\n").concat());
}

#[test]
fn quarantine_record() {
    let record = QuarantineRecord {
        at_ms: TsMs(1_768_002_660_012),
        origin: "feed/0".to_owned(),
        position: 4712,
        reason: "not_utf8".to_owned(),
        detail: "not UTF-8 at byte 1".to_owned(),
        size: 3,
        bytes: vec![b'{', 0xff, 0x00],
    };
    let mut bytes = Vec::new();
    record.encode_to(&mut bytes);

    check_bytes("quarantine_record_v1.hex", &record, &bytes, |bytes| {
        QuarantineRecord::decode(bytes).unwrap()
    });
}

#[test]
fn orchestrator_events() {
    let records = [completed_truth(), completed_hysteresis(), failed(), missing()];
    let outputs =
        records.iter().zip(1..).flat_map(|(record, seq)| events(RunSeq(seq), record, None).unwrap());
    let outputs: Vec<_> = outputs.collect();
    let lines: Vec<&str> = outputs.iter().map(|output| std::str::from_utf8(&output.body).unwrap()).collect();

    check_text("orchestrator_events_v1.ndjson", &format!("{}\n", lines.join("\n")));
    for kind in event_type::ALL {
        assert!(outputs.iter().any(|output| output.event_type == kind), "{kind} has no example");
    }
}

/// A book with a cut symbol, one that was never cut, late receipts and something in the quarantine.
#[test]
fn book_checkpoint() {
    let mut book = CutBook::default();
    let observe = |book: &mut CutBook, seq, ts, symbol| {
        book.observe_receipt(&ReceiptRecord {
            ingest_seq: IngestSeq(seq),
            ingest_ts_ms: TsMs(ts),
            position: seq,
            symbol,
            snapshot_ts_ms: Some(TsMs(ts + 10)),
            ..receipt()
        });
    };
    observe(&mut book, 1, 1000, "BTCUSDT");
    observe(&mut book, 2, 1005, "ETHUSDT");
    let cut = CutRequest { symbol: Symbol::from("BTCUSDT"), start: None, floor: None, only_if_seen: true };
    assert_eq!(book.seal_tick(TsMs(1005), TsMs(1000), vec![cut], Some(TsMs(1008))).cuts.len(), 1);
    observe(&mut book, 3, 1007, "BTCUSDT");
    observe(&mut book, 4, 1009, "BTCUSDT");
    book.note_quarantined("feed/0", 6);
    let checkpoint = book.to_checkpoint();

    let bytes = postcard::to_stdvec(&checkpoint).unwrap();

    check_bytes("book_checkpoint_v1.hex", &checkpoint, &bytes, |bytes| {
        postcard::from_bytes::<BookCheckpoint>(bytes).unwrap()
    });
}

/// A base with an open run that is not its symbol's first, positions, and a first receipt; then the run has ended, and
/// receipts went without a run. Version 1 did not have the latter.
#[test]
fn base() {
    let asked = TrimRequest {
        receipts_below: IngestSeq(219),
        receipts_stop: None,
        runs_below: RunSeq(4),
        runs_older_than: None,
        published: RunSeq(9),
    };
    let (scheduled, later) = (Scheduled::Listed(BTreeSet::new()), RunsAfterBase::default());
    let holders = RetainedFor { scheduled: &scheduled, later: &later };
    let mut advance = BaseAdvance::new(RetentionBase::default(), asked, holders);
    let first = completed_hysteresis();
    assert!(advance.take_run_record(&Attempts::new(first.facts.clone(), 1).started_record()).unwrap());
    assert!(advance.take_run_record(&first).unwrap());
    let mut open = facts(EngineMode::Hysteresis);
    open.engine_timestamp_ms = TsMs(1_768_002_840_000);
    open.cut = CutRange { kind: CutKind::Boundary, start: IngestSeq(219), end: IngestSeq(300) };
    assert!(advance.take_run_record(&Attempts::first_attempt(open.clone()).started_record()).unwrap());
    for seq in 1..=218 {
        assert_eq!(
            advance.take_receipt(&ReceiptRecord { ingest_seq: IngestSeq(seq), position: seq, ..receipt() }),
            TrimBlocker::No
        );
    }
    let aside = QuarantineRecord {
        at_ms: TsMs(0),
        origin: "feed/0".to_owned(),
        position: 220,
        reason: "not_utf8".to_owned(),
        detail: String::new(),
        size: 0,
        bytes: Vec::new(),
    };
    advance.count_quarantined(&aside);
    let base = advance.into_base();

    assert_eq!((base.receipts_from(), base.runs_from()), (IngestSeq(219), RunSeq(4)));
    assert_eq!(RetentionBase::decode(&from_hex(&stored("base_v1.hex"))).unwrap(), base);

    let asked = TrimRequest { receipts_below: IngestSeq(311), runs_below: RunSeq(5), ..asked };
    let mut advance = BaseAdvance::new(base, asked, holders);
    let error = EngineError::no_answer(ErrorKind::EngineTimeout, "no answer");
    assert!(
        advance
            .take_run_record(&Attempts::first_attempt(open).failed_record(&error, TsMs(1_768_002_841_000)))
            .unwrap()
    );
    for seq in 219..=310 {
        let record = ReceiptRecord { ingest_seq: IngestSeq(seq), position: seq, ..receipt() };
        assert_eq!(advance.take_receipt(&record), TrimBlocker::No);
    }
    let base = advance.into_base();

    let symbol = facts(EngineMode::Hysteresis).symbol;
    let stretch = TrimmedRange { from: Some(IngestSeq(301)), to: IngestSeq(311), begun: None };
    assert_eq!(base.let_go().ranges_of(&symbol), [stretch]);
    check_bytes("base_v2.hex", &base, &base.encode(), |bytes| RetentionBase::decode(bytes).unwrap());
}

#[test]
fn run_index() {
    let mut index = RunIndex::default();
    let completed = completed_hysteresis();
    index.admit_record(&Attempts::new(completed.facts.clone(), 1).started_record()).unwrap();
    index.admit_record(&completed).unwrap();
    let mut open = facts(EngineMode::Truth);
    open.symbol = Symbol::from("ETHUSDT");
    index.admit_record(&Attempts::first_attempt(open).started_record()).unwrap();

    let bytes = postcard::to_stdvec(&index).unwrap();

    check_bytes("run_index_v1.hex", &index, &bytes, |bytes| postcard::from_bytes::<RunIndex>(bytes).unwrap());
}

#[test]
fn manifest_record() {
    let engine =
        EngineIdentity { name: "demo".to_owned(), version: "1.0".to_owned(), code_hash: "abc".to_owned() };
    let manifest = OutputManifest {
        binary_version: "0.1.0".to_owned(),
        settings: BTreeMap::from([("schedule.interval".to_owned(), "180000ms".to_owned())]),
        engine,
        tz_database: NO_TIME_ZONES.to_owned(),
    };
    let record = ManifestRecord {
        at_ms: TsMs(1_768_002_660_012),
        receipts_tail: IngestSeq(218),
        runs_tail: RunSeq(4),
        manifest,
    };
    let mut bytes = Vec::new();
    record.encode_to(&mut bytes);

    check_bytes("manifest_record_v1.hex", &record, &bytes, |bytes| ManifestRecord::decode(bytes).unwrap());
    let entry = ManifestEntry::Start(record);
    let mut bytes = Vec::new();
    entry.encode_to(&mut bytes);
    check_bytes("manifest_record_v1.hex", &entry, &bytes, |bytes| ManifestEntry::decode(bytes).unwrap());
}

#[test]
fn operator_records() {
    let (symbol, fan_out) = (Symbol::from("BRK.B"), "rabbitmq".to_owned());
    let retry = OutputsAct::Retry { symbol: symbol.clone(), fan_out: fan_out.clone() };
    let skip = OutputsAct::Skip { symbol, fan_out, first: 17, last: 42 };
    for (name, act) in [("operator_record_retry_v2.hex", retry), ("operator_record_skip_v2.hex", skip)] {
        let entry = ManifestEntry::Operator(OperatorRecord {
            at_ms: TsMs(1_768_002_660_012),
            operator: "eva".to_owned(),
            reason: "the broker refuses it".to_owned(),
            runs_tail: RunSeq(40),
            act,
        });
        let mut bytes = Vec::new();
        entry.encode_to(&mut bytes);

        check_bytes(name, &entry, &bytes, |bytes| ManifestEntry::decode(bytes).unwrap());
    }
}

#[test]
fn publish_progress() {
    let cursor = PublishCursor { run_seq: RunSeq(4711), outputs: 9001 };
    let mut progress = PublishProgress { cursor, ..PublishProgress::default() };
    let decode = |bytes: &[u8]| PublishProgress::decode(bytes).unwrap();
    check_bytes("publish_cursor_v1.hex", &progress, &progress.encode(), decode);

    let outputs = events(RunSeq(4700), &completed_truth(), None).unwrap();
    let since = Some(TsMs(1_768_002_660_012));
    let refusal =
        OutputRefusal { fan_out: "rabbitmq", refused: &outputs[1], reason: "403 ACCESS_REFUSED", since };
    progress.holds.hold_symbol(refusal, 1).unwrap();
    check_bytes("publish_cursor_v2.hex", &progress, &progress.encode(), decode);
}

#[test]
fn stored_second_marks_match_their_golden_file() {
    let mut marks = Marks::default();
    let fingerprint = Some([1, 2, 3, 4, 0xff]);
    marks.raise_mark("receipts", HighWaterMark { log_id: 7, epoch: Epoch(3), tail: Seq(5500), fingerprint });
    marks.raise_mark(
        "runs",
        HighWaterMark { log_id: u64::MAX, epoch: Epoch(4), tail: Seq(0), fingerprint: None },
    );

    let stored = golden("marks_v1.txt", &marks.encode("production"));

    assert_eq!(marks.encode("production"), stored);
    assert_eq!(Marks::decode(stored.as_bytes()), Ok(("production".to_owned(), marks)));
}
