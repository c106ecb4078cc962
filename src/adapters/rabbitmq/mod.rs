//! RabbitMQ: where outputs go, and where receipts come from.
//!
//! Reading order: the connection, what has to be on the broker, an output's message, messages on their way, the
//! fan-out, the source.

mod connection;
mod fan_out;
mod properties;
mod topology;
mod window;

pub use connection::{BadEndpoint, RabbitEndpoint};
pub use fan_out::{RabbitFanOut, RabbitFanOutOptions};
pub use topology::TopologyMode;
