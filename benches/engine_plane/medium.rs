//! What the experiments run on: the embedded default, or private servers as the service is deployed.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use orchestrator::config::{Config, SecretUrl, StorageKind};
use orchestrator_kernel::ports::fan_out::OutputMessage;

use super::servers::rabbit_server::RabbitServer;
use super::servers::redis_server::RedisServer;
use super::support::{Outcome, ensure, per_second};

/// What the logs and the fan-out are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Medium {
    /// Files.
    Embedded,
    /// Redis Streams with this `appendfsync`; outputs to a quorum queue of RabbitMQ where outputs are measured.
    Servers {
        /// `always` or `everysec`.
        appendfsync: &'static str,
    },
}

impl Medium {
    /// The word for results.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Embedded => "",
            Self::Servers { appendfsync } => match appendfsync.as_bytes() {
                b"always" => "Redis always: ",
                _ => "Redis everysec: ",
            },
        }
    }
}

/// The servers of one round; they end with it.
pub(crate) struct Rig {
    redis: Option<(RedisServer, &'static str)>,
    amqp: Option<String>,
}

impl Rig {
    /// Starts a Redis server if the medium has one. `with_broker`: outputs go to RabbitMQ, which all rounds share.
    pub(crate) fn start(medium: Medium, with_broker: bool) -> Self {
        match medium {
            Medium::Embedded => Self { redis: None, amqp: None },
            Medium::Servers { appendfsync } => {
                let redis = RedisServer::with(&["--appendfsync", appendfsync]);
                let broker = with_broker.then(RabbitServer::shared);
                let amqp = broker.map(|broker| broker.url(&broker.vhost()));
                Self { redis: Some((redis, appendfsync)), amqp }
            }
        }
    }

    /// Points the configuration to the servers.
    pub(crate) fn apply(&self, config: &mut Config) {
        if let Some((redis, appendfsync)) = &self.redis {
            config.storage.kind = StorageKind::Redis;
            config.redis.url = SecretUrl::from(redis.url().as_str());
            config.redis.archive_above = 1 << 40;
            config.redis.response_timeout = Duration::from_secs(10);
            config.redis.durability = match *appendfsync {
                "always" => orchestrator::config::RedisDurability::Always,
                _ => orchestrator::config::RedisDurability::Everysec,
            };
        }
        if let Some(amqp) = &self.amqp {
            config.publish.file = None;
            config.publish.rabbitmq.connection.url = SecretUrl::from(amqp.as_str());
        }
    }

    /// The URL of the Redis server.
    pub(crate) fn redis_url(&self) -> Option<String> {
        self.redis.as_ref().map(|(redis, _)| redis.url())
    }

    /// A bare publisher on the same broker, and a subscriber's quorum queue behind the exchange.
    pub(crate) async fn bare_publisher(&self) -> Outcome<Option<BarePublisher>> {
        match &self.amqp {
            Some(url) => Ok(Some(BarePublisher::connect(url).await?)),
            None => Ok(None),
        }
    }

    /// A subscriber's quorum queue behind the exchange, before anything is published: every output has to be routed.
    pub(crate) async fn subscribe(&self) -> Outcome<()> {
        let Some(url) = &self.amqp else { return Ok(()) };
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let mut alternate = FieldTable::default();
        let unrouted = AMQPValue::LongString("orchestrator.events.unrouted".into());
        alternate.insert("alternate-exchange".into(), unrouted);
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared =
            channel.exchange_declare("orchestrator.events".into(), ExchangeKind::Topic, durable, alternate);
        declared.await?;
        quorum_queue(&channel, "subscriber").await?;
        let options = QueueBindOptions::default();
        let (exchange, key) = ("orchestrator.events", "orchestrator_event.#");
        channel
            .queue_bind("subscriber".into(), exchange.into(), key.into(), options, FieldTable::default())
            .await?;
        Ok(())
    }
}

async fn quorum_queue(channel: &Channel, name: &str) -> Outcome<()> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(name.into(), durable, arguments).await?;
    Ok(())
}

/// The bare way to confirmed messages: publish all, then wait for all confirms, into one quorum queue.
pub(crate) struct BarePublisher {
    _connection: Connection,
    channel: Channel,
}

impl BarePublisher {
    async fn connect(url: &str) -> Outcome<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        quorum_queue(&channel, "bare").await?;
        Ok(Self { _connection: connection, channel })
    }

    /// Milliseconds until all are confirmed.
    pub(crate) async fn publish(&self, messages: &[OutputMessage]) -> Outcome<f64> {
        let begin = Instant::now();
        let mut confirms = Vec::with_capacity(messages.len());
        for message in messages {
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(message.message_id().into())
                .with_content_type("application/json".into());
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let sent =
                self.channel.basic_publish("".into(), "bare".into(), options, &message.body, properties);
            confirms.push(sent.await?);
        }
        for confirm in confirms {
            ensure(confirm.await?.is_ack(), || "the broker did not take a message".to_owned())?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}

/// The bare way to durable records in Redis: a client that sends the same batches through the same script, and does
/// nothing else. Records a second.
pub(crate) async fn bare_append(url: &str, commits: u64, records: u64, bytes: usize) -> Outcome<f64> {
    static ENTRY: OnceLock<Vec<u8>> = OnceLock::new();
    let entry = ENTRY.get_or_init(|| super::support::noise(bytes));
    let mut appender = BareAppender::connect(url).await?;
    let begin = Instant::now();
    for _ in 0..commits {
        appender.append(records, entry).await?;
    }
    Ok(per_second(commits * records, begin.elapsed()))
}

/// A client that appends to a log of its own by the service's script.
pub(crate) struct BareAppender {
    connection: redis::aio::MultiplexedConnection,
    script: redis::Script,
    next: u64,
}

impl BareAppender {
    pub(crate) async fn connect(url: &str) -> Outcome<Self> {
        let script = redis::Script::new(concat!(
            include_str!("../../src/adapters/redis/scripts/fence.lua"),
            include_str!("../../src/adapters/redis/scripts/append.lua"),
        ));
        let mut connection = redis::Client::open(url)?
            .get_multiplexed_async_connection_with_config(
                &redis::AsyncConnectionConfig::new().set_response_timeout(None),
            )
            .await?;
        script.load_async(&mut connection).await?;
        let fields = [
            ("log_id", "bare"),
            ("epoch", "1"),
            ("writer", "w"),
            ("start", "1"),
            ("tail", "0"),
            ("bytes", "0"),
        ];
        redis::cmd("HSET").arg("bare:meta").arg(&fields).query_async::<i64>(&mut connection).await?;
        Ok(Self { connection, script, next: 1 })
    }

    /// One durable batch of equal records.
    pub(crate) async fn append(&mut self, records: u64, entry: &[u8]) -> Outcome<()> {
        let count = usize::try_from(records)?;
        let mut command = redis::Cmd::with_capacity(9 + count, (entry.len() + 32) * count);
        command.arg("EVALSHA").arg(self.script.get_hash()).arg(2).arg("bare").arg("bare:meta");
        command.arg(1).arg("w").arg("bare").arg(self.next);
        for _ in 0..records {
            command.arg(entry);
        }
        let (word, _, _, _, _, _): (String, u64, u64, u64, u64, u64) =
            command.query_async(&mut self.connection).await?;
        self.next += records;
        ensure(word == "OK", || format!("the bare append was answered {word}"))
    }
}
