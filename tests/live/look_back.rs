//! The commands that look at recorded logs, on a server: they say what they say of the same logs in a data directory,
//! write nothing there, end with the exit of what is wrong, and show no login.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};

use crate::support::day::{Day, PASSWORD, USER, files};
use crate::support::logs::{outputs, run_records};
use crate::support::made_up::{START_MS, text_of};
use crate::support::process::root;
use crate::support::proxy::{Direction, Fault, FaultProxy, Reach};

/// Exit codes: nothing answers, stored data cannot be used, a comparison found a difference or cannot tell, the
/// configuration is refused.
const UNAVAILABLE: i32 = 69;
const DATA: i32 = 65;
const DIFFERENT: i32 = 1;
const CANNOT_TELL: i32 = 2;
const CONFIG: i32 = 78;

/// What a reading user sends, and what the server counts of this test itself.
const READS: [&str; 6] = ["auth", "hello", "client|setinfo", "hget", "hmget", "xrange"];
const OWN: [&str; 2] = ["config|resetstat", "info"];

/// Runs the binary in `dir`, with every log line that it has. The login is in nothing that it says.
fn run(dir: &Path, args: &[&str], code: i32) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("RUST_LOG", "trace")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    for secret in [USER, PASSWORD] {
        assert!(!out.contains(secret) && !err.contains(secret), "{args:?} shows {secret}:\n{out}\n{err}");
    }
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    (out, err)
}

/// Two places with the same logs.
struct Both<'a> {
    day: &'a Day,
    url: String,
    /// Where the commands run: empty, and so it must stay.
    dir: std::path::PathBuf,
}

impl<'a> Both<'a> {
    fn of(day: &'a Day) -> Self {
        let dir = day.path("here");
        fs::create_dir(&dir).unwrap();
        Self { day, url: day.url(), dir }
    }

    /// Standard output of a command on either, which must be the same but for the name of the place; `PLACE` stands
    /// where it goes.
    fn same(&self, args: &[&str], code: i32) -> String {
        let embedded = text_of(&self.day.embedded);
        let archive = ["--archive", text_of(&self.day.on_server)];
        let said = |place: &str, more: &[&str]| {
            let with = |arg: &&str| if *arg == "PLACE" { place.to_owned() } else { (*arg).to_owned() };
            let args: Vec<String> = args.iter().chain(more).map(with).collect();
            let (out, _) = run(&self.dir, &args.iter().map(String::as_str).collect::<Vec<_>>(), code);
            out.replace(embedded, "PLACE").replace(&self.name(), "PLACE")
        };
        let of_files = said(embedded, &[]);
        let more: &[&str] = if args.contains(&"diff") { &[] } else { &archive };
        let of_server = said(&self.url, more);
        assert_eq!(of_server, of_files, "{args:?}");
        of_server
    }

    /// What the server is called.
    fn name(&self) -> String {
        format!("redis://127.0.0.1:{}/0, namespace default", self.day.redis.port())
    }

    /// A path for what a command writes.
    fn to(&self, name: &str) -> String {
        text_of(&self.day.path(name)).to_owned()
    }
}

/// The commands with a call that the server counted.
fn called(day: &Day) -> BTreeSet<String> {
    let stats = day.command(&["INFO", "commandstats"]);
    let counted = stats.lines().filter(|line| !line.contains(":calls=0,"));
    let names = counted.filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next());
    names.map(str::to_owned).collect()
}

/// Method: the same receipts in a directory and on a server, asked in every way by a user who may only read.
#[tokio::test(flavor = "multi_thread")]
async fn every_command_says_the_same_of_a_server_and_writes_nothing_there() {
    let day = Day::record();
    let both = Both::of(&day);
    let before = day.dump();
    day.command(&["CONFIG", "RESETSTAT"]);

    let replayed = both.same(&["replay", "--from", "PLACE"], 0);
    assert_eq!(replayed.lines().collect::<Vec<_>>(), outputs(&day.embedded));
    check_looks(&both).await;
    check_exports(&both);
    check_comparisons(&both);
    check_backtests(&both);

    let calls = called(&day);
    let strange: Vec<_> =
        calls.iter().filter(|name| !READS.iter().chain(&OWN).any(|known| known == name)).collect();
    assert!(strange.is_empty() && calls.contains("xrange"), "{strange:?} of {calls:?}");
    assert_eq!(day.dump(), before, "every key is as it was, none came or went, none got a time to live");
    assert_eq!(fs::read_dir(&both.dir).unwrap().count(), 0, "nothing was made where the commands ran");
    assert!(!root().join("high_water").exists());
}

async fn check_looks(both: &Both<'_>) {
    let runs = run_records(&both.day.embedded).await;
    for record in runs.iter().filter(|record| record.is_terminal()).step_by(3) {
        let id = record.facts.run_id.to_string();
        both.same(&["inspect", "run", &id, "--from", "PLACE", "--json"], 0);
        both.same(&["inspect", "run", &id, "--from", "PLACE"], 0);
    }
    for seq in ["1", "41", "130"] {
        both.same(&["inspect", "seq", seq, "--from", "PLACE", "--json"], 0);
    }
    both.same(&["inspect", "seq", "999", "--from", "PLACE"], 1);
    for at in [START_MS - 495, START_MS + 1_505, START_MS + 9_000] {
        let at = at.to_string();
        both.same(&["inspect", "symbol", "ETHUSDT", "--at", &at, "--from", "PLACE", "--json"], 0);
    }
    both.same(&["inspect", "symbol", "NONE", "--at", "0", "--from", "PLACE"], 1);
    // The sizes are those of the medium.
    let stat = |said: &str| {
        let mut stat: Value = serde_json::from_str(said).unwrap();
        for log in ["receipts", "runs", "quarantine"] {
            assert!(stat[log]["log"]["bytes"].take().as_u64().unwrap() > 0, "{said}");
        }
        stat
    };
    let on_server = run(&both.dir, &["log", "stat", "--from", &both.url], 0).0;
    let in_files = run(&both.dir, &["log", "stat", "--from", text_of(&both.day.embedded)], 0).0;
    assert_eq!(stat(&on_server), stat(&in_files));
    assert_eq!(stat(&on_server)["quarantine"]["log"]["last"], 1);
}

/// The same files, byte for byte; of tables what is in them.
fn check_exports(both: &Both<'_>) {
    let places = [both.url.as_str(), text_of(&both.day.embedded)];
    let exported = |format: &str| {
        places.map(|place| {
            let to = both.to(&format!("{format}-{}", place.len()));
            let said = run(&both.dir, &["export", "--from", place, "--to", &to, "--format", format], 0).0;
            (said.replace(&to, "TO"), to)
        })
    };

    let [on_server, in_files] = exported("ndjson");
    assert_eq!(on_server.0, in_files.0);
    let lines = files(Path::new(&on_server.1));
    assert!(lines == files(Path::new(&in_files.1)), "the lines differ");
    let of = |name: &str| String::from_utf8(lines[name].clone()).unwrap();
    assert_eq!(of("orchestrator_events.jsonl").lines().collect::<Vec<_>>(), outputs(&both.day.embedded));
    assert_eq!(of("quarantine.jsonl").lines().count(), 1);

    let [on_server, in_files] = exported("parquet");
    assert_eq!(on_server.0, in_files.0);
    let [on_server, in_files] = [on_server.1, in_files.1].map(|dir| tables(Path::new(&dir)));
    assert_eq!(on_server, in_files);
    assert!(on_server.len() >= 2 && on_server.values().all(|rows| !rows.is_empty()), "{on_server:?}");

    let archived = places.map(|place| {
        let to = both.to(&format!("archive-{}", place.len()));
        let said = run(&both.dir, &["log", "archive", "--from", place, "--to", &to], 0).0;
        // With its archive, but without the other's own: the server's logs are whole.
        let stat = ["log", "stat", "--from", text_of(&both.day.embedded), "--archive", &to];
        (said, run(&both.dir, &stat, 0).0)
    });
    assert_eq!(archived[0], archived[1]);
}

/// The rows of every table of a directory, as text.
fn tables(dir: &Path) -> BTreeMap<String, Vec<String>> {
    let rows = |name: &String| {
        let reader = SerializedFileReader::new(File::open(dir.join(name)).unwrap()).unwrap();
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect()
    };
    files(dir).into_keys().map(|name| (name.clone(), rows(&name))).collect()
}

fn check_comparisons(both: &Both<'_>) {
    both.same(&["verify", "--from", "PLACE"], 0);
    both.same(&["verify", "--from", "PLACE", "--recompute-state", "--report", "json"], 0);
    let report = both.to("report.json");
    run(&both.dir, &["verify", "--from", &both.url, "--report", "json", "--out", &report], 0);
    let written = fs::read_to_string(&report).unwrap();
    assert!(written.contains(&both.name()) && !written.contains(PASSWORD) && !written.contains(USER));

    both.same(&["diff", "PLACE", text_of(&both.day.embedded), "--json"], 0);
    both.same(&["diff", text_of(&both.day.embedded), "PLACE"], 0);
    let answered = both.same(&["diff", "PLACE", "--engine", "--json"], 0);
    let answered: Value = serde_json::from_str(&answered).unwrap();
    assert_eq!((&answered["verdict"], &answered["equal"]), (&json!("equal"), &json!(12)));
}

/// By receive time, and by ingest time; and of the file that both services had.
fn check_backtests(both: &Both<'_>) {
    let capture = both.day.capture();
    let played = |capture: &str, time: &str, out: &str| {
        let out = both.to(out);
        let args = ["--capture", capture, "--time", time, "--out", &out, "--set", "schedule.interval=2s"];
        run(&both.dir, &[&["backtest"], &args[..]].concat(), 0);
        let page = fs::read_to_string(Path::new(&out).join("report.html")).unwrap();
        assert!(!page.contains(PASSWORD) && !page.contains(USER));
        let report = fs::read_to_string(Path::new(&out).join("report.json")).unwrap();
        let mut report: Value =
            serde_json::from_str(&report.replace(&both.name(), "PLACE").replace(capture, "PLACE")).unwrap();
        report.as_object_mut().unwrap().remove("performance").unwrap();
        (fs::read_to_string(Path::new(&out).join("orchestrator_events.jsonl")).unwrap(), report)
    };
    for time in ["receive", "ingest"] {
        let on_server = played(&both.url, time, &format!("{time}-server"));
        assert_eq!(on_server, played(text_of(&both.day.embedded), time, &format!("{time}-files")));
        assert_eq!(on_server.0.lines().collect::<Vec<_>>(), outputs(&both.day.embedded));
    }
    let of_file = played(text_of(&capture), "receive", "receive-capture");
    assert_eq!(of_file.0.lines().collect::<Vec<_>>(), outputs(&both.day.embedded));
}

/// Each command that looks, and whether it compares.
fn commands<'a>(url: &'a str, namespace: &'a str, to: &'a str) -> Vec<(Vec<&'a str>, bool)> {
    let from = ["--from", url, "--namespace", namespace];
    let on = |command: &[&'a str], more: &[&'a str]| [command, &from[..], more].concat();
    vec![
        (on(&["replay"], &["--out", to]), false),
        (on(&["inspect", "seq", "1"], &[]), false),
        (on(&["inspect", "run", "0"], &[]), false),
        (on(&["inspect", "symbol", "BTCUSDT", "--at", "0"], &["--json"]), false),
        (on(&["export"], &["--to", to]), false),
        (on(&["export", "--format", "parquet"], &["--to", to]), false),
        (on(&["log", "stat"], &[]), false),
        (on(&["log", "archive"], &["--to", to]), false),
        (vec!["backtest", "--capture", url, "--namespace", namespace, "--out", to], false),
        (on(&["verify"], &[]), true),
        (vec!["diff", url, url, "--namespace", namespace], true),
        (vec!["diff", url, "--engine", "--namespace", namespace], true),
    ]
}

/// Every command ends with this exit, says why, and leaves nothing behind. Those that compare cannot tell, but that
/// `verify` says "different" where the logs are damaged.
fn check_refused(day: &Day, (url, namespace): (&str, &str), code: i32, why: &str) {
    let to = day.path("refused");
    for (args, compares) in commands(url, namespace, text_of(&to)) {
        let is_damage = code == DATA && !why.contains("version") && args[0] == "verify";
        let code = match compares {
            false => code,
            true if is_damage => DIFFERENT,
            true => CANNOT_TELL,
        };
        let (out, err) = run(day.embedded.parent().unwrap(), &args, code);
        assert!(out.contains(why) || err.contains(why), "{args:?} must say {why}:\n{out}\n{err}");
        assert!(!to.exists(), "{args:?} left something behind");
    }
}

#[test]
fn a_server_that_cannot_be_used_is_unavailable_and_no_login_is_shown() {
    let mut day = Day::record();
    let url = day.url();

    check_refused(&day, (&day.url_with(USER, "wrong"), "default"), UNAVAILABLE, "user and password");
    check_refused(&day, (&day.url_with("nobody", PASSWORD), "default"), UNAVAILABLE, "user and password");
    check_refused(&day, (&url.replace("redis:", "rediss:"), "default"), UNAVAILABLE, "cannot use redis");
    day.command(&["ACL", "SETUSER", USER, "-hmget"]);
    check_refused(&day, (&url, "default"), UNAVAILABLE, "its ACL must allow");
    day.command(&["ACL", "SETUSER", USER, "+hmget"]);
    let nobody = day.redis.url_of_nobody();
    day.command(&["CONFIG", "SET", "requirepass", PASSWORD]);
    check_refused(&day, (&nobody, "default"), UNAVAILABLE, "user and password");

    day.redis.pause();
    check_refused(&day, (&url, "default"), UNAVAILABLE, "cannot use redis");
    day.redis.resume();
    day.redis.kill();
    check_refused(&day, (&url, "default"), UNAVAILABLE, "refused");
}

/// Method: every connection is reset after so many bytes of answers: at the login, at the first look at a log, and in
/// the middle of its records. Each log is read on a connection of its own, and asked twice.
#[test]
fn a_server_that_goes_away_while_it_is_read_is_unavailable() {
    let day = Day::record();
    let proxy = FaultProxy::to(day.redis.port());
    let url = day.url().replace(&day.redis.port().to_string(), &proxy.port().to_string());
    let here = day.embedded.parent().unwrap();
    let to = text_of(&day.path("cut")).to_owned();
    let from = ["--from", &url];
    for bytes in [0, 60, 4_000] {
        proxy.put(Fault::CutAfter(Direction::ToClient, bytes), Reach::New);
        for (args, code) in [
            (&["replay"][..], UNAVAILABLE),
            (&["inspect", "symbol", "BTCUSDT", "--at", "2027-01-01T00:00:00Z"], UNAVAILABLE),
            (&["export", "--to", &to], UNAVAILABLE),
            (&["export", "--format", "parquet", "--to", &to], UNAVAILABLE),
            (&["log", "stat"], UNAVAILABLE),
            (&["verify"], CANNOT_TELL),
        ] {
            let (out, err) = run(here, &[args, &from].concat(), code);
            assert!(code == CANNOT_TELL || err.contains("redis at "), "{args:?}: {out}{err}");
        }
        run(here, &["diff", &url, "--engine"], CANNOT_TELL);
        run(here, &["backtest", "--capture", &url, "--out", text_of(&day.path("out"))], UNAVAILABLE);
        assert!(!Path::new(&to).exists() || files(Path::new(&to)).is_empty(), "no file looks whole");
    }
    proxy.heal();
    run(here, &[&["verify"], &from[..]].concat(), 0);
}

/// Method: a login in a URL with a slip, and one where no URL belongs.
#[test]
fn a_login_is_not_shown_when_the_url_is_none() {
    let day = Day::record();
    let (url, place) = (day.url(), format!("127.0.0.1:{}", day.redis.port()));
    let login = format!("{USER}:{PASSWORD}@{place}");

    for slip in [
        format!("redis:/{login}"),
        format!("http://{login}"),
        format!("redis://{login}x"),
        format!("redis:{login}"),
    ] {
        check_refused(&day, (&slip, "default"), CONFIG, "not a Redis URL");
    }
    let here = day.embedded.parent().unwrap();
    for args in [&["verify", &url][..], &["inspect", &url], &["replay", "--range", &url], &[&url]] {
        let said = run(here, args, 2).1;
        assert!(said.contains(&format!("redis://{place}")), "{said}");
    }
}

/// Method: a namespace that nobody used, and the keys of one log changed by hand, each put back afterwards.
#[test]
fn logs_that_are_not_there_or_of_another_form_are_refused() {
    let day = Day::record();
    let url = day.url();
    let meta = "orch:{default}:runs:meta";
    let check = |why: &str| check_refused(&day, (&url, "default"), DATA, why);

    check_refused(&day, (&url, "nobody"), UNAVAILABLE, "there are no logs");
    day.command(&["HSET", meta, "format", "2"]);
    check("format version 2");
    day.command(&["HSET", meta, "format", "1", "start", "first"]);
    check("its field start is \"first\"");
    day.command(&["HSET", meta, "start", "1"]);
    day.command(&["RENAME", meta, "away"]);
    check("it is gone");
    day.command(&["SET", meta, "something else"]);
    check("it is no hash");
    day.command(&["RENAME", "away", meta]);

    run(day.embedded.parent().unwrap(), &["verify", "--from", &url], 0);
}

/// Method: trimmed as the service trims, without the archive; then by a stranger, behind the meta key's back.
#[test]
fn of_a_trimmed_log_what_is_left_is_shown_and_a_hole_is_refused() {
    let day = Day::record();
    let (url, here) = (day.url(), day.embedded.parent().unwrap());
    let receipts = "orch:{default}:receipts";
    let trim = |below: u64| day.command(&["XTRIM", receipts, "MINID", "=", &format!("{below}-0")]);
    trim(11);
    day.command(&["HSET", &format!("{receipts}:meta"), "start", "11"]);

    let trimmed = "starts at 11, and nothing says what stood before";
    for (args, code) in [(&["replay"][..], 2), (&["verify"], CANNOT_TELL)] {
        let (out, err) = run(here, &[args, &["--from", &url]].concat(), code);
        assert!(out.contains(trimmed) || err.contains(trimmed), "{args:?}:\n{out}\n{err}");
    }
    let (_, err) = run(here, &["diff", &url, "--engine"], CANNOT_TELL);
    assert!(err.contains(trimmed), "{err}");
    let (_, err) = run(here, &["inspect", "seq", "10", "--from", &url], 1);
    assert!(err.contains("there is no receipt 10"), "{err}");
    run(here, &["inspect", "seq", "11", "--from", &url], 0);
    let to = text_of(&day.path("rest")).to_owned();
    let exported = run(here, &["export", "--from", &url, "--to", &to], 0).0;
    let exported: Value = serde_json::from_str(&exported).unwrap();
    assert_eq!((&exported["first_ingest_seq"], &exported["line_is_ingest_seq"]), (&json!(11), &json!(false)));

    trim(21);
    let hole = "it is missing";
    for args in [
        &["inspect", "seq", "11", "--from", &url][..],
        &["export", "--from", &url, "--to", text_of(&day.path("hole"))],
        &["log", "stat", "--from", &url],
    ] {
        let (_, err) = run(here, args, DATA);
        assert!(err.contains(hole), "{args:?}: {err}");
    }
    assert!(!day.path("hole").exists() || files(&day.path("hole")).is_empty(), "no file looks whole");
    let (out, _) = run(here, &["verify", "--from", &url], CANNOT_TELL);
    assert!(out.contains(trimmed), "{out}");
}
