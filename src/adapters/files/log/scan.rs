//! Walking through the frames of a segment: checking the last one when a log is opened, indexing and reading any.

use std::io;
use std::sync::Arc;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{ReadError, ReadLimit, RecordBatch};

use super::super::fs::FsFile;
use super::frame::{ALIGNMENT, FrameEntry, HEAD_BYTES, Head, looks_like_frame, parse_table};
use super::segment::{HEADER_BYTES, ReadWindow};

/// Bytes between two entries of an index: a lookup walks over at most this much, heads only.
const INDEX_STEP: u64 = 64 << 10;
/// How much a whole-segment walk reads at a time.
const SCAN_AHEAD: usize = 1 << 20;
/// How much a read looks ahead at most: stays in the processor's cache between the copy and the checksum.
const READ_AHEAD_MAX: usize = 256 << 10;

/// Starts of some frames of a segment: sparse, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(Vec<(Seq, u64)>);

impl Index {
    /// Takes note of the frame at `at`, when it is far enough from the last one noted.
    pub(super) fn note_frame(&mut self, first: Seq, at: u64) {
        if self.0.last().is_none_or(|(_, last)| at - last >= INDEX_STEP) {
            self.0.push((first, at));
        }
    }

    /// The last noted frame that starts at or before record `seq`.
    pub(super) fn frame_at_or_before(&self, seq: Seq) -> Option<(Seq, u64)> {
        let after = self.0.partition_point(|(first, _)| *first <= seq);
        self.0.get(after.checked_sub(1)?).copied()
    }
}

/// Findings of the check of the last segment.
#[derive(Debug)]
pub(super) struct Scan {
    /// The byte after the last valid frame.
    pub(super) end: u64,
    /// The last record; one before the segment's first when there is none.
    pub(super) last: Seq,
    /// The largest epoch.
    pub(super) epoch: Epoch,
    /// Where the last frame starts; 0 when there is none.
    pub(super) last_at: u64,
    /// Where the last group of frames starts: all before it is known durable, this group may be only in memory.
    pub(super) group_at: u64,
    pub(super) index: Index,
    /// Bytes behind `end` that are neither a frame nor empty: a write that a crash cut short. Zero when clean.
    pub(super) torn_bytes: u64,
}

/// Something that a crash cannot have caused.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) at: u64,
    pub(super) detail: String,
}

enum Checked {
    Valid(Head),
    Invalid(&'static str),
    OutOfPlace(Head),
}

/// Checks every byte of the last segment and finds its end.
///
/// A region that is not valid is a torn write if no later frame proves that it was durable before; otherwise it is
/// damage. A flipped bit in the *last* group of frames looks exactly like a torn write; what is known durable from
/// elsewhere (`meta`) is compared by the caller.
pub(super) fn check_last(file: &dyn FsFile, first: Seq, log_id: u64) -> io::Result<Result<Scan, Damage>> {
    let size = file.size()?;
    let mut window = ReadWindow::new(file, size, SCAN_AHEAD);
    let mut entries = Vec::new();
    let mut synced = None;
    let mut scan = Scan {
        end: HEADER_BYTES,
        last_at: 0,
        group_at: HEADER_BYTES,
        last: Seq(first.0 - 1),
        epoch: Epoch(0),
        index: Index::default(),
        torn_bytes: 0,
    };
    loop {
        match check_frame(&mut window, scan.end, log_id, scan.last.next(), &mut entries)? {
            Checked::Valid(head) if head.epoch < scan.epoch => {
                let detail = format!("epoch {} follows epoch {}", head.epoch, scan.epoch);
                return Ok(Err(Damage { at: scan.end, detail }));
            }
            Checked::Valid(head) => {
                scan.index.note_frame(head.first, scan.end);
                // Frames of one group were written with the same knowledge.
                if synced != Some(head.synced) {
                    synced = Some(head.synced);
                    scan.group_at = scan.end;
                }
                scan.last_at = scan.end;
                scan.end += head.frame_bytes();
                scan.last = head.last_seq();
                scan.epoch = head.epoch;
            }
            Checked::OutOfPlace(head) => {
                let detail = format!("record {} of log {:016x} is out of place", head.first, head.log_id);
                return Ok(Err(Damage { at: scan.end, detail }));
            }
            Checked::Invalid(reason) => {
                return Ok(check_rest(&mut window, &scan, size, log_id, reason)?
                    .map(|torn_bytes| Scan { torn_bytes, ..scan }));
            }
        }
    }
}

fn check_frame(
    window: &mut ReadWindow<'_>,
    at: u64,
    log_id: u64,
    expected: Seq,
    entries: &mut Vec<FrameEntry>,
) -> io::Result<Checked> {
    let Some(head) = window.bytes_at(at, HEAD_BYTES)?.and_then(Head::parse) else {
        return Ok(Checked::Invalid("no batch head"));
    };
    if head.log_id != log_id || head.first != expected {
        return Ok(Checked::OutOfPlace(head));
    }
    let table_at = at + HEAD_BYTES as u64;
    let table = window.bytes_at(table_at, head.table_bytes())?;
    if table.and_then(|table| parse_table(&head, table, entries)).is_none() {
        return Ok(Checked::Invalid("the batch's table fails its checksum"));
    }
    let mut payload_at = table_at + head.table_bytes() as u64;
    for entry in entries.iter() {
        let payload = window.bytes_at(payload_at, entry.length)?;
        if payload.is_none_or(|payload| crc32c::crc32c(payload) != entry.crc) {
            return Ok(Checked::Invalid("a record fails its checksum"));
        }
        payload_at += entry.length as u64;
    }
    let frame_end = at + head.frame_bytes();
    let padding =
        window.bytes_at(payload_at, usize::try_from(frame_end - payload_at).unwrap_or(usize::MAX))?;
    if padding.is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
        return Ok(Checked::Invalid("the batch's padding is not zero"));
    }
    Ok(Checked::Valid(head))
}

/// Looks behind the last valid frame: how many bytes are torn, or the proof that it is damage.
fn check_rest(
    window: &mut ReadWindow<'_>,
    scan: &Scan,
    size: u64,
    log_id: u64,
    reason: &str,
) -> io::Result<Result<u64, Damage>> {
    const PAGE: usize = 4096;
    const ZEROS: [u8; PAGE] = [0; PAGE];
    let mut torn_end = scan.end;
    let mut at = scan.end;
    while at < size {
        let length = usize::try_from(size - at).unwrap_or(usize::MAX).min(PAGE);
        let Some(page) = window.bytes_at(at, length)? else { break };
        if ZEROS.get(..length) != Some(page) {
            let zeros_behind = page.iter().rev().take_while(|byte| **byte == 0).count();
            torn_end = at + (length - zeros_behind) as u64;
            let marks: Vec<u64> = (0..length)
                .step_by(ALIGNMENT as usize)
                .filter(|from| page.get(*from..).is_some_and(looks_like_frame))
                .map(|from| at + from as u64)
                .collect();
            for mark in marks {
                let head = window.bytes_at(mark, HEAD_BYTES)?.and_then(Head::parse);
                if head.is_some_and(|head| head.log_id == log_id && head.synced > scan.last) {
                    let detail = format!(
                        "{reason}, but record {} is known to have been durable (byte {mark})",
                        scan.last.next()
                    );
                    return Ok(Err(Damage { at: scan.end, detail }));
                }
            }
        }
        at += length as u64;
    }
    Ok(Ok(torn_end - scan.end))
}

/// Whether the head at byte `at` is that of a segment's last frame: it holds record `last` and ends at byte `end`.
pub(super) fn ends_with_frame(
    file: &dyn FsFile,
    log_id: u64,
    at: u64,
    last: Seq,
    end: u64,
) -> io::Result<bool> {
    let mut bytes = [0; HEAD_BYTES];
    let read = file.read_at(&mut bytes, at)?;
    let head = Head::parse(&bytes).filter(|_| read == HEAD_BYTES);
    Ok(head.is_some_and(|head| {
        head.log_id == log_id && head.last_seq() == last && at.saturating_add(head.frame_bytes()) == end
    }))
}

/// Indexes a segment by its heads; its records `first` … `last` must end at byte `end`.
pub(super) fn index_segment(
    file: &dyn FsFile,
    log_id: u64,
    first: Seq,
    last: Seq,
    end: u64,
) -> Result<Index, ReadError> {
    let mut window = ReadWindow::new(file, end, INDEX_STEP as usize);
    let mut index = Index::default();
    let mut at = HEADER_BYTES;
    let mut expected = first;
    while at < end {
        let head = read_head(&mut window, at, log_id, expected)?;
        index.note_frame(expected, at);
        at += head.frame_bytes();
        expected = head.last_seq().next();
    }
    if at != end || expected != last.next() {
        return Err(corrupt_error(
            expected,
            format!("the segment ends there, the next one starts at {}", last.next()),
        ));
    }
    Ok(index)
}

fn read_head(window: &mut ReadWindow<'_>, at: u64, log_id: u64, expected: Seq) -> Result<Head, ReadError> {
    match window.bytes_at(at, HEAD_BYTES)?.and_then(Head::parse) {
        Some(head) if head.first == expected && head.log_id == log_id => Ok(head),
        Some(_) | None => Err(corrupt_error(expected, format!("no valid batch head at byte {at}"))),
    }
}

fn corrupt_error(at: Seq, detail: String) -> ReadError {
    ReadError::Corrupt { at, detail }
}

/// A durable stretch of one segment, from the start of a frame on.
#[derive(Clone)]
pub(super) struct SegmentExtent {
    pub(super) file: Arc<dyn FsFile>,
    pub(super) log_id: u64,
    /// The frame at `at` starts with this record.
    pub(super) first: Seq,
    pub(super) at: u64,
    /// Nothing at or after this byte is read.
    pub(super) end: u64,
}

impl SegmentExtent {
    /// Reads records from `from` on, up to the end of the extent, each verified by its checksum.
    pub(super) fn read_records(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        let rest = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let guess = limit.bytes.min(limit.records.saturating_mul(512)).min(rest);
        let mut window =
            ReadWindow::new(&*self.file, self.end, guess.saturating_add(4096).min(READ_AHEAD_MAX));
        let mut batch = RecordBatch::with_capacity(from, limit.records.min(4096), guess.min(4 << 20));
        let mut entries = Vec::new();
        let (mut at, mut first) = (self.at, self.first);
        while at < self.end {
            let head = read_head(&mut window, at, self.log_id, first)?;
            if head.last_seq() >= from
                && !read_frame((&mut window, at), &head, limit, &mut entries, &mut batch)?
            {
                break;
            }
            at += head.frame_bytes();
            first = head.last_seq().next();
        }
        Ok(batch)
    }
}

/// Adds the records of one frame that `batch` still lacks; `false` when the limit is reached.
fn read_frame(
    (window, at): (&mut ReadWindow<'_>, u64),
    head: &Head,
    limit: ReadLimit,
    entries: &mut Vec<FrameEntry>,
    batch: &mut RecordBatch,
) -> Result<bool, ReadError> {
    let table_at = at + HEAD_BYTES as u64;
    let table = window.bytes_at(table_at, head.table_bytes())?;
    if table.and_then(|table| parse_table(head, table, entries)).is_none() {
        return Err(corrupt_error(
            head.first,
            format!("the table of the batch at byte {at} fails its checksum"),
        ));
    }
    let skip = usize::try_from(batch.last_seq().next().0.saturating_sub(head.first.0)).unwrap_or(usize::MAX);
    let skipped: usize = entries.iter().take(skip).map(|entry| entry.length).sum();
    let mut payload_at = table_at + (head.table_bytes() + skipped) as u64;
    for entry in entries.iter().skip(skip) {
        let full =
            batch.len() >= limit.records || batch.payload_bytes().saturating_add(entry.length) > limit.bytes;
        if full && !batch.is_empty() {
            return Ok(false);
        }
        let payload = window.bytes_at(payload_at, entry.length)?;
        let Some(payload) = payload.filter(|payload| crc32c::crc32c(payload) == entry.crc) else {
            let seq = batch.last_seq().next();
            return Err(corrupt_error(seq, format!("its bytes at {payload_at} fail their checksum")));
        };
        batch.push(payload);
        payload_at += entry.length as u64;
    }
    // No record is there; but bytes that nobody wrote say that the medium cannot be trusted.
    let rest = usize::try_from(at + head.frame_bytes() - payload_at).unwrap_or(usize::MAX);
    if window.bytes_at(payload_at, rest)?.is_none_or(|padding| padding.iter().any(|byte| *byte != 0)) {
        return Err(corrupt_error(
            head.last_seq(),
            format!("the padding behind it, at {payload_at}, is not zero"),
        ));
    }
    Ok(true)
}
