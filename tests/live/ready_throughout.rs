//! Readiness, sampled every ten milliseconds, while something happens that stops no receipt and no run: it is never
//! lost.

use std::path::Path;
use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::QueueDeleteOptions;
use lapin::types::AMQPValue;

use crate::support::amqp::Amqp;
use crate::support::campaign::{Campaign, Setup};
use crate::support::deployment::Deployment;
use crate::support::load::Load;
use crate::support::process::{Service, eventually, orchestrator, root};
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::scene::{Scene, stores};

/// The shipped queue of the receipts.
const RECEIPTS: &str = "orchestrator.receipts";
const KEY: &str = "kill_switch:state";

/// A service with its logs in files and these sections besides.
async fn embedded(dir: &Path, sections: &str) -> Service {
    let config = dir.join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n{sections}",
        dir.join("data"),
    );
    std::fs::write(&config, text).unwrap();
    Service::start(&config, &[]).await
}

/// What the service says about the kill switch at `/health`: the word of its condition, or that it permits.
async fn kill_switch(service: &Service) -> String {
    let health: serde_json::Value = serde_json::from_str(&service.get("/health").await.1).unwrap();
    let mut words =
        health["conditions"].as_array().unwrap().iter().filter_map(|held| held["condition"].as_str());
    words.rfind(|word| word.starts_with("kill_switch")).unwrap_or("permits").to_owned()
}

/// Method: the logs are in files and only the switch is on Redis, so nothing but the switch is at stake: stopped,
/// restarted, gone, garbage, frozen, and on a server that would forget a stop.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_happens_to_the_kill_switch_makes_it_unready() {
    let mut redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let sections = format!(
        "[schedule]\ninterval = \"1h\"\n[kill_switch]\nkind = \"redis\"\nurl = {:?}\n[sources.http]\nkind = \"http\"\n",
        redis.url()
    );
    let service = embedded(dir.path(), &sections).await;
    let shows = async |wanted: &str| {
        eventually(wanted, async || (kill_switch(&service).await == wanted).then_some(())).await;
    };
    let flips = |redis: &RedisServer, words: &[&str]| {
        let url = ["--url", &redis.url(), "--operator", "test"];
        let done = orchestrator(&[&["kill-switch"], words, &url].concat());
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let readiness = service.watch_readiness().await;

    shows("kill_switch_unknown").await;
    flips(&redis, &["init"]);
    shows("permits").await;
    flips(&redis, &["engage", "--reason", "test"]);
    shows("kill_switch_engaged").await;
    redis.kill();
    shows("kill_switch_unknown").await;
    redis.start_again();
    shows("kill_switch_engaged").await;
    for garbage in ["maybe", ""] {
        redis.command(&["SET", KEY, garbage]).unwrap();
        shows("kill_switch_unknown").await;
        redis.command(&["SET", KEY, "off"]).unwrap();
        shows("permits").await;
    }
    redis.command(&["DEL", KEY]).unwrap();
    shows("kill_switch_unknown").await;
    redis.command(&["SET", KEY, "off"]).unwrap();
    shows("permits").await;
    redis.pause();
    shows("kill_switch_unknown").await;
    redis.resume();
    shows("permits").await;
    redis.command(&["ACL", "SETUSER", "default", "-@all", "+ping"]).unwrap();
    shows("kill_switch_unknown").await;
    redis.command(&["ACL", "SETUSER", "default", "+@all"]).unwrap();
    shows("permits").await;

    readiness.end().never_lost();
    service.stop_unverified().await;
}

/// Method: the service is stopped for a moment in which ten entries come and nine of them are deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_trimmed_stream_never_makes_it_unready() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let sections = format!(
        "[schedule]\ninterval = \"1h\"\n[sources.feed]\nkind = \"redis_stream\"\nurl = {:?}\nstream = \"receipts\"\n",
        redis.url()
    );
    let service = embedded(dir.path(), &sections).await;
    let add = || drop(redis.command(&["XADD", "receipts", "*", "event", "{}"]).unwrap());
    let quarantined = async |count: f64| {
        let has =
            async || (count <= service.metric("orch_ingest_items_quarantined_total").await).then_some(());
        eventually("entries are read", has).await;
    };
    add();
    quarantined(1.0).await;

    let readiness = service.watch_readiness().await;
    service.pause();
    (0..10).for_each(|_| add());
    redis.command(&["XTRIM", "receipts", "MAXLEN", "1"]).unwrap();
    service.resume();
    eventually("it is told", async || service.log().contains("missing or odd").then_some(())).await;
    add();
    quarantined(3.0).await;

    readiness.end().never_lost();
    service.stop_unverified().await;
}

/// Method: somebody binds a queue that refuses what it has no room for, and later deletes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_of_a_subscriber_never_makes_it_unready() {
    let scene = Scene::start().await;
    let client = Amqp::connect(scene.deployment.amqp_url()).await;
    let readiness = scene.service.watch_readiness().await;
    let refuse = AMQPValue::LongString("reject-publish".into());
    client.queue("small", &[("x-max-length", AMQPValue::LongInt(5)), ("x-overflow", refuse)]).await;
    client.bind("small", "orchestrator.events", "#").await;

    eventually("outputs are refused", async || {
        (2 < scene.service.log().matches("refused by the broker (nack)").count()).then_some(())
    })
    .await;
    client.channel().queue_delete("small".into(), QueueDeleteOptions::default()).await.unwrap();
    scene.heals().await;

    readiness.end().never_lost();
    scene.finish().await;
}

/// Method: the queue of the receipts is a classic one, which somebody declared before the first start.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_kind_never_makes_it_unready() {
    let (redis, rabbit) = (RedisServer::start(), RabbitServer::shared());
    let amqp = rabbit.url(&rabbit.vhost());
    let deployment = Deployment::new(&redis.url(), &amqp);
    let client = Amqp::connect(&amqp).await;
    client.channel().queue_delete(RECEIPTS.into(), QueueDeleteOptions::default()).await.unwrap();
    client.queue(RECEIPTS, &[("x-queue-type", AMQPValue::LongString("classic".into()))]).await;
    client.exchange("market.raw", ExchangeKind::Topic, None).await;
    client.bind(RECEIPTS, "market.raw", "#").await;
    let service = deployment.start().await;
    let load = Load::start(&amqp);

    let readiness = service.watch_readiness().await;
    stores(&service, 500).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(service.log().contains("no quorum queue"), "{}", service.log());

    readiness.end().never_lost();
    load.stop().await;
    service.stop().await;
}

/// Method: the process of a subscriber's quorum queue is stopped, as one that has no leader answers nobody. Then
/// outputs that are routed to it have no confirm.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_answers_nothing_holds_outputs_up_and_never_makes_it_unready() {
    let rabbit = RabbitServer::own();
    let amqp = rabbit.url(RabbitServer::SHIPPED_VHOST);
    let mut campaign = Campaign::start(&amqp, Setup::default()).await;
    let queue =
        |does: &str| rabbit.ctl(&["eval", &format!("sys:{does}(whereis('%2F_subscriber.everything')).")]);

    let readiness = campaign.service.watch_readiness().await;
    queue("suspend");
    eventually("outputs are not confirmed", async || {
        campaign.service.log().contains("no confirm within").then_some(())
    })
    .await;
    queue("resume");
    campaign.heals("a queue that answers nothing").await;

    readiness.end().never_lost();
    campaign.finish(Vec::new()).await;
}

/// Method: the queue of a subscriber is made what RabbitMQ makes of one that it has not written down before it was
/// killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_a_leader_gets_one_as_the_runbook_says() {
    let mut rabbit = RabbitServer::own();
    let amqp = rabbit.url(RabbitServer::SHIPPED_VHOST);
    let is_confirmed = async || {
        let client = Amqp::connect(&amqp).await;
        tokio::time::timeout(Duration::from_secs(3), client.send("", "mine", &[b"x"])).await.is_ok()
    };
    let quorum = AMQPValue::LongString("quorum".into());
    Amqp::connect(&amqp).await.queue("mine", &[("x-queue-type", quorum)]).await;
    assert!(is_confirmed().await);

    rabbit.kill();
    rabbit.forget_queues();
    rabbit.start_again();
    assert!(!is_confirmed().await, "this broker needs no runbook");

    let runbook = std::fs::read_to_string(root().join("ops/runbooks/publish_degraded.md")).unwrap();
    let command =
        runbook.lines().find_map(|line| line.strip_prefix("rabbitmqctl eval \"")?.strip_suffix('"')).unwrap();
    rabbit.ctl(&["eval", &command.replace("QUEUE", "mine")]);
    eventually("it takes messages", async || is_confirmed().await.then_some(())).await;
}
