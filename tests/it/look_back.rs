//! Recorded data is looked at and compared: inspect and diff by the real binary.

use std::collections::BTreeSet;
use std::fs;

use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::ports::engine::EngineAnswer;
use serde_json::{Value, json};

use crate::made_up::{INTERVAL_MS, START_MS, ingest, made_up_day, run, run_json, text_of, with_day};
use crate::support::{checked_receipts, forget_high_water, outputs, run_records};

#[tokio::test]
async fn a_run_is_looked_at_by_the_first_digits_of_its_id() {
    let (_dir, day) = with_day(&["engine.mode=hysteresis"]);
    let ended: Vec<_> = run_records(&day)
        .await
        .into_iter()
        .filter(|record| record.is_terminal() && record.facts.symbol.as_str() == "BTCUSDT")
        .collect();
    let facts = &ended[2].facts;
    let id = facts.run_id.to_string();

    let seen = run_json(&["inspect", "run", &id[..16], "--from", text_of(&day), "--json"], 0);

    let seen = &seen["run"];
    assert_eq!(seen["run"]["run_id"], id);
    assert_eq!(seen["known"]["by_event_type"], json!({"SnapshotInputs": 1, "TradeTick": 10}));
    assert_eq!(seen["known"]["by_event_type"], seen["known"]["recorded_by_event_type"]);
    assert_eq!(seen["known"]["snapshot"]["inputs"]["timestamp_ms"], facts.engine_timestamp_ms.0);
    assert_eq!(seen["known"]["last"]["ingest_seq"], facts.snapshot_seq.unwrap().0);
    assert_eq!(seen["decided"]["engine"]["name"], "demo");
    let state = |record: &RunRecord| match &record.status {
        RunStatus::Completed { answer: EngineAnswer::Hysteresis { state, .. }, .. } => {
            serde_json::from_str::<Value>(state).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(seen["decided"]["state_before"], state(&ended[1]));
    assert_eq!(seen["decided"]["state_after"], state(&ended[2]));
    let published: Vec<String> = outputs(&day).into_iter().filter(|line| line.contains(&id)).collect();
    let shown: Vec<String> = seen["outputs"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(shown, published);
    assert_eq!(seen["previous"]["run_id"], ended[1].facts.run_id.to_string());
    assert_eq!(seen["next"]["run_id"], ended[3].facts.run_id.to_string());
    assert_eq!(seen["next"]["status"], "completed");
    let page = run(&["inspect", "run", &id, "--from", text_of(&day)], 0).0;
    for part in [
        "what was known",
        "TradeTick 10",
        "what was decided",
        "candidate_count",
        "EngineRunCompleted",
        "next run",
    ] {
        assert!(page.contains(part), "{part} is missing in:\n{page}");
    }
    assert!(
        run(&["inspect", "run", "0123456789", "--from", text_of(&day)], 1).1.contains("no run of this log")
    );
    run(&["inspect", "run", "xyz", "--from", text_of(&day)], 2);
}

/// Method: among so many runs two share their first digit, and the message names them.
#[tokio::test]
async fn a_beginning_of_several_ids_is_refused_with_examples() {
    let (_dir, day) = with_day(&[]);
    let ids: BTreeSet<String> =
        run_records(&day).await.iter().map(|run| run.facts.run_id.to_string()).collect();
    let shared = ids.iter().zip(ids.iter().skip(1)).find(|(a, b)| a[..1] == b[..1]).unwrap();

    let (_, said) = run(&["inspect", "run", &shared.0[..1], "--from", text_of(&day)], 1);

    assert!(said.contains(shared.0) && said.contains(shared.1), "{said}");
}

#[tokio::test]
async fn a_receipt_is_looked_at_with_the_run_that_took_it() {
    let (_dir, day) = with_day(&[]);
    let receipts = checked_receipts(&day).await;
    let ended: Vec<_> = run_records(&day).await.into_iter().filter(|record| record.is_terminal()).collect();
    // The first and last receipt of each cut, and some between.
    let ends = ended.iter().flat_map(|run| [run.facts.cut.start.0, run.facts.cut.end.0]);
    let seqs: BTreeSet<u64> = (1..=receipts.len() as u64).step_by(31).chain(ends).collect();
    for seq in seqs {
        let event: Value = serde_json::from_slice(&receipts[usize::try_from(seq - 1).unwrap()]).unwrap();
        let seen = run_json(&["inspect", "seq", &seq.to_string(), "--from", text_of(&day), "--json"], 0);
        let taken = ended.iter().find(|run| {
            run.facts.symbol.as_str() == event["symbol"].as_str().unwrap()
                && (run.facts.cut.start.0..=run.facts.cut.end.0).contains(&seq)
        });
        assert_eq!(seen["receipt"]["event"], event);
        assert_eq!(
            seen["receipt"]["taken_by"]["run_id"],
            json!(taken.map(|run| run.facts.run_id.to_string())),
            "receipt {seq}"
        );
    }
    let last = receipts.len().to_string();
    let page = run(&["inspect", "seq", &last, "--from", text_of(&day)], 0).0;
    assert!(page.contains("no run has taken it yet"), "{page}");
    for nowhere in ["0", "999999"] {
        assert!(
            run(&["inspect", "seq", nowhere, "--from", text_of(&day)], 1).1.contains("there is no receipt")
        );
    }
}

/// Method: between two boundaries, and before the first one.
#[tokio::test]
async fn a_symbol_is_looked_at_as_it_was_at_a_time() {
    let (_dir, day) = with_day(&[]);
    let at = |ms: i64| {
        let at = (START_MS + ms).to_string();
        run_json(&["inspect", "symbol", "ETHUSDT", "--at", &at, "--from", text_of(&day), "--json"], 0)["symbol"].clone()
    };

    // 1505 ms after the first boundary: its run has ended, six trades before the second one are in.
    let seen = at(1_505);
    assert_eq!(seen["last_run"]["run"]["engine_timestamp_ms"], START_MS);
    assert_eq!(seen["last_run"]["next"]["engine_timestamp_ms"], START_MS + INTERVAL_MS);
    assert_eq!(seen["waiting"]["by_event_type"], json!({"TradeTick": 6}));
    assert_eq!(seen["under_way"], Value::Null);
    let before = at(-495);
    assert_eq!((&before["last_run"], &before["waiting"]["receipts"]), (&Value::Null, &json!(6)));
    let failed = at(3 * INTERVAL_MS + 900);
    assert_eq!(failed["last_run"]["decided"]["error_kind"], "missing_snapshot_inputs");
    let args = ["inspect", "symbol", "ethusdt", "--at", "2026-01-09T23:51:02Z", "--from", text_of(&day)];
    assert!(run(&args, 1).1.contains("is it written as the receipts write it?"));
}

/// Method: a day against itself, against one with another snapshot, against one without its last part, against nothing.
#[tokio::test]
async fn two_days_are_compared_run_by_run() {
    let (dir, day) = with_day(&[]);
    let variant = |name: &str, lines: &[String]| {
        let capture = dir.path().join(format!("{name}.jsonl"));
        fs::write(&capture, lines.join("\n")).unwrap();
        let data = dir.path().join(name);
        ingest(&capture, &data, &[]);
        data
    };
    let again = variant("again", &made_up_day());
    let moved: Vec<String> = made_up_day()
        .into_iter()
        .map(|line| {
            match line.contains("SnapshotInputs") && line.contains(&(START_MS + INTERVAL_MS).to_string()) {
                true => line.replace("\"vwap\":59998.0", "\"vwap\":60000.0"),
                false => line,
            }
        })
        .collect();
    assert_ne!(moved, made_up_day());
    let moved = variant("moved", &moved);
    let shorter = variant("shorter", &made_up_day()[..60]);

    let equal = run_json(&["diff", text_of(&day), text_of(&again), "--json"], 0);
    assert_eq!((&equal["verdict"], &equal["equal"]), (&json!("equal"), &json!(12)));

    let different = run_json(&["diff", text_of(&day), text_of(&moved), "--json"], 1);
    assert_eq!((&different["equal"], &different["different"]), (&json!(11), &json!(1)));
    let place = &different["regime_changes"][0]["first"];
    assert_eq!(
        (&place["symbol"], &place["engine_timestamp_ms"]),
        (&json!("BTCUSDT"), &json!(START_MS + INTERVAL_MS))
    );
    let page = run(&["diff", text_of(&day), text_of(&moved)], 1).0;
    assert!(page.contains("regime changes") && page.contains("engine demo"), "{page}");

    let missing = run_json(&["diff", text_of(&day), text_of(&shorter), "--json"], 1);
    assert!(0 < missing["only_in_a"]["count"].as_u64().unwrap(), "{missing}");
    assert_eq!(missing["different"], 0);
    // A part that both have.
    let range = ["--range", "..2026-01-09T23:51:00Z"];
    let part = run_json(&[&["diff", text_of(&day), text_of(&moved), "--json"], &range[..]].concat(), 0);
    assert_eq!(part["equal"], 2);
    run(&["diff", text_of(&day), text_of(&dir.path().join("nowhere"))], 2);
    run(&["diff", text_of(&day), text_of(&moved), "--symbols", "NONE"], 2);
}

/// Method: the engine that recorded the day, another one, one that fails, and a log that lacks a receipt.
#[tokio::test]
async fn an_engine_is_compared_with_what_was_recorded() {
    let (dir, day) = with_day(&["engine.mode=hysteresis"]);
    let against = |settings: &[&str], code: i32| {
        let mut args = vec!["diff", text_of(&day), "--engine", "--json"];
        args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        run_json(&args, code)
    };

    let same = against(&[], 0);
    assert_eq!((&same["verdict"], &same["equal"]), (&json!("equal"), &json!(12)));

    let standin =
        ["engine.kind=process", "engine.process.command=[\"python3\", \"engines/standin_engine.py\"]"];
    let other = against(&[&standin[..], &["engine.hysteresis.update_interval_ms=2000"]].concat(), 1);
    assert_eq!(
        (&other["equal"], &other["different"]),
        (&json!(1), &json!(11)),
        "the failed run is as recorded"
    );
    assert_eq!(other["a"]["engines"][0]["name"], "demo");
    assert_ne!(other["b"]["engines"][0]["name"], "demo");
    let drift: Vec<_> =
        other["drift"].as_array().unwrap().iter().map(|drift| drift["path"].as_str().unwrap()).collect();
    assert!(drift.contains(&"decision.selected_output.confidence"), "{drift:?}");

    let failing = dir.path().join("failing.py");
    let script = "from orchestrator_engine import serve\ndef run(snapshot): raise ValueError('odd')\n\
                  serve(name='failing', version='1', run=run)\n";
    fs::write(&failing, script).unwrap();
    let truth = dir.path().join("truth");
    ingest(&dir.path().join("capture.jsonl"), &truth, &[]);
    let command = format!("engine.process.command=[\"python3\", \"{}\"]", failing.display());
    let args =
        ["diff", text_of(&truth), "--engine", "--json", "--set", "engine.kind=process", "--set", &command];
    let failed = run_json(&[&args[..], &["--set", "engine.process.env.PYTHONPATH=engines"]].concat(), 1);
    assert_eq!(failed["different"], 11);
    assert_eq!(failed["regime_changes"][0]["to"], "(engine_failure)", "{failed}");

    let fewer: Vec<String> = made_up_day().into_iter().skip(1).collect();
    fs::write(dir.path().join("fewer.jsonl"), fewer.join("\n")).unwrap();
    let fewer = dir.path().join("fewer");
    ingest(&dir.path().join("fewer.jsonl"), &fewer, &[]);
    fs::remove_dir_all(day.join("receipts")).unwrap();
    fs::rename(fewer.join("receipts"), day.join("receipts")).unwrap();
    forget_high_water(&day);
    let doubtful = against(&[], 2);
    assert_eq!(doubtful["verdict"], "cannot_tell");
    assert!(doubtful["doubts"][0].as_str().unwrap().contains(", but must be "), "{doubtful}");
    // A second side is needed, and only one.
    run(&["diff", text_of(&day)], 2);
    run(&["diff", text_of(&day), text_of(&truth), "--engine"], 2);
}
