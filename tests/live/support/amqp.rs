//! A plain client of a broker, as producers, consumers and operators would use it.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::*;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind, PublisherConfirm,
};
use tokio::time::{Instant, sleep, timeout};

/// How long a message may take to come.
const MESSAGE_MAX: Duration = Duration::from_secs(20);

/// A connection with one channel. A refused call closes the channel: then make another client.
pub(crate) struct Amqp {
    _connection: Connection,
    channel: Channel,
}

impl Amqp {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { _connection: connection, channel }
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// A durable exchange.
    pub(crate) async fn exchange(&self, name: &str, kind: ExchangeKind, alternate: Option<&str>) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        if let Some(alternate) = alternate {
            arguments.insert("alternate-exchange".into(), AMQPValue::LongString(alternate.into()));
        }
        self.channel.exchange_declare(name.into(), kind, options, arguments).await.unwrap();
    }

    /// A durable queue with arguments besides.
    pub(crate) async fn queue(&self, name: &str, arguments: &[(&str, AMQPValue)]) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        self.channel.queue_declare(name.into(), options, table).await.unwrap();
    }

    /// A queue in memory: it confirms at once, so confirms come many to a frame.
    pub(crate) async fn transient_queue(&self, name: &str) {
        let options = QueueDeclareOptions::default();
        self.channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
    }

    pub(crate) async fn bind(&self, queue: &str, exchange: &str, key: &str) {
        let bound = self.channel.queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.unwrap();
    }

    /// Publishes to an exchange, the default one (`""`) being that of all queues by name; waits for the confirms.
    ///
    /// An exchange that no queue is bound to yet confirms a message and drops it: the first is repeated until a queue
    /// takes it.
    pub(crate) async fn send(&self, exchange: &str, key: &str, bodies: &[&[u8]]) {
        let Some((first, rest)) = bodies.split_first() else { return };
        let deadline = Instant::now() + MESSAGE_MAX;
        while self.publish(exchange, key, first).await.await.unwrap().take_message().is_some() {
            assert!(Instant::now() < deadline, "no queue is bound to {exchange:?} for {key:?}");
            sleep(Duration::from_millis(5)).await;
        }
        let mut confirms = Vec::new();
        for body in rest {
            confirms.push(self.publish(exchange, key, body).await);
        }
        for confirm in confirms {
            assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
        }
    }

    async fn publish(&self, exchange: &str, key: &str, body: &[u8]) -> PublisherConfirm {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default().with_delivery_mode(2);
        self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await.unwrap()
    }

    /// Takes exactly `count` messages out of a queue.
    pub(crate) async fn take(&self, queue: &str, count: usize) -> Vec<Delivery> {
        let taken = self.consume(queue, count, MESSAGE_MAX).await;
        assert_eq!(taken.len(), count, "not all messages came in time");
        taken
    }

    /// Takes what is in a queue until nothing has come for a second.
    pub(crate) async fn drain(&self, queue: &str) -> Vec<Delivery> {
        self.consume(queue, usize::MAX, Duration::from_secs(1)).await
    }

    async fn consume(&self, queue: &str, max: usize, patience: Duration) -> Vec<Delivery> {
        let options = BasicConsumeOptions::default();
        let consuming = self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        let mut consumer = consuming.await.unwrap();
        let mut taken = Vec::new();
        while taken.len() < max
            && let Ok(delivery) = timeout(patience, consumer.next()).await
        {
            let delivery = delivery.unwrap().unwrap();
            // One by one: a quorum queue hands over no more than 2000 that are not acknowledged.
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            taken.push(delivery);
        }
        self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
        taken
    }

    /// Messages that a queue has ready for consumers.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .unwrap()
            .message_count()
    }
}
