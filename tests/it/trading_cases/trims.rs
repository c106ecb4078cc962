//! Kills while retention takes the journal's beginning away: small segments, short ages.

use serde_json::{Value, json};

use super::momentum;
use crate::support::eventually;
use crate::support::trading::TradingPlace;

/// Cycles of one phase: some records of each fill a part of a segment.
const CYCLES: usize = 120;
/// Requests at a time.
const AT_A_TIME: usize = 8;

/// Method: cycles, a kill in the middle of them, and again, while all that is a second old may leave. What is left is
/// audited from its base, and the cycles that were open keep their beginning.
#[tokio::test(flavor = "multi_thread")]
async fn kills_while_the_journal_is_trimmed_leave_a_journal_that_is_whole_from_its_base() {
    let service = "[buffer]\nsegment_bytes = \"1MiB\"\nbatch_bytes_max = \"512KiB\"\n\
                   [retention]\ncheck_every = \"1s\"\n";
    let trading = "[trading.journal]\nage_max = \"1s\"\nbatch_bytes_max = \"512KiB\"\n\
                   [trading.pipelines.canonical]\nstale_after = \"0s\"\n";
    let place = TradingPlace::unswitched(service, &(trading.to_owned() + &momentum(&[])));
    place.switch(&["init", "--operator", "ops"]);
    let mut service = place.start_trading().await;
    let mut trimmed = 0.0;
    for phase in 0..4 {
        for some in 0..CYCLES / AT_A_TIME {
            let cycles = (0..AT_A_TIME).map(|_| service.run_cycle("canonical"));
            let results = futures_util::future::join_all(cycles).await;
            assert!(results.iter().all(|result| result["status"] == "ok"), "{phase} {some}: {results:?}");
        }
        service.post_unheard("cycles", &json!({ "pipeline": "canonical" }), &format!("phase {phase}"));
        service.kill();
        service = place.start().await;
        trimmed += service.metric("orch_log_trimmed_records_total{log=\"journal\"}").await;
    }
    eventually("the beginning has left", async || {
        let since = service.metric("orch_log_trimmed_records_total{log=\"journal\"}").await;
        // Age alone does nothing: what is new lets segments end.
        service.run_cycle("canonical").await;
        (0.0 < since + trimmed).then_some(())
    })
    .await;
    let last = service.run_cycle("canonical").await;
    service.stop().await;

    let verified = place.run(&["verify"], 0);
    assert!(
        verified.contains("journal: records ") && !verified.contains("journal: records 1 to "),
        "{verified}"
    );
    let journal = place.exported();
    let first = journal.0[0]["seq"].as_u64().unwrap();
    let stat: Value = serde_json::from_str(&place.run(&["log", "stat"], 0)).unwrap();
    assert_eq!(stat["journal"]["log"]["first"], first, "{stat:#}");
    assert!(1 < first, "{stat:#}");
    let told = place.inspect(last["correlation_id"].as_str().unwrap());
    assert!(told.contains("status             ok"), "{told}");
    let ended: Vec<&Value> = journal.facts("cycle_ended").into_iter().map(|fact| &fact["cycle_id"]).collect();
    for started in journal.facts("cycle_started") {
        assert_eq!(ended.iter().filter(|id| **id == &started["cycle_id"]).count(), 1, "{started}");
    }
}
