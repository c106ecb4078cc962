//! One high-water mark on the medium.
//!
//! ```text
//!  0  "orchmark"         8  version u32        12  number of the log u32    16  log id u64
//! 24  tail u64          32  count of writes u64    40  start u64
//! 48  first record of the tail's segment u64       56  end of that segment's records in bytes u64
//! 64  crc u32 of bytes 0 … 64, zeros u32
//! ```
//!
//! Version 1 is the mark that is kept about a log on a server.

use orchestrator_kernel::ids::Seq;

use super::super::bytes::{u32_at, u64_at};

/// Bytes of a slot.
pub(super) const SLOT_BYTES: usize = 72;

const MAGIC: [u8; 8] = *b"orchmark";
const VERSION: u32 = 2;
const CRC_AT: usize = 64;

/// High-water mark of a log: how far it is durable, and from where on it must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TailMark {
    /// The log's random id.
    pub(crate) log_id: u64,
    /// Records up to here are durable.
    pub(crate) tail: Seq,
    /// Records from here on were not trimmed.
    pub(crate) start: Seq,
    /// The first record of the segment that holds the tail.
    pub(crate) segment: Seq,
    /// Where the records of that segment end, in bytes.
    pub(crate) end: u64,
}

/// The form on the medium of the mark of log number `log`, written as the `writes`th.
pub(super) fn encode_slot(log: u32, mark: &TailMark, writes: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let mut put = |at: usize, field: &[u8]| {
        slot.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
    };
    put(0, &MAGIC);
    put(8, &VERSION.to_le_bytes());
    put(12, &log.to_le_bytes());
    put(16, &mark.log_id.to_le_bytes());
    put(24, &mark.tail.0.to_le_bytes());
    put(32, &writes.to_le_bytes());
    put(40, &mark.start.0.to_le_bytes());
    put(48, &mark.segment.0.to_le_bytes());
    put(56, &mark.end.to_le_bytes());
    let crc = crc32c::crc32c(slot.get(..CRC_AT).unwrap_or_default());
    slot.iter_mut().skip(CRC_AT).zip(crc.to_le_bytes()).for_each(|(to, from)| *to = from);
    slot
}

/// The count of writes and the mark; nothing when it is not one of log number `log`.
pub(super) fn decode_slot(log: u32, slot: &[u8; SLOT_BYTES]) -> Option<(u64, TailMark)> {
    let covered = slot.get(..CRC_AT)?;
    let is_whole = slot.starts_with(&MAGIC) && u32_at(slot, CRC_AT) == crc32c::crc32c(covered);
    if !is_whole || (u32_at(slot, 8), u32_at(slot, 12)) != (VERSION, log) {
        return None;
    }
    let mark = TailMark {
        log_id: u64_at(slot, 16),
        tail: Seq(u64_at(slot, 24)),
        start: Seq(u64_at(slot, 40)),
        segment: Seq(u64_at(slot, 48)),
        end: u64_at(slot, 56),
    };
    Some((u64_at(slot, 32), mark))
}
