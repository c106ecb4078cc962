//! Exchanges, queues and bindings as data: declared by us, checked only, or given to the broker as definitions.

use std::collections::BTreeMap;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use serde_json::{Value, json};

use super::connection::{Link, Trouble, short};

/// Who is responsible for exchanges and queues.
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

/// How an exchange routes.
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

/// What of an exchange goes to a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) exchange: String,
    pub(super) queue: String,
    pub(super) routing_key: String,
}

/// What one adapter needs on the broker, in the order in which it is declared.
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
    /// [`Trouble`] with code 406 when something exists with other settings, 404 when it is to be there and is not, 403
    /// when the user may not.
    pub(super) async fn ensure(&self, link: &Link, channel: &Channel, mode: TopologyMode) -> Result<(), Trouble> {
        for exchange in &self.exchanges {
            exchange.ensure(link, channel, mode).await?;
        }
        for queue in &self.queues {
            queue.ensure(link, channel, mode).await?;
        }
        match mode {
            TopologyMode::Passive => {}
            TopologyMode::Declare => {
                for binding in &self.bindings {
                    binding.declare(link, channel).await?;
                }
            }
        }
        Ok(())
    }

    /// The parts of a definitions file, for virtual host `vhost`.
    fn definitions(&self, vhost: &str) -> [Vec<Value>; 3] {
        [
            self.exchanges.iter().map(|exchange| exchange.definition(vhost)).collect(),
            self.queues.iter().map(|queue| queue.definition(vhost)).collect(),
            self.bindings.iter().map(|binding| binding.definition(vhost)).collect(),
        ]
    }
}

/// What `rabbitmqctl import_definitions` and the setting `load_definitions` read: no users, no permissions.
pub(super) fn definitions(topologies: &[Topology], vhost: &str) -> Value {
    let mut parts: [Vec<Value>; 3] = Default::default();
    for topology in topologies {
        for (part, more) in parts.iter_mut().zip(topology.definitions(vhost)) {
            part.extend(more);
        }
    }
    let [exchanges, queues, bindings] = parts;
    json!({ "vhosts": [{ "name": vhost }], "exchanges": exchanges, "queues": queues, "bindings": bindings })
}

impl Exchange {
    async fn ensure(&self, link: &Link, channel: &Channel, mode: TopologyMode) -> Result<(), Trouble> {
        let options = ExchangeDeclareOptions {
            passive: mode == TopologyMode::Passive,
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let kind = match self.kind {
            Kind::Topic => ExchangeKind::Topic,
            Kind::Fanout => ExchangeKind::Fanout,
        };
        let declared = channel.exchange_declare(short(&self.name)?, kind, options, table(self.arguments()));
        link.within(&format!("exchange {}", self.name), declared).await
    }

    fn arguments(&self) -> BTreeMap<&'static str, Argument> {
        self.alternate.iter().map(|name| ("alternate-exchange", Argument::Text(name.clone()))).collect()
    }

    fn definition(&self, vhost: &str) -> Value {
        let kind = match self.kind {
            Kind::Topic => "topic",
            Kind::Fanout => "fanout",
        };
        json!({
            "name": self.name, "vhost": vhost, "type": kind, "durable": true, "auto_delete": false, "internal": false,
            "arguments": object(&self.arguments()),
        })
    }
}

impl Queue {
    async fn ensure(&self, link: &Link, channel: &Channel, mode: TopologyMode) -> Result<(), Trouble> {
        let options = QueueDeclareOptions {
            passive: mode == TopologyMode::Passive,
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(short(&self.name)?, options, table(self.arguments()));
        link.within(&format!("queue {}", self.name), declared).await.map(drop)
    }

    fn arguments(&self) -> BTreeMap<&'static str, Argument> {
        let mut arguments = self.arguments.clone();
        arguments.insert("x-queue-type", Argument::Text("quorum".to_owned()));
        arguments
    }

    fn definition(&self, vhost: &str) -> Value {
        json!({
            "name": self.name, "vhost": vhost, "durable": true, "auto_delete": false,
            "arguments": object(&self.arguments()),
        })
    }
}

impl Binding {
    async fn declare(&self, link: &Link, channel: &Channel) -> Result<(), Trouble> {
        let bound = channel.queue_bind(
            short(&self.queue)?,
            short(&self.exchange)?,
            short(&self.routing_key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        link.within(&format!("binding of {} to {}", self.queue, self.exchange), bound).await
    }

    fn definition(&self, vhost: &str) -> Value {
        json!({
            "source": self.exchange, "vhost": vhost, "destination": self.queue, "destination_type": "queue",
            "routing_key": self.routing_key, "arguments": {},
        })
    }
}

fn table(arguments: BTreeMap<&'static str, Argument>) -> FieldTable {
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

fn object(arguments: &BTreeMap<&'static str, Argument>) -> Value {
    let entry = |(name, value): (&&str, &Argument)| {
        let value = match value {
            Argument::Text(text) => json!(text),
            Argument::Number(number) => json!(number),
            Argument::Flag(flag) => json!(flag),
        };
        ((*name).to_owned(), value)
    };
    Value::Object(arguments.iter().map(entry).collect())
}
