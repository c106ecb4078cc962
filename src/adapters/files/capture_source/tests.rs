//! Tests of the capture source as ingest sees it.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ports::source::{ItemFate, RawItem, Settlement, SourceBatch};
use orchestrator_kernel::ports::source_conformance::{self, ITEMS, Repeats, SourceProvider, sample_item};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::source::UNSETTLED_BATCHES_MAX;
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);
/// The begin of recorded times.
const RECORDED_MS: i64 = 1_723_161_255_000;

fn at(position: u64) -> ResumeAt {
    ResumeAt { position, ingest_ts_ms: None }
}

fn durable(batch: &SourceBatch) -> Settlement {
    Settlement::Durable(vec![ItemFate::Appended; batch.items.len()])
}

fn refused() -> Settlement {
    Settlement::Refused { reason: "log is full".to_owned(), retry_after_ms: 0 }
}

async fn open(options: &CaptureOptions, position: u64) -> Result<Box<dyn Source>, SourceError> {
    CaptureFactory::new(options.clone()).open_source(at(position)).await
}

async fn next(source: &mut Box<dyn Source>) -> Result<Option<SourceBatch>, SourceError> {
    timeout(PATIENCE, source.next_batch()).await.expect("the source is stuck")
}

/// Everything up to the end, and how it ended. Checks bounds and numbering on the way.
async fn check_drain(options: &CaptureOptions, position: u64) -> (Vec<RawItem>, Result<(), SourceError>) {
    let mut source = match open(options, position).await {
        Ok(source) => source,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut items: Vec<RawItem> = Vec::new();
    loop {
        match next(&mut source).await {
            Ok(Some(batch)) => {
                assert_eq!(batch.origin.as_str(), options.name);
                assert!((1..=options.batch_items_max).contains(&batch.items.len()));
                let bytes: usize = batch.items.iter().map(|item| item.bytes.len()).sum();
                assert!(bytes <= options.batch_bytes_max || batch.items.len() == 1);
                source.settle_batch(batch.id, durable(&batch)).await.unwrap();
                items.extend(batch.items);
            }
            Ok(None) => break check_positions(items, position, Ok(())),
            Err(error) => break check_positions(items, position, Err(error)),
        }
    }
}

fn check_positions<E>(items: Vec<RawItem>, after: u64, end: Result<(), E>) -> (Vec<RawItem>, Result<(), E>) {
    assert!(items.iter().map(|item| item.position).eq((after + 1..).map(Some).take(items.len())));
    (items, end)
}

fn texts(items: &[RawItem]) -> Vec<String> {
    items.iter().map(|item| String::from_utf8(item.bytes.to_vec()).unwrap()).collect()
}

fn file(dir: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// Several members, cut in the middle of lines.
fn gzip(content: &[u8], member_bytes: usize) -> Vec<u8> {
    let member = |part: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    content.chunks(member_bytes).flat_map(member).collect()
}

/// Several frames, cut in the middle of lines.
fn zstd_frames(content: &[u8], frame_bytes: usize) -> Vec<u8> {
    content.chunks(frame_bytes).flat_map(|part| zstd::encode_all(part, 1).unwrap()).collect()
}

fn generated(lines: usize) -> Vec<u8> {
    (0..lines)
        .flat_map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}\n", "ä".repeat(n * 7 % 97)).into_bytes())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Method: one content in three forms, in batches of random size, read whole and from a random item on.
    #[test]
    fn plain_gzip_and_zstd_give_equal_items_from_every_place(
        lines in prop::collection::vec("[ -~]{0,80}\r?", 0..60),
        ends_with_newline in any::<bool>(),
        part_bytes in 1_usize..900,
        batch_items_max in 1_usize..20,
        batch_bytes_max in 1_usize..400,
        resume in 0_usize..60,
    ) {
        let content = lines.join("\n") + if ends_with_newline { "\n" } else { "" };
        let reference: Vec<String> = content
            .split_inclusive('\n')
            .map(|line| line.strip_suffix("\r\n").or(line.strip_suffix('\n')).unwrap_or(line).to_owned())
            .filter(|line| !line.trim_ascii().is_empty())
            .collect();
        let resume = resume.min(reference.len());
        let dir = TempDir::new().unwrap();
        let mut paths = vec![file(&dir, "a.jsonl", content.as_bytes())];
        if !content.is_empty() {
            paths.push(file(&dir, "a.gz", &gzip(content.as_bytes(), part_bytes)));
            paths.push(file(&dir, "a.zst", &zstd_frames(content.as_bytes(), part_bytes)));
            paths.push(file(&dir, "compressed_without_a_suffix", &gzip(content.as_bytes(), part_bytes)));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for path in paths {
            let options = CaptureOptions { batch_items_max, batch_bytes_max, ..CaptureOptions::new("file", path) };
            let (whole, end) = runtime.block_on(check_drain(&options, 0));
            prop_assert!(end.is_ok());
            prop_assert_eq!(texts(&whole), &reference[..]);
            let (rest, end) = runtime.block_on(check_drain(&options, resume as u64));
            prop_assert!(end.is_ok());
            prop_assert_eq!(&rest[..], &whole[resume..]);
        }
    }
}

/// Method: cut the compressed file at many bytes; the whole lines before the cut are those that its decoder can give.
#[tokio::test]
async fn a_cut_off_file_gives_its_whole_lines_and_then_a_fatal_error_with_the_byte() {
    let dir = TempDir::new().unwrap();
    let content = generated(3_000);
    for (name, compressed) in [("a.gz", gzip(&content, 40_000)), ("a.zst", zstd_frames(&content, 40_000))] {
        let mut seen_most = 0;
        for cut in (20..compressed.len() - 1).step_by(compressed.len() / 23) {
            let path = file(&dir, name, &compressed[..cut]);
            let (items, end) = check_drain(&CaptureOptions::new("file", path), 0).await;

            let text = texts(&items).join("\n");
            assert!(content.starts_with(text.as_bytes()), "cut at {cut}");
            assert!(items.is_empty() || content[text.len()] == b'\n', "the last item is a whole line");
            seen_most = seen_most.max(items.len());
            match end {
                Err(SourceError::Fatal { detail }) => {
                    assert!(
                        detail.contains(&format!("beyond byte {cut}, after {} whole items", items.len())),
                        "{detail}"
                    );
                    assert!(detail.contains("restore it"), "{detail}");
                }
                // Cut between two members or frames: nothing in the file tells that there was more.
                Ok(()) => assert!(items.len() < 3_000),
                Err(error @ SourceError::Lost { .. }) => panic!("{error}"),
            }
        }
        assert!(seen_most > 2_000, "only {seen_most} items of {name} before any cut");
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_fatal_after_the_lines_before_it() {
    let dir = TempDir::new().unwrap();
    let content = generated(3_000);
    for (name, mut compressed) in [("a.gz", gzip(&content, 40_000)), ("a.zst", zstd_frames(&content, 40_000))]
    {
        let middle = compressed.len() / 2;
        compressed[middle..middle + 64].fill(0xff);
        let (items, end) = check_drain(&CaptureOptions::new("file", file(&dir, name, &compressed)), 0).await;

        assert!((500..2_500).contains(&items.len()), "{} items of {name}", items.len());
        assert!(content.starts_with(texts(&items[..500]).join("\n").as_bytes()));
        assert!(matches!(end, Err(SourceError::Fatal { .. })), "{end:?}");
    }
}

#[tokio::test]
async fn an_oversized_line_is_handed_over_as_its_beginning_and_keeps_its_position() {
    let dir = TempDir::new().unwrap();
    let long = "x".repeat(300_000);
    let path = file(&dir, "a.jsonl", format!("one\n{long}\nthree\n").as_bytes());

    let (items, end) = check_drain(&CaptureOptions::new("file", path), 0).await;

    end.unwrap();
    let sizes: Vec<_> = items.iter().map(|item| (item.bytes.len(), item.oversized)).collect();
    assert_eq!(sizes, [(3, None), (4_096, Some(300_000)), (5, None)]);
}

#[tokio::test]
async fn what_cannot_be_opened_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let plain = file(&dir, "plain.jsonl", b"{}\n");
    let of = |path: &Path| CaptureOptions::new("file", path);
    let follow = |path: &Path| CaptureOptions { follow: true, ..of(path) };
    let cases = [
        (of(&dir.path().join("missing")), true, "check the path"),
        (follow(&dir.path().join("missing")), false, "check the path"),
        (of(dir.path()), true, "check the path"),
        (of(&file(&dir, "text.gz", b"{}\n")), true, "does not begin like one"),
        (of(&file(&dir, "empty.zst", b"")), true, "does not begin like one"),
        (follow(&file(&dir, "a.gz", &gzip(b"{}\n", 9))), true, "only a plain file can be followed"),
        (CaptureOptions { batch_items_max: 0, ..of(&plain) }, true, "batch_items_max"),
        (CaptureOptions { batch_bytes_max: 0, ..of(&plain) }, true, "batch_bytes_max"),
        (CaptureOptions { line_bytes_max: 0, ..of(&plain) }, true, "line_bytes_max"),
        (CaptureOptions { speed: CaptureSpeed::Times(0.0), ..of(&plain) }, true, "speed"),
        (CaptureOptions { speed: CaptureSpeed::Times(f64::NAN), ..of(&plain) }, true, "speed"),
    ];
    for (options, is_fatal, word) in cases {
        let error = open(&options, 0).await.err().unwrap_or_else(|| panic!("{options:?} was opened"));
        assert_eq!(matches!(error, SourceError::Fatal { .. }), is_fatal, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_file_shorter_than_what_the_log_holds_is_another_file() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "a.jsonl", b"1\n2\n3\n");
    for follow in [false, true] {
        let options = CaptureOptions { follow, ..CaptureOptions::new("file", &path) };
        let (items, end) = check_drain(&options, 4).await;

        assert!(items.is_empty());
        let error = end.unwrap_err();
        assert!(matches!(error, SourceError::Fatal { .. }), "{error}");
        assert!(error.to_string().contains("has 3 items, but the log already holds 4"), "{error}");
    }
}

#[tokio::test]
async fn refused_items_come_again_first_and_the_end_waits_for_them() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "a.jsonl", b"1\n2\n3\n4\n");
    let options = CaptureOptions { batch_items_max: 2, ..CaptureOptions::new("file", path) };
    let mut source = open(&options, 0).await.unwrap();
    let first = next(&mut source).await.unwrap().unwrap();
    let second = next(&mut source).await.unwrap().unwrap();

    // Everything is read, but not settled: the end is not told.
    assert!(timeout(Duration::from_millis(20), source.next_batch()).await.is_err());
    source.settle_batch(first.id, refused()).await.unwrap();
    source.settle_batch(second.id, Settlement::Gap { expected: 1 }).await.unwrap();

    let (again, last) =
        (next(&mut source).await.unwrap().unwrap(), next(&mut source).await.unwrap().unwrap());
    assert_eq!((&again.items, &last.items), (&first.items, &second.items));
    source.settle_batch(again.id, durable(&again)).await.unwrap();
    source.settle_batch(last.id, durable(&last)).await.unwrap();
    assert!(next(&mut source).await.unwrap().is_none());
    assert!(next(&mut source).await.unwrap().is_none());
}

/// Files of the suite's items in a folder of their own.
struct Files(TempDir);

#[async_trait]
impl SourceProvider for Files {
    async fn fresh(&self) -> Arc<dyn SourceFactory> {
        let lines: Vec<u8> = (0..ITEMS).flat_map(|index| [&sample_item(index)[..], b"\n"].concat()).collect();
        let path = file(&self.0, "items.jsonl", &lines);
        let options = CaptureOptions { batch_items_max: 7, ..CaptureOptions::new("file", path) };
        Arc::new(CaptureFactory::new(options))
    }

    fn repeats(&self) -> Repeats {
        Repeats::Source
    }
}

#[tokio::test]
async fn file_source_conforms() {
    source_conformance::run(&Files(TempDir::new().unwrap())).await;
}

#[tokio::test]
async fn unsettled_batches_are_bounded() {
    let dir = TempDir::new().unwrap();
    let options = CaptureOptions {
        batch_items_max: 1,
        ..CaptureOptions::new("file", file(&dir, "a.jsonl", &generated(50)))
    };
    let mut source = open(&options, 0).await.unwrap();
    let mut batches = Vec::new();
    for _ in 0..UNSETTLED_BATCHES_MAX {
        batches.push(next(&mut source).await.unwrap().unwrap());
    }

    assert!(timeout(Duration::from_millis(20), source.next_batch()).await.is_err());
    source.settle_batch(batches[0].id, durable(&batches[0])).await.unwrap();

    assert_eq!(next(&mut source).await.unwrap().unwrap().items[0].position, Some(9));
}

/// Method: drop `next` after every single poll; nothing may be lost or come twice.
#[tokio::test]
async fn next_is_cancel_safe() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "a.jsonl", &generated(2_000));
    for speed in [CaptureSpeed::Max, CaptureSpeed::Times(1e6)] {
        let options = CaptureOptions { batch_items_max: 3, speed, ..CaptureOptions::new("file", &path) };
        let mut source = open(&options, 0).await.unwrap();
        let began = Instant::now();
        let mut items = Vec::new();
        loop {
            assert!(began.elapsed() < PATIENCE);
            // A timeout of nothing polls once and drops.
            match timeout(Duration::ZERO, source.next_batch()).await {
                Err(_) => tokio::task::yield_now().await,
                Ok(Err(error)) => panic!("{error}"),
                Ok(Ok(None)) => break,
                Ok(Ok(Some(batch))) => {
                    source.settle_batch(batch.id, durable(&batch)).await.unwrap();
                    items.extend(batch.items);
                }
            }
        }
        check_positions::<()>(items.clone(), 0, Ok(())).1.unwrap();
        assert_eq!(items.len(), 2_000);
    }
}

/// Method: under paused time, record when each item was handed over.
#[tokio::test(start_paused = true)]
async fn a_paced_replay_keeps_the_recorded_distances() {
    let dir = TempDir::new().unwrap();
    let lines = [1_000, 1_000, 1_500, 900, 3_000]
        .map(|ms| format!("{{\"recv_ts_ms\":{}}}", RECORDED_MS + ms))
        .join("\n");
    let path = file(&dir, "a.jsonl", format!("no time\n{lines}\nno time either\n").as_bytes());
    let options = CaptureOptions { speed: CaptureSpeed::Times(2.0), ..CaptureOptions::new("file", path) };
    let mut source = open(&options, 0).await.unwrap();

    let mut seen = Vec::new();
    let mut began = None;
    while let Some(batch) = source.next_batch().await.unwrap() {
        let began = *began.get_or_insert_with(Instant::now);
        let ms = began.elapsed().as_millis();
        seen.extend(batch.items.iter().map(|item| (item.position.unwrap(), ms)));
        source.settle_batch(batch.id, durable(&batch)).await.unwrap();
    }

    assert_eq!(seen, [(1, 0), (2, 0), (3, 0), (4, 250), (5, 250), (6, 1_000), (7, 1_000)]);
}

/// Method: ten lines 100 ms apart; the taker sleeps for five of them. They must not come in one burst.
#[tokio::test(start_paused = true)]
async fn a_delayed_taker_gets_no_burst() {
    let dir = TempDir::new().unwrap();
    let lines: String = (0..10).map(|n| format!("{{\"recv_ts_ms\":{}}}\n", RECORDED_MS + n * 100)).collect();
    let options = CaptureOptions {
        speed: CaptureSpeed::Times(1.0),
        ..CaptureOptions::new("file", file(&dir, "a.jsonl", lines.as_bytes()))
    };
    let mut source = open(&options, 0).await.unwrap();

    let mut began = None;
    let mut seen = Vec::new();
    while let Some(batch) = source.next_batch().await.unwrap() {
        let began = *began.get_or_insert_with(Instant::now);
        assert_eq!(batch.items.len(), 1, "at {:?}", began.elapsed());
        seen.push(began.elapsed().as_millis());
        source.settle_batch(batch.id, durable(&batch)).await.unwrap();
        if seen.len() == 3 {
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    }

    assert_eq!(seen, [0, 100, 200, 800, 900, 1_000, 1_100, 1_200, 1_300, 1_400]);
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

async fn next_texts(source: &mut Box<dyn Source>) -> Vec<String> {
    let batch = next(source).await.unwrap().unwrap();
    source.settle_batch(batch.id, durable(&batch)).await.unwrap();
    texts(&batch.items)
}

#[tokio::test]
async fn a_followed_file_gives_lines_when_they_are_whole() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "a.jsonl", b"one\ntw");
    let options = CaptureOptions { follow: true, ..CaptureOptions::new("file", &path) };
    let mut source = open(&options, 0).await.unwrap();

    assert_eq!(next_texts(&mut source).await, ["one"]);
    assert!(
        timeout(Duration::from_millis(120), source.next_batch()).await.is_err(),
        "half a line was handed over"
    );
    append(&path, "o\nthree\nfo");
    assert_eq!(next_texts(&mut source).await, ["two", "three"]);

    // After a restart the unfinished line still is waited for.
    drop(source);
    let mut source = open(&options, 3).await.unwrap();
    append(&path, "ur\n");
    assert_eq!(next_texts(&mut source).await, ["four"]);
}

#[tokio::test]
async fn a_followed_file_that_is_rotated_ends_with_its_last_lines_and_a_clear_error() {
    let dir = TempDir::new().unwrap();
    let path = file(&dir, "a.jsonl", b"one\n");
    let mut source =
        open(&CaptureOptions { follow: true, ..CaptureOptions::new("file", &path) }, 0).await.unwrap();
    assert_eq!(next_texts(&mut source).await, ["one"]);

    append(&path, "two\nthree");
    std::fs::rename(&path, dir.path().join("a.jsonl.1")).unwrap();
    file(&dir, "a.jsonl", b"new\n");

    let mut last = Vec::new();
    let error = loop {
        match next(&mut source).await {
            Ok(Some(batch)) => {
                source.settle_batch(batch.id, durable(&batch)).await.unwrap();
                last.extend(texts(&batch.items));
            }
            Ok(None) => panic!("a rotated file has not ended"),
            Err(error) => break error,
        }
    };
    assert_eq!(last, ["two", "three"]);
    assert!(matches!(error, SourceError::Fatal { .. }), "{error}");
    assert!(error.to_string().contains("was replaced (rotated)"), "{error}");
}

#[tokio::test]
async fn a_followed_file_that_is_truncated_or_removed_is_a_clear_error() {
    let dir = TempDir::new().unwrap();
    let truncate = |path: &Path| std::fs::write(path, b"").unwrap();
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    let cases = [(truncate as fn(&Path), "was truncated to 0 of 4 bytes"), (remove, "is gone")];
    for (damage, word) in cases {
        let path = file(&dir, "a.jsonl", b"one\n");
        let mut source =
            open(&CaptureOptions { follow: true, ..CaptureOptions::new("file", &path) }, 0).await.unwrap();
        assert_eq!(next_texts(&mut source).await, ["one"]);

        damage(&path);

        let error = next(&mut source).await.unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
        assert!(next(&mut source).await.is_err(), "the error is told again, not an end");
    }
}

/// Method: `gzip -dc` is the independent reader; both streams are compared line by line.
#[tokio::test]
async fn a_recorded_day_is_read_byte_for_byte() {
    let shared = std::env::var_os("ORCHESTRATOR_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = shared.join("data/binance_usdm_20240808.jsonl.gz");
    if !path.exists() {
        println!("skipped: {} is absent; set ORCHESTRATOR_SHARED", path.display());
        return;
    }
    let gzip = Command::new("gzip").arg("-dc").arg(&path).stdout(Stdio::piped()).spawn();
    let Ok(mut gzip) = gzip else {
        println!("skipped: there is no gzip on this machine");
        return;
    };
    let mut reference = BufReader::new(gzip.stdout.take().unwrap());
    let mut source = open(&CaptureOptions::new("file", &path), 0).await.unwrap();

    let mut position = 0_u64;
    let mut line = Vec::new();
    while let Some(batch) = next(&mut source).await.unwrap() {
        for item in &batch.items {
            position += 1;
            line.clear();
            reference.read_until(b'\n', &mut line).unwrap();
            assert_eq!(item.position, Some(position));
            assert!(line.strip_suffix(b"\n") == Some(&item.bytes[..]), "item {position} differs");
        }
        source.settle_batch(batch.id, durable(&batch)).await.unwrap();
    }

    assert_eq!(position, 168_651);
    assert_eq!(reference.read_until(b'\n', &mut line).unwrap(), 0);
    assert!(gzip.wait().unwrap().success());
}

/// Method: put other bytes over a file whose beginning was read, and more of them: its length tells nothing.
#[tokio::test]
async fn a_file_that_is_written_anew_while_it_is_read_is_an_error_whatever_its_length() {
    let dir = TempDir::new().unwrap();
    let text = |line: &str| format!("{line}\n").repeat(200_000);
    for follow in [false, true] {
        let path = file(&dir, "a.jsonl", text("old line").as_bytes());
        let options = CaptureOptions { follow, batch_items_max: 100, ..CaptureOptions::new("file", &path) };
        let mut source = open(&options, 0).await.unwrap();
        assert_eq!(next_texts(&mut source).await[0], "old line");

        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all(text("new line, longer").as_bytes())
            .unwrap();
        let error = loop {
            match next(&mut source).await {
                Ok(Some(batch)) => {
                    source.settle_batch(batch.id, durable(&batch)).await.unwrap();
                    let lines = texts(&batch.items);
                    assert!(lines.iter().all(|line| line == "old line"), "{lines:?}");
                }
                Ok(None) => panic!("it ended as if nothing had happened"),
                Err(error) => break error,
            }
        };

        assert!(matches!(error, SourceError::Fatal { .. }), "{error}");
        assert!(error.to_string().contains("it was written anew while it was read"), "{error}");
    }
}
