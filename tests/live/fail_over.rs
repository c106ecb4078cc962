//! A second host with a data directory of its own on the same Redis: it starts on all that was acknowledged, and on
//! nothing less, unless the operator says so. A second mark in a file that both reach tells it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use orchestrator_kernel::random::Rng;
use serde_json::{Value, json};

use crate::support::process::{PATIENCE, Service, eventually, root};
use crate::support::redis_server::RedisServer;
use crate::support::seed::seed;

/// Exit codes: logs that cannot be trusted, something that does not answer, logs that another one holds.
const DATA: i32 = 65;
const UNAVAILABLE: i32 = 69;
const HELD: i32 = 75;
/// How old the second mark may be while its place answers.
const MARK_AGE_MAX: Duration = Duration::from_secs(1);

/// What all hosts share: the mark, and a client that posts numbered receipts.
struct Site {
    dir: tempfile::TempDir,
    client: std::sync::OnceLock<reqwest::Client>,
}

/// One machine: its data directory and its configuration file.
struct Machine {
    dir: tempfile::TempDir,
    redis_url: String,
    mark: Option<PathBuf>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("orch-site-").tempdir().unwrap();
        std::fs::create_dir(dir.path().join("nfs")).unwrap();
        Self { dir, client: std::sync::OnceLock::new() }
    }

    /// The folder of the mark, on a medium that can go away.
    fn nfs(&self) -> PathBuf {
        self.dir.path().join("nfs")
    }

    fn mark(&self) -> PathBuf {
        self.nfs().join("marks")
    }

    /// A machine that knows nothing yet.
    fn machine(&self, redis: &RedisServer) -> Machine {
        let dir = tempfile::Builder::new().prefix("orch-machine-").tempdir().unwrap();
        Machine { dir, redis_url: redis.url(), mark: Some(self.mark()) }
    }

    /// Posts receipts of producer `p` with these numbers, and waits for their acknowledgement.
    async fn post(&self, service: &Service, numbers: std::ops::RangeInclusive<u64>) -> bool {
        let lines: Vec<String> = numbers.clone().map(receipt).collect();
        let request = self
            .client
            // Not before the first service: that installs what it needs.
            .get_or_init(reqwest::Client::new)
            .post(format!("{}/api/v1/receipts", service.url))
            .header("content-type", "application/x-ndjson")
            .header("orchestrator-producer", "p")
            .header("orchestrator-sequence", numbers.start().to_string());
        let answer = request.body(lines.join("\n")).send().await;
        answer.is_ok_and(|answer| answer.status().as_u16() == 200)
    }

    /// As [`post`](Self::post), in batches of 500.
    async fn fill(&self, service: &Service, numbers: std::ops::RangeInclusive<u64>) {
        for first in numbers.clone().step_by(500) {
            let last = (first + 499).min(*numbers.end());
            assert!(self.post(service, first..=last).await, "{first} to {last}: {}", service.log());
        }
    }

    /// The receipts' tail in the second mark.
    fn noted(&self) -> u64 {
        let text = std::fs::read_to_string(self.mark()).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("receipts "));
        line.and_then(|line| line.split(' ').nth(3)?.parse().ok()).unwrap_or(0)
    }

    async fn noted_up_to(&self, tail: u64) {
        eventually("the second mark is noted", async || (self.noted() == tail).then_some(())).await;
    }
}

impl Machine {
    fn config(&self) -> PathBuf {
        let mark = self
            .mark
            .as_ref()
            .map_or(String::new(), |path| format!("[redis.mark]\nkind = \"file\"\npath = {path:?}\n"));
        let text = format!(
            r#"
            [service]
            data_dir = {data:?}
            grace = "5s"
            [storage]
            kind = "redis"
            [redis]
            url = "{redis}"
            response_timeout = "500ms"
            check_interval = "500ms"
            writer_ttl = "1s"
            {mark}
            [sources.intake]
            kind = "http"
            [schedule]
            interval = "1h"
            [publish]
            file = ""
            [http]
            listen = "127.0.0.1:0"
            "#,
            data = self.data(),
            redis = self.redis_url,
        );
        let path = self.dir.path().join("service.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    async fn start(&self, args: &[&str]) -> Service {
        Service::start(&self.config(), args).await
    }

    /// Starts although it must refuse to: exit code, and what it said.
    async fn refused(&self, args: &[&str]) -> (i32, String) {
        self.run(&[&["run"], args].concat()).await
    }

    /// What `log stat` says.
    async fn stat(&self) -> (i32, String) {
        self.run(&["log", "stat"]).await
    }

    async fn run(&self, args: &[&str]) -> (i32, String) {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command.args(args).arg("--config").arg(self.config()).current_dir(root()).env_clear();
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
        let said =
            [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        (output.status.code().unwrap_or_else(|| panic!("it was killed: {said}")), said)
    }
}

fn receipt(number: u64) -> String {
    json!({
        "schema": "raw_market_event", "schema_version": "1", "event_type": "TradeTick", "source_id": "test",
        "symbol": "BTCUSDT", "exchange_ts_ms": null, "recv_ts_ms": 1_768_002_660_000_u64 + number, "raw_payload": "x",
        "normalized": {"price": 1.0, "quantity": 1.0, "side": "buy"},
    })
    .to_string()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Ends the server and puts these append-only files in the place of its own.
fn exchange_data(redis: &mut RedisServer, from: &Path) {
    redis.shut_down();
    std::fs::remove_dir_all(redis.aof_dir()).unwrap();
    copy_dir(from, &redis.aof_dir());
    redis.start_again();
}

fn field(redis: &RedisServer, name: &str) -> String {
    redis.command(&["HGET", "orch:{default}:receipts:meta", name]).unwrap()
}

async fn conditions(service: &Service) -> Vec<String> {
    let (_, said) = service.get("/health").await;
    let health: Value = serde_json::from_str(&said).unwrap();
    let all = health["conditions"].as_array().unwrap().clone();
    all.iter().map(|condition| condition["condition"].as_str().unwrap().to_owned()).collect()
}

async fn shows(service: &Service, condition: &str, is_shown: bool) {
    eventually(&format!("{condition} is {is_shown}"), async || {
        (conditions(service).await.iter().any(|word| word == condition) == is_shown).then_some(())
    })
    .await;
}

/// Method: 5,500 receipts are acknowledged, the host dies, and Redis comes back with the files of the moment at which
/// it had 3,500. Then with all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_host_starts_on_all_that_was_acknowledged_and_on_nothing_less() {
    let (site, mut redis, kept) = (Site::new(), RedisServer::start(), tempfile::tempdir().unwrap());
    let (first, second) = (site.machine(&redis), site.machine(&redis));
    let (early, late) = (kept.path().join("early"), kept.path().join("late"));
    let service = first.start(&[]).await;
    site.fill(&service, 1..=3500).await;
    copy_dir(&redis.aof_dir(), &early);
    site.fill(&service, 3501..=5500).await;
    site.noted_up_to(5500).await;
    service.kill();
    redis.shut_down();
    copy_dir(&redis.aof_dir(), &late);
    redis.start_again();

    let (code, said) = second.stat().await;
    assert!(code == 0 && said.contains("second_mark") && said.contains("5500"), "{said}");
    exchange_data(&mut redis, &early);
    let epoch = field(&redis, "epoch");
    let (code, said) = second.stat().await;
    assert_eq!(code, DATA, "{said}");
    assert!(said.contains("ends at 3500") && said.contains("up to 5500"), "{said}");
    for machine in [&second, &first] {
        let (code, said) = machine.refused(&["--takeover"]).await;
        assert_eq!(code, DATA, "{said}");
        for word in ["LOG_REGRESSED", "up to 3500", "up to 5500", "--trust-server"] {
            assert!(said.contains(word), "it must say {word}: {said}");
        }
    }
    assert_eq!(field(&redis, "epoch"), epoch, "nothing was taken over");

    redis.command(&["FLUSHALL"]).unwrap();
    let (code, said) = second.refused(&[]).await;
    assert_eq!(code, DATA, "{said}");
    assert!(said.contains("LOG_REGRESSED") && said.contains("no log up to 0"), "{said}");

    exchange_data(&mut redis, &late);
    let since = Instant::now();
    let service = second.start(&["--takeover"]).await;
    eventually("it is ready", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
    println!("a host with an empty directory is ready on 5,500 receipts after {:.1?}", since.elapsed());
    site.fill(&service, 5501..=5600).await;
    service.stop().await;
    // Planned: everything is noted at the end, and the host before may come back.
    assert_eq!(site.noted(), 5600);
    let service = first.start(&[]).await;
    site.fill(&service, 5601..=5700).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_mark_a_log_with_records_needs_the_operators_word() {
    let (site, redis) = (Site::new(), RedisServer::start());
    let alone = || Machine { mark: None, ..site.machine(&redis) };
    let (first, second) = (alone(), alone());
    let service = first.start(&[]).await;
    site.fill(&service, 1..=500).await;
    service.stop().await;
    let epoch = field(&redis, "epoch");

    let (code, said) = second.refused(&[]).await;

    assert_eq!(code, DATA, "{said}");
    for word in ["LOG_UNKNOWN", "up to 500", "--trust-server", "redis.mark"] {
        assert!(said.contains(word), "it must say {word}: {said}");
    }
    assert_eq!(field(&redis, "epoch"), epoch, "nothing was taken over");
    let service = second.start(&["--trust-server"]).await;
    let trusted = |service: &Service| service.log().matches("taken the server at its word").count();
    assert_eq!(trusted(&service), 2, "receipts and manifests have records: {}", service.log());
    site.fill(&service, 501..=600).await;
    service.stop().await;
    // Its own mark is there now; that of the other host is of an earlier writer.
    let service = second.start(&[]).await;
    assert_eq!(trusted(&service), 2, "this start trusts nothing more: {}", service.log());
    service.stop().await;
    let (code, said) = first.refused(&[]).await;
    assert_eq!(code, DATA, "{said}");
    assert!(said.contains("LOG_UNKNOWN") && said.contains("earlier writer"), "{said}");
}

/// The operator's word also accepts a loss, and then both marks go on from there.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_the_operator_accepts_is_said_once_and_known_from_then_on() {
    let (site, mut redis, kept) = (Site::new(), RedisServer::start(), tempfile::tempdir().unwrap());
    let (first, second) = (site.machine(&redis), site.machine(&redis));
    let early = kept.path().join("early");
    let service = first.start(&[]).await;
    site.fill(&service, 1..=1000).await;
    copy_dir(&redis.aof_dir(), &early);
    site.fill(&service, 1001..=1500).await;
    service.stop().await;
    exchange_data(&mut redis, &early);

    let service = second.start(&["--trust-server", "--takeover"]).await;

    let log = service.log();
    assert!(log.contains("at its word") && log.contains("up to 1000") && log.contains("up to 1500"), "{log}");
    site.fill(&service, 1001..=1100).await;
    site.noted_up_to(1100).await;
    service.stop().await;
    let third = site.machine(&redis);
    let service = third.start(&[]).await;
    assert!(!service.log().contains("at its word"), "{}", service.log());
    service.stop().await;
    let (code, said) = first.refused(&[]).await;
    assert_eq!(
        (code, said.contains("up to 1500")),
        (DATA, true),
        "the host that knew better is told too: {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_local_mark_alone_notes_the_second_when_it_is_configured() {
    let (site, redis) = (Site::new(), RedisServer::start());
    let mut first = Machine { mark: None, ..site.machine(&redis) };
    let service = first.start(&[]).await;
    site.fill(&service, 1..=500).await;
    service.stop().await;
    assert!(!site.mark().exists());

    first.mark = Some(site.mark());
    let service = first.start(&[]).await;
    assert_eq!(site.noted(), 500, "before it takes anything in");
    service.kill();

    let second = site.machine(&redis);
    let service = second.start(&["--takeover"]).await;
    site.fill(&service, 501..=600).await;
    service.stop().await;
}

/// Method: the folder of the mark is moved away, as a mount that is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_mark_that_is_away_is_said_and_stops_nobody_but_a_fail_over() {
    let (site, redis) = (Site::new(), RedisServer::start());
    let (first, second) = (site.machine(&redis), site.machine(&redis));
    let lost = site.dir.path().join("lost");
    let (unmount, mount) =
        (|| std::fs::rename(site.nfs(), &lost).unwrap(), || std::fs::rename(&lost, site.nfs()).unwrap());
    let service = first.start(&[]).await;
    site.fill(&service, 1..=100).await;

    let readiness = service.watch_readiness().await;
    unmount();
    site.fill(&service, 101..=200).await;
    shows(&service, "mark_stale", true).await;
    site.fill(&service, 201..=300).await;
    readiness.end().never_lost();
    service.kill();
    let (code, said) = second.refused(&["--takeover"]).await;
    assert_eq!(code, UNAVAILABLE, "{said}");
    assert!(said.contains("--trust-server") && said.contains("nfs"), "{said}");

    // The host that wrote last knows more than any second mark.
    let service = first.start(&["--takeover"]).await;
    shows(&service, "mark_stale", true).await;
    site.fill(&service, 301..=400).await;
    mount();
    shows(&service, "mark_stale", false).await;
    site.noted_up_to(400).await;
    service.stop().await;

    let service = first.start(&["--set", "redis.mark.max_age=1s"]).await;
    unmount();
    let mut next = 401;
    eventually("appends pause", async || {
        next += u64::from(site.post(&service, next..=next).await);
        let (code, said) = service.get("/readyz").await;
        (code == 503 && said.contains("redis.mark.max_age")).then_some(())
    })
    .await;
    mount();
    eventually("they go on", async || site.post(&service, next..=next).await.then_some(())).await;
    service.stop().await;
}

/// Method: the network falls in two. The first host goes on with its Redis, the second with a copy that was promoted;
/// both reach the second mark. On their own servers nobody would ever fence the first one.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_on_a_cut_off_server_is_fenced_by_the_mark_of_its_successor() {
    let (site, redis) = (Site::new(), RedisServer::start());
    let mut promoted = RedisServer::start();
    let first = site.machine(&redis);
    let mut service = first.start(&[]).await;
    site.fill(&service, 1..=500).await;
    site.noted_up_to(500).await;
    let kept = tempfile::tempdir().unwrap();
    copy_dir(&redis.aof_dir(), kept.path());
    exchange_data(&mut promoted, kept.path());

    let second = site.machine(&promoted);
    let successor = second.start(&["--takeover"]).await;
    site.fill(&successor, 501..=510).await;
    let since = Instant::now();
    let status = service.ended().await;

    println!("the first was gone {:.1?} after its successor had stored", since.elapsed());
    assert_eq!(status.code(), Some(HELD), "{}", service.log());
    assert!(service.log().contains("took the log over"), "{}", service.log());
    site.noted_up_to(510).await;
    successor.stop().await;
}

/// Method: kill −9 at a random moment under load, between an append and its note too; another empty directory each
/// time. The server has everything, so every start must succeed, and no mark is ever ahead of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_killed_between_append_and_note_is_always_taken_over() {
    let (site, redis, seed) = (Site::new(), RedisServer::start(), seed());
    println!("SEED={seed}");
    let mut dice = Rng::new(seed);
    let mut next = 1;
    for round in 0..8 {
        let machine = site.machine(&redis);
        let service = machine.start(&["--takeover"]).await;
        let until = Instant::now() + Duration::from_millis(dice.next_below(900));
        while Instant::now() < until {
            assert!(site.post(&service, next..=next + 9).await, "round {round}: {}", service.log());
            next += 10;
        }
        service.kill();
        let tail: u64 = field(&redis, "tail").lines().nth(1).unwrap().parse().unwrap();
        assert_eq!(tail, next - 1);
        assert!(site.noted() <= tail, "round {round}: {} of {tail}", site.noted());
    }
}

/// Method: a steady load, and at each moment the mark must have what was acknowledged a second before.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_mark_is_never_more_than_a_second_behind() {
    let (site, redis) = (Site::new(), RedisServer::start());
    let machine = site.machine(&redis);
    let service = machine.start(&[]).await;
    let (mut next, mut acknowledged) = (1, std::collections::VecDeque::new());
    let (until, mut oldest) = (Instant::now() + Duration::from_secs(4), Duration::ZERO);
    while Instant::now() < until {
        assert!(site.post(&service, next..=next).await);
        acknowledged.push_back((Instant::now(), next));
        next += 1;
        let noted = site.noted();
        while acknowledged.front().is_some_and(|(_, number)| *number <= noted) {
            acknowledged.pop_front();
        }
        oldest = oldest.max(acknowledged.front().map_or(Duration::ZERO, |(since, _)| since.elapsed()));
    }
    println!("the oldest acknowledgement that was not noted: {oldest:.1?}");
    // A busy machine may hold one note up.
    assert!(oldest <= 2 * MARK_AGE_MAX, "{oldest:?}");
    service.stop().await;
}
