//! The recorded market day through Redis and RabbitMQ: the same receipts, cuts, runs and outputs as in the embedded
//! run.
//!
//! ```text
//! every line, in order ──▶ market.raw ──▶ queue ──▶ orchestrator ──▶ orchestrator.events ──▶ pika
//!                      └─▶ a Redis Stream ─────▶      │ Redis
//!        the same file ──▶ orchestrator --once        ▼
//!                          │ files ───────────────▶ equal
//! ```
//!
//! A queue has no end, so under a recorded clock a boundary that no later receipt follows would stay open. The
//! recording goes on for 14 s after its last boundary, and the embedded run makes no run behind its last receipt: so
//! both know the same runs, and every record is compared, not a prefix. What may differ is said where it is taken out:
//! the position of a receipt in its source, because a queue numbers nothing, and the time of publication.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Confirmation, ExchangeKind};
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::orchestrator_event::events;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::RunSeq;
use serde_json::{Value, json};

use crate::support::amqp::Amqp;
use crate::support::consumer::{Consumer, without_time};
use crate::support::logs::{outputs, recorded_lines, recording, records, run_records};
use crate::support::oracle::{Logs, healed};
use crate::support::process::{Service, eventually, root};
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::subscriber::without_publish_time;

/// The consumer's queue.
const QUEUE: &str = "pika";
/// Lines that the producer sends before it waits for their confirms.
const WINDOW: usize = 1000;

/// The configuration of the recording, as of the embedded one in the end-to-end tests; `deployed` is where it runs.
fn config(mode: &str, data: &Path, deployed: &str) -> String {
    format!(
        r#"
        [service]
        data_dir = {data:?}
        worker_threads = 2
        grace = "1m"
        [clock]
        mode = "recorded"
        [schedule]
        mode = "boundary"
        interval = "15s"
        delay = "500ms"
        [symbols]
        list = ["BTCUSDT", "ETHUSDT"]
        [engine]
        kind = "process"
        mode = "{mode}"
        deadline = "30s"
        [engine.process]
        command = ["python3", "engines/standin_engine.py"]
        workers = 1
        start_deadline = "60s"
        [engine.hysteresis]
        update_interval_ms = 15000
        [http]
        listen = "127.0.0.1:0"
        {deployed}
        "#
    )
}

fn write(config: &str, dir: &Path) -> std::path::PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join("service.toml");
    std::fs::write(&path, config).unwrap();
    path
}

/// What the embedded run of the file makes of the recording.
struct Embedded {
    receipts: Vec<Vec<u8>>,
    runs: Vec<RunRecord>,
    outputs: Vec<String>,
}

impl Embedded {
    async fn run(recording: &Path, mode: &str, dir: &Path) -> Self {
        let data = dir.join("data");
        let source = format!("[sources.capture]\nkind = \"file\"\npath = {recording:?}");
        let path = write(&config(mode, &data, &source), dir);
        let mut service = Service::start(&path, &["--once"]).await;
        let status = service.ended().await;
        assert!(status.success(), "{status:?}:\n{}", service.log());
        Self {
            receipts: records(&data.join("receipts")).await,
            runs: run_records(&data).await,
            outputs: outputs(&data),
        }
    }
}

/// How the recording comes in.
#[derive(Clone, Copy, Debug)]
enum Way {
    Queue,
    Stream,
}

impl Way {
    /// The source has the name of the embedded one, so that the origin of the receipts is the same.
    fn source(self, redis_url: &str, amqp_url: &str) -> String {
        match self {
            Self::Queue => {
                format!("[sources.capture]\nkind = \"rabbitmq\"\nurl = \"{amqp_url}\"\nsingle_active = true")
            }
            Self::Stream => {
                format!(
                    "[sources.capture]\nkind = \"redis_stream\"\nurl = \"{redis_url}\"\nstream = \"market\""
                )
            }
        }
    }

    /// Sends every line in order, each one taken by the server before this returns.
    async fn send(self, lines: &[Vec<u8>], redis: &RedisServer, amqp: &Amqp) {
        match self {
            Self::Queue => publish(lines, amqp).await,
            Self::Stream => add(lines, redis),
        }
    }
}

async fn publish(lines: &[Vec<u8>], amqp: &Amqp) {
    for window in lines.chunks(WINDOW) {
        let mut confirms = Vec::with_capacity(window.len());
        for line in window {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let properties = BasicProperties::default().with_delivery_mode(2);
            let sent =
                amqp.channel().basic_publish("market.raw".into(), "raw".into(), options, line, properties);
            confirms.push(sent.await.unwrap());
        }
        for confirm in confirms {
            assert!(matches!(confirm.await.unwrap(), Confirmation::Ack(None)), "it must be taken and routed");
        }
    }
}

fn add(lines: &[Vec<u8>], redis: &RedisServer) {
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    for window in lines.chunks(WINDOW) {
        let mut pipeline = redis::pipe();
        for line in window {
            pipeline.cmd("XADD").arg("market").arg("*").arg("event").arg(line).ignore();
        }
        pipeline.exec(&mut connection).unwrap();
    }
}

/// Per symbol, the messages that the run log says, as a plain client must see them: DESIGN §5, issue 3.
fn messages(runs: &[RunRecord]) -> BTreeMap<String, Vec<Value>> {
    let mut streams: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (record, run_seq) in runs.iter().zip(1..) {
        for output in events(RunSeq(run_seq), record, None).unwrap() {
            let (run_id, symbol, kind) =
                (output.run_id.to_string(), output.symbol.as_str(), output.event_type);
            streams.entry(symbol.to_owned()).or_default().push(json!({
                "routing_key": format!("orchestrator_event.{kind}.{symbol}"),
                "message_id": format!("{run_id}:{kind}"),
                "correlation_id": run_id,
                "content_type": "application/json",
                "app_id": "orchestrator",
                "type": kind,
                "delivery_mode": 2,
                "headers": {
                    "schema": "orchestrator_event",
                    "schema_version": "1",
                    "symbol": symbol,
                    "symbol_seq": output.symbol_seq,
                    "run_seq": run_seq,
                    "traceparent": format!("00-{}-{}-01", &run_id[..32], &run_id[32..48]),
                },
                "body": without_time(&output.body),
            }));
        }
    }
    streams
}

/// The stored receipts without their positions in the source.
fn without_positions(receipts: &[Vec<u8>]) -> Vec<ReceiptRecord<'_>> {
    let record = |payload| ReceiptRecord { position: 0, ..ReceiptRecord::decode(payload).unwrap() };
    receipts.iter().map(|payload| record(payload)).collect()
}

/// Per symbol, the lines of the outputs file, without the time of publication.
fn by_symbol(lines: &[String]) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut streams: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for line in lines {
        let fields: Value = serde_json::from_str(line).unwrap();
        let symbol = fields["symbol"].as_str().unwrap().to_owned();
        streams.entry(symbol).or_default().push(without_publish_time(line.as_bytes()));
    }
    streams
}

/// Method: the recording once from its file into files, and once through the servers; every record compared.
async fn check_through(way: Way, mode: &str) {
    let Some(recording) = recording() else { return };
    let begin = Instant::now();
    let lines = recorded_lines(&recording);
    let dir = tempfile::Builder::new().prefix("orch-capture-").tempdir().unwrap();
    let embedded = Embedded::run(&recording, mode, &dir.path().join("embedded")).await;
    let embedded_after = begin.elapsed();

    let (redis, rabbit) = (RedisServer::start(), RabbitServer::shared());
    let amqp_url = rabbit.url(&rabbit.vhost());
    let amqp = Amqp::connect(&amqp_url).await;
    amqp.exchange("orchestrator.events", ExchangeKind::Topic, Some("orchestrator.events.unrouted")).await;
    let consumer = Consumer::start(&amqp_url, QUEUE, Some(embedded.outputs.len()), dir.path());
    let deployed = format!(
        r#"
        [storage]
        kind = "redis"
        [redis]
        url = "{redis_url}"
        [publish]
        file = ""
        [publish.rabbitmq]
        url = "{amqp_url}"
        {source}
        "#,
        redis_url = redis.url(),
        source = way.source(&redis.url(), &amqp_url),
    );
    let path = write(&config(mode, &dir.path().join("data"), &deployed), &dir.path().join("deployed"));
    let service = Service::start(&path, &[]).await;
    eventually("the source is open", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
    way.send(&lines, &redis, &amqp).await;
    all_stored(&redis, lines.len()).await;
    healed(&service).await;
    service.stop().await;

    check_verified(&path, &redis.url(), &dir.path().join("data"));

    let logs = Logs::read(&redis.url()).await;
    check_receipts(&logs, &embedded, &lines);
    assert_eq!(logs.runs, embedded.runs, "cuts, run_ids, attempts, times and answers of every run");
    assert_eq!(logs.outputs(), by_symbol(&embedded.outputs));
    let received = consumer.received().await;
    assert_eq!(received, messages(&logs.runs), "what the plain consumer got is what the log says");
    assert_eq!(amqp.ready(QUEUE).await, 0, "and nothing else");
    println!(
        "capture by {way:?}, {mode}: {} receipts, {} run records, {} outputs equal; embedded {:.1} s, in all {:.1} s",
        logs.receipts.len(),
        logs.runs.len(),
        embedded.outputs.len(),
        embedded_after.as_secs_f64(),
        begin.elapsed().as_secs_f64()
    );
}

fn check_receipts(logs: &Logs, embedded: &Embedded, lines: &[Vec<u8>]) {
    assert!(logs.events() == lines, "LOG-4: stored bytes equal published bytes, in order");
    let (deployed, expected) = (without_positions(&logs.receipts), without_positions(&embedded.receipts));
    assert_eq!(deployed.len(), expected.len());
    let differs = deployed.iter().zip(&expected).find(|(deployed, expected)| deployed != expected);
    assert!(differs.is_none(), "sequence, time, origin, symbol, type and snapshot time: {differs:?}");
    let last_planned = logs.runs.iter().map(|record| record.facts.planned_ts_ms).max().unwrap();
    assert!(last_planned < deployed[deployed.len() - 1].ingest_ts_ms, "a receipt follows the last boundary");
}

/// The real command, with the configured engine: everything that is on the server follows from it.
fn check_verified(config: &Path, redis_url: &str, archive: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .args(["verify", "--recompute-state", "--config"])
        .arg(config)
        .args(["--from", redis_url, "--archive"])
        .arg(archive)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{:?} {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("/0, namespace default: equal (168651 receipts, 92 run records"), "{said}");
}

/// Waits until `count` receipts are stored, as long as there is progress.
async fn all_stored(redis: &RedisServer, count: usize) {
    let mut stored = 0;
    while stored < count {
        stored = eventually("more receipts are stored", async || {
            let reply = redis.command(&["XLEN", "orch:{default}:receipts"])?;
            let length = reply.trim().strip_prefix(':')?.parse().ok()?;
            (stored < length).then_some(length)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recording_through_a_queue_is_equal_in_truth_mode() {
    check_through(Way::Queue, "truth").await;
}

/// The way in decides about receipts and the mode about runs, so two pairs show all; the others are in the soak.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recording_through_a_redis_stream_is_equal_in_hysteresis_mode() {
    check_through(Way::Stream, "hysteresis").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_of_the_other_ways_and_modes() {
    if std::env::var_os("ORCHESTRATOR_SOAK_MINUTES").is_none() {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    }
    check_through(Way::Queue, "hysteresis").await;
    check_through(Way::Stream, "truth").await;
}
