//! The port of the event bus: where events of the trading plane go. It knows no consumer.

use async_trait::async_trait;
use bytes::Bytes;

use super::fan_out::Remedy;

/// Longest body that every bus takes, in bytes: half of what the shipped broker allows a message.
pub const EVENT_BYTES_MAX: usize = 256 << 10;

/// One event on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventMessage {
    /// Its name on the wire, by which it is routed.
    pub topic: String,
    /// What consumers recognise a repetition by.
    pub event_id: String,
    /// What ties it to others.
    pub correlation_id: String,
    /// Its place in a trace, as W3C Trace Context writes it.
    pub traceparent: String,
    /// The envelope.
    pub body: Bytes,
}

/// Failure of a publication: events were not taken. They stay in the journal and are offered again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bus} did not take events: {detail}")]
pub struct EventsNotTaken {
    /// The provider.
    pub bus: String,
    /// What happened, without secrets.
    pub detail: String,
    /// How many of the events, from the first, are confirmed all the same.
    pub confirmed: usize,
    /// What can help.
    pub remedy: Remedy,
}

/// A bus that takes events in order.
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Name for logs.
    fn name(&self) -> &str;

    /// Makes ready to publish before there is anything to publish: what subscribers bind to exists from the start.
    ///
    /// # Errors
    ///
    /// [`EventsNotTaken`] with nothing confirmed. Publishing makes ready too.
    async fn prepare(&self) -> Result<(), EventsNotTaken>;

    /// Publishes in order; `Ok` means that every event is confirmed. One that nobody listens to is confirmed and gone:
    /// the journal has it.
    ///
    /// Events may come again after a crash or an error: at least once. Dropping the future is safe.
    ///
    /// # Errors
    ///
    /// [`EventsNotTaken`] with the confirmed prefix.
    async fn publish(&self, events: &[EventMessage]) -> Result<(), EventsNotTaken>;
}
