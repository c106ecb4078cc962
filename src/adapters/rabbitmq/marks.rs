//! The second mark as a message of a quorum queue: whoever notes or looks reads the queue up to a message of its own,
//! joins, publishes the join, and only then acknowledges what it read.
//!
//! ```text
//! orchestrator.marks (fanout) ──▶ orchestrator.marks (queue, one active consumer)
//!     1 consume: waits for whoever reads now
//!     2 publish what is known, and more        │ theirs │ mine │
//!     3 read up to mine                         ◀──────────────┘
//!     4 publish the join, confirmed            │ theirs │ mine │ join │
//!     5 acknowledge what was read                              │ join │
//!     6 close the channel: the next one reads
//! ```
//!
//! At every moment the queue, or whoever holds its messages, has the join of all that was noted: a process that dies
//! gives back what it held. The one active consumer is the lock: while somebody reads, another one waits, at most until
//! the broker takes a hung connection for dead (two heartbeats), and then says that it got no answer, never that there
//! is nothing. Nothing is dropped at the bound of the queue: a note beyond it is refused.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Consumer};
use orchestrator_kernel::ports::marks::{MarkError, MarkStore, Marks};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connection::{BrokerLink, BrokerTrouble, RabbitEndpoint, to_short_string};
use super::topology::{Argument, Binding, Exchange, Kind, Queue, Topology, TopologyMode};
use super::window::blocked_text;

/// Messages in the queue at most: those of processes that died between publishing and reading.
const MESSAGES_MAX: i64 = 1000;
/// The default of newer brokers is 20, and a message beyond it is dropped. Every note replaces the message.
const DELIVERY_LIMIT: i64 = 1_000_000;
/// How long one's own message is waited for before another one is published: somebody else may have read it.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Settings of the marks on RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitMarksOptions {
    /// The queue, and the fanout exchange of the same name that feeds it.
    pub queue: String,
    /// Whose marks. A queue is for one namespace.
    pub namespace: String,
    /// Who declares exchange and queue.
    pub topology: TopologyMode,
    /// Longest for one look or note.
    pub timeout: Duration,
}

impl Default for RabbitMarksOptions {
    /// `orchestrator.marks`, declared, of namespace `default`, 5 s.
    fn default() -> Self {
        Self {
            queue: "orchestrator.marks".to_owned(),
            namespace: "default".to_owned(),
            topology: TopologyMode::Declare,
            timeout: Duration::from_secs(5),
        }
    }
}

impl RabbitMarksOptions {
    /// What has to be on the broker.
    pub(super) fn needed_topology(&self) -> Topology {
        let name = self.queue.clone();
        let arguments = BTreeMap::from([
            ("x-max-length", Argument::Number(MESSAGES_MAX)),
            ("x-overflow", Argument::Text("reject-publish".to_owned())),
            ("x-delivery-limit", Argument::Number(DELIVERY_LIMIT)),
            ("x-single-active-consumer", Argument::Flag(true)),
        ]);
        Topology {
            exchanges: vec![Exchange { name: name.clone(), kind: Kind::Fanout, alternate: None }],
            queues: vec![Queue { name: name.clone(), arguments }],
            bindings: vec![Binding { exchange: name.clone(), queue: name, routing_key: String::new() }],
        }
    }
}

/// Marks in a queue of RabbitMQ.
pub struct RabbitMarks {
    endpoint: RabbitEndpoint,
    options: RabbitMarksOptions,
    open: Mutex<Option<KnownMarks>>,
}

/// A connection, and what was read over it. Each look or note has a channel of its own: what it held goes back into the
/// queue with it.
struct KnownMarks {
    known: Marks,
    link: BrokerLink,
}

impl RabbitMarks {
    /// Does not connect yet.
    #[must_use]
    pub const fn new(endpoint: RabbitEndpoint, options: RabbitMarksOptions) -> Self {
        Self { endpoint, options, open: Mutex::const_new(None) }
    }

    async fn exchange_marks(&self, more: &Marks) -> Result<Marks, MarkError> {
        let mut open = self.open.lock().await;
        // Taken: after whatever fails, or is dropped, the connection goes, and what it held goes back into the queue.
        let kept = open.take().filter(|kept| kept.link.is_connected());
        let exchanged = match timeout(self.options.timeout, self.join_with(kept, more)).await {
            Ok(exchanged) => exchanged.map_err(|why| MarkError::Away(why.detail)),
            Err(_) => {
                let limit = self.options.timeout;
                Err(MarkError::Away(format!("{} did not answer within {limit:?}", self.place_text())))
            }
        };
        Ok(open.insert(exchanged?).known.clone())
    }

    async fn join_with(&self, kept: Option<KnownMarks>, more: &Marks) -> Result<KnownMarks, BrokerTrouble> {
        let mut marks = match kept {
            Some(marks) => marks,
            None => KnownMarks { known: Marks::default(), link: self.open_link().await? },
        };
        marks.known.join_marks(more);
        let channel = self.open_channel(&marks.link).await?;
        let id = to_short_string(&format!("{:016x}", random_u64()))?;
        let mut consumer = self.consume_queue(&marks.link, &channel).await?;
        let last = loop {
            self.publish_known(&marks, &channel, &id).await?;
            // Whoever read when it came has taken it for one of those before: another one then.
            let read = self.read_up_to(&id, &mut consumer, &mut marks.known);
            if let Ok(read) = timeout(AGAIN_AFTER, read).await {
                break read?;
            }
        };
        self.publish_known(&marks, &channel, &to_short_string("")?).await?;
        let all = BasicAckOptions { multiple: true };
        marks.link.ask_in_time("acknowledging marks", channel.basic_ack(last, all)).await?;
        // The join came over this channel too by now: it goes back with the channel, and the lock with it.
        marks.link.ask_in_time("giving the marks back", channel.close(200, "OK".into())).await?;
        Ok(marks)
    }

    async fn open_link(&self) -> Result<BrokerLink, BrokerTrouble> {
        BrokerLink::open(&self.endpoint, &self.options.queue).await
    }

    async fn open_channel(&self, link: &BrokerLink) -> Result<Channel, BrokerTrouble> {
        let channel = link.open_channel().await?;
        self.options.needed_topology().ensure_all(link, &channel, self.options.topology).await?;
        link.ask_in_time("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default()))
            .await?;
        Ok(channel)
    }

    /// Everything that is in the queue comes, in its order, once nobody else reads.
    async fn consume_queue(&self, link: &BrokerLink, channel: &Channel) -> Result<Consumer, BrokerTrouble> {
        let queue = to_short_string(&self.options.queue)?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = channel.basic_consume(queue, "".into(), options, arguments);
        link.ask_in_time(&format!("reading {}", self.options.queue), consuming).await
    }

    /// Joins what comes to `known`, up to the message with this id; its delivery tag.
    async fn read_up_to(
        &self,
        id: &ShortString,
        consumer: &mut Consumer,
        known: &mut Marks,
    ) -> Result<u64, BrokerTrouble> {
        let queue = &self.options.queue;
        loop {
            let delivery = match consumer.next().await {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => {
                    return Err(BrokerTrouble::from(error).during(&format!("reading {queue}")));
                }
                None => return Err(BrokerTrouble::new(format!("the broker ended the reading of {queue}"))),
            };
            self.learn_marks(&delivery.data, known)?;
            if delivery.properties.message_id().as_ref() == Some(id) {
                return Ok(delivery.delivery_tag);
            }
        }
    }

    /// What is no mark is dropped with a word: every message of ours has all that its writer knew. Marks of another
    /// deployment would be dropped too, so they are refused.
    fn learn_marks(&self, stored: &[u8], known: &mut Marks) -> Result<(), BrokerTrouble> {
        let RabbitMarksOptions { queue, namespace, .. } = &self.options;
        match Marks::decode(stored) {
            Ok((found, marks)) if found == *namespace => known.join_marks(&marks),
            Ok((found, _)) => {
                let what = format!("queue {queue} holds the marks of namespace {found}, not {namespace}");
                return Err(BrokerTrouble::new(format!(
                    "{what}: give each deployment a redis.mark.queue of its own"
                )));
            }
            Err(error) => tracing::warn!(queue, %error, "a message among the marks is none"),
        }
        Ok(())
    }

    /// Publishes all that is known, so that this message alone is enough.
    async fn publish_known(
        &self,
        marks: &KnownMarks,
        channel: &Channel,
        id: &ShortString,
    ) -> Result<(), BrokerTrouble> {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_app_id("orchestrator".into())
            .with_content_type("text/plain".into())
            .with_message_id(id.clone());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = marks.known.encode(&self.options.namespace);
        let exchange = to_short_string(&self.options.queue)?;
        let confirmed = async {
            let sent = channel.basic_publish(exchange, "".into(), options, body.as_bytes(), properties);
            sent.await?.await
        };
        let mut blocking = marks.link.watch_blocking();
        let blocked = async { blocking.wait_for(Option::is_some).await.map(|reason| reason.clone()) };
        let confirmation = tokio::select! {
            biased;
            confirmed = confirmed => confirmed.map_err(BrokerTrouble::from)?,
            Ok(reason) = blocked => return Err(BrokerTrouble::new(blocked_text(&reason.unwrap_or_default()))),
        };
        let queue = &self.options.queue;
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => {
                Err(BrokerTrouble::new(format!("nothing is bound to exchange {queue}")))
            }
            Confirmation::Nack(_) => {
                Err(BrokerTrouble::new(format!("queue {queue} refused a mark (nack): it is full")))
            }
            Confirmation::NotRequested => Err(BrokerTrouble::new("the channel gives no confirms")),
        }
    }
}

#[async_trait]
impl MarkStore for RabbitMarks {
    fn place_text(&self) -> String {
        format!("{}, queue {}", self.endpoint, self.options.queue)
    }

    async fn load_marks(&self) -> Result<Marks, MarkError> {
        self.exchange_marks(&Marks::default()).await
    }

    async fn note_marks(&self, marks: &Marks) -> Result<Marks, MarkError> {
        self.exchange_marks(marks).await
    }
}

fn random_u64() -> u64 {
    // The standard library's per-process random keys, without another dependency.
    RandomState::new().build_hasher().finish()
}
