//! Retention as an operator meets it: the service lets records go by itself, the commands archive, trim and look.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::root;

/// Small segments: only whole ones go.
const SMALL: [(&str, &str); 2] =
    [("ORCHESTRATOR__BUFFER__SEGMENT_BYTES", "1MiB"), ("ORCHESTRATOR__BUFFER__BATCH_BYTES_MAX", "512KiB")];

fn orchestrator(args: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(SMALL)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn demo(data: &str, environment: &[(&str, &str)]) {
    let ran = orchestrator(&["demo", "--for", "5s", "--rate", "4000", "--data", data], environment);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// The JSON that a command prints.
fn json(args: &[&str]) -> Value {
    let output = orchestrator(args, &[]);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {value:#}"))
}

/// Bytes of the segments of a log.
fn segment_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let segments = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "seg"));
    segments.map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn logs_are_archived_and_trimmed_by_hand_never_beyond_what_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let (data, archive) = (dir.path().join("data"), dir.path().join("elsewhere"));
    let (data, archive) = (data.to_str().unwrap(), archive.to_str().unwrap());
    demo(data, &[]);
    let whole = json(&["log", "stat", "--from", data]);
    let (last, floor) = (number(&whole, "/receipts/log/last"), number(&whole, "/receipts/floor"));
    assert!(1 < floor && floor <= last, "{whole:#}");
    assert_eq!((number(&whole, "/base/receipts_from"), number(&whole, "/base/runs_from")), (1, 1));

    let archived = json(&["log", "archive", "--from", data, "--to", archive]);
    assert_eq!((number(&archived, "/receipts/first"), number(&archived, "/receipts/copied")), (1, last));
    let again = json(&["log", "archive", "--from", data, "--to", archive]);
    assert_eq!(number(&again, "/receipts/copied"), 0, "what is there is not copied again");

    let beyond = (floor + 1).to_string();
    let refused = orchestrator(&["log", "trim", "--from", data, "--below", &beyond], &[]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let holder = whole.pointer("/receipts/floor_held_by/symbol").and_then(Value::as_str).unwrap();
    assert!(said.contains(&format!("symbol {holder} holds {floor}")), "{said}");
    let dry = json(&["log", "trim", "--from", data, "--older-than", "0s", "--dry-run"]);
    assert_eq!((number(&dry, "/receipts/removed"), number(&dry, "/receipts/removable_below")), (0, floor));
    assert_eq!(json(&["log", "stat", "--from", data]), whole, "neither changed anything");

    let trimmed = json(&["log", "trim", "--from", data, "--below", &floor.to_string()]);
    let start = number(&trimmed, "/receipts/start");
    assert!(number(&trimmed, "/receipts/removed") == start - 1 && start > 1 && start <= floor, "{trimmed:#}");
    let rest = json(&["log", "stat", "--from", data]);
    assert_eq!((number(&rest, "/receipts/log/first"), number(&rest, "/receipts/log/last")), (start, last));
    assert_eq!(number(&rest, "/base/receipts_from"), floor);
    let joined = json(&["log", "stat", "--from", data, "--archive", archive]);
    assert_eq!(number(&joined, "/receipts/log/first"), 1, "with its archive the log is whole");
    assert_eq!(joined.pointer("/receipts/symbols"), whole.pointer("/receipts/symbols"));

    // What is left is verified from the base, and the whole with its archive.
    for args in [
        &["verify", "--from", data][..],
        &["verify", "--from", data, "--archive", archive],
        &["replay", "--from", data, "--out", "-"],
    ] {
        let output = orchestrator(args, &[]);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", said.concat());
    }

    // Checkpoints are gone, but for the base and the cursor: the service goes on all the same.
    for name in ["receipts.ckpt", "runs.ckpt"] {
        std::fs::remove_file(Path::new(data).join("checkpoints").join(name)).unwrap();
    }
    demo(data, &[]);
    let later = json(&["log", "stat", "--from", data]);
    assert!(number(&later, "/receipts/log/last") > last && number(&later, "/receipts/floor") > floor);

    std::fs::remove_file(Path::new(data).join("checkpoints/base.ckpt")).unwrap();
    let lost = orchestrator(&["demo", "--for", "5s", "--data", data], &[]);
    let said = String::from_utf8_lossy(&lost.stderr).into_owned();
    assert_eq!(lost.status.code(), Some(65), "{said}");
    assert!(said.contains("the base") && said.contains("restore"), "{said}");
}

#[test]
fn a_service_with_retention_keeps_little_and_archives_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let retention = [
        ("ORCHESTRATOR__RETENTION__RECEIPTS_AGE_MAX", "1s"),
        ("ORCHESTRATOR__RETENTION__CHECK_EVERY", "1s"),
        ("ORCHESTRATOR__RETENTION__ARCHIVE", "true"),
    ];

    demo(data, &retention);
    demo(data, &retention);

    let stat = json(&["log", "stat", "--from", data]);
    let (last, from) = (number(&stat, "/receipts/log/last"), number(&stat, "/base/receipts_from"));
    assert_eq!(number(&stat, "/receipts/log/first"), 1, "the archive in the data directory is joined");
    assert!(from > 1 && number(&stat, "/receipts/archive/last") >= from - 1, "{stat:#}");
    assert_eq!(number(&stat, "/runs/archive/first"), 1);
    let (live, archived) =
        (segment_bytes(&dir.path().join("receipts")), segment_bytes(&dir.path().join("archive/receipts")));
    assert!(live < archived, "{live} bytes are left, {archived} are archived");
    let completed = number(&stat, "/runs/completed") + number(&stat, "/runs/failed");
    assert_eq!(completed, number(&stat, "/runs/started"));

    // Without the archive it begins where something was let go.
    std::fs::rename(dir.path().join("archive"), dir.path().join("away")).unwrap();
    let rest = json(&["log", "stat", "--from", data]);
    let first = number(&rest, "/receipts/log/first");
    assert!(1 < first && first <= from && number(&rest, "/receipts/log/last") == last, "{rest:#}");
}

/// Symbols that are listed; `None`: all of the made-up market.
fn demo_of(data: &str, listed: Option<&str>) {
    let retention = [
        ("ORCHESTRATOR__RETENTION__RECEIPTS_AGE_MAX", "1s"),
        ("ORCHESTRATOR__RETENTION__CHECK_EVERY", "1s"),
        ("ORCHESTRATOR__RETENTION__ARCHIVE", "true"),
    ];
    let symbols = listed.map(|list| ("ORCHESTRATOR__SYMBOLS__LIST", list));
    demo(data, &retention.into_iter().chain(symbols).collect::<Vec<_>>());
}

/// What a command says, and its code.
fn said(args: &[&str]) -> (Option<i32>, String) {
    let output = orchestrator(args, &[]);
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.code(), said.concat())
}

/// Method: a service that archives what it lets go; one of its symbols is taken out until its receipts are let go, and
/// comes back. The archive still has them, so the logs are read from their first records.
#[test]
fn a_symbol_that_came_back_after_it_was_let_go_is_a_note_and_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    demo_of(data, None);
    demo_of(data, Some(r#"["BTCUSDT","ETHUSDT","SOLUSDT","XRPUSDT"]"#));
    demo_of(data, None);
    assert_eq!(number(&json(&["log", "stat", "--from", data]), "/receipts/log/first"), 1, "with its archive");
    let note = "symbol ADAUSDT was let go by retention and began anew at run record ";

    let (code, text) = said(&["verify", "--from", data]);
    assert_eq!((code, text.matches("began anew").count()), (Some(0), 1), "{text}");
    assert!(text.contains(": equal (") && text.contains(note), "{text}");
    let report = json(&["verify", "--from", data, "--report", "json"]);
    let notes = report["notes"].as_array().unwrap();
    assert!(notes.iter().any(|told| told.as_str().unwrap().starts_with(note)), "{report:#}");
    assert_eq!(said(&["verify", "--from", data, "--recompute-state"]).0, Some(0));
    let (code, text) = said(&["replay", "--from", data, "--out", "-"]);
    assert!(code == Some(0) && text.contains(note), "{text}");
    assert_eq!(said(&["diff", data, "--engine"]).0, Some(0));

    // Nothing else excuses it: without the base the very run is named.
    let (base, away) = (dir.path().join("checkpoints/base.ckpt"), dir.path().join("base.ckpt"));
    std::fs::rename(&base, &away).unwrap();
    let lost = orchestrator(&["verify", "--from", data, "--report", "json"], &[]);
    assert_eq!(lost.status.code(), Some(1));
    let lost: Value = serde_json::from_slice(&lost.stdout).unwrap();
    let differences = lost["first"].as_array().unwrap();
    let start = differences.iter().find(|found| found["field"] == "cut_start_ingest_seq").unwrap();
    assert_eq!(start["symbol"], "ADAUSDT", "{lost:#}");
    assert_eq!(said(&["replay", "--from", data, "--out", "-"]).0, Some(1));
    std::fs::rename(&away, &base).unwrap();

    let record = format!("{note}{}: ", start["run_record"]);
    assert!(said(&["verify", "--from", data]).1.contains(&record), "{record}");
    let run_id = start["run_id"].as_str().unwrap();
    let (code, text) = said(&["inspect", "run", run_id, "--from", data]);
    assert!(code == Some(0) && text.contains(start["recorded"].as_str().unwrap()), "{text}");

    // What is left without the archive goes on from the base.
    std::fs::rename(dir.path().join("archive"), dir.path().join("away")).unwrap();
    let (code, text) = said(&["verify", "--from", data]);
    assert!(code == Some(0) && text.contains("begins at receipt"), "{text}");
}
