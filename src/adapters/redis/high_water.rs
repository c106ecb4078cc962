//! How far a log is known to be acknowledged, kept on this host: a server that comes back with less is found out.
//!
//! ```text
//! DIR/NAMESPACE.LOG.mark    two slots, at 0 and 4096; the next write goes to the one that is not in force
//! slot   0  "orchmark"    8  version u32    12  has header u32    16  log id u64    24  position u64
//!       32  count of writes u64    40  entry header, zeros (8 bytes)    48  crc u32 of bytes 0 … 48
//! ```
//!
//! Each mark is written before its append is answered: so it survives the end of this process. It reaches the disk
//! within a second; after a power failure of this host the mark may be lower than what was acknowledged, never higher.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchestrator_kernel::ids::Seq;
use tracing::warn;

use super::entry::{HEADER_BYTES, Header, LogId};

/// How long a mark may wait for the disk.
const SYNC_AFTER: Duration = Duration::from_secs(1);

const MAGIC: [u8; 8] = *b"orchmark";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 52;
const CRC_AT: usize = 48;
/// Each slot has a block of its own: a torn write damages one.
const SLOTS_AT: [u64; 2] = [0, 4096];

/// High-water mark: the last acknowledged record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) log: LogId,
    pub(super) seq: Seq,
    /// How the entry at `seq` begins; unknown when it was trimmed before this host came to know the log.
    pub(super) header: Option<Header>,
}

/// The file of one log.
pub(super) struct HighWater {
    file: Arc<File>,
    path: PathBuf,
    mark: Option<Mark>,
    writes: u64,
    sync_is_due: Arc<AtomicBool>,
}

impl HighWater {
    /// Opens the file, or creates it without a mark.
    ///
    /// # Errors
    ///
    /// The disk failed; [`InvalidData`](io::ErrorKind::InvalidData) when the file has content, but no mark that can be
    /// read.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let slots = [read_slot(&file, SLOTS_AT[0])?, read_slot(&file, SLOTS_AT[1])?];
        let newest = slots.into_iter().flatten().max_by_key(|(writes, _)| *writes);
        // Only zeros: the host lost power before the first mark reached the disk.
        if newest.is_none() && std::fs::read(path)?.iter().any(|byte| *byte != 0) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no slot of it passes its checksum"));
        }
        File::open(dir)?.sync_all()?;
        Ok(Self {
            file: Arc::new(file),
            path: path.to_owned(),
            mark: newest.map(|(_, mark)| mark),
            writes: newest.map_or(0, |(writes, _)| writes),
            sync_is_due: Arc::default(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The last mark, or none when this host does not know the log.
    pub(super) const fn last_mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Remembers `mark`, unless a later one of the same log is there. On the disk within a second.
    ///
    /// # Errors
    ///
    /// The disk failed; the old mark stays in force.
    pub(super) fn note_mark(&mut self, mark: Mark) -> io::Result<()> {
        if self.mark.is_some_and(|known| known.log == mark.log && mark.seq <= known.seq) {
            return Ok(());
        }
        self.write_mark(mark)
    }

    fn write_mark(&mut self, mark: Mark) -> io::Result<()> {
        let writes = self.writes + 1;
        let at = SLOTS_AT[usize::from(writes.is_multiple_of(2))];
        self.file.write_all_at(&encode_slot(&mark, writes), at)?;
        self.writes = writes;
        self.mark = Some(mark);
        self.sync_soon();
        Ok(())
    }

    /// Remembers `mark`, on the disk when this returns. Blocks for some milliseconds.
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub(super) fn note_durably(&mut self, mark: Mark) -> io::Result<()> {
        self.note_mark(mark)?;
        self.file.sync_data()
    }

    /// As [`note_durably`](Self::note_durably), also where a later one is there: the operator accepted a loss.
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub(super) fn replace_durably(&mut self, mark: Mark) -> io::Result<()> {
        self.write_mark(mark)?;
        self.file.sync_data()
    }

    fn sync_soon(&self) {
        if self.sync_is_due.swap(true, Ordering::AcqRel) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (file, path, is_due) = (Arc::clone(&self.file), self.path.clone(), Arc::clone(&self.sync_is_due));
        runtime.spawn(async move {
            tokio::time::sleep(SYNC_AFTER).await;
            // Before the sync: a mark that comes during it gets one of its own.
            is_due.store(false, Ordering::Release);
            // A runtime that shuts down drops this: dropping the mark syncs it too.
            if let Ok(Err(error)) = tokio::task::spawn_blocking(move || file.sync_data()).await {
                warn!(file = %path.display(), %error, "cannot sync a high-water mark");
            }
        });
    }
}

impl Drop for HighWater {
    fn drop(&mut self) {
        if let Err(error) = self.file.sync_data() {
            warn!(file = %self.path.display(), %error, "cannot sync a high-water mark");
        }
    }
}

pub(super) fn encode_slot(mark: &Mark, writes: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    let mut put = |at: usize, field: &[u8]| {
        slot.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
    };
    put(0, &MAGIC);
    put(8, &VERSION.to_le_bytes());
    put(12, &u32::from(mark.header.is_some()).to_le_bytes());
    put(16, &mark.log.0.to_le_bytes());
    put(24, &mark.seq.0.to_le_bytes());
    put(32, &writes.to_le_bytes());
    put(40, &mark.header.unwrap_or_default());
    let crc = crc32c::crc32c(slot.get(..CRC_AT).unwrap_or_default());
    slot.iter_mut().skip(CRC_AT).zip(crc.to_le_bytes()).for_each(|(to, from)| *to = from);
    slot
}

/// The slot's count of writes and mark; nothing when it was never written, or is damaged.
pub(super) fn decode_slot(slot: &[u8; SLOT_BYTES]) -> Option<(u64, Mark)> {
    let (covered, crc) = slot.split_at_checked(CRC_AT)?;
    if !slot.starts_with(&MAGIC) || crc != crc32c::crc32c(covered).to_le_bytes() {
        return None;
    }
    let u32_at = |at: usize| Some(u32::from_le_bytes(*slot.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*slot.get(at..)?.first_chunk()?));
    if u32_at(8)? != VERSION {
        return None;
    }
    let header = *slot.get(40..)?.first_chunk::<HEADER_BYTES>()?;
    let header = (u32_at(12)? == 1).then_some(header);
    Some((u64_at(32)?, Mark { log: LogId(u64_at(16)?), seq: Seq(u64_at(24)?), header }))
}

fn read_slot(file: &File, at: u64) -> io::Result<Option<(u64, Mark)>> {
    let mut slot = [0; SLOT_BYTES];
    match file.read_exact_at(&mut slot, at) {
        Ok(()) => Ok(decode_slot(&slot)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(7);

    fn mark(seq: u64) -> Mark {
        Mark { log: LOG, seq: Seq(seq), header: Some([1, 2, 3, 4, 5]) }
    }

    #[test]
    fn last_mark_is_found_by_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("orch.raw.mark");
        let open = || HighWater::open(&path).unwrap();

        assert_eq!(open().last_mark(), None);
        for seq in 1..20 {
            open().note_mark(mark(seq)).unwrap();
            assert_eq!(open().last_mark(), Some(mark(seq)));
        }

        open().note_mark(mark(5)).unwrap();
        assert_eq!(open().last_mark(), Some(mark(19)), "a mark of the same log never goes back");
        open().replace_durably(mark(5)).unwrap();
        assert_eq!(open().last_mark(), Some(mark(5)), "unless the operator accepted the loss");
        open().note_mark(mark(19)).unwrap();
        let other = Mark { log: LogId(8), seq: Seq(1), header: None };
        open().note_mark(other).unwrap();
        assert_eq!(open().last_mark(), Some(other));
    }

    /// Method: damage each byte of the slot that was written last, then of the other one as well.
    #[test]
    fn damaged_slot_leaves_the_mark_before_and_two_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orch.raw.mark");
        let mut file = HighWater::open(&path).unwrap();
        file.note_mark(mark(1)).unwrap();
        file.note_mark(mark(2)).unwrap();
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        let [first, second] = [4096, 0];

        for byte in 0..SLOT_BYTES {
            let mut bytes = whole.clone();
            bytes[first + byte] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(HighWater::open(&path).unwrap().last_mark(), Some(mark(1)), "byte {byte}");
            bytes[second + byte] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let refused = HighWater::open(&path).err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "byte {byte}");
        }
    }

    #[test]
    fn mark_matches_its_golden_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/redis_mark_v1.hex");
        let slot = encode_slot(&mark(42), 3);
        let dump = slot.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ") + "\n";

        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &dump).unwrap();
        }

        assert_eq!(std::fs::read_to_string(path).unwrap(), dump);
    }
}
