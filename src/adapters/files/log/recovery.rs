//! Opening a log: check what is there, find its end, refuse what a crash cannot explain.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::AcquireError;
use tracing::warn;

use super::super::fs::{Fs, FsFile, TEMPORARY, is_full};
use super::super::high_water::{EmbeddedLogMark, TailMark};
use super::super::read_only::NoFile;
use super::EmbeddedLogOptions;
use super::meta::{self, LogMeta, MetaError};
use super::scan::{Scan, check_last, ends_with_frame};
use super::segment::{self, HEADER_BYTES, Header, HeaderError, Spare, file_name, parse_name};
use super::store::{ActiveSegment, Catalogue, SealedSegment};

/// State of the log as its opening found it.
pub(super) struct Recovered {
    pub(super) catalogue: Catalogue,
    pub(super) meta: LogMeta,
    /// Bytes behind the last whole write; they were removed unless the log was only looked at.
    pub(super) torn_bytes: u64,
    /// Where the last frame of the active segment starts; 0 when there is none.
    pub(super) last_at: u64,
}

/// Opens the log in `dir`, which is locked; creates it when there is nothing.
pub(super) fn recover_log(dir: &Path, options: &EmbeddedLogOptions) -> Result<Recovered, AcquireError> {
    Recovery { dir, options, fs: &*options.fs, may_write: true }.run_recovery()
}

/// As [`recover`], without changing anything: what is torn stays and is only passed over.
pub(super) fn inspect_log(dir: &Path, options: &EmbeddedLogOptions) -> Result<Recovered, AcquireError> {
    Recovery { dir, options, fs: &*options.fs, may_write: false }.run_recovery()
}

struct Recovery<'a> {
    dir: &'a Path,
    options: &'a EmbeddedLogOptions,
    fs: &'a dyn Fs,
    may_write: bool,
}

struct Listed {
    first: Seq,
    file: Arc<dyn FsFile>,
    header: Header,
}

impl Recovery<'_> {
    fn run_recovery(&self) -> Result<Recovered, AcquireError> {
        let meta = self.load_meta()?;
        self.check_mark_is_there(meta)?;
        let firsts = self.list_segments().map_err(|error| self.io_error(error))?;
        let Some((last_first, sealed_firsts)) = firsts.split_last() else {
            return self.create_log(meta);
        };
        let mut sealed = VecDeque::with_capacity(sealed_firsts.len());
        let mut previous: Option<Listed> = None;
        for first in sealed_firsts {
            let listed = self.open_after(previous.as_ref(), *first, &mut sealed)?;
            sealed.push_back(SealedSegment { first: *first, end: HEADER_BYTES });
            previous = Some(listed);
        }
        let last = self.open_after(previous.as_ref(), *last_first, &mut sealed)?;
        let oldest = firsts.first().copied().unwrap_or(last.first);
        self.check_start(oldest, meta, &last)?;
        let meta = self.check_meta(meta, &last)?;
        let scan = self.check_active(&last)?;
        self.finish_recovery(sealed, last, scan, meta)
    }

    /// The first records of all segments, in order. Temporary files of a crashed process are removed.
    fn list_segments(&self) -> io::Result<Vec<Seq>> {
        let mut firsts = Vec::new();
        let names = match self.fs.list_dir(self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.may_write => Vec::new(),
            names => names?,
        };
        for name in names {
            if name.ends_with(TEMPORARY) {
                if self.may_write {
                    self.fs.remove_file(&self.dir.join(name))?;
                }
            } else if let Some(first) = parse_name(&name) {
                firsts.push(first);
            }
        }
        firsts.sort_unstable();
        Ok(firsts)
    }

    fn load_meta(&self) -> Result<Option<LogMeta>, AcquireError> {
        match LogMeta::load(self.fs, self.dir).map_err(|error| self.io_error(error))?.transpose() {
            Ok(meta) => Ok(meta),
            Err(MetaError::UnknownVersion(found)) => Err(self.unknown_version(found)),
            Err(MetaError::Damaged) => {
                let detail =
                    "it fails its checksum, which no crash causes; remove it only if the disk is sound";
                Err(self.corrupt_error(meta::FILE_NAME, 0, detail.to_owned()))
            }
        }
    }

    /// The mark outside the log, if it promises any record.
    fn promised_mark(&self) -> Option<TailMark> {
        self.options.mark.as_ref().and_then(EmbeddedLogMark::found_mark).filter(|mark| mark.tail > Seq(0))
    }

    /// A log whose last writer kept a mark must have one: without it nobody would notice that records are missing.
    fn check_mark_is_there(&self, meta: Option<LogMeta>) -> Result<(), AcquireError> {
        match &self.options.mark {
            Some(mark) if mark.found_mark().is_none() && meta.is_some_and(|meta| meta.is_marked) => {
                let detail =
                    format!("the high-water mark of this log is gone: {} must have it", mark.places_text());
                Err(self.corrupt_error(meta::FILE_NAME, 12, detail))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The log must be the one that the mark is about, and begin no later than it was trimmed.
    fn check_start(&self, oldest: Seq, meta: Option<LogMeta>, last: &Listed) -> Result<(), AcquireError> {
        let Some(mark) = self.promised_mark() else { return Ok(()) };
        let found = last.header.log_id;
        if found != mark.log_id {
            let detail = format!(
                "it belongs to log {found:016x}, the high-water mark to {:016x}, with record {}",
                mark.log_id, mark.tail
            );
            return Err(self.corrupt_error(&file_name(last.first), 16, detail));
        }
        // A writer that kept no mark, of an older binary, may have trimmed since.
        let is_known = meta.is_none_or(|meta| meta.is_marked);
        if is_known && mark.start < oldest {
            let detail = format!("it is missing, and was not trimmed: records begin with {oldest}");
            return Err(self.corrupt_error(&file_name(mark.start), 0, detail));
        }
        Ok(())
    }

    /// Every record up to the mark was durable: no crash takes one of them away.
    fn check_tail(&self, last: &Listed, scan: &Scan) -> Result<(), AcquireError> {
        let Some(mark) = self.promised_mark().filter(|mark| scan.last < mark.tail) else { return Ok(()) };
        let TailMark { tail, segment, end, .. } = mark;
        if last.first < segment {
            let detail = format!("it is missing, and held records up to {tail}");
            return Err(self.corrupt_error(&file_name(segment), 0, detail));
        }
        let detail = match last.first == segment {
            true => format!("records end with {}, but {tail}, up to byte {end}, was durable", scan.last),
            false => format!("records end with {}, but {tail} was durable", scan.last),
        };
        Err(self.corrupt_error(&file_name(last.first), scan.end, detail))
    }

    /// A new log with its first, empty segment.
    fn create_log(&self, meta: Option<LogMeta>) -> Result<Recovered, AcquireError> {
        if let Some(mark) = self.promised_mark() {
            let detail = format!(
                "all segments are gone, but record {} was durable, up to byte {} of this one",
                mark.tail, mark.end
            );
            return Err(self.corrupt_error(&file_name(mark.segment), 0, detail));
        }
        if let Some(meta) = meta.filter(|meta| meta.high_water > Seq(0)) {
            let detail = format!(
                "all segments are gone, but record {} is known to have been durable",
                meta.high_water
            );
            return Err(self.corrupt_error(&file_name(Seq(1)), 0, detail));
        }
        let meta = meta.unwrap_or_else(|| LogMeta {
            log_id: random_id(),
            epoch: Epoch(0),
            high_water: Seq(0),
            active_first: Seq(0),
            is_marked: false,
        });
        if !self.may_write {
            let file = Arc::new(NoFile);
            let active = ActiveSegment {
                first: Seq(1),
                file,
                id: None,
                end: HEADER_BYTES,
                size: 0,
                index: Default::default(),
            };
            let catalogue = Catalogue { sealed: VecDeque::new(), active, tail: Seq(0), writer: Epoch(0) };
            return Ok(Recovered { catalogue, meta, torn_bytes: 0, last_at: 0 });
        }
        let size = self.options.segment_bytes();
        let first = self.options.first.max(Seq(1));
        let header =
            Header { log_id: meta.log_id, first, previous_first: Seq(0), previous_end: 0, previous_last: 0 };
        let file = Spare::prepare_segment(self.fs, self.dir, "spare-0", size)
            .and_then(|spare| spare.into_segment(self.fs, self.dir, &header, size))
            .map_err(|error| self.io_error(error))?;
        let id = Some(file.file_id().map_err(|error| self.io_error(error))?);
        let active = ActiveSegment { first, file, id, end: HEADER_BYTES, size, index: Default::default() };
        let catalogue =
            Catalogue { sealed: VecDeque::new(), active, tail: Seq(first.0 - 1), writer: Epoch(0) };
        Ok(Recovered { catalogue, meta, torn_bytes: 0, last_at: 0 })
    }

    /// Opens the segment after `previous`, and notes where that one ends: only this header tells it.
    fn open_after(
        &self,
        previous: Option<&Listed>,
        first: Seq,
        sealed: &mut VecDeque<SealedSegment>,
    ) -> Result<Listed, AcquireError> {
        let listed = self.open_segment(first)?;
        self.check_link(previous, &listed)?;
        if let Some(before) = sealed.back_mut() {
            before.end = listed.header.previous_end;
        }
        Ok(listed)
    }

    fn open_segment(&self, first: Seq) -> Result<Listed, AcquireError> {
        let name = file_name(first);
        let file = self.fs.open_file(&self.dir.join(&name)).map_err(|error| self.io_error(error))?;
        match Header::read(&*file).map_err(|error| self.io_error(error))? {
            Ok(header) if header.first == first => Ok(Listed { first, file, header }),
            Ok(header) => Err(self.corrupt_error(
                &name,
                24,
                format!("its header says that it starts with {}", header.first),
            )),
            Err(HeaderError::UnknownVersion(found)) => Err(self.unknown_version(found)),
            Err(HeaderError::Damaged) => {
                Err(self.corrupt_error(&name, 0, "its header fails its checksum".to_owned()))
            }
        }
    }

    /// Each segment must name the one before it, and that one must be as long as it says.
    fn check_link(&self, previous: Option<&Listed>, next: &Listed) -> Result<(), AcquireError> {
        // Before the oldest there may be more that was trimmed.
        let Some(previous) = previous else { return Ok(()) };
        let name = file_name(next.first);
        if next.header.log_id != previous.header.log_id {
            return Err(self.corrupt_error(&name, 16, "it belongs to another log".to_owned()));
        }
        if next.header.previous_first != previous.first {
            let missing = file_name(next.header.previous_first);
            return Err(self.corrupt_error(
                &name,
                32,
                format!("the segment before it, {missing}, is missing"),
            ));
        }
        let size = previous.file.size().map_err(|error| self.io_error(error))?;
        if size < next.header.previous_end {
            let detail = format!("the file ends there, its records end at byte {}", next.header.previous_end);
            return Err(self.corrupt_error(&file_name(previous.first), size, detail));
        }
        self.check_sealed_end(previous, next)
    }

    /// The last frame of a sealed segment must be where the next segment says: an earlier state of the file, or one
    /// whose end is zeros or noise, has another one there or none.
    fn check_sealed_end(&self, previous: &Listed, next: &Listed) -> Result<(), AcquireError> {
        let Header { log_id, first, previous_end, previous_last, .. } = next.header;
        let last = Seq(first.0 - 1);
        let is_there = previous_last == 0
            || ends_with_frame(&*previous.file, log_id, previous_last, last, previous_end)
                .map_err(|error| self.io_error(error))?;
        if is_there {
            return Ok(());
        }
        let detail = format!("record {last} must be in the batch there, with which the segment ends");
        Err(self.corrupt_error(&file_name(previous.first), previous_last, detail))
    }

    fn check_meta(&self, meta: Option<LogMeta>, last: &Listed) -> Result<LogMeta, AcquireError> {
        let log_id = last.header.log_id;
        match meta {
            Some(meta) if meta.log_id == log_id => Ok(meta),
            Some(meta) => {
                let detail =
                    format!("it belongs to log {log_id:016x}, {} to {:016x}", meta::FILE_NAME, meta.log_id);
                Err(self.corrupt_error(&file_name(last.first), 16, detail))
            }
            None => {
                warn!(log = %self.options.name, "log has no record of how far it was durable, accepting what is there");
                Ok(LogMeta {
                    log_id,
                    epoch: Epoch(0),
                    high_water: Seq(0),
                    active_first: Seq(0),
                    is_marked: false,
                })
            }
        }
    }

    fn check_active(&self, last: &Listed) -> Result<Scan, AcquireError> {
        match check_last(&*last.file, last.first, last.header.log_id).map_err(|error| self.io_error(error))? {
            Ok(scan) => Ok(scan),
            Err(damage) => Err(self.corrupt_error(&file_name(last.first), damage.at, damage.detail)),
        }
    }

    fn finish_recovery(
        &self,
        sealed: VecDeque<SealedSegment>,
        last: Listed,
        scan: Scan,
        mut meta: LogMeta,
    ) -> Result<Recovered, AcquireError> {
        self.check_tail(&last, &scan)?;
        if scan.last < meta.high_water {
            let detail = format!(
                "records end with {}, but {} is known to have been durable",
                scan.last, meta.high_water
            );
            return Err(self.corrupt_error(&file_name(last.first), scan.end, detail));
        }
        if last.first < meta.active_first {
            let detail = "it is missing, but is known to have been durable".to_owned();
            return Err(self.corrupt_error(&file_name(meta.active_first), 0, detail));
        }
        if scan.torn_bytes > 0 && self.may_write {
            warn!(
                log = %self.options.name, at = scan.end, bytes = scan.torn_bytes, tail = %scan.last,
                "removing what follows the last whole write"
            );
        }
        let size = match self.may_write {
            true => self.restore_room(&*last.file, &scan).map_err(|error| self.io_error(error))?,
            false => scan.end,
        };
        meta.epoch = meta.epoch.max(scan.epoch);
        let id = match self.may_write {
            true => Some(last.file.file_id().map_err(|error| self.io_error(error))?),
            false => None,
        };
        let active =
            ActiveSegment { first: last.first, file: last.file, id, end: scan.end, size, index: scan.index };
        let catalogue = Catalogue { sealed, active, tail: scan.last, writer: Epoch(0) };
        Ok(Recovered { catalogue, meta, torn_bytes: scan.torn_bytes, last_at: scan.last_at })
    }

    /// Makes sure that what was found is durable and what is torn is gone, and reserves the segment's room again;
    /// returns its size.
    ///
    /// - The last group is written once more. It may be in memory only, and if a sync failed in an earlier process, the
    ///   system may take it for written: a sync alone would then say yes without doing anything.
    /// - Torn bytes must be gone before anything is appended: a whole frame among them could otherwise come to life
    ///   again behind a new one of the right length.
    fn restore_room(&self, file: &dyn FsFile, scan: &Scan) -> io::Result<u64> {
        if scan.torn_bytes > 0 {
            file.truncate(scan.end)?;
        }
        rewrite_range(file, scan.group_at, scan.end)?;
        file.sync()?;
        self.fs.sync_dir(self.dir)?;
        let size = file.size()?;
        let wanted = self.options.segment_bytes();
        if size >= wanted {
            return Ok(size);
        }
        match file.allocate(wanted).and_then(|()| file.sync()) {
            Ok(()) => Ok(wanted),
            // A full disk is no reason not to start: reading works, appends say so.
            Err(error) if is_full(&error) => file.size(),
            Err(error) => Err(error),
        }
    }

    fn corrupt_error(&self, file: &str, byte: u64, detail: String) -> AcquireError {
        let place = format!("{} byte {byte}", self.dir.join(file).display());
        AcquireError::Corrupt { log: self.options.name.clone(), place, detail }
    }

    fn unknown_version(&self, found: u32) -> AcquireError {
        AcquireError::UnknownVersion { log: self.options.name.clone(), found, known: segment::VERSION }
    }

    fn io_error(&self, source: io::Error) -> AcquireError {
        AcquireError::Io { log: self.options.name.clone(), source }
    }
}

/// Writes the bytes `from` … `to` of a file over themselves.
fn rewrite_range(file: &dyn FsFile, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = from;
    while at < to {
        let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        if file.read_at(part, at)? < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_at(part, at)?;
        at += wanted as u64;
    }
    Ok(())
}

/// A number that no other log has; not a secret.
fn random_id() -> u64 {
    // The standard library's per-process random keys, without another dependency.
    RandomState::new().build_hasher().finish()
}
