//! Tests of the outputs file on a file system that crashes, and under names that change.

use bytes::Bytes;
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::ids::{EngineMode, IngestSeq, RunSeq, Symbol, TsMs};
use orchestrator_kernel::random::Rng;

use super::super::tests::fault_fs::FaultFs;
use super::*;

const PATH: &str = "/outputs/events.jsonl";

fn message(number: u64) -> OutputMessage {
    let symbol = Symbol::from("BTCUSDT");
    let run_id = RunId::derive(&symbol, TsMs(0), IngestSeq(number), EngineMode::Truth);
    let event_type = "EngineRunCompleted";
    OutputMessage {
        run_seq: RunSeq(number),
        index: 0,
        run_id,
        event_type,
        symbol,
        symbol_seq: number,
        body: Bytes::from(format!(
            r#"{{"attempt":1,"counts_by_event_type":{{}},"event_type":"{event_type}","n":{number},"run_id":"{run_id}"}}"#
        )),
    }
}

fn messages(numbers: std::ops::RangeInclusive<u64>) -> Vec<OutputMessage> {
    numbers.map(message).collect()
}

fn open(fs: &FaultFs, sync: bool) -> Result<NdjsonFile, OutputsFileError> {
    NdjsonFile::open(Path::new(PATH), NdjsonOptions { sync, fs: Arc::new(fs.clone()) })
}

fn text(numbers: std::ops::RangeInclusive<u64>) -> String {
    numbers.map(|number| String::from_utf8(message(number).body.to_vec()).unwrap() + "\n").collect()
}

fn content(fs: &FaultFs) -> String {
    String::from_utf8(fs.visible_content(Path::new(PATH))).unwrap()
}

#[tokio::test]
async fn outputs_are_lines_in_order() {
    let fs = FaultFs::default();
    let mut file = open(&fs, true).unwrap();

    file.publish(&messages(1..=3)).await.unwrap();
    file.publish(&[]).await.unwrap();
    file.publish(&messages(4..=5)).await.unwrap();

    assert_eq!(content(&fs), text(1..=5));
}

#[tokio::test]
async fn outputs_published_again_are_not_written_twice() {
    let fs = FaultFs::default();
    open(&fs, false).unwrap().publish(&messages(1..=5)).await.unwrap();

    let mut file = open(&fs, false).unwrap();
    file.publish(&messages(3..=7)).await.unwrap();
    file.publish(&messages(6..=8)).await.unwrap();

    assert_eq!(content(&fs), text(1..=8));
}

/// Method: cut the file at every byte of its last two lines and publish from the middle again.
#[tokio::test]
async fn line_that_was_cut_short_is_written_again() {
    let whole = text(1..=6);
    for cut in text(1..=4).len()..=whole.len() {
        let fs = FaultFs::default();
        open(&fs, false).unwrap();
        fs.overwrite_durably(Path::new(PATH), &whole.as_bytes()[..cut]);

        open(&fs, false).unwrap().publish(&messages(2..=6)).await.unwrap();

        assert_eq!(content(&fs), whole, "cut at {cut}");
    }
}

#[tokio::test]
async fn failed_write_confirms_nothing_and_the_next_publish_repairs_it() {
    for fail in [FaultFs::fail_next_write, FaultFs::fail_next_sync] {
        let fs = FaultFs::default();
        let mut file = open(&fs, true).unwrap();
        file.publish(&messages(1..=2)).await.unwrap();

        fail(&fs);
        let refused = file.publish(&messages(3..=9)).await.unwrap_err();
        file.publish(&messages(3..=9)).await.unwrap();

        fs.fail_power(&mut Rng::new(0));

        assert_eq!(refused.confirmed, 0);
        assert_eq!(content(&fs), text(1..=9));
    }
}

#[tokio::test]
async fn error_tells_the_confirmed_portions() {
    let fs = FaultFs::default();
    let mut file = open(&fs, false).unwrap();
    let large = |number| {
        let padding = "x".repeat(WRITE_BYTES_MAX);
        OutputMessage { body: Bytes::from(format!(r#"{{"padding":"{padding}"}}"#)), ..message(number) }
    };
    let broken = OutputMessage { body: Bytes::from_static(b"{\n}"), ..message(3) };

    let refused = file.publish(&[large(1), large(2), broken]).await.unwrap_err();

    assert_eq!(refused.confirmed, 2);
}

#[tokio::test]
async fn file_changed_by_somebody_else_is_opened_again() {
    let fs = FaultFs::default();
    let mut file = open(&fs, false).unwrap();
    file.publish(&messages(1..=3)).await.unwrap();

    fs.overwrite_durably(Path::new(PATH), text(1..=2).as_bytes());
    file.publish(&messages(3..=4)).await.unwrap();

    assert_eq!(content(&fs), text(1..=4));
}

/// Method: rename, delete, replace or empty the file between two batches; the name must stand for a file with what
/// was confirmed since, and a renamed one must have what was confirmed before.
#[tokio::test]
async fn what_is_confirmed_is_in_the_file_of_this_name_or_in_the_one_that_was_renamed() {
    let (path, other) = (Path::new(PATH), Path::new("/outputs/other"));
    let copy_in_its_place = |fs: &FaultFs| {
        let copy = fs.visible_content(path);
        fs.create_file(other).unwrap();
        fs.overwrite_durably(other, &copy);
        fs.rename_file(other, path).unwrap();
    };
    type Act<'a> = (&'a dyn Fn(&FaultFs), std::ops::RangeInclusive<u64>);
    let acts: [Act<'_>; 5] = [
        (&|fs| fs.rename_file(path, other).unwrap(), 4..=6),
        (&|fs| drop((fs.rename_file(path, other), fs.create_file(path))), 4..=6),
        (&|fs| fs.remove_file(path).unwrap(), 4..=6),
        (&|fs| fs.overwrite_durably(path, b""), 4..=6),
        (&copy_in_its_place, 1..=6),
    ];
    for (index, (act, expected)) in acts.into_iter().enumerate() {
        let fs = FaultFs::default();
        let mut file = open(&fs, true).unwrap();
        file.publish(&messages(1..=3)).await.unwrap();

        act(&fs);
        // What the publisher offers again after a failure elsewhere is recognised in the renamed file, too.
        file.publish(&messages(2..=4)).await.unwrap();
        file.publish(&messages(5..=6)).await.unwrap();

        assert_eq!(content(&fs), text(expected), "{index}");
        if index < 2 {
            assert_eq!(String::from_utf8(fs.visible_content(other)).unwrap(), text(1..=3), "{index}");
        }
    }
}

#[tokio::test]
async fn file_of_somebody_else_is_refused_and_not_a_byte_of_it_changed() {
    let whole = text(1..=2);
    let with = |end: &str| [whole.as_bytes(), end.as_bytes()].concat();
    let others: [Vec<u8>; 11] = [
        b"PAR1\0\x01\x02\x03 of somebody PAR1".to_vec(),
        b"{\"a\": 1}".to_vec(),
        b"{\"a\": 1}\n".to_vec(),
        b"{".to_vec(),
        b"{\"attempt\"".to_vec(),
        b"\n".to_vec(),
        vec![0; 100],
        b"a text\nwithout its last line end".to_vec(),
        with("{\"a\": 1}"),
        with("a line of somebody\n"),
        [b"first\n".to_vec(), with("")].concat(),
    ];
    for other in others {
        let fs = FaultFs::default();
        fs.create_file(Path::new(PATH)).unwrap();
        fs.overwrite_durably(Path::new(PATH), &other);

        let refused = open(&fs, true).map(drop).unwrap_err();

        assert!(matches!(refused, OutputsFileError::NotOurs { .. }), "{refused}");
        assert_eq!(fs.visible_content(Path::new(PATH)), other);

        // The same while it runs: publishing waits until the file is moved away.
        let fs = FaultFs::default();
        let mut file = open(&fs, true).unwrap();
        file.publish(&messages(1..=2)).await.unwrap();
        fs.create_file(Path::new(PATH)).unwrap();
        fs.overwrite_durably(Path::new(PATH), &other);
        let refused = file.publish(&messages(3..=3)).await.unwrap_err();
        assert!(refused.detail.contains("it was left as it is"), "{}", refused.detail);
        assert_eq!(fs.visible_content(Path::new(PATH)), other);
        fs.remove_file(Path::new(PATH)).unwrap();
        file.publish(&messages(3..=3)).await.unwrap();
        assert_eq!(content(&fs), text(3..=3));
    }
}

#[tokio::test]
async fn confirmed_outputs_survive_a_crash() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let fs = FaultFs::default();
        let mut confirmed = 0;
        fs.fail_power_after(rng.next_below(30));
        if let Ok(mut file) = open(&fs, true) {
            while file.publish(&messages(confirmed + 1..=confirmed + 3)).await.is_ok() {
                confirmed += 3;
            }
        }
        fs.fail_power(&mut rng);

        let opened = open(&fs, true);
        if confirmed == 0 && matches!(opened, Err(OutputsFileError::NotOurs { .. })) {
            // What is left of the very first write cannot be told from somebody else's bytes. An operator removes it.
            fs.remove_file(Path::new(PATH)).unwrap();
        }
        let mut file = opened.or_else(|_| open(&fs, true)).unwrap();
        file.publish(&messages(confirmed + 1..=confirmed + 3)).await.unwrap();

        assert_eq!(content(&fs), text(1..=confirmed + 3), "SEED={seed}");
    }
}
