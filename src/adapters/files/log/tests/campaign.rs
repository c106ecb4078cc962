//! What people and disks do to the files of a log that has a high-water mark, after its records were acknowledged: it
//! is never opened with less.
//!
//! `SEED=n` repeats a campaign.

use std::collections::BTreeMap;

use super::super::super::high_water::{FILE_NAME, HighWaterMarks, MarkedLog};
use super::*;

/// The data directory.
const DATA: &str = "/data";
/// Truncations of each segment.
const CUTS: u64 = 200;

fn receipts() -> PathBuf {
    Path::new(DATA).join("receipts")
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").map_or(20_261_130, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    seed
}

pub(super) fn open_marked(fs: &FaultFs) -> Result<EmbeddedLog, AcquireError> {
    let marks = HighWaterMarks::open(fs, Path::new(DATA));
    let marks = Arc::new(marks.map_err(|source| AcquireError::Io { log: "test".to_owned(), source })?);
    let mark = Some(marks.log_mark(MarkedLog::Receipts));
    EmbeddedLog::open(&receipts(), EmbeddedLogOptions { mark, ..options(fs, SEGMENT_BYTES_MIN) })
}

/// A killed process's disk with acknowledged records in some segments, and the segments as they were now and then.
struct Acknowledged {
    fs: FaultFs,
    tail: u64,
    /// By path, each state after some append.
    earlier: BTreeMap<PathBuf, Vec<Vec<u8>>>,
}

impl Acknowledged {
    async fn records(batches: u64) -> Self {
        let fs = FaultFs::default();
        let log = open_marked(&fs).unwrap();
        let epoch = log.acquire().await.unwrap().epoch;
        let mut earlier: BTreeMap<PathBuf, Vec<Vec<u8>>> = BTreeMap::new();
        for batch in 0..batches {
            for path in segments(&fs) {
                earlier.entry(path.clone()).or_default().push(fs.visible_content(&path));
            }
            append(&log, epoch, batch * 10 + 1, 10).await;
        }
        let killed = fs.fork_disk();
        drop(log);
        Self { fs: killed, tail: batches * 10, earlier }
    }

    /// The log is refused and names a file and a byte, or it has every record.
    async fn check(&self, fs: &FaultFs, what: &str) -> bool {
        match open_marked(fs) {
            Err(AcquireError::Corrupt { place, .. }) => {
                assert!(place.contains(DATA) && place.contains(" byte "), "{what}: {place}");
                let again = open_marked(fs).map(|_| ()).unwrap_err();
                assert!(matches!(again, AcquireError::Corrupt { .. }), "{what}: a second start: {again}");
                true
            }
            Err(error) => panic!("{what}: {error}"),
            Ok(log) => {
                let stat = log.stat();
                assert!(
                    stat.start == Seq(1) && stat.tail >= Seq(self.tail),
                    "{what}: opened with {} to {}, {} were acknowledged",
                    stat.start,
                    stat.tail,
                    self.tail
                );
                false
            }
        }
    }
}

fn segments(fs: &FaultFs) -> Vec<PathBuf> {
    let names = fs.list_dir(&receipts()).unwrap();
    let mut paths: Vec<_> =
        names.into_iter().filter(|name| name.ends_with(".seg")).map(|name| receipts().join(name)).collect();
    paths.sort();
    paths
}

/// The byte behind the last one that is not zero.
fn used(content: &[u8]) -> usize {
    content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[tokio::test]
async fn damaged_segment_is_never_opened_with_less_than_was_acknowledged() {
    let made = Acknowledged::records(40).await;
    let mut rng = Rng::new(seed());
    let paths = segments(&made.fs);
    assert!(paths.len() > 3, "{paths:?}");
    assert!(!made.check(&made.fs.fork_disk(), "undamaged").await);

    for path in &paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        let content = made.fs.visible_content(path);
        let used = used(&content);
        for _ in 0..CUTS {
            let cut = rng.next_below(used as u64) as usize;
            let fs = made.fs.fork_disk();
            fs.overwrite_durably(path, &content[..cut]);
            assert!(made.check(&fs, &format!("{name} cut at {cut} of {used}")).await);
        }
        let noise: Vec<u8> = (0..content.len()).map(|_| rng.next_u64() as u8).collect();
        for from in [0, 64, used / 2] {
            for (what, with) in [("zeros", vec![0; content.len()]), ("noise", noise.clone())] {
                let fs = made.fs.fork_disk();
                fs.overwrite_durably(path, &[&content[..from], &with[from..]].concat());
                assert!(made.check(&fs, &format!("{name} {what} from byte {from}")).await);
            }
        }
        let fs = made.fs.fork_disk();
        fs.remove_file(path).unwrap();
        assert!(made.check(&fs, &format!("{name} deleted")).await);
        for (at, earlier) in made.earlier.get(path).into_iter().flatten().enumerate() {
            let fs = made.fs.fork_disk();
            fs.overwrite_durably(path, earlier);
            let refused = made.check(&fs, &format!("{name} as after append {at}")).await;
            assert!(refused || earlier[..used] == content[..used]);
        }
    }
}

#[tokio::test]
async fn log_whose_folder_or_marks_are_gone_is_refused() {
    let made = Acknowledged::records(40).await;
    let marks = [Path::new(DATA).join(FILE_NAME), Path::new(DATA).join("runs").join(FILE_NAME)];

    let fs = made.fs.fork_disk();
    for name in fs.list_dir(&receipts()).unwrap() {
        fs.remove_file(&receipts().join(name)).unwrap();
    }
    assert!(made.check(&fs, "the folder is gone").await);
    for path in &marks {
        let fs = made.fs.fork_disk();
        fs.remove_file(path).unwrap();
        assert!(!made.check(&fs, "one file of marks is gone").await);
        fs.remove_file(segments(&fs).last().unwrap()).unwrap();
        assert!(made.check(&fs, "and then the newest segment").await);
    }
    let fs = made.fs.fork_disk();
    marks.iter().for_each(|path| fs.remove_file(path).unwrap());
    assert!(made.check(&fs, "both files of marks are gone").await);
}

/// A whole directory as of an earlier moment is a backup, whatever happened since; one log of that moment is not.
#[tokio::test]
async fn earlier_state_is_accepted_of_all_files_together_only() {
    let earlier = Acknowledged::records(12).await;
    let log = open_marked(&earlier.fs).unwrap();
    let backup = earlier.fs.fork_disk();
    let epoch = log.acquire().await.unwrap().epoch;
    append(&log, epoch, 121, 10).await;
    drop(log);

    assert_eq!(open_marked(&backup).unwrap().stat().tail, Seq(120));
    let mixed = earlier.fs.fork_disk();
    let before = segments(&backup);
    for path in segments(&mixed) {
        match before.contains(&path) {
            true => mixed.overwrite_durably(&path, &backup.visible_content(&path)),
            false => mixed.remove_file(&path).unwrap(),
        }
    }
    let mixed_with_meta = mixed.fork_disk();
    let meta = receipts().join(meta::FILE_NAME);
    mixed_with_meta.overwrite_durably(&meta, &backup.visible_content(&meta));
    for fs in [mixed, mixed_with_meta] {
        let refused = open_marked(&fs).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("byte") && refused.contains("130"), "{refused}");
    }
}

/// Method: as an older binary leaves it, then with marks; then used by an older binary again, which trims.
#[tokio::test]
async fn log_of_an_older_binary_is_taken_over_and_may_go_back() {
    let fs = FaultFs::default();
    let open_unmarked =
        |fs: &FaultFs| EmbeddedLog::open(&receipts(), options(fs, SEGMENT_BYTES_MIN)).unwrap();
    let mut next = 1;
    for marked in [false, true, false, true, true] {
        let log = if marked { open_marked(&fs).unwrap() } else { open_unmarked(&fs) };
        assert_eq!(log.stat().tail, Seq(next - 1));
        let epoch = log.acquire().await.unwrap().epoch;
        for _ in 0..20 {
            append(&log, epoch, next, 10).await;
            next += 10;
        }
        let start = log.trim(epoch, Seq(next - 60)).await.unwrap();
        assert!(Seq(1) < start);
    }

    assert_eq!(open_marked(&fs).unwrap().stat().tail, Seq(next - 1));
    fs.remove_file(&segments(&fs)[0]).unwrap();
    let refused = open_marked(&fs).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("it is missing, and was not trimmed"), "{refused}");
}

/// Method: the power fails at each operation of a trim.
#[tokio::test]
async fn crash_while_trimming_never_makes_a_removed_segment_missed() {
    let made = Acknowledged::records(40).await;
    let mut rng = Rng::new(seed());
    for operations in 0..60 {
        let fs = made.fs.fork_disk();
        let log = open_marked(&fs).unwrap();
        let epoch = log.acquire().await.unwrap().epoch;
        fs.fail_power_after(operations);
        log.trim(epoch, Seq(300)).await.ok();
        fs.fail_power(&mut rng);
        drop(log);
        let log = open_marked(&fs).unwrap_or_else(|error| panic!("after {operations} operations: {error}"));
        assert_eq!(log.stat().tail, Seq(made.tail));
    }
}

/// What is taken away, and how.
type Taken = (&'static str, fn(&Path));

/// Method: each name that must lead to the log's files is taken away while the log is written.
#[tokio::test]
async fn log_that_was_taken_away_acknowledges_nothing_more() {
    let taken: [Taken; 5] = [
        ("its segment removed", |data| {
            std::fs::remove_file(data.join("receipts").join(file_name(Seq(1)))).unwrap();
        }),
        ("its lock removed", |data| std::fs::remove_file(data.join("receipts/lock")).unwrap()),
        ("its lock replaced", |data| {
            std::fs::remove_file(data.join("receipts/lock")).unwrap();
            std::fs::write(data.join("receipts/lock"), "").unwrap();
        }),
        ("its folder renamed", |data| std::fs::rename(data.join("receipts"), data.join("away")).unwrap()),
        // Housekeeping may put a file there meanwhile.
        ("the data directory removed", |data| while std::fs::remove_dir_all(data).is_err() {}),
    ];
    for (what, take) in taken {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        let log = EmbeddedLog::open(&data.join("receipts"), EmbeddedLogOptions::new("receipts")).unwrap();
        let epoch = log.acquire().await.unwrap().epoch;
        append(&log, epoch, 1, 10).await;
        log.check_place().unwrap();

        take(&data);

        let lost = log.check_place().unwrap_err().to_string();
        assert!(lost.contains("under the running service"), "{what}: {lost}");
        if what.contains("lock") {
            // The watch of the service tells; a group only asks for its segment.
            continue;
        }
        for _ in 0..2 {
            let refused = log.append(epoch, &sample_batch(11, 10)).await.unwrap_err();
            assert!(matches!(refused, AppendError::Poisoned { .. }), "{what}: {refused}");
        }
    }
}
