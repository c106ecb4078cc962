//! RabbitMQ: where outputs go, where receipts come from, and where the second mark of logs on Redis is.
//!
//! Reading order: the connection, what has to be on the broker, an output's routing key and message, messages on their
//! way, the fan-out, the copies of what is no receipt, the source, the marks.

mod connection;
mod dead_letters;
#[cfg(test)]
mod definitions;
mod fan_out;
mod marks;
#[cfg(feature = "mutants")]
mod mutants;
mod properties;
mod routing_key;
mod source;
mod topology;
mod window;

pub use connection::{BadEndpoint, RabbitEndpoint};
pub use fan_out::{RabbitFanOut, RabbitFanOutOptions};
pub use marks::{RabbitMarks, RabbitMarksOptions};
pub use source::{RabbitSourceFactory, RabbitSourceOptions};
pub use topology::TopologyMode;
