//! What we need on the broker as the definitions that an operator imports: `ops/rabbitmq/definitions.json`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fan_out::RabbitFanOutOptions;
use super::marks::RabbitMarksOptions;
use super::source::{RabbitItems, RabbitSourceOptions};
use super::topology::{Argument, Binding, Exchange, Kind, Queue, Topology};
use super::trading_events::RabbitEventBusOptions;

const VHOST: &str = "/";

#[test]
fn the_definitions_for_operators_are_what_the_code_declares() {
    // Which events are taken is for an operator to bind: none is without a pattern.
    let intake = RabbitSourceOptions {
        exchange: "orchestrator.trading".to_owned(),
        queue: "orchestrator.trading.events".to_owned(),
        brings: RabbitItems::Events { patterns: Vec::new() },
        ..RabbitSourceOptions::default()
    };
    let needs = [
        RabbitSourceOptions::default().needed_topology(),
        RabbitFanOutOptions::default().needed_topology(),
        RabbitMarksOptions::default().needed_topology(),
        RabbitEventBusOptions::default().needed_topology(),
        intake.needed_topology(),
    ];

    let shown = format!("{:#}\n", definitions_json(&needs));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/rabbitmq/definitions.json");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(path).unwrap(), "BLESS=1 records it");
}

/// What `rabbitmqctl import_definitions` and the setting `load_definitions` read: no users, no permissions.
fn definitions_json(needs: &[Topology]) -> Value {
    let mut exchanges: Vec<Value> = Vec::new();
    for exchange in needs.iter().flat_map(|needs| &needs.exchanges).map(exchange_definition) {
        // Events go to the exchange that they are taken from.
        if !exchanges.contains(&exchange) {
            exchanges.push(exchange);
        }
    }
    let queues: Vec<Value> = needs.iter().flat_map(|needs| &needs.queues).map(queue_definition).collect();
    let bindings: Vec<Value> =
        needs.iter().flat_map(|needs| &needs.bindings).map(binding_definition).collect();
    json!({ "vhosts": [{ "name": VHOST }], "exchanges": exchanges, "queues": queues, "bindings": bindings })
}

fn exchange_definition(exchange: &Exchange) -> Value {
    let kind = match exchange.kind {
        Kind::Topic => "topic",
        Kind::Fanout => "fanout",
    };
    json!({
        "name": exchange.name, "vhost": VHOST, "type": kind, "durable": true, "auto_delete": false, "internal": false,
        "arguments": arguments_object(&exchange.declared_arguments()),
    })
}

fn queue_definition(queue: &Queue) -> Value {
    json!({
        "name": queue.name, "vhost": VHOST, "durable": true, "auto_delete": false,
        "arguments": arguments_object(&queue.declared_arguments()),
    })
}

fn binding_definition(binding: &Binding) -> Value {
    json!({
        "source": binding.exchange, "vhost": VHOST, "destination": binding.queue, "destination_type": "queue",
        "routing_key": binding.routing_key, "arguments": {},
    })
}

fn arguments_object(arguments: &BTreeMap<&'static str, Argument>) -> Value {
    let shown = |value: &Argument| match value {
        Argument::Text(text) => json!(text),
        Argument::Number(number) => json!(number),
        Argument::Flag(flag) => json!(flag),
    };
    Value::Object(arguments.iter().map(|(name, value)| ((*name).to_owned(), shown(value))).collect())
}
