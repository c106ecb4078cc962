//! One cycle for people, and the whole journal for other tools.

use std::fs;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

use super::world::{entries, recorded_with_journal};
use crate::support::root;
use crate::verify::made_up::{MadeUp, Said};

fn inspect(made: &MadeUp, id: &str, args: &[&str]) -> Said {
    made.orchestrator(&["inspect", "cycle", id], args)
}

/// Digits before ` ms` differ from run to run.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let is_time = |at: usize| {
            words.get(at + 1).is_some_and(|next| next.starts_with("ms"))
                && words[at].trim_start_matches('(').bytes().all(|byte| byte.is_ascii_digit())
        };
        let words = words.iter().enumerate().map(|(at, word)| match is_time(at) {
            true if word.starts_with('(') => "(N",
            true => "N",
            false => word,
        });
        out.push_str(&words.collect::<Vec<_>>().join(" "));
        out.push('\n');
    }
    out
}

fn check_golden(name: &str, content: &str) {
    let path = root().join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, content).unwrap();
    }
    assert_eq!(content, fs::read_to_string(&path).unwrap_or_default(), "{}", path.display());
}

#[tokio::test]
async fn a_cycle_is_told_to_a_person_and_to_a_program_and_one_that_is_not_there_is_not_found() {
    let (made, records) = recorded_with_journal().await;
    let ids: Vec<String> = entries(&records)
        .iter()
        .filter(|entry| entry.fact.kind_word() == "cycle_started")
        .filter_map(|entry| entry.fact.cycle_id())
        .map(|id| id.to_string())
        .collect();

    let told = inspect(&made, &ids[0][..12], &[]);
    assert_eq!(told.code, 0, "{told:?}");
    check_golden("inspect_cycle.txt", &without_times(&told.stdout));

    let json = inspect(&made, &ids[0], &["--json"]);
    let cycle: Value = serde_json::from_str(&json.stdout).unwrap();
    let cycle = &cycle["cycle"];
    assert_eq!((&cycle["cycle_id"], &cycle["status"]), (&ids[0].as_str().into(), &"ok".into()));
    assert_eq!(cycle["command"]["name"], "cycle/run");
    let lengths = ["decisions", "verdicts", "orders"].map(|list| cycle[list].as_array().unwrap().len());
    assert_eq!(lengths, [2, 2, 2]);
    let kinds: Vec<&str> =
        cycle["records"].as_array().unwrap().iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], *kinds.last().unwrap()), ("cycle_started", "cycle_ended"));

    for (id, said) in [("ffffffff-ffff", "no cycle of this journal begins with ffffffff-ffff")] {
        let refused = inspect(&made, id, &[]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains(said), "{refused:?}");
    }
    assert_eq!(inspect(&made, "no id", &[]).code, 2);
    fs::remove_dir_all(made.data.join("journal")).unwrap();
    assert_eq!(inspect(&made, &ids[0], &[]).code, 65, "it must be there, by its mark");
    let without = MadeUp::with_demo_engine();
    let refused = inspect(&without, &ids[0], &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("there is no journal"), "{refused:?}");
}

fn export(made: &MadeUp, to: &Path, args: &[&str]) -> Value {
    let said = made.orchestrator(&["export"], &[&["--to", to.to_str().unwrap()], args].concat());
    assert_eq!(said.code, 0, "{said:?}");
    serde_json::from_str(&said.stdout).unwrap()
}

#[tokio::test]
async fn the_journal_is_exported_line_by_line_and_row_by_row() {
    let (made, records) = recorded_with_journal().await;
    let count = records.len();
    let (lines, tables) = (made.data.with_file_name("lines"), made.data.with_file_name("tables"));

    let said = export(&made, &lines, &[]);
    assert_eq!(said["journal_records"], count);
    let text = fs::read_to_string(lines.join("journal.jsonl")).unwrap();
    let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), count);
    for (value, (entry, seq)) in values.iter().zip(entries(&records).iter().zip(1..)) {
        assert_eq!((&value["seq"], &value["kind"]), (&seq.into(), &entry.fact.kind_word().into()));
    }
    assert_eq!(values[count - 1]["hash"], super::world::head_of(&records));

    let said = export(&made, &tables, &["--format", "parquet"]);
    assert_eq!(said["journal_records"], count);
    let file = fs::File::open(tables.join("journal.parquet")).unwrap();
    let rows: Vec<_> =
        SerializedFileReader::new(file).unwrap().get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), count);
    for (row, (entry, seq)) in rows.iter().zip(entries(&records).iter().zip(1..)) {
        assert_eq!((row.get_long(0).unwrap(), row.get_long(1).unwrap()), (seq, entry.at_ms.0));
        assert_eq!(row.get_string(3).unwrap(), entry.fact.kind_word());
        let fact: Value = serde_json::from_str(row.get_string(8).unwrap()).unwrap();
        assert_eq!(fact, entry.fact.to_body());
    }

    // A part of the receipts says nothing about cycles.
    let part = export(&made, &made.data.with_file_name("part"), &["--symbols", "AAA"]);
    assert_eq!(part.get("journal_records"), None);
}
