//! The trading plane's journal as an operator meets it offline: audited, looked at, exported, archived and trimmed.

mod keep;
mod look;
pub(crate) mod world;

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use orchestrator::adapters::files::FileCheckpoints;
use orchestrator::adapters::files::fs::RealFs;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::random::Rng;
use orchestrator_kernel::trading::journal::JournalFact;
use orchestrator_runtime::checkpoint::encode_checkpoint;
use orchestrator_trading_plane::saved::JournalFold;
use serde_json::Value;

use self::world::{
    entries, first_of, head_of, plane_records, recorded_with_journal, replace_journal, sealed, segments,
    without, write_journal,
};
use crate::support::seed;
use crate::verify::made_up::{MadeUp, Said, content_end};

/// Bytes that are flipped.
const FLIPS: usize = 24;

fn check_said(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    for word in words {
        assert!(said.stdout.contains(word), "{word:?} is missing in:\n{}{}", said.stdout, said.stderr);
    }
}

fn report(made: &MadeUp) -> Value {
    let said = made.verify(&["--report", "json"]);
    serde_json::from_str(&said.stdout).unwrap()
}

/// Method: the same logs are verified before and after there is a journal beside them.
#[tokio::test]
async fn a_journal_adds_its_line_to_the_report_and_its_absence_adds_nothing() {
    let made = MadeUp::with_demo_engine();
    let alone = made.verify(&[]);
    let junit_alone = made.verify(&["--report", "junit"]);
    check_said(&alone, 0, &["equal ("]);
    assert!(!alone.stdout.contains("journal") && !junit_alone.stdout.contains("journal:"));
    assert_eq!(report(&made).get("journal"), None);
    let marks = made.data.join("high_water.marks");
    assert_eq!(fs::metadata(&marks).unwrap().len(), 7 * 3 * 4096, "no room is taken for a plane that is off");

    let records = plane_records().await;
    write_journal(&made.data, &records).await;

    let line = format!(
        "  journal: records 1 to {} keep its rules, the chain ends with {}\n",
        records.len(),
        head_of(&records)
    );
    let said = made.verify(&[]);
    assert_eq!((said.code, said.stdout), (0, alone.stdout + &line));
    assert_eq!(report(&made)["journal"]["last"], records.len());
    assert!(made.verify(&["--report", "junit"]).stdout.contains("journal:"));
}

/// Method: flip one bit of one stored byte, in every segment of the journal, and put it back.
#[tokio::test]
async fn a_flip_of_any_stored_byte_of_the_journal_is_different_and_its_place_is_named() {
    let seed = seed();
    println!("SEED={seed}");
    let mut dice = Rng::new(seed);
    let (made, _) = recorded_with_journal().await;
    let files = segments(&made.data);
    assert!(files.len() > 2, "more than one segment: {files:?}");

    for flip in 0..FLIPS {
        let path = &files[flip % files.len()];
        let honest = fs::read(path).unwrap();
        let at = dice.next_index(content_end(&honest));
        let mut flipped = honest.clone();
        flipped[at] ^= 1 << dice.next_index(8);
        fs::write(path, &flipped).unwrap();

        let said = made.verify(&[]);

        fs::write(path, &honest).unwrap();
        assert_eq!(said.code, 1, "SEED={seed} {} byte {at}: {said:?}", path.display());
        assert!(said.stdout.contains("log journal"), "SEED={seed} byte {at}:\n{}", said.stdout);
    }
    check_said(&made.verify(&[]), 0, &["journal: records"]);
}

#[tokio::test]
async fn a_journal_that_lost_its_end_its_middle_its_beginning_or_all_of_it_is_found_out() {
    let (made, _) = recorded_with_journal().await;
    let files = segments(&made.data);
    let contents: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    let put_back = || files.iter().zip(&contents).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());

    let last = files.last().unwrap();
    let end = content_end(contents.last().unwrap());
    fs::write(last, &contents.last().unwrap()[..end - 40]).unwrap();
    check_said(&made.verify(&[]), 1, &["log journal", "was durable"]);
    put_back();
    for gone in [files.len() - 1, 1, 0] {
        fs::remove_file(&files[gone]).unwrap();
        check_said(&made.verify(&[]), 1, &["log journal"]);
        put_back();
    }
    fs::remove_dir_all(made.data.join("journal")).unwrap();
    check_said(&made.verify(&[]), 1, &["log journal", "all segments are gone"]);
}

/// Method: whoever can write the files makes a journal with right checksums and a right chain, or almost.
#[tokio::test]
async fn a_forged_journal_is_different_and_record_and_rule_are_named() {
    let (made, records) = recorded_with_journal().await;
    let honest = entries(&records);
    let risk = honest.iter().position(
        |entry| matches!(&entry.fact, JournalFact::StageEnded(ended) if ended.name.as_str() == "RISK"),
    );
    let risk = risk.unwrap();
    let (started, intent) = (first_of(&honest, "cycle_started"), first_of(&honest, "order_intended"));
    let end = first_of(&honest, "cycle_ended");

    let mut altered = records.clone();
    let middle = altered[intent].len() / 2;
    altered[intent][middle] ^= 1;
    let mut twice = honest.clone();
    twice.insert(end + 1, honest[end].clone());
    let no_verdict = {
        let mut changed = honest.clone();
        if let JournalFact::StageEnded(ended) = &mut changed[risk].fact
            && let orchestrator_kernel::trading::journal::StageOutcome::Done(output) = &mut ended.outcome
        {
            output.verdicts.clear();
        }
        sealed(&changed)
    };
    // The gates right before an intent are its permit.
    let no_permit = without(&honest, |at, _| at == intent - 1);
    let cases = [
        ("chain", intent + 1, altered),
        ("cycle_ends_twice", end + 2, sealed(&twice)),
        ("intent_without_risk", intent + 1, no_verdict),
        ("intent_without_permit", intent, no_permit),
        ("cycle_unknown", started + 1, without(&honest, |at, _| at == started)),
        ("command_order", 0, without(&honest, |_, fact| matches!(fact, JournalFact::CommandReceived(_)))),
    ];
    for (rule, record, forged) in cases {
        replace_journal(&made.data, &forged).await;

        let said = made.verify(&[]);

        check_said(
            &said,
            1,
            &["first difference (journal): log journal record ", &format!("breaks {rule}: ")],
        );
        if 0 < record {
            check_said(&said, 1, &[&format!("log journal record {record}: breaks {rule}")]);
        }
    }
}

async fn save_fold(made: &MadeUp, name: &str, fold: &JournalFold) {
    let store = FileCheckpoints::open(&made.data.join("checkpoints"), Arc::new(RealFs)).unwrap();
    store.save(name, Epoch(1), encode_checkpoint(&fold.to_saved())).await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_that_says_otherwise_knows_more_or_is_damaged_is_a_difference() {
    let (made, records) = recorded_with_journal().await;
    let mut fold = JournalFold::default();
    for (record, seq) in records.iter().zip(1..).take(10) {
        fold.take_record(Seq(seq), record).unwrap();
    }
    save_fold(&made, "journal", &fold).await;
    check_said(&made.verify(&[]), 0, &["equal ("]);

    // Another journal's state at the same place.
    let mut other = JournalFold::default();
    let forged = without(&entries(&records), |at, _| at == 0);
    for (record, seq) in forged.iter().zip(1..).take(10) {
        if other.take_record(Seq(seq), record).is_err() {
            break;
        }
    }
    if other.tail() == fold.tail() {
        save_fold(&made, "journal", &other).await;
        check_said(&made.verify(&[]), 1, &["checkpoint journal", "state was recorded as another one"]);
    }
    for (record, seq) in records.iter().zip(1..).skip(10) {
        fold.take_record(Seq(seq), record).unwrap();
    }
    save_fold(&made, "journal", &fold).await;
    replace_journal(&made.data, &records[..records.len() - 3]).await;
    check_said(&made.verify(&[]), 1, &["checkpoint journal", "LOG_REGRESSED"]);

    replace_journal(&made.data, &records).await;
    let store = FileCheckpoints::open(&made.data.join("checkpoints"), Arc::new(RealFs)).unwrap();
    store.save("journal", Epoch(1), Bytes::from_static(b"\x09nonsense")).await.unwrap();
    check_said(&made.verify(&[]), 1, &["the checkpoint of the journal"]);
}

/// Method: the journal is damaged so that it cannot even be opened.
#[tokio::test]
async fn what_has_to_do_with_runs_alone_does_not_stumble_over_a_journal() {
    let (made, _) = recorded_with_journal().await;
    let data = made.data.to_str().unwrap().to_owned();
    let replay = |made: &MadeUp| made.orchestrator(&["replay"], &["--out", "-"]);
    let whole = replay(&made);
    assert_eq!(whole.code, 0, "{whole:?}");
    let same = made.orchestrator(&["diff", &data, &data], &[]);
    assert_eq!(same.code, 0, "{same:?}");

    fs::write(made.data.join("journal/meta"), b"damaged").unwrap();

    let again = replay(&made);
    assert_eq!((again.code, again.stdout == whole.stdout), (0, true), "{}", again.stderr);
    assert_eq!(made.orchestrator(&["diff", &data, &data], &[]).code, 0);
    assert_eq!(made.orchestrator(&["inspect", "seq", "1"], &[]).code, 0);
    check_said(&made.verify(&[]), 1, &["log journal"]);
    for asks in [&["inspect", "cycle", "a"][..], &["log", "stat"], &["export", "--to", "nowhere"]] {
        let refused = made.orchestrator(asks, &[]);
        assert_eq!(refused.code, 65, "{asks:?}: {refused:?}");
        assert!(refused.stderr.contains("journal"), "{asks:?}: {refused:?}");
    }
}
