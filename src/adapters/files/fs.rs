//! The few file operations that durability rests on, behind a trait so that tests can crash and fail them.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::fs::{FallocateFlags, fallocate};

/// The identity of a file or directory on this host: a path that leads to another one was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The device it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// One open file. Reads and writes name their position, so that one handle serves a writer and many readers.
pub trait FsFile: Send + Sync {
    /// Bytes in the file.
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on; returns how much there was before the end of the file.
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// The storage failed; any part may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes content and size survive a crash.
    ///
    /// # Errors
    ///
    /// The storage failed. What was written since the last success is lost or not: it must not be synced again, the
    /// next call would succeed without it (RELIABILITY §3.3).
    fn sync(&self) -> io::Result<()>;

    /// Reserves room for `size` bytes and lengthens the file to it; what was not written reads as zeros.
    ///
    /// # Errors
    ///
    /// `StorageFull` when there is no room; otherwise the storage failed.
    fn allocate(&self, size: u64) -> io::Result<()>;

    /// Cuts the file at `size`.
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Identifies the file, whatever its name is by now.
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn file_id(&self) -> io::Result<FileId>;

    /// What the system says of the file, whatever its name is by now.
    ///
    /// # Errors
    ///
    /// The storage failed, or cannot tell.
    fn file_facts(&self) -> io::Result<FileFacts> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes the file for this handle alone, among those that ask: false when another handle has it. Given back with
    /// the handle.
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// Identity, links and kind of a file: they tell it from another one under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// The file.
    pub id: FileId,
    /// Names that it has; 0 once it was deleted, or another file took its last name.
    pub links: u64,
    /// Whether it is a file with bytes of its own: no directory, pipe or device.
    pub is_regular: bool,
}

impl FileFacts {
    /// What the system says of a file.
    #[must_use]
    pub fn from_metadata(metadata: &Metadata) -> Self {
        Self { id: id_of(metadata), links: metadata.nlink(), is_regular: metadata.is_file() }
    }
}

/// Reason for which a lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process, or another value in this one, has it.
    Held {
        /// What the holder wrote of itself, for example `pid 4711`.
        holder: String,
    },
    /// The storage failed.
    Io(io::Error),
}

/// Held as long as the value lives; ends with the process however that ends.
pub type LockGuard = Box<dyn Send + Sync>;

/// A file system.
pub trait Fs: Send + Sync {
    /// Creates the directory and its parents, durably; fine when it is there.
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Names of the entries of `dir`, in no order.
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn list_dir(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file that is there for reading and writing.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the storage failed.
    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;

    /// Opens a file that is there for reading only, which also works on a medium that cannot be written.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the storage failed.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        self.open_file(path)
    }

    /// Identifies what `path` leads to now.
    ///
    /// # Errors
    ///
    /// `NotFound`, or the storage failed.
    fn id_at(&self, path: &Path) -> io::Result<FileId>;

    /// What the system says of the file that `path` leads to now; `None` when there is none.
    ///
    /// # Errors
    ///
    /// The storage failed, or cannot tell.
    fn facts_at(&self, _path: &Path) -> io::Result<Option<FileFacts>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Creates an empty file, in place of one that is there. Its name is durable after [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn FsFile>>;

    /// Renames, in place of what is there. Durable after [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn rename_file(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`sync_dir`](Self::sync_dir).
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Makes created, renamed and removed names of `dir` survive a crash.
    ///
    /// # Errors
    ///
    /// The storage failed.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Locks through the file `path`, at once or not at all, and writes this process's pid into it.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    fn lock_file(&self, path: &Path) -> Result<LockGuard, LockError>;

    /// Keeps whoever locks `path` out, beside others that only read. Writes nothing; without the file nobody holds it,
    /// and nothing is held.
    ///
    /// # Errors
    ///
    /// [`LockError`].
    fn lock_to_read(&self, path: &Path) -> Result<Option<LockGuard>, LockError> {
        self.lock_file(path).map(Some)
    }

    /// Runs work that nothing waits for, beside the caller; a test's file system runs it at once, in order.
    ///
    /// # Errors
    ///
    /// No thread could be started; the job is dropped.
    fn run_in_background(&self, job: Box<dyn FnOnce() + Send>) -> io::Result<Option<JoinHandle<()>>>;
}

/// Replaces the file `name` of `dir` by one with `content`: after a crash the old or the new one is there, whole.
///
/// # Errors
///
/// The storage failed; the old file stays.
pub fn replace_file(fs: &dyn Fs, dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}{TEMPORARY}"));
    let written = fs.create_file(&temporary).and_then(|file| {
        file.write_at(content, 0)?;
        file.sync()
    });
    if let Err(error) = written {
        // What is left of it would take room from whoever makes some.
        if let Err(error) = fs.remove_file(&temporary).or_else(unless_missing) {
            tracing::debug!(path = %temporary.display(), %error, "a file that was not finished stays");
        }
        return Err(error);
    }
    fs.rename_file(&temporary, &dir.join(name))?;
    fs.sync_dir(dir)
}

fn unless_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Ends the name of every file that is not valid before it is renamed.
pub const TEMPORARY: &str = ".tmp";

/// Reads a small file whole; `None` when there is none.
///
/// # Errors
///
/// The storage failed, or the file has more than `size_max` bytes.
pub fn read_small(fs: &dyn Fs, path: &Path, size_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match fs.open_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = file.size()?;
    if size > size_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} has {size} bytes, more than {size_max}", path.display()),
        ));
    }
    let mut content = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut content, 0)?;
    content.truncate(read);
    Ok(Some(content))
}

/// Whether an error means "no room" rather than "broken".
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Checks that `path` still leads to the file `id`.
///
/// # Errors
///
/// It leads to another one or nowhere, or the storage failed.
pub fn check_name(fs: &dyn Fs, path: &Path, id: FileId) -> io::Result<()> {
    let said = match fs.id_at(path) {
        Ok(found) if found == id => return Ok(()),
        Ok(_) => "another file has that name".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(io::Error::other(format!(
        "{} is not the file any more that this service uses ({said}): it or its directory was removed, renamed, replaced \
         or unmounted under the running service",
        path.display()
    )))
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

struct RealFile(File);

impl FsFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        match fallocate(&self.0, FallocateFlags::empty(), 0, size) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => fill_with_zeros(&self.0, size),
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn file_id(&self) -> io::Result<FileId> {
        Ok(id_of(&self.0.metadata()?))
    }

    fn file_facts(&self) -> io::Result<FileFacts> {
        Ok(FileFacts::from_metadata(&self.0.metadata()?))
    }

    fn try_lock(&self) -> io::Result<bool> {
        match self.0.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            // A file system without locks keeps nobody out; it is no reason not to write there.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn id_of(metadata: &Metadata) -> FileId {
    FileId { device: metadata.dev(), inode: metadata.ino() }
}

/// Reserves room where the file system cannot: a hole would be cheaper, but then a later write could find it full.
fn fill_with_zeros(file: &File, size: u64) -> io::Result<()> {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut at = file.metadata()?.len();
    while at < size {
        let count = usize::try_from(size - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all_at(ZEROS.get(..count).unwrap_or(&ZEROS), at)?;
        at += count as u64;
    }
    Ok(())
}

impl Fs for RealFs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        std::fs::create_dir_all(dir)?;
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            Some(_) | None => self.sync_dir(Path::new(".")),
        }
    }

    fn list_dir(&self, dir: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        Ok(Arc::new(RealFile(File::open(path)?)))
    }

    fn id_at(&self, path: &Path) -> io::Result<FileId> {
        Ok(id_of(&std::fs::metadata(path)?))
    }

    fn facts_at(&self, path: &Path) -> io::Result<Option<FileFacts>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(FileFacts::from_metadata(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock_file(&self, path: &Path) -> Result<LockGuard, LockError> {
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = open.map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Held { holder: read_holder(&file) }),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        // A lock on a file that nobody finds by its name any more keeps nobody out.
        let locked = file.metadata().map_err(LockError::Io)?;
        if id_of(&locked) != self.id_at(path).map_err(LockError::Io)? {
            let text = format!("{} was replaced while it was being locked", path.display());
            return Err(LockError::Io(io::Error::other(text)));
        }
        // Overwritten before it is cut: on a full disk a block that is given up may not be had again.
        let text = format!("pid {}\n", std::process::id());
        file.write_all_at(text.as_bytes(), 0).map_err(LockError::Io)?;
        file.set_len(text.len() as u64).map_err(LockError::Io)?;
        Ok(Box::new(file))
    }

    fn lock_to_read(&self, path: &Path) -> Result<Option<LockGuard>, LockError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(LockError::Io)?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { holder: read_holder(&file) }),
            Err(TryLockError::Error(error)) => Err(LockError::Io(error)),
        }
    }

    fn run_in_background(&self, job: Box<dyn FnOnce() + Send>) -> io::Result<Option<JoinHandle<()>>> {
        std::thread::Builder::new().name("log-housekeeping".to_owned()).spawn(job).map(Some)
    }
}

/// What the holder of a lock wrote of itself.
fn read_holder(file: &File) -> String {
    let mut holder = String::new();
    // The text only helps people: without it the answer is the same.
    let read = file.take(64).read_to_string(&mut holder);
    let known = read.is_ok() && !holder.trim().is_empty();
    if known { holder.trim().to_owned() } else { "unknown".to_owned() }
}
