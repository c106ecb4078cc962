//! A subscriber in the test: a durable queue of its own, and everything that came, in the order in which it came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::*;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::secrets::Secrets;

/// One message as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) message_id: String,
    pub(crate) symbol: String,
    pub(crate) symbol_seq: u64,
    pub(crate) body: Vec<u8>,
}

/// The subscriber while it runs. It goes on over every loss of its connection.
pub(crate) struct Subscriber {
    url: String,
    queue: String,
    messages: Arc<Mutex<Vec<Message>>>,
    reading: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscriber {
    /// Binds `queue` to `orchestrator.events` of this broker before it returns.
    pub(crate) async fn start(amqp_url: &str, queue: &str) -> Self {
        let messages: Arc<Mutex<Vec<Message>>> = Arc::default();
        bind(amqp_url, queue).await.unwrap();
        let (reading, mut allowed) = watch::channel(true);
        let task = tokio::spawn({
            let url = Secrets::shared().as_subscriber(amqp_url);
            let (queue, into) = (queue_of(queue), Arc::clone(&messages));
            async move {
                while allowed.wait_for(|allowed| *allowed).await.is_ok() {
                    tokio::select! {
                        ended = consume(&url, &queue, &into) => if let Err(error) = ended {
                            println!("subscriber of {queue}: {error}");
                        },
                        _ = allowed.wait_for(|allowed| !*allowed) => {}
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        });
        Self { url: amqp_url.to_owned(), queue: queue.to_owned(), messages, reading, task }
    }

    /// Ends its connection, as a consumer that was stopped; its queue grows.
    pub(crate) fn stop_reading(&self) {
        self.reading.send_replace(false);
    }

    /// Connects again.
    pub(crate) fn read_on(&self) {
        self.reading.send_replace(true);
    }

    /// Declares exchange, queue and binding again, as its operator does after somebody deleted one of them.
    pub(crate) async fn bind_again(&self) {
        bind(&self.url, &self.queue).await.unwrap();
    }

    /// Puts the outputs that went to the alternate exchange's queue, while nothing was bound, where they belong: before
    /// the first later one of their symbol. They must be in order among themselves.
    pub(crate) fn adopt(&self, unrouted: &[Delivery]) {
        let unrouted: Vec<Message> = unrouted.iter().map(message).collect();
        check_increasing(&unrouted);
        let mut messages = self.messages.lock().unwrap();
        for late in unrouted {
            let behind = messages
                .iter()
                .position(|known| known.symbol == late.symbol && late.symbol_seq < known.symbol_seq);
            let place = behind.unwrap_or(messages.len());
            messages.insert(place, late);
        }
    }

    /// Everything that came, repetitions included.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    /// Distinct messages so far.
    pub(crate) fn distinct(&self) -> usize {
        self.messages.lock().unwrap().iter().map(|message| &message.message_id).collect::<BTreeSet<_>>().len()
    }

    /// Per symbol, the bodies in the order of their first arrival. Repetitions must be equal but for the time at which
    /// they were published, and numbers without gap (OUT-1).
    pub(crate) fn deduplicated(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut first: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut streams: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for Message { message_id, symbol, symbol_seq, body } in self.messages() {
            let body = without_publish_time(&body);
            if let Some(known) = first.get(&message_id) {
                assert_eq!(*known, body, "{message_id} came twice with different content");
                continue;
            }
            first.insert(message_id, body.clone());
            let stream = streams.entry(symbol.clone()).or_default();
            stream.push(body);
            assert_eq!(symbol_seq, stream.len() as u64, "outputs of {symbol} come in order and without gap");
        }
        streams
    }
}

/// First arrivals are in the order of their numbers per symbol; for a subscriber that did not get everything.
pub(crate) fn check_increasing(messages: &[Message]) {
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for Message { message_id, symbol, symbol_seq, .. } in messages {
        if seen.insert(message_id) {
            let before = last.insert(symbol, *symbol_seq).unwrap_or(0);
            assert!(before < *symbol_seq, "{symbol}: output {symbol_seq} comes after {before}");
        }
    }
}

/// The body without `published_ts_ms`, the one thing that may differ between two publications.
pub(crate) fn without_publish_time(body: &[u8]) -> Vec<u8> {
    let mut event: serde_json::Value = serde_json::from_slice(body).unwrap();
    event["published_ts_ms"] = serde_json::Value::Null;
    event.to_string().into_bytes()
}

/// The name of a subscriber's queue on the broker: the shipped user may have those that begin like this.
pub(crate) fn queue_of(subscriber: &str) -> String {
    format!("subscriber.{subscriber}")
}

/// What the subscriber's operator does, who may declare the exchange too.
async fn bind(url: &str, queue: &str) -> lapin::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let mut alternate = FieldTable::default();
    alternate
        .insert("alternate-exchange".into(), AMQPValue::LongString("orchestrator.events.unrouted".into()));
    channel.exchange_declare("orchestrator.events".into(), ExchangeKind::Topic, durable, alternate).await?;
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue_of(queue).into(), durable, quorum).await?;
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue_of(queue).into(),
            "orchestrator.events".into(),
            "orchestrator_event.#".into(),
            options,
            FieldTable::default(),
        )
        .await
}

async fn consume(url: &str, queue: &str, into: &Mutex<Vec<Message>>) -> lapin::Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(256, BasicQosOptions::default()).await?;
    let consuming =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = consuming.await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        into.lock().unwrap().push(message(&delivery));
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

fn message(delivery: &Delivery) -> Message {
    let properties = &delivery.properties;
    let headers = properties.headers().clone().unwrap_or_default();
    let text = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        other => panic!("header {name} is {other:?}"),
    };
    let symbol_seq = match headers.inner().get("symbol_seq") {
        Some(AMQPValue::LongLongInt(number)) => u64::try_from(*number).unwrap(),
        other => panic!("header symbol_seq is {other:?}"),
    };
    let message_id = properties.message_id().as_ref().unwrap().to_string();
    Message { message_id, symbol: text("symbol"), symbol_seq, body: delivery.data.clone() }
}
