//! `orchestrator verify` and `replay` on the real binary: equal when it is equal, and the place of whatever is not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use orchestrator::adapters::files::fs::RealFs;
use orchestrator::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use orchestrator::adapters::files::{DataDir, FileCheckpoints};
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::random::Rng;
use serde_json::Value;

use self::made_up::{BEGIN_MS, MadeUp, Said, content_end, engine_copy};
use crate::support::seed;

mod capture;
pub(crate) mod made_up;
mod silence;

/// Bytes that are flipped.
const FLIPS: usize = 24;

fn check_said(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    for word in words {
        assert!(said.stdout.contains(word), "{word:?} is missing in:\n{}{}", said.stdout, said.stderr);
    }
}

#[test]
fn a_recorded_run_is_equal_and_verifying_changes_nothing() {
    let made = MadeUp::with_demo_engine();
    let before = made.everything();

    for args in [&[][..], &["--recompute-state"]] {
        check_said(&made.verify(args), 0, &["equal (", "60 runs ended"]);
    }

    assert!(made.everything() == before, "a file was changed, made or removed");
}

/// Method: flip one bit of one stored byte, in segments of both logs and in the outputs file, and put it back.
#[test]
fn a_flip_of_any_stored_byte_is_different_and_its_place_is_named() {
    let seed = seed();
    println!("SEED={seed}");
    let mut dice = Rng::new(seed);
    let made = MadeUp::with_demo_engine();
    let files = made.stored_files();
    assert!(files.len() > 3, "more than one segment: {files:?}");

    for flip in 0..FLIPS {
        let path = &files[flip % files.len()];
        let honest = fs::read(path).unwrap();
        let at = dice.next_index(content_end(&honest));
        let mut flipped = honest.clone();
        flipped[at] ^= 1 << dice.next_index(8);
        fs::write(path, &flipped).unwrap();

        let said = made.verify(&[]);

        fs::write(path, &honest).unwrap();
        let place = match path.extension().unwrap().to_str().unwrap() {
            "jsonl" => {
                let line = honest[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
                format!("orchestrator_events.jsonl line {line}: ")
            }
            _ => format!("log {}", path.parent().unwrap().file_name().unwrap().to_str().unwrap()),
        };
        assert_eq!(said.code, 1, "SEED={seed} {} byte {at}: {said:?}", path.display());
        assert!(
            said.stdout.contains(&place),
            "SEED={seed} byte {at}: {place} is missing in:\n{}",
            said.stdout
        );
    }
    check_said(&made.verify(&[]), 0, &["equal ("]);
}

#[tokio::test]
async fn a_dropped_receipt_is_named() {
    let made = MadeUp::with_demo_engine();

    made.drop_receipt(500, false).await;
    let said = made.verify(&[]);
    check_said(
        &said,
        1,
        &["first difference (checkpoints)", "LOG_REGRESSED", "receipt 500: ingest_seq was recorded as 501"],
    );

    // Renumbered, and without the checkpoints that knew more: only what follows from the receipts can tell.
    let made = MadeUp::with_demo_engine();
    made.drop_receipt(500, true).await;
    fs::remove_dir_all(made.data.join("checkpoints")).unwrap();
    let said = made.verify(&[]);
    check_said(
        &said,
        1,
        &[
            "first difference (cuts): run record",
            "cut_end_ingest_seq was recorded as 511, but must be 510",
            "the receipt after the cut",
        ],
    );
}

#[test]
fn another_engine_is_never_silent() {
    let dir = tempfile::tempdir().unwrap();
    let engine = |path: &Path| format!("engine.process.command={}", serde_json::json!(["python3", path]));
    let same = engine_copy(&dir.path().join("same"), str::to_owned);
    let newer = engine_copy(&dir.path().join("newer"), |source| {
        source.replace(r#"version="1.0""#, r#"version="1.1""#)
    });
    let changed = engine_copy(&dir.path().join("changed"), |source| {
        source.replace("strength = (min(1.0, abs(displacement))", "strength = (min(0.5, abs(displacement))")
    });
    let engines = crate::support::root().join("engines");
    let made = MadeUp::record(&format!(
        "[engine]\nkind = \"process\"\nmode = \"truth\"\n[engine.process]\ncommand = [\"python3\", {same:?}]\nworkers = 2\n[engine.process.env]\nPYTHONPATH = {engines:?}"
    ));

    check_said(&made.verify(&[]), 0, &["equal ("]);
    let newer = engine(&newer);
    check_said(
        &made.verify(&["--set", &newer]),
        2,
        &["cannot tell (", "another engine: ", "standin-engine 1.0", "now by standin-engine 1.1"],
    );
    check_said(
        &made.verify(&["--set", &newer, "--allow-other-engine"]),
        0,
        &["equal (", "another engine: ", "allowed by --allow-other-engine"],
    );
    check_said(
        &made.verify(&["--set", &engine(&changed)]),
        1,
        &[
            "different in ",
            "another engine: ",
            "first difference (answers): run record",
            "regime_output",
            "--- recorded",
            "the snapshot, receipt",
        ],
    );
    let gone = engine(Path::new("no/such/engine.py"));
    check_said(&made.verify(&["--set", &gone]), 2, &["cannot tell ("]);

    let refused = made.orchestrator(&["replay"], &["--set", &newer]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{refused:?}");
    assert!(refused.stderr.contains("refused; see --allow-other-engine"), "{refused:?}");
    let allowed = made.orchestrator(&["replay"], &["--set", &newer, "--allow-other-engine"]);
    assert_eq!(allowed.stdout, fs::read_to_string(made.outputs()).unwrap());
    assert!(allowed.code == 0 && allowed.stderr.contains("0 of them otherwise"), "{allowed:?}");
}

/// The settings of the hysteresis are no part of an engine's identity: only the answers tell.
#[test]
fn an_engine_with_other_settings_is_different() {
    let made = MadeUp::with_demo_engine();

    let said = made.verify(&["--set", "engine.hysteresis.decay_factor=0.5"]);

    let setting = "not as it was recorded: engine.hysteresis.decay_factor was";
    check_said(&said, 1, &["first difference (answers)", "hysteresis_decision", "+++ replayed", setting]);
    assert!(!said.stdout.contains("another engine"), "{said:?}");
}

#[tokio::test]
async fn a_cursor_that_does_not_fit_the_run_log_is_named() {
    let made = MadeUp::with_demo_engine();
    let saved = FileCheckpoints::open(&made.data.join("checkpoints"), Arc::new(RealFs)).unwrap();
    let honest = saved.load("published").await.unwrap().unwrap();
    let number = |at: usize| u64::from_le_bytes(honest[at..at + 8].try_into().unwrap());
    let save = async |run_seq: u64, outputs: u64| {
        let value = [run_seq.to_le_bytes(), outputs.to_le_bytes()].concat();
        saved.save("published", Epoch(9), Bytes::from(value)).await.unwrap();
    };

    save(number(0), number(8) + 1).await;
    check_said(&made.verify(&[]), 1, &["first difference (cursor): publish cursor: outputs was recorded as"]);
    save(number(0) + 1, number(8)).await;
    check_said(&made.verify(&[]), 1, &["publish cursor: run record was recorded as", "LOG_REGRESSED"]);
    // A cursor that lags only means that less must be in the file.
    save(0, 0).await;
    check_said(&made.verify(&[]), 0, &["equal ("]);
}

#[test]
fn an_outputs_file_with_a_line_too_few_or_too_many_is_different_and_a_repetition_is_not() {
    let made = MadeUp::with_demo_engine();
    let honest = fs::read_to_string(made.outputs()).unwrap();
    let lines: Vec<&str> = honest.lines().collect();
    let check = |lines: &[&str], code, words: &[&str]| {
        fs::write(made.outputs(), lines.join("\n") + "\n").unwrap();
        check_said(&made.verify(&[]), code, words);
    };
    let without = |index: usize| [&lines[..index], &lines[index + 1..]].concat();
    let with = |index: usize, line| [&lines[..index], &[line], &lines[index..]].concat();

    check(&without(40), 1, &["line 41: message_id", "different in 1 places"]);
    check(&without(lines.len() - 1), 1, &["line is the end of the file, expected"]);
    check(&with(40, lines[40]), 0, &["1 repetitions"]);
    check(&with(40, lines[10]), 0, &["1 repetitions"]);
    check(&with(40, "{}"), 1, &["line 41: line is {}, expected", "different in 1 places"]);
    check(&with(lines.len(), "{}"), 1, &["the run log ends before", "different in 1 places"]);
    let forged = lines[10].replace("\"attempt\":1", "\"attempt\":2");
    check(&with(40, &forged), 1, &["line 41"]);
    // A recorded clock does not know when it published: the time may not be made up, nor in a repetition.
    let timed = lines[10].replace("\"published_ts_ms\":null", "\"published_ts_ms\":1768002662009");
    check(
        &[&lines[..10], &[timed.as_str()], &lines[11..]].concat(),
        1,
        &["line 11: published_ts_ms is 1768002662009, expected null"],
    );
    check(&with(40, &timed), 1, &["line 41: published_ts_ms is", "different in 1 places"]);
    // Without the end of its last line, which the cursor says is there.
    fs::write(made.outputs(), honest.trim_end()).unwrap();
    check_said(&made.verify(&[]), 1, &["without its end"]);

    // None at all: different where the configuration names it, told where it was only looked for.
    fs::remove_file(made.outputs()).unwrap();
    check_said(&made.verify(&[]), 1, &["file is missing, expected", "which were confirmed"]);
    let looked_for = made.verify(&["--from", made.data.to_str().unwrap()]);
    check_said(&looked_for, 0, &["outputs are not compared: there is no"]);
}

#[test]
fn a_damaged_cursor_is_not_passed_over() {
    let made = MadeUp::with_demo_engine();
    let cursor = made.data.join("checkpoints/published.ckpt");
    let mut bytes = fs::read(&cursor).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&cursor, bytes).unwrap();

    check_said(
        &made.verify(&[]),
        1,
        &["the publish cursor, ", "published.ckpt: not a whole value: it fails its checksum"],
    );
}

#[tokio::test]
async fn what_cannot_be_compared_is_not_called_equal() {
    let made = MadeUp::with_demo_engine();

    let service = DataDir::open(&made.data).unwrap();
    check_said(&made.verify(&[]), 2, &["cannot tell", "in use by another instance"]);
    drop(service);

    let receipts = made.data.join("receipts");
    let log = EmbeddedLog::open(&receipts, EmbeddedLogOptions::new("receipts")).unwrap();
    let writer = log.acquire().await.unwrap();
    assert!(Seq(1) < log.trim(writer.epoch, writer.tail).await.unwrap(), "a segment was removed");
    drop(log);
    check_said(&made.verify(&[]), 2, &["cannot tell", "log receipts was trimmed: it starts at"]);

    let nothing = made.verify(&["--from", "no/such/dir"]);
    assert_eq!(nothing.code, 2, "{nothing:?}");
    let empty = tempfile::tempdir().unwrap();
    drop(DataDir::open(empty.path()).unwrap());
    check_said(&made.verify(&["--from", empty.path().to_str().unwrap()]), 2, &["there are no records"]);
}

#[test]
fn reports_are_for_programs_too() {
    let made = MadeUp::with_demo_engine();
    let changed = ["--set", "engine.hysteresis.decay_factor=0.5"];
    let file = made.data.join("report");
    let written = |form: &str| {
        let out = ["--report", form, "--out", file.to_str().unwrap()];
        let said = made.verify(&[&changed[..], &out[..]].concat());
        check_said(&said, 1, &[]);
        assert_eq!(said.stdout, "");
        fs::read_to_string(&file).unwrap()
    };

    let json: Value = serde_json::from_str(&written("json")).unwrap();
    assert_eq!((json["verdict"].as_str(), json["complete"].as_bool()), (Some("different"), Some(true)));
    assert_eq!(json["first"][0]["check"].as_str(), Some("answers"));
    assert!(json["differences"]["answers"].as_u64().unwrap() > 0);
    assert!(json["context"].as_str().unwrap().contains("the hysteresis"), "{json}");
    let junit = written("junit");
    assert!(junit.starts_with("<?xml") && junit.contains("failures=\"1\""), "{junit}");
    assert!(junit.contains("name=\"answers: ") && junit.contains("<failure"), "{junit}");
}

#[test]
fn a_replay_gives_the_outputs_again() {
    let made = MadeUp::with_demo_engine();
    let honest = fs::read_to_string(made.outputs()).unwrap();
    let before = made.everything();
    let replay = |args: &[&str]| {
        let said = made.orchestrator(&["replay"], args);
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout
    };
    let of = |wanted: &dyn Fn(&Value) -> bool| -> String {
        let lines = honest.lines().filter(|line| wanted(&serde_json::from_str(line).unwrap()));
        lines.map(|line| format!("{line}\n")).collect()
    };

    assert_eq!(replay(&[]), honest);
    assert_eq!(replay(&["--recompute-state"]), honest);
    assert_eq!(replay(&["--engine", "recorded"]), honest);
    assert_eq!(replay(&["--engine", "demo", "--speed", "1000x"]), honest);
    let some = replay(&["--symbols", "AAA,CCC", "--recompute-state"]);
    assert_eq!(some, of(&|event| event["symbol"] != "BBB"));
    let late = replay(&["--range", "2020-01-01T00:00:05Z..2020-01-01T00:00:07Z"]);
    let at = |event: &Value| event["engine_timestamp_ms"].as_i64().unwrap();
    assert_eq!(late, of(&|event| (5000..=7000).contains(&(at(event) - BEGIN_MS))));
    assert!(!late.is_empty() && !some.is_empty());
    let out = made.data.with_file_name("replayed.jsonl");
    assert_eq!(replay(&["--out", out.to_str().unwrap()]), "");
    assert_eq!(fs::read_to_string(out).unwrap(), honest);
    assert!(made.everything() == before, "a file was changed, made or removed");
}
