//! Receipts from a real RabbitMQ: acknowledged only when durable (LOG-2), byte for byte (LOG-4), in order, and nothing
//! is lost whatever becomes of the queue, the connection and the consumer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::ExchangeKind;
use lapin::message::Delivery;
use lapin::options::QueueDeleteOptions;
use lapin::types::AMQPValue;
use orchestrator::adapters::rabbitmq::{
    RabbitEndpoint, RabbitSourceFactory, RabbitSourceOptions, TopologyMode,
};
use orchestrator_kernel::ports::source::{
    ItemFate, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};
use orchestrator_kernel::ports::source_conformance::{self, ITEMS, Repeats, SourceProvider, sample_item};
use tokio::time::timeout;

use crate::support::amqp::Amqp;
use crate::support::rabbit_server::RabbitServer;
use crate::support::secrets::Secrets;

const QUEUE: &str = "orchestrator.receipts";
const DEAD: &str = "orchestrator.receipts.dead";
/// How long something may take to come.
const SOON: Duration = Duration::from_secs(20);
/// How long nothing has to come.
const QUIET: Duration = Duration::from_millis(300);

fn factory(url: &str, change: impl FnOnce(&mut RabbitSourceOptions)) -> RabbitSourceFactory {
    let endpoint = RabbitEndpoint::new(url, None, Duration::from_secs(5)).unwrap();
    let mut options = RabbitSourceOptions { name: "rabbit".to_owned(), ..RabbitSourceOptions::default() };
    change(&mut options);
    RabbitSourceFactory::new(endpoint, options)
}

async fn open(factory: &RabbitSourceFactory) -> Box<dyn Source> {
    factory.open_source(ResumeAt::default()).await.unwrap()
}

/// The error of opening or of the next batch.
async fn failure(source: Result<Box<dyn Source>, SourceError>) -> SourceError {
    match source {
        Err(error) => error,
        Ok(mut source) => timeout(SOON, source.next_batch()).await.unwrap().unwrap_err(),
    }
}

async fn batch(source: &mut Box<dyn Source>) -> SourceBatch {
    timeout(SOON, source.next_batch()).await.expect("a batch").unwrap().unwrap()
}

/// Batches until nothing comes any more.
async fn batches(source: &mut Box<dyn Source>) -> Vec<SourceBatch> {
    let mut batches = vec![batch(source).await];
    while let Ok(next) = timeout(QUIET, source.next_batch()).await {
        batches.push(next.unwrap().unwrap());
    }
    batches
}

fn bodies(batch: &SourceBatch) -> Vec<&[u8]> {
    batch.items.iter().map(|item| item.bytes.as_ref()).collect()
}

fn durable(batch: &SourceBatch) -> Settlement {
    Settlement::Durable(vec![ItemFate::Appended; batch.items.len()])
}

fn refused() -> Settlement {
    Settlement::Refused { reason: "full".to_owned(), retry_after_ms: 0 }
}

fn header(delivery: &Delivery, name: &str) -> String {
    match &delivery.properties.headers().as_ref().unwrap().inner()[name] {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Method: producers publish to the topic exchange; bodies are empty, binary, and larger than a frame.
#[tokio::test]
async fn messages_become_items_byte_for_byte_and_in_order() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let mut source = open(&factory(&url, |_| {})).await;
    let client = Amqp::connect(&url).await;
    let large = vec![0x7f; 300_000];
    let sent: [&[u8]; 4] = [b"", b"\x00\xff\n", &large, br#"{"a":1}"#];

    client.send("market.raw", "trades.BTC", &sent).await;

    let mut items = Vec::new();
    while items.len() < sent.len() {
        let batch = batch(&mut source).await;
        assert_eq!(batch.origin.as_str(), "rabbit");
        source.settle_batch(batch.id, durable(&batch)).await.unwrap();
        items.extend(batch.items);
    }
    for (item, sent) in items.iter().zip(sent) {
        assert_eq!(item.position, None);
        assert!(item.bytes == sent && item.oversized.is_none());
    }
    drop(source);
    assert!(client.drain(QUEUE).await.is_empty(), "everything was acknowledged");
}

#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_durable() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let factory = factory(&url, |options| options.batch_max = 2);
    let mut source = open(&factory).await;
    let client = Amqp::connect(&url).await;
    client.send("", QUEUE, &[b"1", b"2", b"3", b"4", b"5", b"6"]).await;
    let taken = all_of_six(&mut source).await;

    // The first is refused, the later ones are durable: an acknowledgement of them would cover it.
    source.settle_batch(taken[0].id, refused()).await.unwrap();
    for batch in &taken[1..] {
        source.settle_batch(batch.id, durable(batch)).await.unwrap();
    }
    drop(source);
    let mut source = open(&factory).await;
    let again = all_of_six(&mut source).await;
    source.settle_batch(again[0].id, durable(&again[0])).await.unwrap();
    drop(source);

    let settled = again[0].items.len();
    let rest = client.take(QUEUE, 6 - settled).await;
    assert_eq!(rest[0].data, (settled + 1).to_string().into_bytes());
    assert!(client.drain(QUEUE).await.is_empty());
}

/// The batches of six messages, whose bodies are checked.
async fn all_of_six(source: &mut Box<dyn Source>) -> Vec<SourceBatch> {
    let mut taken: Vec<SourceBatch> = Vec::new();
    while taken.iter().map(|batch| batch.items.len()).sum::<usize>() < 6 {
        taken.push(batch(source).await);
    }
    assert_eq!(taken.iter().flat_map(bodies).collect::<Vec<_>>(), [b"1", b"2", b"3", b"4", b"5", b"6"]);
    assert!(taken.iter().all(|batch| batch.items.len() <= 2));
    taken
}

#[tokio::test]
async fn a_refused_batch_is_offered_again_and_acknowledged_when_it_is_durable() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let mut source = open(&factory(&url, |options| options.batch_max = 2)).await;
    let client = Amqp::connect(&url).await;
    client.send("", QUEUE, &[b"1", b"2", b"3", b"4", b"5", b"6"]).await;
    let taken = all_of_six(&mut source).await;

    for batch in &taken {
        source.settle_batch(batch.id, refused()).await.unwrap();
    }
    let again = all_of_six(&mut source).await;
    for batch in &again {
        source.settle_batch(batch.id, durable(batch)).await.unwrap();
    }

    drop(source);
    assert!(client.drain(QUEUE).await.is_empty());
}

#[tokio::test]
async fn what_is_no_receipt_is_copied_to_the_dead_letter_queue_with_the_reason() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let mut source = open(&factory(&url, |_| {})).await;
    let large = "far too large ".repeat(30_000);
    let client = Amqp::connect(&url).await;

    for (body, fate) in [
        ("good", ItemFate::Appended),
        ("bad", ItemFate::Quarantined("not JSON".to_owned())),
        (large.as_str(), ItemFate::Quarantined("too large".to_owned())),
    ] {
        client.send("", QUEUE, &[body.as_bytes()]).await;
        let batch = batch(&mut source).await;
        source.settle_batch(batch.id, Settlement::Durable(vec![fate])).await.unwrap();
    }

    let dead = client.take(DEAD, 2).await;
    assert_eq!(
        (dead[0].data.as_slice(), header(&dead[0], "x-orchestrator-reason")),
        (&b"bad"[..], "not JSON".to_owned())
    );
    assert_eq!(header(&dead[0], "x-orchestrator-source"), "rabbit");
    assert!(dead[1].data == large.as_bytes(), "whole, although it is no receipt");
    drop(source);
    assert!(client.drain(QUEUE).await.is_empty());
    assert!(client.drain(DEAD).await.is_empty());
}

#[tokio::test]
async fn a_dead_letter_exchange_that_takes_nothing_holds_up_no_acknowledgement() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let client = Amqp::connect(&url).await;
    client.queue(DEAD, &[]).await;
    client.exchange("market.raw", ExchangeKind::Topic, None).await;
    client.exchange(DEAD, ExchangeKind::Fanout, None).await;
    client.queue(QUEUE, &[]).await;
    // A user who may read the queue and publish to the dead-letter exchange is enough; here no queue is bound to it.
    let url = Secrets::shared().as_service(&url);
    let mut source = open(&factory(&url, |options| options.topology = TopologyMode::Passive)).await;

    for body in [b"bad 1", b"bad 2"] {
        client.send("", QUEUE, &[body]).await;
        let batch = batch(&mut source).await;
        let fate = ItemFate::Quarantined("not JSON".to_owned());
        let settled = source.settle_batch(batch.id, Settlement::Durable(vec![fate]));
        timeout(Duration::from_secs(5), settled).await.unwrap().unwrap();
    }

    drop(source);
    assert!(client.drain(QUEUE).await.is_empty());
}

#[tokio::test]
async fn a_message_that_is_delivered_too_often_is_dead() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let factory = factory(&url, |options| options.delivery_limit = 2);
    let mut source = open(&factory).await;
    let client = Amqp::connect(&url).await;
    client.send("", QUEUE, &[b"poison"]).await;

    for _ in 0..2 {
        assert_eq!(bodies(&batch(&mut source).await), [b"poison"]);
        drop(source);
        source = open(&factory).await;
    }
    assert_eq!(bodies(&batch(&mut source).await), [b"poison"]);
    drop(source);

    assert_eq!(client.take(DEAD, 1).await[0].data, b"poison");
    assert!(client.drain(QUEUE).await.is_empty());
}

#[tokio::test]
async fn a_deleted_queue_is_lost_and_opening_again_heals_it() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let factory = factory(&url, |_| {});
    let mut source = open(&factory).await;
    let client = Amqp::connect(&url).await;
    client.send("", QUEUE, &[b"1"]).await;
    batch(&mut source).await;
    client.channel().queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await.unwrap();

    let error = failure(Ok(source)).await;
    assert!(matches!(error, SourceError::Lost { .. }), "{error}");
    assert!(error.to_string().contains("cancelled the consumer of queue orchestrator.receipts"), "{error}");
    let passive = RabbitSourceOptions { topology: TopologyMode::Passive, ..RabbitSourceOptions::default() };
    let endpoint = RabbitEndpoint::new(&url, None, Duration::from_secs(5)).unwrap();
    let error =
        failure(RabbitSourceFactory::new(endpoint, passive).open_source(ResumeAt::default()).await).await;
    assert!(
        matches!(error, SourceError::Lost { .. }) && error.to_string().contains("404 NOT_FOUND"),
        "{error}"
    );

    let mut source = open(&factory).await;
    client.send("market.raw", "x", &[b"2"]).await;
    assert_eq!(bodies(&batch(&mut source).await), [b"2"]);
}

#[tokio::test]
async fn a_queue_with_other_settings_is_fatal_and_says_what_to_do() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let client = Amqp::connect(&url).await;
    client.queue(QUEUE, &[]).await;

    let error = failure(factory(&url, |_| {}).open_source(ResumeAt::default()).await).await;

    assert!(matches!(error, SourceError::Fatal { .. }), "{error}");
    assert!(error.to_string().contains("queue orchestrator.receipts: 406 PRECONDITION_FAILED"), "{error}");
    assert!(error.to_string().contains("delete it"), "{error}");
}

#[tokio::test]
async fn no_more_messages_are_in_hand_than_the_prefetch_allows() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let mut source = open(&factory(&url, |options| (options.prefetch, options.batch_max) = (10, 4))).await;
    let client = Amqp::connect(&url).await;
    client.send("", QUEUE, &[b"x".as_slice(); 50]).await;

    let taken = batches(&mut source).await;

    assert_eq!(taken.iter().map(|batch| batch.items.len()).sum::<usize>(), 10);
    assert_eq!(client.ready(QUEUE).await, 40);
    source.settle_batch(taken[0].id, durable(&taken[0])).await.unwrap();
    let more = batches(&mut source).await;
    assert_eq!(more.iter().map(|batch| batch.items.len()).sum::<usize>(), taken[0].items.len());
}

#[tokio::test]
async fn a_second_consumer_takes_over_when_the_single_active_one_ends() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let factory = factory(&url, |options| options.single_active_consumer = true);
    let (mut active, mut standby) = (open(&factory).await, open(&factory).await);
    let client = Amqp::connect(&url).await;
    client.send("", QUEUE, &[b"1", b"2"]).await;
    let taken = batch(&mut active).await;
    assert_eq!(taken.items[0].bytes.as_ref(), b"1");
    assert!(timeout(QUIET, standby.next_batch()).await.is_err(), "only one is active");

    drop(active);

    let taken = batch(&mut standby).await;
    assert_eq!(taken.items[0].bytes.as_ref(), b"1", "from the first that was not acknowledged");
}

#[tokio::test]
async fn the_consumer_with_the_higher_priority_gets_the_messages() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let with = |priority| {
        factory(&url, |options| (options.single_active_consumer, options.priority) = (false, Some(priority)))
    };
    let (mut low, mut high) = (open(&with(1)).await, open(&with(5)).await);

    Amqp::connect(&url).await.send("", QUEUE, &[b"1", b"2", b"3"]).await;

    assert_eq!(batch(&mut high).await.items[0].bytes.as_ref(), b"1");
    assert!(timeout(QUIET, low.next_batch()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_an_operator_closes_is_lost_and_its_messages_come_again() {
    let server = RabbitServer::shared();
    let vhost = server.vhost();
    let url = server.url(&vhost);
    let factory = factory(&url, |_| {});
    let mut source = open(&factory).await;
    Amqp::connect(&url).await.send("", QUEUE, &[b"1"]).await;
    let taken = batch(&mut source).await;
    tokio::task::spawn_blocking(move || server.close_connections(&vhost)).await.unwrap();

    let settled = source.settle_batch(taken.id, durable(&taken)).await;
    let error = match settled {
        // It was on its way before the loss was noticed: then the next batch is not.
        Ok(()) => failure(Ok(source)).await,
        Err(error) => error,
    };
    assert!(matches!(error, SourceError::Lost { .. }), "{error}");
    let mut source = open(&factory).await;

    assert_eq!(bodies(&batch(&mut source).await), [b"1"]);
}

/// Method: the same queue name in two virtual hosts, declared as a classic and as a quorum queue by somebody else.
#[tokio::test]
async fn a_queue_of_another_kind_is_named() {
    let server = RabbitServer::shared();
    for (kind, is_named) in [("classic", true), ("quorum", false)] {
        let url = server.url(&server.vhost());
        let client = Amqp::connect(&url).await;
        client.queue(QUEUE, &[("x-queue-type", AMQPValue::LongString(kind.into()))]).await;
        client.queue(DEAD, &[]).await;
        client.exchange("market.raw", ExchangeKind::Topic, None).await;
        client.exchange(DEAD, ExchangeKind::Fanout, None).await;
        let url = Secrets::shared().as_service(&url);

        let mut source = open(&factory(&url, |options| options.topology = TopologyMode::Passive)).await;

        let oddities = source.take_oddities();
        assert_eq!(!oddities.is_empty(), is_named, "{kind}: {oddities:?}");
        assert!(oddities.iter().all(|oddity| oddity.detail().contains("no quorum queue")), "{oddities:?}");
    }
}

/// Queues of the suite's items, each in a virtual host of its own.
struct Queues(&'static RabbitServer);

#[async_trait]
impl SourceProvider for Queues {
    async fn fresh(&self) -> Arc<dyn SourceFactory> {
        let url = self.0.url(&self.0.vhost());
        let factory = factory(&url, |_| {});
        drop(open(&factory).await);
        let items: Vec<Bytes> = (0..ITEMS).map(sample_item).collect();
        let bodies: Vec<&[u8]> = items.iter().map(Bytes::as_ref).collect();
        Amqp::connect(&url).await.send("", QUEUE, &bodies).await;
        Arc::new(factory)
    }

    fn repeats(&self) -> Repeats {
        Repeats::Source
    }
}

#[tokio::test]
async fn rabbit_source_conforms() {
    source_conformance::run(&Queues(RabbitServer::shared())).await;
}
