//! RabbitMQ: where outputs go, where receipts come from, and where the second mark of logs on Redis is.
//!
//! Reading order: the connection, what has to be on the broker, an output's routing key and message, messages on their
//! way, their publisher, the fan-out, the trading plane's events, the copies of what does not fit, the source, the
//! marks.

mod connection;
mod dead_letters;
#[cfg(test)]
mod definitions;
mod fan_out;
mod marks;
#[cfg(feature = "mutants")]
mod mutants;
mod properties;
mod publisher;
mod routing_key;
mod source;
mod topology;
mod trading_events;
mod window;

pub use connection::{BadEndpoint, RabbitEndpoint};
pub use fan_out::{RabbitFanOut, RabbitFanOutOptions};
pub use marks::{RabbitMarks, RabbitMarksOptions};
pub use source::{RabbitItems, RabbitSourceFactory, RabbitSourceOptions};
pub use topology::TopologyMode;
pub use trading_events::{RabbitEventBus, RabbitEventBusOptions};
