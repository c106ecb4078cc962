//! The log's small memory beside its segments: who wrote last, and how far the log is known to have been durable.
//!
//! ```text
//!   0  "orchmeta"         8  format version u32     12  flags u32     16  log id u64     24  epoch u64
//!  32  high water u64    40  active segment's first record u64  48  crc u32 of bytes 0 … 48, zeros u32
//! ```
//!
//! Flag 1: a high-water mark of this log is kept beside it. An older binary writes zeros there, and keeps no mark.
//!
//! It is replaced as a whole (write, sync, rename, sync), so that no crash can damage it: a damaged one is refused.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_kernel::ids::{Epoch, Seq};

use super::super::bytes::{u32_at, u64_at};
use super::super::fs::{Fs, read_small};
use super::super::reserve::replace_with_reserve;

/// The file's name.
pub(super) const FILE_NAME: &str = "meta";

const MAGIC: [u8; 8] = *b"orchmeta";
const VERSION: u32 = 1;
const BYTES: usize = 56;
const CRC_AT: usize = 48;
const MARKED: u32 = 1;

/// Facts that a log remembers beside its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogMeta {
    /// Random; every segment and frame names it, so that files of another log are not taken for this one's.
    pub(super) log_id: u64,
    /// The last writer's generation.
    pub(super) epoch: Epoch,
    /// Records up to here are known durable. May lag.
    pub(super) high_water: Seq,
    /// The segment that starts with this record is durable, or was trimmed. May lag.
    pub(super) active_first: Seq,
    /// The log's last writer kept a high-water mark outside the log.
    pub(super) is_marked: bool,
}

/// Reason for which the file is not usable.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MetaError {
    Damaged,
    UnknownVersion(u32),
}

impl LogMeta {
    pub(super) fn encode(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let mut put = |at: usize, field: &[u8]| {
            bytes.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
        };
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &if self.is_marked { MARKED } else { 0 }.to_le_bytes());
        put(16, &self.log_id.to_le_bytes());
        put(24, &self.epoch.0.to_le_bytes());
        put(32, &self.high_water.0.to_le_bytes());
        put(40, &self.active_first.0.to_le_bytes());
        let crc = crc32c::crc32c(bytes.get(..CRC_AT).unwrap_or_default());
        bytes.iter_mut().skip(CRC_AT).zip(crc.to_le_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, MetaError> {
        let covered = bytes.get(..CRC_AT).ok_or(MetaError::Damaged)?;
        let is_whole = bytes.len() == BYTES && bytes.starts_with(&MAGIC) && u32_at(bytes, CRC_AT + 4) == 0;
        if !is_whole || u32_at(bytes, CRC_AT) != crc32c::crc32c(covered) {
            return Err(MetaError::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => Ok(Self {
                log_id: u64_at(bytes, 16),
                epoch: Epoch(u64_at(bytes, 24)),
                high_water: Seq(u64_at(bytes, 32)),
                active_first: Seq(u64_at(bytes, 40)),
                is_marked: u32_at(bytes, 12) & MARKED == MARKED,
            }),
            newer => Err(MetaError::UnknownVersion(newer)),
        }
    }

    /// Reads the file of the log in `dir`; `None` when there is none.
    pub(super) fn load(fs: &dyn Fs, dir: &Path) -> io::Result<Option<Result<Self, MetaError>>> {
        // A larger file is damaged too; 4096 only bounds what is read.
        Ok(read_small(fs, &dir.join(FILE_NAME), 4096)?.map(|bytes| Self::parse(&bytes)))
    }
}

/// The file, kept in step with what is known. Shared by the writer and its housekeeping.
pub(super) struct MetaFile {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    saved: Mutex<LogMeta>,
}

impl MetaFile {
    /// `saved` is what the file holds, or what it is to hold after the first change.
    pub(super) fn new(fs: Arc<dyn Fs>, dir: PathBuf, saved: LogMeta) -> Self {
        Self { fs, dir, saved: Mutex::new(saved) }
    }

    /// Starts the next epoch, durably. `is_marked`: its writer keeps a high-water mark, which is there already.
    pub(super) fn next_epoch(&self, is_marked: bool) -> io::Result<Epoch> {
        let saved = self.change_and_save(|meta| {
            meta.epoch = meta.epoch.next();
            meta.is_marked = is_marked;
        })?;
        Ok(saved.epoch)
    }

    /// Remembers that records up to `tail` are durable, and the segment that starts with `active_first`.
    pub(super) fn note_durable(&self, tail: Seq, active_first: Seq) -> io::Result<()> {
        self.change_and_save(|meta| {
            meta.high_water = meta.high_water.max(tail);
            meta.active_first = meta.active_first.max(active_first);
        })
        .map(|_| ())
    }

    fn change_and_save(&self, change: impl FnOnce(&mut LogMeta)) -> io::Result<LogMeta> {
        // The value is replaced in one step, after the file: it stays true after a caller's panic.
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut meta = *saved;
        change(&mut meta);
        if meta != *saved {
            replace_with_reserve(&*self.fs, &self.dir, FILE_NAME, &meta.encode())?;
            *saved = meta;
        }
        Ok(meta)
    }
}
