//! Stored forms: what was encoded is decoded, and what is no record is refused without a panic.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::engine_run::{CutRange, RunFacts, RunRecord, RunStatus};
use super::quarantine::QuarantineRecord;
use super::receipt::ReceiptRecord;
use super::*;
use crate::engine::cut::{BookCheckpoint, CutBook};
use crate::engine::run::RunIndex;
use crate::engine::run_id::RunId;
use crate::error::ErrorKind;
use crate::ids::{CutKind, EngineMode, EventType, IngestSeq, Symbol, TsMs};
use crate::ports::engine::{EngineAnswer, EngineIdentity};

const ANY_TEXT: &str = "\\PC{0,12}";

fn facts() -> impl Strategy<Value = RunFacts> {
    let mode = prop_oneof![Just(EngineMode::Truth), Just(EngineMode::Hysteresis)];
    let kind = prop_oneof![Just(CutKind::Timer), Just(CutKind::Boundary)];
    let counts = prop::collection::btree_map(ANY_TEXT, any::<u64>(), 0..4);
    let numbers = (any::<[i64; 3]>(), any::<[u64; 3]>(), any::<Option<u64>>());
    (ANY_TEXT, mode, kind, counts, numbers).prop_map(
        |(symbol, engine_mode, kind, counts, (times, numbers, snapshot_seq))| {
            let symbol = Symbol::from(symbol.as_str());
            let [engine_timestamp_ms, planned_ts_ms, started_ts_ms] = times.map(TsMs);
            let [start, end, symbol_seq] = numbers;
            RunFacts {
                run_id: RunId::derive(&symbol, engine_timestamp_ms, IngestSeq(end), engine_mode),
                symbol,
                engine_timestamp_ms,
                engine_mode,
                cut: CutRange { kind, start: IngestSeq(start), end: IngestSeq(end) },
                planned_ts_ms,
                started_ts_ms,
                snapshot_seq: snapshot_seq.map(IngestSeq),
                counts_by_event_type: counts
                    .into_iter()
                    .map(|(name, count)| (EventType::from(name.as_str()), count))
                    .collect(),
                symbol_seq,
            }
        },
    )
}

fn status() -> impl Strategy<Value = RunStatus> {
    let counts = || (any::<u32>(), any::<u32>(), any::<i64>().prop_map(TsMs));
    let answer = prop_oneof![
        ANY_TEXT.prop_map(|regime_output| EngineAnswer::Truth { regime_output }),
        (ANY_TEXT, ANY_TEXT).prop_map(|(decision, state)| EngineAnswer::Hysteresis { decision, state }),
    ];
    let engine = (ANY_TEXT, ANY_TEXT, ANY_TEXT).prop_map(|(name, version, code_hash)| EngineIdentity {
        name,
        version,
        code_hash,
    });
    prop_oneof![
        any::<u32>().prop_map(|attempts| RunStatus::Started { attempts }),
        (counts(), answer, engine).prop_map(|((attempts, answered, completed_ts_ms), answer, engine)| {
            RunStatus::Completed { attempts, answered, completed_ts_ms, answer, engine }
        }),
        (counts(), prop::sample::select(ErrorKind::ALL.to_vec()), ANY_TEXT).prop_map(
            |((attempts, answered, completed_ts_ms), error_kind, error_detail)| RunStatus::Failed {
                attempts,
                answered,
                completed_ts_ms,
                error_kind,
                error_detail,
            }
        ),
    ]
}

fn quarantined() -> impl Strategy<Value = QuarantineRecord> {
    let texts = (ANY_TEXT, ANY_TEXT, ANY_TEXT);
    (any::<i64>(), texts, any::<u64>(), any::<u64>(), any::<Vec<u8>>()).prop_map(
        |(at_ms, (origin, reason, detail), position, size, bytes)| QuarantineRecord {
            at_ms: TsMs(at_ms),
            origin,
            position,
            reason,
            detail,
            size,
            bytes,
        },
    )
}

/// What every stored form refuses: another version, each truncation, bytes behind it.
fn check_refusals(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<(), DecodeError>) {
    assert_eq!(decode(bytes), Ok(()));
    for length in 0..bytes.len() {
        assert!(matches!(decode(&bytes[..length]), Err(DecodeError::Malformed { .. })), "cut at {length}");
    }
    for found in [0, 2, 255] {
        let other = [&[found], &bytes[1..]].concat();
        assert_eq!(decode(&other), Err(DecodeError::Version { found, known: 1 }));
    }
    let longer = [bytes, &[0]].concat();
    assert_eq!(decode(&longer), Err(DecodeError::Malformed { detail: "1 bytes too many".to_owned() }));
}

proptest! {
    #[test]
    fn a_receipt_record_is_read_as_it_was_written(
        numbers in any::<[u64; 2]>(), times in (any::<i64>(), any::<Option<i64>>()),
        (origin, symbol, event_type) in (ANY_TEXT, ANY_TEXT, ANY_TEXT), event in any::<Vec<u8>>(),
    ) {
        let record = ReceiptRecord {
            ingest_seq: IngestSeq(numbers[0]),
            ingest_ts_ms: TsMs(times.0),
            origin: &origin,
            position: numbers[1],
            symbol: &symbol,
            event_type: &event_type,
            snapshot_ts_ms: times.1.map(TsMs),
            event: &event,
        };
        let mut bytes = Vec::new();
        record.encode_to(&mut bytes);

        prop_assert_eq!(ReceiptRecord::decode(&bytes), Ok(record));
        check_refusals(&bytes, |bytes| ReceiptRecord::decode(bytes).map(drop));
    }

    #[test]
    fn a_run_record_is_read_as_it_was_written(facts in facts(), status in status()) {
        let record = RunRecord { facts, status };
        let mut bytes = Vec::new();
        record.encode_to(&mut bytes);

        prop_assert_eq!(RunRecord::decode(&bytes), Ok(record));
        check_refusals(&bytes, |bytes| RunRecord::decode(bytes).map(drop));
    }

    #[test]
    fn a_quarantine_record_is_read_as_it_was_written(record in quarantined()) {
        let mut bytes = Vec::new();
        record.encode_to(&mut bytes);

        prop_assert_eq!(QuarantineRecord::decode(&bytes), Ok(record));
        check_refusals(&bytes, |bytes| QuarantineRecord::decode(bytes).map(drop));
    }

    /// Method: bytes of any kind, and bytes that begin like a record. Reaching the end is the assertion.
    #[test]
    fn no_bytes_make_a_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for versioned in [false, true] {
            if let (true, Some(first)) = (versioned, bytes.first_mut()) {
                *first = 1;
            }
            let _ignored_receipt = ReceiptRecord::decode(&bytes).is_ok();
            let _ignored_run = RunRecord::decode(&bytes).is_ok();
            let _ignored_item = QuarantineRecord::decode(&bytes).is_ok();
            let _ignored_book = postcard::from_bytes::<BookCheckpoint>(&bytes).is_ok();
            let _ignored_index = postcard::from_bytes::<RunIndex>(&bytes).is_ok();
        }
    }

    /// Method: one byte of a record changed. It is another record or none, never a panic.
    #[test]
    fn a_changed_byte_makes_no_decoder_panic(
        facts in facts(), status in status(), at in any::<prop::sample::Index>(), change in 1..=255u8,
    ) {
        let record = RunRecord { facts, status };
        let mut bytes = Vec::new();
        record.encode_to(&mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= change;

        // Two encodings of one number exist in postcard, so an equal record is possible too.
        let _ignored = RunRecord::decode(&bytes).is_ok();
    }

    #[test]
    fn checkpoints_are_read_as_they_were_written(
        receipts in prop::collection::vec((0..4usize, 0..50i64, any::<Option<i64>>()), 0..40),
        quarantined in prop::collection::vec(1..60u64, 0..5),
    ) {
        let (mut book, mut now) = (CutBook::default(), 0);
        for ((symbol, wait_ms, snapshot_ts_ms), seq) in receipts.into_iter().zip(1..) {
            now += wait_ms;
            book.observe_receipt(&ReceiptRecord {
                ingest_seq: IngestSeq(seq),
                ingest_ts_ms: TsMs(now),
                origin: ["x", "y"][symbol % 2],
                position: seq,
                symbol: ["A", "B", "é", "D"][symbol],
                event_type: ["T", "U", "V"][symbol % 3],
                snapshot_ts_ms: snapshot_ts_ms.map(TsMs),
                event: b"{}",
            });
        }
        quarantined.into_iter().for_each(|position| book.note_quarantined("x", position));
        let checkpoint = book.to_checkpoint();
        let bytes = postcard::to_stdvec(&checkpoint).unwrap();

        prop_assert_eq!(postcard::from_bytes(&bytes), Ok(checkpoint.clone()));
        let restored = checkpoint.clone().into_book();
        prop_assert_eq!(restored.positions(), book.positions());
        prop_assert_eq!((restored.tail(), restored.first_ts(), restored.last_ts()),
            (book.tail(), book.first_ts(), book.last_ts()));
        prop_assert_eq!(restored.to_checkpoint(), checkpoint);
        for length in 0..bytes.len() {
            prop_assert!(postcard::from_bytes::<BookCheckpoint>(&bytes[..length]).is_err());
        }
    }

    /// The export form is one JSON object with sorted keys and all fields of the specification.
    #[test]
    fn a_run_records_wire_form_has_every_field(facts in facts(), status in status()) {
        let record = RunRecord { facts, status };

        let wire = record.to_wire();

        let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(&wire).unwrap();
        prop_assert_eq!(serde_json::to_string(&fields).unwrap(), wire);
        prop_assert_eq!(
            fields.keys().map(String::as_str).collect::<Vec<_>>(),
            ["attempts", "completed_ts_ms", "cut_end_ingest_seq", "cut_kind", "cut_start_ingest_seq",
             "engine_mode", "engine_timestamp_ms", "error_detail", "error_kind", "planned_ts_ms", "run_id",
             "started_ts_ms", "status", "symbol"]
        );
        prop_assert_eq!(fields["completed_ts_ms"].is_null(), !record.is_terminal());
        let failed = matches!(record.status, RunStatus::Failed { .. });
        prop_assert_eq!((fields["error_kind"].is_null(), fields["error_detail"].is_null()), (!failed, !failed));
    }
}

#[test]
fn empty_bytes_are_no_record() {
    assert_eq!(RunRecord::decode(&[]), Err(DecodeError::Malformed { detail: "empty".to_owned() }));
}

#[test]
fn a_receipts_wire_form_holds_the_event_byte_for_byte() {
    let event = br#"{"b": 1.50,"a":18446744073709551616}"#;
    let record = ReceiptRecord {
        ingest_seq: IngestSeq(7),
        ingest_ts_ms: TsMs(-3),
        origin: "o",
        position: 0,
        symbol: "A",
        event_type: "T",
        snapshot_ts_ms: None,
        event,
    };

    assert_eq!(
        String::from_utf8(record.to_wire()).unwrap(),
        r#"{"event":{"b": 1.50,"a":18446744073709551616},"ingest_seq":7,"ingest_ts_ms":-3}"#
    );
}
