//! The capture file itself: opening, recognising its compression, counting bytes, noticing that it was replaced.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestrator_kernel::foreign_format::{BYTE_ORDER_MARK, ForeignFormat};
use orchestrator_kernel::ports::source::SourceError;

use super::super::fs::FileId;
use super::gzip::GzipMembers;
use super::{fatal_error, lost_error};

/// Bytes that are read at once from the file, and decompressed at once.
const BUFFER_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Plain,
    Gzip,
    Zstd,
}

impl Compression {
    /// What the name promises.
    fn of_name(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            Some(_) | None => Self::Plain,
        }
    }

    /// What the first bytes say.
    ///
    /// # Errors
    ///
    /// A format that holds no lines: cut into lines it would be quarantined in shreds.
    fn of_start(start: &[u8]) -> Result<Self, ForeignFormat> {
        match ForeignFormat::recognise_format(start) {
            None => Ok(Self::Plain),
            Some(ForeignFormat::Gzip) => Ok(Self::Gzip),
            Some(ForeignFormat::Zstd) => Ok(Self::Zstd),
            Some(other) => Err(other),
        }
    }
}

/// A text of lines that tells what it can give without waiting.
pub(super) trait CaptureText: BufRead + Send {
    /// Bytes that are here already.
    fn buffered_bytes(&self) -> &[u8];
}

impl CaptureText for Counted {
    fn buffered_bytes(&self) -> &[u8] {
        self.inner.buffer()
    }
}

impl<R: Read + Send> CaptureText for BufReader<R> {
    fn buffered_bytes(&self) -> &[u8] {
        self.buffer()
    }
}

impl CaptureText for Box<dyn CaptureText> {
    fn buffered_bytes(&self) -> &[u8] {
        (**self).buffered_bytes()
    }
}

/// An open capture: the text to read, and the file below it.
pub(super) struct OpenCapture {
    /// The decompressed text.
    pub(super) text: Box<dyn CaptureText>,
    /// A pipe, a FIFO, a terminal: lines come when somebody writes them, and cannot be read twice.
    pub(super) is_stream: bool,
    /// The file, for errors and for following.
    pub(super) place: CapturePlace,
}

/// Position of the reader: the file, and the bytes that were read of it.
pub(super) struct CapturePlace {
    path: PathBuf,
    file_id: FileId,
    bytes_read: Arc<AtomicU64>,
}

/// Opens `path` and decides by its first bytes how to read it; a name that promises something else is refused. The
/// bytes that are read of it are counted in `bytes_read`.
///
/// # Errors
///
/// [`SourceError::Fatal`]; [`SourceError::Lost`] when a file to follow does not exist yet.
pub(super) fn open_capture(
    path: &Path,
    follow: bool,
    bytes_read: Arc<AtomicU64>,
) -> Result<OpenCapture, SourceError> {
    let failed = |error: io::Error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let detail = format!("cannot open {}: {error}; check the path and its permissions", path.display());
        if missing && follow { lost_error(detail) } else { fatal_error(detail) }
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    bytes_read.store(0, Ordering::Relaxed);
    let is_stream = !metadata.is_file();
    let mut raw = Counted::new(file, !is_stream, Arc::clone(&bytes_read));
    let foreign = |format: ForeignFormat| {
        fatal_error(format!(
            "{} is {}, not one receipt a line: {}",
            path.display(),
            format.name(),
            format.conversion_advice()
        ))
    };
    let found = Compression::of_start(raw.fill_buf().map_err(failed)?).map_err(foreign)?;
    let named = Compression::of_name(path);
    if named != Compression::Plain && named != found {
        return Err(fatal_error(format!(
            "{} is named like a compressed file but does not begin like one; rename it or restore it",
            path.display()
        )));
    }
    if follow && found != Compression::Plain {
        return Err(fatal_error(format!(
            "{} is compressed; only a plain file can be followed",
            path.display()
        )));
    }
    let mut text: Box<dyn CaptureText> = match found {
        Compression::Plain => Box::new(raw),
        Compression::Gzip => Box::new(BufReader::with_capacity(BUFFER_BYTES, GzipMembers::new(raw))),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(failed)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
    };
    // What is packed shows what it is at its own beginning; a torn one is told when its lines are read.
    if let Ok(start) = text.fill_buf() {
        Compression::of_start(start).map_err(foreign)?;
        if start.starts_with(BYTE_ORDER_MARK) {
            text.consume(BYTE_ORDER_MARK.len());
        }
    }
    let place = CapturePlace { path: path.to_owned(), file_id: file_id_of(&metadata), bytes_read };
    Ok(OpenCapture { text, place, is_stream })
}

impl CapturePlace {
    /// The error for a read that failed after `position` items.
    ///
    /// What the system says may pass ([`SourceError::Lost`]); what a decoder says stays as it is.
    pub(super) fn read_failed(&self, error: &io::Error, position: u64) -> SourceError {
        let place = format!(
            "{} cannot be read beyond byte {}, after {position} whole items: {error}",
            self.path.display(),
            self.bytes_read.load(Ordering::Relaxed),
        );
        match error.raw_os_error() {
            Some(_) => lost_error(place),
            None => fatal_error(format!(
                "{place}; the file is cut off or damaged: restore it under the same name and restart, \
                 the items so far are not read twice"
            )),
        }
    }

    /// The error for a file that has fewer items than the log already took from it.
    pub(super) fn too_short(&self, position: u64, resume: u64) -> SourceError {
        fatal_error(format!(
            "{} has {position} items, but the log already holds {resume} of this source: it is not the file that was \
             read before; restore that one, or give the new file to a source with another name",
            self.path.display()
        ))
    }

    /// The error for a file whose line at `position` is not the one that was read there.
    pub(super) fn is_another(&self, position: u64, resume: u64) -> SourceError {
        fatal_error(format!(
            "{} is another file than the one that was read before under this name: its line {position} is not the one that \
             the log holds, which has {resume} lines of this source; nothing of it was read. Give it to a source with \
             another name, or restore the file that was read before",
            self.path.display()
        ))
    }

    /// Checks that the followed file still is the one that is open, and has not lost bytes. `None` when all is well.
    pub(super) fn check_still_same(&self) -> Option<SourceError> {
        let read = self.bytes_read.load(Ordering::Relaxed);
        let what = match std::fs::metadata(&self.path) {
            Ok(now) if file_id_of(&now) != self.file_id => "was replaced (rotated)".to_owned(),
            Ok(now) if now.len() < read => format!("was truncated to {} of {read} bytes read", now.len()),
            Ok(_) => return None,
            Err(error) => format!("is gone ({error})"),
        };
        Some(fatal_error(format!(
            "{} {what} while it was followed; positions in the new content would be taken for those of the old: \
             give the new file to a source with another name",
            self.path.display()
        )))
    }
}

fn file_id_of(metadata: &Metadata) -> FileId {
    FileId { device: metadata.dev(), inode: metadata.ino() }
}

/// Bytes before the place of reading that are remembered.
const TAIL_BYTES: usize = 64;

/// Counts the bytes that are consumed, so that an error can name its place to the byte. Before it hands out more of a
/// file, it looks whether the file still has the last bytes that it gave: one that was emptied and written anew can be
/// longer than what was read, and then goes on in the middle of something else.
struct Counted {
    inner: BufReader<File>,
    /// Of a file with bytes of its own.
    last: Option<LastBytes>,
    bytes_read: Arc<AtomicU64>,
}

/// The bytes right before `at`.
struct LastBytes {
    file: File,
    at: u64,
    bytes: Vec<u8>,
}

impl Counted {
    fn new(file: File, is_regular: bool, bytes_read: Arc<AtomicU64>) -> Self {
        // Without a second handle the check is missing, not the reading.
        let last = file.try_clone().ok().filter(|_| is_regular);
        let last = last.map(|file| LastBytes { file, at: 0, bytes: Vec::new() });
        Self { inner: BufReader::with_capacity(BUFFER_BYTES, file), last, bytes_read }
    }
}

impl LastBytes {
    /// Remembers the end of what was read into the buffer.
    fn remember_end(&mut self, read: &[u8]) {
        self.at += read.len() as u64;
        self.bytes.extend_from_slice(read.get(read.len().saturating_sub(TAIL_BYTES)..).unwrap_or(read));
        let too_many = self.bytes.len().saturating_sub(TAIL_BYTES);
        self.bytes.drain(..too_many);
    }

    /// Fails when the file has something else there.
    fn check_unchanged(&self) -> io::Result<()> {
        let mut now = [0; TAIL_BYTES];
        let Some(now) = now.get_mut(..self.bytes.len()) else { return Ok(()) };
        let is_same = match self.file.read_exact_at(now, self.at - self.bytes.len() as u64) {
            Ok(()) => now == self.bytes.as_slice(),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        if is_same {
            return Ok(());
        }
        let size = self.file.metadata()?.len();
        let text = format!("it was written anew while it was read, and has {size} bytes now");
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.inner.buffer().is_empty()
            && let Some(last) = &mut self.last
        {
            let read = self.inner.fill_buf()?;
            // After the read: what was there before it was looked at is what was read.
            last.check_unchanged()?;
            last.remember_end(read);
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes_read.fetch_add(amount as u64, Ordering::Relaxed);
        self.inner.consume(amount);
    }
}
