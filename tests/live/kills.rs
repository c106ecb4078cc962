//! The orchestrator is killed, stopped and frozen under load, with its servers up, down or hung: no receipt that the
//! broker confirmed is lost, no output is missing, and a stop ends in its time.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use orchestrator_kernel::random::Rng;

use crate::support::amqp::Amqp;
use crate::support::deployment::Deployment;
use crate::support::load::Load;
use crate::support::oracle::{Logs, check, healed};
use crate::support::process::{Service, eventually, root};
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::seed::seed;
use crate::support::subscriber::Subscriber;

/// Kills of the service alone, and of it with Redis: a part of a campaign by default, all of it in a soak.
const KILLS: (usize, usize) = (40, 5);
const KILLS_IN_SOAK: (usize, usize) = (100, 10);
/// Of so many kills, one is followed by a kill of the next start before it is up.
const KILLS_A_KILL_IN_START: usize = 5;
/// How long after a fault's end everything may take to be published.
const HEALED_MAX: Duration = Duration::from_secs(30);
/// What half of all starts may take at most; the log's load is within, for there are few receipts (RELIABILITY §6).
const START_MEDIAN_MAX: Duration = Duration::from_secs(2);
/// `service.grace` of the deployment, and what a stop may take beyond it.
const STOP_MAX: Duration = Duration::from_secs(5 + 1);
/// How long the process is frozen: longer than its claim lasts, and than a broker's patience with two lost heartbeats.
const FROZEN: Duration = Duration::from_secs(15);
/// The claim of a killed process would stand for that long: longer than any test waits for a start. So every start here
/// shows that an instance does not wait for its own claim.
const CLAIM: [&str; 2] = ["--set", "redis.writer_ttl=10m"];

/// What happened in a campaign.
#[derive(Default)]
struct Figures {
    kills: usize,
    kills_in_start: usize,
    starts: Vec<Duration>,
}

impl Figures {
    /// Prints the campaign in one line, and checks how long the starts took.
    fn conclude(mut self, name: &str, confirmed: usize, logs: &Logs, healed: Duration) {
        self.starts.sort();
        let median = self.starts[self.starts.len() / 2];
        let events = logs.events();
        let distinct = events.iter().collect::<BTreeSet<_>>().len();
        println!(
            "{name}: {} kills and {} in start, {confirmed} confirmed, {} stored, {} of them again by redelivery, {} run \
             records; start to running p50 {:.2} s, max {:.2} s; healed in {:.2} s",
            self.kills,
            self.kills_in_start,
            events.len(),
            events.len() - distinct,
            logs.runs.len(),
            median.as_secs_f64(),
            self.starts[self.starts.len() - 1].as_secs_f64(),
            healed.as_secs_f64(),
        );
        assert!(median <= START_MEDIAN_MAX, "half of the starts took more than {median:?}");
    }
}

/// The servers, the service's configuration, and a subscriber that is there from the beginning.
struct Site {
    redis: RedisServer,
    amqp_url: String,
    deployment: Deployment,
    subscriber: Subscriber,
}

impl Site {
    async fn new(amqp_url: String) -> Self {
        let redis = RedisServer::start();
        let deployment = Deployment::new(&redis.url(), &amqp_url);
        let subscriber = Subscriber::start(&amqp_url, "everything").await;
        Self { redis, amqp_url, deployment, subscriber }
    }

    async fn start(&self) -> Service {
        Service::start(&self.deployment.config(), &CLAIM).await
    }

    /// Receipts on the server.
    fn stored(&self) -> Option<usize> {
        let reply = self.redis.command(&["XLEN", "orch:{default}:receipts"])?;
        reply.trim().strip_prefix(':')?.parse().ok()
    }

    /// Starts the service and waits until it has stored so many more receipts than before.
    async fn live(&self, more: usize, figures: &mut Figures) -> Service {
        let before = eventually("redis answers", async || self.stored()).await;
        let since = Instant::now();
        let service = self.start().await;
        figures.starts.push(since.elapsed());
        eventually("receipts are stored", async || self.stored().filter(|stored| before + more <= *stored))
            .await;
        service
    }

    /// Starts the service when a server goes on again; tells how long it takes until everything is published.
    async fn heals(&self, figures: &mut Figures) -> (Service, Duration) {
        let freed = Instant::now();
        let service = self.live(500, figures).await;
        healed(&service).await;
        (service, freed.elapsed())
    }

    /// Starts the service and kills it `after` that, whatever it is doing then.
    async fn kill_in_start(&self, after: Duration) {
        let mut starting = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
            .arg("run")
            .arg("--config")
            .arg(self.deployment.config())
            .args(CLAIM)
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(after).await;
        assert_eq!(starting.try_wait().unwrap(), None, "it must not end by itself");
        starting.kill().unwrap();
        starting.wait().unwrap();
    }

    /// Ends the load, waits until everything is stored and published, stops the service and asks the oracle. `freed` is
    /// when the last fault ended. Returns how many receipts were confirmed, the logs, and how long healing took.
    async fn finish(&self, service: Service, load: Load, freed: Instant) -> (usize, Logs, Duration) {
        let confirmed = load.stop().await;
        self.queue_is_done().await;
        healed(&service).await;
        let took = freed.elapsed();
        service.stop().await;
        assert!(took <= HEALED_MAX, "it took {took:?} after the last fault");
        let logs = check(self.deployment.redis_url(), &confirmed, &self.subscriber).await;
        (confirmed.len(), logs, took)
    }

    /// Sends one more receipt; when it is the last one of the log, all before it in the queue are stored.
    async fn queue_is_done(&self) {
        let last = br#"{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"live","symbol":"BTCUSDT","exchange_ts_ms":1,"recv_ts_ms":1,"raw_payload":"the last receipt","normalized":{"price":1.5,"quantity":1,"side":"buy"}}"#;
        Amqp::connect(&self.amqp_url).await.send("market.raw", "raw", &[last]).await;
        eventually("the last receipt is stored", async || {
            let newest =
                self.redis.command(&["XREVRANGE", "orch:{default}:receipts", "+", "-", "COUNT", "1"])?;
            newest.contains("the last receipt").then_some(())
        })
        .await;
    }
}

/// Method: start, wait until a few hundred more receipts are stored, kill at a moment that the seed chooses, and again;
/// then the same with Redis killed as well, sometimes before the service and sometimes after it.
async fn check_kills(seed: u64, (alone, with_redis): (usize, usize)) {
    println!("SEED={seed}");
    let mut dice = Rng::new(seed);
    let mut figures = Figures::default();
    let rabbit = RabbitServer::shared();
    let mut site = Site::new(rabbit.url(&rabbit.vhost())).await;
    let load = Load::start(&site.amqp_url);

    for kill in 1..=alone {
        let service = site.live(200 + dice.next_index(200), &mut figures).await;
        tokio::time::sleep(Duration::from_millis(dice.next_below(200))).await;
        service.kill();
        figures.kills += 1;
        if kill % KILLS_A_KILL_IN_START == 0 {
            site.kill_in_start(Duration::from_millis(dice.next_below(500))).await;
            figures.kills_in_start += 1;
        }
    }
    for _ in 0..with_redis {
        let service = site.live(200 + dice.next_index(200), &mut figures).await;
        tokio::time::sleep(Duration::from_millis(dice.next_below(200))).await;
        if dice.next_index(2) == 0 {
            site.redis.kill();
            tokio::time::sleep(Duration::from_millis(dice.next_below(100))).await;
            service.kill();
        } else {
            service.kill();
            site.redis.kill();
        }
        site.redis.start_again();
        figures.kills += 1;
    }

    let freed = Instant::now();
    let service = site.live(1, &mut figures).await;
    let (confirmed, logs, took) = site.finish(service, load, freed).await;
    figures.conclude("kills of the orchestrator, the last ones with redis", confirmed, &logs, took);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_lose_nothing_and_those_with_redis_neither() {
    check_kills(seed(), KILLS).await;
}

/// The same with other seeds for as long as `ops/test --soak MINUTES` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_of_kills_on_servers() {
    let Ok(minutes) = std::env::var("ORCHESTRATOR_SOAK_MINUTES") else {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    };
    let end = Instant::now() + Duration::from_secs(60 * minutes.parse::<u64>().unwrap());
    let mut seeds = seed()..;
    while Instant::now() < end {
        check_kills(seeds.next().unwrap(), KILLS_IN_SOAK).await;
    }
}

/// Asks for a stop that cannot be finished: it ends in its time, and says so by its exit code.
async fn stops_unfinished(mut service: Service, why: &str) -> Duration {
    let since = Instant::now();
    service.terminate();
    let status = service.ended().await;
    let took = since.elapsed();
    assert!(took <= STOP_MAX, "{why}: a stop may take {STOP_MAX:?}, and took {took:?}:\n{}", service.log());
    assert!(status.code().is_some_and(|code| code != 0), "{why}: {status:?}:\n{}", service.log());
    took
}

/// What the service says about itself at `/health`.
async fn health(service: &Service) -> serde_json::Value {
    serde_json::from_str(&service.get("/health").await.1).unwrap()
}

/// Method: one load over all of it. A stop while Redis hangs, a stop while the broker hangs, and a freeze that outlives
/// heartbeats and claims.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_with_a_hung_server_ends_in_time_and_a_frozen_process_goes_on() {
    let mut figures = Figures::default();
    let mut rabbit = RabbitServer::own();
    let site = Site::new(rabbit.url(RabbitServer::SHIPPED_VHOST)).await;
    let load = Load::start(&site.amqp_url);

    let service = site.live(500, &mut figures).await;
    site.redis.pause();
    eventually("it is not ready", async || (service.get("/readyz").await.0 != 200).then_some(())).await;
    let without_redis = stops_unfinished(service, "redis hangs").await;
    site.redis.resume();
    let (service, after_redis) = site.heals(&mut figures).await;

    rabbit.pause();
    let has_backlog = async || (health(&service).await["outputs"]["backlog"] != 0).then_some(());
    eventually("outputs wait", has_backlog).await;
    let without_rabbit = stops_unfinished(service, "the broker hangs").await;
    rabbit.resume();
    let (service, after_rabbit) = site.heals(&mut figures).await;

    let frozen_at = eventually("redis answers", async || site.stored()).await;
    service.pause();
    // The freeze itself, not a wait for anything.
    tokio::time::sleep(FROZEN).await;
    service.resume();
    let freed = Instant::now();
    eventually("it stores again", async || site.stored().filter(|stored| frozen_at + 500 <= *stored)).await;
    healed(&service).await;
    let after_freeze = freed.elapsed();
    let (confirmed, logs, took) = site.finish(service, load, freed).await;

    for took in [after_redis, after_rabbit, after_freeze] {
        assert!(took <= HEALED_MAX, "{took:?}");
    }
    println!(
        "stops: {without_redis:.2?} with redis hung, {without_rabbit:.2?} with the broker hung; healed {after_redis:.2?} \
         and {after_rabbit:.2?} after they went on, and {after_freeze:.2?} after a freeze of {FROZEN:?}"
    );
    figures.conclude("stops and a freeze", confirmed, &logs, took);
}
