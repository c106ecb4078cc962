//! What readers and the writer share: which segments there are, how far they are durable, and which are open.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{LogStat, ReadError, ReadLimit, RecordBatch, TrimError};

use super::super::fs::{FileId, Fs, FsFile, check_name};
use super::super::high_water::EmbeddedLogMark;
use super::scan::{Index, SegmentExtent, index_segment};
use super::segment::{HEADER_BYTES, file_name};
use super::{EmbeddedLogOptions, LOCK_NAME};

/// Sealed segments kept open: replay reads one at a time, each runner of a lagging symbol perhaps another.
const OPEN_SEGMENTS_MAX: usize = 32;
/// A read of at most this much from an open segment is done on the caller's thread: some 10 µs from the page cache,
/// less than handing it to another thread costs.
const INLINE_BYTES_MAX: u64 = 64 << 10;

/// A segment that will not be written any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct SealedSegment {
    pub(super) first: Seq,
    /// The byte after its last frame.
    pub(super) end: u64,
}

/// The segment that is written.
pub(super) struct ActiveSegment {
    pub(super) first: Seq,
    pub(super) file: Arc<dyn FsFile>,
    /// Which file it is; none where nothing is written.
    pub(super) id: Option<FileId>,
    /// The byte after the last durable frame.
    pub(super) end: u64,
    /// The preallocated size.
    pub(super) size: u64,
    pub(super) index: Index,
}

/// The segments in order.
pub(super) struct Catalogue {
    pub(super) sealed: VecDeque<SealedSegment>,
    pub(super) active: ActiveSegment,
    /// The last durable record.
    pub(super) tail: Seq,
    /// Who may trim: the last writer that acquired the log in this process.
    pub(super) writer: Epoch,
}

impl Catalogue {
    /// The first record still there.
    pub(super) fn start_seq(&self) -> Seq {
        self.sealed.front().map_or(self.active.first, |oldest| oldest.first)
    }

    /// The first record that is left when everything below `below` is trimmed.
    fn start_after_trim(&self, below: Seq) -> Seq {
        let firsts = self.sealed.iter().map(|segment| segment.first).chain([self.active.first]);
        firsts.skip(1).take_while(|first| *first <= below).last().unwrap_or(self.start_seq())
    }

    /// Bytes of all sealed segments.
    pub(super) fn sealed_bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.end).sum()
    }

    /// The sealed segment that holds `seq`, with its last record.
    fn sealed_with(&self, seq: Seq) -> Option<(SealedSegment, Seq)> {
        let after = self.sealed.partition_point(|segment| segment.first <= seq);
        let segment = *self.sealed.get(after.checked_sub(1)?)?;
        let next = self.sealed.get(after).map_or(self.active.first, |next| next.first);
        Some((segment, Seq(next.0 - 1)))
    }
}

/// A sealed segment, open and indexed.
struct OpenSegment {
    first: Seq,
    end: u64,
    file: Arc<dyn FsFile>,
    index: Index,
}

/// Place of the records that a read wants.
pub(super) enum FramePlace {
    /// Nothing is there yet.
    PastTail,
    /// In memory reach: file open, index there.
    Ready(SegmentExtent),
    /// The segment must be opened and indexed first.
    Closed { segment: SealedSegment, last: Seq },
}

/// Lock and high-water mark that keep a log that is written in its place.
pub(super) struct HeldPlace {
    /// The lock file that is held.
    pub(super) lock: FileId,
    /// Where it is noted how far the log is durable.
    pub(super) mark: Option<EmbeddedLogMark>,
}

/// The shared part of a log.
pub(super) struct Store {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) log_id: u64,
    /// Where the log is written to while it is open for writing.
    pub(super) held: Option<HeldPlace>,
    catalogue: RwLock<Catalogue>,
    open: Mutex<VecDeque<Arc<OpenSegment>>>,
    trimming: Mutex<()>,
}

impl Store {
    /// The log in `dir` with what was found there; `held` where it is written.
    pub(super) fn new(
        dir: &Path,
        options: &EmbeddedLogOptions,
        log_id: u64,
        catalogue: Catalogue,
        held: Option<HeldPlace>,
    ) -> Self {
        Self {
            name: options.name.clone(),
            dir: dir.to_owned(),
            fs: Arc::clone(&options.fs),
            log_id,
            held,
            catalogue: RwLock::new(catalogue),
            open: Mutex::default(),
            trimming: Mutex::default(),
        }
    }

    // Each change of these values is a single step on valid data: they stay true after a panic.

    pub(super) fn catalogue(&self) -> RwLockReadGuard<'_, Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn catalogue_mut(&self) -> RwLockWriteGuard<'_, Catalogue> {
        self.catalogue.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_segments(&self) -> MutexGuard<'_, VecDeque<Arc<OpenSegment>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stat(&self) -> LogStat {
        let catalogue = self.catalogue();
        LogStat {
            start: catalogue.start_seq(),
            tail: catalogue.tail,
            bytes: catalogue.sealed_bytes() + catalogue.active.end,
        }
    }

    /// Checks that the segment that is written is still found by its name: in a directory that was removed, renamed or
    /// replaced a sync succeeds, and nobody finds the records any more. One system call, for each group.
    ///
    /// # Errors
    ///
    /// It is not, or the storage failed.
    pub(super) fn check_segment(&self) -> io::Result<()> {
        let (name, id) = {
            let catalogue = self.catalogue();
            (file_name(catalogue.active.first), catalogue.active.id)
        };
        id.map_or(Ok(()), |id| check_name(&*self.fs, &self.dir.join(name), id))
    }

    /// As [`check_segment`](Self::check_segment), and that the lock keeps a second writer out.
    ///
    /// # Errors
    ///
    /// As above.
    pub(super) fn check_place(&self) -> io::Result<()> {
        let Some(held) = &self.held else { return Ok(()) };
        self.check_segment()?;
        check_name(&*self.fs, &self.dir.join(LOCK_NAME), held.lock)
    }

    /// Notes outside the log that it is durable as it is; called behind its sync, before anybody is told.
    pub(super) fn note_mark(&self) -> io::Result<()> {
        let Some(mark) = self.outside_mark() else { return Ok(()) };
        let (tail, segment, end) = {
            let catalogue = self.catalogue();
            (catalogue.tail, catalogue.active.first, catalogue.active.end)
        };
        mark.note_change(self.log_id, |noted| {
            noted.tail = tail;
            noted.segment = segment;
            noted.end = end;
        })
    }

    /// As [`note_mark`](Self::note_mark), with the first record; on the disk when it returns.
    pub(super) fn note_whole_mark(&self) -> io::Result<()> {
        let Some(mark) = self.outside_mark() else { return Ok(()) };
        self.note_mark()?;
        let start = self.catalogue().start_seq();
        mark.note_durably(self.log_id, |noted| noted.start = start)
    }

    pub(super) fn outside_mark(&self) -> Option<&EmbeddedLogMark> {
        self.held.as_ref()?.mark.as_ref()
    }

    /// Finds record `from`.
    pub(super) fn locate_record(&self, from: Seq) -> Result<FramePlace, ReadError> {
        let catalogue = self.catalogue();
        let start = catalogue.start_seq();
        if from < start {
            return Err(ReadError::Trimmed { wanted: from, start });
        }
        if from > catalogue.tail {
            return Ok(FramePlace::PastTail);
        }
        let active = &catalogue.active;
        if from >= active.first {
            let frame = active.index.frame_at_or_before(from);
            let (first, at) = frame.unwrap_or((active.first, HEADER_BYTES));
            let (file, end) = (Arc::clone(&active.file), active.end);
            return Ok(FramePlace::Ready(SegmentExtent { file, log_id: self.log_id, first, at, end }));
        }
        let Some((segment, last)) = catalogue.sealed_with(from) else {
            return Err(ReadError::Trimmed { wanted: from, start });
        };
        drop(catalogue);
        Ok(match self.find_open(segment.first) {
            Some(open) => FramePlace::Ready(self.extent_of(&open, from)),
            None => FramePlace::Closed { segment, last },
        })
    }

    /// Whether a read from `extent` is short enough for the caller's thread.
    pub(super) fn is_short(extent: &SegmentExtent, limit: ReadLimit) -> bool {
        (limit.bytes as u64).min(extent.end - extent.at) <= INLINE_BYTES_MAX
    }

    /// Reads on this thread, however long it takes.
    pub(super) fn read_blocking(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        match self.locate_record(from)? {
            FramePlace::PastTail => Ok(RecordBatch::starting_at(from)),
            FramePlace::Ready(extent) => extent.read_records(from, limit),
            FramePlace::Closed { segment, last } => match self.open_sealed(segment, last) {
                Ok(open) => self.extent_of(&open, from).read_records(from, limit),
                // Trimmed between the look and the opening.
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    let start = self.catalogue().start_seq();
                    Err(if from < start { ReadError::Trimmed { wanted: from, start } } else { error.into() })
                }
                Err(error) => Err(error),
            },
        }
    }

    fn extent_of(&self, open: &OpenSegment, from: Seq) -> SegmentExtent {
        let (first, at) = open.index.frame_at_or_before(from).unwrap_or((open.first, HEADER_BYTES));
        SegmentExtent { file: Arc::clone(&open.file), log_id: self.log_id, first, at, end: open.end }
    }

    fn find_open(&self, first: Seq) -> Option<Arc<OpenSegment>> {
        let mut segments = self.open_segments();
        let at = segments.iter().position(|segment| segment.first == first)?;
        let found = segments.remove(at)?;
        segments.push_front(Arc::clone(&found));
        Some(found)
    }

    fn open_sealed(&self, segment: SealedSegment, last: Seq) -> Result<Arc<OpenSegment>, ReadError> {
        let file = self.fs.open_file(&self.dir.join(file_name(segment.first)))?;
        let index = index_segment(&*file, self.log_id, segment.first, last, segment.end)?;
        Ok(self.keep_open(segment, file, index))
    }

    /// Keeps a sealed segment open, and closes the one that was not used for longest.
    fn keep_open(&self, segment: SealedSegment, file: Arc<dyn FsFile>, index: Index) -> Arc<OpenSegment> {
        let open = Arc::new(OpenSegment { first: segment.first, end: segment.end, file, index });
        let mut segments = self.open_segments();
        segments.push_front(Arc::clone(&open));
        segments.truncate(OPEN_SEGMENTS_MAX);
        open
    }

    /// Makes `next` the active segment and seals the one before.
    pub(super) fn seal_active(&self, next: ActiveSegment) {
        let mut catalogue = self.catalogue_mut();
        let old = std::mem::replace(&mut catalogue.active, next);
        let sealed = SealedSegment { first: old.first, end: old.end };
        catalogue.sealed.push_back(sealed);
        drop(catalogue);
        self.keep_open(sealed, old.file, old.index);
    }

    /// Removes the sealed segments whose records are all below `below`, oldest first, as long as `epoch` is the writer.
    ///
    /// Each removal is durable before the next: a crash leaves no hole.
    pub(super) fn trim_segments(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        let _one_at_a_time = self.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_writer(&self.catalogue(), epoch)?;
        self.check_segment()?;
        if let Some(mark) = self.outside_mark() {
            // Before anything is removed: after a crash segments that are not there any more are not missed.
            let start = self.catalogue().start_after_trim(below);
            mark.note_durably(self.log_id, |noted| noted.start = noted.start.max(start))?;
        }
        loop {
            let mut catalogue = self.catalogue_mut();
            // Under the same lock as the removal from the catalogue: a later writer sees all of it or nothing.
            self.check_writer(&catalogue, epoch)?;
            let next_first = catalogue.sealed.get(1).map_or(catalogue.active.first, |next| next.first);
            let Some(oldest) = catalogue.sealed.front().copied().filter(|_| next_first <= below) else {
                return Ok(catalogue.start_seq());
            };
            catalogue.sealed.pop_front();
            drop(catalogue);
            self.open_segments().retain(|segment| segment.first != oldest.first);
            if let Err(error) = self.remove_durably(oldest.first) {
                // It stays in the catalogue: removing the next one now would leave a hole.
                self.catalogue_mut().sealed.push_front(oldest);
                return Err(error.into());
            }
        }
    }

    fn check_writer(&self, catalogue: &Catalogue, epoch: Epoch) -> Result<(), TrimError> {
        match catalogue.writer {
            current if epoch != current || current == Epoch(0) => {
                Err(TrimError::Fenced { mine: epoch, current })
            }
            _ => Ok(()),
        }
    }

    fn remove_durably(&self, first: Seq) -> io::Result<()> {
        match self.fs.remove_file(&self.dir.join(file_name(first))) {
            // An earlier attempt removed it and could not make that durable.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.fs.sync_dir(&self.dir)
    }
}
