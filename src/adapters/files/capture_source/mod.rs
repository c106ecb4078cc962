//! Receipts from a capture file: NDJSON, plain or compressed, replayed at any speed or followed while it grows.
//!
//! ```text
//! thread  file ─▶ decompress ─▶ lines ─▶ batches ──(bounded channel)──▶ source  ─▶ pace ─▶ unsettled window ─▶ ingest
//! ```
//!
//! **Lines.** A line ends with `\n` or `\r\n`; the terminator is framing and no part of the item, everything else is
//! kept byte for byte (LOG-4). A line of nothing but ASCII whitespace is no item and takes no position, so positions
//! are 1, 2, 3 … without gap; in a file without blank lines the position is the line number.
//!
//! **Whole files.** What begins like a format that holds no lines is refused before the first one is cut. A byte order
//! mark at the beginning, and zeros behind the last gzip member, are framing.
//!
//! **Streams.** What a pipe has delivered is handed over before more is waited for.
//!
//! **Damage.** A cut-off compressed file gives every whole line before the cut, then a fatal error. Compressed formats
//! carry their checksum at the end of a member or frame, so damage in the middle may first show as garbled lines: they
//! are no receipts and go to the quarantine, and the error follows.
//!
//! **Memory** is bounded by about `12 × batch_bytes_max`, whatever the size of the file or of a line.

mod file;
mod gzip;
mod known;
mod lines;
mod pace;
mod reader;
mod source;
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub mod testkit;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use orchestrator_kernel::ports::source::{ResumeAt, Source, SourceError, SourceFactory};

use self::known::KnownLines;
pub use self::known::StoredLines;

/// Speed at which a recording is handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum CaptureSpeed {
    /// As fast as it is taken.
    #[default]
    Max,
    /// This many times the speed of its `recv_ts_ms`, relative to the first line; finite and more than zero.
    ///
    /// A delay of the taker moves all later lines back instead of being caught up in a burst.
    Times(f64),
}

/// Settings of a capture source: the file, how it is read, and in which portions.
#[derive(Clone, Debug, PartialEq)]
pub struct CaptureOptions {
    /// Name of the source; the origin of its items.
    pub name: String,
    /// The file: NDJSON, or NDJSON in gzip (several members are allowed) or zstd (several frames).
    pub path: PathBuf,
    /// How fast.
    pub speed: CaptureSpeed,
    /// Whether to wait for more at the end of the file. Only for plain files that grow by appending.
    pub follow: bool,
    /// Items in a batch at most. At least 1.
    pub batch_items_max: usize,
    /// Bytes of items in a batch at most, but for a single larger item. At least 1.
    pub batch_bytes_max: usize,
    /// Bytes of a line at most; of a longer one the first 4 KiB and the size are handed over. At least 1.
    pub line_bytes_max: usize,
}

impl CaptureOptions {
    /// Reads `path` once at full speed, with batches of up to 512 items or 1 MiB and lines of up to 256 KiB.
    #[must_use]
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            speed: CaptureSpeed::Max,
            follow: false,
            batch_items_max: 512,
            batch_bytes_max: 1 << 20,
            line_bytes_max: 256 << 10,
        }
    }

    fn check_options(&self) -> Result<(), SourceError> {
        let positive = [
            (self.batch_items_max, "batch_items_max"),
            (self.batch_bytes_max, "batch_bytes_max"),
            (self.line_bytes_max, "line_bytes_max"),
        ];
        if let Some((_, field)) = positive.iter().find(|(value, _)| *value == 0) {
            return Err(fatal_error(format!("{field} of source {} must be at least 1", self.name)));
        }
        match self.speed {
            CaptureSpeed::Times(times) if !(times.is_finite() && times > 0.0) => Err(fatal_error(format!(
                "speed of source {} must be a finite number above zero, found {times}",
                self.name
            ))),
            CaptureSpeed::Times(_) | CaptureSpeed::Max => Ok(()),
        }
    }
}

/// Opens a capture file, after a restart behind the items that are in the log.
#[derive(Clone)]
pub struct CaptureFactory {
    options: CaptureOptions,
    stored: Option<StoredLines>,
    bytes_read: Arc<AtomicU64>,
}

impl CaptureFactory {
    /// A factory for the file of `options`. Nothing is touched before [`open_source`](SourceFactory::open_source).
    #[must_use]
    pub fn new(options: CaptureOptions) -> Self {
        Self { options, stored: None, bytes_read: Arc::default() }
    }

    /// Compares what it skips after a restart with what is stored of it: another file under the old name is then
    /// refused.
    #[must_use]
    pub fn compared_with(self, stored: StoredLines) -> Self {
        Self { stored: Some(stored), ..self }
    }

    /// How many bytes of the file were read since it was opened last, compressed ones as they are.
    #[must_use]
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes_read)
    }
}

#[async_trait]
impl SourceFactory for CaptureFactory {
    fn name(&self) -> &str {
        &self.options.name
    }

    /// Opens the file and checks its kind. Reading begins at once, as far ahead as the bounds allow.
    ///
    /// # Errors
    ///
    /// [`SourceError::Fatal`] when the file cannot be opened, is not what its name says, or an option is out of range;
    /// by [`Source::next_batch`] when it is another file than the one that was read before. [`SourceError::Lost`] when
    /// a file to follow does not exist yet, or the system has no thread left.
    async fn open_source(&self, resume: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        self.options.check_options()?;
        let known = match &self.stored {
            Some(stored) => KnownLines::recall_lines(stored, &self.options.name, resume.position).await?,
            None => KnownLines::default(),
        };
        let resume = Resume { position: resume.position, known };
        Ok(Box::new(source::CaptureSource::open(&self.options, resume, self.bytes_read()).await?))
    }
}

/// Position after which reading goes on, and the stored lines that those before it are recognised by.
#[derive(Debug, Default)]
struct Resume {
    position: u64,
    known: KnownLines,
}

fn fatal_error(detail: String) -> SourceError {
    SourceError::Fatal { detail }
}

fn lost_error(detail: String) -> SourceError {
    SourceError::Lost { detail }
}

#[cfg(test)]
mod tests;
