//! Events of the trading plane to a topic exchange: persistent, routed by their names, each confirmed.
//!
//! An event that nobody listens to is confirmed and gone: the journal is its outbox and has it. So the exchange needs
//! no alternate one, and a consumer that binds later reads what came before from the service itself.

use std::time::Duration;

use async_trait::async_trait;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use orchestrator_kernel::ports::event_bus::{EventBus, EventMessage, EventsNotTaken};
use orchestrator_kernel::ports::fan_out::PublishError;
use orchestrator_kernel::trading::event::EVENT_SCHEMA_VERSION;
use tokio::sync::Mutex;

use super::connection::RabbitEndpoint;
use super::publisher::{PublisherOptions, RabbitPublisher};
use super::topology::{Exchange, Kind, Topology, TopologyMode};
use super::window::RabbitMessage;

/// `delivery_mode` of a message that is written to disk.
const PERSISTENT: u8 = 2;

/// Settings of the event bus on RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitEventBusOptions {
    /// Its name in logs and in the broker's list of connections.
    pub name: String,
    /// The topic exchange.
    pub exchange: String,
    /// Who declares it.
    pub topology: TopologyMode,
    /// Events on their way at a time, at least 1.
    pub window: usize,
    /// Longest for one confirm. Does not run while the broker blocks publishers. More than zero.
    pub confirm_timeout: Duration,
}

impl Default for RabbitEventBusOptions {
    /// `orchestrator.trading`, declared, 1024 on their way, 10 s.
    fn default() -> Self {
        Self {
            name: "trading events".to_owned(),
            exchange: "orchestrator.trading".to_owned(),
            topology: TopologyMode::Declare,
            window: 1024,
            confirm_timeout: Duration::from_secs(10),
        }
    }
}

impl RabbitEventBusOptions {
    /// What has to be on the broker.
    pub(super) fn needed_topology(&self) -> Topology {
        let exchange = Exchange { name: self.exchange.clone(), kind: Kind::Topic, alternate: None };
        Topology { exchanges: vec![exchange], ..Topology::default() }
    }
}

/// The event bus on RabbitMQ. Connects when it is to make ready or to publish, and again after each loss.
pub struct RabbitEventBus {
    name: String,
    publisher: Mutex<RabbitPublisher>,
}

impl RabbitEventBus {
    /// Does not connect yet.
    #[must_use]
    pub fn new(endpoint: RabbitEndpoint, options: RabbitEventBusOptions) -> Self {
        let publisher = PublisherOptions {
            name: options.name.clone(),
            needs: options.needed_topology(),
            exchange: options.exchange,
            topology: options.topology,
            topology_setting: "trading.events.topology",
            window: options.window,
            confirm_timeout: options.confirm_timeout,
        };
        Self { name: options.name, publisher: Mutex::new(RabbitPublisher::new(endpoint, publisher)) }
    }
}

impl RabbitMessage for EventMessage {
    fn is_mandatory() -> bool {
        false
    }

    fn routing_key(&self) -> ShortString {
        self.topic.as_str().into()
    }

    fn properties(&self) -> BasicProperties {
        let mut headers = FieldTable::default();
        let text = |value: &str| AMQPValue::LongString(value.into());
        headers.insert("schema".into(), text("trading_event"));
        headers.insert("schema_version".into(), text(EVENT_SCHEMA_VERSION));
        headers.insert("traceparent".into(), text(&self.traceparent));
        BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(self.event_id.as_str().into())
            .with_correlation_id(self.correlation_id.as_str().into())
            .with_type(self.topic.as_str().into())
            .with_app_id("orchestrator".into())
            .with_headers(headers)
    }

    fn body(&self) -> &[u8] {
        &self.body
    }

    fn message_name(&self) -> String {
        self.event_id.clone()
    }

    fn has_properties(&self, properties: &BasicProperties) -> bool {
        properties.message_id().as_ref().is_some_and(|id| id.as_str() == self.event_id)
    }
}

fn not_taken(error: PublishError) -> EventsNotTaken {
    let PublishError { fan_out, detail, confirmed, remedy } = error;
    EventsNotTaken { bus: fan_out, detail, confirmed, remedy }
}

#[async_trait]
impl EventBus for RabbitEventBus {
    fn name(&self) -> &str {
        &self.name
    }

    async fn prepare(&self) -> Result<(), EventsNotTaken> {
        self.publisher.lock().await.prepare().await.map_err(not_taken)
    }

    async fn publish(&self, events: &[EventMessage]) -> Result<(), EventsNotTaken> {
        self.publisher.lock().await.publish(events).await.map_err(not_taken)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn properties_are_those_that_consumers_know() {
        let event = EventMessage {
            topic: "orchestrator.cycle.started".to_owned(),
            event_id: "e-1".to_owned(),
            correlation_id: "c-1".to_owned(),
            traceparent: "00-01-02-01".to_owned(),
            body: Bytes::from_static(b"{}"),
        };

        let properties = event.properties();

        let said = (
            properties.message_id().as_ref().unwrap().as_str(),
            properties.correlation_id().as_ref().unwrap().as_str(),
            properties.kind().as_ref().unwrap().as_str(),
            properties.content_type().as_ref().unwrap().as_str(),
            properties.app_id().as_ref().unwrap().as_str(),
        );
        assert_eq!(said, ("e-1", "c-1", "orchestrator.cycle.started", "application/json", "orchestrator"));
        assert_eq!(properties.delivery_mode(), &Some(2));
        let headers: Vec<_> =
            properties.headers().as_ref().unwrap().inner().keys().map(ToString::to_string).collect();
        assert_eq!(headers, ["schema", "schema_version", "traceparent"]);
        assert_eq!(event.routing_key().as_str(), "orchestrator.cycle.started");
        let other = EventMessage { event_id: "e-2".to_owned(), ..event.clone() };
        assert!(event.has_properties(&properties) && !other.has_properties(&properties));
    }
}
