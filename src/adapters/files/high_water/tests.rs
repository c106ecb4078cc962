//! The marks on a disk whose power fails, with damaged, old and missing files.

use std::path::Path;
use std::sync::Arc;

use orchestrator_kernel::random::Rng;

use super::super::tests::fault_fs::FaultFs;
use super::super::tests::golden;
use super::*;

const DATA: &str = "/data";
const LOG_ID: u64 = 0x0123_4567_89ab_cdef;

fn open(fs: &FaultFs) -> Arc<HighWaterMarks> {
    Arc::new(HighWaterMarks::open(fs, Path::new(DATA)).unwrap())
}

fn note(marks: &Arc<HighWaterMarks>, log: MarkedLog, tail: u64) {
    marks.log_mark(log).note_change(LOG_ID, |mark| mark.tail = Seq(tail)).unwrap();
}

fn tail(fs: &FaultFs, log: MarkedLog) -> Option<u64> {
    let read = FoundMarks::read(fs, Path::new(DATA)).unwrap().log_mark(log).found_mark();
    let opened = open(fs).log_mark(log).found_mark();
    assert_eq!(read, opened, "who only looks sees the same");
    opened.map(|mark| mark.tail.0)
}

#[test]
fn mark_survives_the_process_at_once_and_each_log_has_its_own() {
    let fs = FaultFs::default();
    assert_eq!(tail(&fs, MarkedLog::Receipts), None);
    let marks = open(&fs);

    for count in 1..20 {
        note(&marks, MarkedLog::Receipts, count);
        note(&marks, MarkedLog::QuarantineArchive, 100 + count);
        let killed = fs.fork_disk();
        assert_eq!(tail(&killed, MarkedLog::Receipts), Some(count));
        assert_eq!(tail(&killed, MarkedLog::QuarantineArchive), Some(100 + count));
        assert_eq!(tail(&killed, MarkedLog::Runs), None);
    }
}

/// A service without a trading plane keeps the files that it always had.
#[test]
fn a_journal_has_room_of_its_own_only_where_it_was_asked_for() {
    let fs = FaultFs::default();
    let places = [Path::new(DATA).join(FILE_NAME), Path::new(DATA).join("runs").join(FILE_NAME)];
    let sizes = |fs: &FaultFs| places.clone().map(|place| fs.visible_content(&place).len());
    let marks = open(&fs);
    assert_eq!(sizes(&fs), [7 * 3 * 4096; 2]);

    marks.make_room_for_journal().unwrap();
    assert_eq!(sizes(&fs), [9 * 3 * 4096; 2]);
    note(&marks, MarkedLog::Journal, 5);
    note(&marks, MarkedLog::JournalArchive, 3);
    marks.sync_both().unwrap();

    let killed = fs.fork_disk();
    assert_eq!(tail(&killed, MarkedLog::Journal), Some(5));
    assert_eq!(tail(&killed, MarkedLog::JournalArchive), Some(3));
    assert_eq!(sizes(&killed), [9 * 3 * 4096; 2], "kept by a start without a trading plane");
    assert_eq!(MarkedLog::of_log(LogName::Journal), Some(MarkedLog::Journal));
    assert_eq!(MarkedLog::of_archive(LogName::Journal), Some(MarkedLog::JournalArchive));
}

/// Method: random notes and syncs until the power fails at a random operation; the mark is never older than the last
/// sync that succeeded, never newer than what was noted, and never gone.
#[test]
fn mark_after_a_power_failure_is_between_the_last_sync_and_the_last_note() {
    for seed in 0..2000 {
        let mut rng = Rng::new(seed);
        let fs = FaultFs::default();
        let (mut synced, mut noted) = (0, 0);
        for _ in 0..3 {
            let marks = open(&fs);
            fs.fail_power_after(rng.next_below(60));
            loop {
                noted += 1;
                let done = match rng.next_below(4) {
                    0 => marks.sync_both().map(|()| synced = noted - 1),
                    1 if rng.next_below(10) == 0 => {
                        fs.fail_next_sync();
                        marks.sync_both().ok();
                        Ok(())
                    }
                    _ => Ok(()),
                };
                let written =
                    marks.log_mark(MarkedLog::Runs).note_change(LOG_ID, |mark| mark.tail = Seq(noted));
                if done.and(written).is_err() {
                    break;
                }
            }
            fs.fail_power(&mut rng);
            let found = tail(&fs, MarkedLog::Runs).unwrap_or(0);
            assert!(synced <= found && found <= noted, "SEED={seed}: {synced} <= {found} <= {noted}");
            (synced, noted) = (found, found);
        }
    }
}

/// Method: a file is emptied, filled with noise, or put back as it was earlier; then the other one.
#[test]
fn missing_damaged_or_old_file_is_made_good_by_the_other_one() {
    let fs = FaultFs::default();
    let marks = open(&fs);
    note(&marks, MarkedLog::Receipts, 5);
    marks.sync_both().unwrap();
    let places = [Path::new(DATA).join(FILE_NAME), Path::new(DATA).join("runs").join(FILE_NAME)];
    let old = places.clone().map(|place| fs.visible_content(&place));
    note(&marks, MarkedLog::Receipts, 9);
    marks.sync_both().unwrap();

    for (place, old) in places.iter().zip(&old) {
        let noise: Vec<u8> =
            old.iter().zip(1..).map(|(byte, at): (&u8, u32)| byte ^ (at % 251) as u8).collect();
        for content in [&Vec::new(), old, &noise] {
            let fs = fs.fork_disk();
            fs.overwrite_durably(place, content);
            assert_eq!(tail(&fs, MarkedLog::Receipts), Some(9));
            assert_eq!(tail(&fs, MarkedLog::Receipts), Some(9), "and again");
        }
    }
}

#[test]
fn mark_matches_its_golden_file() {
    let mark = TailMark { log_id: LOG_ID, tail: Seq(42), start: Seq(7), segment: Seq(30), end: 4711 };
    let slot = slot::encode_slot(MarkedLog::Manifests as u32, &mark, 3);

    golden::check("embedded_mark_v2.hex", &slot);
    assert_eq!(slot::decode_slot(3, &slot), Some((3, mark)));
    assert_eq!(slot::decode_slot(2, &slot), None, "of another log");
    for byte in 0..68 {
        let mut damaged = slot;
        damaged[byte] ^= 1;
        assert_eq!(slot::decode_slot(3, &damaged), None, "byte {byte}");
    }
}
