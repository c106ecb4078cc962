//! A file system that cannot be written: what reading tools see, so that none of them changes what it looks at.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::fs::{FileId, Fs, FsFile, LockError, LockGuard};

/// Reads through to another file system; refuses everything else.
pub(super) struct ReadOnlyFs(pub(super) Arc<dyn Fs>);

/// An empty file that is nowhere.
pub(super) struct NoFile;

fn read_only_error() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "it was opened for reading only")
}

impl FsFile for NoFile {
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(read_only_error())
    }

    fn sync(&self) -> io::Result<()> {
        Err(read_only_error())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(read_only_error())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(read_only_error())
    }

    fn file_id(&self) -> io::Result<FileId> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Fs for ReadOnlyFs {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(read_only_error())
    }

    fn list_dir(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list_dir(dir)
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        self.0.open_to_read(path)
    }

    fn id_at(&self, path: &Path) -> io::Result<FileId> {
        self.0.id_at(path)
    }

    fn create_file(&self, _: &Path) -> io::Result<Arc<dyn FsFile>> {
        Err(read_only_error())
    }

    fn rename_file(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(read_only_error())
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        Err(read_only_error())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(read_only_error())
    }

    fn lock_file(&self, _: &Path) -> Result<LockGuard, LockError> {
        Err(LockError::Io(read_only_error()))
    }

    fn lock_to_read(&self, path: &Path) -> Result<Option<LockGuard>, LockError> {
        self.0.lock_to_read(path)
    }

    fn run_in_background(&self, _: Box<dyn FnOnce() + Send>) -> io::Result<Option<JoinHandle<()>>> {
        Err(read_only_error())
    }
}
