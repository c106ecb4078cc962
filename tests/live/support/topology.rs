//! The exchanges, queues and bindings of `ops/rabbitmq/definitions.json`, declared in a virtual host of a test as its
//! operator would.

use std::path::Path;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;

/// Declares all of it where `url` leads, which must be somebody who may.
pub(crate) fn declare(url: &str) {
    let url = url.to_owned();
    // A thread of its own, so that tests call it wherever they are.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(declare_all(&url)).unwrap_or_else(|error| panic!("the shipped topology: {error}"));
    })
    .join()
    .unwrap();
}

async fn declare_all(url: &str) -> lapin::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/rabbitmq/definitions.json");
    let definitions: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for exchange in list(&definitions, "exchanges") {
        let kind = match text(exchange, "type") {
            "topic" => ExchangeKind::Topic,
            "fanout" => ExchangeKind::Fanout,
            other => panic!("an exchange of kind {other}"),
        };
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(text(exchange, "name").into(), kind, options, arguments(exchange)).await?;
    }
    for queue in list(&definitions, "queues") {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(text(queue, "name").into(), options, arguments(queue)).await?;
    }
    for binding in list(&definitions, "bindings") {
        let (queue, exchange) = (text(binding, "destination").into(), text(binding, "source").into());
        let key = text(binding, "routing_key").into();
        channel.queue_bind(queue, exchange, key, QueueBindOptions::default(), arguments(binding)).await?;
    }
    Ok(())
}

fn list<'a>(definitions: &'a Value, name: &str) -> &'a [Value] {
    definitions[name].as_array().unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn arguments(of: &Value) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in of["arguments"].as_object().unwrap() {
        let value = match value {
            Value::String(text) => AMQPValue::LongString(text.as_str().into()),
            Value::Bool(flag) => AMQPValue::Boolean(*flag),
            Value::Number(number) => AMQPValue::LongLongInt(number.as_i64().unwrap()),
            other => panic!("{name} is {other}"),
        };
        table.insert(name.as_str().into(), value);
    }
    table
}
