//! The files: reading without a lock, allowing under one.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{
    Applied, HISTORY_MAX, OperatorCommand, Stored, VALUE_BYTES_MAX, decide, owed_entry,
};
use orchestrator_kernel::ports::kill_switch::ApplyError;
use rustix::fs::{FallocateFlags, OFlags, fallocate};

/// How often a held lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Lines beyond [`HISTORY_MAX`] after which the history is shortened: not with every command.
const HISTORY_SLACK: usize = 100;
/// Bytes that a value which allows keeps for the one that stops: the longest that a command writes has 32 KiB.
const RESERVED_BYTES: u64 = 32 << 10;
/// Rights of the lock: nobody else may hold it.
const LOCK_MODE: u32 = 0o600;

#[derive(Debug)]
pub(super) struct Files {
    value: PathBuf,
    history: PathBuf,
    lock: PathBuf,
    lock_wait: Duration,
}

impl Files {
    pub(super) fn new(value: PathBuf, lock_wait: Duration) -> Self {
        let (history, lock) = (value.with_extension("history.jsonl"), value.with_extension("lock"));
        Self { value, history, lock, lock_wait }
    }

    pub(super) fn value_path(&self) -> &Path {
        &self.value
    }

    /// The file that is about to take the place of the value.
    pub(super) fn temporary_path(&self) -> PathBuf {
        self.value.with_extension("tmp")
    }

    /// Reads the value. Whatever stands in its place, this returns: a pipe is not waited for.
    pub(super) fn read_value(&self) -> io::Result<Stored> {
        let file = match open_plain(File::options().read(true), &self.value) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Stored::Missing),
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Ok(Stored::NotText),
            Err(error) => return Err(error),
        };
        let mut value = Vec::new();
        // One byte too many tells that it is too long, one more may be the line feed.
        file.take(VALUE_BYTES_MAX as u64 + 2).read_to_end(&mut value)?;
        if value.last() == Some(&b'\n') {
            value.pop();
        }
        Ok(match value.len() {
            0 => Stored::Missing,
            length if length <= VALUE_BYTES_MAX => Stored::Value(value.into()),
            _ => Stored::TooLong,
        })
    }

    /// Carries out a command.
    pub(super) fn apply_command(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError> {
        if command.only_blocks() { self.engage_stop(command, now) } else { self.allow_trading(command, now) }
    }

    /// Carries out what allows: under the lock, its history first, and only on the value that it was decided on.
    fn allow_trading(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError> {
        let unchanged = |what: &str, error: io::Error| ApplyError::Unchanged(format!("{what}: {error}"));
        let lock = self.hold_lock().map_err(|error| unchanged("cannot lock", error))?;
        let stored = self.read_value().map_err(|error| unchanged("cannot read the value", error))?;
        let change = decide(&stored, command, now)?;
        let owed = owed_entry(&stored).filter(|owed| !self.has_line(owed));
        let lines: Vec<&str> = owed.iter().map(String::as_str).chain([change.entry.as_str()]).collect();
        self.append_history(&lines, Some(&lock))
            .map_err(|error| unchanged("cannot write the history", error))?;
        self.replace_value(&stored, &change.value)?;
        Ok(Applied::in_full(change))
    }

    /// Puts a new file in the place of the value. A stop meanwhile wins, see [`stop`](super::stop).
    fn replace_value(&self, decided_on: &Stored, value: &str) -> Result<(), ApplyError> {
        let unchanged =
            |error: io::Error| ApplyError::Unchanged(format!("cannot replace the value: {error}"));
        let aside = self.temporary_path();
        let file = write_new(&aside, format!("{value}\n").as_bytes()).map_err(unchanged)?;
        self.inherit_rights(&file);
        if self.read_value().map_err(unchanged)? != *decided_on {
            let overtaken = "another command changed the value meanwhile; ask for the status";
            return Err(ApplyError::Unchanged(overtaken.to_owned()));
        }
        std::fs::rename(&aside, &self.value).map_err(unchanged)?;
        // It is in force already, but a loss of power could still undo it.
        sync_dir(&self.value).map_err(|error| ApplyError::Unknown(error.to_string()))
    }

    /// Gives the new file what its successor and its readers need: room for a stop, and the owner and rights of the old
    /// one. None of it is a promise: a stop without room removes the file.
    fn inherit_rights(&self, file: &File) {
        let reserved = fallocate(file, FallocateFlags::KEEP_SIZE, 0, RESERVED_BYTES).map_err(io::Error::from);
        let kept = std::fs::metadata(&self.value).map_or(Ok(()), |old| {
            file.set_permissions(old.permissions())
                .and_then(|()| fchown(file, Some(old.uid()), Some(old.gid())))
        });
        for error in [reserved, kept].into_iter().filter_map(Result::err) {
            tracing::debug!(file = %self.value.display(), %error, "the new value is a plain new file");
        }
    }

    /// Appends lines to the history, all in one write. Only who holds the lock may shorten it: that loses what others
    /// append.
    pub(super) fn append_history(&self, entries: &[&str], lock: Option<&File>) -> io::Result<()> {
        let mut lines = self.history_lines()?;
        if lines.len() < HISTORY_MAX + HISTORY_SLACK || lock.is_none() {
            let mut file = open_plain(File::options().create(true).append(true), &self.history)?;
            // A crash may have cut the last line short: the new one begins at the start of a line all the same.
            let gap = if self.ends_open()? { "\n" } else { "" };
            file.write_all(format!("{gap}{}\n", entries.join("\n")).as_bytes())?;
            return file.sync_data();
        }
        lines.extend(entries.iter().map(|entry| (*entry).to_owned()));
        lines.drain(..lines.len() - HISTORY_MAX);
        let aside = self.history.with_extension("tmp");
        write_new(&aside, format!("{}\n", lines.join("\n")).as_bytes())?;
        std::fs::rename(&aside, &self.history)?;
        sync_dir(&self.history)
    }

    /// Whether the history holds this line. One that cannot be read does not.
    pub(super) fn has_line(&self, entry: &str) -> bool {
        self.history_lines().is_ok_and(|lines| lines.iter().any(|line| line == entry))
    }

    pub(super) fn read_history(&self, count: usize) -> io::Result<Vec<String>> {
        let mut lines = self.history_lines()?;
        lines.drain(..lines.len().saturating_sub(count.min(HISTORY_MAX)));
        Ok(lines)
    }

    fn history_lines(&self) -> io::Result<Vec<String>> {
        let text = self.history_bytes()?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    fn ends_open(&self) -> io::Result<bool> {
        Ok(self.history_bytes()?.last().is_some_and(|last| *last != b'\n'))
    }

    fn history_bytes(&self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        match open_plain(File::options().read(true), &self.history) {
            Ok(mut file) => file.read_to_end(&mut text).map(|_| text),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(text),
            Err(error) => Err(error),
        }
    }

    /// Holds the lock until the value is dropped. The system releases it when the process ends, however it ends.
    pub(super) fn hold_lock(&self) -> io::Result<File> {
        std::fs::create_dir_all(dir_of(&self.lock))?;
        let file =
            open_plain(File::options().create(true).truncate(false).write(true).mode(LOCK_MODE), &self.lock)?;
        // Whoever may open it may hold it. One of an earlier release was readable for everybody.
        if let Err(error) = file.set_permissions(Permissions::from_mode(LOCK_MODE)) {
            tracing::debug!(file = %self.lock.display(), %error, "the lock keeps its permissions");
        }
        let deadline = Instant::now() + self.lock_wait;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let what = format!("another command has held {} for long", self.lock.display());
                    return Err(io::Error::new(ErrorKind::TimedOut, what));
                }
            }
        }
    }
}

/// Opens a file without waiting for anybody, as opening a pipe would.
///
/// # Errors
///
/// [`ErrorKind::InvalidInput`] when it is no regular file.
pub(super) fn open_plain(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = options.custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, format!("{} is no regular file", path.display())))
}

/// Writes a new file in full, in the place of whatever is there.
fn write_new(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()?;
    Ok(file)
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(dir_of(path))?.sync_all()
}

pub(super) fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
