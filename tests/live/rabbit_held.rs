//! The shipped deployment on a broker that refuses outputs for good: the symbol waits alone, the others flow, nothing
//! is lost by a restart in the middle, and an operator's way out is recorded. And an exchange that somebody else
//! declared.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lapin::ExchangeKind;
use lapin::options::ExchangeDeleteOptions;
use serde_json::Value;

use crate::support::amqp::Amqp;
use crate::support::deployment::Deployment;
use crate::support::oracle::{Logs, healed};
use crate::support::process::{Service, eventually, orchestrator};
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::subscriber::Subscriber;

const EVENTS: &str = "orchestrator.events";
/// The user of the service, as `ops/make_secrets.py` makes it.
const USER: &str = "orchestrator";
/// What it may publish: no symbol with a hyphen.
const TOPICS: &str = r"^orchestrator_event\.[A-Za-z]+\.[A-Z0-9%]+$";
/// A symbol of which `TOPICS` allows nothing.
const REFUSED: &str = "test-symbol";
/// One symbol may be held, and little may wait.
const HELD_LIMITS: &str =
    "[publish]\nheld_symbols_max = 1\nbatch_max = 20\nbacklog_max = 20\nbacklog_resume = 5\n";
/// Whoever decides, and why.
const WHO: [&str; 4] = ["--operator", "eva", "--reason", "as agreed"];

/// A service with logs on Redis, on a broker whose rights a test changes.
struct Stage {
    redis: RedisServer,
    server: RabbitServer,
    vhost: String,
    deployment: Deployment,
    subscriber: Subscriber,
    client: Amqp,
}

impl Stage {
    async fn with(symbols: &[&str]) -> Self {
        Self::limited(symbols, "").await
    }

    /// As [`with`](Self::with), with further sections of the configuration.
    async fn limited(symbols: &[&str], sections: &str) -> Self {
        let (redis, server) = (RedisServer::start(), RabbitServer::own());
        let vhost = server.vhost();
        let amqp = server.url(&vhost);
        let deployment = Deployment::new(&redis.url(), &amqp).with(&only(symbols)).with(sections);
        let subscriber = Subscriber::start(&amqp, "everything").await;
        let client = Amqp::connect(&amqp).await;
        Self { redis, server, vhost, deployment, subscriber, client }
    }

    /// What the service may publish.
    fn permit(&self, topics: &str) {
        self.server.ctl(&["set_topic_permissions", "-p", &self.vhost, USER, EVENTS, topics, "^$"]);
    }

    /// `orchestrator outputs …`, of the running service or of the stopped one: exit code and what it said.
    fn outputs(&self, service: Option<&Service>, args: &[&str]) -> (Option<i32>, String) {
        let config = self.deployment.config();
        let place = ["--config", config.to_str().unwrap()];
        let url = service.map(|service| ["--url", service.url.as_str()]);
        let all: Vec<&str> =
            ["outputs"].iter().chain(args).chain(&place).chain(url.iter().flatten()).copied().collect();
        let done = orchestrator(&all);
        let text = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// An operator's decision about a symbol, which must be taken; what was recorded.
    fn decide(&self, service: Option<&Service>, action: &str, symbol: &str) -> String {
        let args = [&[action, "--symbol", symbol], &WHO[..]].concat();
        let (code, said) = self.outputs(service, &args);
        assert_eq!(code, Some(0), "{said}");
        said
    }

    /// Numbers of the symbol's outputs that arrived, in the order of their first arrival.
    fn arrived(&self, symbol: &str) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        let messages = self.subscriber.messages().into_iter();
        messages
            .filter(|message| message.symbol == symbol && seen.insert(message.symbol_seq))
            .map(|message| message.symbol_seq)
            .collect()
    }

    /// Waits until ten more outputs of the symbol have arrived.
    async fn flows(&self, symbol: &str) {
        let enough = self.arrived(symbol).len() + 10;
        eventually("the others flow", async || (enough <= self.arrived(symbol).len()).then_some(())).await;
    }

    /// Waits until the symbol is held from this output on, or is not.
    async fn held_from(&self, service: &Service, symbol: &str, first: u64) -> String {
        let refused = format!("rabbitmq refuses output {first} for good");
        eventually(&refused, async || {
            held(service, symbol)
                .await
                .filter(|detail| detail.contains(&refused) && !detail.contains("again"))
        })
        .await
    }

    /// Waits until the symbol is not held.
    async fn released(&self, service: &Service, symbol: &str) {
        eventually("it is not held any more", async || held(service, symbol).await.is_none().then_some(()))
            .await;
    }
}

/// The symbols of a test, instead of those of the load.
fn only(symbols: &[&str]) -> String {
    format!("[symbols]\nlist = {symbols:?}\n")
}

fn receipt(symbol: &str) -> String {
    format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"t","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":1,"raw_payload":"","normalized":{{}}}}"#
    )
}

/// What the next run of the symbol needs to complete.
fn inputs(symbol: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let next = (now + 1) * 1000;
    format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"SnapshotInputs","source_id":"t","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":1,"raw_payload":"","normalized":{{"timestamp_ms":{next},"market":{{"price":100.5,"vwap":100.0}}}}}}"#
    )
}

async fn feed(client: &Amqp, symbols: &[&str]) {
    for symbol in symbols {
        client.send("market.raw", "k", &[receipt(symbol).as_bytes()]).await;
    }
}

/// The detail of a condition, as `/health` says; nothing when it does not hold.
async fn condition(service: &Service, word: &str, subject: Option<&str>) -> Option<String> {
    let health: Value = serde_json::from_str(&service.get("/health").await.1).unwrap();
    let conditions = health["conditions"].as_array().unwrap();
    let is_it = |held: &&Value| held["condition"] == word && held["subject"].as_str() == subject;
    conditions.iter().find(is_it).map(|held| held["detail"].as_str().unwrap().to_owned())
}

async fn held(service: &Service, symbol: &str) -> Option<String> {
    condition(service, "output_held", Some(symbol)).await
}

async fn ready(service: &Service) {
    eventually("it is ready", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
}

fn verified(config: &Path) -> String {
    let verified = orchestrator(&["verify", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{said}");
    said
}

/// Method: a topic permission that does not allow one symbol's routing key; a kill −9 and a restart in the middle; then
/// the right is given, and taken away again.
#[tokio::test(flavor = "multi_thread")]
async fn a_symbol_that_the_broker_refuses_for_good_waits_alone_and_an_operator_has_a_way_out() {
    let stage = Stage::with(&["BTCUSDT", "BRK.B", REFUSED]).await;
    stage.permit(TOPICS);
    let service = stage.deployment.start().await;
    let readiness = service.watch_readiness().await;
    feed(&stage.client, &["BTCUSDT", "BRK.B", REFUSED]).await;

    let detail = stage.held_from(&service, REFUSED, 1).await;
    assert!(detail.contains("access to topic 'orchestrator_event."), "{detail}");
    stage.flows("BTCUSDT").await;
    stage.flows("BRK.B").await;
    assert!(0.0 < service.metric("orch_publish_held_outputs").await);
    assert_eq!(service.metric("orch_publish_held_symbols").await, 1.0);
    eventually("nothing else waits", async || {
        (service.metric("orch_publish_backlog_outputs").await == 0.0).then_some(())
    })
    .await;
    readiness.end().never_lost();

    // In the middle the process dies, and another time it is restarted; nothing of it is lost or overtaken.
    service.kill();
    let service = stage.deployment.start().await;
    stage.held_from(&service, REFUSED, 1).await;
    stage.flows("BTCUSDT").await;
    service.stop().await;
    let (code, said) = stage.outputs(None, &["list"]);
    assert!(code == Some(0) && said.contains(REFUSED) && said.contains("\"first_symbol_seq\": 1"), "{said}");
    let service = stage.deployment.start().await;
    stage.held_from(&service, REFUSED, 1).await;
    stage.flows("BTCUSDT").await;
    assert_eq!(stage.arrived(REFUSED), [0; 0], "nothing overtakes");

    // Offered again too early, it is refused again; once the right is there, all of it comes in order.
    assert!(stage.decide(Some(&service), "retry", REFUSED).contains("were offered again"));
    stage.held_from(&service, REFUSED, 1).await;
    stage.permit(".*");
    stage.decide(Some(&service), "retry", REFUSED);
    stage.released(&service, REFUSED).await;
    stage.flows(REFUSED).await;
    let so_far = stage.arrived(REFUSED);
    assert_eq!(so_far, (1..=so_far.len() as u64).collect::<Vec<_>>());
    assert_eq!(service.metric("orch_publish_held_outputs").await, 0.0);

    // Rights are looked up again by a new connection.
    stage.permit(TOPICS);
    stage.server.close_connections(&stage.vhost);
    let first = eventually("it is held again", async || {
        let (_, said) = stage.outputs(Some(&service), &["list"]);
        let listed: Value = serde_json::from_str(&said).ok()?;
        listed["held"][0]["first_symbol_seq"].as_u64()
    })
    .await;
    let not_held = stage.outputs(Some(&service), &[&["skip", "--symbol", "BTCUSDT"], &WHO[..]].concat());
    assert!(not_held.0 == Some(1) && not_held.1.contains("not_held"), "{not_held:?}");
    let said = stage.decide(Some(&service), "skip", REFUSED);
    assert!(said.contains(&format!("outputs {first} to {first} of {REFUSED} were let go")), "{said}");
    stage.held_from(&service, REFUSED, first + 1).await;
    assert_eq!(service.metric("orch_publish_outputs_skipped_total").await, 1.0);
    service.stop().await;

    // A stopped service: the decision is recorded, and its next start carries it out.
    let said = stage.decide(None, "skip", REFUSED);
    let next = first + 1;
    assert!(said.contains(&format!("outputs {next} to {next} of {REFUSED} were let go")), "{said}");
    stage.permit(".*");
    let service = stage.deployment.start().await;
    stage.released(&service, REFUSED).await;
    stage.flows(REFUSED).await;
    healed(&service).await;
    service.stop().await;

    let logs = Logs::read(&stage.redis.url()).await.outputs();
    let made = logs[REFUSED].len() as u64;
    let all_but_skipped: Vec<u64> = (1..=made).filter(|number| *number != first && *number != next).collect();
    eventually("all others arrive", async || (stage.arrived(REFUSED) == all_but_skipped).then_some(())).await;
    let said = verified(&stage.deployment.config());
    for number in [first, next] {
        let note =
            format!("outputs {number} to {number} of {REFUSED} were let go unpublished at rabbitmq: by eva");
        assert!(said.contains(&note), "{said}");
    }
}

/// Method: the limit is set between the largest outputs of two symbols, as they were measured, and later back. Smaller
/// ones of the held symbol wait behind the large one.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_larger_than_the_broker_takes_wait_until_they_may_be() {
    let long = "X".repeat(120);
    let stage = Stage::with(&["BTCUSDT", &long]).await;
    let service = stage.deployment.start().await;
    feed(&stage.client, &["BTCUSDT", &long]).await;
    stage.flows("BTCUSDT").await;
    stage.flows(&long).await;
    let messages = stage.subscriber.messages();
    let largest = |symbol: &str| {
        let of = messages.iter().filter(|message| message.symbol == symbol);
        of.map(|message| message.body.len()).max().unwrap()
    };
    let (small, large) = (largest("BTCUSDT"), largest(&long));
    assert!(small + 50 < large, "{small} and {large} bytes");

    stage.server.set_max_message_size((small + large) / 2);
    stage.server.close_connections(&stage.vhost);
    let client = Amqp::connect(&stage.server.url(&stage.vhost)).await;
    feed(&client, &["BTCUSDT", &long]).await;
    let detail = eventually("it is held", async || held(&service, &long).await).await;
    assert!(detail.contains("for good") && detail.contains("406"), "{detail}");
    stage.flows("BTCUSDT").await;
    assert_eq!(service.get("/readyz").await.0, 200);

    stage.server.set_max_message_size(1 << 19);
    stage.server.close_connections(&stage.vhost);
    stage.decide(Some(&service), "retry", &long);
    stage.released(&service, &long).await;
    stage.flows(&long).await;
    healed(&service).await;
    service.stop().await;
    let made = Logs::read(&stage.redis.url()).await.outputs()[&long].len() as u64;
    let all: Vec<u64> = (1..=made).collect();
    eventually("all arrive in order", async || (stage.arrived(&long) == all).then_some(())).await;
}

/// Method: one place for a held symbol and two symbols that are refused, with little that may wait; then the right is
/// given.
#[tokio::test(flavor = "multi_thread")]
async fn one_refused_symbol_too_many_blocks_publishing_until_it_is_taken() {
    let stage = Stage::limited(&["BTCUSDT", REFUSED, "other-symbol"], HELD_LIMITS).await;
    stage.permit(TOPICS);
    let service = stage.deployment.start().await;
    let readiness = service.watch_readiness().await;
    feed(&stage.client, &["BTCUSDT"]).await;

    eventually("it is degraded", async || condition(&service, "publish_degraded", None).await).await;
    eventually("it is blocked", async || (service.get("/readyz").await.0 == 503).then_some(())).await;
    let blocked = Instant::now();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mended = Instant::now();
    stage.permit(".*");
    ready(&service).await;
    stage.flows("BTCUSDT").await;

    readiness.end().lost_once("publish_blocked", blocked, Duration::ZERO, mended);
    service.stop().await;
}

/// Method: outputs are held at the broker; the service is started again with a file in its place.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_held_at_a_fan_out_that_was_taken_out_never_make_it_unready() {
    let stage = Stage::with(&["BTCUSDT", REFUSED]).await;
    stage.permit(TOPICS);
    let service = stage.deployment.start().await;
    feed(&stage.client, &["BTCUSDT", REFUSED]).await;
    stage.held_from(&service, REFUSED, 1).await;
    service.stop().await;

    let to_a_file = ["--set", "publish.rabbitmq.url=", "--set", "publish.file=outputs.jsonl"];
    let service = Service::start(&stage.deployment.config(), &to_a_file).await;
    let readiness = service.watch_readiness().await;
    let detail = held(&service, REFUSED).await.expect("it is said from the start on");
    assert!(detail.contains("not configured any more"), "{detail}");
    let before = service.metric("orch_publish_outputs_total").await;
    eventually("the others are published", async || {
        (before + 10.0 < service.metric("orch_publish_outputs_total").await).then_some(())
    })
    .await;

    readiness.end().never_lost();
    service.stop().await;
}

/// Method: a client that is connected already binds as soon as the service says that it is ready, with the binding of
/// the documents.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_binds_before_the_first_output_and_gets_symbols_with_dots() {
    let (redis, server) = (RedisServer::start(), RabbitServer::shared());
    let amqp = server.url(&server.vhost());
    let symbols = ["BRK.B", "EUR.USD", "a..b"];
    let deployment = Deployment::declaring(&redis.url(), &amqp).with(&only(&symbols));
    let client = Amqp::connect(&amqp).await;
    client.queue("mine", &[]).await;
    // As the service declares it.
    client.exchange("market.raw", ExchangeKind::Topic, None).await;

    let service = deployment.start().await;
    ready(&service).await;
    client.bind("mine", EVENTS, "orchestrator_event.EngineRunCompleted.*").await;

    let mut missing: BTreeSet<&str> = symbols.into();
    eventually("every symbol completes a run", async || {
        for symbol in &symbols {
            client.send("market.raw", "k", &[inputs(symbol).as_bytes()]).await;
        }
        let waiting = client.ready("mine").await as usize;
        for message in client.take("mine", waiting).await {
            let headers = message.properties.headers().clone().unwrap();
            let symbol = headers.inner()["symbol"].as_long_string().unwrap().to_string();
            missing.remove(symbol.as_str());
        }
        missing.is_empty().then_some(())
    })
    .await;
    service.stop().await;
}

/// Method: a stranger declares the exchange without its alternate exchange, and deletes it later. Receipts come all the
/// time, so that there is always something to publish.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_a_stranger_declared_is_named_until_it_is_gone() {
    let (redis, server) = (RedisServer::start(), RabbitServer::shared());
    let amqp = server.url(&server.vhost());
    let deployment = Deployment::declaring(&redis.url(), &amqp).with(&only(&["BTCUSDT"]));
    let stranger = Amqp::connect(&amqp).await;
    stranger.exchange(EVENTS, ExchangeKind::Topic, None).await;
    // As the service declares it.
    stranger.exchange("market.raw", ExchangeKind::Topic, None).await;

    let service = deployment.start().await;
    let readiness = service.watch_readiness().await;
    let degraded = async || condition(&service, "publish_degraded", None).await;
    let detail = degraded().await.expect("it is said when the service is up");
    for said in ["inequivalent arg 'alternate-exchange'", "Delete it", "topology to passive"] {
        assert!(detail.contains(said), "{detail}");
    }
    let client = Amqp::connect(&amqp).await;
    feed(&client, &["BTCUSDT"]).await;
    eventually("outputs wait", async || {
        assert!(degraded().await.is_some(), "a run that begins proves nothing");
        (2.0 <= service.metric("orch_publish_backlog_outputs").await).then_some(())
    })
    .await;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert!(degraded().await.is_some(), "it is said as long as the exchange is there");
    }
    readiness.end().never_lost();

    let deleted = client.channel().exchange_delete(EVENTS.into(), ExchangeDeleteOptions::default());
    deleted.await.unwrap();
    eventually("it is over", async || degraded().await.is_none().then_some(())).await;
    client.queue("mine", &[]).await;
    client.bind("mine", EVENTS, "orchestrator_event.*.BTCUSDT").await;
    client.take("mine", 4).await;
    healed(&service).await;
    service.stop().await;
}
