//! The trading plane in the service, as it ships.

use std::path::Path;
use std::process::Output;

use crate::support::orchestrator;

fn demo(dir: &Path, more: &[&str]) -> Output {
    let mut args = vec!["demo", "--data", dir.to_str().unwrap(), "--for"];
    args.extend(more);
    orchestrator(&args)
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Method: the demo twice on the same data. The second time the agent runs already, and the journal goes on.
#[test]
fn the_trading_demo_shows_each_cycle_and_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let mut positions = Vec::new();
    for _ in 0..2 {
        let said = text(&demo(dir.path(), &["11s", "--trading"]));

        for line in
            ["  why      fire ", "  gates    asked at ", "  orders   ", "  records  ", "  result   ok in "]
        {
            assert!(said.contains(line), "{line}:\n{said}");
        }
        assert!(said.contains("dry run"), "no order was computed:\n{said}");
        let of_record = |line: &str| line.strip_prefix("  records  ").map(str::to_owned);
        let records = said.lines().filter_map(of_record).next_back().unwrap();
        let position = records.split("position ").nth(1).unwrap().split(' ').next().unwrap();
        positions.push(position.parse::<u64>().unwrap());
    }
    assert!(positions[0] < positions[1], "{positions:?}");
}

/// Those who do not trade have the files that they had.
#[test]
fn a_service_that_does_not_trade_has_no_journal_and_no_history() {
    let dir = tempfile::tempdir().unwrap();

    text(&demo(dir.path(), &["3s"]));

    let names: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names.iter().all(|name| !name.contains("journal") && !name.contains("history.sqlite")),
        "{names:?}"
    );
}
