//! The embedded log: segment files, one writer thread, readers beside it.
//!
//! ```text
//! DIR/lock                      held while the log is open; tells the holder's pid
//! DIR/meta                      log id, epoch, high water
//! DIR/00000000000000000001.seg  sealed: its end is told by the next segment's header
//! DIR/00000000000000163841.seg  active: frames, then preallocated zeros
//! DIR/spare-1.tmp               the next segment, preallocated ahead
//! ```
//!
//! **What a crash can do.** Frames of the group that was being written may be there, in part, or not; nothing of it was
//! acknowledged. On opening, the bytes behind the last valid frame are removed as *torn*, unless something proves that
//! they were durable: a later frame's `synced`, a later segment, the high water in `meta`, or the high-water mark
//! outside the log ([`high_water`](super::high_water)). Then the log is refused. The mark also tells what was trimmed:
//! segments that are missing at the beginning are refused too.
//!
//! **What cannot be told.** Damage in what is younger than the mark looks like a torn write. The mark is written before
//! an append is answered, and lags by up to a second only where the host lost power. A log that is opened without marks
//! (an archive elsewhere) has the high water in `meta` alone: raised at each clean end, each new segment, and every 16
//! MiB.

mod frame;
mod meta;
mod recovery;
mod scan;
mod segment;
mod store;
#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub mod testkit;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use orchestrator_kernel::ids::{Epoch, LogIdentity, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, Acquired, AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch,
    TrimError,
};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::fs::{Fs, LockError, LockGuard, RealFs};
use super::high_water::EmbeddedLogMark;
use super::off_runtime;
use super::read_only::ReadOnlyFs;
use frame::Frame;
use meta::MetaFile;
use store::{FramePlace, HeldPlace, Store};
use writer::{Request, SegmentLimits, SegmentWriter};

/// Appends that may wait for the writer; more wait in their callers.
const QUEUE_REQUESTS: usize = 64;
/// The smallest segment: a header and some records.
const SEGMENT_BYTES_MIN: u64 = 4096;
/// The lock file's name.
const LOCK_NAME: &str = "lock";

/// Settings of an embedded log.
#[derive(Clone)]
pub struct EmbeddedLogOptions {
    /// Name for messages and metrics: `receipts`, `runs`, `quarantine`.
    pub name: String,
    /// Preallocated size of a segment in bytes, at least 4096. A batch that is larger gets a segment of its own.
    pub segment_bytes: u64,
    /// Most bytes that all segments may take, with the one preallocated ahead. `None`: as much as the disk has.
    pub capacity_bytes: Option<u64>,
    /// The first record of a log that is begun here: 1, but for an archive of a log whose beginning is gone.
    pub first: Seq,
    /// Where the files are.
    pub fs: Arc<dyn Fs>,
    /// How far the log is known to be durable, kept outside of it. `None`: nothing is kept.
    pub mark: Option<EmbeddedLogMark>,
}

impl EmbeddedLogOptions {
    /// Segments of 64 MiB on the operating system's files, without a limit.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            segment_bytes: 64 << 20,
            capacity_bytes: None,
            first: Seq(1),
            fs: Arc::new(RealFs),
            mark: None,
        }
    }

    /// The size that a new segment gets.
    fn segment_bytes(&self) -> u64 {
        self.segment_bytes.min(self.capacity_bytes.unwrap_or(u64::MAX)).max(SEGMENT_BYTES_MIN)
    }
}

/// A log in a directory of its own. Dropping it finishes what is queued, notes a clean end, and unlocks the directory;
/// that blocks for some milliseconds.
///
/// One append at a time is in flight for each caller; appends of several callers share a sync.
pub struct EmbeddedLog {
    store: Arc<Store>,
    torn_bytes: u64,
    found_mark: Option<Seq>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    _lock: Option<LockGuard>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or creates it. Only the last segment is read, so that it takes as long as one segment.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: held by another process, damaged, too new, or the storage failed.
    pub fn open(dir: &Path, options: EmbeddedLogOptions) -> Result<Self, AcquireError> {
        let failed = |source| AcquireError::Io { log: options.name.clone(), source };
        options.fs.create_dir(dir).map_err(failed)?;
        let lock = options.fs.lock_file(&dir.join(LOCK_NAME)).map_err(|error| match error {
            LockError::Held { holder } => AcquireError::Held { log: options.name.clone(), holder },
            LockError::Io(error) => failed(error),
        })?;
        let lock_id = options.fs.id_at(&dir.join(LOCK_NAME)).map_err(failed)?;
        let found_mark = options.mark.as_ref().and_then(EmbeddedLogMark::found_mark).map(|mark| mark.tail);
        let recovered = recovery::recover_log(dir, &options)?;
        let meta = MetaFile::new(Arc::clone(&options.fs), dir.to_owned(), recovered.meta);
        let room =
            SegmentLimits { segment_bytes: options.segment_bytes(), capacity_bytes: options.capacity_bytes };
        let held = HeldPlace { lock: lock_id, mark: options.mark.clone() };
        let log_id = recovered.meta.log_id;
        let store = Arc::new(Store::new(dir, &options, log_id, recovered.catalogue, Some(held)));
        // Before the first epoch says in `meta` that there is a mark.
        store.note_whole_mark().map_err(failed)?;
        let last_at = recovered.last_at;
        let writer = SegmentWriter::new(Arc::clone(&store), meta, room, recovered.meta.epoch, last_at);
        let (requests, queue) = mpsc::channel(QUEUE_REQUESTS);
        let writer = std::thread::Builder::new()
            .name(format!("log-{}", options.name))
            .spawn(move || writer.serve_requests(queue))
            .map_err(failed)?;
        Ok(Self {
            store,
            torn_bytes: recovered.torn_bytes,
            found_mark,
            requests: Some(requests),
            writer: Some(writer),
            _lock: Some(lock),
        })
    }

    /// Opens the log in `dir` for reading only: nothing is created, removed, written or reserved, so that it also works
    /// on a medium that cannot be written. A directory without a log is an empty log. It can be neither acquired nor
    /// appended to.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: held by a writer, damaged, too new, or the storage failed.
    pub fn open_read_only(dir: &Path, options: EmbeddedLogOptions) -> Result<Self, AcquireError> {
        let name = options.name.clone();
        let lock = options.fs.lock_to_read(&dir.join(LOCK_NAME)).map_err(|error| match error {
            LockError::Held { holder } => AcquireError::Held { log: name.clone(), holder },
            LockError::Io(source) => AcquireError::Io { log: name.clone(), source },
        })?;
        let options = EmbeddedLogOptions { fs: Arc::new(ReadOnlyFs(Arc::clone(&options.fs))), ..options };
        let found_mark = options.mark.as_ref().and_then(EmbeddedLogMark::found_mark).map(|mark| mark.tail);
        let recovered = recovery::inspect_log(dir, &options)?;
        let store = Store::new(dir, &options, recovered.meta.log_id, recovered.catalogue, None);
        Ok(Self {
            store: Arc::new(store),
            torn_bytes: recovered.torn_bytes,
            found_mark,
            requests: None,
            writer: None,
            _lock: lock,
        })
    }

    /// How far the log was known to be durable when it was opened; nothing when no mark was kept.
    #[must_use]
    pub fn high_water(&self) -> Option<Seq> {
        self.found_mark
    }

    /// Bytes behind the last whole write, that opening removed or, for reading only, left; zero after a clean end. A
    /// crash that cut a write short leaves them, and so does damage of what is younger than the high-water mark: then
    /// whether they were acknowledged is not known.
    #[must_use]
    pub const fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// The last durable record.
    #[must_use]
    pub fn last_durable(&self) -> Seq {
        self.store.stat().tail
    }

    /// Checks that the files which are written are still found by their names.
    ///
    /// # Errors
    ///
    /// The directory or a file in it was removed, renamed or replaced, or the storage failed. Nothing that is appended
    /// is acknowledged then.
    pub fn check_place(&self) -> io::Result<()> {
        self.store.check_place()
    }

    async fn send_request<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("the log's writer thread ended");
        let requests = self.requests.as_ref().ok_or_else(|| {
            io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the log was opened for reading only")
        })?;
        requests.send(make(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

/// Whether a log was ever made in `dir`, and its segments are not all gone.
///
/// # Errors
///
/// The storage failed.
pub(super) fn has_segments(dir: &Path) -> io::Result<bool> {
    match RealFs.list_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        names => Ok(names?.iter().any(|name| segment::parse_name(name).is_some())),
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            error!(log = %self.store.name, "log writer panicked");
        }
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        match self.send_request(|reply| Request::Acquire { reply }).await {
            Ok(acquired) => acquired,
            Err(source) => Err(AcquireError::Io { log: self.store.name.clone(), source }),
        }
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        // Encoded here, so that checksums are computed while the writer syncs the batch before.
        let frame = match batch.is_empty() {
            true => None,
            false => Some(Frame::encode_batch(batch).map_err(|too_large| AppendError::Full {
                detail: format!(
                    "one batch takes {} bytes, at most {} are possible",
                    too_large.bytes,
                    frame::FRAME_BYTES_MAX
                ),
            })?),
        };
        match self.send_request(|reply| Request::Append { epoch, frame, reply }).await {
            Ok(appended) => appended,
            Err(source) => Err(AppendError::Poisoned { source }),
        }
    }

    /// The segment that the batch would need is begun, so that the room is the log's own from now on.
    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        let bytes = Frame::bytes_for(size) as u64;
        match self.send_request(|reply| Request::ProveRoom { epoch, bytes, reply }).await {
            Ok(proved) => proved,
            Err(source) => Err(AppendError::Poisoned { source }),
        }
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        match self.store.locate_record(from)? {
            FramePlace::PastTail => return Ok(RecordBatch::starting_at(from)),
            FramePlace::Ready(extent) if Store::is_short(&extent, limit) => {
                return extent.read_records(from, limit);
            }
            FramePlace::Ready(_) | FramePlace::Closed { .. } => {}
        }
        let store = Arc::clone(&self.store);
        off_runtime(move || store.read_blocking(from, limit)).await?
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        let store = Arc::clone(&self.store);
        off_runtime(move || store.trim_segments(epoch, below)).await?
    }

    fn stat(&self) -> LogStat {
        self.store.stat()
    }

    fn identity(&self) -> Option<LogIdentity> {
        Some(LogIdentity(self.store.log_id))
    }
}
