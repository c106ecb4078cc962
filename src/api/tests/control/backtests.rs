//! Backtests that are asked for: one job a command, bounded, and on record before it begins.

use orchestrator_kernel::ports::backtests::MemoryBacktests;
use orchestrator_kernel::trading::ids::CommandId;
use orchestrator_kernel::trading::journal::JournalFact;

use super::*;

const BACKTESTS: &str = "/api/v1/backtests";
const DAY: &str = r#"{"config":{"capture":"day.jsonl"}}"#;

async fn with_room_for(jobs: usize) -> Trading {
    let mut rig = PlaneRig::new(by_hand());
    rig.backtests = Arc::new(MemoryBacktests::of_captures(&["day.jsonl"], jobs));
    Trading::of(rig).await
}

#[tokio::test]
async fn a_backtest_is_one_job_a_key_and_is_looked_at_by_its_place() {
    let trading = with_room_for(2).await;

    let first = trading.post(BACKTESTS, "key", DAY).await;
    let again = trading.post(BACKTESTS, "key", DAY).await;

    let id = CommandId::derive("key").to_string();
    assert_eq!(
        (first.status, first.json()),
        (202, json!({"jobId": id, "status": "queued"})),
        "{}",
        first.text
    );
    assert_eq!((again.status, &again.text), (202, &first.text));
    let place = first.header("location").to_owned();
    assert_eq!(place, format!("{BACKTESTS}/{id}"));
    let job = trading.get(&place).await.json();
    let config = json!({"capture": "day.jsonl", "time": "receive", "set": {}});
    let expected = json!({"jobId": id, "status": "queued", "config": config, "exitCode": null, "detail": "", "cycles": null});
    assert_eq!(job, expected);
    assert_eq!(trading.get(BACKTESTS).await.json(), json!({"backtests": [job]}));
    let ended = trading.rig.facts(|fact| matches!(fact, JournalFact::CommandEnded(_))).await;
    assert_eq!(ended.len(), 1, "the repeat is no command of its own");
    trading.rig.audited().await;
}

#[tokio::test]
async fn a_backtest_that_cannot_be_is_refused_with_its_field_and_a_full_queue_says_so() {
    let trading = with_room_for(1).await;

    let missing = trading.post(BACKTESTS, "1", "{}").await.refusal(422);
    assert_eq!(missing[0]["loc"], json!(["body", "config"]));
    trading.post(BACKTESTS, "2", r#"{"config":"day"}"#).await.refusal(422);
    for (config, word) in [
        (r#"{"config":{}}"#, "capture"),
        (r#"{"config":{"capture":"../day"}}"#, "capture"),
        (r#"{"config":{"capture":"day.jsonl","set":{"engine.kind":"demo"}}}"#, "set.engine.kind"),
    ] {
        let detail = trading.post(BACKTESTS, config, config).await.refusal(400);
        assert!(detail.as_str().unwrap().contains(word), "{detail}");
    }
    let none = r#"{"config":{"capture":"other"}}"#;
    trading.post(BACKTESTS, "3", none).await.refusal(404);
    assert_eq!(trading.post(BACKTESTS, "4", DAY).await.status, 202);
    let full = trading.post(BACKTESTS, "5", DAY).await.refusal(503);
    assert!(full.as_str().unwrap().contains("no more may"), "{full}");
    trading.get(&format!("{BACKTESTS}/x")).await.refusal(422);
    trading.get(&format!("{BACKTESTS}/{}", CommandId::derive("5"))).await.refusal(404);
}

#[tokio::test]
async fn without_recordings_no_backtest_is_run_and_the_setting_is_named() {
    let trading = Trading::start().await;

    let detail = trading.post(BACKTESTS, "key", DAY).await.refusal(409);

    assert!(detail.as_str().unwrap().contains("trading.backtests.captures"), "{detail}");
    assert_eq!(trading.get(BACKTESTS).await.json(), json!({"backtests": []}));
}
