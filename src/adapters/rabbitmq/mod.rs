//! RabbitMQ: where outputs go, and where receipts come from.
//!
//! Reading order: the connection, what has to be on the broker, an output's message, messages on their way, the
//! fan-out, the copies of what is no receipt, the source.

mod connection;
mod dead_letters;
#[cfg(test)]
mod definitions;
mod fan_out;
#[cfg(feature = "mutants")]
mod mutants;
mod properties;
mod source;
mod topology;
mod window;

pub use connection::{BadEndpoint, RabbitEndpoint};
pub use fan_out::{RabbitFanOut, RabbitFanOutOptions};
pub use source::{RabbitSourceFactory, RabbitSourceOptions};
pub use topology::TopologyMode;
