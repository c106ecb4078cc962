//! Names and positions that stand for something else than before: another file under an old name, an output file that
//! was renamed, deleted or replaced, a file of somebody else. Each has an identity, and it is checked.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{Service, checked_receipts, eventually, orchestrator, verify};

/// One receipt of `symbol`.
fn receipt(symbol: &str, at: usize) -> String {
    format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"s","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":{at},"raw_payload":"","normalized":{{"timestamp_ms":{at}}}}}"#
    )
}

/// A line each of `DAY1`, `DAY2` …
fn day(day: &str, count: usize) -> String {
    (1..=count).fold(String::new(), |mut text, n| {
        writeln!(text, "{}", receipt(&format!("{day}{n}"), n)).unwrap();
        text
    })
}

/// A service with one file source that reads it once.
struct Reader {
    dir: tempfile::TempDir,
}

impl Reader {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn command(&self, source: &str, path: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command.args(["run", "--once", "--set", "http.listen=127.0.0.1:0", "--set", "log.format=json"]);
        for (setting, value) in [
            (format!("sources.{source}.kind"), "file".to_owned()),
            (format!("sources.{source}.path"), path.display().to_string()),
            ("service.data_dir".to_owned(), self.data().display().to_string()),
        ] {
            command.arg("--set").arg(format!("{setting}={value}"));
        }
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Reads `path` as the source `source`, and returns exit code and log.
    fn read(&self, source: &str, path: &Path) -> (Option<i32>, String) {
        said(self.command(source, path).output().unwrap())
    }

    /// The same of a pipe with this text.
    fn read_pipe(&self, text: &str) -> (Option<i32>, String) {
        let mut command = self.command("pipe", Path::new("/dev/stdin"));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        said(child.wait_with_output().unwrap())
    }

    /// The stored events, one a line.
    async fn stored(&self) -> String {
        checked_receipts(&self.data()).await.into_iter().fold(String::new(), |mut text, event| {
            writeln!(text, "{}", String::from_utf8(event).unwrap()).unwrap();
            text
        })
    }
}

fn said(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Method: read a file, put another one under its name, read again. What is skipped must be what was read.
#[tokio::test]
async fn another_file_under_an_old_name_is_refused_by_its_lines() {
    let first = day("MON", 10);
    let without_its_first_line = first.split_once('\n').unwrap().1.to_owned() + &day("MORE", 5);
    let edited = first.replacen("MON1\"", "MOX1\"", 1) + &day("MORE", 4);
    let others = [
        (day("TUE", 14).into_bytes(), "its line 1 is not"),
        (without_its_first_line.into_bytes(), "its line 1 is not"),
        (edited.into_bytes(), "its line 1 is not"),
        (
            [day("TUE", 9), day("MON", 10).lines().last().unwrap().to_owned() + "\n" + &day("TUE", 4)]
                .concat()
                .into_bytes(),
            "its line 1 is not",
        ),
    ];
    for (other, place) in others {
        let reader = Reader::new();
        let path = reader.path("latest.jsonl");
        fs::write(&path, &first).unwrap();
        assert_eq!(reader.read("day", &path).0, Some(0));

        fs::write(&path, &other).unwrap();
        let (code, log) = reader.read("day", &path);

        assert_eq!(code, Some(69), "{log}");
        for words in [place, "latest.jsonl is another file", "another name, or restore the file"] {
            assert!(log.contains(words), "{words:?} is missing in:\n{log}");
        }
        assert_eq!(reader.stored().await, first, "something of it was stored");

        // As it says: under another name all of it comes.
        assert_eq!(reader.read("tuesday", &path).0, Some(0));
        let receipts = other.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"schema\":"));
        assert_eq!(reader.stored().await.lines().count(), 10 + receipts.count());
    }
}

/// A file of which nothing was a receipt has an identity as well: the quarantine has its lines.
#[tokio::test]
async fn a_file_that_took_the_place_of_one_without_receipts_is_not_skipped() {
    let reader = Reader::new();
    let path = reader.path("latest.jsonl");
    fs::write(&path, "time,price\n1,2\n3,4\n").unwrap();
    reader.read("day", &path);

    fs::write(&path, day("TUE", 14)).unwrap();
    let (code, log) = reader.read("day", &path);

    assert_eq!(code, Some(69), "{log}");
    assert!(log.contains("latest.jsonl is another file"), "{log}");
}

#[tokio::test]
async fn the_same_file_goes_on_when_it_grew_or_was_packed() {
    let reader = Reader::new();
    let (plain, packed) = (reader.path("day.jsonl"), reader.path("day.jsonl.gz"));
    let all = day("MON", 200);
    let lines: Vec<&str> = all.split_inclusive('\n').collect();
    let end_of = |count: usize| lines[..count].concat();
    let pack = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        fs::write(&packed, encoder.finish().unwrap()).unwrap();
    };

    fs::write(&plain, end_of(100)).unwrap();
    assert_eq!(reader.read("day", &plain).0, Some(0));
    fs::write(&plain, end_of(150)).unwrap();
    assert_eq!(reader.read("day", &plain).0, Some(0));
    assert_eq!(reader.stored().await, end_of(150));
    pack(&end_of(150));
    assert_eq!(reader.read("day", &packed).0, Some(0));
    assert_eq!(reader.stored().await, end_of(150));
    pack(&end_of(200));
    assert_eq!(reader.read("day", &packed).0, Some(0));
    assert_eq!(reader.stored().await, end_of(200));

    // A line that was cut where the file ended is said to be one, and what follows it comes.
    let half = lines[0].split_at(40).0;
    let cut = reader.path("cut.jsonl");
    fs::write(&cut, half).unwrap();
    reader.read("cut", &cut);
    fs::write(&cut, end_of(2)).unwrap();
    let (code, log) = reader.read("cut", &cut);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("this line was taken when the file ended in its middle"), "{log}");
    assert_eq!(reader.stored().await, end_of(200) + lines[1]);
}

/// A pipe has no beginning to go back to: what comes is new, unless it begins as it did before.
#[tokio::test]
async fn nothing_of_a_new_pipe_is_skipped() {
    let reader = Reader::new();
    let (monday, tuesday) = (day("MON", 10), day("TUE", 14));

    for (text, expected) in
        [(&monday, monday.clone()), (&monday, monday.clone()), (&tuesday, monday.clone() + &tuesday)]
    {
        let (code, log) = reader.read_pipe(text);
        assert_eq!(code, Some(0), "{log}");
        assert_eq!(reader.stored().await, expected);
    }
}

#[test]
fn one_file_under_two_names_is_refused() {
    let reader = Reader::new();
    let (path, link) = (reader.path("day.jsonl"), reader.path("link.jsonl"));
    fs::write(&path, day("MON", 3)).unwrap();
    fs::hard_link(&path, &link).unwrap();

    let mut command = reader.command("day", &path);
    command.args(["--set", "sources.again.kind=file", "--set"]);
    command.arg(format!("sources.again.path={}", link.display()));
    let (code, log) = said(command.output().unwrap());

    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("sources.again and sources.day read one file"), "{log}");
}

/// A service that makes five runs a second, of which each has two outputs.
struct Publishing {
    dir: tempfile::TempDir,
    config: PathBuf,
}

impl Publishing {
    fn new(publish: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let data = dir.path().join("data");
        let text = format!(
            "[service]\ndata_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n[publish]\n{publish}\n\
             [schedule]\ninterval = \"200ms\"\ndelay = \"0s\"\n[symbols]\ndiscover = false\nlist = [\"A\"]\n",
            data.display()
        );
        fs::write(&config, text).unwrap();
        Self { dir, config }
    }

    async fn start(&self) -> Service {
        Service::start(&self.config, &[]).await
    }

    fn outputs(&self) -> PathBuf {
        self.dir.path().join("data/outputs/orchestrator_events.jsonl")
    }

    /// How it ends when it is not to start.
    fn refused(&self) -> (Option<i32>, String) {
        said(orchestrator(&["run", "--config", self.config.to_str().unwrap()]))
    }

    /// Code and report of `verify`, with these outputs files.
    fn verify(&self, files: &[&Path]) -> (Option<i32>, String) {
        let mut args = vec!["verify", "--config", self.config.to_str().unwrap()];
        args.extend(files.iter().flat_map(|file| ["--outputs", file.to_str().unwrap()]));
        let output = orchestrator(&args);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn lines_of(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Waits until so many more outputs were published.
async fn published_more(service: &Service, more: f64) {
    let so_far = service.metric("orch_publish_outputs_total").await;
    eventually("outputs", async || {
        (so_far + more <= service.metric("orch_publish_outputs_total").await).then_some(())
    })
    .await;
}

/// Method: an editor's way to write a file: a copy takes its place. What was written between copy and replacement, and
/// after it, must be in the file of this name.
#[tokio::test]
async fn an_outputs_file_that_is_replaced_while_it_is_written_lacks_nothing() {
    let publishing = Publishing::new("");
    let service = publishing.start().await;
    published_more(&service, 4.0).await;

    let readiness = service.watch_readiness().await;
    let copy = publishing.outputs().with_extension("new");
    fs::copy(publishing.outputs(), &copy).unwrap();
    published_more(&service, 4.0).await;
    fs::rename(&copy, publishing.outputs()).unwrap();
    published_more(&service, 4.0).await;
    readiness.end().never_lost();

    assert!(service.log().contains("the outputs file was replaced"), "{}", service.log());
    service.stop_unverified().await;
    let (code, report) = publishing.verify(&[]);
    assert_eq!(code, Some(0), "{report}");
    assert!(!report.contains("begins with run record"), "{report}");
}

/// Method: replaced as above right before a kill −9, so that nobody could notice: the start does.
#[tokio::test]
async fn an_outputs_file_that_was_replaced_before_a_crash_is_brought_up_to_date_by_the_start() {
    let publishing = Publishing::new("");
    let service = publishing.start().await;
    published_more(&service, 4.0).await;
    let copy = publishing.outputs().with_extension("new");
    fs::copy(publishing.outputs(), &copy).unwrap();
    published_more(&service, 20.0).await;
    service.pause();
    fs::rename(&copy, publishing.outputs()).unwrap();
    service.kill();

    let service = publishing.start().await;
    assert!(service.log().contains("missing at the end of the file"), "{}", service.log());
    service.stop_unverified().await;

    let (code, report) = publishing.verify(&[]);
    assert_eq!(code, Some(0), "{report}");
    assert!(!report.contains("begins with run record"), "{report}");
}

/// Method: rename it while the service runs, as logrotate does, with and without `create`; then as documented before,
/// while it is stopped. All files together have every output, and `verify` takes the last one alone, or all of them.
#[tokio::test]
async fn a_rotated_outputs_file_goes_on_in_a_new_one_and_verifies() {
    let publishing = Publishing::new("");
    let outputs = publishing.outputs();
    let rotated = ["1", "2", "3"].map(|number| outputs.with_extension(number));
    let mut service = publishing.start().await;
    published_more(&service, 4.0).await;
    fs::rename(&outputs, &rotated[0]).unwrap();
    published_more(&service, 4.0).await;
    fs::rename(&outputs, &rotated[1]).unwrap();
    // Not in place of one that the service may have begun meanwhile.
    drop(fs::File::options().create(true).append(true).open(&outputs).unwrap());
    published_more(&service, 4.0).await;
    service.stop_unverified().await;
    assert!(rotated[..2].iter().chain([&outputs]).all(|file| 2 <= lines_of(file)));

    fs::rename(&outputs, &rotated[2]).unwrap();
    service = publishing.start().await;
    published_more(&service, 4.0).await;
    service.stop_unverified().await;

    let (code, report) = publishing.verify(&[]);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("the outputs file begins with run record"), "{report}");
    let all: Vec<&Path> = rotated.iter().chain([&outputs]).map(PathBuf::as_path).collect();
    let (code, report) = publishing.verify(&all);
    assert_eq!(code, Some(0), "{report}");
    assert!(!report.contains("begins with run record"), "{report}");

    // A hole between the first line and the cursor still is a difference.
    let text = fs::read_to_string(&outputs).unwrap();
    let with_a_hole: Vec<&str> =
        text.split_inclusive('\n').enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| line).collect();
    fs::write(&outputs, with_a_hole.concat()).unwrap();
    assert_eq!(publishing.verify(&[]).0, Some(1));
    let (code, report) = publishing.verify(&[&rotated[0], &rotated[2], &outputs]);
    assert_eq!(code, Some(1), "{report}");
}

#[tokio::test]
async fn an_outputs_file_that_is_deleted_or_emptied_is_noticed_and_goes_on() {
    let publishing = Publishing::new("");
    let service = publishing.start().await;
    published_more(&service, 4.0).await;

    fs::remove_dir_all(publishing.outputs().parent().unwrap()).unwrap();
    published_more(&service, 4.0).await;
    assert!(2 <= lines_of(&publishing.outputs()));
    assert!(service.log().contains("the outputs file was deleted"), "{}", service.log());
    fs::write(publishing.outputs(), "").unwrap();
    published_more(&service, 4.0).await;
    assert!(service.log().contains("somebody else changed the outputs file"), "{}", service.log());

    // From where the new file begins nothing is missing.
    service.stop().await;
    verify(&publishing.config, &[]);
}

#[tokio::test]
async fn an_outputs_file_of_somebody_else_is_refused_and_not_changed() {
    let contents: [&[u8]; 4] = [
        b"PAR1\0\x01\x02\x03 ten thousand bytes of somebody PAR1",
        b"{\"a\": 1}",
        b"a text\nof two lines",
        b"\n",
    ];
    for content in contents {
        let publishing = Publishing::new("file = \"../theirs\"");
        let theirs = publishing.dir.path().join("theirs");
        fs::write(&theirs, content).unwrap();

        let (code, log) = publishing.refused();

        assert_eq!(code, Some(78), "{log}");
        assert!(log.contains("move it away, or name another publish.file"), "{log}");
        assert_eq!(fs::read(&theirs).unwrap(), content);
    }
    let publishing = Publishing::new("file = \"/dev/null\"");
    let (code, log) = publishing.refused();
    assert_eq!(code, Some(78), "{log}");
}

#[tokio::test]
async fn an_outputs_file_has_one_writer_and_one_run_log() {
    let publishing = Publishing::new("file = \"../shared.jsonl\"");
    let service = publishing.start().await;
    published_more(&service, 4.0).await;
    let file = publishing.dir.path().join("shared.jsonl");

    let other = Publishing::new(&format!("file = \"{}\"", file.display()));
    let (code, log) = other.refused();
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains("another process writes it"), "{log}");

    // When it is free it still holds the outputs of the other's run log.
    service.stop().await;
    let before = fs::read(&file).unwrap();
    let (code, log) = other.refused();
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("which is not in this run log"), "{log}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

/// Ids of the events of a stream, until there are so many.
async fn event_ids(service: &Service, query: &str, count: usize) -> Vec<String> {
    let mut answer = reqwest::get(format!("{}/api/v1/events{query}", service.url)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut text = String::new();
    let ids = |text: &str| -> Vec<String> {
        let events = text
            .split_inclusive("\n\n")
            .filter(|event| event.ends_with("\n\n") && event.contains("\ndata: "));
        events
            .filter_map(|event| Some(event.lines().find_map(|line| line.strip_prefix("id: "))?.to_owned()))
            .collect()
    };
    while ids(&text).len() < count {
        let chunk =
            tokio::time::timeout(crate::support::PATIENCE, answer.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    ids(&text)
}

/// Method: take the id of an event, make the data directory anew, and wait until the new log is longer than that.
#[tokio::test]
async fn the_id_of_an_event_of_another_log_is_refused() {
    let publishing = Publishing::new("");
    let service = publishing.start().await;
    let ids = event_ids(&service, "?from=earliest", 2).await;
    assert_eq!(event_ids(&service, &format!("?from={}", ids[0]), 1).await[0], ids[1]);
    service.kill();
    let service = publishing.start().await;
    assert_eq!(
        event_ids(&service, &format!("?from={}", ids[0]), 1).await[0],
        ids[1],
        "a restart changed the log"
    );
    service.kill();

    fs::remove_dir_all(publishing.dir.path().join("data")).unwrap();
    let service = publishing.start().await;
    let readiness = service.watch_readiness().await;
    published_more(&service, 6.0).await;
    let (code, body) = service.get(&format!("/api/v1/events?from={}", ids[0])).await;
    assert_eq!(code, 409, "{body}");
    assert!(body.contains("position_of_another_log"), "{body}");
    readiness.end().never_lost();
    let (_, numbers) = ids[0].split_once('-').unwrap();
    let first = event_ids(&service, "?from=earliest", 1).await;
    assert_eq!(first[0].split_once('-').unwrap().1, numbers, "the number alone is one of both");
    service.stop().await;
}
