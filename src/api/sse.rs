//! The wire form of server-sent events.
//!
//! Source: HTML Living Standard, section 9.2 "Server-sent events".

use orchestrator_kernel::ids::LogIdentity;
use orchestrator_kernel::ports::fan_out::OutputMessage;

use super::position::{EventId, Position};

/// How long a client waits before it connects again.
const RETRY_MS: u64 = 1000;

/// One output of the run log `log`.
pub(super) fn write_output(log: Option<LogIdentity>, message: &OutputMessage, out: &mut Vec<u8>) {
    let position = Position::AfterEvent(message.run_seq.into(), message.index);
    write_event(EventId { log, position }, message.event_type, &message.body, out);
}

/// One event.
pub(super) fn write_event(id: EventId, name: &str, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("id: {id}\nevent: {name}\n").as_bytes());
    // Wire JSON is one line; an engine's answer with line breaks between its tokens would end the event in its middle.
    for line in body.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// The beginning of a stream. It has no data, so it is no event; but the client remembers the id and, cut off before
/// the first event, goes on from here.
pub(super) fn greeting_bytes(at: EventId) -> Vec<u8> {
    format!("retry: {RETRY_MS}\nid: {at}\n\n").into_bytes()
}

/// A sign of life, with the position that was reached: what a filter kept out need not be looked at again.
pub(super) fn heartbeat_bytes(at: EventId) -> Vec<u8> {
    format!(": heartbeat\nid: {at}\n\n").into_bytes()
}

/// Why the stream ends. `reason` is one line.
pub(super) fn farewell_bytes(reason: &str) -> Vec<u8> {
    format!(": {reason}\n\n").into_bytes()
}
