//! The batch frame: the unit that is durable as a whole or not at all.
//!
//! ```text
//! offset  0        4         8        12      16      24      32       40       48         52         56
//!         ├────────┼─────────┼────────┼───────┼───────┼───────┼────────┼────────┼──────────┼──────────┤
//!         │ "oBAT" │ head    │ count  │payload│ first │ epoch │ synced │ log id │ table    │ reserved │
//!         │        │ crc u32 │ u32    │bytes  │ u64   │ u64   │ u64    │ u64    │ crc u32  │ 0 u32    │
//!         │        │         │        │u32    │       │       │        │        │          │          │
//!         └────────┴─────────┴────────┴───────┴───────┴───────┴────────┴────────┴──────────┴──────────┘
//!     56  count × { length u32, payload crc u32 }                                  (the table)
//!         payloads, one after the other
//!         zeros up to the next multiple of 8
//! ```
//!
//! All numbers are little-endian, all checksums CRC-32C. The head's checksum covers bytes 8 … 56, so the lengths and
//! the table's checksum are checked before they are believed; the table's checksum covers the payloads' checksums. One
//! record can thus be verified without reading its whole batch.
//!
//! `synced` is the last record known durable when the frame was written. It is what tells a torn write from damage:
//! frames of one group commit may reach the medium in any order, but a frame that says `synced = 7` proves that
//! records 1 … 7 were once there.

use super::super::bytes::{u32_at, u64_at};
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{BatchSize, RecordBatch};

/// Bytes of the head.
pub(super) const HEAD_BYTES: usize = 56;
/// Bytes of a table entry.
pub(super) const ENTRY_BYTES: usize = 8;
/// Frames start at multiples of this.
pub(super) const ALIGNMENT: u64 = 8;
/// Largest frame: keeps every length far from the limits of `u32`.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 30;

const MAGIC: [u8; 4] = *b"oBAT";

/// Content of a frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) count: u32,
    pub(super) payload_bytes: u32,
    pub(super) first: Seq,
    pub(super) epoch: Epoch,
    pub(super) synced: Seq,
    pub(super) log_id: u64,
    pub(super) table_crc: u32,
}

impl Head {
    /// Parses a head; `None` when its checksum or form is wrong.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let covered = bytes.get(8..HEAD_BYTES)?;
        if !bytes.starts_with(&MAGIC) || u32_at(bytes, 4) != crc32c::crc32c(covered) {
            return None;
        }
        let head = Self {
            count: u32_at(bytes, 8),
            payload_bytes: u32_at(bytes, 12),
            first: Seq(u64_at(bytes, 16)),
            epoch: Epoch(u64_at(bytes, 24)),
            synced: Seq(u64_at(bytes, 32)),
            log_id: u64_at(bytes, 40),
            table_crc: u32_at(bytes, 48),
        };
        let is_sound = head.count > 0 && head.first.0 > 0 && head.frame_bytes() <= FRAME_BYTES_MAX as u64;
        is_sound.then_some(head)
    }

    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let mut put = |at: usize, field: &[u8]| {
            bytes.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
        };
        put(0, &MAGIC);
        put(8, &self.count.to_le_bytes());
        put(12, &self.payload_bytes.to_le_bytes());
        put(16, &self.first.0.to_le_bytes());
        put(24, &self.epoch.0.to_le_bytes());
        put(32, &self.synced.0.to_le_bytes());
        put(40, &self.log_id.to_le_bytes());
        put(48, &self.table_crc.to_le_bytes());
        let crc = crc32c::crc32c(bytes.get(8..).unwrap_or_default());
        bytes.iter_mut().skip(4).zip(crc.to_le_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }

    /// The last record of the frame.
    pub(super) fn last_seq(&self) -> Seq {
        Seq(self.first.0.saturating_add(u64::from(self.count)) - 1)
    }

    /// Bytes of the table.
    pub(super) fn table_bytes(&self) -> usize {
        self.count as usize * ENTRY_BYTES
    }

    /// Bytes of the whole frame, with its padding.
    pub(super) fn frame_bytes(&self) -> u64 {
        let exact = HEAD_BYTES as u64 + self.table_bytes() as u64 + u64::from(self.payload_bytes);
        exact.next_multiple_of(ALIGNMENT)
    }
}

/// One entry of a frame's table.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameEntry {
    pub(super) length: usize,
    pub(super) crc: u32,
}

/// Reads a frame's table; `None` when it does not fit its checksum or the head.
pub(super) fn parse_table(head: &Head, table: &[u8], entries: &mut Vec<FrameEntry>) -> Option<()> {
    entries.clear();
    if table.len() != head.table_bytes() || crc32c::crc32c(table) != head.table_crc {
        return None;
    }
    entries.extend(
        table
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| FrameEntry { length: u32_at(entry, 0) as usize, crc: u32_at(entry, 4) }),
    );
    let sum: u64 = entries.iter().map(|entry| entry.length as u64).sum();
    (sum == u64::from(head.payload_bytes)).then_some(())
}

/// A batch in its form on the medium. The head is still empty: it names what only the writer knows.
#[derive(Debug)]
pub(super) struct Frame {
    head: Head,
    bytes: Vec<u8>,
}

/// Refusal of a batch that is too large for a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) bytes: usize,
}

impl Frame {
    /// Bytes of the frame of a batch of this size.
    pub(super) const fn bytes_for(size: BatchSize) -> usize {
        let exact = HEAD_BYTES + size.records * ENTRY_BYTES + size.bytes;
        exact.next_multiple_of(ALIGNMENT as usize)
    }

    /// Encodes a batch that is not empty.
    pub(super) fn encode_batch(batch: &RecordBatch) -> Result<Self, TooLarge> {
        let size = Self::bytes_for(BatchSize::of_batch(batch));
        if size > FRAME_BYTES_MAX {
            return Err(TooLarge { bytes: size });
        }
        let mut bytes = Vec::with_capacity(size);
        bytes.resize(HEAD_BYTES, 0);
        for (_, payload) in batch.iter() {
            // Lengths fit: the whole frame is below FRAME_BYTES_MAX.
            bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
        }
        let table_crc = crc32c::crc32c(bytes.get(HEAD_BYTES..).unwrap_or_default());
        batch.iter().for_each(|(_, payload)| bytes.extend_from_slice(payload));
        bytes.resize(size, 0);
        let head = Head {
            count: batch.len() as u32,
            payload_bytes: batch.payload_bytes() as u32,
            first: batch.first_seq(),
            epoch: Epoch(0),
            synced: Seq(0),
            log_id: 0,
            table_crc,
        };
        Ok(Self { head, bytes })
    }

    /// The finished frame, ready to be written.
    pub(super) fn finish_head(&mut self, epoch: Epoch, synced: Seq, log_id: u64) -> &[u8] {
        self.head = Head { epoch, synced, log_id, ..self.head };
        let head = self.head.encode();
        self.bytes.iter_mut().zip(head).for_each(|(to, from)| *to = from);
        &self.bytes
    }

    /// The first record.
    pub(super) fn first_seq(&self) -> Seq {
        self.head.first
    }

    /// The last record.
    pub(super) fn last_seq(&self) -> Seq {
        self.head.last_seq()
    }

    /// Bytes of the whole frame.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The payload of each record in order.
    pub(super) fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let table = self.bytes.get(HEAD_BYTES..HEAD_BYTES + self.head.table_bytes()).unwrap_or_default();
        let mut rest = self.bytes.get(HEAD_BYTES + table.len()..).unwrap_or_default();
        table.chunks_exact(ENTRY_BYTES).map(move |entry| {
            let (payload, after) = rest.split_at_checked(u32_at(entry, 0) as usize).unwrap_or_default();
            rest = after;
            payload
        })
    }
}

/// Whether `bytes` begin like a frame. Cheap: only for skipping what cannot be one.
pub(super) fn looks_like_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}
