//! Outputs on a real RabbitMQ: nothing counts as published that is not confirmed and routed (OUT-1, OUT-2), whatever
//! happens to queues, exchanges, connections and the broker.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use lapin::ExchangeKind;
use lapin::message::Delivery;
use lapin::options::ExchangeDeleteOptions;
use lapin::types::{AMQPValue, FieldTable};
use orchestrator::adapters::rabbitmq::{
    RabbitEndpoint, RabbitFanOut, RabbitFanOutOptions, RabbitSourceFactory, RabbitSourceOptions, TopologyMode,
};
use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
use orchestrator_kernel::engine::run_id::RunId;
use orchestrator_kernel::ids::{EngineMode, IngestSeq, RunSeq, Symbol, TsMs};
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage};
use orchestrator_kernel::ports::source::{ResumeAt, SourceFactory};

use crate::support::amqp::Amqp;
use crate::support::rabbit_server::RabbitServer;
use crate::support::secrets::Secrets;

const EVENTS: &str = "orchestrator.events";
const UNROUTED: &str = "orchestrator.events.unrouted";

/// Outputs `range` of one symbol.
fn outputs(symbol: &str, range: std::ops::RangeInclusive<u64>) -> Vec<OutputMessage> {
    let symbol = Symbol::from(symbol);
    range
        .map(|number| OutputMessage {
            run_seq: RunSeq(number),
            index: 0,
            run_id: RunId::derive(&symbol, TsMs(1000), IngestSeq(number), EngineMode::Truth),
            event_type: event_type::RUN_COMPLETED,
            symbol: symbol.clone(),
            symbol_seq: number,
            body: Bytes::from(format!(r#"{{"number":{number}}}"#)),
        })
        .collect()
}

fn fan_out(url: &str, change: impl FnOnce(&mut RabbitFanOutOptions)) -> RabbitFanOut {
    let endpoint = RabbitEndpoint::new(url, None, Duration::from_secs(5)).unwrap();
    let mut options = RabbitFanOutOptions::default();
    change(&mut options);
    RabbitFanOut::new(endpoint, options)
}

/// A virtual host in which the exchanges are declared and queue `all` gets every output.
async fn subscribed(server: &RabbitServer) -> (String, Amqp) {
    let url = server.url(&server.vhost());
    let client = Amqp::connect(&url).await;
    client.exchange(UNROUTED, ExchangeKind::Fanout, None).await;
    client.exchange(EVENTS, ExchangeKind::Topic, Some(UNROUTED)).await;
    client.queue("all", &[("x-queue-type", AMQPValue::LongString("quorum".into()))]).await;
    client.bind("all", EVENTS, "orchestrator_event.#").await;
    (url, client)
}

/// Offers what is not confirmed until all is, as the publisher does; returns the errors on the way.
async fn publish_all(fan_out: &mut RabbitFanOut, messages: &[OutputMessage]) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let (mut rest, mut errors) = (messages, Vec::new());
    while let Err(error) = fan_out.publish(rest).await {
        assert!(Instant::now() < deadline, "{error}");
        rest = &rest[error.confirmed..];
        errors.push(error.detail);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    errors
}

/// Checks that exactly these outputs of the symbol came, their first arrivals in order and without gap.
#[track_caller]
fn check_arrived(deliveries: &[Delivery], symbol: &str, range: std::ops::RangeInclusive<i64>) {
    let arrived = first_arrivals(deliveries, symbol);
    let expected: Vec<i64> = range.clone().collect();
    let differs = arrived.iter().zip(&expected).position(|(arrived, expected)| arrived != expected);
    assert_eq!(differs.map(|at| (arrived[at], expected[at])), None, "of {range:?}");
    assert_eq!(arrived.len(), expected.len(), "of {range:?}");
}

/// The numbers of the symbol's outputs that came, each at its first arrival.
fn first_arrivals(deliveries: &[Delivery], symbol: &str) -> Vec<i64> {
    let mut seen = BTreeSet::new();
    let of_symbol = deliveries
        .iter()
        .filter(|delivery| header(delivery, "symbol") == AMQPValue::LongString(symbol.into()));
    let numbers = of_symbol.map(|delivery| match header(delivery, "symbol_seq") {
        AMQPValue::LongLongInt(number) => number,
        other => panic!("{other:?}"),
    });
    numbers.filter(|number| seen.insert(*number)).collect()
}

fn header(delivery: &Delivery, name: &str) -> AMQPValue {
    delivery.properties.headers().as_ref().unwrap().inner()[name].clone()
}

#[tokio::test]
async fn outputs_arrive_in_order_and_those_without_a_subscriber_are_kept_aside() {
    let url = {
        let server = RabbitServer::shared();
        server.url(&server.vhost())
    };
    let mut fan_out = fan_out(&url, |_| {});
    fan_out.publish(&outputs("BTC", 1..=3)).await.unwrap();
    let client = Amqp::connect(&url).await;
    client.queue("all", &[]).await;
    client.bind("all", EVENTS, "orchestrator_event.EngineRunCompleted.BTC").await;

    fan_out.publish(&outputs("BTC", 4..=3000)).await.unwrap();
    fan_out.publish(&outputs("ETH", 1..=2)).await.unwrap();

    let all = client.take("all", 2997).await;
    check_arrived(&all, "BTC", 4..=3000);
    assert_eq!(all[0].data, br#"{"number":4}"#);
    assert_eq!(all[0].properties.delivery_mode(), &Some(2));
    let unrouted = client.drain(UNROUTED).await;
    assert_eq!(first_arrivals(&unrouted, "BTC"), [1, 2, 3]);
    assert_eq!(first_arrivals(&unrouted, "ETH"), [1, 2]);
    assert!(client.drain("all").await.is_empty());
}

#[tokio::test]
async fn a_message_that_a_full_queue_refuses_ends_the_confirmed_prefix() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let client = Amqp::connect(&url).await;
    client.exchange(UNROUTED, ExchangeKind::Fanout, None).await;
    client.exchange(EVENTS, ExchangeKind::Topic, Some(UNROUTED)).await;
    let refuse = AMQPValue::LongString("reject-publish".into());
    client.queue("small", &[("x-max-length", AMQPValue::LongInt(5)), ("x-overflow", refuse)]).await;
    client.bind("small", EVENTS, "#").await;
    let mut fan_out = fan_out(&url, |options| options.window = 3);
    let messages = outputs("BTC", 1..=40);

    let error = fan_out.publish(&messages).await.unwrap_err();

    assert!(error.detail.contains("refused by the broker (nack)"), "{error}");
    assert!(5 <= error.confirmed && error.confirmed < 40, "{error:?}");
    let mut arrived = client.drain("small").await;
    let confirmed: Vec<i64> = (1..=error.confirmed as i64).collect();
    assert_eq!(first_arrivals(&arrived, "BTC")[..error.confirmed], confirmed);
    // Room again: it goes on by itself from what it is given.
    let mut rest = &messages[error.confirmed..];
    while let Err(error) = fan_out.publish(rest).await {
        rest = &rest[error.confirmed..];
        arrived.extend(client.drain("small").await);
    }
    arrived.extend(client.drain("small").await);
    assert_eq!(first_arrivals(&arrived, "BTC").into_iter().collect::<BTreeSet<_>>(), (1..=40).collect());
}

/// Method: one message of a window has no route; which one changes from round to round. The library hands its return
/// over with the confirm of any message of the frame.
#[tokio::test]
async fn an_unroutable_message_ends_the_confirmed_prefix_exactly_there() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let client = Amqp::connect(&url).await;
    client.exchange(EVENTS, ExchangeKind::Topic, None).await;
    client.exchange(UNROUTED, ExchangeKind::Fanout, None).await;
    client.queue(UNROUTED, &[]).await;
    client.transient_queue("btc").await;
    client.bind("btc", EVENTS, "*.*.BTC").await;
    let mut fan_out = fan_out(&url, |options| options.topology = TopologyMode::Passive);

    for at in (0..96).step_by(2) {
        let mut messages = outputs("BTC", 1..=96);
        messages[at] = outputs("ETH", 1..=1).remove(0);

        let error = fan_out.publish(&messages).await.unwrap_err();

        assert_eq!(error.confirmed, at, "{error}");
        assert!(
            error.detail.contains("312 NO_ROUTE for routing key orchestrator_event.EngineRunCompleted.ETH"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_alternate_exchange_that_was_deleted_stops_publishing_until_it_is_there_again() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let mut fan_out = fan_out(&url, |_| {});
    fan_out.publish(&outputs("BTC", 1..=1)).await.unwrap();
    let client = Amqp::connect(&url).await;
    client.channel().exchange_delete(UNROUTED.into(), ExchangeDeleteOptions::default()).await.unwrap();

    let error = fan_out.publish(&outputs("BTC", 2..=2)).await.unwrap_err();
    assert!(error.detail.contains("NO_ROUTE"), "{error}");

    // The next attempt declares it.
    fan_out.publish(&outputs("BTC", 2..=2)).await.unwrap();
    assert_eq!(first_arrivals(&client.drain(UNROUTED).await, "BTC"), [1, 2]);
}

#[tokio::test]
async fn a_deleted_exchange_is_named_and_publishing_goes_on_when_it_is_there_again() {
    let server = RabbitServer::shared();
    let (url, client) = subscribed(server).await;
    client.queue(UNROUTED, &[]).await;
    let mut fan_out = fan_out(&url, |options| options.topology = TopologyMode::Passive);
    fan_out.publish(&outputs("BTC", 1..=1)).await.unwrap();
    client.channel().exchange_delete(EVENTS.into(), ExchangeDeleteOptions::default()).await.unwrap();

    for _ in 0..3 {
        let error = fan_out.publish(&outputs("BTC", 2..=9)).await.unwrap_err();
        assert!(error.detail.contains("404 NOT_FOUND - no exchange 'orchestrator.events'"), "{error}");
        assert_eq!(error.confirmed, 0);
    }
    client.exchange(EVENTS, ExchangeKind::Topic, Some(UNROUTED)).await;
    client.bind("all", EVENTS, "#").await;

    assert!(publish_all(&mut fan_out, &outputs("BTC", 2..=9)).await.is_empty());
    check_arrived(&client.take("all", 9).await, "BTC", 1..=9);
}

#[tokio::test]
async fn a_subscriber_whose_binding_is_removed_costs_no_output() {
    let server = RabbitServer::shared();
    let (url, client) = subscribed(server).await;
    let mut fan_out = fan_out(&url, |_| {});
    fan_out.publish(&outputs("BTC", 1..=1)).await.unwrap();
    let (queue, key) = ("all".into(), "orchestrator_event.#".into());
    client.channel().queue_unbind(queue, EVENTS.into(), key, FieldTable::default()).await.unwrap();

    fan_out.publish(&outputs("BTC", 2..=2)).await.unwrap();

    assert_eq!(first_arrivals(&client.drain(UNROUTED).await, "BTC"), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_an_operator_closes_cost_no_output_and_no_order() {
    let server = RabbitServer::shared();
    let vhost = server.vhost();
    let url = server.url(&vhost);
    let mut fan_out = fan_out(&url, |_| {});
    fan_out.publish(&outputs("ETH", 1..=1)).await.unwrap();
    Amqp::connect(&url).await.queue("all", &[]).await;
    Amqp::connect(&url).await.bind("all", EVENTS, "#").await;
    // A connection that is closed between two calls is replaced without an error: closed until it hits one.
    let is_hit = Arc::new(AtomicBool::new(false));
    let closing = tokio::task::spawn_blocking({
        let is_hit = Arc::clone(&is_hit);
        move || {
            while !is_hit.load(Ordering::Relaxed) {
                server.close_connections(&vhost);
            }
        }
    });

    let (mut sent, mut errors) = (0, Vec::new());
    // Each closing is a start of rabbitmqctl, which takes a second, and ten on a busy machine.
    let deadline = Instant::now() + Duration::from_secs(180);
    while errors.is_empty() && Instant::now() < deadline {
        errors = publish_all(&mut fan_out, &outputs("BTC", sent + 1..=sent + 500)).await;
        sent += 500;
    }
    is_hit.store(true, Ordering::Relaxed);
    closing.await.unwrap();

    assert!(errors.iter().any(|error| error.contains("320") || error.contains("closed")), "{errors:?}");
    let arrived = Amqp::connect(&url).await.drain("all").await;
    check_arrived(&arrived, "BTC", 1..=sent as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_keeps_every_confirmed_output_in_order() {
    let mut server = RabbitServer::own();
    let (url, _) = subscribed(&server).await;
    let mut fan_out = fan_out(&url, |_| {});
    fan_out.publish(&outputs("BTC", 1..=1000)).await.unwrap();

    let publishing = tokio::spawn(async move {
        let (mut sent, mut errors) = (1000, Vec::new());
        while errors.is_empty() {
            errors = publish_all(&mut fan_out, &outputs("BTC", sent + 1..=sent + 700)).await;
            sent += 700;
        }
        (sent, errors)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| {
        server.kill();
        server.start_again();
    });
    let (sent, errors) = publishing.await.unwrap();

    assert!(errors.iter().any(|error| error.contains("Connection refused")), "{errors:?}");
    let arrived = Amqp::connect(&url).await.drain("all").await;
    check_arrived(&arrived, "BTC", 1..=sent as i64);
}

/// Switches an alarm of a broker.
type Alarm = fn(&mut RabbitServer, bool);

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_short_of_room_holds_publishing_back_until_it_has_some_and_nothing_times_out() {
    let mut server = RabbitServer::own();
    let (url, client) = subscribed(&server).await;
    let mut fan_out = fan_out(&url, |options| options.confirm_timeout = Duration::from_millis(300));
    fan_out.publish(&outputs("BTC", 1..=10)).await.unwrap();
    assert_eq!(fan_out.held_back(), None);

    let alarms: [(Alarm, &str); 2] = [
        (RabbitServer::set_memory_alarm, "RabbitMQ blocks publishers: low on memory"),
        (RabbitServer::set_disk_alarm, "RabbitMQ blocks publishers: low on disk"),
    ];
    for (first, (alarm, blocked)) in [11, 21].into_iter().zip(alarms) {
        tokio::task::block_in_place(|| alarm(&mut server, true));

        let error = fan_out.publish(&outputs("BTC", first..=first + 9)).await.unwrap_err();

        assert!(error.detail.contains(blocked), "{error}");
        assert_eq!(fan_out.held_back().as_deref(), Some(blocked));
        let error = fan_out.publish(&outputs("BTC", first..=first + 9)).await.unwrap_err();
        assert_eq!((error.detail.as_str(), error.confirmed), (blocked, 0));
        tokio::task::block_in_place(|| alarm(&mut server, false));
        let deadline = Instant::now() + Duration::from_secs(10);
        while fan_out.held_back().is_some() {
            assert!(Instant::now() < deadline, "still held back");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(publish_all(&mut fan_out, &outputs("BTC", first..=first + 9)).await.is_empty());
    }
    check_arrived(&client.drain("all").await, "BTC", 1..=30);
}

/// Method: freeze the broker with a fan-out and a source on it. The confirm that does not come is noticed by its own
/// timer, the silence to a consumer by the missing heartbeats: two of 10 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_noticed_and_publishing_goes_on_when_it_does() {
    let mut server = RabbitServer::own();
    let (url, client) = subscribed(&server).await;
    let mut fan_out = fan_out(&url, |options| options.confirm_timeout = Duration::from_millis(300));
    fan_out.publish(&outputs("BTC", 1..=10)).await.unwrap();
    let endpoint = RabbitEndpoint::new(&url, None, Duration::from_secs(5)).unwrap();
    let source = RabbitSourceFactory::new(endpoint, RabbitSourceOptions::default());
    let mut source = source.open_source(ResumeAt::default()).await.unwrap();
    server.pause();

    let asked = Instant::now();
    let error = fan_out.publish(&outputs("BTC", 11..=20)).await.unwrap_err();

    assert!(error.detail.contains("no confirm within 300ms"), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let lost = tokio::time::timeout(Duration::from_secs(30), source.next_batch()).await.unwrap();
    assert!(lost.unwrap_err().to_string().contains("heartbeat"));
    server.resume();
    publish_all(&mut fan_out, &outputs("BTC", 11..=20)).await;
    // The consumer's connection was frozen for as long, so the broker may have given it up too.
    drop(client);
    check_arrived(&Amqp::connect(&url).await.drain("all").await, "BTC", 1..=20);
}

/// Method: poll a call once, which hands its messages over, and drop it with its confirms on the way; then publish what
/// cannot be routed: late confirms of the first must not count for it.
#[tokio::test]
async fn a_dropped_call_leaves_no_confirm_behind_for_the_next() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let client = Amqp::connect(&url).await;
    client.exchange(EVENTS, ExchangeKind::Topic, None).await;
    client.exchange(UNROUTED, ExchangeKind::Fanout, None).await;
    client.queue(UNROUTED, &[]).await;
    client.queue("btc", &[]).await;
    client.bind("btc", EVENTS, "*.*.BTC").await;
    let mut fan_out = fan_out(&url, |options| options.topology = TopologyMode::Passive);
    let (offered, unroutable) = (outputs("BTC", 2..=301), outputs("ETH", 1..=300));

    let mut dropped = 0;
    for _ in 0..5 {
        // Opens the channel.
        fan_out.publish(&outputs("BTC", 1..=1)).await.unwrap();
        // A machine that stops this thread for long enough lets all confirms arrive.
        let answered = fan_out.publish(&offered).now_or_never();
        dropped += usize::from(answered.is_none());
        let error = fan_out.publish(&unroutable).await.unwrap_err();
        assert_eq!(error.confirmed, 0, "{error}");
    }

    assert!(0 < dropped, "no call was dropped in flight");
    fan_out.publish(&offered).await.unwrap();
    check_arrived(&client.drain("btc").await, "BTC", 1..=301);
}

#[tokio::test]
async fn errors_name_what_happened_and_no_password() {
    let server = RabbitServer::shared();
    let url = server.url(&server.vhost());
    let message = outputs("BTC", 1..=1);
    let wrong = url.replace("inspector:any@", "inspector:sekret@");
    let nobody = "amqp://guest:sekret@127.0.0.1:1/x".to_owned();

    for (url, expected) in [(&wrong, "403 ACCESS_REFUSED"), (&nobody, "Connection refused")] {
        let error = fan_out(url, |_| {}).publish(&message).await.unwrap_err();
        assert!(error.detail.contains(expected) && !error.detail.contains("sekret"), "{error}");
        assert!(error.detail.contains("cannot connect to amqp://127.0.0.1:"), "{error}");
    }

    let client = Amqp::connect(&url).await;
    client.exchange(EVENTS, ExchangeKind::Fanout, None).await;
    let error = fan_out(&url, |_| {}).publish(&message).await.unwrap_err();
    assert!(
        error.detail.contains("406 PRECONDITION_FAILED") && error.detail.contains("Delete it"),
        "{error}"
    );
    let endpoint = RabbitEndpoint::new(&wrong, None, Duration::from_secs(1)).unwrap();
    assert!(!format!("{endpoint:?} {endpoint}").contains("sekret"));
    let bad =
        RabbitEndpoint::new("amqp://guest:sekret@[::1]:5672/x", None, Duration::from_secs(1)).unwrap_err();
    assert!(bad.to_string().contains("IPv6") && !bad.to_string().contains("sekret"), "{bad}");
}

#[tokio::test]
async fn a_user_who_may_only_publish_is_enough_where_an_operator_declared_everything() {
    let server = RabbitServer::shared();
    let vhost = server.vhost();
    let client = Amqp::connect(&server.url(&vhost)).await;
    fan_out(&server.url(&vhost), |_| {}).publish(&outputs("BTC", 1..=1)).await.unwrap();
    let url = Secrets::shared().as_service(&server.url(&vhost));

    let mut passive = fan_out(&url, |options| options.topology = TopologyMode::Passive);
    passive.publish(&outputs("BTC", 2..=2)).await.unwrap();
    let error = fan_out(&url, |_| {}).publish(&outputs("BTC", 3..=3)).await.unwrap_err();

    assert!(error.detail.contains("403 ACCESS_REFUSED"), "{error}");
    assert_eq!(first_arrivals(&client.drain(UNROUTED).await, "BTC"), [1, 2]);
}
