//! One segment file: its name, its header, and a window for walking through its frames.
//!
//! ```text
//! 00000000000000000001.seg          the name is the first record's position, 20 digits
//!
//!   0  "orchlog\0"                  16  log id u64            48  previous segment's last frame u64
//!   8  format version u32           24  first record u64      56  zeros, 60  crc u32 of bytes 0 … 60
//!  12  zeros                        32  previous segment's first record u64, 0 when there was none
//!                                   40  previous segment's end in bytes u64
//!  64  frames, one after the other; then zeros up to the preallocated size
//! ```
//!
//! Naming the previous segment, its end and the byte where its last frame starts makes a missing or shortened file, and
//! an earlier state of it, visible without reading it. Older binaries left the last frame at 0: not known. The position
//! of the checksum stays in all versions, so that damage is never mistaken for a newer format.

use std::io;
use std::path::{Path, PathBuf};

use orchestrator_kernel::ids::Seq;

use super::super::bytes::{u32_at, u64_at};
use super::super::fs::{Fs, FsFile, TEMPORARY};

/// Bytes of the header; the first frame starts here.
pub(super) const HEADER_BYTES: u64 = 64;
/// The format that this binary writes, and the newest that it reads.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"orchlog\0";
const CRC_AT: usize = 60;

/// Content of a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) log_id: u64,
    pub(super) first: Seq,
    pub(super) previous_first: Seq,
    pub(super) previous_end: u64,
    /// Where the last frame of the previous segment starts; 0 when that is not known.
    pub(super) previous_last: u64,
}

/// Reason for which a segment's header is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    UnknownVersion(u32),
}

impl Header {
    /// The form on the medium.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        let mut put = |at: usize, field: &[u8]| {
            bytes.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
        };
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(16, &self.log_id.to_le_bytes());
        put(24, &self.first.0.to_le_bytes());
        put(32, &self.previous_first.0.to_le_bytes());
        put(40, &self.previous_end.to_le_bytes());
        put(48, &self.previous_last.to_le_bytes());
        let crc = crc32c::crc32c(bytes.get(..CRC_AT).unwrap_or_default());
        bytes.iter_mut().skip(CRC_AT).zip(crc.to_le_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Reads the header of an open segment.
    pub(super) fn read(file: &dyn FsFile) -> io::Result<Result<Self, HeaderError>> {
        let mut bytes = [0; HEADER_BYTES as usize];
        let read = file.read_at(&mut bytes, 0)?;
        let covered = bytes.get(..CRC_AT).unwrap_or_default();
        let is_whole = read == bytes.len() && bytes.starts_with(&MAGIC);
        if !is_whole || u32_at(&bytes, CRC_AT) != crc32c::crc32c(covered) {
            return Ok(Err(HeaderError::Damaged));
        }
        let version = u32_at(&bytes, 8);
        if version != VERSION {
            return Ok(Err(HeaderError::UnknownVersion(version)));
        }
        // Records count from 1.
        if u64_at(&bytes, 24) == 0 {
            return Ok(Err(HeaderError::Damaged));
        }
        Ok(Ok(Self {
            log_id: u64_at(&bytes, 16),
            first: Seq(u64_at(&bytes, 24)),
            previous_first: Seq(u64_at(&bytes, 32)),
            previous_end: u64_at(&bytes, 40),
            previous_last: u64_at(&bytes, 48),
        }))
    }
}

/// The file name of the segment that starts with record `first`.
pub(super) fn file_name(first: Seq) -> String {
    format!("{:020}.seg", first.0)
}

/// The first record of a segment by its file name; `None` for other files.
pub(super) fn parse_name(name: &str) -> Option<Seq> {
    let digits = name.strip_suffix(".seg")?;
    let is_padded = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_padded.then(|| digits.parse().ok()).flatten().map(Seq)
}

/// A preallocated file without header, waiting to become a segment.
pub(super) struct Spare {
    path: PathBuf,
    file: std::sync::Arc<dyn FsFile>,
}

impl Spare {
    /// Reserves `size` bytes under a temporary name.
    ///
    /// # Errors
    ///
    /// `StorageFull`, or the storage failed. Nothing is left behind, as far as that is possible.
    pub(super) fn prepare_segment(fs: &dyn Fs, dir: &Path, name: &str, size: u64) -> io::Result<Self> {
        let path = dir.join(format!("{name}{TEMPORARY}"));
        let file = fs.create_file(&path)?;
        if let Err(error) = file.allocate(size).and_then(|()| file.sync()) {
            drop(file);
            // The first error is the one to report; a file that stays is removed when the log is opened.
            fs.remove_file(&path).ok();
            return Err(error);
        }
        Ok(Self { path, file })
    }

    /// Makes it the segment of `header`, durably, with room for `size` bytes.
    ///
    /// # Errors
    ///
    /// `StorageFull`, or the storage failed.
    pub(super) fn into_segment(
        self,
        fs: &dyn Fs,
        dir: &Path,
        header: &Header,
        size: u64,
    ) -> io::Result<std::sync::Arc<dyn FsFile>> {
        let made = self.write_header(fs, dir, header, size);
        if made.is_err() {
            // The first error is the one to report; a file that stays is removed when the log is opened.
            fs.remove_file(&self.path).ok();
        }
        made.map(|()| self.file)
    }

    fn write_header(&self, fs: &dyn Fs, dir: &Path, header: &Header, size: u64) -> io::Result<()> {
        if self.file.size()? < size {
            self.file.allocate(size)?;
        }
        self.file.write_at(&header.encode(), 0)?;
        self.file.sync()?;
        fs.rename_file(&self.path, &dir.join(file_name(header.first)))?;
        fs.sync_dir(dir)
    }
}

/// A part of a file in memory that moves forward with what is asked for.
pub(super) struct ReadWindow<'a> {
    file: &'a dyn FsFile,
    /// Nothing at or after this byte is read.
    end: u64,
    /// Read ahead by at least this much.
    ahead: usize,
    start: u64,
    filled: usize,
    buffer: Vec<u8>,
}

impl<'a> ReadWindow<'a> {
    pub(super) fn new(file: &'a dyn FsFile, end: u64, ahead: usize) -> Self {
        Self { file, end, ahead, start: 0, filled: 0, buffer: Vec::new() }
    }

    /// The `length` bytes at `at`; `None` when they are not all before the end.
    pub(super) fn bytes_at(&mut self, at: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let is_inside = at >= self.start && at + length as u64 <= self.start + self.filled as u64;
        if !is_inside && !self.refill_at(at, length)? {
            return Ok(None);
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.buffer.get(from..from.saturating_add(length)))
    }

    /// Moves the window to `at`; `false` when `length` bytes are not there.
    fn refill_at(&mut self, at: u64, length: usize) -> io::Result<bool> {
        let rest = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        if rest < length {
            return Ok(false);
        }
        let size = length.max(self.ahead).min(rest);
        if self.buffer.len() < size {
            self.buffer.resize(size, 0);
        }
        self.start = at;
        self.filled = 0;
        if let Some(target) = self.buffer.get_mut(..size) {
            self.filled = self.file.read_at(target, at)?;
        }
        Ok(self.filled >= length)
    }
}
