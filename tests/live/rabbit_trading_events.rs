//! Events of the trading plane on a real RabbitMQ: out in order and confirmed; in with their topics, and acknowledged
//! only with what they did or with their copy in the dead letters; and both ways through the real binary.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lapin::ExchangeKind;
use lapin::message::Delivery;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::AMQPValue;
use orchestrator::adapters::rabbitmq::{
    RabbitEndpoint, RabbitEventBus, RabbitEventBusOptions, RabbitItems, RabbitSourceFactory,
    RabbitSourceOptions,
};
use orchestrator_kernel::ports::event_bus::{EventBus, EventMessage};
use orchestrator_kernel::ports::event_bus_conformance::{self, EventBusProvider, SUBSCRIBED};
use orchestrator_kernel::ports::source::{
    ItemFate, ResumeAt, Settlement, Source, SourceBatch, SourceFactory,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::support::amqp::Amqp;
use crate::support::process::{Service, eventually};
use crate::support::rabbit_server::RabbitServer;

const EXCHANGE: &str = "orchestrator.trading";
const QUEUE: &str = "orchestrator.trading.events";
const DEAD: &str = "orchestrator.trading.events.dead";

fn endpoint(url: &str) -> RabbitEndpoint {
    RabbitEndpoint::new(url, None, Duration::from_secs(5)).unwrap()
}

fn bus(url: &str) -> RabbitEventBus {
    RabbitEventBus::new(
        endpoint(url),
        RabbitEventBusOptions { window: 64, ..RabbitEventBusOptions::default() },
    )
}

fn message_of(delivery: &Delivery) -> EventMessage {
    let properties = &delivery.properties;
    let text = |text: &Option<lapin::types::ShortString>| text.as_ref().unwrap().to_string();
    let AMQPValue::LongString(traceparent) =
        properties.headers().as_ref().unwrap().inner()["traceparent"].clone()
    else {
        panic!("{properties:?}")
    };
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(text(properties.kind()), delivery.routing_key.to_string());
    EventMessage {
        topic: delivery.routing_key.to_string(),
        event_id: text(properties.message_id()),
        correlation_id: text(properties.correlation_id()),
        traceparent: traceparent.to_string(),
        body: delivery.data.clone().into(),
    }
}

/// A virtual host with a queue for each pattern of the suite.
struct OnRabbit {
    url: String,
    client: Amqp,
    delivered: Mutex<BTreeMap<String, Vec<EventMessage>>>,
}

#[async_trait]
impl EventBusProvider for OnRabbit {
    async fn open_bus(&self) -> Arc<dyn EventBus> {
        Arc::new(bus(&self.url))
    }

    async fn delivered(&self, pattern: &str, at_least: usize) -> Vec<EventMessage> {
        let mut delivered = self.delivered.lock().await;
        let so_far = delivered.entry(pattern.to_owned()).or_default();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            so_far.extend(self.client.drain(pattern).await.iter().map(message_of));
            if at_least <= so_far.len() {
                return so_far.clone();
            }
            assert!(std::time::Instant::now() < deadline, "{pattern}: {} of {at_least}", so_far.len());
        }
    }
}

#[tokio::test]
async fn rabbitmq_passes_the_suite_of_event_buses() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    bus(&url).prepare().await.unwrap();
    let client = Amqp::connect(&url).await;
    for pattern in SUBSCRIBED {
        client.queue(pattern, &[]).await;
        client.bind(pattern, EXCHANGE, pattern).await;
    }

    event_bus_conformance::run(&OnRabbit { url, client, delivered: Mutex::default() }).await;
}

fn event(number: u32) -> EventMessage {
    EventMessage {
        topic: "orchestrator.alert.raised".to_owned(),
        event_id: format!("e-{number}"),
        correlation_id: "c".to_owned(),
        traceparent: "00-01-02-01".to_owned(),
        body: format!("{{\"number\":{number}}}").into_bytes().into(),
    }
}

/// Method: the exchange is deleted under an open channel, then connections are cut, then the broker is killed.
#[tokio::test]
async fn events_go_on_behind_the_confirmed_ones_whatever_happens_to_the_broker() {
    let mut server = RabbitServer::own();
    let vhost = server.vhost();
    let url = server.url(&vhost);
    let bus = bus(&url);
    bus.publish(&[event(1)]).await.unwrap();
    let client = Amqp::connect(&url).await;
    client.channel().exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default()).await.unwrap();

    let refused = bus.publish(&[event(2)]).await.unwrap_err();
    assert_eq!(refused.confirmed, 0);
    assert!(refused.detail.contains("404"), "{refused}");
    // Declared again, as it was.
    bus.publish(&[event(2)]).await.unwrap();
    client.queue("all", &[("x-queue-type", AMQPValue::LongString("quorum".into()))]).await;
    client.bind("all", EXCHANGE, "#").await;
    server.close_connections(&vhost);
    let (mut number, mut was_killed) = (3, false);
    let mut confirmed = Vec::new();
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    while confirmed.len() < 100 {
        let batch: Vec<_> = (number..number + 10).map(event).collect();
        let done = match bus.publish(&batch).await {
            Ok(()) => batch.len(),
            Err(error) => error.confirmed,
        };
        confirmed.extend(batch[..done].iter().cloned());
        number += u32::try_from(done).unwrap();
        if !was_killed && 50 <= confirmed.len() {
            was_killed = true;
            server.kill();
            server.start_again();
        }
        assert!(std::time::Instant::now() < deadline, "{} confirmed", confirmed.len());
    }

    let client = Amqp::connect(&url).await;
    let mut arrived: Vec<_> = client.drain("all").await.iter().map(message_of).collect();
    arrived.dedup();
    let mut seen = std::collections::BTreeSet::new();
    arrived.retain(|event| seen.insert(event.event_id.clone()));
    assert_eq!(arrived[..confirmed.len()], confirmed);
}

fn intake_queue(url: &str, patterns: &[&str]) -> RabbitSourceFactory {
    let options = RabbitSourceOptions {
        name: "trading intake".to_owned(),
        exchange: EXCHANGE.to_owned(),
        queue: QUEUE.to_owned(),
        brings: RabbitItems::Events { patterns: patterns.iter().map(|it| (*it).to_owned()).collect() },
        ..RabbitSourceOptions::default()
    };
    RabbitSourceFactory::new(endpoint(url), options)
}

async fn next(source: &mut Box<dyn Source>) -> SourceBatch {
    tokio::time::timeout(Duration::from_secs(30), source.next_batch()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn events_come_by_their_topics_and_a_misfit_is_acknowledged_only_with_its_copy() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let factory = intake_queue(&url, &["market.session.*", "system.heartbeat"]);
    let mut source = factory.open_source(ResumeAt::default()).await.unwrap();
    let client = Amqp::connect(&url).await;
    client.send(EXCHANGE, "system.heartbeat", &[b"good"]).await;

    let batch = next(&mut source).await;
    assert_eq!(batch.items[0].topic.as_deref(), Some("system.heartbeat"));
    source.settle_batch(batch.id, Settlement::Durable(vec![ItemFate::Appended])).await.unwrap();

    // No way to the dead letters: the message stays.
    client.channel().queue_delete(DEAD.into(), QueueDeleteOptions::default()).await.unwrap();
    client.send(EXCHANGE, "market.session.changed", &[b"no event"]).await;
    let batch = next(&mut source).await;
    let fates = || Settlement::Durable(vec![ItemFate::Quarantined("no event envelope".to_owned())]);
    let lost = source.settle_batch(batch.id, fates()).await.unwrap_err();
    assert!(lost.to_string().contains("stays in the queue"), "{lost}");
    drop(source);

    // Declared again by the next opening.
    let mut source = factory.open_source(ResumeAt::default()).await.unwrap();
    let batch = next(&mut source).await;
    assert_eq!(&batch.items[0].bytes[..], b"no event");
    source.settle_batch(batch.id, fates()).await.unwrap();
    let dead = client.take(DEAD, 1).await;
    assert_eq!(dead[0].data, b"no event");
    let reason = &dead[0].properties.headers().as_ref().unwrap().inner()["x-orchestrator-reason"];
    assert_eq!(reason, &AMQPValue::LongString("no event envelope".into()));
    drop(source);
    let left = eventually("nothing is left", async || {
        let left = client.ready(QUEUE).await;
        (left == 0).then_some(left)
    });
    assert_eq!(left.await, 0);
}

fn trading_config(dir: &Path, url: &str) -> std::path::PathBuf {
    let path = dir.join("orchestrator.toml");
    let text = format!(
        r#"
[service]
data_dir = "{data}"
[http]
listen = "127.0.0.1:0"
[trading]
enabled = true
[trading.events]
url = "{url}"
prefix = "ai-trader"
consume = ["ordinis.ops.kill.*.requested", "system.heartbeat"]
"#,
        data = dir.join("data").display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn envelope(name: &str, id: &str, payload: Value) -> Vec<u8> {
    json!({
        "event_id": id, "event_type": name, "schema_version": "1.0.0", "ts_event": "2026-11-30T15:00:00Z",
        "ts_ingest": "2026-11-30T15:00:00Z", "source": "ops-console", "trace_id": "01", "span_id": "02",
        "parent_span_id": null, "correlation_id": "c-1", "partition_key": "kill", "payload": payload, "tags": {},
        "idempotency_key": null, "sig": null,
    })
    .to_string()
    .into_bytes()
}

/// Method: a request to stop trading goes in, what it did comes out; one to allow it again, and rubbish; then kill −9
/// and once more: what was published before is published again at most under its identifier.
#[tokio::test]
async fn a_request_to_stop_goes_in_and_its_event_comes_out_of_the_real_binary() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let dir = tempfile::tempdir().unwrap();
    let config = trading_config(dir.path(), &url);
    let client = Amqp::connect(&url).await;
    client.exchange(EXCHANGE, ExchangeKind::Topic, None).await;
    client.queue("all", &[]).await;
    client.bind("all", EXCHANGE, "ai-trader.orchestrator.#").await;
    let (activate, deactivate) =
        ("ai-trader.ordinis.ops.kill.activate.requested", "ai-trader.ordinis.ops.kill.deactivate.requested");

    let service = Service::start(&config, &[]).await;
    client.send(EXCHANGE, activate, &[&envelope(activate, "k-1", json!({"reason": "odd prices"}))]).await;
    client.send(EXCHANGE, deactivate, &[&envelope(deactivate, "k-2", json!({"reason": "fine"}))]).await;
    client.send(EXCHANGE, activate, &[b"rubbish"]).await;

    let dead = client.take(DEAD, 1).await;
    assert_eq!(dead[0].data, b"rubbish");
    let killed = eventually("the latch is told", async || {
        let all = client.drain("all").await;
        let told = all.iter().find(|it| it.routing_key.as_str() == "ai-trader.orchestrator.kill.activated");
        told.map(message_of)
    });
    let killed = killed.await;
    let body: Value = serde_json::from_slice(&killed.body).unwrap();
    assert_eq!(body["event_type"], "ai-trader.orchestrator.kill.activated");
    assert_eq!(
        (&body["payload"]["latched"], &body["payload"]["reason"]),
        (&true.into(), &"odd prices".into())
    );
    assert_eq!(body["event_id"], killed.event_id);
    eventually("the queue is empty", async || (client.ready(QUEUE).await == 0).then_some(())).await;
    let heartbeat = "ai-trader.system.heartbeat";
    let beats = json!({"service": "market-data", "status": "healthy"});
    client.send(EXCHANGE, heartbeat, &[&envelope(heartbeat, "h-1", beats)]).await;
    eventually("health knows the broker and the service", async || {
        let health: Value = serde_json::from_str(&service.get("/health").await.1).unwrap();
        let checks = &health["checks"];
        let all_well = checks["eventBus"] == "connected" && checks["services"]["market-data"] == "healthy";
        all_well.then_some(())
    })
    .await;
    service.kill();

    let service = Service::start(&config, &[]).await;
    client.send(EXCHANGE, activate, &[&envelope(activate, "k-3", json!({"reason": "still"}))]).await;
    let again = eventually("the second latch is told", async || {
        let all = client.drain("all").await;
        let latched: Vec<_> =
            all.iter().map(message_of).filter(|it| it.topic.ends_with("activated")).collect();
        let is_second =
            latched.iter().any(|it| it.event_id != killed.event_id && it.topic.ends_with("kill.activated"));
        is_second.then_some(latched)
    });
    assert!(again.await.iter().all(|it| !it.topic.ends_with("kill.deactivated")), "no event releases");
    service.stop().await;
}
