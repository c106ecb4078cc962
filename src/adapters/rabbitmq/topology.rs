//! Exchanges, queues and bindings as data: declared by us, or checked only because an operator declared them.

use std::collections::BTreeMap;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::connection::{BrokerLink, BrokerTrouble, to_short_string};

/// Responsibility for exchanges and queues: ours, or an operator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopologyMode {
    /// We declare them each time a channel is opened; one that exists with other settings is refused. Needs the
    /// permission to configure.
    #[default]
    Declare,
    /// An operator does, from definitions: we only check that they are there. Bindings cannot be checked.
    Passive,
}

/// An exchange that survives restarts of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Where a message goes that no binding takes.
    pub(super) alternate: Option<String>,
}

/// Routing of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By patterns of the routing key.
    Topic,
    /// To every bound queue.
    Fanout,
}

/// A quorum queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) name: String,
    /// Its arguments besides the type.
    pub(super) arguments: BTreeMap<&'static str, Argument>,
}

/// Value of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Argument {
    Text(String),
    Number(i64),
    Flag(bool),
}

/// Binding of a queue to an exchange by a routing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) exchange: String,
    pub(super) queue: String,
    pub(super) routing_key: String,
}

/// Exchanges, queues and bindings that one adapter needs on the broker, in the order of their declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Topology {
    pub(super) exchanges: Vec<Exchange>,
    pub(super) queues: Vec<Queue>,
    pub(super) bindings: Vec<Binding>,
}

impl Topology {
    /// Declares or checks everything. A refusal closes the channel.
    ///
    /// # Errors
    ///
    /// [`BrokerTrouble`] with code 406 when something exists with other settings, 404 when it is to be there and is
    /// not, 403 when the user may not.
    pub(super) async fn ensure_all(
        &self,
        link: &BrokerLink,
        channel: &Channel,
        mode: TopologyMode,
    ) -> Result<(), BrokerTrouble> {
        for exchange in &self.exchanges {
            exchange.ensure_exchange(link, channel, mode).await?;
        }
        for queue in &self.queues {
            queue.ensure_queue(link, channel, mode).await?;
        }
        match mode {
            TopologyMode::Passive => {}
            TopologyMode::Declare => {
                for binding in &self.bindings {
                    binding.declare_binding(link, channel).await?;
                }
            }
        }
        Ok(())
    }
}

impl Exchange {
    async fn ensure_exchange(
        &self,
        link: &BrokerLink,
        channel: &Channel,
        mode: TopologyMode,
    ) -> Result<(), BrokerTrouble> {
        let options = ExchangeDeclareOptions {
            passive: mode == TopologyMode::Passive,
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let kind = match self.kind {
            Kind::Topic => ExchangeKind::Topic,
            Kind::Fanout => ExchangeKind::Fanout,
        };
        let declared = channel.exchange_declare(
            to_short_string(&self.name)?,
            kind,
            options,
            field_table(self.declared_arguments()),
        );
        link.ask_in_time(&format!("exchange {}", self.name), declared).await
    }

    pub(super) fn declared_arguments(&self) -> BTreeMap<&'static str, Argument> {
        self.alternate.iter().map(|name| ("alternate-exchange", Argument::Text(name.clone()))).collect()
    }
}

impl Queue {
    async fn ensure_queue(
        &self,
        link: &BrokerLink,
        channel: &Channel,
        mode: TopologyMode,
    ) -> Result<(), BrokerTrouble> {
        let options = QueueDeclareOptions {
            passive: mode == TopologyMode::Passive,
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(
            to_short_string(&self.name)?,
            options,
            field_table(self.declared_arguments()),
        );
        link.ask_in_time(&format!("queue {}", self.name), declared).await.map(drop)
    }

    pub(super) fn declared_arguments(&self) -> BTreeMap<&'static str, Argument> {
        let mut arguments = self.arguments.clone();
        arguments.insert("x-queue-type", Argument::Text("quorum".to_owned()));
        arguments
    }
}

impl Binding {
    async fn declare_binding(&self, link: &BrokerLink, channel: &Channel) -> Result<(), BrokerTrouble> {
        let bound = channel.queue_bind(
            to_short_string(&self.queue)?,
            to_short_string(&self.exchange)?,
            to_short_string(&self.routing_key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        link.ask_in_time(&format!("binding of {} to {}", self.queue, self.exchange), bound).await
    }
}

fn field_table(arguments: BTreeMap<&'static str, Argument>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.into()),
            Argument::Number(number) => AMQPValue::LongLongInt(number),
            Argument::Flag(flag) => AMQPValue::Boolean(flag),
        };
        table.insert(name.into(), value);
    }
    table
}
