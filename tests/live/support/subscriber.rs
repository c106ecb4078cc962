//! A subscriber in the test: a durable queue of its own, and everything that came, in the order in which it came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::*;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use tokio::task::JoinHandle;

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
    messages: Arc<Mutex<Vec<Message>>>,
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
        let (url, queue, into) = (amqp_url.to_owned(), queue.to_owned(), Arc::clone(&messages));
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = consume(&url, &queue, &into).await {
                    println!("subscriber: {error}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self { messages, task }
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

/// The body without `published_ts_ms`, the one thing that may differ between two publications.
pub(crate) fn without_publish_time(body: &[u8]) -> Vec<u8> {
    let mut event: serde_json::Value = serde_json::from_slice(body).unwrap();
    event["published_ts_ms"] = serde_json::Value::Null;
    event.to_string().into_bytes()
}

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
    channel.queue_declare(queue.into(), durable, quorum).await?;
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.into(),
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

fn message(delivery: &lapin::message::Delivery) -> Message {
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
