//! The Redis Stream source on a private server: nothing lost, nothing acknowledged before it is durable; and the
//! service with it. What it does when the server is lost stands in `redis_source_losses`.

use std::sync::Arc;
use std::time::Duration;

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
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than a read that finds something takes.
pub(crate) const SHORT: Duration = Duration::from_millis(200);

pub(crate) fn options(redis: &RedisServer) -> StreamSourceOptions {
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

pub(crate) fn factory(options: StreamSourceOptions) -> StreamSourceFactory {
    StreamSourceFactory::new(options).unwrap()
}

pub(crate) async fn open(factory: &StreamSourceFactory) -> Box<dyn Source> {
    factory.open_source(ResumeAt::default()).await.unwrap()
}

pub(crate) async fn next(source: &mut Box<dyn Source>) -> SourceBatch {
    timeout(PATIENCE, source.next_batch())
        .await
        .expect("nothing comes")
        .unwrap()
        .expect("the source has ended")
}

pub(crate) async fn has_more(source: &mut Box<dyn Source>) -> bool {
    timeout(SHORT, source.next_batch()).await.is_ok()
}

fn durable(batch: &SourceBatch) -> Settlement {
    Settlement::Durable(vec![ItemFate::Appended; batch.items.len()])
}

fn refused() -> Settlement {
    Settlement::Refused { reason: "full".to_owned(), retry_after_ms: 1 }
}

pub(crate) async fn settle_durable(source: &mut Box<dyn Source>, batch: &SourceBatch) {
    source.settle_batch(batch.id, durable(batch)).await.unwrap();
}

pub(crate) fn texts(batch: &SourceBatch) -> Vec<String> {
    batch.items.iter().map(|item| String::from_utf8_lossy(&item.bytes).into_owned()).collect()
}

/// A plain client beside the source.
pub(crate) struct Client(pub(crate) redis::Connection);

impl Client {
    pub(crate) fn of(redis: &RedisServer) -> Self {
        Self(redis::Client::open(redis.url()).unwrap().get_connection().unwrap())
    }

    pub(crate) fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query(&mut self.0).unwrap()
    }

    pub(crate) fn add(&mut self, event: impl redis::ToRedisArgs) -> String {
        redis::cmd("XADD").arg("receipts").arg("*").arg("event").arg(event).query(&mut self.0).unwrap()
    }

    /// Entries that are delivered to somebody and not acknowledged.
    pub(crate) fn pending(&mut self) -> usize {
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
