//! What must hold of any logs, however they came about.

use std::collections::BTreeMap;

use bytes::Bytes;
use orchestrator_kernel::engine::audit::{Audit, AuditStep, ReplayStart, StateFrom};
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::orchestrator_event::events;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::replay::RunLogOutline;
use orchestrator_kernel::engine::retention;
use orchestrator_kernel::ids::{RunSeq, Seq, Symbol};
use orchestrator_kernel::ports::engine::{EngineAnswer, EngineCall};
use orchestrator_kernel::ports::fan_out::OutputMessage;

use super::engine::TestEngine;

/// Checks all that follows from the logs without the engine: LOG-1, LOG-5 and "no item twice" on the receipts, RUN-2,
/// RUN-3, RUN-4 and CUT-1, CUT-2 on the runs.
///
/// # Panics
///
/// One of them does not hold.
pub fn check_logs(receipts: &[Vec<u8>], runs: &[RunRecord]) {
    audited(receipts, runs, ReplayStart::default(), None);
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
    replayed_bodies_after(&retention::RetentionBase::default(), receipts, runs)
}

/// As [`replayed_bodies`], of whole logs whose service had let go of what this base says.
///
/// # Panics
///
/// The logs contradict each other.
#[must_use]
pub fn replayed_bodies_after(
    base: &retention::RetentionBase,
    receipts: &[Vec<u8>],
    runs: &[RunRecord],
) -> BTreeMap<Symbol, Vec<String>> {
    let mut messages = Vec::new();
    for (seq, replayed) in audited(receipts, runs, ReplayStart::of_whole_logs(base), Some(TestEngine::answer))
    {
        messages.extend(events(seq, &replayed, None).expect("our answers"));
    }
    message_bodies(&messages)
}

/// The replayed terminal records; nothing in the logs may contradict anything else.
fn audited(
    receipts: &[Vec<u8>],
    runs: &[RunRecord],
    base: ReplayStart,
    engine: Option<fn(&EngineCall) -> EngineAnswer>,
) -> Vec<(RunSeq, RunRecord)> {
    let mut outline = RunLogOutline::default();
    runs.iter().for_each(|record| outline.note_record(record));
    let mut audit = Audit::new(outline, StateFrom::Replay, base);
    let (mut found, mut replayed) = (Vec::new(), Vec::new());
    for (bytes, at) in receipts.iter().zip(1..) {
        audit.take_receipt(Seq(at), &ReceiptRecord::decode(bytes).expect("a receipt record"), &mut found);
    }
    audit.receipts_ended();
    for (record, at) in runs.iter().zip((1..).map(RunSeq)) {
        match audit.take_run_record(at, record, &mut found) {
            AuditStep::Nothing => {}
            AuditStep::Settled(record) => replayed.push((at, *record)),
            AuditStep::Call(call) => match engine {
                Some(engine) => {
                    replayed.push((at, audit.compare_answer(at, record, Ok(engine(&call)), &mut found)));
                }
                None => audit.accept_recorded_state(record),
            },
        }
    }
    assert_eq!(found, [], "the logs agree with each other, and with the engine");
    replayed
}
