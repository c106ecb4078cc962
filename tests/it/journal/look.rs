//! One cycle for people, and the whole journal for other tools.

use std::fs;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

use super::world::{entries, recorded_with_journal};
use crate::verify::made_up::{MadeUp, Said};

fn inspect(made: &MadeUp, id: &str, args: &[&str]) -> Said {
    made.orchestrator(&["inspect", "cycle", id], args)
}

/// These parts stand in the text, in this order.
fn check_parts(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else {
            panic!("{part:?} is missing, or too early:\n{text}")
        };
        rest = behind;
    }
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
    let title = format!("cycle {}\n", ids[0]);
    check_parts(
        &told.stdout,
        &[
            &title,
            "  type               canonical, paper, dry run\n",
            "  strategies         a, b\n",
            "\nwhy it fired\n",
            "  command            cycle/run from test: {",
            "\nwhat happened\n",
            " gates before ING: allowed (",
            " stage ING: done (",
            " stage SIG: done, 2 decisions (",
            " stage RISK: done, 2 verdicts (",
            " gates before the order of d-a: allowed (",
            " stage EXEC: done (",
            " stage GOV: done (",
            "\nwhat was decided\n",
            "  d-a: BUY 10 AAPL for a, confidence 0.7, \"up\"; RISK allows 10 at 150\n",
            "  d-b: BUY 10 AAPL for b, ",
            "\norders\n",
            "  d-a: buy 10 AAPL at 150 for a: dry_run\n",
            "\nresult\n",
            "  status             ok\n",
            "  reason             done\n",
            "  counts             2 strategies, 2 decisions, 2 orders\n",
        ],
    );

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

    let refused = inspect(&made, "ffffffff-ffff", &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains("no cycle of this journal begins with ffffffff-ffff"), "{refused:?}");
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
