//! A file system in memory that crashes and fails on command, and keeps only what was synced.
//!
//! A crash keeps, of every file, the synced content and any selection of the later writes, each whole, in part or not
//! at all; of the directory, the synced names and any beginning of the later changes, as a journalling file system
//! does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use orchestrator_kernel::random::Rng;

use super::super::fs::{FileFacts, FileId, Fs, FsFile, LockError, LockGuard};

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Grow(usize),
    Cut(usize),
}

impl Change {
    fn apply_to_content(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Grow(size) => content.resize(content.len().max(*size), 0),
            Self::Cut(size) => content.truncate(*size),
        }
    }

    /// What a crash leaves of it.
    fn apply_torn(&self, content: &mut Vec<u8>, rng: &mut Rng) {
        match (rng.next_below(3), self) {
            (0, _) => {}
            (1, Self::Write { at, bytes }) => {
                // A stretch of it, cut at any byte.
                let from = rng.next_below(bytes.len() as u64 + 1) as usize;
                let to = from + rng.next_below((bytes.len() - from) as u64 + 1) as usize;
                Self::Write { at: at + from, bytes: bytes[from..to].to_vec() }.apply_to_content(content);
            }
            (_, change) => change.apply_to_content(content),
        }
    }
}

#[derive(Default)]
struct Inode {
    /// What a reader sees.
    content: Vec<u8>,
    /// What a crash certainly keeps.
    durable: Vec<u8>,
    /// What it may keep.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameChange {
    fn apply_to_names(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

#[derive(Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    locked: BTreeSet<PathBuf>,
    /// Raised by a crash: files opened before are dead.
    generation: u64,
    /// Changing operations until the power fails.
    power: Option<u64>,
    /// The power failed: nothing happens any more.
    dark: bool,
    fail_sync: bool,
    fail_write: bool,
    allocatable: Option<u64>,
    /// No block and no inode is left.
    full: bool,
    /// Background work that waits for [`FaultFs::run_background`]; `None`: it runs at once.
    deferred: Option<Vec<Job>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Disk {
    /// Counts one changing operation; fails from the one on that meets the power failure.
    fn spend_operation(&mut self) -> io::Result<()> {
        let left = self.power.unwrap_or(u64::MAX);
        self.dark |= left == 0;
        self.power = self.power.map(|left| left.saturating_sub(1));
        if self.dark { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }

    fn file_facts(&self, inode: usize) -> FileFacts {
        let links = self.names.values().filter(|named| **named == inode).count() as u64;
        FileFacts { id: FileId { device: 0, inode: inode as u64 }, links, is_regular: true }
    }

    fn change_content(&mut self, inode: usize, change: Change) {
        let inode = &mut self.inodes[inode];
        change.apply_to_content(&mut inode.content);
        inode.pending.push(change);
    }
}

/// The file system. Clones share the disk.
#[derive(Clone, Default)]
pub(crate) struct FaultFs(Arc<Mutex<Disk>>);

impl FaultFs {
    fn lock_disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// Lets the power fail after `operations` changing operations: all later ones fail, and the one at the limit may
    /// still be half done when [`crash`](Self::crash) is called.
    pub(crate) fn fail_power_after(&self, operations: u64) {
        self.lock_disk().power = Some(operations);
    }

    /// The power fails and comes back.
    pub(crate) fn fail_power(&self, rng: &mut Rng) {
        let mut disk = self.lock_disk();
        let disk = &mut *disk;
        for inode in &mut disk.inodes {
            for change in std::mem::take(&mut inode.pending) {
                change.apply_torn(&mut inode.durable, rng);
            }
            inode.content = inode.durable.clone();
        }
        let kept = rng.next_below(disk.pending_names.len() as u64 + 1) as usize;
        for change in std::mem::take(&mut disk.pending_names).into_iter().take(kept) {
            change.apply_to_names(&mut disk.durable_names);
        }
        disk.names = disk.durable_names.clone();
        self.reset_disk(disk);
    }

    /// The process ends without a word; the system goes on and keeps what it has in memory.
    pub(crate) fn kill_process(&self) {
        let mut disk = self.lock_disk();
        self.reset_disk(&mut disk);
    }

    fn reset_disk(&self, disk: &mut Disk) {
        disk.deferred.iter_mut().for_each(Vec::clear);
        disk.locked.clear();
        disk.power = None;
        disk.dark = false;
        disk.generation += 1;
        disk.fail_sync = false;
        disk.fail_write = false;
    }

    /// The next sync fails. As on Linux, what it should have written is then taken for written.
    pub(crate) fn fail_next_sync(&self) {
        self.lock_disk().fail_sync = true;
    }

    /// The next write fails after its first half.
    pub(crate) fn fail_next_write(&self) {
        self.lock_disk().fail_write = true;
    }

    /// From now on background work waits for [`run_background`](Self::run_background), or dies with the process.
    pub(crate) fn defer_background(&self) {
        self.lock_disk().deferred = Some(Vec::new());
    }

    /// Does the background work that waits.
    pub(crate) fn run_background(&self) {
        let jobs = self.lock_disk().deferred.as_mut().map(std::mem::take).unwrap_or_default();
        jobs.into_iter().for_each(|job| job());
    }

    /// Bytes that can still be reserved.
    pub(crate) fn set_allocatable(&self, bytes: Option<u64>) {
        self.lock_disk().allocatable = bytes;
    }

    /// Leaves no block and no inode, or gives some back: nothing can be created or become longer meanwhile.
    pub(crate) fn set_full(&self, full: bool) {
        self.lock_disk().full = full;
    }

    /// What a reader sees in a file.
    pub(crate) fn visible_content(&self, path: &Path) -> Vec<u8> {
        let disk = self.lock_disk();
        disk.inodes[disk.names[path]].content.clone()
    }

    /// Puts other content into a file, durably: what a broken disk does.
    pub(crate) fn overwrite_durably(&self, path: &Path, content: &[u8]) {
        let mut disk = self.lock_disk();
        let inode = disk.names[path];
        disk.inodes[inode] =
            Inode { content: content.to_vec(), durable: content.to_vec(), pending: Vec::new() };
    }

    /// An independent copy as it is now, without locks.
    pub(crate) fn fork_disk(&self) -> Self {
        let disk = self.lock_disk();
        let inodes = disk.inodes.iter().map(|inode| Inode {
            content: inode.content.clone(),
            durable: inode.content.clone(),
            pending: Vec::new(),
        });
        Self(Arc::new(Mutex::new(Disk {
            inodes: inodes.collect(),
            names: disk.names.clone(),
            durable_names: disk.names.clone(),
            ..Disk::default()
        })))
    }
}

struct FaultFile {
    fs: FaultFs,
    inode: usize,
    generation: u64,
}

impl FaultFile {
    fn lock_disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.fs.lock_disk();
        if disk.generation == self.generation {
            Ok(disk)
        } else {
            Err(io::Error::other("from before the crash"))
        }
    }
}

impl FsFile for FaultFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.lock_disk()?.inodes[self.inode].content.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.lock_disk()?;
        let content = disk.inodes[self.inode].content.get(offset as usize..).unwrap_or_default();
        let length = content.len().min(buffer.len());
        buffer[..length].copy_from_slice(&content[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.lock_disk()?;
        let at = offset as usize;
        if std::mem::take(&mut disk.fail_write) {
            disk.change_content(self.inode, Change::Write { at, bytes: bytes[..bytes.len() / 2].to_vec() });
            return Err(io::Error::other("injected write error"));
        }
        if disk.full && disk.inodes[self.inode].content.len() < at + bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let was_dark = disk.dark;
        let powered = disk.spend_operation();
        if !was_dark {
            // The write that meets the power failure may have begun.
            disk.change_content(self.inode, Change::Write { at, bytes: bytes.to_vec() });
        }
        powered
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.lock_disk()?;
        if std::mem::take(&mut disk.fail_sync) {
            disk.inodes[self.inode].pending.clear();
            return Err(io::Error::other("injected sync error"));
        }
        disk.spend_operation()?;
        let inode = &mut disk.inodes[self.inode];
        for change in std::mem::take(&mut inode.pending) {
            change.apply_to_content(&mut inode.durable);
        }
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let mut disk = self.lock_disk()?;
        disk.spend_operation()?;
        let more = size.saturating_sub(disk.inodes[self.inode].content.len() as u64);
        if disk.full && 0 < more {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(left) = disk.allocatable {
            disk.allocatable = Some(left.checked_sub(more).ok_or(io::ErrorKind::StorageFull)?);
        }
        disk.change_content(self.inode, Change::Grow(size as usize));
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut disk = self.lock_disk()?;
        disk.spend_operation()?;
        disk.change_content(self.inode, Change::Cut(size as usize));
        Ok(())
    }

    fn file_id(&self) -> io::Result<FileId> {
        Ok(FileId { device: 0, inode: self.inode as u64 })
    }

    fn file_facts(&self) -> io::Result<FileFacts> {
        Ok(self.lock_disk()?.file_facts(self.inode))
    }
}

struct Unlock(FaultFs, PathBuf, u64);

impl Drop for Unlock {
    fn drop(&mut self) {
        let mut disk = self.0.lock_disk();
        if disk.generation == self.2 {
            disk.locked.remove(&self.1);
        }
    }
}

impl Fs for FaultFs {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list_dir(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.lock_disk();
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn open_file(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let disk = self.lock_disk();
        let inode = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultFile { fs: self.clone(), inode, generation: disk.generation }))
    }

    fn id_at(&self, path: &Path) -> io::Result<FileId> {
        let disk = self.lock_disk();
        match (disk.names.get(path), disk.locked.contains(path)) {
            (Some(inode), _) => Ok(FileId { device: 0, inode: *inode as u64 }),
            // Locks are no files here, and every directory is there.
            (None, true) => Ok(FileId { device: 1, inode: 0 }),
            (None, false) if path.extension().is_none() && !path.ends_with("lock") => {
                Ok(FileId { device: 2, inode: 0 })
            }
            (None, false) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn facts_at(&self, path: &Path) -> io::Result<Option<FileFacts>> {
        let disk = self.lock_disk();
        Ok(disk.names.get(path).map(|inode| disk.file_facts(*inode)))
    }

    fn create_file(&self, path: &Path) -> io::Result<Arc<dyn FsFile>> {
        let mut disk = self.lock_disk();
        disk.spend_operation()?;
        if disk.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = disk.inodes.len();
        disk.inodes.push(Inode::default());
        let change = NameChange::Create(path.to_owned(), inode);
        change.apply_to_names(&mut disk.names);
        disk.pending_names.push(change);
        Ok(Arc::new(FaultFile { fs: self.clone(), inode, generation: disk.generation }))
    }

    fn rename_file(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.lock_disk();
        disk.spend_operation()?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        change.apply_to_names(&mut disk.names);
        disk.pending_names.push(change);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.lock_disk();
        disk.spend_operation()?;
        if !disk.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Remove(path.to_owned());
        change.apply_to_names(&mut disk.names);
        disk.pending_names.push(change);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut disk = self.lock_disk();
        disk.spend_operation()?;
        let disk = &mut *disk;
        for change in disk.pending_names.drain(..) {
            change.apply_to_names(&mut disk.durable_names);
        }
        Ok(())
    }

    fn lock_file(&self, path: &Path) -> Result<LockGuard, LockError> {
        let mut disk = self.lock_disk();
        if !disk.locked.insert(path.to_owned()) {
            return Err(LockError::Held { holder: "pid 1".to_owned() });
        }
        Ok(Box::new(Unlock(self.clone(), path.to_owned(), disk.generation)))
    }

    fn run_in_background(&self, job: Job) -> io::Result<Option<JoinHandle<()>>> {
        let mut disk = self.lock_disk();
        match &mut disk.deferred {
            Some(jobs) => jobs.push(job),
            None => {
                drop(disk);
                job();
            }
        }
        Ok(None)
    }
}
