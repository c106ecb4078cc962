//! The trading plane in the service, as it ships.

use std::path::Path;
use std::process::Output;

use crate::support::trading::{TradingPlace, TradingService};
use crate::support::{PATIENCE, orchestrator};

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

/// Reads a stream of events until it has so many; their ids and names.
async fn follow(
    service: &TradingService,
    query: &str,
    last: Option<&str>,
    count: usize,
) -> Vec<(String, String)> {
    let url = format!("{}/api/v1/trading/events{query}", service.service.url);
    let mut request = reqwest::Client::new().get(url);
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let mut response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut text, mut told) = (String::new(), Vec::new());
    while told.len() < count {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.expect("silence").unwrap();
        text.push_str(std::str::from_utf8(&chunk.expect("the stream ended")).unwrap());
        while let Some((frame, rest)) = text.clone().split_once("\n\n") {
            text = rest.to_owned();
            let field =
                |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(id), Some(event), Some(_)) = (field("id: "), field("event: "), field("data: ")) {
                told.push((id, event));
            }
        }
    }
    told.truncate(count);
    told
}

/// Method: a subscriber is cut off by kill -9 in the middle of cycles, and comes again with its last id.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_of_trading_events_misses_nothing_over_a_kill() {
    let place = TradingPlace::new(
        "[trading.schedules.beat]\npipeline = \"heartbeat\"\ntrigger = \"interval\"\ninterval = \"1s\"\n\
         hours = \"any\"\noverlap = \"skip\"\nmisfire = \"skip\"\nlateness_max = \"1m\"\n",
    );
    let service = place.start_trading().await;
    let mut told = follow(&service, "?from=earliest", None, 4).await;
    service.kill();

    let service = place.start().await;
    let last = told.last().unwrap().0.clone();
    told.extend(follow(&service, "", Some(&last), 5).await);

    let whole = follow(&service, "?from=earliest", None, told.len()).await;
    assert_eq!(told, whole, "without a gap, nothing twice");
    let named = |name: &str| told.iter().filter(|(_, event)| event == name).count();
    assert!(2 <= named("orchestrator.cycle.started"), "{told:?}");
    service.stop().await;
}
