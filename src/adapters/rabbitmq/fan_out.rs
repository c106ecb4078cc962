//! Outputs to a topic exchange: persistent, mandatory, each confirmed (OUT-2).
//!
//! ```text
//! publish ──▶ orchestrator.events (topic) ──binding──▶ queues of the consumers
//!                    │ no binding takes it
//!                    └─▶ orchestrator.events.unrouted (fanout) ──▶ orchestrator.events.unrouted (queue, bounded)
//! ```
//!
//! The alternate exchange keeps what nobody has subscribed to, so an output without a consumer holds nothing up and can
//! still be looked at. A message comes back as unroutable only when that is missing too: somebody broke the topology,
//! and publishing stops there until it is repaired.
//!
//! One that is refused for good is named, and its symbol is held. After an error the caller offers again what follows
//! the confirmed prefix. So a consumer may see an output twice, and after a refusal one that overtook an earlier one:
//! `message_id` recognises the first, the header `symbol_seq` the second.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use lapin::BasicProperties;
use lapin::types::ShortString;
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError};

use super::connection::RabbitEndpoint;
use super::properties::{OutputNumber, message_properties};
use super::publisher::{PublisherOptions, RabbitPublisher};
use super::routing_key::routing_key;
use super::topology::{Argument, Binding, Exchange, Kind, Queue, Topology, TopologyMode};
use super::window::RabbitMessage;

/// Settings of the fan-out to RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitFanOutOptions {
    /// Name of this fan-out in logs, metrics and the broker's list of connections.
    pub name: String,
    /// The topic exchange. With `.unrouted` behind it: the alternate exchange and its queue.
    pub exchange: String,
    /// Outputs without a subscriber that are kept, at least 1; beyond it the oldest is dropped. The run log has them
    /// all.
    pub unrouted_messages_max: u32,
    /// Who declares the exchanges and the queue.
    pub topology: TopologyMode,
    /// Messages on their way at a time, at least 1. So many may come twice after an error. From 256 to 4096 the
    /// throughput is the same within what measurements scatter.
    pub window: usize,
    /// Longest for the confirm of one message. Does not run while the broker blocks publishers. More than zero.
    pub confirm_timeout: Duration,
}

impl Default for RabbitFanOutOptions {
    /// `orchestrator.events`, 100,000 unrouted outputs, declared, 1024 on their way, 10 s.
    fn default() -> Self {
        Self {
            name: "rabbitmq".to_owned(),
            exchange: "orchestrator.events".to_owned(),
            unrouted_messages_max: 100_000,
            topology: TopologyMode::Declare,
            window: 1024,
            confirm_timeout: Duration::from_secs(10),
        }
    }
}

impl RabbitFanOutOptions {
    /// What has to be on the broker. The alternate exchange comes first, so that the other never is without.
    pub(super) fn needed_topology(&self) -> Topology {
        let unrouted = format!("{}.unrouted", self.exchange);
        let arguments = BTreeMap::from([
            ("x-max-length", Argument::Number(self.unrouted_messages_max.into())),
            ("x-overflow", Argument::Text("drop-head".to_owned())),
        ]);
        let alternate = Some(unrouted.clone());
        Topology {
            exchanges: vec![
                Exchange { name: unrouted.clone(), kind: Kind::Fanout, alternate: None },
                Exchange { name: self.exchange.clone(), kind: Kind::Topic, alternate },
            ],
            queues: vec![Queue { name: unrouted.clone(), arguments }],
            bindings: vec![Binding {
                exchange: unrouted.clone(),
                queue: unrouted,
                routing_key: String::new(),
            }],
        }
    }
}

/// A fan-out to RabbitMQ. Connects when it is to make ready or to publish, and again after each loss.
pub struct RabbitFanOut {
    name: String,
    publisher: RabbitPublisher,
}

impl RabbitFanOut {
    /// Does not connect yet.
    #[must_use]
    pub fn new(endpoint: RabbitEndpoint, options: RabbitFanOutOptions) -> Self {
        let needs = options.needed_topology();
        let publisher = PublisherOptions {
            name: options.name.clone(),
            exchange: options.exchange,
            needs,
            topology: options.topology,
            topology_setting: "publish.rabbitmq.topology",
            window: options.window,
            confirm_timeout: options.confirm_timeout,
        };
        Self { name: options.name, publisher: RabbitPublisher::new(endpoint, publisher) }
    }
}

impl RabbitMessage for OutputMessage {
    /// A message that nobody takes is handed back; without that it would be confirmed and lost.
    #[cfg(not(feature = "mutants"))]
    fn is_mandatory() -> bool {
        true
    }

    #[cfg(feature = "mutants")]
    fn is_mandatory() -> bool {
        super::mutants::is_mandatory()
    }

    fn routing_key(&self) -> ShortString {
        routing_key(self)
    }

    fn properties(&self) -> BasicProperties {
        message_properties(self)
    }

    fn body(&self) -> &[u8] {
        &self.body
    }

    fn message_name(&self) -> String {
        self.message_id()
    }

    fn has_properties(&self, properties: &BasicProperties) -> bool {
        OutputNumber::from_properties(properties).is_some_and(|number| number.is_of_message(self))
    }
}

#[async_trait]
impl FanOut for RabbitFanOut {
    fn name(&self) -> &str {
        &self.name
    }

    async fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError> {
        self.publisher.publish(messages).await
    }

    async fn prepare(&mut self) -> Result<(), PublishError> {
        self.publisher.prepare().await
    }

    fn held_back(&self) -> Option<String> {
        self.publisher.held_back()
    }

    fn is_in_doubt(&self) -> bool {
        self.publisher.is_in_doubt()
    }
}
