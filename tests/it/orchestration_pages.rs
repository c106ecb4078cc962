//! Orchestration runs on the real binary: rows of the history's file become the pages of specification 004.

use std::path::PathBuf;
use std::time::Duration;

use orchestrator::adapters::sql::SchemaName;
use orchestrator::adapters::sql::sqlite::{SqliteHistoryOptions, open_sqlite_history};
use orchestrator_kernel::ports::history::{HistoryBatch, HistoryError};
use orchestrator_kernel::ports::history_conformance::{sample_cycle_id, sample_orchestration};
use orchestrator_kernel::trading::history::{HistoryMark, HistoryRows};
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::trading::TradingPlace;

/// Writes runs of these numbers beside what the service writes, which must not be moved by it.
async fn write_runs(file: PathBuf, numbers: &[u8]) {
    let schema = SchemaName::new("orchestration").unwrap();
    let options = SqliteHistoryOptions { path: file, schema, busy_timeout: Duration::from_secs(30) };
    let store = open_sqlite_history(options);
    let mut rows = HistoryRows::default();
    for number in numbers {
        let of_run = sample_orchestration(*number, true);
        rows.orchestration_runs.extend(of_run.orchestration_runs);
        rows.signal_orders.extend(of_run.signal_orders);
    }
    eventually("the rows are written at the service's mark", async || {
        let mark = store.load_resume().await.unwrap()?.mark;
        let (after, mark) = (Some(mark.position), HistoryMark { schedules: None, ..mark });
        match store.apply_batch(&HistoryBatch { after, mark, rows: rows.clone() }).await {
            Ok(()) => Some(()),
            // The service has written meanwhile.
            Err(HistoryError::Moved { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

#[tokio::test]
async fn runs_in_the_historys_file_are_pages_over_http() {
    let place = TradingPlace::new("");
    let trading = place.start_trading().await;
    let get = async |path: &str| {
        let (code, body) = trading.service.get(&format!("/api/v1/orchestration/runs{path}")).await;
        (code, serde_json::from_str::<Value>(&body).unwrap())
    };
    assert_eq!(get("").await, (200, json!({ "runs": [], "total": 0, "limit": 50, "offset": 0 })));
    write_runs(place.data().join("history.sqlite"), &[1, 2, 3]).await;

    let (code, page) = get("?limit=2&offset=1&status=completed&strategy_id=alpha_baseline").await;

    let ids: Vec<&str> =
        page["runs"].as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap()).collect();
    let expected = [2, 1].map(|number| sample_cycle_id(number).to_string());
    assert_eq!((code, ids, &page["total"]), (200, expected.iter().map(String::as_str).collect(), &json!(3)));
    let (code, run) = get(&format!("/{}", sample_cycle_id(3))).await;
    assert_eq!(
        (code, &run["capital"], &run["duration_seconds"]),
        (200, &json!("100000"), &json!("0.018432"))
    );
    assert_eq!(
        (&run["mappings"][0]["order_qty"], &run["mappings"][1]["skip_reason"]),
        (&json!(133), &json!("zero_weight"))
    );
    assert_eq!(get(&format!("/{}", sample_cycle_id(9))).await.0, 404);
    assert_eq!(get("/not-a-uuid").await.0, 422);
    assert_eq!(get("?limit=0").await.0, 422);
    trading.stop().await;
}
