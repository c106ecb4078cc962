//! The deployment on a Redis that does not keep what it promised: settings that lose data, no memory, another role, a
//! login that no longer holds, and data that is gone or old. Nothing is acknowledged that is not kept, and a log that
//! lost something is never appended to.

use std::path::Path;
use std::time::Duration;

use crate::support::deployment::Deployment;
use crate::support::process::{Service, eventually};
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::scene::{NOTICED_MAX, Scene, ready, refused, stays_unready, unready_within};

/// Exit code for logs that cannot be trusted.
const DATA: i32 = 65;
/// Exit code for what the operator has to set otherwise.
const CONFIG: i32 = 78;
/// The deployment's `check_interval`.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a fault lasts once it was noticed.
const LASTS: Duration = Duration::from_secs(3);

impl Scene {
    fn set(&self, name: &str, value: &str) {
        let answer = self.redis.command(&["CONFIG", "SET", name, value]).unwrap();
        assert!(answer.starts_with("+OK"), "CONFIG SET {name} {value}: {answer}");
    }

    fn used_memory(&self) -> u64 {
        let info = self.redis.command(&["INFO", "memory"]).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.trim().parse().unwrap()
    }

    /// The service is not ready in time, for a reason that names `word`; from then on nothing is stored as long as the
    /// fault lasts, and the queue keeps what was confirmed.
    async fn refuses_to_store(&self, word: &str) -> Duration {
        let (noticed, said) = self.unready_within(CHECK_INTERVAL + NOTICED_MAX).await;
        assert!(said.contains(word), "it must name {word}: {said}");
        let (tail, confirmed) = (self.tail(), self.load.confirmed());
        self.stays_unready(LASTS).await;
        assert_eq!(self.tail(), tail, "nothing is stored under {word}");
        assert!(confirmed < self.load.confirmed(), "the market goes on");
        noticed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_promise_of_redis_stops_ingestion_until_it_is_kept_again() {
    let scene = Scene::start().await;
    let mut figures = Vec::new();

    scene.set("appendfsync", "everysec");
    let noticed = scene.refuses_to_store("appendfsync always").await;
    scene.set("appendfsync", "always");
    figures.push(("everysec", noticed, scene.heals().await));

    // Large enough that nothing is evicted yet: the setting alone is the fault.
    scene.set("maxmemory", "1gb");
    scene.set("maxmemory-policy", "allkeys-lru");
    let noticed = scene.refuses_to_store("maxmemory-policy noeviction").await;
    scene.set("maxmemory-policy", "noeviction");
    figures.push(("allkeys-lru", noticed, scene.heals().await));

    // Well below what is used: at the limit itself memory that comes and goes lets a small batch pass now and then.
    let exceeded = scene.used_memory() / 2;
    scene.set("maxmemory", &exceeded.to_string());
    let noticed = scene.refuses_to_store("maxmemory").await;
    scene.set("maxmemory", "0");
    figures.push(("out of memory", noticed, scene.heals().await));

    scene.redis.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    let noticed = scene.refuses_to_store("master").await;
    scene.redis.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    figures.push(("read-only", noticed, scene.heals().await));

    let users = ["ACL", "SETUSER", "orchestrator", "resetpass", ">another"];
    assert!(scene.redis.command(&users).unwrap().starts_with("+OK"));
    scene.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    let (noticed, _) = scene.unready_within(NOTICED_MAX).await;
    // First the connection was lost; the reason follows with the next one.
    eventually("the reason is the login", async || {
        let (_, said) = scene.service.get("/readyz").await;
        said.contains("user and password").then_some(())
    })
    .await;
    scene.stays_unready(LASTS).await;
    assert!(scene.redis.command(&["ACL", "LOAD"]).unwrap().starts_with("+OK"));
    figures.push(("login", noticed, scene.heals().await));

    let figures: Vec<String> = figures
        .iter()
        .map(|(fault, noticed, healed)| {
            format!("{fault}: not ready after {noticed:.1?}, healed in {healed:.1?}")
        })
        .collect();
    let end = scene.finish().await;
    println!("{}; {end}", figures.join("; "));
    assert_eq!(end.repeated, 0, "what was refused is stored once");
}

/// Nobody sends anything: only the service itself can find out.
#[tokio::test(flavor = "multi_thread")]
async fn idle_service_is_not_ready_while_redis_breaks_its_promise() {
    let (redis, rabbit) = (RedisServer::start(), RabbitServer::shared());
    let deployment = Deployment::new(&redis.url(), &rabbit.url(&rabbit.vhost()));
    let service = deployment.start().await;
    ready(&service).await;

    for (name, broken, kept) in
        [("appendfsync", "everysec", "always"), ("no-appendfsync-on-rewrite", "yes", "no")]
    {
        redis.command(&["CONFIG", "SET", name, broken]).unwrap();
        let (_, said) = unready_within(&service, CHECK_INTERVAL + NOTICED_MAX).await;
        assert!(said.contains(name), "it must name {name}: {said}");
        stays_unready(&service, LASTS).await;
        redis.command(&["CONFIG", "SET", name, kept]).unwrap();
        ready(&service).await;
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_on_a_redis_that_breaks_promises_is_refused_with_all_of_them() {
    let scene = Scene::start().await;
    let Scene { redis, deployment, service, load, .. } = scene;
    service.stop().await;
    for (name, value) in
        [("appendfsync", "everysec"), ("maxmemory", "1gb"), ("maxmemory-policy", "allkeys-lru")]
    {
        redis.command(&["CONFIG", "SET", name, value]).unwrap();
    }

    let (code, said) = refused(&deployment, &[]).await;

    assert_eq!(code, CONFIG, "{said}");
    assert!(said.contains("appendfsync always") && said.contains("maxmemory-policy noeviction"), "{said}");
    load.stop().await;
}

/// Ends the scene for good: the service has stopped because its log lost something, and touches it no more.
async fn check_never_appends_again(mut scene: Scene, fault: &str) {
    let status = scene.service.ended().await;

    let log = scene.service.log();
    assert_eq!(status.code(), Some(DATA), "{fault}: {log}");
    assert!(log.contains("LOG_REGRESSED"), "{fault}: {log}");
    let (code, said) = refused(&scene.deployment, &[]).await;
    assert_eq!(code, DATA, "{fault}: {said}");
    assert!(said.contains("LOG_REGRESSED"), "{fault}: {said}");
    for log in ["receipts", "quarantine", "runs"] {
        let length = scene.redis.command(&["XLEN", &format!("orch:{{default}}:{log}")]).unwrap();
        assert_eq!(length, ":0\r\n", "{fault}: nothing was written after it");
    }
    println!("{fault}: stopped and stays stopped; {} receipts confirmed", scene.load.confirmed());
    scene.load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushed_redis_ends_the_service_and_is_never_written_again() {
    let scene = Scene::start().await;

    scene.redis.command(&["FLUSHALL"]).unwrap();

    check_never_appends_again(scene, "FLUSHALL").await;
}

/// Method: settings that evict, for as long as it takes to evict the logs; then the settings are right again.
#[tokio::test(flavor = "multi_thread")]
async fn evicted_logs_end_the_service_and_are_never_written_again() {
    let scene = Scene::start().await;

    scene.set("maxmemory-policy", "allkeys-lru");
    scene.set("maxmemory", "100kb");
    eventually("the log is evicted", async || {
        let length = scene.redis.command(&["XLEN", "orch:{default}:receipts"]).unwrap();
        (length == ":0\r\n").then_some(())
    })
    .await;
    scene.set("maxmemory", "0");
    scene.set("maxmemory-policy", "noeviction");

    check_never_appends_again(scene, "eviction").await;
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn exchange_dir(redis: &RedisServer, from: &Path) {
    std::fs::remove_dir_all(redis.aof_dir()).unwrap();
    copy_dir(from, &redis.aof_dir());
}

/// Method: the append-only files of an earlier moment are put back, then those of the last moment.
#[tokio::test(flavor = "multi_thread")]
async fn data_of_an_earlier_moment_is_refused_until_the_later_one_is_back() {
    let mut scene = Scene::start().await;
    let kept = tempfile::tempdir().unwrap();
    let (early, late) = (kept.path().join("early"), kept.path().join("late"));
    let config = scene.deployment.config();

    scene.service.terminate();
    assert!(scene.service.ended().await.success());
    let early_tail = scene.tail();
    scene.redis.shut_down();
    copy_dir(&scene.redis.aof_dir(), &early);
    scene.redis.start_again();
    scene.service = Service::start(&config, &[]).await;
    scene.stores(200).await;
    scene.service.terminate();
    assert!(scene.service.ended().await.success());
    let late_tail = scene.tail();
    scene.redis.shut_down();
    copy_dir(&scene.redis.aof_dir(), &late);
    exchange_dir(&scene.redis, &early);
    scene.redis.start_again();

    let (code, said) = refused(&scene.deployment, &[]).await;

    assert_eq!(code, DATA, "{said}");
    assert!(said.contains("LOG_REGRESSED"), "{said}");
    // Whichever log is looked at first says it.
    assert!(said.matches("up to ").count() >= 2, "{said}");
    assert_eq!(scene.tail(), early_tail, "nothing was appended");
    scene.redis.shut_down();
    exchange_dir(&scene.redis, &late);
    scene.redis.start_again();
    assert_eq!(scene.tail(), late_tail);
    scene.service = Service::start(&config, &[]).await;
    let healed = scene.heals().await;
    let figures = scene.finish().await;
    println!(
        "data of receipt {early_tail} instead of {late_tail} refused, then healed in {healed:.1?}; {figures}"
    );
}
