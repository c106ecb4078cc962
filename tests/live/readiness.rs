//! Readiness, sampled every ten milliseconds, while servers fail: lost once and in time, with its reason all the while,
//! and back only after the proof; and never lost by what people do that blocks nothing.

use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;

use crate::support::amqp::Amqp;
use crate::support::campaign::{Campaign, Setup};
use crate::support::process::{Service, eventually};
use crate::support::proxy::{Fault, FaultProxy, Reach};
use crate::support::rabbit_server::RabbitServer;
use crate::support::readiness::SAID_MAX;
use crate::support::redis_server::RedisServer;
use crate::support::scene::{Scene, ready};

/// How long an outage lasts.
const LASTS: Duration = Duration::from_secs(3);
/// How long readiness must stay once it is back.
const CALM: Duration = Duration::from_secs(1);
/// When the broker says nothing any more, only a heartbeat can tell.
const HEARTBEAT_MAX: Duration = Duration::from_secs(30);
/// What Redis promises is asked for this often.
const CHECKED_EVERY: Duration = Duration::from_secs(5);

/// Method: the fault, some time, its end, and the service ready again. Returns how soon it was said.
async fn check_outage<R>(
    service: &Service,
    what: &str,
    (word, said_max): (&str, Duration),
    rig: &mut R,
    fault: impl FnOnce(&mut R),
    heal: impl FnOnce(&mut R),
) {
    let readiness = service.watch_readiness().await;
    let begun = Instant::now();
    fault(rig);
    eventually(what, async || (service.get("/readyz").await.0 == 503).then_some(())).await;
    tokio::time::sleep(LASTS).await;
    let healed = Instant::now();
    heal(rig);
    ready(service).await;
    tokio::time::sleep(CALM).await;
    let said = readiness.end().lost_once(word, begun, said_max, healed);
    println!("{what}: said after {said:.1?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_redis_are_said_once_until_they_are_over() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::to(redis.port());
    let url = format!("redis://127.0.0.1:{}/0", proxy.port());
    let scene = Scene::on(redis, &url, &[]).await;
    let Scene { mut redis, deployment, service, load, subscriber } = scene;
    let failing = ("append_failing", SAID_MAX);

    check_outage(&service, "kill -9", failing, &mut redis, RedisServer::kill, RedisServer::start_again).await;
    check_outage(&service, "restart", failing, &mut redis, RedisServer::shut_down, RedisServer::start_again)
        .await;
    check_outage(&service, "frozen", failing, &mut redis, |redis| redis.pause(), |redis| redis.resume())
        .await;
    let black_hole = |_: &mut RedisServer| proxy.put(Fault::BlackHole, Reach::All);
    check_outage(&service, "black hole", failing, &mut redis, black_hole, |_| proxy.heal()).await;
    let resets = |_: &mut RedisServer| proxy.put(Fault::Reset, Reach::All);
    check_outage(&service, "resets", failing, &mut redis, resets, |_| proxy.heal()).await;

    Scene { redis, deployment, service, load, subscriber }.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_promises_of_redis_are_said_once_until_they_are_kept() {
    let scene = Scene::start().await;
    let Scene { mut redis, deployment, service, load, subscriber } = scene;
    let asked = CHECKED_EVERY + SAID_MAX;
    let set = |name: &'static str, value: &'static str| {
        move |redis: &mut RedisServer| drop(redis.command(&["CONFIG", "SET", name, value]).unwrap())
    };

    let word = ("appendfsync", asked);
    let (fault, heal) = (set("appendfsync", "everysec"), set("appendfsync", "always"));
    check_outage(&service, "everysec", word, &mut redis, fault, heal).await;
    let word = ("maxmemory", asked);
    let (fault, heal) = (set("maxmemory", "1mb"), set("maxmemory", "0"));
    check_outage(&service, "no memory", word, &mut redis, fault, heal).await;
    let fault = |redis: &mut RedisServer| drop(redis.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap());
    let heal = |redis: &mut RedisServer| drop(redis.command(&["REPLICAOF", "NO", "ONE"]).unwrap());
    check_outage(&service, "read-only", ("append_failing", asked), &mut redis, fault, heal).await;
    let lacks = |redis: &mut RedisServer| {
        drop(redis.command(&["ACL", "SETUSER", "default", "-xadd"]).unwrap());
    };
    let has = |redis: &mut RedisServer| drop(redis.command(&["ACL", "SETUSER", "default", "+@all"]).unwrap());
    check_outage(&service, "default user", ("append_failing", asked), &mut redis, lacks, has).await;
    let lost = |redis: &mut RedisServer| {
        redis.command(&["ACL", "SETUSER", "orchestrator", "resetpass", ">another"]).unwrap();
        redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    };
    let back = |redis: &mut RedisServer| drop(redis.command(&["ACL", "LOAD"]).unwrap());
    check_outage(&service, "login", ("append_failing", SAID_MAX), &mut redis, lost, back).await;

    Scene { redis, deployment, service, load, subscriber }.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_redis_is_said_once_until_there_is_room() {
    let redis = RedisServer::on_small_disk(64);
    let url = redis.url();
    let scene = Scene::on(redis, &url, &[]).await;
    let Scene { mut redis, deployment, service, load, subscriber } = scene;

    let readiness = service.watch_readiness().await;
    redis.disk().fill();
    eventually("it is said", async || (service.get("/readyz").await.0 == 503).then_some(())).await;
    let full = Instant::now();
    tokio::time::sleep(LASTS).await;
    redis.disk().make_room();
    let healed = Instant::now();
    redis.kill();
    redis.start_again();
    ready(&service).await;
    tokio::time::sleep(CALM).await;
    readiness.end().lost_once("append_failing", full, SAID_MAX, healed);

    Scene { redis, deployment, service, load, subscriber }.finish().await;
}

/// Method: kill −9, a freeze, connections closed while the login does not hold, and the same for a virtual host.
#[tokio::test(flavor = "multi_thread")]
async fn outages_of_the_broker_are_said_once_until_they_are_over() {
    let mut rabbit = RabbitServer::own();
    let amqp = rabbit.url(RabbitServer::SHIPPED_VHOST);
    let mut campaign = Campaign::start(&amqp, Setup::default()).await;
    // Takes some time, which must not count as the fault's.
    rabbit.note_queues();
    // A broker that takes long to start holds outputs up too, and they are confirmed after the source is back.
    let down = ("source_down|publish_blocked", SAID_MAX);

    let service = &campaign.service;
    check_outage(service, "kill -9", down, &mut rabbit, RabbitServer::kill, RabbitServer::start_again).await;
    campaign.heals("kill -9").await;
    let frozen = ("source_down|publish_blocked", HEARTBEAT_MAX);
    let service = &campaign.service;
    check_outage(service, "frozen", frozen, &mut rabbit, RabbitServer::pause, RabbitServer::resume).await;
    campaign.heals("frozen").await;

    campaign.finish(Vec::new()).await;
}

/// Method: the alarm comes with the next output; while it lasts the connections are closed, which ends no alarm.
#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_of_the_broker_is_said_until_it_takes_messages_again() {
    let mut rabbit = RabbitServer::own();
    let vhost = RabbitServer::SHIPPED_VHOST;
    let amqp = rabbit.url(vhost);
    let mut campaign = Campaign::start(&amqp, Setup::default()).await;

    let readiness = campaign.service.watch_readiness().await;
    rabbit.set_memory_alarm(true);
    campaign.unready("fan_out_blocked").await;
    let said = Instant::now();
    tokio::time::sleep(LASTS).await;
    rabbit.close_connections(vhost);
    tokio::time::sleep(LASTS).await;
    let healed = Instant::now();
    rabbit.set_memory_alarm(false);
    campaign.heals("an alarm over closed connections").await;
    tokio::time::sleep(CALM).await;
    // What waited meanwhile may be too much for a moment: publish_blocked.
    readiness.end().lost_once("_blocked", said, Duration::ZERO, healed);

    campaign.finish(Vec::new()).await;
}

/// Method: the queue of the receipts is deleted; the service declares it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_of_receipts_is_said_once() {
    let rabbit = RabbitServer::shared();
    let amqp = rabbit.url(&rabbit.vhost());
    let campaign = Campaign::start(&amqp, Setup { declares: true, ..Setup::default() }).await;
    let admin = Amqp::connect(&amqp).await;

    let readiness = campaign.service.watch_readiness().await;
    let deleted = Instant::now();
    admin
        .channel()
        .queue_delete("orchestrator.receipts".into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    eventually("it is noticed", async || campaign.service.log().contains("source failed").then_some(()))
        .await;
    ready(&campaign.service).await;
    tokio::time::sleep(CALM).await;

    readiness.end().lost_once("source_down", deleted, SAID_MAX, deleted);
    campaign.service.stop_unverified().await;
}

/// Method: a stream source whose server is killed and frozen; then its key becomes no stream, which is for good.
#[tokio::test(flavor = "multi_thread")]
async fn outages_of_a_streams_server_are_said_once_until_they_are_over() {
    let mut redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
         [schedule]\ninterval = \"1h\"\n[sources.feed]\nkind = \"redis_stream\"\nurl = {:?}\nstream = \"receipts\"\n",
        dir.path().join("data"),
        redis.url()
    );
    std::fs::write(&config, text).unwrap();
    let service = Service::start(&config, &[]).await;
    let down = ("source_down", SAID_MAX);

    check_outage(&service, "kill -9", down, &mut redis, RedisServer::kill, RedisServer::start_again).await;
    check_outage(&service, "frozen", down, &mut redis, |redis| redis.pause(), |redis| redis.resume()).await;

    let readiness = service.watch_readiness().await;
    let fault = Instant::now();
    redis.command(&["SET", "receipts", "text"]).unwrap();
    eventually("it is said", async || (service.get("/readyz").await.0 == 503).then_some(())).await;
    tokio::time::sleep(LASTS).await;
    readiness.end().lost_for_good("source_down", fault, SAID_MAX);
    service.stop_unverified().await;
}
