//! The Redis Stream source when its server is lost: killed, hanging, or away while batches become durable.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use orchestrator::adapters::redis::stream_source::{StreamSourceFactory, StreamSourceOptions};
use orchestrator_kernel::ports::source::{ResumeAt, Source, SourceError, SourceFactory as _};
use tokio::time::timeout;

use crate::redis_source::{
    Client, PATIENCE, SHORT, factory, has_more, next, open, options, settle_durable, texts,
};
use crate::support::redis_server::RedisServer;

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
