//! The high-water marks of a data directory's logs: a log that comes back with less than was acknowledged is found out.
//!
//! ```text
//! DATA/high_water.marks         each mark is written behind the log's own sync and before the append is answered
//! DATA/runs/high_water.marks    the same, as of the last sync: the two are lost together only with the run log
//! ```
//!
//! A mark survives the end of the process at once. The disk has it within `SYNC_AFTER` and the time that two syncs
//! take: after a power failure it may be that much older than what was acknowledged. It is never ahead of the log.
//!
//! An append thus costs no further sync: one write into the page cache. A directory of before marks were kept has none;
//! then what is there is accepted, once.

mod file;
mod slot;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::LogName;
use tracing::{error, warn};

use super::fs::Fs;
use file::{MarkFile, NumberedMark};
pub(crate) use slot::TailMark;

/// The file's name, in both places.
pub const FILE_NAME: &str = "high_water.marks";

/// How long a mark may wait for the disk: with both files it is there within a second.
const SYNC_AFTER: Duration = Duration::from_millis(400);

/// Logs of a data directory, those of the trading plane among them.
const LOGS: usize = 9;
/// Logs that every service has; the files have room for the marks of these.
const LOGS_OF_EVERY_SERVICE: usize = 7;

/// A log of a data directory that has a mark. The number is its place in the file: never change one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkedLog {
    /// The receipt log.
    Receipts = 0,
    /// The run log.
    Runs = 1,
    /// The quarantine.
    Quarantine = 2,
    /// The log of manifests.
    Manifests = 3,
    /// The archive of the receipt log.
    ReceiptsArchive = 4,
    /// The archive of the run log.
    RunsArchive = 5,
    /// The archive of the quarantine.
    QuarantineArchive = 6,
    /// The journal.
    Journal = 7,
    /// The archive of the journal.
    JournalArchive = 8,
}

impl MarkedLog {
    /// The log of this name, if it has a mark.
    #[must_use]
    pub const fn of_log(name: LogName) -> Option<Self> {
        match name {
            LogName::Receipts => Some(Self::Receipts),
            LogName::Runs => Some(Self::Runs),
            LogName::Quarantine => Some(Self::Quarantine),
            LogName::Manifests => Some(Self::Manifests),
            LogName::Journal => Some(Self::Journal),
        }
    }

    /// The archive of the log of this name, if one is kept.
    #[must_use]
    pub const fn of_archive(name: LogName) -> Option<Self> {
        match name {
            LogName::Receipts => Some(Self::ReceiptsArchive),
            LogName::Runs => Some(Self::RunsArchive),
            LogName::Quarantine => Some(Self::QuarantineArchive),
            LogName::Journal => Some(Self::JournalArchive),
            LogName::Manifests => None,
        }
    }
}

/// The marks of all logs of one data directory, kept in two places.
pub struct HighWaterMarks {
    places: [PathBuf; 2],
    first: MarkFile,
    second: MarkFile,
    is_failing: AtomicBool,
}

impl HighWaterMarks {
    /// Opens both files below `data`, or creates them. Each gets the later mark of both, so that a file that is missing
    /// or old is made good by the other one.
    ///
    /// # Errors
    ///
    /// `StorageFull` when a file must be created and there is no room; otherwise the storage failed.
    pub fn open(fs: &dyn Fs, data: &Path) -> io::Result<Self> {
        let places = mark_paths(data);
        let [first, second] = [data.to_owned(), data.join("runs")];
        let first = MarkFile::open(fs, &first, FILE_NAME)?;
        let second = MarkFile::open(fs, &second, FILE_NAME)?;
        let this = Self { places, first, second, is_failing: AtomicBool::new(false) };
        for log in 0..LOGS {
            let later = later_mark(this.first.last_mark(log), this.second.last_mark(log));
            this.first.write_mark(log, |_| later)?;
            this.second.write_mark(log, |_| later)?;
        }
        this.first.sync_marks()?;
        this.second.sync_marks()?;
        Ok(this)
    }

    /// Makes room for the marks of the journal and of its archive, durably. A service without a trading plane has none
    /// and its files stay as they are.
    ///
    /// # Errors
    ///
    /// `StorageFull` when there is no room; otherwise the storage failed.
    pub fn make_room_for_journal(&self) -> io::Result<()> {
        self.first.make_room(LOGS)?;
        self.second.make_room(LOGS)
    }

    /// The mark of one log, for its writer.
    #[must_use]
    pub fn log_mark(self: &Arc<Self>, log: MarkedLog) -> EmbeddedLogMark {
        let found = self.first.last_mark(log as usize).map(|last| last.mark);
        EmbeddedLogMark { places: self.places.clone(), found, kept: Some((Arc::clone(self), log as usize)) }
    }

    /// Brings what was written onto the disk, first here, then in the second place.
    ///
    /// # Errors
    ///
    /// The storage failed.
    pub(crate) fn sync_both(&self) -> io::Result<()> {
        self.first.sync_marks()?;
        for log in 0..LOGS {
            let last = self.first.last_mark(log);
            self.second.write_mark(log, |_| last)?;
        }
        self.second.sync_marks()
    }

    /// A log goes on without marks: they only help to see a later loss. Says so once, until it works again.
    fn sync_or_warn(&self) {
        let synced = self.sync_both();
        let was_failing = self.is_failing.swap(synced.is_err(), Ordering::Relaxed);
        if let (Err(cause), false) = (synced, was_failing) {
            let [first, second] = &self.places;
            error!(
                file = %first.display(), second = %second.display(), error = %cause,
                "cannot keep the high-water marks of the logs; a loss of their end would not be noticed"
            );
        }
    }
}

/// Marks read without changing anything, for whoever only looks at a data directory.
pub struct FoundMarks {
    places: [PathBuf; 2],
    found: [Option<NumberedMark>; LOGS],
}

impl FoundMarks {
    /// Reads the marks below `data`, the later one of each log.
    ///
    /// # Errors
    ///
    /// The storage failed.
    pub fn read(fs: &dyn Fs, data: &Path) -> io::Result<Self> {
        let places = mark_paths(data);
        let [mut found, second] = [file::read_marks(fs, &places[0])?, file::read_marks(fs, &places[1])?];
        for (found, second) in found.iter_mut().zip(second) {
            *found = later_mark(*found, second);
        }
        Ok(Self { places, found })
    }

    /// The mark of one log, for a reader.
    #[must_use]
    pub fn log_mark(&self, log: MarkedLog) -> EmbeddedLogMark {
        let found = self.found.get(log as usize).copied().flatten().map(|last| last.mark);
        EmbeddedLogMark { places: self.places.clone(), found, kept: None }
    }
}

/// The mark of one log: what was found of it, and the place where its writer keeps it.
#[derive(Clone)]
pub struct EmbeddedLogMark {
    places: [PathBuf; 2],
    found: Option<TailMark>,
    kept: Option<(Arc<HighWaterMarks>, usize)>,
}

impl EmbeddedLogMark {
    /// The mark as it was when the data directory was opened; nothing when none is kept yet.
    pub(crate) const fn found_mark(&self) -> Option<TailMark> {
        self.found
    }

    /// Whether the log must have records, by the mark as it was found.
    #[must_use]
    pub fn promises_records(&self) -> bool {
        self.found.is_some_and(|mark| Seq(0) < mark.tail)
    }

    /// The mark of a log that is begun anew in the place of another one.
    #[must_use]
    pub fn without_found(self) -> Self {
        Self { found: None, ..self }
    }

    /// Both files, for people.
    pub(crate) fn places_text(&self) -> String {
        let [first, second] = &self.places;
        format!("{} or {}", first.display(), second.display())
    }

    /// Notes what `change` makes of the mark; survives this process.
    pub(crate) fn note_change(&self, log_id: u64, change: impl FnOnce(&mut TailMark)) -> io::Result<()> {
        let Some((marks, log)) = &self.kept else { return Ok(()) };
        marks.first.write_mark(*log, |last| {
            let known = last.map(|last| last.mark).filter(|mark| mark.log_id == log_id);
            let none = TailMark { log_id, tail: Seq(0), start: Seq(0), segment: Seq(0), end: 0 };
            let mut mark = known.unwrap_or(none);
            change(&mut mark);
            let writes = last.map_or(0, |last| last.writes);
            match known == Some(mark) {
                true => last,
                false => Some(NumberedMark { writes: writes + 1, mark }),
            }
        })
    }

    /// As [`note`](Self::note), on the disk in both places when it returns.
    pub(crate) fn note_durably(&self, log_id: u64, change: impl FnOnce(&mut TailMark)) -> io::Result<()> {
        self.note_change(log_id, change)?;
        self.kept.as_ref().map_or(Ok(()), |(marks, _)| marks.sync_both())
    }
}

fn mark_paths(data: &Path) -> [PathBuf; 2] {
    [data.join(FILE_NAME), data.join("runs").join(FILE_NAME)]
}

fn later_mark(one: Option<NumberedMark>, two: Option<NumberedMark>) -> Option<NumberedMark> {
    [one, two].into_iter().flatten().max_by_key(|numbered| numbered.writes)
}

/// Keeps marks on their way to the disk, in a thread of its own, until it is dropped.
pub struct MarkKeeper {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MarkKeeper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// No thread could be started.
    pub fn start(marks: Arc<HighWaterMarks>) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new().name("high-water".to_owned()).spawn(move || {
            while stopped.recv_timeout(SYNC_AFTER) == Err(RecvTimeoutError::Timeout) {
                marks.sync_or_warn();
            }
            marks.sync_or_warn();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for MarkKeeper {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the keeper of the high-water marks panicked");
        }
    }
}
