//! Checkpoints as files: one file a name, replaced as a whole.
//!
//! ```text
//! NAME.ckpt    0  "orchckpt"    8  format version u32    12  crc u32 of the value    16  length u64    24  value
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError, SaveError};

use super::fs::{FileId, Fs, check_name, read_small};
use super::off_runtime;
use super::read_only::ReadOnlyFs;
use super::reserve::{keep_reserve, replace_with_reserve};

/// Largest value that is kept or read back.
pub const VALUE_BYTES_MAX: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"orchckpt";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const SUFFIX: &str = ".ckpt";
/// Room for the checkpoint that trimming begins with, where no other one is larger.
const RESERVED_BYTES_MIN: u64 = 64 << 10;

/// Checkpoints in a directory of their own.
///
/// After a crash the old or the new value is there. A file of another format version counts as damaged.
#[derive(Clone)]
pub struct FileCheckpoints {
    dir: PathBuf,
    fs: Arc<dyn Fs>,
    /// Which directory it is: one that takes its place later belongs to somebody else.
    id: Option<FileId>,
    /// The checkpoints that must be saved before anything can make room.
    before_trims: &'static [&'static str],
}

impl FileCheckpoints {
    /// Keeps checkpoints in `dir`, which is created when it is not there.
    ///
    /// # Errors
    ///
    /// The directory cannot be created.
    pub fn open(dir: &Path, fs: Arc<dyn Fs>) -> io::Result<Self> {
        fs.create_dir(dir)?;
        let id = Some(fs.id_at(dir)?);
        Ok(Self { dir: dir.to_owned(), fs, id, before_trims: &[] })
    }

    /// The same, with room for each of the checkpoints `names` from now on, also before it is saved for the first time:
    /// without it nothing may be trimmed, so it must not need the room that trimming makes. It says what the others say
    /// together.
    #[must_use]
    pub fn reserving_for(self, names: &'static [&'static str]) -> Self {
        let this = Self { before_trims: names, ..self };
        let sizes = this.fs.list_dir(&this.dir).unwrap_or_default().into_iter().filter_map(|file| {
            let file = file.ends_with(SUFFIX).then(|| this.fs.open_to_read(&this.dir.join(file)))?;
            file.ok()?.size().ok()
        });
        this.reserve_beside(sizes.max().unwrap_or(0));
        this
    }

    /// Takes room for the checkpoints that trimming needs, where another one has so many bytes.
    fn reserve_beside(&self, bytes: u64) {
        self.before_trims.iter().for_each(|name| self.reserve_for(name, bytes));
    }

    fn reserve_for(&self, name: &str, bytes: u64) {
        let name = format!("{name}{SUFFIX}");
        if let Err(error) = keep_reserve(&*self.fs, &self.dir, &name, 2 * bytes + RESERVED_BYTES_MIN) {
            tracing::warn!(
                path = %self.dir.join(name).display(), %error,
                "there is no reserve for the checkpoint that trimming begins with: on a full disk nothing could be trimmed"
            );
        }
    }

    /// Reads checkpoints in `dir`, if it is there. Nothing is created, and nothing can be saved.
    #[must_use]
    pub fn open_read_only(dir: &Path, fs: Arc<dyn Fs>) -> Self {
        Self { dir: dir.to_owned(), fs: Arc::new(ReadOnlyFs(fs)), id: None, before_trims: &[] }
    }
}

#[async_trait]
impl CheckpointStore for FileCheckpoints {
    async fn load(&self, name: &str) -> Result<Option<Bytes>, LoadError> {
        let path = self.dir.join(file_name(name)?);
        let fs = Arc::clone(&self.fs);
        off_runtime(move || {
            let damaged = |detail: &str| {
                let place = path.display().to_string();
                LoadError::Damaged { place, detail: detail.to_owned() }
            };
            match read_small(&*fs, &path, VALUE_BYTES_MAX + HEADER_BYTES as u64) {
                Ok(None) => Ok(None),
                Ok(Some(content)) => decode_checkpoint(Bytes::from(content)).map(Some).map_err(damaged),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged("it is too long")),
                Err(error) => Err(error.into()),
            }
        })
        .await?
    }

    // The lock on the data directory keeps every other writer out: there is no epoch to compare with.
    async fn save(&self, name: &str, _epoch: Epoch, value: Bytes) -> Result<(), SaveError> {
        let file_name = file_name(name)?;
        if value.len() as u64 > VALUE_BYTES_MAX {
            let text =
                format!("checkpoint {name} has {} bytes, at most {VALUE_BYTES_MAX} are kept", value.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
        }
        let this = self.clone();
        off_runtime(move || {
            this.id.map_or(Ok(()), |id| check_name(&*this.fs, &this.dir, id))?;
            let content = encode_checkpoint(&value);
            replace_with_reserve(&*this.fs, &this.dir, &file_name, &content)?;
            this.reserve_beside(content.len() as u64);
            Ok::<_, io::Error>(())
        })
        .await??;
        Ok(())
    }
}

/// Names are ours: letters, digits, `_`, `-`; anything else could leave the directory.
fn file_name(name: &str) -> io::Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 128 || !name.bytes().all(is_plain) {
        let text = format!("{name:?} is no name for a checkpoint: use 1 to 128 letters, digits, '_' and '-'");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(format!("{name}{SUFFIX}"))
}

fn encode_checkpoint(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + value.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(value).to_le_bytes());
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

fn decode_checkpoint(content: Bytes) -> Result<Bytes, &'static str> {
    let header = content.first_chunk::<HEADER_BYTES>().ok_or("it is too short")?;
    let value = content.slice(HEADER_BYTES..);
    if !header.starts_with(&MAGIC) {
        return Err("it is no checkpoint");
    }
    if header.get(8..12) != Some(&VERSION.to_le_bytes()) {
        return Err("it has another format version");
    }
    if header.get(16..24) != Some(&(value.len() as u64).to_le_bytes()) {
        return Err("it has another length than it says");
    }
    if header.get(12..16) != Some(&crc32c::crc32c(&value).to_le_bytes()) {
        return Err("it fails its checksum");
    }
    Ok(value)
}

#[cfg(any(test, feature = "testkit"))]
#[doc(hidden)]
pub mod testkit {
    //! A door to the stored form, for the fuzz targets.

    use bytes::Bytes;

    /// The value of a stored checkpoint, and its stored form again.
    ///
    /// # Errors
    ///
    /// Why it is refused.
    pub fn again(content: Bytes) -> Result<(Bytes, Vec<u8>), &'static str> {
        let value = super::decode_checkpoint(content)?;
        let stored = super::encode_checkpoint(&value);
        Ok((value, stored))
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ports::checkpoint_conformance::{self, CheckpointProvider};
    use orchestrator_kernel::random::Rng;

    use super::super::fs::RealFs;
    use super::super::tests::fault_fs::FaultFs;
    use super::super::tests::golden;
    use super::*;

    const DIR: &str = "/checkpoints";

    fn store(fs: &FaultFs) -> FileCheckpoints {
        FileCheckpoints::open(Path::new(DIR), Arc::new(fs.clone())).unwrap()
    }

    fn path() -> PathBuf {
        Path::new(DIR).join("cursor.ckpt")
    }

    /// In a directory that the first one makes.
    struct OnDisk(PathBuf);

    #[async_trait]
    impl CheckpointProvider for OnDisk {
        async fn store(&self) -> Arc<dyn CheckpointStore> {
            Arc::new(FileCheckpoints::open(&self.0, Arc::new(RealFs)).unwrap())
        }

        async fn damage(&self, name: &str, at: usize) {
            let path = self.0.join(format!("{name}.ckpt"));
            let mut content = std::fs::read(&path).unwrap();
            let at = at % content.len();
            content[at] ^= 0x10;
            std::fs::write(path, content).unwrap();
        }
    }

    #[tokio::test]
    async fn files_pass_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        checkpoint_conformance::run(&OnDisk(dir.path().join("new"))).await;
    }

    /// Method: also by the handle of who only looks.
    #[tokio::test]
    async fn file_that_was_cut_short_is_damaged_and_named() {
        let fs = FaultFs::default();
        store(&fs).save("cursor", Epoch(1), Bytes::from_static(b"value")).await.unwrap();
        let content = fs.visible_content(&path());
        let looking = FileCheckpoints::open_read_only(Path::new(DIR), Arc::new(fs.clone()));

        for at in 0..content.len() {
            fs.overwrite_durably(&path(), &content[..at]);
            for store in [&store(&fs), &looking] {
                let found = store.load("cursor").await;
                let Err(LoadError::Damaged { place, .. }) = &found else { panic!("cut at {at}: {found:?}") };
                assert_eq!(place, "/checkpoints/cursor.ckpt");
            }
        }
    }

    #[tokio::test]
    async fn crash_while_saving_leaves_the_old_or_the_new_value() {
        for seed in 0..500 {
            let mut rng = Rng::new(seed);
            let fs = FaultFs::default();
            store(&fs).save("cursor", Epoch(1), Bytes::from_static(b"old")).await.unwrap();

            fs.fail_power_after(rng.next_below(7));
            let saved = store(&fs).save("cursor", Epoch(1), Bytes::from_static(b"the new one")).await;
            fs.fail_power(&mut rng);

            let found = store(&fs).load("cursor").await.unwrap().expect("one of both");
            assert!(found == "the new one" || (found == "old" && saved.is_err()), "SEED={seed}");
        }
    }

    #[tokio::test]
    async fn nothing_is_saved_into_a_directory_that_took_the_place_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("checkpoints");
        let store = FileCheckpoints::open(&dir, Arc::new(RealFs)).unwrap();
        store.save("cursor", Epoch(1), Bytes::from_static(b"value")).await.unwrap();

        std::fs::rename(&dir, root.path().join("away")).unwrap();
        std::fs::create_dir(&dir).unwrap();

        assert!(store.save("cursor", Epoch(1), Bytes::from_static(b"later")).await.is_err());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn name_that_leaves_the_directory_is_refused() {
        let store = store(&FaultFs::default());

        for name in ["", "..", "a/b", "a.b", "ä"] {
            assert!(store.save(name, Epoch(1), Bytes::new()).await.is_err(), "{name:?}");
            assert!(store.load(name).await.is_err(), "{name:?}");
        }
    }

    #[test]
    fn checkpoint_matches_its_golden_file() {
        golden::check("checkpoint_v1.hex", &encode_checkpoint(b"a checkpoint's value"));
    }
}
