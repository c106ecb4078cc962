//! Receipts from a quorum queue: acknowledged only after they are durable in the receipt log (LOG-2).
//!
//! ```text
//! market.raw (topic) ──#──▶ orchestrator.receipts (quorum queue) ──prefetch──▶ batches ──▶ ingest
//!                              │ delivered too often                   ack ◀── durable ──┘
//!                              └─▶ orchestrator.receipts.dead (fanout and queue) ◀── copies of what is no receipt
//! ```
//!
//! An acknowledgement covers every message up to its tag, so it is given only when all of them are durable. One that is
//! lost with the connection makes its messages come again: then they are receipts once more, because the queue numbers
//! nothing and upstream duplicates are kept. Receipts that a producer numbers come over HTTP: there the log can answer
//! a gap, here it could only be met by reading the same messages for ever.
//!
//! Every delivery that is not acknowledged counts against the queue's delivery limit, and so does each end of this
//! process with messages in hand: a message is dead only after that many.
//!
//! The trading plane's intake of events reads a queue the same way, bound by the patterns of its configuration.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, Consumer};
use orchestrator_kernel::engine::contracts::quarantine::KEPT_BYTES_MAX;
use orchestrator_kernel::ids::Origin;
use orchestrator_kernel::ports::source::{
    RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory, SourceOddity,
};
use orchestrator_kernel::ports::unsettled::{Turn, Unsettled};

use super::connection::{BrokerLink, BrokerTrouble, RabbitEndpoint, to_short_string};
use super::dead_letters::DeadLetters;
use super::topology::{Argument, Binding, Exchange, Kind, Queue, Topology, TopologyMode};

/// Messages that the queue of dead ones holds; then dead ones stay where they are.
const DEAD_MESSAGES_MAX: i64 = 100_000;

/// How often a channel that nothing is taken from is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Kind of the items that a queue brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RabbitItems {
    /// Receipts: everything that the exchange gets. What is none stands in the quarantine too.
    #[default]
    Receipts,
    /// Events of these topics, each with its topic. What does not fit stands in the dead-letter queue alone, so that
    /// nothing is acknowledged before its copy is there.
    Events {
        /// Patterns of topics.
        patterns: Vec<String>,
    },
}

impl RabbitItems {
    /// Patterns by which the queue is bound.
    fn binding_keys(&self) -> Vec<&str> {
        match self {
            Self::Receipts => vec!["#"],
            Self::Events { patterns } => patterns.iter().map(String::as_str).collect(),
        }
    }

    /// The topic of an item, if it is to be told.
    fn topic_of(&self, routing_key: &ShortString) -> Option<Box<str>> {
        match self {
            Self::Receipts => None,
            Self::Events { .. } => Some(routing_key.as_str().into()),
        }
    }

    /// Whether a refused item of so many bytes is kept nowhere but by its copy.
    const fn needs_copy(&self, bytes: usize) -> bool {
        match self {
            Self::Receipts => is_cut_by_the_quarantine(bytes),
            Self::Events { .. } => true,
        }
    }
}

/// Settings of a queue that is read as a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitSourceOptions {
    /// Name from the configuration; the origin of its receipts and the consumer's tag.
    pub name: String,
    /// The topic exchange that producers publish to.
    pub exchange: String,
    /// The quorum queue that is bound to it. With `.dead` behind it: the dead-letter exchange and its queue.
    pub queue: String,
    /// Messages that the broker hands over before it waits for acknowledgements, at least 1. With the size of a message
    /// this bounds memory; the broker's `max_message_size` bounds that.
    pub prefetch: u16,
    /// Deliveries of one message after which it is dead.
    pub delivery_limit: u32,
    /// Whether only one consumer at a time gets messages, so that their order holds over several orchestrators.
    pub single_active_consumer: bool,
    /// Larger gets messages first; the broker's default is 0.
    pub priority: Option<i32>,
    /// Messages of a batch, at least 1.
    pub batch_max: usize,
    /// Bytes of a batch; the message that reaches it is its last.
    pub batch_bytes_max: usize,
    /// Batches that ingest may hold unsettled, at least 1.
    pub unsettled_batches_max: usize,
    /// Who declares exchanges and queues.
    pub topology: TopologyMode,
    /// What it brings.
    pub brings: RabbitItems,
}

impl Default for RabbitSourceOptions {
    /// `orchestrator.receipts` on `market.raw`, prefetch 4096, batches of 1024 or 8 MiB, 8 of them unsettled, 100
    /// deliveries, one consumer at a time.
    fn default() -> Self {
        Self {
            name: "rabbitmq".to_owned(),
            exchange: "market.raw".to_owned(),
            queue: "orchestrator.receipts".to_owned(),
            prefetch: 4096,
            delivery_limit: 100,
            single_active_consumer: true,
            priority: None,
            batch_max: 1024,
            batch_bytes_max: 8 << 20,
            unsettled_batches_max: 8,
            topology: TopologyMode::Declare,
            brings: RabbitItems::Receipts,
        }
    }
}

impl RabbitSourceOptions {
    /// Dead messages go there.
    fn dead_letter_name(&self) -> String {
        format!("{}.dead", self.queue)
    }

    /// What has to be on the broker. What takes the dead comes first.
    ///
    /// The strategy `at-least-once` moves a dead message only after the other queue has it; the broker demands that
    /// both queues refuse publishers instead of dropping when they are full.
    pub(super) fn needed_topology(&self) -> Topology {
        let text = |text: &str| Argument::Text(text.to_owned());
        let refuse = ("x-overflow", text("reject-publish"));
        let mut arguments = BTreeMap::from([
            ("x-delivery-limit", Argument::Number(self.delivery_limit.into())),
            ("x-dead-letter-exchange", text(&self.dead_letter_name())),
            ("x-dead-letter-strategy", text("at-least-once")),
            refuse.clone(),
        ]);
        if self.single_active_consumer {
            arguments.insert("x-single-active-consumer", Argument::Flag(true));
        }
        let dead_arguments = BTreeMap::from([("x-max-length", Argument::Number(DEAD_MESSAGES_MAX)), refuse]);
        let binding = |exchange: &str, queue: &str, key: &str| Binding {
            exchange: exchange.to_owned(),
            queue: queue.to_owned(),
            routing_key: key.to_owned(),
        };
        Topology {
            exchanges: vec![
                Exchange { name: self.dead_letter_name(), kind: Kind::Fanout, alternate: None },
                Exchange { name: self.exchange.clone(), kind: Kind::Topic, alternate: None },
            ],
            queues: vec![
                Queue { name: self.dead_letter_name(), arguments: dead_arguments },
                Queue { name: self.queue.clone(), arguments },
            ],
            bindings: [binding(&self.dead_letter_name(), &self.dead_letter_name(), "")]
                .into_iter()
                .chain(
                    self.brings
                        .binding_keys()
                        .into_iter()
                        .map(|key| binding(&self.exchange, &self.queue, key)),
                )
                .collect(),
        }
    }
}

/// Opens the source.
#[derive(Clone, Debug)]
pub struct RabbitSourceFactory {
    endpoint: RabbitEndpoint,
    options: RabbitSourceOptions,
    /// The kind of a queue that an operator declared is asked for once: the broker logs the question as an error.
    kind_asked: Arc<AtomicBool>,
}

impl RabbitSourceFactory {
    /// Does not connect yet.
    #[must_use]
    pub fn new(endpoint: RabbitEndpoint, options: RabbitSourceOptions) -> Self {
        Self { endpoint, options, kind_asked: Arc::default() }
    }

    /// What is other than asked for about a queue that we did not declare.
    async fn look_at_queue(&self) -> Option<SourceOddity> {
        if self.options.topology == TopologyMode::Declare || self.kind_asked.swap(true, Ordering::Relaxed) {
            return None;
        }
        let queue = &self.options.queue;
        match refuses_global_prefetch(&self.endpoint, queue).await {
            Ok(true) => None,
            Ok(false) => Some(SourceOddity::OtherKind {
                detail: format!(
                    "queue {queue} is no quorum queue: it may lose messages with its node, counts no deliveries, and \
                     keeps a message that is no receipt coming; declare it as in ops/rabbitmq/definitions.json"
                ),
            }),
            Err(why) => {
                tracing::debug!(queue, error_detail = %why, "the kind of the queue is not known");
                None
            }
        }
    }

    /// Connects and subscribes.
    async fn subscribe_queue(&self) -> Result<(BrokerLink, Channel, Consumer), BrokerTrouble> {
        let options = &self.options;
        let link = BrokerLink::open(&self.endpoint, &options.name).await?;
        let channel = link.open_channel().await?;
        options.needed_topology().ensure_all(&link, &channel, options.topology).await?;
        let qos = channel.basic_qos(options.prefetch.max(1), BasicQosOptions::default());
        link.ask_in_time("setting the prefetch", qos).await?;
        let mut arguments = FieldTable::default();
        if let Some(priority) = options.priority {
            arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
        }
        let (queue, tag) = (to_short_string(&options.queue)?, to_short_string(&options.name)?);
        let consuming = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), arguments);
        let consumer = link.ask_in_time(&format!("consuming {}", options.queue), consuming).await?;
        Ok((link, channel, consumer))
    }
}

#[async_trait]
impl SourceFactory for RabbitSourceFactory {
    fn name(&self) -> &str {
        &self.options.name
    }

    /// Subscribes to the queue. Where to resume is known to the queue alone.
    async fn open_source(&self, _: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        let options = &self.options;
        let (link, channel, consumer) = self.subscribe_queue().await.map_err(|why| match why.code {
            Some(406) => SourceError::Fatal {
                detail: format!(
                    "{why}; delete it when its messages are not needed, or set the topology to passive to use it is"
                ),
            },
            Some(_) | None => SourceError::Lost { detail: why.to_string() },
        })?;
        Ok(Box::new(RabbitSource {
            oddities: self.look_at_queue().await.into_iter().collect(),
            unsettled: Unsettled::new(Origin::from(options.name.as_str()), options.unsettled_batches_max),
            open: VecDeque::new(),
            held: None,
            ended: None,
            dead_letters: DeadLetters::new(self.endpoint.clone(), &options.name, options.dead_letter_name()),
            options: options.clone(),
            consumer,
            channel,
            link,
        }))
    }
}

/// Whether a queue refuses consumers of a channel with a global prefetch, as quorum queues do. Anybody who may read the
/// queue may ask that; its arguments are shown to none who may not configure it.
async fn refuses_global_prefetch(endpoint: &RabbitEndpoint, queue: &str) -> Result<bool, BrokerTrouble> {
    // The refusal ends the whole connection.
    let link = BrokerLink::open(endpoint, "kind of a queue").await?;
    let channel = link.open_channel().await?;
    let qos = channel.basic_qos(1, BasicQosOptions { global: true });
    link.ask_in_time("setting a global prefetch", qos).await?;
    let consuming = channel.basic_consume(
        to_short_string(queue)?,
        to_short_string("")?,
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    match link.ask_in_time(&format!("consuming {queue}"), consuming).await {
        Ok(_) => Ok(false),
        Err(BrokerTrouble { code: Some(540), .. }) => Ok(true),
        Err(why) => Err(why),
    }
}

/// A subscription. Dropping it gives back to the queue what is not acknowledged.
struct RabbitSource {
    options: RabbitSourceOptions,
    unsettled: Unsettled,
    /// Batches in the order of their tags, from the oldest that is not acknowledged.
    open: VecDeque<OpenBatch>,
    /// A message that is to be a batch of its own.
    held: Option<Delivery>,
    /// Why no more messages come, once the last one is handed over.
    ended: Option<BrokerTrouble>,
    dead_letters: DeadLetters,
    oddities: Vec<SourceOddity>,
    // Dropped in this order: the connection goes last.
    consumer: Consumer,
    channel: Channel,
    link: BrokerLink,
}

struct OpenBatch {
    /// As ingest knows it now; a batch that is handed over again has a new name.
    id: u64,
    last_tag: u64,
    items: Vec<RawItem>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Refused,
    Durable,
}

impl RabbitSource {
    /// Adds what has come to `items`, without waiting; tells the last tag.
    fn gather_items(&mut self, first: Delivery) -> (Vec<RawItem>, u64) {
        let mut last_tag = first.delivery_tag;
        let mut bytes = first.data.len();
        let is_alone = is_cut_by_the_quarantine(first.data.len());
        let mut items = vec![self.raw_item(first)];
        while !is_alone && items.len() < self.options.batch_max && bytes < self.options.batch_bytes_max {
            match self.consumer.next().now_or_never() {
                None => break,
                Some(Some(Ok(delivery))) if is_cut_by_the_quarantine(delivery.data.len()) => {
                    self.held = Some(delivery);
                    break;
                }
                Some(Some(Ok(delivery))) => {
                    last_tag = delivery.delivery_tag;
                    bytes += delivery.data.len();
                    items.push(self.raw_item(delivery));
                }
                Some(Some(Err(error))) => {
                    self.ended = Some(error.into());
                    break;
                }
                Some(None) => {
                    self.ended = Some(self.cancelled_trouble());
                    break;
                }
            }
        }
        (items, last_tag)
    }

    fn raw_item(&self, delivery: Delivery) -> RawItem {
        let topic = self.options.brings.topic_of(&delivery.routing_key);
        RawItem { position: None, bytes: delivery.data.into(), oversized: None, topic }
    }

    /// Waits until the broker closes the channel: while nothing is taken, nothing else tells.
    async fn wait_for_its_end(&mut self) -> SourceError {
        while self.channel.status().connected() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.channel_lost()
    }

    /// Why the channel is closed, as far as the broker said.
    fn channel_lost(&mut self) -> SourceError {
        let said = loop {
            match self.consumer.next().now_or_never() {
                Some(Some(Ok(_))) => {}
                Some(Some(Err(error))) => break BrokerTrouble::from(error),
                Some(None) | None => break BrokerTrouble::new("the broker closed the channel"),
            }
        };
        lost_error(said.during(&format!("consuming {}", self.options.queue)))
    }

    fn cancelled_trouble(&self) -> BrokerTrouble {
        BrokerTrouble::new(format!(
            "the broker cancelled the consumer of queue {}: the queue was deleted, or its leader is gone",
            self.options.queue
        ))
    }

    /// The refused batch that comes first: they are handed over again in the order of their tags.
    fn note_again(&mut self, id: u64) {
        if let Some(open) = self.open.iter_mut().find(|open| open.state == State::Refused) {
            open.id = id;
            open.state = State::InFlight;
        }
    }

    /// Acknowledges the batches at the front that are durable.
    async fn acknowledge_durable(&mut self) -> Result<(), SourceError> {
        let mut tag = None;
        while self.open.front().is_some_and(|open| open.state == State::Durable) {
            tag = self.open.pop_front().map(|open| open.last_tag);
        }
        let Some(tag) = tag else { return Ok(()) };
        let sent = self.channel.basic_ack(tag, BasicAckOptions { multiple: true });
        self.link.ask_in_time("acknowledging", sent).await.map_err(lost_error)
    }
}

#[async_trait]
impl Source for RabbitSource {
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        // On a closed channel nothing can be acknowledged any more: what is offered again all the same would be durable,
        // and come once more from the queue.
        if !self.channel.status().connected() {
            return Err(self.channel_lost());
        }
        match self.unsettled.next_turn() {
            Turn::Again(batch) => {
                self.note_again(batch.id);
                return Ok(Some(batch));
            }
            // A settlement needs `self` too, so it always comes after this future was dropped.
            Turn::Wait => return Err(self.wait_for_its_end().await),
            Turn::Fresh => {}
        }
        let first = match (self.held.take(), &self.ended) {
            (Some(held), _) => held,
            (None, Some(why)) => return Err(lost_error(why.clone())),
            (None, None) => match self.consumer.next().await {
                Some(Ok(delivery)) => delivery,
                Some(Err(error)) => return Err(lost_error(error.into())),
                None => return Err(lost_error(self.cancelled_trouble())),
            },
        };
        // From here on nothing waits, so nothing that was taken can be lost.
        let (items, last_tag) = self.gather_items(first);
        let batch = self.unsettled.hand_over(items);
        let items = batch.items.clone();
        self.open.push_back(OpenBatch { id: batch.id, last_tag, items, state: State::InFlight });
        Ok(Some(batch))
    }

    fn take_oddities(&mut self) -> Vec<SourceOddity> {
        std::mem::take(&mut self.oddities)
    }

    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError> {
        self.unsettled.settle_oldest(id, &settlement)?;
        let Some(open) = self.open.iter_mut().find(|open| open.id == id) else { return Ok(()) };
        match settlement {
            Settlement::Refused { .. } | Settlement::Denied { .. } | Settlement::Gap { .. } => {
                open.state = State::Refused;
                Ok(())
            }
            Settlement::Durable(fates) => {
                open.state = State::Durable;
                let items = std::mem::take(&mut open.items);
                if let Err(why) = self.dead_letters.copy_quarantined(&items, &fates).await
                    && items.iter().any(|item| self.options.brings.needs_copy(item.bytes.len()))
                {
                    // Acknowledged, it or the rest of it would be nowhere.
                    return Err(lost_error(
                        why.during("a message that nothing else keeps stays in the queue"),
                    ));
                }
                self.acknowledge_durable().await
            }
        }
    }
}

/// Whether only the copy in the dead-letter queue can hold all of a message. Such a one is a batch of its own: it is
/// acknowledged only with its copy, and may come again often.
const fn is_cut_by_the_quarantine(bytes: usize) -> bool {
    KEPT_BYTES_MAX < bytes
}

fn lost_error(why: BrokerTrouble) -> SourceError {
    SourceError::Lost { detail: why.detail }
}
