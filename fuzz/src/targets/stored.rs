//! What comes back from disks and servers.

use bytes::Bytes;
use orchestrator::adapters::files;
use orchestrator::adapters::files::log::testkit::{meta_again, segment as read_segment};
use orchestrator::adapters::redis::{stream_source, testkit as redis};
use orchestrator_actors::testkit::{book_again, run_index_again};
use orchestrator_kernel::engine::contracts::DecodeError;
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::orchestrator_event::{events, outputs_of};
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::RunSeq;
use orchestrator_kernel::json::canonical;

use super::{check_error, choice};

fn check_refusal(error: &DecodeError) {
    check_error(&error.to_string());
}

/// A number may be stored longer than it must be; written again it is as short as it can be, and the same record.
fn check_again(input: &[u8], again: &[u8]) {
    assert!(again.len() <= input.len(), "it grew from {} to {} bytes", input.len(), again.len());
}

/// Bytes that no record ends with.
fn longer(input: &[u8]) -> Vec<u8> {
    [input, &[0]].concat()
}

pub(super) fn receipt_record(input: &[u8]) {
    match ReceiptRecord::decode(input) {
        Ok(record) => {
            let mut again = Vec::new();
            record.encode_to(&mut again);
            check_again(input, &again);
            assert_eq!(ReceiptRecord::decode(&again), Ok(record));
            assert!(ReceiptRecord::decode(&longer(input)).is_err());
            assert!(record.to_wire().len() <= record.event.len() + 90);
        }
        Err(error) => check_refusal(&error),
    }
}

pub(super) fn quarantine_record(input: &[u8]) {
    match QuarantineRecord::decode(input) {
        Ok(record) => {
            let mut again = Vec::new();
            record.encode_to(&mut again);
            check_again(input, &again);
            assert_eq!(QuarantineRecord::decode(&again), Ok(record));
            assert!(QuarantineRecord::decode(&longer(input)).is_err());
        }
        Err(error) => check_refusal(&error),
    }
}

/// A record that can be read makes its outputs, or says why its answer is none.
pub(super) fn run_record(input: &[u8]) {
    let record = match RunRecord::decode(input) {
        Ok(record) => record,
        Err(error) => return check_refusal(&error),
    };
    let mut again = Vec::new();
    record.encode_to(&mut again);
    check_again(input, &again);
    assert_eq!(RunRecord::decode(&again).as_ref(), Ok(&record));
    assert!(RunRecord::decode(&longer(input)).is_err());
    let wire = record.to_wire();
    assert_eq!(canonical(&wire).as_ref(), Ok(&wire), "the export form is canonical");
    match events(RunSeq(1), &record, None) {
        Ok(messages) => {
            assert_eq!(messages.len() as u64, outputs_of(&record));
            for message in messages {
                let body = std::str::from_utf8(&message.body).expect("text");
                assert!(serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok(), "{body}");
            }
        }
        Err(error) => check_error(&error.to_string()),
    }
}

/// Checksums keep nearly every input out; so most inputs get right ones, as a forger would give them.
fn with_checksums(segment: &mut [u8]) {
    const HEADER: usize = 64;
    const HEAD: usize = 56;
    seal(segment, 0, 60, 60);
    let mut at = HEADER;
    while segment.get(at..at + HEAD).is_some() {
        let number =
            |from: usize| u32::from_le_bytes(segment[at + from..at + from + 4].try_into().expect("4 bytes"));
        let (count, payload) = (number(8) as usize % 64, number(12) as usize % 4096);
        segment[at..at + 4].copy_from_slice(b"oBAT");
        segment[at + 8..at + 12].copy_from_slice(&(count as u32).to_le_bytes());
        segment[at + 12..at + 16].copy_from_slice(&(payload as u32).to_le_bytes());
        let (table, end) = (at + HEAD, at + HEAD + count * 8 + payload);
        if segment.get(at..end).is_some() {
            let mut from = table + count * 8;
            for entry in (table..table + count * 8).step_by(8) {
                let length =
                    u32::from_le_bytes(segment[entry..entry + 4].try_into().expect("4 bytes")) as usize;
                let crc = segment.get(from..from.saturating_add(length)).map_or(0, crc32c::crc32c);
                segment[entry + 4..entry + 8].copy_from_slice(&crc.to_le_bytes());
                from = from.saturating_add(length);
            }
            seal(segment, table, table + count * 8, at + 48);
        }
        seal(segment, at + 8, at + HEAD, at + 4);
        at = end.next_multiple_of(8);
    }
}

/// Writes the checksum of bytes `from` … `to` at `at`.
fn seal(bytes: &mut [u8], from: usize, to: usize, at: usize) {
    let crc = bytes.get(from..to).map(crc32c::crc32c).unwrap_or_default().to_le_bytes();
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&crc);
    }
}

/// A segment is refused with a place, or its records are the same however often it is read, cut at its end or followed
/// by the zeros of a preallocated file.
pub(super) fn segment(input: &[u8]) {
    let (kind, content) = choice(input);
    let mut content = content.to_vec();
    if !kind.is_multiple_of(4) {
        with_checksums(&mut content);
    }
    if let Some(again) = meta_again(&content) {
        assert_eq!(meta_again(&again).as_ref(), Some(&again));
    }
    match read_segment(&content) {
        Ok(found) => {
            assert_eq!(Some(found.records.len() as u64), (found.last + 1).checked_sub(found.first), "LOG-1");
            assert!(64 <= found.end && found.end + found.torn_bytes <= content.len() as u64);
            let bytes: usize = found.records.iter().map(Vec::len).sum();
            assert!(bytes <= content.len(), "records of nothing");
            if found.torn_bytes == 0 {
                content.truncate(found.end as usize);
                assert_eq!(read_segment(&content).as_ref(), Ok(&found), "cut at its end");
                content.resize(content.len() + 5000, 0);
                assert_eq!(read_segment(&content).as_ref(), Ok(&found), "zeros behind its end");
            }
        }
        Err(why) => check_error(&why),
    }
}

/// Derived state is read as what was stored, or counts as none.
pub(super) fn checkpoints(input: &[u8]) {
    let (kind, content) = choice(input);
    let content = Bytes::copy_from_slice(content);
    match kind % 3 {
        0 => match files::checkpoints::testkit::again(content.clone()) {
            Ok((value, stored)) => {
                assert_eq!(stored, content);
                assert!(content.ends_with(&value));
            }
            Err(why) => check_error(why),
        },
        1 => {
            if let Some(again) = book_again(&content) {
                check_again(&content, &again);
                assert_eq!(book_again(&again).as_ref(), Some(&again));
            }
        }
        _ => {
            if let Some(again) = run_index_again(&content) {
                check_again(&content, &again);
                assert_eq!(run_index_again(&again).as_ref(), Some(&again));
            }
        }
    }
}

/// What is stored on a server: an entry, a checkpoint, a mark, a name. Each is read as it was written, or refused.
pub(super) fn redis_stored(input: &[u8]) {
    const LOG: u64 = 0x0123_4567_89ab_cdef;
    let (kind, content) = choice(input);
    match kind % 5 {
        0 => match redis::open_entry(LOG, 7, content) {
            Ok(payload) => assert_eq!(redis::write_entry(LOG, 7, payload), content),
            Err(why) => check_error(&why),
        },
        1 => {
            let mut stored = redis::write_entry(LOG, 7, content);
            assert_eq!(redis::open_entry(LOG, 7, &stored), Ok(content));
            let bit = content.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31) + usize::from(*byte));
            let at = bit / 8 % stored.len();
            stored[at] ^= 1 << (bit % 8);
            check_error(&redis::open_entry(LOG, 7, &stored).expect_err("a flipped bit is seen"));
        }
        2 => match redis::checkpoint_again(&Bytes::copy_from_slice(content)) {
            Ok(again) => assert_eq!(again, content),
            Err(why) => check_error(why),
        },
        3 => {
            let mut content = content.to_vec();
            seal(&mut content, 0, 48, 48);
            if let Some(again) = redis::mark_again(&content) {
                assert_eq!(redis::mark_again(&again).as_ref(), Some(&again));
            }
        }
        _ => {
            let text = String::from_utf8_lossy(content);
            if let Some(again) = redis::log_id_again(&text) {
                assert_eq!(again, text.to_ascii_lowercase());
            }
        }
    }
}

/// A server's answer gives entries with ids, or is refused.
pub(super) fn redis_answer(input: &[u8]) {
    let (kind, answer) = choice(input);
    match stream_source::testkit::entries(answer, "event", !kind.is_multiple_of(2)) {
        Ok(entries) => {
            let holds =
                |part: &[u8]| part.is_empty() || answer.windows(part.len()).any(|found| found == part);
            for (id, bytes) in entries {
                assert!(holds(id.as_bytes()), "{id} is not in the answer");
                let is_description = || serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
                assert!(holds(&bytes) || is_description(), "LOG-4: {bytes:?}");
            }
        }
        // The client's own words: theirs to bound.
        Err(why) => assert!(!why.is_empty()),
    }
}
