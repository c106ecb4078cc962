//! The suite that every event bus passes unchanged: each promise of the port as one check.
//!
//! It needs no runtime: the caller blocks on [`run`] with whatever the provider needs.
#![allow(clippy::expect_used, reason = "a provider that breaks a promise must stop the suite loudly")]

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::event_bus::{EVENT_BYTES_MAX, EventBus, EventMessage};

/// Patterns that the provider has subscribed to, before anything is published.
pub const SUBSCRIBED: [&str; 3] = ["orchestrator.cycle.*", "orchestrator.#", "long.one"];

/// Makes the bus that the suite works on.
#[async_trait]
pub trait EventBusProvider: Send + Sync {
    /// The bus as a started process finds it; every call opens the same one, over a connection of its own.
    async fn open_bus(&self) -> Arc<dyn EventBus>;

    /// Everything that a subscriber of `pattern`, one of [`SUBSCRIBED`], has got so far, in order. Waits until it is
    /// `at_least` so many.
    async fn delivered(&self, pattern: &str, at_least: usize) -> Vec<EventMessage>;
}

/// Runs the whole suite.
///
/// # Panics
///
/// When the provider breaks a promise.
pub async fn run(provider: &impl EventBusProvider) {
    provider.open_bus().await.prepare().await.expect("the bus makes ready");
    events_come_in_order_as_they_were_to_whoever_listens(provider).await;
    what_nobody_listens_to_is_confirmed_and_gone(provider).await;
    nothing_and_a_long_event_are_taken(provider).await;
    a_repeated_event_is_the_same_event(provider).await;
}

fn event(topic: &str, number: usize) -> EventMessage {
    EventMessage {
        topic: topic.to_owned(),
        event_id: format!("{topic}-{number}"),
        correlation_id: "cycle é".to_owned(),
        traceparent: "00-0102030405060708090a0b0c0d0e0f10-0102030405060708-01".to_owned(),
        body: Bytes::from(format!(r#"{{"number":{number}}}"#)),
    }
}

async fn publish(provider: &impl EventBusProvider, events: &[EventMessage]) {
    provider.open_bus().await.publish(events).await.expect("the bus takes events");
}

/// Method: several thousand in one call, so that they do not all fit into a window, then some over another connection.
async fn events_come_in_order_as_they_were_to_whoever_listens(provider: &impl EventBusProvider) {
    let topics = ["orchestrator.cycle.started", "orchestrator.stage.failed", "orchestrator.cycle.completed"];
    let events: Vec<EventMessage> =
        (0..3000).map(|number| event(topics[number % topics.len()], number)).collect();

    publish(provider, &events[..2500]).await;
    publish(provider, &events[2500..]).await;

    assert_eq!(provider.delivered("orchestrator.#", 3000).await, events);
    let cycles: Vec<_> = events.into_iter().filter(|event| event.topic.contains(".cycle.")).collect();
    assert_eq!(provider.delivered("orchestrator.cycle.*", 2000).await, cycles);
}

async fn what_nobody_listens_to_is_confirmed_and_gone(provider: &impl EventBusProvider) {
    publish(provider, &[event("nobody.listens", 1), event("orchestrator.alert.raised", 2)]).await;

    let delivered = provider.delivered("orchestrator.#", 3001).await;
    assert_eq!(delivered.last(), Some(&event("orchestrator.alert.raised", 2)));
}

async fn nothing_and_a_long_event_are_taken(provider: &impl EventBusProvider) {
    publish(provider, &[]).await;
    let long = EventMessage { body: Bytes::from(vec![b'x'; EVENT_BYTES_MAX]), ..event("long.one", 1) };

    publish(provider, std::slice::from_ref(&long)).await;

    assert_eq!(provider.delivered("long.one", 1).await, [long]);
}

async fn a_repeated_event_is_the_same_event(provider: &impl EventBusProvider) {
    let repeated = event("orchestrator.kill.block", 7);
    publish(provider, &[repeated.clone(), repeated.clone()]).await;

    let delivered = provider.delivered("orchestrator.#", 3003).await;
    assert_eq!(delivered[3001..], [repeated.clone(), repeated]);
}
