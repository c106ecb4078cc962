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
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, SaveError};
use tracing::warn;

use super::fs::{Fs, read_small, replace_file};
use super::off_runtime;
use super::read_only::ReadOnlyFs;

/// Largest value that is kept or read back.
pub const VALUE_BYTES_MAX: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"orchckpt";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;

/// Checkpoints in a directory of their own.
///
/// After a crash the old or the new value is there. A file that is damaged, or of another format version, counts as
/// none: a checkpoint only saves time.
#[derive(Clone)]
pub struct FileCheckpoints {
    dir: PathBuf,
    fs: Arc<dyn Fs>,
    /// Who only looks wants to know of a damaged value; who goes on can do without it.
    damage_is_an_error: bool,
}

impl FileCheckpoints {
    /// Keeps checkpoints in `dir`, which is created when it is not there.
    ///
    /// # Errors
    ///
    /// The directory cannot be created.
    pub fn open(dir: &Path, fs: Arc<dyn Fs>) -> io::Result<Self> {
        fs.create_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), fs, damage_is_an_error: false })
    }

    /// Reads checkpoints in `dir`, if it is there. Nothing is created, and nothing can be saved. A damaged one is an error.
    #[must_use]
    pub fn open_read_only(dir: &Path, fs: Arc<dyn Fs>) -> Self {
        Self { dir: dir.to_owned(), fs: Arc::new(ReadOnlyFs(fs)), damage_is_an_error: true }
    }
}

#[async_trait]
impl CheckpointStore for FileCheckpoints {
    async fn load(&self, name: &str) -> io::Result<Option<Bytes>> {
        let file_name = file_name(name)?;
        let this = self.clone();
        off_runtime(move || {
            let path = this.dir.join(file_name);
            let content = match read_small(&*this.fs, &path, VALUE_BYTES_MAX + HEADER_BYTES as u64) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => Some(Vec::new()),
                content => content?,
            };
            let value = content.map(|content| decode(Bytes::from(content)));
            if let Some(Err(reason)) = &value {
                if this.damage_is_an_error {
                    let text = format!("{}: {reason}", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                warn!(file = %path.display(), reason, "checkpoint cannot be trusted, going on without it");
            }
            Ok(value.and_then(Result::ok))
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
        off_runtime(move || replace_file(&*this.fs, &this.dir, &file_name, &encode(&value))).await??;
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
    Ok(format!("{name}.ckpt"))
}

fn encode(value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + value.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(value).to_le_bytes());
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

fn decode(content: Bytes) -> Result<Bytes, &'static str> {
    let header = content.first_chunk::<HEADER_BYTES>().ok_or("it is too short or too long")?;
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
        let value = super::decode(content)?;
        let stored = super::encode(&value);
        Ok((value, stored))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault_fs::{FaultFs, Rng};
    use super::super::fs::RealFs;
    use super::super::golden;
    use super::*;

    const DIR: &str = "/checkpoints";

    fn store(fs: &FaultFs) -> FileCheckpoints {
        FileCheckpoints::open(Path::new(DIR), Arc::new(fs.clone())).unwrap()
    }

    fn path() -> PathBuf {
        Path::new(DIR).join("cursor.ckpt")
    }

    #[tokio::test]
    async fn saved_value_is_loaded_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FileCheckpoints::open(&dir.path().join("new"), Arc::new(RealFs)).unwrap();

        assert_eq!(open().load("cursor").await.unwrap(), None);
        open().save("cursor", Epoch(1), Bytes::from_static(b"one")).await.unwrap();
        open().save("cursor", Epoch(1), Bytes::from_static(b"")).await.unwrap();
        open().save("other", Epoch(1), Bytes::from_static(b"two")).await.unwrap();

        assert_eq!(open().load("cursor").await.unwrap().as_deref(), Some(b"" as &[u8]));
        assert_eq!(open().load("other").await.unwrap().as_deref(), Some(b"two" as &[u8]));
    }

    #[tokio::test]
    async fn damaged_value_counts_as_none() {
        let fs = FaultFs::default();
        store(&fs).save("cursor", Epoch(1), Bytes::from_static(b"value")).await.unwrap();
        let content = fs.content(&path());

        for at in 0..content.len() {
            let mut flipped = content.clone();
            flipped[at] ^= 0x10;
            fs.overwrite(&path(), &flipped);
            assert_eq!(store(&fs).load("cursor").await.unwrap(), None, "byte {at}");
            fs.overwrite(&path(), &content[..at]);
            assert_eq!(store(&fs).load("cursor").await.unwrap(), None, "cut at {at}");
        }
    }

    #[tokio::test]
    async fn crash_while_saving_leaves_the_old_or_the_new_value() {
        for seed in 0..500 {
            let mut rng = Rng(seed);
            let fs = FaultFs::default();
            store(&fs).save("cursor", Epoch(1), Bytes::from_static(b"old")).await.unwrap();

            fs.fail_power_after(rng.below(7));
            let saved = store(&fs).save("cursor", Epoch(1), Bytes::from_static(b"the new one")).await;
            fs.crash(&mut rng);

            let found = store(&fs).load("cursor").await.unwrap().expect("one of both");
            assert!(found == "the new one" || (found == "old" && saved.is_err()), "SEED={seed}");
        }
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
        golden::check("checkpoint_v1.hex", &encode(b"a checkpoint's value"));
    }
}
