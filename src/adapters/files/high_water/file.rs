//! One file of high-water marks: three slots a log, each in a block of its own.
//!
//! ```text
//! block 3·n + 0, 1, 2   the slots of log number n:  on the disk │ on its way there │ written since
//! ```
//!
//! A slot that is on the disk is not touched until another one is: no crash leaves a log without a mark. The mark in
//! force is the one that was written last, by its count.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::fs::{Fs, FsFile};
use super::slot::{SLOT_BYTES, TailMark, decode_slot, encode_slot};
use super::{LOGS, LOGS_OF_EVERY_SERVICE};

const BLOCK_BYTES: u64 = 4096;
const SLOTS: usize = 3;

/// Bytes of a file with room for the marks of `logs` logs.
const fn file_bytes(logs: usize) -> u64 {
    BLOCK_BYTES * (SLOTS * logs) as u64
}

/// A mark with the number of its writing: of two marks the higher number is the later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumberedMark {
    pub(super) writes: u64,
    pub(super) mark: TailMark,
}

/// The slots of one log.
#[derive(Clone, Copy, Debug, Default)]
struct Slots {
    last: Option<NumberedMark>,
    /// On the disk, if anything is.
    synced: usize,
    /// Takes the next write.
    written: usize,
    /// Something was written since the last sync began.
    is_due: bool,
}

impl Slots {
    /// The slots after `found` was read and synced.
    fn from_found(found: Option<(usize, NumberedMark)>) -> Self {
        let synced = found.map_or(0, |(slot, _)| slot);
        Self { last: found.map(|(_, last)| last), synced, written: (synced + 1) % SLOTS, is_due: false }
    }
}

/// An open file of marks.
pub(super) struct MarkFile {
    file: Arc<dyn FsFile>,
    logs: Mutex<[Slots; LOGS]>,
    syncing: Mutex<()>,
}

impl MarkFile {
    /// Opens the file `name` of `dir`, or creates it without a mark; durably.
    ///
    /// # Errors
    ///
    /// `StorageFull` when it must be created and there is no room; otherwise the storage failed.
    pub(super) fn open(fs: &dyn Fs, dir: &Path, name: &str) -> io::Result<Self> {
        let path = dir.join(name);
        let file = match fs.open_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs.create_file(&path)?,
            opened => opened?,
        };
        if file.size()? < file_bytes(LOGS_OF_EVERY_SERVICE) {
            file.allocate(file_bytes(LOGS_OF_EVERY_SERVICE))?;
        }
        let found = read_slots(&*file)?;
        // A process that was killed may have left a mark that is not on the disk yet.
        file.sync()?;
        fs.sync_dir(dir)?;
        Ok(Self { file, logs: Mutex::new(found.map(Slots::from_found)), syncing: Mutex::default() })
    }

    fn lock_slots(&self) -> MutexGuard<'_, [Slots; LOGS]> {
        // Changed by single steps on valid data: true after a panic too.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the file large enough for `logs` logs, durably.
    ///
    /// # Errors
    ///
    /// `StorageFull` when there is no room; otherwise the storage failed.
    pub(super) fn make_room(&self, logs: usize) -> io::Result<()> {
        if self.file.size()? < file_bytes(logs) {
            self.file.allocate(file_bytes(logs))?;
            self.file.sync()?;
        }
        Ok(())
    }

    /// The mark of log number `log`.
    pub(super) fn last_mark(&self, log: usize) -> Option<NumberedMark> {
        self.lock_slots().get(log).and_then(|slots| slots.last)
    }

    /// Writes what `change` makes of the mark of log number `log`, unless that is the same: it survives this process,
    /// and a power failure after the next [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// The storage failed; the mark before stays in force.
    pub(super) fn write_mark(
        &self,
        log: usize,
        change: impl FnOnce(Option<NumberedMark>) -> Option<NumberedMark>,
    ) -> io::Result<()> {
        let mut logs = self.lock_slots();
        let Some(slots) = logs.get_mut(log) else { return Ok(()) };
        let Some(next) = change(slots.last).filter(|next| Some(*next) != slots.last) else { return Ok(()) };
        self.put_slot(log, slots.written, next)?;
        slots.last = Some(next);
        slots.is_due = true;
        Ok(())
    }

    fn put_slot(
        &self,
        log: usize,
        slot: usize,
        NumberedMark { writes, mark }: NumberedMark,
    ) -> io::Result<()> {
        let number = u32::try_from(log).unwrap_or(u32::MAX);
        self.file.write_at(&encode_slot(number, &mark, writes), slot_offset(log, slot))
    }

    /// Brings every mark that was written onto the disk.
    ///
    /// # Errors
    ///
    /// The storage failed. The marks are written once more before the next sync, which could otherwise succeed without
    /// them.
    pub(super) fn sync_marks(&self) -> io::Result<()> {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut on_their_way = [None; LOGS];
        for ((log, slots), on_its_way) in self.lock_slots().iter_mut().enumerate().zip(&mut on_their_way) {
            if let (true, Some(last)) = (slots.is_due, slots.last) {
                self.put_slot(log, slots.written, last)?;
                *on_its_way = Some(slots.written);
                slots.written = other_than(slots.synced, slots.written);
                slots.is_due = false;
            }
        }
        if on_their_way.iter().all(Option::is_none) {
            return Ok(());
        }
        let synced = self.file.sync();
        for (slots, on_its_way) in self.lock_slots().iter_mut().zip(on_their_way) {
            match (on_its_way, &synced) {
                (Some(slot), Ok(())) => slots.synced = slot,
                (Some(_), Err(_)) => slots.is_due = true,
                (None, _) => {}
            }
        }
        synced
    }
}

/// The slot that is neither of two different ones.
fn other_than(one: usize, two: usize) -> usize {
    (0..SLOTS).find(|slot| *slot != one && *slot != two).unwrap_or_default()
}

fn slot_offset(log: usize, slot: usize) -> u64 {
    (log * SLOTS + slot) as u64 * BLOCK_BYTES
}

/// The mark in force of each log, with its slot.
fn read_slots(file: &dyn FsFile) -> io::Result<[Option<(usize, NumberedMark)>; LOGS]> {
    let mut found = [None; LOGS];
    for (log, found) in found.iter_mut().enumerate() {
        for slot in 0..SLOTS {
            let mut bytes = [0; SLOT_BYTES];
            let read = file.read_at(&mut bytes, slot_offset(log, slot))?;
            let number = u32::try_from(log).unwrap_or(u32::MAX);
            let decoded = if read == SLOT_BYTES { decode_slot(number, &bytes) } else { None };
            if let Some((writes, mark)) = decoded
                && found.is_none_or(|(_, last): (usize, NumberedMark)| last.writes < writes)
            {
                *found = Some((slot, NumberedMark { writes, mark }));
            }
        }
    }
    Ok(found)
}

/// The mark in force of each log in the file at `path`; no marks when it is not there.
pub(super) fn read_marks(fs: &dyn Fs, path: &Path) -> io::Result<[Option<NumberedMark>; LOGS]> {
    match fs.open_to_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok([None; LOGS]),
        file => Ok(read_slots(&*file?)?.map(|found| found.map(|(_, last)| last))),
    }
}
