//! Free loopback ports.

use std::net::{Ipv4Addr, TcpListener};

/// A port that was free a moment ago. The caller starts its server on it at once and tries another one when somebody
/// was quicker.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}
