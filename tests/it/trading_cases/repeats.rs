//! T11: outputs of the engine that come again behind a crash, and late.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use orchestrator_kernel::engine::contracts::engine_run::RunStatus;
use tokio_util::task::AbortOnDropHandle;

use super::momentum;
use crate::support::trading::TradingPlace;
use crate::support::{eventually, run_records};

/// Posts a snapshot of each second to whoever listens at `url` now.
fn feed(url: &Arc<Mutex<String>>) -> AbortOnDropHandle<()> {
    let url = Arc::clone(url);
    let task = tokio::spawn(async move {
        let (client, mut last) = (reqwest::Client::new(), 0);
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
            let second = now / 1000;
            if second != last {
                last = second;
                let receipt = format!(
                    r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"SnapshotInputs","source_id":"t","symbol":"AAPL","exchange_ts_ms":null,"recv_ts_ms":{now},"raw_payload":"","normalized":{{"timestamp_ms":{},"market":{{"price":101.0,"vwap":100.0,"atr":2.0}}}}}}"#,
                    second * 1000
                );
                let to = format!("{}/api/v1/receipts", url.lock().unwrap());
                let post = client.post(to).header("content-type", "application/x-ndjson").body(receipt);
                // While the service is down there is nobody.
                drop(post.send().await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    AbortOnDropHandle::new(task)
}

/// T11. Method: three kills while outputs come; behind each the run log is read again. Every completed run from the
/// first that fired to the last has one cycle.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_read_again_or_late_has_one_cycle() {
    let trading =
        "[schedule]\ninterval = \"1s\"\ndelay = \"400ms\"\n[symbols]\ndiscover = false\nlist = [\"AAPL\"]\n";
    let cycles = "[trading.pipelines.canonical]\nstale_after = \"0s\"\n[trading.schedules.outputs]\n\
                  pipeline = \"canonical\"\ntrigger = \"event\"\non_outputs = true\nhours = \"any\"\n\
                  overlap = \"skip\"\nmisfire = \"all\"\nlateness_max = \"1h\"\nconcurrent_max = 1000\n";
    let place = TradingPlace::unswitched(trading, &(cycles.to_owned() + &momentum(&["outputs"])));
    place.switch(&["init", "--operator", "ops"]);
    let url = Arc::new(Mutex::new(String::new()));
    let mut service = place.start_trading().await;
    url.lock().unwrap().clone_from(&service.service.url);
    let _feed = feed(&url);
    let mut ended = service.ended_cycles("canonical", 2).await.len();
    for _ in 0..3 {
        service.kill();
        service = place.start().await;
        url.lock().unwrap().clone_from(&service.service.url);
        // What the history tells of before the kill counts too.
        ended = service.ended_cycles("canonical", ended + 2).await.len();
    }
    eventually("no cycle runs", async || service.agent().await["currentCycle"].is_null().then_some(())).await;
    service.stop().await;

    let journal = place.journal();
    journal.check_accounts();
    let fired: Vec<u64> = journal
        .facts("schedule_fired")
        .iter()
        .map(|fact| fact["trigger"]["Output"]["run_seq"].as_u64().unwrap())
        .collect();
    let once: BTreeSet<u64> = fired.iter().copied().collect();
    assert_eq!(once.len(), fired.len(), "an output twice: {fired:?}");
    let (first, last) = (fired[0], *fired.iter().max().unwrap());
    let runs = run_records(&place.data()).await;
    let completed = (1..).zip(&runs).filter(|(seq, run)| {
        (first..=last).contains(seq) && matches!(run.status, RunStatus::Completed { .. })
    });
    assert_eq!(completed.map(|(seq, _)| seq).collect::<BTreeSet<u64>>(), once, "none is left out");
    assert_eq!(journal.facts("cycle_started").len(), fired.len());
}
