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

fn refused() -> io::Error {
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
        Err(refused())
    }

    fn sync(&self) -> io::Result<()> {
        Err(refused())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn id(&self) -> io::Result<FileId> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Fs for ReadOnlyFs {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        self.0.open_to_read(path)
    }

    fn id_at(&self, path: &Path) -> io::Result<FileId> {
        self.0.id_at(path)
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn FsFile>> {
        Err(refused())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn lock(&self, _: &Path) -> Result<LockGuard, LockError> {
        Err(LockError::Io(refused()))
    }

    fn lock_to_read(&self, path: &Path) -> Result<Option<LockGuard>, LockError> {
        self.0.lock_to_read(path)
    }

    fn background(&self, _: Box<dyn FnOnce() + Send>) -> io::Result<Option<JoinHandle<()>>> {
        Err(refused())
    }
}
