//! What a real RabbitMQ refuses for good, as the fan-out tells it: which message exactly, and whether a single one is
//! meant.

use std::time::Duration;

use bytes::Bytes;
use lapin::ExchangeKind;
use orchestrator::adapters::rabbitmq::{RabbitEndpoint, RabbitFanOut, RabbitFanOutOptions, TopologyMode};
use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::ids::{EngineMode, IngestSeq, RunSeq, Symbol, TsMs};
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, Remedy};

use crate::support::amqp::Amqp;
use crate::support::rabbit_server::RabbitServer;
use crate::support::secrets::Secrets;
use crate::support::topology;

const EVENTS: &str = "orchestrator.events";
/// The user of the service, as `ops/make_secrets.py` makes it.
const USER: &str = "orchestrator";
/// What it may publish: no symbol with a hyphen.
const TOPICS: &str = r"^orchestrator_event\.[A-Za-z]+\.[A-Z0-9]+$";

fn output(symbol: &str, number: u64, body_bytes: usize) -> OutputMessage {
    let symbol = Symbol::from(symbol);
    OutputMessage {
        run_seq: RunSeq(number),
        index: 0,
        run_id: RunId::derive(&symbol, TsMs(1000), IngestSeq(number), EngineMode::Truth),
        event_type: event_type::RUN_COMPLETED,
        symbol,
        symbol_seq: number,
        body: Bytes::from(vec![b' '; body_bytes]),
    }
}

fn outputs(symbol: &str, count: u64) -> Vec<OutputMessage> {
    (1..=count).map(|number| output(symbol, number, 10)).collect()
}

fn fan_out(url: &str, topology: TopologyMode) -> RabbitFanOut {
    let endpoint = RabbitEndpoint::new(url, None, Duration::from_secs(5)).unwrap();
    RabbitFanOut::new(endpoint, RabbitFanOutOptions { topology, ..RabbitFanOutOptions::default() })
}

/// Method: one message of a window is refused by its topic, then one by its size; where it stands changes from round to
/// round. The broker only closes the channel.
#[tokio::test]
async fn the_message_that_is_refused_for_good_is_named_exactly_and_the_others_are_taken() {
    let server = RabbitServer::own();
    let vhost = server.vhost();
    topology::declare(&server.url(&vhost));
    server.ctl(&["set_topic_permissions", "-p", &vhost, USER, EVENTS, TOPICS, "^$"]);
    server.set_max_message_size(2000);
    let url = Secrets::shared().as_service(&server.url(&vhost));
    let mut fan_out = fan_out(&url, TopologyMode::Passive);

    for at in [0, 1, 17, 94, 95] {
        for (refused, said) in [
            (
                output("test-symbol", 1, 10),
                "access to topic 'orchestrator_event.EngineRunCompleted.test-symbol'",
            ),
            (output("BTC", 1, 2001), "406 PRECONDITION_FAILED - message size"),
        ] {
            let mut messages = outputs("BTC", 96);
            messages[at] = refused;

            let error = fan_out.publish(&messages).await.unwrap_err();

            assert_eq!((error.confirmed, error.remedy), (at, Remedy::NoneForThisOutput), "{error}");
            assert!(error.detail.contains(said), "{error}");
            fan_out.publish(&messages[at + 1..]).await.unwrap();
        }
    }

    // Nobody may publish anything: that is no single output's fault.
    server.ctl(&["set_permissions", "-p", &vhost, USER, "^$", "^$", "^$"]);
    let mut fan_out = self::fan_out(&url, TopologyMode::Passive);
    let error = fan_out.publish(&outputs("BTC", 3)).await.unwrap_err();
    assert_eq!((error.confirmed, error.remedy), (0, Remedy::Operator), "{error}");
}

#[tokio::test]
async fn the_exchange_is_there_before_the_first_output_and_one_declared_otherwise_is_named() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let client = Amqp::connect(&url).await;
    let mut first = fan_out(&url, TopologyMode::Declare);
    first.prepare().await.unwrap();
    first.prepare().await.unwrap();
    client.queue("mine", &[]).await;
    client.bind("mine", EVENTS, "orchestrator_event.#").await;

    let url = server.url(&server.vhost());
    Amqp::connect(&url).await.exchange(EVENTS, ExchangeKind::Topic, None).await;
    let error = fan_out(&url, TopologyMode::Declare).prepare().await.unwrap_err();

    assert_eq!(error.remedy, Remedy::Operator, "{error}");
    for said in ["inequivalent arg 'alternate-exchange'", "Delete it", "topology to passive"] {
        assert!(error.detail.contains(said), "{error}");
    }
    let nowhere = fan_out(&server.url("no-such-vhost"), TopologyMode::Declare).prepare().await.unwrap_err();
    assert_eq!(nowhere.remedy, Remedy::Operator, "{nowhere}");
}

/// README's binding for every completed run, and one that is made from a symbol.
#[tokio::test]
async fn a_symbol_is_one_word_so_bindings_take_what_they_name() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let mut fan_out = fan_out(&url, TopologyMode::Declare);
    fan_out.prepare().await.unwrap();
    let client = Amqp::connect(&url).await;
    for (queue, key) in [
        ("completed", "orchestrator_event.EngineRunCompleted.*"),
        ("one", "orchestrator_event.*.BRK%2EB"),
        ("star", "orchestrator_event.*.%2A"),
    ] {
        client.queue(queue, &[]).await;
        client.bind(queue, EVENTS, key).await;
    }
    let symbols = ["BRK.B", "ETH-PERP.OKX", "EUR.USD", "a..b", ".", ".BTC", "*", "#", "BTCUSDT"];

    let messages: Vec<OutputMessage> = symbols.iter().map(|symbol| output(symbol, 1, 10)).collect();
    fan_out.publish(&messages).await.unwrap();

    assert_eq!(client.take("completed", symbols.len()).await.len(), symbols.len());
    assert_eq!(client.drain("one").await.len(), 1);
    assert_eq!(client.drain("star").await.len(), 1);
}
