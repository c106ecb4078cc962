//! Producers that number their receipts, more of them than are remembered.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Service;

/// The least that can be configured.
const PRODUCERS_MAX: usize = 16;

fn config(dir: &Path) -> PathBuf {
    let path = dir.join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[ingest]\nproducers_max = {PRODUCERS_MAX}\n[sources.http]\nkind = \"http\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
        dir.join("data")
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// Status, `retry-after` and body of a post of one receipt; without a name it has no number.
async fn post(service: &Service, producer: Option<(&str, u64)>) -> (u16, bool, Value) {
    let receipt = r#"{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"t","symbol":"A","exchange_ts_ms":null,"recv_ts_ms":1,"raw_payload":"","normalized":{}}"#;
    let mut request = reqwest::Client::new()
        .post(format!("{}/api/v1/receipts", service.url))
        .header("content-type", "application/json")
        .body(receipt);
    if let Some((name, sequence)) = producer {
        request = request.header("orchestrator-producer", name).header("orchestrator-sequence", sequence);
    }
    let response = request.send().await.unwrap();
    let (status, again) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
    (status, again, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn made_up_producers_shut_nobody_out_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let service = Service::start(&config, &[]).await;
    let readiness = service.watch_readiness().await;
    for number in 0..PRODUCERS_MAX {
        assert_eq!(post(&service, Some((&format!("made-up-{number}"), 1))).await.0, 200);
    }

    let (status, again, body) = post(&service, Some(("real", 1))).await;

    assert_eq!((status, &body["type"]), (403, &Value::from("producer_limit")), "{body}");
    assert!(!again, "the same again cannot help: nobody is told to try it");
    let said = body["detail"].as_str().unwrap();
    assert!(said.contains("ingest.producers_max") && !said.contains("again"), "{said}");
    assert_eq!(post(&service, Some(("made-up-3", 2))).await.0, 200, "a known one goes on");
    assert_eq!(post(&service, None).await.0, 200, "without numbers nothing is remembered");
    let (_, health) = service.get("/health").await;
    assert!(health.contains("producer_limit") && health.contains("http:real"), "{health}");
    readiness.end().never_lost();
    assert_eq!(service.metric("orch_ingest_producers").await, PRODUCERS_MAX as f64);
    assert_eq!(service.metric("orch_ingest_producers_denied_total").await, 1.0);
    service.stop().await;

    let service = Service::start(&config, &["--set", "ingest.producers_max=17"]).await;
    assert_eq!(post(&service, Some(("real", 1))).await.0, 200);
    let (_, health) = service.get("/health").await;
    assert!(!health.contains("producer_limit"), "{health}");
    service.stop().await;
}

/// One that is not known may have been forgotten: it is told so instead of being sent to the beginning.
#[tokio::test]
async fn a_producer_that_is_not_known_is_told_what_that_can_mean() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&config(dir.path()), &[]).await;

    let (status, _, body) = post(&service, Some(("feed", 501))).await;

    assert_eq!((status, &body["expected"]), (409, &Value::from(1)));
    assert!(body["detail"].as_str().unwrap().contains("another name"), "{body}");
    service.stop_unverified().await;
}
