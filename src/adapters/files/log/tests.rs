//! The log against its port's suite, a failing disk, and every kind of damage.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use orchestrator_kernel::ports::log_conformance::{
    self, LogProvider, read_to_tail, sample_batch, sample_payload,
};
use orchestrator_kernel::random::Rng;

use super::super::tests::fault_fs::FaultFs;
use super::super::tests::golden;
use super::meta::LogMeta;
use super::segment::{HEADER_BYTES, file_name};
use super::*;

mod campaign;
mod power;

const DIR: &str = "/log";
const LOG_ID: u64 = 0x0123_4567_89ab_cdef;

fn options(fs: &FaultFs, segment_bytes: u64) -> EmbeddedLogOptions {
    EmbeddedLogOptions { segment_bytes, fs: Arc::new(fs.clone()), ..EmbeddedLogOptions::new("test") }
}

fn open(fs: &FaultFs) -> Result<EmbeddedLog, AcquireError> {
    EmbeddedLog::open(Path::new(DIR), options(fs, SEGMENT_BYTES_MIN))
}

fn segment(first: u64) -> PathBuf {
    Path::new(DIR).join(file_name(Seq(first)))
}

fn meta_path() -> PathBuf {
    Path::new(DIR).join(meta::FILE_NAME)
}

/// A disk whose log will have the id [`LOG_ID`].
fn disk() -> FaultFs {
    let fs = FaultFs::default();
    let meta = LogMeta {
        log_id: LOG_ID,
        epoch: Epoch(0),
        high_water: Seq(0),
        active_first: Seq(0),
        is_marked: false,
    };
    super::super::fs::replace_file(&fs, Path::new(DIR), meta::FILE_NAME, &meta.encode()).unwrap();
    fs
}

async fn append(log: &EmbeddedLog, epoch: Epoch, first: u64, count: u64) {
    log.append(epoch, &sample_batch(first, count)).await.unwrap();
}

/// A disk with `batches` batches of ten records in one segment, as a killed process leaves it, and its end in bytes
/// after each batch.
async fn killed_after(batches: u64) -> (FaultFs, Vec<u64>) {
    let fs = disk();
    let log = EmbeddedLog::open(Path::new(DIR), options(&fs, 1 << 16)).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let mut ends = vec![log.stat().bytes];
    for batch in 0..batches {
        append(&log, epoch, batch * 10 + 1, 10).await;
        ends.push(log.stat().bytes);
    }
    let killed = fs.fork_disk();
    drop(log);
    (killed, ends)
}

/// The log opens, holds the sample records 1 … `tail`, takes one more batch, and holds that too when opened again.
async fn check_usable(fs: &FaultFs, tail: u64) {
    let log = open(fs).unwrap_or_else(|error| panic!("expected {tail} records: {error}"));
    assert_eq!(log.stat().tail, Seq(tail));
    let epoch = log.acquire().await.unwrap().epoch;
    append(&log, epoch, tail + 1, 3).await;
    drop(log);
    let log = open(fs).unwrap();
    let expected: Vec<_> = (1..=tail + 3).map(sample_payload).collect();
    assert_eq!(read_to_tail(&log, Seq(1), ReadLimit::default()).await, expected);
    assert_eq!(log.torn_bytes(), 0);
}

struct OnDisk {
    root: tempfile::TempDir,
    made: AtomicU64,
    segment_bytes: u64,
}

impl OnDisk {
    fn open(&self, dir: &Path) -> Arc<dyn Log> {
        let options =
            EmbeddedLogOptions { segment_bytes: self.segment_bytes, ..EmbeddedLogOptions::new("test") };
        Arc::new(EmbeddedLog::open(dir, options).unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join(self.made.load(Ordering::SeqCst).to_string())
    }
}

#[async_trait]
impl LogProvider for OnDisk {
    async fn fresh(&self) -> Arc<dyn Log> {
        self.made.fetch_add(1, Ordering::SeqCst);
        self.open(&self.dir())
    }

    async fn reopen(&self, log: Arc<dyn Log>) -> Arc<dyn Log> {
        drop(log);
        self.open(&self.dir())
    }
}

#[tokio::test]
async fn embedded_log_conforms() {
    for segment_bytes in [SEGMENT_BYTES_MIN, 1 << 20] {
        let root = tempfile::tempdir().unwrap();
        log_conformance::run(&OnDisk { root, made: AtomicU64::new(0), segment_bytes }).await;
    }
}

#[tokio::test]
async fn segment_and_meta_match_their_golden_files() {
    let fs = disk();
    let log = EmbeddedLog::open(Path::new(DIR), options(&fs, SEGMENT_BYTES_MIN)).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let mut batch = RecordBatch::starting_at(Seq(1));
    [b"first" as &[u8], b"", b"third"].into_iter().for_each(|payload| batch.push(payload));
    log.append(epoch, &batch).await.unwrap();
    let mut batch = RecordBatch::starting_at(Seq(4));
    batch.push(b"alone in its batch");
    log.append(epoch, &batch).await.unwrap();
    let end = usize::try_from(log.stat().bytes).unwrap();
    drop(log);

    golden::check("embedded_segment_v1.hex", &fs.visible_content(&segment(1))[..end]);
    golden::check("embedded_meta_v1.hex", &fs.visible_content(&meta_path()));
}

/// Method: cut the file at every byte of the last two batches, open, append, and open once more.
#[tokio::test]
async fn torn_tail_loses_whole_unproven_batches_only() {
    let (killed, ends) = killed_after(5).await;
    let content = killed.visible_content(&segment(1));

    for cut in ends[3]..=ends[5] {
        let fs = killed.fork_disk();
        fs.overwrite_durably(&segment(1), &content[..cut as usize]);
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;

        let log = open(&fs).unwrap();
        assert_eq!(
            log.torn_bytes() > 0,
            !ends.contains(&cut)
                && content[..cut as usize][ends[whole as usize] as usize..].iter().any(|byte| *byte != 0)
        );
        drop(log);
        check_usable(&fs, whole * 10).await;
    }
}

#[tokio::test]
async fn records_known_durable_are_never_taken_for_torn() {
    let (fs, ends) = killed_after(5).await;
    drop(open(&fs).unwrap());
    let content = fs.visible_content(&segment(1));

    for cut in (0..ends[5]).step_by(7) {
        let fs = fs.fork_disk();
        fs.overwrite_durably(&segment(1), &content[..cut as usize]);

        assert!(matches!(open(&fs), Err(AcquireError::Corrupt { .. })), "cut at {cut}");
    }
}

#[tokio::test]
async fn zeros_and_garbage_behind_the_tail_are_removed() {
    let (killed, ends) = killed_after(3).await;
    let content = killed.visible_content(&segment(1))[..ends[3] as usize].to_vec();
    let mut rng = Rng::new(7);

    for length in [1, 7, 8, 55, 56, 57, 4096, 10_000] {
        let garbage: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8 | 1).collect();
        for (tail, is_torn) in [(vec![0; length], false), (garbage, true)] {
            let fs = killed.fork_disk();
            fs.overwrite_durably(&segment(1), &[content.as_slice(), &tail].concat());

            let log = open(&fs).unwrap();
            assert_eq!(log.torn_bytes(), if is_torn { length as u64 } else { 0 });
            drop(log);
            check_usable(&fs, 30).await;
        }
    }
}

/// Method: flip a bit of each byte of a log of three segments; each time open it and read it whole.
#[tokio::test]
async fn flipped_bit_anywhere_never_changes_a_record() {
    let fs = disk();
    let log = open(&fs).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let mut starts = vec![1];
    let mut next = 1;
    while starts.len() < 3 || next < starts[2] + 30 {
        append(&log, epoch, next, 10).await;
        next += 10;
        let first = log.store.catalogue().active.first.0;
        if starts.last() != Some(&first) {
            starts.push(first);
        }
    }
    let killed = fs.fork_disk();
    drop(log);
    let expected: Vec<_> = (1..next).map(sample_payload).collect();

    let files = starts.iter().map(|first| segment(*first)).chain([meta_path()]);
    for path in files {
        for (state, is_clean) in [(&killed, false), (&fs, true)] {
            let content = state.visible_content(&path);
            for at in 0..content.len() {
                let fs = state.fork_disk();
                let mut flipped = content.clone();
                flipped[at] ^= 1 << (at % 8);
                fs.overwrite_durably(&path, &flipped);
                check_damaged(&fs, &expected, is_clean, &format!("{} byte {at}", path.display())).await;
            }
        }
    }
}

/// A damaged log is refused, or stops at the damage, or has lost its last batch if that is not known durable.
async fn check_damaged(fs: &FaultFs, expected: &[Vec<u8>], is_clean: bool, context: &str) {
    let log = match open(fs) {
        Ok(log) => log,
        Err(AcquireError::Corrupt { .. } | AcquireError::UnknownVersion { .. }) => return,
        Err(error @ (AcquireError::Held { .. } | AcquireError::Io { .. })) => panic!("{context}: {error}"),
    };
    let tail = log.stat().tail.0 as usize;
    let lost = expected.len() - tail;
    assert!(
        lost == 0 || (lost == 10 && !is_clean && log.torn_bytes() > 0),
        "{context}: lost {lost} silently"
    );
    let mut at = 1;
    while at <= tail {
        match log.read(Seq(at as u64), ReadLimit::default()).await {
            Ok(page) => {
                for (seq, payload) in page.iter() {
                    assert_eq!(payload, expected[seq.0 as usize - 1], "{context}: record {seq}");
                }
                at += page.len();
            }
            Err(ReadError::Corrupt { .. }) => return,
            Err(error @ (ReadError::Trimmed { .. } | ReadError::Io(_))) => panic!("{context}: {error}"),
        }
    }
}

#[tokio::test]
async fn missing_segment_is_refused() {
    let fs = disk();
    let log = open(&fs).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let mut firsts = vec![1];
    for batch in 0..60 {
        append(&log, epoch, batch * 10 + 1, 10).await;
        let first = log.store.catalogue().active.first.0;
        if firsts.last() != Some(&first) {
            firsts.push(first);
        }
    }
    let killed = fs.fork_disk();
    drop(log);
    assert!(firsts.len() > 4);

    for first in &firsts[1..] {
        let fs = killed.fork_disk();
        fs.remove_file(&segment(*first)).unwrap();
        assert!(matches!(open(&fs), Err(AcquireError::Corrupt { .. })), "segment {first} is missing");
    }
}

/// Method: write frames of one group by hand and lose the first of them, which no sync ever covered.
#[tokio::test]
async fn hole_in_an_unsynced_group_is_torn_and_in_a_synced_one_damage() {
    let (killed, ends) = killed_after(2).await;
    for (synced, is_torn) in [(Seq(20), true), (Seq(21), false)] {
        let fs = killed.fork_disk();
        let file = fs.open_file(&segment(1)).unwrap();
        let lost = Frame::encode_batch(&sample_batch(21, 10)).unwrap();
        let mut kept = Frame::encode_batch(&sample_batch(31, 10)).unwrap();
        file.write_at(kept.finish_head(Epoch(1), synced, LOG_ID), ends[2] + lost.len()).unwrap();

        match open(&fs) {
            Ok(log) => {
                assert!(is_torn);
                assert_eq!((log.stat().tail, log.torn_bytes() > 0), (Seq(20), true));
                drop(log);
                check_usable(&fs, 20).await;
            }
            Err(error) => assert!(!is_torn && matches!(error, AcquireError::Corrupt { .. }), "{error}"),
        }
    }
}

#[tokio::test]
async fn full_disk_refuses_and_goes_on_when_there_is_room() {
    let fs = disk();
    fs.set_allocatable(Some(4 * SEGMENT_BYTES_MIN));
    let log = open(&fs).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let mut next = 1;
    let refused = loop {
        match log.append(epoch, &sample_batch(next, 10)).await {
            Ok(()) => next += 10,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    let large = log.append(epoch, &sample_batch(next, 1000)).await;
    assert!(matches!(large, Err(AppendError::Full { .. })), "{large:?}");
    assert_eq!(log.stat().tail, Seq(next - 1));

    fs.set_allocatable(None);

    append(&log, epoch, next, 1000).await;
    drop(log);
    check_usable(&fs, next + 999).await;
}

#[tokio::test]
async fn capacity_bounds_the_files() {
    let fs = disk();
    let capacity = 5 * SEGMENT_BYTES_MIN;
    let limited = EmbeddedLogOptions { capacity_bytes: Some(capacity), ..options(&fs, SEGMENT_BYTES_MIN) };
    let log = EmbeddedLog::open(Path::new(DIR), limited).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let files_bytes = || -> usize {
        let names = fs.list_dir(Path::new(DIR)).unwrap();
        let files = names.iter().filter(|name| name.ends_with(".seg") || name.ends_with(".tmp"));
        files.map(|name| fs.visible_content(&Path::new(DIR).join(name)).len()).sum()
    };

    let mut next = 1;
    while let Ok(()) = log.append(epoch, &sample_batch(next, 10)).await {
        next += 10;
        assert!(files_bytes() as u64 <= capacity);
    }
    assert!(log.stat().bytes > 3 * SEGMENT_BYTES_MIN, "the room is used");
    let start = log.trim(epoch, Seq(next)).await.unwrap();

    assert!(start > Seq(1));
    append(&log, epoch, next, 10).await;
}

#[tokio::test]
async fn failed_write_or_sync_poisons_the_log() {
    for fail in [FaultFs::fail_next_sync, FaultFs::fail_next_write] {
        let fs = disk();
        let log = open(&fs).unwrap();
        let epoch = log.acquire().await.unwrap().epoch;
        append(&log, epoch, 1, 10).await;

        fail(&fs);
        for _ in 0..3 {
            let refused = log.append(epoch, &sample_batch(11, 10)).await;
            assert!(matches!(refused, Err(AppendError::Poisoned { .. })), "{refused:?}");
        }
        assert!(log.acquire().await.is_err());
        assert_eq!(log.stat().tail, Seq(10), "what failed is not shown");
    }
}

/// Method: the batch whose sync failed is still in memory when the process starts again. It is then shown, so it must
/// survive a later crash, although the system takes it for written.
#[tokio::test]
async fn batch_found_after_a_failed_sync_is_made_durable() {
    let fs = disk();
    let log = open(&fs).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    append(&log, epoch, 1, 10).await;
    fs.fail_next_sync();
    assert!(log.append(epoch, &sample_batch(11, 10)).await.is_err());
    fs.kill_process();
    drop(log);

    let log = open(&fs).unwrap();
    assert_eq!(log.stat().tail, Seq(20), "found in memory");
    let epoch = log.acquire().await.unwrap().epoch;
    append(&log, epoch, 21, 10).await;
    fs.fail_power(&mut Rng::new(1));
    drop(log);

    check_usable(&fs, 30).await;
}

#[tokio::test]
async fn held_log_names_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), EmbeddedLogOptions::new("receipts")).unwrap();

    let second = EmbeddedLog::open(dir.path(), EmbeddedLogOptions::new("receipts")).map(|_| ());

    let pid = std::process::id().to_string();
    assert!(matches!(&second, Err(AcquireError::Held { holder, .. }) if holder.contains(&pid)), "{second:?}");
    drop(log);
    EmbeddedLog::open(dir.path(), EmbeddedLogOptions::new("receipts")).unwrap();
}

#[tokio::test]
async fn newer_format_is_refused_as_such() {
    let (fs, _) = killed_after(1).await;
    let mut content = fs.visible_content(&segment(1));
    content[8] = 2;
    let crc = crc32c::crc32c(&content[..60]);
    content[60..64].copy_from_slice(&crc.to_le_bytes());
    fs.overwrite_durably(&segment(1), &content);

    assert!(matches!(open(&fs), Err(AcquireError::UnknownVersion { found: 2, known: 1, .. })));
}

#[tokio::test]
async fn index_finds_every_record_of_a_sealed_segment() {
    let fs = FaultFs::default();
    let log = EmbeddedLog::open(Path::new(DIR), options(&fs, 1 << 20)).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    for batch in 0..300 {
        let mut records = RecordBatch::starting_at(Seq(batch * 20 + 1));
        (0..20).for_each(|record| records.push(&[record; 400]));
        log.append(epoch, &records).await.unwrap();
    }
    drop(log);
    let log = EmbeddedLog::open(Path::new(DIR), options(&fs, 1 << 20)).unwrap();
    assert!(log.store.catalogue().sealed.len() >= 2);

    for seq in (1..=6000).step_by(37) {
        let page = log.read(Seq(seq), ReadLimit { records: 3, bytes: 4096 }).await.unwrap();
        assert_eq!(page.get(0), Some(&[((seq - 1) % 20) as u8; 400] as &[u8]));
    }
    assert!(log.stat().bytes > HEADER_BYTES);
}

/// Every byte and name on the disk.
fn everything(fs: &FaultFs) -> Vec<(String, Vec<u8>)> {
    let mut names = fs.list_dir(Path::new(DIR)).unwrap();
    names.sort();
    names.into_iter().map(|name| (name.clone(), fs.visible_content(&Path::new(DIR).join(&name)))).collect()
}

/// Method: logs of many segments, whole, torn at the end and with a file that a crash left; read from every position
/// with several limits by a reader, and by a writer that opens them afterwards.
#[tokio::test]
async fn reader_sees_what_a_writer_would_and_changes_nothing() {
    for torn in [0, 1, 100] {
        let fs = disk();
        let log = open(&fs).unwrap();
        let epoch = log.acquire().await.unwrap().epoch;
        for batch in 0..40 {
            append(&log, epoch, batch * 10 + 1, 10).await;
        }
        let killed = fs.fork_disk();
        let last_segment = segment(log.store.catalogue().active.first.0);
        let end = usize::try_from(log.store.catalogue().active.end).unwrap();
        drop(log);
        let mut content = killed.visible_content(&last_segment);
        content[end..end + torn].fill(0xAA);
        killed.overwrite_durably(&last_segment, &content);
        killed.create_file(&Path::new(DIR).join("spare-9.tmp")).unwrap();
        let before = everything(&killed);

        let reader =
            EmbeddedLog::open_read_only(Path::new(DIR), options(&killed, SEGMENT_BYTES_MIN)).unwrap();
        assert_eq!(reader.torn_bytes(), torn as u64);
        assert!(matches!(reader.acquire().await, Err(AcquireError::Io { .. })));
        let refused = reader.append(Epoch(9), &sample_batch(401, 1)).await;
        assert!(matches!(refused, Err(AppendError::Poisoned { .. })), "{refused:?}");
        let mut seen = Vec::new();
        for limit in [ReadLimit::default(), ReadLimit { records: 7, bytes: 300 }] {
            for from in [1, 2, 11, 399, 401] {
                seen.push(read_to_tail(&reader, Seq(from), limit).await);
            }
        }
        let stat = reader.stat();
        drop(reader);
        assert_eq!(everything(&killed), before, "a reader changes nothing");

        let writer = open(&killed).unwrap();
        assert_eq!(stat, writer.stat());
        for limit in [ReadLimit::default(), ReadLimit { records: 7, bytes: 300 }] {
            for from in [401, 399, 11, 2, 1] {
                let expected = read_to_tail(&writer, Seq(from), limit).await;
                assert!(seen.contains(&expected), "from {from} with {limit:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_place_without_a_log_is_an_empty_log_to_a_reader() {
    let root = tempfile::tempdir().unwrap();
    let nothing = root.path().join("nothing");

    let log = EmbeddedLog::open_read_only(&nothing, EmbeddedLogOptions::new("test")).unwrap();

    assert_eq!(log.stat().tail, Seq(0));
    assert!(log.read(Seq(1), ReadLimit::default()).await.unwrap().is_empty());
    assert!(!nothing.exists());
}

#[tokio::test]
async fn a_writer_and_a_reader_keep_each_other_out() {
    let root = tempfile::tempdir().unwrap();
    let open = || EmbeddedLog::open(root.path(), EmbeddedLogOptions::new("test"));
    let look = || EmbeddedLog::open_read_only(root.path(), EmbeddedLogOptions::new("test"));

    let writer = open().unwrap();
    assert!(matches!(look(), Err(AcquireError::Held { .. })));
    drop(writer);
    let readers = [look().unwrap(), look().unwrap()];
    assert!(matches!(open(), Err(AcquireError::Held { .. })));
    drop(readers);
    drop(open().unwrap());
}

/// Method: flip each byte between a frame's last record and the next frame, in a sealed segment.
#[tokio::test]
async fn padding_that_is_not_zero_is_corruption() {
    let fs = disk();
    let log = open(&fs).unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let mut batch = RecordBatch::starting_at(Seq(1));
    batch.push(b"alone");
    log.append(epoch, &batch).await.unwrap();
    append(&log, epoch, 2, 200).await;
    append(&log, epoch, 202, 200).await;
    drop(log);
    let content = fs.visible_content(&segment(1));
    let padding =
        (HEADER_BYTES as usize + frame::HEAD_BYTES + frame::ENTRY_BYTES + 5)..(HEADER_BYTES as usize + 72);
    assert!(!padding.is_empty());

    for at in padding {
        let mut flipped = content.clone();
        assert_eq!(flipped[at], 0);
        flipped[at] = 1;
        fs.overwrite_durably(&segment(1), &flipped);
        let log = EmbeddedLog::open_read_only(Path::new(DIR), options(&fs, SEGMENT_BYTES_MIN)).unwrap();

        let read = log.read(Seq(1), ReadLimit::default()).await;

        assert!(matches!(read, Err(ReadError::Corrupt { at: Seq(1), .. })), "byte {at}: {read:?}");
    }
}
