//! The files: reading without a lock, replacing under one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{Change, Command, HISTORY_MAX, Stored, VALUE_BYTES_MAX, decide};
use orchestrator_kernel::ports::kill_switch::ApplyError;
use rustix::fs::OFlags;

/// How often a held lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Lines beyond [`HISTORY_MAX`] after which the history is shortened: not with every command.
const HISTORY_SLACK: usize = 100;

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

    /// Reads the value. Whatever stands in its place, this returns: a pipe is not waited for.
    pub(super) fn read(&self) -> io::Result<Stored> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.value) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Stored::Missing),
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Ok(Stored::NotText);
        }
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

    /// Carries out a command. What blocks is written before its history, what allows after it: a stop needs no record,
    /// and nothing is allowed without one.
    pub(super) fn apply(&self, command: &Command, now: TsMs) -> Result<Change, ApplyError> {
        let unchanged = |what: &str, error: io::Error| ApplyError::Unchanged(format!("{what}: {error}"));
        let _lock = self.lock().map_err(|error| unchanged("cannot lock", error))?;
        let stored = self.read().or_else(|error| match command {
            // What cannot be read can still be replaced by a stop.
            Command::Engage { .. } => Ok(Stored::NotText),
            Command::Init { .. } | Command::Disengage { .. } => {
                Err(unchanged("cannot read the value", error))
            }
        })?;
        let change = decide(&stored, command, now)?;
        if command.blocks() {
            self.replace_value(&change.value)?;
            if let Err(error) = self.remember(&change.entry) {
                tracing::error!(
                    file = %self.history.display(), %error, entry = change.entry,
                    "the kill switch is engaged, but its history could not be written"
                );
            }
        } else {
            self.remember(&change.entry).map_err(|error| unchanged("cannot write the history", error))?;
            self.replace_value(&change.value)?;
        }
        Ok(change)
    }

    fn replace_value(&self, value: &str) -> Result<(), ApplyError> {
        write_aside(&self.value, format!("{value}\n").as_bytes())
            .map_err(|error| ApplyError::Unchanged(format!("cannot replace the value: {error}")))?;
        // It is in force already, but a loss of power could still undo it.
        sync_dir(&self.value).map_err(|error| ApplyError::Unknown(error.to_string()))
    }

    fn remember(&self, entry: &str) -> io::Result<()> {
        let mut lines = self.lines()?;
        if lines.len() < HISTORY_MAX + HISTORY_SLACK {
            let mut file = OpenOptions::new().create(true).append(true).open(&self.history)?;
            // A crash may have cut the last line short: the new one begins at the start of a line all the same.
            let gap = if self.ends_open()? { "\n" } else { "" };
            file.write_all(format!("{gap}{entry}\n").as_bytes())?;
            return file.sync_data();
        }
        lines.drain(..=lines.len() - HISTORY_MAX);
        lines.push(entry.to_owned());
        write_aside(&self.history, format!("{}\n", lines.join("\n")).as_bytes())?;
        sync_dir(&self.history)
    }

    pub(super) fn history(&self, count: usize) -> io::Result<Vec<String>> {
        let mut lines = self.lines()?;
        lines.drain(..lines.len().saturating_sub(count.min(HISTORY_MAX)));
        Ok(lines)
    }

    fn lines(&self) -> io::Result<Vec<String>> {
        match std::fs::read(&self.history) {
            Ok(text) => {
                let text = String::from_utf8_lossy(&text);
                Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn ends_open(&self) -> io::Result<bool> {
        Ok(std::fs::read(&self.history)?.last().is_some_and(|last| *last != b'\n'))
    }

    /// Holds the lock until the value is dropped. The system releases it when the process ends, however it ends.
    fn lock(&self) -> io::Result<File> {
        std::fs::create_dir_all(dir_of(&self.lock))?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.lock)?;
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

/// Writes a new file in full and puts it in the place of the old one.
fn write_aside(path: &Path, content: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("tmp");
    let mut file = File::create(&aside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(dir_of(path))?.sync_all()
}

fn dir_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}
