//! Ports for servers of a test.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener};

/// Below this a port needs rights, or is somebody's.
const LOWEST: u64 = 10_000;

/// A port that was free a moment ago, and that no connection is given: a server finds it free again after a kill,
/// however many connections the machine has made meanwhile.
pub(crate) fn free_port() -> u16 {
    let above = lowest_of_connections();
    loop {
        let random = RandomState::new().hash_one(());
        let port = u16::try_from(LOWEST + random % (above - LOWEST)).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The lowest port that the kernel gives to connections.
fn lowest_of_connections() -> u64 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let lowest: u64 = range.split_whitespace().next().unwrap().parse().unwrap();
    lowest.max(LOWEST + 1_000)
}
