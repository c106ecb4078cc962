//! Clients that hold connections and send next to nothing, by the hundred and by the thousand: bounds of time and
//! number hold, and a producer that behaves does not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{Service, eventually};

/// How long the head of a request may take; a bound that no setting changes.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// `http.request_timeout` of these tests.
const REQUEST_MAX: Duration = Duration::from_secs(3);
/// What a bound of time may be late by on a loaded machine.
const LATE_MAX: Duration = Duration::from_secs(3);
/// Usual answer to the producer that behaves, fsync included.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// What all the slow clients may take of the service's memory, by connection.
const CONNECTION_KIB_MAX: u64 = 24;

async fn service(dir: &std::path::Path, connections_max: usize) -> Service {
    let config = dir.join("config.toml");
    let text = format!(
        "[service]\ndata_dir = {:?}\n[sources.http]\nkind = \"http\"\n[http]\nlisten = \"127.0.0.1:0\"\n\
         connections_max = {connections_max}\nsubscribers_max = 16\nrequest_timeout = \"{}s\"\n[log]\nformat = \"json\"\n",
        dir.join("data"),
        REQUEST_MAX.as_secs(),
    );
    std::fs::write(&config, text).unwrap();
    Service::start(&config, &[]).await
}

/// A producer with one connection, one receipt a request: how long the answers took.
struct Producer {
    client: reqwest::Client,
    url: String,
    sent: u64,
    answers: Vec<Duration>,
}

impl Producer {
    fn of(service: &Service) -> Self {
        let client = reqwest::Client::builder().pool_max_idle_per_host(1).timeout(LATE_MAX).build().unwrap();
        Self { client, url: format!("{}/api/v1/receipts", service.url), sent: 0, answers: Vec::new() }
    }

    async fn post(&mut self) {
        self.sent += 1;
        let body = format!(
            r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"T","source_id":"t","symbol":"A","exchange_ts_ms":null,"recv_ts_ms":{},"raw_payload":"","normalized":{{}}}}"#,
            self.sent
        );
        let begun = Instant::now();
        let post = self.client.post(&self.url).header("content-type", "application/json");
        let post = post.header("orchestrator-producer", "good").header("orchestrator-sequence", self.sent);
        let answer = post.body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        self.answers.push(begun.elapsed());
    }

    /// Posts for this time, or until `done`; the median and the longest answer.
    async fn post_for(&mut self, time: Duration, done: impl Fn() -> bool) -> (Duration, Duration) {
        let since = Instant::now();
        self.answers.clear();
        while since.elapsed() < time && !done() {
            self.post().await;
            sleep(Duration::from_millis(10)).await;
        }
        self.answers.sort();
        (self.answers[self.answers.len() / 2], self.answers[self.answers.len() - 1])
    }
}

/// Resident memory of the service in KiB.
fn memory_kib(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Files that the service has open, sockets among them.
fn files(service: &Service) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap().count()
}

fn address(service: &Service) -> String {
    service.url.trim_start_matches("http://").to_owned()
}

/// Sends `head`, then a byte of `rest` a second; what came back until the service closed, and when that was.
async fn trickle(address: String, head: &'static str, rest: u8) -> (String, Duration) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let since = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let sending = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            if writing.write_all(&[rest]).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut said = Vec::new();
    let ending = async {
        let mut chunk = [0; 1024];
        while let Ok(count @ 1..) = reading.read(&mut chunk).await {
            said.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::select! { () = sending => {}, () = ending => {} }
    (String::from_utf8_lossy(&said).into_owned(), since.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_send_a_byte_a_second_are_cut_off_in_time_and_hold_nobody_up() {
    const HEADS: usize = 300;
    const BODIES: usize = 300;
    const HEAD: &str = "POST /api/v1/receipts HTTP/1.1\r\nhost: x\r\nx-slow: ";
    const BODY: &str = "POST /api/v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: 1000\r\n\r\n{";
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path(), 1024).await;
    let mut producer = Producer::of(&service);
    let readiness = service.watch_readiness().await;
    let (calm, _) = producer.post_for(Duration::from_secs(1), || false).await;
    let before = memory_kib(&service);

    let (mut heads, mut bodies) = (JoinSet::new(), JoinSet::new());
    (0..HEADS).for_each(|_| drop(heads.spawn(trickle(address(&service), HEAD, b'a'))));
    (0..BODIES).for_each(|_| drop(bodies.spawn(trickle(address(&service), BODY, b' '))));
    eventually("all are connected", async || (HEADS + BODIES < files(&service)).then_some(())).await;
    let (slowed, worst) = producer.post_for(REQUEST_MAX, || false).await;
    let grown = memory_kib(&service).saturating_sub(before);
    let bodies = bodies.join_all().await;
    let heads = heads.join_all().await;
    readiness.end().never_lost();

    for (said, after) in &bodies {
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(*after <= REQUEST_MAX + LATE_MAX, "cut off only after {after:?}");
    }
    for (said, after) in &heads {
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408 "), "{said}");
        assert!(*after <= HEAD_MAX + LATE_MAX, "cut off only after {after:?}");
    }
    println!(
        "{HEADS} slow heads and {BODIES} slow bodies: answers to the producer {calm:.1?} before, {slowed:.1?} meanwhile, \
         {worst:.1?} at worst; {grown} KiB more memory"
    );
    assert!(worst <= LATE_MAX, "the producer waited {worst:?}");
    assert!(grown <= CONNECTION_KIB_MAX * (HEADS + BODIES) as u64, "{grown} KiB for the slow clients");
    healthy_again(&service, &mut producer).await;
    service.stop().await;
}

/// Everything is over: connections are gone, the service is ready, and what the producer was told is durable.
async fn healthy_again(service: &Service, producer: &mut Producer) {
    eventually("the connections are gone", async || (files(service) < 100).then_some(())).await;
    assert_eq!(service.get("/readyz").await.0, 200);
    producer.post().await;
    let (_, settled) = service.get("/api/v1/producers/good").await;
    assert!(settled.contains(&format!("\"settled\":{}", producer.sent)), "{settled}");
}

/// Raises the bound of open files as far as it may be raised; connections that a test can have then.
fn connections(wanted: usize) -> usize {
    /// What else this process and the service have open.
    const OTHERS: u64 = 1000;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let Some(maximum) = maximum else { return wanted };
    let possible = usize::try_from(maximum.saturating_sub(OTHERS)).unwrap();
    if possible < wanted {
        println!(
            "{possible} connections instead of {wanted}: the hard limit of open files is {maximum}, was {current:?}"
        );
    }
    assert!(wanted / 2 <= possible, "too few files may be open: raise the hard limit (ulimit -Hn)");
    possible.min(wanted)
}

/// Connections that say nothing.
struct Opened {
    streams: Vec<TcpStream>,
    /// Files that the service had open at most.
    held: usize,
    took: Duration,
}

/// Opens `wanted` connections, no faster than the service accepts them up to its `bound`: the kernel's queue is not
/// what is tested, only what waits beyond the bound waits there.
async fn open(service: &Service, wanted: usize, bound: usize) -> Opened {
    const WAVE: usize = 100;
    let (mut streams, mut held, since) = (Vec::new(), 0, Instant::now());
    while streams.len() < wanted {
        let wave = WAVE.min(wanted - streams.len());
        let connecting = (0..wave).map(|_| TcpStream::connect(address(service)));
        streams.extend(futures_util::future::join_all(connecting).await.into_iter().map(Result::unwrap));
        eventually("they are accepted", async || {
            held = held.max(files(service));
            // The first are cut off by then, for they said nothing.
            (bound.min(streams.len()) <= held || HEAD_MAX < since.elapsed()).then_some(())
        })
        .await;
    }
    Opened { streams, held, took: since.elapsed() }
}

/// Method: ten thousand connections that say nothing, and a bound that is a tenth lower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_stop_at_the_bound_and_cost_the_producer_nothing() {
    let wanted = connections(10_000);
    let bound = wanted - wanted / 10;
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path(), bound).await;
    let mut producer = Producer::of(&service);
    let (calm, _) = producer.post_for(Duration::from_secs(1), || false).await;
    let (before, others) = (memory_kib(&service), files(&service));

    let opened = AtomicBool::new(false);
    let opening = async {
        let opening = open(&service, wanted, bound).await;
        opened.store(true, Ordering::Relaxed);
        opening
    };
    let is_opened = || opened.load(Ordering::Relaxed);
    let (opening, (slowed, worst)) = tokio::join!(opening, producer.post_for(2 * HEAD_MAX, is_opened));
    let Opened { streams, held, took } = opening;
    let grown = memory_kib(&service).saturating_sub(before);
    println!(
        "{} connections in {took:.1?}, {held} files open in the service: answers to the producer {calm:.1?} before, \
         {slowed:.1?} meanwhile, {worst:.1?} at worst; {grown} KiB more memory",
        streams.len()
    );
    assert!(held <= bound + others, "the bound of {bound} connections holds: {held} files are open");
    let cut_off = HEAD_MAX < took && bound / 2 <= held;
    assert!(bound <= held || cut_off, "they were really there: {held} files are open");
    assert!(slowed <= ANSWER_MAX && worst <= LATE_MAX, "the producer waited {slowed:?}, {worst:?} at worst");
    assert!(grown <= CONNECTION_KIB_MAX * held as u64, "{grown} KiB for {held} connections");
    drop(streams);
    healthy_again(&service, &mut producer).await;
    service.stop().await;
}

/// How long a probe may take on a busy machine; a client that sends its head slowly may take [`HEAD_MAX`].
const PROBE_MAX: Duration = Duration::from_secs(2);

/// Method: four times as many slow heads as connections are allowed. Then as many slow bodies, so that every connection
/// is busy with a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_at_once_however_many_clients_are_slow() {
    const BOUND: usize = 64; // more than subscribers_max
    let dir = tempfile::tempdir().unwrap();
    let service = service(dir.path(), BOUND).await;

    let mut slow = Vec::new();
    for _ in 0..4 * BOUND {
        let mut stream = TcpStream::connect(address(&service)).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost:").await.unwrap();
        slow.push(stream);
    }
    // From here on: a client that asks again and again keeps its connection.
    let readiness = service.watch_readiness().await;
    check_probes(&service, "slow heads").await;
    drop(slow);

    let head = "POST /api/v1/receipts HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    // Again and again: those that came while the slow heads still left had a probe's slot, or have had their time.
    let busy = eventually("all connections are busy", async || {
        let mut busy = Vec::new();
        for _ in 0..BOUND {
            let mut stream = TcpStream::connect(address(&service)).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            busy.push(stream);
        }
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let answer = client.get(format!("{}/", service.url)).send().await.ok()?;
        (answer.status() == 503).then_some(busy)
    })
    .await;
    check_probes(&service, "slow bodies").await;
    readiness.end().never_lost();
    drop(busy);
    service.stop_unverified().await;
}

async fn check_probes(service: &Service, against: &str) {
    for path in ["/livez", "/readyz", "/health", "/metrics"] {
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let since = Instant::now();
        let answer = client.get(format!("{}{path}", service.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path} against {against}");
        assert!(since.elapsed() < PROBE_MAX, "{path} took {:?} against {against}", since.elapsed());
    }
}
