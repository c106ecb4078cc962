//! The Redis Stream source on a private server: nothing lost, nothing acknowledged before it is durable; and the
//! service with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orchestrator::adapters::redis::stream_source::{StreamSourceFactory, StreamSourceOptions};
use orchestrator_kernel::ports::source::{
    ItemFate, RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory, SourceOddity,
};
use orchestrator_kernel::ports::source_conformance::{self, ITEMS, Repeats, SourceProvider, sample_item};
use tokio::time::timeout;

use crate::support::logs::{checked_receipts, recorded_lines, recording};
use crate::support::process::{Service, eventually};
use crate::support::redis_server::RedisServer;

/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than a read that finds something takes.
const SHORT: Duration = Duration::from_millis(200);

fn options(redis: &RedisServer) -> StreamSourceOptions {
    StreamSourceOptions {
        name: "feed".to_owned(),
        url: redis.url(),
        stream: "receipts".to_owned(),
        group: "orchestrator".to_owned(),
        consumer: "one".to_owned(),
        field: "event".to_owned(),
        start: "0".to_owned(),
        count_max: 100,
        claim_idle: PATIENCE,
        connect_timeout: Duration::from_secs(1),
        response_timeout: Duration::from_secs(1),
    }
}

fn factory(options: StreamSourceOptions) -> StreamSourceFactory {
    StreamSourceFactory::new(options).unwrap()
}

async fn open(factory: &StreamSourceFactory) -> Box<dyn Source> {
    factory.open_source(ResumeAt::default()).await.unwrap()
}

/// Opens until it succeeds, as ingest does.
async fn reopen(factory: &StreamSourceFactory) -> Box<dyn Source> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match factory.open_source(ResumeAt::default()).await {
            Ok(source) => return source,
            Err(SourceError::Lost { detail }) => assert!(Instant::now() < deadline, "{detail}"),
            Err(error @ SourceError::Fatal { .. }) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn next(source: &mut Box<dyn Source>) -> SourceBatch {
    timeout(PATIENCE, source.next_batch())
        .await
        .expect("nothing comes")
        .unwrap()
        .expect("the source has ended")
}

async fn has_more(source: &mut Box<dyn Source>) -> bool {
    timeout(SHORT, source.next_batch()).await.is_ok()
}

fn durable(batch: &SourceBatch) -> Settlement {
    Settlement::Durable(vec![ItemFate::Appended; batch.items.len()])
}

fn refused() -> Settlement {
    Settlement::Refused { reason: "full".to_owned(), retry_after_ms: 1 }
}

async fn settle_durable(source: &mut Box<dyn Source>, batch: &SourceBatch) {
    source.settle_batch(batch.id, durable(batch)).await.unwrap();
}

fn texts(batch: &SourceBatch) -> Vec<String> {
    batch.items.iter().map(|item| String::from_utf8_lossy(&item.bytes).into_owned()).collect()
}

/// A plain client beside the source.
struct Client(redis::Connection);

impl Client {
    fn of(redis: &RedisServer) -> Self {
        Self(redis::Client::open(redis.url()).unwrap().get_connection().unwrap())
    }

    fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.0).unwrap()
    }

    fn add(&mut self, event: impl redis::ToRedisArgs) -> String {
        redis::cmd("XADD").arg("receipts").arg("*").arg("event").arg(event).query(&mut self.0).unwrap()
    }

    /// Entries that are delivered to somebody and not acknowledged.
    fn pending(&mut self) -> usize {
        let summary: Vec<redis::Value> = self.ask(&["XPENDING", "receipts", "orchestrator"]);
        redis::from_redis_value(summary[0].clone()).unwrap()
    }
}

#[tokio::test]
async fn entries_come_byte_for_byte_in_their_order() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let events: Vec<Vec<u8>> =
        vec![(0..=255).collect(), Vec::new(), b"{\"a\":\r\n1}".to_vec(), vec![b'x'; 1 << 20], vec![0xff; 3]];
    for event in &events {
        client.add(event.as_slice());
    }
    let mut source = open(&factory(options(&redis))).await;

    let mut items: Vec<RawItem> = Vec::new();
    while items.len() < events.len() {
        let batch = next(&mut source).await;
        assert_eq!(batch.origin.as_str(), "feed");
        settle_durable(&mut source, &batch).await;
        items.extend(batch.items);
    }

    assert!(items.iter().map(|item| item.bytes.as_ref()).eq(events.iter().map(Vec::as_slice)), "LOG-4");
    assert!(items.iter().all(|item| item.position.is_none() && item.oversized.is_none()));
}

#[tokio::test]
async fn entries_are_acknowledged_only_when_they_are_durable() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let mut source = open(&factory(options(&redis))).await;
    for number in 1..=3 {
        client.add(number);
    }
    let batch = next(&mut source).await;
    assert_eq!((texts(&batch).len(), client.pending()), (3, 3), "LOG-2");

    source.settle_batch(batch.id, refused()).await.unwrap();
    assert_eq!(client.pending(), 3, "LOG-2");
    let again = next(&mut source).await;
    assert_eq!(texts(&again), texts(&batch));
    settle_durable(&mut source, &again).await;

    assert_eq!(client.pending(), 0);
    assert!(!has_more(&mut source).await);
}

/// Method: four batches, the second refused while the others are in flight.
#[tokio::test]
async fn what_was_refused_comes_again_alone_and_before_anything_new() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let mut source = open(&factory(StreamSourceOptions { count_max: 2, ..options(&redis) })).await;
    for number in 1..=10 {
        client.add(number);
    }
    let mut batches = Vec::new();
    for _ in 0..4 {
        batches.push(next(&mut source).await);
    }

    settle_durable(&mut source, &batches[0]).await;
    source.settle_batch(batches[1].id, refused()).await.unwrap();
    assert!(!has_more(&mut source).await, "two batches are still in flight");
    settle_durable(&mut source, &batches[2]).await;
    source.settle_batch(batches[3].id, refused()).await.unwrap();

    let mut came = Vec::new();
    while came.len() < 6 {
        let batch = next(&mut source).await;
        settle_durable(&mut source, &batch).await;
        came.extend(texts(&batch));
    }
    assert_eq!(came, ["3", "4", "7", "8", "9", "10"]);
    assert_eq!(client.pending(), 0);
}

#[tokio::test]
async fn a_restarted_source_begins_with_what_was_not_acknowledged() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    for number in 1..=4 {
        client.add(number);
    }
    let two = StreamSourceOptions { count_max: 2, ..options(&redis) };
    let mut source = open(&factory(two.clone())).await;
    let (first, _second) = (next(&mut source).await, next(&mut source).await);
    settle_durable(&mut source, &first).await;
    drop(source);
    client.add(5);

    let mut source = open(&factory(two)).await;

    assert_eq!(texts(&next(&mut source).await), ["3", "4"]);
    assert_eq!(texts(&next(&mut source).await), ["5"]);
}

/// Method: give up `next` at every moment of a read while entries arrive.
#[tokio::test]
async fn giving_up_a_read_loses_and_repeats_nothing() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let mut source = open(&factory(options(&redis))).await;
    let mut came = Vec::new();

    for number in 0..200_u64 {
        client.add(number);
        let patience = Duration::from_micros(number * 7 % 400);
        if let Ok(batch) = timeout(patience, source.next_batch()).await {
            let batch = batch.unwrap().unwrap();
            came.extend(texts(&batch));
            settle_durable(&mut source, &batch).await;
        }
    }
    while came.len() < 200 {
        let batch = next(&mut source).await;
        came.extend(texts(&batch));
        settle_durable(&mut source, &batch).await;
    }

    assert!(came.iter().map(|text| text.parse::<u64>().unwrap()).eq(0..200));
}

/// Method: another consumer takes entries and is never seen again; ours are held up for longer than that meanwhile.
#[tokio::test]
async fn what_a_dead_consumer_left_is_taken_over_and_ours_is_not_repeated() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let claim_idle = Duration::from_millis(300);
    let mut source = open(&factory(StreamSourceOptions { claim_idle, ..options(&redis) })).await;
    client.add("ours");
    let ours = next(&mut source).await;
    client.add("left 1");
    client.add("left 2");
    let read = ["XREADGROUP", "GROUP", "orchestrator", "dead", "STREAMS", "receipts", ">"];
    let _: redis::Value = client.ask(&read);

    let claimed = next(&mut source).await;

    assert_eq!(
        (texts(&ours), texts(&claimed)),
        (vec!["ours".to_owned()], vec!["left 1".to_owned(), "left 2".to_owned()])
    );
    assert!(timeout(3 * claim_idle, source.next_batch()).await.is_err(), "something came twice");
    settle_durable(&mut source, &ours).await;
    settle_durable(&mut source, &claimed).await;
    assert_eq!(client.pending(), 0);
}

#[tokio::test]
async fn entries_without_event_are_described_and_acknowledged() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let factory = factory(options(&redis));
    let mut source = open(&factory).await;
    let _: String = client.ask(&["XADD", "receipts", "*", "evnt", "x"]);
    let deleted = client.add("deleted");
    client.add("good");
    next(&mut source).await;
    drop(source);
    let _: usize = client.ask(&["XDEL", "receipts", &deleted]);

    let mut source = open(&factory).await;
    let batch = next(&mut source).await;

    let texts = texts(&batch);
    assert!(texts[0].contains("it has no field \\\"event\\\"") && texts[0].contains("evnt"), "{texts:?}");
    assert!(texts[1].contains("it was deleted") && texts[1].contains(&deleted), "{texts:?}");
    assert_eq!(texts[2], "good");
    let reason = || ItemFate::Quarantined("not an envelope".to_owned());
    let fates = vec![reason(), reason(), ItemFate::Appended];
    source.settle_batch(batch.id, Settlement::Durable(fates)).await.unwrap();
    assert_eq!(client.pending(), 0);
}

/// Method: what a dead consumer left is deleted before it is taken over.
#[tokio::test]
async fn deleted_entries_of_a_dead_consumer_are_described_too() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let claim_idle = Duration::from_millis(100);
    let mut source = open(&factory(StreamSourceOptions { claim_idle, ..options(&redis) })).await;
    let id = client.add("gone");
    let read = ["XREADGROUP", "GROUP", "orchestrator", "dead", "STREAMS", "receipts", ">"];
    let _: redis::Value = client.ask(&read);
    let _: usize = client.ask(&["XDEL", "receipts", &id]);

    let batch = next(&mut source).await;

    assert!(texts(&batch)[0].contains("it was deleted") && texts(&batch)[0].contains(&id));
    settle_durable(&mut source, &batch).await;
    assert_eq!(client.pending(), 0);
}

#[tokio::test]
async fn a_key_that_is_no_stream_is_hopeless() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let factory = factory(options(&redis));
    let mut source = open(&factory).await;
    let _: String = client.ask(&["SET", "receipts", "text"]);

    let running = timeout(PATIENCE, source.next_batch()).await.unwrap().unwrap_err();
    let opening = factory.open_source(ResumeAt::default()).await.err().unwrap();

    for error in [running, opening] {
        assert!(
            matches!(&error, SourceError::Fatal { detail } if detail.contains("\"receipts\"")),
            "{error}"
        );
    }
}

/// Method: flush the server while a read waits and while a batch is in flight; then producers go on.
#[tokio::test]
async fn a_flushed_server_is_read_from_its_new_beginning() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let mut source = open(&factory(StreamSourceOptions { start: "$".to_owned(), ..options(&redis) })).await;
    client.add("before");
    let before = next(&mut source).await;
    assert!(!has_more(&mut source).await);

    let _: String = client.ask(&["FLUSHALL"]);
    client.add("between");
    settle_durable(&mut source, &before).await;

    let after = next(&mut source).await;
    assert_eq!(texts(&after), ["between"]);
    settle_durable(&mut source, &after).await;
    assert_eq!(client.pending(), 0);
}

#[tokio::test]
async fn a_group_begins_where_it_was_told_to() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let first = client.add("1");
    client.add("2");
    for (start, expected) in [("0", vec!["1", "2"]), (&*first, vec!["2"]), ("$", vec![])] {
        let group = format!("from {start}");
        let mut source =
            open(&factory(StreamSourceOptions { group, start: start.to_owned(), ..options(&redis) })).await;

        let came = match timeout(SHORT, source.next_batch()).await {
            Ok(batch) => texts(&batch.unwrap().unwrap()),
            Err(_) => Vec::new(),
        };

        assert_eq!(came, expected, "{start}");
    }
}

/// Method: entries of 256 KiB, 50 MiB of them, and no bound on their number that would matter.
#[tokio::test]
async fn large_entries_come_in_small_batches() {
    let redis = RedisServer::with(&["--appendonly", "no"]);
    let mut client = Client::of(&redis);
    let event = vec![b'x'; 256 << 10];
    for _ in 0..200 {
        client.add(event.as_slice());
    }
    let mut source = open(&factory(StreamSourceOptions { count_max: 1000, ..options(&redis) })).await;
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 200 {
        let batch = next(&mut source).await;
        settle_durable(&mut source, &batch).await;
        sizes.push(batch.items.len());
    }

    assert!(sizes.iter().all(|count| *count <= 16), "{sizes:?}");
    assert!(!has_more(&mut source).await);
}

#[tokio::test]
async fn a_password_is_in_no_error() {
    let redis = RedisServer::start();
    let url = redis.url_of("", "canary");
    let error =
        factory(StreamSourceOptions { url, ..options(&redis) }).open_source(ResumeAt::default()).await.err();
    let nobody = redis.url_of("", "canary").replace(&redis.port().to_string(), "1");
    let absent = factory(StreamSourceOptions { url: nobody, ..options(&redis) })
        .open_source(ResumeAt::default())
        .await
        .err();

    for error in [error.unwrap(), absent.unwrap()] {
        assert!(
            matches!(error, SourceError::Lost { .. }) && !error.to_string().contains("canary"),
            "{error}"
        );
    }
}

/// Method: a user with exactly the rights that the manual names.
#[tokio::test]
async fn the_rights_in_the_manual_are_enough() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    let rights = ["+xgroup|create", "+xreadgroup", "+xautoclaim", "+xack"];
    let user = ["ACL", "SETUSER", "source", "on", ">secret", "~receipts"];
    let _: String = client.ask(&[&user[..], &rights[..]].concat());
    let url = redis.url_of("source", "secret");
    let claim_idle = Duration::from_millis(50);
    let mut source = open(&factory(StreamSourceOptions { url, claim_idle, ..options(&redis) })).await;
    client.add("left");
    let read = ["XREADGROUP", "GROUP", "orchestrator", "dead", "STREAMS", "receipts", ">"];
    let _: redis::Value = client.ask(&read);

    let batch = next(&mut source).await;

    settle_durable(&mut source, &batch).await;
    assert_eq!((texts(&batch), client.pending()), (vec!["left".to_owned()], 0));
    let manual = include_str!("../../docs/operations.md");
    assert!(manual.contains(&rights.join(" ")));
}

/// Adds numbers until it is told to stop; gives those that the server acknowledged.
fn produce(
    url: String,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> std::thread::JoinHandle<Vec<u64>> {
    std::thread::spawn(move || {
        let client = redis::Client::open(url).unwrap();
        let (mut acknowledged, mut number) = (Vec::new(), 0_u64);
        let (short, long) = (Duration::from_millis(100), Duration::from_secs(5));
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let Ok(mut connection) = client.get_connection_with_timeout(short) else {
                std::thread::sleep(Duration::from_millis(2));
                continue;
            };
            connection.set_read_timeout(Some(long)).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                number += 1;
                let added = redis::cmd("XADD")
                    .arg("receipts")
                    .arg("*")
                    .arg("event")
                    .arg(number)
                    .exec(&mut connection);
                if added.is_err() {
                    break;
                }
                acknowledged.push(number);
            }
        }
        acknowledged
    })
}

/// Takes until `done`, over every loss of the server; tells how often each event came.
async fn consume(
    factory: &StreamSourceFactory,
    mut done: impl FnMut(&BTreeMap<u64, u32>) -> bool,
) -> BTreeMap<u64, u32> {
    let mut came: BTreeMap<u64, u32> = BTreeMap::new();
    let deadline = Instant::now() + 2 * PATIENCE;
    'opened: loop {
        let mut source = reopen(factory).await;
        loop {
            if done(&came) {
                return came;
            }
            assert!(Instant::now() < deadline, "it does not end, with {} events", came.len());
            let batch = match timeout(SHORT, source.next_batch()).await {
                Ok(Ok(batch)) => batch.unwrap(),
                Ok(Err(SourceError::Lost { .. })) => continue 'opened,
                Ok(Err(error @ SourceError::Fatal { .. })) => panic!("{error}"),
                Err(_) => continue,
            };
            for text in texts(&batch) {
                *came.entry(text.parse().unwrap()).or_default() += 1;
            }
            settle_durable(&mut source, &batch).await;
        }
    }
}

/// Method: a producer under way, ten kills with 50 to 140 ms between; what the server acknowledged to the producer must
/// come, and come once: this process, which knows what is durable, was not away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_kills_of_the_server_every_entry_comes_and_none_twice() {
    let mut redis = RedisServer::start();
    let factory = factory(options(&redis));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let producer = produce(redis.url(), std::sync::Arc::clone(&stop));
    let mut producer = Some(producer);
    let killer = std::thread::spawn(move || {
        for round in 0..10 {
            std::thread::sleep(Duration::from_millis(50 + 10 * round));
            redis.kill();
            redis.start_again();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        redis
    });

    let mut acknowledged = Vec::new();
    let came = consume(&factory, |came| {
        if killer.is_finished() && producer.as_ref().is_some_and(std::thread::JoinHandle::is_finished) {
            acknowledged = producer.take().unwrap().join().unwrap();
        }
        producer.is_none() && acknowledged.iter().all(|number| came.contains_key(number))
    })
    .await;

    let redis = killer.join().unwrap();
    assert!(acknowledged.len() > 100, "the producer hardly ran");
    assert!(came.values().all(|times| *times == 1), "an entry came twice");
    drop(open(&factory).await); // acknowledges what the last kill may have left
    assert_eq!(Client::of(&redis).pending(), 0);
}

/// Method: two batches are in flight when the server dies; they become durable while it is away.
#[tokio::test]
async fn what_became_durable_while_the_server_was_away_is_acknowledged_first_and_not_repeated() {
    let mut redis = RedisServer::start();
    let factory = factory(StreamSourceOptions { count_max: 1, ..options(&redis) });
    let mut client = Client::of(&redis);
    for event in ["1", "2", "3"] {
        client.add(event);
    }
    let mut source = open(&factory).await;
    let (first, second) = (next(&mut source).await, next(&mut source).await);

    redis.kill();
    assert!(!has_more(&mut source).await, "the loss is told while batches are in flight");
    settle_durable(&mut source, &first).await;
    assert!(!has_more(&mut source).await, "the loss is told while a batch is in flight");
    settle_durable(&mut source, &second).await;
    let error = timeout(PATIENCE, source.next_batch()).await.unwrap().unwrap_err();
    redis.start_again();

    assert!(matches!(error, SourceError::Lost { .. }), "{error}");
    let mut source = open(&factory).await;
    assert_eq!(Client::of(&redis).pending(), 0);
    assert_eq!(texts(&next(&mut source).await), ["3"]);
}

/// Method: the server hangs for 3 s under load; the source is lost meanwhile, and comes back by being opened again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_lost_in_time_and_repeats_nothing_afterwards() {
    let redis = RedisServer::start();
    let factory = factory(options(&redis));
    let mut client = Client::of(&redis);
    client.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut source = open(&factory).await;
    for number in 0..300 {
        client.add(number);
    }
    let batch = next(&mut source).await;

    redis.pause();
    let paused = Instant::now();
    settle_durable(&mut source, &batch).await;
    let error = timeout(PATIENCE, source.next_batch()).await.unwrap().unwrap_err();
    let noticed = paused.elapsed();
    tokio::time::sleep(Duration::from_secs(3).saturating_sub(noticed)).await;
    redis.resume();

    assert!(matches!(error, SourceError::Lost { .. }), "{error}");
    assert!(noticed < Duration::from_millis(2_500), "{noticed:?}");
    let rest = 300 - batch.items.len();
    let came = consume(&factory, |came| came.len() == rest).await;
    assert!(came.values().all(|times| *times == 1), "an entry came twice");
    drop(open(&factory).await);
    assert_eq!(client.pending(), 0);
}

/// Method: it hangs while nothing is asked of it, so that the next question is the look before a read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_when_it_is_looked_at_is_lost_in_time() {
    let redis = RedisServer::start();
    let factory = factory(options(&redis));
    let mut source = open(&factory).await;
    Client::of(&redis).add(1);
    let batch = next(&mut source).await;
    settle_durable(&mut source, &batch).await;
    redis.pause();
    let paused = Instant::now();
    let error = timeout(PATIENCE, source.next_batch()).await.unwrap().unwrap_err();
    let noticed = paused.elapsed();
    redis.resume();
    assert!(
        matches!(error, SourceError::Lost { .. }) && noticed < Duration::from_secs(2),
        "{noticed:?}: {error}"
    );
}

/// Method: 20 000 receipts of the recording with something that is no receipt among it; a stream may drive the clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_takes_a_recording_from_a_stream_byte_for_byte() {
    let Some(recording) = recording() else { return };
    let lines: Vec<Vec<u8>> = recorded_lines(&recording).into_iter().take(20_000).collect();
    let redis = RedisServer::with(&["--appendonly", "no"]);
    let mut client = Client::of(&redis);
    for lines in lines.chunks(1000) {
        let mut pipeline = redis::pipe();
        for line in lines {
            pipeline.cmd("XADD").arg("receipts").arg("*").arg("event").arg(line).ignore();
        }
        pipeline.exec(&mut client.0).unwrap();
    }
    let _: String = client.ask(&["XADD", "receipts", "*", "evnt", "poison"]);
    let dir = tempfile::tempdir().unwrap();
    let (data, config) = (dir.path().join("data"), dir.path().join("config.toml"));
    let text = format!(
        "service.data_dir = {data:?}\nclock.mode = \"recorded\"\nsymbols.list = [\"BTCUSDT\"]\nlog.format = \"json\"\n\
         http.listen = \"127.0.0.1:0\"\n[sources.feed]\nkind = \"redis_stream\"\nurl = {:?}\nstream = \"receipts\"\n",
        redis.url()
    );
    std::fs::write(&config, text).unwrap();

    let service = Service::start(&config, &[]).await;
    let settled = async || {
        let quarantined = service.metric("orch_ingest_items_quarantined_total").await;
        if quarantined == 0.0 {
            // The group may not be there yet.
            return None;
        }
        let groups: Vec<redis::Value> = Client::of(&redis).ask(&["XPENDING", "receipts", "orchestrator"]);
        (groups[0] == redis::Value::Int(0)).then_some(())
    };
    eventually("everything is acknowledged", settled).await;
    service.stop().await;

    assert!(checked_receipts(&data).await == lines, "LOG-4: stored bytes equal streamed bytes");
}

/// Method: a group that has read three of six entries; the stream is cut to its last entry; then one comes.
#[tokio::test]
async fn entries_trimmed_before_they_were_read_are_told_with_their_number() {
    let redis = RedisServer::start();
    let mut client = Client::of(&redis);
    (0..3).for_each(|n| drop(client.add(format!("{n}"))));
    let factory = factory(options(&redis));
    let mut source = open(&factory).await;
    let mut read = 0;
    while read < 3 {
        let batch = next(&mut source).await;
        settle_durable(&mut source, &batch).await;
        read += batch.items.len();
    }
    assert_eq!(source.take_oddities(), []);
    drop(source);

    (3..6).for_each(|n| drop(client.add(format!("{n}"))));
    client.ask::<usize>(&["XTRIM", "receipts", "MAXLEN", "1"]);
    let mut source = open(&factory).await;
    let batch = next(&mut source).await;

    assert_eq!(texts(&batch), ["5"]);
    let [SourceOddity::Missing { count, detail }] = &source.take_oddities()[..] else { panic!("not told") };
    assert_eq!(*count, Some(2), "{detail}");
    settle_durable(&mut source, &batch).await;
    client.add("6");
    assert_eq!(texts(&next(&mut source).await), ["6"]);
    assert_eq!(source.take_oddities(), [], "once");

    // Read on one by one, so that the next look comes before the next gap is read over.
    (7..10).for_each(|n| drop(client.add(format!("{n}"))));
    client.ask::<usize>(&["XTRIM", "receipts", "MAXLEN", "1"]);
    drop(source);
    let mut source = open(&factory).await;
    while texts(&next(&mut source).await).last().is_none_or(|last| last != "9") {}
    let [SourceOddity::Missing { count, detail }] = &source.take_oddities()[..] else { panic!("not told") };
    assert_eq!(*count, Some(2), "only what is new: {detail}");
}

/// Streams of the suite's items on one server.
struct Streams(RedisServer);

#[async_trait]
impl SourceProvider for Streams {
    async fn fresh(&self) -> Arc<dyn SourceFactory> {
        let mut client = Client::of(&self.0);
        client.ask::<()>(&["FLUSHALL"]);
        (0..ITEMS).for_each(|index| drop(client.add(&sample_item(index)[..])));
        Arc::new(factory(options(&self.0)))
    }

    fn repeats(&self) -> Repeats {
        Repeats::Source
    }
}

#[tokio::test]
async fn redis_stream_conforms() {
    source_conformance::run(&Streams(RedisServer::start())).await;
}
