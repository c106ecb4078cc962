//! What must hold of any logs, however they came about.

use std::collections::BTreeMap;

use bytes::Bytes;
use orchestrator_kernel::contracts::engine_run::RunRecord;
use orchestrator_kernel::contracts::orchestrator_event::events;
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{RunSeq, Symbol, TsMs};
use orchestrator_kernel::ports::fan_out::OutputMessage;
use orchestrator_kernel::replay::{Replay, Step};
use orchestrator_kernel::run::RunIndex;

use super::engine::TestEngine;

/// Checks LOG-1, LOG-5 and "no item twice" on the receipts, RUN-2, RUN-3 and CUT-1 on the runs.
///
/// # Panics
///
/// One of them does not hold.
pub fn check_logs(receipts: &[Vec<u8>], runs: &[RunRecord]) {
    let mut last_ts = TsMs(i64::MIN);
    let mut positions: BTreeMap<String, u64> = BTreeMap::new();
    for (bytes, seq) in receipts.iter().zip(1u64..) {
        let record = ReceiptRecord::decode(bytes).expect("a receipt record");
        assert_eq!(record.ingest_seq.0, seq, "LOG-1");
        assert!(last_ts <= record.ingest_ts_ms, "LOG-5 at {seq}");
        last_ts = record.ingest_ts_ms;
        if record.position != 0 {
            let last = positions.entry(record.origin.to_owned()).or_default();
            assert!(*last < record.position, "position {} of {} twice", record.position, record.origin);
            *last = record.position;
        }
    }
    let mut index = RunIndex::default();
    for record in runs {
        index.admit(record).expect("RUN-2, RUN-3, CUT-1");
    }
}

/// The body of an event without the time at which it was published, the one thing that a replay may change.
#[must_use]
pub fn without_publish_time(body: &Bytes) -> String {
    let text = String::from_utf8(body.to_vec()).expect("JSON");
    let key = "\"published_ts_ms\":";
    let at = text.find(key).expect("every event has it") + key.len();
    let end = at + text[at..].find(',').expect("it is not the last key");
    format!("{}null{}", &text[..at], &text[end..])
}

/// Per symbol, the bodies in order.
#[must_use]
pub fn message_bodies(messages: &[OutputMessage]) -> BTreeMap<Symbol, Vec<String>> {
    let mut bodies: BTreeMap<Symbol, Vec<String>> = BTreeMap::new();
    for message in messages {
        bodies.entry(message.symbol.clone()).or_default().push(without_publish_time(&message.body));
    }
    bodies
}

/// What the kernel's replay makes of the logs: per symbol, the bodies in order (REP-1).
///
/// # Panics
///
/// The logs contradict each other.
#[must_use]
pub fn replayed_bodies(receipts: &[Vec<u8>], runs: &[RunRecord]) -> BTreeMap<Symbol, Vec<String>> {
    let mut replay = Replay::default();
    for bytes in receipts {
        replay.receipt(&ReceiptRecord::decode(bytes).expect("a receipt record"));
    }
    let mut messages = Vec::new();
    for (record, seq) in runs.iter().zip(1u64..) {
        let replayed = match replay.run(record).expect("the logs agree") {
            Step::Nothing => continue,
            Step::Settled(record) => *record,
            Step::Call(call) => replay.finish(record, Ok(TestEngine::answer(&call))).expect("it answers"),
        };
        messages.extend(events(RunSeq(seq), &replayed, None).expect("our answers"));
    }
    message_bodies(&messages)
}
