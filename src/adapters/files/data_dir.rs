//! The directory that holds everything the embedded default keeps, and its lock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{AcquireError, LogName};
use tracing::warn;

use super::fs::{FileId, Fs as _, LockError, LockGuard, RealFs, check_name, is_full, replace_file};
use super::high_water::{EmbeddedLogMark, FoundMarks, HighWaterMarks, MarkKeeper, MarkedLog};
use super::log::{EmbeddedLog, EmbeddedLogOptions, has_segments};

/// Reason for which the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another instance uses it.
    #[error("data directory {} is in use by another instance ({holder}); stop it, or configure another directory", path.display())]
    Held {
        /// The directory.
        path: PathBuf,
        /// Who uses it, for example `pid 4711`.
        holder: String,
    },
    /// It cannot be created or locked.
    #[error("cannot use data directory {}; check that it is on a writable disk", path.display())]
    Io {
        /// The directory, or the part of it that failed.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An instance's data directory, locked as long as this value lives.
///
/// ```text
/// DIR/lock           who uses it
/// DIR/receipts/      log        DIR/checkpoints/   derived state, publisher's cursor
/// DIR/runs/          log        DIR/outputs/       published outputs as files
/// DIR/quarantine/    log        DIR/instance       names this directory towards other processes
/// DIR/manifests/     log        DIR/high_water.marks, DIR/runs/high_water.marks   how far the logs are durable
/// ```
///
/// A trading plane adds `DIR/journal/`, its log, and room in both files of marks.
///
/// Where the logs are on a server, `archive/` holds what moved out of it and `high_water/` how far it was acknowledged.
pub struct DataDir {
    path: PathBuf,
    instance: String,
    marks: Marks,
    lock_id: Option<FileId>,
    _lock: Option<LockGuard>,
}

/// The high-water marks of the logs.
enum Marks {
    Kept {
        marks: Arc<HighWaterMarks>,
        _keeper: MarkKeeper,
    },
    Found(Box<FoundMarks>),
    /// There was no room for the files.
    None,
}

impl DataDir {
    /// Creates what is missing, and locks the directory.
    ///
    /// # Errors
    ///
    /// [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { path, source }
        };
        RealFs.create_dir(path).map_err(failed(path))?;
        let lock = RealFs.lock_file(&path.join("lock")).map_err(|error| match error {
            LockError::Held { holder } => DataDirError::Held { path: path.to_owned(), holder },
            LockError::Io(source) => DataDirError::Io { path: path.join("lock"), source },
        })?;
        let instance_file = path.join("instance");
        let instance = read_or_make_instance(&instance_file).map_err(failed(&instance_file))?;
        let lock_id = Some(RealFs.id_at(&path.join("lock")).map_err(failed(path))?);
        let mut this =
            Self { path: path.to_owned(), instance, marks: Marks::None, lock_id, _lock: Some(lock) };
        let logs = LogName::OF_EVERY_SERVICE.iter().map(|log| this.log_dir(*log));
        for dir in logs.chain([this.checkpoints_dir(), this.outputs_dir()]) {
            RealFs.create_dir(&dir).map_err(failed(&dir))?;
        }
        this.marks = keep_marks(path).map_err(failed(path))?;
        Ok(this)
    }

    /// Holds the directory against a service, for reading only: nothing is created or written, so that it also works on
    /// a medium that cannot be written. Several readers may hold it together.
    ///
    /// # Errors
    ///
    /// [`DataDirError`]; held while a service uses it.
    pub fn open_read_only(path: &Path) -> Result<Self, DataDirError> {
        let lock = RealFs.lock_to_read(&path.join("lock")).map_err(|error| match error {
            LockError::Held { holder } => DataDirError::Held { path: path.to_owned(), holder },
            LockError::Io(source) => DataDirError::Io { path: path.join("lock"), source },
        })?;
        let found = FoundMarks::read(&RealFs, path);
        let failed = |source| DataDirError::Io { path: path.to_owned(), source };
        let marks = Marks::Found(Box::new(found.map_err(failed)?));
        Ok(Self { path: path.to_owned(), instance: String::new(), marks, lock_id: None, _lock: lock })
    }

    /// The high-water mark of one of the logs; nothing when none can be kept.
    #[must_use]
    pub fn mark_of(&self, log: MarkedLog) -> Option<EmbeddedLogMark> {
        match &self.marks {
            Marks::Kept { marks, .. } => Some(marks.log_mark(log)),
            Marks::Found(found) => Some(found.log_mark(log)),
            Marks::None => None,
        }
    }

    /// Whether somebody has written a journal here, by its files, its archive, or its mark.
    ///
    /// # Errors
    ///
    /// The storage failed.
    pub fn has_journal(&self) -> io::Result<bool> {
        let mark = self.mark_of(MarkedLog::Journal);
        let is_marked = mark.as_ref().is_some_and(EmbeddedLogMark::promises_records);
        let archive = self.archive_dir().join(LogName::Journal.as_str());
        Ok(is_marked || has_segments(&self.log_dir(LogName::Journal))? || has_segments(&archive)?)
    }

    /// Makes room for the marks of a journal that is going to be written here; says whether there is some. Without, the
    /// journal goes on as before there were marks.
    ///
    /// # Errors
    ///
    /// The storage failed.
    pub fn make_room_for_journal(&self) -> io::Result<bool> {
        let Marks::Kept { marks, .. } = &self.marks else { return Ok(false) };
        match marks.make_room_for_journal() {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) => {
                warn!(
                    data_dir = %self.path.display(), %error,
                    "there is no room for the high-water marks of the journal: until the next start nobody would \
                     notice that its end is missing"
                );
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks that no log is missing beside others that have records, also where no mark tells. A start makes all of
    /// them before it takes anything, so none is left out by a crash; an empty one in the place of a lost one would be
    /// a made-up answer. The log of manifests came later than the others: only its mark tells.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Corrupt`] for the missing one; as for opening when another one cannot be looked at.
    pub fn check_logs(&self) -> Result<(), AcquireError> {
        let (mut missing, mut present) = (None, Vec::new());
        for name in [LogName::Receipts, LogName::Runs, LogName::Quarantine] {
            let dir = self.log_dir(name);
            match has_segments(&dir) {
                Ok(true) => present.push((name, dir)),
                Ok(false) => missing = missing.or(Some((name, dir))),
                Err(source) => return Err(AcquireError::Io { log: name.to_string(), source }),
            }
        }
        let Some((log, dir)) = missing else { return Ok(()) };
        for (name, beside) in present {
            let tail =
                EmbeddedLog::open_read_only(&beside, EmbeddedLogOptions::new(name.as_str()))?.last_durable();
            if tail > Seq(0) {
                let (log, place) = (log.to_string(), format!("{} byte 0", dir.display()));
                let detail = format!("it is gone, and the log of {name} beside it has records up to {tail}");
                return Err(AcquireError::Corrupt { log, place, detail });
            }
        }
        Ok(())
    }

    /// Checks that the directory is still found by its name, and that its lock keeps a second service out.
    ///
    /// # Errors
    ///
    /// It was removed, renamed or replaced, or the storage failed.
    pub fn check_place(&self) -> io::Result<()> {
        self.lock_id.map_or(Ok(()), |lock| check_name(&RealFs, &self.path.join("lock"), lock))
    }

    /// Names this directory towards other processes: made up once, the same after every restart. Whoever holds the
    /// directory knows that every earlier process of this name is gone. Empty when it was opened for reading only.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.instance
    }

    /// What moved out of a log on a server.
    #[must_use]
    pub fn archive_dir(&self) -> PathBuf {
        self.path.join("archive")
    }

    /// How far logs on a server were acknowledged.
    #[must_use]
    pub fn high_water(&self) -> PathBuf {
        self.path.join("high_water")
    }

    /// The log of this name.
    #[must_use]
    pub fn log_dir(&self, log: LogName) -> PathBuf {
        self.path.join(log.as_str())
    }

    /// Checkpoints and the publisher's cursor.
    #[must_use]
    pub fn checkpoints_dir(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Published outputs.
    #[must_use]
    pub fn outputs_dir(&self) -> PathBuf {
        self.path.join("outputs")
    }
}

/// Opens the marks. A full disk is no reason not to start: without the files the logs go on as before there were any.
fn keep_marks(path: &Path) -> io::Result<Marks> {
    match HighWaterMarks::open(&RealFs, path) {
        Ok(marks) => {
            let marks = Arc::new(marks);
            Ok(Marks::Kept { _keeper: MarkKeeper::start(Arc::clone(&marks))?, marks })
        }
        Err(error) if is_full(&error) => {
            warn!(
                data_dir = %path.display(), %error,
                "there is no room for the high-water marks of the logs: until the next start nobody would notice that \
                 the end of a log is missing"
            );
            Ok(Marks::None)
        }
        Err(error) => Err(error),
    }
}

/// Reads the name of the directory, or makes one up: 128 random bits as hexadecimal text.
fn read_or_make_instance(file: &Path) -> io::Result<String> {
    const DIGITS: usize = 32;
    let is_name = |text: &str| text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Ok(text) = std::fs::read_to_string(file)
        && is_name(text.trim())
    {
        return Ok(text.trim().to_owned());
    }
    let mut random = [0; DIGITS / 2];
    io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let dir = file.parent().unwrap_or(Path::new("."));
    replace_file(&RealFs, dir, "instance", name.as_bytes())?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_dir_is_created_with_its_parts_and_opened_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");

        let first = DataDir::open(&path).unwrap().instance_id().to_owned();
        let again = DataDir::open(&path).unwrap();

        assert_eq!(again.instance_id(), first, "the name stays");
        assert_ne!(DataDir::open(&root.path().join("c")).unwrap().instance_id(), first, "and is its own");
        let logs = ["receipts", "runs", "quarantine", "manifests"].map(|log| path.join(log));
        for dir in logs.into_iter().chain([again.checkpoints_dir(), again.outputs_dir()]) {
            assert!(dir.is_dir() && dir.starts_with(&path), "{}", dir.display());
        }
    }

    #[test]
    fn second_instance_is_refused_with_the_pid_of_the_first() {
        let root = tempfile::tempdir().unwrap();
        let _first = DataDir::open(root.path()).unwrap();

        let refused = DataDir::open(root.path()).map(|_| ()).unwrap_err().to_string();

        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
    }

    #[test]
    fn readers_share_the_directory_change_nothing_and_keep_a_service_out() {
        let root = tempfile::tempdir().unwrap();
        let service = DataDir::open(root.path()).unwrap();

        let refused = DataDir::open_read_only(root.path()).map(|_| ()).unwrap_err();
        assert!(matches!(refused, DataDirError::Held { .. }), "{refused}");
        drop(service);
        let lock = std::fs::read(root.path().join("lock")).unwrap();
        let readers = [(); 2].map(|()| DataDir::open_read_only(root.path()).unwrap());
        let refused = DataDir::open(root.path()).map(|_| ()).unwrap_err();
        drop(readers);

        assert!(matches!(refused, DataDirError::Held { .. }), "{refused}");
        assert_eq!(std::fs::read(root.path().join("lock")).unwrap(), lock);
        drop(DataDir::open(root.path()).unwrap());
        let nothing = root.path().join("nothing");
        drop(DataDir::open_read_only(&nothing).unwrap());
        assert!(!nothing.exists());
    }

    #[test]
    fn path_that_is_a_file_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();

        let refused = DataDir::open(file.path()).map(|_| ()).unwrap_err();

        assert!(matches!(&refused, DataDirError::Io { path, .. } if path == file.path()), "{refused}");
    }
}
