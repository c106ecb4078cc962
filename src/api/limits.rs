//! The bounds of the HTTP interface.

use std::time::Duration;

/// Bounds of connections, requests and streams. Beyond each of them there is an answer that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at a time; further ones wait to be accepted.
    pub connections_max: usize,
    /// Time for the head of a request, and for the next request on an idle connection.
    pub header_timeout: Duration,
    /// How long a client may accept no byte of an answer. Then it is disconnected.
    pub write_timeout: Duration,
    /// Time for a request from its head to its answer. Streams are exempt.
    pub request_timeout: Duration,
    /// How long requests may go on after the shutdown began. Then they are cut off.
    pub drain_timeout: Duration,
    /// Largest request body in bytes.
    pub body_bytes_max: usize,
    /// Bytes of all request bodies that are held at a time; at least `body_bytes_max`. Less than 4 GiB.
    pub body_bytes_in_flight_max: usize,
    /// Receipts in one request.
    pub lines_max: usize,
    /// Event streams at a time. Less than `connections_max`, so that there is room for requests.
    pub subscribers_max: usize,
    /// How often a silent event stream shows that it is alive.
    pub heartbeat: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(10),
            body_bytes_max: 1 << 20,
            body_bytes_in_flight_max: 64 << 20,
            lines_max: 10_000,
            subscribers_max: 256,
            heartbeat: Duration::from_secs(15),
        }
    }
}
