//! The shipped deployment under load while Redis, RabbitMQ and the service itself are killed with −9, one after the
//! other in an order that the seed chooses, with rewrites of the append-only file between: receipts, outputs and the
//! kill switch are intact, as `orchestrator verify`, the exported logs and a plain consumer tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use orchestrator_kernel::random::Rng;
use serde_json::Value;

use crate::support::amqp::Amqp;
use crate::support::consumer::{Consumer, without_time};
use crate::support::load::Load;
use crate::support::logs::message_id;
use crate::support::oracle::healed;
use crate::support::process::{Service, eventually};
use crate::support::production::Production;
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::seed::seed;

/// How many kills there are.
struct Plan {
    redis: usize,
    /// Of those, kills while the kill switch is engaged.
    engaged: usize,
    rabbit: usize,
    service: usize,
}

/// What the default suite has of it.
const PART: Plan = Plan { redis: 6, engaged: 3, rabbit: 1, service: 6 };
const WHOLE: Plan = Plan { redis: 50, engaged: 20, rabbit: 10, service: 50 };
/// Receipts that must be stored after a fault before the next one comes.
const STORED_BETWEEN: f64 = 100.0;
/// Of so many kills of the service, one is followed by a kill of the next start before it is up.
const KILLS_A_KILL_IN_START: usize = 5;
/// Of so many kills of Redis, one takes the service with it.
const KILLS_A_COMMON_KILL: usize = 4;
/// The consumer's queue, as its shipped user may name it.
const QUEUE: &str = "subscriber.everything";
/// The receipt that is sent last.
const LAST: &str = r#"{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"live","symbol":"BTCUSDT","exchange_ts_ms":1,"recv_ts_ms":1,"raw_payload":"the last receipt","normalized":{"price":1.5,"quantity":1,"side":"buy"}}"#;

#[derive(Clone, Copy)]
enum Fault {
    Redis { is_engaged: bool },
    Rabbit,
    Service,
}

impl Plan {
    /// Its faults in the order of the dice.
    fn shuffled(&self, dice: &mut Rng) -> Vec<Fault> {
        let redis = (0..self.redis).map(|kill| Fault::Redis { is_engaged: kill < self.engaged });
        let others = std::iter::repeat_n(Fault::Rabbit, self.rabbit);
        let services = std::iter::repeat_n(Fault::Service, self.service);
        let mut faults: Vec<Fault> = redis.chain(others).chain(services).collect();
        for last in (1..faults.len()).rev() {
            faults.swap(last, dice.next_index(last + 1));
        }
        faults
    }
}

/// Times of one kind, to be told.
#[derive(Default)]
struct Times(Vec<Duration>);

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort();
        let (Some(longest), middle) = (sorted.last(), sorted.len() / 2) else { return write!(f, "none") };
        write!(f, "{}, p50 {:.2?}, max {longest:.2?}", sorted.len(), sorted[middle])
    }
}

/// What happened.
#[derive(Default)]
struct Figures {
    /// From the start of a killed Redis to stored receipts.
    redis: Times,
    /// The same of the broker.
    rabbit: Times,
    /// From the start of the service until it is up.
    starts: Times,
    kills_in_start: usize,
    common: usize,
    rewrites: usize,
    engaged: usize,
}

/// The deployment, and what the operator of its kill switch said last.
struct Site {
    redis: RedisServer,
    rabbit: RabbitServer,
    production: Production,
    is_engaged: bool,
    dice: Rng,
    figures: Figures,
}

impl Site {
    /// Whatever the fault was, the service stores receipts again, and the kill switch is as the operator left it.
    async fn goes_on(&self, service: &Service) {
        let stored = async || service.metric("orch_buffer_records").await;
        let enough = stored().await + STORED_BETWEEN;
        eventually("receipts are stored", async || (enough <= stored().await).then_some(())).await;
        let (code, said) = self.production.kill_switch(&["status"]);
        assert_eq!(code, i32::from(self.is_engaged), "engaged: {}; {said}", self.is_engaged);
        let state = if self.is_engaged { "halted" } else { "trading" };
        let series = format!("orch_kill_switch_state{{state=\"{state}\"}}");
        eventually(&series, async || (service.metric(&series).await == 1.0).then_some(())).await;
    }

    /// What the operator does when the switch is to be another way.
    fn operate(&mut self, is_engaged: bool) {
        match (self.is_engaged, is_engaged) {
            (false, true) => self.production.operate(&["engage", "--reason", "test"]),
            (true, false) => self.production.operate(&["disengage"]),
            (true, true) | (false, false) => {}
        }
        self.is_engaged = is_engaged;
    }

    async fn start(&mut self) -> Service {
        let since = Instant::now();
        let service = self.production.start().await;
        self.figures.starts.0.push(since.elapsed());
        service
    }

    /// Some time in which the load goes on, so that a kill comes at any moment of it.
    async fn pass(&mut self, up_to: u64) {
        tokio::time::sleep(Duration::from_millis(self.dice.next_below(up_to))).await;
    }

    /// Begins a rewrite of the append-only file; waits for its end, or not.
    async fn rewrite(&mut self, to_its_end: bool) {
        let begun = self.redis.command(&["BGREWRITEAOF"]).unwrap();
        assert!(begun.starts_with('+'), "{begun}");
        self.figures.rewrites += 1;
        let is_done = async || {
            let info = self.redis.command(&["INFO", "persistence"])?;
            let runs = info.contains("rewrite_in_progress:1") || info.contains("rewrite_scheduled:1");
            (!runs).then_some(())
        };
        if to_its_end {
            eventually("the file is rewritten", is_done).await;
        }
    }

    async fn kill_redis(&mut self, service: Service, is_engaged: bool) -> Service {
        self.operate(is_engaged);
        self.figures.engaged += usize::from(is_engaged);
        match self.dice.next_index(3) {
            0 => {}
            kind => self.rewrite(kind == 1).await,
        }
        self.pass(200).await;
        let service = if self.dice.next_index(KILLS_A_COMMON_KILL) > 0 {
            self.redis.kill();
            Some(service)
        } else {
            self.figures.common += 1;
            if self.dice.next_index(2) == 0 {
                self.redis.kill();
                self.pass(100).await;
                service.kill();
            } else {
                service.kill();
                self.redis.kill();
            }
            None
        };
        let since = Instant::now();
        self.redis.start_again();
        let service = match service {
            Some(service) => service,
            None => self.start().await,
        };
        self.goes_on(&service).await;
        self.figures.redis.0.push(since.elapsed());
        service
    }

    async fn kill_rabbit(&mut self, service: Service) -> Service {
        self.pass(200).await;
        self.rabbit.kill();
        let since = Instant::now();
        self.rabbit.start_again();
        self.goes_on(&service).await;
        self.figures.rabbit.0.push(since.elapsed());
        service
    }

    async fn kill_service(&mut self, service: Service) -> Service {
        self.pass(200).await;
        service.kill();
        if self.dice.next_index(KILLS_A_KILL_IN_START) == 0 {
            self.kill_in_start().await;
        }
        let service = self.start().await;
        self.goes_on(&service).await;
        service
    }

    /// Starts the service and kills it soon after, whatever it is doing then.
    async fn kill_in_start(&mut self) {
        self.figures.kills_in_start += 1;
        let mut starting = self.production.command(&["run"]).spawn().unwrap();
        self.pass(500).await;
        assert_eq!(starting.try_wait().unwrap(), None, "it must not end by itself");
        starting.kill().unwrap();
        starting.wait().unwrap();
    }

    /// Waits until everything that was sent is stored and published, and stops the service; `verify` agrees with what
    /// it recorded.
    async fn finish(&mut self, service: Service) {
        self.operate(false);
        let producer = Amqp::connect(&Production::rabbit_url("producer", &self.rabbit)).await;
        producer.send("market.raw", "raw", &[LAST.as_bytes()]).await;
        eventually("the last receipt is stored", async || {
            let newest =
                self.redis.command(&["XREVRANGE", "orch:{production}:receipts", "+", "-", "COUNT", "1"])?;
            newest.contains("the last receipt").then_some(())
        })
        .await;
        healed(&service).await;
        service.stop().await;
        let inspector = Amqp::connect(&self.rabbit.url(RabbitServer::SHIPPED_VHOST)).await;
        for queue in ["orchestrator.receipts", "orchestrator.receipts.dead", "orchestrator.events.unrouted"] {
            assert_eq!(inspector.ready(queue).await, 0, "{queue} is empty");
        }
    }
}

/// The exported receipts: whatever the broker confirmed is there, byte for byte, and nothing that nobody sent.
fn check_receipts(exported: &Path, confirmed: &[Vec<u8>], unknown: &[Vec<u8>]) -> usize {
    let text = std::fs::read(exported.join("raw_market_events.jsonl")).unwrap();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let stored: BTreeSet<&[u8]> = lines.iter().copied().collect();
    let missing = confirmed.iter().filter(|receipt| !stored.contains(receipt.as_slice())).count();
    assert_eq!(missing, 0, "of {} confirmed receipts some are missing", confirmed.len());
    let sent: BTreeSet<&[u8]> = confirmed.iter().chain(unknown).map(Vec::as_slice).collect();
    let strange: Vec<_> =
        stored.iter().filter(|line| !sent.contains(*line) && **line != LAST.as_bytes()).collect();
    assert!(strange.is_empty(), "nobody sent {}", String::from_utf8_lossy(strange[0]));
    lines.len()
}

/// Every exported output came to the plain consumer, per symbol in order and with its bytes, and no other one.
async fn check_outputs(exported: &Path, consumer: &Consumer) -> usize {
    let text = std::fs::read_to_string(exported.join("orchestrator_events.jsonl")).unwrap();
    let expected: BTreeSet<String> = text.lines().map(message_id).collect();
    let came = async || expected.is_subset(&consumer.ids()).then_some(());
    eventually("the consumer has every output", came).await;
    let mut said: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        said.entry(event["symbol"].as_str().unwrap().to_owned())
            .or_default()
            .push(without_time(line.as_bytes()));
    }
    let bodies = |messages: Vec<Value>| messages.into_iter().map(|message| message["body"].clone()).collect();
    let got: BTreeMap<String, Vec<Value>> =
        consumer.streams().into_iter().map(|(symbol, messages)| (symbol, bodies(messages))).collect();
    for (symbol, outputs) in &said {
        assert!(got.get(symbol) == Some(outputs), "the outputs of {symbol} are not what came");
    }
    assert_eq!(got.len(), said.len(), "outputs of a symbol that nobody knows");
    expected.len()
}

async fn check_endurance(seed: u64, plan: &Plan) {
    println!("SEED={seed}");
    let began = Instant::now();
    let (redis, rabbit) = (RedisServer::start(), RabbitServer::own());
    let production = Production::on(&redis, &rabbit);
    production.operate(&["init"]);
    let subscriber = Production::rabbit_url("subscriber", &rabbit);
    let consumer = Consumer::start(&subscriber, QUEUE, None, production.dir());
    let producer = rabbit.url(RabbitServer::SHIPPED_VHOST);
    let mut dice = Rng::new(seed);
    let faults = plan.shuffled(&mut dice);
    let mut site = Site { redis, rabbit, production, is_engaged: false, dice, figures: Figures::default() };
    let mut service = site.production.start().await;
    let load = Load::start(&producer);
    site.goes_on(&service).await;

    for fault in faults {
        service = match fault {
            Fault::Redis { is_engaged } => site.kill_redis(service, is_engaged).await,
            Fault::Rabbit => site.kill_rabbit(service).await,
            Fault::Service => site.kill_service(service).await,
        };
    }

    let (confirmed, unknown) = load.stop_and_tell_all().await;
    site.finish(service).await;
    let exported = site.production.export();
    let stored = check_receipts(&exported, &confirmed, &unknown);
    let outputs = check_outputs(&exported, &consumer).await;
    assert!(0 < outputs, "it ran for too short a time");
    let (came, redelivered) = consumer.counts();
    let Figures { redis, rabbit, starts, kills_in_start, common, rewrites, engaged } = &site.figures;
    println!(
        "endurance: {:.0?} in all; kills of redis until receipts are stored: {redis} ({engaged} with the kill switch \
         engaged, {common} with the service, {rewrites} rewrites); of rabbitmq: {rabbit}; of the service: {} and \
         {kills_in_start} in a start, starts: {starts}; {} receipts confirmed, {} unknown, {stored} stored; {outputs} outputs, \
         {came} came to the consumer, {redelivered} of them again from the broker",
        began.elapsed(),
        plan.service,
        confirmed.len(),
        unknown.len(),
    );
}

/// A part of [`soak_of_the_shipped_deployment`] that fits into every run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_deployment_survives_kills_of_everything() {
    check_endurance(seed(), &PART).await;
}

/// 50 kills of Redis, 20 of them with the kill switch engaged, 10 of RabbitMQ and 50 of the service; again with other
/// seeds for as long as `ops/test --soak MINUTES` says, and once in any case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_of_the_shipped_deployment() {
    let Ok(minutes) = std::env::var("ORCHESTRATOR_SOAK_MINUTES") else {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    };
    let end = Instant::now() + Duration::from_secs(60 * minutes.parse::<u64>().unwrap());
    let mut seeds = seed()..;
    loop {
        check_endurance(seeds.next().unwrap(), &WHOLE).await;
        if end < Instant::now() {
            return;
        }
    }
}
