//! A RabbitMQ source in front of a log that takes nothing: what is refused waits on the broker, without a storm of
//! attempts and lines, and a channel that the broker closes meanwhile is noticed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::amqp::Amqp;
use crate::support::process::{Service, eventually};
use crate::support::rabbit_server::RabbitServer;
use crate::support::readiness::{ReadinessWatch, SAID_MAX};

/// How long nothing is taken.
const FULL: Duration = Duration::from_secs(5);

/// A service whose receipt log holds two segments of a mebibyte, with the broker as its only source.
fn config(dir: &Path, amqp: &str) -> PathBuf {
    let path = dir.join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[buffer]\ncapacity_bytes = \"2MiB\"\nsegment_bytes = \"1MiB\"\n\
         batch_bytes_max = \"1MiB\"\n[sources.b]\nkind = \"rabbitmq\"\nurl = {amqp:?}\n[schedule]\ninterval = \"1h\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n",
        dir.join("data")
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A receipt of 100 kB.
fn receipt(number: usize) -> String {
    let payload = "y".repeat(100_000);
    format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"s","symbol":"S{number}","exchange_ts_ms":null,"recv_ts_ms":1,"raw_payload":"{payload}","normalized":{{}}}}"#
    )
}

/// Sends more than the log holds, to a service that is ready: its source has declared and bound the queue by then.
async fn fill(service: &Service, amqp: &str) {
    eventually("it is ready", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
    let client = Amqp::connect(amqp).await;
    let receipts: Vec<String> = (0..40).map(receipt).collect();
    let bodies: Vec<&[u8]> = receipts.iter().map(String::as_bytes).collect();
    client.send("market.raw", "k", &bodies).await;
}

/// When the log was full.
async fn is_full(service: &Service) -> Instant {
    eventually("the log is full", async || {
        let (_, body) = service.get("/readyz").await;
        body.contains("buffer_append_failing").then(Instant::now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_costs_an_attempt_a_second_and_one_line_and_is_said_all_the_time() {
    let server = RabbitServer::own();
    let amqp = server.url(&server.vhost());
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&config(dir.path(), &amqp), &[]).await;
    fill(&service, &amqp).await;
    let full = is_full(&service).await;
    let readiness = ReadinessWatch::begin(&service.url);
    let lines = service.log().lines().count();
    let refused = service.metric("orch_append_failures_total").await;

    tokio::time::sleep(FULL).await;

    let attempts = service.metric("orch_append_failures_total").await - refused;
    let lines = service.log().lines().count() - lines;
    readiness.end().lost_for_good("buffer_append_failing", full, SAID_MAX);
    // Eight batches may be in flight at a time.
    assert!(attempts <= 8.0 * (FULL.as_secs_f64() + 2.0), "{attempts} attempts in {FULL:?}");
    assert!(lines <= 3, "{lines} lines in {FULL:?}:\n{}", service.log());
    service.stop_unverified().await;
}

/// Method: a broker that gives an acknowledgement two seconds, while the log takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_the_broker_closes_is_noticed_while_nothing_is_settled() {
    let server = RabbitServer::own();
    let amqp = server.url(&server.vhost());
    for setting in ["consumer_timeout, 2000", "channel_tick_interval, 500"] {
        server.ctl(&["eval", &format!("application:set_env(rabbit, {setting}).")]);
    }
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(&config(dir.path(), &amqp), &[]).await;
    fill(&service, &amqp).await;
    is_full(&service).await;

    let (full, readiness) = (Instant::now(), ReadinessWatch::begin(&service.url));
    eventually("the closed channel is noticed", async || {
        service.log().lines().any(|line| line.contains("source failed") && line.contains("406")).then_some(())
    })
    .await;
    // The source comes and goes, the log stays full.
    readiness.end().lost_for_good("buffer_append_failing", full, Duration::ZERO);
    service.stop_unverified().await;
}
