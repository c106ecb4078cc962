//! The second mark as a file on storage that is not the log server's and not this host's: NFS, a mounted volume.
//!
//! ```text
//! PATH         the marks, text with a checksum; replaced as a whole
//! PATH.lock    held while one writer reads, joins and replaces
//! ```
//!
//! The folder is never created: a mount that is not there must not look like a deployment without marks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orchestrator_kernel::ports::marks::{MARK_BYTES_MAX, MarkError, MarkStore, Marks};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Longest that one look or note may take, the lock of another writer included.
const FILE_MAX: Duration = Duration::from_secs(2);
/// How often a held lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Marks in a file that every host of a deployment can reach.
#[derive(Clone, Debug)]
pub struct SecondMarkFile {
    path: Arc<Path>,
    namespace: Arc<str>,
    /// Held by the one piece of work that may hang on storage that does not answer.
    at_work: Arc<Mutex<()>>,
}

impl SecondMarkFile {
    /// The marks of `namespace` at `path`; nothing is opened yet.
    #[must_use]
    pub fn new(path: &Path, namespace: &str) -> Self {
        Self { path: path.into(), namespace: namespace.into(), at_work: Arc::default() }
    }

    async fn off_runtime(
        &self,
        work: impl FnOnce(&Self) -> Result<Marks, MarkError> + Send + 'static,
    ) -> Result<Marks, MarkError> {
        let silent =
            || MarkError::Away(format!("{} does not answer within {FILE_MAX:?}", self.path.display()));
        let this = self.clone();
        let done = async {
            let at_work = Arc::clone(&this.at_work).lock_owned().await;
            // The guard goes along: storage that hangs keeps one thread, not one for each try.
            let worked = tokio::task::spawn_blocking(move || {
                let done = work(&this);
                drop(at_work);
                done
            });
            worked.await.map_err(|error| MarkError::Away(error.to_string()))?
        };
        timeout(FILE_MAX, done).await.map_err(|_| silent())?
    }

    fn read_marks(&self) -> Result<Marks, MarkError> {
        let mut stored = Vec::new();
        let most = MARK_BYTES_MAX as u64 + 1;
        match File::open(&self.path).and_then(|file| file.take(most).read_to_end(&mut stored)) {
            Ok(_) => self.decode_marks(&stored),
            Err(error) if error.kind() == ErrorKind::NotFound && self.parent_dir().is_dir() => {
                Ok(Marks::default())
            }
            Err(error) => Err(self.away_error("cannot read", &error)),
        }
    }

    fn decode_marks(&self, stored: &[u8]) -> Result<Marks, MarkError> {
        let damaged = |detail: String| MarkError::Damaged { place: self.path.display().to_string(), detail };
        let (namespace, marks) = Marks::decode(stored).map_err(|error| damaged(error.to_string()))?;
        match *namespace == *self.namespace {
            true => Ok(marks),
            false => {
                Err(damaged(format!("it holds the marks of namespace {namespace}, not {}", self.namespace)))
            }
        }
    }

    fn replace_by_join(&self, more: &Marks) -> Result<Marks, MarkError> {
        let _lock = self.hold_lock().map_err(|error| self.away_error("cannot lock", &error))?;
        let known = self.read_marks()?;
        let mut joined = known.clone();
        joined.join_marks(more);
        if joined != known {
            self.write_marks(&joined).map_err(|error| self.away_error("cannot write", &error))?;
        }
        Ok(joined)
    }

    fn write_marks(&self, marks: &Marks) -> io::Result<()> {
        let aside = self.sibling_path("tmp");
        let mut file = File::create(&aside)?;
        file.write_all(marks.encode(&self.namespace).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&aside, &self.path)?;
        File::open(self.parent_dir())?.sync_all()
    }

    /// Held until the value is dropped, or the process ends.
    fn hold_lock(&self) -> io::Result<File> {
        let path = self.sibling_path("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        let deadline = Instant::now() + FILE_MAX;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let what = format!("another process has held {} for long", path.display());
                    return Err(io::Error::new(ErrorKind::TimedOut, what));
                }
            }
        }
    }

    fn sibling_path(&self, extension: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".");
        name.push(extension);
        name.into()
    }

    fn parent_dir(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        }
    }

    fn away_error(&self, doing: &str, error: &io::Error) -> MarkError {
        MarkError::Away(format!("{doing} {}: {error}", self.path.display()))
    }
}

#[async_trait]
impl MarkStore for SecondMarkFile {
    fn place_text(&self) -> String {
        self.path.display().to_string()
    }

    async fn load_marks(&self) -> Result<Marks, MarkError> {
        self.off_runtime(Self::read_marks).await
    }

    async fn note_marks(&self, marks: &Marks) -> Result<Marks, MarkError> {
        let more = marks.clone();
        self.off_runtime(move |this| this.replace_by_join(&more)).await
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ids::{Epoch, Seq};
    use orchestrator_kernel::ports::marks::HighWaterMark;
    use orchestrator_kernel::ports::marks_conformance::{self, MarksProvider};

    use super::*;

    struct InFile(tempfile::TempDir);

    impl InFile {
        fn marks(&self) -> SecondMarkFile {
            SecondMarkFile::new(&self.0.path().join("marks"), "test")
        }
    }

    #[async_trait]
    impl MarksProvider for InFile {
        async fn store(&self) -> Arc<dyn MarkStore> {
            Arc::new(self.marks())
        }
    }

    fn receipts(tail: u64) -> Marks {
        let mut marks = Marks::default();
        let mark = HighWaterMark { log_id: 1, epoch: Epoch(1), tail: Seq(tail), fingerprint: None };
        marks.raise_mark("receipts", mark);
        marks
    }

    #[tokio::test]
    async fn a_file_passes_the_suite_of_marks() {
        marks_conformance::run(&InFile(tempfile::tempdir().unwrap())).await;
    }

    #[tokio::test]
    async fn a_mount_that_is_not_there_is_no_deployment_without_marks() {
        let dir = InFile(tempfile::tempdir().unwrap());
        let elsewhere = SecondMarkFile::new(&dir.0.path().join("not mounted").join("marks"), "test");

        let (looked, noted) = (elsewhere.load_marks().await, elsewhere.note_marks(&receipts(1)).await);

        assert!(matches!(looked, Err(MarkError::Away(_))), "{looked:?}");
        assert!(matches!(noted, Err(MarkError::Away(_))), "{noted:?}");
        assert!(!dir.0.path().join("not mounted").exists());
    }

    /// Method: each byte of the file, and each length that a cut leaves but the empty one's missing file.
    #[tokio::test]
    async fn damage_and_another_namespace_are_named_and_left_alone() {
        let dir = InFile(tempfile::tempdir().unwrap());
        let marks = dir.marks();
        marks.note_marks(&receipts(7)).await.unwrap();
        let whole = std::fs::read(&*marks.path).unwrap();

        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            for stored in [flipped, whole[..at].to_vec()] {
                std::fs::write(&*marks.path, &stored).unwrap();
                for answer in [marks.load_marks().await, marks.note_marks(&receipts(8)).await] {
                    assert!(matches!(answer, Err(MarkError::Damaged { .. })), "byte {at}: {answer:?}");
                }
                assert_eq!(std::fs::read(&*marks.path).unwrap(), stored, "byte {at}");
            }
        }
        std::fs::write(&*marks.path, receipts(7).encode("another")).unwrap();
        let refused = marks.load_marks().await.unwrap_err().to_string();
        assert!(refused.contains("namespace another, not test"), "{refused}");
    }
}
