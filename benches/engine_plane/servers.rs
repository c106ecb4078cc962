//! The private servers of the live tests.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "shared with the live tests, which use the rest and may panic"
)]

#[path = "../../tests/live/support/deviations.rs"]
pub(crate) mod deviations;
#[path = "../../tests/live/support/ports.rs"]
pub(crate) mod ports;
#[path = "../../tests/live/support/rabbit_server.rs"]
pub(crate) mod rabbit_server;
#[path = "../../tests/live/support/redis_server.rs"]
pub(crate) mod redis_server;
#[path = "../../tests/live/support/secrets.rs"]
pub(crate) mod secrets;
#[path = "../../tests/support/small_disk.rs"]
pub(crate) mod small_disk;
