//! The directory that holds everything the embedded default keeps, and its lock.

use std::io;
use std::path::{Path, PathBuf};

use super::fs::{Fs as _, LockError, LockGuard, RealFs};

/// Why the data directory cannot be used.
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
/// DIR/quarantine/    log
/// ```
pub struct DataDir {
    path: PathBuf,
    _lock: LockGuard,
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
        let lock = RealFs.lock(&path.join("lock")).map_err(|error| match error {
            LockError::Held { holder } => DataDirError::Held { path: path.to_owned(), holder },
            LockError::Io(source) => DataDirError::Io { path: path.join("lock"), source },
        })?;
        let this = Self { path: path.to_owned(), _lock: lock };
        for dir in [this.receipts(), this.runs(), this.quarantine(), this.checkpoints(), this.outputs()] {
            RealFs.create_dir(&dir).map_err(failed(&dir))?;
        }
        Ok(this)
    }

    /// The receipt log.
    #[must_use]
    pub fn receipts(&self) -> PathBuf {
        self.path.join("receipts")
    }

    /// The run log.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.path.join("runs")
    }

    /// The quarantine log.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.path.join("quarantine")
    }

    /// Checkpoints and the publisher's cursor.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// Published outputs.
    #[must_use]
    pub fn outputs(&self) -> PathBuf {
        self.path.join("outputs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_dir_is_created_with_its_parts_and_opened_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");

        drop(DataDir::open(&path).unwrap());
        let again = DataDir::open(&path).unwrap();

        for dir in [again.receipts(), again.runs(), again.quarantine(), again.checkpoints(), again.outputs()]
        {
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
    fn path_that_is_a_file_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().unwrap();

        let refused = DataDir::open(file.path()).map(|_| ()).unwrap_err();

        assert!(matches!(&refused, DataDirError::Io { path, .. } if path == file.path()), "{refused}");
    }
}
