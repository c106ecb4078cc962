//! Archiving and trimming the journal by hand.

use std::fs;

use serde_json::Value;

use super::world::{entries, plane_records, recorded_with_journal, replace_journal, segments};
use crate::support::orchestrator_with;
use crate::verify::made_up::MadeUp;

fn json(made: &MadeUp, command: &[&str], args: &[&str]) -> Value {
    let said = made.orchestrator(command, args);
    assert_eq!(said.code, 0, "{command:?}: {said:?}");
    serde_json::from_str(&said.stdout).unwrap()
}

fn data_of(made: &MadeUp) -> &str {
    made.data.to_str().unwrap()
}

#[tokio::test]
async fn a_journal_is_told_archived_trimmed_and_still_verified() {
    let (made, records) = recorded_with_journal().await;
    let last = records.len() as u64;
    let archive = made.data.with_file_name("elsewhere");
    let archive = archive.to_str().unwrap();
    let stat = json(&made, &["log", "stat"], &[]);
    assert_eq!(stat["journal"]["log"]["first"], 1);
    assert_eq!(stat["journal"]["log"]["last"], last);
    assert_eq!(stat["journal"]["records"]["cycle_ended"], super::world::CYCLES);
    let floor = stat["journal"]["floor"].as_u64().unwrap();
    assert!(1 < floor && floor < last, "the last cycle stays whole: {stat:#}");
    assert_eq!(stat["journal"]["floor_held_by"]["record"], floor);

    let copied = json(&made, &["log", "archive"], &["--to", archive]);
    assert_eq!((&copied["journal"]["first"], &copied["journal"]["copied"]), (&1.into(), &last.into()));
    let again = json(&made, &["log", "archive"], &["--to", archive]);
    assert_eq!(again["journal"]["copied"], 0, "what is there is not copied again");

    let (at_floor, beyond) = (floor.to_string(), (floor + 1).to_string());
    let refused = made.orchestrator(&["log", "trim"], &["--journal-below", &beyond]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains(&format!("journal records from {floor} on are still needed")),
        "{refused:?}"
    );
    let dry = json(&made, &["log", "trim"], &["--journal-below", &at_floor, "--dry-run"]);
    assert_eq!((&dry["journal"]["removed"], &dry["journal"]["removable_below"]), (&0.into(), &floor.into()));
    assert_eq!(json(&made, &["log", "stat"], &[]), stat, "neither changed anything");

    let files = segments(&made.data).len();
    let trimmed = json(&made, &["log", "trim"], &["--journal-below", &at_floor]);
    let start = trimmed["journal"]["start"].as_u64().unwrap();
    assert!(1 < start && start <= floor, "{trimmed:#}");
    assert!(segments(&made.data).len() < files);
    let said = made.verify(&[]);
    assert_eq!(said.code, 0, "{said:?}");
    let note = format!("the journal begins at record {start}: what was before was trimmed");
    assert!(said.stdout.contains(&note), "{said:?}");
    assert!(said.stdout.contains(&super::world::head_of(&records)), "the chain ends as it did: {said:?}");

    // With the archive it is whole again, and every rule is checked from record 1 on.
    let whole = made.orchestrator(&["verify"], &["--from", data_of(&made), "--archive", archive]);
    assert_eq!(whole.code, 0, "{whole:?}");
    assert!(whole.stdout.contains(&format!("journal: records 1 to {last} keep its rules")), "{whole:?}");

    fs::remove_file(made.data.join("checkpoints/journal_base.ckpt")).unwrap();
    let lost = made.verify(&[]);
    assert_eq!(lost.code, 2, "{lost:?}");
    assert!(lost.stdout.contains("nothing says what stood before"), "{lost:?}");
    let refused = made.orchestrator(&["log", "trim"], &["--journal-below", &at_floor]);
    assert_eq!(refused.code, 65, "{refused:?}");
}

/// Method: one byte of what is left of a trimmed journal is flipped with its checksum made right again.
#[tokio::test]
async fn a_trimmed_journal_whose_rest_is_forged_is_different() {
    let (made, records) = recorded_with_journal().await;
    json(&made, &["log", "trim"], &["--older-than", "0s"]);
    let honest = made.verify(&[]);
    assert_eq!(honest.code, 0, "{honest:?}");

    // The base of the trimmed journal, and a journal that was never trimmed but differs in one record.
    let mut forged = records.clone();
    forged[2][20] ^= 1;
    replace_journal(&made.data, &forged).await;

    let said = made.verify(&[]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stdout.contains("log journal record 3: breaks chain"), "{said:?}");
}

/// Method: the journal ends in the middle of its last cycle, as a crash leaves it.
#[tokio::test]
async fn what_an_open_cycle_or_the_history_needs_stays() {
    let made = MadeUp::with_demo_engine();
    let records = plane_records().await;
    let all = entries(&records);
    let begin = all.iter().rposition(|entry| entry.fact.kind_word() == "cycle_started").unwrap();
    let received =
        all[..begin].iter().rposition(|entry| entry.fact.kind_word() == "command_received").unwrap();
    super::world::write_journal(&made.data, &records[..begin + 4]).await;

    let trimmed = json(&made, &["log", "trim"], &["--older-than", "0s"]);
    let holder = &trimmed["journal"]["held_by"];
    assert_eq!(trimmed["journal"]["removable_below"], received as u64 + 1, "{trimmed:#}");
    assert!(holder.get("command").or(holder.get("cycle")).is_some(), "{trimmed:#}");
    let said = made.verify(&[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("has not ended"), "{said:?}");

    // A history that has taken nothing in yet needs all of it.
    super::world::replace_journal(&made.data, &records).await;
    fs::remove_file(made.data.join("checkpoints/journal_base.ckpt")).unwrap();
    let file = made.data.join("history.sqlite");
    fs::write(&file, b"").unwrap();
    let kept = json(&made, &["log", "trim"], &["--older-than", "0s"]);
    assert_eq!(kept["journal"]["removed"], 0, "{kept:#}");
    assert_eq!(kept["journal"]["held_by"]["record"], 1, "{kept:#}");
    let rebuilt = made.orchestrator(&["history", "rebuild"], &[]);
    assert_eq!(rebuilt.code, 0, "{rebuilt:?}");
    let gone = json(&made, &["log", "trim"], &["--older-than", "0s"]);
    assert!(0 < gone["journal"]["removed"].as_u64().unwrap(), "{gone:#}");
}

#[tokio::test]
async fn commands_on_logs_without_a_journal_say_nothing_of_one() {
    let made = MadeUp::with_demo_engine();
    for (command, args) in [
        (&["log", "stat"][..], &[][..]),
        (&["log", "trim"], &["--older-than", "0s", "--dry-run"]),
        (&["log", "archive"], &["--to", made.data.with_file_name("archived").to_str().unwrap()]),
        (&["export"], &["--to", made.data.with_file_name("exported").to_str().unwrap()]),
    ] {
        let said = made.orchestrator(command, args);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!said.stdout.contains("journal"), "{command:?}: {}", said.stdout);
    }
    assert!(!made.data.join("journal").exists() && !made.data.join("checkpoints/journal_base.ckpt").exists());
    let history = made.orchestrator(&["history", "rebuild"], &[]);
    assert_eq!(history.code, 69, "an empty history would be a made-up answer: {history:?}");
    assert!(history.stderr.contains("there is no journal"), "{history:?}");
}

/// Method: the demo with a trading plane twice on the same data, its journal trimmed by hand between.
#[test]
fn a_service_goes_on_from_a_journal_that_was_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let run = |args: &[&str]| {
        let small = [
            ("ORCHESTRATOR__BUFFER__SEGMENT_BYTES", "1MiB"),
            ("ORCHESTRATOR__BUFFER__BATCH_BYTES_MAX", "512KiB"),
            ("ORCHESTRATOR__TRADING__JOURNAL__BATCH_BYTES_MAX", "512KiB"),
        ];
        let output = orchestrator_with(args, &small);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        assert!(output.status.success(), "{args:?}: {}", said.concat());
        said[0].clone()
    };
    let demo = ["demo", "--trading", "--for", "8s", "--data", data];
    let last = || -> u64 {
        let stat: Value = serde_json::from_str(&run(&["log", "stat", "--from", data])).unwrap();
        stat["journal"]["log"]["last"].as_u64().unwrap()
    };

    run(&demo);
    let before = last();
    assert!(run(&["verify", "--from", data]).contains("journal: records 1 to "));
    let trimmed: Value =
        serde_json::from_str(&run(&["log", "trim", "--from", data, "--older-than", "0s"])).unwrap();
    assert!(1 < trimmed["journal"]["removable_below"].as_u64().unwrap(), "{trimmed:#}");
    run(&demo);

    assert!(before < last());
    assert!(run(&["verify", "--from", data]).contains(&format!(" to {} keep its rules", last())));
}
